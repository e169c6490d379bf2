//! `TCDScheduler`.
//!
//! Zheng et al. 2024, arXiv 2402.19159, algorithm 4 ("strategic stochastic sampling"). A jump along the trajectory past the
//! next timestep t', down to s = ⌊(1−γ)·t'⌋, and noise back up to t'; γ is called `eta`:
//!
//! ```text
//! x_s = √ᾱ_s·x̂_0 + √(1−ᾱ_s)·ε̂
//! x_t' = √(ᾱ_t'/ᾱ_s)·x_s + √(1 − ᾱ_t'/ᾱ_s)·z
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
        consistency,
        options::StepOption,
        run::Run,
        scale::Scale,
        spec::{Method, MostSteps, Spec},
    },
    schedule::{noising::Noising, prediction::PredictionType},
    table::{step::Step, terms::Terms, whole::Table},
};

struct Config {
    original_inference_steps: Option<usize>,
}

impl Config {
    fn read(keys: &Keys) -> Result<Self, Error> {
        Ok(Self { original_inference_steps: consistency::read_original_inference_steps(keys)? })
    }
}

impl Method for Config {
    fn scale(&self) -> Scale {
        Scale::VariancePreserving
    }

    fn table(&self, run: &Run) -> Result<Table, Error> {
        let original = self.distilled_steps(run.options.original_inference_steps);
        consistency::check_original_inference_steps(
            run.options.original_inference_steps,
            run.common.num_train_timesteps,
        )?;
        if let Some(most) = run
            .options
            .original_inference_steps
            .filter(|&most| most < run.num_inference_steps && run.options.timesteps.is_none())
        {
            return Err(Error::Option {
                option: "num_inference_steps",
                value: run.num_inference_steps.to_string(),
                expected: format!("at most `original_inference_steps`, {most}"),
            });
        }
        let mut timesteps = consistency::timesteps(run, original)?;
        let begin = run.begin(&mut timesteps);
        let following = timesteps.clone();
        let eta = run.options.eta;
        run.table(begin, timesteps, Vec::new(), 1.0, |i, t| {
            let forward = run.forward(t)?;
            let Noising { signal, noise } = forward;
            let x0 = run.common.prediction_type.x0(signal, noise);
            let predicted = Terms::SAMPLE * x0.sample + Terms::MODEL_OUTPUT * x0.output;
            let epsilon = match run.common.prediction_type {
                PredictionType::Epsilon => Terms::MODEL_OUTPUT,
                _ => (Terms::SAMPLE - predicted * signal) * (1.0 / noise),
            };
            let next = following.get(i + 1).copied().unwrap_or(0.0);
            // In f32 as the library has it: the product may be a whole number or fall just short of one.
            let s = f64::from(((1.0 - eta) as f32 * next as f32).floor());
            let (alpha_bar_next, alpha_bar_s) = (run.alpha_bar(next)?, run.alpha_bar(s)?);
            let jump = Noising::of_alpha_bar(alpha_bar_s);
            let x_s = predicted * jump.signal + epsilon * jump.noise;
            let step = Step { x0, ..Step::at(t, forward) };
            // As in LCM, the last step of a run leaves no noise.
            if eta == 0.0 || i + 1 == following.len() {
                return Ok(Step { prev_sample: x_s, ..step });
            }
            let back_up = Noising::of_alpha_bar(alpha_bar_next / alpha_bar_s);
            Ok(Step { prev_sample: x_s * back_up.signal + Terms::NOISE * back_up.noise, draws_noise: true, ..step })
        })
    }

    /// The config's steps; every timestep of training if a run gives a number of its own, which then is only the most that it takes.
    fn distilled_steps(&self, given: Option<usize>) -> Option<usize> {
        match given {
            Some(_) => None,
            None => self.original_inference_steps,
        }
    }
}

/// The solver of diffusers' `TCDScheduler`.
pub const SPEC: Spec = Spec {
    name: "tcd",
    class: "TCDScheduler",
    other_names: &[],
    calls_per_step: 1,
    most_steps: MostSteps::TrainTimesteps,
    chain: Some(ChainKeys {
        beta_schedules: BETA_SCHEDULES,
        default_beta_schedule: BetaSchedule::ScaledLinear,
        default_beta_range: BetaRange::OF_LATENTS,
        prediction_types: &[EPSILON, V_PREDICTION, SAMPLE],
        default_timestep_spacing: Some(TimestepSpacing::Leading),
        rescales_to: TerminalSnr::Zero,
    }),
    cuts_offset: false,
    reads_learned_variance: false,
    options: &[StepOption::Timesteps, StepOption::OriginalInferenceSteps, StepOption::Strength],
    is_given_final_sigma: false,
    settings: &[],
    read: |keys, _| Ok(Arc::new(Config::read(keys)?)),
};
