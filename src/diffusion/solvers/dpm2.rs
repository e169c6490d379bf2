//! `KDPM2DiscreteScheduler`: DPM-Solver-2; and `KDPM2AncestralDiscreteScheduler`, the same with fresh noise.
//!
//! Karras et al. 2022, arXiv 2206.00364, algorithm 2 with the midpoint of Lu et al. 2022, arXiv 2206.00927: the derivative
//! is taken half way to σ' in log σ, and serves for the whole step. The network is called twice for a step, but for the
//! last, whose midpoint is already σ' = 0:
//!
//! ```text
//! σ_mid = √(σ·σ')
//! x_mid = x + (σ_mid − σ)·(x − x̂_0)/σ
//! x_next = x + (σ' − σ)·(x_mid − x̂_0_mid)/σ_mid
//! ```
//!
//! With fresh noise σ' is σ_down, further than where the step arrives, and σ_up·z leads back up, as in `euler_ancestral`.

use std::sync::Arc;

use crate::diffusion::{
    error::Error,
    keys::Keys,
    method::{
        common::{
            BETA_SCHEDULES, BetaRange, BetaSchedule, ChainKeys, EPSILON, TerminalSnr, TimestepSpacing, V_PREDICTION,
        },
        run::Run,
        scale::Scale,
        sigma_space::{init_noise_sigma, input_scale, predict_x0, reading, twice_but_the_first, visited},
        spacing::{SigmaSpacing, Visited},
        spec::{Method, MostSteps, OtherName, Setting, Spec},
    },
    schedule::{
        grid::{round_to_f32, timesteps_of_sigmas_f32},
        noising::Noising,
    },
    table::{step::Step, terms::Terms, whole::Table},
};

struct Config {
    sigma_spacing: Option<SigmaSpacing>,
    is_ancestral: bool,
}

impl Config {
    fn read(keys: &Keys, is_ancestral: bool) -> Result<Self, Error> {
        Ok(Self { sigma_spacing: SigmaSpacing::read(keys)?, is_ancestral })
    }
}

impl Method for Config {
    fn scale(&self) -> Scale {
        Scale::Sigma
    }

    fn table(&self, run: &Run) -> Result<Table, Error> {
        let Visited { mut timesteps, mut sigmas } = visited(run, self.sigma_spacing)?;
        match self.sigma_spacing {
            None => timesteps = round_to_f32(timesteps),
            // diffusers rounds these, and only these.
            Some(spacing) if spacing.is_karras() => timesteps.iter_mut().for_each(|t| *t = t.round_ties_even()),
            Some(_) => {}
        }
        sigmas.push(0.0);
        let mut sigmas = round_to_f32(sigmas);
        let init_noise_sigma = init_noise_sigma(run, &sigmas);
        let begin = run.begin_with_sigmas(&mut timesteps, &mut sigmas, false);
        let aims: Vec<Aim> = sigmas
            .windows(2)
            .map(|pair| match self.is_ancestral {
                true => Aim::with_fresh_noise(pair[0] as f32, pair[1] as f32),
                false => Aim { sigma: pair[1] as f32, noise: 0.0 },
            })
            .collect();
        let midpoints: Vec<f32> =
            sigmas.iter().zip(&aims).map(|(&sigma, aim)| midpoint(sigma as f32, aim.sigma)).collect();
        let mut between = timesteps_of_sigmas_f32(&midpoints, &run.noise_schedule.sigmas());
        if self.sigma_spacing.is_none() {
            between = round_to_f32(between);
        }
        let following = timesteps.iter().skip(1);
        let timesteps: Vec<f64> = timesteps
            .iter()
            .take(1)
            .copied()
            .chain(between.into_iter().zip(following).flat_map(|(between, &t)| [between, t]))
            .collect();

        // Between the two calls of a step, where it began.
        let [began, ..] = Terms::HISTORY;
        let levels = twice_but_the_first(&sigmas);
        let stored = levels.iter().copied().chain([0.0]).collect();
        run.table(begin, timesteps, stored, init_noise_sigma, |i, timestep| {
            let is_first_call = (i - begin.index).is_multiple_of(2);
            let (sigma, midpoint) = match is_first_call {
                true => (levels[i], f64::from(midpoints[i / 2])),
                false => (f64::from(midpoints[(i - 1) / 2]), 0.0),
            };
            let x0 = predict_x0(run.common.prediction_type, Terms::SAMPLE, sigma, sigma);
            let derivative = (Terms::SAMPLE - x0) * (1.0 / sigma);
            let mut step = Step {
                input_scale: input_scale(sigma),
                x0: reading(x0),
                ..Step::at(timestep, Noising::of_sigma(levels[i]))
            };
            if is_first_call {
                step.prev_sample = Terms::SAMPLE + derivative * (midpoint - sigma);
                step.history[0] = Terms::SAMPLE;
            } else {
                let aim = aims[(i - 1) / 2];
                step.prev_sample =
                    began + derivative * (f64::from(aim.sigma) - levels[i - 1]) + Terms::NOISE * f64::from(aim.noise);
                step.draws_noise = self.is_ancestral;
            }
            Ok(step)
        })
    }
}

/// The level that a step aims at.
#[derive(Clone, Copy)]
struct Aim {
    /// σ_down.
    sigma: f32,
    /// σ_up, the noise from there to where the step arrives.
    noise: f32,
}

impl Aim {
    /// The aim of a step with fresh noise, by the same steps in f32 that diffusers takes.
    fn with_fresh_noise(sigma: f32, sigma_next: f32) -> Self {
        let (variance, next) = (sigma * sigma, sigma_next * sigma_next);
        let noise = libm::sqrtf(next * (variance - next) / variance);
        let sigma = match next - noise * noise {
            down if down > 0.0 => libm::sqrtf(down),
            // What is left is below the rounding of what was taken from.
            _ => next / sigma,
        };
        Self { sigma, noise }
    }
}

/// The geometric mean, by the same steps in f32 that diffusers takes.
fn midpoint(sigma: f32, sigma_next: f32) -> f32 {
    let (log, log_next) = (libm::logf(sigma), libm::logf(sigma_next));
    libm::expf(log - (log - log_next) * 0.5)
}

/// The solver of diffusers' `KDPM2DiscreteScheduler`.
pub const SPEC: Spec = Spec {
    name: "dpm2",
    class: "KDPM2DiscreteScheduler",
    other_names: &[OtherName::of("kdpm2")],
    calls_per_step: 2,
    most_steps: MostSteps::Guard,
    chain: Some(ChainKeys {
        beta_schedules: BETA_SCHEDULES,
        default_beta_schedule: BetaSchedule::Linear,
        default_beta_range: BetaRange::OF_LATENTS,
        prediction_types: &[EPSILON, V_PREDICTION],
        default_timestep_spacing: Some(TimestepSpacing::Linspace),
        rescales_to: TerminalSnr::AsTrained,
    }),
    cuts_offset: false,
    reads_learned_variance: false,
    options: &[],
    is_given_final_sigma: false,
    settings: &[Setting::SigmaSpacing],
    read: |keys, _| Ok(Arc::new(Config::read(keys, false)?)),
};

/// The solver of diffusers' `KDPM2AncestralDiscreteScheduler`.
pub const ANCESTRAL: Spec = Spec {
    name: "dpm2_ancestral",
    class: "KDPM2AncestralDiscreteScheduler",
    other_names: &[OtherName::of("dpm2a"), OtherName::of("kdpm2a")],
    read: |keys, _| Ok(Arc::new(Config::read(keys, true)?)),
    ..SPEC
};
