//! Executes a graph on WebGPU, in a browser or natively through Vulkan, Metal or DirectX 12.
//!
//! [`Device`] opens an adapter; [`Weights`] holds a network's weights in GPU memory; [`Program`] is a graph compiled once
//! (lowered to dispatches, planned into memory, recorded with its bind groups) and replayed for every step. The kernels are WGSL
//! in `shaders/`, a family of them in each file of [`kernels`]; each has a twin in `crate::twin`.

mod bands;
mod buffer;
mod capabilities;
mod device;
mod error;
mod faults;
mod kernel;
#[cfg(not(target_arch = "wasm32"))]
mod kernel_use;
pub mod kernels;
mod lower;
mod lowering;
mod measure;
mod plan;
mod profile;
mod program;
mod read_back;
mod roofline;
mod shaders;
mod storage;
mod store;
mod upload;
pub mod variants;
mod weights;
#[cfg(test)]
mod work;

pub use capabilities::{Capabilities, Class, Limits};
pub use device::{Device, DeviceInfo, DeviceOptions};
pub use error::Error;
pub use kernel::KernelSource;
#[cfg(not(target_arch = "wasm32"))]
pub use kernel_use::{KernelUse, kernels_of};
pub use program::{MemoryReport, Program};
pub use read_back::PendingRead;
pub use shaders::Shaders;
pub use weights::Weights;
