//! Pipelines and what they prepare, for JavaScript: runs, forward processes, bounds, and LoRAs.

use std::rc::Rc;

use js_sys::{Array, Float32Array, Function, Object, Promise, Reflect, Uint8ClampedArray};
use serde_json::{Map, Value, json};
use wasm_bindgen::prelude::*;

use super::error::Error;
use super::promise::promise;
use super::slot::Slot;
use super::source::{Failure, JsSource, OpenSource};
use super::{Machine, Pixels, open_device, picture_of};
use crate::pipeline::{
    self, BoundOptions, Checkpoint, ForwardOptions, LoadProgress, LoraFile, Note, OpenOptions, Rgba, SampleOptions,
    Scheduler, StepOutput, Takes, camel_case,
};
use crate::weights::Source;

#[wasm_bindgen]
extern "C" {
    /// The part of `LoadOptions` of index.d.ts that says which files are read and how: `variant`, `unet`, `predictionType`,
    /// `kernels`, and as `OpenSource`s `vae`, `tinyVae` and `vocabulary`, which has CLIP's `merges.txt`; and for WebGPU the name
    /// of its `adapter` and the text of its `shaders`.
    #[wasm_bindgen(typescript_type = "object")]
    pub type Files;

    #[wasm_bindgen(method, getter)]
    fn variant(this: &Files) -> Option<String>;

    #[wasm_bindgen(method, getter)]
    fn unet(this: &Files) -> Option<String>;

    #[wasm_bindgen(method, getter)]
    fn vae(this: &Files) -> Option<OpenSource>;

    #[wasm_bindgen(method, getter, js_name = predictionType)]
    fn prediction_type(this: &Files) -> Option<String>;

    #[wasm_bindgen(method, getter, js_name = tinyVae)]
    fn tiny_vae(this: &Files) -> Option<OpenSource>;

    #[wasm_bindgen(method, getter)]
    fn vocabulary(this: &Files) -> OpenSource;

    #[wasm_bindgen(method, getter)]
    fn kernels(this: &Files) -> Option<String>;

    #[wasm_bindgen(method, getter)]
    fn adapter(this: &Files) -> Option<String>;

    #[wasm_bindgen(method, getter)]
    fn shaders(this: &Files) -> Option<String>;
}

/// A loaded checkpoint; `free` it, and its runs, to free what it holds on its device.
#[wasm_bindgen]
pub struct Pipeline(pipeline::Pipeline);

#[wasm_bindgen]
impl Pipeline {
    /// Loads the checkpoint in `source` onto the CPU, if it is there as a `machine`, else onto WebGPU.
    /// `on_progress` is called with the path of the file being read, the bytes read so far of all weight files, and their sum.
    ///
    /// Rejects, as all promises here do, with a JavaScript error with the `code` of its kind; an error of `source` comes out as it
    /// came.
    #[wasm_bindgen(unchecked_return_type = "Promise<Pipeline>")]
    pub fn load(source: OpenSource, machine: Option<Machine>, files: Files, on_progress: Function) -> Promise {
        promise(async move {
            let failure = Failure::default();
            let read = |source| JsSource::new(source, failure.clone());
            let (source, vocabulary) = (read(source), read(files.vocabulary()));
            let (vae, tiny_vae) = (files.vae().map(read), files.tiny_vae().map(read));
            let mut on_progress = |LoadProgress { file, loaded, total }| {
                // A listener that throws cannot stop the load: that is what the source's signal is for.
                let _ =
                    on_progress.call3(&JsValue::NULL, &file.into(), &(loaded as f64).into(), &(total as f64).into());
            };
            let options = OpenOptions {
                variant: files.variant(),
                unet: files.unet(),
                vae: vae.as_ref().map(|vae| vae as &dyn Source),
                prediction_type: files.prediction_type(),
                vocabulary: Some(&vocabulary),
            };
            let load = async {
                // The weights are on their way from here on, while the device is opened.
                let checkpoint = Checkpoint::open(&source, &options).await?;
                // JavaScript has checked the name.
                let kernels = files.kernels().and_then(|name| name.parse().ok());
                let device = open_device(machine, files.adapter(), files.shaders(), kernels).await;
                let device = device.map_err(pipeline::Error::from)?;
                let pipeline = checkpoint.load(device, &mut on_progress).await?;
                if let Some(tiny_vae) = tiny_vae {
                    pipeline.set_tiny_vae(&tiny_vae, &mut |_, _| {}).await?;
                }
                Ok(Self(pipeline).into())
            };
            load.await.map_err(|error: pipeline::Error| failure.unwrap(error))
        })
    }

