//! `EulerAncestralDiscreteScheduler`.
//!
//! An Euler step down to σ_down, further than σ_next, and fresh noise back up to it, so that as much noise is replaced
//! as in DDPM's posterior (Karras et al. 2022, arXiv 2206.00364, in the form of Crowson's k-diffusion):
//!
//! ```text
//! σ_up² = σ_next²·(σ² − σ_next²)/σ²,      σ_down² = σ_next² − σ_up²
//! x_next = x + (σ_down − σ)·(x − x̂_0)/σ + σ_up·z
//! ```

use super::{
    Clip, Error, Step, Table, Terms,
    euler::{init_noise_sigma, predict_x0},
    spacing,
    table::Run,
};

pub(super) fn table(run: &Run) -> Result<Table, Error> {
    run.refuse("timesteps", run.options.timesteps.is_some())?;
    run.refuse("sigmas", run.options.sigmas.is_some())?;
    // Timesteps and σ are f32 in diffusers.
    let to_f32 = |value: f64| f64::from(value as f32);
    let timesteps: Vec<f64> =
        spacing::timesteps(run.common, run.num_inference_steps, false).into_iter().map(to_f32).collect();
    let train_sigmas = run.noise_schedule.sigmas();
    let visited = timesteps.iter().map(|&t| to_f32(spacing::interpolate(t, &train_sigmas)));
    let sigmas: Vec<f64> = visited.chain([0.0]).collect();

    let levels = sigmas.clone();
    run.table(timesteps, sigmas, init_noise_sigma(run, &levels), |i, timestep| {
        let (sigma, sigma_next) = (levels[i], levels[i + 1]);
        let variance_up = sigma_next * sigma_next * (sigma * sigma - sigma_next * sigma_next) / (sigma * sigma);
        let sigma_down = (sigma_next * sigma_next - variance_up).sqrt();
        let x = Terms::SAMPLE;
        let x0 = predict_x0(run.common.prediction_type, x, sigma, sigma);
        Ok(Step {
            timestep,
            input_scale: 1.0 / (sigma * sigma + 1.0).sqrt(),
            x0: (x0.sample, x0.model_output),
            clip: Clip::None,
            prev_sample: x + (x - x0) * ((sigma_down - sigma) / sigma) + Terms::NOISE * variance_up.sqrt(),
            history: Terms::HISTORY,
            draws_noise: true,
            forward: (1.0, sigma),
        })
    })
}
