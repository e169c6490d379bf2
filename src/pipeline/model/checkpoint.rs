//! A checkpoint opened: `model_index.json`, the configs, the tokenizers, and the headers of all weights, read and checked.

use serde_json::Value;

use super::denoiser::Denoiser;
use super::family::{Encoder, Family, Pictures, scheduler_of};
use super::layout::{Layout, Note, OpenOptions};
use super::text_encoder::TextEncoder;
use super::weight_file::{HostTable, WeightFile, bytes_of};
use crate::diffusion::{NoiseSchedule, SchedulerConfig};
use crate::graph::{Graph, WeightSpec};
use crate::models::{self, AutoencoderKlConfig, ClipTextConfig};
use crate::pipeline::error::Error;
use crate::pipeline::options::MAX_SIDE;
use crate::text::Tokenizer;
use crate::weights::Source;

/// Numbers of SDXL's `time_ids`: original size, crop, target size.
const TIME_IDS: usize = 6;

/// Whether a checkpoint takes an input picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// An input that is refused.
    Never,
    /// An input that may be given.
    Optional,
    /// An input that must be given.
    Required,
}

/// The description of a checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelInfo {
    /// Kind of the files: a folder as diffusers writes it, or a single file and what that was recognised as.
    pub layout: String,
    /// `_class_name` of the pipeline, such as `StableDiffusionPipeline`.
    pub class: String,
    /// Whether there is a text encoder: whether a prompt says anything.
    pub takes_prompt: bool,
    /// Whether there are two text encoders, each of which may get a prompt of its own, and sizes to be told.
    pub takes_second_prompt: bool,
    /// Whether it takes a picture to begin with, to fill or to enlarge.
    pub takes_image: Takes,
    /// Whether it takes a mask of what to draw anew.
    pub takes_mask: Takes,
    /// Whether a run can begin with a picture at any timestep. False for upscalers, which begin with noise, and for models whose
    /// autoencoder does not take RGB pictures. May be true if `takes_image` is [`Takes::Never`], without a `strength`.
    pub takes_start_timestep: bool,
    /// Whether it enlarges a picture, and takes a `noise_level`.
    pub enlarges: bool,
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
    /// Notes on what its files do not say, or say otherwise, and what was made of it.
    pub notes: Vec<Note>,
}

impl ModelInfo {
    /// An error about latents of a size that the networks cannot be built for.
    pub(in crate::pipeline) fn too_large(&self, height: usize, width: usize, error: models::Error) -> Error {
        let size = format!("{}×{}", width * self.scale_factor, height * self.scale_factor);
        Error::option("width and height", size, format!("this model cannot be run at that size: {error}"))
    }
}

/// All of a checkpoint but its weights.
#[derive(Debug)]
pub(in crate::pipeline) struct Model {
    pub family: &'static Family,
    pub unet: Denoiser,
    pub vae: Option<AutoencoderKlConfig>,
    /// The text encoders in diffusers' order, each with its tokenizer.
    pub texts: Vec<(Tokenizer, ClipTextConfig)>,
    /// The scheduler as the pipeline of a run without a mask uses it; where the model needs one, as `inpaint_scheduler`.
    pub scheduler: SchedulerConfig,
    /// The scheduler as the pipeline of a run with a mask uses it.
    pub inpaint_scheduler: SchedulerConfig,
    /// SDXL: true if an absent negative prompt is a zero embedding rather than that of the empty text.
    pub force_zeros_for_empty_prompt: bool,
    /// Upscaler: the forward process of its input picture, and the furthest that it may go.
    pub low_res: Option<(NoiseSchedule, usize)>,
    pub info: ModelInfo,
}

impl Model {
    /// Channels of the network's input beside those of x_t: a mask and the masked picture, or a small picture.
    pub fn extra_channels(&self) -> usize {
        self.unet.in_channels().saturating_sub(self.info.latent_channels)
    }

    /// Whether the network is told the sizes of the picture and the pooled text.
    pub fn takes_sizes(&self) -> bool {
        self.family.takes_sizes()
    }

    /// Whether an absent negative prompt is an embedding of zeros.
    pub fn zero_negative(&self) -> bool {
        self.takes_sizes() && self.force_zeros_for_empty_prompt
    }

