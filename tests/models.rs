//! Whole networks against diffusers and transformers.
#![cfg(not(target_arch = "wasm32"))]

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use common::{Tally, Tensor, folders, name_of, read_tensors, reference, worst_beyond};
use pollster::block_on;
use undiffuse::device::Device;
use undiffuse::pipeline::{Component, Error, NamedTensor};
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

/// The calls recorded in an `io.safetensors`.
fn calls(io: &Tensors) -> Vec<Call> {
    if let Some(ids) = io.get("input_ids") {
        let outputs = |half: bool| -> Tensors {
            let known = |name: &str| {
                name.starts_with("hidden_states/") || matches!(name, "last_hidden_state" | "pooler_output")
            };
            let take = |(name, tensor): (&String, &Tensor)| match name.strip_suffix("_f16weights") {
                Some(plain) if half && known(plain) => Some((plain.to_owned(), tensor.clone())),
                None if !half && known(name) => Some((name.clone(), tensor.clone())),
                _ => None,
            };
            io.iter().filter_map(take).collect()
        };
        let inputs = BTreeMap::from([("input_ids".to_owned(), named(ids))]);
        return vec![Call { name: "text".into(), inputs, f32: outputs(false), f16: outputs(true) }];
    }
    let mut cases: BTreeMap<String, Call> = BTreeMap::new();
    for (key, tensor) in io {
        let parts: Vec<&str> = key.split('/').collect();
        let (case, kind, rest) = match parts[..] {
            [kind @ ("encode" | "decode"), case, rest] => (format!("{kind}/{case}"), Some(kind), rest.to_owned()),
            [case, ref rest @ ..] => (case.to_owned(), None, rest.join("/")),
            [] => continue,
        };
        let call = cases.entry(case.clone()).or_insert_with(|| Call {
            name: case,
            inputs: BTreeMap::new(),
            f32: BTreeMap::new(),
            f16: BTreeMap::new(),
        });
        let output = |name: &str| kind.map_or(name.to_owned(), |kind| format!("{kind}/{name}"));
        if rest == "in" {
            call.inputs.insert(output("in"), named(tensor));
        } else if let Some(name) = rest.strip_prefix("in/") {
            call.inputs.insert(name.to_owned(), named(tensor));
        } else if let Some(name) = rest.strip_suffix("_f16weights") {
            call.f16.insert(output(name), tensor.clone());
        } else if matches!(rest.as_str(), "out" | "moments" | "mean" | "std" | "logvar") {
            call.f32.insert(output(&rest), tensor.clone());
        }
    }
    cases.into_values().collect()
}

/// The folder with the recorded calls: `folder` itself, or the one whose name it extends (`NAME_deprecated_keys`).
fn base(folder: &Path) -> PathBuf {
    let name = name_of(folder);
    let recorded = |f: &PathBuf| f.join("io.safetensors").exists() && name.starts_with(&name_of(f));
    let all = folders(folder.parent().expect("a folder of models")).into_iter().filter(recorded);
    all.max_by_key(|f| name_of(f).len()).unwrap_or_else(|| panic!("{name}: no recorded calls"))
}

fn check(folder: &Path, file: &str, half: bool, device: &Device, tally: &mut Tally) {
    let what = format!("{}/{file}", name_of(folder));
    let base = base(folder);
    // A folder with a config of its own for another folder's weights.
    let weights = if folder.join(file).exists() { folder.join(file) } else { base.join(file) };
    let own_weights =
        folder.join("model.safetensors").exists() || folder.join("diffusion_pytorch_model.safetensors").exists();
    if !weights.exists() || (own_weights && !folder.join(file).exists()) {
        return;
    }
    let mut source = MemorySource::new();
    source.insert("config.json", std::fs::read(folder.join("config.json")).expect("a config.json"));
    source.insert(file, std::fs::read(&weights).expect("the weights"));
    let component = match block_on(Component::load(&source, device.clone(), Some(file))) {
        Ok(component) => component,
        Err(Error::Model { source: undiffuse::models::Error::Unsupported { class, key, value, .. }, .. }) => {
            return tally.skip(what, format!("{class} with `{key}` {value} is not implemented"));
        }
        Err(Error::Json { message, .. }) if message.contains("is not supported") => {
            return tally.skip(what, message);
        }
        Err(error) => return tally.fail(format!("{what}: {error}")),
    };
    for call in calls(&read_tensors(&base.join("io.safetensors"))) {
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
}

fn walk(device: &Device, what: &str) {
    let mut tally = Tally::default();
    for folder in folders(&reference("models")) {
        for stem in ["diffusion_pytorch_model", "model"] {
            check(&folder, &format!("{stem}.safetensors"), false, device, &mut tally);
            check(&folder, &format!("{stem}.fp16.safetensors"), true, device, &mut tally);
        }
    }
    tally.finish(what);
}

#[test]
fn every_network_of_the_reference_agrees_on_the_cpu() {
    walk(&Device::Cpu, "networks on the CPU");
}

#[test]
fn every_network_of_the_reference_agrees_on_the_gpu() {
    walk(&common::gpu(), "networks on the GPU");
}
