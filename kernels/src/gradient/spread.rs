//! What passes over memory once: sums along an axis, rows of a table, and pixels that get what others were made of them.

use bytemuck::{Pod, Zeroable};

use crate::grid::cut;
use crate::simd::{MAX_LANES, Simd};
use crate::tile::{load_up_to, store_up_to};
use crate::{Compute, Float, memory};

/// Numbers that are summed in f32 before they are added to a sum in f64.
const RUN: usize = 64;

/// Sums along the middle axis.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Sum {
    /// `[outer, length, inner]`.
    pub x: usize,
    /// `[outer, inner]`.
    pub y: usize,
    /// Length of the axes before it.
    pub outer: usize,
    /// Length of the axis.
    pub length: usize,
    /// Length of the axes behind it.
    pub inner: usize,
}

impl Sum {
    /// Pieces that a run along the inner axis falls into.
    fn lines(&self) -> usize {
        self.inner.div_ceil(MAX_LANES)
    }

    pub(crate) fn count_parts(&self) -> usize {
        memory::parts(self.outer * self.length * self.inner, self.outer * self.lines())
    }
}

impl Compute for Sum {
    #[inline(always)]
    unsafe fn compute<S: Simd>(&self, part: usize) {
        for index in memory::range(self.outer * self.lines(), self.count_parts(), part) {
            let (outer, line) = (index / self.lines(), index % self.lines() * MAX_LANES);
            let x = (self.x as *const f32).add(outer * self.length * self.inner + line);
            let y = (self.y as *mut f32).add(outer * self.inner + line);
            if self.inner == 1 {
                *y = sum_of_row::<S, false>(x, self.length);
            } else {
                self.column::<S>(x, y, MAX_LANES.min(self.inner - line));
            }
        }
    }
}

impl Sum {
    /// The sums of up to sixteen numbers that repeat `inner` apart.
    #[inline(always)]
    unsafe fn column<S: Simd>(&self, x: *const f32, y: *mut f32, count: usize) {
        let mut totals = [0.0f64; MAX_LANES];
        let mut at = 0;
        while at < self.length {
            let end = (at + RUN).min(self.length);
            let mut sums = [S::splat(0.0); MAX_LANES];
            while at < end {
                for vector in 0..MAX_LANES / S::LANES {
                    let left = count.saturating_sub(vector * S::LANES);
                    let value = load_up_to::<S>(x.wrapping_add(at * self.inner + vector * S::LANES), left);
                    sums[vector] = S::add(sums[vector], value);
                }
                at += 1;
            }
            let mut lanes = [0.0; MAX_LANES];
            for vector in 0..MAX_LANES / S::LANES {
                S::store(lanes.as_mut_ptr().add(vector * S::LANES), sums[vector]);
            }
            for (total, lane) in totals.iter_mut().zip(lanes) {
                *total += f64::from(lane);
            }
        }
        for (index, total) in totals[..count].iter().enumerate() {
            *y.add(index) = *total as f32;
        }
    }
}

/// The sum of consecutive numbers, or of their squares: sixteen sums that take turns, together at the end of each run.
#[inline(always)]
pub(crate) unsafe fn sum_of_row<S: Simd, const SQUARES: bool>(x: *const f32, length: usize) -> f32 {
    let mut total = 0.0f64;
    let mut at = 0;
    while at < length {
        let end = (at + RUN * MAX_LANES).min(length);
        let mut sums = [S::splat(0.0); MAX_LANES];
        while at < end {
            for vector in 0..MAX_LANES / S::LANES {
                let left = (end - at).saturating_sub(vector * S::LANES);
                let value = load_up_to::<S>(x.wrapping_add(at + vector * S::LANES), left);
                sums[vector] =
                    if SQUARES { S::mul_add(value, value, sums[vector]) } else { S::add(sums[vector], value) };
            }
            at += MAX_LANES;
        }
        total += sum_of_lanes::<S>(&sums);
    }
    total as f32
}

/// The sum of sixteen lanes, in their order.
#[inline(always)]
unsafe fn sum_of_lanes<S: Simd>(sums: &[S::Vector; MAX_LANES]) -> f64 {
    let mut lanes = [0.0; MAX_LANES];
    for vector in 0..MAX_LANES / S::LANES {
        S::store(lanes.as_mut_ptr().add(vector * S::LANES), sums[vector]);
    }
    let mut sum = 0.0;
    for lane in lanes {
        sum += f64::from(lane);
    }
    sum
}

/// The same number everywhere.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Fill {
    /// `[count]`.
    pub y: usize,
    /// Number of elements.
    pub count: usize,
    /// The number.
    pub value: Float,
}

impl Fill {
    pub(crate) fn count_parts(&self) -> usize {
        memory::parts(self.count, self.count)
    }
}

