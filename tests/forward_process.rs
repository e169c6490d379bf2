//! The forward process of a picture, and runs that begin with it.

use std::path::Path;

use crate::common::reference;
use pollster::block_on;
use undiffuse::device::Device;
use undiffuse::diffusion::{NoiseSchedule, Noising, Solver};
use undiffuse::noise::Stream;
use undiffuse::pipeline::{
    Checkpoint, ForwardOptions, ForwardProcess, NoisyPicture, OpenOptions, Pipeline, Preview, Rgba, SampleOptions,
    Sampler, Scheduler, Space,
};
use undiffuse::weights::DirectorySource;

fn load(folder: impl AsRef<Path>, device: Device) -> Pipeline {
    block_on(Pipeline::load(&DirectorySource::new(folder.as_ref()), device, &mut |_| {})).unwrap()
}

fn model(name: &str) -> Pipeline {
    load(reference("pipelines/models").join(name), Device::cpu())
}

fn emoji64() -> Pipeline {
    emoji64_on(Device::cpu())
}

fn emoji64_on(device: Device) -> Pipeline {
    load(Path::new(env!("CARGO_MANIFEST_DIR")).join("www/models/emoji64"), device)
}

/// A picture with a corner, a slope and some detail.
fn picture(width: usize, height: usize) -> Rgba {
    let pixel = |i: usize| {
        let (x, y) = (i % width, i / width);
        [
            (x * 255 / width) as u8,
            (y * 255 / height) as u8,
            if x / 8 + y / 8 < 6 { 250 } else { (i * 37 % 64) as u8 },
            255,
        ]
    };
    Rgba { width, height, pixels: (0..width * height).flat_map(pixel).collect() }
}

fn sampler(pipeline: &Pipeline, options: SampleOptions) -> Sampler {
    block_on(pipeline.sampler(options)).unwrap()
}

/// x_t after every step.
fn trajectory(mut sampler: Sampler) -> Vec<Vec<f32>> {
    let mut all = vec![sampler.initial_latents().to_vec()];
    while block_on(sampler.step()).unwrap().is_some() {
        all.push(block_on(sampler.latents()).unwrap());
    }
    all
}

fn process(pipeline: &Pipeline, options: ForwardOptions) -> ForwardProcess {
    block_on(pipeline.forward_process(options)).unwrap()
}

fn variance(values: &[f32]) -> f64 {
    let count = values.len() as f64;
    let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / count;
    values.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / count
}

#[test]
fn a_run_from_the_timestep_where_a_strength_begins_is_the_run_of_that_strength() {
    let solvers = Solver::ALL.into_iter().filter(|&solver| solver != Solver::FlowEuler).map(Some);
    // With 28 steps, timesteps that are spread evenly over 0 to 999 are whole numbers.
    let sd = solvers.chain([None]).map(|solver| ("sd", solver, 28, 0.5));
    let others = [
        ("sd2_v", None, 28, 0.6),
        ("sdxl", None, 28, 0.4),
        ("lcm", None, 4, 0.5),
        ("lcm", Some(Solver::Ddim), 10, 0.5),
    ];
    let mut loaded: Option<(&str, Pipeline)> = None;
    for (name, solver, steps, strength) in sd.chain(others) {
        if loaded.as_ref().is_none_or(|(loaded, _)| *loaded != name) {
            loaded = Some((name, model(name)));
        }
        let (_, pipeline) = loaded.as_ref().unwrap();
        let options = SampleOptions {
            prompt: "a cat".into(),
            image: Some(picture(32, 40)),
            seed: 11,
            steps,
            scheduler: solver.map_or(Scheduler::Checkpoint, Scheduler::Solver),
            preview: Preview::None,
            ..SampleOptions::default()
        };
        let by_strength = sampler(pipeline, SampleOptions { strength: Some(strength), ..options.clone() });
        let first = by_strength.table().steps[0].timestep;
        assert_eq!(first.fract(), 0.0, "{name} {solver:?}: {first}");
        let by_timestep = sampler(pipeline, SampleOptions { start_timestep: Some(first as usize), ..options.clone() });
        assert_eq!(by_timestep.table().steps, by_strength.table().steps, "{name} {solver:?} from {first}");
        assert_eq!(by_timestep.initial_latents(), by_strength.initial_latents(), "{name} {solver:?} from {first}");
        if solver.is_none_or(|solver| solver == Solver::EulerAncestral) {
            assert_eq!(trajectory(by_timestep), trajectory(by_strength), "{name} {solver:?} from {first}");
        }
    }
}

