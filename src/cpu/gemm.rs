//! The inner loop of convolution, linear layers and attention: rows times a matrix stored in panels.

/// Columns of a panel: two 128-bit or one 256-bit vector.
pub const PANEL: usize = 8;

/// Rows that are multiplied at once; their accumulators stay in registers.
pub const ROWS: usize = if cfg!(target_arch = "wasm32") { 4 } else { 8 };

/// Results of one tile: [`ROWS`] rows of [`PANEL`] columns.
pub type Tile = [[f32; PANEL]; ROWS];

/// A matrix `[k, n]` as ⌈n / PANEL⌉ panels of `[k, PANEL]`, so that the inner loop reads it front to back; missing columns are zero.
#[derive(Clone, Debug, Default)]
pub struct Panels {
    data: Vec<f32>,
    k: usize,
    n: usize,
}

impl Panels {
    /// Stores the matrix whose element at row `k`, column `n` is `at(k, n)`.
    pub fn from_fn(k: usize, n: usize, at: impl Fn(usize, usize) -> f32) -> Self {
        let mut data = Vec::with_capacity(n.div_ceil(PANEL) * k * PANEL);
        for first in (0..n).step_by(PANEL) {
            for row in 0..k {
                data.extend((first..first + PANEL).map(|column| if column < n { at(row, column) } else { 0.0 }));
            }
        }
        Self { data, k, n }
    }

    /// Number of columns.
    pub fn columns(&self) -> usize {
        self.n
    }

    /// Number of panels.
    pub fn count(&self) -> usize {
        self.n.div_ceil(PANEL)
    }

    /// Rows `rows` of panel `index`, `[rows, PANEL]`.
    #[inline(always)]
    pub fn panel(&self, index: usize, rows: std::ops::Range<usize>) -> &[f32] {
        let base = index * self.k * PANEL;
        &self.data[base + rows.start * PANEL..base + rows.end * PANEL]
    }
}

/// tile += rows · panel, where each row has as many elements as the panel has rows.
#[inline(always)]
pub fn accumulate(tile: &mut Tile, rows: &[&[f32]; ROWS], panel: &[f32]) {
    let k = panel.len() / PANEL;
    let rows = rows.map(|row| &row[..k]);
    for (index, columns) in panel.chunks_exact(PANEL).enumerate() {
        for (sums, row) in tile.iter_mut().zip(rows) {
            let factor = row[index];
            for (sum, &value) in sums.iter_mut().zip(columns) {
                *sum += factor * value;
            }
        }
    }
}

/// Work that is worth compiling for wider vectors than the target's baseline.
pub trait Kernel {
    /// Does the work; must be `#[inline(always)]` to take effect.
    fn run(self);
}

/// Runs `kernel` with the widest vectors of this processor. Products and sums stay separate operations in a fixed
/// order, so that the result does not depend on the width.
pub fn vectorised(kernel: impl Kernel) {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2")]
        fn wide(kernel: impl Kernel) {
            kernel.run();
        }
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has AVX2, the only feature that `wide` is compiled for.
            return unsafe { wide(kernel) };
        }
    }
    kernel.run();
}
