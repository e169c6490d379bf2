//! `DPMSolverMultistepScheduler`: DPM-Solver++(2M) and its relatives.
//!
//! Lu et al. 2022, arXiv 2211.01095 (DPM-Solver++) and arXiv 2206.00927 (DPM-Solver). In λ = log(α/σ), where
//! x_t = α_t·x_0 + σ_t·ε (so α_t here is √ᾱ_t), the reverse process is a linear equation with the network's prediction
//! as its driving term, solved exactly but for a Taylor polynomial of that term through the last few predictions m:
//!
//! ```text
//! h = λ_t − λ_s0,   r_0 = (λ_s0 − λ_s1)/h,   r_1 = (λ_s1 − λ_s2)/h
//! D_0 = m_0,   D_1 = (m_0 − m_1)/r_0                                        (orders 1 and 2)
//! x_t = σ_t/σ_s·x_s − α_t·(e^(−h) − 1)·D_0 − ½·α_t·(e^(−h) − 1)·D_1         (DPM-Solver++(2M), "midpoint")
//! ```
//!
//! Here s0 is where the step starts, t where it arrives. The table of the other algorithms and orders is in `update`.

use super::{
    Clip, Error, HISTORY, Step, Table, Terms,
    config::{Common, PredictionType},
    ddpm::read_threshold,
    euler::{read_final_sigma_is_zero, read_sigma_spacing},
    keys::Keys,
    schedule::Betas,
    spacing::{self, SigmaSpacing},
    table::Run,
};

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Config {
    solver_order: usize,
    algorithm: Algorithm,
    /// `solver_type: "heun"` in place of "midpoint".
    heun: bool,
    sigmas: Sigmas,
    threshold: Clip,
    lower_order_final: bool,
    euler_at_final: bool,
    final_sigma_is_zero: bool,
    lambda_min_clipped: f64,
    flow_shift: f64,
}

/// `algorithm_type`: what m is, and whether the equation is stochastic.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Algorithm {
    /// m = x̂_0, "dpmsolver++".
    Data,
    /// m = x̂_0, "sde-dpmsolver++".
    StochasticData,
    /// m = ε̂, "dpmsolver".
    Noise,
    /// m = ε̂, "sde-dpmsolver".
    StochasticNoise,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Sigmas {
    OfTimesteps,
    Spaced(SigmaSpacing),
    /// `use_lu_lambdas`: even in λ.
    Lu,
    /// `use_flow_sigmas`: rectified flow, where α = 1 − σ.
    Flow,
}

impl Config {
    pub(super) fn read(keys: &Keys, common: &Common) -> Result<Self, Error> {
        let algorithms = &[
            ("dpmsolver++", Algorithm::Data),
            ("sde-dpmsolver++", Algorithm::StochasticData),
            ("dpmsolver", Algorithm::Noise),
            ("sde-dpmsolver", Algorithm::StochasticNoise),
            // What the class makes of the name when a DEIS config is swapped to it.
            ("deis", Algorithm::Data),
        ];
        // Likewise the last three, which other multistep classes write.
        let solver_types = &[("midpoint", false), ("heun", true), ("logrho", false), ("bh1", false), ("bh2", false)];
        let algorithm = keys.choice("algorithm_type", Algorithm::Data, algorithms)?;
        let solver_order = keys.integer("solver_order", 2, 1..=3)? as usize;
        if solver_order == 3 && algorithm == Algorithm::StochasticNoise {
            return Err(keys.unsupported("solver_order", 3, "1 and 2 with algorithm_type sde-dpmsolver"));
        }
        let final_sigma_is_zero = read_final_sigma_is_zero(keys)?;
        if final_sigma_is_zero && !algorithm.predicts_data() {
            let supported = "\"sigma_min\" with algorithm_type dpmsolver and sde-dpmsolver";
            return Err(keys.unsupported("final_sigmas_type", "\"zero\"", supported));
        }
        // A network with learned variances has twice the channels.
        keys.choice("variance_type", (), &[("null", ()), ("fixed_small", ()), ("fixed_large", ())])?;
        if keys.bool("use_dynamic_shifting", false)? {
            return Err(keys.unsupported("use_dynamic_shifting", true, "false"));
        }

        let mut sigmas = read_sigma_spacing(keys)?.map_or(Sigmas::OfTimesteps, Sigmas::Spaced);
        for (key, choice) in [("use_lu_lambdas", Sigmas::Lu), ("use_flow_sigmas", Sigmas::Flow)] {
            if keys.bool(key, false)? && std::mem::replace(&mut sigmas, choice) != Sigmas::OfTimesteps {
                return Err(keys.unsupported(key, true, "only one use_*_sigmas or use_lu_lambdas at a time"));
            }
        }
        if (common.prediction_type == PredictionType::FlowPrediction) != (sigmas == Sigmas::Flow) {
            let supported = "\"flow_prediction\" with use_flow_sigmas, and not without";
            return Err(keys.unsupported("prediction_type", format!("{:?}", common.prediction_type), supported));
        }
        let flow_shift = keys.f64("flow_shift", 1.0)?;
        if !(flow_shift > 0.0 && flow_shift.is_finite()) {
            return Err(keys.unsupported("flow_shift", flow_shift, "finite numbers above 0"));
        }
        let lambda_min_clipped = keys.f64("lambda_min_clipped", f64::NEG_INFINITY)?;
        if lambda_min_clipped.is_nan() {
            return Err(keys.unsupported("lambda_min_clipped", lambda_min_clipped, "numbers and -Infinity"));
        }
        Ok(Self {
            solver_order,
            algorithm,
            heun: keys.choice("solver_type", false, solver_types)?,
            sigmas,
            threshold: read_threshold(keys)?,
            lower_order_final: keys.bool("lower_order_final", true)?,
            euler_at_final: keys.bool("euler_at_final", false)?,
            final_sigma_is_zero,
            lambda_min_clipped,
            flow_shift,
        })
    }

