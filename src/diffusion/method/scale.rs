//! The scales in which solvers hold x_t.

use super::{common::Common, lambda_space::Level, sigma_space};
use crate::diffusion::schedule::{noise_schedule::NoiseSchedule, noising::Noising};

/// The scale in which a solver holds x_t. A signal-to-noise ratio is the same picture under the same noise in all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// √ᾱ_t·x_0 + √(1−ᾱ_t)·ε, from ᾱ_t.
    VariancePreserving,
    /// √ᾱ_t·x_0 + √(1−ᾱ_t)·ε, from σ_t: solvers that count in λ compute it so.
    VariancePreservingOfSigma,
    /// x_0 + σ_t·ε.
    Sigma,
    /// (1−σ_t)·x_0 + σ_t·ε.
    RectifiedFlow,
}

impl Scale {
    /// The scale of a solver that counts in λ, by whether it visits the σ of rectified flow.
    pub fn of_lambda(is_flow: bool) -> Self {
        if is_flow { Self::RectifiedFlow } else { Self::VariancePreservingOfSigma }
    }

    /// The forward process at a timestep of training.
    pub fn forward(self, timestep: usize, common: &Common, schedule: &NoiseSchedule) -> Noising {
        match self {
            Self::VariancePreserving => Noising::of_alpha_bar(schedule.alpha_bar(timestep).unwrap_or_default()),
            Self::VariancePreservingOfSigma => Level::new(schedule.sigma(timestep), false).forward(),
            Self::Sigma => Noising::of_sigma(schedule.sigma(timestep)),
            Self::RectifiedFlow => Noising::of_flow_sigma(common.flow_sigma(timestep)),
        }
    }

    /// The factor from x_t at `forward` to what the network sees.
    pub fn input_scale(self, forward: Noising) -> f64 {
        match self {
            Self::Sigma => sigma_space::input_scale(forward.noise),
            Self::VariancePreserving | Self::VariancePreservingOfSigma | Self::RectifiedFlow => 1.0,
        }
    }
}
