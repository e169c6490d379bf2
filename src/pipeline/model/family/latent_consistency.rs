//! Latent consistency models: a Stable Diffusion whose network was told of guidance in training, and is asked once.

use super::{Autoencoder, Encoder, Family, Pictures, USUAL_STRENGTH, with_or_without_mask};
use crate::diffusion::Solver;
use crate::pipeline::model::denoiser::Denoiser;

pub(super) const FAMILY: Family = Family {
    classes: &["LatentConsistencyModelPipeline", "LatentConsistencyModelImg2ImgPipeline"],
    encoders: &[Encoder { tokenizer: "tokenizer", encoder: "text_encoder" }],
    denoiser: Denoiser::conditional,
    told: &[],
    autoencoder: Some(Autoencoder { scaling_factor: None, in_channels: with_or_without_mask }),
    pictures: Pictures::ToBeginWith,
    scheduler: |_, inpaints, scheduler| {
        Ok(match inpaints {
            // There is no class of its own for this.
            true => scheduler.for_stable_diffusion_inpaint_pipeline()?,
            false => scheduler,
        })
    },
    strength: USUAL_STRENGTH,
    is_guided: false,
    spreads_steps_of: Some(Solver::Lcm),
    unused_layers: 0,
    had_small_default: false,
};
