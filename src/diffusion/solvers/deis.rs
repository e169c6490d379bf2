//! `DEISMultistepScheduler`.
//!
//! Zhang and Chen 2022, arXiv 2204.13902, the variant "log ρ": with ρ = σ/α the reverse process is d(x/α)/dρ = ε̂, integrated
//! along the polynomial in log ρ through the last k predictions m_j, made at ρ_j (equation 15):
//!
//! ```text
//! x_t = α_t·(x_s/α_s + Σ_j c_j·m_j),      c_j = ∫ from ρ_s to ρ_t of Π_{l≠j} log(ρ/ρ_l)/log(ρ_j/ρ_l) dρ
//! ```

use std::sync::Arc;

use crate::diffusion::{
    error::Error,
    keys::Keys,
    method::{
        clipping::read_threshold,
        common::{
            BETA_SCHEDULES, BetaRange, BetaSchedule, ChainKeys, EPSILON, FLOW_PREDICTION, SAMPLE, TerminalSnr,
            TimestepSpacing, V_PREDICTION,
        },
        lambda_space::{Grid, Level, read_solver_order},
        options::StepOption,
        run::Run,
        scale::Scale,
        spacing::{Visited, multistep_timesteps},
        spec::{Method, MostSteps, Setting, Spec},
    },
    schedule::grid::round_to_f32,
    table::{clip::Clip, step::Step, terms::Terms, whole::Table},
};

struct Config {
    solver_order: usize,
    grid: Grid,
    threshold: Clip,
    lower_order_final: bool,
}

impl Config {
    fn read(keys: &Keys) -> Result<Self, Error> {
        // All but the first of each are what other multistep classes write.
        let algorithms = ["deis", "dpmsolver", "dpmsolver++"];
        keys.choice("algorithm_type", (), &algorithms.map(|name| (name, ())))?;
        let solver_types = ["logrho", "midpoint", "heun", "bh1", "bh2"];
        keys.choice("solver_type", (), &solver_types.map(|name| (name, ())))?;
        Ok(Self {
            solver_order: read_solver_order(keys, 3)?,
            grid: Grid::read(keys)?,
            threshold: read_threshold(keys)?,
            lower_order_final: keys.bool("lower_order_final", true)?,
        })
    }
}

impl Method for Config {
    fn scale(&self) -> Scale {
        Scale::of_lambda(self.grid.is_flow)
    }

    fn table(&self, run: &Run) -> Result<Table, Error> {
        let train = run.common.num_train_timesteps;
        let timesteps = multistep_timesteps(run.common, run.num_inference_steps, train);
        let Visited { mut timesteps, mut sigmas } = self.grid.visited(run, timesteps)?;
        let few = self.lower_order_final && timesteps.len() < 15;
        sigmas.push(self.grid.final_sigma(run, &sigmas));
        let mut sigmas = round_to_f32(sigmas);
        let begin = run.begin_with_sigmas(&mut timesteps, &mut sigmas, self.grid.is_flow);
        let levels = self.grid.levels(&sigmas);
        let n = timesteps.len();
        run.table(begin, timesteps, sigmas, 1.0, |i, timestep| {
            let now = levels[i];
            let m = now.epsilon(run.common.prediction_type, self.threshold);
            let known = i - begin.index + 1;
            let order = match n - i {
                left @ (1 | 2) if few => left,
                _ => self.solver_order,
            };
            Ok(Step {
                x0: now.x0(run.common.prediction_type),
                clip: self.threshold,
                prev_sample: update(m, &levels[..=i + 1], order.min(known).min(self.solver_order)),
                history: Terms::pushed(m, self.solver_order - 1),
                ..Step::at(timestep, now.forward())
            })
        })
    }
}

/// x at the last of `levels`, from the predictions at those before it: `m` at the last but one, the history before that.
fn update(m: Terms, levels: &[Level], order: usize) -> Terms {
    let [visited @ .., to] = levels else { return Terms::SAMPLE };
    let rho = |level: &Level| level.sigma / level.alpha;
    let from = visited.last().unwrap_or(to);
    let logs: Vec<f64> = visited.iter().rev().take(order).map(|level| libm::log(rho(level))).collect();
    let predictions = [m].into_iter().chain(Terms::HISTORY).take(order);
    let sum = predictions.enumerate().fold(Terms::SAMPLE * (1.0 / from.alpha), |sum, (j, m)| {
        let others: Vec<f64> = (0..logs.len()).filter(|&l| l != j).map(|l| logs[l]).collect();
        let denominator: f64 = others.iter().map(|other| logs[j] - other).product();
        sum + m * ((antiderivative(rho(to), &others) - antiderivative(rho(from), &others)) / denominator)
    });
    sum * to.alpha
}

/// ∫ Π (log ρ − l) dρ over up to two l: every power of the logarithm integrates to ρ times a polynomial of it.
fn antiderivative(rho: f64, others: &[f64]) -> f64 {
    let log = libm::log(rho);
    rho * match *others {
        [] => 1.0,
        [a] => log - 1.0 - a,
        [a, b, ..] => log * log - 2.0 * log + 2.0 - (a + b) * (log - 1.0) + a * b,
    }
}

/// The solver of diffusers' `DEISMultistepScheduler`.
pub const SPEC: Spec = Spec {
    name: "deis",
    class: "DEISMultistepScheduler",
    other_names: &[],
    calls_per_step: 1,
    most_steps: MostSteps::Guard,
    chain: Some(ChainKeys {
        beta_schedules: BETA_SCHEDULES,
        default_beta_schedule: BetaSchedule::Linear,
        default_beta_range: BetaRange::OF_DDPM,
        prediction_types: &[EPSILON, V_PREDICTION, SAMPLE, FLOW_PREDICTION],
        default_timestep_spacing: Some(TimestepSpacing::Linspace),
        rescales_to: TerminalSnr::AsTrained,
    }),
    cuts_offset: false,
    reads_learned_variance: false,
    options: &[StepOption::Mu],
    is_given_final_sigma: false,
    settings: &[Setting::SigmaSpacing, Setting::SolverOrder],
    read: |keys, _| Ok(Arc::new(Config::read(keys)?)),
};