    /// The description of the checkpoint: `ModelInfo` of index.d.ts, as JSON.
    pub fn info(&self) -> String {
        let info = self.0.info();
        let solvers = self.0.solver_steps();
        let mut solver_steps = Map::new();
        for (solver, range) in &solvers {
            solver_steps.insert(solver.name().to_owned(), json!({ "min": range.start(), "max": range.end() }));
        }
        json!({
            "class": info.class,
            "scheduler": info.scheduler,
            "solvers": solvers.iter().map(|(solver, _)| solver.name()).collect::<Vec<_>>(),
            "solverSteps": solver_steps,
            "takesPrompt": info.takes_prompt,
            "takesSizes": info.takes_second_prompt,
            "takesImage": info.takes_image != Takes::Never,
            "takesMask": info.takes_mask != Takes::Never,
            "takesStartTimestep": info.takes_start_timestep,
            "needsImage": info.takes_image == Takes::Required,
            "takesNoiseLevel": info.enlarges,
            "maxTokens": info.max_tokens,
            "width": info.width,
            "height": info.height,
            "sizeMultiple": info.scale_factor,
            "bytes": info.bytes,
            "notes": info.notes.iter().map(words).collect::<Vec<_>>(),
        })
        .to_string()
    }

    /// The token ids of a prompt, as the text encoder gets them.
    ///
    /// # Errors
    /// As [`pipeline::Pipeline::tokenize`].
    pub fn tokenize(&self, prompt: &str) -> Result<Vec<u32>, JsValue> {
        self.0.tokenize(prompt).map_err(|error| Error::from(error).into_js())
    }

    /// The schedule that a run with `options` walks: an object with `class`, `numTrainTimesteps`, `betas` and `alphasCumprod` as of `Schedule` in
    /// index.d.ts, and `table` as JSON, as the command writes it. `options` are JSON as of [`Pipeline::sample`].
    ///
    /// # Errors
    /// As of [`Pipeline::sample`].
    pub fn schedule(&self, options: &str) -> Result<JsValue, JsValue> {
        let schedule = run_options(options).and_then(|options| {
            self.0.schedule(&options).map_err(|error| of_run(error, brings_scheduler(&options.scheduler)))
        });
        let pipeline::Schedule { class, num_train_timesteps, noise, table } = schedule.map_err(Error::into_js)?;
        Ok(object(&[
            ("class", class.into()),
            ("numTrainTimesteps", (num_train_timesteps as f64).into()),
            ("betas", Float32Array::from(&noise.betas[..]).into()),
            ("alphasCumprod", Float32Array::from(&noise.alphas_cumprod[..]).into()),
            ("table", serde_json::to_string(&table).map_err(|error| Error::from(error).into_js())?.into()),
        ]))
    }

    /// The cost of a run: `RunEstimate` of index.d.ts. All is as of [`Pipeline::sample`].
    ///
    /// # Errors
    /// As of [`Pipeline::sample`].
    pub fn estimate(&self, options: &str, image: Option<Pixels>, mask: Option<Pixels>) -> Result<JsValue, JsValue> {
        let (image, mask) = (image.map(picture_of), mask.map(picture_of));
        let estimate = run_options(options).and_then(|options| {
            let brings_scheduler = brings_scheduler(&options.scheduler);
            let estimate = self.0.estimate(SampleOptions { image, mask, ..options });
            estimate.map_err(|error| of_run(error, brings_scheduler))
        });
        let pipeline::RunEstimate { calls, flop, seconds } = estimate.map_err(Error::into_js)?;
        Ok(object(&[("calls", (calls as f64).into()), ("flop", (flop as f64).into()), ("seconds", seconds.into())]))
    }

