//! Loads an open checkpoint's weights onto a device.

use std::cell::{OnceCell, RefCell};
use std::rc::Rc;

use super::Error;
use super::checkpoint::{Checkpoint, Model, ModelInfo};
use super::estimate::Pace;
use super::layout::OpenOptions;
use super::linear_preview::LinearPreview;
use super::text_encoder::TextEncoder;
use super::tiny_vae::TinyVae;
use super::weight_file::{self, HostTable, WeightFile};
use crate::device::{Device, Weights};
use crate::diffusion::SchedulerConfig;
use crate::models::AutoencoderKlConfig;
use crate::weights::Source;

/// How far loading has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadProgress {
    /// Bytes of weights read.
    pub loaded: u64,
    /// Bytes of all weight files.
    pub total: u64,
    /// The file being read.
    pub file: String,
}

impl Checkpoint {
    /// Loads the weights onto `device`.
    ///
    /// # Errors
    /// A file that ends early, by name; or the device's refusal.
    pub async fn load(self, device: Device, on_progress: &mut dyn FnMut(LoadProgress)) -> Result<Pipeline, Error> {
        let Self { model, unet, vae, texts } = self;
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
        let parts = Parts {
            device,
            model,
            unet,
            class_embedding,
            vae,
            texts,
            tiny_vae: RefCell::default(),
            linear_preview: OnceCell::new(),
            pace: Pace::default(),
        };
        Ok(Pipeline { parts: Rc::new(parts) })
    }
}

/// A checkpoint on a device; freed there when it and all its samplers are dropped.
#[derive(Debug, Clone)]
pub struct Pipeline {
    pub(super) parts: Rc<Parts>,
}

/// A checkpoint's parts on a device.
#[derive(Debug)]
pub(super) struct Parts {
    pub device: Device,
    pub model: Model,
    pub unet: Weights,
    /// The upscaler's table of noise levels.
    pub class_embedding: Option<HostTable>,
    pub vae: Option<Weights>,
    /// One for each of the model's text encoders.
    pub texts: Vec<TextEncoder>,
    /// For [`Preview::Tiny`](super::Preview::Tiny).
    pub tiny_vae: RefCell<Option<Rc<TinyVae>>>,
    /// For [`Preview::Linear`](super::Preview::Linear), fitted when it is first asked for.
    pub linear_preview: OnceCell<Rc<LinearPreview>>,
    /// How fast its runs are.
    pub pace: Pace,
}

impl Parts {
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

    /// What the network gets as `class_labels` for a class, one row of it.
    pub fn class_label(&self, class: usize) -> Vec<f32> {
        let Some(table) = &self.class_embedding else { return vec![class as f32] };
        let mut row = vec![0.0; table.columns()];
        table.add_row(class, &mut row);
        row
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

    /// What the checkpoint is.
    pub fn info(&self) -> &ModelInfo {
        &self.parts.model.info
    }

    /// The scheduler that the checkpoint was saved with, as [`Checkpoint::scheduler`].
    pub fn scheduler(&self) -> &SchedulerConfig {
        &self.parts.model.scheduler
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
