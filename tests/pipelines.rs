//! Whole pipelines against diffusers, on tiny models: every setting that is implemented.
#![cfg(not(target_arch = "wasm32"))]

mod common;

use std::collections::BTreeMap;
use std::path::Path;

use common::{Tally, Tensor, folders, max_abs, name_of, read_json, read_tensors, read_text, reference, worst_beyond};
use pollster::block_on;
use serde_json::Value;
use undiffuse::device::Device;
use undiffuse::diffusion::SchedulerConfig;
use undiffuse::pipeline::{Pipeline, Preview, SampleOptions, Scheduler};
use undiffuse::weights::DirectorySource;

/// The options of a recorded call, or why it is not run.
fn options(run: &Value, folder: &Path) -> Result<SampleOptions, String> {
    let class = run["pipeline_class"].as_str().expect("a class");
    if !["StableDiffusionPipeline", "DDPMPipeline", "DDIMPipeline"].contains(&class) {
        return Err(format!("{class} is not implemented"));
    }
    if !run["generator"].is_string() {
        return Err("several generators are not implemented".into());
    }
    let scheduler = match SchedulerConfig::from_json(&read_text(&folder.join("scheduler_config.json"))) {
        Ok(scheduler) => scheduler,
        Err(error @ undiffuse::diffusion::Error::UnsupportedValue { .. }) => return Err(error.to_string()),
        Err(error) => panic!("{}: {error}", folder.display()),
    };
    if scheduler.solver().is_none() {
        return Err(format!("{} is not implemented", scheduler.class_name()));
    }
    let mut options = SampleOptions {
        seed: run["seed"].as_u64().expect("a seed"),
        scheduler: Scheduler::Config(Box::new(scheduler)),
        preview: Preview::None,
        ..SampleOptions::default()
    };
    for (key, value) in run["call_arguments"].as_object().expect("arguments") {
        let size = || value.as_u64().map(|n| n as usize);
        match key.as_str() {
            _ if value.is_null() => {}
            "prompt" if value.is_string() => options.prompt = value.as_str().unwrap_or_default().to_owned(),
            "negative_prompt" if value.is_string() => {
                options.negative_prompt = value.as_str().unwrap_or_default().to_owned();
            }
            "num_inference_steps" => options.steps = size().expect("steps"),
            "guidance_scale" => options.guidance_scale = value.as_f64().expect("a number"),
            "eta" => options.eta = value.as_f64().expect("a number"),
            "height" => options.height = size(),
            "width" => options.width = size(),
            "batch_size" | "num_images_per_prompt" if value == 1 => {}
            "prompt" | "negative_prompt" | "batch_size" | "num_images_per_prompt" => {
                return Err("several images at once are not implemented".into());
            }
            _ => return Err(format!("`{key}` is not implemented")),
        }
    }
    Ok(options)
}

fn check(pipeline: &Pipeline, options: SampleOptions, expected: &BTreeMap<String, Tensor>) -> Result<f64, String> {
    if let Some(ids) = expected.get("tokenizer_ids") {
        let actual: Vec<f32> =
            pipeline.tokenize(&options.prompt).map_err(|e| e.to_string())?.iter().map(|&id| id as f32).collect();
        worst_beyond(&actual, ids, 0.0).map_err(|e| format!("token ids: {e}"))?;
    }
    let mut sampler = block_on(pipeline.sampler(options)).map_err(|e| e.to_string())?;
    if let Some(initial) = expected.get("initial_latents") {
        worst_beyond(sampler.initial_latents(), initial, 5e-6 * max_abs(initial))
            .map_err(|e| format!("initial latents: {e}"))?;
    }
    let mut index = 0;
    while let Some(step) = block_on(sampler.step()).map_err(|e| e.to_string())? {
        let timestep = expected["timesteps"].data.get(index).copied();
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
    let mut pipelines: BTreeMap<String, Pipeline> = BTreeMap::new();
    let mut tally = Tally::default();
    for folder in folders(&reference("pipelines").join("runs")) {
        let name = name_of(&folder);
        let run = read_json(&folder.join("run.json"));
        let options = match options(&run, &folder) {
            Ok(options) => options,
            Err(reason) => {
                tally.skip(name, reason);
                continue;
            }
        };
        let model = run["model"].as_str().expect("a model");
        let source = reference("pipelines").join("models").join(model);
        if !source.is_dir() {
            tally.skip(name, "changed weights (LoRA, variants) are not implemented");
            continue;
        }
        if !pipelines.contains_key(model) {
            match block_on(Pipeline::load(&DirectorySource::new(source), device.clone(), &mut |_| {})) {
                Ok(pipeline) => pipelines.insert(model.to_owned(), pipeline),
                Err(error) => {
                    tally.fail(format!("{name}: {error}"));
                    continue;
                }
            };
        }
        let expected = read_tensors(&folder.join("tensors.safetensors"));
        tally.check(&name, check(&pipelines[model], options, &expected));
    }
    tally.finish(what);
}

#[test]
fn every_pipeline_run_of_the_reference_is_reproduced_on_the_cpu() {
    walk(&Device::Cpu, "pipelines on the CPU");
}

#[test]
fn every_pipeline_run_of_the_reference_is_reproduced_on_the_gpu() {
    walk(&common::gpu(), "pipelines on the GPU");
}
