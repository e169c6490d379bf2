//! `LCMScheduler`.
//!
//! Luo et al. 2023, arXiv 2310.04378, algorithm 3. The model jumps to x_0 in one call; then noise is added again, up to the
//! next timestep s (equation 9 for the boundary condition; σ_data = ½):
//!
//! ```text
//! x̂ = c_skip·x_t + c_out·x̂_0,      c_skip = σ_data²/((k·t)² + σ_data²),   c_out = k·t/√((k·t)² + σ_data²)
//! x_s = √ᾱ_s·x̂ + √(1−ᾱ_s)·z
//! ```

use super::{Clip, Error, Forward, Step, Table, Terms, consistency, ddpm::read_clip, keys::Keys, table::Run};

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Config {
    pub(super) original_inference_steps: Option<usize>,
    /// k.
    timestep_scaling: f64,
    clip: Clip,
}

impl Config {
    pub(super) fn read(keys: &Keys) -> Result<Self, Error> {
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

    pub(super) fn table(&self, run: &Run) -> Result<Table, Error> {
        let mut timesteps = consistency::timesteps(run, self.original_inference_steps)?;
        let begin = run.begin(&mut timesteps);
        let last = run.num_inference_steps + begin.added;
        let following = timesteps.clone();
        run.table(begin, timesteps, Vec::new(), 1.0, |i, t| {
            let forward = run.forward(t)?;
            let Forward { signal, noise } = forward;
            let (scaled, variance) = (t * self.timestep_scaling, 0.25);
            let total = scaled * scaled + variance;
            let denoised = Terms::SAMPLE * (variance / total) + Terms::X0 * (scaled / total.sqrt());
            let step =
                Step { x0: run.common.prediction_type.x0(signal, noise), clip: self.clip, ..Step::at(t, forward) };
            // diffusers counts the steps that were asked for, of which a strength below 1 may have cut some.
            if i + 1 == last {
                return Ok(Step { prev_sample: denoised, ..step });
            }
            let next = run.forward(following.get(i + 1).copied().unwrap_or(t))?;
            Ok(Step { prev_sample: denoised * next.signal + Terms::NOISE * next.noise, draws_noise: true, ..step })
        })
    }
}
