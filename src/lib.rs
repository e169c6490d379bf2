//! Runs the reverse process of diffusion models, x_T → x_0, from a checkpoint as people already have it.
#![warn(missing_docs)]

pub mod cpu;
pub mod device;
pub mod diffusion;
pub mod gpu;
pub mod graph;
pub mod models;
pub mod noise;
pub mod pipeline;
pub mod text;
#[cfg(target_arch = "wasm32")]
pub mod web;
pub mod weights;
