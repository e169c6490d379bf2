//! `--device`: where networks run.

use clap::ValueEnum;
use undiffuse::device::Device;
use undiffuse::gpu::variants::Family;
use undiffuse::gpu::{self, DeviceOptions};

use super::{Error, tuned};

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Choice {
    /// The GPU where there is a usable one, else the CPU
    Auto,
    /// The GPU, or a software adapter that stands for one, or an error
    Gpu,
    /// All cores of the CPU
    Cpu,
}

/// Opens the device, to run with `kernels` or else those that suit it.
pub async fn open(choice: Choice, kernels: Option<Family>) -> Result<Device, Error> {
    if choice == Choice::Cpu {
        return Ok(Device::Cpu);
    }
    match gpu::Device::request(DeviceOptions { kernels, ..Default::default() }).await {
        // The CPU executor is faster than an adapter that computes on the CPU.
        Ok(device) if choice == Choice::Auto && device.info().software => Ok(Device::Cpu),
        Ok(device) => {
            tuned::recall(&device);
            Ok(Device::Gpu(device))
        }
        Err(_) if choice == Choice::Auto => Ok(Device::Cpu),
        Err(error) => Err(Error::Device { choice: "gpu", message: format!("{error}; use --device cpu") }),
    }
}

/// What to call it.
pub fn describe(device: &Device) -> String {
    match device {
        Device::Cpu => {
            let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
            format!("CPU ({cores} {})", if cores == 1 { "core" } else { "cores" })
        }
        Device::Gpu(device) => {
            let info = device.info();
            let software = if info.software { ", computing on the CPU" } else { "" };
            format!("{} ({}{software})", info.adapter, info.backend)
        }
    }
}
