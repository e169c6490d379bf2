//! Mean and covariance of features, gathered block by block in f64.

use std::fmt;

use super::matrix::inner_products;
use super::{Error, FeatureExtractor};

/// The numbers in which a set of pictures is described: the network and its weights. Distances exist within one space only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeatureSpace {
    /// The extractor's name, such as `emoji` or `inception-v3-fid`.
    pub extractor: String,
    /// Fingerprint of the extractor's weights, in hexadecimal; empty if it is not known.
    pub fingerprint: String,
    /// Numbers of a picture.
    pub dimension: usize,
}

impl FeatureSpace {
    /// The space of the features that `extractor` makes.
    pub fn of(extractor: &FeatureExtractor) -> Self {
        Self {
            extractor: extractor.name().to_owned(),
            fingerprint: extractor.fingerprint().to_owned(),
            dimension: extractor.features(),
        }
    }

    /// Whether features of both can be compared: an unknown fingerprint may be any.
    pub fn is_same_as(&self, other: &Self) -> bool {
        let known = [self, other].iter().all(|space| !space.fingerprint.is_empty());
        self.extractor == other.extractor
            && self.dimension == other.dimension
            && (!known || self.fingerprint == other.fingerprint)
    }

    /// Refuses features of another space.
    ///
    /// # Errors
    /// [`Error::Spaces`].
    pub fn check(&self, other: &Self) -> Result<(), Error> {
        match self.is_same_as(other) {
            true => Ok(()),
            false => Err(Error::Spaces { left: self.to_string(), right: other.to_string() }),
        }
    }
}

impl fmt::Display for FeatureSpace {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} features of `{}`", self.dimension, self.extractor)?;
        match self.fingerprint.get(..12).unwrap_or(&self.fingerprint) {
            "" => Ok(()),
            beginning => write!(f, " with the weights {beginning}"),
        }
    }
}

/// A set of pictures as a Gaussian in feature space, which is all that the Fréchet distance sees of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Statistics {
    /// Mean feature, `[dimension]`.
    pub mean: Vec<f64>,
    /// Covariance with the divisor N − 1, `[dimension, dimension]`, symmetric.
    pub covariance: Vec<f64>,
    /// Number of pictures, where it is known.
    pub count: Option<usize>,
    /// The space of the features.
    pub space: FeatureSpace,
    /// Description of the pictures, for a person.
    pub made_from: String,
}

impl Statistics {
    /// Whether there are too few pictures for the covariance to have full rank: N points span N − 1 directions, and the
    /// others have no spread at all. The distance exists and is far too large.
    pub fn is_singular(&self) -> bool {
        self.count.is_some_and(|count| count <= self.space.dimension)
    }

    /// Checks that lengths fit, that all numbers are finite, and that the covariance is one of two pictures or more.
    ///
    /// # Errors
    /// [`Error::Length`], also for features of no numbers, [`Error::TooFew`], [`Error::NotFinite`] or [`Error::Covariance`].
    pub fn check(&self) -> Result<(), Error> {
        let dimension = self.space.dimension;
        if dimension == 0 {
            return Err(Error::Length { what: "a picture", found: 0, expected: 1 });
        }
        if let Some(count) = self.count.filter(|&count| count < 2) {
            return Err(Error::TooFew { what: "a covariance", count, needed: 2 });
        }
        for (what, list, expected) in
            [("mean", &self.mean, dimension), ("covariance", &self.covariance, dimension * dimension)]
        {
            if list.len() != expected {
                return Err(Error::Length { what, found: list.len(), expected });
            }
            if !list.iter().all(|number| number.is_finite()) {
                return Err(Error::NotFinite { what: format!("the {what} of {}", self.made_from) });
            }
        }
        self.check_covariance()
    }

    /// Checks that no variance is below 0, and that Σᵢⱼ is Σⱼᵢ and at most √(ΣᵢᵢΣⱼⱼ), but for what rounding does to f32.
    fn check_covariance(&self) -> Result<(), Error> {
        let dimension = self.space.dimension;
        let at = |row: usize, column: usize| self.covariance[row * dimension + column];
        let wrong = |row, column| Err(Error::Covariance { made_from: self.made_from.clone(), row, column });
        let largest = (0..dimension).map(|i| at(i, i)).fold(0.0, f64::max);
        let rounding = dimension as f64 * f64::EPSILON * largest;
        let deviations: Vec<f64> = (0..dimension).map(|i| libm::sqrt(at(i, i).max(0.0))).collect();
        for row in 0..dimension {
            if at(row, row) < -rounding {
                return wrong(row, row);
            }
            for column in 0..row {
                let (one, other) = (at(row, column), at(column, row));
                let most = deviations[row] * deviations[column];
                let allowed = 1e-6 * most + rounding;
                if (one - other).abs() > allowed || one.abs() > most + allowed {
                    return wrong(row, column);
                }
            }
        }
        Ok(())
    }
}

