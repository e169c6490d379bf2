//! What a user asks for: a prompt and a seed become a picture, step by step.
//!
//! [`Pipeline::load`] opens a checkpoint on a device; [`Pipeline::sampler`] starts one reverse process, x_T → x_0, whose
//! [`Sampler::step`] each makes the next x_t and a picture of it.

mod checkpoint;
mod conditioning;
mod error;
mod family;
mod forward;
mod image;
mod layout;
mod linear_preview;
mod load;
mod lora;
mod lora_modules;
mod options;
mod painter;
mod preview;
mod prompts;
mod random;
mod request;
mod sampler;
mod start;
mod step_graph;
mod text_encoder;
mod tiled;
mod tiny_vae;
mod weight_file;

pub use checkpoint::{Checkpoint, ModelInfo, Takes};
pub use error::Error;
pub use family::scheduler_of;
pub use forward::{Component, NamedTensor, OpenComponent};
pub use layout::OpenOptions;
pub use load::{LoadProgress, Pipeline};
pub use lora::{LoraFile, LoraModule};
pub use options::{LongPrompts, SampleOptions, Scheduler, Text};
pub use preview::{Preview, Rgba};
pub use sampler::{Sampler, StepOutput};
