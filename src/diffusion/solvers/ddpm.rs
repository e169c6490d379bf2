//! Ancestral sampling: `DDPMScheduler`.
//!
//! Ho, Jain and Abbeel 2020, arXiv 2006.11239. The posterior of the forward process, with x̂_0 in place of x_0
//! (equations 6 and 7; s is the timestep of the run that follows t, and α = ᾱ_t/ᾱ_s, β = 1 − α between them):
//!
//! ```text
//! x_s = √ᾱ_s·β/(1−ᾱ_t) · x̂_0  +  √α·(1−ᾱ_s)/(1−ᾱ_t) · x_t  +  σ_t·z
//! ```
//!
//! with σ_t² = β̃ = (1−ᾱ_s)/(1−ᾱ_t)·β ("fixed_small"), σ_t² = β ("fixed_large"), or a variance that the network has learned
//! (Nichol and Dhariwal 2021, arXiv 2102.09672).

use std::sync::Arc;

use crate::diffusion::{
    error::Error,
    keys::Keys,
    method::{
        clipping::read_clip,
        common::{BetaRange, BetaSchedule, ChainKeys, EPSILON, SAMPLE, TerminalSnr, TimestepSpacing, V_PREDICTION},
        options::StepOption,
        run::Run,
        scale::Scale,
        spacing::whole_timesteps,
        spec::{Method, MostSteps, Spec},
        variance_type::VarianceType,
    },
    schedule::noising::{Noising, Posterior},
    table::{
        clip::{Clip, LearnedVariance},
        step::Step,
        terms::Terms,
        whole::Table,
    },
};

struct Config {
    variance_type: VarianceType,
    clip: Clip,
}

impl Config {
    fn read(keys: &Keys) -> Result<Self, Error> {
        Ok(Self { variance_type: VarianceType::read(keys)?, clip: read_clip(keys, true)? })
    }
}

impl Method for Config {
    fn scale(&self) -> Scale {
        Scale::VariancePreserving
    }

    fn table(&self, run: &Run) -> Result<Table, Error> {
        let mut timesteps = match run.custom_timesteps()? {
            Some(custom) => custom,
            None => whole_timesteps(run.common, run.num_inference_steps, run.first_looked_at()),
        };
        let begin = run.begin(&mut timesteps);
        let following = timesteps.clone();
        run.table(begin, timesteps, Vec::new(), 1.0, |i, t| {
            let alpha_bar = run.alpha_bar(t)?;
            let alpha_bar_prev = match following.get(i + 1) {
                Some(&s) if s >= 0.0 => run.alpha_bar(s)?,
                _ => 1.0,
            };
            // In f32 as the library has it: near t = 0 what is left of 1 − α is the rounding of α.
            let alpha = f64::from(alpha_bar as f32 / alpha_bar_prev as f32);
            let beta = 1.0 - alpha;
            let posterior = Posterior::new(alpha, alpha_bar_prev, alpha_bar);
            let posterior_variance = posterior.variance.max(1e-20);
            let forward = Noising::of_alpha_bar(alpha_bar);
            let (sigma, learned_variance) = match self.variance_type {
                VarianceType::FixedSmall => (posterior_variance.sqrt(), None),
                VarianceType::FixedLarge => (beta.max(1e-20).sqrt(), None),
                // The root of a negative number, in diffusers too.
                VarianceType::FixedLargeLog => (libm::log(beta).sqrt(), None),
                VarianceType::Learned => (1.0, Some(LearnedVariance::Learned)),
                VarianceType::LearnedRange => {
                    let (min_log, max_log) = (libm::log(posterior_variance), libm::log(beta));
                    (1.0, Some(LearnedVariance::LearnedRange { min_log, max_log }))
                }
            };
            let mean = Terms::X0 * posterior.x0 + Terms::SAMPLE * posterior.sample;
            let step =
                Step { x0: run.x0(forward, self.clip), clip: self.clip, prev_sample: mean, ..Step::at(t, forward) };
            Ok(match t > 0.0 {
                true => Step { prev_sample: mean + Terms::NOISE * sigma, draws_noise: true, learned_variance, ..step },
                false => step,
            })
        })
    }
}

/// The solver of diffusers' `DDPMScheduler`.
pub const SPEC: Spec = Spec {
    name: "ddpm",
    class: "DDPMScheduler",
    other_names: &[],
    calls_per_step: 1,
    most_steps: MostSteps::TrainTimesteps,
    chain: Some(ChainKeys {
        beta_schedules: &[
            ("linear", BetaSchedule::Linear),
            ("scaled_linear", BetaSchedule::ScaledLinear),
            ("squaredcos_cap_v2", BetaSchedule::SquaredCosCapV2),
            ("laplace", BetaSchedule::Laplace),
            ("sigmoid", BetaSchedule::Sigmoid),
        ],
        default_beta_schedule: BetaSchedule::Linear,
        default_beta_range: BetaRange::OF_DDPM,
        prediction_types: &[EPSILON, V_PREDICTION, SAMPLE],
        default_timestep_spacing: Some(TimestepSpacing::Leading),
        rescales_to: TerminalSnr::Zero,
    }),
    cuts_offset: true,
    reads_learned_variance: true,
    options: &[StepOption::Timesteps],
    is_given_final_sigma: false,
    settings: &[],
    read: |keys, _| Ok(Arc::new(Config::read(keys)?)),
};
