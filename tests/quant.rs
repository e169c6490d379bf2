//! Quantised weights: blocks against ggml's Python package, bit for bit, and networks that run from them.
#![cfg(not(target_arch = "wasm32"))]

mod common;

use std::collections::BTreeMap;
use std::path::Path;

use common::{Tally, name_of, read_json, read_tensors, reference, worst_beyond};
use pollster::block_on;
use safetensors::SafeTensors;
use undiffuse::device::Device;
use undiffuse::gpu::variants::Family;
use undiffuse::pipeline::{Component, NamedTensor};
use undiffuse::weights::{self, Dtype, Gather, MemorySource, TensorFile, TensorInfo};

/// One call of a network whose weights are blocks, against the same weights as f32.
const TOLERANCE: f64 = 1e-4;

/// The tensors of a file of the reference, as bytes.
fn bytes_of(file: &str) -> BTreeMap<String, Vec<u8>> {
    let path = reference("quant").join(file);
    let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let tensors = SafeTensors::deserialize(&bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    tensors.iter().map(|(name, view)| (name.to_owned(), view.data().to_vec())).collect()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

/// Both are the same number, the same zero, or both NaN.
fn same(actual: &[f32], expected: &[f32]) -> Result<f64, String> {
    if actual.len() != expected.len() {
        return Err(format!("{} elements, expected {}", actual.len(), expected.len()));
    }
    let differs = |(a, b): (&f32, &f32)| a.to_bits() != b.to_bits() && !(a.is_nan() && b.is_nan());
    match actual.iter().zip(expected).position(differs) {
        Some(e) => Err(format!("element {e} is {:?}, expected {:?}", actual[e], expected[e])),
        None => Ok(0.0),
    }
}

#[test]
fn blocks_of_the_reference_are_written_and_read_bit_for_bit() {
    let mut tally = Tally::default();
    let tensors = bytes_of("blocks.safetensors");
    for (name, expected) in &tensors {
        let [tensor, dtype, "bytes"] = name.split('/').collect::<Vec<_>>()[..] else { continue };
        let Some(dtype) = Dtype::from_name(dtype) else {
            tally.fail(format!("{name}: there is no such dtype"));
            continue;
        };
        let values = floats(&tensors[&format!("{tensor}/f32")]);
        let written = dtype.encode(&values).unwrap_or_default();
        let differs = written.iter().zip(expected).position(|(a, b)| a != b);
        tally.check(
            &format!("{name} written"),
            match (written.len() == expected.len(), differs) {
                (true, None) => Ok(0.0),
                (true, Some(at)) => Err(format!("byte {at} is {}, expected {}", written[at], expected[at])),
                (false, _) => Err(format!("{} bytes, expected {}", written.len(), expected.len())),
            },
        );
        let read = dtype.to_f32(expected).unwrap_or_default();
        tally.check(
            &format!("{name} read"),
            same(&read, &floats(&tensors[&format!("{tensor}/{}/dequant", dtype.name())])),
        );
    }
    tally.finish("tensors in blocks");
}

#[test]
fn formats_that_are_only_read_agree_bit_for_bit() {
    let mut tally = Tally::default();
    let tensors = bytes_of("kquants_dequant_only.safetensors");
    for (name, bytes) in &tensors {
        let Some(dtype) = name.strip_suffix("/bytes") else { continue };
        let read = Dtype::from_name(dtype).and_then(|dtype| dtype.to_f32(bytes)).unwrap_or_default();
        tally.check(dtype, same(&read, &floats(&tensors[&format!("{dtype}/dequant")])));
    }
    tally.finish("formats of blocks that are only read");
}

/// A network whose weights are in a GGUF file, as recorded beside it.
fn check_network(file: &Path, device: &Device, tally: &mut Tally) {
    let name = name_of(file);
    let described = read_json(&file.with_extension("json"));
    let mut source = MemorySource::new();
    let mut config = described["config"].clone();
    config["_class_name"] = "UNet2DConditionModel".into();
    source.insert("config.json", config.to_string());
    source.insert(name.as_str(), std::fs::read(file).expect("the weights"));

    let opened = block_on(TensorFile::open(&source, &name)).unwrap_or_else(|e| panic!("{e}"));
    let found: BTreeMap<&str, (&str, &[usize])> =
        opened.tensors().iter().map(|t| (t.name.as_str(), (t.dtype.name(), &t.shape[..]))).collect();
    for tensor in described["tensors"].as_array().expect("tensors") {
        let tensor_name = tensor["name"].as_str().expect("a name");
        let shape: Vec<usize> = serde_json::from_value(tensor["shape"].clone()).expect("a shape");
        let expected = (tensor["type"].as_str().expect("a type"), &shape[..]);
        let stored = found.get(tensor_name).copied();
        let result = if stored == Some(expected) { Ok(0.0) } else { Err(format!("{stored:?}, expected {expected:?}")) };
        tally.check(&format!("{name} {tensor_name}"), result);
    }

    let stem = file.with_extension("");
    let io = read_tensors(&stem.with_file_name(format!("{}_io.safetensors", name_of(&stem))));
    let mut gather = Gather::new(|tensor: &TensorInfo, bytes: &[u8]| -> Result<(), weights::Error> {
        if let Some(expected) = io.get(&format!("dequant/{}", tensor.name)) {
            tally.check(&format!("{name} {} as f32", tensor.name), same(&tensor.to_f32(bytes)?, &expected.data));
        }
        Ok(())
    });
    block_on(opened.stream(&mut |_| {}, &|_| true, &mut gather)).unwrap_or_else(|e| panic!("{e}"));

    let inputs = io.iter().filter_map(|(key, tensor)| {
        let input = NamedTensor { shape: tensor.shape.clone(), data: tensor.data.clone() };
        Some((key.strip_prefix("in/")?.to_owned(), input))
    });
    let run = || -> Result<f64, String> {
        let component = block_on(Component::load(&source, device.clone(), Some(&name))).map_err(|e| e.to_string())?;
        let outputs = block_on(component.run(&inputs.collect())).map_err(|e| e.to_string())?;
        worst_beyond(&outputs["out"].data, &io["out/from_dequantised_weights_f32"], TOLERANCE)
    };
    tally.check(&format!("{name} run"), run());
}

fn walk(device: &Device, what: &str) {
    let mut tally = Tally::default();
    let entries = std::fs::read_dir(reference("quant")).expect("a folder").map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries.filter(|path| path.extension().is_some_and(|e| e == "gguf")).collect();
    files.sort();
    files.iter().for_each(|file| check_network(file, device, &mut tally));
    tally.finish(what);
}

#[test]
fn a_network_runs_from_blocks_on_the_cpu() {
    walk(&Device::cpu(), "GGUF networks on the CPU");
}

#[test]
fn a_network_runs_from_blocks_on_the_gpu() {
    walk(&common::gpu(), "GGUF networks on the GPU");
}

#[test]
fn a_network_runs_from_blocks_on_the_gpu_tiled_in_workgroup_memory() {
    walk(&common::gpu_with(Some(Family::Tiled(None))), "GGUF networks on the GPU with tiled kernels");
}
