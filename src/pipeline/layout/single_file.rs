//! Checkpoints in one file, under LDM's names: what they are is told by their tensors, and the configs that diffusers
//! keeps in files of their own are made from shapes, and from what all models of a kind have in common.

use serde_json::{Map, Value, json};

use super::ldm;
use super::names::{Naming, Tensors};
use crate::pipeline::Error;
use crate::pipeline::textual_inversion::{TEXTUAL_INVERSION, is_textual_inversion};
use crate::weights::{TensorFile, TensorInfo};

/// Where the UNet is, in all of them.
const UNET: &str = "model.diffusion_model.";
/// Where the VAE is, in all of them.
const VAE: &str = "first_stage_model.";

/// A checkpoint in one file, and what a folder would say of it.
pub(super) struct SingleFile {
    /// What it is, for people.
    pub kind: &'static str,
    /// `model_index.json`.
    pub index: Map<String, Value>,
    /// Each component's config, under the component's name.
    pub configs: Map<String, Value>,
    /// How the file calls the weights of each network, under the component's name.
    naming: Vec<(&'static str, Naming)>,
}

impl SingleFile {
    /// Recognises `file`. `v_prediction` says what the network predicts, where the caller knows it: v or ε.
    ///
    /// # Errors
    /// If it is not a whole checkpoint of Stable Diffusion 1.x, 2.x or XL; with what it is instead, as far as that can be
    /// told.
    pub fn recognise(file: &TensorFile, v_prediction: Option<bool>) -> Result<Self, Error> {
        let refused = |found: String| Error::SingleFile { file: file.file().to_owned(), found };
        let unknown =
            |network: &str, reason: String| refused(format!("a checkpoint with an unknown {network}: {reason}"));
        let of = |prefix: &str| Tensors::new(file.tensors(), prefix);
        let (unet, vae) = (of(UNET), of(VAE));
        let family = FAMILIES.iter().find(|family| family.encoders.iter().all(|encoder| encoder.is_in(file)));
        let Some(family) = family.filter(|_| unet.has("input_blocks") && vae.has("decoder")) else {
            return Err(refused(what_it_is(file)));
        };
        if let Some((_, what)) = MARKED.iter().find(|(tensor, _)| has_tensor(file, tensor)) {
            return Err(refused((*what).to_owned()));
        }
        let additions = unet.side("label_emb.0.0.weight", 1);
        let unet = ldm::unet(&unet).map_err(|reason| unknown("UNet", reason))?;
        let vae = ldm::vae(&vae).map_err(|reason| unknown("VAE", reason))?;
        let mut naming =
            vec![("unet", Naming::modules(UNET, unet.modules)), ("vae", Naming::modules(VAE, vae.modules))];
        let (mut unet, mut vae) = (unet.config, vae.config);

        let class = family.class(unet["in_channels"].as_u64()).map_err(refused)?;
        let v_prediction = v_prediction.unwrap_or_else(|| family.v_prediction(file, class));
        unet["sample_size"] = json!(if v_prediction { family.sample_size_v } else { family.sample_size });
        unet["attention_head_dim"] = family.heads(&unet["block_out_channels"]);
        vae["scaling_factor"] = json!(family.scaling_factor);
        let scheduler = family.scheduler(v_prediction, has_tensor(file, "ztsnr"), class);
        let mut index = json!({
            "_class_name": class,
            "scheduler": ["diffusers", scheduler["_class_name"]],
            "unet": ["diffusers", "UNet2DConditionModel"],
            "vae": ["diffusers", "AutoencoderKL"],
        });
        let mut configs = Map::new();
        configs.insert("scheduler".to_owned(), scheduler);
        configs.insert("vae".to_owned(), vae);
        for encoder in family.encoders {
            let config = encoder.config(&of(encoder.prefix)).map_err(|reason| unknown("text encoder", reason))?;
            if encoder.projects {
                // Six sizes are embedded, and stand behind the pooled text.
                let additions = additions.ok_or_else(|| unknown("UNet", "there is no `label_emb`".into()))?;
                let pooled = config["projection_dim"].as_u64().unwrap_or_default() as usize;
                unet["addition_embed_type"] = json!("text_time");
                unet["projection_class_embeddings_input_dim"] = json!(additions);
                unet["addition_time_embed_dim"] = json!(additions.saturating_sub(pooled) / 6);
                index["force_zeros_for_empty_prompt"] = json!(true);
            } else if additions.is_some() && family.encoders.len() == 1 {
                return Err(refused("an unCLIP model, which takes the embedding of a picture".into()));
            }
            index[encoder.name] = json!(["transformers", config["architectures"][0]]);
            index[encoder.tokenizer] = json!(["transformers", "CLIPTokenizer"]);
            configs.insert(encoder.name.to_owned(), config);
            let tokenizer = json!({ "model_max_length": 77, "pad_token": encoder.pad_token });
            configs.insert(encoder.tokenizer.to_owned(), tokenizer);
            naming.push((encoder.name, encoder.naming()));
        }
        configs.insert("unet".to_owned(), unet);
        let index = index.as_object().cloned().unwrap_or_default();
        Ok(Self { kind: family.name, index, configs, naming })
    }

