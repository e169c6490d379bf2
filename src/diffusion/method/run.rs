//! One run of a solver: what it is asked for, where it begins, and how its steps become a table.

use super::{
    common::Common,
    options::{StepOption, StepOptions},
};
use crate::diffusion::{
    error::Error,
    schedule::{noise_schedule::NoiseSchedule, noising::Noising, prediction::Reading},
    table::{clip::Clip, step::Step, terms::HISTORY, whole::Table},
};

/// The place where a run begins in its list of timesteps.
#[derive(Debug, Clone, Copy, Default)]
pub struct Begin {
    /// The index, in calls of the network.
    pub index: usize,
    /// True if the run would not have visited this timestep. Then levels before it mean nothing.
    pub is_between: bool,
    /// The number of timesteps that were put in: 1 if the run begins above all that it would visit, else 0.
    pub added: usize,
}

/// All that a solver needs to make its table.
pub struct Run<'a> {
    /// The class of the config.
    pub class: &'a str,
    /// Calls of the network for each step.
    pub order: usize,
    /// The keys that most classes have.
    pub common: &'a Common,
    /// β_t and ᾱ_t.
    pub noise_schedule: &'a NoiseSchedule,
    /// The number of steps.
    pub num_inference_steps: usize,
    /// The caller's options.
    pub options: &'a StepOptions,
}

