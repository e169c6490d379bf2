//! The keys of a scheduler's config that most classes have: of the noise schedule, the network's target and the timesteps.

use crate::diffusion::{
    error::Error,
    keys::Keys,
    schedule::{betas::Betas, noise_schedule::NoiseSchedule, prediction::PredictionType},
};

/// The most training timesteps that a config may ask for. Models in use have 1000 or a few thousand; only a damaged or hostile
/// file has more.
pub const MAX_TRAIN_TIMESTEPS: i64 = 100_000;

/// The training timesteps that a run visits (`timestep_spacing`); table 2 of Lin et al. 2023, arXiv 2305.08891.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestepSpacing {
    /// Even steps from the first timestep to the last.
    Linspace,
    /// Whole strides from the first timestep.
    Leading,
    /// Even strides from the last timestep.
    Trailing,
}

/// The formula of β_t (`beta_schedule`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BetaSchedule {
    /// [`Betas::Linear`].
    Linear,
    /// [`Betas::ScaledLinear`].
    ScaledLinear,
    /// [`Betas::SquaredCosCapV2`].
    SquaredCosCapV2,
    /// [`Betas::Exp`].
    Exp,
    /// [`Betas::Laplace`].
    Laplace,
    /// [`Betas::Sigmoid`].
    Sigmoid,
}

/// The first and the last β_t, of the formulas that have them (`beta_start`, `beta_end`).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BetaRange {
    /// β_0.
    pub start: f64,
    /// β_{T−1}.
    pub end: f64,
}

impl BetaRange {
    /// The range of Ho et al. 2020, arXiv 2006.11239.
    pub const OF_DDPM: Self = Self { start: 1e-4, end: 0.02 };
    /// The range of latent diffusion, Rombach et al. 2021, arXiv 2112.10752.
    pub const OF_LATENTS: Self = Self { start: 0.00085, end: 0.012 };
}

/// The share of the picture that a noise schedule leaves at the last timestep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TerminalSnr {
    /// The share that its β_t leave.
    AsTrained,
    /// No share at all.
    Zero,
    /// No share at all, but for a trace that makes σ 4096 where it would be infinite: solvers in σ-space cannot hold a signal
    /// of zero.
    AlmostZero,
}

