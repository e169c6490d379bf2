//! The options of a run, under diffusers' names.

use super::rgba::Rgba;
use crate::diffusion::{SchedulerConfig, Solver, SolverKeys};
use crate::noise::Stream;

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

/// One text for all pictures, or one for each prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text(Vec<String>);

impl Text {
    /// The texts in order.
    pub fn all(&self) -> &[String] {
        &self.0
    }
}

impl Default for Text {
    fn default() -> Self {
        String::new().into()
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(vec![text])
    }
}

impl From<Vec<String>> for Text {
    fn from(texts: Vec<String>) -> Self {
        Self(texts)
    }
}

/// What becomes of a prompt that is longer than the text encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum LongPrompts {
    /// What is too much is cut, with a warning that names it; as diffusers does.
    #[default]
    Cut,
    /// It is encoded in chunks, each between a BOS and an EOS of its own, which the network then sees one after the other.
    Chunks,
}

/// Which pictures a run shows on its way; the last x_t is always decoded. The samples of a model without an autoencoder are
/// pictures themselves, and are shown as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Preview {
    /// `Tiny` where the pipeline was given a tiny autoencoder, else `Linear`: a small part of a step's cost.
    #[default]
    Auto,
    /// Each x_t and each x̂_0, by the model's own autoencoder, which costs about as much as a step.
    Decode,
    /// By an `AutoencoderTiny` that the pipeline was given.
    Tiny,
    /// A linear map from latents to colours, fitted to the model's autoencoder: soft, and next to free.
    Linear,
    /// None.
    None,
}

/// Longest side of a picture, in pixels.
pub(super) const MAX_SIDE: usize = 1 << 13;

/// What to draw and how. Sizes are `[height, width]`, corners `[top, left]`, in pixels.
#[derive(Clone, Debug, PartialEq)]
pub struct SampleOptions {
    /// What to draw; several prompts are drawn at once. Models without a text encoder take the empty one only.
    pub prompt: Text,
    /// SDXL: what the second text encoder is told; the same as the first if absent.
    pub prompt_2: Option<Text>,
    /// What to stay away from. Absent is not empty to SDXL, which then takes an embedding of zeros.
    pub negative_prompt: Option<Text>,
    /// SDXL: what the second text encoder is told to stay away from; the same as the first if absent.
    pub negative_prompt_2: Option<Text>,
    /// How many pictures to draw of each prompt.
    pub num_images_per_prompt: usize,
    /// Seed of the one random stream that all pictures of the run share.
    pub seed: u64,
    /// Instead, a seed for each picture, which draws from a stream of its own and is the picture that it would be alone; empty for
    /// none.
    pub seeds: Vec<u64>,
    /// Which of torch's random streams the seeds are for.
    pub generator: Stream,
    /// `num_inference_steps`. Where the scheduler's `steps_offset` has no room in so many, as with all T steps of DDPM, as much of it
    /// is left out as does not fit: diffusers cannot run these.
    pub steps: usize,
    /// g in ε_u + g·(ε_c − ε_u); at 1 or below, the unconditional half is not computed.
    pub guidance_scale: f64,
    /// How much of the guided output is brought back to the spread of ε_c, from 0 to 1 (Lin et al. 2023, arXiv 2305.08891).
    pub guidance_rescale: f64,
    /// Which solver.
    pub scheduler: Scheduler,
    /// Settings of the solver in place of the scheduler's own.
    pub solver_keys: SolverKeys,
    /// DDIM's η, from 0 (deterministic) to 1 (ancestral).
    pub eta: f64,
    /// DDIM: derive ε̂ again from the clipped x̂_0.
    pub use_clipped_model_output: bool,
    /// Timesteps to visit in place of `steps`, descending, for solvers that take them.
    pub timesteps: Option<Vec<f64>>,
    /// σ to visit in place of `steps`, descending, for solvers that take them; Euler's with the one where it arrives.
    pub sigmas: Option<Vec<f64>>,
    /// LCM: steps of the schedule that the model was distilled from. TCD: the most steps of a run that may visit any timestep.
    pub original_inference_steps: Option<usize>,
    /// Height in pixels; if absent the model's own, and without a mask that of `image`.
    pub height: Option<usize>,
    /// Width in pixels; likewise.
    pub width: Option<usize>,
    /// A picture to begin with, to fill or to enlarge.
    pub image: Option<Rgba>,
    /// What of `image` to draw anew: where it is white. As large as `image`, or brought to its size.
    pub mask: Option<Rgba>,
    /// How much of the schedule to walk, from a little above 0 to 1, which forgets `image`. If absent 0.8, with a mask 1, and
    /// for SDXL 0.3, with a mask 0.9999.
    pub strength: Option<f64>,
    /// In its place the timestep of training to begin at, whether or not a run would visit it: x_t of `image` there, √ᾱ_t·x_0 +
    /// √(1−ᾱ_t)·ε in the scale of the solver, and then the timesteps below it that a run would visit. Draws are those of `strength`,
    /// and where that begins at the same timestep the run is the same. Models without an autoencoder take a picture for this alone.
    pub start_timestep: Option<usize>,
    /// Upscaler: how much noise is added to `image` before it is enlarged; 20 if absent.
    pub noise_level: Option<usize>,
    /// How many of the text encoder's last layers to leave out.
    pub clip_skip: Option<usize>,
    /// What becomes of a prompt that is longer than the text encoder.
    pub long_prompts: LongPrompts,
    /// SDXL: how large the picture is said to have been before it was scaled; the run's size if absent.
    pub original_size: Option<[usize; 2]>,
    /// SDXL: where the picture is said to have been cropped.
    pub crops_coords_top_left: [usize; 2],
    /// SDXL: how large the picture is said to be; the run's size if absent.
    pub target_size: Option<[usize; 2]>,
    /// SDXL: `original_size` for the negative prompt; a run from noise takes it together with `negative_target_size` only.
    pub negative_original_size: Option<[usize; 2]>,
    /// SDXL: `crops_coords_top_left` for the negative prompt, where both its sizes are given. A run that begins with a picture
    /// has one crop for both prompts, as in diffusers.
    pub negative_crops_coords_top_left: [usize; 2],
    /// SDXL: `target_size` for the negative prompt; a run from noise takes it together with `negative_original_size` only.
    pub negative_target_size: Option<[usize; 2]>,
    /// Which pictures are shown on the way.
    pub preview: Preview,
    /// Decodes in tiles even where the whole picture would fit: needs less memory and gives a slightly different picture.
    pub vae_tiling: bool,
}

impl Default for SampleOptions {
    fn default() -> Self {
        Self {
            prompt: Text::default(),
            prompt_2: None,
            negative_prompt: None,
            negative_prompt_2: None,
            num_images_per_prompt: 1,
            seed: 0,
            seeds: Vec::new(),
            generator: Stream::TorchCpu,
            steps: 25,
            guidance_scale: 7.5,
            guidance_rescale: 0.0,
            scheduler: Scheduler::Checkpoint,
            solver_keys: SolverKeys::default(),
            eta: 0.0,
            use_clipped_model_output: false,
            timesteps: None,
            sigmas: None,
            original_inference_steps: None,
            height: None,
            width: None,
            image: None,
            mask: None,
            strength: None,
            start_timestep: None,
            noise_level: None,
            clip_skip: None,
            long_prompts: LongPrompts::Cut,
            original_size: None,
            crops_coords_top_left: [0, 0],
            target_size: None,
            negative_original_size: None,
            negative_crops_coords_top_left: [0, 0],
            negative_target_size: None,
            preview: Preview::default(),
            vae_tiling: false,
        }
    }
}
