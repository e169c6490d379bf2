//! Features of pictures: those of InceptionV3 against the Python package `pytorch-fid`, and what a feature network may be.

use std::collections::BTreeMap;
use std::path::Path;

use crate::common::{Tensor, max_abs, read_tensors, worst_beyond};
use pollster::block_on;
use safetensors::tensor::{Dtype as Stored, TensorView};
use serde_json::Value;
use undiffuse::device::Device;
use undiffuse::gpu::variants::MatrixKernels;
use undiffuse::graph::{Graph, WeightSpec};
use undiffuse::metrics::{Error, FeatureExtractor};
use undiffuse::models::{EmojiClassifierConfig, feature_input, inception_v3};
use undiffuse::noise::TorchCpu;
use undiffuse::pipeline::{Pipeline, Preview, Rgba, SampleOptions, Scheduler};
use undiffuse::twin;
use undiffuse::weights::{DirectorySource, Encoding, MemorySource};

/// The tensors of a network by their names, with their shapes.
type Weights = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

fn fixture(name: &str) -> BTreeMap<String, Tensor> {
    read_tensors(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/features").join(name))
}

/// A file of the tensors, in the precision `dtype`.
fn file(weights: &Weights, dtype: Encoding) -> Vec<u8> {
    let stored = match dtype {
        Encoding::F16 => Stored::F16,
        Encoding::BF16 => Stored::BF16,
        _ => Stored::F32,
    };
    let bytes: Vec<_> = weights.values().map(|(_, values)| dtype.encode(values).unwrap()).collect();
    let views = weights
        .iter()
        .zip(&bytes)
        .map(|((name, (shape, _)), bytes)| (name.as_str(), TensorView::new(stored, shape.clone(), bytes).unwrap()));
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
    let source = folder([("inception.safetensors", file(&inception(), Encoding::F32))]);
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

/// Compares features and guesses of the classifier that the crate brings with what torch makes of its f16 weights.
fn emoji_agrees(device: Device) {
    let fixture = fixture("emoji.safetensors");
    let json =
        crate::common::read_text(&Path::new(env!("CARGO_MANIFEST_DIR")).join("www/models/emoji-features/config.json"));
    let config = EmojiClassifierConfig::from_json(&json).unwrap();
    let mut extractor = block_on(FeatureExtractor::emoji(device)).unwrap();
    assert_eq!((extractor.name(), extractor.features(), extractor.side()), ("emoji", 64, 64));
    for input in 0..3 {
        let expected = &fixture[&format!("features.{input}")];
        let pictures = pictures(&fixture[&format!("picture.{input}")]);
        let found = block_on(extractor.extract(&pictures)).unwrap();
        let worst = worst_beyond(&found, expected, 1e-4 * max_abs(expected)).unwrap_or_else(|e| panic!("{input}: {e}"));
        let size = (pictures[0].height, pictures[0].width);
        println!("{size:?}: off by {:.1e} of the largest feature", worst / max_abs(expected));
        let seen = block_on(extractor.classify(&pictures, usize::MAX)).unwrap();
        for (head, names) in [("glyph", &config.glyphs), ("style", &config.styles)] {
            let logits = &fixture[&format!("{head}.{input}")];
            for (row, seen) in logits.data.chunks_exact(logits.shape[1]).zip(&seen) {
                let labels = if head == "glyph" { &seen.glyphs } else { &seen.styles };
                assert_eq!(labels.len(), names.len());
                let mut expected: Vec<_> = softmax(row).into_iter().zip(names).collect();
                expected.sort_by(|a, b| b.0.total_cmp(&a.0));
                for (label, (expected, _)) in labels.iter().zip(&expected) {
                    assert!((label.probability - expected).abs() < 1e-4, "{head}: {label:?}, expected {expected}");
                }
                assert_eq!(&labels[0].name, expected[0].1);
                println!("{head}: {}, {:.0} %", labels[0].name, 100.0 * labels[0].probability);
            }
        }
    }
}

#[test]
fn emoji_features_and_guesses_agree_with_torch_on_the_cpu() {
    emoji_agrees(Device::cpu());
}

#[test]
fn emoji_features_and_guesses_agree_with_torch_on_the_gpu() {
    for kernels in [MatrixKernels::Registers, MatrixKernels::Tiled(None)] {
        emoji_agrees(crate::common::gpu_with(Some(kernels)));
    }
}

#[test]
fn inception_features_agree_with_pytorch_fid_on_the_cpu() {
    inception_agrees(Device::cpu());
}

#[test]
fn inception_features_agree_with_pytorch_fid_on_the_gpu() {
    inception_agrees(crate::common::gpu());
}

/// A small classifier: two blocks, three glyphs, two styles.
const CONFIG: &str = r#"{"_class_name": "EmojiClassifier", "in_channels": 3, "sample_size": 16,
    "block_out_channels": [8, 12], "glyphs": ["fox", "cat", "owl"], "styles": ["flat", "round"]}"#;

/// Weights for it, as far from 0 as real ones are.
fn emoji() -> Weights {
    let graph = EmojiClassifierConfig::from_json(CONFIG).unwrap().graph(1).unwrap();
    let draw = |(k, spec): (usize, &WeightSpec)| {
        let fan_in = spec.shape[1..].iter().product::<usize>().max(1) as f32;
        let values = TorchCpu::new(k as u64).randn(spec.shape.iter().product());
        (spec.name.clone(), (spec.shape.clone(), values.iter().map(|v| v * (2.0 / fan_in).sqrt()).collect()))
    };
    graph.weights().iter().enumerate().map(draw).collect()
}

fn emoji_folder(weights: &Weights, dtype: Encoding) -> MemorySource {
    folder([("config.json", CONFIG.as_bytes().to_vec()), ("model.safetensors", file(weights, dtype))])
}

/// A picture of noise.
fn noise(seed: u64, height: usize, width: usize) -> Rgba {
    let values = TorchCpu::new(seed).rand(4 * height * width);
    Rgba { width, height, pixels: values.iter().map(|v| (v * 256.0) as u8).collect() }
}

/// What the oracle makes of a picture: `features`, `glyph` and `style`.
fn on_twin(weights: &Weights, image: &Rgba) -> [Vec<f32>; 3] {
    let run = |graph: &Graph, input: &str, data: &[f32], outputs: &[&str]| -> Vec<Vec<f32>> {
        let values = graph.weights().iter().map(|spec| weights[&spec.name].1.clone()).collect();
        let mut program = twin::Program::new(graph, values).unwrap();
        program.write(input, data).unwrap();
        program.run();
        outputs.iter().map(|name| program.read(name).unwrap().to_vec()).collect()
    };
    let planes = (0..3).flat_map(|c| image.pixels.chunks_exact(4).map(move |pixel| f32::from(pixel[c]) / 255.0));
    let input = feature_input(1, image.height, image.width, 16).unwrap();
    let sample = run(&input, "pixels", &planes.collect::<Vec<_>>(), &["sample"]).remove(0);
    let network = EmojiClassifierConfig::from_json(CONFIG).unwrap().graph(1).unwrap();
    run(&network, "sample", &sample, &["features", "glyph", "style"]).try_into().unwrap()
}

fn softmax(logits: &[f32]) -> Vec<f32> {
    let powers: Vec<f32> = logits.iter().map(|v| v.exp()).collect();
    powers.iter().map(|v| v / powers.iter().sum::<f32>()).collect()
}

#[test]
fn features_of_pictures_of_any_size_come_in_their_order_and_agree_with_the_twin() {
    let weights = emoji();
    // Sizes that alternate, of which one has more pictures than a batch and one is larger than what is resized at a time.
    let mut pictures: Vec<Rgba> = (0..37).map(|seed| noise(seed, 9, 20)).collect();
    for (seed, (height, width)) in [(16, 16), (1, 1), (40, 7), (16, 16), (1500, 1500), (1, 1)].into_iter().enumerate() {
        pictures.insert(5 * seed, noise(100 + seed as u64, height, width));
    }
    for device in [Device::cpu(), crate::common::gpu()] {
        let mut extractor = load(&emoji_folder(&weights, Encoding::F32), device.clone()).unwrap();
        assert_eq!((extractor.name(), extractor.features(), extractor.side()), ("emoji", 12, 16));
        // Twice, to use the programs again.
        let found = block_on(extractor.extract(&pictures)).unwrap();
        assert_eq!(found, block_on(extractor.extract(&pictures)).unwrap());
        let seen = block_on(extractor.classify(&pictures, 2)).unwrap();
        assert_eq!((found.len(), seen.len()), (12 * pictures.len(), pictures.len()));
        for (index, picture) in pictures.iter().enumerate() {
            let [features, glyph, style] = on_twin(&weights, picture);
            let largest = features.iter().fold(0f32, |m, v| m.max(v.abs()));
            for (found, expected) in found[12 * index..].iter().zip(&features) {
                assert!((found - expected).abs() <= 1e-5 * largest, "picture {index}: {found}, expected {expected}");
            }
            for (labels, names, logits) in [
                (&seen[index].glyphs, &["fox", "cat", "owl"][..], glyph),
                (&seen[index].styles, &["flat", "round"], style),
            ] {
                let expected = softmax(&logits);
                assert_eq!(labels.len(), 2);
                assert!(labels[0].probability >= labels[1].probability, "{labels:?}");
                for label in labels {
                    let at = names.iter().position(|name| *name == label.name).unwrap();
                    assert!(
                        (label.probability - expected[at]).abs() < 1e-4,
                        "picture {index}: {labels:?}, {expected:?}"
                    );
                }
                let best = expected.iter().fold(0f32, |m, v| m.max(*v));
                assert!((labels[0].probability - best).abs() < 1e-4, "picture {index}: {labels:?}, {expected:?}");
            }
        }
        assert!(block_on(extractor.extract(&[])).unwrap().is_empty());
        assert!(block_on(extractor.classify(&[], 1)).unwrap().is_empty());
    }
}

#[test]
fn on_the_cpu_a_picture_has_the_same_features_alone_and_beside_others_whatever_its_alpha() {
    let mut extractor = load(&emoji_folder(&emoji(), Encoding::F32), Device::cpu()).unwrap();
    let pictures: Vec<Rgba> = (0..11).map(|seed| noise(seed, 24, 24)).collect();
    let together = block_on(extractor.extract(&pictures)).unwrap();
    for (mut picture, expected) in pictures.into_iter().zip(together.chunks_exact(12)) {
        assert_eq!(block_on(extractor.extract(std::slice::from_ref(&picture))).unwrap(), expected);
        picture.pixels.iter_mut().skip(3).step_by(4).for_each(|alpha| *alpha = 255 - *alpha);
        assert_eq!(block_on(extractor.extract(&[picture])).unwrap(), expected);
    }
}

#[test]
fn half_precision_weights_give_the_features_of_the_numbers_that_they_hold() {
    let pictures = [noise(7, 30, 50)];
    let features = |source: MemorySource| {
        let mut extractor = load(&source, Device::cpu()).unwrap();
        (block_on(extractor.extract(&pictures)).unwrap(), extractor.fingerprint().to_owned())
    };
    let rounded = |weights: &Weights, dtype: Encoding| -> Weights {
        let round = |values: &Vec<f32>| dtype.to_f32(&dtype.encode(values).unwrap()).unwrap();
        weights.iter().map(|(name, (shape, values))| (name.clone(), (shape.clone(), round(values)))).collect()
    };
    let emoji = |dtype| {
        (features(emoji_folder(&emoji(), dtype)), features(emoji_folder(&rounded(&emoji(), dtype), Encoding::F32)))
    };
    let inception_folder = |weights: &Weights, dtype| folder([("model.safetensors", file(weights, dtype))]);
    let weights = inception();
    let inception = (
        features(inception_folder(&weights, Encoding::F16)),
        features(inception_folder(&rounded(&weights, Encoding::F16), Encoding::F32)),
    );
    for ((found, fingerprint), (expected, other)) in [emoji(Encoding::F16), emoji(Encoding::BF16), inception] {
        assert_eq!(found, expected);
        assert_ne!(fingerprint, other);
    }
}

#[test]
fn a_fingerprint_tells_weights_apart_and_not_the_order_of_a_file() {
    let fingerprint = |file: Vec<u8>| {
        let source = folder([("config.json", CONFIG.as_bytes().to_vec()), ("model.safetensors", file)]);
        load(&source, Device::cpu()).unwrap().fingerprint().to_owned()
    };
    let mut weights = emoji();
    let whole = file(&weights, Encoding::F32);
    let expected = fingerprint(whole.clone());
    assert!(expected.len() == 16 && expected.chars().all(|c| c.is_ascii_hexdigit()), "{expected}");
    // The same tensors behind another one, which is none of the network's, in the opposite order.
    let header_length = u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&whole[8..8 + header_length]).unwrap();
    let mut tensors: Vec<_> = header.as_object().unwrap().iter().collect();
    tensors.sort_by_key(|(_, tensor)| std::cmp::Reverse(tensor["data_offsets"][0].as_u64()));
    let (mut reordered, mut data) = (serde_json::Map::new(), vec![1, 2, 3, 4]);
    reordered.insert("steps".into(), serde_json::json!({"dtype": "I32", "shape": [], "data_offsets": [0, 4]}));
    for (name, tensor) in tensors {
        let [start, end] = [0, 1].map(|i| 8 + header_length + tensor["data_offsets"][i].as_u64().unwrap() as usize);
        let offsets = [data.len(), data.len() + end - start];
        data.extend_from_slice(&whole[start..end]);
        let entry = serde_json::json!({"dtype": "F32", "shape": tensor["shape"], "data_offsets": offsets});
        reordered.insert(name.clone(), entry);
    }
    let json = serde_json::to_vec(&reordered).unwrap();
    let file_in_other_order = [&(json.len() as u64).to_le_bytes()[..], &json, &data].concat();
    assert_eq!(fingerprint(file_in_other_order), expected);
    weights.get_mut("glyph.bias").unwrap().1[1] += 1e-6;
    assert_ne!(fingerprint(file(&weights, Encoding::F32)), expected);
}

