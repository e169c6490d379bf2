//! The variational bound against the reference: in f64 from recorded outputs of the network, and with our own network in f32.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::common::{read_json, reference};
use pollster::block_on;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};
use undiffuse::device::Device;
use undiffuse::diffusion::{Cdf, Decoder, PredictionType, Variance, VariationalBound};
use undiffuse::noise::{Generator, Stream};
use undiffuse::pipeline::{
    Bound, BoundOptions, BoundSummary, Component, NamedTensor, Pipeline, Rgba, TermKind, Timesteps,
};
use undiffuse::weights::{DirectorySource, MemorySource};

fn folder() -> PathBuf {
    reference("metrics")
}

/// The copy beside the tests, for what is no comparison with the reference.
fn own() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference")
}

/// All tensors of the reference in `folder` in f64, with their shapes.
fn tensors(folder: &Path) -> BTreeMap<String, (Vec<usize>, Vec<f64>)> {
    let bytes = fs::read(folder.join("vlb.safetensors")).expect("vlb.safetensors");
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

/// What stands between `before` and `after` in one of the sentences.
fn convention<'a>(json: &'a Value, before: &str, after: &str) -> &'a str {
    let sentences = json["conventions"].as_array().expect("a list").iter().filter_map(Value::as_str);
    let found = sentences.filter_map(|text| Some(text.split_once(before)?.1.split_once(after)?.0)).next();
    found.unwrap_or_else(|| panic!("no convention of {before}"))
}

/// The seed of the noise but for t: "… generator=manual_seed(4400 + t)".
fn base_seed(json: &Value) -> u64 {
    convention(json, "manual_seed(", " + t)").parse().expect("a seed")
}

/// β_0, β_{T−1} and T of the linear schedule: "betas: linspace(1e-4, 0.02, 1000) …".
fn linear(json: &Value) -> (f64, f64, usize) {
    let numbers: Vec<f64> =
        convention(json, "linspace(", ")").split(", ").map(|number| number.parse().expect("a number")).collect();
    let [start, end, count] = numbers[..] else { panic!("{numbers:?}") };
    (start, end, count as usize)
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().expect("a list").iter().map(|v| v.as_f64().expect("a number")).collect()
}

/// `count` evenly spaced numbers, as numpy's `linspace` makes them.
fn linspace((from, to, count): (f64, f64, usize)) -> Vec<f64> {
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
            None => linspace(linear(json)),
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
    let (json, tensors) = (read_json(&folder().join("vlb.json")), tensors(&folder()));
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
    let (json, tensors) = (read_json(&folder().join("vlb.json")), tensors(&folder()));
    let seed = base_seed(&json);
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
    walk(&crate::common::gpu());
}

/// The linear schedule of the tests' own copy.
const LINEAR: (f64, f64, usize) = (1e-4, 0.02, 1000);

/// The network of the tests' own copy as a checkpoint.
fn checkpoint(scheduler: &Value) -> Pipeline {
    checkpoint_of(scheduler, network(&own().join("metrics")))
}

/// The config and the weights of the network of the reference in `folder`.
fn network(folder: &Path) -> (Vec<u8>, Vec<u8>) {
    let file = |name: &str| fs::read(folder.join("vlb_unet").join(name)).expect("a file of the network");
    (file("config.json"), file("diffusion_pytorch_model.safetensors"))
}

/// A network by its config and its weights as a checkpoint, with these keys in its scheduler's config.
fn checkpoint_of(scheduler: &Value, (config, weights): (Vec<u8>, Vec<u8>)) -> Pipeline {
    let mut keys = json!({ "_class_name": "DDPMScheduler" });
    keys.as_object_mut().unwrap().extend(scheduler.as_object().expect("keys").clone());
    let index = json!({
        "_class_name": "DDPMPipeline",
        "scheduler": ["diffusers", "DDPMScheduler"],
        "unet": ["diffusers", "UNet2DModel"],
    });
    let mut source = MemorySource::new();
    source.insert("model_index.json", index.to_string().into_bytes());
    source.insert("scheduler/scheduler_config.json", keys.to_string().into_bytes());
    source.insert("unet/config.json", config);
    source.insert("unet/diffusion_pytorch_model.safetensors", weights);
    block_on(Pipeline::load(&source, Device::cpu(), &mut |_| {})).expect("a pipeline")
}

