//! `undiffuse schedule`: the reverse process as a table.

use std::path::PathBuf;

use undiffuse::diffusion::{Solver, StepOptions};

use super::Error;
use super::output::result;
use super::scheduler::{self, Scheduler};

/// Prints a solver's table: every step from noise to picture, before any network is run
///
/// Each line is one call of the network: the timestep it is told; the levels of signal and noise in x_t; the scale of
/// its input; x̂_0, its idea of the final picture, from x_t and its output; and x_{t-1}, the next sample, as the sum
/// of x_t, the output `out`, x̂_0 `x0`, fresh noise `z`, and the solver's memory of earlier steps `h0` and on.
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

    /// DDIM's η, from 0 to 1. Other solvers pay no heed to it
    #[arg(long, value_name = "NUMBER", default_value_t = 0.0, allow_negative_numbers = true)]
    eta: f64,

    /// Print one line of JSON: `steps` with all coefficients, `init_noise_sigma`, `timesteps`, `sigmas`
    #[arg(long)]
    json: bool,
}

/// Prints the table.
pub async fn run(args: Args) -> Result<(), Error> {
    let scheduler = Scheduler::read(&args.config)?.with_solver(args.solver)?;
    let options = StepOptions { eta: args.eta, ..StepOptions::default() };
    let table = scheduler.config.table(args.steps, &options).map_err(|e| scheduler.error(e))?;
    if args.json {
        let json = serde_json::to_string(&table).map_err(|e| Error::path(&args.config, e))?;
        return result(format_args!("{json}"));
    }
    result(format_args!("{}, {} steps", scheduler.config.class_name(), table.steps.len()))?;
    result(format_args!("{}", table.to_string().trim_end()))
}
