//! Whole networks against diffusers and transformers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::common::{Tally, Tensor, folders, name_of, read_tensors, reference, worst_beyond};
use pollster::block_on;
use undiffuse::device::Device;
use undiffuse::gpu::variants::MatrixKernels;
use undiffuse::pipeline::{Component, NamedTensor};
use undiffuse::weights::MemorySource;

/// One call of the reference: absolute, as outputs have a standard deviation of about 0.5 to 1.
const TOLERANCE: f64 = 1e-4;

type Tensors = BTreeMap<String, Tensor>;

/// Calls of one component: name, inputs, expected outputs for f32 weights and for f16 weights.
struct Call {
    name: String,
    inputs: BTreeMap<String, NamedTensor>,
    f32: Tensors,
    f16: Tensors,
}

fn named(tensor: &Tensor) -> NamedTensor {
    // A UNet's timestep may be a scalar.
    let shape = if tensor.shape.is_empty() { vec![1] } else { tensor.shape.clone() };
    NamedTensor { shape, data: tensor.data.clone() }
}

/// The calls recorded in an `io.safetensors`, and the tensors that belong to none.
fn calls(io: &Tensors) -> (Vec<Call>, Vec<String>) {
    let mut cases: BTreeMap<String, Call> = BTreeMap::new();
    let mut unknown = Vec::new();
    let layers = io.keys().filter_map(|name| name.strip_prefix("hidden_states/")?.parse::<usize>().ok()).max();
    for (key, tensor) in io {
        let parts: Vec<&str> = key.split('/').collect();
        let (case, kind, rest) = match parts[..] {
            // A text encoder has one call.
            _ if layers.is_some() => ("text".to_owned(), None, key.clone()),
            [kind @ ("encode" | "decode"), case, rest] => (format!("{kind}/{case}"), Some(kind), rest.to_owned()),
            [kind @ ("encode" | "decode"), rest] => (kind.to_owned(), Some(kind), rest.to_owned()),
            [case, ref rest @ ..] => (case.to_owned(), None, rest.join("/")),
            [] => continue,
        };
        let port = |name: &str| kind.map_or(name.to_owned(), |kind| format!("{kind}/{name}"));
        let (name, half) = match rest.strip_suffix("_f16weights") {
            Some(name) => (name, true),
            None => (&rest[..], false),
        };
        let call = || Call { name: case.clone(), inputs: BTreeMap::new(), f32: Tensors::new(), f16: Tensors::new() };
        if matches!(name, "in" | "eps" | "input_ids") {
            let name = if kind.is_some() { port(name) } else { name.to_owned() };
            cases.entry(case.clone()).or_insert_with(call).inputs.insert(name, named(tensor));
        } else if let Some(name) = name.strip_prefix("in/") {
            cases.entry(case.clone()).or_insert_with(call).inputs.insert(name.to_owned(), named(tensor));
        } else if let Some(name) = output(name, layers) {
            let call = cases.entry(case.clone()).or_insert_with(call);
            let outputs = if half { &mut call.f16 } else { &mut call.f32 };
            outputs.insert(port(&name), tensor.clone());
        } else {
            unknown.push(key.clone());
        }
    }
    // diffusers' `AutoencoderTiny` has functions besides encode and decode, which neither calls.
    cases.retain(|name, call| {
        let helper = name.ends_with("scale_latents");
        if helper {
            unknown.extend(call.inputs.keys().chain(call.f32.keys()).map(|port| format!("{name}/{port}")));
        }
        !helper
    });
    (cases.into_values().collect(), unknown)
}

/// The name under which a network gives the output recorded as `name`, if it is one; a text encoder has `layers`.
fn output(name: &str, layers: Option<usize>) -> Option<String> {
    const NAMES: [&str; 11] = [
        "out",
        "moments",
        "mean",
        "std",
        "logvar",
        "mode",
        "sample",
        "latents",
        "last_hidden_state",
        "pooler_output",
        "text_embeds",
    ];
    let known = NAMES.contains(&name)
        || name.starts_with("hidden_states/")
        || (name.starts_with("clip_skip") && name.ends_with("_then_final_layer_norm"));
    match (name, layers) {
        ("penultimate_without_layer_norm", Some(layers)) => Some(format!("hidden_states/{}", layers - 1)),
        _ => known.then(|| name.to_owned()),
    }
}

