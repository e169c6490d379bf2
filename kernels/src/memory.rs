//! Tensors as slices, and how work that passes over memory once is cut into parts.

use std::ops::Range;

/// Numbers that are worth a part of their own: below this, handing it out costs more than another thread brings.
const PART: usize = 1 << 13;

/// Parts that a job has at most.
const MAX_PARTS: usize = 32;

/// Number of parts that passing over `numbers` is worth, cut along an axis of `length`.
#[inline(always)]
pub(crate) fn parts(numbers: usize, length: usize) -> usize {
    (numbers / PART).clamp(1, MAX_PARTS).min(length.max(1))
}

/// The indices of part `part` of `parts` along an axis of `length`.
#[inline(always)]
pub(crate) fn range(length: usize, parts: usize, part: usize) -> Range<usize> {
    let at = |part: usize| (length as u64 * part as u64 / parts as u64) as usize;
    at(part)..at(part + 1)
}

/// The elements `range` of the tensor at `address`.
#[inline(always)]
pub(crate) unsafe fn slice<'a, T>(address: usize, range: Range<usize>) -> &'a [T] {
    std::slice::from_raw_parts((address as *const T).add(range.start), range.end - range.start)
}

/// The elements `range` of the tensor at `address`, to be written.
#[inline(always)]
pub(crate) unsafe fn slice_mut<'a, T>(address: usize, range: Range<usize>) -> &'a mut [T] {
    std::slice::from_raw_parts_mut((address as *mut T).add(range.start), range.end - range.start)
}
