//! `scheduler_config.json`: what a checkpoint says about its noise schedule and the solver it was meant for.

use std::{fmt, str::FromStr};

use super::{
    Error, NoiseSchedule, StepOptions, Table, ddim, ddpm, dpmpp, euler, euler_ancestral, keys::Keys, schedule::Betas,
    table::Run,
};

/// A guard against sizes that only a damaged or hostile file asks for; models in use have 1000 or a few thousand.
const MAX_TRAIN_TIMESTEPS: i64 = 100_000;

/// Likewise for the number of steps, in the classes where diffusers itself sets no limit.
const MAX_INFERENCE_STEPS: usize = 10_000;

/// The solvers, by the names that users know them by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Solver {
    /// Ancestral sampling, `DDPMScheduler`.
    Ddpm,
    /// `DDIMScheduler`.
    Ddim,
    /// `EulerDiscreteScheduler`.
    Euler,
    /// `EulerAncestralDiscreteScheduler`.
    EulerAncestral,
    /// DPM-Solver++(2M), `DPMSolverMultistepScheduler`.
    Dpmpp2m,
}

impl Solver {
    /// All of them, in the order that they are listed to users.
    pub const ALL: [Self; 5] = [Self::Ddpm, Self::Ddim, Self::Euler, Self::EulerAncestral, Self::Dpmpp2m];

    /// The name that a user types: `ddpm`, `ddim`, `euler`, `euler_ancestral` or `dpmpp_2m`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ddpm => "ddpm",
            Self::Ddim => "ddim",
            Self::Euler => "euler",
            Self::EulerAncestral => "euler_ancestral",
            Self::Dpmpp2m => "dpmpp_2m",
        }
    }

    /// The class of diffusers that it is.
    pub fn class_name(self) -> &'static str {
        match self {
            Self::Ddpm => "DDPMScheduler",
            Self::Ddim => "DDIMScheduler",
            Self::Euler => "EulerDiscreteScheduler",
            Self::EulerAncestral => "EulerAncestralDiscreteScheduler",
            Self::Dpmpp2m => "DPMSolverMultistepScheduler",
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

fn solver_names() -> String {
    Solver::ALL.map(Solver::name).join(", ")
}

/// What the network was trained to predict (`prediction_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PredictionType {
    /// ε, the noise.
    Epsilon,
    /// x_0, the image itself.
    Sample,
    /// v = √ᾱ·ε − √(1−ᾱ)·x_0 (Salimans and Ho 2022).
    VPrediction,
    /// ε − x_0, the velocity of rectified flow.
    FlowPrediction,
}

impl PredictionType {
    /// x̂_0 as the coefficients of x_t and of the network's output, where x_t = `signal`·x_0 + `noise`·ε.
    pub(super) fn x0(self, signal: f64, noise: f64) -> (f64, f64) {
        match self {
            Self::Epsilon => (1.0 / signal, -noise / signal),
            Self::Sample => (0.0, 1.0),
            Self::VPrediction => (signal, -noise),
            // Only with rectified flow, where signal = 1 − noise.
            Self::FlowPrediction => (1.0, -noise),
        }
    }
}

/// Which of the training timesteps a run visits (`timestep_spacing`); table 2 of Lin et al. 2023, arXiv 2305.08891.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TimestepSpacing {
    Linspace,
    Leading,
    Trailing,
}

/// The keys that every class has.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Common {
    pub(super) betas: Betas,
    /// T.
    pub(super) num_train_timesteps: usize,
    pub(super) rescale_betas_zero_snr: bool,
    pub(super) prediction_type: PredictionType,
    pub(super) timestep_spacing: TimestepSpacing,
    pub(super) steps_offset: i64,
}

