//! LoRA files against diffusers and peft, and files that are no LoRA for the model.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use crate::common::{Tally, Tensor, max_abs, read_json, read_tensors, read_text, reference, worst_beyond};
use pollster::block_on;
use safetensors::tensor::{Dtype, TensorView, serialize};
use undiffuse::device::Device;
use undiffuse::graph::WeightSpec;
use undiffuse::models::{ClipTextConfig, Unet2dConditionConfig, Unet2dConditionInputs};
use undiffuse::pipeline::{Component, LoraFile, NamedTensor, Pipeline};
use undiffuse::weights::{DirectorySource, MemorySource};

fn lora() -> std::path::PathBuf {
    reference("pipelines").join("lora")
}

fn unet_specs(folder: &Path) -> Vec<WeightSpec> {
    let config = Unet2dConditionConfig::from_json(&read_text(&folder.join("config.json"))).unwrap();
    let inputs = Unet2dConditionInputs { batch: 1, height: 64, width: 64, tokens: 1, timestep_cond: false };
    config.graph(inputs).unwrap().weights().to_vec()
}

fn text_specs(folder: &Path) -> Vec<WeightSpec> {
    let config = ClipTextConfig::from_json(&read_text(&folder.join("config.json"))).unwrap();
    config.graph(1, 1).unwrap().weights().to_vec()
}

/// W + scale · up · down, row-major.
fn merged(weight: &Tensor, up: &[f32], down: &[f32], scale: f32) -> Vec<f32> {
    let (out, inputs) = (weight.shape[0], weight.data.len() / weight.shape[0]);
    let rank = up.len() / out;
    let product = |row: usize, column: usize| -> f64 {
        (0..rank).map(|r| f64::from(up[row * rank + r]) * f64::from(down[r * inputs + column])).sum()
    };
    let sum = |i: usize| f64::from(weight.data[i]) + f64::from(scale) * product(i / inputs, i % inputs);
    (0..weight.data.len()).map(|i| sum(i) as f32).collect()
}

#[test]
fn every_merged_weight_of_the_reference_is_reproduced() {
    let model =
        reference("pipelines").join("models").join(read_json(&lora().join("lora.json"))["model"].as_str().unwrap());
    let unet = (unet_specs(&model.join("unet")), read_tensors(&model.join("unet/diffusion_pytorch_model.safetensors")));
    let text = (text_specs(&model.join("text_encoder")), read_tensors(&model.join("text_encoder/model.safetensors")));
    let mut tally = Tally::default();
    for (key, expected) in read_tensors(&lora().join("expected.safetensors")) {
        let Some(case) = key.strip_prefix("merged/") else { continue };
        let (run, name) = case.split_once('/').unwrap();
        let (file, weight) = run.split_once('@').unwrap();
        let (component, name) = name.split_once('.').unwrap();
        let (specs, weights) = if component == "unet" { &unet } else { &text };
        let file = block_on(LoraFile::open(&DirectorySource::new(lora()), &format!("{file}.safetensors"))).unwrap();
        let updates = file.updates(component, specs).unwrap();
        let is_it = |index: usize| name.strip_prefix("text_model.").unwrap_or(name) == specs[index].name;
        let (_, module) = updates.into_iter().find(|(index, _)| is_it(*index)).expect("an update of the weight");
        let low_rank = module.low_rank(weight.parse().unwrap());
        let actual = merged(&weights[name], &low_rank.up, &low_rank.down, low_rank.scale);
        tally.check(case, worst_beyond(&actual, &expected, 1e-6 * max_abs(&expected).max(1.0)));
    }
    tally.finish("merged weights");
}

#[test]
fn every_module_of_a_file_finds_its_weight() {
    let facts = read_json(&lora().join("lora.json"));
    let model = reference("pipelines").join("models").join(facts["model"].as_str().unwrap());
    let (unet, text) = (unet_specs(&model.join("unet")), text_specs(&model.join("text_encoder")));
    let mut tally = Tally::default();
    for (run, counts) in facts["files"].as_object().unwrap() {
        let file = format!("{}.safetensors", run.split_once('@').unwrap().0);
        let file = block_on(LoraFile::open(&DirectorySource::new(lora()), &file)).unwrap();
        let found =
            [("unet", &unet), ("text_encoder", &text)].map(|(name, specs)| file.updates(name, specs).unwrap().len());
        let expected = ["modules_unet", "modules_text_encoder"].map(|key| counts[key].as_u64().unwrap() as usize);
        let result = if found == expected { Ok(0.0) } else { Err(format!("{found:?} modules, expected {expected:?}")) };
        tally.check(run, result);
    }
    tally.finish("modules of LoRA files");
}

/// What the networks make of the inputs of the reference, with LoRAs merged: the UNet's output and the text encoder's.
struct Networks {
    unet: Component,
    text: Component,
    inputs: [BTreeMap<String, NamedTensor>; 2],
}

