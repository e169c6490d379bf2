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
/// [`Error::Spaces`] for statistics of different features, [`Error::NotFinite`] for a distance that f64 does not hold, and as
/// [`Statistics::check`].
pub fn frechet_distance(one: &Statistics, other: &Statistics) -> Result<f64, Error> {
    Reference::new(one)?.distance(other)
}

/// One of the two sets, prepared for the distance to several others.
pub struct Reference<'s> {
    statistics: &'s Statistics,
    /// F with Σ = FFᵀ·2^exponent, the columns of `[dimension, rank]` one after the other.
    factor: Vec<f64>,
    exponent: i32,
}

impl<'s> Reference<'s> {
    /// Factorises the covariance.
    ///
    /// # Errors
    /// As [`Statistics::check`].
    pub fn new(statistics: &'s Statistics) -> Result<Self, Error> {
        statistics.check()?;
        let exponent = exponent(statistics);
        let scale = libm::ldexp(1.0, -exponent);
        let scaled: Vec<f64> = statistics.covariance.iter().map(|value| value * scale).collect();
        Ok(Self { statistics, factor: factor(&scaled, statistics.space.dimension), exponent })
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
        let exponents = [self.exponent, exponent(other)];
        // The root of the other covariance's scale on each side of it.
        let scale = libm::ldexp(1.0, -exponents[1] / 2);
        let factor: Vec<f64> = self.factor.iter().map(|value| value * scale).collect();
        // ΣF is ΣᵀF.
        let product = inner_products(&other.covariance, &factor, dimension);
        let inner = inner_products(&factor, &product, dimension);
        drop((factor, product));
        let root = trace_of_root(inner, self.factor.len() / dimension)?;
        // All in the scale of the larger one, where the terms cancel before anything overflows.
        let larger = exponents[0].max(exponents[1]);
        let scale = libm::ldexp(1.0, -larger);
        let root = root * libm::ldexp(1.0, (exponents[0] + exponents[1]) / 2 - larger);
        let spread = trace(one, scale) + trace(other, scale) - 2.0 * root;
        let distance = between + spread * libm::ldexp(1.0, larger);
        if !distance.is_finite() {
            return Err(not_finite());
        }
        // Of two like sets the terms cancel, and rounding may leave less than nothing.
        Ok(distance.max(0.0))
    }

    /// The standard error of the distance to `generated`, all groups together: see [`super`]. `None` if there are too few
    /// pictures to tell.
    ///
    /// # Errors
    /// As [`frechet_distance`].
    pub fn standard_error(&self, generated: &[Moments]) -> Result<Option<f64>, Error> {
        let groups = generated.len();
        if groups < 2 || (0..groups).any(|group| without_count(generated, group) < 2) {
            return Ok(None);
        }
        let replicates = map(groups, |group| self.distance_without(generated, Some(group)));
        let replicates: Vec<f64> = replicates.into_iter().collect::<Result<_, _>>()?;
        Ok(jackknife(&replicates))
    }

    /// The distance to all groups but one.
    fn distance_without(&self, generated: &[Moments], left_out: Option<usize>) -> Result<f64, Error> {
        let space = &self.statistics.space;
        let mut rest = Moments::new(space.dimension);
        for (group, moments) in generated.iter().enumerate() {
            if Some(group) != left_out {
                rest.merge(moments)?;
            }
        }
        self.distance(&rest.statistics(space.clone(), "the generated pictures".to_owned())?)
    }
}

fn not_finite() -> Error {
    Error::NotFinite { what: "the distance".to_owned() }
}

/// An even power of 2 near the largest variance. With it taken out, products of variances neither overflow nor vanish; and
/// nothing is rounded, nor by its root.
fn exponent(statistics: &Statistics) -> i32 {
    let largest = diagonal(statistics).fold(0.0, f64::max);
    let (_, exponent) = libm::frexp(largest);
    // So far that 2^-exponent is a number too.
    (exponent / 2 * 2).clamp(-1000, 1000)
}

fn diagonal(statistics: &Statistics) -> impl Iterator<Item = f64> {
    statistics.covariance.iter().step_by(statistics.space.dimension + 1).copied()
}

/// The distance d² of `generated`, all groups together, to `real`, with its standard error: see [`super`]. The features of both must
/// be of one space, which moments do not know.
///
/// # Errors
/// As [`frechet_distance`], [`Error::Length`] for a group of another dimension; [`Error::TooFew`] for fewer than two pictures in
/// all.
pub fn with_standard_error(real: &Statistics, generated: &[Moments]) -> Result<Estimate, Error> {
    let reference = Reference::new(real)?;
    let value = reference.distance_without(generated, None)?;
    Ok(Estimate { value, standard_error: reference.standard_error(generated)? })
}

/// Number of pictures that are left without `group`.
fn without_count(groups: &[Moments], group: usize) -> usize {
    groups.iter().map(Moments::count).sum::<usize>() - groups[group].count()
}

fn trace(statistics: &Statistics, scale: f64) -> f64 {
    diagonal(statistics).map(|variance| variance * scale).sum()
}

/// F with FFᵀ = `matrix`, which is symmetric and positive semidefinite: the columns of `[dimension, rank]` one after the other.
///
/// It is Cholesky's factorisation, always going on with the largest diagonal element that is left, until that is rounding
/// (Higham, "Analysis of the Cholesky decomposition of a semi-definite matrix", 1990). Rows are in the matrix's order.
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
///
/// # Errors
/// [`Error::NotFinite`]. It is asked for before each `max`, which would make 0 of what is no number.
fn trace_of_root(mut matrix: Vec<f64>, rows: usize) -> Result<f64, Error> {
    let is_finite = |values: &[f64]| values.iter().all(|value| value.is_finite());
    if !is_finite(&matrix) {
        return Err(not_finite());
    }
    // The iteration ends where what is left is small beside the diagonal. With all eigenvalues moved away from zero that is
    // small beside the largest, where it would else be asked for rounding's own eigenvalues, without end.
    let shift = matrix.iter().step_by(rows + 1).fold(0.0, |largest: f64, value| largest.max(*value)) / 1024.0;
    if shift == 0.0 {
        return Ok(0.0);
    }
    matrix.iter_mut().step_by(rows + 1).for_each(|value| *value += shift);
    let eigenvalues = symmetric_eigenvalues(matrix, rows);
    match is_finite(&eigenvalues) {
        true => Ok(eigenvalues.iter().map(|value| libm::sqrt((value - shift).max(0.0))).sum()),
        false => Err(not_finite()),
    }
}
