//! Loads an open checkpoint's weights onto a device.

use super::checkpoint::{Checkpoint, Model};
use super::text_encoder::TextEncoder;
use super::weight_file::{self, HostTable, LoadProgress, WeightFile};
use crate::device::{Device, Weights};
use crate::models::AutoencoderKlConfig;
use crate::pipeline::error::Error;

/// A checkpoint's parts on a device.
#[derive(Debug)]
pub(in crate::pipeline) struct Parts {
    pub device: Device,
    pub model: Model,
    pub unet: Weights,
    /// The upscaler's table of noise levels.
    pub class_embedding: Option<HostTable>,
    pub vae: Option<Weights>,
    /// The model's text encoders.
    pub texts: Vec<TextEncoder>,
}

impl Parts {
    /// Loads the weights of `checkpoint` onto `device`.
    ///
    /// # Errors
    /// As of [`Checkpoint::load`].
    pub async fn load(
        checkpoint: Checkpoint,
        device: Device,
        on_progress: &mut dyn FnMut(LoadProgress),
    ) -> Result<Self, Error> {
        let Checkpoint { model, unet, vae, texts } = checkpoint;
        let files: Vec<WeightFile> = [unet].into_iter().chain(texts).chain(vae).collect();
        let mut loaded = weight_file::load(files, &device, on_progress).await?;
        // As many as there were files, in their order.
        let (unet, tables) = loaded.remove(0);
        let mut loaded = loaded.into_iter();
        let texts = model.texts.iter().zip(loaded.by_ref());
        let texts = texts.map(|((_, config), (weights, tables))| TextEncoder::new(config.clone(), weights, tables));
        let texts = texts.collect::<Result<_, _>>()?;
        let vae = loaded.next().map(|(weights, _)| weights);
        let class_embedding = tables.into_iter().next();
        Ok(Self { device, model, unet, class_embedding, vae, texts })
    }

    /// The autoencoder, where there is one.
    pub fn vae(&self) -> Option<(&AutoencoderKlConfig, &Weights)> {
        self.model.vae.as_ref().zip(self.vae.as_ref())
    }

    /// The weights of the networks that a LoRA can change, by the names of their components.
    pub fn networks(&self) -> Vec<(&'static str, &Weights)> {
        let texts =
            ["text_encoder", "text_encoder_2"].into_iter().zip(self.texts.iter().map(TextEncoder::device_weights));
        [("unet", &self.unet)].into_iter().chain(texts).collect()
    }

    /// The network's input `class_labels` for a class, one row of it.
    pub fn class_label(&self, class: usize) -> Vec<f32> {
        let Some(table) = &self.class_embedding else { return vec![class as f32] };
        let mut row = vec![0.0; table.columns()];
        table.add_row(class, &mut row);
        row
    }
}
