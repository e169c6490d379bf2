//! Reads a scheduler's config and prints the run that it makes, as timesteps and ᾱ_t:
//! `cargo run --release --example schedule -- www/models/emoji64/scheduler/scheduler_config.json 10`.

use undiffuse::diffusion::{Error, SchedulerConfig, StepOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [config, steps] = &arguments[..] else {
        return Err("give a scheduler_config.json and a number of steps".into());
    };
    for (timestep, alpha_bar) in run_of(&std::fs::read_to_string(config)?, steps.parse()?)? {
        println!("{timestep:>5} {alpha_bar:.6}");
    }
    Ok(())
}

/// The timesteps that a run of so many `steps` visits, each with its ᾱ_t.
pub fn run_of(config: &str, steps: usize) -> Result<Vec<(f64, f64)>, Error> {
    let config = SchedulerConfig::from_json(config)?;
    let alphas_cumprod = config.noise_schedule()?.alphas_cumprod;
    let table = config.table(steps, &StepOptions::default())?;
    Ok(table.steps.iter().map(|step| (step.timestep, f64::from(alphas_cumprod[step.timestep as usize]))).collect())
}
