//! What a user asks for: a prompt and a seed become a picture, step by step.
//!
//! [`Pipeline::load`] opens a checkpoint on a device; [`Pipeline::sampler`] starts one reverse process, x_T → x_0, whose
//! [`Sampler::step`] each makes the next x_t and a picture of it.
//!
//! | module | its part of a run |
//! |---|---|
//! | `layout`, `weight_file` | where a checkpoint's files are, and how their tensors reach the device |
//! | `family`, `checkpoint`, `load` | which pipelines there are; a checkpoint's configs and headers; its weights on a device |
//! | `options`, `request` | what is asked for, and what that is for one checkpoint: refused before a weight is read |
//! | `prompts`, `text_encoder`, `conditioning` | texts as token ids, as embeddings, and all else that the network is told |
//! | `image`, `random`, `start` | input pictures as Pillow resizes them, torch's draws in diffusers' order, x_T |
//! | `step_graph`, `sampler` | one step as one graph, and the loop over it |
//! | `schedule` | the steps that it would walk, by themselves |
//! | `predictor`, `encoder` | the noise predictor by itself, with what it is told; pictures to latents |
//! | `preview`, `painter`, `linear_preview`, `tiny_vae`, `tiled` | pictures of x_t and x̂_0, tile by tile where they are large |
//! | `bound` | the variational bound of pictures, term by term |
//! | `lora`, `lora_modules` | LoRA files, and which weights they change |
//! | `forward_process` | x_t of a picture at any timestep, and what the network makes of it in one call |
//! | `forward` | one network by itself |

mod bound;
mod checkpoint;
mod conditioning;
mod encoder;
mod error;
mod family;
mod forward;
mod forward_process;
mod image;
mod layout;
mod linear_preview;
mod load;
mod lora;
mod lora_modules;
mod options;
mod painter;
mod predictor;
mod preview;
mod prompts;
mod random;
mod request;
mod sampler;
mod schedule;
mod start;
mod step_graph;
mod text_encoder;
mod tiled;
mod tiny_vae;
mod weight_file;

pub use bound::{Bound, BoundEstimate, BoundOptions, BoundSummary, Term, TermKind, Timesteps};
pub use checkpoint::{Checkpoint, ModelInfo, Takes};
pub use error::Error;
pub use family::{pipeline_classes, scheduler_of};
pub use forward::{Component, NamedTensor, OpenComponent};
pub use forward_process::{ForwardOptions, ForwardProcess, Noised, NoisyPicture, Prediction, Space};
pub use layout::OpenOptions;
pub use load::{LoadProgress, Pipeline};
pub use lora::{LoraFile, LoraModule};
pub use options::{LongPrompts, SampleOptions, Scheduler, Text};
pub use preview::{Preview, Rgba};
pub use sampler::{Sampler, StepOutput};
pub use schedule::Schedule;
