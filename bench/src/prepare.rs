//! What both sides of a comparison read: the checkpoint, the same network as an ONNX model, inputs, and what must come out.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::json;
use undiffuse::device::Device;
use undiffuse::pipeline::{Checkpoint, OpenOptions, Preview, SampleOptions};
use undiffuse::weights::DirectorySource;

use crate::network::{self, Name, Network, Size};
use crate::runner::{Runner, Target, open};
use crate::{onnx, weights};

/// The run whose last picture a browser's is held against.
const PROMPT: &str = "fox, noto style";
const SEED: u64 = 7;
const STEPS: usize = 2;
const GUIDANCE_SCALE: f64 = 4.5;

/// Writes into `folder`/NAME: `checkpoint/` (unless the site has it), `model.onnx`, a `.bin` file of little-endian f32 numbers for
/// each input and for `out`, `expected.rgba` (the picture of a short run), and `model.json`, which describes them.
pub fn prepare(folder: &Path, name: Name) -> Result<()> {
    let network = Network::new(name, Size::default(), folder)?;
    let own = folder.join(&network.name);
    fs::create_dir_all(&own).with_context(|| own.display().to_string())?;
    if name == Name::Cifar {
        write_checkpoint(&own.join("checkpoint"), &network)?;
    }
    let write = |file: &str, bytes: &[u8]| {
        let path = own.join(file);
        fs::write(&path, bytes).with_context(|| path.display().to_string())
    };

    write("model.onnx", &onnx::model(&network.graph, &network.weights()?)?)?;
    let to_bytes = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    for (input, values) in network.inputs() {
        write(&format!("{input}.bin"), &to_bytes(&values))?;
    }
    let (device, _) = open(Target::Cpu, None)?;
    write("out.bin", &to_bytes(&Runner::new(&device, &network)?.step()?))?;

    let checkpoint = network::checkpoint(name, folder).context("this network has no checkpoint")?;
    let mut options = SampleOptions { seed: SEED, steps: STEPS, preview: Preview::None, ..SampleOptions::default() };
    if name == Name::Emoji64 {
        options.prompt = PROMPT.into();
        options.guidance_scale = GUIDANCE_SCALE;
    }
    write("expected.rgba", &pollster::block_on(picture(&checkpoint, device, options))?)?;

    let inputs: serde_json::Map<_, _> =
        network.graph.inputs().iter().map(|(name, id)| (name.clone(), json!(network.graph.node(*id).shape))).collect();
    let mut run = json!({ "seed": SEED, "steps": STEPS });
    if name == Name::Emoji64 {
        run["prompt"] = PROMPT.into();
        run["guidanceScale"] = GUIDANCE_SCALE.into();
    }
    let description = json!({
        "name": network.name,
        "checkpoint": checkpoint,
        "inputs": inputs,
        "parameters": network.parameters(),
        "run": run,
    });
    write("model.json", format!("{description:#}\n").as_bytes())
}

/// A folder as diffusers writes it for a `DDPMPipeline`, with random weights.
fn write_checkpoint(folder: &Path, network: &Network) -> Result<()> {
    let write = |path: &str, content: &str| {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap_or(folder))?;
        fs::write(&path, content).with_context(|| path.display().to_string())
    };
    let index = json!({
        "_class_name": "DDPMPipeline",
        "scheduler": ["diffusers", "DDPMScheduler"],
        "unet": ["diffusers", "UNet2DModel"],
    });
    let scheduler = json!({
        "_class_name": "DDPMScheduler",
        "beta_end": 0.02,
        "beta_schedule": "linear",
        "beta_start": 0.0001,
        "clip_sample": true,
        "num_train_timesteps": 1000,
        "variance_type": "fixed_large",
    });
    write("model_index.json", &index.to_string())?;
    write("scheduler/scheduler_config.json", &scheduler.to_string())?;
    write("unet/config.json", include_str!("../networks/cifar.json"))?;
    weights::write_random(&folder.join("unet/diffusion_pytorch_model.safetensors"), network.graph.weights())
}

/// The last picture of a run, RGBA.
async fn picture(folder: &Path, device: Device, options: SampleOptions) -> Result<Vec<u8>> {
    let source = DirectorySource::new(folder);
    let checkpoint = Checkpoint::open(&source, &OpenOptions::default()).await?;
    let pipeline = checkpoint.load(device, &mut |_| {}).await?;
    let mut sampler = pipeline.sampler(options).await?;
    let mut images = Vec::new();
    while let Some(step) = sampler.step().await? {
        images = step.images;
    }
    Ok(images.into_iter().next().context("the run made no picture")?.pixels)
}
