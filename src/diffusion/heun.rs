//! `HeunDiscreteScheduler`.
//!
//! Karras et al. 2022, arXiv 2206.00364, algorithm 1: an Euler step from σ to σ', then the same step again with the mean
//! of the derivatives at both ends. The network is called twice for a step, but for the last, which ends on σ' = 0:
//!
//! ```text
//! d = (x − x̂_0)/σ,      x' = x + (σ' − σ)·d
//! d' = (x' − x̂_0')/σ',   x_next = x + (σ' − σ)·(d + d')/2
//! ```

use super::{
    Clip, Error, Forward, Step, Table, Terms,
    keys::Keys,
    sigma_space::{init_noise_sigma, input_scale, predict_x0, round_to_f32, timesteps_and_sigmas, twice_but_the_first},
    spacing::SigmaSpacing,
    table::Run,
};

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Config {
    sigma_spacing: Option<SigmaSpacing>,
    clip: Clip,
}

impl Config {
    pub(super) fn read(keys: &Keys) -> Result<Self, Error> {
        let range = keys.clip_sample_range()?;
        let clip = if keys.bool("clip_sample", false)? { Clip::Range(range) } else { Clip::None };
        Ok(Self { sigma_spacing: SigmaSpacing::read(keys)?, clip })
    }

    pub(super) fn table(&self, run: &Run) -> Result<Table, Error> {
        let (timesteps, sigmas) = timesteps_and_sigmas(run, self.sigma_spacing)?;
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
                x0: (predicted.sample, predicted.model_output),
                clip: self.clip,
                ..Step::at(timestep, Forward::of_sigma(sigma))
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
