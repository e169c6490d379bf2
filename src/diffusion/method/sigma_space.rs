//! The σ-space of Karras, Aittala, Aila and Laine 2022, arXiv 2206.00364: x = x_0 + σ·ε, in which the reverse process is
//! dx/dσ = (x − x̂_0)/σ.

use super::{
    common::TimestepSpacing,
    options::StepOption,
    run::Run,
    spacing::{self, SigmaSpacing, Visited},
};
use crate::diffusion::{
    error::Error,
    schedule::{
        grid::{interpolate, timesteps_of_sigmas},
        prediction::{PredictionType, Reading},
    },
    table::terms::Terms,
};

/// The timesteps of a run, and σ at each of them but not where the last step arrives.
pub fn visited(run: &Run, sigma_spacing: Option<SigmaSpacing>) -> Result<Visited, Error> {
    let timesteps = match run.custom_timesteps()? {
        Some(custom) => {
            run.refuse(StepOption::Timesteps, sigma_spacing.is_some())?;
            custom
        }
        None => spacing::timesteps(run.common, run.num_inference_steps),
    };
    let train_sigmas = run.noise_schedule.sigmas();
    let sigmas: Vec<f64> = timesteps.iter().map(|&t| interpolate(f64::from(t as f32), &train_sigmas)).collect();
    match (sigma_spacing, sigmas.first(), sigmas.last()) {
        (Some(spacing), Some(&first), Some(&last)) => {
            let sigmas = spacing.sigmas(first, last, run.num_inference_steps);
            Ok(Visited { timesteps: timesteps_of_sigmas(&sigmas, &train_sigmas), sigmas })
        }
        _ => Ok(Visited { timesteps, sigmas }),
    }
}

/// `values` with every one but the first twice, as of a solver with two calls a step: where the first call arrives, and where
/// the next step begins.
pub fn twice_but_the_first(values: &[f64]) -> Vec<f64> {
    values.iter().flat_map(|&value| [value; 2]).skip(1).collect()
}

/// The scale of the network's input, whose variance is that of the training data.
pub fn input_scale(sigma: f64) -> f64 {
    1.0 / (sigma * sigma + 1.0).sqrt()
}

/// The standard deviation of x_T. If the spacing is "leading", which does not start at the end of the schedule, diffusers counts
/// the image's own variance in.
pub fn init_noise_sigma(run: &Run, sigmas: &[f64]) -> f64 {
    let largest = sigmas.iter().copied().fold(0.0, f64::max);
    match run.common.timestep_spacing {
        TimestepSpacing::Linspace | TimestepSpacing::Trailing => largest,
        TimestepSpacing::Leading => (largest * largest + 1.0).sqrt(),
    }
}

/// x̂_0 where x = x_0 + σ̂·ε, from a network that saw x/√(σ²+1).
///
/// For v-prediction diffusers scales with σ even where x was churned up to σ̂.
pub fn predict_x0(prediction_type: PredictionType, x: Terms, sigma: f64, sigma_hat: f64) -> Terms {
    let variance = sigma * sigma + 1.0;
    match prediction_type {
        PredictionType::Epsilon | PredictionType::FlowPrediction => x - Terms::MODEL_OUTPUT * sigma_hat,
        PredictionType::Sample => Terms::MODEL_OUTPUT,
        PredictionType::VPrediction => x * (1.0 / variance) - Terms::MODEL_OUTPUT * (sigma / variance.sqrt()),
    }
}

/// `x0` as what a step says of it: the terms of the sample and of the network's output alone.
pub fn reading(x0: Terms) -> Reading {
    Reading::new(x0.sample, x0.model_output)
}
