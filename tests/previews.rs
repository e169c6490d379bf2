//! Pictures on the way: what they cost, what they look like, and that the last is always decoded.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::common::reference;
use pollster::block_on;
use undiffuse::device::Device;
use undiffuse::diffusion::Solver;
use undiffuse::pipeline::{Component, NamedTensor, Pipeline, Preview, Rgba, SampleOptions, Scheduler, StepOutput};
use undiffuse::weights::DirectorySource;

fn load(folder: impl AsRef<Path>, device: Device) -> Pipeline {
    block_on(Pipeline::load(&DirectorySource::new(folder.as_ref()), device, &mut |_| {})).unwrap()
}

fn emoji64(device: Device) -> Pipeline {
    load(Path::new(env!("CARGO_MANIFEST_DIR")).join("www/models/emoji64"), device)
}

/// Steps of a run, but where it says otherwise.
const STEPS: usize = 6;

fn options(preview: Preview, solver: Solver) -> SampleOptions {
    let prompt = "fox, noto style".into();
    SampleOptions {
        prompt,
        seed: 7,
        steps: STEPS,
        guidance_scale: 4.5,
        preview,
        scheduler: Scheduler::Solver(solver),
        ..Default::default()
    }
}

fn run(pipeline: &Pipeline, options: SampleOptions) -> Vec<StepOutput> {
    let mut sampler = block_on(pipeline.sampler(options)).unwrap();
    std::iter::from_fn(|| block_on(sampler.step()).unwrap()).collect()
}

/// Signal to noise of the colours of `found` beside `expected`, in decibels.
fn psnr(found: &Rgba, expected: &Rgba) -> f64 {
    assert_eq!((found.width, found.height), (expected.width, expected.height));
    let colours = |picture: &Rgba| -> Vec<f64> {
        picture.pixels.chunks_exact(4).flat_map(|pixel| pixel[..3].iter().map(|&value| f64::from(value))).collect()
    };
    let (found, expected) = (colours(found), colours(expected));
    let error: f64 = found.iter().zip(&expected).map(|(a, b)| (a - b).powi(2)).sum();
    10.0 * (255.0 * 255.0 * found.len() as f64 / error).log10()
}

/// The part of a picture's colours that are as dark or as bright as can be.
fn saturated(picture: &Rgba) -> f64 {
    let colours = picture.pixels.chunks_exact(4).flat_map(|pixel| &pixel[..3]);
    colours.clone().filter(|&&value| value == 0 || value == 255).count() as f64 / colours.count() as f64
}

#[test]
fn a_linear_preview_looks_like_the_decoded_picture() {
    let pipeline = emoji64(Device::cpu());
    for solver in [Solver::Ddim, Solver::Euler] {
        let linear = run(&pipeline, options(Preview::Linear, solver));
        let decoded = run(&pipeline, options(Preview::Decode, solver));
        assert_eq!(linear.len(), STEPS);
        for (linear, decoded) in linear.iter().zip(&decoded).take(STEPS - 1) {
            let image = psnr(&linear.images[0], &decoded.images[0]);
            let denoised = psnr(&linear.denoised[0], &decoded.denoised[0]);
            println!("{solver:?}, step {}: x_t {image:.1} dB, x̂_0 {denoised:.1} dB", linear.index);
            // A picture's colours averaged over the pixels of each latent and blended are no nearer than 20 dB.
            assert!(image > 14.0 && denoised > 14.0, "{solver:?}, step {}", linear.index);
            assert!(linear.index < 2 || denoised > 18.0, "{solver:?}, step {}: {denoised}", linear.index);
        }
    }
}

#[test]
fn a_noisy_sample_is_shown_as_noise_whatever_the_solver_scales_it_by() {
    let pipeline = emoji64(Device::cpu());
    for preview in [Preview::Linear, Preview::Decode] {
        let first = |solver| run(&pipeline, options(preview, solver)).swap_remove(0).images.swap_remove(0);
        let (ddim, euler) = (first(Solver::Ddim), first(Solver::Euler));
        // Euler's sample is 13 times as large here.
        assert!(saturated(&euler) < 0.15, "{preview:?}: {}", saturated(&euler));
        assert!(psnr(&euler, &ddim) > 30.0, "{preview:?}: {}", psnr(&euler, &ddim));
    }
}