#[test]
fn a_file_that_is_not_the_network_is_refused_by_what_is_wrong_with_it() {
    let changed = |change: &dyn Fn(&mut Weights)| {
        let mut weights = emoji();
        change(&mut weights);
        refusal(&emoji_folder(&weights, Encoding::F32))
    };
    let message = changed(&|weights| drop(weights.remove("blocks.1.shortcut.bias")));
    assert_eq!(
        message,
        "model.safetensors: there is no tensor `blocks.1.shortcut.bias`, which emoji needs; the file is not complete, or of \
        another network"
    );
    let message = changed(&|weights| weights.get_mut("glyph.weight").unwrap().0 = vec![12, 3]);
    assert!(message.contains("tensor `glyph.weight` is [12, 3], but emoji needs [3, 12]"), "{message}");
    let message = changed(&|weights| weights.get_mut("conv_in.bias").unwrap().1[2] = f32::NAN);
    assert!(message.contains("\"conv_in.bias\": it holds a value that is not finite"), "{message}");

    let weights = file(&emoji(), Encoding::F32);
    let config = |config: &str, weights: &[u8]| {
        refusal(&folder([("config.json", config.as_bytes().to_vec()), ("model.safetensors", weights.to_vec())]))
    };
    let message = config(CONFIG, &weights[..weights.len() - 1]);
    assert!(message.contains("model.safetensors: the file ends after"), "{message}");
    let message = config(&CONFIG.replace("EmojiClassifier", "ResNet"), &weights);
    assert!(message.starts_with("config.json: EmojiClassifier: `_class_name` is \"ResNet\""), "{message}");
    // Sizes that only a config claims take no memory: the tensors are compared first.
    let message = config(
        &CONFIG.replace("[8, 12]", "[131072, 131072]").replace("\"sample_size\": 16", "\"sample_size\": 2"),
        &weights,
    );
    assert!(message.contains("`conv_in.weight` is [8, 3, 3, 3], but emoji needs [131072, 3, 3, 3]"), "{message}");
    let message = config(
        &CONFIG.replace("[8, 12]", "[131072]").replace("\"sample_size\": 16", "\"sample_size\": 1024"),
        &weights,
    );
    assert!(message.contains("config.json: conv_in: conv2d would make a tensor of shape"), "{message}");

    // Neither one network nor the other.
    let message = refusal(&folder([("readme.md", vec![])]));
    assert!(message.starts_with("memory: it has neither config.json nor inception.safetensors; "), "{message}");
    let message = refusal(&folder([("model.safetensors", weights)]));
    assert!(message.contains("an EmojiClassifier without its config.json"), "{message}");
    let other = Weights::from([("conv.weight".to_owned(), (vec![1], vec![1.0]))]);
    let message = refusal(&folder([("inception.safetensors", file(&other, Encoding::F32))]));
    assert!(message.contains("its tensors are those of another network"), "{message}");
    let message = refusal(&folder([("inception.safetensors", b"PK\x03\x04 and so on".to_vec())]));
    assert!(message.contains("PyTorch pickle") && message.contains("save_file"), "{message}");
}

