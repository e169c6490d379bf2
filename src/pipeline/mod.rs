//! The work that a user asks for: a prompt and a seed become a picture, step by step.
//!
//! [`Pipeline::load`] opens a checkpoint on a device; [`Pipeline::sampler`] starts one reverse process, x_T → x_0, whose
//! [`Sampler::step`] each makes the next x_t and a picture of it.
//!
//! | room | what it is for | |
//! |---|---|---|
//! | `options`, `rgba`, `error` | what is asked for, and what can be wrong with it | |
//! | `model` | where a checkpoint's files are, what they hold, and how their tensors reach the device | opening |
//! | `condition` | texts as token ids, as embeddings, and all else that the network is told | words → tensors |
//! | `pictures` | input pictures as Pillow resizes them; encoding, decoding, previews, tile by tile where they are large | latents ↔ pixels |
//! | `run` | one run: its options checked, torch's draws in diffusers' order, x_T, one step as one graph, the loop over it | tensors → latents |
//! | `study` | the forward process of a picture, its variational bound, one network by itself | measuring |
//! | `adapter` | LoRAs: their files, how their tensors are called, and which weights they change | changing |
//!
//! A room knows those above it in this table and none below.

mod adapter;
mod condition;
mod error;
mod model;
mod options;
mod pictures;
mod rgba;
mod run;
mod study;

pub use adapter::lora::{LoraFile, LoraModule};
pub use error::{Error, brief};
pub use model::checkpoint::{Checkpoint, ModelInfo, Takes};
pub use model::family::{pipeline_classes, scheduler_of};
pub use model::layout::{Note, OpenOptions};
pub use model::weight_file::LoadProgress;
#[cfg(not(target_arch = "wasm32"))]
#[doc(hidden)]
pub use options::spec;
pub use options::{
    BoundOptions, ForwardOptions, LongPrompts, Preview, SampleOptions, Scheduler, Space, Text, Timesteps, camel_case,
};
pub use rgba::Rgba;
pub use run::estimate::RunEstimate;
pub use run::pipeline::Pipeline;
pub use run::sampler::{Sampler, StepOutput};
pub use run::schedule::Schedule;
pub use study::bound::{Bound, BoundEstimate, BoundSummary, Term, TermKind};
pub use study::evaluate::{Component, NamedTensor, OpenComponent};
pub use study::noising::{ForwardProcess, Noised, NoisyPicture, Prediction};
