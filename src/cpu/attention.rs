//! Scaled dot-product attention. Twin of `shaders/attention.wgsl`.

use super::gemm::{Kernel, PANEL, Panels, ROWS, multiply, pack, vectorised};
use super::math::exp;
use super::parallel::for_each_chunk;

/// Sizes of an attention.
#[derive(Clone, Copy, Debug)]
pub struct Geometry {
    /// Queries of each batch element.
    pub query_tokens: usize,
    /// Keys of each batch element.
    pub key_tokens: usize,
    /// Channels of all heads together.
    pub channels: usize,
    /// Number of heads.
    pub heads: usize,
    /// A token sees itself and those before it only.
    pub causal: bool,
}

/// softmax(q kᵀ / √head_size) v; `q` and `out` are `[batch, query_tokens, channels]`, `k` and `v` `[batch, key_tokens, channels]`.
pub fn attention(geometry: Geometry, q: &[f32], k: &[f32], v: &[f32], out: &mut [f32]) {
    let Geometry { query_tokens, key_tokens, channels, heads, .. } = geometry;
    let size = channels / heads;
    let work = 2 * query_tokens * key_tokens * channels;
    let keys = k.chunks_exact(key_tokens * channels).zip(v.chunks_exact(key_tokens * channels));
    let queries = q.chunks_exact(query_tokens * channels).zip(out.chunks_exact_mut(query_tokens * channels));
    for ((k, v), (q, out)) in keys.zip(queries) {
        let packed: Vec<(Panels, Panels)> = (0..heads)
            .map(|head| {
                let transposed = Panels::from_fn(size, key_tokens, |c, token| k[token * channels + head * size + c]);
                let values = Panels::from_fn(key_tokens, size, |token, c| v[token * channels + head * size + c]);
                (transposed, values)
            })
            .collect();
        for_each_chunk(out, ROWS * channels, work, |index, out| {
            for (head, (k, v)) in packed.iter().enumerate() {
                vectorised(Block { geometry, q, k, v, head, first: index * ROWS, out: &mut *out });
            }
        });
    }
}

/// Up to [`ROWS`] queries of one head.
struct Block<'a> {
    geometry: Geometry,
    q: &'a [f32],
    k: &'a Panels,
    v: &'a Panels,
    head: usize,
    first: usize,
    out: &'a mut [f32],
}

impl Kernel for Block<'_> {
    #[inline(always)]
    fn run(self) {
        let Geometry { key_tokens, channels, heads, causal, .. } = self.geometry;
        let size = channels / heads;
        let column = self.head * size;
        let count = self.out.len() / channels;
        let mut packed = vec![0.0; ROWS * size.max(key_tokens)];
        for row in 0..count {
            pack(&mut packed, row, &self.q[(self.first + row) * channels + column..][..size]);
        }
        let scale = 1.0 / (size as f32).sqrt();
        let stride = key_tokens.next_multiple_of(PANEL);
        let mut scores = vec![0.0; ROWS * stride];
        for (panel, values) in self.k.iter().enumerate() {
            for (row, sums) in multiply(&packed[..ROWS * size], values).iter().enumerate() {
                scores[row * stride + panel * PANEL..][..PANEL].copy_from_slice(sums);
            }
        }
        let mut sums = [1.0; ROWS];
        for (row, scores) in scores.chunks_exact_mut(stride).enumerate() {
            let seen = if causal { (self.first + row + 1).min(key_tokens) } else { key_tokens };
            let (seen, hidden) = scores.split_at_mut(seen);
            let largest = seen.iter().fold(f32::NEG_INFINITY, |m, &s| m.max(s));
            seen.iter_mut().for_each(|s| *s = exp((*s - largest) * scale));
            hidden.fill(0.0);
            sums[row] = seen.iter().sum();
        }
        for (row, scores) in scores.chunks_exact(stride).enumerate() {
            pack(&mut packed, row, &scores[..key_tokens]);
        }
        for (panel, values) in self.v.iter().enumerate() {
            let tile = multiply(&packed[..ROWS * key_tokens], values);
            let width = PANEL.min(size - panel * PANEL);
            for (row, values) in tile.iter().enumerate().take(count) {
                let at = row * channels + column + panel * PANEL;
                for (out, value) in self.out[at..at + width].iter_mut().zip(values) {
                    *out = value / sums[row];
                }
            }
        }
    }
}
