//! `DDIMScheduler`.
//!
//! Song, Meng and Ermon 2020, arXiv 2010.02502, equation 12, s being the timestep that follows t:
//!
//! ```text
//! x_s = √ᾱ_s · x̂_0  +  √(1 − ᾱ_s − σ_t²) · ε̂  +  σ_t·z,     σ_t² = η²·(1−ᾱ_s)/(1−ᾱ_t)·(1 − ᾱ_t/ᾱ_s)
//! ```

use std::sync::Arc;

use crate::diffusion::{
    error::Error,
    keys::Keys,
    method::{
        clipping::read_clip,
        common::{
            BETA_SCHEDULES, BetaRange, BetaSchedule, ChainKeys, EPSILON, SAMPLE, TerminalSnr, TimestepSpacing,
            V_PREDICTION,
        },
        run::Run,
        scale::Scale,
        spacing::whole_timesteps,
        spec::{Method, MostSteps, Spec},
    },
    schedule::{
        noising::{Noising, Posterior},
        prediction::PredictionType,
    },
    table::{clip::Clip, step::Step, terms::Terms, whole::Table},
};

struct Config {
    clip: Clip,
    set_alpha_to_one: bool,
}

impl Config {
    fn read(keys: &Keys) -> Result<Self, Error> {
        Ok(Self { clip: read_clip(keys, true)?, set_alpha_to_one: keys.bool("set_alpha_to_one", true)? })
    }
}

impl Method for Config {
    fn scale(&self) -> Scale {
        Scale::VariancePreserving
    }

    fn table(&self, run: &Run) -> Result<Table, Error> {
        let mut timesteps = whole_timesteps(run.common, run.num_inference_steps, run.first_looked_at());
        let begin = run.begin(&mut timesteps);
        let following = timesteps.clone();
        // Not the list's next entry: diffusers goes back by this much, whatever the spacing.
        let stride = (run.common.num_train_timesteps / run.num_inference_steps) as f64;
        let final_alpha_bar = if self.set_alpha_to_one { 1.0 } else { run.alpha_bar(0.0)? };

        run.table(begin, timesteps, Vec::new(), 1.0, |i, t| {
            let alpha_bar = run.alpha_bar(t)?;
            let to = match begin.is_between && i == begin.index {
                true => following.get(i + 1).copied().unwrap_or(-1.0),
                false => t - stride,
            };
            let alpha_bar_prev = if to >= 0.0 { run.alpha_bar(to)? } else { final_alpha_bar };
            let forward = Noising::of_alpha_bar(alpha_bar);
            let Noising { signal, noise } = forward;
            let x0 = run.x0(forward, self.clip);
            let epsilon_of = |x0: Terms| (Terms::SAMPLE - x0 * signal) * (1.0 / noise);
            let epsilon = match run.common.prediction_type {
                _ if run.options.use_clipped_model_output => epsilon_of(Terms::X0),
                PredictionType::Epsilon => Terms::MODEL_OUTPUT,
                // From x̂_0 as it is before clipping.
                PredictionType::Sample | PredictionType::VPrediction | PredictionType::FlowPrediction => {
                    epsilon_of(Terms::SAMPLE * x0.sample + Terms::MODEL_OUTPUT * x0.output)
                }
            };
            let beta_bar_prev = 1.0 - alpha_bar_prev;
            let sigma = run.options.eta * Posterior::between(alpha_bar_prev, alpha_bar).variance.sqrt();
            // With η = 1 and no signal left at t, all noise is new: what is left for ε̂ is the rounding of a zero.
            let direction = (beta_bar_prev - sigma * sigma).max(0.0).sqrt();
            Ok(Step {
                x0,
                clip: self.clip,
                prev_sample: Terms::X0 * alpha_bar_prev.sqrt() + epsilon * direction + Terms::NOISE * sigma,
                draws_noise: run.options.eta > 0.0,
                ..Step::at(t, forward)
            })
        })
    }
}

/// The solver of diffusers' `DDIMScheduler`.
pub const SPEC: Spec = Spec {
    name: "ddim",
    class: "DDIMScheduler",
    other_names: &[],
    calls_per_step: 1,
    most_steps: MostSteps::TrainTimesteps,
    chain: Some(ChainKeys {
        beta_schedules: BETA_SCHEDULES,
        default_beta_schedule: BetaSchedule::Linear,
        default_beta_range: BetaRange::OF_DDPM,
        prediction_types: &[EPSILON, V_PREDICTION, SAMPLE],
        default_timestep_spacing: Some(TimestepSpacing::Leading),
        rescales_to: TerminalSnr::Zero,
    }),
    cuts_offset: true,
    reads_learned_variance: false,
    options: &[],
    is_given_final_sigma: false,
    settings: &[],
    read: |keys, _| Ok(Arc::new(Config::read(keys)?)),
};
