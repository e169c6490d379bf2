//! Stable Diffusion 1.x and 2.x: one text encoder.

use super::{Autoencoder, Encoder, Family, Pictures, USUAL_STRENGTH, with_or_without_mask};
use crate::pipeline::model::denoiser::Denoiser;

pub(super) const FAMILY: Family = Family {
    classes: &["StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline", "StableDiffusionInpaintPipeline"],
    encoders: &[Encoder { tokenizer: "tokenizer", encoder: "text_encoder" }],
    denoiser: Denoiser::conditional,
    told: &[],
    autoencoder: Some(Autoencoder { scaling_factor: None, in_channels: with_or_without_mask }),
    pictures: Pictures::ToBeginWith,
    scheduler: |_, inpaints, scheduler| {
        Ok(match inpaints {
            true => scheduler.for_stable_diffusion_inpaint_pipeline()?,
            false => scheduler.for_stable_diffusion_pipeline()?,
        })
    },
    strength: USUAL_STRENGTH,
    is_guided: true,
    spreads_steps_of: None,
    unused_layers: 0,
    had_small_default: true,
};
