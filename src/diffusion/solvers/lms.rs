//! `LMSDiscreteScheduler`.
//!
//! A linear multistep method of Adams and Bashforth for uneven steps: dx/dσ = (x − x̂_0)/σ = d, integrated along the
//! polynomial through the last k derivatives (Crowson's k-diffusion):
//!
//! ```text
//! x_next = x + Σ_j c_j·d_{i−j},      c_j = ∫ from σ_i to σ_{i+1} of Π_{l≠j} (τ − σ_{i−l})/(σ_{i−j} − σ_{i−l}) dτ
//! ```

use std::sync::Arc;

use crate::diffusion::{
    error::Error,
    keys::Keys,
    method::{
        common::{
            BETA_SCHEDULES, BetaRange, BetaSchedule, ChainKeys, EPSILON, SAMPLE, TerminalSnr, TimestepSpacing,
            V_PREDICTION,
        },
        run::Run,
        scale::Scale,
        sigma_space::{init_noise_sigma, input_scale, predict_x0, reading, visited},
        spacing::{SigmaSpacing, Visited},
        spec::{Method, MostSteps, Setting, Spec},
    },
    schedule::{grid::round_to_f32, noising::Noising},
    table::{step::Step, terms::Terms, whole::Table},
};

struct Config {
    sigma_spacing: Option<SigmaSpacing>,
}

impl Config {
    fn read(keys: &Keys) -> Result<Self, Error> {
        Ok(Self { sigma_spacing: SigmaSpacing::read(keys)? })
    }
}

impl Method for Config {
    fn scale(&self) -> Scale {
        Scale::Sigma
    }

    fn table(&self, run: &Run) -> Result<Table, Error> {
        let Visited { timesteps, mut sigmas } = visited(run, self.sigma_spacing)?;
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
                x0: reading(x0),
                prev_sample: derivatives
                    .enumerate()
                    .fold(Terms::SAMPLE, |x, (j, d)| x + d * coefficient(&levels[..=i + 1], order, j)),
                history: Terms::pushed(derivative, run.options.lms_order - 1),
                ..Step::at(timestep, Noising::of_sigma(sigma))
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

/// The solver of diffusers' `LMSDiscreteScheduler`.
pub const SPEC: Spec = Spec {
    name: "lms",
    class: "LMSDiscreteScheduler",
    other_names: &[],
    calls_per_step: 1,
    most_steps: MostSteps::Guard,
    chain: Some(ChainKeys {
        beta_schedules: BETA_SCHEDULES,
        default_beta_schedule: BetaSchedule::Linear,
        default_beta_range: BetaRange::OF_DDPM,
        prediction_types: &[EPSILON, V_PREDICTION, SAMPLE],
        default_timestep_spacing: Some(TimestepSpacing::Linspace),
        rescales_to: TerminalSnr::AsTrained,
    }),
    cuts_offset: false,
    reads_learned_variance: false,
    options: &[],
    is_given_final_sigma: false,
    settings: &[Setting::SigmaSpacing],
    read: |keys, _| Ok(Arc::new(Config::read(keys)?)),
};
