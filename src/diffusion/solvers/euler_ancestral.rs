//! `EulerAncestralDiscreteScheduler`.
//!
//! An Euler step down to σ_down, further than σ_next, and fresh noise back up to it, so that as much noise is replaced
//! as in DDPM's posterior (Karras et al. 2022, arXiv 2206.00364, in the form of Crowson's k-diffusion):
//!
//! ```text
//! σ_up² = σ_next²·(σ² − σ_next²)/σ²,      σ_down² = σ_next² − σ_up²
//! x_next = x + (σ_down − σ)·(x − x̂_0)/σ + σ_up·z
//! ```

use std::sync::Arc;

use crate::diffusion::{
    error::Error,
    method::{
        common::{
            BETA_SCHEDULES, BetaRange, BetaSchedule, ChainKeys, EPSILON, TerminalSnr, TimestepSpacing, V_PREDICTION,
        },
        run::Run,
        scale::Scale,
        sigma_space::{init_noise_sigma, input_scale, predict_x0, reading, visited},
        spacing::Visited,
        spec::{Method, MostSteps, OtherName, Spec},
    },
    schedule::{grid::round_to_f32, noising::Noising},
    table::{step::Step, terms::Terms, whole::Table},
};

struct Config;

impl Method for Config {
    fn scale(&self) -> Scale {
        Scale::Sigma
    }

    fn table(&self, run: &Run) -> Result<Table, Error> {
        let Visited { timesteps, mut sigmas } = visited(run, None)?;
        sigmas.push(0.0);
        let (mut timesteps, mut sigmas) = (round_to_f32(timesteps), round_to_f32(sigmas));
        let init_noise_sigma = init_noise_sigma(run, &sigmas);
        let begin = run.begin_with_sigmas(&mut timesteps, &mut sigmas, false);

        let levels = sigmas.clone();
        run.table(begin, timesteps, sigmas, init_noise_sigma, |i, timestep| {
            let (sigma, sigma_next) = (levels[i], levels[i + 1]);
            let variance_up = sigma_next * sigma_next * (sigma * sigma - sigma_next * sigma_next) / (sigma * sigma);
            let sigma_down = (sigma_next * sigma_next - variance_up).sqrt();
            let x = Terms::SAMPLE;
            let x0 = predict_x0(run.common.prediction_type, x, sigma, sigma);
            Ok(Step {
                input_scale: input_scale(sigma),
                x0: reading(x0),
                prev_sample: x + (x - x0) * ((sigma_down - sigma) / sigma) + Terms::NOISE * variance_up.sqrt(),
                draws_noise: true,
                ..Step::at(timestep, Noising::of_sigma(sigma))
            })
        })
    }
}

/// The solver of diffusers' `EulerAncestralDiscreteScheduler`.
pub const SPEC: Spec = Spec {
    name: "euler_ancestral",
    class: "EulerAncestralDiscreteScheduler",
    other_names: &[OtherName::of("eulera")],
    calls_per_step: 1,
    most_steps: MostSteps::Guard,
    chain: Some(ChainKeys {
        beta_schedules: BETA_SCHEDULES,
        default_beta_schedule: BetaSchedule::Linear,
        default_beta_range: BetaRange::OF_DDPM,
        prediction_types: &[EPSILON, V_PREDICTION],
        default_timestep_spacing: Some(TimestepSpacing::Linspace),
        rescales_to: TerminalSnr::AlmostZero,
    }),
    cuts_offset: false,
    reads_learned_variance: false,
    options: &[],
    is_given_final_sigma: false,
    settings: &[],
    read: |_, _| Ok(Arc::new(Config)),
};
