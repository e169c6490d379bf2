//! Element-wise non-linearities and GEGLU. Twin of `shaders/activation.wgsl`.

use super::math::{exp, sigmoid, tanh};
use crate::graph::Activation;

/// gelu(x) = x · Φ(x), exact.
fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + libm::erff(x * std::f32::consts::FRAC_1_SQRT_2))
}

fn gelu_tanh(x: f32) -> f32 {
    let inner = (2.0 / std::f32::consts::PI).sqrt() * (x + 0.044_715 * x * x * x);
    0.5 * x * (1.0 + tanh(inner))
}

fn mish(x: f32) -> f32 {
    // tanh(ln(1 + eˣ)) = (w − 1) / (w + 1) for w = (1 + eˣ)², and is 1 in f32 long before w overflows.
    let e = exp(x.min(20.0));
    x * (e * (e + 2.0)) / (e * (e + 2.0) + 2.0)
}

/// Applies `activation` in place.
pub fn activate(values: &mut [f32], activation: Activation) {
    fn each(values: &mut [f32], f: impl Fn(f32) -> f32) {
        values.iter_mut().for_each(|x| *x = f(*x));
    }
    match activation {
        Activation::Silu => each(values, |x| x * sigmoid(x)),
        Activation::Gelu => each(values, gelu),
        Activation::GeluTanh => each(values, gelu_tanh),
        Activation::QuickGelu => each(values, |x| x * sigmoid(1.702 * x)),
        Activation::Mish => each(values, mish),
        Activation::Relu => each(values, |x| x.max(0.0)),
        Activation::Tanh => each(values, tanh),
        Activation::Exp => each(values, exp),
        Activation::Sqrt => each(values, f32::sqrt),
    }
}

/// `x` is `[rows, 2 * channels]`, `out` `[rows, channels]`: first half times gelu of the second.
pub fn geglu(x: &[f32], out: &mut [f32], channels: usize) {
    for (row, out) in x.chunks_exact(2 * channels).zip(out.chunks_exact_mut(channels)) {
        let (value, gate) = row.split_at(channels);
        for ((out, &value), &gate) in out.iter_mut().zip(value).zip(gate) {
            *out = value * gelu(gate);
        }
    }
}