/// A name that a key may hold, with what it means.
pub type Choice<T> = (&'static str, T);

/// The `beta_schedule` of most classes.
pub const BETA_SCHEDULES: &[Choice<BetaSchedule>] = &[
    ("linear", BetaSchedule::Linear),
    ("scaled_linear", BetaSchedule::ScaledLinear),
    ("squaredcos_cap_v2", BetaSchedule::SquaredCosCapV2),
];

/// The `prediction_type` "epsilon".
pub const EPSILON: Choice<PredictionType> = ("epsilon", PredictionType::Epsilon);
/// The `prediction_type` "v_prediction".
pub const V_PREDICTION: Choice<PredictionType> = ("v_prediction", PredictionType::VPrediction);
/// The `prediction_type` "sample".
pub const SAMPLE: Choice<PredictionType> = ("sample", PredictionType::Sample);
/// The `prediction_type` "flow_prediction".
pub const FLOW_PREDICTION: Choice<PredictionType> = ("flow_prediction", PredictionType::FlowPrediction);

/// The common keys as one class has them, for a model that was trained to undo a chain of noise.
pub struct ChainKeys {
    /// The names that `beta_schedule` may hold, in the order that an error lists it.
    pub beta_schedules: &'static [Choice<BetaSchedule>],
    /// The `beta_schedule` of a config that names none.
    pub default_beta_schedule: BetaSchedule,
    /// The `beta_start` and `beta_end` of a config that has none.
    pub default_beta_range: BetaRange,
    /// The names that `prediction_type` may hold, in the order that an error lists it. "epsilon" is the default of every class.
    pub prediction_types: &'static [Choice<PredictionType>],
    /// The `timestep_spacing` of a config that names none. If `None`, the class has neither this key nor `steps_offset`: it is
    /// always spaced as [`TimestepSpacing::Linspace`].
    pub default_timestep_spacing: Option<TimestepSpacing>,
    /// The effect of `rescale_betas_zero_snr`; [`TerminalSnr::AsTrained`] in a class that has no such key.
    pub rescales_to: TerminalSnr,
}

/// The values of the common keys of a config.
#[derive(Debug, Clone, PartialEq)]
pub struct Common {
    /// β_t, before [`terminal_snr`](Self::terminal_snr) changes them; none in rectified flow.
    pub betas: Betas,
    /// T, the number of training timesteps.
    pub num_train_timesteps: usize,
    /// The share of the picture that is left at the last timestep.
    pub terminal_snr: TerminalSnr,
    /// The network's target.
    pub prediction_type: PredictionType,
    /// The training timesteps that are visited.
    pub timestep_spacing: TimestepSpacing,
    /// The number of timesteps by which "leading" ones are moved towards the noise.
    pub steps_offset: i64,
}

impl Common {
    /// Reads the common keys of a class that has these. If `chain` is `None`, the model is one of rectified flow, of whose common
    /// keys only T matters.
    pub fn read(keys: &Keys, chain: Option<&ChainKeys>) -> Result<Self, Error> {
        use TimestepSpacing::{Leading, Linspace, Trailing};

        let num_train_timesteps = keys.integer("num_train_timesteps", 1000, 1..=MAX_TRAIN_TIMESTEPS)?;
        let train = usize::try_from(num_train_timesteps).unwrap_or_default();
        let Some(chain) = chain else {
            return Ok(Self {
                betas: Betas::Trained(Vec::new()),
                num_train_timesteps: train,
                terminal_snr: TerminalSnr::AsTrained,
                prediction_type: PredictionType::FlowPrediction,
                timestep_spacing: Linspace,
                steps_offset: 0,
            });
        };
        let spacings = [("linspace", Linspace), ("leading", Leading), ("trailing", Trailing)];
        let (timestep_spacing, steps_offset) = match chain.default_timestep_spacing {
            None => (Linspace, 0),
            Some(default) => (
                keys.choice("timestep_spacing", default, &spacings)?,
                keys.integer("steps_offset", 0, 0..=MAX_TRAIN_TIMESTEPS)?,
            ),
        };
        let terminal_snr = match chain.rescales_to {
            TerminalSnr::AsTrained => TerminalSnr::AsTrained,
            rescaled if keys.bool("rescale_betas_zero_snr", false)? => rescaled,
            TerminalSnr::Zero | TerminalSnr::AlmostZero => TerminalSnr::AsTrained,
        };
        let common = Self {
            betas: read_betas(keys, chain)?,
            num_train_timesteps: train,
            terminal_snr,
            prediction_type: keys.choice("prediction_type", PredictionType::Epsilon, chain.prediction_types)?,
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

    /// β_t and ᾱ_t for all training timesteps.
    pub fn noise_schedule(&self) -> NoiseSchedule {
        let schedule = NoiseSchedule::of_betas(self.betas.values(self.num_train_timesteps));
        if self.terminal_snr == TerminalSnr::AsTrained {
            return schedule;
        }
        let mut schedule = schedule.with_zero_terminal_snr();
        if self.terminal_snr == TerminalSnr::AlmostZero {
            schedule.keep_a_last_trace_of_signal();
        }
        schedule
    }

    /// σ of rectified flow at a timestep of training as a run holds it, in f32: t/T.
    pub fn flow_sigma(&self, timestep: usize) -> f64 {
        f64::from(timestep as f32 / self.num_train_timesteps as f32)
    }
}

fn read_betas(keys: &Keys, chain: &ChainKeys) -> Result<Betas, Error> {
    let in_unit_interval = |key, value: f64| match (0.0..=1.0).contains(&value) {
        true => Ok(value),
        false => Err(keys.unsupported(key, value, "numbers from 0 to 1")),
    };
    if let Some(betas) = keys.optional_numbers("trained_betas")? {
        return betas
            .into_iter()
            .map(|beta| in_unit_interval("trained_betas", beta))
            .collect::<Result<_, _>>()
            .map(Betas::Trained);
    }
    let default = chain.default_beta_range;
    let start = in_unit_interval("beta_start", keys.f64("beta_start", default.start)?)?;
    let end = in_unit_interval("beta_end", keys.f64("beta_end", default.end)?)?;
    Ok(match keys.choice("beta_schedule", chain.default_beta_schedule, chain.beta_schedules)? {
        BetaSchedule::Linear => Betas::Linear { start, end },
        BetaSchedule::ScaledLinear => Betas::ScaledLinear { start, end },
        BetaSchedule::SquaredCosCapV2 => Betas::SquaredCosCapV2,
        BetaSchedule::Exp => Betas::Exp,
        BetaSchedule::Laplace => Betas::Laplace,
        BetaSchedule::Sigmoid => Betas::Sigmoid { start, end },
    })
}