impl Common {
    fn read(keys: &Keys, solver: Solver) -> Result<Self, Error> {
        use PredictionType::{Epsilon, FlowPrediction, Sample, VPrediction};
        use TimestepSpacing::{Leading, Linspace, Trailing};

        let prediction_types: &[(&str, PredictionType)] = match solver {
            Solver::Ddpm | Solver::Ddim => &[("epsilon", Epsilon), ("sample", Sample), ("v_prediction", VPrediction)],
            Solver::Euler => {
                &[("epsilon", Epsilon), ("sample", Sample), ("original_sample", Sample), ("v_prediction", VPrediction)]
            }
            Solver::EulerAncestral => &[("epsilon", Epsilon), ("v_prediction", VPrediction)],
            Solver::Dpmpp2m => &[
                ("epsilon", Epsilon),
                ("sample", Sample),
                ("v_prediction", VPrediction),
                ("flow_prediction", FlowPrediction),
            ],
        };
        let default_spacing = match solver {
            Solver::Ddpm | Solver::Ddim => Leading,
            Solver::Euler | Solver::EulerAncestral | Solver::Dpmpp2m => Linspace,
        };
        let num_train_timesteps = keys.integer("num_train_timesteps", 1000, 1..=MAX_TRAIN_TIMESTEPS)?;
        let common = Self {
            betas: Betas::read(keys, solver)?,
            num_train_timesteps: usize::try_from(num_train_timesteps).unwrap_or_default(),
            rescale_betas_zero_snr: keys.bool("rescale_betas_zero_snr", false)?,
            prediction_type: keys.choice("prediction_type", Epsilon, prediction_types)?,
            timestep_spacing: keys.choice(
                "timestep_spacing",
                default_spacing,
                &[("linspace", Linspace), ("leading", Leading), ("trailing", Trailing)],
            )?,
            steps_offset: keys.integer("steps_offset", 0, 0..=MAX_TRAIN_TIMESTEPS)?,
        };
        match &common.betas {
            Betas::Trained(betas) if betas.len() != common.num_train_timesteps => Err(keys.unsupported(
                "trained_betas",
                format!("a list of {}", betas.len()),
                format!("a list of num_train_timesteps = {num_train_timesteps}"),
            )),
            _ => Ok(common),
        }
    }
}

/// A scheduler as a checkpoint configures it, diffusers' `SchedulerMixin` with its `config`.
#[derive(Debug, Clone, PartialEq)]
pub struct SchedulerConfig {
    keys: Keys,
    /// `None` for a class that has no solver here: it can still be swapped for one that has.
    scheduler: Option<(Common, Class)>,
}

/// The keys of one class.
#[derive(Debug, Clone, PartialEq)]
enum Class {
    Ddpm(ddpm::Config),
    Ddim(ddim::Config),
    Euler(euler::Config),
    EulerAncestral,
    DpmSolverMultistep(dpmpp::Config),
}

impl SchedulerConfig {
    /// Reads a `scheduler_config.json`. The bare tokens `Infinity`, `-Infinity` and `NaN` that Python writes are
    /// accepted; an absent key takes its class's default.
    ///
    /// A class that has no solver here is accepted too, because [`swap_to`](Self::swap_to) may follow; it is
    /// [`table`](Self::table) that refuses it.
    ///
    /// # Errors
    /// Names the key whose type or value is not supported, and what is.
    pub fn from_json(text: &str) -> Result<Self, Error> {
        Self::read(Keys::parse(text)?)
    }

    /// The same model with another solver: diffusers' `X.from_config(Y.config)`. What the file sets carries over as far
    /// as the other class knows it; what it leaves out takes the other class's defaults.
    ///
    /// # Errors
    /// As [`from_json`](Self::from_json): a value may be fine in one class and not supported in another.
    pub fn swap_to(&self, solver: Solver) -> Result<Self, Error> {
        Self::read(self.keys.for_class(solver.class_name()))
    }

