//! The kernel inception distance (Bińkowski et al. 2018, arXiv 1801.01401): the squared maximum mean discrepancy of two sets of
//! features under k(x, y) = (x·y/d + 1)³, estimated without bias:
//!
//! ```text
//! MMD² = Σ_{i≠j} k(xᵢ, xⱼ) / (m(m − 1)) + Σ_{i≠j} k(yᵢ, yⱼ) / (n(n − 1)) − 2 Σ_{i,j} k(xᵢ, yⱼ) / (mn)
//! ```
//!
//! As published figures are, it is the mean over random subsets of both sets. The spread of the subsets, which is often printed
//! beside it, says how large subsets are rather than how sure the mean is, since they share pictures; the standard error here
//! is that of [`super`].

use super::matrix::inner_products;
use super::splits::Draws;
use super::{Error, deal, jackknife, map};

/// Features that can be looked up by the number of their picture.
pub trait Rows: Sync {
    /// Number of pictures.
    fn count(&self) -> usize;

    /// Numbers of a picture.
    fn dimension(&self) -> usize;

    /// The features of `pictures`, one after the other, `[pictures, dimension]`.
    ///
    /// # Errors
    /// If they cannot be read.
    fn gather(&self, pictures: &[usize]) -> Result<Vec<f64>, Error>;
}

/// Options of the estimate of KID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Number of subsets; one does where subsets are the sets themselves.
    pub subsets: usize,
    /// Pictures of each set in a subset, at most.
    pub subset_size: usize,
    /// Seed of the random choice.
    pub seed: u32,
    /// Groups of generated pictures that the standard error leaves out in turn; below 2 there is none.
    pub splits: usize,
}

impl Default for Options {
    /// 100 subsets of 1000, as the paper's code has them, and 20 splits.
    fn default() -> Self {
        Self { subsets: 100, subset_size: 1000, seed: 0, splits: 20 }
    }
}

/// The kernel distance of two sets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Kid {
    /// MMD², the mean over the subsets; around 0 for two sets of one kind, and then as often below.
    pub value: f64,
    /// Likely distance to the value for other generated pictures; see [`super`].
    pub standard_error: Option<f64>,
    /// Number of subsets that were taken.
    pub subsets: usize,
    /// Pictures of each set in a subset.
    pub subset_size: usize,
}

/// The kernel distance of `generated` to `real`.
///
/// # Errors
/// [`Error::Length`] for features of different dimensions or of none, [`Error::TooFew`] for a set of fewer than two,
/// [`Error::NotFinite`] for a feature that is no number, and what the sets report.
pub fn kid(real: &dyn Rows, generated: &dyn Rows, options: Options) -> Result<Kid, Error> {
    let (dimension, found) = (real.dimension(), generated.dimension());
    if dimension != found {
        return Err(Error::Length { what: "a generated picture", found, expected: dimension });
    }
    if dimension == 0 {
        return Err(Error::Length { what: "a picture", found, expected: 1 });
    }
    let fewest = real.count().min(generated.count());
    if fewest < 2 {
        return Err(Error::TooFew { what: "a kernel distance", count: fewest, needed: 2 });
    }
    let subset_size = options.subset_size.clamp(2, fewest);
    let whole = subset_size == real.count() && subset_size == generated.count();
    let subsets = if whole { 1 } else { options.subsets.max(1) };
    let splits = options.splits.min(generated.count());
    let groups = deal(generated.count(), splits);
    let mut draws = Draws::new(options.seed);
    let chosen: Vec<_> =
        (0..subsets).map(|_| [real, generated].map(|set| draws.choose(subset_size, set.count()))).collect();
    let of_subset = |subset: usize| -> Result<Vec<f64>, Error> {
        let [x, y] = &chosen[subset];
        let kernel = Kernel::new(&gather(real, x)?, &gather(generated, y)?, dimension);
        let groups: Vec<usize> = y.iter().map(|&picture| groups[picture]).collect();
        Ok(kernel.mmd2_and_without(&groups, splits))
    };
    // The estimate, and then those without each group.
    let mut means = vec![0.0; 1 + splits];
    for estimates in map(subsets, of_subset) {
        for (mean, estimate) in means.iter_mut().zip(estimates?) {
            *mean += estimate / subsets as f64;
        }
    }
    // A group may be all that a small subset has.
    let standard_error = jackknife(&means[1..]).filter(|error| error.is_finite());
    Ok(Kid { value: means[0], standard_error, subsets, subset_size })
}

