//! Kernels that treat each number by itself: a linear map, the packing of pixels, and the search for what is not finite.

use bytemuck::{Pod, Zeroable};

use crate::memory;
use crate::simd::Simd;
use crate::{Compute, Float};

/// y = scale · x + shift, the product rounded before the sum.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Affine {
    /// `[elements]`.
    pub x: usize,
    /// `[elements]`.
    pub y: usize,
    /// Number of elements.
    pub elements: usize,
    /// The factor.
    pub scale: Float,
    /// The summand.
    pub shift: Float,
}

impl Affine {
    pub(crate) fn count_parts(&self) -> usize {
        memory::parts(self.elements, self.elements)
    }
}

/// `[batch, channels, pixels]` in −1..1 (1 or 3 channels) to `[batch, pixels]` words of red, green, blue and 255 from the lowest byte:
/// 255 · clamp(x/2 + 1/2, 0, 1), halves rounded to even.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct PackRgba8 {
    /// `[batch, channels, pixels]`.
    pub x: usize,
    /// `[batch, pixels]`, 32-bit words.
    pub y: usize,
    /// Pictures.
    pub batch: usize,
    /// Number of channels, 1 or 3.
    pub channels: usize,
    /// Pixels of one picture.
    pub pixels: usize,
}

impl PackRgba8 {
    pub(crate) fn count_parts(&self) -> usize {
        memory::parts(self.batch * self.pixels * self.channels, self.pixels)
    }
}

/// A 32-bit word that says whether a tensor holds a NaN or an infinity: 1 if it does, else 0.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct NonFinite {
    /// `[elements]`.
    pub x: usize,
    /// The word.
    pub y: usize,
    /// Number of elements.
    pub elements: usize,
}

impl NonFinite {
    pub(crate) fn count_parts(&self) -> usize {
        1
    }
}

/// The number `x` if it is from −`limit` to `limit`, else the nearer of them; a NaN stays one.
#[inline(always)]
pub(crate) fn clamp(x: f32, limit: f32) -> f32 {
    if x < -limit {
        -limit
    } else if x > limit {
        limit
    } else {
        x
    }
}

impl Compute for Affine {
    #[inline(always)]
    unsafe fn compute<S: Simd>(&self, part: usize) {
        let (scale, shift) = (self.scale.get(), self.shift.get());
        let range = memory::range(self.elements, self.count_parts(), part);
        let (x, y) = (memory::slice(self.x, range.clone()), memory::slice_mut(self.y, range));
        y.iter_mut().zip(x).for_each(|(y, x)| *y = scale * x + shift);
    }
}

impl Compute for PackRgba8 {
    #[inline(always)]
    unsafe fn compute<S: Simd>(&self, part: usize) {
        let byte = |v: f32| {
            // Adding and subtracting 1.5·2²³ rounds to the nearest integer, halves to even. The range keeps NaN out of the cast.
            const ROUND: f32 = 12_582_912.0;
            (255.0 * (v * 0.5 + 0.5).clamp(0.0, 1.0) + ROUND - ROUND) as u32
        };
        let range = memory::range(self.pixels, self.count_parts(), part);
        for batch in 0..self.batch {
            let channel = |i: usize| {
                let plane = (batch * self.channels + i.min(self.channels - 1)) * self.pixels;
                memory::slice::<f32>(self.x, plane + range.start..plane + range.end)
            };
            let pixels = batch * self.pixels;
            let y = memory::slice_mut::<u32>(self.y, pixels + range.start..pixels + range.end);
            let rgb = channel(0).iter().zip(channel(1)).zip(channel(2));
            for (y, ((&r, &g), &b)) in y.iter_mut().zip(rgb) {
                *y = byte(r) | byte(g) << 8 | byte(b) << 16 | 255 << 24;
            }
        }
    }
}

impl Compute for NonFinite {
    #[inline(always)]
    unsafe fn compute<S: Simd>(&self, _part: usize) {
        let x = memory::slice::<u32>(self.x, 0..self.elements);
        // By their bits: an exponent of ones is what infinities and NaN have in common.
        let found = x.iter().fold(0, |found, bits| found | u32::from(bits & 0x7f80_0000 == 0x7f80_0000));
        *(self.y as *mut u32) = found;
    }
}
