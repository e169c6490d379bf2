//! Checkpoints in every form that they come in: variants, shards, flat folders, single files under LDM's names, GGUF. Each
//! draws the picture that the same numbers draw from a plain folder, bit for bit.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::common::{folders, name_of, reference};
use pollster::block_on;
use serde_json::{Value, json};
use undiffuse::device::Device;
use undiffuse::models::{AutoencoderKlConfig, ClipTextConfig, Unet2dConditionConfig, Unet2dConditionInputs};
use undiffuse::pipeline::{Checkpoint, Error, ModelInfo, OpenOptions, SampleOptions, Text};
use undiffuse::text::{TokenFiles, Tokenizer};
use undiffuse::weights::gguf;
use undiffuse::weights::{ByteStream, DirectorySource, Encoding, LocalBoxFuture, MemorySource, Source};

/// A tensor: shape and numbers, which are absent where only the header of a file is looked at.
#[derive(Clone)]
struct Stored {
    shape: Vec<usize>,
    data: Vec<f32>,
}

type File = BTreeMap<String, Stored>;

/// How numbers are stored.
#[derive(Clone, Copy, PartialEq)]
enum Precision {
    F32,
    F16,
    Bf16,
    /// The header only: shapes without numbers.
    None,
}

impl Precision {
    fn name(self) -> &'static str {
        match self {
            Self::F32 | Self::None => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
        }
    }

    fn bytes(self, data: &[f32]) -> Vec<u8> {
        match self {
            Self::F32 => data.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Self::F16 => data.iter().flat_map(|&v| half::f16::from_f32(v).to_le_bytes()).collect(),
            Self::Bf16 => data.iter().flat_map(|&v| half::bf16::from_f32(v).to_le_bytes()).collect(),
            Self::None => Vec::new(),
        }
    }
}

/// A safetensors file.
fn safetensors(file: &File, metadata: &Value, precision: Precision) -> Vec<u8> {
    let size = if matches!(precision, Precision::F16 | Precision::Bf16) { 2 } else { 4 };
    let mut header = serde_json::Map::new();
    if !metadata.is_null() {
        header.insert("__metadata__".into(), metadata.clone());
    }
    let mut end = 0;
    let mut bytes = Vec::new();
    for (name, Stored { shape, data }) in file {
        let start = end;
        end += shape.iter().product::<usize>() * size;
        header.insert(name.clone(), json!({ "dtype": precision.name(), "shape": shape, "data_offsets": [start, end] }));
        bytes.extend(precision.bytes(data));
    }
    let header = Value::Object(header).to_string();
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &bytes].concat()
}

/// One file that is a whole checkpoint; its length is not told, so that a header alone will do.
struct SingleFile(Vec<u8>);

impl Source for SingleFile {
    fn name(&self) -> &str {
        "memory"
    }

    fn single_file(&self) -> Option<&str> {
        Some("model.safetensors")
    }

    fn open<'a>(&'a self, _: &'a str) -> LocalBoxFuture<'a, Result<Box<dyn ByteStream>, undiffuse::weights::Error>> {
        struct Stream(Option<Vec<u8>>);
        impl ByteStream for Stream {
            fn length(&self) -> Option<u64> {
                None
            }

            fn next_chunk<'a>(&'a mut self) -> LocalBoxFuture<'a, Result<Option<Vec<u8>>, undiffuse::weights::Error>> {
                Box::pin(std::future::ready(Ok(self.0.take())))
            }
        }
        Box::pin(std::future::ready(Ok(Box::new(Stream(Some(self.0.clone()))) as Box<dyn ByteStream>)))
    }
}

/// A checkpoint as diffusers has it: configs by path, and the tensors of each network.
struct Folder {
    configs: BTreeMap<String, Value>,
    networks: BTreeMap<&'static str, File>,
}

/// Shapes of real checkpoints, or small ones of the same structure.
#[derive(Clone, Copy, PartialEq)]
enum Size {
    Real,
    Small,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Kind {
    Sd1,
    Sd1Inpaint,
    Sd2,
    Sdxl,
}

impl Folder {
    fn new(kind: Kind, size: Size) -> Self {
        Self::of(kind, size, if size == Size::Small { small(kind) } else { published(kind) })
    }

    /// A small one whose UNet's config has other values for some keys.
    fn with_unet(kind: Kind, keys: Value) -> Self {
        let (mut unet, vae, first, second) = small(kind);
        unet.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
        Self::of(kind, Size::Small, (unet, vae, first, second))
    }

    fn of(kind: Kind, size: Size, (unet, vae, first, second): Configs) -> Self {
        let mut configs = BTreeMap::from([("unet/config.json", unet), ("vae/config.json", vae)]);
        let tokenizer = |pad: &str| json!({ "model_max_length": 77, "pad_token": pad });
        let scheduler = |class: &str, own: Value| {
            let mut config = json!({
                "_class_name": class,
                "num_train_timesteps": 1000,
                "beta_start": 0.00085,
                "beta_end": 0.012,
                "beta_schedule": "scaled_linear",
                "steps_offset": 1,
            });
            config.as_object_mut().unwrap().extend(own.as_object().unwrap().clone());
            config
        };
        let ddim = |prediction: &str| {
            let own = json!({ "clip_sample": false, "set_alpha_to_one": false, "prediction_type": prediction });
            scheduler("DDIMScheduler", own)
        };
        configs.insert(
            "tokenizer/tokenizer_config.json",
            tokenizer(if kind == Kind::Sd2 { "!" } else { "<|endoftext|>" }),
        );
        let (class, scheduler) = match kind {
            Kind::Sd1 => {
                let own = json!({ "skip_prk_steps": true, "set_alpha_to_one": false });
                ("StableDiffusionPipeline", scheduler("PNDMScheduler", own))
            }
            Kind::Sd1Inpaint => ("StableDiffusionInpaintPipeline", ddim("epsilon")),
            Kind::Sd2 => ("StableDiffusionPipeline", ddim("v_prediction")),
            Kind::Sdxl => {
                let euler = scheduler("EulerDiscreteScheduler", json!({ "timestep_spacing": "leading" }));
                ("StableDiffusionXLPipeline", euler)
            }
        };
        if let Some(second) = second {
            configs.insert("text_encoder_2/config.json", second);
            configs.insert("tokenizer_2/tokenizer_config.json", tokenizer("!"));
        }
        configs.insert("text_encoder/config.json", first);
        configs.insert("scheduler/scheduler_config.json", scheduler);
        let mut index = json!({
            "_class_name": class,
            "unet": ["diffusers", "UNet2DConditionModel"],
            "vae": ["diffusers", "AutoencoderKL"],
            "text_encoder": ["transformers", "CLIPTextModel"],
        });
        if kind == Kind::Sdxl {
            index["text_encoder_2"] = json!(["transformers", "CLIPTextModelWithProjection"]);
            index["force_zeros_for_empty_prompt"] = json!(true);
        }
        configs.insert("model_index.json", index);

        let mut networks = BTreeMap::new();
        for network in ["unet", "vae", "text_encoder", "text_encoder_2"] {
            if let Some(config) = configs.get(format!("{network}/config.json").as_str()) {
                let shapes = shapes(network, &config.to_string());
                networks.insert(network, numbers(network, shapes, size));
            }
        }
        Self { configs: configs.into_iter().map(|(path, json)| (path.to_owned(), json)).collect(), networks }
    }

    /// As `save_pretrained` writes it, with CLIP's own tokenizer.
    fn source(&self, precision: Precision) -> MemorySource {
        let mut source = MemorySource::new();
        for (path, config) in &self.configs {
            source.insert(path, config.to_string());
            if let Some(folder) = path.strip_suffix("tokenizer_config.json") {
                for file in ["vocab.json", "merges.txt"] {
                    let clip = reference("tokenizers").join("clip_real").join(file);
                    source.insert(format!("{folder}{file}"), fs::read(clip).unwrap());
                }
            }
        }
        for (network, file) in &self.networks {
            source.insert(weights_path(network), safetensors(file, &Value::Null, precision));
        }
        source
    }
}

/// Configs of UNet, VAE and text encoders.
type Configs = (Value, Value, Value, Option<Value>);

/// Those of the published models.
fn published(kind: Kind) -> Configs {
    let read = |name: &str| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/published");
        crate::common::read_json(&folder.join(format!("{name}.json")))
    };
    let first = || read("stable-diffusion-v1-5.text_encoder");
    let vae = || read("stable-diffusion-v1-5-resaved.vae");
    match kind {
        Kind::Sd1 => (read("stable-diffusion-v1-5.unet"), vae(), first(), None),
        Kind::Sd1Inpaint => (read("stable-diffusion-inpainting.unet"), vae(), first(), None),
        Kind::Sd2 => (read("stable-diffusion-2-1.unet"), vae(), read("stable-diffusion-2-1.text_encoder"), None),
        Kind::Sdxl => {
            let second = read("stable-diffusion-xl-base-1.0.text_encoder_2");
            (read("stable-diffusion-xl-base-1.0.unet"), read("sdxl-vae.vae"), first(), Some(second))
        }
    }
}

