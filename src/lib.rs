//! Runs the reverse process of diffusion models, x_T → x_0, from a checkpoint as people already have it: the folder that
//! `diffusers` writes. In a browser the networks run as WebGPU compute passes or, where there is no usable GPU, on the CPU
//! in a module beside this one; natively the same code runs on Vulkan, Metal, DirectX 12 or the CPU.
//!
//! ```no_run
//! # #[cfg(not(target_arch = "wasm32"))]
//! # fn main() -> Result<(), undiffuse::pipeline::Error> {
//! use undiffuse::{device::Device, pipeline::{Pipeline, SampleOptions}, weights::DirectorySource};
//!
//! let checkpoint = DirectorySource::new("www/models/emoji64");
//! pollster::block_on(async {
//!     let pipeline = Pipeline::load(&checkpoint, Device::cpu(), &mut |_| {}).await?;
//!     let options = SampleOptions { prompt: "panda, fluent flat style".into(), seed: 7, ..Default::default() };
//!     let mut sampler = pipeline.sampler(options).await?;
//!     while let Some(step) = sampler.step().await? {
//!         println!("x_t after step {} of {}: {:?}", step.index + 1, step.total, step.images.len());
//!     }
//!     Ok(())
//! })
//! # }
//! # #[cfg(target_arch = "wasm32")]
//! # fn main() {}
//! ```
//!
//! The Cargo feature `command`, on by default, is the program `undiffuse` and the crates that only it is built from: who depends on the
//! library turns it off with `default-features = false`.
//!
//! The feature `training`, likewise, is what networks learn by: gradients, and what they are of.
//!
//! Data flows one way, from [`pipeline`] down:
//!
//! | room | what it knows |
//! |---|---|
//! | [`pipeline`] | a prompt and a seed become a picture, step by step |
//! | [`diffusion`] | the mathematics: noise schedules, the forward process, each solver as a table of steps |
//! | [`models`] | the architectures: a `config.json` becomes a graph |
//! | [`weights`], [`text`], [`noise`] | checkpoint files, the CLIP tokenizer, torch's random streams |
//! | `training` | what a network is asked for and how far it is off, to be differentiated |
//! | [`metrics`] | how good pictures are: features, their statistics, and distances between these |
//! | [`graph`] | a network as a static graph of typed ops; knows no model and no device |
//! | [`cpu`], [`gpu`] | execute a graph; know no model and no diffusion. [`device`] is either |
//! | [`profile`] | where the time of a network goes, next to what the device can do at most |
//! | `twin` | the oracle that both are compared with |
//! | `web` | the only room that knows JavaScript |
#![warn(missing_docs)]

pub mod cpu;
pub mod device;
pub mod diffusion;
pub mod gpu;
pub mod graph;
pub mod metrics;
pub mod models;
pub mod noise;
mod order;
pub mod pipeline;
pub mod profile;
pub mod text;
#[cfg(feature = "training")]
pub mod training;
#[cfg(not(target_arch = "wasm32"))]
#[doc(hidden)]
pub mod twin;
#[cfg(target_arch = "wasm32")]
pub mod web;
pub mod weights;
