//! The quality of pictures, as a distance between two sets of them: the Fréchet distance of their features (FID), and the
//! kernel distance beside it (KID).
//!
//! Pictures become features by a network, a [`FeatureExtractor`]; features become [`Statistics`] in one pass over
//! them ([`Moments`]), and two statistics have a distance.
//!
//! | module | what it holds |
//! |---|---|
//! | `feature_network`, `features` | the networks, and what they make of pictures |
//! | `statistics` | mean and covariance, gathered block by block; of which features they are |
//! | `statistics_file` | statistics as a file, and the features beside them |
//! | `frechet` | the Fréchet distance of two Gaussians, and its standard error |
//! | `kid` | the squared maximum mean discrepancy under a cubic kernel, and its standard error |
//! | `matrix` | products and eigenvalues |
//! | `hash` | what tells weights and runs apart |
//! | `splits` | pictures drawn at random: groups that are left out in turn, and subsets |
//!
//! # Standard errors
//!
//! Both distances come with a standard error by the delete-a-group jackknife (Shao and Tu, "The Jackknife and Bootstrap", 1995,
//! chapter 2.3; Kott, "The delete-a-group jackknife", 2001): the generated pictures are dealt at random into G groups of equal
//! size, the distance is computed anew without each of them, and with θ₍g₎ for these and θ̄ for their mean
//!
//! ```text
//! SE² = (G − 1)/G · Σ_g (θ₍g₎ − θ̄)²
//! ```
//!
//! It says how far the number would move if other pictures were drawn by the same model with other seeds (and, where prompts
//! were drawn at random, other prompts), measured against these same real pictures. It does not cover the choice of the real
//! pictures, nor the bias of FID, which is too large by an amount that falls like 1/N with the number N of pictures (Chong and
//! Forsyth 2020, arXiv 1911.07023): FIDs compare at equal N only. KID has no such bias. Why not the spread of FIDs of small
//! splits: each would have that bias many times over, and so another value than the whole.

mod error;
mod feature_network;
mod features;
pub mod frechet;
mod hash;
pub mod kid;
mod matrix;
mod splits;
mod statistics;
mod statistics_file;

pub use error::{Error, INCEPTION_CONVERSION};
pub use features::{Classification, FeatureExtractor, Label};
pub use frechet::frechet_distance;
pub use hash::Hash;
pub use kid::{Kid, Rows, kid};
pub use splits::deal;
pub use statistics::{FeatureSpace, Moments, Statistics};
pub use statistics_file::StatisticsFile;

/// A number and its standard error.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The number.
    pub value: f64,
    /// Likely distance to the value for other pictures of the same model, one standard deviation. `None` if there are too few
    /// pictures to tell.
    pub standard_error: Option<f64>,
}

/// The jackknife's standard error from the estimates that leave out one group each.
fn jackknife(without: &[f64]) -> Option<f64> {
    let groups = without.len() as f64;
    if without.len() < 2 {
        return None;
    }
    let mean = without.iter().sum::<f64>() / groups;
    let squares: f64 = without.iter().map(|value| (value - mean) * (value - mean)).sum();
    Some(libm::sqrt(squares * (groups - 1.0) / groups))
}

/// A list of `count` results, on several threads where there are some.
#[cfg(not(target_arch = "wasm32"))]
fn map<T: Send>(count: usize, result: impl Fn(usize) -> T + Send + Sync) -> Vec<T> {
    use rayon::prelude::*;
    (0..count).into_par_iter().map(result).collect()
}

#[cfg(target_arch = "wasm32")]
fn map<T>(count: usize, result: impl Fn(usize) -> T) -> Vec<T> {
    (0..count).map(result).collect()
}