    /// How the file calls the weights of `component`, if that is a network of the checkpoint.
    pub fn naming(&self, component: &str) -> Option<&Naming> {
        self.naming.iter().find(|(name, _)| *name == component).map(|(_, naming)| naming)
    }
}

/// Tensors that mark models of a known shape that are not run as others of it are, and what those models are.
const MARKED: [(&str, &str); 2] = [
    ("edm_mean", "a checkpoint of Playground v2.5, whose normalised latents and EDM formulation are not supported"),
    ("edm_vpred.sigma_max", "a checkpoint of CosXL, whose EDM formulation is not supported"),
];

/// What the checkpoints of a kind have in common and no shape tells.
struct Family {
    name: &'static str,
    encoders: &'static [Encoder],
    /// Pipelines for a UNet of 4 and of 9 channels.
    classes: [&'static str; 2],
    /// Side of the latents of training, for models that predict ε and for those that predict v.
    sample_size: usize,
    sample_size_v: usize,
    /// Whether attention has 8 heads; otherwise, heads have 64 channels.
    eight_heads: bool,
    scaling_factor: f64,
    /// Whether nothing but the caller can tell v from ε, and v is the likelier.
    mostly_v: bool,
}

/// The first whose text encoders are all there is it.
const FAMILIES: [Family; 3] = [
    Family {
        name: "Stable Diffusion XL",
        encoders: &[
            Encoder {
                name: "text_encoder",
                tokenizer: "tokenizer",
                prefix: "conditioner.embedders.0.transformer.",
                open_clip: false,
                projects: false,
                unused_layers: 0,
                pad_token: "<|endoftext|>",
            },
            Encoder {
                name: "text_encoder_2",
                tokenizer: "tokenizer_2",
                prefix: "conditioner.embedders.1.model.",
                open_clip: true,
                projects: true,
                unused_layers: 0,
                pad_token: "!",
            },
        ],
        classes: ["StableDiffusionXLPipeline", "StableDiffusionXLInpaintPipeline"],
        sample_size: 128,
        sample_size_v: 128,
        eight_heads: false,
        scaling_factor: 0.13025,
        mostly_v: false,
    },
    Family {
        name: "Stable Diffusion 2.x",
        encoders: &[Encoder {
            name: "text_encoder",
            tokenizer: "tokenizer",
            prefix: "cond_stage_model.model.",
            open_clip: true,
            projects: false,
            // The text is taken before the last layer.
            unused_layers: 1,
            pad_token: "!",
        }],
        classes: ["StableDiffusionPipeline", "StableDiffusionInpaintPipeline"],
        sample_size: 64,
        sample_size_v: 96,
        eight_heads: false,
        scaling_factor: 0.18215,
        mostly_v: true,
    },
    Family {
        name: "Stable Diffusion 1.x",
        encoders: &[Encoder {
            name: "text_encoder",
            tokenizer: "tokenizer",
            prefix: "cond_stage_model.transformer.",
            open_clip: false,
            projects: false,
            unused_layers: 0,
            pad_token: "<|endoftext|>",
        }],
        classes: ["StableDiffusionPipeline", "StableDiffusionInpaintPipeline"],
        sample_size: 64,
        sample_size_v: 64,
        eight_heads: true,
        scaling_factor: 0.18215,
        mostly_v: false,
    },
];

impl Family {
    fn class(&self, in_channels: Option<u64>) -> Result<&'static str, String> {
        let [text_to_image, inpaint] = self.classes;
        let what = match in_channels {
            Some(4) => return Ok(text_to_image),
            Some(9) => return Ok(inpaint),
            Some(5) => "of a depth-to-image model",
            Some(7) => "of an upscaler; its folder, as diffusers has it, can be opened",
            Some(8) => "of an InstructPix2Pix model",
            _ => "of another kind",
        };
        let channels = in_channels.unwrap_or_default();
        Err(format!("a {} checkpoint whose UNet takes {channels} channels, {what}", self.name))
    }

