//! `LMSDiscreteScheduler`.
//!
//! A linear multistep method of Adams and Bashforth for uneven steps: dx/dσ = (x − x̂_0)/σ = d, integrated along the
//! polynomial through the last k derivatives (Crowson's k-diffusion):
//!
//! ```text
//! x_next = x + Σ_j c_j·d_{i−j},      c_j = ∫ from σ_i to σ_{i+1} of Π_{l≠j} (τ − σ_{i−l})/(σ_{i−j} − σ_{i−l}) dτ
//! ```

use super::{
    Error, Forward, Step, Table, Terms,
    keys::Keys,
    sigma_space::{init_noise_sigma, input_scale, predict_x0, round_to_f32, timesteps_and_sigmas},
    spacing::SigmaSpacing,
    table::Run,
};

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Config {
    sigma_spacing: Option<SigmaSpacing>,
}

impl Config {
    pub(super) fn read(keys: &Keys) -> Result<Self, Error> {
        Ok(Self { sigma_spacing: SigmaSpacing::read(keys)? })
    }

    pub(super) fn table(&self, run: &Run) -> Result<Table, Error> {
        let (timesteps, mut sigmas) = timesteps_and_sigmas(run, self.sigma_spacing)?;
        sigmas.push(0.0);
        let (mut timesteps, mut sigmas) = (round_to_f32(timesteps), round_to_f32(sigmas));
        let init_noise_sigma = init_noise_sigma(run, &sigmas);
        let begin = run.begin_with_sigmas(&mut timesteps, &mut sigmas, false);

        let levels = sigmas.clone();
        run.table(begin, timesteps, sigmas, init_noise_sigma, |i, timestep| {
            let sigma = levels[i];
            let x0 = predict_x0(run.common.prediction_type, Terms::SAMPLE, sigma, sigma);
            let derivative = (Terms::SAMPLE - x0) * (1.0 / sigma);
            // A run that begins late fits the whole polynomial all the same, with zeros for what it has not seen; as in diffusers,
            // where it is known what that would have been.
            let known = if begin.is_between { i - begin.index + 1 } else { i + 1 };
            let order = run.options.lms_order.min(known);
            let derivatives = [derivative].into_iter().chain(Terms::HISTORY).take(order);
            Ok(Step {
                input_scale: input_scale(sigma),
                x0: (x0.sample, x0.model_output),
                prev_sample: derivatives
                    .enumerate()
                    .fold(Terms::SAMPLE, |x, (j, d)| x + d * coefficient(&levels[..=i + 1], order, j)),
                history: Terms::pushed(derivative, run.options.lms_order - 1),
                ..Step::at(timestep, Forward::of_sigma(sigma))
            })
        })
    }
}

/// c_j of `order` for the step between the last two of `levels`. The integrand's degree is below six, and so three
/// points of Gauss and Legendre integrate it exactly.
fn coefficient(levels: &[f64], order: usize, j: usize) -> f64 {
    let [visited @ .., to] = levels else { return 0.0 };
    let back = |k: usize| visited[visited.len() - 1 - k];
    let from = back(0);
    let polynomial =
        |tau: f64| -> f64 { (0..order).filter(|&l| l != j).map(|l| (tau - back(l)) / (back(j) - back(l))).product() };
    let (middle, half) = (0.5 * (from + to), 0.5 * (to - from));
    let offset = half * 0.6f64.sqrt();
    half / 9.0 * (5.0 * polynomial(middle - offset) + 8.0 * polynomial(middle) + 5.0 * polynomial(middle + offset))
}
