//! Element-wise non-linearities and GEGLU. Twin of `shaders/activation.wgsl`.

use std::f64::consts::{FRAC_1_SQRT_2, PI};

use crate::graph::Activation;

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// x · Φ(x).
fn gelu(x: f64) -> f64 {
    0.5 * x * (1.0 + libm::erf(x * FRAC_1_SQRT_2))
}

/// The value of `activation` at `x`.
pub fn activate(x: f32, activation: Activation) -> f32 {
    let x = f64::from(x);
    let y = match activation {
        Activation::Silu => x * sigmoid(x),
        Activation::Gelu => gelu(x),
        Activation::GeluTanh => 0.5 * x * (1.0 + ((2.0 / PI).sqrt() * (x + 0.044_715 * x * x * x)).tanh()),
        Activation::QuickGelu => x * sigmoid(1.702 * x),
        Activation::Mish => x * x.exp().ln_1p().tanh(),
        Activation::Relu => x.max(0.0),
        Activation::Tanh => x.tanh(),
        Activation::Exp => x.exp(),
        Activation::Sqrt => x.sqrt(),
    };
    y as f32
}

/// `x` is `[rows, 2 * channels]`, `out` `[rows, channels]`: first half times gelu of the second.
pub fn geglu(x: &[f32], out: &mut [f32], channels: usize) {
    for (row, out) in x.chunks_exact(2 * channels).zip(out.chunks_exact_mut(channels)) {
        let (value, gate) = row.split_at(channels);
        for ((out, &value), &gate) in out.iter_mut().zip(value).zip(gate) {
            *out = (f64::from(value) * gelu(f64::from(gate))) as f32;
        }
    }
}
