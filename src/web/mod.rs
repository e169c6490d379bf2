//! The JavaScript side of the crate: what the package's worker calls. Nothing else knows JavaScript.
//!
//! Few classes cross the boundary: [`Pipeline`] and what it prepares, and [`FeatureExtractor`]. Methods that take time return promises, and
//! hold nothing that another call could find borrowed, in whatever order JavaScript makes its calls.
//!
//! Cargo's features `pipeline` and `features` say which of the two a module holds: the package has a module of each, and a page fetches
//! what it needs.

// A module with one of the two leaves some of what they share unused.
#![cfg_attr(not(all(feature = "features", feature = "pipeline")), allow(dead_code))]

mod error;
#[cfg(feature = "features")]
mod features;
mod machine;
#[cfg(feature = "pipeline")]
mod pipeline;
mod promise;
mod slot;
mod source;

use std::rc::Rc;

use js_sys::{Function, Uint8ClampedArray};
use wasm_bindgen::prelude::*;

use crate::cpu;
use crate::device::{self, Device};
use crate::gpu::{self, Class, Shaders, variants::MatrixKernels};
use crate::pipeline::Rgba;
#[cfg(feature = "features")]
pub use features::{FeatureExtractor, PictureSet};
pub use machine::Machine;
#[cfg(feature = "pipeline")]
pub use pipeline::{Bound, Files, ForwardProcess, Lora, LoraSet, Pipeline, Sampler};
pub use source::OpenSource;

/// Prepares the module, once and before all else: a panic is written to the console and told to `on_panic`, because the
/// promises that it leaves behind never settle.
#[wasm_bindgen]
pub fn start(on_panic: Function) {
    std::panic::set_hook(Box::new(move |info| {
        console_error_panic_hook::hook(info);
        // If JavaScript throws as well, there is nobody left to tell.
        let _ = on_panic.call1(&JsValue::NULL, &info.to_string().into());
    }));
}

#[wasm_bindgen]
extern "C" {
    /// `Pixels` of protocol.js.
    #[wasm_bindgen(typescript_type = "object")]
    pub type Pixels;

    #[wasm_bindgen(method, getter)]
    fn width(this: &Pixels) -> f64;

    #[wasm_bindgen(method, getter)]
    fn height(this: &Pixels) -> f64;

    #[wasm_bindgen(method, getter)]
    fn data(this: &Pixels) -> Uint8ClampedArray;
}

/// The CPU, if it is there as a `machine`, else WebGPU's `adapter` of this name, with kernels made of `shaders`.
async fn open_device(
    machine: Option<Machine>,
    adapter: Option<String>,
    shaders: Option<String>,
    kernels: Option<MatrixKernels>,
) -> Result<Device, device::Error> {
    if let Some(machine) = machine {
        return Ok(Device::Cpu(cpu::Device::new(Rc::new(machine))));
    }
    let class = adapter.map(|name| Class::of_name(&name));
    let options = gpu::DeviceOptions { class, kernels, ..Default::default() };
    Ok(Device::Gpu(gpu::Device::with_shaders(options, Shaders::new(&shaders.unwrap_or_default())).await?))
}

fn picture_of(pixels: Pixels) -> Rgba {
    Rgba { width: pixels.width() as usize, height: pixels.height() as usize, pixels: pixels.data().to_vec() }
}