/// Those of small models of the same structure: as many channels as their groups and heads need.
fn small(kind: Kind) -> Configs {
    let (cross, plain) = ("CrossAttnDownBlock2D", "DownBlock2D");
    let (cross_up, plain_up) = ("CrossAttnUpBlock2D", "UpBlock2D");
    let mut unet = json!({
        "_class_name": "UNet2DConditionModel",
        "in_channels": if kind == Kind::Sd1Inpaint { 9 } else { 4 },
        "out_channels": 4,
        "layers_per_block": 2,
        "block_out_channels": [64, 64, 128],
    });
    let own = match kind {
        Kind::Sdxl => json!({
            "down_block_types": [plain, cross, cross],
            "up_block_types": [cross_up, cross_up, plain_up],
            "attention_head_dim": [1, 1, 2],
            "transformer_layers_per_block": [1, 1, 2],
            "cross_attention_dim": 64 + 128,
            "use_linear_projection": true,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 32,
            "projection_class_embeddings_input_dim": 96 + 6 * 32,
        }),
        _ => json!({
            "down_block_types": [cross, cross, plain],
            "up_block_types": [plain_up, cross_up, cross_up],
            "attention_head_dim": if kind == Kind::Sd2 { [1, 1, 2] } else { [8, 8, 8] },
            "cross_attention_dim": 64,
            "use_linear_projection": kind == Kind::Sd2,
        }),
    };
    unet.as_object_mut().unwrap().extend(own.as_object().unwrap().clone());
    let vae = json!({
        "_class_name": "AutoencoderKL",
        "block_out_channels": [32, 64],
        "layers_per_block": 2,
        "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D"],
        "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D"],
        "scaling_factor": if kind == Kind::Sdxl { 0.13025 } else { 0.18215 },
    });
    let text = |class: &str, width: usize, act: &str, projection: usize| {
        json!({
            "architectures": [class],
            "vocab_size": 49408,
            "hidden_size": width,
            "intermediate_size": 3 * width,
            "num_hidden_layers": if kind == Kind::Sd2 { 23 } else { 2 },
            "num_attention_heads": width / 64,
            "max_position_embeddings": 77,
            "hidden_act": act,
            "projection_dim": projection,
            "eos_token_id": 2,
        })
    };
    let first = text("CLIPTextModel", 64, if kind == Kind::Sd2 { "gelu" } else { "quick_gelu" }, 64);
    let second = (kind == Kind::Sdxl).then(|| text("CLIPTextModelWithProjection", 128, "gelu", 96));
    (unet, vae, first, second)
}

fn weights_path(network: &str) -> String {
    let stem = if network.starts_with("text") { "model" } else { "diffusion_pytorch_model" };
    format!("{network}/{stem}.safetensors")
}

/// Names and shapes of a network's weights.
fn shapes(network: &str, config: &str) -> Vec<(String, Vec<usize>)> {
    let of = |graph: &undiffuse::graph::Graph| -> Vec<(String, Vec<usize>)> {
        graph.weights().iter().map(|spec| (spec.name.clone(), spec.shape.clone())).collect()
    };
    match network {
        "unet" => {
            let inputs = Unet2dConditionInputs { batch: 1, height: 64, width: 64, tokens: 1, timestep_cond: false };
            of(&Unet2dConditionConfig::from_json(config).unwrap().graph(inputs).unwrap())
        }
        "vae" => {
            let config = AutoencoderKlConfig::from_json(config).unwrap();
            let side = config.scale_factor();
            [of(&config.encoder(1, side, side).unwrap()), of(&config.decoder(1, 1, 1).unwrap())].concat()
        }
        _ => {
            let config = ClipTextConfig::from_json(config).unwrap();
            let width = config.hidden_size;
            let tables = [
                ("embeddings.token_embedding.weight".to_owned(), vec![config.vocab_size, width]),
                ("embeddings.position_embedding.weight".to_owned(), vec![config.max_position_embeddings, width]),
            ];
            [of(&config.graph(1, 1).unwrap()), tables.to_vec()].concat()
        }
    }
}

/// Numbers for the weights, of the size that keeps what flows through a network near 1: the same for the same names.
fn numbers(network: &str, shapes: Vec<(String, Vec<usize>)>, size: Size) -> File {
    let mut file = File::new();
    for (name, shape) in shapes {
        let mut state = name
            .bytes()
            .chain(network.bytes())
            .fold(0x9E37_79B9_7F4A_7C15_u64, |state, byte| (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3));
        let mut uniform = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        };
        let inputs: usize = shape.iter().skip(1).product();
        let (centre, spread) = match &shape[..] {
            [_] if name.ends_with("weight") => (1.0, 0.2),
            [_] => (0.0, 0.1),
            _ if name.contains("embedding.weight") => (0.0, 1.0),
            _ => (0.0, 1.7 / (inputs as f32).sqrt()),
        };
        let length = if size == Size::Small { shape.iter().product() } else { 0 };
        let data = (0..length).map(|_| centre + spread * uniform()).collect();
        file.insert(name, Stored { shape, data });
    }
    file
}

// What LDM calls the weights, from how it builds its networks: `openaimodel.UNetModel` appends to one list of input blocks,
// the residual blocks of a level and a downsampler between levels, and mirrors them with one more a level; `autoencoder`
// counts levels from the finest.

fn number(text: &str) -> usize {
    text.parse().unwrap()
}

fn ldm_unet(name: &str, layers: usize) -> String {
    let parts: Vec<&str> = name.split('.').collect();
    let residual = |rest: &[&str]| match rest {
        ["norm1", w] => format!("in_layers.0.{w}"),
        ["conv1", w] => format!("in_layers.2.{w}"),
        ["time_emb_proj", w] => format!("emb_layers.1.{w}"),
        ["norm2", w] => format!("out_layers.0.{w}"),
        ["conv2", w] => format!("out_layers.3.{w}"),
        ["conv_shortcut", w] => format!("skip_connection.{w}"),
        other => panic!("{other:?}"),
    };
    match &parts[..] {
        ["conv_in", w] => format!("input_blocks.0.0.{w}"),
        ["time_embedding", "linear_1", w] => format!("time_embed.0.{w}"),
        ["time_embedding", "linear_2", w] => format!("time_embed.2.{w}"),
        ["add_embedding", "linear_1", w] => format!("label_emb.0.0.{w}"),
        ["add_embedding", "linear_2", w] => format!("label_emb.0.2.{w}"),
        ["conv_norm_out", w] => format!("out.0.{w}"),
        ["conv_out", w] => format!("out.2.{w}"),
        ["down_blocks", level, "downsamplers", "0", "conv", w] => {
            format!("input_blocks.{}.0.op.{w}", (number(level) + 1) * (layers + 1))
        }
        ["down_blocks", level, kind, layer, rest @ ..] => {
            let block = 1 + number(level) * (layers + 1) + number(layer);
            match *kind {
                "resnets" => format!("input_blocks.{block}.0.{}", residual(rest)),
                _ => format!("input_blocks.{block}.1.{}", rest.join(".")),
            }
        }
        ["mid_block", "resnets", layer, rest @ ..] => format!("middle_block.{}.{}", 2 * number(layer), residual(rest)),
        ["mid_block", "attentions", "0", rest @ ..] => format!("middle_block.1.{}", rest.join(".")),
        // Behind the transformer where the level has one; `ldm` puts it there.
        ["up_blocks", level, "upsamplers", "0", "conv", w] => {
            format!("output_blocks.{}.UP.conv.{w}", number(level) * (layers + 1) + layers)
        }
        ["up_blocks", level, kind, layer, rest @ ..] => {
            let block = number(level) * (layers + 1) + number(layer);
            match *kind {
                "resnets" => format!("output_blocks.{block}.0.{}", residual(rest)),
                _ => format!("output_blocks.{block}.1.{}", rest.join(".")),
            }
        }
        other => panic!("{other:?}"),
    }
}

fn ldm_vae(name: &str, levels: usize) -> String {
    let parts: Vec<&str> = name.split('.').collect();
    let residual = |rest: &[&str]| rest.join(".").replace("conv_shortcut", "nin_shortcut");
    match &parts[..] {
        ["quant_conv" | "post_quant_conv", _] => name.to_owned(),
        [half, "mid_block", "resnets", layer, rest @ ..] => {
            format!("{half}.mid.block_{}.{}", number(layer) + 1, residual(rest))
        }
        [half, "mid_block", "attentions", "0", rest @ ..] => {
            let layer = match rest {
                ["group_norm", w] => format!("norm.{w}"),
                ["to_out", "0", w] => format!("proj_out.{w}"),
                [projection, w] => format!("{}.{w}", &projection[3..]),
                other => panic!("{other:?}"),
            };
            format!("{half}.mid.attn_1.{layer}")
        }
        ["encoder", "down_blocks", level, "downsamplers", "0", "conv", w] => {
            format!("encoder.down.{level}.downsample.conv.{w}")
        }
        ["encoder", "down_blocks", level, "resnets", layer, rest @ ..] => {
            format!("encoder.down.{level}.block.{layer}.{}", residual(rest))
        }
        ["decoder", "up_blocks", level, "upsamplers", "0", "conv", w] => {
            format!("decoder.up.{}.upsample.conv.{w}", levels - 1 - number(level))
        }
        ["decoder", "up_blocks", level, "resnets", layer, rest @ ..] => {
            format!("decoder.up.{}.block.{layer}.{}", levels - 1 - number(level), residual(rest))
        }
        [half, "conv_norm_out", w] => format!("{half}.norm_out.{w}"),
        [half, conv @ ("conv_in" | "conv_out"), w] => format!("{half}.{conv}.{w}"),
        other => panic!("{other:?}"),
    }
}

