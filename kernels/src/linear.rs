//! Linear layers, and 1×1 convolutions, which are the same with channels last.

use bytemuck::{Pod, Zeroable};

use crate::simd::Simd;
use crate::tile::{self, Epilogue, MAX_ROWS, multiply, panel};
use crate::{COLUMNS, Compute};

/// x Wᵀ + bias + residual.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Linear {
    /// `[rows, in_features]`, rows `x_stride` numbers apart.
    pub x: usize,
    /// As [`Pack`] has stored it.
    pub weight: usize,
    /// `[out_features]`, or 0 for none.
    pub bias: usize,
    /// `[rows / residual_rows, out_features]`, or 0 for none; may be `out`.
    pub residual: usize,
    /// Rows of the result that share a row of the residual: 1 for a residual of the result's shape.
    pub residual_rows: usize,
    /// `[rows, out_features]`.
    pub out: usize,
    /// Rows.
    pub rows: usize,
    /// Numbers of a row of x.
    pub in_features: usize,
    /// Numbers from one row of x to the next.
    pub x_stride: usize,
    /// Numbers of a row of the result.
    pub out_features: usize,
}

/// Multiply-adds that are worth a part of its own.
const PART: usize = 1 << 20;

/// Parts that a job has at most.
const MAX_PARTS: usize = 32;

/// A product `[rows, k] · [k, columns]` cut into a grid of parts.
#[derive(Clone, Copy)]
pub(crate) struct Grid {
    /// Parts along the rows.
    pub down: usize,
    /// Parts along the columns.
    pub across: usize,
}

impl Grid {
    /// Weights are read once for each part along the rows, so columns are cut where there are few rows.
    #[inline(always)]
    pub fn new(rows: usize, k: usize, columns: usize) -> Self {
        let parts = (rows * columns / PART.div_ceil(k.max(1))).clamp(1, MAX_PARTS);
        let down = (rows / 64).clamp(1, parts);
        let across = (parts / down).clamp(1, columns.div_ceil(COLUMNS));
        Self { down, across }
    }

    /// Rows and columns of part `part`: from, to.
    #[inline(always)]
    pub fn part(self, part: usize, rows: usize, columns: usize) -> ([usize; 2], [usize; 2]) {
        let cut = |index: usize, parts: usize, total: usize, unit: usize| {
            let units = total.div_ceil(unit);
            [index, index + 1].map(|i| (units * i / parts * unit).min(total))
        };
        (cut(part / self.across, self.down, rows, 8), cut(part % self.across, self.across, columns, COLUMNS))
    }
}

/// Numbers of x that stay in a core's second-level cache while panels pass over them: 256 KiB.
const CACHED: usize = 1 << 16;

impl Linear {
    pub(crate) fn count_parts(&self) -> usize {
        let grid = Grid::new(self.rows, self.in_features, self.out_features);
        grid.down * grid.across
    }
}

impl Compute for Linear {
    #[inline(always)]
    unsafe fn compute<S: Simd>(&self, part: usize) {
        let grid = Grid::new(self.rows, self.in_features, self.out_features);
        let (rows, columns) = grid.part(part, self.rows, self.out_features);
        let epilogue = Epilogue {
            bias: self.bias as *const f32,
            residual: self.residual as *const f32,
            residual_rows: self.residual_rows,
            out: self.out as *mut f32,
            columns: self.out_features,
        };
        let run = (CACHED / self.in_features.max(1)).max(S::ROWS).next_multiple_of(S::ROWS);
        let mut start = rows[0];
        while start < rows[1] {
            let end = (start + run).min(rows[1]);
            let mut column = columns[0];
            while column < columns[1] {
                if self.out_features - column > S::LANES {
                    self.panel::<S, true>(&epilogue, start, end, column);
                } else {
                    self.panel::<S, false>(&epilogue, start, end, column);
                }
                column += panel::<S>();
            }
            start = end;
        }
    }
}

impl Linear {
    /// Some rows times the panel that begins with `column`.
    #[inline(always)]
    unsafe fn panel<S: Simd, const WIDE: bool>(&self, epilogue: &Epilogue, start: usize, end: usize, column: usize) {
        let matrix = (self.weight as *const f32).add(column * self.in_features);
        let x = self.x as *const f32;
        let mut row = start;
        while row < end {
            let mut rows = [x; MAX_ROWS];
            for (index, address) in rows[..S::ROWS].iter_mut().enumerate() {
                *address = x.add((row + index).min(end - 1) * self.x_stride);
            }
            let mut sums = tile::zeros::<S>();
            multiply::<S, WIDE>(&mut sums, rows, matrix, panel::<S>(), self.in_features);
            epilogue.store_tile::<S, WIDE>(row, end, column, &sums);
            row += S::ROWS;
        }
    }
}

/// Stores the weight of a [`Linear`] as it is read.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Pack {
    /// `[out_features, in_features]`.
    pub weight: usize,
    /// [`packed_len`] numbers.
    pub out: usize,
    /// Rows of the weight.
    pub out_features: usize,
    /// Columns of the weight.
    pub in_features: usize,
}

/// Numbers of a packed weight.
pub const fn packed_len(out_features: usize, in_features: usize) -> usize {
    out_features.next_multiple_of(COLUMNS) * in_features
}

impl Pack {
    pub(crate) fn count_parts(&self) -> usize {
        self.out_features.div_ceil(COLUMNS)
    }
}

impl Compute for Pack {
    #[inline(always)]
    unsafe fn compute<S: Simd>(&self, part: usize) {
        let weight = self.weight as *const f32;
        let mut column = part * COLUMNS;
        while column < (part + 1) * COLUMNS {
            let out = (self.out as *mut f32).add(column * self.in_features);
            tile::pack_panel::<S>(self.in_features, self.out_features, column, out, |k, n| {
                *weight.add(n * self.in_features + k)
            });
            column += panel::<S>();
        }
    }
}
