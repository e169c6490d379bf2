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
pub fn activate(x: f64, activation: Activation) -> f64 {
    match activation {
        Activation::Silu => x * sigmoid(x),
        Activation::Gelu => gelu(x),
        Activation::GeluTanh => 0.5 * x * (1.0 + ((2.0 / PI).sqrt() * (x + 0.044_715 * x * x * x)).tanh()),
        Activation::QuickGelu => x * sigmoid(1.702 * x),
        Activation::Mish => x * x.exp().ln_1p().tanh(),
        Activation::Relu => x.max(0.0),
        Activation::Tanh => x.tanh(),
        Activation::Exp => x.exp(),
        Activation::Sqrt => x.sqrt(),
    }
}

/// The slope f′(x) of an activation f.
#[cfg(feature = "training")]
pub fn slope(x: f64, activation: Activation) -> f64 {
    let density = (-0.5 * x * x).exp() / (2.0 * PI).sqrt();
    match activation {
        Activation::Silu => sigmoid(x) * (1.0 + x * (1.0 - sigmoid(x))),
        Activation::Gelu => 0.5 * (1.0 + libm::erf(x * FRAC_1_SQRT_2)) + x * density,
        Activation::GeluTanh => {
            let c = (2.0 / PI).sqrt();
            let tanh = (c * (x + 0.044_715 * x * x * x)).tanh();
            0.5 * (1.0 + tanh) + 0.5 * x * (1.0 - tanh * tanh) * c * (1.0 + 3.0 * 0.044_715 * x * x)
        }
        Activation::QuickGelu => {
            let s = sigmoid(1.702 * x);
            s * (1.0 + 1.702 * x * (1.0 - s))
        }
        Activation::Mish => {
            let tanh = x.exp().ln_1p().tanh();
            tanh + x * (1.0 - tanh * tanh) * sigmoid(x)
        }
        // At zero, as in torch.
        Activation::Relu => f64::from(x > 0.0),
        Activation::Tanh => 1.0 - x.tanh() * x.tanh(),
        Activation::Exp => x.exp(),
        Activation::Sqrt => 0.5 / x.sqrt(),
    }
}

/// `x` is `[rows, 2 * channels]`, `out` `[rows, channels]`: first half times gelu of the second.
pub fn geglu(x: &[f64], out: &mut [f64], channels: usize) {
    for (row, out) in x.chunks_exact(2 * channels).zip(out.chunks_exact_mut(channels)) {
        let (value, gate) = row.split_at(channels);
        for ((out, &value), &gate) in out.iter_mut().zip(value).zip(gate) {
            *out = value * gelu(gate);
        }
    }
}
