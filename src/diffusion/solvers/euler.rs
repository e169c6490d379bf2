//! `EulerDiscreteScheduler`.
//!
//! Karras, Aittala, Aila and Laine 2022, arXiv 2206.00364, algorithm 2 without its second-order correction. x holds
//! x_0 + σ·ε, and one step follows dx/dσ = (x − x̂_0)/σ in a straight line:
//!
//! ```text
//! x̂ = x + √(σ̂² − σ²)·s_noise·z,        σ̂ = (1 + γ)·σ         (churn; γ = 0 and x̂ = x without)
//! x_next = x̂ + (σ_next − σ̂)·(x̂ − x̂_0)/σ̂
//! ```

use std::sync::Arc;

use crate::diffusion::{
    error::Error,
    keys::Keys,
    method::{
        common::{
            BETA_SCHEDULES, BetaRange, BetaSchedule, ChainKeys, EPSILON, SAMPLE, TerminalSnr, TimestepSpacing,
            V_PREDICTION,
        },
        options::StepOption,
        run::Run,
        scale::Scale,
        sigma_space::{init_noise_sigma, input_scale, predict_x0, reading, visited},
        spacing::{self, SigmaSpacing, Visited},
        spec::{Method, MostSteps, Setting, Spec},
    },
    schedule::{
        grid::{linspace_f32, round_to_f32, timesteps_of_sigmas},
        noising::Noising,
        prediction::PredictionType,
    },
    table::{step::Step, terms::Terms, whole::Table},
};

struct Config {
    sigma_spacing: Option<SigmaSpacing>,
    log_linear: bool,
    final_sigma_is_zero: bool,
    continuous: bool,
}

impl Config {
    fn read(keys: &Keys) -> Result<Self, Error> {
        Ok(Self {
            sigma_spacing: SigmaSpacing::read(keys)?,
            log_linear: keys.choice("interpolation_type", false, &[("linear", false), ("log_linear", true)])?,
            final_sigma_is_zero: keys.final_sigma_is_zero()?,
            continuous: keys.choice("timestep_type", false, &[("discrete", false), ("continuous", true)])?,
        })
    }

    /// The timesteps, and σ for each of them with the final one.
    fn visited(&self, run: &Run) -> Result<Visited, Error> {
        let is_apart = self.log_linear && self.sigma_spacing.is_none() && run.options.sigmas.is_none();
        if let Some(start) = run.options.start_timestep.filter(|_| is_apart) {
            return Err(Error::Option {
                option: "start_timestep",
                value: start.to_string(),
                expected: "with interpolation_type \"log_linear\" the network is told other timesteps than those of its σ, so \
                    that no timestep is a level of noise; give another solver"
                    .to_owned(),
            });
        }
        let train_sigmas = run.noise_schedule.sigmas();
        if let Some(custom) = &run.options.sigmas {
            let timesteps = timesteps_of_sigmas(&custom[..run.num_inference_steps], &train_sigmas);
            return Ok(Visited { timesteps, sigmas: custom.clone() });
        }
        run.refuse(StepOption::Timesteps, run.options.timesteps.is_some() && (self.log_linear || self.continuous))?;
        let (Some(&smallest), Some(&largest)) = (train_sigmas.first(), train_sigmas.last()) else {
            return Ok(Visited { timesteps: Vec::new(), sigmas: Vec::new() });
        };
        let n = run.num_inference_steps;
        let Visited { timesteps, mut sigmas } = match (self.log_linear, self.sigma_spacing) {
            (false, sigma_spacing) => visited(run, sigma_spacing)?,
            (true, None) => {
                // One more than there are steps, so that the final σ appended below is never reached.
                let logs = linspace_f32(libm::logf(largest), libm::logf(smallest), n + 1);
                let sigmas = logs.into_iter().map(|log| f64::from(libm::expf(log))).collect();
                Visited { timesteps: spacing::timesteps(run.common, n), sigmas }
            }
            (true, Some(sigma_spacing)) => {
                let sigmas = sigma_spacing.sigmas(f64::from(largest), f64::from(smallest), n);
                Visited { timesteps: timesteps_of_sigmas(&sigmas, &train_sigmas), sigmas }
            }
        };
        sigmas.push(if self.final_sigma_is_zero { 0.0 } else { f64::from(smallest) });
        Ok(Visited { timesteps, sigmas })
    }
}

impl Method for Config {
    fn scale(&self) -> Scale {
        Scale::Sigma
    }

    fn table(&self, run: &Run) -> Result<Table, Error> {
        let options = run.options;
        let Visited { timesteps, sigmas } = self.visited(run)?;
        let (mut timesteps, mut sigmas) = (round_to_f32(timesteps), round_to_f32(sigmas));
        let init_noise_sigma = init_noise_sigma(run, &sigmas);
        let steps = sigmas.len().saturating_sub(1);
        let begin = run.begin_with_sigmas(&mut timesteps, &mut sigmas, false);
        if self.continuous && run.common.prediction_type == PredictionType::VPrediction {
            timesteps = sigmas.iter().take(timesteps.len()).map(|&s| f64::from(0.25 * libm::logf(s as f32))).collect();
        }
        let gamma = (options.s_churn / steps as f64).min(std::f64::consts::SQRT_2 - 1.0);
        let levels = sigmas.clone();
        run.table(begin, timesteps, sigmas, init_noise_sigma, |i, timestep| {
            let (sigma, sigma_next) = (levels[i], levels[i + 1]);
            let gamma = if (options.s_tmin..=options.s_tmax).contains(&sigma) { gamma } else { 0.0 };
            let sigma_hat = sigma * (1.0 + gamma);
            let churn = options.s_noise * (sigma_hat * sigma_hat - sigma * sigma).sqrt();
            let x = Terms::SAMPLE + Terms::NOISE * churn;
            let x0 = predict_x0(run.common.prediction_type, x, sigma, sigma_hat);
            Ok(Step {
                input_scale: input_scale(sigma),
                x0: reading(x0),
                prev_sample: x + (x - x0) * ((sigma_next - sigma_hat) / sigma_hat),
                draws_noise: gamma > 0.0,
                ..Step::at(timestep, Noising::of_sigma(sigma))
            })
        })
    }
}

/// The solver of diffusers' `EulerDiscreteScheduler`.
pub const SPEC: Spec = Spec {
    name: "euler",
    class: "EulerDiscreteScheduler",
    other_names: &[],
    calls_per_step: 1,
    most_steps: MostSteps::Guard,
    chain: Some(ChainKeys {
        beta_schedules: BETA_SCHEDULES,
        default_beta_schedule: BetaSchedule::Linear,
        default_beta_range: BetaRange::OF_DDPM,
        prediction_types: &[EPSILON, V_PREDICTION, SAMPLE, ("original_sample", PredictionType::Sample)],
        default_timestep_spacing: Some(TimestepSpacing::Linspace),
        rescales_to: TerminalSnr::AlmostZero,
    }),
    cuts_offset: false,
    reads_learned_variance: false,
    options: &[StepOption::Timesteps, StepOption::Sigmas],
    is_given_final_sigma: true,
    settings: &[Setting::SigmaSpacing],
    read: |keys, _| Ok(Arc::new(Config::read(keys)?)),
};
