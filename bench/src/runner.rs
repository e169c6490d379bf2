//! A network on a device, run step after step.

use std::time::Instant;

use anyhow::Result;
use clap::ValueEnum;
use undiffuse::cpu;
use undiffuse::device::{Device, Program, WeightLoader};
use undiffuse::gpu::{self, DeviceOptions};
use undiffuse::profile::Profile;

use crate::network::Network;

/// Where a network runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Target {
    Cpu,
    Gpu,
}

/// Opens the device, and says what it is.
pub fn open(target: Target, threads: Option<usize>) -> Result<(Device, String)> {
    match target {
        Target::Cpu => {
            let device = cpu::Device::native(threads, cpu::Arithmetic::default());
            let name = format!("CPU, {} threads", device.threads());
            Ok((Device::Cpu(device), name))
        }
        Target::Gpu => {
            let device = pollster::block_on(gpu::Device::request(DeviceOptions::default()))?;
            let info = device.info();
            let name = format!("{} ({})", info.adapter, info.backend);
            Ok((Device::Gpu(device), name))
        }
    }
}

/// A network that is ready to run, its inputs beside it.
pub struct Runner {
    program: Program,
    inputs: Vec<(String, Vec<f32>)>,
}

impl Runner {
    /// Loads the weights and compiles the network, as a pipeline does.
    pub fn new(device: &Device, network: &Network) -> Result<Self> {
        let graph = &network.graph;
        let source = network.weights()?;
        let mut loader = WeightLoader::new(device, graph.weights())?;
        for (index, spec) in graph.weights().iter().enumerate() {
            let tensor = source.tensor(spec)?;
            loader.put(index, tensor.dtype, &tensor.bytes)?;
        }
        let program = pollster::block_on(async {
            let weights = loader.finish().await?;
            Program::compile(device, graph, &[&weights]).await
        })?;
        Ok(Self { program, inputs: network.inputs() })
    }

    /// One step: inputs in, the network, output out.
    pub fn step(&mut self) -> Result<Vec<f32>> {
        for (name, values) in &self.inputs {
            self.program.write(name, values)?;
        }
        pollster::block_on(self.program.run())?;
        Ok(pollster::block_on(self.program.read_f32("out"))?)
    }

    /// The time of every node.
    pub fn profile(&mut self) -> Result<Profile> {
        Ok(pollster::block_on(self.program.profile())?)
    }

    /// The milliseconds of each of `steps` steps.
    pub fn times(&mut self, steps: usize) -> Result<Vec<f64>> {
        let timed = |_| {
            let start = Instant::now();
            self.step()?;
            Ok(start.elapsed().as_secs_f64() * 1e3)
        };
        (0..steps).map(timed).collect()
    }
}

/// The most memory that this process has held, in MiB, where the system says so.
pub fn peak_mib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse::<f64>().ok().map(|kib| kib / 1024.0)
}
