//! Gradients of the element-wise non-linearities.

use bytemuck::{Pod, Zeroable};

use super::slope::slopes;
use crate::activation::activate;
use crate::grid::{MAX_PARTS, cut};
use crate::simd::Simd;
use crate::tile::{load_up_to, store_up_to};
use crate::{Activation, Compute};

/// Numbers that are worth a part of their own.
const WORTH_A_PART: usize = 1 << 14;

/// Multiplies `count` consecutive numbers by those at `factor`.
#[inline(always)]
unsafe fn multiply<S: Simd>(out: *mut f32, factor: *const f32, count: usize) {
    let mut index = 0;
    while index < count {
        let left = count - index;
        let product = S::mul(load_up_to::<S>(out.add(index), left), load_up_to::<S>(factor.add(index), left));
        store_up_to::<S>(out.add(index), product, left);
        index += S::LANES;
    }
}

/// upstream · f′(x) for an activation f.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct ActivateGradient {
    /// `[count]`.
    pub x: usize,
    /// `[count]`.
    pub upstream: usize,
    /// `[count]`; may be `x`.
    pub out: usize,
    /// Number of elements.
    pub count: usize,
    /// The activation.
    pub activation: Activation,
}

impl ActivateGradient {
    pub(crate) fn count_parts(&self) -> usize {
        (self.count / WORTH_A_PART).clamp(1, MAX_PARTS)
    }
}

impl Compute for ActivateGradient {
    #[inline(always)]
    unsafe fn compute<S: Simd>(&self, part: usize) {
        let [start, end] = cut(part, self.count_parts(), self.count, 16);
        let (x, out) = ((self.x as *const f32).add(start), (self.out as *mut f32).add(start));
        slopes::<S>(x, out, end - start, self.activation);
        multiply::<S>(out, (self.upstream as *const f32).add(start), end - start);
    }
}

/// dL/dx of a · gelu(b) for a = the first half of each row of x and b = the second.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct GegluGradient {
    /// `[rows, 2 * channels]`.
    pub x: usize,
    /// `[rows, channels]`.
    pub upstream: usize,
    /// `[rows, 2 * channels]`.
    pub out: usize,
    /// Rows.
    pub rows: usize,
    /// Numbers of a row of `upstream`.
    pub channels: usize,
}

impl GegluGradient {
    pub(crate) fn count_parts(&self) -> usize {
        (2 * self.rows * self.channels / WORTH_A_PART).clamp(1, MAX_PARTS.min(self.rows.max(1)))
    }
}

impl Compute for GegluGradient {
    #[inline(always)]
    unsafe fn compute<S: Simd>(&self, part: usize) {
        let [start, end] = cut(part, self.count_parts(), self.rows, 1);
        for row in start..end {
            let value = (self.x as *const f32).add(row * 2 * self.channels);
            let gate = value.add(self.channels);
            let of_value = (self.out as *mut f32).add(row * 2 * self.channels);
            let of_gate = of_value.add(self.channels);
            let upstream = (self.upstream as *const f32).add(row * self.channels);
            activate::<S>(gate, of_value, self.channels, Activation::GELU);
            multiply::<S>(of_value, upstream, self.channels);
            slopes::<S>(gate, of_gate, self.channels, Activation::GELU);
            multiply::<S>(of_gate, value, self.channels);
            multiply::<S>(of_gate, upstream, self.channels);
        }
    }
}
