//! Whole pipelines against diffusers, on tiny models: every setting that is implemented.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use crate::common::{
    Tally, Tensor, folders, max_abs, name_of, read_json, read_tensors, read_text, reference, worst_beyond,
};
use pollster::block_on;
use serde_json::Value;
use undiffuse::device::Device;
use undiffuse::diffusion::SchedulerConfig;
use undiffuse::pipeline::{
    Checkpoint, Error, LoraFile, OpenOptions, Pipeline, Preview, Rgba, SampleOptions, Scheduler, Text, scheduler_of,
};
use undiffuse::weights::DirectorySource;

/// An 8-bit PNG.
fn read_png(path: &Path) -> Rgba {
    let mut decoder = png::Decoder::new(BufReader::new(File::open(path).expect("a PNG")));
    decoder.set_transformations(png::Transformations::normalize_to_color8());
    let mut reader = decoder.read_info().expect("a PNG");
    let mut data = vec![0; reader.output_buffer_size().expect("a size")];
    let info = reader.next_frame(&mut data).expect("a picture");
    let pixels = data.chunks_exact(info.color_type.samples()).flat_map(|pixel| match *pixel {
        [grey] | [grey, _] => [grey, grey, grey, 255],
        [r, g, b] | [r, g, b, _] => [r, g, b, 255],
        _ => panic!("{}: pixels of {} values", path.display(), pixel.len()),
    });
    Rgba { width: info.width as usize, height: info.height as usize, pixels: pixels.collect() }
}

/// A text or a list of texts.
fn text(value: &Value) -> Text {
    match value.as_array() {
        Some(texts) => texts.iter().map(|text| text.as_str().expect("a text").to_owned()).collect::<Vec<_>>().into(),
        None => value.as_str().expect("a text").into(),
    }
}

/// The seed in `manual_seed(7042)`.
fn seed(generator: &Value) -> u64 {
    let digits = generator.as_str().and_then(|text| text.strip_prefix("manual_seed(")?.strip_suffix(')'));
    digits.and_then(|digits| digits.parse().ok()).expect("manual_seed(…)")
}

/// The options of a recorded call, or what of it is not known.
fn options(run: &Value, folder: &Path) -> Result<SampleOptions, String> {
    let scheduler =
        SchedulerConfig::from_json(&read_text(&folder.join("scheduler_config.json"))).map_err(|e| e.to_string())?;
    // One that its pipeline has changed is to be changed here as well.
    let scheduler = match run.get("scheduler_config_on_disk") {
        Some(stored) => {
            let stored = SchedulerConfig::from_json(&stored.to_string()).expect("a scheduler");
            let class = run["pipeline_class"].as_str().expect("a class");
            scheduler_of(class, class.contains("Inpaint"), stored).map_err(|e| e.to_string())?
        }
        None => scheduler,
    };
    // The defaults of diffusers' calls, where they are not this library's.
    let class = run["pipeline_class"].as_str().expect("a class");
    let (steps, guidance_scale) = match class {
        "StableDiffusionXLPipeline" => (50, 5.0),
        "LatentConsistencyModelPipeline" => (4, 8.5),
        "StableDiffusionUpscalePipeline" => (75, 9.0),
        "DDPMPipeline" => (1000, 0.0),
        _ => (50, 7.5),
    };
    let mut options = SampleOptions {
        seed: run["seed"].as_u64().expect("a seed"),
        scheduler: Scheduler::Config(Box::new(scheduler)),
        steps,
        guidance_scale,
        preview: Preview::None,
        ..SampleOptions::default()
    };
    if let Some(generators) = run["generator"].as_array() {
        options.seeds = generators.iter().map(seed).collect();
    }
    let picture = |name: &str| Some(folder.join(name)).filter(|path| path.is_file()).map(|path| read_png(&path));
    (options.image, options.mask) = (picture("init_image.png"), picture("mask.png"));
    for (key, value) in run["call_arguments"].as_object().expect("arguments") {
        let whole = || value.as_u64().expect("a whole number") as usize;
        let number = || value.as_f64().expect("a number");
        let pair = || [&value[0], &value[1]].map(|side| side.as_u64().expect("a side") as usize);
        let numbers = || value.as_array().expect("a list").iter().map(|v| v.as_f64().expect("a number")).collect();
        match key.as_str() {
            _ if value.is_null() => {}
            "prompt" => options.prompt = text(value),
            "prompt_2" => options.prompt_2 = Some(text(value)),
            "negative_prompt" => options.negative_prompt = Some(text(value)),
            "negative_prompt_2" => options.negative_prompt_2 = Some(text(value)),
            "num_inference_steps" => options.steps = whole(),
            "original_inference_steps" => options.original_inference_steps = Some(whole()),
            "guidance_scale" => options.guidance_scale = number(),
            "guidance_rescale" => options.guidance_rescale = number(),
            "eta" => options.eta = number(),
            "use_clipped_model_output" => options.use_clipped_model_output = value.as_bool().expect("true or false"),
            "timesteps" => options.timesteps = Some(numbers()),
            "sigmas" => options.sigmas = Some(numbers()),
            "strength" => options.strength = Some(number()),
            "noise_level" => options.noise_level = Some(whole()),
            "clip_skip" => options.clip_skip = Some(whole()),
            "height" => options.height = Some(whole()),
            "width" => options.width = Some(whole()),
            "batch_size" | "num_images_per_prompt" => options.num_images_per_prompt = whole(),
            "original_size" => options.original_size = Some(pair()),
            "target_size" => options.target_size = Some(pair()),
            "crops_coords_top_left" => options.crops_coords_top_left = pair(),
            "negative_original_size" => options.negative_original_size = Some(pair()),
            "negative_target_size" => options.negative_target_size = Some(pair()),
            "negative_crops_coords_top_left" => options.negative_crops_coords_top_left = pair(),
            _ => return Err(format!("`{key}` is not known")),
        }
    }
    Ok(options)
}

