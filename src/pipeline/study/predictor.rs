//! The network by itself, with what it is told beside x_t: ε_θ(x_t, t, c), or v or x̂_0, whichever it was trained for.

use crate::device::Program;
use crate::graph::{Builder, Graph, update};
use crate::models;
use crate::pipeline::condition::conditioning::{Conditioning, Conditions};
use crate::pipeline::condition::prompts::Prompts;
use crate::pipeline::error::Error;
use crate::pipeline::model::load::Parts;
use crate::pipeline::options::SampleOptions;
use crate::pipeline::run::request::check_conditions;

/// The network for a batch at one timestep, without an update after it.
#[derive(Debug)]
pub(in crate::pipeline) struct Predictor {
    program: Program,
    /// Rows of the network's batch.
    rows: usize,
    warning: Option<String>,
}

impl Predictor {
    /// Encodes what the network is told and compiles it for x_t of `shape`, `[batch, channels, height, width]`.
    ///
    /// Of `options` it reads what conditions the network: prompts, `guidance_scale` and `guidance_rescale`, `clip_skip`,
    /// `long_prompts`, and the sizes that SDXL is told. One prompt is for the whole batch, several are for one picture each.
    /// As in a run, guidance is off at a scale of 1 or below; a network that was distilled for a scale is told it.
    ///
    /// # Errors
    /// A condition that the model does not take, a number of prompts that is neither 1 nor the batch, a model that sees a
    /// picture beside x_t, or the device's refusal.
    pub async fn compile(parts: &Parts, options: &SampleOptions, shape: [usize; 4]) -> Result<Self, Error> {
        let model = &parts.model;
        check_conditions(model, options)?;
        if model.extra_channels() > 0 {
            let message =
                format!("a {} sees a picture beside x_t, and is run by a whole sampler only", model.info.class);
            return Err(Error::option("image", "absent", message));
        }
        let [batch, _, height, width] = shape;
        let given = options.prompt.all().len();
        let num_images_per_prompt = match given {
            1 => batch,
            _ if given == batch => 1,
            _ => {
                let message = format!("expected one prompt, or one for each of the {batch} pictures");
                return Err(Error::option("prompt", format!("a list of {given}"), message));
            }
        };
        let options = &SampleOptions { num_images_per_prompt, ..options.clone() };
        let guided = model.guides(options.guidance_scale);
        let prompts = match model.texts.is_empty() {
            true => None,
            false => Some(Prompts::new(model, options, guided)?),
        };
        let tokens = prompts.as_ref().map_or(0, |prompts| prompts.tokens);
        let graph = || -> Result<Graph, models::Error> {
            let builder = Builder::new();
            let root = builder.root();
            let mut sample = root.input("sample", &shape)?;
            if guided {
                sample = root.concat(&[sample, sample], 0)?;
            }
            let mut output = model.unet.add_to(&root, sample, tokens)?;
            if guided {
                let coefficients = root.input("coefficients", &[update::COEFFICIENTS])?;
                output = root.at("guidance").guidance(output, coefficients, options.guidance_rescale as f32)?;
            }
            root.output("model_output", output);
            Ok(builder.finish())
        };
        let graph = graph().map_err(|e| model.info.too_large(height, width, e))?;
        let told = Conditions {
            options,
            prompts: prompts.as_ref(),
            latents: shape,
            guided,
            from_noise: true,
            noise_level: None,
        };
        let mut program = Conditioning::new(parts, told).await?.compile(parts, &graph).await?;
        if guided {
            let mut coefficients = [0.0; update::COEFFICIENTS];
            coefficients[update::GUIDANCE] = options.guidance_scale as f32;
            program.write("coefficients", &coefficients)?;
        }
        let rows = program.input_length("timestep")?;
        Ok(Self { program, rows, warning: prompts.and_then(|prompts| prompts.warning) })
    }

    /// Warning for the user: words of the prompt that the model cannot see.
    pub fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }

    /// The network's output after guidance for `x_t` at `timestep`, the same for the whole batch: `[batch, channels, height,
    /// width]` of ε, v or x̂_0, as it was trained. Where it has learned the variance too there are twice as many channels, of which
    /// the second half of each picture says what the variance is.
    ///
    /// # Errors
    /// A value that is not finite, with the layer that made it, or a lost device.
    pub async fn predict(&mut self, x_t: &[f32], timestep: f32) -> Result<Vec<f32>, Error> {
        self.program.write("sample", x_t)?;
        self.program.write("timestep", &vec![timestep; self.rows])?;
        self.program.run().await?;
        Ok(self.program.read_f32("model_output").await?)
    }
}