#[test]
fn inception_needs_every_tensor_of_each_layer_and_no_other() {
    let mut weights = inception();
    let variance = "Mixed_7c.branch3x3dbl_3b.bn.running_var";
    let source = |weights: &Weights| folder([("inception.safetensors", file(weights, Encoding::F16))]);
    weights.get_mut(variance).unwrap().1[5] = -1.0;
    let message = refusal(&source(&weights));
    assert!(message.contains("Mixed_7c.branch3x3dbl_3b.") && message.contains("overflows"), "{message}");
    let removed = weights.remove(variance);
    let message = refusal(&source(&weights));
    assert!(message.contains(&format!("no tensor `{variance}`, which inception-v3-fid needs")), "{message}");
    weights.insert(variance.to_owned(), (vec![384], removed.unwrap().1.iter().map(|v| v.abs()).collect()));
    weights.insert("fc.weight".to_owned(), (vec![2], vec![f32::NAN; 2]));
    assert_eq!(load(&source(&weights), Device::cpu()).unwrap().features(), 2048);
}

#[test]
fn a_picture_that_is_none_is_refused_by_its_number_before_anything_runs() {
    let mut extractor = load(&emoji_folder(&emoji(), Encoding::F32), Device::cpu()).unwrap();
    let good = noise(1, 4, 4);
    let mut refused = |picture: Rgba| {
        let error = block_on(extractor.extract(&[good.clone(), picture])).unwrap_err();
        assert!(matches!(error, Error::Picture { index: 1, .. }), "{error}");
        error.to_string()
    };
    let message = refused(Rgba { width: 4, height: 4, pixels: vec![0; 63] });
    assert_eq!(message, "picture 1: expected 64 bytes of RGBA, got 63");
    let message = refused(Rgba { width: 0, height: 4, pixels: vec![] });
    assert!(message.contains("it has 0×4 pixels, expected sides from 1 to 8192"), "{message}");
    refused(Rgba { width: usize::MAX, height: 2, pixels: vec![] });
}

