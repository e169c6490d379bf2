//! β_t by the formulas that configs name.
//!
//! diffusers computes these in f32, and a model was trained on exactly those numbers: here they are the same, bit for bit.

use super::grid::linspace_f32;

/// The definition of β_t (`beta_schedule`, or `trained_betas` in its place).
#[derive(Debug, Clone, PartialEq)]
pub enum Betas {
    Linear { start: f64, end: f64 },
    ScaledLinear { start: f64, end: f64 },
    SquaredCosCapV2,
    Exp,
    Laplace,
    Sigmoid { start: f64, end: f64 },
    Trained(Vec<f64>),
}

impl Betas {
    /// β_t for t = 0 … T−1, in f32.
    pub fn values(&self, num_train_timesteps: usize) -> Vec<f32> {
        match self {
            Self::Linear { start, end } => linspace_f32(*start as f32, *end as f32, num_train_timesteps),
            Self::ScaledLinear { start, end } => {
                let root = linspace_f32(libm::sqrt(*start) as f32, libm::sqrt(*end) as f32, num_train_timesteps);
                root.into_iter().map(|root| root * root).collect()
            }
            // Nichol and Dhariwal 2021, arXiv 2102.09672, equation 17.
            Self::SquaredCosCapV2 => betas_of_alpha_bar(num_train_timesteps, |t| {
                let cos = libm::cos((t + 0.008) / 1.008 * std::f64::consts::PI / 2.0);
                cos * cos
            }),
            Self::Exp => betas_of_alpha_bar(num_train_timesteps, |t| libm::exp(-12.0 * t)),
            // log(ᾱ/(1−ᾱ)) follows the Laplace distribution: Hang et al. 2024, arXiv 2407.03297.
            Self::Laplace => betas_of_alpha_bar(num_train_timesteps, |t| {
                let log_snr = -0.5 * (0.5 - t).signum() * libm::log(1.0 - 2.0 * (0.5 - t).abs() + 1e-6);
                let snr = libm::exp(log_snr);
                (snr / (1.0 + snr)).sqrt()
            }),
            Self::Sigmoid { start, end } => linspace_f32(-6.0, 6.0, num_train_timesteps)
                .into_iter()
                .map(|x| 1.0 / (1.0 + libm::expf(-x)) * (end - start) as f32 + *start as f32)
                .collect(),
            Self::Trained(betas) => betas.iter().map(|&beta| beta as f32).collect(),
        }
    }
}

/// β_t from ᾱ as a function of t/T: 1 − ᾱ_{t+1}/ᾱ_t, at most 0.999.
fn betas_of_alpha_bar(num_train_timesteps: usize, alpha_bar: impl Fn(f64) -> f64) -> Vec<f32> {
    let at = |i: usize| alpha_bar(i as f64 / num_train_timesteps as f64);
    (0..num_train_timesteps).map(|i| (1.0 - at(i + 1) / at(i)).min(0.999) as f32).collect()
}
