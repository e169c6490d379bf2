//! Loads an open checkpoint's weights onto a device.

use std::cell::{OnceCell, RefCell};
use std::rc::Rc;

use super::Error;
use super::checkpoint::{Checkpoint, ModelInfo, Unet};
use super::layout::OpenOptions;
use super::linear_preview::LinearPreview;
use super::text_encoder::TextEncoder;
use super::tiny_vae::TinyVae;
use super::weight_file::WeightFile;
use crate::device::{Device, Weights};
use crate::diffusion::SchedulerConfig;
use crate::models::AutoencoderKlConfig;
use crate::text::Tokenizer;
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
        let Self { unet: (unet, unet_file), vae, text, scheduler, info } = self;
        let mut progress = Progress { before: 0, total: info.bytes, listener: on_progress };
        let text = match text {
            Some((tokenizer, config, file)) => {
                let mut on_bytes = progress.of(&file);
                Some((tokenizer, TextEncoder::load(config, file, &device, &mut on_bytes).await?))
            }
            None => None,
        };
        let (unet_weights, _) = {
            let mut on_bytes = progress.of(&unet_file);
            unet_file.load(&device, &mut on_bytes).await?
        };
        let vae = match vae {
            Some((config, file)) => {
                let mut on_bytes = progress.of(&file);
                Some((config, file.load(&device, &mut on_bytes).await?.0))
            }
            None => None,
        };
        Ok(Pipeline {
            parts: Rc::new(Parts {
                device,
                unet,
                unet_weights,
                vae,
                text,
                scheduler,
                info,
                tiny_vae: RefCell::default(),
                linear_preview: OnceCell::new(),
            }),
        })
    }
}

/// Bytes over all files.
struct Progress<'a> {
    before: u64,
    total: u64,
    listener: &'a mut dyn FnMut(LoadProgress),
}

impl<'a> Progress<'a> {
    /// What tells the listener of the next file's bytes.
    fn of<'p>(&'p mut self, file: &WeightFile) -> impl FnMut(u64) + use<'p, 'a> {
        let (before, path) = (self.before, file.path().to_owned());
        self.before += file.bytes();
        move |loaded| (self.listener)(LoadProgress { loaded: before + loaded, total: self.total, file: path.clone() })
    }
}

/// A checkpoint on a device; freed there when it and all its samplers are dropped.
#[derive(Debug, Clone)]
pub struct Pipeline {
    pub(super) parts: Rc<Parts>,
}

#[derive(Debug)]
pub(super) struct Parts {
    pub device: Device,
    pub unet: Unet,
    pub unet_weights: Weights,
    pub vae: Option<(AutoencoderKlConfig, Weights)>,
    pub text: Option<(Tokenizer, TextEncoder)>,
    pub scheduler: SchedulerConfig,
    pub info: ModelInfo,
    /// For [`Preview::Tiny`](super::Preview::Tiny).
    pub tiny_vae: RefCell<Option<Rc<TinyVae>>>,
    /// For [`Preview::Linear`](super::Preview::Linear), fitted when it is first asked for.
    pub linear_preview: OnceCell<Rc<LinearPreview>>,
}

impl Parts {
    /// The weights of the networks that a LoRA can change, by the names of their components.
    pub fn networks(&self) -> Vec<(&'static str, &Weights)> {
        let text = self.text.iter().map(|(_, encoder)| ("text_encoder", encoder.device_weights()));
        [("unet", &self.unet_weights)].into_iter().chain(text).collect()
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
        &self.parts.info
    }

    /// The scheduler that the checkpoint was saved with, as its pipeline class uses it.
    pub fn scheduler(&self) -> &SchedulerConfig {
        &self.parts.scheduler
    }

    /// The token ids of a prompt, as the text encoder gets them; empty for models without one.
    ///
    /// # Errors
    /// If the text encoder has no room for a text at all.
    pub fn tokenize(&self, prompt: &str) -> Result<Vec<u32>, Error> {
        match &self.parts.text {
            Some((tokenizer, encoder)) => {
                Ok(tokenizer.encode_padded(prompt, encoder.config().max_position_embeddings)?.ids)
            }
            None => Ok(Vec::new()),
        }
    }
}
