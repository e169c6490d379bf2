//! The most that the machine can do: multiply-adds without memory traffic. (A copy is [`crate::layout::Copy`].)

use bytemuck::{Pod, Zeroable};

use crate::Compute;
use crate::simd::{MAX_LANES, Simd};

/// Independent sums: as many as hide the latency of an addition on two units, and as leave two registers of sixteen.
const SUMS: usize = 12;

/// Multiply-adds on registers.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct MultiplyAdds {
    /// `[parts, MultiplyAdds::LENGTH]`: what comes out, so that no compiler leaves it out.
    pub y: usize,
    /// Multiply-adds of a part, a multiple of [`MultiplyAdds::STEP`].
    pub count: usize,
    /// Number of parts.
    pub parts: usize,
}

impl MultiplyAdds {
    /// Numbers that a part writes.
    pub const LENGTH: usize = MAX_LANES;
    /// Divisor of every count.
    pub const STEP: usize = SUMS * MAX_LANES;

    pub(crate) fn count_parts(&self) -> usize {
        self.parts
    }
}

impl Compute for MultiplyAdds {
    #[inline(always)]
    unsafe fn compute<S: Simd>(&self, part: usize) {
        // They tend to 1/2: no number on the way is slow to compute with.
        let (factor, summand) = (S::splat(0.5), S::splat(0.25));
        let mut sums = [S::splat(0.0); SUMS];
        for _ in 0..self.count / (SUMS * S::LANES) {
            for sum in &mut sums {
                *sum = S::mul_add(*sum, factor, summand);
            }
        }
        let mut all = S::splat(0.0);
        for sum in sums {
            all = S::add(all, sum);
        }
        S::store((self.y as *mut f32).add(part * Self::LENGTH), all);
    }
}
