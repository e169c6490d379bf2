//! The variational bound against the reference: in f64 from recorded outputs of the network, and with our own network in f32.
#![cfg(not(target_arch = "wasm32"))]

mod common;

use std::collections::BTreeMap;
use std::path::PathBuf;

use common::{read_json, reference};
use pollster::block_on;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use undiffuse::device::Device;
use undiffuse::diffusion::{Cdf, Decoder, PredictionType, Variance, VariationalBound};
use undiffuse::noise::{Generator, Stream};
use undiffuse::pipeline::{Component, NamedTensor};
use undiffuse::weights::DirectorySource;

fn folder() -> PathBuf {
    reference("metrics")
}

/// All tensors of the reference in f64, with their shapes.
fn tensors() -> BTreeMap<String, (Vec<usize>, Vec<f64>)> {
    let bytes = std::fs::read(folder().join("vlb.safetensors")).expect("vlb.safetensors");
    let file = SafeTensors::deserialize(&bytes).expect("safetensors");
    let numbers = |dtype, bytes: &[u8]| -> Vec<f64> {
        match dtype {
            Dtype::F64 => bytes.chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect(),
            Dtype::F32 => bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()).into()).collect(),
            Dtype::U8 => bytes.iter().map(|&b| f64::from(b)).collect(),
            other => panic!("a tensor of {other:?}"),
        }
    };
    let all = file.tensors().into_iter();
    all.map(|(name, view)| (name, (view.shape().to_vec(), numbers(view.dtype(), view.data())))).collect()
}

/// The seed before t in the sentence "… generator=manual_seed(4400 + t)".
fn base_seed(conventions: &Value) -> u64 {
    let sentences = conventions.as_array().expect("a list").iter().filter_map(Value::as_str);
    let found =
        sentences.filter_map(|text| text.split_once("manual_seed(")?.1.split_once(" + t)")?.0.parse().ok()).next();
    found.expect("the seed of the noise")
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().expect("a list").iter().map(|v| v.as_f64().expect("a number")).collect()
}

/// `count` evenly spaced numbers, as numpy's `linspace` makes them.
fn linspace(from: f64, to: f64, count: usize) -> Vec<f64> {
    let step = (to - from) / (count - 1) as f64;
    (0..count).map(|i| if i + 1 == count { to } else { from + step * i as f64 }).collect()
}

/// One recorded chain with all its terms.
struct Chain {
    what: String,
    bound: VariationalBound,
    clip: bool,
    prior: Vec<f64>,
    /// Timestep, L_0 by the exact Φ or L_t, and L_0 by the approximate one.
    terms: Vec<(usize, Vec<f64>, Option<Vec<f64>>)>,
    total: Option<Vec<f64>>,
}

fn chains(json: &Value, key: &str) -> Vec<Chain> {
    let chain = |chain: &Value| {
        let clip = chain["clip_denoised"].as_bool().expect("true or false");
        let variance: Variance = chain["variance"].as_str().expect("a name").parse().expect("a variance");
        let betas = match chain.get("betas") {
            Some(betas) => numbers(betas),
            None => linspace(1e-4, 0.02, 1000),
        };
        let bound = VariationalBound::new(betas, PredictionType::Epsilon, variance, clip.then_some(1.0));
        let term = |term: &Value| {
            let timestep = term["t"].as_u64().expect("a timestep") as usize;
            (timestep, numbers(&term["bits_per_dim"]), term.get("bits_per_dim_tanh_cdf").map(numbers))
        };
        Chain {
            what: format!("{key}, {variance}, {}", if clip { "clipped" } else { "not clipped" }),
            bound: bound.expect("a chain"),
            clip,
            prior: numbers(&chain["L_T_bits_per_dim"]),
            terms: chain["terms"].as_array().expect("a list").iter().map(term).collect(),
            total: chain.get("total_bits_per_dim").map(numbers),
        }
    };
    json[key].as_array().expect("a list").iter().map(chain).collect()
}

#[track_caller]
fn close(found: f64, expected: f64, tolerance: f64, what: &str) {
    let off = (found - expected).abs() / expected.abs();
    assert!(off <= tolerance, "{what}: {found}, expected {expected}, off by {off:.1e}");
}

const EXACT: Decoder = Decoder::Discretised(Cdf::Exact);
const APPROXIMATE: Decoder = Decoder::Discretised(Cdf::Tanh);