/// OpenCLIP's text transformer: `nn.MultiheadAttention` keeps Q, K and V in one matrix, and the projection is a parameter
/// that the text is multiplied by from the left.
fn open_clip(file: &File) -> File {
    let mut out = File::new();
    for (name, stored) in file {
        let parts: Vec<&str> = name.split('.').collect();
        let renamed = match &parts[..] {
            ["embeddings", "token_embedding", "weight"] => "token_embedding.weight".to_owned(),
            ["embeddings", "position_embedding", "weight"] => "positional_embedding".to_owned(),
            ["final_layer_norm", w] => format!("ln_final.{w}"),
            ["text_projection", "weight"] => {
                let &[rows, columns] = &stored.shape[..] else { panic!("{:?}", stored.shape) };
                let at = |i: usize| stored.data.get(i % rows * columns + i / rows).copied();
                let data = (0..stored.data.len()).filter_map(at).collect();
                out.insert("text_projection".into(), Stored { shape: vec![columns, rows], data });
                continue;
            }
            ["encoder", "layers", layer, "self_attn", projection, w] if *projection != "out_proj" => {
                if *projection == "q_proj" {
                    let all = ["q_proj", "k_proj", "v_proj"]
                        .map(|p| &file[&format!("encoder.layers.{layer}.self_attn.{p}.{w}")]);
                    let data = all.iter().flat_map(|stored| stored.data.clone()).collect();
                    let mut shape = stored.shape.clone();
                    shape[0] *= 3;
                    out.insert(format!("transformer.resblocks.{layer}.attn.in_proj_{w}"), Stored { shape, data });
                }
                continue;
            }
            ["encoder", "layers", layer, rest @ ..] => {
                let rest = match rest {
                    ["self_attn", "out_proj", w] => format!("attn.out_proj.{w}"),
                    ["layer_norm1", w] => format!("ln_1.{w}"),
                    ["layer_norm2", w] => format!("ln_2.{w}"),
                    ["mlp", "fc1", w] => format!("mlp.c_fc.{w}"),
                    ["mlp", "fc2", w] => format!("mlp.c_proj.{w}"),
                    other => panic!("{other:?}"),
                };
                format!("transformer.resblocks.{layer}.{rest}")
            }
            other => panic!("{other:?}"),
        };
        out.insert(renamed, stored.clone());
    }
    out
}

/// The UNet's tensors under LDM's names.
fn ldm_unet_file(folder: &Folder) -> File {
    let config = &folder.configs["unet/config.json"];
    let linear = config["use_linear_projection"] == true;
    let layers = config["layers_per_block"].as_u64().unwrap() as usize;
    let mut file = File::new();
    for (name, stored) in &folder.networks["unet"] {
        let mut stored = stored.clone();
        let projects = name.contains("attentions") && (name.contains("proj_in.w") || name.contains("proj_out.w"));
        if stored.shape.len() == 2 && (name.contains("conv_shortcut") || (projects && !linear)) {
            stored.shape.extend([1, 1]);
        }
        file.insert(ldm_unet(name, layers), stored);
    }
    let crossed: Vec<String> = file.keys().filter(|name| name.starts_with("output_blocks")).cloned().collect();
    for name in crossed.iter().filter(|name| name.contains(".UP.")) {
        let block = name.split(".UP.").next().unwrap();
        let place = if crossed.iter().any(|other| other.starts_with(&format!("{block}.1."))) { "2" } else { "1" };
        let stored = file.remove(name).unwrap();
        file.insert(name.replace("UP", place), stored);
    }
    file
}

/// All of a checkpoint in one file, with what real ones hold beside the networks.
fn single(kind: Kind, folder: &Folder) -> File {
    let mut file = File::new();
    for (name, stored) in ldm_unet_file(folder) {
        file.insert(
            format!("model_ema.diffusion_model{}", name.replace('.', "")),
            Stored { shape: vec![0], data: vec![] },
        );
        file.insert(format!("model.diffusion_model.{name}"), stored);
    }
    let levels = folder.configs["vae/config.json"]["block_out_channels"].as_array().unwrap().len();
    for (name, stored) in &folder.networks["vae"] {
        let mut stored = stored.clone();
        if stored.shape.len() == 2 {
            stored.shape.extend([1, 1]);
        }
        file.insert(format!("first_stage_model.{}", ldm_vae(name, levels)), stored);
    }
    let first = match kind {
        Kind::Sdxl => "conditioner.embedders.0.transformer.text_model.",
        Kind::Sd2 => "cond_stage_model.model.",
        _ => "cond_stage_model.transformer.text_model.",
    };
    let text = &folder.networks["text_encoder"];
    let text = if kind == Kind::Sd2 { open_clip(text) } else { text.clone() };
    for (name, stored) in &text {
        file.insert(format!("{first}{name}"), stored.clone());
        if kind == Kind::Sd2 {
            // One layer more than is run, and a projection that is not asked for.
            let count = folder.configs["text_encoder/config.json"]["num_hidden_layers"].as_u64().unwrap();
            if let Some(rest) = name.strip_prefix("transformer.resblocks.0.") {
                file.insert(format!("{first}transformer.resblocks.{count}.{rest}"), stored.clone());
            }
        }
    }
    if let Some(second) = folder.networks.get("text_encoder_2") {
        for (name, stored) in open_clip(second) {
            file.insert(format!("conditioner.embedders.1.model.{name}"), stored);
        }
    }
    let scalar = |shape: Vec<usize>| Stored { data: vec![0.5; shape.iter().product()], shape };
    if !folder.networks["unet"]["conv_in.bias"].data.is_empty() {
        file.insert("alphas_cumprod".into(), scalar(vec![1000]));
        file.insert("cond_stage_model.logit_scale".into(), scalar(vec![]));
        file.insert(format!("{first}embeddings.position_ids"), scalar(vec![1, 77]));
    }
    file
}

fn open(source: &dyn Source, options: &OpenOptions) -> Result<Checkpoint, Error> {
    block_on(Checkpoint::open(source, options))
}

fn info(source: &dyn Source, options: &OpenOptions) -> ModelInfo {
    open(source, options).unwrap_or_else(|error| panic!("{error}")).info().clone()
}

fn refusal(source: &dyn Source) -> String {
    match open(source, &OpenOptions::default()) {
        Ok(checkpoint) => panic!("{:?} was opened", checkpoint.info()),
        Err(error) => error.to_string(),
    }
}

/// x_0 after two steps, and its picture.
fn draw(source: &dyn Source, options: &OpenOptions) -> (Vec<f32>, Vec<f32>) {
    let checkpoint = open(source, options).unwrap_or_else(|error| panic!("{error}"));
    let takes_prompt = checkpoint.info().takes_prompt;
    let mut loaded = 0;
    let mut on_progress = |progress: undiffuse::pipeline::LoadProgress| {
        assert!(progress.loaded >= loaded && progress.loaded <= progress.total, "{progress:?} after {loaded}");
        loaded = progress.loaded;
    };
    let pipeline = block_on(checkpoint.load(Device::cpu(), &mut on_progress)).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(loaded, pipeline.info().bytes);
    let side = takes_prompt.then_some(16);
    let sample = SampleOptions {
        prompt: Text::from(if takes_prompt { "a red fox, noto style" } else { "" }),
        negative_prompt: takes_prompt.then(|| Text::from("blurry")),
        seed: 7,
        steps: 2,
        height: side,
        width: side,
        ..SampleOptions::default()
    };
    let mut sampler = block_on(pipeline.sampler(sample)).unwrap_or_else(|error| panic!("{error}"));
    while block_on(sampler.step()).unwrap_or_else(|error| panic!("{error}")).is_some() {}
    (block_on(sampler.latents()).unwrap(), block_on(sampler.image()).unwrap())
}

#[track_caller]
fn assert_same(actual: (Vec<f32>, Vec<f32>), expected: &(Vec<f32>, Vec<f32>)) {
    assert!(expected.0.iter().any(|v| *v != expected.0[0]), "a constant picture tells nothing");
    let differ = |a: &[f32], b: &[f32]| a.iter().zip(b).position(|(a, b)| a.to_bits() != b.to_bits());
    assert_eq!((actual.0.len(), differ(&actual.0, &expected.0)), (expected.0.len(), None), "latents");
    assert_eq!((actual.1.len(), differ(&actual.1, &expected.1)), (expected.1.len(), None), "pictures");
}

fn draws_the_same(kind: Kind, precision: Precision) {
    let folder = Folder::new(kind, Size::Small);
    let expected = draw(&folder.source(precision), &OpenOptions::default());
    let file = SingleFile(safetensors(&single(kind, &folder), &Value::Null, precision));
    assert_same(draw(&file, &OpenOptions::default()), &expected);
}

#[test]
fn a_single_file_of_stable_diffusion_1_draws_what_its_folder_draws() {
    draws_the_same(Kind::Sd1, Precision::F32);
}

#[test]
fn a_single_file_of_stable_diffusion_2_draws_what_its_folder_draws() {
    draws_the_same(Kind::Sd2, Precision::F16);
}