#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests {
    use std::path::{Path, PathBuf};

    use pollster::block_on;
    use safetensors::SafeTensors;
    use serde_json::Value;

    use super::*;
    use crate::device::Device;
    use crate::pipeline::{Pipeline, Text};
    use crate::weights::DirectorySource;

    fn pipelines() -> PathBuf {
        let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference");
        std::env::var_os("UNDIFFUSE_REFERENCE").map_or(default, PathBuf::from).join("pipelines")
    }

    fn text(value: &Value) -> Option<Text> {
        match value {
            Value::String(text) => Some(text.as_str().into()),
            Value::Array(texts) => {
                Some(texts.iter().map(|t| t.as_str().unwrap().to_owned()).collect::<Vec<_>>().into())
            }
            _ => None,
        }
    }

    /// A tensor of f32 with its shape.
    fn tensor(file: &SafeTensors, name: &str) -> (Vec<usize>, Vec<f32>) {
        let view = file.tensor(name).unwrap();
        let number = |bytes: &[u8]| f32::from_le_bytes(bytes.try_into().unwrap());
        (view.shape().to_vec(), view.data().chunks_exact(4).map(number).collect())
    }

    #[test]
    fn the_network_says_of_x_t_what_it_said_in_recorded_runs() {
        for name in
            ["ddpm_uncond_b2", "sd_ddim", "sd_no_cfg", "sd_nonsquare_batch", "sd_clip_skip", "sdxl_euler", "lcm_4"]
        {
            let folder = pipelines().join("runs").join(name);
            let run: Value = serde_json::from_slice(&std::fs::read(folder.join("run.json")).unwrap()).unwrap();
            let bytes = std::fs::read(folder.join("tensors.safetensors")).unwrap();
            let tensors = SafeTensors::deserialize(&bytes).unwrap();
            let arguments = &run["call_arguments"];
            let options = SampleOptions {
                prompt: text(&arguments["prompt"]).unwrap_or_default(),
                negative_prompt: text(&arguments["negative_prompt"]),
                guidance_scale: arguments["guidance_scale"].as_f64().unwrap_or(0.0),
                clip_skip: arguments["clip_skip"].as_u64().map(|skip| skip as usize),
                ..SampleOptions::default()
            };
            let source = DirectorySource::new(pipelines().join("models").join(run["model"].as_str().unwrap()));
            let pipeline = block_on(Pipeline::load(&source, Device::cpu(), &mut |_| {})).unwrap();

            // Recorded with the unconditional half first.
            let (shape, input) = tensor(&tensors, "unet_input_first");
            let (_, outputs) = tensor(&tensors, "unet_outputs");
            let (_, timesteps) = tensor(&tensors, "unet_timesteps");
            let guided = pipeline.parts.model.guides(options.guidance_scale);
            let rows = if guided { shape[0] / 2 } else { shape[0] };
            let x_t = &input[..input.len() / shape[0] * rows];
            let output = &outputs[..input.len()];
            let expected: Vec<f32> = match guided {
                true => {
                    let (without, with) = output.split_at(output.len() / 2);
                    let scale = options.guidance_scale as f32;
                    without.iter().zip(with).map(|(u, c)| u + scale * (c - u)).collect()
                }
                false => output.to_vec(),
            };

            let shape = [rows, shape[1], shape[2], shape[3]];
            let mut predictor = block_on(Predictor::compile(&pipeline.parts, &options, shape)).unwrap();
            let elsewhere = block_on(predictor.predict(x_t, timesteps[1])).unwrap();
            let found = block_on(predictor.predict(x_t, timesteps[0])).unwrap();
            let largest = expected.iter().fold(0.0, |most: f32, v| most.max(v.abs()));
            let furthest =
                |from: &[f32]| from.iter().zip(&expected).fold(0.0, |most: f32, (a, b)| most.max((a - b).abs()));
            assert_eq!(found.len(), expected.len(), "{name}");
            assert!(furthest(&found) < 1e-3 * largest, "{name}: off by {} of {largest}", furthest(&found));
            assert!(furthest(&elsewhere) > 10.0 * furthest(&found), "{name}: the timestep makes no difference");
        }
    }

    #[test]
    fn one_prompt_is_for_all_pictures_and_another_number_of_them_is_refused() {
        let source = DirectorySource::new(pipelines().join("models/sd"));
        let pipeline = block_on(Pipeline::load(&source, Device::cpu(), &mut |_| {})).unwrap();
        let predictor = |texts: &[&str], batch: usize| {
            let prompt = texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>().into();
            let options = SampleOptions { prompt, guidance_scale: 3.0, ..SampleOptions::default() };
            block_on(Predictor::compile(&pipeline.parts, &options, [batch, 4, 8, 8]))
        };
        let x_t: Vec<f32> = (0..2 * 4 * 8 * 8).map(|i| libm::sinf(i as f32)).collect();
        let of = |texts: &[&str]| block_on(predictor(texts, 2).unwrap().predict(&x_t, 500.0)).unwrap();
        let (cats, both) = (of(&["a cat"]), of(&["a cat", "a dog"]));
        assert_eq!(cats, of(&["a cat", "a cat"]));
        assert_eq!(cats[..256], both[..256]);
        assert_ne!(cats[256..], both[256..]);
        let error = predictor(&["a cat", "a dog"], 3).unwrap_err().to_string();
        assert_eq!(error, "`prompt` is a list of 2: expected one prompt, or one for each of the 3 pictures");
    }

    #[test]
    fn a_model_that_sees_a_picture_beside_x_t_is_refused() {
        let source = DirectorySource::new(pipelines().join("models/sd_inpaint9"));
        let pipeline = block_on(Pipeline::load(&source, Device::cpu(), &mut |_| {})).unwrap();
        let error = block_on(Predictor::compile(&pipeline.parts, &SampleOptions::default(), [1, 4, 8, 8])).unwrap_err();
        assert!(error.to_string().contains("sees a picture beside x_t"), "{error}");
    }
}