impl Compute for Fill {
    #[inline(always)]
    unsafe fn compute<S: Simd>(&self, part: usize) {
        let range = memory::range(self.count, self.count_parts(), part);
        memory::slice_mut::<f32>(self.y, range).fill(self.value.get());
    }
}

/// Rows of a table.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Gather {
    /// `[rows, channels]`.
    pub table: usize,
    /// `[count]` whole numbers.
    pub ids: usize,
    /// `[count, channels]`; not-a-numbers where an id is no row's.
    pub y: usize,
    /// Rows of the table.
    pub rows: usize,
    /// Numbers of a row.
    pub channels: usize,
    /// Rows of the result.
    pub count: usize,
}

/// The row that an id names, if it is one.
#[inline(always)]
unsafe fn row_of(ids: usize, index: usize, rows: usize) -> Option<usize> {
    let id = *(ids as *const f32).add(index);
    (id >= 0.0 && id < rows as f32).then_some(id as usize)
}

impl Gather {
    pub(crate) fn count_parts(&self) -> usize {
        memory::parts(self.count * self.channels, self.count)
    }
}

impl Compute for Gather {
    #[inline(always)]
    unsafe fn compute<S: Simd>(&self, part: usize) {
        for index in memory::range(self.count, self.count_parts(), part) {
            let to = (self.y as *mut f32).add(index * self.channels);
            match row_of(self.ids, index, self.rows) {
                Some(row) => {
                    let from = (self.table as *const f32).add(row * self.channels);
                    from.copy_to_nonoverlapping(to, self.channels);
                }
                None => (0..self.channels).for_each(|channel| *to.add(channel) = f32::NAN),
            }
        }
    }
}

/// Adds rows to those of a table, in their order.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Scatter {
    /// `[count, channels]`.
    pub x: usize,
    /// `[count]` whole numbers; what belongs to one that is no row's is left out.
    pub ids: usize,
    /// `[rows, channels]`, all of it written.
    pub table: usize,
    /// Rows of the table.
    pub rows: usize,
    /// Numbers of a row.
    pub channels: usize,
    /// Rows of x.
    pub count: usize,
}

impl Scatter {
    pub(crate) fn count_parts(&self) -> usize {
        memory::parts(self.rows * self.channels, self.channels.div_ceil(MAX_LANES))
    }
}

impl Compute for Scatter {
    #[inline(always)]
    unsafe fn compute<S: Simd>(&self, part: usize) {
        // A part has some channels of all rows, so that no two add to the same number.
        let [start, end] = cut(part, self.count_parts(), self.channels, MAX_LANES);
        for row in 0..self.rows {
            let to = row * self.channels;
            memory::slice_mut::<f32>(self.table, to + start..to + end).fill(0.0);
        }
        for index in 0..self.count {
            let Some(row) = row_of(self.ids, index, self.rows) else { continue };
            let to = (self.table as *mut f32).add(row * self.channels);
            let from = (self.x as *const f32).add(index * self.channels);
            let mut channel = start;
            while channel < end {
                let left = end - channel;
                let sum = S::add(load_up_to::<S>(to.add(channel), left), load_up_to::<S>(from.add(channel), left));
                store_up_to::<S>(to.add(channel), sum, left);
                channel += S::LANES;
            }
        }
    }
}

/// dL/dx of a resizing: each pixel of x has what all that were made of it get.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct ResizeGradient {
    /// `[batch, height, width, channels]`, of the result of the resizing.
    pub upstream: usize,
    /// `[batch, in_height, in_width, channels]`.
    pub y: usize,
    /// Pictures.
    pub batch: usize,
    /// Rows of x.
    pub in_height: usize,
    /// Columns of x.
    pub in_width: usize,
    /// Rows of the result.
    pub height: usize,
    /// Columns of the result.
    pub width: usize,
    /// Numbers of a pixel.
    pub channels: usize,
    /// 1 for bilinear, 0 for nearest neighbour.
    pub bilinear: usize,
}

/// A pixel's place along one axis of x: the two pixels it was made of, and the share of the second.
#[inline(always)]
fn position(index: usize, from: usize, to: usize, bilinear: usize) -> (usize, usize, f32) {
    if bilinear == 0 {
        let nearest = index * from / to;
        return (nearest, nearest, 0.0);
    }
    let scale = from as f32 / to as f32;
    let at = (scale * (index as f32 + 0.5) - 0.5).max(0.0).min((from - 1) as f32);
    let low = at as usize;
    (low, (low + 1).min(from - 1), at - low as f32)
}

impl ResizeGradient {
    pub(crate) fn count_parts(&self) -> usize {
        memory::parts(self.batch * self.height * self.width * self.channels, self.batch)
    }
}