#[test]
fn a_single_file_of_sdxl_draws_what_its_folder_draws() {
    draws_the_same(Kind::Sdxl, Precision::Bf16);
}

/// Of SSD-1B: one residual block in the middle, and a transformer depth for each layer.
fn segmind() -> Value {
    json!({
        "mid_block_type": "UNetMidBlock2D",
        "transformer_layers_per_block": [1, [1, 1], [2, 2]],
        "reverse_transformer_layers_per_block": [[2, 1, 2], [1, 2, 1], 1],
    })
}

#[test]
fn a_middle_block_of_one_residual_block_or_none_is_run_as_it_is() {
    for keys in [segmind(), json!({ "mid_block_type": null })] {
        let folder = Folder::with_unet(Kind::Sdxl, keys);
        let expected = draw(&folder.source(Precision::F16), &OpenOptions::default());
        let file = SingleFile(safetensors(&single(Kind::Sdxl, &folder), &Value::Null, Precision::F16));
        assert_same(draw(&file, &OpenOptions::default()), &expected);
    }
}

#[test]
fn a_unet_of_one_layer_a_block_is_run_as_it_is() {
    let folder = Folder::with_unet(Kind::Sd1, json!({ "layers_per_block": 1, "mid_block_type": null }));
    let mut source = folder.source(Precision::F16);
    let expected = draw(&source, &OpenOptions::default());
    source.insert("ldm.safetensors", safetensors(&ldm_unet_file(&folder), &Value::Null, Precision::F16));
    let options = OpenOptions { unet: Some("ldm.safetensors".into()), ..OpenOptions::default() };
    assert_same(draw(&source, &options), &expected);
}

/// The notes on what is in `source`.
fn notes(source: &dyn Source, options: &OpenOptions) -> Vec<String> {
    let note = |note: undiffuse::pipeline::Note| match note.option {
        Some((option, value)) => format!("{} ({option}: {value})", note.text),
        None => note.text,
    };
    info(source, options).notes.into_iter().map(note).collect()
}

#[test]
fn layers_of_stable_diffusion_2_are_dropped_by_their_number() {
    let folder = Folder::new(Kind::Sd2, Size::Small);
    let whole = single(Kind::Sd2, &folder);
    let of = |layer: usize| format!("cond_stage_model.model.transformer.resblocks.{layer}.");
    assert!(whole.keys().any(|name| name.starts_with(&of(23))), "as it was published");
    let expected = draw(&folder.source(Precision::F16), &OpenOptions::default());
    let mut file = whole.clone();
    file.retain(|name, _| !name.starts_with(&of(23)));
    let draw_file =
        |file: &File| draw(&SingleFile(safetensors(file, &Value::Null, Precision::F16)), &OpenOptions::default());
    assert_same(draw_file(&file), &expected);
    file.retain(|name, _| !name.starts_with(&of(22)));
    assert_ne!(draw_file(&file).0, expected.0, "22 layers are another model");
}

#[test]
fn what_the_network_of_stable_diffusion_2_predicts_is_said_to_be_assumed() {
    let folder = Folder::new(Kind::Sd2, Size::Small);
    let ldm = single(Kind::Sd2, &folder);
    let renamed = |name: &str| name.replace("cond_stage_model.model.", "conditioner.embedders.0.model.");
    let sgm = ldm.iter().map(|(name, stored)| (renamed(name), stored.clone())).collect();
    let file = |file: &File, said: Value| SingleFile(safetensors(file, &said, Precision::F16));
    let assumed = |assumed: &str, other: &str| {
        let text = "the file does not say what its network predicts";
        vec![format!("{text}; {assumed} is assumed (prediction_type: {other})")]
    };
    let plain = OpenOptions::default();
    assert_eq!(notes(&file(&ldm, Value::Null), &plain), assumed("v", "epsilon"));
    // As SD-Turbo is stored.
    assert_eq!(notes(&file(&sgm, Value::Null), &plain), assumed("ε", "v_prediction"));
    assert_eq!(info(&file(&sgm, Value::Null), &plain).layout, "a single file, Stable Diffusion 2.x");
    let v = OpenOptions { prediction_type: Some("v_prediction".into()), ..OpenOptions::default() };
    assert_eq!(notes(&file(&sgm, Value::Null), &v), Vec::<String>::new());
    assert_eq!(notes(&file(&ldm, json!({ "modelspec.prediction_type": "v" })), &plain), Vec::<String>::new());
    assert_same(draw(&file(&sgm, Value::Null), &v), &draw(&file(&ldm, Value::Null), &plain));
    // Neither do files of the others, whose networks all predict ε unless they are marked.
    let xl = single(Kind::Sdxl, &Folder::new(Kind::Sdxl, Size::Real));
    assert_eq!(notes(&SingleFile(safetensors(&xl, &Value::Null, Precision::None)), &plain), Vec::<String>::new());

    let mut refiner = sgm;
    let label = Stored { shape: vec![256, 96], data: vec![0.0; 256 * 96] };
    refiner.insert("model.diffusion_model.label_emb.0.0.weight".into(), label);
    let message = refusal(&file(&refiner, Value::Null));
    assert!(message.contains("one text encoder whose UNet takes 96 numbers beside the text"), "{message}");
}

/// Names as stable-diffusion.cpp writes them: text encoders under those of transformers, but for the projection, one beside the other.
fn stable_diffusion_cpp(kind: Kind, folder: &Folder) -> File {
    let mut file = single(kind, folder);
    file.retain(|name, _| !name.starts_with("cond_stage_model.") && !name.starts_with("conditioner."));
    for (network, prefix) in
        [("text_encoder", "cond_stage_model.transformer."), ("text_encoder_2", "cond_stage_model.1.transformer.")]
    {
        for (name, stored) in folder.networks.get(network).into_iter().flatten() {
            if name == "text_projection.weight" {
                let projection = File::from([(name.clone(), stored.clone())]);
                let stored = open_clip(&projection).remove("text_projection").unwrap();
                file.insert(format!("{prefix}text_model.text_projection"), stored);
                continue;
            }
            file.insert(format!("{prefix}text_model.{name}"), stored.clone());
            if let (Kind::Sd2, Some(rest)) = (kind, name.strip_prefix("encoder.layers.22.")) {
                file.insert(format!("{prefix}text_model.encoder.layers.23.{rest}"), stored.clone());
            }
        }
    }
    file
}

#[test]
fn files_of_stable_diffusion_cpp_are_recognised_by_the_width_of_their_text_encoder() {
    let folder = Folder::new(Kind::Sdxl, Size::Small);
    let expected = draw(&folder.source(Precision::F16), &OpenOptions::default());
    let file = stable_diffusion_cpp(Kind::Sdxl, &folder);
    let file = SingleFile(safetensors(&file, &Value::Null, Precision::F16));
    assert_same(draw(&file, &OpenOptions::default()), &expected);

    for (kind, layout, side) in [(Kind::Sd1, "1.x", 512), (Kind::Sd2, "2.x", 768)] {
        let file = stable_diffusion_cpp(kind, &Folder::new(kind, Size::Real));
        let file = SingleFile(safetensors(&file, &Value::Null, Precision::None));
        let info = info(&file, &OpenOptions::default());
        assert_eq!((info.layout, info.width), (format!("a single file, Stable Diffusion {layout}"), side));
        let by_width = "taken for Stable Diffusion 2.x, because its text encoder is 1024 wide";
        assert_eq!(info.notes.iter().any(|note| note.text == by_width), kind == Kind::Sd2);
    }
}

#[test]
fn weights_without_a_place_are_refused_by_name() {
    let folder = Folder::new(Kind::Sd2, Size::Small);
    let file = single(Kind::Sd2, &folder);
    let with = |names: &[&str]| {
        let mut file = file.clone();
        file.extend(names.iter().map(|&name| (name.into(), Stored { shape: vec![2, 2], data: vec![0.5; 4] })));
        SingleFile(safetensors(&file, &Value::Null, Precision::F16))
    };
    let refused = |names: &[&str], list: &str| {
        let message = refusal(&with(names));
        assert!(message.starts_with(&format!("model.safetensors: the network has no place for {list}; ")), "{message}");
    };
    let middle = "model.diffusion_model.middle_block.3.in_layers.0.weight";
    refused(&[middle], &format!("tensor `{middle}`"));
    refused(
        &["first_stage_model.decoder.mid.attn_2.q.weight"],
        "tensor `first_stage_model.decoder.mid.attn_2.q.weight`",
    );
    refused(&["cond_stage_model.proj.weight"], "tensor `cond_stage_model.proj.weight`");
    let layer = "cond_stage_model.model.transformer.resblocks.0.gate.weight";
    refused(&[layer], &format!("tensor `{layer}`"));
    let many = ["1", "2", "3", "4"].map(|n| format!("model.diffusion_model.fuser.{n}.weight"));
    let many = many.each_ref().map(String::as_str);
    refused(&many, &format!("4 tensors, the first `{}`, `{}`, `{}`", many[0], many[1], many[2]));

    // What is never run, and what is of no network.
    let dead = [
        "cond_stage_model.model.text_projection",
        "cond_stage_model.model.visual.proj",
        "cond_stage_model.model.attn_mask",
        "first_stage_model.loss.discriminator.main.0.weight",
        "model_ema.decay",
        "optimizer.state.0.exp_avg",
    ];
    let v = OpenOptions { prediction_type: Some("v_prediction".into()), ..OpenOptions::default() };
    assert_eq!(notes(&with(&dead), &v), Vec::<String>::new());
    assert_eq!(notes(&with(&["lora_unet_out.alpha"]), &v), ["not read: tensor `lora_unet_out.alpha`"]);

    // In a folder, where the config says what there is.
    let mut folder = Folder::new(Kind::Sd1, Size::Small);
    let place = Stored { shape: vec![2], data: vec![0.5; 2] };
    folder.networks.get_mut("unet").unwrap().insert("mid_block.gate".into(), place.clone());
    let message = refusal(&folder.source(Precision::F16));
    let expected = "unet/diffusion_pytorch_model.safetensors: the network has no place for tensor `mid_block.gate`; ";
    assert!(message.starts_with(expected), "{message}");
    folder.networks.get_mut("unet").unwrap().remove("mid_block.gate");
    let text = folder.networks.get_mut("text_encoder").unwrap();
    for name in ["embeddings.position_ids", "encoder.layers.2.mlp.fc1.bias", "text_projection.weight", "logit_scale"] {
        text.insert(name.into(), place.clone());
    }
    text.insert("adapter".into(), Stored { shape: vec![0], data: vec![] });
    assert_eq!(notes(&folder.source(Precision::F16), &OpenOptions::default()), Vec::<String>::new());
}