    /// Whether the network is asked twice at this scale, with the prompt and without. A latent consistency model is told the
    /// scale, or was trained at one: diffusers never guides it.
    pub fn guides(&self, guidance_scale: f64) -> bool {
        let guided = self.family.is_guided && self.unet.time_cond_proj_dim().is_none();
        guided && !self.texts.is_empty() && guidance_scale > 1.0
    }

    /// Whether the network says the variance of each step too.
    pub fn learns_variance(&self) -> bool {
        self.unet.out_channels() == 2 * self.info.latent_channels
    }
}

/// A checkpoint of which everything but the weights has been read: what is wrong with it is known by now.
#[derive(Debug)]
pub struct Checkpoint {
    pub(in crate::pipeline) model: Model,
    pub(in crate::pipeline) unet: WeightFile,
    pub(in crate::pipeline) vae: Option<WeightFile>,
    pub(in crate::pipeline) texts: Vec<WeightFile>,
}

impl Checkpoint {
    /// Opens the checkpoint in `source`.
    ///
    /// # Errors
    /// A missing, damaged or unsupported file, by name.
    pub async fn open(source: &dyn Source, options: &OpenOptions<'_>) -> Result<Self, Error> {
        let layout = Layout::open(source, options).await?;
        let class = layout.class().to_owned();
        let family = Family::of(&class)?;
        let mut networks: Vec<_> =
            family.encoders.iter().map(|text| (text.encoder, Some(text.tokenizer))).chain([("unet", None)]).collect();
        networks.extend(family.autoencoder.as_ref().map(|_| ("vae", None)));
        layout.prefetch(&networks);
        let stored_scheduler = layout.scheduler("scheduler").await?;
        let inpaint_scheduler = scheduler_of(&class, true, stored_scheduler.clone())?;
        let unet_json = layout.config("unet").await?;
        let unet_file = layout.path("unet", "config.json");
        let unet_error = |e| Error::model(&unet_file, e);
        let mut vae = None;
        if let Some(autoencoder) = &family.autoencoder {
            let config = AutoencoderKlConfig::from_json(&layout.config("vae").await?);
            let mut config = config.map_err(|e| Error::model(&layout.path("vae", "config.json"), e))?;
            config.scaling_factor = autoencoder.scaling_factor.unwrap_or(config.scaling_factor);
            vae = Some(config);
        }
        let mut unet = (family.denoiser)(&unet_json).map_err(unet_error)?;
        let mut texts = Vec::new();
        for Encoder { tokenizer, encoder } in family.encoders {
            if !layout.has(encoder) {
                let message = format!("there is no `{encoder}`, without which a {class} is not supported");
                return Err(Error::Json { file: "model_index.json".into(), message });
            }
            let config = ClipTextConfig::of_class(&layout.config(encoder).await?, layout.class_of(encoder));
            let config = config.map_err(|e| Error::model(&layout.path(encoder, "config.json"), e))?;
            texts.push((layout.tokenizer(tokenizer).await?, config));
        }
        let low_res = match family.pictures {
            Pictures::ToEnlarge => {
                let schedule = layout.scheduler("low_res_scheduler").await?.noise_schedule()?;
                let levels = unet.tables().iter().map(HostTable::rows).fold(schedule.alphas_cumprod.len(), usize::min);
                let furthest = layout.index("max_noise_level").and_then(Value::as_u64).unwrap_or(350) as usize;
                Some((schedule, furthest.min(levels.saturating_sub(1))))
            }
            _ => None,
        };
        if family.takes_sizes() && texts.last().is_none_or(|(_, text)| text.projection_dim.is_none()) {
            let expected = "a CLIPTextModelWithProjection, whose pooled text the network sees";
            let message = format!("`text_encoder_2` is a CLIPTextModel, expected {expected}");
            return Err(Error::Json { file: "model_index.json".into(), message });
        }
        if let (Denoiser::Conditional(unet), Some(length)) =
            (&mut unet, texts.last().and_then(|(_, text)| text.projection_dim))
        {
            unet.set_text_embeds(length).map_err(unet_error)?;
            if unet.time_ids() != TIME_IDS {
                let message = format!("this network takes {} `time_ids`, which only a refiner does", unet.time_ids());
                return Err(Error::Json { file: unet_file.clone(), message });
            }
        }
        check_fit(&layout, family, &unet, vae.as_ref(), &texts)?;

        let mut text_weights = Vec::new();
        for (Encoder { encoder, .. }, (_, config)) in family.encoders.iter().zip(&texts) {
            let weights = TextEncoder::weights(config);
            let (specs, tables) = weights.map_err(|e| Error::model(&layout.path(encoder, "config.json"), e))?;
            text_weights.push(layout.weights(encoder, specs, tables).await?);
        }
        let graph = unet.graph().map_err(unet_error)?;
        check_inputs(family, &graph).map_err(|message| Error::Json { file: unet_file.clone(), message })?;
        let unet_weights = layout.weights("unet", graph.weights().to_vec(), unet.tables()).await?;
        let vae_weights = match &vae {
            Some(config) => {
                let specs = autoencoder_weights(config);
                let specs = specs.map_err(|e| Error::model(&layout.path("vae", "config.json"), e))?;
                Some(layout.weights("vae", specs, vec![]).await?)
            }
            None => None,
        };

        let scale_factor = vae.as_ref().map_or(1, AutoencoderKlConfig::scale_factor);
        let replaced = family.sample_size_of(&unet_json);
        if let Some(side) = replaced {
            layout.note(format!(
                "{unet_file}: its `sample_size`, from before diffusers 0.9.0, is read as {side}, as diffusers reads it"
            ));
        }
        let sample_size = replaced.map(|side| [side; 2]).or(unet.sample_size());
        let [height, width] = sample_size.unwrap_or(if vae.is_some() { [64, 64] } else { [32, 32] });
        let pixels = |side: usize| {
            let message = || format!("`sample_size` {side} is too large for a vae that enlarges {scale_factor} times");
            let error = || Error::Json { file: unet_file.clone(), message: message() };
            side.checked_mul(scale_factor).filter(|&pixels| pixels <= MAX_SIDE).ok_or_else(error)
        };
        let latent_channels = vae.as_ref().map_or(unet.in_channels(), |vae| vae.latent_channels);
        let fills = unet.in_channels() == 2 * latent_channels + 1;
        let (takes_image, takes_mask) = match family.pictures {
            Pictures::AtATimestep => (Takes::Never, Takes::Never),
            Pictures::ToEnlarge => (Takes::Required, Takes::Never),
            _ if fills => (Takes::Required, Takes::Required),
            _ if vae.as_ref().is_none_or(|vae| vae.in_channels != 3) => (Takes::Never, Takes::Never),
            _ => (Takes::Optional, Takes::Optional),
        };
        let scheduler = match takes_mask {
            Takes::Required => inpaint_scheduler.clone(),
            _ => scheduler_of(&class, false, stored_scheduler)?,
        };
        let info = ModelInfo {
            layout: layout.kind(),
            class,
            takes_prompt: !texts.is_empty(),
            takes_second_prompt: texts.len() > 1,
            takes_image,
            takes_mask,
            takes_start_timestep: match family.pictures {
                Pictures::ToEnlarge => false,
                Pictures::AtATimestep => true,
                Pictures::ToBeginWith => takes_image != Takes::Never,
            },
            enlarges: family.pictures == Pictures::ToEnlarge,
            max_tokens: texts.first().map_or(0, |(_, config)| config.max_position_embeddings),
            height: pixels(height)?,
            width: pixels(width)?,
            scale_factor,
            latent_channels,
            scheduler: scheduler.class_name().to_owned(),
            bytes: bytes_of(text_weights.iter().chain([&unet_weights]).chain(&vae_weights)),
            notes: layout.notes(),
        };
        let force_zeros_for_empty_prompt = match layout.index("force_zeros_for_empty_prompt") {
            Some(value) => value.as_bool().unwrap_or(true),
            None => true,
        };
        let model = Model {
            family,
            unet,
            vae,
            texts,
            scheduler,
            inpaint_scheduler,
            force_zeros_for_empty_prompt,
            low_res,
            info,
        };
        Ok(Self { model, unet: unet_weights, vae: vae_weights, texts: text_weights })
    }

