//! The solvers. Each file is one: its equation, its coefficients, and at the end what it says of itself, a
//! [`Spec`]. Here is the list of them, from which all else that depends on the solver follows.

use std::{fmt, str::FromStr};

use super::{error::Error, method::spec::Spec};

mod ddim;
mod ddpm;
mod deis;
mod dpm2;
mod dpmpp_2m;
mod dpmpp_2s;
mod euler;
mod euler_ancestral;
mod flow_euler;
mod heun;
mod lcm;
mod lms;
mod pndm;
mod tcd;
mod unipc;

/// Makes the list of solvers: the type that stands for one, and where each is described.
macro_rules! solvers {
    ($($(#[$doc:meta])* $solver:ident = $spec:path,)+) => {
        /// The solvers, by the names that users know them by.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Solver {
            $($(#[$doc])* $solver,)+
        }

        impl Solver {
            /// All solvers, in the order that they are listed to users.
            pub const ALL: [Self; [$(Self::$solver),+].len()] = [$(Self::$solver),+];

            /// The description that its file ends in.
            pub(in crate::diffusion) fn spec(self) -> &'static Spec {
                match self {
                    $(Self::$solver => &$spec,)+
                }
            }
        }
    };
}

solvers! {
    /// Ancestral sampling, `DDPMScheduler`.
    Ddpm = ddpm::SPEC,
    /// `DDIMScheduler`.
    Ddim = ddim::SPEC,
    /// Pseudo numerical methods, `PNDMScheduler`.
    Pndm = pndm::SPEC,
    /// A linear multistep method, `LMSDiscreteScheduler`.
    Lms = lms::SPEC,
    /// `EulerDiscreteScheduler`.
    Euler = euler::SPEC,
    /// `EulerAncestralDiscreteScheduler`.
    EulerAncestral = euler_ancestral::SPEC,
    /// `HeunDiscreteScheduler`; calls the network twice for a step.
    Heun = heun::SPEC,
    /// DPM-Solver-2, `KDPM2DiscreteScheduler`; calls the network twice for a step.
    Dpm2 = dpm2::SPEC,
    /// DPM-Solver-2 with fresh noise in each step, `KDPM2AncestralDiscreteScheduler`; calls the network twice for a step.
    Dpm2Ancestral = dpm2::ANCESTRAL,
    /// DPM-Solver++(2M), `DPMSolverMultistepScheduler`.
    Dpmpp2m = dpmpp_2m::SPEC,
    /// DPM-Solver++(2S), `DPMSolverSinglestepScheduler`.
    Dpmpp2s = dpmpp_2s::SPEC,
    /// A predictor and corrector, `UniPCMultistepScheduler`.
    UniPc = unipc::SPEC,
    /// An exponential integrator, `DEISMultistepScheduler`.
    Deis = deis::SPEC,
    /// A solver for latent consistency models, `LCMScheduler`.
    Lcm = lcm::SPEC,
    /// A solver for trajectory consistency models, `TCDScheduler`.
    Tcd = tcd::SPEC,
    /// A solver for models of rectified flow, `FlowMatchEulerDiscreteScheduler`.
    FlowEuler = flow_euler::SPEC,
}

impl Solver {
    /// The name that a user types, such as `dpmpp_2m`.
    pub fn name(self) -> &'static str {
        self.spec().name
    }

    /// The class of diffusers that it is.
    pub fn class_name(self) -> &'static str {
        self.spec().class
    }

    /// The solver that is this class of diffusers.
    pub(in crate::diffusion) fn of_class(class: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|solver| solver.class_name() == class)
    }

    /// Calls of the network for each step (`order` in diffusers). PNDM's warm-up does not count.
    pub fn order(self) -> usize {
        self.spec().calls_per_step
    }

    /// True if its steps may have the variance that the network has learned, so that the network must give one if the config says so.
    pub fn reads_learned_variance(self) -> bool {
        self.spec().reads_learned_variance
    }

    /// The number of steps that a list of `sigmas` makes. Some solvers take the final σ with the others, where no step begins.
    pub fn steps_of_sigmas(self, sigmas: &[f64]) -> usize {
        sigmas.len().saturating_sub(usize::from(self.spec().is_given_final_sigma))
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
            expected: format!("choose one of {}", names()),
        })
    }
}

/// The names of all solvers, as an error lists them.
pub fn names() -> String {
    Solver::ALL.map(Solver::name).join(", ")
}
