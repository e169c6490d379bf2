//! Features of pictures: those of InceptionV3 against the Python package `pytorch-fid`, and what a feature network may be.
#![cfg(not(target_arch = "wasm32"))]

mod common;

use std::collections::BTreeMap;
use std::path::Path;

use common::{Tensor, max_abs, read_tensors, worst_beyond};
use pollster::block_on;
use safetensors::tensor::{Dtype as Stored, TensorView};
use undiffuse::device::Device;
use undiffuse::metrics::{Error, FeatureExtractor};
use undiffuse::models::inception_v3;
use undiffuse::noise::TorchCpu;
use undiffuse::pipeline::Rgba;
use undiffuse::weights::{Dtype, MemorySource};

/// The tensors of a network by their names, with their shapes.
type Weights = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

fn fixture(name: &str) -> BTreeMap<String, Tensor> {
    read_tensors(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/features").join(name))
}

/// A file of the tensors, in the precision `dtype`.
fn file(weights: &Weights, dtype: Dtype) -> Vec<u8> {
    let stored = match dtype {
        Dtype::F16 => Stored::F16,
        Dtype::BF16 => Stored::BF16,
        _ => Stored::F32,
    };
    let bytes: Vec<_> = weights.values().map(|(_, values)| dtype.encode(values).unwrap()).collect();
    let views = weights.iter().zip(&bytes).map(|((name, (shape, _)), bytes)| {
        (name.as_str(), TensorView::new(stored, shape.clone(), bytes).unwrap())
    });
    safetensors::serialize(views.collect::<Vec<_>>(), None).unwrap()
}

fn folder(files: impl IntoIterator<Item = (&'static str, Vec<u8>)>) -> MemorySource {
    let mut source = MemorySource::new();
    files.into_iter().for_each(|(path, bytes)| source.insert(path, bytes));
    source
}

fn load(source: &MemorySource, device: Device) -> Result<FeatureExtractor, Error> {
    block_on(FeatureExtractor::load(source, device))
}

/// Why `source` is refused.
fn refusal(source: &MemorySource) -> String {
    load(source, Device::cpu()).expect_err("no network").to_string()
}

/// InceptionV3 with the weights that `recipes/inception/fixture.py` draws.
fn inception() -> Weights {
    let mut shapes = BTreeMap::new();
    for spec in inception_v3::graph(1).unwrap().weights() {
        let Some(module) = spec.name.strip_suffix("conv.weight") else { continue };
        for part in inception_v3::BASIC_CONV2D {
            let shape = if part == "conv.weight" { spec.shape.clone() } else { vec![spec.shape[0]] };
            shapes.insert(format!("{module}{part}"), shape);
        }
    }
    let draw = |(k, (name, shape)): (usize, (String, Vec<usize>))| {
        let mut values = TorchCpu::new(k as u64).rand(shape.iter().product());
        let fan_in: usize = shape[1..].iter().product();
        let scale = (2f64.sqrt() * (3.0 / fan_in as f64).sqrt()) as f32;
        let transform = |u: f32| match name.rsplit_once('.').unwrap() {
            (module, _) if module.ends_with("conv") => (2.0 * u - 1.0) * scale,
            (_, "weight" | "running_var") => u + 0.5,
            (_, "bias") => u - 0.5,
            _ => (u - 0.5) * 0.25,
        };
        values.iter_mut().for_each(|value| *value = transform(*value));
        (name, (shape, values))
    };
    shapes.into_iter().enumerate().map(draw).collect()
}

/// Pictures stored as `[count, 3, height, width]`, with an alpha that does not count.
fn pictures(tensor: &Tensor) -> Vec<Rgba> {
    let [_, 3, height, width] = tensor.shape[..] else { panic!("{:?} are no pictures", tensor.shape) };
    let pixels = height * width;
    let picture = |planes: &[f32]| {
        let pixel = |i: usize| [planes[i] as u8, planes[pixels + i] as u8, planes[2 * pixels + i] as u8, i as u8];
        Rgba { width, height, pixels: (0..pixels).flat_map(pixel).collect() }
    };
    tensor.data.chunks_exact(3 * pixels).map(picture).collect()
}

#[test]
fn inception_weights_are_drawn_as_the_fixture_has_drawn_them() {
    let (fixture, weights) = (fixture("inception.safetensors"), inception());
    assert_eq!(weights.len(), fixture["weights.sum"].data.len());
    for (k, (name, (_, values))) in weights.iter().enumerate() {
        assert_eq!(values[0], fixture["weights.first"].data[k], "{name}");
        let sum = values.iter().map(|&v| f64::from(v)).sum::<f64>() as f32;
        let expected = fixture["weights.sum"].data[k];
        assert!((sum - expected).abs() <= 1e-6 * expected.abs().max(1.0), "{name}: {sum}, expected {expected}");
    }
}

/// Compares the features of all pictures with those of the package: within 1e-4 of the largest.
fn inception_agrees(device: Device) {
    let fixture = fixture("inception.safetensors");
    let source = folder([("inception.safetensors", file(&inception(), Dtype::F32))]);
    let mut extractor = load(&source, device).unwrap();
    assert_eq!((extractor.name(), extractor.features(), extractor.side()), ("inception-v3-fid", 2048, 299));
    for input in 0..4 {
        let expected = &fixture[&format!("features.{input}")];
        let pictures = pictures(&fixture[&format!("picture.{input}")]);
        let found = block_on(extractor.extract(&pictures)).unwrap();
        let worst = worst_beyond(&found, expected, 1e-4 * max_abs(expected)).unwrap_or_else(|e| panic!("{input}: {e}"));
        let size = (pictures[0].height, pictures[0].width);
        println!("{size:?}: off by {:.1e} of the largest feature", worst / max_abs(expected));
    }
    let error = block_on(extractor.classify(&[], 1)).unwrap_err();
    assert_eq!(error, Error::NoLabels { extractor: "inception-v3-fid" });
}

#[test]
fn inception_features_agree_with_pytorch_fid_on_the_cpu() {
    inception_agrees(Device::cpu());
}

#[test]
fn inception_features_agree_with_pytorch_fid_on_the_gpu() {
    inception_agrees(common::gpu());
}