/// The pictures of the reference in `folder`.
fn pictures(folder: &Path) -> Vec<Rgba> {
    let (shape, levels) = &tensors(folder)["x0_uint8"];
    let [images, _, height, width] = shape[..] else { panic!("{shape:?}") };
    let pixels = height * width;
    let level = |image: usize, channel: usize, pixel: usize| levels[(image * 3 + channel) * pixels + pixel] as u8;
    let picture = |image| {
        let of = |pixel| [level(image, 0, pixel), level(image, 1, pixel), level(image, 2, pixel), 255];
        Rgba { width, height, pixels: (0..pixels).flat_map(of).collect() }
    };
    (0..images).map(picture).collect()
}

/// Computes all terms.
fn run(bound: &mut Bound) -> BoundSummary {
    let total = bound.total();
    let mut count = 0;
    while block_on(bound.next_term()).expect("a term").is_some() {
        count += 1;
        assert_eq!(bound.total(), total, "the number of terms is known from the start");
        assert!(count == total || bound.summary().total.is_none(), "the whole is known at the end only");
    }
    assert_eq!(count, total);
    bound.summary()
}

fn summary(pipeline: &Pipeline, options: BoundOptions) -> BoundSummary {
    run(&mut block_on(pipeline.bound(options)).expect("a bound"))
}

#[track_caller]
fn refused(pipeline: &Pipeline, options: BoundOptions, message: &str) {
    let error = block_on(pipeline.bound(options)).expect_err(message).to_string();
    assert!(error.contains(message), "{error:?} rather than {message:?}");
}

#[test]
fn the_bound_of_pictures_under_a_checkpoint_agrees_with_the_reference() {
    let json = read_json(&folder().join("vlb.json"));
    let seed = base_seed(&json);
    for key in ["linear_1000", "short_chain_every_t"] {
        for (chain, stored) in chains(&json, key).iter().zip(json[key].as_array().expect("a list")) {
            let scheduler = match stored.get("betas") {
                Some(betas) => {
                    json!({ "trained_betas": betas, "num_train_timesteps": betas.as_array().unwrap().len() })
                }
                None => {
                    let (start, end, count) = linear(&json);
                    json!({ "beta_start": start, "beta_end": end, "num_train_timesteps": count })
                }
            };
            let options = BoundOptions {
                images: pictures(&folder()),
                timesteps: Timesteps::List(chain.terms.iter().map(|(timestep, ..)| *timestep).collect()),
                variance: Some(chain.bound.variance()),
                clip_denoised: chain.clip,
                seed,
                ..BoundOptions::default()
            };
            let pipeline = checkpoint_of(&scheduler, network(&folder()));
            let found = summary(&pipeline, options.clone());
            assert!(!found.of_latents);
            let [prior, terms @ ..] = &found.terms[..] else { panic!("no terms") };
            assert_eq!((prior.kind, prior.timestep), (TermKind::Prior, None));
            for (image, expected) in chain.prior.iter().enumerate() {
                close(prior.bits_per_dim[image], *expected, 1e-4, &format!("{}: L_T of {image}", chain.what));
            }
            let approximate = summary(&pipeline, BoundOptions { cdf: Cdf::Tanh, ..options });
            // From the last timestep down.
            let expected: BTreeMap<usize, _> = chain.terms.iter().map(|(t, exact, tanh)| (*t, (exact, tanh))).collect();
            for ((term, other), (timestep, (exact, tanh))) in
                terms.iter().zip(&approximate.terms[1..]).zip(expected.into_iter().rev())
            {
                assert_eq!(term.timestep, Some(timestep));
                for image in 0..exact.len() {
                    let what = format!("{}: t = {timestep} of {image}", chain.what);
                    close(term.bits_per_dim[image], exact[image], 1e-4, &what);
                    close(other.bits_per_dim[image], tanh.as_ref().unwrap_or(exact)[image], 1e-4, &what);
                }
            }
            if let Some(expected) = &chain.total {
                let total = found.total.expect("the whole");
                assert_eq!(total.error_of_timesteps, Some(0.0));
                for (found, expected) in total.bits_per_dim.iter().zip(expected) {
                    close(*found, *expected, 1e-4, &chain.what);
                }
            }
        }
    }
}

