//! The gradients of ops, as sums over what a forward op has read, in the order in which it has read it.

use super::activation;
use super::attention;
use super::convolution;
use super::resample::{self, Window};
use crate::graph::{Activation, Pooling};

/// Calls `each` with the indices of x, of the weight and of y of every product of a convolution.
fn for_each_product(geometry: convolution::Geometry, batch: usize, mut each: impl FnMut(usize, usize, usize)) {
    let convolution::Geometry { input, channels, kernel, stride, padding, output, out_channels } = geometry;
    for index in 0..batch * output[0] * output[1] * out_channels {
        let (n, pixel) = (index % out_channels, index / out_channels);
        let (column, row, picture) = (pixel % output[1], pixel / output[1] % output[0], pixel / output[1] / output[0]);
        for tap in 0..kernel[0] * kernel[1] {
            let (ky, kx) = (tap / kernel[1], tap % kernel[1]);
            // Without a sign, what lies above or to the left is beyond the last row or column.
            let y = (row * stride + ky).wrapping_sub(padding.top);
            let x = (column * stride + kx).wrapping_sub(padding.left);
            if y < input[0] && x < input[1] {
                for c in 0..channels {
                    let from = ((picture * input[0] + y) * input[1] + x) * channels + c;
                    each(from, ((n * channels + c) * kernel[0] + ky) * kernel[1] + kx, index);
                }
            }
        }
    }
}

/// dL/dx of a convolution.
pub fn conv2d_input(geometry: convolution::Geometry, upstream: &[f64], weight: &[f64], out: &mut [f64]) {
    out.fill(0.0);
    let batch = out.len() / (geometry.input[0] * geometry.input[1] * geometry.channels);
    for_each_product(geometry, batch, |x, w, y| out[x] += upstream[y] * weight[w]);
}

/// dL/dW of a convolution.
pub fn conv2d_weight(geometry: convolution::Geometry, x: &[f64], upstream: &[f64], out: &mut [f64]) {
    out.fill(0.0);
    let batch = x.len() / (geometry.input[0] * geometry.input[1] * geometry.channels);
    for_each_product(geometry, batch, |from, w, y| out[w] += upstream[y] * x[from]);
}

/// dL/dx of a linear layer.
pub fn linear_input([inner, outer]: [usize; 2], upstream: &[f64], weight: &[f64], out: &mut [f64]) {
    for (out, upstream) in out.chunks_exact_mut(inner).zip(upstream.chunks_exact(outer)) {
        for (c, out) in out.iter_mut().enumerate() {
            *out = upstream.iter().enumerate().map(|(n, upstream)| upstream * weight[n * inner + c]).sum();
        }
    }
}

/// dL/dW of a linear layer.
pub fn linear_weight([inner, outer]: [usize; 2], x: &[f64], upstream: &[f64], out: &mut [f64]) {
    out.fill(0.0);
    for (x, upstream) in x.chunks_exact(inner).zip(upstream.chunks_exact(outer)) {
        for (out, upstream) in out.chunks_exact_mut(inner).zip(upstream) {
            out.iter_mut().zip(x).for_each(|(out, x)| *out += upstream * x);
        }
    }
}

/// A normalisation: `x` and `upstream` are `[sets, pixels, channels]`, normalised over the pixels and the channels of a group.
pub struct Norm<'a> {
    /// The forward op's operand.
    pub x: &'a [f64],
    /// dL/dy.
    pub upstream: &'a [f64],
    /// γ.
    pub weight: &'a [f64],
    /// β.
    pub bias: &'a [f64],
    /// Pixels of a set.
    pub pixels: usize,
    /// Groups of channels.
    pub groups: usize,
    /// Number added to the variance.
    pub eps: f64,
    /// Activation of the result.
    pub activation: Option<Activation>,
}

impl Norm<'_> {
    /// For each group its elements, with their x̂ and dL/d(γ x̂ + β), and 1/σ.
    fn for_each_group(&self, mut each: impl FnMut(&[(usize, f64, f64)], f64)) {
        let channels = self.weight.len();
        let size = channels / self.groups;
        for set in 0..self.x.len() / (self.pixels * channels) {
            for group in 0..self.groups {
                let pixels = (0..self.pixels).map(|pixel| (set * self.pixels + pixel) * channels + group * size);
                let indices: Vec<usize> = pixels.flat_map(|first| first..first + size).collect();
                let count = indices.len() as f64;
                let mean = indices.iter().map(|&i| self.x[i]).sum::<f64>() / count;
                let variance = indices.iter().map(|&i| (self.x[i] - mean).powi(2)).sum::<f64>() / count;
                let scale = 1.0 / (variance + self.eps).sqrt();
                let element = |&i: &usize| {
                    let normal = (self.x[i] - mean) * scale;
                    let slope = self.activation.map_or(1.0, |activation| {
                        activation::slope(normal * self.weight[i % channels] + self.bias[i % channels], activation)
                    });
                    (i, normal, self.upstream[i] * slope)
                };
                each(&indices.iter().map(element).collect::<Vec<_>>(), scale);
            }
        }
    }

    /// dL/dx, then dL/dγ, then dL/dβ.
    pub fn gradient(&self, out: &mut [f64]) {
        let channels = self.weight.len();
        let gamma = |i: usize| self.weight[i % channels];
        let (out, affine) = out.split_at_mut(self.x.len());
        affine.fill(0.0);
        self.for_each_group(|elements, scale| {
            let count = elements.len() as f64;
            let mean = elements.iter().map(|&(i, _, upstream)| upstream * gamma(i)).sum::<f64>() / count;
            let along = elements.iter().map(|&(i, normal, upstream)| upstream * gamma(i) * normal).sum::<f64>() / count;
            for &(i, normal, upstream) in elements {
                out[i] = scale * (upstream * gamma(i) - mean - normal * along);
            }
            for &(i, normal, upstream) in elements {
                affine[i % channels] += upstream * normal;
                affine[channels + i % channels] += upstream;
            }
        });
    }
}