    /// The paths of the weight files that [`Checkpoint::load`] will read.
    pub fn files(&self) -> Vec<&str> {
        self.texts.iter().chain([&self.unet]).chain(&self.vae).flat_map(WeightFile::paths).collect()
    }

    /// The description of the checkpoint.
    pub fn info(&self) -> &ModelInfo {
        &self.model.info
    }

    /// The scheduler that it was saved with, as the pipeline of a run without a mask uses it; with one, where the model needs it.
    pub fn scheduler(&self) -> &SchedulerConfig {
        &self.model.scheduler
    }
}

/// The weights of both halves of an autoencoder.
fn autoencoder_weights(config: &AutoencoderKlConfig) -> Result<Vec<WeightSpec>, models::Error> {
    let side = config.scale_factor();
    let mut specs = config.encoder(1, side, side)?.weights().to_vec();
    specs.extend_from_slice(config.decoder(1, 1, 1)?.weights());
    Ok(specs)
}

/// Whether the network wants to be told what a pipeline of `family` tells it; an error says what it wants.
fn check_inputs(family: &Family, unet: &Graph) -> Result<(), String> {
    let given = |name: &str| match name {
        "sample" | "timestep" | "encoder_hidden_states" | "timestep_cond" => true,
        name => family.told.contains(&name),
    };
    if let Some((name, _)) = unet.inputs().iter().find(|(name, _)| !given(name)) {
        return Err(format!("this network wants `{name}`, which its pipeline does not give"));
    }
    for name in ["added_cond_kwargs.text_embeds", "class_labels"].into_iter().filter(|name| given(name)) {
        if unet.input(name).is_err() {
            return Err(format!("this network does not take `{name}`, which its pipeline gives"));
        }
    }
    Ok(())
}

