//! `UniPCMultistepScheduler`.
//!
//! Zhao et al. 2023, arXiv 2302.04867, algorithms 7 and 8. A multistep predictor of order p, whose last prediction then
//! serves to correct the sample that it was made from, without another call of the network. From level s to level t,
//! u = ∓(λ_t − λ_s) for m = x̂_0 or ε̂, with m_k the prediction r_k·h before s:
//!
//! ```text
//! x_t = σ_t/σ_s·x_s − α_t·[(e^u − 1)·m_0 + B·Σ_k ρ_k·(m_k − m_0)/r_k]              (and σ for α with m = ε̂)
//! Σ_k r_k^(i−1)·ρ_k = i!·φ_{i+1}(u)/B,   i = 1 … ;   B = u ("bh1") or e^u − 1 ("bh2")
//! ```
//!
//! The corrector has one term more in its sum, for the prediction at t itself (r = 1).

use std::sync::Arc;

use crate::diffusion::{
    error::Error,
    keys::Keys,
    method::{
        clipping::read_threshold,
        common::{
            BETA_SCHEDULES, BetaRange, BetaSchedule, ChainKeys, Common, EPSILON, FLOW_PREDICTION, SAMPLE, TerminalSnr,
            TimestepSpacing, V_PREDICTION,
        },
        lambda_space::{Grid, Level, Progression},
        options::StepOption,
        run::Run,
        scale::Scale,
        spacing::{Visited, flow_shift, multistep_timesteps, stretch_to_terminal},
        spec::{Method, MostSteps, Setting, Spec},
    },
    schedule::{
        grid::{linspace, round_to_f32},
        prediction::PredictionType,
    },
    table::{
        clip::Clip,
        step::Step,
        terms::{HISTORY, Terms},
        whole::Table,
    },
};

/// The history's slot that holds the sample that the last step began from, corrected; before it, the predictions.
const BEGAN: usize = HISTORY - 1;

struct Config {
    solver_order: usize,
    /// True for `solver_type` "bh1".
    bh1: bool,
    /// True if m = x̂_0, not ε̂.
    predict_x0: bool,
    grid: Grid,
    threshold: Clip,
    lower_order_final: bool,
    disable_corrector: Vec<usize>,
    final_sigma_is_zero: bool,
    shift_terminal: Option<f64>,
}

impl Config {
    fn read(keys: &Keys, common: &Common) -> Result<Self, Error> {
        let most = BEGAN as i64;
        let solver_order = keys.integer("solver_order", 2, 1..=most)?;
        let predict_x0 = keys.bool("predict_x0", true)?;
        if common.prediction_type == PredictionType::FlowPrediction && !predict_x0 {
            let supported = "epsilon, sample and v_prediction where predict_x0 is false";
            return Err(keys.unsupported("prediction_type", "\"flow_prediction\"", supported));
        }
        keys.null("solver_p")?;
        // The last three are what other multistep classes write.
        let solver_types = &[("bh2", false), ("bh1", true), ("midpoint", false), ("heun", false), ("logrho", false)];
        let steps = keys.optional_numbers("disable_corrector")?.unwrap_or_default();
        Ok(Self {
            solver_order: usize::try_from(solver_order).unwrap_or(BEGAN),
            bh1: keys.choice("solver_type", false, solver_types)?,
            predict_x0,
            grid: Grid::read(keys)?,
            // Of ε̂ nothing is clipped.
            threshold: if predict_x0 { read_threshold(keys)? } else { Clip::None },
            lower_order_final: keys.bool("lower_order_final", true)?,
            disable_corrector: steps.into_iter().map(|step| step as usize).collect(),
            final_sigma_is_zero: keys.final_sigma_is_zero()?,
            shift_terminal: keys.positive("shift_terminal")?,
        })
    }