impl Networks {
    fn load(device: &Device, expected: &BTreeMap<String, Tensor>) -> Self {
        let facts = read_json(&lora().join("lora.json"));
        let model = reference("pipelines").join("models").join(facts["model"].as_str().unwrap());
        let load = |name: &str| {
            block_on(Component::load(&DirectorySource::new(model.join(name)), device.clone(), None)).unwrap()
        };
        // The prompt is in the file's own words.
        let words = facts["expected"].as_str().unwrap();
        let prompt = words.split_once("(prompt: '").unwrap().1.split_once("')").unwrap().0;
        let pipeline = block_on(Pipeline::load(&DirectorySource::new(&model), Device::cpu(), &mut |_| {})).unwrap();
        let ids: Vec<f32> = pipeline.tokenize(prompt).unwrap().into_iter().map(|id| id as f32).collect();
        let input = |name: &str| {
            let Tensor { shape, data } = expected[&format!("unet_in/{name}")].clone();
            (name.to_owned(), NamedTensor { shape: if shape.is_empty() { vec![1] } else { shape }, data })
        };
        let unet_inputs = ["sample", "timestep", "encoder_hidden_states"].map(input).into();
        let text_inputs = [("input_ids".to_owned(), NamedTensor { shape: vec![1, ids.len()], data: ids })].into();
        Self { unet: load("unet"), text: load("text_encoder"), inputs: [unet_inputs, text_inputs] }
    }

    fn unet(&self) -> Vec<f32> {
        block_on(self.unet.run(&self.inputs[0])).unwrap().remove("out").unwrap().data
    }

    fn text(&self) -> Vec<f32> {
        block_on(self.text.run(&self.inputs[1])).unwrap().remove("last_hidden_state").unwrap().data
    }
}

fn walk(device: &Device, what: &str) {
    let expected = read_tensors(&lora().join("expected.safetensors"));
    let networks = Networks::load(device, &expected);
    let mut tally = Tally::default();
    tally.check("base", worst_beyond(&networks.unet(), &expected["unet_out/base"], 1e-4));
    let originals = (networks.unet(), networks.text());
    for (key, expected) in &expected {
        let Some((output, run)) = key.split_once('/').filter(|(_, run)| run.contains('@') && !run.contains('/')) else {
            continue;
        };
        let (file, weight) = run.split_once('@').unwrap();
        let file = block_on(LoraFile::open(&DirectorySource::new(lora()), &format!("{file}.safetensors"))).unwrap();
        let loras = [(&file, weight.parse().unwrap())];
        let actual = match output {
            "unet_out" => {
                block_on(networks.unet.set_loras(&loras)).unwrap();
                networks.unet()
            }
            "text_last_hidden_state" => {
                block_on(networks.text.set_loras(&loras)).unwrap();
                networks.text()
            }
            _ => {
                tally.skip(key, "no network's output");
                continue;
            }
        };
        tally.check(key, worst_beyond(&actual, expected, 1e-4));
    }
    block_on(networks.unet.set_loras(&[])).unwrap();
    block_on(networks.text.set_loras(&[])).unwrap();
    assert!((networks.unet(), networks.text()) == originals, "the weights are not what they were");
    tally.finish(what);
}

#[test]
fn every_network_with_a_lora_gives_what_the_reference_gives_and_is_restored_on_the_cpu() {
    walk(&Device::cpu(), "networks with LoRAs on the CPU");
}

#[test]
fn every_network_with_a_lora_gives_what_the_reference_gives_and_is_restored_on_the_gpu() {
    walk(&crate::common::gpu(), "networks with LoRAs on the GPU");
}

#[test]
fn loras_add_up_and_replace_those_that_were_merged_before() {
    let expected = read_tensors(&lora().join("expected.safetensors"));
    let networks = Networks::load(&Device::cpu(), &expected);
    let open = |name: &str| block_on(LoraFile::open(&DirectorySource::new(lora()), name)).unwrap();
    let (peft, old) = (open("peft_unet_attn.safetensors"), open("old_diffusers_attn_procs.safetensors"));
    let with = |loras: &[(&LoraFile, f64)]| {
        block_on(networks.unet.set_loras(loras)).unwrap();
        networks.unet()
    };
    let original = networks.unet();
    let once = with(&[(&peft, 1.0)]);
    let halves = Tensor { shape: vec![once.len()], data: with(&[(&peft, 0.5), (&peft, 0.5)]) };
    worst_beyond(&once, &halves, 1e-5).unwrap();
    let both = with(&[(&peft, 1.0), (&old, -0.5)]);
    assert!(both != once && both != original);
    assert!(with(&[(&peft, 1.0)]) == once, "something was left of the others");
    assert!(with(&[(&peft, 0.0)]) == original && with(&[]) == original);
}

