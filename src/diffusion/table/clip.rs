//! The clipping of x̂_0 before it is used, and the deviation of the noise that a network has learned.

use serde::Serialize;

use crate::order::sort_floats;

/// The clipping of x̂_0 before it is used.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Clip {
    /// No clipping.
    None,
    /// Clamping to ± this number (`clip_sample_range`).
    Range(f64),
    /// Dynamic thresholding (Saharia et al. 2022, arXiv 2205.11487): s is the `ratio` quantile of |x̂_0| over each
    /// image, at least 1 and at most `max_value`; x̂_0 is clamped to ± s and divided by s.
    Threshold {
        /// `dynamic_thresholding_ratio`.
        ratio: f64,
        /// `sample_max_value`. It wins where it is below 1.
        max_value: f64,
    },
}

/// The way from the second half of the network's channels to the standard deviation of a step's noise, if a model has
/// learned it (`variance_type`). v is that half, element by element.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LearnedVariance {
    /// v is the variance itself: √v.
    Learned,
    /// v lies between −1 and 1 and interpolates between two logarithms of the variance: exp(½·(f·max + (1−f)·min)),
    /// f = (v+1)/2. Nichol and Dhariwal 2021, arXiv 2102.09672, equation 15.
    LearnedRange {
        /// log β̃_t, the posterior's variance.
        min_log: f64,
        /// log β_t.
        max_log: f64,
    },
}

impl LearnedVariance {
    /// The standard deviation.
    pub fn std(self, v: f64) -> f64 {
        match self {
            Self::Learned => v.sqrt(),
            Self::LearnedRange { min_log, max_log } => {
                let fraction = (v + 1.0) / 2.0;
                libm::exp(0.5 * (fraction * max_log + (1.0 - fraction) * min_log))
            }
        }
    }
}

impl Clip {
    /// Clips one image in place.
    pub(in crate::diffusion) fn apply(self, image: &mut [f64]) {
        match self {
            Self::None => {}
            Self::Range(range) => image.iter_mut().for_each(|x| *x = x.clamp(-range, range)),
            Self::Threshold { ratio, max_value } => {
                let s = quantile_of_magnitude(image, ratio).max(1.0).min(max_value);
                image.iter_mut().for_each(|x| *x = x.clamp(-s, s) / s);
            }
        }
    }
}

/// `torch.quantile(|x|, q)`: between two values, linear.
fn quantile_of_magnitude(values: &[f64], q: f64) -> f64 {
    let mut magnitudes: Vec<f64> = values.iter().map(|x| x.abs()).collect();
    sort_floats(&mut magnitudes);
    let rank = q * magnitudes.len().saturating_sub(1) as f64;
    let at = |i: f64| magnitudes.get(i as usize).copied().unwrap_or(0.0);
    let (low, high) = (at(rank.floor()), at(rank.ceil()));
    low + (high - low) * rank.fract()
}