/// The folder with the recorded calls: `folder` itself, or the one whose name it extends (`NAME_deprecated_keys`).
fn base(folder: &Path) -> PathBuf {
    let name = name_of(folder);
    let recorded = |f: &PathBuf| f.join("io.safetensors").exists() && name.starts_with(&name_of(f));
    let all = folders(folder.parent().expect("a folder of models")).into_iter().filter(recorded);
    all.max_by_key(|f| name_of(f).len()).unwrap_or_else(|| panic!("{name}: no recorded calls"))
}

/// Runs the recorded calls of the network in `folder` with the weights in `file`; false if there is no such file.
fn check(folder: &Path, file: &str, half: bool, device: &Device, tally: &mut Tally) -> bool {
    let what = format!("{}/{file}", name_of(folder));
    let base = base(folder);
    // A folder with a config of its own for another folder's weights.
    let weights = if folder.join(file).exists() { folder.join(file) } else { base.join(file) };
    let own_weights =
        folder.join("model.safetensors").exists() || folder.join("diffusion_pytorch_model.safetensors").exists();
    if !weights.exists() || (own_weights && !folder.join(file).exists()) {
        return false;
    }
    let mut source = MemorySource::new();
    source.insert("config.json", std::fs::read(folder.join("config.json")).expect("a config.json"));
    source.insert(file, std::fs::read(&weights).expect("the weights"));
    let component = match block_on(Component::load(&source, device.clone(), Some(file))) {
        Ok(component) => component,
        Err(error) => {
            tally.fail(format!("{what}: {error}"));
            return true;
        }
    };
    let (calls, unknown) = calls(&read_tensors(&base.join("io.safetensors")));
    unknown.into_iter().for_each(|key| tally.skip(format!("{what} {key}"), "neither a network's input nor its output"));
    for call in calls {
        let name = format!("{what} {}", call.name);
        let outputs = match block_on(component.run(&call.inputs)) {
            Ok(outputs) => outputs,
            Err(error) => {
                tally.fail(format!("{name}: {error}"));
                continue;
            }
        };
        for (output, expected) in if half { &call.f16 } else { &call.f32 } {
            let result = match outputs.get(output) {
                None => Err("is not an output".to_owned()),
                Some(actual) => worst_beyond(&actual.data, expected, TOLERANCE),
            };
            tally.check(&format!("{name} {output}"), result);
        }
    }
    true
}

fn walk(device: &Device, what: &str) {
    let mut tally = Tally::default();
    for folder in folders(&reference("models")) {
        let mut ran = false;
        for stem in ["diffusion_pytorch_model", "model"] {
            ran |= check(&folder, &format!("{stem}.safetensors"), false, device, &mut tally);
            ran |= check(&folder, &format!("{stem}.fp16.safetensors"), true, device, &mut tally);
        }
        if !ran {
            tally.fail(format!("{}: no weights", name_of(&folder)));
        }
    }
    tally.finish(what);
}

#[test]
fn every_network_of_the_reference_agrees_on_the_cpu() {
    walk(&Device::cpu(), "networks on the CPU");
}

#[test]
fn every_network_of_the_reference_agrees_on_the_gpu() {
    walk(&crate::common::gpu(), "networks on the GPU");
}

#[test]
fn every_network_of_the_reference_agrees_on_the_gpu_tiled_in_workgroup_memory() {
    walk(&crate::common::gpu_with(Some(MatrixKernels::Tiled(None))), "networks on the GPU with tiled kernels");
}

