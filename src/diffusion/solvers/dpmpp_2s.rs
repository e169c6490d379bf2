//! `DPMSolverSinglestepScheduler`: DPM-Solver++(2S) and its relatives.
//!
//! The step is in `method/dpm_solver.rs`. Two or three calls of the network make a block; each call takes the whole way from where the
//! block began, with one prediction more. m_2, m_1 and m_0 are the predictions of a block, the oldest at its beginning s:
//!
//! ```text
//! D_0 = m_1,   D_1 = (m_0 − m_1)/r_0,   r_0 = (λ_s0 − λ_s)/h                    (order 2)
//! D_0 = m_2,   D_10 = (m_1 − m_2)/r_1,   D_11 = (m_0 − m_2)/r_0,   r_1 = (λ_s1 − λ_s)/h   (order 3)
//! D_1 = (r_0·D_10 − r_1·D_11)/(r_0 − r_1),   D_2 = 2·(D_11 − D_10)/(r_0 − r_1)   ("midpoint": D_1 = D_11, D_2 = 0)
//! ```

use std::sync::Arc;

use crate::diffusion::{
    error::Error,
    keys::Keys,
    method::{
        common::{
            BETA_SCHEDULES, BetaRange, BetaSchedule, ChainKeys, Common, EPSILON, FLOW_PREDICTION, SAMPLE, TerminalSnr,
            V_PREDICTION,
        },
        dpm_solver::Config,
        lambda_space::{Level, Progression},
        options::StepOption,
        run::Run,
        scale::Scale,
        spacing::{Visited, multistep_timesteps},
        spec::{Method, MostSteps, OtherName, Setting, Spec},
    },
    schedule::grid::round_to_f32,
    table::{
        step::Step,
        terms::{HISTORY, Terms},
        whole::Table,
    },
};

/// The history's slot that holds the sample at the block's beginning.
const BEGAN: usize = HISTORY - 1;

/// The settings of `DPMSolverSinglestepScheduler`.
struct Singlestep(Config);

fn read(keys: &Keys, common: &Common) -> Result<Singlestep, Error> {
    keys.integer("solver_order", 2, 1..=3)?;
    let mut config = Config::read(keys, common)?;
    config.lower_order_final = keys.bool("lower_order_final", false)?;
    Ok(Singlestep(config))
}

impl Method for Singlestep {
    fn scale(&self) -> Scale {
        Scale::of_lambda(self.0.grid.is_flow)
    }

    fn table(&self, run: &Run) -> Result<Table, Error> {
        let config = &self.0;
        let n = run.num_inference_steps;
        let timesteps = match run.custom_timesteps()? {
            Some(custom) => {
                run.refuse(StepOption::Timesteps, config.grid.progression != Progression::OfTimesteps)?;
                custom
            }
            None => multistep_timesteps(run.common, n, config.timesteps_above_limit(run)?),
        };
        let Visited { mut timesteps, mut sigmas } = config.grid.visited(run, timesteps)?;
        sigmas.push(config.final_sigma(run));
        let mut sigmas = round_to_f32(sigmas);
        let begin = run.begin_with_sigmas(&mut timesteps, &mut sigmas, config.grid.is_flow);
        let levels = config.grid.levels(&sigmas);
        let orders = orders(config, n);
        run.table(begin, timesteps, sigmas, 1.0, |i, timestep| {
            let known = i - begin.index + 1;
            // A step more at the beginning comes before the first block.
            let order = i.checked_sub(begin.added).and_then(|i| orders.get(i)).copied().unwrap_or(1).min(known);
            let now = levels[i];
            let m = config.prediction(run, now);
            let mut step = Step {
                x0: now.x0(run.common.prediction_type),
                clip: config.threshold,
                prev_sample: update(config, m, levels[i + 1], &levels[..=i], order),
                history: Terms::pushed(m, config.solver_order - 1),
                draws_noise: config.algorithm.is_stochastic(),
                ..Step::at(timestep, now.forward())
            };
            if order == 1 {
                step.history[BEGAN] = Terms::SAMPLE;
            }
            Ok(step)
        })
    }
}

/// The order of every call: whole blocks, and at the end what keeps the last step stable. A final σ of zero needs that, and
/// so does a number of steps that blocks do not divide.
fn orders(config: &Config, n: usize) -> Vec<usize> {
    let order = config.solver_order;
    let block = 1..=order;
    if !(config.lower_order_final || !n.is_multiple_of(order) || config.final_sigma_is_zero) {
        return block.cycle().take(n).collect();
    }
    let last: &[usize] = match (order, n % order) {
        (3, 0) => &[1, 2, 1],
        (2, 0) => &[1, 1],
        // Only a final σ above zero can be reached with the second order.
        (3, 2) if config.final_sigma_is_zero => &[1, 1],
        (3, 2) => &[1, 2],
        (3, 1) | (2, 1) => &[1],
        _ => &[],
    };
    block.cycle().take(n - last.len().min(n)).chain(last.iter().copied()).collect()
}

/// x at `to`, from the levels of all calls so far and the predictions made there: `m0` at the last of them, the history
/// before it.
fn update(config: &Config, m0: Terms, to: Level, levels: &[Level], order: usize) -> Terms {
    let back = |k: usize| levels.len().checked_sub(k + 1).and_then(|i| levels.get(i)).copied().unwrap_or(to);
    let [m1, m2, ..] = Terms::HISTORY;
    let (x, from) = (if order == 1 { Terms::SAMPLE } else { Terms::HISTORY[BEGAN] }, back(order - 1));
    let integral = config.algorithm.integrate(x, from, to);
    let h = to.lambda - from.lambda;
    let r0 = (back(0).lambda - from.lambda) / h;
    match order {
        1 => integral.first_order(m0),
        2 => integral.second_order(m1, (m0 - m1) * (1.0 / r0), config.heun),
        _ => {
            let r1 = (back(1).lambda - from.lambda) / h;
            let (d1_0, d1_1) = ((m1 - m2) * (1.0 / r1), (m0 - m2) * (1.0 / r0));
            if !config.heun {
                return integral.second_order(m2, d1_1, true);
            }
            let d1 = (d1_0 * r0 - d1_1 * r1) * (1.0 / (r0 - r1));
            let d2 = (d1_1 - d1_0) * (2.0 / (r0 - r1));
            integral.third_order(m2, d1, d2)
        }
    }
}

/// The solver of diffusers' `DPMSolverSinglestepScheduler`.
pub const SPEC: Spec = Spec {
    name: "dpmpp_2s",
    class: "DPMSolverSinglestepScheduler",
    other_names: &[
        OtherName { name: "dpmpp2ssde", algorithm_type: Some("sde-dpmsolver++"), solver_order: None },
        OtherName { name: "dpmpp3s", algorithm_type: None, solver_order: Some(3) },
    ],
    calls_per_step: 1,
    most_steps: MostSteps::Guard,
    chain: Some(ChainKeys {
        beta_schedules: BETA_SCHEDULES,
        default_beta_schedule: BetaSchedule::Linear,
        default_beta_range: BetaRange::OF_DDPM,
        prediction_types: &[EPSILON, V_PREDICTION, SAMPLE, FLOW_PREDICTION],
        default_timestep_spacing: None,
        rescales_to: TerminalSnr::AsTrained,
    }),
    cuts_offset: false,
    reads_learned_variance: false,
    options: &[StepOption::Timesteps, StepOption::Mu],
    is_given_final_sigma: false,
    settings: &[Setting::SigmaSpacing, Setting::AlgorithmType, Setting::SolverOrder],
    read: |keys, common| Ok(Arc::new(read(keys, common)?)),
};
