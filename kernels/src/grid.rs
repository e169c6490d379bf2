//! The cut of a matrix product into parts, and of a part into what stays in a core's caches.

use crate::COLUMNS;
use crate::simd::Simd;
use crate::tile::panel;

/// Multiply-adds that are worth a part of their own.
pub const WORTH_A_PART: usize = 1 << 20;

/// Parts that a job has at most: some for each of many threads.
pub const MAX_PARTS: usize = 32;

/// Numbers of the left matrix over which panels of the right one pass while they stay in the second-level cache: 256 KiB.
const CACHED: usize = 1 << 16;

/// A product `[rows, depth] · [depth, columns]` cut along rows and columns.
#[derive(Clone, Copy)]
pub struct Grid {
    down: usize,
    across: usize,
}

impl Grid {
    /// The right matrix is read once for each cut along the rows, so few rows are not cut.
    #[inline(always)]
    pub fn new(rows: usize, depth: usize, columns: usize) -> Self {
        let parts = (rows * columns / (WORTH_A_PART / depth.clamp(1, WORTH_A_PART))).clamp(1, MAX_PARTS);
        let down = (rows / 64).clamp(1, parts);
        let across = (parts / down).clamp(1, columns.div_ceil(COLUMNS).max(1));
        Self { down, across }
    }

    /// Number of parts.
    pub fn parts(self) -> usize {
        self.down * self.across
    }

    /// The panels of part `part`, in the order in which caches like them.
    #[inline(always)]
    pub fn panels<S: Simd>(self, part: usize, rows: usize, depth: usize, columns: usize) -> Panels {
        let rows = cut(part / self.across, self.down, rows, 8);
        let columns = cut(part % self.across, self.across, columns, COLUMNS);
        let run = (CACHED / depth.max(1)).max(1).next_multiple_of(S::ROWS);
        Panels { rows, columns, column: columns[0], run, panel: panel::<S>() }
    }
}

/// Iterator over pieces of the left matrix times panels of the right one.
pub struct Panels {
    /// The rows and columns that are left.
    rows: [usize; 2],
    columns: [usize; 2],
    column: usize,
    run: usize,
    panel: usize,
}

impl Iterator for Panels {
    /// Rows, from where to where, and the first column.
    type Item = ([usize; 2], usize);

    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        if self.column >= self.columns[1] {
            self.column = self.columns[0];
            self.rows[0] += self.run;
        }
        if self.rows[0] >= self.rows[1] || self.column >= self.columns[1] {
            return None;
        }
        let column = self.column;
        self.column += self.panel;
        Some(([self.rows[0], (self.rows[0] + self.run).min(self.rows[1])], column))
    }
}

/// The `index`-th of `parts` pieces of `total`, from where to where, cut at multiples of `unit`.
#[inline(always)]
pub fn cut(index: usize, parts: usize, total: usize, unit: usize) -> [usize; 2] {
    let units = total.div_ceil(unit);
    [index, index + 1].map(|i| (units * i / parts * unit).min(total))
}
