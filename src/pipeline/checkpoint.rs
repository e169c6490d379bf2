//! A checkpoint opened: `model_index.json`, the configs, the tokenizer, and the headers of all weights, read and checked.

use super::Error;
use super::layout::{Layout, OpenOptions};
use super::text_encoder::TextEncoder;
use super::weight_file::{WeightFile, bytes_of};
use crate::diffusion::{SchedulerConfig, Solver};
use crate::graph::WeightSpec;
use crate::models::{
    self, AutoencoderKlConfig, ClipTextConfig, Unet2dConditionConfig, Unet2dConditionInputs, Unet2dConfig,
};
use crate::text::Tokenizer;
use crate::weights::Source;

/// Longest side of a picture, in pixels.
pub(super) const MAX_SIDE: usize = 1 << 13;

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

impl ModelInfo {
    /// An error about latents of a size that the networks cannot be built for.
    pub(super) fn too_large(&self, height: usize, width: usize, error: models::Error) -> Error {
        let size = format!("{}×{}", width * self.scale_factor, height * self.scale_factor);
        Error::option("width and height", size, format!("this model cannot be run at that size: {error}"))
    }
}

/// The noise predictor.
#[derive(Debug)]
pub(super) enum Unet {
    Unconditional(Unet2dConfig),
    Conditional(Unet2dConditionConfig),
}

/// A checkpoint of which everything but the weights has been read: what is wrong with it is known by now.
#[derive(Debug)]
pub struct Checkpoint {
    pub(super) unet: (Unet, WeightFile),
    pub(super) vae: Option<(AutoencoderKlConfig, WeightFile)>,
    pub(super) text: Option<(Tokenizer, ClipTextConfig, WeightFile)>,
    pub(super) scheduler: SchedulerConfig,
    pub(super) info: ModelInfo,
}

impl Checkpoint {
    /// Opens the checkpoint in `source`.
    ///
    /// # Errors
    /// A missing, damaged or unsupported file, by name.
    pub async fn open(source: &dyn Source, options: &OpenOptions<'_>) -> Result<Self, Error> {
        let layout = Layout::open(source, options).await?;
        let class = layout.class().to_owned();
        let scheduler = scheduler_of(&class, layout.scheduler("scheduler").await?)?;
        let unet_json = layout.config("unet").await?;
        let (unet, vae, text) = if class == "StableDiffusionPipeline" {
            let unet = Unet2dConditionConfig::from_json(&unet_json).map_err(|e| Error::model("unet/config.json", e))?;
            let vae = AutoencoderKlConfig::from_json(&layout.config("vae").await?)
                .map_err(|e| Error::model("vae/config.json", e))?;
            let text = ClipTextConfig::from_json(&layout.config("text_encoder").await?)
                .map_err(|e| Error::model("text_encoder/config.json", e))?;
            (Unet::Conditional(unet), Some(vae), Some((layout.tokenizer("tokenizer").await?, text)))
        } else {
            let unet = Unet2dConfig::from_json(&unet_json).map_err(|e| Error::model("unet/config.json", e))?;
            (Unet::Unconditional(unet), None, None)
        };
        check_fit(&unet, vae.as_ref(), text.as_ref())?;

        let text = match text {
            Some((tokenizer, config)) => {
                let (specs, tables) = TextEncoder::weights(&config)?;
                let file = layout.weights("text_encoder", specs, tables).await?;
                Some((tokenizer, config, file))
            }
            None => None,
        };
        let specs = unet.weights()?;
        let unet_file = layout.weights("unet", specs, vec![]).await?;
        let vae = match vae {
            Some(config) => {
                let graph = config.decoder(1, 1, 1).map_err(|e| Error::model("vae/config.json", e))?;
                let file = layout.weights("vae", graph.weights().to_vec(), vec![]).await?;
                Some((config, file))
            }
            None => None,
        };

        let (sample_size, latent_channels) = match &unet {
            Unet::Unconditional(config) => (config.sample_size, config.in_channels),
            Unet::Conditional(config) => (config.sample_size, config.in_channels),
        };
        let scale_factor = vae.as_ref().map_or(1, |(config, _)| config.scale_factor());
        let [height, width] = sample_size.unwrap_or(if vae.is_some() { [64, 64] } else { [32, 32] });
        let pixels = |side: usize| {
            let message = || format!("`sample_size` {side} is too large for a vae that enlarges {scale_factor} times");
            let error = || Error::Json { file: "unet/config.json".into(), message: message() };
            side.checked_mul(scale_factor).filter(|&pixels| pixels <= MAX_SIDE).ok_or_else(error)
        };
        let files = [Some(&unet_file), vae.as_ref().map(|(_, file)| file), text.as_ref().map(|(_, _, file)| file)];
        let info = ModelInfo {
            class,
            takes_prompt: text.is_some(),
            max_tokens: text.as_ref().map_or(0, |(_, config, _)| config.max_position_embeddings),
            height: pixels(height)?,
            width: pixels(width)?,
            scale_factor,
            latent_channels,
            scheduler: scheduler.class_name().to_owned(),
            bytes: bytes_of(files.into_iter().flatten()),
        };
        Ok(Self { unet: (unet, unet_file), vae, text, scheduler, info })
    }

    /// What it is.
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// The scheduler that it was saved with, as its pipeline class uses it.
    pub fn scheduler(&self) -> &SchedulerConfig {
        &self.scheduler
    }
}

/// The scheduler's config as a pipeline of `class` changes it when it is built.
///
/// # Errors
/// If there is no such pipeline here.
pub fn scheduler_of(class: &str, scheduler: SchedulerConfig) -> Result<SchedulerConfig, Error> {
    match class {
        "StableDiffusionPipeline" => Ok(scheduler.for_stable_diffusion_pipeline()?),
        "DDPMPipeline" => Ok(scheduler),
        "DDIMPipeline" => Ok(scheduler.swap_to(Solver::Ddim)?),
        _ => {
            let supported = "StableDiffusionPipeline, DDPMPipeline and DDIMPipeline";
            Err(Error::UnsupportedPipeline { class: class.to_owned(), supported })
        }
    }
}

impl Unet {
    /// The weights that it needs, which do not depend on the size of its inputs.
    ///
    /// # Errors
    /// If the config's numbers do not fit each other, or if the network wants to be told what no pipeline here tells it.
    fn weights(&self) -> Result<Vec<WeightSpec>, Error> {
        // Large enough for every down block.
        const SIDE: usize = 64;
        let graph = match self {
            Unet::Unconditional(config) => config.graph(1, SIDE, SIDE),
            Unet::Conditional(config) => {
                let timestep_cond = config.time_cond_proj_dim.is_some();
                config.graph(Unet2dConditionInputs { batch: 1, height: SIDE, width: SIDE, tokens: 1, timestep_cond })
            }
        };
        let graph = graph.map_err(|e| Error::model("unet/config.json", e))?;
        let given = |name: &str| matches!(name, "sample" | "timestep" | "encoder_hidden_states");
        match graph.inputs().iter().find(|(name, _)| !given(name)) {
            Some((name, _)) => {
                let message = format!("this network wants `{name}`, which no supported pipeline gives");
                Err(Error::Json { file: "unet/config.json".into(), message })
            }
            None => Ok(graph.weights().to_vec()),
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
