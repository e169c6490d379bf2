//! The tests of the crate from outside, a module for each subject: one program, since linking the crate takes longer than most of them.
#![cfg(not(target_arch = "wasm32"))]

mod bound;
mod command;
mod common;
mod composed;
mod configs;
mod costs;
mod cpu;
mod examples;
mod features;
mod fid;
mod forward_process;
mod gguf;
mod gradients;
mod kernels;
mod layouts;
mod lora;
mod metrics;
mod models;
mod noise;
mod ops;
mod options;
mod pipelines;
mod portable;
mod previews;
mod quant;
mod quantize;
mod safetensors;
mod schedulers;
mod size;
mod tiling;
mod tokenizers;
mod trajectories;
mod walls;
mod weights;

/// Tells `hostile` what memory a test takes.
#[global_allocator]
static ALLOCATOR: common::hostile::Counting = common::hostile::Counting;
