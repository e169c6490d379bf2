//! Opens a checkpoint: `model_index.json`, the configs, the tokenizer, and all weights onto a device.

use std::rc::Rc;

use serde_json::{Map, Value};

use super::Error;
use super::component::load_weights;
use super::text_encoder::TextEncoder;
use crate::device::{Device, Weights};
use crate::diffusion::SchedulerConfig;
use crate::models::{AutoencoderKlConfig, ClipTextConfig, Unet2dConditionConfig, Unet2dConditionInputs, Unet2dConfig};
use crate::text::Tokenizer;
use crate::weights::{self, SafetensorsReader, Source, read_small};

/// Configs are a few kilobytes; a vocabulary with its merges can be megabytes.
pub(super) const MAX_CONFIG: usize = 1 << 20;
const MAX_TOKENIZER: usize = 64 << 20;

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

/// What a checkpoint is.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelInfo {
    /// `_class_name` of the pipeline, such as `StableDiffusionPipeline`.
    pub class: String,
    /// Whether there is a text encoder: whether a prompt says anything.
    pub takes_prompt: bool,
    /// Most tokens of a prompt, with the two that open and close it.
    pub max_tokens: usize,
    /// Height in pixels that it was trained at.
    pub height: usize,
    /// Width in pixels that it was trained at.
    pub width: usize,
    /// Sides must be multiples of this.
    pub scale_factor: usize,
    /// Channels of x_t.
    pub latent_channels: usize,
    /// `_class_name` of its scheduler.
    pub scheduler: String,
    /// Bytes of all weight files.
    pub bytes: u64,
}

/// The noise predictor.
#[derive(Debug)]
pub(super) enum Unet {
    Unconditional(Unet2dConfig),
    Conditional(Unet2dConditionConfig),
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
}

