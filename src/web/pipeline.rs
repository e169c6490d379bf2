//! Pipelines and what they prepare, for JavaScript: runs, forward processes, bounds, and LoRAs.

use std::rc::Rc;

use js_sys::{Array, Float32Array, Function, Object, Promise, Reflect, Uint8ClampedArray};
use serde::de::{DeserializeOwned, Error as _};
use serde_json::{Map, Value, json};
use wasm_bindgen::prelude::*;

use super::error::{self, Error};
use super::promise::promise;
use super::slot::Slot;
use super::source::{Failure, JsSource, OpenSource};
use super::{Machine, Pixels, open_device, picture_of};
use crate::diffusion::{SchedulerConfig, SolverKeys, SolverName};
use crate::noise::Stream;
use crate::pipeline::{
    self, BoundOptions, Checkpoint, ForwardOptions, LoadProgress, LongPrompts, LoraFile, Note, OpenOptions, Preview,
    Rgba, SampleOptions, Scheduler, Space, StepOutput, Takes, Text, Timesteps,
};
use crate::weights::Source;

#[wasm_bindgen]
extern "C" {
    /// Of `LoadOptions` of index.d.ts, what says which files are read and how: `variant`, `unet`, `predictionType`, `kernels`, and as
    /// `OpenSource`s `vae`, `tinyVae` and `vocabulary`, which has CLIP's `merges.txt`; and for WebGPU the name of its
    /// `adapter` and the text of its `shaders`.
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

    /// What the checkpoint says of itself: `ModelInfo` of index.d.ts, as JSON.
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
        let schedule = sample_options(options).and_then(|options| {
            let has_scheduler = matches!(options.scheduler, Scheduler::Config(_));
            self.0.schedule(&options).map_err(|error| of_run(error, has_scheduler))
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

    /// What a run takes: `RunEstimate` of index.d.ts. All is as of [`Pipeline::sample`].
    ///
    /// # Errors
    /// As of [`Pipeline::sample`].
    pub fn estimate(
        &self,
        seed: u64,
        seeds: Vec<u64>,
        options: String,
        image: Option<Pixels>,
        mask: Option<Pixels>,
    ) -> Result<JsValue, JsValue> {
        let asked = RunRequest { seed, seeds, image: image.map(picture_of), mask: mask.map(picture_of), options };
        let estimate = asked.options().and_then(|(options, has_scheduler)| {
            self.0.estimate(options).map_err(|error| of_run(error, has_scheduler))
        });
        let pipeline::RunEstimate { calls, flop, seconds } = estimate.map_err(Error::into_js)?;
        Ok(object(&[("calls", (calls as f64).into()), ("flop", (flop as f64).into()), ("seconds", seconds.into())]))
    }

    /// Prepares the forward process of a picture; resolves to a [`ForwardProcess`]. `options` are those of `ForwardOptions` in
    /// index.d.ts but for the seed, the picture and the signal, as JSON.
    pub fn forward_process(&self, seed: u64, options: String, image: Pixels) -> Promise {
        let pipeline = self.0.clone();
        let image = picture_of(image);
        promise(async move {
            let options = forward_options(&options)?;
            let has_scheduler = matches!(options.scheduler, Scheduler::Config(_));
            let process = pipeline.forward_process(ForwardOptions { seed, image, ..options }).await;
            let process = process.map_err(|error| of_run(error, has_scheduler))?;
            let (num_train_timesteps, shape) = (process.num_train_timesteps() as u32, process.shape());
            Ok(ForwardProcess { num_train_timesteps, shape, slot: Slot::new(process) }.into())
        })
    }

    /// Prepares the bound of pictures; resolves to a [`Bound`]. `options` are those of `BoundOptions` in index.d.ts but for the seed,
    /// the pictures and the signal, as JSON.
    pub fn bound(&self, seed: u64, options: String, images: Vec<Pixels>) -> Promise {
        let pipeline = self.0.clone();
        let images = images.into_iter().map(picture_of).collect();
        promise(async move {
            let bound = pipeline.bound(BoundOptions { seed, images, ..bound_options(&options)? }).await?;
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

    /// Prepares a run; resolves to a [`Sampler`]. `options` are those of `SampleOptions` in index.d.ts but for the seeds, the
    /// pictures and the signal, as JSON; `scheduler` in it is JSON of its own, in a string.
    pub fn sample(
        &self,
        seed: u64,
        seeds: Vec<u64>,
        options: String,
        image: Option<Pixels>,
        mask: Option<Pixels>,
    ) -> Promise {
        let pipeline = self.0.clone();
        let asked = RunRequest { seed, seeds, image: image.map(picture_of), mask: mask.map(picture_of), options };
        promise(async move {
            let (options, has_scheduler) = asked.options()?;
            let sampler = pipeline.sampler(options).await;
            let sampler = sampler.map_err(|error| of_run(error, has_scheduler))?;
            let (total, warning) = (sampler.total() as u32, sampler.warning().map(str::to_owned));
            Ok(Sampler { total, warning, slot: Slot::new(sampler) }.into())
        })
    }
}

/// What is asked of a run.
struct RunRequest {
    seed: u64,
    seeds: Vec<u64>,
    image: Option<Rgba>,
    mask: Option<Rgba>,
    /// All else, as JSON.
    options: String,
}

impl RunRequest {
    /// As the crate has it, and whether it brings a scheduler of its own.
    fn options(self) -> Result<(SampleOptions, bool), Error> {
        let Self { seed, seeds, image, mask, options } = self;
        let options = SampleOptions { seed, seeds, image, mask, ..sample_options(&options)? };
        let has_scheduler = matches!(options.scheduler, Scheduler::Config(_));
        Ok((options, has_scheduler))
    }
}

/// The error of a run, which may lie in a scheduler that came with the options.
fn of_run(error: pipeline::Error, has_scheduler: bool) -> Error {
    match error {
        pipeline::Error::Diffusion(error) if has_scheduler => Error::Scheduler(error),
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
    /// What of it is not used, and what had to be guessed.
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
    /// None yet.
    #[wasm_bindgen(constructor)]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one.
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
    /// T.
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
    /// How many terms there are.
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
    /// How many steps the run has.
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

    /// Resolves to where the time of the last step made goes: `Profile` of index.d.ts, as JSON.
    pub fn profile(&self) -> Promise {
        self.slot.ask(async |sampler| Ok(sampler.profile().await?.to_json().to_string().into()))
    }

    /// Resolves to x_T, a `Float32Array` `[batch, channels, height, width]`.
    pub fn initial_latents(&self) -> Promise {
        self.slot.ask(async |sampler| Ok(Float32Array::from(sampler.initial_latents()).into()))
    }

    /// Resolves to x_t after the last step made, likewise.
    pub fn latents(&self) -> Promise {
        self.slot.ask(async |sampler| Ok(Float32Array::from(&sampler.latents().await?[..]).into()))
    }

    /// Resolves to the picture of that x_t, likewise, in 0..1.
    pub fn image(&self) -> Promise {
        self.slot.ask(async |sampler| Ok(Float32Array::from(&sampler.image().await?[..]).into()))
    }

    /// Frees what the run holds, now or when the step under way is done, and this object.
    pub fn dispose(self) {
        self.slot.dispose();
    }
}

/// The fields of an object of JSON, taken one after the other.
struct Fields(Map<String, Value>);

impl Fields {
    /// The field `key`; `None` where it is absent or null.
    fn take<T: DeserializeOwned>(&mut self, key: &str) -> Result<Option<T>, serde_json::Error> {
        let value = self.0.remove(key).unwrap_or_default();
        serde_json::from_value(value).map_err(|error| serde_json::Error::custom(format_args!("`{key}`: {error}")))
    }

    /// A prompt, or a list of them.
    fn take_text(&mut self, key: &str) -> Result<Option<Text>, serde_json::Error> {
        if self.0.get(key).is_some_and(Value::is_string) {
            return Ok(self.take::<String>(key)?.map(Text::from));
        }
        Ok(self.take::<Vec<String>>(key)?.map(Text::from))
    }

    /// Whose random stream a seed begins.
    fn take_generator(&mut self) -> Result<Stream, serde_json::Error> {
        Ok(match self.take::<String>("generator")?.as_deref() {
            Some("cuda") => Stream::TorchCuda,
            _ => Stream::TorchCpu,
        })
    }

    /// The solver, by its name or by a config, and the settings that its name says.
    fn take_scheduler(&mut self) -> Result<(Scheduler, SolverKeys), Error> {
        let scheduler = match (self.take::<String>("scheduler")?, self.take::<String>("solver")?) {
            // The text of a scheduler_config.json.
            (Some(config), _) => {
                Scheduler::Config(Box::new(SchedulerConfig::from_json(&config).map_err(Error::Scheduler)?))
            }
            (None, Some(name)) => {
                let SolverName { solver, keys } = name.parse().map_err(pipeline::Error::from)?;
                return Ok((Scheduler::Solver(solver), keys));
            }
            (None, None) => Scheduler::Checkpoint,
        };
        Ok((scheduler, SolverKeys::default()))
    }

    /// The solver's settings.
    fn take_solver_keys(&mut self) -> Result<SolverKeys, serde_json::Error> {
        Ok(SolverKeys {
            use_karras_sigmas: self.take("useKarrasSigmas")?,
            use_exponential_sigmas: self.take("useExponentialSigmas")?,
            use_beta_sigmas: self.take("useBetaSigmas")?,
            algorithm_type: self.take("algorithmType")?,
            solver_order: self.take("solverOrder")?,
        })
    }

    /// How pictures are made of latents.
    fn take_preview(&mut self) -> Result<Preview, serde_json::Error> {
        Ok(match self.take::<String>("preview")?.as_deref() {
            Some("decode") => Preview::Decode,
            Some("tiny") => Preview::Tiny,
            Some("linear") => Preview::Linear,
            Some("none") => Preview::None,
            _ => Preview::Auto,
        })
    }

    /// Refuses what nobody has taken.
    fn finish(self) -> Result<(), serde_json::Error> {
        match self.0.keys().next() {
            Some(key) => Err(serde_json::Error::custom(format_args!("unknown field `{key}`"))),
            None => Ok(()),
        }
    }
}

/// All of [`SampleOptions`] but the seeds and the pictures, as JavaScript names them; what is absent takes the default. Which words
/// there are for a choice, and that only one of the solver and the scheduler is there, options.js has seen to.
fn sample_options(json: &str) -> Result<SampleOptions, Error> {
    let mut fields = Fields(serde_json::from_slice(json.as_bytes())?);
    let usual = SampleOptions::default();
    let (scheduler, keys) = fields.take_scheduler()?;
    let options = SampleOptions {
        prompt: fields.take_text("prompt")?.unwrap_or(usual.prompt),
        prompt_2: fields.take_text("prompt2")?,
        negative_prompt: fields.take_text("negativePrompt")?,
        negative_prompt_2: fields.take_text("negativePrompt2")?,
        num_images_per_prompt: fields.take("numImagesPerPrompt")?.unwrap_or(usual.num_images_per_prompt),
        generator: fields.take_generator()?,
        steps: fields.take("steps")?.unwrap_or(usual.steps),
        timesteps: fields.take("timesteps")?,
        sigmas: fields.take("sigmas")?,
        original_inference_steps: fields.take("originalInferenceSteps")?,
        guidance_scale: fields.take("guidanceScale")?.unwrap_or(usual.guidance_scale),
        guidance_rescale: fields.take("guidanceRescale")?.unwrap_or(usual.guidance_rescale),
        scheduler,
        solver_keys: fields.take_solver_keys()?.or(keys),
        eta: fields.take("eta")?.unwrap_or(usual.eta),
        use_clipped_model_output: fields.take("useClippedModelOutput")?.unwrap_or(usual.use_clipped_model_output),
        height: fields.take("height")?,
        width: fields.take("width")?,
        strength: fields.take("strength")?,
        start_timestep: fields.take("startTimestep")?,
        noise_level: fields.take("noiseLevel")?,
        clip_skip: fields.take("clipSkip")?,
        long_prompts: match fields.take::<String>("longPrompts")?.as_deref() {
            Some("chunks") => LongPrompts::Chunks,
            _ => LongPrompts::Cut,
        },
        original_size: fields.take("originalSize")?,
        crops_coords_top_left: fields.take("cropsCoordsTopLeft")?.unwrap_or(usual.crops_coords_top_left),
        target_size: fields.take("targetSize")?,
        negative_original_size: fields.take("negativeOriginalSize")?,
        negative_crops_coords_top_left: fields
            .take("negativeCropsCoordsTopLeft")?
            .unwrap_or(usual.negative_crops_coords_top_left),
        negative_target_size: fields.take("negativeTargetSize")?,
        preview: fields.take_preview()?,
        vae_tiling: fields.take("vaeTiling")?.unwrap_or(usual.vae_tiling),
        ..usual
    };
    fields.finish()?;
    Ok(options)
}

/// All of [`ForwardOptions`] but the seed and the picture, likewise.
fn forward_options(json: &str) -> Result<ForwardOptions, Error> {
    let mut fields = Fields(serde_json::from_slice(json.as_bytes())?);
    let usual = ForwardOptions::new(Rgba { width: 0, height: 0, pixels: Vec::new() });
    let options = ForwardOptions {
        space: match fields.take::<String>("space")?.as_deref() {
            Some("pixels") => Space::Pixels,
            _ => Space::Latents,
        },
        generator: fields.take_generator()?,
        // Noise is the same for all of a solver's settings.
        scheduler: fields.take_scheduler()?.0,
        prompt: fields.take_text("prompt")?.unwrap_or(usual.prompt),
        negative_prompt: fields.take_text("negativePrompt")?,
        guidance_scale: fields.take("guidanceScale")?.unwrap_or(usual.guidance_scale),
        height: fields.take("height")?,
        width: fields.take("width")?,
        preview: fields.take_preview()?,
        ..usual
    };
    fields.finish()?;
    Ok(options)
}

/// All of [`BoundOptions`] but the seed and the pictures, likewise.
fn bound_options(json: &str) -> Result<BoundOptions, Error> {
    let mut fields = Fields(serde_json::from_slice(json.as_bytes())?);
    let usual = BoundOptions::default();
    let (listed, terms) = (fields.take("timesteps")?, fields.take("terms")?);
    let options = BoundOptions {
        prompt: fields.take_text("prompt")?.unwrap_or(usual.prompt),
        negative_prompt: fields.take_text("negativePrompt")?,
        guidance_scale: fields.take("guidanceScale")?.unwrap_or(usual.guidance_scale),
        timesteps: match (listed, terms, fields.take("random")?) {
            (Some(list), _, _) => Timesteps::List(list),
            (None, Some(count), Some(true)) => Timesteps::Drawn(count),
            (None, Some(count), _) => Timesteps::Spread(count),
            (None, None, _) => Timesteps::All,
        },
        variance: match fields.take::<String>("variance")? {
            Some(name) => Some(name.parse().map_err(pipeline::Error::from)?),
            None => None,
        },
        clip_denoised: fields.take("clipDenoised")?.unwrap_or(usual.clip_denoised),
        sample_posterior: fields.take("samplePosterior")?.unwrap_or(usual.sample_posterior),
        height: fields.take("height")?,
        width: fields.take("width")?,
        ..usual
    };
    fields.finish()?;
    Ok(options)
}

/// A note on a checkpoint, with the option that says otherwise as JavaScript has it.
fn words(note: &Note) -> String {
    match note.option {
        Some((option, value)) => format!("{}; {}: \"{value}\" says otherwise", note.text, error::camel_case(option)),
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
