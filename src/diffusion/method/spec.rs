//! The description of a solver: everything that is not mathematics, in one value.

use std::{panic::RefUnwindSafe, sync::Arc};

use super::{
    common::{ChainKeys, Common},
    options::StepOption,
    run::Run,
    scale::Scale,
};
use crate::diffusion::{error::Error, keys::Keys, table::whole::Table};

/// A reader of the keys that only one class has.
pub type Read = fn(&Keys, &Common) -> Result<Arc<dyn Method>, Error>;

/// A solver, described: names, limits, what it takes, and how a config becomes a [`Method`].
pub struct Spec {
    /// The name that a user types, such as `dpmpp_2m`.
    pub name: &'static str,
    /// The class of diffusers.
    pub class: &'static str,
    /// The names that people have for it besides.
    pub other_names: &'static [OtherName],
    /// Calls of the network for each of the steps that a user counts (`order` in diffusers).
    pub calls_per_step: usize,
    /// The most steps that a run may have.
    pub most_steps: MostSteps,
    /// The common keys that its class reads. If `None`, it is for models of rectified flow, which have no chain of noise.
    pub chain: Option<ChainKeys>,
    /// True if of `steps_offset` only as much applies as the schedule has room for; the table then says so.
    pub cuts_offset: bool,
    /// True if its steps may have the variance that the network has learned. Others pass such a `variance_type` over.
    pub reads_learned_variance: bool,
    /// The arguments of `set_timesteps` that its class takes.
    pub options: &'static [StepOption],
    /// True if `sigmas`, where they are given, end with the one that the last step arrives at.
    pub is_given_final_sigma: bool,
    /// The settings that a user may give in place of the config's.
    pub settings: &'static [Setting],
    /// Reads the keys of its own class.
    pub read: Read,
}

/// A solver with the settings of one scheduler's config: plain values, which a config that holds one may hand to any thread.
pub trait Method: Send + Sync + RefUnwindSafe {
    /// The scale in which it holds x_t.
    fn scale(&self) -> Scale;

    /// The whole reverse process.
    fn table(&self, run: &Run) -> Result<Table, Error>;

    /// The fewest steps that a run may have.
    fn least_steps(&self) -> usize {
        1
    }

    /// The number of steps in the grid that a distilled model was trained on, if a run asks for `given`. `None` is every timestep
    /// of training.
    fn distilled_steps(&self, given: Option<usize>) -> Option<usize> {
        given
    }
}

/// A limit on the number of steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MostSteps {
    /// T: the class visits whole timesteps of training.
    TrainTimesteps,
    /// A number that only guards against sizes that nobody means; diffusers itself sets no limit.
    Guard,
}

impl MostSteps {
    /// The number, in a schedule of T timesteps.
    pub fn of(self, num_train_timesteps: usize) -> usize {
        match self {
            Self::TrainTimesteps => num_train_timesteps,
            Self::Guard => MAX_INFERENCE_STEPS,
        }
    }
}

/// The most steps of any run.
pub const MAX_INFERENCE_STEPS: usize = 10_000;

/// A setting of a scheduler's config that a user may give (`SolverKeys`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    /// The keys `use_karras_sigmas`, `use_exponential_sigmas` and `use_beta_sigmas`.
    SigmaSpacing,
    /// `algorithm_type`.
    AlgorithmType,
    /// `solver_order`.
    SolverOrder,
}

/// A name that people have for a solver, and the settings that it means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OtherName {
    /// Small letters and digits, with "pp" for "++" and nothing between them: spellings differ in the rest.
    pub name: &'static str,
    /// The `algorithm_type` that it means.
    pub algorithm_type: Option<&'static str>,
    /// The `solver_order` that it means.
    pub solver_order: Option<usize>,
}

impl OtherName {
    /// A name that means no settings.
    pub const fn of(name: &'static str) -> Self {
        Self { name, algorithm_type: None, solver_order: None }
    }
}