#[test]
fn features_that_are_not_finite_are_an_error_that_names_the_layer() {
    let mut weights = emoji();
    weights.get_mut("blocks.1.conv2.weight").unwrap().1.fill(f32::MAX);
    for device in [Device::cpu(), crate::common::gpu()] {
        let mut extractor = load(&emoji_folder(&weights, Encoding::F32), device).unwrap();
        let message = block_on(extractor.extract(&[noise(3, 16, 16)])).unwrap_err().to_string();
        assert!(message.contains("blocks.1.conv2") && message.contains("not finite"), "{message}");
    }
}

/// The pictures that emoji64 draws of `prompt` with these seeds, as the page does.
fn drawn(pipeline: &Pipeline, about: &Value, prompt: &str, seeds: Vec<u64>) -> Vec<Rgba> {
    let options = SampleOptions {
        prompt: prompt.into(),
        num_images_per_prompt: seeds.len(),
        seeds,
        steps: about["steps"].as_u64().unwrap() as usize,
        guidance_scale: about["guidanceScale"].as_f64().unwrap(),
        scheduler: Scheduler::Solver(about["solver"].as_str().unwrap().parse().unwrap()),
        preview: Preview::None,
        ..SampleOptions::default()
    };
    let mut sampler = block_on(pipeline.sampler(options)).unwrap();
    std::iter::from_fn(|| block_on(sampler.step()).unwrap()).last().unwrap().images
}