#[test]
fn a_part_of_a_picture_is_drawn_anew_from_a_timestep_too() {
    for name in ["sd", "sd_inpaint9"] {
        let pipeline = model(name);
        let mut mask = picture(32, 32);
        mask.pixels
            .chunks_exact_mut(4)
            .enumerate()
            .for_each(|(i, pixel)| pixel[..3].fill(if i % 32 < 16 { 255 } else { 0 }));
        let options = SampleOptions {
            image: Some(picture(32, 32)),
            mask: Some(mask),
            height: Some(32),
            width: Some(32),
            seed: 4,
            steps: 10,
            scheduler: Scheduler::Solver(Solver::Ddim),
            preview: Preview::None,
            ..SampleOptions::default()
        };
        let by_strength = sampler(&pipeline, SampleOptions { strength: Some(0.5), ..options.clone() });
        let first = by_strength.table().steps[0].timestep as usize;
        let by_timestep = sampler(&pipeline, SampleOptions { start_timestep: Some(first), ..options });
        assert_eq!(trajectory(by_timestep), trajectory(by_strength), "{name} from {first}");
    }
}

#[test]
fn x_t_is_where_a_run_from_that_timestep_begins() {
    for (pipeline, solvers) in [
        (emoji64(), &Solver::ALL[..14]),
        (model("sd2_v"), &[Solver::Ddim, Solver::Heun, Solver::UniPc]),
        (model("ddpm_uncond"), &[Solver::Ddpm, Solver::Euler]),
    ] {
        for &solver in solvers {
            let scheduler = Scheduler::Solver(solver);
            let image = picture(64, 48);
            let options =
                ForwardOptions { seed: 5, scheduler: scheduler.clone(), ..ForwardOptions::new(image.clone()) };
            let mut process = process(&pipeline, options);
            assert_eq!(process.num_train_timesteps(), 1000);
            for timestep in [3, 457, 999] {
                let x_t = block_on(process.at(Some(timestep))).unwrap();
                let options = SampleOptions {
                    image: Some(image.clone()),
                    seed: 5,
                    steps: 6,
                    start_timestep: Some(timestep),
                    scheduler: scheduler.clone(),
                    preview: Preview::None,
                    ..SampleOptions::default()
                };
                let sampler = sampler(&pipeline, options);
                assert_eq!(sampler.latents_shape(), process.shape(), "{solver}");
                assert!(x_t.sample == sampler.initial_latents(), "{solver}, t = {timestep}");
                assert_eq!(sampler.table().steps[0].timestep, timestep as f64, "{solver}");
            }
        }
    }
}

