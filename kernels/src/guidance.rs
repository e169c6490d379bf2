//! Kernels for the network's output, image by image: guidance with rescaling, and dynamic thresholding.

use bytemuck::{Pod, Zeroable};

use crate::memory;
use crate::simd::Simd;
use crate::{Compute, Float};

/// guided = u + g·(c − u), then (φ·std(c)/std(guided) + 1 − φ)·guided with the standard deviations over each image.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Guidance {
    /// `[2, batch, image]`, u first.
    pub x: usize,
    /// One number: g.
    pub scale: usize,
    /// `[batch, image]`.
    pub y: usize,
    /// Images.
    pub batch: usize,
    /// Numbers of an image.
    pub image: usize,
    /// φ, `guidance_rescale`.
    pub rescale: Float,
}

impl Guidance {
    pub(crate) fn count_parts(&self) -> usize {
        self.batch
    }
}

/// Each image is clamped to ±s and divided by s, where s is the `ratio` quantile of its magnitudes, at least 1 and then at most
/// `max_value`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Threshold {
    /// `[batch, image]`.
    pub x: usize,
    /// `[batch, image]`.
    pub y: usize,
    /// Images.
    pub batch: usize,
    /// Numbers of an image.
    pub image: usize,
    /// The quantile, 0 to 1; between two values it is linear.
    pub ratio: Float,
    /// The largest s.
    pub max_value: Float,
}

impl Threshold {
    pub(crate) fn count_parts(&self) -> usize {
        self.batch
    }
}

impl Compute for Guidance {
    #[inline(always)]
    unsafe fn compute<S: Simd>(&self, part: usize) {
        let all = self.batch * self.image;
        let (start, end) = (part * self.image, (part + 1) * self.image);
        let (u, c, y, scale) = (
            memory::slice::<f32>(self.x, start..end),
            memory::slice::<f32>(self.x, all + start..all + end),
            memory::slice_mut::<f32>(self.y, start..end),
            *(self.scale as *const f32),
        );
        y.iter_mut().zip(u.iter().zip(c)).for_each(|(y, (u, c))| *y = u + scale * (c - u));
        let rescale = self.rescale.get();
        if rescale > 0.0 {
            let factor = rescale * libm::sqrt(spread(c) / spread(y)) as f32 + (1.0 - rescale);
            y.iter_mut().for_each(|y| *y *= factor);
        }
    }
}

/// Sum of the squared distances to the mean. The standard deviation's divisor is left out: in a ratio it cancels.
fn spread(values: &[f32]) -> f64 {
    let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / values.len() as f64;
    values.iter().map(|&v| (f64::from(v) - mean) * (f64::from(v) - mean)).sum()
}

impl Compute for Threshold {
    #[inline(always)]
    unsafe fn compute<S: Simd>(&self, part: usize) {
        let range = part * self.image..(part + 1) * self.image;
        let (x, y, bits) = (
            memory::slice::<f32>(self.x, range.clone()),
            memory::slice_mut::<f32>(self.y, range.clone()),
            memory::slice::<u32>(self.x, range),
        );
        let s = quantile(bits, self.ratio.get()).max(1.0).min(self.max_value.get());
        y.iter_mut().zip(x).for_each(|(y, x)| *y = crate::elementwise::clamp(*x, s) / s);
    }
}

/// The `ratio` quantile of the magnitudes of numbers given by their bits.
fn quantile(numbers: &[u32], ratio: f32) -> f32 {
    let last = numbers.len().saturating_sub(1);
    // In f32, as torch computes it.
    let rank = ratio * last as f32;
    let index = (rank as usize).min(last);
    let (low, high) = (smallest(numbers, index), smallest(numbers, (index + 1).min(last)));
    low + (high - low) * (rank - index as f32)
}

/// The magnitude at `index` in ascending order: the largest that at most `index` others are smaller than, found bit by bit from the
/// highest. Counting vectorises, and unlike a selection needs no memory.
fn smallest(numbers: &[u32], index: usize) -> f32 {
    let mut found = 0;
    for bit in (0..31).rev() {
        let trial = found | 1 << bit;
        let below: u32 = numbers.iter().map(|&bits| u32::from(bits & 0x7fff_ffff < trial)).sum();
        if below as usize <= index {
            found = trial;
        }
    }
    f32::from_bits(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_between_two_values_is_linear_and_the_last_one_has_nothing_above() {
        let x = [-4.0f32, 1.0, 3.0, -2.0].map(f32::to_bits);
        assert_eq!(quantile(&x, 0.0), 1.0);
        assert_eq!(quantile(&x, 0.5), 2.5);
        assert_eq!(quantile(&x, 1.0), 4.0);
        assert_eq!(quantile(&[(-7.0f32).to_bits()], 0.9), 7.0);
    }
}
