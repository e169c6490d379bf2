//! Stable Diffusion XL: two text encoders, and the sizes that a picture is said to have.

use super::{Autoencoder, Encoder, Family, Pictures, SIZES, Strength, with_or_without_mask};
use crate::pipeline::model::denoiser::Denoiser;

pub(super) const FAMILY: Family = Family {
    classes: &["StableDiffusionXLPipeline", "StableDiffusionXLImg2ImgPipeline", "StableDiffusionXLInpaintPipeline"],
    encoders: &[
        Encoder { tokenizer: "tokenizer", encoder: "text_encoder" },
        Encoder { tokenizer: "tokenizer_2", encoder: "text_encoder_2" },
    ],
    denoiser: Denoiser::conditional,
    told: &SIZES,
    autoencoder: Some(Autoencoder { scaling_factor: None, in_channels: with_or_without_mask }),
    pictures: Pictures::ToBeginWith,
    scheduler: |_, _, scheduler| Ok(scheduler),
    strength: Strength { image: 0.3, inpaint: 0.9999 },
    is_guided: true,
    spreads_steps_of: None,
    unused_layers: 1,
    had_small_default: false,
};
