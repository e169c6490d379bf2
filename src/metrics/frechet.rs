//! The Fréchet distance of two Gaussians (Dowson and Landau, "The Fréchet distance between multivariate normal distributions",
//! 1982), which Heusel et al. 2017 (arXiv 1706.08500) take between features of pictures:
//!
//! ```text
//! d² = |μ₁ − μ₂|² + tr Σ₁ + tr Σ₂ − 2 tr (Σ₁Σ₂)^½
//! ```
//!
//! With any F for which Σ₁ = FFᵀ, the eigenvalues of Σ₁Σ₂ are those of FᵀΣ₂F (but for zeros), which is symmetric and positive
//! semidefinite: the trace of the root is the sum of the roots of these. F comes from a Cholesky factorisation with pivots,
//! which ends where the rank does, so that the zero eigenvalues of a singular Σ₁ are left out instead of being found as noise.

use super::matrix::{dot, inner_products, symmetric_eigenvalues};
use super::{Error, Estimate, Moments, Statistics, jackknife, map};

/// The Fréchet distance of two sets of pictures, the square d² of it as is customary, 0 or more.
///
/// # Errors
/// [`Error::Spaces`] for statistics of different features, [`Error::Length`] and [`Error::NotFinite`] for damaged ones.
pub fn frechet_distance(one: &Statistics, other: &Statistics) -> Result<f64, Error> {
    Reference::new(one)?.distance(other)
}

/// One of the two sets, prepared for the distance to several others.
pub struct Reference<'s> {
    statistics: &'s Statistics,
    /// F with Σ = FFᵀ, the columns of `[dimension, rank]` one after the other.
    factor: Vec<f64>,
}

impl<'s> Reference<'s> {
    /// Factorises the covariance.
    ///
    /// # Errors
    /// [`Error::Length`] or [`Error::NotFinite`].
    pub fn new(statistics: &'s Statistics) -> Result<Self, Error> {
        statistics.check()?;
        Ok(Self { statistics, factor: factor(&statistics.covariance, statistics.space.dimension) })
    }

    /// The distance d² to `other`, 0 or more.
    ///
    /// # Errors
    /// As [`frechet_distance`].
    pub fn distance(&self, other: &Statistics) -> Result<f64, Error> {
        let one = self.statistics;
        one.space.check(&other.space)?;
        other.check()?;
        let dimension = one.space.dimension;
        let between: f64 = one.mean.iter().zip(&other.mean).map(|(a, b)| (a - b) * (a - b)).sum();
        // ΣF is ΣᵀF.
        let product = inner_products(&other.covariance, &self.factor, dimension);
        let inner = inner_products(&self.factor, &product, dimension);
        let rank = self.factor.len().checked_div(dimension).unwrap_or(0);
        let distance = between + trace(one) + trace(other) - 2.0 * trace_of_root(inner, rank);
        // Of two like sets the terms cancel, and rounding may leave less than nothing.
        Ok(distance.max(0.0))
    }
}

/// The distance d² of `generated`, all groups together, to `real`, with its standard error: see [`super`]. The features of both must
/// be of one space, which moments do not know.
///
/// # Errors
/// As [`frechet_distance`]; [`Error::TooFew`] for fewer than two pictures in all.
pub fn with_standard_error(real: &Statistics, generated: &[Moments]) -> Result<Estimate, Error> {
    let space = &real.space;
    let without = |left_out: Option<usize>| {
        let mut rest = Moments::new(space.dimension);
        generated.iter().enumerate().filter(|(group, _)| Some(*group) != left_out).for_each(|(_, m)| rest.merge(m));
        rest
    };
    let reference = Reference::new(real)?;
    let distance = |moments: &Moments| {
        reference.distance(&moments.statistics(space.clone(), "the generated pictures".to_owned())?)
    };
    let value = distance(&without(None))?;
    let groups = generated.len();
    if groups < 2 || (0..groups).any(|group| without_count(generated, group) < 2) {
        return Ok(Estimate { value, standard_error: None });
    }
    let replicates = map(groups, |group| distance(&without(Some(group))));
    let replicates: Vec<f64> = replicates.into_iter().collect::<Result<_, _>>()?;
    Ok(Estimate { value, standard_error: jackknife(&replicates) })
}

/// How many pictures are left without `group`.
fn without_count(groups: &[Moments], group: usize) -> usize {
    groups.iter().map(Moments::count).sum::<usize>() - groups[group].count()
}

fn trace(statistics: &Statistics) -> f64 {
    statistics.covariance.iter().step_by(statistics.space.dimension + 1).sum()
}

/// F with FFᵀ = `matrix`, the columns of `[dimension, rank]` one after the other; a symmetric positive semidefinite one: Cholesky's, always going on with the largest
/// diagonal element that is left, until that is rounding (Higham, "Analysis of the Cholesky decomposition of a semi-definite
/// matrix", 1990). Rows are in the matrix's order.
fn factor(matrix: &[f64], dimension: usize) -> Vec<f64> {
    let mut left: Vec<f64> = matrix.iter().step_by(dimension + 1).copied().collect();
    let largest =
        |left: &[f64]| (0..dimension).max_by(|&a, &b| left[a].total_cmp(&left[b])).map_or((0, 0.0), |i| (i, left[i]));
    let rounding = dimension as f64 * f64::EPSILON * largest(&left).1;
    // A row for each row of the matrix, of which columns are filled from the left.
    let mut rows = vec![0.0; dimension * dimension];
    let mut rank = 0;
    while rank < dimension {
        let (pivot, square) = largest(&left);
        if square <= rounding || square <= 0.0 {
            break;
        }
        let root = libm::sqrt(square);
        let above = rows[pivot * dimension..][..rank].to_vec();
        for row in 0..dimension {
            // Rows that were pivots have nothing left.
            if left[row] == f64::NEG_INFINITY {
                continue;
            }
            let known = &rows[row * dimension..][..rank];
            let value = (matrix[pivot * dimension + row] - dot(known, &above)) / root;
            rows[row * dimension + rank] = value;
            left[row] -= value * value;
        }
        left[pivot] = f64::NEG_INFINITY;
        rank += 1;
    }
    (0..rank).flat_map(|column| rows.iter().skip(column).step_by(dimension).copied()).collect()
}

/// Σ √λ over the eigenvalues λ of `matrix`, symmetric and positive semidefinite but for rounding.
fn trace_of_root(mut matrix: Vec<f64>, rows: usize) -> f64 {
    // The iteration ends where what is left is small beside the diagonal. With all eigenvalues moved away from zero that is
    // small beside the largest, where it would else be asked for rounding's own eigenvalues, without end.
    let shift = matrix.iter().step_by(rows + 1).fold(0.0, |largest: f64, value| largest.max(*value)) / 1024.0;
    if shift == 0.0 {
        return 0.0;
    }
    matrix.iter_mut().step_by(rows + 1).for_each(|value| *value += shift);
    symmetric_eigenvalues(matrix, rows).iter().map(|value| libm::sqrt((value - shift).max(0.0))).sum()
}