#[test]
fn every_example_of_the_page_is_drawn_as_what_it_names_whatever_the_seed() {
    const SEEDS: u64 = 32;
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("www/models");
    let about = crate::common::read_json(&models.join("emoji64.json"));
    let emoji64 = DirectorySource::new(models.join("emoji64"));
    let pipeline = block_on(Pipeline::load(&emoji64, Device::cpu(), &mut |_| {})).unwrap();
    let mut classifier = block_on(FeatureExtractor::emoji(Device::cpu())).unwrap();
    let prompts: Vec<&str> =
        about["prompts"].as_array().unwrap().iter().map(|prompt| prompt.as_str().unwrap()).collect();
    assert_eq!(prompts.len(), 6);
    for prompt in prompts {
        let (thing, style) = prompt.split_once(", ").expect("a thing and a style");
        assert!(about["glyphs"][thing].is_object() && about["styles"].as_array().unwrap().contains(&style.into()));
        let pictures = drawn(&pipeline, &about, prompt, (0..SEEDS).collect());
        let answers = block_on(classifier.classify(&pictures, 1)).unwrap();
        let right = answers.iter().filter(|answer| answer.glyphs[0].name == thing).count();
        println!("{right} of {SEEDS} are recognised: {prompt}");
        assert!(right >= 31, "{prompt}: {right} of {SEEDS}");
    }
}