#[test]
fn what_training_wraps_around_a_network_is_seen_through_or_named() {
    let mut folder = Folder::new(Kind::Sd1, Size::Small);
    let expected = draw(&folder.source(Precision::F16), &OpenOptions::default());
    let unet = folder.networks["unet"].clone();
    let renamed = |rename: &dyn Fn(&str) -> String| -> File {
        unet.iter().map(|(name, stored)| (rename(name), stored.clone())).collect()
    };
    for wrapper in ["_orig_mod.", "module."] {
        folder.networks.insert("unet", renamed(&|name| format!("{wrapper}{name}")));
        assert_same(draw(&folder.source(Precision::F16), &OpenOptions::default()), &expected);
    }
    folder.networks.insert("unet", renamed(&|name| name.replace(".to_q.", ".to_q.base_layer.")));
    let message = refusal(&folder.source(Precision::F16));
    assert!(message.contains("attn1.to_q.weight`, which the network needs; it was saved with a LoRA"), "{message}");
}

#[test]
fn a_header_of_many_blocks_takes_no_quadratic_time() {
    let mut file = single(Kind::Sd1, &Folder::new(Kind::Sd1, Size::Real));
    let empty = Stored { shape: vec![0], data: vec![] };
    for block in 12..40_000 {
        file.insert(format!("model.diffusion_model.input_blocks.{block}.0.out_layers.3.weight"), empty.clone());
    }
    let start = std::time::Instant::now();
    let message = refusal(&SingleFile(safetensors(&file, &Value::Null, Precision::None)));
    assert!(message.contains("its input and output blocks do not mirror each other"), "{message}");
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
}

/// Another autoencoder under LDM's names behind `prefix`.
fn ldm_vae_file(prefix: &str, vae: &File) -> File {
    let mut file = File::new();
    for (name, stored) in vae {
        let mut stored = stored.clone();
        if stored.shape.len() == 2 {
            stored.shape.extend([1, 1]);
        }
        file.insert(format!("{prefix}{}", ldm_vae(name, 2)), stored);
    }
    file
}

#[test]
fn an_autoencoder_of_its_own_takes_the_place_of_the_checkpoints() {
    // Another one than the checkpoint's: its weights have other names to be made from.
    let mut other = Folder::new(Kind::Sd1, Size::Small);
    let vae: Vec<_> = other.networks["vae"].iter().map(|(name, stored)| (name.clone(), stored.shape.clone())).collect();
    let vae = numbers("another", vae, Size::Small);
    other.networks.insert("vae", vae.clone());
    let expected = draw(&other.source(Precision::F16), &OpenOptions::default());

    let folder = Folder::new(Kind::Sd1, Size::Small);
    let source = folder.source(Precision::F16);
    let own = draw(&source, &OpenOptions::default());
    assert!(own.0 == expected.0 && own.1 != expected.1);
    let whole = single(Kind::Sd1, &folder);
    let mut without = whole.clone();
    without.retain(|name, _| !name.starts_with("first_stage_model."));
    let single = |file: &File| SingleFile(safetensors(file, &Value::Null, Precision::F16));
    let (whole, without) = (single(&whole), single(&without));
    let mut folders = MemorySource::new();
    folders.insert("config.json", folder.configs["vae/config.json"].to_string());
    folders.insert("diffusion_pytorch_model.safetensors", safetensors(&vae, &Value::Null, Precision::F16));
    let ldm = ldm_vae_file("", &vae);
    let mut bare = MemorySource::new();
    bare.insert("diffusion_pytorch_model.safetensors", safetensors(&ldm, &Value::Null, Precision::F16));
    let checkpoint = other.source(Precision::F16);
    let files = [single(&ldm), single(&ldm_vae_file("first_stage_model.", &vae)), single(&vae)];
    let sources = files.iter().map(|file| file as &dyn Source).chain([&folders as &dyn Source, &bare, &checkpoint]);
    for vae in sources {
        let options = OpenOptions { vae: Some(vae), ..OpenOptions::default() };
        assert_same(draw(&source, &options), &expected);
        assert_same(draw(&whole, &options), &expected);
        assert_same(draw(&without, &options), &expected);
    }
    let message = refusal(&without);
    let expected_message = "`vae` is absent: model.safetensors is a checkpoint of Stable Diffusion 1.x without its VAE";
    assert!(message.starts_with(expected_message), "{message}");

    // In the folder, in the place of its own.
    let mut source = folder.source(Precision::F16);
    source.insert(weights_path("vae"), safetensors(&ldm, &Value::Null, Precision::F16));
    assert_same(draw(&source, &OpenOptions::default()), &expected);

    let unet = single(&ldm_unet_file(&folder));
    let message = open(&source, &OpenOptions { vae: Some(&unet), ..OpenOptions::default() }).unwrap_err().to_string();
    assert!(message.contains("this is no AutoencoderKL: there is no tensor `decoder.conv_out.weight`"), "{message}");
    assert!(message.starts_with("`vae` memory: "), "{message}");
    let ddpm = Reference::new("ddpm_uncond");
    let options = OpenOptions { vae: Some(&unet), ..OpenOptions::default() };
    let message = open(&ddpm.source, &options).unwrap_err().to_string();
    assert!(message.starts_with("`vae` is memory: ") && message.contains("has no autoencoder"), "{message}");
}

#[test]
fn sizes_from_before_diffusers_0_9_are_read_as_its_pipelines_read_them() {
    let side = |kind: Kind, class: Option<&str>, version: Value, sample_size: Value| {
        let keys = json!({ "_diffusers_version": version, "sample_size": sample_size });
        let mut folder = Folder::with_unet(kind, keys);
        if let Some(class) = class {
            folder.configs.get_mut("model_index.json").unwrap()["_class_name"] = json!(class);
        }
        let info = info(&folder.source(Precision::F16), &OpenOptions::default());
        (info.width / info.scale_factor, info.notes.len())
    };
    let (inpaint, lcm) = (Some("StableDiffusionInpaintPipeline"), Some("LatentConsistencyModelPipeline"));
    assert_eq!(side(Kind::Sd1, None, json!("0.6.0"), json!(32)), (64, 1));
    assert_eq!(side(Kind::Sd1, Some("StableDiffusionImg2ImgPipeline"), json!("0.8.1"), json!(8)), (64, 1));
    assert_eq!(side(Kind::Sd1Inpaint, inpaint, json!("0.2.4"), json!(32)), (64, 1));
    // Not: later versions, no version, larger sizes, lists, other pipelines.
    assert_eq!(side(Kind::Sd1, None, json!("0.10.0.dev0"), json!(32)), (32, 0));
    assert_eq!(side(Kind::Sd1, None, json!("0.9.0"), json!(32)), (32, 0));
    assert_eq!(side(Kind::Sd1, None, Value::Null, json!(32)), (32, 0));
    assert_eq!(side(Kind::Sd1, None, json!("0.6.0"), json!(96)), (96, 0));
    assert_eq!(side(Kind::Sd1, None, json!("0.6.0"), json!([32, 32])), (32, 0));
    assert_eq!(side(Kind::Sd1, lcm, json!("0.6.0"), json!(32)), (32, 0));
    assert_eq!(side(Kind::Sdxl, None, json!("0.6.0"), json!(32)), (32, 0));
}

