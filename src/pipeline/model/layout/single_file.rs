//! Checkpoints in one file, under LDM's names: what they are is told by their tensors, and the configs that diffusers
//! keeps in files of their own are made from shapes, and from what all models of a kind have in common.

use serde_json::{Map, Value, json};

use super::ldm;
use super::note::Note;
use crate::pipeline::error::Error;
use crate::pipeline::error::list;
use crate::pipeline::model::naming::{Naming, Tensors, is_dead};
use crate::pipeline::model::textual_inversion::{TEXTUAL_INVERSION, is_textual_inversion};
use crate::weights::{TensorFile, TensorInfo};

/// Prefix of the UNet, in all of them.
const UNET: &str = "model.diffusion_model.";
/// Prefix of the VAE, in all of them.
const VAE: &str = "first_stage_model.";

/// A checkpoint in one file, and what a folder would say of it.
pub(super) struct SingleFile {
    /// Kind of checkpoint, for people.
    pub kind: &'static str,
    /// `model_index.json`.
    pub index: Map<String, Value>,
    /// Each component's config, under the component's name.
    pub configs: Map<String, Value>,
    /// Naming of the weights of each network in the file, under the component's name.
    naming: Vec<(&'static str, Naming)>,
}

impl SingleFile {
    /// Recognises `file`. `v_prediction` says what the network predicts, where the caller knows it: v or ε; `has_vae` that there is an
    /// autoencoder from elsewhere. What is assumed goes into `notes`.
    ///
    /// # Errors
    /// If it is not a whole checkpoint of Stable Diffusion 1.x, 2.x or XL; with what it is instead, as far as that can be
    /// told.
    pub fn recognise(
        file: &TensorFile,
        v_prediction: Option<bool>,
        has_vae: bool,
        notes: &mut Vec<Note>,
    ) -> Result<Self, Error> {
        let refused = |found: String| Error::SingleFile { file: file.file().to_owned(), found };
        let unknown =
            |network: &str, reason: String| refused(format!("a checkpoint with an unknown {network}: {reason}"));
        let of = |prefix: &str| Tensors::new(file.tensors(), prefix);
        let (all, unet, vae) = (of(""), of(UNET), of(VAE));
        let found = KINDS.iter().find_map(|family| Some((family, family.forms(&all)?)));
        let Some((family, forms)) = found.filter(|_| unet.has("input_blocks")) else {
            return Err(refused(what_it_is(file, &all)));
        };
        if let Some((_, what)) = MARKED.iter().find(|(tensor, _)| all.has(tensor) || all.side(tensor, 0).is_some()) {
            return Err(refused((*what).to_owned()));
        }
        let additions = unet.side("label_emb.0.0.weight", 1);
        let unet = ldm::unet(&unet).map_err(|reason| unknown("UNet", reason))?;
        let mut naming = vec![("unet", Naming::modules(UNET, unet.modules))];
        let mut vae_config = json!({ "_class_name": "AutoencoderKL" });
        if vae.has("decoder") {
            let vae = ldm::vae(&vae).map_err(|reason| unknown("VAE", reason))?;
            vae_config = vae.config;
            naming.push(("vae", Naming::modules(VAE, vae.modules)));
        } else if has_vae {
            naming.push(("vae", Naming::diffusers(VAE)));
        } else {
            let message = format!("{} is a checkpoint of {} without its VAE; give one", file.file(), family.name);
            return Err(Error::option("vae", "absent", message));
        }
        vae_config["scaling_factor"] = json!(family.scaling_factor);
        let mut unet = unet.config;

        let class = family.class(unet["in_channels"].as_u64()).map_err(refused)?;
        let v_prediction = match v_prediction.or_else(|| v_prediction_said(file)) {
            Some(said) => said,
            None => family.v_prediction(class, forms[0], notes),
        };
        unet["sample_size"] = json!(if v_prediction { family.sample_size_v } else { family.sample_size });
        unet["attention_head_dim"] = family.heads(&unet["block_out_channels"]);
        let scheduler = family.scheduler(v_prediction, has_tensor(file, "ztsnr"), class);
        let mut index = json!({
            "_class_name": class,
            "scheduler": ["diffusers", scheduler["_class_name"]],
            "unet": ["diffusers", "UNet2DConditionModel"],
            "vae": ["diffusers", "AutoencoderKL"],
        });
        let mut configs = Map::new();
        configs.insert("scheduler".to_owned(), scheduler);
        configs.insert("vae".to_owned(), vae_config);
        for (encoder, form) in family.encoders.iter().zip(forms) {
            let config = encoder.config(form, &of(form.prefix)).map_err(|reason| unknown("text encoder", reason))?;
            if encoder.projects {
                // Six sizes are embedded, and stand behind the pooled text.
                let additions = additions.ok_or_else(|| unknown("UNet", "there is no `label_emb`".into()))?;
                let pooled = config["projection_dim"].as_u64().unwrap_or_default() as usize;
                unet["addition_embed_type"] = json!("text_time");
                unet["projection_class_embeddings_input_dim"] = json!(additions);
                unet["addition_time_embed_dim"] = json!(additions.saturating_sub(pooled) / 6);
                index["force_zeros_for_empty_prompt"] = json!(true);
            } else if let (Some(additions), [_]) = (additions, family.encoders) {
                let what = "a checkpoint with one text encoder whose UNet takes";
                let whose = "as those of SDXL's refiner and of unCLIP models do, which are not supported";
                return Err(refused(format!("{what} {additions} numbers beside the text, {whose}")));
            }
            if let Some(width) = form.width {
                let text = format!("taken for {}, because its text encoder is {width} wide", family.name);
                notes.push(Note { text, option: None });
            }
            index[encoder.name] = json!(["transformers", config["architectures"][0]]);
            index[encoder.tokenizer] = json!(["transformers", "CLIPTokenizer"]);
            configs.insert(encoder.name.to_owned(), config);
            let tokenizer = json!({ "model_max_length": 77, "pad_token": encoder.pad_token });
            configs.insert(encoder.tokenizer.to_owned(), tokenizer);
            naming.push((encoder.name, form.naming()));
        }
        configs.insert("unet".to_owned(), unet);
        let index = index.as_object().cloned().unwrap_or_default();
        let found = Self { kind: family.name, index, configs, naming };
        found.check_others(file, notes)?;
        Ok(found)
    }