    /// Prepares the forward process of a picture; resolves to a [`ForwardProcess`]. `options` are those of `ForwardOptions` in
    /// index.d.ts but for the picture and the signal, as JSON.
    pub fn forward_process(&self, options: String, image: Pixels) -> Promise {
        let pipeline = self.0.clone();
        let image = picture_of(image);
        promise(async move {
            let options = ForwardOptions::from_json(parsed(&options)?).map_err(of_options)?;
            let brings_scheduler = brings_scheduler(&options.scheduler);
            let process = pipeline.forward_process(ForwardOptions { image, ..options }).await;
            let process = process.map_err(|error| of_run(error, brings_scheduler))?;
            let (num_train_timesteps, shape) = (process.num_train_timesteps() as u32, process.shape());
            Ok(ForwardProcess { num_train_timesteps, shape, slot: Slot::new(process) }.into())
        })
    }

    /// Prepares the bound of pictures; resolves to a [`Bound`]. `options` are those of `BoundOptions` in index.d.ts but for the
    /// pictures and the signal, as JSON.
    pub fn bound(&self, options: String, images: Vec<Pixels>) -> Promise {
        let pipeline = self.0.clone();
        let images = images.into_iter().map(picture_of).collect();
        promise(async move {
            let options = BoundOptions::from_json(parsed(&options)?)?;
            let bound = pipeline.bound(BoundOptions { images, ..options }).await?;
            let (total, warning) = (bound.total() as u32, bound.warning().map(str::to_owned));
            Ok(Bound { total, warning, slot: Slot::new(bound) }.into())
        })
    }

    /// Merges the LoRAs of `set` into the weights, in place of those that were.
    pub fn set_loras(&self, set: LoraSet) -> Promise {
        let pipeline = self.0.clone();
        promise(async move {
            let loras: Vec<_> = set.0.iter().map(|(file, weight)| (&**file, *weight)).collect();
            pipeline.set_loras(&loras).await?;
            Ok(JsValue::UNDEFINED)
        })
    }

    /// Prepares a run; resolves to a [`Sampler`]. `options` are those of `SampleOptions` in index.d.ts but for the pictures and
    /// what is JavaScript's own, as JSON.
    pub fn sample(&self, options: String, image: Option<Pixels>, mask: Option<Pixels>) -> Promise {
        let pipeline = self.0.clone();
        let (image, mask) = (image.map(picture_of), mask.map(picture_of));
        promise(async move {
            let options = run_options(&options)?;
            let brings_scheduler = brings_scheduler(&options.scheduler);
            let sampler = pipeline.sampler(SampleOptions { image, mask, ..options }).await;
            let sampler = sampler.map_err(|error| of_run(error, brings_scheduler))?;
            let (total, warning) = (sampler.total() as u32, sampler.warning().map(str::to_owned));
            Ok(Sampler { total, warning, slot: Slot::new(sampler) }.into())
        })
    }
}

/// The options of a run but for its pictures.
fn run_options(options: &str) -> Result<SampleOptions, Error> {
    SampleOptions::from_json(parsed(options)?).map_err(of_options)
}

/// Whether options bring a scheduler in place of the checkpoint's.
fn brings_scheduler(scheduler: &Scheduler) -> bool {
    matches!(scheduler, Scheduler::Config(_))
}

/// The error of a run, which may lie in a scheduler that came with the options.
fn of_run(error: pipeline::Error, brings_scheduler: bool) -> Error {
    match error {
        pipeline::Error::Diffusion(error) if brings_scheduler => Error::Scheduler(error),
        error => error.into(),
    }
}

/// A LoRA's file, read.
#[wasm_bindgen]
pub struct Lora(Rc<LoraFile>);

#[wasm_bindgen]
impl Lora {
    /// Reads the one file of weights of `source`, or the file of the folder that it is.
    #[wasm_bindgen(unchecked_return_type = "Promise<Lora>")]
    pub fn open(source: OpenSource) -> Promise {
        promise(async move {
            let failure = Failure::default();
            let source = JsSource::new(source, failure.clone());
            let opened = match source.weights() {
                Some(path) => LoraFile::open(&source, path).await,
                None => LoraFile::open_folder(&source).await,
            };
            match opened {
                Ok(file) => Ok(Self(Rc::new(file)).into()),
                Err(error) => Err(failure.unwrap(error)),
            }
        })
    }
}