/// The pictures of x_T.
fn initial(pipeline: &Pipeline, options: SampleOptions) -> Vec<Rgba> {
    block_on(block_on(pipeline.sampler(options)).unwrap().initial_images()).unwrap()
}

#[test]
fn the_initial_picture_is_what_the_autoencoder_makes_of_the_initial_latents() {
    let pipeline = emoji64(Device::cpu());
    let vae = Path::new(env!("CARGO_MANIFEST_DIR")).join("www/models/emoji64/vae");
    let config = crate::common::read_json(&vae.join("config.json"));
    let scaling_factor = config["scaling_factor"].as_f64().unwrap() as f32;
    let network = block_on(Component::load(&DirectorySource::new(vae), Device::cpu(), None)).unwrap();
    // Whatever the solver's scale, and both of two pictures.
    for solver in [Solver::Ddim, Solver::Euler] {
        let options = SampleOptions { num_images_per_prompt: 2, ..options(Preview::Decode, solver) };
        let mut sampler = block_on(pipeline.sampler(options)).unwrap();
        let scale = sampler.table().steps[0].input_scale as f32;
        let data = sampler.initial_latents().iter().map(|value| value * scale / scaling_factor).collect();
        let latents = NamedTensor { shape: sampler.latents_shape().to_vec(), data };
        let decoded = block_on(network.run(&BTreeMap::from([("decode/in".to_owned(), latents)]))).unwrap();
        let decoded = &decoded["decode/out"].data;
        let pictures = block_on(sampler.initial_images()).unwrap();
        assert_eq!(pictures.len(), 2);
        let pixels = decoded.len() / 6;
        for (picture, decoded) in pictures.iter().zip(decoded.chunks_exact(3 * pixels)) {
            let level = |i: usize| 255.0 * (decoded[i % 3 * pixels + i / 3] * 0.5 + 0.5).clamp(0.0, 1.0);
            let colours = picture.pixels.chunks_exact(4).flat_map(|pixel| &pixel[..3]);
            colours.enumerate().for_each(|(i, &colour)| assert!((f32::from(colour) - level(i)).abs() < 0.6, "{i}"));
        }
    }
}

#[test]
fn the_initial_picture_is_made_as_those_of_steps_and_leaves_them_as_they_are() {
    let pipeline = emoji64(Device::cpu());
    let [auto, linear, decoded] = [Preview::Auto, Preview::Linear, Preview::Decode]
        .map(|preview| initial(&pipeline, options(preview, Solver::Ddim)));
    assert_eq!(auto, linear);
    assert!(linear != decoded && psnr(&linear[0], &decoded[0]) > 14.0, "{}", psnr(&linear[0], &decoded[0]));
    assert_eq!(initial(&pipeline, options(Preview::None, Solver::Ddim)), []);

    // Asked for before the first step and in between, it is the same, and so are the steps.
    let mut sampler = block_on(pipeline.sampler(options(Preview::Decode, Solver::Ddim))).unwrap();
    let mut steps = Vec::new();
    loop {
        assert_eq!(block_on(sampler.initial_images()).unwrap(), decoded);
        match block_on(sampler.step()).unwrap() {
            Some(step) => steps.push(step),
            None => break,
        }
    }
    assert_eq!(steps, run(&pipeline, options(Preview::Decode, Solver::Ddim)));
}

