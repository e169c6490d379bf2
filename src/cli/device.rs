//! `--device`: where networks run.

use clap::ValueEnum;
use undiffuse::device::Device;

use super::Error;

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Choice {
    /// The GPU where there is a usable one, else the CPU
    Auto,
    /// The GPU, or an error
    Gpu,
    /// All cores of the CPU
    Cpu,
}

/// Opens the device.
pub async fn open(choice: Choice) -> Result<Device, Error> {
    match choice {
        Choice::Auto | Choice::Cpu => Ok(Device::Cpu),
        Choice::Gpu => {
            let message = "there is no GPU executor in this build; use --device cpu".into();
            Err(Error::Device { choice: "gpu", message })
        }
    }
}

/// What to call it.
pub fn describe(device: &Device) -> String {
    match device {
        Device::Cpu => {
            let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
            format!("CPU ({cores} {})", if cores == 1 { "core" } else { "cores" })
        }
    }
}
