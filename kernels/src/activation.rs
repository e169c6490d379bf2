//! Element-wise non-linearities, and GEGLU.

use bytemuck::{Pod, Zeroable};

use crate::grid::{MAX_PARTS, cut};
use crate::math::{erf, exp, tanh, times_sigmoid};
use crate::simd::Simd;
use crate::tile::{load_up_to, store_up_to};
use crate::{Activation, Compute};

/// Numbers that are worth a part of their own.
const WORTH_A_PART: usize = 1 << 14;

/// x · Φ(x), exact.
#[inline(always)]
unsafe fn gelu<S: Simd>(x: S::Vector) -> S::Vector {
    let scaled = S::mul(x, S::splat(core::f32::consts::FRAC_1_SQRT_2));
    S::mul(S::mul(S::splat(0.5), x), S::add(S::splat(1.0), erf::<S>(scaled)))
}

#[inline(always)]
unsafe fn gelu_tanh<S: Simd>(x: S::Vector) -> S::Vector {
    let cube = S::mul(S::mul(x, x), x);
    // √(2/π)
    let inner = S::mul(S::splat(0.797_884_6), S::mul_add(S::splat(0.044_715), cube, x));
    S::mul(S::mul(S::splat(0.5), x), S::add(S::splat(1.0), tanh::<S>(inner)))
}

#[inline(always)]
unsafe fn mish<S: Simd>(x: S::Vector) -> S::Vector {
    // tanh(ln(1 + eˣ)) = w / (w + 2) for w = eˣ (eˣ + 2), and is 1 in f32 long before w overflows.
    let e = exp::<S>(S::min(x, S::splat(20.0)));
    let w = S::mul(e, S::add(e, S::splat(2.0)));
    S::mul(x, S::div(w, S::add(w, S::splat(2.0))))
}

/// Writes the activation of `count` consecutive numbers; `x` may be `out`.
#[inline(always)]
pub(crate) unsafe fn activate<S: Simd>(x: *const f32, out: *mut f32, count: usize, activation: Activation) {
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
        Activation::SILU => each!(|x| times_sigmoid::<S>(x, x)),
        Activation::GELU => each!(|x| gelu::<S>(x)),
        Activation::GELU_TANH => each!(|x| gelu_tanh::<S>(x)),
        Activation::QUICK_GELU => each!(|x| times_sigmoid::<S>(x, S::mul(S::splat(1.702), x))),
        Activation::MISH => each!(|x| mish::<S>(x)),
        Activation::RELU => each!(|x| S::max(x, S::splat(0.0))),
        Activation::TANH => each!(|x| tanh::<S>(x)),
        Activation::EXP => each!(|x| exp::<S>(x)),
        Activation::SQRT => each!(|x| S::sqrt(x)),
        _ if core::ptr::eq(x, out) => {}
        _ => each!(|x| x),
    }
}

/// An activation by itself.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Activate {
    /// `[count]`.
    pub x: usize,
    /// `[count]`; may be `x`.
    pub out: usize,
    /// Number of elements.
    pub count: usize,
    /// The activation.
    pub activation: Activation,
}

impl Activate {
    pub(crate) fn count_parts(&self) -> usize {
        (self.count / WORTH_A_PART).clamp(1, MAX_PARTS)
    }
}

impl Compute for Activate {
    #[inline(always)]
    unsafe fn compute<S: Simd>(&self, part: usize) {
        let [start, end] = cut(part, self.count_parts(), self.count, 16);
        let (x, out) = ((self.x as *const f32).add(start), (self.out as *mut f32).add(start));
        activate::<S>(x, out, end - start, self.activation);
    }
}

/// a · gelu(b) for a = the first half of each row and b = the second.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Geglu {
    /// `[rows, 2 * channels]`.
    pub x: usize,
    /// `[rows, channels]`.
    pub out: usize,
    /// Rows.
    pub rows: usize,
    /// Numbers of a row of the result.
    pub channels: usize,
}

impl Geglu {
    pub(crate) fn count_parts(&self) -> usize {
        (self.rows * self.channels / WORTH_A_PART).clamp(1, MAX_PARTS.min(self.rows.max(1)))
    }
}

impl Compute for Geglu {
    #[inline(always)]
    unsafe fn compute<S: Simd>(&self, part: usize) {
        let [start, end] = cut(part, self.count_parts(), self.rows, 1);
        for row in start..end {
            let x = (self.x as *const f32).add(row * 2 * self.channels);
            let out = (self.out as *mut f32).add(row * self.channels);
            let mut channel = 0;
            while channel < self.channels {
                let left = self.channels - channel;
                let gate = gelu::<S>(load_up_to::<S>(x.add(self.channels + channel), left));
                let value = load_up_to::<S>(x.add(channel), left);
                store_up_to::<S>(out.add(channel), S::mul(value, gate), left);
                channel += S::LANES;
            }
        }
    }
}