/// A component of the reference on the CPU, with the inputs of its first call.
fn first_call(folder: &str) -> (Component, BTreeMap<String, NamedTensor>) {
    let folder = reference("models").join(folder);
    let mut source = MemorySource::new();
    for file in ["config.json", "diffusion_pytorch_model.safetensors", "model.safetensors"] {
        if let Ok(bytes) = std::fs::read(folder.join(file)) {
            source.insert(file, bytes);
        }
    }
    let component = block_on(Component::load(&source, Device::cpu(), None)).expect("a component of the reference");
    let (calls, _) = calls(&read_tensors(&folder.join("io.safetensors")));
    (component, calls.into_iter().next().expect("a recorded call").inputs)
}

#[test]
fn inputs_that_do_not_fit_a_network_are_refused_by_name() {
    let tensor =
        |shape: &[usize], value: f32| NamedTensor { shape: shape.to_vec(), data: vec![value; shape.iter().product()] };
    for (folder, input, given, message) in [
        ("unet_x4_upscaler_like", "class_labels", tensor(&[2], 20.0), "20 is none of the 20 classes"),
        ("unet_x4_upscaler_like", "class_labels", tensor(&[2], 0.5), "0.5 is none of the 20 classes"),
        ("unet_x4_upscaler_like", "class_labels", tensor(&[3], 1.0), "one class for each of 2 rows"),
        ("unet2d_scale_shift_class", "class_labels", tensor(&[1, 2], 1.0), "one class for each of 2 rows"),
        ("unet_sdxl_like", "added_cond_kwargs.text_embeds", tensor(&[2, 21], 1.0), "is not 21 numbers of pooled text"),
        ("unet_sdxl_like", "added_cond_kwargs.time_ids", tensor(&[2, 5], 1.0), "expected [2, 6]"),
        ("vae_sd_like", "encode/eps", tensor(&[1, 1, 1, 1], 1.0), "its shape is [1, 1, 1, 1], expected"),
        ("vae_taesd_like", "encode/eps", tensor(&[1], 1.0), "an autoencoder takes `decode/in` or `encode/in`"),
        ("clip_text_proj_sdxl2_like", "input_ids", tensor(&[1, 2], -1.0), "-1 is no token id"),
        ("clip_text_proj_sdxl2_like", "attention_mask", tensor(&[1, 2], 1.0), "this network takes: input_ids"),
    ] {
        let (component, mut inputs) = first_call(folder);
        if folder.starts_with("vae") {
            inputs = BTreeMap::from([("encode/in".to_owned(), tensor(&[1, 3, 16, 16], 0.0))]);
        }
        inputs.insert(input.into(), given);
        let error = block_on(component.run(&inputs)).expect_err(message).to_string();
        assert!(error.contains(message), "{folder} {input}: {error}");
    }
    let (component, mut inputs) = first_call("unet_x4_upscaler_like");
    inputs.remove("class_labels");
    let error = block_on(component.run(&inputs)).expect_err("a class is needed").to_string();
    assert_eq!(error, "input `class_labels`: it is missing");
}

#[test]
fn one_class_serves_all_rows() {
    let (component, mut inputs) = first_call("unet_x4_upscaler_like");
    let run = |inputs: &BTreeMap<String, NamedTensor>| block_on(component.run(inputs)).expect("outputs")["out"].clone();
    inputs.insert("class_labels".into(), NamedTensor { shape: vec![2], data: vec![7.0; 2] });
    let each = run(&inputs);
    inputs.insert("class_labels".into(), NamedTensor { shape: vec![1], data: vec![7.0] });
    assert_eq!(run(&inputs), each);
}

#[test]
fn a_class_that_is_not_known_is_refused_with_those_that_are() {
    let mut source = MemorySource::new();
    source.insert("config.json", br#"{"_class_name": "VQModel"}"#.to_vec());
    let error = block_on(Component::load(&source, Device::cpu(), None)).expect_err("no such class").to_string();
    assert!(error.contains("class \"VQModel\" is not supported") && error.contains("AutoencoderTiny"), "{error}");
}