    /// The timesteps, and σ for each of them without the final one.
    fn visited(&self, run: &Run) -> Result<Visited, Error> {
        let n = run.num_inference_steps;
        let train = run.common.num_train_timesteps;
        let factor = self.grid.flow_shift.factor(run.options.mu)?;
        let timesteps_of = |sigmas: &[f64]| sigmas.iter().map(|sigma| (sigma * train as f64).trunc()).collect();
        let custom = &run.options.sigmas;
        run.refuse(StepOption::Sigmas, custom.is_some() && self.grid.progression != Progression::Flow)?;
        if self.grid.progression == Progression::Flow {
            let mut sigmas = match custom {
                Some(custom) => custom.clone(),
                None => linspace(1.0, 1.0 / train as f64, n + 1)[..n].to_vec(),
            };
            sigmas.iter_mut().for_each(|sigma| *sigma = flow_shift(*sigma, factor));
            stretch_to_terminal(&mut sigmas, self.shift_terminal);
            // A first σ of 1 would leave no signal, and λ = −∞.
            if let Some(first) = sigmas.first_mut().filter(|first| (**first - 1.0).abs() < 1e-6) {
                *first -= 1e-6;
            }
            return Ok(Visited { timesteps: timesteps_of(&sigmas), sigmas });
        }
        let timesteps = multistep_timesteps(run.common, n, train);
        let Visited { timesteps, mut sigmas } = self.grid.visited(run, timesteps)?;
        match self.grid.progression {
            Progression::Spaced(spacing) if spacing.is_karras() && self.grid.is_flow => {
                sigmas.iter_mut().for_each(|sigma| *sigma /= *sigma + 1.0);
                Ok(Visited { timesteps: timesteps_of(&sigmas), sigmas })
            }
            _ => Ok(Visited { timesteps, sigmas }),
        }
    }

    /// x at the last of `levels`, from `x` at the last but one and the predictions made there and before it, the newest
    /// first. With the prediction at the last level itself, the corrector; without, the predictor.
    fn update(&self, x: Terms, predictions: &[Terms], levels: &[Level], at_last: Option<Terms>) -> Terms {
        let [visited @ .., to] = levels else { return x };
        let back = |k: usize| visited.len().checked_sub(k + 1).and_then(|i| visited.get(i)).copied().unwrap_or(*to);
        let from = back(0);
        let h = to.lambda - from.lambda;
        let Some((&m0, earlier)) = predictions.split_first() else { return x };
        let (u, x, scale) = match self.predict_x0 {
            true => (-h, x * (to.sigma / from.sigma), to.alpha),
            false => (h, x * (to.alpha / from.alpha), to.sigma),
        };
        let phi_1 = libm::expm1(u);
        let b = if self.bh1 { u } else { phi_1 };
        let mut ratios: Vec<f64> = (1..=earlier.len()).map(|k| (back(k).lambda - from.lambda) / h).collect();
        let mut differences: Vec<Terms> = earlier.iter().zip(&ratios).map(|(&m, r)| (m - m0) * (1.0 / r)).collect();
        if let Some(m) = at_last {
            ratios.push(1.0);
            differences.push(m - m0);
        }
        let weights = match (ratios.len(), at_last) {
            // diffusers takes ½ for the solution where there is one unknown.
            (1, _) => vec![0.5],
            _ => weights(&ratios, u, phi_1, b),
        };
        let sum = differences.into_iter().zip(weights).fold(Terms::default(), |sum, (d, rho)| sum + d * rho);
        x - m0 * (scale * phi_1) - sum * (scale * b)
    }
}

impl Method for Config {
    fn scale(&self) -> Scale {
        Scale::of_lambda(self.grid.is_flow)
    }