#[wasm_bindgen]
impl Lora {
    /// Notes on its unused parts, and on guesses that had to be made.
    #[wasm_bindgen(getter)]
    pub fn notes(&self) -> Vec<String> {
        self.0.notes().to_vec()
    }
}

/// LoRAs with their weights.
#[wasm_bindgen]
#[derive(Default)]
pub struct LoraSet(Vec<(Rc<LoraFile>, f64)>);

#[wasm_bindgen]
impl LoraSet {
    /// A set of no LoRAs yet.
    #[wasm_bindgen(constructor)]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a LoRA.
    pub fn add(&mut self, lora: &Lora, weight: f64) {
        self.0.push((lora.0.clone(), weight));
    }
}

/// The forward process of a picture.
#[wasm_bindgen]
pub struct ForwardProcess {
    num_train_timesteps: u32,
    shape: [usize; 4],
    slot: Slot<pipeline::ForwardProcess>,
}

#[wasm_bindgen]
impl ForwardProcess {
    /// T, the number of training timesteps.
    #[wasm_bindgen(getter)]
    pub fn num_train_timesteps(&self) -> u32 {
        self.num_train_timesteps
    }

    /// `[1, channels, height, width]` of x_t.
    #[wasm_bindgen(getter)]
    pub fn shape(&self) -> Vec<usize> {
        self.shape.to_vec()
    }

    /// Resolves to `PlainNoised` of protocol.js: x_t, or without a timestep x_0.
    pub fn at(&self, timestep: Option<u32>) -> Promise {
        self.slot.ask(async move |process| {
            let pipeline::Noised { sample, image } = process.at(timestep.map(|timestep| timestep as usize)).await?;
            Ok(object(&[("sample", Float32Array::from(&sample[..]).into()), ("image", image_to_js(image))]))
        })
    }

    /// Asks the network once; resolves to `PlainPrediction` of protocol.js.
    pub fn predict(&self, timestep: u32) -> Promise {
        self.slot.ask(async move |process| {
            let prediction = process.predict(timestep as usize).await?;
            Ok(object(&[
                ("noise", image_to_js(prediction.epsilon_image)),
                ("denoised", image_to_js(prediction.x0_image)),
                ("error", prediction.mean_squared_error.into()),
                ("warning", process.warning().into()),
            ]))
        })
    }

    /// Frees what it holds, now or when the call under way is done, and this object.
    pub fn dispose(self) {
        self.slot.dispose();
    }
}

/// The variational bound of pictures, term by term.
#[wasm_bindgen]
pub struct Bound {
    total: u32,
    warning: Option<String>,
    slot: Slot<pipeline::Bound>,
}

#[wasm_bindgen]
impl Bound {
    /// Number of terms.
    #[wasm_bindgen(getter)]
    pub fn total(&self) -> u32 {
        self.total
    }

    /// Words of the prompt that the model cannot see, in a sentence.
    #[wasm_bindgen(getter)]
    pub fn warning(&self) -> Option<String> {
        self.warning.clone()
    }

    /// Computes the next term; resolves to `PlainTerm` of protocol.js but for its `milliseconds`, and after the last one to
    /// undefined.
    pub fn step(&self) -> Promise {
        let total = self.total;
        self.slot.ask(async move |bound| {
            let Some(term) = bound.next_term().await? else { return Ok(JsValue::UNDEFINED) };
            let summary = bound.summary();
            let index = summary.terms.len() as u32 - 1;
            let mut entries =
                vec![("index", index.into()), ("total", total.into()), ("term", term.to_json().to_string().into())];
            if index + 1 == total {
                entries.push(("summary", summary.to_json().to_string().into()));
            }
            Ok(object(&entries))
        })
    }

    /// Frees what it holds, now or when the term under way is done, and this object.
    pub fn dispose(self) {
        self.slot.dispose();
    }
}

/// A run of the reverse process.
#[wasm_bindgen]
pub struct Sampler {
    total: u32,
    warning: Option<String>,
    slot: Slot<pipeline::Sampler>,
}

#[wasm_bindgen]
impl Sampler {
    /// Number of steps of the run.
    #[wasm_bindgen(getter)]
    pub fn total(&self) -> u32 {
        self.total
    }