    /// Whether the network predicts v, as far as the file tells.
    fn v_prediction(&self, file: &TensorFile, class: &str) -> bool {
        match file.metadata().get("modelspec.prediction_type") {
            Some(said) => said.starts_with('v'),
            // Fine-tuned models are marked by a tensor of this name.
            None => has_tensor(file, "v_pred") || (self.mostly_v && class == self.classes[0]),
        }
    }

    fn heads(&self, block_out_channels: &Value) -> Value {
        let heads = |channels: &Value| (channels.as_u64().unwrap_or_default() / 64).max(1);
        match block_out_channels.as_array() {
            Some(channels) if !self.eight_heads => channels.iter().map(heads).collect(),
            _ => json!(8),
        }
    }

    /// The scheduler of the first published checkpoint of this kind.
    fn scheduler(&self, v_prediction: bool, zero_snr: bool, class: &str) -> Value {
        let mut config = json!({
            "num_train_timesteps": 1000,
            "beta_start": 0.00085,
            "beta_end": 0.012,
            "beta_schedule": "scaled_linear",
            "steps_offset": 1,
            "prediction_type": if v_prediction { "v_prediction" } else { "epsilon" },
        });
        let (name, own) = if self.encoders.len() == 2 {
            ("EulerDiscreteScheduler", json!({ "timestep_spacing": "leading", "interpolation_type": "linear" }))
        } else if v_prediction || class == self.classes[1] {
            ("DDIMScheduler", json!({ "set_alpha_to_one": false, "clip_sample": false }))
        } else {
            ("PNDMScheduler", json!({ "set_alpha_to_one": false, "skip_prk_steps": true }))
        };
        config["_class_name"] = json!(name);
        if zero_snr {
            config["rescale_betas_zero_snr"] = json!(true);
        }
        for (key, value) in own.as_object().into_iter().flatten() {
            config[key] = value.clone();
        }
        config
    }
}

/// A text encoder as a file has it.
struct Encoder {
    name: &'static str,
    tokenizer: &'static str,
    prefix: &'static str,
    open_clip: bool,
    /// Whether it is a `CLIPTextModelWithProjection`.
    projects: bool,
    /// How many of the last layers are stored and never run.
    unused_layers: usize,
    pad_token: &'static str,
}

impl Encoder {
    fn is_in(&self, file: &TensorFile) -> bool {
        file.tensors().iter().any(|tensor| tensor.name.starts_with(self.prefix))
    }

    fn naming(&self) -> Naming {
        if self.open_clip { Naming::open_clip(self.prefix) } else { Naming::diffusers(self.prefix) }
    }

