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

    /// The element at row `k`, column `n`.
    pub fn at(&self, k: usize, n: usize) -> f32 {
        self.data[(n / PANEL * self.k + k) * PANEL + n % PANEL]
    }

    /// Number of columns.
    pub fn columns(&self) -> usize {
        self.n
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.k
    }

    /// The panels, `[k, PANEL]` each.
    #[inline(always)]
    pub fn iter(&self) -> impl Iterator<Item = &[f32]> {
        self.data.chunks_exact((self.k * PANEL).max(1))
    }
}

/// rows · panel, for rows packed as `[k, ROWS]` by [`pack`] and a panel `[k, PANEL]`.
#[inline(always)]
pub fn multiply(rows: &[f32], panel: &[f32]) -> Tile {
    let mut tile: Tile = [[0.0; PANEL]; ROWS];
    let (rows, _) = rows.as_chunks::<ROWS>();
    let (panel, _) = panel.as_chunks::<PANEL>();
    for (factors, values) in rows.iter().zip(panel) {
        for (sums, factor) in tile.iter_mut().zip(factors) {
            for (sum, value) in sums.iter_mut().zip(values) {
                *sum += factor * value;
            }
        }
    }
    tile
}

/// Writes `row` as row `index` of a block packed as `[k, ROWS]`, from its first element on.
#[inline(always)]
pub fn pack(packed: &mut [f32], index: usize, row: &[f32]) {
    let (packed, _) = packed.as_chunks_mut::<ROWS>();
    for (factors, value) in packed.iter_mut().zip(row) {
        factors[index] = *value;
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
