//! Derivatives of the activations.
//!
//! Those with a sigmoid s take it as 1 / (1 + e) and 1 − s as e / (1 + e), which loses nothing where s is close to 1. Where x is so
//! large that the slope has reached its limit, it is cut off: a product of an infinity and a zero would be no number.

use crate::Activation;
use crate::math::{erf, exp};
use crate::simd::Simd;
use crate::tile::{load_up_to, store_up_to};

/// x between two limits; not a number for that.
#[inline(always)]
unsafe fn within<S: Simd>(x: S::Vector, lowest: f32, highest: f32) -> S::Vector {
    S::min(S::max(x, S::splat(lowest)), S::splat(highest))
}

/// d/dx x · sigmoid(x) = s · (1 + x · (1 − s)).
#[inline(always)]
pub(crate) unsafe fn silu<S: Simd>(x: S::Vector) -> S::Vector {
    let one = S::splat(1.0);
    let x = within::<S>(x, -80.0, 80.0);
    let e = exp::<S>(S::sub(S::splat(0.0), x));
    let sigmoid = S::div(one, S::add(one, e));
    S::mul(sigmoid, S::mul_add(x, S::mul(e, sigmoid), one))
}

/// d/dx x · Φ(x) = Φ(x) + x · φ(x).
#[inline(always)]
unsafe fn gelu<S: Simd>(x: S::Vector) -> S::Vector {
    let x = within::<S>(x, -20.0, 20.0);
    let scaled = S::mul(x, S::splat(core::f32::consts::FRAC_1_SQRT_2));
    let integral = S::mul(S::splat(0.5), S::add(S::splat(1.0), erf::<S>(scaled)));
    let density = exp::<S>(S::mul(S::mul(x, x), S::splat(-0.5)));
    // 1 / √(2π)
    S::mul_add(S::mul(x, S::splat(0.398_942_3)), density, integral)
}

/// d/dx x · s for s = sigmoid(2u), u = √(2/π) (x + 0.044715 x³): s + x · s · (1 − s) · 2u′.
#[inline(always)]
unsafe fn gelu_tanh<S: Simd>(x: S::Vector) -> S::Vector {
    // 2 √(2/π)
    const SCALE: f32 = 1.595_769;
    let one = S::splat(1.0);
    let x = within::<S>(x, -9.0, 9.0);
    let square = S::mul(x, x);
    let inner = S::mul(S::mul(S::splat(SCALE), x), S::mul_add(S::splat(0.044_715), square, one));
    let slope = S::mul(S::splat(SCALE), S::mul_add(S::splat(3.0 * 0.044_715), square, one));
    let e = exp::<S>(S::sub(S::splat(0.0), inner));
    let sigmoid = S::div(one, S::add(one, e));
    S::mul(sigmoid, S::mul_add(S::mul(x, slope), S::mul(e, sigmoid), one))
}

/// d/dx x · w / (w + 2) for w = eˣ (eˣ + 2), which is w / (w + 2) + 4x eˣ (eˣ + 1) / (w + 2)².
#[inline(always)]
unsafe fn mish<S: Simd>(x: S::Vector) -> S::Vector {
    let one = S::splat(1.0);
    let x = within::<S>(x, -80.0, 20.0);
    let e = exp::<S>(x);
    let w = S::mul(e, S::add(e, S::splat(2.0)));
    let inverse = S::div(one, S::add(w, S::splat(2.0)));
    let steep = S::mul(S::mul(S::splat(4.0), S::mul(x, e)), S::mul(S::add(e, one), inverse));
    S::mul(S::add(w, steep), inverse)
}

/// d/dx tanh(x) = 4 s · (1 − s) for s = sigmoid(2x).
#[inline(always)]
unsafe fn tanh<S: Simd>(x: S::Vector) -> S::Vector {
    let one = S::splat(1.0);
    let e = exp::<S>(S::mul(S::splat(-2.0), S::abs(x)));
    let sigmoid = S::div(one, S::add(one, e));
    S::mul(S::mul(S::splat(4.0), e), S::mul(sigmoid, sigmoid))
}

/// Writes the slope of the activation at `count` consecutive numbers; `x` may be `out`. That of the rectifier at 0 is 0.
#[inline(always)]
pub(crate) unsafe fn slopes<S: Simd>(x: *const f32, out: *mut f32, count: usize, activation: Activation) {
    macro_rules! each {
        (|$x:ident| $result:expr) => {{
            let mut index = 0;
            while index < count {
                let left = count - index;
                let $x = load_up_to::<S>(x.add(index), left);
                store_up_to::<S>(out.add(index), $result, left);
                index += S::LANES;
            }
        }};
    }
    match activation {
        Activation::SILU => each!(|x| silu::<S>(x)),
        Activation::GELU => each!(|x| gelu::<S>(x)),
        Activation::GELU_TANH => each!(|x| gelu_tanh::<S>(x)),
        // t · sigmoid(t) / 1.702 for t = 1.702 x.
        Activation::QUICK_GELU => each!(|x| silu::<S>(S::mul(S::splat(1.702), x))),
        Activation::MISH => each!(|x| mish::<S>(x)),
        Activation::RELU => each!(|x| S::if_less(S::splat(0.0), x, S::splat(1.0), S::splat(0.0))),
        Activation::TANH => each!(|x| tanh::<S>(x)),
        Activation::EXP => each!(|x| exp::<S>(x)),
        Activation::SQRT => each!(|x| S::div(S::splat(0.5), S::sqrt(x))),
        _ => {
            for index in 0..count {
                *out.add(index) = 1.0;
            }
        }
    }
}