#[test]
fn a_refused_lora_changes_nothing() {
    let model = reference("pipelines").join("models/sd");
    let pipeline = block_on(Pipeline::load(&DirectorySource::new(model), Device::cpu(), &mut |_| {})).unwrap();
    let pair = |module: &str| {
        let (down, up) = (format!("{module}.lora_down.weight"), format!("{module}.lora_up.weight"));
        file(&[(&down, &[2, 24]), (&up, &[24, 2])], &[]).unwrap()
    };
    let refusal = |lora: &LoraFile, weight| block_on(pipeline.set_loras(&[(lora, weight)])).unwrap_err().to_string();
    let attention = "encoder_layers_0_self_attn_q_proj";
    assert_eq!(
        refusal(&pair(&format!("lora_te2_text_model_{attention}")), 1.0),
        "`lora` is l.safetensors: it changes a text_encoder_2, and this StableDiffusionPipeline has none"
    );
    let fits = pair(&format!("lora_te_text_model_{attention}"));
    assert_eq!(refusal(&fits, f64::NAN), "`weight` is NaN: expected a number, such as 0.8");
    block_on(pipeline.set_loras(&[(&fits, 1.0)])).unwrap();

    let unet = reference("pipelines").join("models/sd/unet");
    let unet = block_on(Component::load(&DirectorySource::new(unet), Device::cpu(), None)).unwrap();
    let message = block_on(unet.set_loras(&[(&fits, 1.0)])).unwrap_err().to_string();
    assert_eq!(message, "`lora` is l.safetensors: it changes no unet");
}

/// A file in memory, all of whose numbers are 1.
fn bytes(tensors: &[(&str, &[usize])], metadata: &[(&str, &str)]) -> Vec<u8> {
    let bytes = 1f32.to_le_bytes().repeat(1 << 12);
    let views = tensors.iter().map(|(name, shape)| {
        let length = 4 * shape.iter().product::<usize>();
        ((*name).to_owned(), TensorView::new(Dtype::F32, shape.to_vec(), &bytes[..length]).unwrap())
    });
    let metadata = metadata.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let metadata = Some(metadata).filter(|metadata: &HashMap<_, _>| !metadata.is_empty());
    serialize(views.collect::<BTreeMap<_, _>>(), metadata).unwrap()
}

/// A LoRA of rank 2 in memory, all of whose numbers are 1.
fn file(tensors: &[(&str, &[usize])], metadata: &[(&str, &str)]) -> Result<LoraFile, String> {
    let mut source = MemorySource::new();
    source.insert("l.safetensors", bytes(tensors, metadata));
    block_on(LoraFile::open(&source, "l.safetensors")).map_err(|error| error.to_string())
}

fn refusal(tensors: &[(&str, &[usize])], metadata: &[(&str, &str)]) -> String {
    file(tensors, metadata).map(drop).expect_err("a file that is refused")
}

/// The weights of a UNet of SDXL's structure, or with the attention of SD 1.x.
fn structure(sdxl: bool) -> Vec<WeightSpec> {
    let blocks = |names: [&str; 3]| serde_json::json!(names);
    let (down, up) = match sdxl {
        true => (
            ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
            ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        ),
        false => (
            ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
            ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
        ),
    };
    let config = serde_json::json!({
        "_class_name": "UNet2DConditionModel", "down_block_types": blocks(down), "up_block_types": blocks(up),
        "block_out_channels": [8, 16, 24], "layers_per_block": 2, "norm_num_groups": 8, "attention_head_dim": 2,
        "cross_attention_dim": 8, "transformer_layers_per_block": if sdxl { [1, 2, 3] } else { [1, 1, 1] },
    });
    let config = Unet2dConditionConfig::from_json(&config.to_string()).unwrap();
    let inputs = Unet2dConditionInputs { batch: 1, height: 64, width: 64, tokens: 1, timestep_cond: false };
    config.graph(inputs).unwrap().weights().to_vec()
}

