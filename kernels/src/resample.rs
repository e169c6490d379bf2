//! Pictures of another size.

use std::ops::Range;

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

/// Bilinear, as torch without aligned corners and antialiasing.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct ResizeBilinear {
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

impl ResizeBilinear {
    pub(crate) fn count_parts(&self) -> usize {
        let rows = self.batch * self.height;
        memory::parts(4 * rows * self.width * self.channels, rows)
    }
}

/// Maximum or mean of the pixels under a kernel, those in the padding left out.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Pool2d {
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
    /// Height of the kernel.
    pub kernel_height: usize,
    /// Width of the kernel.
    pub kernel_width: usize,
    /// Step between pixels of the result, both axes.
    pub stride: usize,
    /// Rows by which the kernel begins above `x`, less than its height. How far it ends below follows from the result's size.
    pub padding_top: usize,
    /// Columns by which the kernel begins to the left of `x`, less than its width.
    pub padding_left: usize,
    /// 1 for the mean, 0 for the maximum.
    pub average: usize,
}

impl Pool2d {
    pub(crate) fn count_parts(&self) -> usize {
        let rows = self.batch * self.height;
        memory::parts(rows * self.width * self.channels * self.kernel_height * self.kernel_width, rows)
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

/// The two pixels along an axis between which pixel `index` of the result lies, and how much the second one counts.
#[inline(always)]
fn between(index: usize, input: usize, output: usize) -> ([usize; 2], f32) {
    // torch's arithmetic, in its order: a scale that is rounded first.
    let scale = input as f32 / output as f32;
    let at = (scale * (index as f32 + 0.5) - 0.5).max(0.0);
    let first = (at as usize).min(input - 1);
    ([first, (first + 1).min(input - 1)], at - first as f32)
}

impl Compute for ResizeBilinear {
    #[inline(always)]
    unsafe fn compute<S: Simd>(&self, part: usize) {
        for line in memory::range(self.batch * self.height, self.count_parts(), part) {
            let (batch, row) = (line / self.height, line % self.height);
            let ([top, bottom], down) = between(row, self.in_height, self.height);
            let (top, bottom) =
                ((batch * self.in_height + top) * self.in_width, (batch * self.in_height + bottom) * self.in_width);
            for column in 0..self.width {
                let ([left, right], across) = between(column, self.in_width, self.width);
                let [a, b, c, d] =
                    [top + left, top + right, bottom + left, bottom + right].map(|pixel| pixel * self.channels);
                let to = (line * self.width + column) * self.channels;
                let (x, y) = (self.x as *const f32, (self.y as *mut f32).add(to));
                for channel in 0..self.channels {
                    let x = x.add(channel);
                    let above = (1.0 - across) * *x.add(a) + across * *x.add(b);
                    let below = (1.0 - across) * *x.add(c) + across * *x.add(d);
                    *y.add(channel) = (1.0 - down) * above + down * below;
                }
            }
        }
    }
}

/// The range of the `length` pixels of an axis that lies under a kernel that begins `start - padding` along it.
#[inline(always)]
fn covered(start: usize, kernel: usize, padding: usize, length: usize) -> Range<usize> {
    start.saturating_sub(padding)..(start + kernel).saturating_sub(padding).min(length)
}

impl Compute for Pool2d {
    #[inline(always)]
    unsafe fn compute<S: Simd>(&self, part: usize) {
        for line in memory::range(self.batch * self.height, self.count_parts(), part) {
            let (batch, row) = (line / self.height, line % self.height);
            let rows = covered(row * self.stride, self.kernel_height, self.padding_top, self.in_height);
            for column in 0..self.width {
                let columns = covered(column * self.stride, self.kernel_width, self.padding_left, self.in_width);
                let to = (line * self.width + column) * self.channels;
                let y = memory::slice_mut::<f32>(self.y, to..to + self.channels);
                y.fill(if self.average == 1 { 0.0 } else { f32::NEG_INFINITY });
                for row in rows.clone() {
                    for column in columns.clone() {
                        let from = ((batch * self.in_height + row) * self.in_width + column) * self.channels;
                        let x = memory::slice::<f32>(self.x, from..from + self.channels);
                        if self.average == 1 {
                            y.iter_mut().zip(x).for_each(|(y, x)| *y += x);
                        } else {
                            // What is not a number stays, as in torch.
                            y.iter_mut().zip(x).for_each(|(y, x)| *y = if *x > *y || x.is_nan() { *x } else { *y });
                        }
                    }
                }
                if self.average == 1 {
                    let count = (rows.len() * columns.len()) as f32;
                    y.iter_mut().for_each(|y| *y /= count);
                }
            }
        }
    }
}