#[test]
fn classes_are_those_that_the_pipeline_names() {
    let plain = Folder::new(Kind::Sdxl, Size::Small);
    let expected = draw(&plain.source(Precision::F16), &OpenOptions::default());
    let second = "text_encoder_2/config.json";
    for own in [Value::Null, json!(["CLIPTextModel"]), json!(["CLIPModel"])] {
        let mut folder = Folder::new(Kind::Sdxl, Size::Small);
        folder.configs.get_mut(second).unwrap()["architectures"] = own;
        assert_same(draw(&folder.source(Precision::F16), &OpenOptions::default()), &expected);
    }
    // Of a whole CLIP the text model's config is read.
    let mut folder = Folder::new(Kind::Sdxl, Size::Small);
    let text = folder.configs[second].clone();
    folder.configs.insert(second.into(), json!({ "architectures": ["CLIPModel"], "text_config": text }));
    assert_same(draw(&folder.source(Precision::F16), &OpenOptions::default()), &expected);

    // A scheduler's config is read as that of the class that the pipeline names.
    let config = "scheduler/scheduler_config.json";
    let named = |own: Value, class: &str| {
        let mut folder = Folder::new(Kind::Sd1, Size::Small);
        folder.configs.get_mut(config).unwrap()["_class_name"] = own;
        folder.configs.get_mut("model_index.json").unwrap()["scheduler"] = json!(["diffusers", class]);
        let info = info(&folder.source(Precision::F16), &OpenOptions::default());
        (info.scheduler, info.notes.into_iter().map(|note| note.text).collect::<Vec<_>>())
    };
    let ddim = "DDIMScheduler".to_owned();
    assert_eq!(named(Value::Null, "DDIMScheduler"), (ddim.clone(), vec![]));
    let note = "the scheduler is a DDIMScheduler, as model_index.json says; its own config names PNDMScheduler";
    assert_eq!(named(json!("PNDMScheduler"), "DDIMScheduler"), (ddim, vec![note.to_owned()]));
}

#[test]
fn what_an_average_of_weights_leaves_in_a_config_is_ignored() {
    let keys = json!({
        "decay": 0.9999, "inv_gamma": 1.0, "min_decay": 0.0, "optimization_step": 37000, "power": 0.6667,
        "update_after_step": 100, "use_ema_warmup": true,
    });
    assert_eq!(info(&Folder::with_unet(Kind::Sd1, keys).source(Precision::F16), &OpenOptions::default()).width, 128);
    let mut unknown = Folder::new(Kind::Sd1, Size::Small);
    unknown.configs.get_mut("unet/config.json").unwrap()["momentum"] = json!(0.9);
    assert!(refusal(&unknown.source(Precision::F16)).contains("`momentum`"));
}

#[test]
fn a_token_that_was_added_has_a_row_of_its_own() {
    let mut folder = Folder::new(Kind::Sd1, Size::Small);
    let embedding = folder.networks.get_mut("text_encoder").unwrap().get_mut("embeddings.token_embedding.weight");
    let embedding = embedding.unwrap();
    embedding.shape[0] += 1;
    embedding.data.extend((0..64).map(|i| (i as f32).sin()));
    folder.configs.get_mut("text_encoder/config.json").unwrap()["vocab_size"] = json!(49409);
    let mut source = folder.source(Precision::F16);
    let tokens = |source: &MemorySource| {
        let checkpoint = open(source, &OpenOptions::default()).unwrap_or_else(|error| panic!("{error}"));
        let pipeline = block_on(checkpoint.load(Device::cpu(), &mut |_| {})).unwrap();
        pipeline.tokenize("a photo of <my-cat>").unwrap()
    };
    let without = tokens(&source);
    source.insert("tokenizer/added_tokens.json", json!({ "<my-cat>": 49408 }).to_string());
    let with = tokens(&source);
    assert_eq!(with[..6], [49406, 320, 1125, 539, 49408, 49407]);
    assert_eq!(without[..4], with[..4]);
    assert!(!without.contains(&49408));
}

/// A server that refuses what it does not have.
struct Refusing(MemorySource);

impl Source for Refusing {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn open<'a>(&'a self, path: &'a str) -> LocalBoxFuture<'a, Result<Box<dyn ByteStream>, undiffuse::weights::Error>> {
        use undiffuse::weights::Error::{NotFound, Read};
        Box::pin(async move {
            self.0.open(path).await.map_err(|error| match error {
                NotFound { file, .. } => Read { file, reason: "status 403".into() },
                error => error,
            })
        })
    }
}

#[test]
fn a_server_that_refuses_files_which_few_checkpoints_have_is_noted() {
    let mut source = Folder::new(Kind::Sd1, Size::Small).source(Precision::F16);
    for file in ["special_tokens_map.json", "tokenizer_config.json"] {
        source.insert(format!("tokenizer/{file}"), json!({ "pad_token": "<|endoftext|>" }).to_string());
    }
    let said = notes(&Refusing(source), &OpenOptions::default());
    let expected = ["added_tokens.json", "tokenizer.json"]
        .map(|file| format!("tokenizer/{file}: reading failed: status 403; tokens that it may add are not known"));
    assert_eq!(said, expected);
}

#[test]
fn published_single_files_are_recognised_from_their_headers() {
    for (kind, layout, class, side, scheduler) in [
        (Kind::Sd1, "Stable Diffusion 1.x", "StableDiffusionPipeline", 512, "PNDMScheduler"),
        (Kind::Sd1Inpaint, "Stable Diffusion 1.x", "StableDiffusionInpaintPipeline", 512, "DDIMScheduler"),
        (Kind::Sd2, "Stable Diffusion 2.x", "StableDiffusionPipeline", 768, "DDIMScheduler"),
        (Kind::Sdxl, "Stable Diffusion XL", "StableDiffusionXLPipeline", 1024, "EulerDiscreteScheduler"),
    ] {
        let folder = Folder::new(kind, Size::Real);
        let file = SingleFile(safetensors(&single(kind, &folder), &Value::Null, Precision::None));
        let info = info(&file, &OpenOptions::default());
        assert_eq!(info.layout, format!("a single file, {layout}"));
        assert_eq!((info.class.as_str(), info.width, info.height), (class, side, side), "{kind:?}");
        assert_eq!((info.scheduler.as_str(), info.scale_factor), (scheduler, 8), "{kind:?}");
    }
}

#[test]
fn what_a_file_or_its_reader_says_of_its_prediction_decides() {
    let folder = Folder::new(Kind::Sd2, Size::Real);
    let file = |metadata: Value| SingleFile(safetensors(&single(Kind::Sd2, &folder), &metadata, Precision::None));
    let said =
        |prediction_type: &str| OpenOptions { prediction_type: Some(prediction_type.into()), ..Default::default() };
    let epsilon = json!({ "modelspec.prediction_type": "epsilon" });
    let v = json!({ "modelspec.prediction_type": "v" });
    // Models that predict ε were trained at 512 pixels.
    assert_eq!(info(&file(epsilon.clone()), &OpenOptions::default()).width, 512);
    assert_eq!(info(&file(v), &said("epsilon")).width, 512);
    assert_eq!(info(&file(epsilon), &said("v_prediction")).width, 768);
    let error = open(&file(Value::Null), &said("v")).unwrap_err().to_string();
    assert_eq!(error, "`prediction_type` is v: expected epsilon or v_prediction");
}

#[test]
fn an_option_that_means_nothing_to_the_layout_is_refused() {
    let file = SingleFile(Vec::new());
    for (option, value, options) in [
        ("variant", "fp16", OpenOptions { variant: Some("fp16".into()), ..Default::default() }),
        ("unet", "a.gguf", OpenOptions { unet: Some("a.gguf".into()), ..Default::default() }),
    ] {
        let message = open(&file, &options).unwrap_err().to_string();
        let expected = format!("`{option}` is {value}: a checkpoint in one file has no other files to choose from");
        assert_eq!(message, expected);
    }
    let options = OpenOptions { prediction_type: Some("epsilon".into()), ..Default::default() };
    let message = open(&MemorySource::new(), &options).unwrap_err().to_string();
    assert!(message.starts_with("`prediction_type` is epsilon: it is for checkpoints in one file"), "{message}");
}

#[test]
fn clips_vocabulary_follows_from_its_merges() {
    let clip = reference("tokenizers").join("clip_real");
    let read = |file: &str| fs::read(clip.join(file)).unwrap();
    let asset = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/clip/merges.txt")).unwrap();
    assert!(asset == read("merges.txt"), "the asset is CLIP's");
    let config = json!({ "model_max_length": 77, "pad_token": "<|endoftext|>" }).to_string();
    let made = Tokenizer::from_merges(&asset, Some(config.as_bytes())).unwrap();
    let (config, special) = (read("tokenizer_config.json"), read("special_tokens_map.json"));
    let files = TokenFiles { config: Some(&config), special_tokens_map: Some(&special), ..TokenFiles::default() };
    let stored = Tokenizer::from_files(&read("vocab.json"), &asset, files).unwrap();
    assert_eq!(made.vocab_size(), stored.vocab_size());
    let cases = crate::common::read_json(&reference("tokenizers").join("cases_clip_real.json"));
    let cases = cases["cases"].as_array().expect("a list of cases");
    assert!(!cases.is_empty());
    for text in cases.iter().map(|case| case["text"].as_str().expect("a text")) {
        assert_eq!(made.encode_padded(text, 77).unwrap(), stored.encode_padded(text, 77).unwrap(), "{text:?}");
    }
    // Every token, so that no two have changed places.
    let ids: Vec<u32> = (0..stored.vocab_size() as u32).collect();
    for id in ids {
        assert_eq!(made.decode(&[id]), stored.decode(&[id]), "token {id}");
    }
    let error = Tokenizer::from_merges(b"a b\na b\n", None).unwrap_err().to_string();
    assert_eq!(error, "merges.txt: \"ab\" comes about in two ways");
}