/// Mean and covariance on the way: features come in blocks, and what two have gathered can be put together.
///
/// Sums of squares are taken about the mean of each block and corrected when blocks meet (Chan, Golub and LeVeque, "Algorithms
/// for computing the sample variance", 1983, eq. 2.1 for matrices), so that features far from zero lose no digits.
#[derive(Clone, Debug, PartialEq)]
pub struct Moments {
    count: usize,
    mean: Vec<f64>,
    /// Σ (x − mean)(x − mean)ᵀ, `[dimension, dimension]`.
    scatter: Vec<f64>,
}

impl Moments {
    /// The moments of no pictures yet.
    pub fn new(dimension: usize) -> Self {
        Self { count: 0, mean: vec![0.0; dimension], scatter: vec![0.0; dimension * dimension] }
    }

    /// Number of pictures that have been seen.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Adds pictures' features, `[pictures, dimension]`. A block of some hundred is added faster than as many blocks of one.
    ///
    /// # Errors
    /// [`Error::Length`] for a part of a picture, [`Error::NotFinite`] with the number of the picture, counted from 0.
    pub fn push(&mut self, features: &[f64]) -> Result<(), Error> {
        let dimension = self.mean.len();
        let rows = features.len().checked_div(dimension).unwrap_or(0);
        if rows * dimension != features.len() {
            let expected = (rows + 1) * dimension;
            return Err(Error::Length { what: "a block of features", found: features.len(), expected });
        }
        if let Some(at) = features.iter().position(|number| !number.is_finite()) {
            let what = format!("feature {} of picture {}", at % dimension, self.count + at / dimension);
            return Err(Error::NotFinite { what });
        }
        if rows == 0 {
            return Ok(());
        }
        // A feature is a column here, with a row for each picture, about its mean.
        let mut columns = Vec::with_capacity(features.len());
        let mut mean = Vec::with_capacity(dimension);
        for feature in 0..dimension {
            let of_pictures = features.iter().skip(feature).step_by(dimension);
            let about = of_pictures.clone().sum::<f64>() / rows as f64;
            columns.extend(of_pictures.map(|number| number - about));
            mean.push(about);
        }
        self.merge(&Self { count: rows, mean, scatter: inner_products(&columns, &columns, rows) })
    }

    /// Adds the pictures that `other` has seen.
    ///
    /// # Errors
    /// [`Error::Length`] for those of another dimension.
    pub fn merge(&mut self, other: &Self) -> Result<(), Error> {
        let (expected, found) = (self.mean.len(), other.mean.len());
        if found != expected {
            return Err(Error::Length { what: "a picture", found, expected });
        }
        let all = self.count + other.count;
        if other.count == 0 {
            return Ok(());
        }
        let share = other.count as f64 / all as f64;
        let difference: Vec<f64> = other.mean.iter().zip(&self.mean).map(|(theirs, ours)| theirs - ours).collect();
        // n₁n₂/(n₁ + n₂)
        let weight = self.count as f64 * share;
        let dimension = difference.len().max(1);
        for (i, (ours, theirs)) in self.scatter.chunks_mut(dimension).zip(other.scatter.chunks(dimension)).enumerate() {
            for ((ours, theirs), difference_j) in ours.iter_mut().zip(theirs).zip(&difference) {
                *ours += theirs + weight * difference[i] * difference_j;
            }
        }
        self.mean.iter_mut().zip(&difference).for_each(|(mean, difference)| *mean += share * difference);
        self.count = all;
        Ok(())
    }

    /// The statistics of what has been seen.
    ///
    /// # Errors
    /// [`Error::TooFew`] for fewer than two pictures, which have no covariance.
    pub fn statistics(&self, space: FeatureSpace, made_from: String) -> Result<Statistics, Error> {
        if self.count < 2 {
            return Err(Error::TooFew { what: "a covariance", count: self.count, needed: 2 });
        }
        let divisor = (self.count - 1) as f64;
        Ok(Statistics {
            mean: self.mean.clone(),
            covariance: self.scatter.iter().map(|sum| sum / divisor).collect(),
            count: Some(self.count),
            space,
            made_from,
        })
    }
}