/// Whether the parts speak of the same latents and the same text.
fn check_fit(
    layout: &Layout,
    family: &Family,
    unet: &Denoiser,
    vae: Option<&AutoencoderKlConfig>,
    texts: &[(Tokenizer, ClipTextConfig)],
) -> Result<(), Error> {
    let misfit = |message: String| Err(Error::Json { file: layout.path("unet", "config.json"), message });
    let (input, output) = (unet.in_channels(), unet.out_channels());
    match vae {
        Some(vae) => {
            let latents = vae.latent_channels;
            if ![1, 3].contains(&vae.out_channels) {
                let message = format!("`out_channels` is {}: a picture has 1 or 3 channels", vae.out_channels);
                return Err(Error::Json { file: layout.path("vae", "config.json"), message });
            }
            if output != latents {
                return misfit(format!("`out_channels` is {output}, the vae's `latent_channels` {latents}"));
            }
            let expected = family.autoencoder.as_ref().map_or(Vec::new(), |vae| (vae.in_channels)(latents));
            if !expected.contains(&input) {
                let expected = expected.iter().map(usize::to_string).collect::<Vec<_>>().join(" or ");
                return misfit(format!("`in_channels` is {input}, a pipeline of this class gives it {expected}"));
            }
        }
        // Twice as many where the network has learned the variance too.
        None if output != input && output != 2 * input => {
            return misfit(format!("`in_channels` is {input} and `out_channels` {output}, which is not supported"));
        }
        None if input != 1 && input != 3 => {
            return misfit(format!("`in_channels` is {input}: without a vae, a picture has 1 or 3 channels"));
        }
        None => {}
    }
    let Denoiser::Conditional(unet) = unet else { return Ok(()) };
    let (wants, gets) = (unet.cross_attention_dim(), texts.iter().map(|(_, text)| text.hidden_size).sum::<usize>());
    if wants != gets {
        let encoders = if texts.len() > 1 { "the text encoders' widths sum to" } else { "the text encoder's is" };
        return misfit(format!("`cross_attention_dim` is {wants}, {encoders} {gets}"));
    }
    for ((tokenizer, text), folder) in texts.iter().zip(["tokenizer", "tokenizer_2"]) {
        if tokenizer.vocab_size() > text.vocab_size {
            let message =
                format!("{} tokens, the text encoder's `vocab_size` is {}", tokenizer.vocab_size(), text.vocab_size);
            return Err(Error::Json { file: layout.path(folder, "vocab.json"), message });
        }
    }
    Ok(())
}
