//! The step of both DPM-Solver++ classes, `DPMSolverMultistepScheduler` and `DPMSolverSinglestepScheduler`.
//!
//! Lu et al. 2022, arXiv 2211.01095 (DPM-Solver++) and arXiv 2206.00927 (DPM-Solver). In λ the reverse process is a linear
//! equation with the network's prediction m as its driving term, solved exactly but for a Taylor polynomial of that
//! term. From level s to level t, h = λ_t − λ_s:
//!
//! ```text
//! x_t = σ_t/σ_s·x_s − α_t·[φ_1(−h)·D_0 + φ_2(−h)·D_1 + φ_3(−h)·D_2]           (m = x̂_0, "dpmsolver++")
//! x_t = α_t/α_s·x_s − σ_t·[φ_1(h)·D_0 + φ_2(h)·D_1 + φ_3(h)·D_2]              (m = ε̂, "dpmsolver")
//! ```
//!
//! D_0, D_1 and D_2 are m, its slope and its curvature, which the two classes take from different places. "midpoint" has
//! ½·φ_1 in place of φ_2.

use super::{
    clipping::read_threshold,
    common::Common,
    lambda_space::{Grid, Level, ends, read_solver_order},
    run::Run,
};
use crate::diffusion::{
    error::Error,
    keys::Keys,
    schedule::prediction::PredictionType,
    table::{clip::Clip, terms::Terms},
};

#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    pub solver_order: usize,
    pub algorithm: Algorithm,
    /// True for `solver_type: "heun"` in place of "midpoint".
    pub heun: bool,
    pub grid: Grid,
    pub threshold: Clip,
    pub lower_order_final: bool,
    /// True if the last step is of order 1; multistep only.
    pub euler_at_final: bool,
    pub final_sigma_is_zero: bool,
    lambda_min_clipped: f64,
}

/// `algorithm_type`: what m is, and whether the equation is stochastic.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Algorithm {
    /// m = x̂_0, "dpmsolver++".
    Data,
    /// m = x̂_0, "sde-dpmsolver++".
    StochasticData,
    /// m = ε̂, "dpmsolver".
    Noise,
    /// m = ε̂, "sde-dpmsolver".
    StochasticNoise,
}

impl Config {
    pub fn read(keys: &Keys, common: &Common) -> Result<Self, Error> {
        let algorithms = &[
            ("dpmsolver++", Algorithm::Data),
            ("sde-dpmsolver++", Algorithm::StochasticData),
            ("dpmsolver", Algorithm::Noise),
            ("sde-dpmsolver", Algorithm::StochasticNoise),
            // What these classes make of the name when a DEIS config is swapped to them.
            ("deis", Algorithm::Data),
        ];
        // Other multistep classes write the last three.
        let solver_types = &[("midpoint", false), ("heun", true), ("logrho", false), ("bh1", false), ("bh2", false)];
        let algorithm = keys.choice("algorithm_type", Algorithm::Data, algorithms)?;
        let solver_order = read_solver_order(keys, 3)?;
        if solver_order == 3 && algorithm == Algorithm::StochasticNoise {
            return Err(keys.unsupported("solver_order", 3, "1 and 2 with algorithm_type sde-dpmsolver"));
        }
        let final_sigma_is_zero = keys.final_sigma_is_zero()?;
        if final_sigma_is_zero && !algorithm.predicts_data() {
            let supported = "\"sigma_min\" with algorithm_type dpmsolver and sde-dpmsolver";
            return Err(keys.unsupported("final_sigmas_type", "\"zero\"", supported));
        }
        if common.prediction_type == PredictionType::FlowPrediction && !algorithm.predicts_data() {
            let supported = "epsilon, sample and v_prediction with algorithm_type dpmsolver and sde-dpmsolver";
            return Err(keys.unsupported("prediction_type", "\"flow_prediction\"", supported));
        }
        // A learned variance is passed over: the step reads the first half of the channels.
        let variance_types = ["null", "learned", "learned_range", "fixed_small", "fixed_large"];
        keys.choice("variance_type", (), &variance_types.map(|name| (name, ())))?;
        let lambda_min_clipped = keys.f64("lambda_min_clipped", f64::NEG_INFINITY)?;
        if lambda_min_clipped.is_nan() {
            return Err(keys.unsupported("lambda_min_clipped", lambda_min_clipped, "numbers and -Infinity"));
        }
        Ok(Self {
            solver_order,
            algorithm,
            heun: keys.choice("solver_type", false, solver_types)?,
            grid: Grid::read(keys)?,
            threshold: read_threshold(keys)?,
            lower_order_final: true,
            euler_at_final: false,
            final_sigma_is_zero,
            lambda_min_clipped,
        })
    }