impl Run<'_> {
    /// Refuses an option that was given to a class that does not take it.
    pub fn refuse(&self, option: StepOption, given: bool) -> Result<(), Error> {
        match given {
            false => Ok(()),
            true => Err(Error::Option {
                option: option.name(),
                value: "given".into(),
                expected: format!("{} does not take it in this configuration", self.class),
            }),
        }
    }

    /// The first of the timesteps that this run looks at: one that it begins at lies in the schedule, and so do those below.
    pub fn first_looked_at(&self) -> usize {
        match self.options.start_timestep {
            Some(_) => self.num_inference_steps,
            None => self.options.begin_index,
        }
    }

    /// The timesteps that a user gives, in classes of the training schedule's whole timesteps.
    pub fn custom_timesteps(&self) -> Result<Option<Vec<f64>>, Error> {
        let Some(timesteps) = &self.options.timesteps else { return Ok(None) };
        let range = 0.0..self.common.num_train_timesteps as f64;
        match timesteps.iter().find(|&t| !range.contains(t) || t.fract() != 0.0) {
            None => Ok(Some(timesteps.clone())),
            Some(t) => Err(Error::Option {
                option: "timesteps",
                value: t.to_string(),
                expected: format!("give whole numbers below num_train_timesteps = {}", self.common.num_train_timesteps),
            }),
        }
    }

    /// ᾱ at a timestep of the run.
    pub fn alpha_bar(&self, timestep: f64) -> Result<f64, Error> {
        self.noise_schedule.alpha_bar_of_run(timestep as i64).ok_or_else(|| Error::Option {
            option: "timesteps",
            value: timestep.to_string(),
            expected: format!("the timesteps of this schedule are 0 to {}", self.common.num_train_timesteps - 1),
        })
    }

    /// x̂_0 at a level of noise from x_t and the network's output, before `clip`.
    ///
    /// If no signal is left, ε̂ says only on which side of zero x̂_0 is: at an infinite distance, which clipping to a range brings
    /// back. A power of two stands for infinity, so that the sign of x_t − ε̂ comes out in f32 as well.
    pub fn x0(&self, at: Noising, clip: Clip) -> Reading {
        const FAR: f64 = (1u128 << 100) as f64;
        match self.common.prediction_type.x0(at.signal, at.noise) {
            x0 if !x0.is_finite() && matches!(clip, Clip::Range(_)) => Reading::new(FAR, -FAR * at.noise),
            x0 => x0,
        }
    }

    /// x_t at a timestep of the run from x_0.
    pub fn forward(&self, timestep: f64) -> Result<Noising, Error> {
        self.alpha_bar(timestep).map(Noising::of_alpha_bar)
    }

    /// Finds where the run begins in the `timesteps` that it would visit, and puts a `start_timestep` there that it would not:
    /// in the place of the one before it, so that those after it keep their indices.
    pub fn begin(&self, timesteps: &mut Vec<f64>) -> Begin {
        self.begin_at(timesteps, None)
    }

    /// [`begin`](Self::begin) in classes that hold a σ for each of `timesteps`, as f32, and perhaps a final one. Two timesteps are
    /// the same where their σ are: timesteps that were looked up from σ may be rounded.
    pub fn begin_with_sigmas(&self, timesteps: &mut Vec<f64>, sigmas: &mut Vec<f64>, is_flow: bool) -> Begin {
        let sigma = self.options.start_timestep.map_or(f64::NAN, |t| match is_flow {
            true => self.common.flow_sigma(t),
            false => self.noise_schedule.sigma(t),
        });
        self.begin_at(timesteps, Some((sigmas, sigma)))
    }

    fn begin_at(&self, timesteps: &mut Vec<f64>, mut sigmas: Option<(&mut Vec<f64>, f64)>) -> Begin {
        let Some(start) = self.options.start_timestep else {
            return Begin { index: self.options.begin_index, ..Begin::default() };
        };
        let start = start as f64;
        let is_visited = match &sigmas {
            Some((sigmas, sigma)) => sigmas.iter().take(timesteps.len()).rposition(|visited| visited == sigma),
            None => timesteps.iter().rposition(|&visited| visited == start),
        };
        if let Some(index) = is_visited {
            return Begin { index: index * self.order, ..Begin::default() };
        }
        let below = timesteps.iter().position(|&visited| visited < start).unwrap_or(timesteps.len());
        let added = usize::from(below == 0);
        let at = (below + added) - 1;
        let put = |values: &mut Vec<f64>, value: f64| match values.get_mut(at) {
            Some(above) if added == 0 => *above = value,
            _ => values.insert(at, value),
        };
        put(timesteps, start);
        if let Some((sigmas, sigma)) = &mut sigmas {
            put(sigmas, *sigma);
        }
        Begin { index: at * self.order, is_between: true, added }
    }

    /// Assembles the table from `begin` on. `step` makes the step with this index.
    pub fn table(
        &self,
        begin: Begin,
        timesteps: Vec<f64>,
        sigmas: Vec<f64>,
        init_noise_sigma: f64,
        mut step: impl FnMut(usize, f64) -> Result<Step, Error>,
    ) -> Result<Table, Error> {
        self.assemble(begin, timesteps, sigmas, init_noise_sigma, &mut step)
    }

    /// [`table`](Self::table) compiled once, for any solver's `step`.
    fn assemble(
        &self,
        begin: Begin,
        timesteps: Vec<f64>,
        sigmas: Vec<f64>,
        init_noise_sigma: f64,
        step: &mut dyn FnMut(usize, f64) -> Result<Step, Error>,
    ) -> Result<Table, Error> {
        let begin = begin.index;
        if begin >= timesteps.len() {
            return Err(Error::Option {
                option: "begin_index",
                value: begin.to_string(),
                expected: format!("the schedule has {} steps", timesteps.len()),
            });
        }
        // Steps before the run begins are not made, and not looked at.
        let mut steps = Vec::with_capacity(timesteps.len() - begin);
        for (index, &timestep) in timesteps.iter().enumerate().skip(begin) {
            let step = step(index, timestep)?;
            if !step.is_finite() || sigmas.get(index).is_some_and(|sigma| !sigma.is_finite()) {
                let cause =
                    self.cause_of_infinity(&timesteps[begin..], sigmas.get(begin..).unwrap_or_default(), index - begin);
                return Err(Error::NotFinite { class: self.class.to_owned(), index, timestep, cause });
            }
            steps.push(step);
        }
        Ok(Table { steps, order: self.order, init_noise_sigma, timesteps, sigmas, warning: None })
    }

    /// The reason why the coefficients of step `index` of a run are not finite, and a remedy. `sigmas` may be none.
    fn cause_of_infinity(&self, timesteps: &[f64], sigmas: &[f64], index: usize) -> String {
        let levels = if sigmas.is_empty() { timesteps } else { sigmas };
        // A step looks back at as many as it keeps, and at where it arrives. Solvers that call the network twice have each level twice.
        let near = index.saturating_sub(HISTORY)..=index;
        let twice = near
            .into_iter()
            .find(|&i| self.order == 1 && levels.get(i).is_some() && levels.get(i) == levels.get(i + 1));
        let twice = twice.and_then(|i| Some((timesteps.get(i)?, timesteps.get(i + 1)?)));
        let what = match twice {
            Some((one, other)) if one == other => format!("timestep {one} is visited twice"),
            Some((one, other)) => format!("timesteps {one} and {other} are one noise level"),
            None => {
                return "it divides by a signal or noise level of zero; change prediction_type, timestep_spacing or \
                    rescale_betas_zero_snr, or choose another solver"
                    .to_owned();
            }
        };
        format!("{what}, and this solver divides by the way from one step to the next; give fewer steps")
    }
}
