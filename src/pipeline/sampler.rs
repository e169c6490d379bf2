//! One reverse process: x_T from the seed, then step by step to x_0.

use super::checkpoint::{MAX_SIDE, Unet};
use super::load::Pipeline;
use super::preview::{Drawn, Previewer, Rgba};
use super::{Error, SampleOptions, Scheduler};
use crate::device::Program;
use crate::diffusion::{Clip, Step, StepOptions, Table, Terms};
use crate::graph::{Builder, Graph, NodeId, Scope, fuse, update};
use crate::noise::TorchCpu;

/// What one step made.
#[derive(Clone, Debug, PartialEq)]
pub struct StepOutput {
    /// Number of the step, from 0.
    pub index: usize,
    /// Number of steps in all.
    pub total: usize,
    /// What the network was told.
    pub timestep: f64,
    /// x_t after the step, a picture for each of the batch; empty where only the last is asked for.
    pub images: Vec<Rgba>,
    /// x̂_0, the network's idea of the final picture at this step, likewise.
    pub denoised: Vec<Rgba>,
}

/// A run of the reverse process; dropping it frees what it holds on the device.
#[derive(Debug)]
pub struct Sampler {
    table: Table,
    guidance_scale: f64,
    shape: [usize; 4],
    random: TorchCpu,
    initial_latents: Vec<f32>,
    step: Program,
    previewer: Previewer,
    next: usize,
    warning: Option<String>,
}

impl Pipeline {
    /// Encodes the prompts, draws x_T and compiles the networks; no step is made yet.
    ///
    /// # Errors
    /// An option that the model or the scheduler does not take, or the device's refusal.
    pub async fn sampler(&self, options: SampleOptions) -> Result<Sampler, Error> {
        let parts = self.parts.clone();
        let info = &parts.info;
        let side = |option, value: Option<usize>, default: usize| {
            let pixels = value.unwrap_or(default);
            let multiple = info.scale_factor;
            if pixels == 0 || !pixels.is_multiple_of(multiple) || pixels > MAX_SIDE {
                let message = format!("expected a multiple of {multiple} up to {MAX_SIDE}");
                return Err(Error::option(option, pixels, message));
            }
            Ok(pixels / multiple)
        };
        let shape = [
            1,
            info.latent_channels,
            side("height", options.height, info.height)?,
            side("width", options.width, info.width)?,
        ];
        if !options.guidance_scale.is_finite() || options.guidance_scale.abs() > 1e4 {
            return Err(Error::option(
                "guidance_scale",
                options.guidance_scale,
                "expected a number from -10000 to 10000, such as 7.5",
            ));
        }
        let texts = [("prompt", &options.prompt), ("negative_prompt", &options.negative_prompt)];
        if let Some((option, text)) = texts.into_iter().find(|(_, text)| parts.text.is_none() && !text.is_empty()) {
            return Err(Error::option(option, format!("{text:?}"), format!("a {} takes no prompt", info.class)));
        }
        let scheduler = match &options.scheduler {
            Scheduler::Checkpoint => parts.scheduler.clone(),
            Scheduler::Solver(solver) => parts.scheduler.swap_to(*solver)?,
            Scheduler::Config(config) => (**config).clone(),
        };
        let table = scheduler.table(options.steps, &StepOptions { eta: options.eta, ..StepOptions::default() })?;
        if table.steps.iter().any(|step| matches!(step.clip, Clip::Threshold { .. })) {
            return Err(Error::option("thresholding", true, "dynamic thresholding is not supported"));
        }

        let guided = parts.text.is_some() && options.guidance_scale > 1.0;
        let rows = if guided { 2 } else { 1 };
        let mut warning = None;
        let embeddings = match &parts.text {
            None => None,
            Some((tokenizer, encoder)) => {
                let longest = encoder.config().max_position_embeddings;
                let prompt = tokenizer.encode_padded(&options.prompt, longest)?;
                let negative = tokenizer.encode_padded(&options.negative_prompt, longest)?;
                let lost = |what: &str, text: &Option<String>| {
                    text.as_ref().map(|t| format!("the {what} is too long for this model; it does not see: {t}"))
                };
                warning = lost("prompt", &prompt.truncated).or(lost("negative prompt", &negative.truncated));
                let texts: &[&[u32]] = if guided { &[&negative.ids, &prompt.ids] } else { &[&prompt.ids] };
                let embeddings = encoder.encode(&parts.device, texts).await?;
                Some((prompt.ids.len(), embeddings.last_hidden_state))
            }
        };

        let tokens = embeddings.as_ref().map_or(0, |(tokens, _)| *tokens);
        // The config was proven when the checkpoint was opened: what does not fit now is the size.
        let graph = step_graph(&parts.unet, shape, rows, tokens).map_err(|e| info.too_large(shape[2], shape[3], e))?;
        let previewer = Previewer::compile(&parts, options.preview, options.vae_tiling, shape).await?;

        let mut random = TorchCpu::new(options.seed);
        let scale = table.init_noise_sigma as f32;
        let initial_latents: Vec<f32> = random.randn(shape.iter().product()).into_iter().map(|z| z * scale).collect();
        let mut step = Program::compile(&parts.device, &fuse(&graph), &parts.unet_weights).await?;
        if let Some((_, embeddings)) = &embeddings {
            step.write("encoder_hidden_states", embeddings)?;
        }
        step.write("sample", &initial_latents)?;
        Ok(Sampler {
            table,
            guidance_scale: options.guidance_scale,
            shape,
            random,
            initial_latents,
            step,
            previewer,
            next: 0,
            warning,
        })
    }
}

