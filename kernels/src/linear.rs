//! Linear layers, and 1×1 convolutions, which are the same with channels last.

use bytemuck::{Pod, Zeroable};

use crate::grid::Grid;
use crate::simd::Simd;
use crate::tile::{self, Epilogue, MAX_ROWS, multiply, panel};
use crate::{COLUMNS, Compute};

/// x Wᵀ + bias + residual, for x or for x with x2 behind it along the last axis.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Linear {
    /// `[rows, in_features]`.
    pub x: usize,
    /// `[rows, in_features2]`, or 0 for none.
    pub x2: usize,
    /// The weight as [`Pack`] has stored it.
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
    /// Numbers of a row of x2; 0 for none.
    pub in_features2: usize,
    /// Numbers of a row of the result.
    pub out_features: usize,
}

impl Linear {
    fn depth(&self) -> usize {
        self.in_features + self.in_features2
    }

    fn grid(&self) -> Grid {
        Grid::new(self.rows, self.depth(), self.out_features)
    }

    pub(crate) fn count_parts(&self) -> usize {
        self.grid().parts()
    }
}

impl Compute for Linear {
    #[inline(always)]
    unsafe fn compute<S: Simd>(&self, part: usize) {
        let epilogue = Epilogue {
            bias: self.bias as *const f32,
            residual: self.residual as *const f32,
            residual_rows: self.residual_rows,
            out: self.out as *mut f32,
            columns: self.out_features,
        };
        let panels = self.grid().panels::<S>(part, self.rows, self.depth(), self.out_features);
        for ([start, end], column) in panels {
            if self.out_features - column > S::LANES {
                self.panel::<S, true>(&epilogue, start, end, column);
            } else {
                self.panel::<S, false>(&epilogue, start, end, column);
            }
        }
    }
}

impl Linear {
    /// The rows from `start` to `end` times the panel that begins with `column`.
    #[inline(always)]
    unsafe fn panel<S: Simd, const WIDE: bool>(&self, epilogue: &Epilogue, start: usize, end: usize, column: usize) {
        let inputs = [(self.x as *const f32, self.in_features), (self.x2 as *const f32, self.in_features2)];
        let mut first = start;
        while first < end {
            let mut sums = tile::zeros::<S>();
            let mut matrix = (self.weight as *const f32).add(column * self.depth());
            for (x, features) in inputs {
                if features > 0 {
                    let mut rows = [x; MAX_ROWS];
                    for (index, address) in rows[..S::ROWS].iter_mut().enumerate() {
                        *address = x.add((first + index).min(end - 1) * features);
                    }
                    multiply::<S, WIDE>(&mut sums, rows, matrix, panel::<S>(), features);
                    matrix = matrix.add(features * panel::<S>());
                }
            }
            epilogue.store_tile::<S, WIDE>(first, end, column, &sums);
            first += S::ROWS;
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
