//! `DPMSolverMultistepScheduler`: DPM-Solver++(2M) and its relatives.
//!
//! The step is in `dpmpp`. Slope and curvature come from the predictions of the steps before (DPM-Solver++, algorithm 2,
//! and appendix B of both papers); s0 is where the step starts, s1 and s2 where those before it did:
//!
//! ```text
//! r_0 = (λ_s0 − λ_s1)/h,   r_1 = (λ_s1 − λ_s2)/h
//! D_1 = (m_0 − m_1)/r_0                                                        (order 2)
//! D_1 = D_10 + r_0/(r_0+r_1)·(D_10 − D_11),   D_2 = (D_10 − D_11)/(r_0+r_1)     (order 3)
//!     with D_10 = (m_0 − m_1)/r_0,   D_11 = (m_1 − m_2)/r_1
//! ```

use super::{
    Error, Step, Table, Terms,
    config::Common,
    dpmpp::Config,
    keys::Keys,
    lambda_space::{Level, Progression},
    schedule::Betas,
    sigma_space::round_to_f32,
    spacing,
    table::Run,
};

pub(super) fn read(keys: &Keys, common: &Common) -> Result<Config, Error> {
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
    Ok(config)
}

pub(super) fn table(config: &Config, run: &Run) -> Result<Table, Error> {
    let visited = match run.custom_timesteps()? {
        Some(custom) => {
            run.refuse("timesteps", config.grid.progression != Progression::OfTimesteps)?;
            custom
        }
        None => {
            let last = config.timesteps_above_limit(run)?;
            spacing::multistep_timesteps(run.common, run.num_inference_steps, last)
        }
    };
    let (mut timesteps, mut sigmas) = config.grid.timesteps_and_sigmas(run, visited)?;
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
