//! Scaled dot-product attention. Twin of `shaders/attention.wgsl`.

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
pub fn attention(geometry: Geometry, q: &[f64], k: &[f64], v: &[f64], out: &mut [f64]) {
    let Geometry { query_tokens, key_tokens, channels, heads, causal } = geometry;
    let size = channels / heads;
    let scale = 1.0 / (size as f64).sqrt();
    for (index, out) in out.chunks_exact_mut(size).enumerate() {
        let (head, query, batch) = (index % heads, index / heads % query_tokens, index / heads / query_tokens);
        let start = |tokens: usize, token: usize| ((batch * tokens + token) * heads + head) * size;
        let q = row(q, start(query_tokens, query), size);
        let seen = if causal { (query + 1).min(key_tokens) } else { key_tokens };
        let dot =
            |token| q.clone().zip(row(k, start(key_tokens, token), size)).map(|(q, k)| q * k).sum::<f64>() * scale;
        let scores: Vec<f64> = (0..seen).map(dot).collect();
        let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
        let mut mixed = vec![0.0; size];
        for (token, weight) in weights.iter().enumerate() {
            mixed.iter_mut().zip(row(v, start(key_tokens, token), size)).for_each(|(mixed, v)| *mixed += weight * v);
        }
        let sum: f64 = weights.iter().sum();
        out.iter_mut().zip(mixed).for_each(|(out, mixed)| *out = mixed / sum);
    }
}

/// `size` numbers from `start` on.
fn row(tensor: &[f64], start: usize, size: usize) -> impl Iterator<Item = f64> + Clone {
    tensor[start..start + size].iter().copied()
}
