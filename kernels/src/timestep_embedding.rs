//! The sinusoidal embedding of timesteps.

use bytemuck::{Pod, Zeroable};

use crate::memory;
use crate::simd::Simd;
use crate::{Compute, Float};

/// Parameters as in diffusers' `get_timestep_embedding`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct TimestepEmbedding {
    /// `[batch]`.
    pub timestep: usize,
    /// `[batch, dim]`.
    pub y: usize,
    /// Timesteps.
    pub batch: usize,
    /// Length of the embedding; an odd one ends in a zero.
    pub dim: usize,
    /// 1 for cos before sin, else 0.
    pub flip_sin_to_cos: usize,
    /// Number that is subtracted from dim/2 in the exponent's divisor.
    pub downscale_freq_shift: Float,
    /// Factor of the angle.
    pub scale: Float,
    /// The largest period.
    pub max_period: Float,
}

impl TimestepEmbedding {
    pub(crate) fn count_parts(&self) -> usize {
        1
    }
}

impl Compute for TimestepEmbedding {
    #[inline(always)]
    unsafe fn compute<S: Simd>(&self, _part: usize) {
        let half = self.dim / 2;
        let (scale, divisor) = (self.scale.get(), half as f32 - self.downscale_freq_shift.get());
        let period = libm::logf(self.max_period.get());
        let (timesteps, y) = (
            memory::slice::<f32>(self.timestep, 0..self.batch),
            memory::slice_mut::<f32>(self.y, 0..self.batch * self.dim),
        );
        for (timestep, y) in timesteps.iter().zip(y.chunks_exact_mut(self.dim.max(1))) {
            y.fill(0.0);
            let (first, second) = y.split_at_mut(half);
            for (index, (first, second)) in first.iter_mut().zip(second).enumerate() {
                // Rounded to f32 where diffusers rounds: angles of a thousand radians magnify the difference.
                let angle = scale * (timestep * libm::expf(-period * index as f32 / divisor));
                let (sin, cos) = (libm::sinf(angle), libm::cosf(angle));
                (*first, *second) = if self.flip_sin_to_cos == 1 { (cos, sin) } else { (sin, cos) };
            }
        }
    }
}