#[test]
fn the_gpu_shows_the_linear_previews_of_the_cpu() {
    let [cpu, gpu] = [Device::cpu(), crate::common::gpu()]
        .map(|device| run(&emoji64(device), options(Preview::Linear, Solver::Ddim)));
    for (cpu, gpu) in cpu.iter().zip(&gpu) {
        for (cpu, gpu) in [(&cpu.images, &gpu.images), (&cpu.denoised, &gpu.denoised)] {
            let near = cpu[0].pixels.iter().zip(&gpu[0].pixels).all(|(&a, &b)| a.abs_diff(b) <= 2);
            assert!(near, "{:.1} dB", psnr(&gpu[0], &cpu[0]));
        }
    }
}

#[test]
fn the_last_picture_is_decoded_whatever_was_shown_before() {
    let pipeline = emoji64(Device::cpu());
    let runs = [Preview::Auto, Preview::Linear, Preview::Decode, Preview::None]
        .map(|preview| run(&pipeline, options(preview, Solver::Ddim)));
    for run in &runs {
        let (last, decoded) = (&run[STEPS - 1], &runs[2][STEPS - 1]);
        assert_eq!(last.images, decoded.images);
        // x̂_0 is x_0 but for what the solver leaves of the noise.
        assert!(psnr(&last.denoised[0], &decoded.denoised[0]) > 40.0);
    }
    assert!(runs[3][..STEPS - 1].iter().all(|step| step.images.is_empty() && step.denoised.is_empty()));
    let auto = runs[0].iter().zip(&runs[1]).all(|(auto, linear)| auto == linear);
    assert!(auto, "without a tiny autoencoder, previews are linear");
}

#[test]
fn a_model_without_latents_shows_its_samples() {
    let pipeline = load(reference("pipelines/models/ddpm_uncond"), Device::cpu());
    let options = SampleOptions { steps: 3, seed: 3, ..Default::default() };
    let mut sampler = block_on(pipeline.sampler(options)).unwrap();
    let assert_shows = |picture: &Rgba, latents: &[f32]| {
        let plane = latents.len() / 3;
        let level = |i: usize| (255.0 * (latents[i % 3 * plane + i / 3] * 0.5 + 0.5).clamp(0.0, 1.0)).round_ties_even();
        let colours = picture.pixels.chunks_exact(4).flat_map(|pixel| &pixel[..3]);
        colours.enumerate().for_each(|(i, &colour)| assert_eq!(colour, level(i) as u8, "{i}"));
    };
    assert_shows(&block_on(sampler.initial_images()).unwrap()[0], sampler.initial_latents());
    while let Some(step) = block_on(sampler.step()).unwrap() {
        assert_shows(&step.images[0], &block_on(sampler.latents()).unwrap());
    }
}

#[test]
fn a_tiny_autoencoder_paints_the_previews_when_it_fits() {
    let pipeline = load(reference("pipelines/models/sd"), Device::cpu());
    let options = |preview| SampleOptions { steps: 2, ..options(preview, Solver::Ddim) };
    let message = block_on(pipeline.sampler(options(Preview::Tiny))).map(drop).unwrap_err().to_string();
    assert_eq!(message, "`preview` is tiny: the pipeline was given no tiny autoencoder; `linear` needs none");

    let tiny = DirectorySource::new(reference("models/vae_taesd_like"));
    let mut loaded = (0, 0);
    block_on(pipeline.set_tiny_vae(&tiny, &mut |bytes, total| loaded = (bytes, total))).unwrap();
    assert!(loaded.0 == loaded.1 && loaded.0 > 0, "{loaded:?}");
    let mut sampler = block_on(pipeline.sampler(options(Preview::Auto))).unwrap();
    let step = block_on(sampler.step()).unwrap().unwrap();
    let latents = NamedTensor { shape: sampler.latents_shape().to_vec(), data: block_on(sampler.latents()).unwrap() };
    let network = block_on(Component::load(&tiny, Device::cpu(), None)).unwrap();
    let decoded = block_on(network.run(&BTreeMap::from([("decode/in".to_owned(), latents)]))).unwrap();
    let decoded = &decoded["decode/out"].data;
    let plane = decoded.len() / 3;
    let level = |i: usize| 255.0 * (decoded[i % 3 * plane + i / 3] * 0.5 + 0.5).clamp(0.0, 1.0);
    let colours = step.images[0].pixels.chunks_exact(4).flat_map(|pixel| &pixel[..3]);
    colours.enumerate().for_each(|(i, &colour)| assert!((f32::from(colour) - level(i)).abs() < 0.6, "{i}"));
}

