//! `EulerDiscreteScheduler`.
//!
//! Karras, Aittala, Aila and Laine 2022, arXiv 2206.00364, algorithm 2 without its second-order correction. x holds
//! x_0 + σ·ε, and one step follows dx/dσ = (x − x̂_0)/σ in a straight line:
//!
//! ```text
//! x̂ = x + √(σ̂² − σ²)·s_noise·z,        σ̂ = (1 + γ)·σ         (churn; γ = 0 and x̂ = x without)
//! x_next = x̂ + (σ_next − σ̂)·(x̂ − x̂_0)/σ̂
//! ```

use super::{
    Clip, Error, Step, Table, Terms,
    config::{PredictionType, TimestepSpacing},
    keys::Keys,
    spacing::{self, SigmaSpacing},
    table::Run,
};

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Config {
    sigma_spacing: Option<SigmaSpacing>,
    log_linear: bool,
    sigma_min: Option<f64>,
    sigma_max: Option<f64>,
    final_sigma_is_zero: bool,
    continuous: bool,
}

impl Config {
    pub(super) fn read(keys: &Keys) -> Result<Self, Error> {
        let positive = |key| match keys.optional_f64(key)? {
            Some(sigma) if !(sigma > 0.0 && sigma.is_finite()) => {
                Err(keys.unsupported(key, sigma, "null, or finite numbers above 0"))
            }
            sigma => Ok(sigma),
        };
        Ok(Self {
            sigma_spacing: read_sigma_spacing(keys)?,
            log_linear: keys.choice("interpolation_type", false, &[("linear", false), ("log_linear", true)])?,
            sigma_min: positive("sigma_min")?,
            sigma_max: positive("sigma_max")?,
            final_sigma_is_zero: read_final_sigma_is_zero(keys)?,
            continuous: keys.choice("timestep_type", false, &[("discrete", false), ("continuous", true)])?,
        })
    }

    pub(super) fn table(&self, run: &Run) -> Result<Table, Error> {
        let options = run.options;
        let (mut timesteps, sigmas) = self.timesteps_and_sigmas(run)?;
        // Timesteps, like σ, are f32 in diffusers.
        timesteps.iter_mut().for_each(|t| *t = f64::from(*t as f32));
        let sigmas: Vec<f64> = sigmas.into_iter().map(|sigma| f64::from(sigma as f32)).collect();
        if self.continuous && run.common.prediction_type == PredictionType::VPrediction {
            timesteps = sigmas.iter().take(timesteps.len()).map(|&s| f64::from(0.25 * libm::logf(s as f32))).collect();
        }
        let gamma = (options.s_churn / sigmas.len().saturating_sub(1) as f64).min(std::f64::consts::SQRT_2 - 1.0);
        let levels = sigmas.clone();
        run.table(timesteps, sigmas, init_noise_sigma(run, &levels), |i, timestep| {
            let (sigma, sigma_next) = (levels[i], levels[i + 1]);
            let gamma = if (options.s_tmin..=options.s_tmax).contains(&sigma) { gamma } else { 0.0 };
            let sigma_hat = sigma * (1.0 + gamma);
            let churn = options.s_noise * (sigma_hat * sigma_hat - sigma * sigma).sqrt();
            let x = Terms::SAMPLE + Terms::NOISE * churn;
            let x0 = predict_x0(run.common.prediction_type, x, sigma, sigma_hat);
            Ok(Step {
                timestep,
                input_scale: 1.0 / (sigma * sigma + 1.0).sqrt(),
                x0: (x0.sample, x0.model_output),
                clip: Clip::None,
                prev_sample: x + (x - x0) * ((sigma_next - sigma_hat) / sigma_hat),
                history: Terms::HISTORY,
                draws_noise: gamma > 0.0,
                forward: (1.0, sigma),
            })
        })
    }

    /// The timesteps, and σ for each of them with the final one.
    fn timesteps_and_sigmas(&self, run: &Run) -> Result<(Vec<f64>, Vec<f64>), Error> {
        let train_sigmas = run.noise_schedule.sigmas();
        if let Some(custom) = &run.options.sigmas {
            let visited = &custom[..custom.len() - 1];
            return Ok((spacing::timesteps_of_sigmas(visited, &train_sigmas), custom.clone()));
        }
        let n = run.num_inference_steps;
        let mut timesteps = match &run.options.timesteps {
            Some(custom) => {
                run.refuse("timesteps", self.sigma_spacing.is_some() || self.log_linear || self.continuous)?;
                spacing::check_custom_timesteps(custom, run.common)?;
                custom.clone()
            }
            None => spacing::timesteps(run.common, n, false),
        };
        let (Some(&smallest), Some(&largest)) = (train_sigmas.first(), train_sigmas.last()) else {
            return Ok((Vec::new(), Vec::new()));
        };
        let mut sigmas: Vec<f64> = match self.log_linear {
            false => timesteps.iter().map(|&t| spacing::interpolate(f64::from(t as f32), &train_sigmas)).collect(),
            // One more than there are steps, so that the final σ appended below is never reached.
            true => spacing::linspace_f32(libm::logf(largest), libm::logf(smallest), n + 1)
                .into_iter()
                .map(|log| f64::from(libm::expf(log)))
                .collect(),
        };
        if let (Some(spacing), Some(&first), Some(&last)) = (self.sigma_spacing, sigmas.first(), sigmas.last()) {
            sigmas = spacing.sigmas(self.sigma_max.unwrap_or(first), self.sigma_min.unwrap_or(last), n);
            timesteps = spacing::timesteps_of_sigmas(&sigmas, &train_sigmas);
        }
        sigmas.push(if self.final_sigma_is_zero { 0.0 } else { f64::from(smallest) });
        Ok((timesteps, sigmas))
    }
}

/// `use_karras_sigmas` and its rivals, at most one of them.
pub(super) fn read_sigma_spacing(keys: &Keys) -> Result<Option<SigmaSpacing>, Error> {
    let mut chosen = None;
    for (key, spacing) in [
        ("use_karras_sigmas", SigmaSpacing::Karras),
        ("use_exponential_sigmas", SigmaSpacing::Exponential),
        ("use_beta_sigmas", SigmaSpacing::Beta),
    ] {
        if keys.bool(key, false)? && chosen.replace(spacing).is_some() {
            return Err(keys.unsupported(key, true, "only one use_*_sigmas at a time"));
        }
    }
    Ok(chosen)
}

/// `final_sigmas_type`.
pub(super) fn read_final_sigma_is_zero(keys: &Keys) -> Result<bool, Error> {
    keys.choice("final_sigmas_type", true, &[("zero", true), ("sigma_min", false)])
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
