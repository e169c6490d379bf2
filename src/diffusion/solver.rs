//! The solvers by name, and what diffusers' classes differ in before any mathematics begins.

use std::{fmt, str::FromStr};

use super::Error;

/// The solvers, by the names that users know them by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Solver {
    /// Ancestral sampling, `DDPMScheduler`.
    Ddpm,
    /// `DDIMScheduler`.
    Ddim,
    /// Pseudo numerical methods, `PNDMScheduler`.
    Pndm,
    /// A linear multistep method, `LMSDiscreteScheduler`.
    Lms,
    /// `EulerDiscreteScheduler`.
    Euler,
    /// `EulerAncestralDiscreteScheduler`.
    EulerAncestral,
    /// `HeunDiscreteScheduler`; calls the network twice for a step.
    Heun,
    /// DPM-Solver-2, `KDPM2DiscreteScheduler`; calls the network twice for a step.
    Dpm2,
    /// DPM-Solver-2 with fresh noise in each step, `KDPM2AncestralDiscreteScheduler`; calls the network twice for a step.
    Dpm2Ancestral,
    /// DPM-Solver++(2M), `DPMSolverMultistepScheduler`.
    Dpmpp2m,
    /// DPM-Solver++(2S), `DPMSolverSinglestepScheduler`.
    Dpmpp2s,
    /// A predictor and corrector, `UniPCMultistepScheduler`.
    UniPc,
    /// An exponential integrator, `DEISMultistepScheduler`.
    Deis,
    /// For latent consistency models, `LCMScheduler`.
    Lcm,
    /// For trajectory consistency models, `TCDScheduler`.
    Tcd,
    /// For models of rectified flow, `FlowMatchEulerDiscreteScheduler`.
    FlowEuler,
}

impl Solver {
    /// All of them, in the order that they are listed to users.
    pub const ALL: [Self; 16] = [
        Self::Ddpm,
        Self::Ddim,
        Self::Pndm,
        Self::Lms,
        Self::Euler,
        Self::EulerAncestral,
        Self::Heun,
        Self::Dpm2,
        Self::Dpm2Ancestral,
        Self::Dpmpp2m,
        Self::Dpmpp2s,
        Self::UniPc,
        Self::Deis,
        Self::Lcm,
        Self::Tcd,
        Self::FlowEuler,
    ];

    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Ddpm => ("ddpm", "DDPMScheduler"),
            Self::Ddim => ("ddim", "DDIMScheduler"),
            Self::Pndm => ("pndm", "PNDMScheduler"),
            Self::Lms => ("lms", "LMSDiscreteScheduler"),
            Self::Euler => ("euler", "EulerDiscreteScheduler"),
            Self::EulerAncestral => ("euler_ancestral", "EulerAncestralDiscreteScheduler"),
            Self::Heun => ("heun", "HeunDiscreteScheduler"),
            Self::Dpm2 => ("dpm2", "KDPM2DiscreteScheduler"),
            Self::Dpm2Ancestral => ("dpm2_ancestral", "KDPM2AncestralDiscreteScheduler"),
            Self::Dpmpp2m => ("dpmpp_2m", "DPMSolverMultistepScheduler"),
            Self::Dpmpp2s => ("dpmpp_2s", "DPMSolverSinglestepScheduler"),
            Self::UniPc => ("unipc", "UniPCMultistepScheduler"),
            Self::Deis => ("deis", "DEISMultistepScheduler"),
            Self::Lcm => ("lcm", "LCMScheduler"),
            Self::Tcd => ("tcd", "TCDScheduler"),
            Self::FlowEuler => ("flow_euler", "FlowMatchEulerDiscreteScheduler"),
        }
    }

    /// The name that a user types, such as `dpmpp_2m`.
    pub fn name(self) -> &'static str {
        self.names().0
    }

    /// The class of diffusers that it is.
    pub fn class_name(self) -> &'static str {
        self.names().1
    }

    /// The solver that is this class of diffusers.
    pub(super) fn of_class(class: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|solver| solver.class_name() == class)
    }

    /// How often the network is called for one step (`order` in diffusers). PNDM's warm-up does not count.
    pub fn order(self) -> usize {
        match self {
            Self::Heun | Self::Dpm2 | Self::Dpm2Ancestral => 2,
            _ => 1,
        }
    }

    /// Whether its class has this key of [`SolverKeys`](super::SolverKeys).
    pub(super) fn has_key(self, key: &str) -> bool {
        match key {
            "algorithm_type" => matches!(self, Self::Dpmpp2m | Self::Dpmpp2s),
            "solver_order" => matches!(self, Self::Dpmpp2m | Self::Dpmpp2s | Self::UniPc | Self::Deis),
            _ => !matches!(self, Self::Ddpm | Self::Ddim | Self::Pndm | Self::EulerAncestral | Self::Lcm | Self::Tcd),
        }
    }

    /// The fields of [`StepOptions`](super::StepOptions) that `set_timesteps` of this class takes.
    pub(super) fn takes(self, option: &str) -> bool {
        match option {
            "timesteps" => matches!(
                self,
                Self::Ddpm
                    | Self::Euler
                    | Self::Heun
                    | Self::Dpmpp2m
                    | Self::Dpmpp2s
                    | Self::Lcm
                    | Self::Tcd
                    | Self::FlowEuler
            ),
            "sigmas" => matches!(self, Self::Euler | Self::UniPc | Self::FlowEuler),
            "mu" => matches!(self, Self::Dpmpp2m | Self::Dpmpp2s | Self::UniPc | Self::Deis | Self::FlowEuler),
            "original_inference_steps" | "strength" => matches!(self, Self::Lcm | Self::Tcd),
            _ => true,
        }
    }
}

impl fmt::Display for Solver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Solver {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|solver| solver.name() == name).ok_or_else(|| Error::Option {
            option: "solver",
            value: format!("{name:?}"),
            expected: format!("choose one of {}", solver_names()),
        })
    }
}

pub(super) fn solver_names() -> String {
    Solver::ALL.map(Solver::name).join(", ")
}
