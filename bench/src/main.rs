//! The native half of `cargo xtask bench`: makes what both sides of a comparison read, and times this crate's executors.
//! Each command prints one line of JSON.

mod ceilings;
mod isa;
mod kinds;
mod network;
mod onnx;
mod prepare;
mod runner;
mod weights;

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};
use serde_json::json;
use undiffuse::device::Device;
use undiffuse::gpu::variants::MatrixKernels;

use network::{Name, Network, Size};
use runner::{Runner, Target};

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write a network's checkpoint, ONNX model, inputs and expected outputs into a folder
    Prepare {
        folder: PathBuf,
        #[arg(long)]
        network: Name,
    },
    /// Time steps of a network
    Step {
        /// The folder that `prepare` wrote into
        folder: PathBuf,
        #[arg(long)]
        network: Name,
        #[command(flatten)]
        size: Size,
        #[arg(long)]
        device: Target,
        /// CPU: how many threads; by default one for each core
        #[arg(long)]
        threads: Option<usize>,
        #[arg(long, default_value_t = 10)]
        steps: usize,
    },
    /// Time each node of a network and hold the sums by kind against the device's ceilings
    Profile {
        /// The folder that `prepare` wrote into
        folder: PathBuf,
        #[arg(long)]
        network: Name,
        #[command(flatten)]
        size: Size,
        #[arg(long)]
        device: Target,
        /// Refuse an adapter that computes on the CPU
        #[arg(long)]
        hardware: bool,
        #[arg(long, default_value_t = 10)]
        steps: usize,
    },
    /// Measure what the machine's cores can do
    Ceilings {
        #[arg(long)]
        threads: usize,
    },
    /// Compile a network's kernels by Mesa's driver for AMD, for the chip that the environment variable RADV_FORCE_FAMILY names, and tell
    /// what they became
    Isa {
        #[arg(long)]
        network: Name,
        #[command(flatten)]
        size: Size,
        /// Matrix kernels to use instead of those that suit the chip, such as tiled-64x32
        #[arg(long)]
        kernels: Option<MatrixKernels>,
        /// Write the machine code of each kernel into this folder
        #[arg(long)]
        assembly: Option<PathBuf>,
    },
}

fn main() -> Result<()> {
    let report = match Cli::parse().command {
        Command::Prepare { folder, network } => {
            prepare::prepare(&folder, network)?;
            json!({})
        }
        Command::Step { folder, network, size, device, threads, steps } => {
            let network = Network::new(network, size, &folder)?;
            let (device, name) = runner::open(device, threads)?;
            let mut runner = Runner::new(&device, &network)?;
            let first = runner.times(1)?;
            let steps = runner.times(steps)?;
            json!({
                "device": name,
                "parameters": network.parameters(),
                "multiply_adds": network.multiply_adds(),
                "first_ms": first[0],
                "steps_ms": steps,
                "peak_mib": runner::peak_mib(),
            })
        }
        Command::Profile { folder, network, size, device, hardware, steps } => {
            let network = Network::new(network, size, &folder)?;
            let (device, name) = runner::open(device, None)?;
            if hardware && matches!(&device, Device::Gpu(device) if device.info().software) {
                bail!("{name} computes on the CPU and would take an hour; try a small picture on it with --quick");
            }
            let mut runner = Runner::new(&device, &network)?;
            let first = runner.times(1)?;
            let steps = runner.times(steps)?;
            let mut report = kinds::by_kind(&runner.profile()?);
            report["device"] = name.into();
            report["first_ms"] = first[0].into();
            report["steps_ms"] = steps.into();
            report
        }
        Command::Ceilings { threads } => {
            let ceilings = ceilings::measure(threads);
            json!({ "gflops": ceilings.gflops, "copy_gb": ceilings.copy_gb })
        }
        Command::Isa { network, size, kernels, assembly } => {
            let network = Network::new(network, size, Path::new(""))?;
            isa::report(&network, kernels, assembly.as_deref())?
        }
    };
    println!("{report}");
    Ok(())
}
