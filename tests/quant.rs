//! Quantised weights: blocks against ggml's Python package, bit for bit, and networks that run from them and from 8-bit floats.

use std::collections::BTreeMap;
use std::path::Path;

use crate::common::{Tally, name_of, read_json, read_tensors, reference, worst_beyond};
use pollster::block_on;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype as StoredDtype, TensorView, serialize};
use undiffuse::device::Device;
use undiffuse::gpu::variants::MatrixKernels;
use undiffuse::pipeline::{Component, NamedTensor};
use undiffuse::weights::{self, Encoding, Gather, MemorySource, TensorFile, TensorInfo};

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
        let Some(dtype) = Encoding::from_name(dtype) else {
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
        let read = Encoding::from_name(dtype).and_then(|dtype| dtype.to_f32(bytes)).unwrap_or_default();
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
    walk(&crate::common::gpu(), "GGUF networks on the GPU");
}

#[test]
fn a_network_runs_from_blocks_on_the_gpu_tiled_in_workgroup_memory() {
    walk(&crate::common::gpu_with(Some(MatrixKernels::Tiled(None))), "GGUF networks on the GPU with tiled kernels");
}

/// Numbers from -1 to 1.
fn wave(shape: &[usize]) -> NamedTensor {
    let data = (0..shape.iter().product::<usize>()).map(|index| (index as f32 * 0.7).sin()).collect();
    NamedTensor { shape: shape.to_vec(), data }
}

#[test]
fn a_network_runs_from_8_bit_floats_as_from_the_same_numbers_in_f32() {
    let folder = reference("pipelines").join("models/sd/unet");
    let config = read_json(&folder.join("config.json"));
    let size = |key: &str| config[key].as_u64().expect("a size") as usize;
    let inputs = BTreeMap::from([
        ("sample".to_owned(), wave(&[1, size("in_channels"), 8, 8])),
        ("timestep".to_owned(), NamedTensor { shape: vec![1], data: vec![500.0] }),
        ("encoder_hidden_states".to_owned(), wave(&[1, 5, size("cross_attention_dim")])),
    ]);
    let tensors = read_tensors(&folder.join("diffusion_pytorch_model.safetensors"));
    for (dtype, name) in [(Encoding::F8E4M3, StoredDtype::F8_E4M3), (Encoding::F8E5M2, StoredDtype::F8_E5M2)] {
        let values = dtype.to_f32(&(0..=u8::MAX).collect::<Vec<_>>()).expect("256 numbers");
        let nearest = |number: f32| {
            let distance = |byte: &u8| (values[usize::from(*byte)] - number).abs();
            // A NaN is the furthest of all.
            (0..=u8::MAX).min_by(|a, b| distance(a).total_cmp(&distance(b))).expect("a byte")
        };
        let run = |narrow: bool| {
            let stored: Vec<(&String, StoredDtype, &[usize], Vec<u8>)> = tensors
                .iter()
                .map(|(key, tensor)| {
                    let bytes = |numbers: &[f32]| numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
                    let (dtype, bytes) = match tensor.shape.len() {
                        ..2 => (StoredDtype::F32, bytes(&tensor.data)),
                        _ => {
                            let narrowed: Vec<u8> = tensor.data.iter().map(|&number| nearest(number)).collect();
                            let widened = bytes(&dtype.to_f32(&narrowed).expect("as many numbers"));
                            if narrow { (name, narrowed) } else { (StoredDtype::F32, widened) }
                        }
                    };
                    (key, dtype, &tensor.shape[..], bytes)
                })
                .collect();
            let views = stored.iter().map(|(key, dtype, shape, bytes)| {
                ((*key).clone(), TensorView::new(*dtype, shape.to_vec(), bytes).expect("a tensor"))
            });
            let mut source = MemorySource::new();
            source.insert("config.json", config.to_string());
            source.insert("diffusion_pytorch_model.safetensors", serialize(views, None).expect("a file"));
            let network = block_on(Component::load(&source, Device::cpu(), None)).unwrap_or_else(|e| panic!("{e}"));
            block_on(network.run(&inputs)).unwrap_or_else(|e| panic!("{e}")).remove("out").expect("an output").data
        };
        let narrowed = run(true);
        assert!(narrowed == run(false), "{dtype}");
        assert!(narrowed.iter().any(|number| number.abs() > 1e-3));
    }
}