#[test]
fn other_single_files_are_refused_with_what_they_are() {
    let tensors = |names: &[&str]| {
        let tensor = |name: &&str| ((*name).to_owned(), Stored { shape: vec![1], data: vec![0.0] });
        SingleFile(safetensors(&names.iter().map(tensor).collect(), &Value::Null, Precision::F32))
    };
    for (name, what) in [
        ("model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight", "a transformer of `joint_blocks`"),
        ("double_blocks.0.img_attn.qkv.weight", "a transformer of `double_blocks`"),
        ("lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight", "a LoRA"),
        ("control_model.input_blocks.0.0.weight", "a ControlNet"),
        ("conditioner.embedders.0.model.positional_embedding", "an unknown model of 1 tensors"),
        ("down_blocks.0.resnets.0.conv1.weight", "a network alone"),
        ("model.diffusion_model.input_blocks.0.0.weight", "a UNet without the text encoders of one of Stable"),
        ("decoder.up.0.block.0.conv1.weight", "a VAE alone, which `vae` puts in the place of a checkpoint's own"),
        ("decoder.layers.0.weight", "a network with a decoder, alone"),
        ("speech.encoder.weight", "an unknown model of 1 tensors, such as `speech.encoder.weight`"),
    ] {
        let message = refusal(&tensors(&[name]));
        assert!(message.starts_with(&format!("model.safetensors: this is {what}")), "{name}: {message}");
        assert!(message.ends_with("a whole checkpoint of Stable Diffusion 1.x, 2.x or XL"), "{name}: {message}");
    }
    assert!(refusal(&tensors(&[])).contains("a file without a tensor"));

    for (tensor, what) in [
        ("edm_mean", "a checkpoint of Playground v2.5"),
        ("edm_vpred.sigma_max", "a checkpoint of CosXL"),
        ("control_model.zero_convs.0.0.weight", "a checkpoint with a ControlNet in it"),
    ] {
        let mut file = single(Kind::Sdxl, &Folder::new(Kind::Sdxl, Size::Real));
        file.insert(tensor.into(), Stored { shape: vec![1], data: vec![] });
        let message = refusal(&SingleFile(safetensors(&file, &Value::Null, Precision::None)));
        assert!(message.starts_with(&format!("model.safetensors: this is {what}")), "{message}");
    }

    let folder = Folder::new(Kind::Sd1, Size::Real);
    let mut file = single(Kind::Sd1, &folder);
    let conv_in = "model.diffusion_model.input_blocks.0.0.weight";
    for (channels, what) in
        [(5, "as those of depth-to-image models"), (7, "as those of upscalers"), (8, "as those of Instruct"), (6, ";")]
    {
        file.insert(conv_in.into(), Stored { shape: vec![320, channels, 3, 3], data: vec![] });
        let message = refusal(&SingleFile(safetensors(&file, &Value::Null, Precision::None)));
        assert!(message.contains(&format!("takes {channels} channels")) && message.contains(what), "{message}");
    }
    file.insert(conv_in.into(), Stored { shape: vec![320, 4, 3, 3], data: vec![] });
    file.remove("model.diffusion_model.output_blocks.11.0.out_layers.3.weight");
    let message = refusal(&SingleFile(safetensors(&file, &Value::Null, Precision::None)));
    assert_eq!(
        message,
        "model.safetensors: there is no tensor `up_blocks.3.resnets.2.conv2.weight`, which the network needs"
    );
    file.retain(|name, _| !name.starts_with("model.diffusion_model.output_blocks.11."));
    let message = refusal(&SingleFile(safetensors(&file, &Value::Null, Precision::None)));
    assert!(message.contains("its input and output blocks do not mirror each other"), "{message}");
}

#[test]
fn a_pickle_is_refused_with_the_reason_and_the_way_out() {
    for start in [&b"PK\x03\x04 archive/data.pkl"[..], b"\x80\x02\x8A\x0A\x6C\xFC\x9C\x46\xF9\x20\x6A\xA8\x50\x19."] {
        let message = refusal(&SingleFile(start.to_vec()));
        assert!(message.contains("pickle, which can run any code when it is opened"), "{message}");
        assert!(message.contains("StableDiffusionPipeline.from_single_file(\"FILE\").save_pretrained"), "{message}");
    }
    let mut source = Reference::new("sd").moved(|path| (!path.starts_with("unet/diffusion")).then(|| path.to_owned()));
    source.insert("unet/diffusion_pytorch_model.bin", *b"PK\x03\x04");
    let message = refusal(&source);
    assert!(message.starts_with("unet/diffusion_pytorch_model.bin: this is a PyTorch pickle"), "{message}");
    assert!(message.contains("DiffusionPipeline.from_pretrained(\"FOLDER\").save_pretrained"), "{message}");
}

/// A folder of the reference in memory, to be changed.
struct Reference {
    source: MemorySource,
    files: BTreeMap<String, Vec<u8>>,
}

impl Reference {
    fn new(model: &str) -> Self {
        let root = reference("pipelines").join("models").join(model);
        let mut source = MemorySource::new();
        let mut files = BTreeMap::new();
        for folder in [vec![root.clone()], folders(&root)].concat() {
            for entry in fs::read_dir(&folder).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_file()) {
                let name = entry.file_name().into_string().unwrap();
                let path = if folder == root { name } else { format!("{}/{name}", name_of(&folder)) };
                let bytes = fs::read(entry.path()).unwrap();
                source.insert(path.clone(), bytes.clone());
                files.insert(path, bytes);
            }
        }
        Self { source, files }
    }

    /// The same files, each under the path that `to` gives it; `None` leaves it out.
    fn moved(&self, to: impl Fn(&str) -> Option<String>) -> MemorySource {
        let mut source = MemorySource::new();
        for (path, bytes) in &self.files {
            if let Some(path) = to(path) {
                source.insert(path, bytes.clone());
            }
        }
        source
    }
}

const WEIGHTS: &str = "unet/diffusion_pytorch_model.safetensors";

/// The UNet of `files` in two shards with their index: paths and bytes.
fn shards(files: &BTreeMap<String, Vec<u8>>, variant: &str) -> (Value, [(String, Vec<u8>); 2]) {
    let whole = ::safetensors::SafeTensors::deserialize(&files[WEIGHTS]).unwrap();
    let mut index = json!({ "metadata": { "total_size": 0 }, "weight_map": {} });
    let shard = |number: usize| format!("diffusion_pytorch_model{variant}-0000{number}-of-00002.safetensors");
    let mut parts = [Vec::new(), Vec::new()];
    for (number, (name, view)) in whole.tensors().into_iter().enumerate() {
        index["weight_map"][&name] = json!(shard(number % 2 + 1));
        parts[number % 2].push((name, view));
    }
    let mut number = 0;
    let files = parts.map(|part| {
        number += 1;
        (format!("unet/{}", shard(number)), ::safetensors::serialize(part, None).unwrap())
    });
    (index, files)
}

#[test]
fn variants_and_shards_draw_what_the_whole_file_draws() {
    let reference = Reference::new("sd");
    let plain = draw(&reference.source, &OpenOptions::default());
    let variant = OpenOptions { variant: Some("fp16".into()), ..OpenOptions::default() };
    let half = draw(&reference.source, &variant);
    assert_ne!(plain.0, half.0, "f16 weights are others");

    // Only the variant is there.
    let only = reference.moved(|path| {
        let stem = path.strip_suffix(".safetensors").filter(|stem| !stem.ends_with(".fp16"));
        let replaced = stem.is_some_and(|stem| reference.files.contains_key(&format!("{stem}.fp16.safetensors")));
        (!replaced).then(|| path.to_owned())
    });
    assert_same(draw(&only, &OpenOptions::default()), &half);

    // A component without the variant has plain files.
    let some =
        reference.moved(|path| (path != "vae/diffusion_pytorch_model.fp16.safetensors").then(|| path.to_owned()));
    assert_eq!(info(&some, &variant).class, "StableDiffusionPipeline");
    let none = reference.moved(|path| (!path.contains("unet/diffusion_pytorch_model.fp16")).then(|| path.to_owned()));
    let message = open(&none, &variant).unwrap_err().to_string();
    assert!(message.starts_with("unet/diffusion_pytorch_model.fp16.safetensors: there is no such file"), "{message}");

    for (variant, index_name, options) in [
        ("", "diffusion_pytorch_model.safetensors.index.json", OpenOptions::default()),
        (".fp16", "diffusion_pytorch_model.safetensors.index.fp16.json", variant.clone()),
        (".fp16", "diffusion_pytorch_model.fp16.safetensors.index.json", variant.clone()),
    ] {
        let mut source = reference
            .moved(|path| (!path.starts_with("unet/diffusion") && !path.contains("fp16")).then(|| path.to_owned()));
        let (index, files) = shards(&reference.files, variant);
        source.insert(format!("unet/{index_name}"), index.to_string());
        files.into_iter().for_each(|(path, bytes)| source.insert(path, bytes));
        assert_same(draw(&source, &options), &plain);
    }
}

