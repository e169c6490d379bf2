//! The pipelines of diffusers that can be run, a file for each family of those that share their networks.
//!
//! A family is a value: whoever adds one writes its file, and a line in [`FAMILIES`].

mod latent_consistency;
mod stable_diffusion;
mod stable_diffusion_xl;
mod unconditional;
mod upscaler;

use serde_json::Value;

use super::denoiser::Denoiser;
use crate::diffusion::{SchedulerConfig, Solver};
use crate::models;
use crate::pipeline::error::Error;

/// All families, in the order in which their classes are listed.
const FAMILIES: [&Family; 5] = [
    &stable_diffusion::FAMILY,
    &stable_diffusion_xl::FAMILY,
    &latent_consistency::FAMILY,
    &upscaler::FAMILY,
    &unconditional::FAMILY,
];

/// The side of latents in place of a smaller number that a config from before diffusers 0.9.0 has.
const OLD_SIDE: u64 = 64;

/// Pipelines that share their networks, and what sets them apart from others.
#[derive(Debug)]
pub(in crate::pipeline) struct Family {
    /// diffusers' classes; which of them runs is decided by the pictures that are given.
    pub classes: &'static [&'static str],
    /// The text encoders in diffusers' order.
    pub encoders: &'static [Encoder],
    /// The noise predictor that a `config.json` describes.
    pub denoiser: fn(json: &str) -> Result<Denoiser, models::Error>,
    /// The inputs of the network that the pipeline gives beside the sample, the timestep, the text and the guidance scale.
    pub told: &'static [&'static str],
    /// The autoencoder; none if samples are pictures.
    pub autoencoder: Option<Autoencoder>,
    /// The pictures that a run takes.
    pub pictures: Pictures,
    /// The scheduler's config of a pipeline class as diffusers changes it when it builds the pipeline of a run, with a mask or without.
    pub scheduler: fn(class: &str, inpaints: bool, scheduler: SchedulerConfig) -> Result<SchedulerConfig, Error>,
    /// The share of the schedule that a run from a picture walks unless told otherwise.
    pub strength: Strength,
    /// Whether diffusers asks the network with the prompt and without.
    pub is_guided: bool,
    /// Solver whose few steps are spread over what a picture leaves of the schedule; others leave steps out.
    pub spreads_steps_of: Option<Solver>,
    /// Number of the text encoder's last layers that are never used.
    pub unused_layers: usize,
    /// Whether a `sample_size` below [`OLD_SIDE`] from before diffusers 0.9.0 was a default that nobody had set.
    pub had_small_default: bool,
}

/// A text encoder and its tokenizer, by the names of their components.
#[derive(Debug)]
pub(in crate::pipeline) struct Encoder {
    /// Name of the tokenizer, such as `tokenizer_2`.
    pub tokenizer: &'static str,
    /// Name of the text encoder, such as `text_encoder_2`.
    pub encoder: &'static str,
}

/// The settings of a family's autoencoder and of the input of its network.
#[derive(Debug)]
pub(in crate::pipeline) struct Autoencoder {
    /// `scaling_factor`, whatever the autoencoder's config says.
    pub scaling_factor: Option<f64>,
    /// Channels of the network's input that are possible for latents of so many.
    pub in_channels: fn(latents: usize) -> Vec<usize>,
}

/// The pictures that the runs of a family take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::pipeline) enum Pictures {
    /// A picture to begin at a timestep with, and no other.
    AtATimestep,
    /// A picture to begin with, or to fill a part of.
    ToBeginWith,
    /// A picture to enlarge.
    ToEnlarge,
}

/// The share of the schedule that a run walks, from 0 to 1.
#[derive(Clone, Copy, Debug)]
pub(in crate::pipeline) struct Strength {
    /// Strength of a run from a picture.
    pub image: f64,
    /// Strength of a run that fills a part of a picture.
    pub inpaint: f64,
}

/// The strengths of most pipelines unless told otherwise.
const USUAL_STRENGTH: Strength = Strength { image: 0.8, inpaint: 1.0 };

/// The inputs of a network that is told the sizes of its picture.
const SIZES: [&str; 2] = ["added_cond_kwargs.text_embeds", "added_cond_kwargs.time_ids"];

/// The pipeline classes of diffusers that can be run.
pub fn pipeline_classes() -> Vec<&'static str> {
    FAMILIES.iter().flat_map(|family| family.classes).copied().collect()
}

impl Family {
    /// The family of the pipeline class `class`.
    ///
    /// # Errors
    /// If there is no such pipeline here.
    pub fn of(class: &str) -> Result<&'static Self, Error> {
        let unsupported =
            || Error::UnsupportedPipeline { class: class.to_owned(), supported: pipeline_classes().join(", ") };
        FAMILIES.into_iter().find(|family| family.classes.contains(&class)).ok_or_else(unsupported)
    }

    /// Whether the network is told the sizes of the picture and the pooled text.
    pub fn takes_sizes(&self) -> bool {
        self.told == SIZES
    }

    /// The side of latents that its pipelines read in the UNet's config `json` in place of what it says: until diffusers 0.9.0 a
    /// number below 64 was a default that nobody had set. A list of sides is taken at its word.
    pub fn sample_size_of(&self, json: &str) -> Option<usize> {
        let config: Value = serde_json::from_slice(json.as_bytes()).ok()?;
        let old = is_before_0_9(config.get("_diffusers_version")?.as_str()?);
        let small = config.get("sample_size")?.as_u64()? < OLD_SIDE;
        (self.had_small_default && old && small).then_some(OLD_SIDE as usize)
    }
}

/// Channels of the input of a network that may see, beside latents, those of a masked picture and a mask.
fn with_or_without_mask(latents: usize) -> Vec<usize> {
    vec![latents, 2 * latents + 1]
}

/// The scheduler's config as diffusers changes it when it builds the pipeline of a run: the one of the family of `class` that fills
/// the masked part of a picture (`inpaints`), or any other of that family.
///
/// # Errors
/// If there is no such pipeline here.
pub fn scheduler_of(class: &str, inpaints: bool, scheduler: SchedulerConfig) -> Result<SchedulerConfig, Error> {
    (Family::of(class)?.scheduler)(class, inpaints, scheduler)
}

/// Whether the version of a Python package is below 0.9.0, whatever stands behind its numbers.
fn is_before_0_9(version: &str) -> bool {
    let number = |part: &str| part.split(|c: char| !c.is_ascii_digit()).next().and_then(|digits| digits.parse().ok());
    let mut parts = version.trim().trim_start_matches('v').split('.').map(number);
    let (major, minor): (Option<u32>, Option<u32>) = (parts.next().flatten(), parts.next().flatten());
    major == Some(0) && minor.is_none_or(|minor| minor < 9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        for old in ["0.6.0", "0.8.1", "0.8.0.dev0", "0.0.4", "0.3rc1", "v0.2.4", "0", "0.8.10"] {
            assert!(is_before_0_9(old), "{old}");
        }
        for new in ["0.9.0", "0.9.0.dev0", "0.10.0", "0.10.0.dev0", "0.30", "1.0", "main", ""] {
            assert!(!is_before_0_9(new), "{new}");
        }
    }
}