impl Compute for ResizeGradient {
    #[inline(always)]
    unsafe fn compute<S: Simd>(&self, part: usize) {
        for picture in memory::range(self.batch, self.count_parts(), part) {
            let size = self.in_height * self.in_width * self.channels;
            memory::slice_mut::<f32>(self.y, picture * size..(picture + 1) * size).fill(0.0);
            for row in 0..self.height {
                let (top, bottom, down) = position(row, self.in_height, self.height, self.bilinear);
                for column in 0..self.width {
                    let (left, right, across) = position(column, self.in_width, self.width, self.bilinear);
                    let from = ((picture * self.height + row) * self.width + column) * self.channels;
                    for (line, of_line) in [(top, 1.0 - down), (bottom, down)] {
                        for (at, of_column) in [(left, 1.0 - across), (right, across)] {
                            if of_line * of_column > 0.0 {
                                let to = (line * self.in_width + at) * self.channels + picture * size;
                                self.add::<S>(from, to, of_line * of_column);
                            }
                        }
                    }
                }
            }
        }
    }
}

impl ResizeGradient {
    #[inline(always)]
    unsafe fn add<S: Simd>(&self, from: usize, to: usize, share: f32) {
        let (x, y) = ((self.upstream as *const f32).add(from), (self.y as *mut f32).add(to));
        let share = S::splat(share);
        let mut channel = 0;
        while channel < self.channels {
            let left = self.channels - channel;
            let sum = S::mul_add(load_up_to::<S>(x.add(channel), left), share, load_up_to::<S>(y.add(channel), left));
            store_up_to::<S>(y.add(channel), sum, left);
            channel += S::LANES;
        }
    }
}

/// dL/dx of a pooling. Of several largest pixels under a kernel the first has all of it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Pool2dGradient {
    /// `[batch, in_height, in_width, channels]`.
    pub x: usize,
    /// `[batch, height, width, channels]`.
    pub upstream: usize,
    /// Shape of x.
    pub y: usize,
    /// Pictures.
    pub batch: usize,
    /// Rows of x.
    pub in_height: usize,
    /// Columns of x.
    pub in_width: usize,
    /// Rows of the result.
    pub height: usize,
    /// Columns of the result.
    pub width: usize,
    /// Numbers of a pixel.
    pub channels: usize,
    /// Height of the kernel.
    pub kernel_height: usize,
    /// Width of the kernel.
    pub kernel_width: usize,
    /// Step between pixels of the result, both axes.
    pub stride: usize,
    /// Rows by which the kernel begins above x.
    pub padding_top: usize,
    /// Columns by which the kernel begins to the left of x.
    pub padding_left: usize,
    /// 1 for the mean, 0 for the maximum.
    pub average: usize,
}

impl Pool2dGradient {
    pub(crate) fn count_parts(&self) -> usize {
        let work = self.batch * self.height * self.width * self.kernel_height * self.kernel_width * self.channels;
        memory::parts(work, self.batch)
    }
}

impl Compute for Pool2dGradient {
    #[inline(always)]
    unsafe fn compute<S: Simd>(&self, part: usize) {
        for picture in memory::range(self.batch, self.count_parts(), part) {
            let size = self.in_height * self.in_width * self.channels;
            let x = (self.x as *const f32).add(picture * size);
            let y = (self.y as *mut f32).add(picture * size);
            memory::slice_mut::<f32>(y as usize, 0..size).fill(0.0);
            for pixel in 0..self.height * self.width {
                let (row, column) = (pixel / self.width, pixel % self.width);
                let (top, left) = (row * self.stride, column * self.stride);
                let rows = top.saturating_sub(self.padding_top)
                    ..(top + self.kernel_height).saturating_sub(self.padding_top).min(self.in_height);
                let columns = left.saturating_sub(self.padding_left)
                    ..(left + self.kernel_width).saturating_sub(self.padding_left).min(self.in_width);
                let upstream =
                    (self.upstream as *const f32).add((picture * self.height * self.width + pixel) * self.channels);
                let share = 1.0 / (rows.len() * columns.len()) as f32;
                for channel in 0..self.channels {
                    let mut largest = (rows.start * self.in_width + columns.start) * self.channels + channel;
                    for line in rows.start..rows.end {
                        for at in columns.start..columns.end {
                            let at = (line * self.in_width + at) * self.channels + channel;
                            if self.average == 1 {
                                *y.add(at) += *upstream.add(channel) * share;
                            } else if *x.add(at) > *x.add(largest) {
                                largest = at;
                            }
                        }
                    }
                    if self.average == 0 {
                        *y.add(largest) += *upstream.add(channel);
                    }
                }
            }
        }
    }
}