/// A model of a run: its folder, which of its files, and what is merged into it.
struct Model {
    folder: String,
    variant: Option<String>,
    lora: Option<(String, f64)>,
}

impl Model {
    fn of(run: &Value) -> Self {
        let name = run["model"].as_str().expect("a model");
        if let Some((folder, lora)) = name.split_once(" + lora/") {
            // The weight is in the note's own words.
            let note = run["note"].as_str().and_then(|note| note.split_once("with scale "));
            let weight = note.and_then(|(_, rest)| rest.split(' ').next()?.parse().ok()).expect("the LoRA's weight");
            return Self { folder: folder.to_owned(), variant: None, lora: Some((lora.to_owned(), weight)) };
        }
        let (folder, variant) = match name.split_once(" (variant ") {
            Some((folder, rest)) => (folder, rest.split(' ').next().map(str::to_owned)),
            None => (name, None),
        };
        Self { folder: folder.to_owned(), variant, lora: None }
    }

    async fn load(&self, device: &Device) -> Result<Pipeline, Error> {
        let source = DirectorySource::new(reference("pipelines").join("models").join(&self.folder));
        let options = OpenOptions { variant: self.variant.clone(), ..OpenOptions::default() };
        Checkpoint::open(&source, &options).await?.load(device.clone(), &mut |_| {}).await
    }

    /// Merges the LoRA into a pipeline of this model, or takes back what another run has merged.
    async fn merge(&self, pipeline: &Pipeline) -> Result<(), Error> {
        let Some((lora, weight)) = &self.lora else { return pipeline.set_loras(&[]).await };
        let lora = LoraFile::open(&DirectorySource::new(reference("pipelines").join("lora")), lora).await?;
        pipeline.set_loras(&[(&lora, *weight)]).await
    }
}

/// Whether the pictures of the last step are the recorded PNGs: at most one level off on 99.5 % of the values.
fn check_pictures(pictures: &[Rgba], folder: &Path) -> Result<(), String> {
    for (index, picture) in pictures.iter().enumerate() {
        let recorded = read_png(&folder.join(format!("image_{index}.png")));
        if (picture.width, picture.height) != (recorded.width, recorded.height) {
            return Err(format!("picture {index} is {}×{}", picture.width, picture.height));
        }
        let pairs = picture.pixels.iter().zip(&recorded.pixels).enumerate();
        let colours = pairs.filter(|(at, _)| at % 4 < 3);
        let far = colours.filter(|(_, (a, b))| a.abs_diff(**b) > 1).count();
        if 200 * far > 3 * picture.width * picture.height {
            return Err(format!("{far} values of picture {index} are more than a level off"));
        }
    }
    match folder.join(format!("image_{}.png", pictures.len())).exists() || pictures.is_empty() {
        true => Err(format!("{} pictures, and others are recorded", pictures.len())),
        false => Ok(()),
    }
}

