//! Moves numbers without changing them: concatenation, slices, permutations, and what broadcasts while two tensors are combined.
//!
//! Both kernels walk a box of four axes with a stride for each tensor and axis; a stride of zero repeats. Their addresses are those of
//! any number of a tensor.

use std::ops::Range;

use bytemuck::{Pod, Zeroable};

use crate::Compute;
use crate::memory;
use crate::simd::Simd;

/// y = x along a box of elements.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Copy {
    /// Address of the first element that is read.
    pub x: usize,
    /// Address of the first element that is written.
    pub y: usize,
    /// Sides of the box, outermost first.
    pub shape: [usize; 4],
    /// Elements of `x` from one index of an axis to the next.
    pub x_strides: [usize; 4],
    /// Elements of `y` from one index of an axis to the next.
    pub y_strides: [usize; 4],
}

impl Copy {
    pub(crate) fn count_parts(&self) -> usize {
        parts(&self.shape)
    }
}

/// y = a ∘ b along a box of elements.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Binary {
    /// Address of the first left operand.
    pub a: usize,
    /// Address of the first right operand.
    pub b: usize,
    /// Address of the first result.
    pub y: usize,
    /// [`Binary::ADD`], [`Binary::SUB`] or [`Binary::MUL`].
    pub operation: usize,
    /// Sides of the box, outermost first.
    pub shape: [usize; 4],
    /// Elements of `a` from one index of an axis to the next.
    pub a_strides: [usize; 4],
    /// Elements of `b` from one index of an axis to the next.
    pub b_strides: [usize; 4],
    /// Elements of `y` from one index of an axis to the next.
    pub y_strides: [usize; 4],
}

impl Binary {
    /// a + b.
    pub const ADD: usize = 0;
    /// a − b.
    pub const SUB: usize = 1;
    /// a · b.
    pub const MUL: usize = 2;

    pub(crate) fn count_parts(&self) -> usize {
        parts(&self.shape)
    }
}

fn parts(shape: &[usize; 4]) -> usize {
    let elements = shape.iter().product();
    memory::parts(elements, elements)
}

/// Calls `each` with the rows, or parts of rows, that part `part` of a box consists of, a row being the last axis: its indices along the
/// first three axes, and the range along the last.
#[inline(always)]
fn for_each_span(shape: &[usize; 4], part: usize, mut each: impl FnMut([usize; 3], Range<usize>)) {
    let [_, n1, n2, length] = *shape;
    let Range { mut start, end } = memory::range(shape.iter().product(), parts(shape), part);
    while start < end {
        let (row, column) = (start / length, start % length);
        let stop = length.min(column + end - start);
        each([row / n2 / n1, row / n2 % n1, row % n2], column..stop);
        start += stop - column;
    }
}

/// Elements from the first of a tensor to where a span starts.
#[inline(always)]
fn offset(row: [usize; 3], column: usize, strides: &[usize; 4]) -> usize {
    row[0] * strides[0] + row[1] * strides[1] + row[2] * strides[2] + column * strides[3]
}

impl Compute for Copy {
    #[inline(always)]
    unsafe fn compute<S: Simd>(&self, part: usize) {
        for_each_span(&self.shape, part, |row, columns| {
            let x = (self.x as *const f32).add(offset(row, columns.start, &self.x_strides));
            let y = (self.y as *mut f32).add(offset(row, columns.start, &self.y_strides));
            match (self.x_strides[3], self.y_strides[3]) {
                (1, 1) => x.copy_to_nonoverlapping(y, columns.len()),
                (sx, sy) => (0..columns.len()).for_each(|i| *y.add(i * sy) = *x.add(i * sx)),
            }
        });
    }
}

impl Compute for Binary {
    #[inline(always)]
    unsafe fn compute<S: Simd>(&self, part: usize) {
        match self.operation {
            Self::ADD => self.combine(part, |a, b| a + b),
            Self::SUB => self.combine(part, |a, b| a - b),
            _ => self.combine(part, |a, b| a * b),
        }
    }
}

impl Binary {
    #[inline(always)]
    unsafe fn combine(&self, part: usize, operation: impl Fn(f32, f32) -> f32) {
        for_each_span(&self.shape, part, |row, columns| {
            let a = (self.a as *const f32).add(offset(row, columns.start, &self.a_strides));
            let b = (self.b as *const f32).add(offset(row, columns.start, &self.b_strides));
            let y = (self.y as *mut f32).add(offset(row, columns.start, &self.y_strides));
            match (self.a_strides[3], self.b_strides[3], self.y_strides[3]) {
                // Of equal shapes, and with one number for a row: what vectorises.
                (1, 1, 1) => (0..columns.len()).for_each(|i| *y.add(i) = operation(*a.add(i), *b.add(i))),
                (1, 0, 1) => {
                    let b = *b;
                    (0..columns.len()).for_each(|i| *y.add(i) = operation(*a.add(i), b));
                }
                (sa, sb, sy) => {
                    (0..columns.len()).for_each(|i| *y.add(i * sy) = operation(*a.add(i * sa), *b.add(i * sb)));
                }
            }
        });
    }
}
