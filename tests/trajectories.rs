//! The shipped model, whole runs: the same tokens, x_t after every step, and picture as diffusers.

use std::path::{Path, PathBuf};

use crate::common::{Tally, Tensor, max_abs, read_tensors, read_text, worst_beyond};
use pollster::block_on;
use serde_json::Value;
use undiffuse::device::Device;
use undiffuse::diffusion::SchedulerConfig;
use undiffuse::pipeline::{Pipeline, Preview, SampleOptions, Scheduler};
use undiffuse::weights::DirectorySource;

fn trajectories() -> PathBuf {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/trajectories");
    std::env::var_os("UNDIFFUSE_TRAJECTORIES").map_or(default, PathBuf::from)
}

fn ids(run: &Value, key: &str) -> Vec<u32> {
    let ids = run[key].as_array().expect("token ids");
    ids.iter().map(|id| id.as_u64().expect("a token id") as u32).collect()
}

fn check(pipeline: &Pipeline, run: &Value) -> Result<f64, String> {
    let id = run["id"].as_str().expect("an id");
    let text = |key: &str| run[key].as_str().unwrap_or_default().to_owned();
    let expected = read_tensors(&trajectories().join(format!("{id}.safetensors")));
    let mut scheduler = run["scheduler_config"].clone();
    scheduler["_class_name"] = run["scheduler_class"].clone();
    let scheduler = SchedulerConfig::from_json(&scheduler.to_string()).map_err(|e| e.to_string())?;
    let (prompt, negative_prompt) = (text("prompt"), text("negative_prompt"));
    for (text, key) in [(&prompt, "token_ids"), (&negative_prompt, "negative_token_ids")] {
        let actual = pipeline.tokenize(text).map_err(|e| e.to_string())?;
        if actual != ids(run, key) {
            return Err(format!("{key} are {actual:?}, expected {:?}", ids(run, key)));
        }
    }
    let options = SampleOptions {
        prompt: prompt.into(),
        negative_prompt: Some(negative_prompt.into()),
        seed: run["seed"].as_u64().expect("a seed"),
        steps: run["steps"].as_u64().expect("steps") as usize,
        guidance_scale: run["guidance_scale"].as_f64().expect("a guidance scale"),
        scheduler: Scheduler::Config(Box::new(scheduler)),
        eta: run["eta"].as_f64().unwrap_or(0.0),
        preview: Preview::None,
        ..SampleOptions::default()
    };
    let mut sampler = block_on(pipeline.sampler(options)).map_err(|e| e.to_string())?;
    worst_beyond(sampler.initial_latents(), &expected["initial_latents"], 5e-6 * max_abs(&expected["initial_latents"]))
        .map_err(|e| format!("initial latents: {e}"))?;
    let latents = &expected["latents"];
    let length: usize = latents.shape[1..].iter().product();
    let mut index = 0;
    while let Some(step) = block_on(sampler.step()).map_err(|e| e.to_string())? {
        let timestep = expected["timesteps"].data[index];
        if step.timestep as f32 != timestep {
            return Err(format!("timestep {index} is {}, expected {timestep}", step.timestep));
        }
        let wanted =
            Tensor { shape: latents.shape[1..].to_vec(), data: latents.data[index * length..][..length].to_vec() };
        let actual = block_on(sampler.latents()).map_err(|e| e.to_string())?;
        worst_beyond(&actual, &wanted, 1e-3 * max_abs(&wanted)).map_err(|e| format!("after step {index}: {e}"))?;
        index += 1;
    }
    if index != latents.shape[0] {
        return Err(format!("{index} steps, expected {}", latents.shape[0]));
    }
    let image = block_on(sampler.image()).map_err(|e| e.to_string())?;
    let wanted = &expected["image"];
    let [height, width, channels] = wanted.shape[..] else { return Err("a picture of three axes".into()) };
    let pixel = |i: usize| image[i % channels * height * width + i / channels];
    let interleaved: Vec<f32> = (0..image.len()).map(pixel).collect();
    worst_beyond(&interleaved, wanted, 2e-3).map_err(|e| format!("image: {e}"))
}

fn walk(device: Device, what: &str) {
    let model = DirectorySource::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("www/models/emoji64"));
    let pipeline = block_on(Pipeline::load(&model, device, &mut |_| {})).expect("the shipped model loads");
    // Python writes infinities bare, which is not JSON.
    let mut index = read_text(&trajectories().join("index.json"));
    for bare in ["-Infinity", "Infinity", "NaN"] {
        index = index.replace(&format!(": {bare}"), &format!(": \"{bare}\""));
    }
    let index: Value = serde_json::from_str(&index).expect("index.json");
    let mut tally = Tally::default();
    for run in index["runs"].as_array().expect("runs") {
        tally.check(&run["id"].to_string(), check(&pipeline, run));
    }
    tally.finish(what);
}

#[test]
fn every_recorded_run_is_reproduced_on_the_cpu() {
    walk(Device::cpu(), "trajectories on the CPU");
}

#[test]
fn every_recorded_run_is_reproduced_on_the_gpu() {
    walk(crate::common::gpu(), "trajectories on the GPU");
}
