//! `undiffuse schedule`: the reverse process as a table.

use std::path::PathBuf;

use undiffuse::diffusion::{Solver, StepOptions};

use super::Error;
use super::output::{result, results};
use super::scheduler::{self, Scheduler};

/// Prints a solver's table: every step from noise to picture, before any network is run
///
/// Each line is one call of the network: the timestep it is told; the levels of signal and noise in x_t; the scale of
/// its input; x̂_0, its idea of the final picture, from x_t and its output; and x_{t-1}, the next sample, as the sum
/// of x_t, the output `out`, x̂_0 `x0`, fresh noise `z`, and the solver's memory of earlier steps `h0` and on. Some
/// solvers call the network twice for a step.
#[derive(clap::Args)]
pub struct Args {
    /// A scheduler_config.json, a folder with one, or the folder of a checkpoint, whose scheduler is then shown as
    /// `undiffuse sample` uses it
    config: PathBuf,

    /// Number of steps, diffusers' `num_inference_steps`
    #[arg(long, value_name = "NUMBER", default_value_t = 25, value_parser = scheduler::steps)]
    steps: usize,

    /// Another solver with the same noise schedule, as diffusers' `from_config` makes it
    #[arg(long, value_name = "NAME", value_parser = scheduler::solver_parser())]
    solver: Option<Solver>,

    /// DDIM's η, or TCD's γ, from 0 to 1: how much noise is added again. Other solvers pay no heed to it
    #[arg(long, value_name = "NUMBER", default_value_t = 0.0)]
    eta: f64,

    /// Timesteps in place of a number of steps, descending: 999,749,499,249
    #[arg(long, value_name = "LIST", value_delimiter = ',', conflicts_with = "steps")]
    timesteps: Option<Vec<f64>>,

    /// σ in place of a number of steps, descending: 14.6,3.1,0.7,0 (for euler with the final one, for unipc and
    /// flow_euler without)
    #[arg(long, value_name = "LIST", value_delimiter = ',', conflicts_with_all = ["steps", "timesteps"])]
    sigmas: Option<Vec<f64>>,

    /// How far a scheduler with `use_dynamic_shifting` shifts towards the noisy end
    #[arg(long, value_name = "NUMBER")]
    mu: Option<f64>,

    /// The number of steps that an LCM or TCD model was distilled on, in place of its scheduler's
    #[arg(long, value_name = "NUMBER")]
    original_inference_steps: Option<usize>,

    /// Print one line of JSON: `steps` with all coefficients, `order` (calls of the network for a step),
    /// `init_noise_sigma`, `timesteps`, `sigmas`
    #[arg(long)]
    json: bool,
}

/// Prints the table.
pub async fn run(args: Args) -> Result<(), Error> {
    let scheduler = Scheduler::read(&args.config)?.with_solver(args.solver)?;
    let options = StepOptions {
        eta: args.eta,
        timesteps: args.timesteps,
        sigmas: args.sigmas,
        mu: args.mu,
        original_inference_steps: args.original_inference_steps,
        ..StepOptions::default()
    };
    let table = scheduler.config.table(args.steps, &options).map_err(|e| scheduler.error(e))?;
    if args.json {
        let json = serde_json::to_string(&table).map_err(|e| Error::path(&args.config, e))?;
        return result(format_args!("{json}"));
    }
    let (class, calls) = (scheduler.config.class_name(), table.steps.len());
    result(format_args!("{class}, {calls} {} of the network", if calls == 1 { "call" } else { "calls" }))?;
    results(&table.to_string())
}