#[test]
fn an_index_and_shards_that_do_not_fit_are_refused_by_name() {
    let reference = Reference::new("sd");
    let (index, files) = shards(&reference.files, "");
    let build = |index: &Value, files: &[(String, Vec<u8>)]| {
        let mut source = reference.moved(|path| (!path.starts_with("unet/diffusion")).then(|| path.to_owned()));
        source.insert("unet/diffusion_pytorch_model.safetensors.index.json", index.to_string());
        files.iter().for_each(|(path, bytes)| source.insert(path, bytes.clone()));
        refusal(&source)
    };
    let tensor = index["weight_map"].as_object().unwrap().keys().next().unwrap().clone();
    let with = |shard: &str| {
        let mut index = index.clone();
        index["weight_map"][&tensor] = json!(shard);
        index
    };
    let name = "unet/diffusion_pytorch_model.safetensors.index.json: ";
    for outside in ["../../secret.safetensors", "/etc/passwd", "other/model.safetensors"] {
        let message = build(&with(outside), &files);
        assert_eq!(message, format!("{name}it names {outside:?}; a shard lies beside its index"));
    }
    assert!(build(&with(".."), &files).contains("is not a path inside a checkpoint"));
    let message = build(&index, &files[..1]);
    assert!(message.starts_with(&format!("{}: there is no such file", files[1].0)), "{message}");
    let first = index["weight_map"][&tensor].as_str().unwrap();
    let other = files.iter().map(|(path, _)| path.trim_start_matches("unet/")).find(|path| *path != first).unwrap();
    let message = build(&with(other), &files);
    let expected = format!("{name}tensor `{tensor}` is said to be in {other}, and is not; download both again");
    assert_eq!(message, expected);
    let twice = [files[0].clone(), (files[1].0.clone(), reference.files[WEIGHTS].clone())];
    let message = build(&index, &twice);
    assert!(message.contains("is the same weight of the network"), "{message}");
    let message = build(&json!({ "weight_map": {} }), &files);
    assert_eq!(message, format!("{name}it names no shard"));
    let many: BTreeMap<String, String> = (0..300).map(|i| (format!("t{i}"), format!("s{i}.safetensors"))).collect();
    assert_eq!(build(&json!({ "weight_map": many }), &files), format!("{name}it names more than 256 shards"));
    assert!(build(&json!([]), &files).starts_with(name));
}

#[test]
fn files_side_by_side_are_a_model_of_one_network() {
    let reference = Reference::new("ddpm_uncond");
    let expected = draw(&reference.source, &OpenOptions::default());
    let at_root = |path: &str| Some(path.rsplit('/').next().unwrap_or(path).to_owned());
    assert_same(draw(&reference.moved(at_root), &OpenOptions::default()), &expected);
    let bare = reference.moved(|path| at_root(path).filter(|file| file != "model_index.json"));
    assert_eq!(info(&bare, &OpenOptions::default()).class, "DDPMPipeline");

    let no_scheduler = reference.moved(|path| at_root(path).filter(|_| path.starts_with("unet/")));
    let message = refusal(&no_scheduler);
    assert!(message.starts_with("scheduler_config.json: there is no such file"), "{message}");
    // Any other network by itself is no checkpoint.
    let vae = Reference::new("sd").moved(|path| path.strip_prefix("vae/").map(str::to_owned));
    assert!(refusal(&vae).starts_with("model_index.json: there is no such file"));
}

#[test]
fn a_unet_of_its_own_takes_the_place_of_the_checkpoints() {
    let folder = Folder::new(Kind::Sd1, Size::Small);
    let mut source = folder.source(Precision::F16);
    let expected = draw(&source, &OpenOptions::default());
    source.insert(WEIGHTS, *b"never looked at");
    let bare = ldm_unet_file(&folder);
    let prefixed =
        bare.iter().map(|(name, stored)| (format!("model.diffusion_model.{name}"), stored.clone())).collect();
    source.insert("ldm.safetensors", safetensors(&bare, &Value::Null, Precision::F16));
    source.insert("unet/whole.safetensors", safetensors(&prefixed, &Value::Null, Precision::F16));
    let tensors = bare.iter().map(|(name, stored)| (name.clone(), stored.shape.clone())).collect();
    let metadata = vec![("general.architecture".to_owned(), gguf::Entry::Text("sd1".into()))];
    let mut writer = gguf::Writer::new(std::io::Cursor::new(Vec::new()), metadata, tensors).unwrap();
    for stored in bare.values() {
        writer.tensor(Encoding::F16, &Precision::F16.bytes(&stored.data)).unwrap();
    }
    source.insert("sd1.gguf", writer.finish().unwrap().0.into_inner());
    for file in ["ldm.safetensors", "unet/whole.safetensors", "sd1.gguf"] {
        let options = OpenOptions { unet: Some(file.into()), ..OpenOptions::default() };
        assert_same(draw(&source, &options), &expected);
    }
    let options = OpenOptions { unet: Some("../sd1.gguf".into()), ..OpenOptions::default() };
    let message = open(&source, &options).unwrap_err().to_string();
    assert!(message.contains("is not a path inside a checkpoint"), "{message}");
}

#[test]
fn a_path_to_a_file_is_a_source_of_one_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("v1-5.safetensors");
    let folder = Folder::new(Kind::Sd1, Size::Small);
    fs::write(&path, safetensors(&single(Kind::Sd1, &folder), &Value::Null, Precision::F16)).unwrap();
    let source = DirectorySource::new(&path);
    assert_eq!(source.single_file(), Some("v1-5.safetensors"));
    assert_eq!(info(&source, &OpenOptions::default()).layout, "a single file, Stable Diffusion 1.x");
    assert_eq!(DirectorySource::new(directory.path()).single_file(), None);
    let given = MemorySource::new();
    let options = OpenOptions { vocabulary: Some(&given), ..OpenOptions::default() };
    let message = open(&source, &options).unwrap_err().to_string();
    assert!(message.starts_with("merges.txt: there is no such file in memory"), "{message}");
}

fn inspect(arguments: &[&std::ffi::OsStr]) -> String {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_undiffuse"));
    let output = command.arg("inspect").args(arguments).output().expect("the command starts");
    String::from_utf8(output.stdout).expect("stdout is text")
}

#[test]
fn inspect_shows_the_layout_and_which_files_are_read() {
    let sd = reference("pipelines").join("models/sd");
    let report = inspect(&[sd.as_ref()]);
    assert!(report.contains("layout") && report.contains("a folder as diffusers writes it"), "{report}");
    let line = |report: &str, start: &str| {
        let found = report.lines().map(str::trim).find(|line| line.starts_with(start));
        found.unwrap_or_else(|| panic!("no {start} in {report}")).to_owned()
    };
    let (plain, half) = ("diffusion_pytorch_model.safetensors:", "diffusion_pytorch_model.fp16.safetensors:");
    assert!(
        !line(&report, plain).ends_with(", not read") && line(&report, half).ends_with("F16, not read"),
        "{report}"
    );
    let report = inspect(&[sd.as_ref(), "--variant".as_ref(), "fp16".as_ref()]);
    assert!(line(&report, plain).ends_with(", not read") && line(&report, half).ends_with("F16"), "{report}");

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("xl.safetensors");
    let folder = Folder::new(Kind::Sdxl, Size::Small);
    fs::write(&path, safetensors(&single(Kind::Sdxl, &folder), &Value::Null, Precision::F16)).unwrap();
    let report = inspect(&[path.as_ref()]);
    assert!(line(&report, "pipeline").ends_with("StableDiffusionXLPipeline"), "{report}");
    assert!(line(&report, "layout").ends_with("a single file, Stable Diffusion XL"), "{report}");
    assert!(line(&report, "supported").ends_with("yes"), "{report}");
    let sd2 = single(Kind::Sd2, &Folder::new(Kind::Sd2, Size::Small));
    fs::write(&path, safetensors(&sd2, &Value::Null, Precision::F16)).unwrap();
    let report = inspect(&[path.as_ref()]);
    assert!(line(&report, "notes").ends_with("v is assumed; --prediction-type epsilon says otherwise"), "{report}");
    let report = inspect(&[path.as_ref(), "--prediction-type".as_ref(), "epsilon".as_ref()]);
    assert!(report.contains("prediction_type epsilon") && !report.contains("is assumed"), "{report}");
    fs::write(&path, b"PK\x03\x04").unwrap();
    assert!(line(&inspect(&[path.as_ref()]), "supported").contains("pickle, which can run any code"));
}

#[test]
fn inspect_stays_in_the_folder_and_reads_no_more_than_a_config() {
    let directory = tempfile::tempdir().unwrap();
    let (outside, model) = (directory.path().join("outside"), directory.path().join("model"));
    fs::create_dir_all(&outside).unwrap();
    fs::create_dir_all(&model).unwrap();
    fs::write(outside.join("config.json"), r#"{"_class_name": "UNet2DModel", "in_channels": 4321}"#).unwrap();
    let index = json!({ "_class_name": "DDPMPipeline", "../outside": ["diffusers", "UNet2DModel"] });
    fs::write(model.join("model_index.json"), index.to_string()).unwrap();
    let report = inspect(&[model.as_ref()]);
    assert!(report.contains("../outside  UNet2DModel") && !report.contains("4321"), "{report}");
    fs::write(model.join("model_index.json"), " ".repeat((1 << 20) + 1)).unwrap();
    let ran = crate::common::command::undiffuse(&[&"inspect", &model]);
    assert!(ran.code != Some(0) && ran.stderr.contains("model_index.json"), "{}", ran.stderr);
}