#[test]
fn pixels_are_the_picture_at_first_and_noise_of_unit_variance_at_last() {
    let pipeline = emoji64();
    let image = picture(61, 50);
    let options = ForwardOptions { space: Space::Pixels, seed: 2, ..ForwardOptions::new(image.clone()) };
    let mut process = process(&pipeline, options);
    assert_eq!(process.shape(), [1, 3, 50, 61], "pixels need not be a multiple of anything");
    assert_eq!(block_on(process.at(None)).unwrap().image, image);
    let first = block_on(process.at(Some(0))).unwrap();
    let far = first.image.pixels.iter().zip(&image.pixels).map(|(a, b)| a.abs_diff(*b)).max();
    assert!(far > Some(0) && far < Some(30), "{far:?}");
    let last = block_on(process.at(Some(999))).unwrap();
    // The standard error of a variance is √(2/n), of n values.
    let error = (2.0 / last.sample.len() as f64).sqrt();
    assert!((variance(&last.sample) - 1.0).abs() < 4.0 * error, "{} ± {error}", variance(&last.sample));
    // What a model that works on latents is not told of.
    let noisy = NoisyPicture::new(&image, 2, Stream::TorchCpu).unwrap();
    let schedule = pipeline.scheduler().noise_schedule().unwrap();
    for timestep in [0, 250, 999] {
        let expected = noisy.at(schedule.marginal(timestep));
        assert_eq!(block_on(process.at(Some(timestep))).unwrap(), expected);
    }
    assert_eq!(noisy.at(None).image, image);
    // A solver in σ-space shows the same pictures.
    let scheduler = Scheduler::Solver(Solver::Euler);
    let options = ForwardOptions { space: Space::Pixels, seed: 2, scheduler, ..ForwardOptions::new(image) };
    let mut euler = self::process(&pipeline, options);
    let (euler, ddim) = (block_on(euler.at(Some(600))).unwrap(), block_on(process.at(Some(600))).unwrap());
    let far = euler.sample.iter().zip(&ddim.sample).fold(0f32, |most, (a, b)| most.max((a - b).abs()));
    assert!(far < 1e-5, "{far}");
}

#[test]
fn latents_are_shown_through_the_painter_of_a_run() {
    let pipeline = emoji64();
    for (solver, preview) in [(Solver::Ddim, Preview::Linear), (Solver::Euler, Preview::Decode)] {
        let scheduler = Scheduler::Solver(solver);
        let mut process = process(
            &pipeline,
            ForwardOptions { seed: 9, scheduler: scheduler.clone(), preview, ..ForwardOptions::new(picture(64, 64)) },
        );
        let x0 = block_on(process.at(None)).unwrap();
        assert_eq!((x0.image.width, x0.image.height), (64, 64));
        // One step of a run leads from 501 to 500 at most, which looks as x_t does there.
        let before = block_on(process.at(Some(400))).unwrap();
        let options = SampleOptions {
            image: Some(picture(64, 64)),
            seed: 9,
            guidance_scale: 1.0,
            start_timestep: Some(401),
            timesteps: None,
            steps: 100,
            scheduler,
            preview,
            ..SampleOptions::default()
        };
        let mut sampler = sampler(&pipeline, options);
        let step = block_on(sampler.step()).unwrap().unwrap();
        let next = sampler.table().steps[1].timestep;
        assert!((380.0..401.0).contains(&next), "{next}");
        let pairs = step.images[0].pixels.iter().zip(&before.image.pixels);
        let off = pairs.map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>() / before.image.pixels.len() as f64;
        assert!(off < 8.0, "{solver}: {off} levels on average");
    }
}

#[test]
fn one_call_of_the_network_says_what_the_first_step_of_a_run_shows() {
    for (pipeline, solver, guidance_scale) in [
        (emoji64(), Solver::Ddim, 4.5),
        (emoji64(), Solver::Euler, 1.0),
        (model("sd2_v"), Solver::Ddim, 3.0),
        (model("sd2_v"), Solver::Euler, 1.0),
        (model("ddpm_uncond"), Solver::Ddim, 1.0),
    ] {
        let takes_prompt = pipeline.info().takes_prompt;
        let prompt = if takes_prompt { "fox, noto style" } else { "" };
        let (image, scheduler) = (picture(32, 32), Scheduler::Solver(solver));
        let options = ForwardOptions {
            seed: 3,
            prompt: prompt.into(),
            guidance_scale,
            scheduler: scheduler.clone(),
            preview: Preview::Decode,
            ..ForwardOptions::new(image.clone())
        };
        let mut process = process(&pipeline, options);
        for timestep in [40, 700] {
            let predicted = block_on(process.predict(timestep)).unwrap();
            let options = SampleOptions {
                prompt: prompt.into(),
                image: Some(image.clone()),
                seed: 3,
                guidance_scale,
                steps: 10,
                start_timestep: Some(timestep),
                scheduler: scheduler.clone(),
                preview: Preview::Decode,
                ..SampleOptions::default()
            };
            let step = block_on(sampler(&pipeline, options).step()).unwrap().unwrap();
            assert_eq!(step.timestep, timestep as f64);
            let pairs = step.denoised[0].pixels.iter().zip(&predicted.x0_image.pixels);
            let far = pairs.filter(|(a, b)| a.abs_diff(**b) > 1).count();
            assert!(far * 200 <= predicted.x0_image.pixels.len(), "{solver}, t = {timestep}: {far} values");

            // x_t is made of ε̂ and x̂_0 as it is of ε and x_0.
            let at = process.scheduler().noising_at(timestep).unwrap();
            let x_t = block_on(process.at(Some(timestep))).unwrap().sample;
            let again = at.forward.add_noise(&predicted.x0, &predicted.epsilon);
            let largest = x_t.iter().chain(&predicted.x0).fold(1f32, |most, x| most.max(x.abs()));
            let off = again.iter().zip(&x_t).fold(0f32, |most, (a, b)| most.max((a - b).abs()));
            assert!(off < 1e-5 * largest, "{solver}, t = {timestep}: {off} of {largest}");
            let squares = predicted.epsilon.iter().zip(process.noise()).map(|(a, b)| f64::from(a - b).powi(2));
            let mean = squares.sum::<f64>() / predicted.epsilon.len() as f64;
            assert!((predicted.mean_squared_error - mean).abs() < 1e-6 * mean, "{mean}");
        }
    }
}

