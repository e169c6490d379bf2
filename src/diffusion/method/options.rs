//! Options of a walk through a schedule.

use crate::diffusion::{error::Error, table::terms::HISTORY};

/// An argument of `set_timesteps` that not every class takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepOption {
    /// `timesteps`.
    Timesteps,
    /// `sigmas`.
    Sigmas,
    /// `mu`.
    Mu,
    /// `original_inference_steps`.
    OriginalInferenceSteps,
    /// `strength`.
    Strength,
}

impl StepOption {
    /// The field of [`StepOptions`].
    pub fn name(self) -> &'static str {
        match self {
            Self::Timesteps => "timesteps",
            Self::Sigmas => "sigmas",
            Self::Mu => "mu",
            Self::OriginalInferenceSteps => "original_inference_steps",
            Self::Strength => "strength",
        }
    }
}

/// The way to walk a schedule: the arguments of diffusers' `set_timesteps` and `step`.
///
/// An argument that only another class's `step` takes (`eta`, `lms_order`, the `s_` options) is not looked at; one of its
/// `set_timesteps` is refused.
#[derive(Debug, Clone, PartialEq)]
pub struct StepOptions {
    /// DDIM: the share of DDPM's noise that each step adds, from 0 (none) to 1. TCD: how far back to jump and add noise
    /// again, its paper's γ.
    pub eta: f64,
    /// DDIM: true to derive ε̂ again from the clipped x̂_0.
    pub use_clipped_model_output: bool,
    /// The index of the first step, in calls of the network: image-to-image enters the schedule late. Solvers that look back begin
    /// anew here.
    pub begin_index: usize,
    /// The first timestep, one of training. The run begins here, whether or not it would visit it, and goes on with those below
    /// that it would. Where it would, this is the [`begin_index`](Self::begin_index) of that timestep, where a solver repeats it the
    /// last. Where it would not, the step from here to the next timestep is one like the others, for PNDM a plain step of DDIM.
    pub start_timestep: Option<usize>,
    /// Timesteps to visit in place of a spacing, descending (DDPM, Euler, Heun, both DPM-Solver++, LCM, TCD, flow).
    pub timesteps: Option<Vec<f64>>,
    /// σ to visit in place of a spacing, descending: Euler takes them with the final one; UniPC with `use_flow_sigmas` and
    /// flow take them without it, and shift them.
    pub sigmas: Option<Vec<f64>>,
    /// Shift of the schedule towards its noisy end, with `use_dynamic_shifting`.
    pub mu: Option<f64>,
    /// LCM: the number of steps that the model was distilled on, in place of the config's. TCD: the most steps of a run that may
    /// visit any timestep, in place of those that the model was distilled on.
    pub original_inference_steps: Option<usize>,
    /// LCM, TCD: the share of the distilled schedule to use, from its clean end. Image-to-image in other classes sets
    /// [`begin_index`](Self::begin_index).
    pub strength: f64,
    /// LMS: the number of derivatives to fit, `step`'s `order`.
    pub lms_order: usize,
    /// Euler: the amount of noise to add before each step, in all (Karras et al. 2022, algorithm 2).
    pub s_churn: f64,
    /// Euler: the smallest σ at which to churn.
    pub s_tmin: f64,
    /// Euler: the largest σ at which to churn.
    pub s_tmax: f64,
    /// Euler: the scale of the noise that churning adds.
    pub s_noise: f64,
}

impl Default for StepOptions {
    fn default() -> Self {
        Self {
            eta: 0.0,
            use_clipped_model_output: false,
            begin_index: 0,
            start_timestep: None,
            timesteps: None,
            sigmas: None,
            mu: None,
            original_inference_steps: None,
            strength: 1.0,
            lms_order: 4,
            s_churn: 0.0,
            s_tmin: 0.0,
            s_tmax: f64::INFINITY,
            s_noise: 1.0,
        }
    }
}

impl StepOptions {
    /// The options of `set_timesteps` that are given, and that not every class takes.
    pub(in crate::diffusion) fn given(&self) -> impl Iterator<Item = StepOption> {
        [
            (StepOption::Timesteps, self.timesteps.is_some()),
            (StepOption::Sigmas, self.sigmas.is_some()),
            (StepOption::Mu, self.mu.is_some()),
            (StepOption::OriginalInferenceSteps, self.original_inference_steps.is_some()),
            (StepOption::Strength, self.strength != 1.0),
        ]
        .into_iter()
        .filter_map(|(option, given)| given.then_some(option))
    }

    pub(in crate::diffusion) fn check(&self) -> Result<(), Error> {
        let refuse =
            |option, value: String, expected: &str| Err(Error::Option { option, value, expected: expected.to_owned() });
        for (option, value) in [("eta", self.eta), ("strength", self.strength)] {
            if !(0.0..=1.0).contains(&value) {
                return refuse(option, value.to_string(), "give a number from 0 to 1");
            }
        }
        for (option, value) in
            [("s_churn", self.s_churn), ("s_tmin", self.s_tmin), ("s_tmax", self.s_tmax), ("s_noise", self.s_noise)]
        {
            // Only s_tmax may be infinite, and is by default.
            if value.is_nan() || value < 0.0 || (value.is_infinite() && option != "s_tmax") {
                return refuse(option, value.to_string(), "give a number that is not negative");
            }
        }
        if let Some(start) = self.start_timestep
            && (self.begin_index != 0 || self.strength != 1.0)
        {
            return refuse(
                "start_timestep",
                start.to_string(),
                "give one of `begin_index`, `strength` and `start_timestep`",
            );
        }
        if !(1..=HISTORY).contains(&self.lms_order) {
            return refuse("lms_order", self.lms_order.to_string(), "give a number from 1 to 5");
        }
        if let Some(mu) = self.mu.filter(|mu| !mu.is_finite()) {
            return refuse("mu", mu.to_string(), "give a finite number");
        }
        if let Some(timesteps) = &self.timesteps {
            if self.sigmas.is_some() {
                return refuse("sigmas", "given".into(), "give `timesteps` or `sigmas`, not both");
            }
            if timesteps.windows(2).any(|pair| pair[0] <= pair[1]) {
                return refuse("timesteps", format!("{timesteps:?}"), "they must descend");
            }
        }
        if let Some(sigmas) = &self.sigmas
            && (sigmas.iter().any(|sigma| !(0.0..f64::INFINITY).contains(sigma))
                || sigmas.windows(2).any(|pair| pair[0] < pair[1]))
        {
            return refuse("sigmas", format!("{sigmas:?}"), "they must descend to zero or above");
        }
        Ok(())
    }
}