    fn table(&self, run: &Run) -> Result<Table, Error> {
        let Visited { mut timesteps, mut sigmas } = self.visited(run)?;
        sigmas.push(if self.final_sigma_is_zero { 0.0 } else { self.grid.final_sigma(run, &sigmas) });
        let mut sigmas = round_to_f32(sigmas);
        let begin = run.begin_with_sigmas(&mut timesteps, &mut sigmas, self.grid.is_flow);
        let levels = self.grid.levels(&sigmas);
        let n = timesteps.len();
        let mut previous_order = 0;
        run.table(begin, timesteps, sigmas, 1.0, |i, timestep| {
            let now = levels[i];
            let m = match self.predict_x0 {
                true => Terms::X0,
                false => now.epsilon(run.common.prediction_type, self.threshold),
            };
            let known = i - begin.index + 1;
            let corrects = |before: usize| !self.disable_corrector.iter().any(|&step| step + begin.added == before);
            let x = match known > 1 && corrects(i - 1) {
                true => self.update(Terms::HISTORY[BEGAN], &Terms::HISTORY[..previous_order], &levels[..=i], Some(m)),
                false => Terms::SAMPLE,
            };
            let highest = if self.lower_order_final { self.solver_order.min(n - i) } else { self.solver_order };
            let order = highest.min(known);
            previous_order = order;
            let predictions: Vec<Terms> = [m].into_iter().chain(Terms::HISTORY).take(order).collect();
            let mut history = Terms::pushed(m, self.solver_order);
            history[BEGAN] = x;
            Ok(Step {
                x0: now.x0(run.common.prediction_type),
                clip: self.threshold,
                prev_sample: self.update(x, &predictions, &levels[..=i + 1], None),
                history,
                ..Step::at(timestep, now.forward())
            })
        })
    }
}

/// ρ, by elimination.
fn weights(ratios: &[f64], u: f64, phi_1: f64, b: f64) -> Vec<f64> {
    let mut phi = phi_1 / u - 1.0;
    let mut factorial = 1.0;
    // A row of the equations for each i: the powers of the ratios, and the right side.
    let mut rows: Vec<Vec<f64>> = Vec::with_capacity(ratios.len());
    for i in 0..ratios.len() {
        let powers = ratios.iter().map(|r| (0..i).fold(1.0, |power, _| power * r));
        rows.push(powers.chain([phi * factorial / b]).collect());
        factorial *= i as f64 + 2.0;
        phi = phi / u - 1.0 / factorial;
    }
    let n = rows.len();
    for column in 0..n {
        let pivot = (column..n).max_by(|&i, &j| rows[i][column].abs().total_cmp(&rows[j][column].abs()));
        rows.swap(column, pivot.unwrap_or(column));
        let pivot = rows[column].clone();
        for (_, row) in rows.iter_mut().enumerate().filter(|&(i, _)| i != column) {
            let factor = row[column] / pivot[column];
            row.iter_mut().zip(&pivot).for_each(|(value, pivot)| *value -= factor * pivot);
        }
    }
    (0..n).map(|i| rows[i][n] / rows[i][i]).collect()
}

/// The solver of diffusers' `UniPCMultistepScheduler`.
pub const SPEC: Spec = Spec {
    name: "unipc",
    class: "UniPCMultistepScheduler",
    other_names: &[],
    calls_per_step: 1,
    most_steps: MostSteps::Guard,
    chain: Some(ChainKeys {
        beta_schedules: BETA_SCHEDULES,
        default_beta_schedule: BetaSchedule::Linear,
        default_beta_range: BetaRange::OF_DDPM,
        prediction_types: &[EPSILON, V_PREDICTION, SAMPLE, FLOW_PREDICTION],
        default_timestep_spacing: Some(TimestepSpacing::Linspace),
        rescales_to: TerminalSnr::AlmostZero,
    }),
    cuts_offset: false,
    reads_learned_variance: false,
    options: &[StepOption::Sigmas, StepOption::Mu],
    is_given_final_sigma: false,
    settings: &[Setting::SigmaSpacing, Setting::SolverOrder],
    read: |keys, common| Ok(Arc::new(Config::read(keys, common)?)),
};