    /// The number of training timesteps whose λ is not below the limit; those at the noisy end are cut off.
    pub fn timesteps_above_limit(&self, run: &Run) -> Result<usize, Error> {
        let train = run.noise_schedule.sigmas();
        let below = |&&sigma: &&f32| f64::from(-libm::logf(sigma)) < self.lambda_min_clipped;
        match run.common.num_train_timesteps - train.iter().filter(below).count() {
            0 => Err(Error::UnsupportedValue {
                class: run.class.to_owned(),
                key: "lambda_min_clipped",
                value: self.lambda_min_clipped.to_string(),
                supported: format!("less than {}, the largest λ", -libm::log(ends(&train).smallest)),
            }),
            left => Ok(left),
        }
    }

    /// `final_sigmas_type`.
    pub fn final_sigma(&self, run: &Run) -> f64 {
        if self.final_sigma_is_zero { 0.0 } else { ends(&run.noise_schedule.sigmas()).smallest }
    }

    /// m at a level.
    pub fn prediction(&self, run: &Run, level: Level) -> Terms {
        match self.algorithm.predicts_data() {
            true => Terms::X0,
            false => level.epsilon(run.common.prediction_type, self.threshold),
        }
    }
}

impl Algorithm {
    fn predicts_data(self) -> bool {
        matches!(self, Self::Data | Self::StochasticData)
    }

    pub fn is_stochastic(self) -> bool {
        matches!(self, Self::StochasticData | Self::StochasticNoise)
    }

    /// x at `to` from x at `from`, but for the prediction.
    pub fn integrate(self, x: Terms, from: Level, to: Level) -> Integral {
        let h = to.lambda - from.lambda;
        let (x, scale, u, noise) = match self {
            Self::Data => (x * (to.sigma / from.sigma), -to.alpha, -h, 0.0),
            Self::StochasticData => {
                let noise = to.sigma * (-libm::expm1(-2.0 * h)).sqrt();
                (x * (to.sigma / from.sigma * libm::exp(-h)), -to.alpha, -2.0 * h, noise)
            }
            Self::Noise => (x * (to.alpha / from.alpha), -to.sigma, h, 0.0),
            Self::StochasticNoise => {
                let noise = to.sigma * libm::expm1(2.0 * h).sqrt();
                (x * (to.alpha / from.alpha), -2.0 * to.sigma, h, noise)
            }
        };
        let phi_3 = match self {
            // diffusers has the other sign on the ½ of φ_3, and so has every picture made with it.
            Self::StochasticData => phi_3(u) + 1.0,
            _ => phi_3(u),
        };
        Integral { x: x + Terms::NOISE * noise, weights: [phi_1(u), phi_2(u), phi_3].map(|phi| scale * phi) }
    }
}

/// The exact part of a step, and what the prediction, its slope and its curvature weigh in it.
pub struct Integral {
    x: Terms,
    weights: [f64; 3],
}

impl Integral {
    pub fn first_order(&self, d0: Terms) -> Terms {
        self.x + d0 * self.weights[0]
    }

    pub fn second_order(&self, d0: Terms, d1: Terms, heun: bool) -> Terms {
        self.first_order(d0) + d1 * if heun { self.weights[1] } else { 0.5 * self.weights[0] }
    }

    pub fn third_order(&self, d0: Terms, d1: Terms, d2: Terms) -> Terms {
        self.second_order(d0, d1, true) + d2 * self.weights[2]
    }
}

/// ∫ e^u: the weight of a constant prediction.
fn phi_1(u: f64) -> f64 {
    libm::expm1(u)
}

/// The weight of the prediction's slope.
fn phi_2(u: f64) -> f64 {
    phi_1(u) / u - 1.0
}

/// The weight of the prediction's curvature.
fn phi_3(u: f64) -> f64 {
    (phi_1(u) - u) / (u * u) - 0.5
}