#[test]
fn the_gpu_shows_and_predicts_what_the_cpu_does() {
    let options =
        || ForwardOptions { seed: 6, prompt: "fox, noto style".into(), ..ForwardOptions::new(picture(64, 64)) };
    let (cpu, gpu) = (emoji64(), emoji64_on(crate::common::gpu()));
    let (mut on_cpu, mut on_gpu) = (process(&cpu, options()), process(&gpu, options()));
    let near = |a: &Rgba, b: &Rgba| {
        let far = a.pixels.iter().zip(&b.pixels).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(far <= Some(2), "{far:?} levels");
    };
    for timestep in [None, Some(0), Some(500)] {
        let (a, b) = (block_on(on_cpu.at(timestep)).unwrap(), block_on(on_gpu.at(timestep)).unwrap());
        near(&a.image, &b.image);
    }
    let (a, b) = (block_on(on_cpu.predict(500)).unwrap(), block_on(on_gpu.predict(500)).unwrap());
    near(&a.x0_image, &b.x0_image);
    assert!((a.mean_squared_error - b.mean_squared_error).abs() < 1e-3 * a.mean_squared_error);
    let from = SampleOptions {
        image: Some(picture(64, 64)),
        seed: 6,
        start_timestep: Some(500),
        preview: Preview::None,
        ..SampleOptions::default()
    };
    assert!(block_on(on_gpu.at(Some(500))).unwrap().sample == sampler(&gpu, from).initial_latents());
}

#[test]
fn a_trained_network_finds_most_of_the_noise() {
    let pipeline = emoji64();
    let image = block_on(async {
        let options =
            SampleOptions { prompt: "fox, noto style".into(), seed: 7, steps: 10, ..SampleOptions::default() };
        let mut sampler = pipeline.sampler(options).await.unwrap();
        let mut last = None;
        while let Some(step) = sampler.step().await.unwrap() {
            last = step.images.into_iter().next();
        }
        last.unwrap()
    });
    let options = ForwardOptions { prompt: "fox, noto style".into(), ..ForwardOptions::new(image) };
    let mut process = process(&pipeline, options);
    let errors = [100, 300, 600, 900].map(|t| block_on(process.predict(t)).unwrap().mean_squared_error);
    println!("mean squared errors: {errors:?}");
    assert!(errors.iter().all(|&error| error < 0.6), "{errors:?}: saying 0 would be 1");
    assert!(errors.windows(2).all(|pair| pair[0] > pair[1]), "{errors:?}: the more noise there is, the easier it is");
}