impl Pipeline {
    /// Loads the checkpoint in `source` onto `device`.
    ///
    /// # Errors
    /// A missing, damaged or unsupported file, by name; or the device's refusal.
    pub async fn load(
        source: &dyn Source,
        device: Device,
        on_progress: &mut dyn FnMut(LoadProgress),
    ) -> Result<Self, Error> {
        let index = read_json(source, "model_index.json").await?;
        let class = index.get("_class_name").and_then(Value::as_str).unwrap_or_default().to_owned();
        let scheduler_json = read_text(source, "scheduler/scheduler_config.json").await?;
        let scheduler = SchedulerConfig::from_json(&scheduler_json)?;
        let scheduler = match class.as_str() {
            "StableDiffusionPipeline" => scheduler.for_stable_diffusion_pipeline()?,
            "DDPMPipeline" => scheduler,
            "DDIMPipeline" => scheduler.swap_to(crate::diffusion::Solver::Ddim)?,
            _ => {
                let supported = "StableDiffusionPipeline, DDPMPipeline and DDIMPipeline";
                return Err(Error::UnsupportedPipeline { class, supported });
            }
        };
        let conditional = class == "StableDiffusionPipeline";
        let unet_json = read_text(source, "unet/config.json").await?;
        let unet_error = |e| Error::model("unet", e);
        let unet = match conditional {
            true => Unet::Conditional(Unet2dConditionConfig::from_json(&unet_json).map_err(unet_error)?),
            false => Unet::Unconditional(Unet2dConfig::from_json(&unet_json).map_err(unet_error)?),
        };
        let vae = match conditional {
            true => {
                let json = read_text(source, "vae/config.json").await?;
                Some(AutoencoderKlConfig::from_json(&json).map_err(|e| Error::model("vae", e))?)
            }
            false => None,
        };
        let text = match conditional {
            true => {
                let json = read_text(source, "text_encoder/config.json").await?;
                let config = ClipTextConfig::from_json(&json).map_err(|e| Error::model("text_encoder", e))?;
                Some((read_tokenizer(source).await?, config))
            }
            false => None,
        };
        check_fit(&unet, vae.as_ref(), text.as_ref())?;

        // All headers first: then the total is known before the first weight arrives.
        let mut total = 0;
        let mut open = async |path| -> Result<SafetensorsReader, Error> {
            let reader = SafetensorsReader::open(source, path).await?;
            total += reader.total_bytes();
            Ok(reader)
        };
        let text_file = match &text {
            Some(_) => Some(open("text_encoder/model.safetensors").await?),
            None => None,
        };
        let unet_file = open("unet/diffusion_pytorch_model.safetensors").await?;
        let vae_file = match &vae {
            Some(_) => Some(open("vae/diffusion_pytorch_model.safetensors").await?),
            None => None,
        };

        let info = info(class, &unet, vae.as_ref(), text.as_ref(), &scheduler, total)?;
        let mut before = 0;
        let mut progress = |file: &str, length: u64, loaded: u64| {
            on_progress(LoadProgress { loaded: before + loaded, total, file: file.to_owned() });
            if loaded == length {
                before += length;
            }
        };
        let text = match (text, text_file) {
            (Some((tokenizer, config)), Some(reader)) => {
                let (file, length) = (reader.file().to_owned(), reader.total_bytes());
                let mut on_bytes = |loaded| progress(&file, length, loaded);
                Some((tokenizer, TextEncoder::load(config, reader, &device, &mut on_bytes).await?))
            }
            _ => None,
        };
        let specs = unet_graph_specs(&unet).map_err(unet_error)?;
        let (file, length) = (unet_file.file().to_owned(), unet_file.total_bytes());
        let mut on_bytes = |loaded| progress(&file, length, loaded);
        let unet_weights = load_weights(unet_file, &device, &specs, &mut [], &mut on_bytes).await?;
        let vae = match (vae, vae_file) {
            (Some(config), Some(reader)) => {
                let graph = config.preview(1, 1, 1).map_err(|e| Error::model("vae", e))?;
                let (file, length) = (reader.file().to_owned(), reader.total_bytes());
                let mut on_bytes = |loaded| progress(&file, length, loaded);
                let weights = load_weights(reader, &device, graph.weights(), &mut [], &mut on_bytes).await?;
                Some((config, weights))
            }
            _ => None,
        };
        Ok(Self { parts: Rc::new(Parts { device, unet, unet_weights, vae, text, scheduler, info }) })
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

/// Whether the three parts speak of the same latents and the same text.
fn check_fit(
    unet: &Unet,
    vae: Option<&AutoencoderKlConfig>,
    text: Option<&(Tokenizer, ClipTextConfig)>,
) -> Result<(), Error> {
    let misfit = |message: String| Err(Error::Json { file: "unet/config.json".into(), message });
    let (input, output) = match unet {
        Unet::Unconditional(config) => (config.in_channels, config.out_channels),
        Unet::Conditional(config) => (config.in_channels, config.out_channels),
    };
    if input != output {
        let what = match input {
            9 => "an inpainting model",
            7 => "an upscaling model",
            _ => "another kind of model",
        };
        return misfit(format!("`in_channels` is {input} and `out_channels` {output}: {what}, which is not supported"));
    }
    match vae {
        Some(vae) if vae.latent_channels != input => {
            return misfit(format!("`in_channels` is {input}, the vae's `latent_channels` {}", vae.latent_channels));
        }
        None if input != 1 && input != 3 => {
            return misfit(format!("`in_channels` is {input}: without a vae, a picture has 1 or 3 channels"));
        }
        _ => {}
    }
    if let (Unet::Conditional(unet), Some((tokenizer, text))) = (unet, text) {
        if unet.cross_attention_dim() != text.hidden_size {
            let (wants, gets) = (unet.cross_attention_dim(), text.hidden_size);
            return misfit(format!("`cross_attention_dim` is {wants}, the text encoder's `hidden_size` {gets}"));
        }
        if tokenizer.vocab_size() > text.vocab_size {
            let message =
                format!("{} tokens, the text encoder's `vocab_size` is {}", tokenizer.vocab_size(), text.vocab_size);
            return Err(Error::Json { file: "tokenizer/vocab.json".into(), message });
        }
    }
    Ok(())
}

fn info(
    class: String,
    unet: &Unet,
    vae: Option<&AutoencoderKlConfig>,
    text: Option<&(Tokenizer, ClipTextConfig)>,
    scheduler: &SchedulerConfig,
    bytes: u64,
) -> Result<ModelInfo, Error> {
    let (sample_size, latent_channels) = match unet {
        Unet::Unconditional(config) => (config.sample_size, config.in_channels),
        Unet::Conditional(config) => (config.sample_size, config.in_channels),
    };
    let scale_factor = vae.map_or(1, AutoencoderKlConfig::scale_factor);
    let [height, width] = sample_size.unwrap_or(if vae.is_some() { [64, 64] } else { [32, 32] });
    Ok(ModelInfo {
        class,
        takes_prompt: text.is_some(),
        max_tokens: text.map_or(0, |(_, config)| config.max_position_embeddings),
        height: height * scale_factor,
        width: width * scale_factor,
        scale_factor,
        latent_channels,
        scheduler: scheduler.class_name().to_owned(),
        bytes,
    })
}

/// The weights that the noise predictor needs, which do not depend on the size of its inputs. The side is large enough for
/// every down block.
fn unet_graph_specs(unet: &Unet) -> Result<Vec<crate::graph::WeightSpec>, crate::models::Error> {
    const SIDE: usize = 64;
    let graph = match unet {
        Unet::Unconditional(config) => config.graph(1, SIDE, SIDE)?,
        Unet::Conditional(config) => {
            let inputs = Unet2dConditionInputs { batch: 1, height: SIDE, width: SIDE, tokens: 1, timestep_cond: false };
            config.graph(inputs)?
        }
    };
    Ok(graph.weights().to_vec())
}

pub(super) async fn read_text(source: &dyn Source, path: &str) -> Result<String, Error> {
    let bytes = read_small(source, path, MAX_CONFIG).await?;
    String::from_utf8(bytes).map_err(|_| Error::Json { file: path.to_owned(), message: "not UTF-8 text".into() })
}

pub(super) async fn read_json(source: &dyn Source, path: &str) -> Result<Map<String, Value>, Error> {
    let text = read_text(source, path).await?;
    serde_json::from_str(&text).map_err(|e| Error::Json { file: path.to_owned(), message: e.to_string() })
}

/// The tokenizer from `vocab.json` and `merges.txt`, or where there is no vocabulary from `tokenizer.json`.
async fn read_tokenizer(source: &dyn Source) -> Result<Tokenizer, Error> {
    let optional = async |path: &str| match read_small(source, path, MAX_TOKENIZER).await {
        Ok(bytes) => Ok(Some(bytes)),
        Err(weights::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    };
    let config = optional("tokenizer/tokenizer_config.json").await?;
    let Some(vocab) = optional("tokenizer/vocab.json").await? else {
        let json = match optional("tokenizer/tokenizer.json").await? {
            Some(json) => json,
            // Neither file: the error names the one that most checkpoints have.
            None => read_small(source, "tokenizer/vocab.json", MAX_TOKENIZER).await?,
        };
        return Ok(Tokenizer::from_tokenizer_json(&json, config.as_deref())?);
    };
    let merges = read_small(source, "tokenizer/merges.txt", MAX_TOKENIZER).await?;
    let special = optional("tokenizer/special_tokens_map.json").await?;
    Ok(Tokenizer::from_files(&vocab, &merges, config.as_deref(), special.as_deref())?)
}