#[test]
fn modules_named_as_in_the_original_code_find_their_weights() {
    let cases = [
        (true, "input_blocks_0_0", "conv_in"),
        (true, "time_embed_2", "time_embedding.linear_2"),
        (true, "input_blocks_3_0_op", "down_blocks.0.downsamplers.0.conv"),
        (true, "input_blocks_4_0_in_layers_2", "down_blocks.1.resnets.0.conv1"),
        (true, "input_blocks_4_1_proj_in", "down_blocks.1.attentions.0.proj_in"),
        (
            true,
            "input_blocks_5_1_transformer_blocks_1_attn2_to_k",
            "down_blocks.1.attentions.1.transformer_blocks.1.attn2.to_k",
        ),
        (
            true,
            "input_blocks_8_1_transformer_blocks_2_ff_net_0_proj",
            "down_blocks.2.attentions.1.transformer_blocks.2.ff.net.0.proj",
        ),
        (true, "middle_block_0_emb_layers_1", "mid_block.resnets.0.time_emb_proj"),
        (
            true,
            "middle_block_1_transformer_blocks_0_attn1_to_out_0",
            "mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0",
        ),
        (true, "middle_block_2_out_layers_3", "mid_block.resnets.1.conv2"),
        (true, "output_blocks_2_2_conv", "up_blocks.0.upsamplers.0.conv"),
        (true, "output_blocks_4_1_proj_out", "up_blocks.1.attentions.1.proj_out"),
        (true, "output_blocks_8_0_skip_connection", "up_blocks.2.resnets.2.conv_shortcut"),
        (true, "out_2", "conv_out"),
        (false, "output_blocks_2_1_conv", "up_blocks.0.upsamplers.0.conv"),
        (false, "output_blocks_5_2_conv", "up_blocks.1.upsamplers.0.conv"),
        (
            false,
            "input_blocks_1_1_transformer_blocks_0_attn1_to_v",
            "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_v",
        ),
    ];
    for (sdxl, original, expected) in cases {
        let specs = structure(sdxl);
        let spec = specs.iter().find(|spec| spec.name == format!("{expected}.weight")).expect(expected);
        let (down, up) =
            (format!("lora_unet_{original}.lora_down.weight"), format!("lora_unet_{original}.lora_up.weight"));
        let down_shape = [&[2], &spec.shape[1..]].concat();
        let lora = file(&[(&down, &down_shape), (&up, &[spec.shape[0], 2])], &[]).unwrap();
        let updates = lora.updates("unet", &specs).unwrap_or_else(|e| panic!("{original}: {e}"));
        assert_eq!(updates.len(), 1);
        assert_eq!(specs[updates[0].0].name, spec.name, "{original}");
    }
}

#[test]
fn every_way_to_name_a_module_is_read() {
    let unet = "down_blocks.1.attentions.0.transformer_blocks.0.attn1";
    let text = "text_model.encoder.layers.0.self_attn";
    let cases = [
        (format!("unet.{unet}.to_q.lora_A.weight"), format!("unet.{unet}.to_q.lora_B.weight"), "to_q"),
        (format!("{unet}.to_out.0.lora_A.weight"), format!("{unet}.to_out.0.lora_B.weight"), "to_out.0"),
        (format!("unet.{unet}.to_k.lora.down.weight"), format!("unet.{unet}.to_k.lora.up.weight"), "to_k"),
        (
            format!("{unet}.processor.to_out_lora.down.weight"),
            format!("{unet}.processor.to_out_lora.up.weight"),
            "to_out.0",
        ),
        (format!("unet.{unet}.to_v.lora_down.weight"), format!("unet.{unet}.to_v.lora_up.weight"), "to_v"),
        (
            format!("text_encoder.{text}.q_proj.lora_linear_layer.down.weight"),
            format!("text_encoder.{text}.q_proj.lora_linear_layer.up.weight"),
            "q_proj",
        ),
        (
            format!("text_encoder.{text}.to_out_lora.down.weight"),
            format!("text_encoder.{text}.to_out_lora.up.weight"),
            "out_proj",
        ),
        (
            format!("text_encoder_2.{text}.k_proj.lora_A.weight"),
            format!("text_encoder_2.{text}.k_proj.lora_B.weight"),
            "k_proj",
        ),
        (
            format!("lora_te1_{}_v_proj.lora_down.weight", text.replace('.', "_")),
            format!("lora_te1_{}_v_proj.lora_up.weight", text.replace('.', "_")),
            "v_proj",
        ),
        (
            format!("lora_te2_{}_v_proj.lora_down.weight", text.replace('.', "_")),
            format!("lora_te2_{}_v_proj.lora_up.weight", text.replace('.', "_")),
            "v_proj",
        ),
        (
            format!("base_model.model.{unet}.to_q.lora_A.weight"),
            format!("base_model.model.{unet}.to_q.lora_B.weight"),
            "to_q",
        ),
        (
            format!("base_model.model.{text}.q_proj.lora_A.weight"),
            format!("base_model.model.{text}.q_proj.lora_B.weight"),
            "q_proj",
        ),
        (
            format!("{}.k_proj.lora_A.default.weight", &text[11..]),
            format!("{}.k_proj.lora_B.default.weight", &text[11..]),
            "k_proj",
        ),
        (
            format!("unet.{unet}.to_k.lora_A.default_0.weight"),
            format!("unet.{unet}.to_k.lora_B.default_0.weight"),
            "to_k",
        ),
        (
            format!("unet.base_model.model.{unet}.to_v.lora_A"),
            format!("unet.base_model.model.{unet}.to_v.lora_B"),
            "to_v",
        ),
        (
            format!("unet._orig_mod.{unet}.to_v.lora_A.weight"),
            format!("unet._orig_mod.{unet}.to_v.lora_B.weight"),
            "to_v",
        ),
        (
            "diffusion_model.input_blocks.4.1.transformer_blocks.0.attn1.to_q.lora_down.weight".to_owned(),
            "diffusion_model.input_blocks.4.1.transformer_blocks.0.attn1.to_q.lora_up.weight".to_owned(),
            "to_q",
        ),
        (
            format!("text_encoders.clip_g.transformer.{text}.q_proj.lora_down.weight"),
            format!("text_encoders.clip_g.transformer.{text}.q_proj.lora_up.weight"),
            "q_proj",
        ),
    ];
    let text_config =
        r#"{"architectures": ["CLIPTextModel"], "hidden_size": 16, "num_hidden_layers": 1, "intermediate_size": 8}"#;
    let text_specs = ClipTextConfig::from_json(text_config).unwrap().graph(1, 1).unwrap().weights().to_vec();
    for (down, up, expected) in cases {
        let component =
            if ["text_encoder_2", "lora_te2", "text_encoders.clip_g"].iter().any(|start| down.starts_with(start)) {
                "text_encoder_2"
            } else if down.contains("text_model") || down.contains("encoder.layers") {
                "text_encoder"
            } else {
                "unet"
            };
        let specs = if component == "unet" { structure(true) } else { text_specs.clone() };
        let lora = file(&[(&down, &[2, 16]), (&up, &[16, 2])], &[]).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(lora.components(), [component], "{down}");
        let updates = lora.updates(component, &specs).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(
            specs[updates[0].0]
                .name
                .strip_suffix(".weight")
                .unwrap()
                .rsplit_once("attn.")
                .or(specs[updates[0].0].name.strip_suffix(".weight").unwrap().rsplit_once("attn1."))
                .unwrap()
                .1,
            expected,
            "{down}"
        );
    }
}

