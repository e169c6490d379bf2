//! The types of options.

use crate::diffusion::{SchedulerConfig, Solver};

/// The solver that walks from x_T to x_0.
#[derive(Clone, Debug, PartialEq, Default)]
pub enum Scheduler {
    /// The solver that the checkpoint was saved with.
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

/// The treatment of a prompt that is longer than the text encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum LongPrompts {
    /// The excess is cut, with a warning that names it; as diffusers does.
    #[default]
    Cut,
    /// The prompt is encoded in chunks, each between a BOS and an EOS of its own, which the network then sees one after the
    /// other.
    Chunks,
}

/// The pictures that a run shows on its way; the last x_t is always decoded. The samples of a model without an autoencoder are
/// pictures themselves, and are shown as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Preview {
    /// `Tiny` if the pipeline was given a tiny autoencoder, else `Linear`: a small part of a step's cost.
    #[default]
    Auto,
    /// Each x_t and each x̂_0, by the model's own autoencoder, which costs about as much as a step.
    Decode,
    /// Pictures by an `AutoencoderTiny` that the pipeline was given.
    Tiny,
    /// A linear map from latents to colours, fitted to the model's autoencoder: soft, and next to free.
    Linear,
    /// No pictures.
    None,
}

/// Longest side of a picture, in pixels.
pub(in crate::pipeline) const MAX_SIDE: usize = 1 << 13;

/// The data that noise is added to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Space {
    /// The pixels of the picture, whatever the model works on.
    Pixels,
    /// The data that the model works on: for one with an autoencoder the latents of the picture, for others its pixels.
    #[default]
    Latents,
}

/// The terms of a bound that are computed. Terms are named by the timestep t at which they call the network, t = 0 … T−1; L_T
/// calls none, and is always there.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Timesteps {
    /// All timesteps: the bound itself.
    #[default]
    All,
    /// These timesteps, in any order.
    List(Vec<usize>),
    /// This number of timesteps, spread so that the bound is estimated well: t = 0, and the middle of each part of t = 1 … T−1.
    /// The parts grow with t, as evenly on a logarithmic scale as whole numbers allow, since L_t falls about as 1/t.
    Spread(usize),
    /// This number of timesteps from the same parts, one of each being drawn by the seed. The estimate of the bound is right on
    /// average over seeds.
    Drawn(usize),
}
