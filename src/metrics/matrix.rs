//! The two operations of linear algebra that distances need. Matrices are slices, column after column.

use nalgebra::DMatrix;

/// AᵀB, `[columns of a, columns of b]`: the products of each column of `a` with each of `b`, all of `rows` numbers.
#[cfg(not(target_arch = "wasm32"))]
pub fn inner_products(a: &[f64], b: &[f64], rows: usize) -> Vec<f64> {
    use nalgebra::DMatrixView;
    let [a, b] = [a, b].map(|m| DMatrixView::from_slice(m, rows, m.len().checked_div(rows).unwrap_or(0)));
    let mut products = DMatrix::zeros(a.ncols(), b.ncols());
    products.gemm(1.0, &a.transpose(), &b, 0.0);
    products.data.into()
}

/// The products of all columns of `a` with all of `b`. In a browser matrices are small, and what counts is the size of the code.
#[cfg(target_arch = "wasm32")]
pub fn inner_products(a: &[f64], b: &[f64], rows: usize) -> Vec<f64> {
    b.chunks_exact(rows).flat_map(|b| a.chunks_exact(rows).map(move |a| dot(a, b))).collect()
}

/// The eigenvalues of a symmetric matrix of `rows` rows, in no order.
pub fn symmetric_eigenvalues(matrix: Vec<f64>, rows: usize) -> Vec<f64> {
    DMatrix::from_vec(rows, rows, matrix).symmetric_eigenvalues().data.into()
}

/// Σ aᵢbᵢ, in eight sums side by side.
pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    let (a, b) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let mut sums = [0.0; 8];
    for (a, b) in a.0.iter().zip(b.0) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    sums.iter().sum::<f64>() + a.1.iter().zip(b.1).map(|(a, b)| a * b).sum::<f64>()
}