    /// Words of the prompt that the model cannot see, in a sentence.
    #[wasm_bindgen(getter)]
    pub fn warning(&self) -> Option<String> {
        self.warning.clone()
    }

    /// Resolves to x_T as a `PlainStep` of protocol.js with the index -1, but for its `milliseconds`.
    pub fn initial(&self) -> Promise {
        let total = self.total;
        self.slot.ask(async move |sampler| {
            let images = sampler.initial_images().await?;
            let timestep = sampler.table().steps.first().map_or(0.0, |first| first.timestep);
            Ok(plain_step(-1.0, f64::from(total), timestep, images, Vec::new()))
        })
    }

    /// Computes the next step; resolves to `PlainStep` of protocol.js but for its `milliseconds`, and after the last step to
    /// undefined.
    pub fn step(&self) -> Promise {
        self.slot.ask(async |sampler| Ok(sampler.step().await?.map_or(JsValue::UNDEFINED, step_to_js)))
    }

    /// Resolves to the times of the last step made: `Profile` of index.d.ts, as JSON.
    pub fn profile(&self) -> Promise {
        self.slot.ask(async |sampler| Ok(sampler.profile().await?.to_json().to_string().into()))
    }

    /// Resolves to x_T, a `Float32Array` `[batch, channels, height, width]`.
    pub fn initial_latents(&self) -> Promise {
        self.slot.ask(async |sampler| Ok(Float32Array::from(sampler.initial_latents()).into()))
    }

    /// Resolves to x_t after the last step made, a `Float32Array` `[batch, channels, height, width]`.
    pub fn latents(&self) -> Promise {
        self.slot.ask(async |sampler| Ok(Float32Array::from(&sampler.latents().await?[..]).into()))
    }

    /// Resolves to the picture of that x_t, a `Float32Array` `[batch, channels, height, width]` in 0..1.
    pub fn image(&self) -> Promise {
        self.slot.ask(async |sampler| Ok(Float32Array::from(&sampler.image().await?[..]).into()))
    }

    /// Frees what the run holds, now or when the step under way is done, and this object.
    pub fn dispose(self) {
        self.slot.dispose();
    }
}

/// The object that the JSON of options is.
fn parsed(options: &str) -> Result<Map<String, Value>, Error> {
    Ok(serde_json::from_slice(options.as_bytes())?)
}

/// The error of options, of which a scheduler's config is one.
fn of_options(error: pipeline::Error) -> Error {
    match error {
        pipeline::Error::Diffusion(ref scheduler) if !error.is_of_option() => Error::Scheduler(scheduler.clone()),
        error => error.into(),
    }
}

/// A note on a checkpoint, with the option that says otherwise as JavaScript has it.
fn words(note: &Note) -> String {
    match note.option {
        Some((option, value)) => format!("{}; {}: \"{value}\" says otherwise", note.text, camel_case(option)),
        None => note.text.clone(),
    }
}

fn step_to_js(step: StepOutput) -> JsValue {
    plain_step(step.index as f64, step.total as f64, step.timestep, step.images, step.denoised)
}

fn plain_step(index: f64, total: f64, timestep: f64, images: Vec<Rgba>, denoised: Vec<Rgba>) -> JsValue {
    object(&[
        ("index", index.into()),
        ("total", total.into()),
        ("timestep", timestep.into()),
        ("images", images_to_js(images)),
        ("denoised", images_to_js(denoised)),
    ])
}

fn images_to_js(images: Vec<Rgba>) -> JsValue {
    images.into_iter().map(image_to_js).collect::<Array>().into()
}

/// `Pixels` of protocol.js: a copy outside of the module's memory, which can be handed on to another thread.
fn image_to_js(image: Rgba) -> JsValue {
    object(&[
        ("width", (image.width as f64).into()),
        ("height", (image.height as f64).into()),
        ("data", Uint8ClampedArray::from(&image.pixels[..]).into()),
    ])
}

fn object(entries: &[(&str, JsValue)]) -> JsValue {
    let object = Object::new();
    for (key, value) in entries {
        // A fresh object takes every property.
        let _ = Reflect::set(&object, &(*key).into(), value);
    }
    object.into()
}