    /// Its `config.json`.
    fn config(&self, tensors: &Tensors) -> Result<Value, String> {
        let root = if tensors.has("text_model") { "text_model." } else { "" };
        let (tokens, positions, layers, wide) = if self.open_clip {
            ("token_embedding.weight", "positional_embedding", "transformer.resblocks", "mlp.c_fc.weight")
        } else {
            let embeddings = ("embeddings.token_embedding.weight", "embeddings.position_embedding.weight");
            (embeddings.0, embeddings.1, "encoder.layers", "mlp.fc1.weight")
        };
        let side = |name: &str, axis| {
            let name = format!("{root}{name}");
            tensors.side(&name, axis).ok_or(format!("there is no tensor `{}{name}`", self.prefix))
        };
        let hidden_size = side(tokens, 1)?;
        let projection_dim = if self.projects { side("text_projection", 1)? } else { hidden_size };
        Ok(json!({
            "architectures": [if self.projects { "CLIPTextModelWithProjection" } else { "CLIPTextModel" }],
            "vocab_size": side(tokens, 0)?,
            "hidden_size": hidden_size,
            "intermediate_size": side(&format!("{layers}.0.{wide}"), 0)?,
            "num_hidden_layers": tensors.count(&format!("{root}{layers}")).saturating_sub(self.unused_layers),
            // 64 channels a head, in all of CLIP's text encoders.
            "num_attention_heads": (hidden_size / 64).max(1),
            "max_position_embeddings": side(positions, 0)?,
            "hidden_act": if self.open_clip { "gelu" } else { "quick_gelu" },
            "projection_dim": projection_dim,
            "eos_token_id": 49407,
        }))
    }
}

fn has_tensor(file: &TensorFile, name: &str) -> bool {
    file.tensors().iter().any(|tensor| tensor.name == name)
}

/// What a file is that is not a checkpoint of a known family, by telling parts of its tensors' names.
fn what_it_is(file: &TensorFile) -> String {
    const TELLING: [(&str, &str); 16] = [
        ("lora_down.", "a LoRA, which changes a checkpoint that is open"),
        (".lora_A.", "a LoRA, which changes a checkpoint that is open"),
        ("processor.to_q_lora", "a LoRA, which changes a checkpoint that is open"),
        ("hada_w1", "a LoHa, which is not supported"),
        ("joint_blocks.", "a checkpoint of Stable Diffusion 3, whose architecture is not supported"),
        ("double_blocks.", "a checkpoint of the Flux family, whose architecture is not supported"),
        ("control_model.", "a ControlNet, which is not supported"),
        ("controlnet_", "a ControlNet, which is not supported"),
        ("down_blocks.0.clip_mapper", "a checkpoint of Stable Cascade, whose architecture is not supported"),
        ("adaln_single.", "a diffusion transformer, whose architecture is not supported"),
        ("conditioner.embedders.0.model.", "the refiner of Stable Diffusion XL, which has no text encoder of its kind"),
        ("model.diffusion_model.input_blocks.", "a checkpoint without its VAE or text encoder; it must be complete"),
        ("input_blocks.", "a UNet alone; put it beside the other parts of a checkpoint, and name it with `unet`"),
        ("down_blocks.", "a network alone; put it into the folder of its checkpoint, and open that"),
        ("decoder.", "a VAE alone; put it into the folder of its checkpoint, and open that"),
        ("text_model.", "a text encoder alone; put it into the folder of its checkpoint, and open that"),
    ];
    let telling = |part: &str| file.tensors().iter().any(|tensor| tensor.name.contains(part));
    if is_textual_inversion(file) {
        return TEXTUAL_INVERSION.to_owned();
    }
    if let Some((_, what)) = TELLING.iter().find(|(part, _)| telling(part)) {
        return (*what).to_owned();
    }
    match file.tensors().first() {
        Some(TensorInfo { name, .. }) => {
            format!("an unknown model of {} tensors, such as `{name}`", file.tensors().len())
        }
        None => "a file without a tensor".to_owned(),
    }
}
