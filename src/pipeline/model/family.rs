//! The pipeline classes of diffusers that can be run, and what sets them apart.

use serde_json::Value;

use crate::diffusion::{SchedulerConfig, Solver};
use crate::pipeline::Error;

/// Pipelines that share their networks: which of a family's classes runs is decided by the pictures that are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::pipeline) enum Family {
    /// One text encoder.
    StableDiffusion,
    /// Two text encoders, and the sizes that a picture is said to have.
    StableDiffusionXl,
    /// Guidance that the network has been told of in training.
    LatentConsistency,
    /// A small picture becomes a larger one.
    Upscale,
    /// No text, no autoencoder.
    Unconditional,
}

const CLASSES: [(&str, Family); 11] = [
    ("StableDiffusionPipeline", Family::StableDiffusion),
    ("StableDiffusionImg2ImgPipeline", Family::StableDiffusion),
    ("StableDiffusionInpaintPipeline", Family::StableDiffusion),
    ("StableDiffusionXLPipeline", Family::StableDiffusionXl),
    ("StableDiffusionXLImg2ImgPipeline", Family::StableDiffusionXl),
    ("StableDiffusionXLInpaintPipeline", Family::StableDiffusionXl),
    ("LatentConsistencyModelPipeline", Family::LatentConsistency),
    ("LatentConsistencyModelImg2ImgPipeline", Family::LatentConsistency),
    ("StableDiffusionUpscalePipeline", Family::Upscale),
    ("DDPMPipeline", Family::Unconditional),
    ("DDIMPipeline", Family::Unconditional),
];

/// The pipeline classes of diffusers that can be run.
pub fn pipeline_classes() -> [&'static str; CLASSES.len()] {
    CLASSES.map(|(name, _)| name)
}

impl Family {
    /// The family of the pipeline class `class`.
    ///
    /// # Errors
    /// If there is no such pipeline here.
    pub fn of(class: &str) -> Result<Self, Error> {
        let found = CLASSES.iter().find(|(name, _)| *name == class);
        let unsupported =
            || Error::UnsupportedPipeline { class: class.to_owned(), supported: pipeline_classes().join(", ") };
        found.map(|&(_, family)| family).ok_or_else(unsupported)
    }
}

/// The scheduler's config as diffusers changes it when it builds the pipeline of a run: the one of the family of `class` that fills
/// the masked part of a picture (`inpaints`), or any other of that family.
///
/// # Errors
/// If there is no such pipeline here.
pub fn scheduler_of(class: &str, inpaints: bool, scheduler: SchedulerConfig) -> Result<SchedulerConfig, Error> {
    Ok(match (Family::of(class)?, inpaints) {
        // A latent consistency model has no class of its own for this.
        (Family::StableDiffusion | Family::LatentConsistency, true) => {
            scheduler.for_stable_diffusion_inpaint_pipeline()?
        }
        (Family::StableDiffusion, false) => scheduler.for_stable_diffusion_pipeline()?,
        _ if class == "DDIMPipeline" => scheduler.swap_to(Solver::Ddim)?,
        _ => scheduler,
    })
}

/// The side of latents that a pipeline of `family` reads in the UNet's config `json` in place of what it says: until diffusers 0.9.0 a number
/// below 64 was a default that nobody had set. A list of sides is taken at its word.
pub fn sample_size_of(family: Family, json: &str) -> Option<usize> {
    const SIDE: u64 = 64;
    let config: Value = serde_json::from_slice(json.as_bytes()).ok()?;
    let old = is_before_0_9(config.get("_diffusers_version")?.as_str()?);
    let small = config.get("sample_size")?.as_u64()? < SIDE;
    (family == Family::StableDiffusion && old && small).then_some(SIDE as usize)
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
