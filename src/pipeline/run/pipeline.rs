//! A checkpoint on a device, which runs can be asked of.

use std::rc::Rc;

use super::pace::Pace;
use crate::device::Device;
use crate::diffusion::SchedulerConfig;
use crate::pipeline::error::Error;
use crate::pipeline::model::checkpoint::{Checkpoint, ModelInfo};
use crate::pipeline::model::layout::OpenOptions;
use crate::pipeline::model::load::Parts;
use crate::pipeline::model::weight_file::LoadProgress;
use crate::pipeline::pictures::preview::Previews;
use crate::pipeline::pictures::tiny_vae::TinyVae;
use crate::weights::Source;

/// A checkpoint on a device; freed there when it and all its samplers are dropped.
#[derive(Debug, Clone)]
pub struct Pipeline {
    pub(in crate::pipeline) parts: Rc<Parts>,
    /// Means of previews besides the checkpoint's own autoencoder.
    pub(in crate::pipeline) previews: Rc<Previews>,
    /// The speed of its runs.
    pub(in crate::pipeline) pace: Pace,
}

impl Checkpoint {
    /// Loads the weights onto `device`.
    ///
    /// # Errors
    /// A file that ends early, by name; or the device's refusal.
    pub async fn load(self, device: Device, on_progress: &mut dyn FnMut(LoadProgress)) -> Result<Pipeline, Error> {
        let parts = Rc::new(Parts::load(self, device, on_progress).await?);
        Ok(Pipeline { parts, previews: Rc::default(), pace: Pace::default() })
    }
}

impl Pipeline {
    /// Loads the checkpoint in `source` onto `device`: [`Checkpoint::open`], then [`Checkpoint::load`].
    ///
    /// # Errors
    /// A missing, damaged or unsupported file, by name; or the device's refusal.
    pub async fn load(
        source: &dyn Source,
        device: Device,
        on_progress: &mut dyn FnMut(LoadProgress),
    ) -> Result<Self, Error> {
        Checkpoint::open(source, &OpenOptions::default()).await?.load(device, on_progress).await
    }

    /// The description of the checkpoint.
    pub fn info(&self) -> &ModelInfo {
        &self.parts.model.info
    }

    /// The scheduler that the checkpoint was saved with, as [`Checkpoint::scheduler`].
    pub fn scheduler(&self) -> &SchedulerConfig {
        &self.parts.model.scheduler
    }

    /// Gives the pipeline the `AutoencoderTiny` in `source`, such as TAESD: a folder with its `config.json` and weights.
    /// Runs that start from now on paint their previews with it; see [`Preview`](crate::pipeline::Preview). `on_bytes` gets the bytes
    /// read so far and those of the whole file.
    ///
    /// # Errors
    /// A missing, damaged or unsupported file, by name; one that is for other latents than this model's; or the device's
    /// refusal.
    pub async fn set_tiny_vae(&self, source: &dyn Source, on_bytes: &mut dyn FnMut(u64, u64)) -> Result<(), Error> {
        self.previews.set_tiny_vae(TinyVae::load(&self.parts, source, on_bytes).await?);
        Ok(())
    }

    /// The token ids of a prompt, as the first text encoder gets them; empty for models without one.
    ///
    /// # Errors
    /// If the text encoder has no room for a text at all.
    pub fn tokenize(&self, prompt: &str) -> Result<Vec<u32>, Error> {
        match self.parts.model.texts.first() {
            Some((tokenizer, config)) => Ok(tokenizer.encode_padded(prompt, config.max_position_embeddings)?.ids),
            None => Ok(Vec::new()),
        }
    }
}
