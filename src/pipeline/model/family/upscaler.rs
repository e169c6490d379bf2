//! Stable Diffusion's upscaler: a small picture, with noise of a level that the network is told, becomes a larger one.

use super::{Autoencoder, Encoder, Family, Pictures, USUAL_STRENGTH};
use crate::pipeline::model::denoiser::Denoiser;

pub(super) const FAMILY: Family = Family {
    classes: &["StableDiffusionUpscalePipeline"],
    encoders: &[Encoder { tokenizer: "tokenizer", encoder: "text_encoder" }],
    denoiser: Denoiser::conditional,
    told: &["class_labels"],
    autoencoder: Some(Autoencoder { scaling_factor: Some(0.08333), in_channels: |latents| vec![latents + 3] }),
    pictures: Pictures::ToEnlarge,
    scheduler: |_, _, scheduler| Ok(scheduler),
    strength: USUAL_STRENGTH,
    is_guided: true,
    spreads_steps_of: None,
    unused_layers: 0,
    had_small_default: false,
};
