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
    Error, Forward, Step, Table, Terms,
    sigma_space::{init_noise_sigma, input_scale, predict_x0, round_to_f32, timesteps_and_sigmas},
    table::Run,
};

pub(super) fn table(run: &Run) -> Result<Table, Error> {
    let (timesteps, mut sigmas) = timesteps_and_sigmas(run, None)?;
    sigmas.push(0.0);
    let (mut timesteps, mut sigmas) = (round_to_f32(timesteps), round_to_f32(sigmas));
    let init_noise_sigma = init_noise_sigma(run, &sigmas);
    let begin = run.begin_with_sigmas(&mut timesteps, &mut sigmas, false);

    let levels = sigmas.clone();
    run.table(begin, timesteps, sigmas, init_noise_sigma, |i, timestep| {
        let (sigma, sigma_next) = (levels[i], levels[i + 1]);
        let variance_up = sigma_next * sigma_next * (sigma * sigma - sigma_next * sigma_next) / (sigma * sigma);
        let sigma_down = (sigma_next * sigma_next - variance_up).sqrt();
        let x = Terms::SAMPLE;
        let x0 = predict_x0(run.common.prediction_type, x, sigma, sigma);
        Ok(Step {
            input_scale: input_scale(sigma),
            x0: (x0.sample, x0.model_output),
            prev_sample: x + (x - x0) * ((sigma_down - sigma) / sigma) + Terms::NOISE * variance_up.sqrt(),
            draws_noise: true,
            ..Step::at(timestep, Forward::of_sigma(sigma))
        })
    })
}
