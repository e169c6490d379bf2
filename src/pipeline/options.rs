//! The options of a run, under diffusers' names.

use super::Preview;
use crate::diffusion::{SchedulerConfig, Solver};

/// Which solver walks from x_T to x_0.
#[derive(Clone, Debug, PartialEq, Default)]
pub enum Scheduler {
    /// The one that the checkpoint was saved with.
    #[default]
    Checkpoint,
    /// Another class with the checkpoint's settings, as diffusers' `from_config` makes it.
    Solver(Solver),
    /// A config of its own, used as it is.
    Config(Box<SchedulerConfig>),
}

/// What to draw and how.
#[derive(Clone, Debug, PartialEq)]
pub struct SampleOptions {
    /// What to draw; models without a text encoder take the empty one only.
    pub prompt: String,
    /// What to stay away from.
    pub negative_prompt: String,
    /// Seed of the random stream; the stream is torch's CPU generator's.
    pub seed: u64,
    /// `num_inference_steps`.
    pub steps: usize,
    /// g in ε_u + g·(ε_c − ε_u); at 1 or below, the unconditional half is not computed.
    pub guidance_scale: f64,
    /// Which solver.
    pub scheduler: Scheduler,
    /// DDIM's η, from 0 (deterministic) to 1 (ancestral).
    pub eta: f64,
    /// Height in pixels; the model's own if absent.
    pub height: Option<usize>,
    /// Width in pixels; the model's own if absent.
    pub width: Option<usize>,
    /// Which pictures are shown on the way.
    pub preview: Preview,
    /// Decodes in tiles even where the whole picture would fit: needs less memory and gives a slightly different picture.
    pub vae_tiling: bool,
}

impl Default for SampleOptions {
    fn default() -> Self {
        Self {
            prompt: String::new(),
            negative_prompt: String::new(),
            seed: 0,
            steps: 25,
            guidance_scale: 7.5,
            scheduler: Scheduler::Checkpoint,
            eta: 0.0,
            height: None,
            width: None,
            preview: Preview::default(),
            vae_tiling: false,
        }
    }
}
