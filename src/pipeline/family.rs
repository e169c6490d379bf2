//! The pipeline classes of diffusers that can be run, and what sets them apart.

use super::Error;
use crate::diffusion::{SchedulerConfig, Solver};

/// Pipelines that share their networks: which of a family's classes runs is decided by the pictures that are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
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

/// The scheduler's config as a pipeline of `class` changes it when it is built.
///
/// # Errors
/// If there is no such pipeline here.
pub fn scheduler_of(class: &str, scheduler: SchedulerConfig) -> Result<SchedulerConfig, Error> {
    Ok(match (Family::of(class)?, class) {
        (Family::StableDiffusion, "StableDiffusionInpaintPipeline") => {
            scheduler.for_stable_diffusion_inpaint_pipeline()?
        }
        (Family::StableDiffusion, _) => scheduler.for_stable_diffusion_pipeline()?,
        (_, "DDIMPipeline") => scheduler.swap_to(Solver::Ddim)?,
        _ => scheduler,
    })
}
