//! An optimiser's step: weights are changed where they are.

use bytemuck::{Pod, Zeroable};

use crate::gradient::spread::sum_of_row;
use crate::simd::Simd;
use crate::tile::{load_up_to, store_up_to};
use crate::{Compute, memory};

/// Σ x².
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct SumOfSquares {
    /// `[count]`.
    pub x: usize,
    /// `[1]`.
    pub y: usize,
    /// Number of elements.
    pub count: usize,
}

impl SumOfSquares {
    pub(crate) fn count_parts(&self) -> usize {
        1
    }
}

impl Compute for SumOfSquares {
    #[inline(always)]
    unsafe fn compute<S: Simd>(&self, _part: usize) {
        *(self.y as *mut f32) = sum_of_row::<S, true>(self.x as *const f32, self.count);
    }
}

/// AdamW with clipping by the global norm: with the coefficients `[d, a, b, c, ε, r, s, n]` and g = gradient · min(1, n / (√squares +
/// 10⁻⁶)), m ← m + a·(g − m), v ← b·v + c·g², weight ← d·weight − s·m / (√v/r + ε).
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct AdamW {
    /// `[count]`, changed.
    pub weight: usize,
    /// m, `[count]`, changed.
    pub first_moment: usize,
    /// v, `[count]`, changed.
    pub second_moment: usize,
    /// `[count]`.
    pub gradient: usize,
    /// `[1]`.
    pub squares: usize,
    /// `[8]`.
    pub coefficients: usize,
    /// Number of elements.
    pub count: usize,
}

impl AdamW {
    pub(crate) fn count_parts(&self) -> usize {
        memory::parts(4 * self.count, self.count)
    }
}

impl Compute for AdamW {
    #[inline(always)]
    unsafe fn compute<S: Simd>(&self, part: usize) {
        let of = self.coefficients as *const f32;
        let number = |index: usize| S::splat(*of.add(index));
        let [kept, a, b, c, epsilon, correction, step] = [0, 1, 2, 3, 4, 5, 6].map(number);
        // As torch: a norm of zero is divided by a little more than zero, and one that is no number leaves none.
        let ratio = *of.add(7) / ((*(self.squares as *const f32)).sqrt() + 1e-6);
        let clip = S::splat(if ratio > 1.0 { 1.0 } else { ratio });
        let range = memory::range(self.count, self.count_parts(), part);
        let (mut index, end) = (range.start, range.end);
        while index < end {
            let left = end - index;
            let at = |address: usize| (address as *mut f32).add(index);
            let gradient = S::mul(load_up_to::<S>(at(self.gradient), left), clip);
            let before = load_up_to::<S>(at(self.first_moment), left);
            let first = S::mul_add(a, S::sub(gradient, before), before);
            let second = S::mul(b, load_up_to::<S>(at(self.second_moment), left));
            let second = S::mul_add(S::mul(c, gradient), gradient, second);
            let spread = S::add(S::div(S::sqrt(second), correction), epsilon);
            let weight = S::mul(kept, load_up_to::<S>(at(self.weight), left));
            store_up_to::<S>(at(self.first_moment), first, left);
            store_up_to::<S>(at(self.second_moment), second, left);
            store_up_to::<S>(at(self.weight), S::sub(weight, S::div(S::mul(step, first), spread)), left);
            index += S::LANES;
        }
    }
}

/// average ← average + share·(x − average).
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Ema {
    /// `[count]`, changed.
    pub average: usize,
    /// `[count]`.
    pub x: usize,
    /// `[1]`.
    pub share: usize,
    /// Number of elements.
    pub count: usize,
}

impl Ema {
    pub(crate) fn count_parts(&self) -> usize {
        memory::parts(2 * self.count, self.count)
    }
}

impl Compute for Ema {
    #[inline(always)]
    unsafe fn compute<S: Simd>(&self, part: usize) {
        let share = S::splat(*(self.share as *const f32));
        let range = memory::range(self.count, self.count_parts(), part);
        let (mut index, end) = (range.start, range.end);
        while index < end {
            let left = end - index;
            let average = (self.average as *mut f32).add(index);
            let before = load_up_to::<S>(average, left);
            let x = load_up_to::<S>((self.x as *const f32).add(index), left);
            store_up_to::<S>(average, S::mul_add(share, S::sub(x, before), before), left);
            index += S::LANES;
        }
    }
}
