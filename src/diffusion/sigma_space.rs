//! What the solvers share that hold x = x_0 + σ·ε, in which the reverse process is dx/dσ = (x − x̂_0)/σ: Karras, Aittala,
//! Aila and Laine 2022, arXiv 2206.00364.

use super::{
    Error, Terms,
    config::{PredictionType, TimestepSpacing},
    spacing::{self, SigmaSpacing},
    table::Run,
};

/// As diffusers holds timesteps and σ in these classes.
pub(super) fn round_to_f32(values: Vec<f64>) -> Vec<f64> {
    values.into_iter().map(|value| f64::from(value as f32)).collect()
}

/// The timesteps of a run, and σ at each of them.
pub(super) fn timesteps_and_sigmas(
    run: &Run,
    sigma_spacing: Option<SigmaSpacing>,
) -> Result<(Vec<f64>, Vec<f64>), Error> {
    let timesteps = match run.custom_timesteps()? {
        Some(custom) => {
            run.refuse("timesteps", sigma_spacing.is_some())?;
            custom
        }
        None => spacing::timesteps(run.common, run.num_inference_steps),
    };
    let train_sigmas = run.noise_schedule.sigmas();
    let sigmas: Vec<f64> =
        timesteps.iter().map(|&t| spacing::interpolate(f64::from(t as f32), &train_sigmas)).collect();
    match (sigma_spacing, sigmas.first(), sigmas.last()) {
        (Some(spacing), Some(&first), Some(&last)) => {
            let sigmas = spacing.sigmas(first, last, run.num_inference_steps);
            Ok((spacing::timesteps_of_sigmas(&sigmas, &train_sigmas), sigmas))
        }
        _ => Ok((timesteps, sigmas)),
    }
}

/// The first once, every other twice: where the first call of a step arrives, and where the next step begins.
pub(super) fn twice_but_the_first(values: &[f64]) -> Vec<f64> {
    values.iter().flat_map(|&value| [value; 2]).skip(1).collect()
}

/// The scale of the network's input, whose variance is that of the training data.
pub(super) fn input_scale(sigma: f64) -> f64 {
    1.0 / (sigma * sigma + 1.0).sqrt()
}

/// The standard deviation of x_T. With "leading" spacing, which does not start at the end of the schedule, diffusers
/// counts the image's own variance in.
pub(super) fn init_noise_sigma(run: &Run, sigmas: &[f64]) -> f64 {
    let largest = sigmas.iter().copied().fold(0.0, f64::max);
    match run.common.timestep_spacing {
        TimestepSpacing::Linspace | TimestepSpacing::Trailing => largest,
        TimestepSpacing::Leading => (largest * largest + 1.0).sqrt(),
    }
}

/// x̂_0 where x = x_0 + σ̂·ε, from a network that saw x/√(σ²+1).
///
/// For v-prediction diffusers scales with σ even where x was churned up to σ̂.
pub(super) fn predict_x0(prediction_type: PredictionType, x: Terms, sigma: f64, sigma_hat: f64) -> Terms {
    let variance = sigma * sigma + 1.0;
    match prediction_type {
        PredictionType::Epsilon | PredictionType::FlowPrediction => x - Terms::MODEL_OUTPUT * sigma_hat,
        PredictionType::Sample => Terms::MODEL_OUTPUT,
        PredictionType::VPrediction => x * (1.0 / variance) - Terms::MODEL_OUTPUT * (sigma / variance.sqrt()),
    }
}
