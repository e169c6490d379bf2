//! The register tile: some rows times a panel of a matrix, which is what matrix products, convolutions and attention consist of.
//!
//! A matrix `[k, n]` is stored in panels, two vectors wide, so that the loop over k reads it front to back. A number of the
//! result is one sum over k in ascending order, whatever the width of vectors.
//!
//! Whatever touches vectors is inlined into a function that is compiled for their instruction set, and closures cannot be made to be:
//! loops over pieces of work are iterators, and their bodies have no closures that compute.

use crate::simd::{MAX_LANES, Simd};

/// Rows of the highest tile.
pub const MAX_ROWS: usize = 8;

/// Sums of a tile; the first [`Simd::ROWS`] rows are used.
pub type Sums<V> = [[V; 2]; MAX_ROWS];

/// Columns of a panel.
#[inline(always)]
pub const fn panel<S: Simd>() -> usize {
    2 * S::LANES
}

/// A tile of zeros.
#[inline(always)]
pub unsafe fn zeros<S: Simd>() -> Sums<S::Vector> {
    [[S::splat(0.0); 2]; MAX_ROWS]
}

/// Adds rows · panel to `sums`: `rows` are the addresses of k numbers each, `matrix` of k rows of the panel `step` apart.
///
/// With `WIDE` false only the panel's first vector is multiplied.
#[inline(always)]
pub unsafe fn multiply<S: Simd, const WIDE: bool>(
    sums: &mut Sums<S::Vector>,
    mut rows: [*const f32; MAX_ROWS],
    mut matrix: *const f32,
    step: usize,
    k: usize,
) {
    // One step, not several written out: those the compiler reorders until it runs out of registers.
    for _ in 0..k {
        multiply_add::<S, WIDE>(sums, &rows, matrix);
        matrix = matrix.add(step);
        for row in &mut rows[..S::ROWS] {
            *row = row.add(1);
        }
    }
}

/// One term of each sum.
#[inline(always)]
unsafe fn multiply_add<S: Simd, const WIDE: bool>(
    sums: &mut Sums<S::Vector>,
    rows: &[*const f32; MAX_ROWS],
    matrix: *const f32,
) {
    let first = S::load(matrix);
    let second = if WIDE { S::load(matrix.add(S::LANES)) } else { first };
    for row in 0..S::ROWS {
        let factor = S::splat(*rows[row]);
        sums[row][0] = S::mul_add(factor, first, sums[row][0]);
        if WIDE {
            sums[row][1] = S::mul_add(factor, second, sums[row][1]);
        }
    }
}

/// The last steps on the sums of a product `[rows, columns]`.
#[derive(Clone, Copy)]
pub struct Epilogue {
    /// `[columns]`, or null.
    pub bias: *const f32,
    /// `[rows / residual_rows, columns]`, or null.
    pub residual: *const f32,
    /// Rows of the result that share a row of the residual.
    pub residual_rows: usize,
    /// `[rows, columns]`.
    pub out: *mut f32,
    /// Columns of the result.
    pub columns: usize,
}

impl Epilogue {
    /// Stores the sums of the rows from `row` on that are before `end`, of the panel that begins with `column`.
    #[inline(always)]
    pub unsafe fn store_tile<S: Simd, const WIDE: bool>(
        &self,
        row: usize,
        end: usize,
        column: usize,
        sums: &Sums<S::Vector>,
    ) {
        for index in 0..S::ROWS {
            if row + index < end {
                self.store::<S>(row + index, column, sums[index][0]);
                if WIDE {
                    self.store::<S>(row + index, column + S::LANES, sums[index][1]);
                }
            }
        }
    }

    /// Stores the vector of sums whose first is that of `row` and `column`.
    #[inline(always)]
    pub unsafe fn store<S: Simd>(&self, row: usize, column: usize, mut sum: S::Vector) {
        let count = self.columns - column;
        if !self.bias.is_null() {
            sum = S::add(sum, load_up_to::<S>(self.bias.add(column), count));
        }
        if !self.residual.is_null() {
            let shared = if self.residual_rows == 1 { row } else { row / self.residual_rows };
            sum = S::add(sum, load_up_to::<S>(self.residual.add(shared * self.columns + column), count));
        }
        store_up_to::<S>(self.out.add(row * self.columns + column), sum, count);
    }
}

/// A vector of the `count` numbers that are there, or of as many as it has lanes.
#[inline(always)]
pub unsafe fn load_up_to<S: Simd>(from: *const f32, count: usize) -> S::Vector {
    if count >= S::LANES { S::load(from) } else { S::load_first(from, count) }
}

/// Writes a vector where there is room for `count` numbers.
#[inline(always)]
pub unsafe fn store_up_to<S: Simd>(to: *mut f32, value: S::Vector, count: usize) {
    if count >= S::LANES {
        S::store(to, value);
    } else {
        S::store_first(to, value, count);
    }
}

/// Writes the matrix whose number at row k and column n is `at(k, n)` in panels, padded with zeros to whole panels.
#[inline(always)]
pub unsafe fn pack_panel<S: Simd>(
    k: usize,
    columns: usize,
    first_column: usize,
    mut out: *mut f32,
    at: impl Fn(usize, usize) -> f32,
) {
    for row in 0..k {
        for column in first_column..first_column + panel::<S>() {
            *out = if column < columns { at(row, column) } else { 0.0 };
            out = out.add(1);
        }
    }
}

const _: () = assert!(crate::COLUMNS.is_multiple_of(2 * MAX_LANES));