#[test]
fn a_tiny_autoencoder_for_other_latents_is_refused() {
    let tiny = DirectorySource::new(reference("models/vae_taesd_like"));
    let refusal = |model: &str| {
        let pipeline = load(reference("pipelines/models").join(model), Device::cpu());
        block_on(pipeline.set_tiny_vae(&tiny, &mut |_, _| {})).unwrap_err().to_string()
    };
    assert_eq!(refusal("sd2_v"), "config.json: it enlarges latents 8 times, and the model's own autoencoder 4 times");
    assert_eq!(refusal("ddpm_uncond"), "config.json: this model has no latents: its samples are the pictures");
}

#[test]
fn a_linear_preview_costs_less_than_a_tenth_of_a_step() {
    for (device, what) in [(Device::cpu(), "CPU"), (crate::common::gpu(), "GPU")] {
        let pipeline = emoji64(device);
        // The fastest of many steps, in turns, and of more while the machine is busy with something else.
        let mut fastest = [Duration::MAX; 2];
        let is_cheap = |[none, linear]: [Duration; 2]| linear.as_secs_f64() < 1.1 * none.as_secs_f64();
        for round in 0..12 {
            if round > 2 && is_cheap(fastest) {
                break;
            }
            for (preview, fastest) in [Preview::None, Preview::Linear].into_iter().zip(&mut fastest) {
                let mut sampler = block_on(pipeline.sampler(options(preview, Solver::Ddim))).unwrap();
                // The last is decoded.
                for _ in 1..STEPS {
                    let start = Instant::now();
                    block_on(sampler.step()).unwrap();
                    // Without a preview nothing waits for the device.
                    block_on(sampler.latents()).unwrap();
                    *fastest = start.elapsed().min(*fastest);
                }
            }
        }
        let [none, linear] = fastest;
        println!("{what}: a step takes {none:?}, with linear previews {linear:?}");
        assert!(is_cheap(fastest), "{what}: {linear:?} beside {none:?}");
    }
}

#[test]
fn tiles_of_a_large_picture_show_no_seams() {
    const SIDE: usize = 160;
    let pipeline = emoji64(Device::cpu());
    let picture = |vae_tiling| {
        let options = options(Preview::None, Solver::Ddim);
        let options = SampleOptions { steps: 2, width: Some(SIDE), height: Some(SIDE), vae_tiling, ..options };
        run(&pipeline, options).pop().unwrap().images.pop().unwrap()
    };
    let (whole, tiled) = (picture(false), picture(true));
    let likeness = psnr(&tiled, &whole);
    assert!(whole != tiled && likeness > 30.0, "{likeness:.1} dB");
    // At a seam the difference of the two would change for the whole of a row or column at once.
    let difference = |row: usize, column: usize, colour: usize| {
        let at = (row * SIDE + column) * 4 + colour;
        f64::from(tiled.pixels[at]) - f64::from(whole.pixels[at])
    };
    let mut worst: f64 = 0.0;
    for line in 1..SIDE {
        let along = || (0..3 * SIDE).map(|i| (i / 3, i % 3));
        let rows: f64 = along().map(|(x, c)| difference(line, x, c) - difference(line - 1, x, c)).sum();
        let columns: f64 = along().map(|(y, c)| difference(y, line, c) - difference(y, line - 1, c)).sum();
        worst = worst.max(rows.abs().max(columns.abs()) / (3 * SIDE) as f64);
    }
    println!("in tiles: {likeness:.1} dB, the largest step across a line is {worst:.2} levels");
    assert!(worst < 1.0, "{worst:.2} levels");
}