    /// The config as `StableDiffusionPipeline` changes it when it is built: `steps_offset` becomes 1 and `clip_sample`
    /// false, which the first published checkpoints had wrong.
    ///
    /// # Errors
    /// As [`from_json`](Self::from_json).
    pub fn for_stable_diffusion_pipeline(&self) -> Result<Self, Error> {
        let mut keys = self.keys.clone();
        keys.set("steps_offset", 1.into());
        if keys.stored("clip_sample").is_some() || matches!(self.solver(), Some(Solver::Ddpm | Solver::Ddim)) {
            keys.set("clip_sample", false.into());
        }
        Self::read(keys)
    }

    fn read(keys: Keys) -> Result<Self, Error> {
        let Some(solver) = Solver::ALL.into_iter().find(|solver| solver.class_name() == keys.class) else {
            return Ok(Self { keys, scheduler: None });
        };
        let common = Common::read(&keys, solver)?;
        let class = match solver {
            Solver::Ddpm => Class::Ddpm(ddpm::Config::read(&keys)?),
            Solver::Ddim => Class::Ddim(ddim::Config::read(&keys)?),
            Solver::Euler => Class::Euler(euler::Config::read(&keys)?),
            Solver::EulerAncestral => Class::EulerAncestral,
            Solver::Dpmpp2m => Class::DpmSolverMultistep(dpmpp::Config::read(&keys, &common)?),
        };
        Ok(Self { keys, scheduler: Some((common, class)) })
    }

    /// The class of diffusers that this configures, `_class_name`.
    pub fn class_name(&self) -> &str {
        &self.keys.class
    }

    /// The solver that runs this class, if there is one.
    pub fn solver(&self) -> Option<Solver> {
        Solver::ALL.into_iter().find(|solver| solver.class_name() == self.keys.class)
    }

    fn scheduler(&self) -> Result<&(Common, Class), Error> {
        self.scheduler
            .as_ref()
            .ok_or_else(|| Error::UnsupportedClass { class: self.keys.class.clone(), supported: solver_names() })
    }

    /// β_t and ᾱ_t for all training timesteps.
    ///
    /// # Errors
    /// Refuses a class that has no solver here.
    pub fn noise_schedule(&self) -> Result<NoiseSchedule, Error> {
        let (common, class) = self.scheduler()?;
        let mut schedule = NoiseSchedule::new(common);
        // Solvers in σ-space cannot hold a signal of zero: the library gives them σ = 4096 instead of infinity.
        if common.rescale_betas_zero_snr && !matches!(class, Class::Ddpm(_) | Class::Ddim(_)) {
            schedule.keep_a_last_trace_of_signal();
        }
        Ok(schedule)
    }

    /// The whole reverse process as a table: diffusers' `set_timesteps`, and every `step` after it.
    ///
    /// With custom `timesteps` or `sigmas` in `options`, `num_inference_steps` must be their number of steps.
    ///
    /// # Errors
    /// Refuses a class that has no solver here, a number of steps or an option that the class does not take, and a
    /// table that would hold anything but finite numbers (where diffusers would return NaN).
    pub fn table(&self, num_inference_steps: usize, options: &StepOptions) -> Result<Table, Error> {
        let (common, class) = self.scheduler()?;
        let most = match class {
            Class::Ddpm(_) | Class::Ddim(_) => common.num_train_timesteps,
            _ => MAX_INFERENCE_STEPS,
        };
        if !(1..=most).contains(&num_inference_steps) {
            return Err(Error::NumInferenceSteps { num_inference_steps, class: self.keys.class.clone(), most });
        }
        options.check(num_inference_steps)?;
        let noise_schedule = self.noise_schedule()?;
        let run =
            Run { class: &self.keys.class, common, noise_schedule: &noise_schedule, num_inference_steps, options };
        let table = match class {
            Class::Ddpm(config) => config.table(&run),
            Class::Ddim(config) => config.table(&run),
            Class::Euler(config) => config.table(&run),
            Class::EulerAncestral => euler_ancestral::table(&run),
            Class::DpmSolverMultistep(config) => config.table(&run),
        }?;
        table.check_finite(&self.keys.class)?;
        Ok(table)
    }
}
