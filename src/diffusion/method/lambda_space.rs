//! Common parts of the solvers that integrate over λ = log(α/σ), where x_t = α_t·x_0 + σ_t·ε (so α_t here is √ᾱ_t):
//! DPM-Solver++, UniPC and DEIS. diffusers' `sigmas` are σ_t/α_t here; in rectified flow they are σ_t, and α_t = 1 − σ_t.

use super::{
    run::Run,
    spacing::{self, FlowShift, SigmaSpacing, Visited},
};
use crate::diffusion::{
    error::Error,
    keys::Keys,
    schedule::{
        grid::{interpolate, linspace, timesteps_of_sigmas},
        noising::Noising,
        prediction::{PredictionType, Reading},
    },
    table::{clip::Clip, terms::Terms},
};

/// A point of the schedule.
#[derive(Debug, Clone, Copy)]
pub struct Level {
    pub alpha: f64,
    pub sigma: f64,
    pub lambda: f64,
    /// σ as diffusers holds it.
    stored_sigma: f64,
}

impl Level {
    pub fn new(stored_sigma: f64, is_flow: bool) -> Self {
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
    pub fn forward(self) -> Noising {
        Noising { signal: self.alpha, noise: self.sigma }
    }

    /// x̂_0 from the sample and the network's output.
    pub fn x0(self, prediction_type: PredictionType) -> Reading {
        match prediction_type {
            PredictionType::FlowPrediction => prediction_type.x0(self.alpha, self.stored_sigma),
            _ => prediction_type.x0(self.alpha, self.sigma),
        }
    }

    /// ε̂, after x̂_0 was clipped.
    pub fn epsilon(self, prediction_type: PredictionType, clip: Clip) -> Terms {
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
pub struct Grid {
    pub progression: Progression,
    /// True for `use_flow_sigmas`.
    pub is_flow: bool,
    pub flow_shift: FlowShift,
    /// True if timesteps that are looked up from σ are cut off to whole ones; other classes round them.
    pub cuts_timesteps: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Progression {
    /// σ of the timesteps that are visited.
    OfTimesteps,
    Spaced(SigmaSpacing),
    /// `use_lu_lambdas`: even in λ.
    Lu,
    /// The spacing of `use_flow_sigmas`, and no other.
    Flow,
}

impl Grid {
    pub fn read(keys: &Keys) -> Result<Self, Error> {
        let is_flow = keys.bool("use_flow_sigmas", false)?;
        let progression = match SigmaSpacing::read(keys)? {
            Some(spacing) => Progression::Spaced(spacing),
            None if is_flow => Progression::Flow,
            None => Progression::OfTimesteps,
        };
        Ok(Self { progression, is_flow, flow_shift: FlowShift::read(keys, "flow_shift")?, cuts_timesteps: false })
    }

    /// The timesteps that the network is told, all of them whole, and diffusers' `sigmas` without the final one. If no rule makes
    /// the σ, the given `timesteps` do.
    pub fn visited(&self, run: &Run, timesteps: Vec<f64>) -> Result<Visited, Error> {
        let n = run.num_inference_steps;
        let train = run.noise_schedule.sigmas();
        let Ends { smallest, largest } = ends(&train);
        let (sigmas, rounds) = match self.progression {
            Progression::OfTimesteps => {
                let sigmas = timesteps.iter().map(|&t| interpolate(t, &train)).collect();
                return Ok(Visited { timesteps, sigmas });
            }
            Progression::Flow => {
                let steps = run.common.num_train_timesteps as f64;
                let factor = self.flow_shift.exponential_factor(run.options.mu)?;
                let alphas = linspace(1.0, 1.0 / steps, n + 1);
                let sigmas: Vec<f64> =
                    alphas.into_iter().skip(1).rev().map(|alpha| spacing::flow_shift(1.0 - alpha, factor)).collect();
                let timesteps = sigmas.iter().map(|sigma| (sigma * steps).trunc()).collect();
                return Ok(Visited { timesteps, sigmas });
            }
            Progression::Spaced(spacing) => (spacing.sigmas(largest, smallest, n), spacing.is_karras()),
            Progression::Lu => {
                // Even in λ = −log σ, whose ends are f32 in diffusers.
                let log = |sigma: f64| f64::from(libm::logf(sigma as f32));
                let (from, to) = (log(largest), log(smallest));
                let ramp = linspace(0.0, 1.0, n).into_iter();
                (ramp.map(|ramp| libm::exp(from + ramp * (to - from))).collect(), true)
            }
        };
        let rounds = rounds && !self.cuts_timesteps;
        let timesteps = timesteps_of_sigmas(&sigmas, &train).into_iter();
        let timesteps = timesteps.map(|t| if rounds { t.round_ties_even() } else { t.trunc() }).collect();
        Ok(Visited { timesteps, sigmas })
    }

    /// σ at which the last step arrives: the last of `sigmas` once more or, if they follow the timesteps, that of timestep 0.
    pub fn final_sigma(&self, run: &Run, sigmas: &[f64]) -> f64 {
        match self.progression {
            Progression::OfTimesteps => ends(&run.noise_schedule.sigmas()).smallest,
            _ => sigmas.last().copied().unwrap_or(f64::NAN),
        }
    }

    /// The levels of diffusers' `sigmas`, once these are f32.
    pub fn levels(&self, sigmas: &[f64]) -> Vec<Level> {
        sigmas.iter().map(|&sigma| Level::new(sigma, self.is_flow)).collect()
    }
}

/// The ends of the training schedule's σ.
pub struct Ends {
    /// σ at the first timestep.
    pub smallest: f64,
    /// σ at the last timestep.
    pub largest: f64,
}

/// The ends of a training schedule's σ; not numbers if it has none.
pub fn ends(train_sigmas: &[f32]) -> Ends {
    let end = |sigma: Option<&f32>| sigma.copied().map_or(f64::NAN, f64::from);
    Ends { smallest: end(train_sigmas.first()), largest: end(train_sigmas.last()) }
}

/// Reads `solver_order`. If it is above `most`, it counts as `most`, as in diffusers.
pub fn read_solver_order(keys: &Keys, most: usize) -> Result<usize, Error> {
    let order = keys.integer("solver_order", 2, 1..=1000)?;
    Ok(usize::try_from(order).unwrap_or(most).min(most))
}
