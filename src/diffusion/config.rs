//! `scheduler_config.json`: what a checkpoint says about its noise schedule and the solver it was meant for.

use std::{fmt, ops::RangeInclusive, sync::Arc};

use serde_json::Value;

use super::{
    bound::VariationalBound,
    error::Error,
    keys::Keys,
    method::{
        common::{Common, TimestepSpacing},
        consistency,
        options::StepOptions,
        run::Run,
        spec::{MAX_INFERENCE_STEPS, Method, Setting, Spec},
        variance_type::VarianceType,
    },
    names::SolverKeys,
    schedule::{
        noise_schedule::NoiseSchedule,
        noising::NoisingAt,
        prediction::{PredictionType, Reading},
        variance::Variance,
    },
    solvers::{self, Solver},
    table::whole::Table,
};

/// Numbers of steps in a row, between its least and its most, that no solver refuses.
const REFUSED_IN_A_ROW: usize = 4;

/// A scheduler as a checkpoint configures it, diffusers' `SchedulerMixin` with its `config`.
#[derive(Clone)]
pub struct SchedulerConfig {
    keys: Keys,
    /// The solver and its settings. `None` for a class that has no solver here: it can still be swapped for one that has.
    scheduler: Option<Scheduler>,
}

#[derive(Clone)]
struct Scheduler {
    solver: Solver,
    common: Common,
    method: Arc<dyn Method>,
}

/// Equality of the keys, from which all else follows.
impl PartialEq for SchedulerConfig {
    fn eq(&self, other: &Self) -> bool {
        self.keys == other.keys
    }
}

/// The keys, from which all else follows.
impl fmt::Debug for SchedulerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.keys.fmt(f)
    }
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

    /// Takes the content of a `scheduler_config.json`, in which numbers that are not finite are strings.
    ///
    /// # Errors
    /// As [`from_json`](Self::from_json).
    pub fn from_value(value: serde_json::Value) -> Result<Self, Error> {
        Self::read(Keys::of(value, None)?)
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

    /// The config of this model for another solver: diffusers' `X.from_config(Y.config)`. A key that the file sets carries over if
    /// the other class knows it; a key that it leaves out takes the other class's default.
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

    /// The config of this scheduler with some keys set: diffusers' `X.from_config(config, key=value)`. A spacing of σ that is
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
            (Setting::AlgorithmType, "algorithm_type", given.algorithm_type.clone().map(Value::from)),
            (Setting::SolverOrder, "solver_order", given.solver_order.map(Value::from)),
        ];
        let values: Vec<(Setting, &'static str, Value)> = spacings
            .into_iter()
            .map(|(key, value)| (Setting::SigmaSpacing, key, value.map(Value::from)))
            .chain(others)
            .filter_map(|(setting, key, value)| Some((setting, key, value?)))
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
        for (setting, key, value) in values {
            let has = |solver: &Solver| solver.spec().settings.contains(&setting);
            if !has(&solver) {
                let names = Solver::ALL.into_iter().filter(has).map(Solver::name);
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

    /// True if the network predicts the velocity of rectified flow.
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
        let spec = solver.spec();
        let common = Common::read(&keys, spec.chain.as_ref())?;
        let method = (spec.read)(&keys, &common)?;
        Ok(Self { keys, scheduler: Some(Scheduler { solver, common, method }) })
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
            .ok_or_else(|| Error::UnsupportedClass { class: self.keys.class.clone(), supported: solvers::names() })
    }

    /// β_t and ᾱ_t for all training timesteps; both empty for [`Solver::FlowEuler`], which has no β.
    ///
    /// # Errors
    /// Refuses a class that has no solver here.
    pub fn noise_schedule(&self) -> Result<NoiseSchedule, Error> {
        Ok(self.scheduler()?.common.noise_schedule())
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
    pub fn noising_at(&self, timestep: usize) -> Result<NoisingAt, Error> {
        let Scheduler { common, method, .. } = self.scheduler()?;
        self.check_timestep("timestep", timestep)?;
        let scale = method.scale();
        let forward = scale.forward(timestep, common, &common.noise_schedule());
        let mut at = NoisingAt {
            timestep: timestep as f64,
            forward,
            input_scale: scale.input_scale(forward),
            x0: Reading::default(),
            epsilon: Reading::default(),
        };
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
        let Scheduler { common, method, .. } = self.scheduler()?;
        let original = method.distilled_steps(original_inference_steps);
        consistency::timesteps_from(start, num_inference_steps, common.num_train_timesteps, original)
    }

    /// The target that the network was trained on.
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
            Err(_) => VarianceType::read(&self.keys).map(VarianceType::variance),
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
        let least = self.scheduler().ok()?.method.least_steps();
        let least = (least..=cap).take(REFUSED_IN_A_ROW).find(runs)?;
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
        let Scheduler { solver, common, method } = self.scheduler()?;
        let spec = solver.spec();
        let num_inference_steps = match (&options.timesteps, &options.sigmas) {
            (Some(timesteps), _) => timesteps.len(),
            (None, Some(sigmas)) => solver.steps_of_sigmas(sigmas),
            (None, None) => num_inference_steps,
        };
        let (least, most) = (method.least_steps(), spec.most_steps.of(common.num_train_timesteps));
        if !(least..=most).contains(&num_inference_steps) {
            let class = self.keys.class.clone();
            return Err(Error::NumInferenceSteps { num_inference_steps, class, least, most });
        }
        options.check()?;
        if let Some(start) = options.start_timestep {
            self.check_timestep("start_timestep", start)?;
        }
        let noise_schedule = common.noise_schedule();
        let run = Run {
            class: &self.keys.class,
            order: spec.calls_per_step,
            common,
            noise_schedule: &noise_schedule,
            num_inference_steps,
            options,
        };
        for option in options.given() {
            run.refuse(option, !spec.options.contains(&option))?;
        }
        let mut table = method.table(&run)?;
        table.warning = offset_warning(spec, &run, &table);
        Ok(table)
    }
}

/// A sentence for a run that has room only for a part of `steps_offset`, which is the last timestep.
fn offset_warning(spec: &Spec, run: &Run, table: &Table) -> Option<String> {
    let has_offset = spec.cuts_offset
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
