//! Pictures of another size.

use bytemuck::{Pod, Zeroable};

use crate::Compute;
use crate::memory;
use crate::simd::Simd;

/// Nearest neighbour: source index = floor(i · in / out).
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct ResizeNearest {
    /// `[batch, in_height, in_width, channels]`.
    pub x: usize,
    /// `[batch, height, width, channels]`.
    pub y: usize,
    /// Pictures.
    pub batch: usize,
    /// Rows of `x`.
    pub in_height: usize,
    /// Columns of `x`.
    pub in_width: usize,
    /// Rows of `y`.
    pub height: usize,
    /// Columns of `y`.
    pub width: usize,
    /// Numbers of a pixel.
    pub channels: usize,
}

impl ResizeNearest {
    pub(crate) fn count_parts(&self) -> usize {
        let rows = self.batch * self.height;
        memory::parts(rows * self.width * self.channels, rows)
    }
}

/// Mean of each 2×2 pixels; an odd last row or column is dropped.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct AvgPool2 {
    /// `[batch, in_height, in_width, channels]`.
    pub x: usize,
    /// `[batch, in_height / 2, in_width / 2, channels]`.
    pub y: usize,
    /// Pictures.
    pub batch: usize,
    /// Rows of `x`.
    pub in_height: usize,
    /// Columns of `x`.
    pub in_width: usize,
    /// Numbers of a pixel.
    pub channels: usize,
}

impl AvgPool2 {
    pub(crate) fn count_parts(&self) -> usize {
        let rows = self.batch * (self.in_height / 2);
        memory::parts(rows * self.in_width * 2 * self.channels, rows)
    }
}

impl Compute for ResizeNearest {
    #[inline(always)]
    unsafe fn compute<S: Simd>(&self, part: usize) {
        for line in memory::range(self.batch * self.height, self.count_parts(), part) {
            let (batch, row) = (line / self.height, line % self.height);
            let source = (batch * self.in_height + row * self.in_height / self.height) * self.in_width;
            for column in 0..self.width {
                let from = (source + column * self.in_width / self.width) * self.channels;
                let to = (line * self.width + column) * self.channels;
                let (x, y) = ((self.x as *const f32).add(from), (self.y as *mut f32).add(to));
                core::ptr::copy_nonoverlapping(x, y, self.channels);
            }
        }
    }
}

impl Compute for AvgPool2 {
    #[inline(always)]
    unsafe fn compute<S: Simd>(&self, part: usize) {
        let (height, width) = (self.in_height / 2, self.in_width / 2);
        for line in memory::range(self.batch * height, self.count_parts(), part) {
            let (batch, row) = (line / height, line % height);
            for column in 0..width {
                let at = ((batch * self.in_height + 2 * row) * self.in_width + 2 * column) * self.channels;
                let pixel = |offset: usize| memory::slice::<f32>(self.x, at + offset..at + offset + self.channels);
                let top = pixel(0).iter().zip(pixel(self.channels));
                let below = self.in_width * self.channels;
                let bottom = pixel(below).iter().zip(pixel(below + self.channels));
                let to = (line * width + column) * self.channels;
                let y = memory::slice_mut::<f32>(self.y, to..to + self.channels);
                for (y, ((a, b), (c, d))) in y.iter_mut().zip(top.zip(bottom)) {
                    *y = (a + b + c + d) * 0.25;
                }
            }
        }
    }
}