fn check(
    pipeline: &Pipeline,
    options: SampleOptions,
    expected: &BTreeMap<String, Tensor>,
    folder: &Path,
) -> Result<f64, String> {
    if let Some(ids) = expected.get("tokenizer_ids") {
        let actual: Vec<f32> = options
            .prompt
            .all()
            .iter()
            .flat_map(|text| pipeline.tokenize(text).expect("room for a text"))
            .map(|id| id as f32)
            .collect();
        worst_beyond(&actual, ids, 0.0).map_err(|e| format!("token ids: {e}"))?;
    }
    // Pure noise is as close as the stream; what began as a picture has been through the autoencoder.
    let initial_tolerance = if options.image.is_some() { 1e-3 } else { 5e-6 };
    let mut sampler = block_on(pipeline.sampler(options)).map_err(|e| e.to_string())?;
    if let Some(initial) = expected.get("initial_latents") {
        worst_beyond(sampler.initial_latents(), initial, initial_tolerance * max_abs(initial))
            .map_err(|e| format!("initial latents: {e}"))?;
    }
    let mut index = 0;
    let mut pictures = Vec::new();
    while let Some(step) = block_on(sampler.step()).map_err(|e| e.to_string())? {
        let timestep = expected["unet_timesteps"].data.get(index).copied();
        if timestep != Some(step.timestep as f32) {
            return Err(format!("timestep {index} is {}, expected {timestep:?}", step.timestep));
        }
        if let Some(latents) = expected.get("latents_after_step") {
            let length: usize = latents.shape[1..].iter().product();
            let data = latents.data[index * length..][..length].to_vec();
            let wanted = Tensor { shape: latents.shape[1..].to_vec(), data };
            let actual = block_on(sampler.latents()).map_err(|e| e.to_string())?;
            worst_beyond(&actual, &wanted, 1e-3 * max_abs(&wanted)).map_err(|e| format!("after step {index}: {e}"))?;
        }
        index += 1;
        pictures = step.images;
    }
    check_pictures(&pictures, folder)?;
    if index != expected["unet_timesteps"].data.len() {
        return Err(format!("{index} calls of the network, expected {}", expected["unet_timesteps"].data.len()));
    }
    let image = block_on(sampler.image()).map_err(|e| e.to_string())?;
    let wanted = match (expected.get("vae_decode_out"), expected.get("images")) {
        (Some(decoded), _) => {
            let data = decoded.data.iter().map(|v| (v / 2.0 + 0.5).clamp(0.0, 1.0)).collect();
            Tensor { shape: decoded.shape.clone(), data }
        }
        (None, Some(images)) => images.clone(),
        (None, None) => return Err("no picture is recorded".into()),
    };
    worst_beyond(&image, &wanted, 2e-3).map_err(|e| format!("image: {e}"))
}

fn walk(device: &Device, what: &str) {
    let mut pipelines: BTreeMap<(String, Option<String>), Pipeline> = BTreeMap::new();
    let mut tally = Tally::default();
    for folder in folders(&reference("pipelines").join("runs")) {
        let name = name_of(&folder);
        let run = read_json(&folder.join("run.json"));
        let options = match options(&run, &folder) {
            Ok(options) => options,
            Err(reason) => {
                tally.fail(format!("{name}: {reason}"));
                continue;
            }
        };
        let model = Model::of(&run);
        let key = (model.folder.clone(), model.variant.clone());
        if !pipelines.contains_key(&key) {
            match block_on(model.load(device)) {
                Ok(pipeline) => pipelines.insert(key.clone(), pipeline),
                Err(error) => {
                    tally.fail(format!("{name}: {error}"));
                    continue;
                }
            };
        }
        if let Err(error) = block_on(model.merge(&pipelines[&key])) {
            tally.fail(format!("{name}: {error}"));
            continue;
        }
        let expected = read_tensors(&folder.join("tensors.safetensors"));
        tally.check(&name, check(&pipelines[&key], options, &expected, &folder));
    }
    tally.finish(what);
}

#[test]
fn every_pipeline_run_of_the_reference_is_reproduced_on_the_cpu() {
    walk(&Device::cpu(), "pipelines on the CPU");
}

#[test]
fn every_pipeline_run_of_the_reference_is_reproduced_on_the_gpu() {
    walk(&crate::common::gpu(), "pipelines on the GPU");
}
