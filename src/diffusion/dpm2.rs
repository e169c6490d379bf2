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

use super::{
    Error, Forward, Step, Table, Terms,
    keys::Keys,
    sigma_space::{init_noise_sigma, input_scale, predict_x0, round_to_f32, timesteps_and_sigmas, twice_but_the_first},
    spacing::{self, SigmaSpacing},
    table::Run,
};

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Config {
    sigma_spacing: Option<SigmaSpacing>,
    is_ancestral: bool,
}

impl Config {
    pub(super) fn read(keys: &Keys, is_ancestral: bool) -> Result<Self, Error> {
        Ok(Self { sigma_spacing: SigmaSpacing::read(keys)?, is_ancestral })
    }

    pub(super) fn table(&self, run: &Run) -> Result<Table, Error> {
        let (mut timesteps, mut sigmas) = timesteps_and_sigmas(run, self.sigma_spacing)?;
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
        // Where each step aims at, and the noise from there to where it arrives.
        let aims: Vec<(f32, f32)> = sigmas
            .windows(2)
            .map(|pair| match self.is_ancestral {
                true => down_and_up(pair[0] as f32, pair[1] as f32),
                false => (pair[1] as f32, 0.0),
            })
            .collect();
        let midpoints: Vec<f32> =
            sigmas.iter().zip(&aims).map(|(&sigma, &(aim, _))| midpoint(sigma as f32, aim)).collect();
        let mut between = spacing::timesteps_of_sigmas_f32(&midpoints, &run.noise_schedule.sigmas());
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
                x0: (x0.sample, x0.model_output),
                ..Step::at(timestep, Forward::of_sigma(levels[i]))
            };
            if is_first_call {
                step.prev_sample = Terms::SAMPLE + derivative * (midpoint - sigma);
                step.history[0] = Terms::SAMPLE;
            } else {
                let (aim, noise) = aims[(i - 1) / 2];
                step.prev_sample =
                    began + derivative * (f64::from(aim) - levels[i - 1]) + Terms::NOISE * f64::from(noise);
                step.draws_noise = self.is_ancestral;
            }
            Ok(step)
        })
    }
}

/// σ_down and σ_up of a step, by the same steps in f32 that diffusers takes.
fn down_and_up(sigma: f32, sigma_next: f32) -> (f32, f32) {
    let (variance, next) = (sigma * sigma, sigma_next * sigma_next);
    let up = libm::sqrtf(next * (variance - next) / variance);
    match next - up * up {
        down if down > 0.0 => (libm::sqrtf(down), up),
        // What is left is below the rounding of what was taken from.
        _ => (next / sigma, up),
    }
}

/// The geometric mean, by the same steps in f32 that diffusers takes.
fn midpoint(sigma: f32, sigma_next: f32) -> f32 {
    let (log, log_next) = (libm::logf(sigma), libm::logf(sigma_next));
    libm::expf(log - (log - log_next) * 0.5)
}