/// dL/dq, then dL/dk, then dL/dv.
pub fn attention(geometry: attention::Geometry, [q, k, v, upstream]: [&[f64]; 4], out: &mut [f64]) {
    let attention::Geometry { query_tokens, key_tokens, channels, heads, causal } = geometry;
    let size = channels / heads;
    let scale = 1.0 / (size as f64).sqrt();
    out.fill(0.0);
    let (of_q, rest) = out.split_at_mut(q.len());
    let (of_k, of_v) = rest.split_at_mut(k.len());
    for batch in 0..q.len() / (query_tokens * channels) {
        for head in 0..heads {
            let at = |tokens: usize, token: usize| (batch * tokens + token) * channels + head * size;
            for query in 0..query_tokens {
                let seen = if causal { (query + 1).min(key_tokens) } else { key_tokens };
                let dot = |a: &[f64], a_at: usize, b: &[f64], b_at: usize| -> f64 {
                    (0..size).map(|c| a[a_at + c] * b[b_at + c]).sum()
                };
                let own = at(query_tokens, query);
                let scores: Vec<f64> = (0..seen).map(|key| dot(q, own, k, at(key_tokens, key)) * scale).collect();
                let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let sum: f64 = scores.iter().map(|score| (score - largest).exp()).sum();
                let shares: Vec<f64> = scores.iter().map(|score| (score - largest).exp() / sum).collect();
                let of_shares: Vec<f64> = (0..seen).map(|key| dot(upstream, own, v, at(key_tokens, key))).collect();
                let mean: f64 = shares.iter().zip(&of_shares).map(|(share, of_share)| share * of_share).sum();
                for key in 0..seen {
                    let of_score = shares[key] * (of_shares[key] - mean) * scale;
                    for c in 0..size {
                        of_q[own + c] += of_score * k[at(key_tokens, key) + c];
                        of_k[at(key_tokens, key) + c] += of_score * q[own + c];
                        of_v[at(key_tokens, key) + c] += shares[key] * upstream[own + c];
                    }
                }
            }
        }
    }
}

/// dL/dx of `[rows, 2 * channels]`.
pub fn geglu(x: &[f64], upstream: &[f64], channels: usize, out: &mut [f64]) {
    let rows =
        x.chunks_exact(2 * channels).zip(out.chunks_exact_mut(2 * channels)).zip(upstream.chunks_exact(channels));
    for ((x, out), upstream) in rows {
        for c in 0..channels {
            out[c] = upstream[c] * activation::activate(x[channels + c], Activation::Gelu);
            out[channels + c] = upstream[c] * x[c] * activation::slope(x[channels + c], Activation::Gelu);
        }
    }
}

/// dL/dx of a resizing of pictures of `from` to pictures of `to`, by what the forward op makes of each pixel alone.
pub fn resize(upstream: &[f64], from: [usize; 2], to: [usize; 2], channels: usize, bilinear: bool, out: &mut [f64]) {
    let forward = if bilinear { resample::resize_bilinear } else { resample::resize_nearest };
    let (small, large) = (from[0] * from[1], to[0] * to[1]);
    let (mut alone, mut made) = (vec![0.0; small], vec![0.0; large]);
    for pixel in 0..small {
        alone.fill(0.0);
        alone[pixel] = 1.0;
        forward(&alone, from, to, 1, &mut made);
        for (picture, upstream) in upstream.chunks_exact(large * channels).enumerate() {
            for c in 0..channels {
                let shares = made.iter().enumerate().map(|(y, share)| share * upstream[y * channels + c]);
                out[(picture * small + pixel) * channels + c] = shares.sum();
            }
        }
    }
}

/// dL/dx of a pooling.
pub fn pool2d(window: Window, pooling: Pooling, x: &[f64], upstream: &[f64], out: &mut [f64]) {
    let channels = window.channels;
    out.fill(0.0);
    for (index, upstream) in upstream.iter().enumerate() {
        let seen = window.under(index / channels);
        let at = |pixel: usize| pixel * channels + index % channels;
        match pooling {
            Pooling::Average => seen.iter().for_each(|&pixel| out[at(pixel)] += upstream / seen.len() as f64),
            Pooling::Max => {
                let first_largest = seen.iter().copied().reduce(|a, b| if x[at(b)] > x[at(a)] { b } else { a });
                out[at(first_largest.unwrap_or(0))] += upstream;
            }
        }
    }
}

/// Sums along the axes of which `out_shape` has 1.
pub fn sum(x: &[f64], shape: &[usize], out_shape: &[usize], out: &mut [f64]) {
    out.fill(0.0);
    for (index, x) in x.iter().enumerate() {
        let (mut rest, mut at, mut stride) = (index, 0, 1);
        for (&length, &kept) in shape.iter().zip(out_shape).rev() {
            at += (rest % length % kept) * stride;
            rest /= length;
            stride *= kept;
        }
        out[at] += x;
    }
}

/// Adds each row of `upstream` to the row of `out` that it is a copy of.
pub fn gather(ids: &[f64], upstream: &[f64], channels: usize, out: &mut [f64]) {
    out.fill(0.0);
    for (&id, upstream) in ids.iter().zip(upstream.chunks_exact(channels)) {
        let row = &mut out[id as usize * channels..][..channels];
        row.iter_mut().zip(upstream).for_each(|(out, upstream)| *out += upstream);
    }
}
