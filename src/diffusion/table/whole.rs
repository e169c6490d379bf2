//! All steps of a run.

use std::fmt;

use serde::Serialize;

use super::{clip::Clip, step::Step, terms::Terms};

/// The reverse process from x_T (or, with a `begin_index`, from a later x_t) to x_0.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Table {
    /// The steps, in order.
    pub steps: Vec<Step>,
    /// Calls of the network for each of the steps that a user counts: 1, or 2 in Heun's method and
    /// DPM-Solver-2. Image-to-image begins at step n − ⌊n·strength⌋ times this.
    pub order: usize,
    /// x_T = `init_noise_sigma`·z, z ~ N(0, 1). Image-to-image uses the first step's [`forward`](Step::forward) instead.
    pub init_noise_sigma: f64,
    /// The timestep of every call of the network, those before `begin_index` included.
    pub timesteps: Vec<f64>,
    /// diffusers' `sigmas`: one for each timestep, and where the last step arrives (DPM-Solver-2 repeats that). Empty in
    /// classes that have none.
    pub sigmas: Vec<f64>,
    /// A sentence on what sets this table apart from the config's: a `steps_offset` that the schedule has no room for.
    #[serde(skip)]
    pub warning: Option<String>,
}

/// One line for each step: the network's timestep, the levels of signal and noise in x_t, the network's input scale,
/// x̂_0, and the combination that is x_{t−1}. Zero coefficients are left out.
impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "init_noise_sigma {:.6}", self.init_noise_sigma)?;
        writeln!(
            f,
            "{:>4}  {:>9}  {:>11}  {:>11}  {:>11}  {:<38}  x_{{t-1}}",
            "step", "timestep", "signal", "noise", "input_scale", "x0"
        )?;
        for (index, step) in self.steps.iter().enumerate() {
            let x0 = Terms { sample: step.x0.sample, model_output: step.x0.output, ..Terms::ZERO };
            let clip = match step.clip {
                Clip::None => String::new(),
                Clip::Range(range) => format!(" in ±{range}"),
                Clip::Threshold { ratio, max_value } => format!(" threshold {ratio} ≤{max_value}"),
            };
            let learned = if step.learned_variance.is_some() { " (z times the learned deviation)" } else { "" };
            writeln!(
                f,
                "{index:>4}  {:>9.3}  {:>11.6}  {:>11.6}  {:>11.6}  {:<38}  {}{learned}",
                step.timestep,
                step.forward.signal,
                step.forward.noise,
                step.input_scale,
                format!("{x0}{clip}"),
                step.prev_sample,
            )?;
        }
        Ok(())
    }
}