#[test]
fn a_model_of_pixels_denoises_a_picture_from_any_timestep() {
    let pipeline = model("ddpm_uncond");
    let side = pipeline.info().height;
    let image = picture(100, 80);
    let options = |start_timestep| SampleOptions {
        image: Some(image.clone()),
        seed: 1,
        steps: 20,
        start_timestep: Some(start_timestep),
        ..SampleOptions::default()
    };
    let x0 = {
        let mut process = process(&pipeline, ForwardOptions { seed: 1, ..ForwardOptions::new(image.clone()) });
        assert_eq!(process.shape(), [1, 3, side, side], "a picture is brought to the size of the model");
        block_on(process.at(None)).unwrap()
    };
    let mut sampler = sampler(&pipeline, options(0));
    assert_eq!(sampler.total(), 1);
    let step = block_on(sampler.step()).unwrap().unwrap();
    let far = step.images[0].pixels.iter().zip(&x0.image.pixels).map(|(a, b)| a.abs_diff(*b)).max();
    assert!(far < Some(30), "from the first timestep there is little to do: {far:?}");
    assert_eq!(trajectory(self::sampler(&pipeline, options(500))).len(), 1 + 11);
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let open = |name: &str| {
        let source = DirectorySource::new(reference("pipelines/models").join(name));
        block_on(Checkpoint::open(&source, &OpenOptions::default())).unwrap()
    };
    let options = || SampleOptions { start_timestep: Some(500), steps: 10, ..SampleOptions::default() };
    let refusal = |name: &str, options: SampleOptions| open(name).check(&options).unwrap_err().to_string();
    assert_eq!(
        refusal("sd", options()),
        "`start_timestep` is 500: it says how noisy a picture is to begin with: give `image` too"
    );
    let image = Some(picture(32, 32));
    assert_eq!(
        refusal("sd", SampleOptions { image: image.clone(), strength: Some(0.5), ..options() }),
        "`start_timestep` is 500: `strength` says where to begin as well: give one of the two"
    );
    assert_eq!(
        refusal("sd", SampleOptions { image: image.clone(), start_timestep: Some(1000), ..options() }),
        "`start_timestep` is 1000: the timesteps of this schedule are 0 to 999"
    );
    assert!(open("sd").info().takes_start_timestep && open("ddpm_uncond").info().takes_start_timestep);
    open("ddpm_uncond").check(&SampleOptions { image: image.clone(), ..options() }).unwrap();

    let pipeline = model("sd");
    let mut pixels = process(&pipeline, ForwardOptions { space: Space::Pixels, ..ForwardOptions::new(picture(8, 8)) });
    let error = block_on(pixels.predict(500)).unwrap_err().to_string();
    assert_eq!(error, "`space` is pixels: this model's network sees latents; a prediction needs that space");
    let error = block_on(pixels.at(Some(1000))).unwrap_err().to_string();
    assert_eq!(error, "`timestep` is 1000: the timesteps of this schedule are 0 to 999");
    let error = block_on(pipeline.forward_process(ForwardOptions::new(picture(7, 64)))).map(drop).unwrap_err();
    assert_eq!(error.to_string(), "`image` is 7×64: expected sides from 8 to 8192");
    let unconditional = model("ddpm_uncond");
    let options = ForwardOptions { prompt: "a cat".into(), ..ForwardOptions::new(picture(8, 8)) };
    let error = block_on(unconditional.forward_process(options)).map(drop).unwrap_err().to_string();
    assert_eq!(error, "`prompt` is given: a DDPMPipeline takes no prompt");
}

#[test]
fn zero_terminal_snr_leaves_noise_alone() {
    let schedule = NoiseSchedule::linear(1e-4, 0.02, 1000).with_zero_terminal_snr();
    let noisy = NoisyPicture::new(&picture(16, 16), 3, Stream::TorchCpu).unwrap();
    assert_eq!(schedule.marginal(999), Some(Noising { signal: 0.0, noise: 1.0 }));
    let last = noisy.at(schedule.marginal(999)).sample;
    assert_eq!(
        last,
        NoisyPicture::new(&picture(16, 16), 3, Stream::TorchCpu).unwrap().at(Some(Noising::of_flow_sigma(1.0))).sample
    );
}
