//! `DPMSolverMultistepScheduler`: DPM-Solver++(2M) and its relatives.
//!
//! The step is in `method/dpm_solver.rs`. Slope and curvature come from the predictions of the steps before (DPM-Solver++, algorithm 2,
//! and appendix B of both papers); s0 is where the step starts, s1 and s2 where those before it did:
//!
//! ```text
//! r_0 = (λ_s0 − λ_s1)/h,   r_1 = (λ_s1 − λ_s2)/h
//! D_1 = (m_0 − m_1)/r_0                                                        (order 2)
//! D_1 = D_10 + r_0/(r_0+r_1)·(D_10 − D_11),   D_2 = (D_10 − D_11)/(r_0+r_1)     (order 3)
//!     with D_10 = (m_0 − m_1)/r_0,   D_11 = (m_1 − m_2)/r_1
//! ```

use std::sync::Arc;

use crate::diffusion::{
    error::Error,
    keys::Keys,
    method::{
        common::{
            BETA_SCHEDULES, BetaRange, BetaSchedule, ChainKeys, Common, EPSILON, FLOW_PREDICTION, SAMPLE, TerminalSnr,
            TimestepSpacing, V_PREDICTION,
        },
        dpm_solver::Config,
        lambda_space::{Level, Progression},
        options::StepOption,
        run::Run,
        scale::Scale,
        spacing::{Visited, multistep_timesteps},
        spec::{Method, MostSteps, OtherName, Setting, Spec},
    },
    schedule::{betas::Betas, grid::round_to_f32},
    table::{step::Step, terms::Terms, whole::Table},
};

/// The settings of `DPMSolverMultistepScheduler`.
struct Multistep(Config);

fn read(keys: &Keys, common: &Common) -> Result<Multistep, Error> {
    let mut config = Config::read(keys, common)?;
    config.lower_order_final = keys.bool("lower_order_final", true)?;
    config.euler_at_final = keys.bool("euler_at_final", false)?;
    // In a cosine schedule this class never rounds.
    config.grid.cuts_timesteps = common.betas == Betas::SquaredCosCapV2;
    if keys.bool("use_lu_lambdas", false)? {
        match config.grid.progression {
            Progression::Spaced(_) => {
                return Err(keys.unsupported(
                    "use_lu_lambdas",
                    true,
                    "only one use_*_sigmas or use_lu_lambdas at a time",
                ));
            }
            _ => config.grid.progression = Progression::Lu,
        }
    }
    Ok(Multistep(config))
}

impl Method for Multistep {
    fn scale(&self) -> Scale {
        Scale::of_lambda(self.0.grid.is_flow)
    }

    fn table(&self, run: &Run) -> Result<Table, Error> {
        let config = &self.0;
        let timesteps = match run.custom_timesteps()? {
            Some(custom) => {
                run.refuse(StepOption::Timesteps, config.grid.progression != Progression::OfTimesteps)?;
                custom
            }
            None => {
                let last = config.timesteps_above_limit(run)?;
                multistep_timesteps(run.common, run.num_inference_steps, last)
            }
        };
        let Visited { mut timesteps, mut sigmas } = config.grid.visited(run, timesteps)?;
        let few = config.lower_order_final && timesteps.len() < 15;
        sigmas.push(config.final_sigma(run));
        let mut sigmas = round_to_f32(sigmas);
        let begin = run.begin_with_sigmas(&mut timesteps, &mut sigmas, config.grid.is_flow);
        let levels = config.grid.levels(&sigmas);
        let n = timesteps.len();
        run.table(begin, timesteps, sigmas, 1.0, |i, timestep| {
            // The history fills from where the run begins, and few steps end on a lower order for stability.
            let known = i - begin.index + 1;
            let order = match n - i {
                1 if config.euler_at_final || few || config.final_sigma_is_zero => 1,
                2 if few => 2,
                _ => config.solver_order,
            };
            let now = levels[i];
            let m = config.prediction(run, now);
            Ok(Step {
                x0: now.x0(run.common.prediction_type),
                clip: config.threshold,
                prev_sample: update(config, m, levels[i + 1], &levels[..=i], order.min(known).min(config.solver_order)),
                history: Terms::pushed(m, config.solver_order - 1),
                draws_noise: config.algorithm.is_stochastic(),
                ..Step::at(timestep, now.forward())
            })
        })
    }
}

/// x at `to`, from the levels of all steps so far and the predictions made there: `m0` at the last of them, the history
/// before it.
fn update(config: &Config, m0: Terms, to: Level, levels: &[Level], order: usize) -> Terms {
    let back = |k: usize| levels.len().checked_sub(k + 1).and_then(|i| levels.get(i)).copied().unwrap_or(to);
    let h = to.lambda - back(0).lambda;
    let [m1, m2, ..] = Terms::HISTORY;
    let integral = config.algorithm.integrate(Terms::SAMPLE, back(0), to);
    if order == 1 {
        return integral.first_order(m0);
    }
    let r0 = (back(0).lambda - back(1).lambda) / h;
    let d1_0 = (m0 - m1) * (1.0 / r0);
    if order == 2 {
        return integral.second_order(m0, d1_0, config.heun);
    }
    let r1 = (back(1).lambda - back(2).lambda) / h;
    let d1_1 = (m1 - m2) * (1.0 / r1);
    let d1 = d1_0 + (d1_0 - d1_1) * (r0 / (r0 + r1));
    let d2 = (d1_0 - d1_1) * (1.0 / (r0 + r1));
    integral.third_order(m0, d1, d2)
}

/// The solver of diffusers' `DPMSolverMultistepScheduler`.
pub const SPEC: Spec = Spec {
    name: "dpmpp_2m",
    class: "DPMSolverMultistepScheduler",
    other_names: &[
        OtherName { name: "dpmpp2msde", algorithm_type: Some("sde-dpmsolver++"), solver_order: None },
        OtherName { name: "dpmpp3m", algorithm_type: None, solver_order: Some(3) },
        OtherName { name: "dpmpp3msde", algorithm_type: Some("sde-dpmsolver++"), solver_order: Some(3) },
    ],
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
    options: &[StepOption::Timesteps, StepOption::Mu],
    is_given_final_sigma: false,
    settings: &[Setting::SigmaSpacing, Setting::AlgorithmType, Setting::SolverOrder],
    read: |keys, common| Ok(Arc::new(read(keys, common)?)),
};