    /// The naming of the weights of `component`, if that is a network of the checkpoint.
    pub fn naming(&self, component: &str) -> Option<&Naming> {
        self.naming.iter().find(|(name, _)| *name == component).map(|(_, naming)| naming)
    }

    /// Looks at the tensors of no network: among the parts of a model there must not be any, and of others there is a note.
    fn check_others(&self, file: &TensorFile, notes: &mut Vec<Note>) -> Result<(), Error> {
        // What training leaves behind: state, and the schedule's tables, which have one side.
        const LEFT_BEHIND: [&str; 2] = ["optimizer", "embedding_manager."];
        let of_none = |tensor: &&TensorInfo| {
            !self.naming.iter().any(|(_, naming)| naming.is_of(&tensor.name)) && !is_dead(&tensor.name)
        };
        let others: Vec<&TensorInfo> =
            file.tensors().iter().filter(of_none).filter(|tensor| !tensor.is_empty()).collect();
        let of_a_part = |tensor: &&&TensorInfo| PARTS.iter().any(|part| tensor.name.starts_with(part));
        let missed: Vec<&str> = others.iter().filter(of_a_part).map(|tensor| &tensor.name[..]).collect();
        if !missed.is_empty() {
            return Err(Error::no_place(file.file(), &missed));
        }
        let left_behind = |name: &str| LEFT_BEHIND.iter().any(|start| name.starts_with(start));
        let unread = others.iter().filter(|tensor| tensor.shape.len() > 1 && !left_behind(&tensor.name));
        let unread: Vec<&str> = unread.map(|tensor| &tensor.name[..]).collect();
        if !unread.is_empty() {
            notes.push(Note { text: format!("not read: {}", list(&unread)), option: None });
        }
        Ok(())
    }
}

/// Prefixes of all parts of a model.
const PARTS: [&str; 4] = [UNET, VAE, "cond_stage_model.", "conditioner."];

/// Tensors and modules that mark models of a known shape that are not run as others of it are, and what those models are.
const MARKED: [(&str, &str); 3] = [
    ("edm_mean", "a checkpoint of Playground v2.5, whose normalised latents and EDM formulation are not supported"),
    ("edm_vpred.sigma_max", "a checkpoint of CosXL, whose EDM formulation is not supported"),
    ("control_model", "a checkpoint with a ControlNet in it, which is not supported"),
];

/// Prefix of a single OpenCLIP in the successor of LDM: in SD-Turbo, which predicts ε.
const SGM: &str = "conditioner.embedders.0.model.";

/// The properties that the checkpoints of a kind have in common and no shape tells.
struct Kind {
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

/// The known kinds. A file is of the first whose text encoders are all there.
const KINDS: [Kind; 3] = [
    Kind {
        name: "Stable Diffusion XL",
        encoders: &[
            Encoder {
                name: "text_encoder",
                tokenizer: "tokenizer",
                forms: &[
                    Form::transformers("conditioner.embedders.0.transformer."),
                    Form::transformers("cond_stage_model.transformer."),
                ],
                hidden_act: "quick_gelu",
                projects: false,
                most_layers: usize::MAX,
                pad_token: "<|endoftext|>",
            },
            Encoder {
                name: "text_encoder_2",
                tokenizer: "tokenizer_2",
                forms: &[
                    Form::open_clip("conditioner.embedders.1.model."),
                    Form::transformers("cond_stage_model.1.transformer."),
                ],
                hidden_act: "gelu",
                projects: true,
                most_layers: usize::MAX,
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
    Kind {
        name: "Stable Diffusion 2.x",
        encoders: &[Encoder {
            name: "text_encoder",
            tokenizer: "tokenizer",
            forms: &[
                Form::open_clip("cond_stage_model.model."),
                Form::open_clip(SGM),
                Form { width: Some(1024), ..Form::transformers("cond_stage_model.transformer.") },
            ],
            hidden_act: "gelu",
            projects: false,
            // The text is taken before the 24th, which most files hold nonetheless.
            most_layers: 23,
            pad_token: "!",
        }],
        classes: ["StableDiffusionPipeline", "StableDiffusionInpaintPipeline"],
        sample_size: 64,
        sample_size_v: 96,
        eight_heads: false,
        scaling_factor: 0.18215,
        mostly_v: true,
    },
    Kind {
        name: "Stable Diffusion 1.x",
        encoders: &[Encoder {
            name: "text_encoder",
            tokenizer: "tokenizer",
            forms: &[
                Form::transformers("cond_stage_model.transformer."),
                Form::transformers("conditioner.embedders.0.transformer."),
            ],
            hidden_act: "quick_gelu",
            projects: false,
            most_layers: usize::MAX,
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

impl Kind {
    /// The form that each text encoder has among `tensors`, those of a whole file; `None` unless all are there.
    fn forms(&self, tensors: &Tensors) -> Option<Vec<&'static Form>> {
        self.encoders.iter().map(|encoder| encoder.forms.iter().find(|form| form.is_in(tensors))).collect()
    }

    fn class(&self, in_channels: Option<u64>) -> Result<&'static str, String> {
        let [text_to_image, inpaint] = self.classes;
        let what = match in_channels {
            Some(4) => return Ok(text_to_image),
            Some(9) => return Ok(inpaint),
            Some(5) => ", as those of depth-to-image models do",
            Some(7) => ", as those of upscalers do; of one, the folder that diffusers has can be opened",
            Some(8) => ", as those of InstructPix2Pix do",
            _ => "",
        };
        let channels = in_channels.unwrap_or_default();
        Err(format!("a {} checkpoint whose UNet takes {channels} channels{what}", self.name))
    }

    /// Whether the network predicts v, where the file does not say what it predicts.
    fn v_prediction(&self, class: &str, form: &Form, notes: &mut Vec<Note>) -> bool {
        let v_prediction = self.mostly_v && class == self.classes[0] && form.prefix != SGM;
        if self.mostly_v {
            let (assumed, other) = if v_prediction { ("v", "epsilon") } else { ("ε", "v_prediction") };
            let text = format!("the file does not say what its network predicts; {assumed} is assumed");
            notes.push(Note { text, option: Some(("prediction_type", other)) });
        }
        v_prediction
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

/// A text encoder as files have it.
struct Encoder {
    name: &'static str,
    tokenizer: &'static str,
    /// Its possible prefixes and namings, of which a file has one.
    forms: &'static [Form],
    hidden_act: &'static str,
    /// Whether it is a `CLIPTextModelWithProjection`.
    projects: bool,
    /// Layers behind so many are stored and never run.
    most_layers: usize,
    pad_token: &'static str,
}

/// One of the ways in which a text encoder is stored.
struct Form {
    prefix: &'static str,
    /// Whether it has OpenCLIP's names rather than those of transformers.
    open_clip: bool,
    /// Width that it must have, where the names do not tell it from another's.
    width: Option<usize>,
}

impl Form {
    const fn transformers(prefix: &'static str) -> Self {
        Self { prefix, open_clip: false, width: None }
    }

    const fn open_clip(prefix: &'static str) -> Self {
        Self { prefix, open_clip: true, width: None }
    }

    /// Whether it is among `tensors`, those of a whole file.
    fn is_in(&self, tensors: &Tensors) -> bool {
        let width = || {
            let of = |root| tensors.side(&format!("{}{root}embeddings.token_embedding.weight", self.prefix), 1);
            of("text_model.").or_else(|| of(""))
        };
        tensors.has(self.prefix.trim_end_matches('.')) && (self.width.is_none() || self.width == width())
    }

    fn naming(&self) -> Naming {
        if self.open_clip { Naming::open_clip(self.prefix) } else { Naming::diffusers(self.prefix) }
    }
}

impl Encoder {
    /// The encoder's `config.json`, of the `tensors` behind the prefix of `form`.
    fn config(&self, form: &Form, tensors: &Tensors) -> Result<Value, String> {
        let root = if tensors.has("text_model.encoder") { "text_model." } else { "" };
        let (tokens, positions, layers, wide) = if form.open_clip {
            ("token_embedding.weight", "positional_embedding", "transformer.resblocks", "mlp.c_fc.weight")
        } else {
            let embeddings = ("embeddings.token_embedding.weight", "embeddings.position_embedding.weight");
            (embeddings.0, embeddings.1, "encoder.layers", "mlp.fc1.weight")
        };
        let side = |name: &str, axis| {
            let name = format!("{root}{name}");
            tensors.side(&name, axis).ok_or(format!("there is no tensor `{}{name}`", form.prefix))
        };
        let hidden_size = side(tokens, 1)?;
        let projection_dim = match self.projects {
            // OpenCLIP's is the right-hand factor, also where stable-diffusion.cpp has put it among transformers' names.
            true => tensors.side("text_projection.weight", 0).map_or_else(|| side("text_projection", 1), Ok)?,
            false => hidden_size,
        };
        Ok(json!({
            "architectures": [if self.projects { "CLIPTextModelWithProjection" } else { "CLIPTextModel" }],
            "vocab_size": side(tokens, 0)?,
            "hidden_size": hidden_size,
            "intermediate_size": side(&format!("{layers}.0.{wide}"), 0)?,
            "num_hidden_layers": tensors.count(&format!("{root}{layers}")).min(self.most_layers),
            // 64 channels a head, in all of CLIP's text encoders.
            "num_attention_heads": (hidden_size / 64).max(1),
            "max_position_embeddings": side(positions, 0)?,
            "hidden_act": self.hidden_act,
            "projection_dim": projection_dim,
            "eos_token_id": 49407,
        }))
    }
}

/// Whether the file says that the network predicts v, or that it does not.
fn v_prediction_said(file: &TensorFile) -> Option<bool> {
    match file.metadata().get("modelspec.prediction_type") {
        Some(said) => Some(said.starts_with('v')),
        // Fine-tuned models are marked by a tensor of this name.
        None => has_tensor(file, "v_pred").then_some(true),
    }
}

fn has_tensor(file: &TensorFile, name: &str) -> bool {
    file.tensors().iter().any(|tensor| tensor.name == name)
}

/// Description of a file that is not a checkpoint of a known family, by telling parts of its tensors' names.
fn what_it_is(file: &TensorFile, all: &Tensors) -> String {
    const TELLING: [(&str, &str); 15] = [
        ("lora_down.", "a LoRA, which changes a checkpoint that is open"),
        (".lora_A.", "a LoRA, which changes a checkpoint that is open"),
        ("processor.to_q_lora", "a LoRA, which changes a checkpoint that is open"),
        ("hada_w1", "a LoHa, which is not supported"),
        ("joint_blocks.", "a transformer of `joint_blocks`, as in Stable Diffusion 3, which is not supported"),
        ("double_blocks.", "a transformer of `double_blocks`, as in Flux, which is not supported"),
        ("control_model.", "a ControlNet, which is not supported"),
        ("controlnet_", "a ControlNet, which is not supported"),
        ("clip_mapper", "a network with a `clip_mapper`, as in Stable Cascade, which is not supported"),
        ("adaln_single.", "a diffusion transformer, whose architecture is not supported"),
        ("input_blocks.", "a UNet alone; put it beside the other parts of a checkpoint, and name it with `unet`"),
        ("decoder.up", "a VAE alone, which `vae` puts in the place of a checkpoint's own"),
        ("down_blocks.", "a network alone; put it into the folder of its checkpoint, and open that"),
        ("decoder.", "a network with a decoder, alone; put it into the folder of its checkpoint, and open that"),
        ("text_model.", "a text encoder alone; put it into the folder of its checkpoint, and open that"),
    ];
    let telling = |part: &str| file.tensors().iter().any(|tensor| tensor.name.contains(part));
    if is_textual_inversion(file) {
        return TEXTUAL_INVERSION.to_owned();
    }
    if all.has("model.diffusion_model.input_blocks") && !all.has("control_model") {
        let vae = if all.has("first_stage_model.decoder") { "" } else { " and without a VAE" };
        let families = KINDS.map(|family| family.name).join(", ");
        return format!("a UNet without the text encoders of one of {families}{vae}");
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
