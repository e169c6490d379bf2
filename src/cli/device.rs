//! `--device`: where networks run.

use std::num::NonZeroUsize;

use clap::ValueEnum;
use undiffuse::cpu::{self, Arithmetic};
use undiffuse::device::Device;
use undiffuse::gpu::variants::MatrixKernels;
use undiffuse::gpu::{self, DeviceOptions};

use super::{Error, tuned};

/// What says where networks run.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct Options {
    /// Where the networks run
    #[arg(long, value_enum, default_value_t = Choice::Auto)]
    device: Choice,

    /// On the CPU: how many threads, by default one for each core
    #[arg(long, value_name = "NUMBER")]
    threads: Option<NonZeroUsize>,

    /// On the CPU: round products and sums apart, so that a seed gives the same bits on every machine; slower
    #[arg(long)]
    portable: bool,

    /// On a GPU: which matrix kernels, to compare them: registers, tiled, tiled-128x64, tiled-64x64, tiled-64x32, tiled-64x64-lean
    /// or tiled-64x32-lean; by default those that suit it
    #[arg(long, value_name = "NAME")]
    kernels: Option<MatrixKernels>,
}

impl Options {
    /// Everything on which the last bits of `device`'s results depend: on a CPU not the number of threads.
    pub fn numbers(self, device: &Device) -> String {
        match device {
            Device::Cpu(_) if self.portable => "portable".to_owned(),
            Device::Cpu(_) => "cpu".to_owned(),
            Device::Gpu(device) => {
                let info = device.info();
                let kernels = self.kernels.map_or("", MatrixKernels::name);
                format!("{} {} {kernels}", info.adapter, info.backend)
            }
        }
    }

    fn cpu(self) -> Device {
        let arithmetic = if self.portable { Arithmetic::Separate } else { Arithmetic::Fused };
        Device::Cpu(cpu::Device::native(self.threads.map(NonZeroUsize::get), arithmetic))
    }
}

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Choice {
    /// The GPU where there is a usable one, else the CPU
    Auto,
    /// The GPU, or a software adapter that stands for one, or an error
    Gpu,
    /// The CPU
    Cpu,
}

/// Opens the device.
pub async fn open(options: Options) -> Result<Device, Error> {
    let (choice, kernels) = (options.device, options.kernels);
    if choice == Choice::Cpu {
        return Ok(options.cpu());
    }
    match gpu::Device::request(DeviceOptions { kernels, ..Default::default() }).await {
        // The CPU executor is faster than an adapter that computes on the CPU.
        Ok(device) if choice == Choice::Auto && device.info().software => Ok(options.cpu()),
        Ok(device) => {
            tuned::recall(&device);
            Ok(Device::Gpu(device))
        }
        Err(_) if choice == Choice::Auto => Ok(options.cpu()),
        Err(error) => Err(Error::Device { choice: "gpu", message: format!("{error}; use --device cpu") }),
    }
}

/// What to call it.
pub fn describe(device: &Device) -> String {
    match device {
        Device::Cpu(device) => {
            let threads = device.threads();
            format!("CPU ({threads} {})", if threads == 1 { "thread" } else { "threads" })
        }
        Device::Gpu(device) => {
            let info = device.info();
            let software = if info.software { ", computing on the CPU" } else { "" };
            format!("{} ({}{software})", info.adapter, info.backend)
        }
    }
}