/// One call of the network and the update after it, as one graph.
///
/// Inputs: `sample` x_t, `input_scale`, `noise`, `history`, `coefficients`, and the network's own. Outputs: `frames` the new
/// sample and x̂_0 one after the other, `prev_sample` the new sample, `history`, `model_output` before guidance.
fn step_graph(unet: &Unet, shape: [usize; 4], rows: usize, tokens: usize) -> Result<Graph, crate::models::Error> {
    let builder = Builder::new();
    let root = builder.root();
    let sample = root.input("sample", &shape)?;
    let input_scale = root.input("input_scale", &[1, 1, 1, 1])?;
    let noise = root.input("noise", &shape)?;
    let [batch, channels, height, width] = shape;
    let history = root.input("history", &[update::HISTORY * batch, channels, height, width])?;
    let coefficients = root.input("coefficients", &[update::COEFFICIENTS])?;
    let scaled = root.mul(sample, input_scale)?;
    let input = if rows == 2 { root.concat(&[scaled, scaled], 0)? } else { scaled };
    let output = match unet {
        Unet::Unconditional(config) => config.add_to(&root, input)?,
        Unet::Conditional(config) => config.add_to(&root, input, rows * batch, tokens, false)?,
    };
    let scope: Scope = root.at("update");
    let updated = scope.linear_update(sample, output, noise, history, coefficients, None)?;
    let part = |first: usize, count: usize| -> Result<NodeId, crate::graph::Error> {
        scope.slice(updated, 0, first * batch, count * batch)
    };
    root.output("frames", part(0, 2)?);
    root.output("prev_sample", part(0, 1)?);
    root.output("history", part(2, update::HISTORY)?);
    root.output("model_output", output);
    Ok(builder.finish())
}

/// The coefficients of one step, rounded once from f64.
fn coefficients(step: &Step, guidance_scale: f64) -> [f32; update::COEFFICIENTS] {
    let mut all = [0.0; update::COEFFICIENTS];
    all[update::GUIDANCE] = guidance_scale as f32;
    all[update::X0_SAMPLE] = step.x0.0 as f32;
    all[update::X0_OUTPUT] = step.x0.1 as f32;
    all[update::CLIP] = match step.clip {
        Clip::Range(range) => range as f32,
        Clip::None | Clip::Threshold { .. } => f32::MAX,
    };
    let rows = std::iter::once(&step.prev_sample).chain(&step.history);
    for (row, terms) in all[update::ROWS..].chunks_exact_mut(update::TERMS).zip(rows) {
        let Terms { sample, model_output, x0, noise, history } = *terms;
        row.iter_mut()
            .zip([sample, model_output, x0, noise].into_iter().chain(history))
            .for_each(|(out, value)| *out = value as f32);
    }
    all
}

impl Sampler {
    /// Number of steps; a solver that calls the network twice for a step counts two.
    pub fn total(&self) -> usize {
        self.table.steps.len()
    }

    /// The table that is being walked.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// What the user should know: words of the prompt that the model cannot see.
    pub fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }

    /// `[batch, channels, height, width]` of x_t.
    pub fn latents_shape(&self) -> [usize; 4] {
        self.shape
    }

    /// x_T, `[batch, channels, height, width]`.
    pub fn initial_latents(&self) -> &[f32] {
        &self.initial_latents
    }

    /// Makes the next step; `None` after the last.
    ///
    /// # Errors
    /// A value that is not finite, with the layer that made it, or a lost device. The run cannot go on after an error.
    pub async fn step(&mut self) -> Result<Option<StepOutput>, Error> {
        let Some(step) = self.table.steps.get(self.next) else { return Ok(None) };
        if self.next > 0 {
            // At the start of a step rather than at its end, so that a step that failed can be looked into.
            self.step.feed_back("sample", "prev_sample")?;
            self.step.feed_back("history", "history")?;
        }
        let rows = self.step.input_length("timestep")?;
        self.step.write("timestep", &vec![step.timestep as f32; rows])?;
        self.step.write("input_scale", &[step.input_scale as f32])?;
        self.step.write("coefficients", &coefficients(step, self.guidance_scale))?;
        if step.draws_noise {
            self.step.write("noise", &self.random.randn(self.shape.iter().product()))?;
        }
        self.step.run()?;
        let (index, total, timestep) = (self.next, self.total(), step.timestep);
        self.next += 1;
        // What the next call's input is scaled by is what gives the new sample unit variance.
        let scale = self.table.steps.get(self.next).map_or(1.0, |next| next.input_scale as f32);
        let Drawn { images, denoised } = self.previewer.draw(&mut self.step, scale, self.next == total).await?;
        Ok(Some(StepOutput { index, total, timestep, images, denoised }))
    }

    /// x_t after the last step made, `[batch, channels, height, width]`.
    ///
    /// # Errors
    /// Before the first step, a value that is not finite, or a lost device.
    pub async fn latents(&mut self) -> Result<Vec<f32>, Error> {
        Ok(self.step.read_f32("prev_sample").await?)
    }

    /// The picture of x_t after the last step made, `[batch, channels, height, width]` in 0..1.
    ///
    /// # Errors
    /// As [`Sampler::latents`].
    pub async fn image(&mut self) -> Result<Vec<f32>, Error> {
        self.previewer.image(&mut self.step).await
    }
}