    pub(super) fn table(&self, run: &Run) -> Result<Table, Error> {
        run.refuse("sigmas", run.options.sigmas.is_some())?;
        let (timesteps, sigmas) = self.timesteps_and_sigmas(run)?;
        let sigmas: Vec<f64> = sigmas.into_iter().map(|sigma| f64::from(sigma as f32)).collect();
        let levels: Vec<Level> = sigmas.iter().map(|&sigma| self.level(sigma)).collect();
        let n = timesteps.len();
        run.table(timesteps, sigmas, 1.0, |i, timestep| {
            let few = self.lower_order_final && n < 15;
            // The history fills from where the run begins, and few steps end on a lower order for stability.
            let known = i - run.options.begin_index + 1;
            let order = match n - i {
                1 if self.euler_at_final || few || self.final_sigma_is_zero => 1,
                2 if few => 2,
                _ => HISTORY,
            }
            .min(known)
            .min(self.solver_order);

            let now = levels[i];
            let (x0, m) = self.predictions(run.common.prediction_type, now);
            // Slot 0 holds the prediction of the step before this one, slot 1 that of the step before that.
            let mut history = Terms::HISTORY;
            if self.solver_order > 1 {
                history[0] = m;
            }
            if self.solver_order > 2 {
                history[1] = Terms::HISTORY[0];
            }
            Ok(Step {
                timestep,
                input_scale: 1.0,
                x0,
                clip: self.threshold,
                prev_sample: self.update(m, levels[i + 1], &levels[..=i], order),
                history,
                draws_noise: self.algorithm.is_stochastic(),
                forward: (now.alpha, now.sigma),
            })
        })
    }

    /// The timesteps, and σ/α for each of them with the final one (σ itself for rectified flow).
    fn timesteps_and_sigmas(&self, run: &Run) -> Result<(Vec<f64>, Vec<f64>), Error> {
        let n = run.num_inference_steps;
        let train = run.noise_schedule.sigmas();
        let (Some(&smallest), Some(&largest)) = (train.first(), train.last()) else {
            return Ok((Vec::new(), Vec::new()));
        };
        let (smallest, largest) = (f64::from(smallest), f64::from(largest));
        let visited = match &run.options.timesteps {
            Some(custom) => {
                run.refuse("timesteps", self.sigmas != Sigmas::OfTimesteps)?;
                spacing::check_custom_timesteps(custom, run.common)?;
                custom.clone()
            }
            None => {
                // Timesteps whose λ is below the limit are left out at the noisy end.
                let below = |&&sigma: &&f32| f64::from(-libm::logf(sigma)) < self.lambda_min_clipped;
                let clipped = train.iter().filter(below).count();
                let last = run.common.num_train_timesteps - clipped;
                if last == 0 {
                    return Err(Error::UnsupportedValue {
                        class: run.class.to_owned(),
                        key: "lambda_min_clipped",
                        value: self.lambda_min_clipped.to_string(),
                        supported: format!("less than {}, the largest λ", -libm::log(smallest)),
                    });
                }
                spacing::multistep_timesteps(run.common, n, last)
            }
        };
        // The network is told whole timesteps. diffusers rounds them or cuts them off, depending on where σ comes from,
        // and in a cosine schedule it always cuts.
        let whole_timesteps = |sigmas: &[f64], rounded: bool| -> Vec<f64> {
            let rounded = rounded && run.common.betas != Betas::SquaredCosCapV2;
            let timesteps = spacing::timesteps_of_sigmas(sigmas, &train);
            timesteps.into_iter().map(|t| if rounded { t.round_ties_even() } else { t.trunc() }).collect()
        };
        let (timesteps, mut sigmas) = match self.sigmas {
            Sigmas::OfTimesteps => {
                let sigmas = visited.iter().map(|&t| spacing::interpolate(t, &train)).collect();
                (visited, sigmas)
            }
            Sigmas::Spaced(spacing) => {
                let sigmas = spacing.sigmas(largest, smallest, n);
                (whole_timesteps(&sigmas, spacing == SigmaSpacing::Karras), sigmas)
            }
            Sigmas::Lu => {
                // Even in λ = −log σ, whose ends are f32 in diffusers.
                let log = |sigma: f64| f64::from(libm::logf(sigma as f32));
                let (from, to) = (log(largest), log(smallest));
                let ramp = spacing::linspace(0.0, 1.0, n).into_iter();
                let sigmas: Vec<f64> = ramp.map(|ramp| libm::exp(from + ramp * (to - from))).collect();
                (whole_timesteps(&sigmas, true), sigmas)
            }
            Sigmas::Flow => {
                let train = run.common.num_train_timesteps as f64;
                let shift = |sigma: f64| self.flow_shift * sigma / (1.0 + (self.flow_shift - 1.0) * sigma);
                let alphas = spacing::linspace(1.0, 1.0 / train, n + 1);
                let sigmas: Vec<f64> = alphas.into_iter().skip(1).rev().map(|alpha| shift(1.0 - alpha)).collect();
                (sigmas.iter().map(|sigma| (sigma * train).trunc()).collect(), sigmas)
            }
        };
        sigmas.push(if self.final_sigma_is_zero { 0.0 } else { smallest });
        Ok((timesteps, sigmas))
    }