#[test]
fn the_scale_is_alpha_over_rank_wherever_alpha_is_written() {
    let names = |module: &str| {
        [format!("{module}.lora_A.weight"), format!("{module}.lora_B.weight"), format!("{module}.alpha")]
    };
    let module = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q";
    let [down, up, alpha] = names(module);
    let pair: [(&str, &[usize]); 2] = [(&down, &[2, 16]), (&up, &[16, 2])];
    let scale = |tensors: &[(&str, &[usize])], settings: &str| {
        let metadata = [("lora_adapter_metadata", settings)];
        let lora = file(tensors, if settings.is_empty() { &[] } else { &metadata }).unwrap();
        lora.updates("unet", &structure(true)).unwrap()[0].1.low_rank(3.0).scale
    };
    assert_eq!(scale(&pair, ""), 3.0);
    assert_eq!(scale(&[pair[0], pair[1], (&alpha, &[])], ""), 1.5);
    assert_eq!(scale(&pair, r#"{"unet.lora_alpha": 8, "unet.r": 2}"#), 12.0);
    assert_eq!(scale(&pair, r#"{"lora_alpha": 8}"#), 12.0);
    assert_eq!(scale(&pair, r#"{"unet.lora_alpha": 8, "unet.alpha_pattern": {"attn1.to_q": 4}}"#), 6.0);
    assert_eq!(scale(&pair, r#"{"unet.lora_alpha": 8, "unet.alpha_pattern": {"n1.to_q": 4}}"#), 12.0);
    assert_eq!(scale(&pair, r#"{"unet.lora_alpha": 8, "unet.use_rslora": true}"#), (3.0 * 8.0 / 2f64.sqrt()) as f32);
    // As diffusers writes patterns: from the beginning of the name.
    let whole = module.strip_prefix("unet.").unwrap();
    assert_eq!(scale(&pair, &format!(r#"{{"lora_alpha": 8, "alpha_pattern": {{"^{whole}": 2}}}}"#)), 3.0);
    assert_eq!(scale(&pair, r#"{"lora_alpha": 8, "alpha_pattern": {"^attn1.to_q": 2}}"#), 12.0);
    assert_eq!(scale(&pair, r#"{"lora_alpha": 8, "alpha_pattern": {".*n1.to_q": 2}}"#), 3.0);
    assert_eq!(scale(&pair, r#"{"lora_alpha": 8, "alpha_pattern": {"attn1\\.to_q$": 2}}"#), 3.0);
}

#[test]
fn alpha_is_a_number_of_any_plain_dtype() {
    let module = "lora_unet_mid_block_attentions_0_proj_in";
    let ones = 1f32.to_le_bytes().repeat(48);
    let scale = |dtype: Dtype, alpha: &[u8]| {
        let views = [
            (format!("{module}.alpha"), TensorView::new(dtype, vec![], alpha).unwrap()),
            (format!("{module}.lora_down.weight"), TensorView::new(Dtype::F32, vec![2, 24], &ones).unwrap()),
            (format!("{module}.lora_up.weight"), TensorView::new(Dtype::F32, vec![24, 2], &ones).unwrap()),
        ];
        let mut source = MemorySource::new();
        source.insert("l.safetensors", serialize(views, None).unwrap());
        let lora = block_on(LoraFile::open(&source, "l.safetensors")).map_err(|error| error.to_string())?;
        Ok::<f32, String>(lora.updates("unet", &structure(true)).unwrap()[0].1.low_rank(1.0).scale)
    };
    assert_eq!(scale(Dtype::I64, &4i64.to_le_bytes()), Ok(2.0));
    assert_eq!(scale(Dtype::I32, &4i32.to_le_bytes()), Ok(2.0));
    assert_eq!(scale(Dtype::U8, &[4]), Ok(2.0));
    assert_eq!(scale(Dtype::F64, &4f64.to_le_bytes()), Ok(2.0));
    assert_eq!(scale(Dtype::BF16, &[0x80, 0x40]), Ok(2.0));
    assert_eq!(scale(Dtype::F16, &[0x00, 0x44]), Ok(2.0));
    assert_eq!(scale(Dtype::F8_E4M3, &[0x48]), Ok(2.0));
    let refused = |reason: &str| Err(format!("l.safetensors: tensor \"{module}.alpha\": {reason}"));
    assert_eq!(scale(Dtype::BOOL, &[1]), refused("alpha is one number, not [] of BOOL"));
    assert_eq!(scale(Dtype::F32, &f32::NAN.to_le_bytes()), refused("alpha is one number, not [] of F32"));
}

/// A LoRA of rank 2 as PEFT saves it, with an `adapter_config.json` beside it if that is given.
fn adapter(config: Option<&str>) -> Result<LoraFile, String> {
    let module = "base_model.model.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q";
    let (down, up) = (format!("{module}.lora_A.weight"), format!("{module}.lora_B.weight"));
    let mut source = MemorySource::new();
    source.insert("adapter_model.safetensors", bytes(&[(&down, &[2, 16]), (&up, &[16, 2])], &[]));
    if let Some(config) = config {
        source.insert("adapter_config.json", config);
    }
    let opened = block_on(LoraFile::open_folder(&source)).map_err(|error| error.to_string());
    let by_name = block_on(LoraFile::open(&source, "adapter_model.safetensors")).map_err(|error| error.to_string());
    assert_eq!(opened.as_ref().map(LoraFile::notes), by_name.as_ref().map(LoraFile::notes));
    opened
}

#[test]
fn an_adapter_of_peft_takes_its_alpha_from_the_config_beside_it() {
    let scale = |config: Option<&str>| {
        let lora = adapter(config).unwrap();
        let scale = lora.updates("unet", &structure(true)).unwrap()[0].1.low_rank(1.0).scale;
        (scale, lora.notes().len())
    };
    assert_eq!(scale(Some(r#"{"peft_type": "LORA", "r": 2, "lora_alpha": 8}"#)), (4.0, 0));
    assert_eq!(scale(Some(r#"{"r": 2, "lora_alpha": 8, "use_rslora": true}"#)), ((8.0 / 2f64.sqrt()) as f32, 0));
    assert_eq!(scale(Some(r#"{"r": 2, "lora_alpha": 8, "alpha_pattern": {"to_q": 2}}"#)), (1.0, 0));
    assert_eq!(scale(Some(r#"{"r": 4, "rank_pattern": {"attn1.to_q": 2}, "lora_alpha": 6}"#)), (3.0, 0));
    assert_eq!(scale(None), (1.0, 1));
    assert_eq!(
        adapter(None).unwrap().notes(),
        [
            "adapter_model.safetensors: it does not say its alpha, and no adapter_config.json beside it does; alpha is taken to \
          be the rank"
        ]
    );
    let refused = |config: &str| adapter(Some(config)).map(drop).unwrap_err();
    for (config, reason) in [
        (r#"{"r": 8, "lora_alpha": 8}"#, "is 8 there and 2 in the matrices; they are not of one LoRA"),
        (r#"{"use_dora": true}"#, "`use_dora`: DoRA is not supported"),
        (r#"{"peft_type": "LOHA"}"#, "`peft_type` is \"LOHA\", which is not supported"),
        (r#"{"init_lora_weights": "pissa"}"#, "`init_lora_weights` is \"pissa\", which is not supported"),
        (r#"{"lora_alpha": "8"}"#, "`lora_alpha` is \"8\", expected a number"),
        (
            r#"{"lora_alpha": 8, "alpha_pattern": {"attn.*": 2}}"#,
            "is a regular expression, of which only names are read",
        ),
        (r#"{"alpha_pattern": {"to_q": 2, "attn1.to_q": 4}}"#, "say different things"),
    ] {
        let message = refused(config);
        assert!(message.starts_with("adapter_config.json: ") && message.contains(reason), "{message}");
    }
    assert_eq!(
        refused("version https://git-lfs.github.com/spec/v1\n"),
        "adapter_config.json: this is a Git LFS pointer, which stands for the file; run `git lfs pull` where it was cloned, or \
         download the file itself"
    );
    let message = block_on(LoraFile::open_folder(&MemorySource::new())).unwrap_err().to_string();
    assert!(message.contains("neither adapter_model.safetensors nor pytorch_lora_weights.safetensors"), "{message}");
}

#[test]
fn the_layer_that_no_text_of_stable_diffusion_2_comes_to_is_passed_by() {
    let specs = |layers: usize| {
        let config = format!(
            r#"{{"architectures": ["CLIPTextModel"], "hidden_size": 16, "num_hidden_layers": {layers}, "intermediate_size": 8}}"#
        );
        ClipTextConfig::from_json(&config).unwrap().graph(1, 1).unwrap().weights().to_vec()
    };
    let names: Vec<[String; 2]> = (22..24)
        .map(|layer| {
            ["down", "up"]
                .map(|part| format!("lora_te_text_model_encoder_layers_{layer}_self_attn_q_proj.lora_{part}.weight"))
        })
        .collect();
    let parts = names.iter().flat_map(|[down, up]| [(down.as_str(), &[2, 16][..]), (up.as_str(), &[16, 2][..])]);
    let lora = file(&parts.collect::<Vec<_>>(), &[]).unwrap();
    assert_eq!(lora.updates("text_encoder", &specs(24)).unwrap().len(), 2);
    assert_eq!(lora.updates("text_encoder", &specs(23)).unwrap().len(), 1);
    let message = lora.updates("text_encoder", &specs(22)).unwrap_err().to_string();
    assert!(message.contains("encoder_layers_22_self_attn_q_proj") && message.contains("no such module"), "{message}");
}

#[test]
fn embeddings_bundled_with_a_lora_are_passed_by_and_named() {
    let module = "lora_unet_mid_block_attentions_0_proj_in";
    let (down, up) = (format!("{module}.lora_down.weight"), format!("{module}.lora_up.weight"));
    let lora = file(
        &[
            (&down, &[2, 24]),
            (&up, &[24, 2]),
            ("bundle_emb.my subject.clip_l", &[2, 8]),
            ("bundle_emb.my subject.clip_g", &[2, 8]),
            ("bundle_emb.style.string_to_param.*", &[1, 8]),
        ],
        &[],
    )
    .unwrap();
    assert_eq!(lora.updates("unet", &structure(true)).unwrap().len(), 1);
    assert_eq!(lora.notes(), ["l.safetensors: it brings embeddings, which are not used: my subject, style"]);
}

#[test]
fn a_textual_inversion_is_not_taken_for_a_lora() {
    let files: [&[(&str, &[usize])]; 4] = [
        &[("emb_params", &[3, 64])],
        &[("clip_l", &[2, 64]), ("clip_g", &[2, 128])],
        &[("<my-cat>", &[64])],
        &[("my-cat", &[2, 768])],
    ];
    for tensors in files {
        let message = refusal(tensors, &[]);
        assert!(message.starts_with("l.safetensors: this is a textual inversion"), "{message}");
    }
    assert!(refusal(&[("cat.weight", &[2, 768])], &[]).contains("no LoRA has a tensor of this name"));
}

#[test]
fn a_lora_that_does_not_fit_is_refused_before_the_weights_are_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("other.safetensors");
    let module = "lora_unet_mid_block_attentions_0_proj_in";
    let (down, up) = (format!("{module}.lora_down.weight"), format!("{module}.lora_up.weight"));
    std::fs::write(&path, bytes(&[(&down, &[2, 1000]), (&up, &[1000, 2])], &[])).unwrap();
    let sample = std::process::Command::new(env!("CARGO_BIN_EXE_undiffuse"))
        .args(["sample", "--prompt", "a cat", "--device", "cpu", "--out"])
        .args([directory.path().join("x.png"), reference("pipelines").join("models/sd")])
        .args(["--lora".as_ref(), path.as_os_str()])
        .output()
        .unwrap();
    let said = String::from_utf8(sample.stderr).unwrap();
    assert!(!sample.status.success() && said.contains("the LoRA is for another model"), "{said}");
    assert!(!said.contains("loaded"), "{said}");
}

#[test]
fn what_is_no_lora_is_refused_by_name() {
    let module = "lora_unet_mid_block_attentions_0_proj_in";
    let name = |suffix: &str| format!("{module}.{suffix}");
    let (down, up, alpha) = (name("lora_down.weight"), name("lora_up.weight"), name("alpha"));
    for (suffix, method) in [
        ("dora_scale", "DoRA"),
        ("hada_w1_a", "LoHa"),
        ("lokr_w1", "LoKr"),
        ("lora_mid.weight", "Tucker"),
        ("diff", "replaced or added as a whole"),
        ("diff_b", "replaced or added as a whole"),
        ("w_norm", "replaced or added as a whole"),
        ("lora_up.bias", "biases"),
        ("on_input", "IA³"),
    ] {
        let message = refusal(&[(&down, &[2, 24]), (&up, &[24, 2]), (&name(suffix), &[2, 2])], &[]);
        assert!(
            message.starts_with(&format!("l.safetensors: tensor {:?}: ", name(suffix))) && message.contains(method),
            "{message}"
        );
    }
    assert_eq!(
        refusal(&[("conv_in.weight", &[8, 4, 3, 3])], &[]),
        "l.safetensors: tensor \"conv_in.weight\": no LoRA has a tensor of this name; they end in `.lora_down.weight`, `.lora_A.weight`, `.alpha` and the like"
    );
    assert_eq!(
        refusal(&[(&down, &[2, 24])], &[]),
        format!("l.safetensors: not a valid LoRA file: module {module:?} lacks a down or an up matrix")
    );
    assert_eq!(
        refusal(&[(&down, &[2, 24]), (&up, &[24, 2]), (&alpha, &[2])], &[]),
        format!("l.safetensors: tensor {alpha:?}: alpha is one number, not [2] of F32")
    );
    assert_eq!(
        refusal(&[(&down, &[0, 24]), (&up, &[24, 0])], &[]),
        format!("l.safetensors: tensor {down:?}: its shape [0, 24] has no rank")
    );
    assert_eq!(refusal(&[], &[]), "l.safetensors: not a valid LoRA file: it holds no tensors");
    let pair: [(&str, &[usize]); 2] = [(&down, &[2, 24]), (&up, &[24, 2])];
    let message = refusal(&pair, &[("lora_adapter_metadata", "{")]);
    assert!(message.contains("its metadata `lora_adapter_metadata` cannot be read"), "{message}");
    let message = refusal(&pair, &[("lora_adapter_metadata", r#"{"unet.use_dora": true}"#)]);
    assert_eq!(message, "l.safetensors: not a valid LoRA file: `unet.use_dora`: DoRA is not supported");
}

#[test]
fn a_lora_for_another_model_is_refused_by_name() {
    let refusal = |tensors: &[(&str, &[usize])]| {
        let lora = file(tensors, &[]).unwrap();
        lora.updates("unet", &structure(true)).map(|_| ()).expect_err("another model's").to_string()
    };
    let [down, up] = [
        "lora_unet_mid_block_attentions_0_proj_in.lora_down.weight",
        "lora_unet_mid_block_attentions_0_proj_in.lora_up.weight",
    ];
    assert_eq!(
        refusal(&[(down, &[2, 32]), (up, &[24, 2])]),
        format!(
            "l.safetensors: tensor {down:?}: it is [2, 32] and would have to be [2, 24] for this model's \
             `mid_block.attentions.0.proj_in.weight`, which is [24, 24]; the LoRA is for another model"
        )
    );
    assert_eq!(
        refusal(&[(down, &[2, 24]), (up, &[24, 3])]),
        format!(
            "l.safetensors: tensor {up:?}: it is [24, 3] and would have to be [24, 2] for this model's \
             `mid_block.attentions.0.proj_in.weight`, which is [24, 24]; the LoRA is for another model"
        )
    );
    let message =
        refusal(&[("lora_unet_blocks_0.lora_down.weight", &[2, 8]), ("lora_unet_blocks_0.lora_up.weight", &[8, 2])]);
    assert_eq!(
        message,
        "l.safetensors: tensor \"lora_unet_blocks_0.lora_down.weight\": this model's unet has no such module; the LoRA is for another model"
    );
    let others: Vec<String> = (1..5).map(|block| format!("lora_unet_blocks_{block}")).collect();
    let names: Vec<[String; 2]> =
        others.iter().map(|module| ["down", "up"].map(|part| format!("{module}.lora_{part}.weight"))).collect();
    let lost = names.iter().flat_map(|[down, up]| [(down.as_str(), &[2, 8][..]), (up.as_str(), &[8, 2][..])]);
    let message = refusal(&lost.chain([(down, &[2, 24][..]), (up, &[24, 2][..])]).collect::<Vec<_>>());
    assert_eq!(
        message,
        "l.safetensors: tensor \"lora_unet_blocks_1.lora_down.weight\": this model's unet has no such module, though it has 1 of \
         the 5 that the LoRA changes; it lacks \"lora_unet_blocks_2.lora_down.weight\", \"lora_unet_blocks_3.lora_down.weight\" \
         and 1 more"
    );
    assert_eq!(
        self::refusal(&[("lora_unet_double_blocks_0_img_attn_proj.lora_down.weight", &[2, 8])], &[]),
        "l.safetensors: tensor \"lora_unet_double_blocks_0_img_attn_proj.lora_down.weight\": the LoRA is for a model of the Flux \
         family, whose architecture is not supported"
    );
    let twice = "unet.mid_block.attentions.0.proj_in";
    let message = refusal(&[
        (down, &[2, 24]),
        (up, &[24, 2]),
        (&format!("{twice}.lora_A.weight"), &[2, 24]),
        (&format!("{twice}.lora_B.weight"), &[24, 2]),
    ]);
    assert_eq!(
        message,
        format!("l.safetensors: tensor \"{twice}.lora_A.weight\": it is of the same module as {down:?}")
    );
}