/// The network of the reference with a second half of channels that is constant: v = `bias`, channel by channel.
fn with_variance(bias: [f32; 3]) -> (Vec<u8>, Vec<u8>) {
    let network = own().join("metrics/vlb_unet");
    let mut config = read_json(&network.join("config.json"));
    config["out_channels"] = json!(6);
    let bytes = fs::read(network.join("diffusion_pytorch_model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut all: Vec<(String, Vec<usize>, Vec<u8>)> =
        file.tensors().into_iter().map(|(name, view)| (name, view.shape().to_vec(), view.data().to_vec())).collect();
    for (name, shape, data) in &mut all {
        match name.as_str() {
            "conv_out.weight" => data.resize(2 * data.len(), 0),
            "conv_out.bias" => data.extend(bias.iter().flat_map(|b| b.to_le_bytes())),
            _ => continue,
        }
        shape[0] *= 2;
    }
    let views = all.iter().map(|(name, shape, data)| (name, TensorView::new(Dtype::F32, shape.clone(), data).unwrap()));
    (config.to_string().into_bytes(), safetensors::serialize(views, None).unwrap())
}

#[test]
fn a_variance_that_the_network_has_learned_is_read_from_its_second_half_of_channels() {
    let options = |variance| BoundOptions {
        images: pictures(&own().join("metrics")),
        timesteps: Timesteps::List(vec![0, 1, 40, 999]),
        variance,
        seed: 7,
        ..BoundOptions::default()
    };
    let bits = |summary: BoundSummary| -> Vec<Vec<f64>> {
        // From L_T down to L_0.
        summary.terms.into_iter().map(|term| term.bits_per_dim).collect()
    };
    let plain = checkpoint(&json!({}));
    let [small, large] = [Variance::FixedSmall, Variance::FixedLarge].map(|v| bits(summary(&plain, options(Some(v)))));
    let near = |found: &[Vec<f64>], expected: &[Vec<f64>], what: &str| {
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().flatten().zip(expected.iter().flatten()) {
            close(*found, *expected, 1e-6, what);
        }
    };

    let range = json!({ "variance_type": "learned_range" });
    let least = checkpoint_of(&range, with_variance([-1.0; 3]));
    near(&bits(summary(&least, options(None))), &small, "v = -1 is the smallest");
    let most = checkpoint_of(&range, with_variance([1.0; 3]));
    near(&bits(summary(&most, options(None)))[..4], &large[..4], "v = 1 is the largest but at t = 0");
    near(&bits(summary(&most, options(Some(Variance::FixedSmall)))), &small, "a fixed one pays no heed to v");

    // In between, each channel has its own.
    let mixed = checkpoint_of(&range, with_variance([-0.5, 0.25, 0.9]));
    let found = bits(summary(&mixed, options(None)));
    let betas = linspace(LINEAR);
    let alpha_bar = |t: usize| betas[..=t].iter().map(|beta| 1.0 - beta).product::<f64>();
    let (before, after, beta) = (alpha_bar(39), alpha_bar(40), betas[40]);
    let min_log = (beta * (1.0 - before) / (1.0 - after)).ln();
    // What KL(q ‖ p) of equal means is, plus the difference of means, which a fixed variance tells.
    let kl = |log: f64, squares: f64| 0.5 * (log - min_log + (min_log - log).exp() - 1.0 + squares * (-log).exp());
    let network =
        block_on(Component::load(&DirectorySource::new(own().join("metrics/vlb_unet")), Device::cpu(), None)).unwrap();
    let (shape, x0) = &tensors(&own().join("metrics"))["x0"];
    let noise = Generator::new(Stream::TorchCpu, 7 + 40).randn(x0.len());
    let x_t: Vec<f64> =
        x0.iter().zip(&noise).map(|(x, &z)| after.sqrt() * x + (1.0 - after).sqrt() * f64::from(z)).collect();
    let sample = NamedTensor { shape: shape.clone(), data: x_t.iter().map(|&x| x as f32).collect() };
    let told = NamedTensor { shape: vec![1], data: vec![40.0] };
    let inputs = BTreeMap::from([("sample".to_owned(), sample), ("timestep".to_owned(), told)]);
    let epsilon = block_on(network.run(&inputs)).unwrap().remove("out").unwrap().data;
    for (image, &found) in found[2].iter().enumerate() {
        let mut nats = 0.0;
        for (channel, v) in [-0.5, 0.25, 0.9].into_iter().enumerate() {
            for pixel in 0..64 {
                let i = (image * 3 + channel) * 64 + pixel;
                let guess = (x_t[i] - (1.0 - after).sqrt() * f64::from(epsilon[i])) / after.sqrt();
                let off = before.sqrt() * beta / (1.0 - after) * (x0[i] - guess.clamp(-1.0, 1.0));
                nats += kl((v + 1.0) / 2.0 * beta.ln() + (1.0 - v) / 2.0 * min_log, off * off);
            }
        }
        close(found, nats / 192.0 / 2f64.ln(), 1e-4, "t = 40");
    }
    refused(
        &plain,
        options(Some(Variance::LearnedRange)),
        "`variance` is learned_range: the network has learned no variance",
    );
}

#[test]
fn many_pictures_go_through_the_network_in_several_batches_and_keep_their_noise() {
    let pipeline = checkpoint(&json!({}));
    let images: Vec<Rgba> = pictures(&own().join("metrics")).into_iter().cycle().take(11).collect();
    let options = BoundOptions { images, timesteps: Timesteps::List(vec![300]), seed: 90, ..BoundOptions::default() };
    let found = summary(&pipeline, options);
    assert_eq!(found.total, None, "one term says nothing about L_0");
    let network =
        block_on(Component::load(&DirectorySource::new(own().join("metrics/vlb_unet")), Device::cpu(), None)).unwrap();
    let bound = VariationalBound::new(linspace(LINEAR), PredictionType::Epsilon, Variance::FixedSmall, Some(1.0));
    let bound = bound.unwrap();
    let noise = Generator::new(Stream::TorchCpu, 390).randn(11 * 192);
    let (_, x0) = &tensors(&own().join("metrics"))["x0"];
    for picture in 0..11 {
        let x0 = &x0[picture % 2 * 192..][..192];
        let x_t = bound.noised(300, x0, &noise[picture * 192..][..192]).unwrap();
        let sample = NamedTensor { shape: vec![1, 3, 8, 8], data: x_t.iter().map(|&x| x as f32).collect() };
        let told = NamedTensor { shape: vec![1], data: vec![300.0] };
        let inputs = BTreeMap::from([("sample".to_owned(), sample), ("timestep".to_owned(), told)]);
        let output = block_on(network.run(&inputs)).unwrap().remove("out").unwrap().data;
        let output: Vec<f64> = output.into_iter().map(f64::from).collect();
        let expected = bound.term(300, x0, &x_t, &output, EXACT).unwrap();
        close(found.terms[1].bits_per_dim[picture], expected, 1e-4, &format!("picture {picture}"));
    }
}

fn model(name: &str) -> Pipeline {
    let source = DirectorySource::new(own().join("pipelines/models").join(name));
    block_on(Pipeline::load(&source, Device::cpu(), &mut |_| {})).expect("a model of the reference")
}

/// A picture of any size.
fn pattern(width: usize, height: usize) -> Rgba {
    let pixel = |i: usize| [i * 37 % 256, i * 11 % 256, i * 5 % 256, 255].map(|v| v as u8);
    Rgba { width, height, pixels: (0..width * height).flat_map(pixel).collect() }
}

#[test]
fn the_bound_of_a_latent_model_is_that_of_its_latents() {
    let (pipeline, folder) = (model("sd"), own().join("pipelines/models/sd"));
    let (height, width) = (pipeline.info().height, pipeline.info().width);
    let options = BoundOptions {
        images: vec![pattern(width, height)],
        timesteps: Timesteps::List(vec![0, 500]),
        ..BoundOptions::default()
    };
    let found = summary(&pipeline, options.clone());
    let scale = pipeline.info().scale_factor;
    assert_eq!((found.of_latents, found.clip_denoised), (true, false));
    assert_eq!(found.dimensions, 4 * (height / scale) * (width / scale));
    // L_T says which latents they are: the mean of the autoencoder, times its factor.
    let latents = encoded(&folder.join("vae"), &options.images[0]);
    let factor = read_json(&folder.join("vae/config.json"))["scaling_factor"].as_f64().expect("a factor");
    let latents: Vec<f64> = latents.iter().map(|&mean| f64::from(mean) * factor).collect();
    let bound = pipeline.scheduler().variational_bound(None, None).unwrap();
    close(found.terms[0].bits_per_dim[0], bound.prior(&latents), 1e-4, "L_T");

    let drawn = summary(&pipeline, BoundOptions { sample_posterior: true, ..options.clone() });
    assert_ne!(drawn.terms[0], found.terms[0], "other latents of the same picture");
    let again = summary(&pipeline, BoundOptions { sample_posterior: true, ..options.clone() });
    assert_eq!(drawn, again, "by the same seed");
    assert_ne!(found.terms[1], summary(&pipeline, BoundOptions { seed: 1, ..options.clone() }).terms[1]);
    let prompted = summary(&pipeline, BoundOptions { prompt: "a cat".into(), ..options.clone() });
    assert_eq!(prompted.terms[0], found.terms[0]);
    assert_ne!(prompted.terms[1], found.terms[1]);
    let guided = summary(&pipeline, BoundOptions { prompt: "a cat".into(), guidance_scale: 5.0, ..options });
    assert_ne!(guided.terms[1], prompted.terms[1]);
}

/// The means that the autoencoder in `folder` gives for a picture.
fn encoded(folder: &Path, picture: &Rgba) -> Vec<f32> {
    let vae = block_on(Component::load(&DirectorySource::new(folder), Device::cpu(), None)).expect("an autoencoder");
    let level =
        |channel: usize| picture.pixels.chunks_exact(4).map(move |pixel| f32::from(pixel[channel]) / 127.5 - 1.0);
    let data = (0..3).flat_map(level).collect();
    let sample = NamedTensor { shape: vec![1, 3, picture.height, picture.width], data };
    block_on(vae.run(&BTreeMap::from([("encode/in".to_owned(), sample)]))).unwrap().remove("encode/mean").unwrap().data
}

#[test]
fn each_picture_may_have_a_prompt_of_its_own() {
    let pipeline = model("sd");
    let picture = pattern(pipeline.info().width, pipeline.info().height);
    let bits = |prompts: &[&str]| {
        let prompt: Vec<String> = prompts.iter().map(|&text| text.to_owned()).collect();
        let options = BoundOptions {
            images: vec![picture.clone(); 2],
            prompt: prompt.into(),
            timesteps: Timesteps::List(vec![500]),
            ..BoundOptions::default()
        };
        summary(&pipeline, options).terms[1].bits_per_dim.clone()
    };
    let (cats, both) = (bits(&["a cat"]), bits(&["a cat", "a dog"]));
    assert_eq!(cats[0], both[0]);
    assert_ne!(cats[1], both[1]);
}

#[test]
fn pictures_of_any_size_are_brought_to_that_of_the_model_or_to_the_one_asked_for() {
    let pipeline = checkpoint(&json!({}));
    let options = BoundOptions {
        images: vec![pattern(30, 20), pattern(8, 8)],
        timesteps: Timesteps::List(vec![999]),
        ..BoundOptions::default()
    };
    assert_eq!(summary(&pipeline, options.clone()).dimensions, 192);
    let larger = BoundOptions { height: Some(12), width: Some(16), ..options.clone() };
    assert_eq!(summary(&pipeline, larger).dimensions, 3 * 12 * 16);
    refused(&pipeline, BoundOptions { height: Some(0), ..options }, "`height` is 0: expected a multiple of 1");
}

#[test]
fn what_has_no_bound_is_refused_with_a_reason() {
    let pipeline = checkpoint(&json!({}));
    let of = |images: Vec<Rgba>| BoundOptions { images, ..BoundOptions::default() };
    let picture = pattern(8, 8);
    refused(&pipeline, of(vec![]), "`images` is a list of none: give at least one picture");
    refused(&pipeline, of(vec![Rgba { pixels: vec![1], ..picture.clone() }]), "expected 256 bytes of RGBA");
    let timesteps = Timesteps::List(vec![1000]);
    refused(&pipeline, BoundOptions { timesteps, ..of(vec![picture.clone()]) }, "whole numbers from 0 to 999");
    let prompt = BoundOptions { prompt: "a cat".into(), ..of(vec![picture.clone()]) };
    refused(&pipeline, prompt, "a DDPMPipeline takes no prompt");
    let sd = model("sd");
    let prompts = vec!["a cat".to_owned(), "a dog".to_owned()].into();
    refused(&sd, BoundOptions { prompt: prompts, ..of(vec![picture.clone()]) }, "one for each of the 1 pictures");
    refused(&model("sd_inpaint9"), of(vec![picture.clone()]), "sees a picture beside x_t");

    // Without a signal at the end, ε has no last term; the others are there.
    let scheduler = json!({ "rescale_betas_zero_snr": true });
    let zero_snr = checkpoint(&scheduler);
    let mut bound = block_on(zero_snr.bound(of(vec![picture.clone()]))).unwrap();
    block_on(bound.next_term()).expect("L_T");
    let error = block_on(bound.next_term()).expect_err("no term").to_string();
    assert!(error.contains("timestep 999: nothing of x_0 is left there"), "{error}");
    let others = BoundOptions { timesteps: Timesteps::List(vec![0, 998]), ..of(vec![picture]) };
    assert!(summary(&zero_snr, others).total.is_some());
}