    fn level(&self, sigma: f64) -> Level {
        let (alpha, sigma) = match self.sigmas {
            Sigmas::Flow => (1.0 - sigma, sigma),
            _ => {
                let alpha = 1.0 / (sigma * sigma + 1.0).sqrt();
                (alpha, sigma * alpha)
            }
        };
        Level { alpha, sigma, lambda: libm::log(alpha) - libm::log(sigma) }
    }

    /// x̂_0 as coefficients of the sample and the network's output, and the prediction m that the algorithm integrates.
    fn predictions(&self, prediction_type: PredictionType, Level { alpha, sigma, .. }: Level) -> ((f64, f64), Terms) {
        let x0 = prediction_type.x0(alpha, sigma);
        let epsilon = match prediction_type {
            PredictionType::Epsilon if self.threshold == Clip::None => Terms::MODEL_OUTPUT,
            PredictionType::VPrediction if self.threshold == Clip::None => {
                Terms::MODEL_OUTPUT * alpha + Terms::SAMPLE * sigma
            }
            _ => (Terms::SAMPLE - Terms::X0 * alpha) * (1.0 / sigma),
        };
        (x0, if self.algorithm.predicts_data() { Terms::X0 } else { epsilon })
    }

    /// x at `to`, from the levels of all steps so far and the predictions made there: `m` at the last of them, the
    /// history before it. Appendix B of both papers.
    fn update(&self, m: Terms, to: Level, levels: &[Level], order: usize) -> Terms {
        let back = |k: usize| levels.len().checked_sub(k + 1).and_then(|i| levels.get(i)).copied().unwrap_or(to);
        let from = back(0);
        let h = to.lambda - from.lambda;
        let x = Terms::SAMPLE;
        let [m1, m2, ..] = Terms::HISTORY;

        // u is what the exponentials of the solution are in, `scale` what multiplies them.
        let (x, scale, u, noise) = match self.algorithm {
            Algorithm::Data => (x * (to.sigma / from.sigma), -to.alpha, -h, 0.0),
            Algorithm::StochasticData => {
                let noise = to.sigma * (-libm::expm1(-2.0 * h)).sqrt();
                (x * (to.sigma / from.sigma * libm::exp(-h)), -to.alpha, -2.0 * h, noise)
            }
            Algorithm::Noise => (x * (to.alpha / from.alpha), -to.sigma, h, 0.0),
            Algorithm::StochasticNoise => {
                let noise = to.sigma * libm::expm1(2.0 * h).sqrt();
                (x * (to.alpha / from.alpha), -2.0 * to.sigma, h, noise)
            }
        };
        let first = x + m * (scale * phi_1(u)) + Terms::NOISE * noise;
        if order == 1 {
            return first;
        }
        let r0 = (from.lambda - back(1).lambda) / h;
        let d1_0 = (m - m1) * (1.0 / r0);
        if order == 2 {
            let weight = if self.heun { phi_2(u) } else { 0.5 * phi_1(u) };
            return first + d1_0 * (scale * weight);
        }
        let r1 = (back(1).lambda - back(2).lambda) / h;
        let d1_1 = (m1 - m2) * (1.0 / r1);
        let d1 = d1_0 + (d1_0 - d1_1) * (r0 / (r0 + r1));
        let d2 = (d1_0 - d1_1) * (1.0 / (r0 + r1));
        let weight = match self.algorithm {
            // diffusers has the other sign on this ½, and so has every picture made with it.
            Algorithm::StochasticData => phi_3(u) + 1.0,
            _ => phi_3(u),
        };
        first + d1 * (scale * phi_2(u)) + d2 * (scale * weight)
    }
}

impl Algorithm {
    fn predicts_data(self) -> bool {
        matches!(self, Self::Data | Self::StochasticData)
    }

    fn is_stochastic(self) -> bool {
        matches!(self, Self::StochasticData | Self::StochasticNoise)
    }
}

/// A point of the schedule: x = alpha·x_0 + sigma·ε, lambda = log(alpha/sigma).
#[derive(Debug, Clone, Copy)]
struct Level {
    alpha: f64,
    sigma: f64,
    lambda: f64,
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