#[test]
fn every_term_agrees_with_the_reference_to_nine_digits_where_the_network_has_spoken() {
    let (json, tensors) = (read_json(&folder().join("vlb.json")), tensors());
    let (shape, x0) = &tensors["x0"];
    let length = x0.len() / shape[0];
    let mut count = 0;
    for chain in chains(&json, "linear_1000") {
        for (image, x0) in x0.chunks_exact(length).enumerate() {
            close(chain.bound.prior(x0), chain.prior[image], 1e-9, &format!("{}: L_T of {image}", chain.what));
            for (timestep, bits, tanh) in &chain.terms {
                let tensor = |name: &str| {
                    &tensors[&format!("clip{}/t{timestep}/{name}", u8::from(chain.clip))].1[image * length..][..length]
                };
                let what = format!("{}: t = {timestep} of {image}", chain.what);
                let (x_t, eps) = (tensor("x_t"), tensor("eps"));
                let noise: Vec<f32> = tensor("noise").iter().map(|&z| z as f32).collect();
                let noised = chain.bound.noised(*timestep, x0, &noise).expect("x_t");
                let means = [
                    (noised, x_t),
                    (chain.bound.mean(*timestep, x_t, eps).expect("a mean"), tensor("mean_p")),
                    (chain.bound.posterior_mean(*timestep, x0, x_t).expect("a mean"), tensor("mean_q")),
                ];
                for (found, expected) in means {
                    let off = found.iter().zip(expected).fold(0.0, |most: f64, (a, b)| most.max((a - b).abs()));
                    assert!(off < 1e-9, "{what}: off by {off:.1e}");
                }
                let term = |decoder| chain.bound.term(*timestep, x0, x_t, eps, decoder).expect("a term");
                close(term(EXACT), bits[image], 1e-9, &what);
                if let Some(tanh) = tanh {
                    close(term(APPROXIMATE), tanh[image], 1e-9, &format!("{what} by the approximate Φ"));
                }
                count += 1;
            }
        }
    }
    assert!(count > 0, "no term was compared");
    println!("{count} terms");
}

/// Every recorded chain with our own network, and noise from our own stream.
fn walk(device: &Device) {
    let (json, tensors) = (read_json(&folder().join("vlb.json")), tensors());
    let seed = base_seed(&json["conventions"]);
    let network = DirectorySource::new(folder().join("vlb_unet"));
    let network = block_on(Component::load(&network, device.clone(), None)).expect("the network");
    let (shape, pixels) = &tensors["x0_uint8"];
    let x0: Vec<f64> = pixels.iter().map(|level| level / 127.5 - 1.0).collect();
    let length = x0.len() / shape[0];
    for chain in ["linear_1000", "short_chain_every_t"].iter().flat_map(|key| chains(&json, key)) {
        let mut totals = chain.prior.clone();
        for (timestep, bits, tanh) in &chain.terms {
            let noise = Generator::new(Stream::TorchCpu, seed + *timestep as u64).randn(x0.len());
            let x_t = chain.bound.noised(*timestep, &x0, &noise).expect("x_t");
            let sample = NamedTensor { shape: shape.clone(), data: x_t.iter().map(|&x| x as f32).collect() };
            let told = NamedTensor { shape: vec![1], data: vec![*timestep as f32] };
            let inputs = BTreeMap::from([("sample".to_owned(), sample), ("timestep".to_owned(), told)]);
            let output = block_on(network.run(&inputs)).expect("an output").remove("out").expect("ε").data;
            for image in 0..shape[0] {
                let of = image * length..(image + 1) * length;
                let output: Vec<f64> = output[of.clone()].iter().map(|&e| e.into()).collect();
                let term = |decoder| {
                    chain.bound.term(*timestep, &x0[of.clone()], &x_t[of.clone()], &output, decoder).expect("a term")
                };
                let what = format!("{}: t = {timestep} of {image}", chain.what);
                close(term(EXACT), bits[image], 1e-4, &what);
                totals[image] += term(EXACT);
                if let Some(tanh) = tanh {
                    close(term(APPROXIMATE), tanh[image], 1e-4, &what);
                }
            }
        }
        for (image, expected) in chain.total.iter().flatten().enumerate() {
            close(totals[image], *expected, 1e-4, &format!("{}: the bound of {image}", chain.what));
        }
    }
}

#[test]
fn every_term_agrees_with_the_reference_with_our_own_network_on_the_cpu() {
    walk(&Device::cpu());
}

#[test]
fn every_term_agrees_with_the_reference_with_our_own_network_on_the_gpu() {
    walk(&common::gpu());
}
