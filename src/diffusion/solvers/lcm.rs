//! `LCMScheduler`.
//!
//! Luo et al. 2023, arXiv 2310.04378, algorithm 3. The model jumps to x_0 in one call; then noise is added again, up to the
//! next timestep s (equation 9 for the boundary condition; σ_data = ½):
//!
//! ```text
//! x̂ = c_skip·x_t + c_out·x̂_0,      c_skip = σ_data²/((k·t)² + σ_data²),   c_out = k·t/√((k·t)² + σ_data²)
//! x_s = √ᾱ_s·x̂ + √(1−ᾱ_s)·z
//! ```

use std::sync::Arc;

use crate::diffusion::{
    error::Error,
    keys::Keys,
    method::{
        clipping::read_clip,
        common::{
            BETA_SCHEDULES, BetaRange, BetaSchedule, ChainKeys, EPSILON, SAMPLE, TerminalSnr, TimestepSpacing,
            V_PREDICTION,
        },
        consistency,
        options::StepOption,
        run::Run,
        scale::Scale,
        spec::{Method, MostSteps, Spec},
    },
    table::{clip::Clip, step::Step, terms::Terms, whole::Table},
};

struct Config {
    original_inference_steps: Option<usize>,
    /// k.
    timestep_scaling: f64,
    clip: Clip,
}

impl Config {
    fn read(keys: &Keys) -> Result<Self, Error> {
        let original_inference_steps = consistency::read_original_inference_steps(keys)?;
        if original_inference_steps.is_none() {
            return Err(keys.unsupported("original_inference_steps", "null", "a number of steps, such as 50"));
        }
        Ok(Self {
            original_inference_steps,
            timestep_scaling: keys.f64("timestep_scaling", 10.0)?,
            clip: read_clip(keys, false)?,
        })
    }
}

impl Method for Config {
    fn scale(&self) -> Scale {
        Scale::VariancePreserving
    }

    fn table(&self, run: &Run) -> Result<Table, Error> {
        let original = self.distilled_steps(run.options.original_inference_steps);
        let mut timesteps = consistency::timesteps(run, original)?;
        let begin = run.begin(&mut timesteps);
        let following = timesteps.clone();
        run.table(begin, timesteps, Vec::new(), 1.0, |i, t| {
            let forward = run.forward(t)?;
            let (scaled, variance) = (t * self.timestep_scaling, 0.25);
            let total = scaled * scaled + variance;
            let denoised = Terms::SAMPLE * (variance / total) + Terms::X0 * (scaled / total.sqrt());
            let step = Step { x0: run.x0(forward, self.clip), clip: self.clip, ..Step::at(t, forward) };
            // The last step of a run leaves no noise. Where a strength cuts custom timesteps, diffusers adds some to its x_t all the
            // same, and decodes x̂ of this step.
            let Some(&next) = following.get(i + 1) else { return Ok(Step { prev_sample: denoised, ..step }) };
            let next = run.forward(next)?;
            Ok(Step { prev_sample: denoised * next.signal + Terms::NOISE * next.noise, draws_noise: true, ..step })
        })
    }

    fn distilled_steps(&self, given: Option<usize>) -> Option<usize> {
        given.or(self.original_inference_steps)
    }
}

/// The solver of diffusers' `LCMScheduler`.
pub const SPEC: Spec = Spec {
    name: "lcm",
    class: "LCMScheduler",
    other_names: &[],
    calls_per_step: 1,
    most_steps: MostSteps::TrainTimesteps,
    chain: Some(ChainKeys {
        beta_schedules: BETA_SCHEDULES,
        default_beta_schedule: BetaSchedule::ScaledLinear,
        default_beta_range: BetaRange::OF_LATENTS,
        prediction_types: &[EPSILON, V_PREDICTION, SAMPLE],
        default_timestep_spacing: Some(TimestepSpacing::Leading),
        rescales_to: TerminalSnr::Zero,
    }),
    cuts_offset: false,
    reads_learned_variance: false,
    options: &[StepOption::Timesteps, StepOption::OriginalInferenceSteps, StepOption::Strength],
    is_given_final_sigma: false,
    settings: &[],
    read: |keys, _| Ok(Arc::new(Config::read(keys)?)),
};
