//! One reverse process: x_T from the seed, then step by step to x_0.

use super::estimate::RunCost;
use super::pace::Pace;
use super::pipeline::Pipeline;
use super::random::Streams;
use super::request::Request;
use super::start::Start;
use super::step_graph::{coefficients, variance_line};
use crate::device::{Measured, Program};
use crate::diffusion::{LearnedVariance, Noising, Table};
use crate::pipeline::condition::conditioning::Conditioning;
use crate::pipeline::error::Error;
use crate::pipeline::options::SampleOptions;
use crate::pipeline::pictures::preview::{Previewer, StepPictures};
use crate::pipeline::rgba::Rgba;
use crate::profile::{Profile, now};

/// The result of one step.
#[derive(Clone, Debug, PartialEq)]
pub struct StepOutput {
    /// Number of the step, from 0.
    pub index: usize,
    /// Number of steps in all.
    pub total: usize,
    /// The timestep that the network was told.
    pub timestep: f64,
    /// x_t after the step, a picture for each of the batch; empty if only the last is asked for.
    pub images: Vec<Rgba>,
    /// x̂_0, the network's idea of the final picture at this step, a picture for each of the batch; empty if `images` are.
    pub denoised: Vec<Rgba>,
}

/// A run of the reverse process; dropping it frees what it holds on the device.
#[derive(Debug)]
pub struct Sampler {
    table: Table,
    guidance_scale: f64,
    shape: [usize; 4],
    streams: Streams,
    initial_latents: Vec<f32>,
    /// Whether a part of a picture is kept.
    keeps: bool,
    learned: Option<LearnedVariance>,
    step: Program,
    previewer: Previewer,
    next: usize,
    warning: Option<String>,
    cost: RunCost,
    pace: Pace,
}

impl Pipeline {
    /// Encodes the prompts and the picture, draws x_T and compiles the networks; no step is made yet.
    ///
    /// # Errors
    /// An option that the model or the scheduler does not take, or the device's refusal.
    pub async fn sampler(&self, options: SampleOptions) -> Result<Sampler, Error> {
        let parts = &*self.parts;
        let mut request = Request::new(&parts.model, options)?;
        let graph = request.step_graph(&parts.model)?;
        let cost = RunCost::new(parts, &self.previews, &request, &graph)?;
        let conditioning = Conditioning::new(parts, request.told()).await?;
        let start = Start::new(parts, &mut request).await?;
        let previewer = Previewer::compile(parts, &self.previews, &request.options, request.latents).await?;
        let mut step = conditioning.compile(parts, &graph).await?;
        step.write("sample", &start.latents)?;
        if let Some(extra) = &start.extra {
            step.write("extra", extra)?;
        }
        if let Some(kept) = &start.kept {
            step.write("kept", &kept.latents)?;
            step.write("kept_noise", &kept.noise)?;
            step.write("mask", &kept.mask)?;
        }
        let warnings = [request.table.warning.take(), request.prompts.and_then(|prompts| prompts.warning)];
        let warning = warnings.into_iter().flatten().reduce(|one, other| format!("{one}; {other}"));
        Ok(Sampler {
            table: request.table,
            guidance_scale: request.options.guidance_scale,
            shape: request.latents,
            streams: request.streams,
            initial_latents: start.latents,
            keeps: start.kept.is_some(),
            learned: request.learned,
            step,
            previewer,
            next: 0,
            warning,
            cost,
            pace: self.pace.clone(),
        })
    }
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

    /// Warning for the user: words of the prompt that the model cannot see, and steps that are not quite those of the
    /// scheduler.
    pub fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }

    /// `[batch, channels, height, width]` of x_t.
    pub fn latents_shape(&self) -> [usize; 4] {
        self.shape
    }

    /// x_T, or the x_t that the run begins at, `[batch, channels, height, width]`.
    pub fn initial_latents(&self) -> &[f32] {
        &self.initial_latents
    }

    /// The pictures of [`Sampler::initial_latents`], one for each of the batch, made as those of a step are; empty if steps have
    /// none on the way.
    ///
    /// # Errors
    /// A value that is not finite, or a lost device.
    pub async fn initial_images(&mut self) -> Result<Vec<Rgba>, Error> {
        let scale = self.table.steps.first().map_or(1.0, |first| first.input_scale as f32);
        self.previewer.draw_initial(&self.initial_latents, scale).await
    }

    /// Makes the next step; `None` after the last.
    ///
    /// # Errors
    /// A value that is not finite, with the layer that made it, or a lost device. The run cannot go on after an error.
    pub async fn step(&mut self) -> Result<Option<StepOutput>, Error> {
        let Some(step) = self.table.steps.get(self.next) else { return Ok(None) };
        let start = now();
        if self.next > 0 {
            // At the start of a step rather than at its end, so that a step that failed can be looked into.
            self.step.feed_back("sample", "prev_sample")?;
            self.step.feed_back("history", "history")?;
        }
        let rows = self.step.input_length("timestep")?;
        self.step.write("timestep", &vec![step.timestep as f32; rows])?;
        self.step.write("input_scale", &[step.input_scale as f32])?;
        self.step.write("coefficients", &coefficients(step, self.guidance_scale))?;
        if let Some(kind) = self.learned {
            self.step.write("variance_line", &variance_line(kind, step))?;
        }
        if step.draws_noise {
            let [batch, channels, height, width] = self.shape;
            self.step.write("noise", &self.streams.randn(batch, channels * height * width))?;
        }
        if self.keeps {
            // What is kept goes to the level of noise where the next step begins; the last step leaves it clean.
            let next = self.table.steps.get(self.next + 1);
            let Noising { signal, noise } = next.map_or(Noising::of_sigma(0.0), |next| next.forward);
            self.step.write("forward", &[signal as f32, noise as f32])?;
        }
        self.step.run().await?;
        let (index, total, timestep) = (self.next, self.total(), step.timestep);
        self.next += 1;
        // What the next call's input is scaled by is what gives the new sample unit variance.
        let scale = self.table.steps.get(self.next).map_or(1.0, |next| next.input_scale as f32);
        let is_last = self.next == total;
        let StepPictures { images, denoised } = self.previewer.draw(&mut self.step, scale, is_last).await?;
        // Where no picture is read back, a GPU may have only begun.
        if !images.is_empty() {
            self.pace.note(self.cost.step(is_last), start);
        }
        Ok(Some(StepOutput { index, total, timestep, images, denoised }))
    }

    /// Takes the time of the kernels that a GPU can compute a step with, and returns the fastest for each of its products (see
    /// [`Program::measure_kernels`]); nothing if there is no choice.
    ///
    /// # Errors
    /// If memory runs out or the device is lost.
    pub async fn measure_kernels(&self) -> Result<Measured, Error> {
        Ok(self.step.measure_kernels().await?)
    }

    /// Times of the parts of a step: the network and the update after it. The step that is measured is the last one made,
    /// again, and the run can go on afterwards.
    ///
    /// # Errors
    /// A value that is not finite, or a lost device.
    pub async fn profile(&mut self) -> Result<Profile, Error> {
        Ok(self.step.profile().await?)
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
