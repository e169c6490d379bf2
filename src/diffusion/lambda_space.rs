//! What the solvers share that integrate over λ = log(α/σ), where x_t = α_t·x_0 + σ_t·ε (so α_t here is √ᾱ_t):
//! DPM-Solver++, UniPC and DEIS. diffusers' `sigmas` are σ_t/α_t here; in rectified flow they are σ_t, and α_t = 1 − σ_t.

use super::{
    Clip, Error, Forward, Terms,
    config::PredictionType,
    keys::Keys,
    spacing::{self, FlowShift, SigmaSpacing},
    table::Run,
};

/// A point of the schedule.
#[derive(Debug, Clone, Copy)]
pub(super) struct Level {
    pub(super) alpha: f64,
    pub(super) sigma: f64,
    pub(super) lambda: f64,
    /// As diffusers holds it.
    stored_sigma: f64,
}

impl Level {
    pub(super) fn new(stored_sigma: f64, is_flow: bool) -> Self {
        let (alpha, sigma) = match is_flow {
            true => (1.0 - stored_sigma, stored_sigma),
            false => {
                let alpha = 1.0 / (stored_sigma * stored_sigma + 1.0).sqrt();
                (alpha, stored_sigma * alpha)
            }
        };
        Self { alpha, sigma, lambda: libm::log(alpha) - libm::log(sigma), stored_sigma }
    }

    /// The forward process.
    pub(super) fn forward(self) -> Forward {
        Forward { signal: self.alpha, noise: self.sigma }
    }

    /// x̂_0 as the coefficients of the sample and of the network's output.
    pub(super) fn x0(self, prediction_type: PredictionType) -> (f64, f64) {
        match prediction_type {
            PredictionType::FlowPrediction => prediction_type.x0(self.alpha, self.stored_sigma),
            _ => prediction_type.x0(self.alpha, self.sigma),
        }
    }

    /// ε̂, after x̂_0 was clipped.
    pub(super) fn epsilon(self, prediction_type: PredictionType, clip: Clip) -> Terms {
        match prediction_type {
            PredictionType::Epsilon if clip == Clip::None => Terms::MODEL_OUTPUT,
            PredictionType::VPrediction if clip == Clip::None => {
                Terms::MODEL_OUTPUT * self.alpha + Terms::SAMPLE * self.sigma
            }
            _ => (Terms::SAMPLE - Terms::X0 * self.alpha) * (1.0 / self.sigma),
        }
    }
}

/// The keys that say which σ a run visits.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Grid {
    pub(super) progression: Progression,
    /// `use_flow_sigmas`.
    pub(super) is_flow: bool,
    pub(super) flow_shift: FlowShift,
    /// Whether timesteps that are looked up from σ are cut off where others round them.
    pub(super) cuts_timesteps: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Progression {
    /// σ of the timesteps that are visited.
    OfTimesteps,
    Spaced(SigmaSpacing),
    /// `use_lu_lambdas`: even in λ.
    Lu,
    /// `use_flow_sigmas`, and no other.
    Flow,
}

impl Grid {
    pub(super) fn read(keys: &Keys) -> Result<Self, Error> {
        let is_flow = keys.bool("use_flow_sigmas", false)?;
        let progression = match SigmaSpacing::read(keys)? {
            Some(spacing) => Progression::Spaced(spacing),
            None if is_flow => Progression::Flow,
            None => Progression::OfTimesteps,
        };
        Ok(Self { progression, is_flow, flow_shift: FlowShift::read(keys, "flow_shift")?, cuts_timesteps: false })
    }

    /// The timesteps that the network is told, all of them whole, and diffusers' `sigmas` without the final one.
    /// `visited` are the timesteps where no rule makes the σ.
    pub(super) fn timesteps_and_sigmas(&self, run: &Run, visited: Vec<f64>) -> Result<(Vec<f64>, Vec<f64>), Error> {
        let n = run.num_inference_steps;
        let train = run.noise_schedule.sigmas();
        let (smallest, largest) = ends(&train);
        let (sigmas, rounds) = match self.progression {
            Progression::OfTimesteps => {
                let sigmas = visited.iter().map(|&t| spacing::interpolate(t, &train)).collect();
                return Ok((visited, sigmas));
            }
            Progression::Flow => {
                let steps = run.common.num_train_timesteps as f64;
                let factor = self.flow_shift.exponential_factor(run.options.mu)?;
                let alphas = spacing::linspace(1.0, 1.0 / steps, n + 1);
                let sigmas: Vec<f64> =
                    alphas.into_iter().skip(1).rev().map(|alpha| spacing::flow_shift(1.0 - alpha, factor)).collect();
                return Ok((sigmas.iter().map(|sigma| (sigma * steps).trunc()).collect(), sigmas));
            }
            Progression::Spaced(spacing) => (spacing.sigmas(largest, smallest, n), spacing.is_karras()),
            Progression::Lu => {
                // Even in λ = −log σ, whose ends are f32 in diffusers.
                let log = |sigma: f64| f64::from(libm::logf(sigma as f32));
                let (from, to) = (log(largest), log(smallest));
                let ramp = spacing::linspace(0.0, 1.0, n).into_iter();
                (ramp.map(|ramp| libm::exp(from + ramp * (to - from))).collect(), true)
            }
        };
        let rounds = rounds && !self.cuts_timesteps;
        let timesteps = spacing::timesteps_of_sigmas(&sigmas, &train).into_iter();
        Ok((timesteps.map(|t| if rounds { t.round_ties_even() } else { t.trunc() }).collect(), sigmas))
    }

    /// The last of `sigmas` once more; where they follow the timesteps, that of timestep 0.
    pub(super) fn final_sigma(&self, run: &Run, sigmas: &[f64]) -> f64 {
        match self.progression {
            Progression::OfTimesteps => ends(&run.noise_schedule.sigmas()).0,
            _ => sigmas.last().copied().unwrap_or(f64::NAN),
        }
    }

    /// The levels of diffusers' `sigmas`, once these are f32.
    pub(super) fn levels(&self, sigmas: &[f64]) -> Vec<Level> {
        sigmas.iter().map(|&sigma| Level::new(sigma, self.is_flow)).collect()
    }
}

/// The smallest and the largest σ of the training schedule.
pub(super) fn ends(train_sigmas: &[f32]) -> (f64, f64) {
    let end = |sigma: Option<&f32>| sigma.copied().map_or(f64::NAN, f64::from);
    (end(train_sigmas.first()), end(train_sigmas.last()))
}

/// `solver_order`, at most `most`: where more is asked for, diffusers takes no more than that either.
pub(super) fn read_solver_order(keys: &Keys, most: usize) -> Result<usize, Error> {
    let order = keys.integer("solver_order", 2, 1..=1000)?;
    Ok(usize::try_from(order).unwrap_or(most).min(most))
}
