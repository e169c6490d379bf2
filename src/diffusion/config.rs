//! `scheduler_config.json`: what a checkpoint says about its noise schedule and the solver it was meant for.

use std::ops::RangeInclusive;

use serde_json::Value;

use super::{
    Error, Forward, ForwardAt, NoiseSchedule, Solver, SolverKeys, StepOptions, Table, Variance, VariationalBound,
    consistency, ddim, ddpm, deis, dpm2, dpmpp, dpmpp_2m, dpmpp_2s, euler, euler_ancestral, flow_euler, heun,
    keys::Keys,
    lambda_space::Level,
    lcm, lms, pndm,
    schedule::Betas,
    sigma_space,
    solver::solver_names,
    table::{self, Run},
    tcd, unipc,
};

/// A guard against sizes that only a damaged or hostile file asks for; models in use have 1000 or a few thousand.
pub(super) const MAX_TRAIN_TIMESTEPS: i64 = 100_000;

/// Likewise for the number of steps, in the classes where diffusers itself sets no limit.
const MAX_INFERENCE_STEPS: usize = 10_000;

/// No solver needs more steps than this to run at all: PNDM visits this many timesteps before it has enough predictions.
const MOST_LEAST_STEPS: usize = 4;

/// What the network was trained to predict (`prediction_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PredictionType {
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

    /// ε̂ likewise.
    pub(super) fn epsilon(self, signal: f64, noise: f64) -> (f64, f64) {
        match self {
            Self::Epsilon => (0.0, 1.0),
            Self::Sample => (1.0 / noise, -signal / noise),
            Self::VPrediction => (noise, signal),
            Self::FlowPrediction => (1.0, signal),
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

/// The keys that most classes have. A class that lacks one does not read it: files may hold keys of other classes.
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

        let num_train_timesteps = keys.integer("num_train_timesteps", 1000, 1..=MAX_TRAIN_TIMESTEPS)?;
        let train = usize::try_from(num_train_timesteps).unwrap_or_default();
        if solver == Solver::FlowEuler {
            return Ok(Self {
                betas: Betas::Trained(Vec::new()),
                num_train_timesteps: train,
                rescale_betas_zero_snr: false,
                prediction_type: FlowPrediction,
                timestep_spacing: Linspace,
                steps_offset: 0,
            });
        }
        let names = [("epsilon", Epsilon), ("v_prediction", VPrediction), ("sample", Sample)];
        let prediction_types: &[(&str, PredictionType)] = match solver {
            Solver::Pndm | Solver::EulerAncestral | Solver::Dpm2 | Solver::Dpm2Ancestral => &names[..2],
            Solver::Euler => &[names[0], names[1], names[2], ("original_sample", Sample)],
            Solver::Dpmpp2m | Solver::Dpmpp2s | Solver::UniPc | Solver::Deis => {
                &[names[0], names[1], names[2], ("flow_prediction", FlowPrediction)]
            }
            _ => &names,
        };
        let default_spacing = match solver {
            Solver::Ddpm | Solver::Ddim | Solver::Pndm | Solver::Lcm | Solver::Tcd => Leading,
            _ => Linspace,
        };
        let spacings = [("linspace", Linspace), ("leading", Leading), ("trailing", Trailing)];
        let (timestep_spacing, steps_offset) = match solver {
            Solver::Dpmpp2s => (Linspace, 0),
            _ => (
                keys.choice("timestep_spacing", default_spacing, &spacings)?,
                keys.integer("steps_offset", 0, 0..=MAX_TRAIN_TIMESTEPS)?,
            ),
        };
        let rescales = match solver {
            Solver::Pndm
            | Solver::Lms
            | Solver::Heun
            | Solver::Dpm2
            | Solver::Dpm2Ancestral
            | Solver::Dpmpp2s
            | Solver::Deis => false,
            _ => keys.bool("rescale_betas_zero_snr", false)?,
        };
        let common = Self {
            betas: Betas::read(keys, solver)?,
            num_train_timesteps: train,
            rescale_betas_zero_snr: rescales,
            prediction_type: keys.choice("prediction_type", Epsilon, prediction_types)?,
            timestep_spacing,
            steps_offset,
        };
        match &common.betas {
            Betas::Trained(betas) if betas.len() != train => Err(keys.unsupported(
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
    scheduler: Option<Scheduler>,
}

#[derive(Debug, Clone, PartialEq)]
struct Scheduler {
    solver: Solver,
    common: Common,
    class: Class,
}

/// The keys of one class.
#[derive(Debug, Clone, PartialEq)]
enum Class {
    Ddpm(ddpm::Config),
    Ddim(ddim::Config),
    Pndm(pndm::Config),
    Lms(lms::Config),
    Euler(euler::Config),
    EulerAncestral,
    Heun(heun::Config),
    Dpm2(dpm2::Config),
    Dpmpp2m(dpmpp::Config),
    Dpmpp2s(dpmpp::Config),
    UniPc(unipc::Config),
    Deis(deis::Config),
    Lcm(lcm::Config),
    Tcd(tcd::Config),
    FlowEuler(flow_euler::Config),
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
        Self::of_class(text, None)
    }

    /// Reads a `scheduler_config.json` as the config of `class`, whichever class it names itself: diffusers goes by `model_index.json`.
    ///
    /// # Errors
    /// As [`from_json`](Self::from_json).
    pub fn of_class(text: &str, class: Option<&str>) -> Result<Self, Error> {
        Self::read(Keys::parse(text, class)?)
    }

    /// The class that the file itself names, which need not be the one that it is read for.
    pub fn own_class(&self) -> Option<&str> {
        self.keys.own_class()
    }

    /// The same model with another solver: diffusers' `X.from_config(Y.config)`. What the file sets carries over as far
    /// as the other class knows it; what it leaves out takes the other class's defaults.
    ///
    /// # Errors
    /// As [`from_json`](Self::from_json): a value may be fine in one class and not supported in another. Refuses
    /// `flow_euler` for a model that was not trained with rectified flow, and the other way round, which diffusers
    /// would run to no good end.
    pub fn swap_to(&self, solver: Solver) -> Result<Self, Error> {
        let swapped = Self::read(self.keys.for_class(solver.class_name()))?;
        match (self.is_flow(), swapped.is_flow()) {
            (from, to) if from == to => Ok(swapped),
            (from, _) => Err(Error::Option {
                option: "solver",
                value: solver.to_string(),
                expected: match from {
                    true => "this model was trained with rectified flow; keep flow_euler".to_owned(),
                    false => "this model was not trained with rectified flow; choose any other solver".to_owned(),
                },
            }),
        }
    }

    /// The same scheduler with some keys of its config set: diffusers' `X.from_config(config, key=value)`. A spacing of σ that is
    /// asked for takes the place of any other.
    ///
    /// # Errors
    /// Refuses a class that has no solver here, a key that its class does not have, and as [`from_json`](Self::from_json).
    pub fn with_keys(&self, given: &SolverKeys) -> Result<Self, Error> {
        let spacings = [
            ("use_karras_sigmas", given.use_karras_sigmas),
            ("use_exponential_sigmas", given.use_exponential_sigmas),
            ("use_beta_sigmas", given.use_beta_sigmas),
        ];
        let others = [
            ("algorithm_type", given.algorithm_type.clone().map(Value::from)),
            ("solver_order", given.solver_order.map(Value::from)),
        ];
        let values: Vec<(&'static str, Value)> = spacings
            .into_iter()
            .map(|(key, value)| (key, value.map(Value::from)))
            .chain(others)
            .filter_map(|(key, value)| Some((key, value?)))
            .collect();
        if values.is_empty() {
            return Ok(self.clone());
        }
        let solver = self.scheduler()?.solver;
        let mut keys = self.keys.clone();
        if spacings.iter().any(|(_, value)| *value == Some(true)) {
            spacings.iter().for_each(|(key, _)| keys.remove(key));
            keys.remove("use_lu_lambdas");
        }
        let mut asked = Vec::new();
        for (key, value) in values {
            if !solver.has_key(key) {
                let names = Solver::ALL.into_iter().filter(|solver| solver.has_key(key)).map(Solver::name);
                return Err(Error::Option {
                    option: key,
                    value: "given".to_owned(),
                    expected: format!(
                        "{solver} has no such setting; these have: {}",
                        names.collect::<Vec<_>>().join(", ")
                    ),
                });
            }
            keys.set(key, value);
            asked.push(key);
        }
        Self::read(keys).map_err(|error| match error {
            Error::UnsupportedValue { key, value, supported, .. } if asked.contains(&key) => {
                Error::Option { option: key, value, expected: format!("supported: {supported}") }
            }
            error => error,
        })
    }

    /// Whether the network predicts the velocity of rectified flow.
    fn is_flow(&self) -> bool {
        match &self.scheduler {
            Some(scheduler) => scheduler.common.prediction_type == PredictionType::FlowPrediction,
            None => self.keys.class.starts_with("FlowMatch"),
        }
    }

    /// The config as `StableDiffusionPipeline` and its image-to-image sibling change it when they are built:
    /// `steps_offset` becomes 1 and `clip_sample` false, which the first published checkpoints had wrong.
    ///
    /// # Errors
    /// As [`from_json`](Self::from_json).
    pub fn for_stable_diffusion_pipeline(&self) -> Result<Self, Error> {
        self.rewritten("clip_sample", false)
    }

    /// The config as `StableDiffusionInpaintPipeline` changes it when it is built: `steps_offset` becomes 1 and
    /// `skip_prk_steps` true.
    ///
    /// # Errors
    /// As [`from_json`](Self::from_json).
    pub fn for_stable_diffusion_inpaint_pipeline(&self) -> Result<Self, Error> {
        self.rewritten("skip_prk_steps", true)
    }

    fn rewritten(&self, key: &'static str, value: bool) -> Result<Self, Error> {
        let mut keys = self.keys.clone();
        keys.rewrite("steps_offset", 1.into());
        keys.rewrite(key, value.into());
        Self::read(keys)
    }

    fn read(keys: Keys) -> Result<Self, Error> {
        let Some(solver) = Solver::of_class(&keys.class) else {
            return Ok(Self { keys, scheduler: None });
        };
        let common = Common::read(&keys, solver)?;
        let class = match solver {
            Solver::Ddpm => Class::Ddpm(ddpm::Config::read(&keys)?),
            Solver::Ddim => Class::Ddim(ddim::Config::read(&keys)?),
            Solver::Pndm => Class::Pndm(pndm::Config::read(&keys)?),
            Solver::Lms => Class::Lms(lms::Config::read(&keys)?),
            Solver::Euler => Class::Euler(euler::Config::read(&keys)?),
            Solver::EulerAncestral => Class::EulerAncestral,
            Solver::Heun => Class::Heun(heun::Config::read(&keys)?),
            Solver::Dpm2 => Class::Dpm2(dpm2::Config::read(&keys, false)?),
            Solver::Dpm2Ancestral => Class::Dpm2(dpm2::Config::read(&keys, true)?),
            Solver::Dpmpp2m => Class::Dpmpp2m(dpmpp_2m::read(&keys, &common)?),
            Solver::Dpmpp2s => Class::Dpmpp2s(dpmpp_2s::read(&keys, &common)?),
            Solver::UniPc => Class::UniPc(unipc::Config::read(&keys, &common)?),
            Solver::Deis => Class::Deis(deis::Config::read(&keys)?),
            Solver::Lcm => Class::Lcm(lcm::Config::read(&keys)?),
            Solver::Tcd => Class::Tcd(tcd::Config::read(&keys)?),
            Solver::FlowEuler => Class::FlowEuler(flow_euler::Config::read(&keys)?),
        };
        Ok(Self { keys, scheduler: Some(Scheduler { solver, common, class }) })
    }

    /// The class of diffusers that this configures, `_class_name`.
    pub fn class_name(&self) -> &str {
        &self.keys.class
    }

    /// The solver that runs this class, if there is one.
    pub fn solver(&self) -> Option<Solver> {
        self.scheduler.as_ref().map(|scheduler| scheduler.solver)
    }

    fn scheduler(&self) -> Result<&Scheduler, Error> {
        self.scheduler
            .as_ref()
            .ok_or_else(|| Error::UnsupportedClass { class: self.keys.class.clone(), supported: solver_names() })
    }

    /// β_t and ᾱ_t for all training timesteps; both empty for [`Solver::FlowEuler`], which has no β.
    ///
    /// # Errors
    /// Refuses a class that has no solver here.
    pub fn noise_schedule(&self) -> Result<NoiseSchedule, Error> {
        let Scheduler { solver, common, .. } = self.scheduler()?;
        let mut schedule = NoiseSchedule::new(common);
        // Solvers in σ-space cannot hold a signal of zero: the library gives them σ = 4096 instead of infinity.
        let holds_zero_signal = matches!(solver, Solver::Ddpm | Solver::Ddim | Solver::Lcm | Solver::Tcd);
        if common.rescale_betas_zero_snr && !holds_zero_signal {
            schedule.keep_a_last_trace_of_signal();
        }
        Ok(schedule)
    }

    /// T, the number of training timesteps.
    ///
    /// # Errors
    /// Refuses a class that has no solver here.
    pub fn num_train_timesteps(&self) -> Result<usize, Error> {
        Ok(self.scheduler()?.common.num_train_timesteps)
    }

    /// The forward process at `timestep` in the scale of this solver: where a run with this
    /// [`start_timestep`](StepOptions::start_timestep) begins, and how one call of the network is read there.
    ///
    /// # Errors
    /// Refuses a class that has no solver here, and a timestep that is not one of training: 0 to T − 1, and in rectified flow, where
    /// σ is t/T, T as well.
    pub fn forward_at(&self, timestep: usize) -> Result<ForwardAt, Error> {
        let Scheduler { common, class, .. } = self.scheduler()?;
        self.check_timestep("timestep", timestep)?;
        let schedule = self.noise_schedule()?;
        let of_lambda = |is_flow| {
            let sigma = if is_flow { table::flow_sigma(timestep, common) } else { table::sigma(timestep, &schedule) };
            Level::new(sigma, is_flow).forward()
        };
        let mut input_scale = 1.0;
        let forward = match class {
            Class::Ddpm(_) | Class::Ddim(_) | Class::Pndm(_) | Class::Lcm(_) | Class::Tcd(_) => {
                Forward::of_alpha_bar(schedule.alpha_bar(timestep).unwrap_or_default())
            }
            Class::Lms(_) | Class::Euler(_) | Class::EulerAncestral | Class::Heun(_) | Class::Dpm2(_) => {
                let sigma = table::sigma(timestep, &schedule);
                input_scale = sigma_space::input_scale(sigma);
                Forward::of_sigma(sigma)
            }
            Class::Dpmpp2m(config) | Class::Dpmpp2s(config) => of_lambda(config.grid.is_flow),
            Class::UniPc(config) => of_lambda(config.grid.is_flow),
            Class::Deis(config) => of_lambda(config.grid.is_flow),
            Class::FlowEuler(_) => Forward::of_flow_sigma(table::flow_sigma(timestep, common)),
        };
        let mut at = ForwardAt { timestep: timestep as f64, forward, input_scale, x0: (0.0, 0.0), epsilon: (0.0, 0.0) };
        let (seen, prediction) = (at.seen(), common.prediction_type);
        at.x0 = prediction.x0(seen.signal, seen.noise);
        at.epsilon = prediction.epsilon(seen.signal, seen.noise);
        Ok(at)
    }

    /// Refuses a timestep that is not one of training.
    fn check_timestep(&self, option: &'static str, timestep: usize) -> Result<(), Error> {
        let last = self.num_train_timesteps()? - usize::from(!self.is_flow());
        match timestep <= last {
            true => Ok(()),
            false => Err(Error::Option {
                option,
                value: timestep.to_string(),
                expected: format!("the timesteps of this schedule are 0 to {last}"),
            }),
        }
    }

    /// LCM, TCD: the timesteps of a run that begins at `start` and spreads `num_inference_steps` over the distilled timesteps below it;
    /// fewer where fewer are left. Given as [`StepOptions::timesteps`], they are what `strength` makes of the schedule, where `start`
    /// is one of the distilled.
    ///
    /// # Errors
    /// Refuses a class that has no solver here, and a timestep that is not one of training.
    pub fn distilled_timesteps(
        &self,
        start: usize,
        num_inference_steps: usize,
        original_inference_steps: Option<usize>,
    ) -> Result<Vec<f64>, Error> {
        self.check_timestep("start_timestep", start)?;
        let Scheduler { common, class, .. } = self.scheduler()?;
        let original = match class {
            Class::Lcm(config) => original_inference_steps.or(config.original_inference_steps),
            Class::Tcd(config) => config.grid(original_inference_steps),
            _ => original_inference_steps,
        };
        consistency::timesteps_from(start, num_inference_steps, common.num_train_timesteps, original)
    }

    /// What the network was trained to predict.
    ///
    /// # Errors
    /// Refuses a class that has no solver here.
    pub fn prediction_type(&self) -> Result<PredictionType, Error> {
        Ok(self.scheduler()?.common.prediction_type)
    }

    /// The variance of the reverse process's steps as the config states it, β̃_t where it does not: most solvers have none.
    ///
    /// # Errors
    /// If its `variance_type` is none of DDPM's.
    pub fn variance_type(&self) -> Result<Variance, Error> {
        match self.keys.null("variance_type") {
            Ok(()) => Ok(Variance::FixedSmall),
            Err(_) => ddpm::VarianceType::read(&self.keys).map(ddpm::VarianceType::variance),
        }
    }

    /// The variational bound of a model with this noise schedule. β_t are those that it was trained with, in f32; what follows
    /// from them is in f64. `variance` replaces the config's own, and x̂_0 is clamped to ± `clip`.
    ///
    /// # Errors
    /// Refuses a class that has no solver here, and what [`VariationalBound::new`] refuses.
    pub fn variational_bound(&self, variance: Option<Variance>, clip: Option<f64>) -> Result<VariationalBound, Error> {
        let prediction = self.prediction_type()?;
        let variance = match variance {
            Some(variance) => variance,
            None => self.variance_type()?,
        };
        let betas = self.noise_schedule()?.betas.into_iter().map(f64::from).collect();
        VariationalBound::new(betas, prediction, variance, clip)
    }

    /// The solvers that this model can be run with, each with the least and the most steps that it takes where nothing else is
    /// asked of it, and no more than T. In "trailing" spacing a solver may refuse single numbers between them, where rounding puts two
    /// timesteps at one noise level.
    pub fn solver_steps(&self) -> Vec<(Solver, RangeInclusive<usize>)> {
        let of = |solver: Solver| Some((solver, self.swap_to(solver).ok()?.steps()?));
        Solver::ALL.into_iter().filter_map(of).collect()
    }

    /// The least and the most steps of this scheduler, if it takes any.
    ///
    /// Asked of the tables themselves: what is too much for a solver stays too much, so that halving finds where that begins. Most
    /// solvers end at T or a step or two below it, and are asked there first.
    fn steps(&self) -> Option<RangeInclusive<usize>> {
        let runs = |&n: &usize| self.table(n, &StepOptions::default()).is_ok();
        let cap = self.num_train_timesteps().ok()?.min(MAX_INFERENCE_STEPS);
        let least = (1..=MOST_LEAST_STEPS.min(cap)).find(runs)?;
        let (mut most, mut too_many, mut stride) = (cap, cap + 1, 1);
        while !runs(&most) {
            (most, too_many) = (most.saturating_sub(stride).max(least), most);
            stride *= 2;
        }
        while too_many - most > 1 {
            let middle = most.midpoint(too_many);
            match runs(&middle) {
                true => most = middle,
                false => too_many = middle,
            }
        }
        Some(least..=most)
    }

    /// The whole reverse process as a table: diffusers' `set_timesteps`, and every `step` after it.
    ///
    /// Custom `timesteps` or `sigmas` in `options` say how many steps there are; `num_inference_steps` is then not looked at.
    ///
    /// # Errors
    /// Refuses a class that has no solver here, a number of steps or an option that the class does not take, and a
    /// table with a step that has anything but finite numbers.
    pub fn table(&self, num_inference_steps: usize, options: &StepOptions) -> Result<Table, Error> {
        let Scheduler { solver, common, class } = self.scheduler()?;
        let num_inference_steps = match (&options.timesteps, &options.sigmas) {
            (Some(timesteps), _) => timesteps.len(),
            // Euler takes the final σ with the others.
            (None, Some(sigmas)) => sigmas.len().saturating_sub(usize::from(*solver == Solver::Euler)),
            (None, None) => num_inference_steps,
        };
        let most = match solver {
            Solver::Ddpm | Solver::Ddim | Solver::Pndm | Solver::Lcm | Solver::Tcd => common.num_train_timesteps,
            _ => MAX_INFERENCE_STEPS,
        };
        let least = match class {
            Class::Pndm(config) => config.least_steps(),
            _ => 1,
        };
        if !(least..=most).contains(&num_inference_steps) {
            let class = self.keys.class.clone();
            return Err(Error::NumInferenceSteps { num_inference_steps, class, least, most });
        }
        options.check()?;
        if let Some(start) = options.start_timestep {
            self.check_timestep("start_timestep", start)?;
        }
        let noise_schedule = self.noise_schedule()?;
        let run = Run {
            class: &self.keys.class,
            order: solver.order(),
            common,
            noise_schedule: &noise_schedule,
            num_inference_steps,
            options,
        };
        for option in options.given() {
            run.refuse(option, !solver.takes(option))?;
        }
        let mut table = match class {
            Class::Ddpm(config) => config.table(&run),
            Class::Ddim(config) => config.table(&run),
            Class::Pndm(config) => config.table(&run),
            Class::Lms(config) => config.table(&run),
            Class::Euler(config) => config.table(&run),
            Class::EulerAncestral => euler_ancestral::table(&run),
            Class::Heun(config) => config.table(&run),
            Class::Dpm2(config) => config.table(&run),
            Class::Dpmpp2m(config) => dpmpp_2m::table(config, &run),
            Class::Dpmpp2s(config) => dpmpp_2s::table(config, &run),
            Class::UniPc(config) => config.table(&run),
            Class::Deis(config) => config.table(&run),
            Class::Lcm(config) => config.table(&run),
            Class::Tcd(config) => config.table(&run),
            Class::FlowEuler(config) => config.table(&run),
        }?;
        table.warning = offset_warning(*solver, &run, &table);
        Ok(table)
    }
}

/// What to say where [`spacing::whole_timesteps`] has left out some of `steps_offset`, which is the last timestep.
fn offset_warning(solver: Solver, run: &Run, table: &Table) -> Option<String> {
    let has_offset = matches!(solver, Solver::Ddpm | Solver::Ddim | Solver::Pndm)
        && run.common.timestep_spacing == TimestepSpacing::Leading
        && run.options.timesteps.is_none()
        && run.options.start_timestep.is_none();
    let (offset, left) = (run.common.steps_offset, table.timesteps.last().filter(|_| has_offset)?);
    (*left < offset as f64).then(|| {
        format!(
            "{} steps leave no room for the scheduler's \"steps_offset\" of {offset}: the timesteps are {} to {left}. diffusers does \
             not run this",
            run.num_inference_steps,
            table.timesteps.first().unwrap_or(left),
        )
    })
}
