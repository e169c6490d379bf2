//! `HeunDiscreteScheduler`.
//!
//! Karras et al. 2022, arXiv 2206.00364, algorithm 1: an Euler step from σ to σ', then the same step again with the mean
//! of the derivatives at both ends. The network is called twice for a step, but for the last, which ends on σ' = 0:
//!
//! ```text
//! d = (x − x̂_0)/σ,      x' = x + (σ' − σ)·d
//! d' = (x' − x̂_0')/σ',   x_next = x + (σ' − σ)·(d + d')/2
//! ```

use std::sync::Arc;

use crate::diffusion::{
    error::Error,
    keys::Keys,
    method::{
        common::{BetaRange, BetaSchedule, ChainKeys, EPSILON, SAMPLE, TerminalSnr, TimestepSpacing, V_PREDICTION},
        options::StepOption,
        run::Run,
        scale::Scale,
        sigma_space::{init_noise_sigma, input_scale, predict_x0, reading, twice_but_the_first, visited},
        spacing::{SigmaSpacing, Visited},
        spec::{Method, MostSteps, Setting, Spec},
    },
    schedule::{grid::round_to_f32, noising::Noising},
    table::{clip::Clip, step::Step, terms::Terms, whole::Table},
};

struct Config {
    sigma_spacing: Option<SigmaSpacing>,
    clip: Clip,
}

impl Config {
    fn read(keys: &Keys) -> Result<Self, Error> {
        let range = keys.clip_sample_range()?;
        let clip = if keys.bool("clip_sample", false)? { Clip::Range(range) } else { Clip::None };
        Ok(Self { sigma_spacing: SigmaSpacing::read(keys)?, clip })
    }
}

impl Method for Config {
    fn scale(&self) -> Scale {
        Scale::Sigma
    }

    fn table(&self, run: &Run) -> Result<Table, Error> {
        let Visited { timesteps, sigmas } = visited(run, self.sigma_spacing)?;
        let (mut timesteps, mut sigmas) = (round_to_f32(timesteps), round_to_f32(sigmas));
        let init_noise_sigma = init_noise_sigma(run, &sigmas);
        let begin = run.begin_with_sigmas(&mut timesteps, &mut sigmas, false);
        let mut sigmas = twice_but_the_first(&sigmas);
        sigmas.push(0.0);
        let timesteps = twice_but_the_first(&timesteps);

        // Between the two calls of a step, where it began and the derivative there.
        let [began, derivative_there, ..] = Terms::HISTORY;
        let levels = sigmas.clone();
        run.table(begin, timesteps, sigmas, init_noise_sigma, |i, timestep| {
            let is_first_call = (i - begin.index).is_multiple_of(2);
            let sigma = levels[i];
            let predicted = predict_x0(run.common.prediction_type, Terms::SAMPLE, sigma, sigma);
            let x0 = if self.clip == Clip::None { predicted } else { Terms::X0 };
            let derivative = (Terms::SAMPLE - x0) * (1.0 / sigma);
            let mut step = Step {
                input_scale: input_scale(sigma),
                x0: reading(predicted),
                clip: self.clip,
                ..Step::at(timestep, Noising::of_sigma(sigma))
            };
            if is_first_call {
                step.prev_sample = Terms::SAMPLE + derivative * (levels[i + 1] - sigma);
                step.history[0] = Terms::SAMPLE;
                step.history[1] = derivative;
            } else {
                step.prev_sample = began + (derivative_there + derivative) * (0.5 * (sigma - levels[i - 1]));
            }
            Ok(step)
        })
    }
}

/// The solver of diffusers' `HeunDiscreteScheduler`.
pub const SPEC: Spec = Spec {
    name: "heun",
    class: "HeunDiscreteScheduler",
    other_names: &[],
    calls_per_step: 2,
    most_steps: MostSteps::Guard,
    chain: Some(ChainKeys {
        beta_schedules: &[
            ("linear", BetaSchedule::Linear),
            ("scaled_linear", BetaSchedule::ScaledLinear),
            ("squaredcos_cap_v2", BetaSchedule::SquaredCosCapV2),
            ("exp", BetaSchedule::Exp),
        ],
        default_beta_schedule: BetaSchedule::Linear,
        default_beta_range: BetaRange::OF_LATENTS,
        prediction_types: &[EPSILON, V_PREDICTION, SAMPLE],
        default_timestep_spacing: Some(TimestepSpacing::Linspace),
        rescales_to: TerminalSnr::AsTrained,
    }),
    cuts_offset: false,
    reads_learned_variance: false,
    options: &[StepOption::Timesteps],
    is_given_final_sigma: false,
    settings: &[Setting::SigmaSpacing],
    read: |keys, _| Ok(Arc::new(Config::read(keys)?)),
};