/// The features of `pictures`, all of them numbers.
fn gather(set: &dyn Rows, pictures: &[usize]) -> Result<Vec<f64>, Error> {
    let features = set.gather(pictures)?;
    match features.iter().position(|number| !number.is_finite()) {
        None => Ok(features),
        Some(at) => {
            let (dimension, picture) = (set.dimension(), at / set.dimension());
            let what = format!("feature {} of picture {}", at % dimension, pictures[picture]);
            Err(Error::NotFinite { what })
        }
    }
}

/// The unbiased estimate of MMD² from all of two small sets, `[pictures, dimension]` each.
///
/// # Errors
/// [`Error::Length`] for a part of a picture, [`Error::TooFew`] for a set of fewer than two.
pub fn mmd2(real: &[f64], generated: &[f64], dimension: usize) -> Result<f64, Error> {
    for (what, set) in [("the real set", real), ("the generated set", generated)] {
        let count = set.len().checked_div(dimension).unwrap_or(0);
        if count * dimension != set.len() {
            return Err(Error::Length { what, found: set.len(), expected: (count + 1) * dimension });
        }
        if count < 2 {
            return Err(Error::TooFew { what: "a kernel distance", count, needed: 2 });
        }
    }
    Ok(Kernel::new(real, generated, dimension).mmd2_and_without(&[], 0)[0])
}

/// The kernel's sums over a subset.
struct Kernel {
    /// Σ_{i≠j} k(xᵢ, xⱼ) / (m(m − 1)).
    real: f64,
    /// Number of real pictures.
    count: f64,
    /// k(yᵢ, yⱼ), `[n, n]`.
    generated: Vec<f64>,
    /// Σᵢ k(xᵢ, yⱼ) for each generated picture j.
    between: Vec<f64>,
}

impl Kernel {
    fn new(real: &[f64], generated: &[f64], dimension: usize) -> Self {
        let kernel = |a: &[f64], b: &[f64]| -> Vec<f64> {
            let cubed = |product: f64| {
                let base = product / dimension as f64 + 1.0;
                base * base * base
            };
            inner_products(a, b, dimension).into_iter().map(cubed).collect()
        };
        let xx = kernel(real, real);
        let count = real.len() / dimension;
        let diagonal: f64 = xx.iter().step_by(count + 1).sum();
        let pairs = (count * (count - 1)) as f64;
        Self {
            real: (xx.iter().sum::<f64>() - diagonal) / pairs,
            count: count as f64,
            generated: kernel(generated, generated),
            between: kernel(real, generated).chunks(count).map(|column| column.iter().sum()).collect(),
        }
    }

    /// MMD², and then what it is without the generated pictures of each of `splits` groups, of which `groups` has each picture's.
    fn mmd2_and_without(&self, groups: &[usize], splits: usize) -> Vec<f64> {
        let all = self.between.len();
        // For each picture, its kernels with all others.
        let columns = self.generated.chunks(all).enumerate();
        let within: Vec<f64> = columns.map(|(j, column)| column.iter().sum::<f64>() - column[j]).collect();
        let without = |left_out: &[usize]| {
            let count = (all - left_out.len()) as f64;
            let sum_of = |list: &[f64]| list.iter().sum::<f64>() - left_out.iter().map(|&i| list[i]).sum::<f64>();
            // Both of a pair that is left out have taken it away.
            let pairs = left_out.iter().flat_map(|&i| left_out.iter().map(move |&j| (i, j)));
            let twice: f64 = pairs.filter(|(i, j)| i != j).map(|(i, j)| self.generated[i * all + j]).sum();
            let gone: f64 = left_out.iter().map(|&i| within[i]).sum();
            let within = sum_of(&within) - gone + twice;
            self.real + within / (count * (count - 1.0)) - 2.0 * sum_of(&self.between) / (self.count * count)
        };
        let group = |group: usize| (0..all).filter(|&i| groups[i] == group).collect::<Vec<_>>();
        [Vec::new()].into_iter().chain((0..splits).map(group)).map(|left_out| without(&left_out)).collect()
    }
}
