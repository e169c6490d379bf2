//! The JavaScript side of the crate: what the package's worker calls. Nothing else knows JavaScript.
//!
//! Two classes cross the boundary, [`Pipeline`] and [`Sampler`]. Methods that take time return promises, and hold nothing
//! that another call could find borrowed, in whatever order JavaScript makes its calls.

mod error;
mod slot;
mod source;

use std::rc::Rc;

use js_sys::{Array, Float32Array, Function, Object, Promise, Reflect, Uint8ClampedArray};
use serde::Deserialize;
use serde_json::json;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::future_to_promise;

use crate::device::{self, Device};
use crate::diffusion::{SchedulerConfig, Solver};
use crate::gpu;
use crate::noise::Stream;
use crate::pipeline::{
    self, Checkpoint, LoadProgress, LongPrompts, LoraFile, OpenOptions, Preview, Rgba, SampleOptions, Scheduler,
    StepOutput, Takes, Text,
};
use crate::weights::Source;
use error::Error;
use slot::Slot;
pub use source::OpenSource;
use source::{Failure, JsSource};

/// Prepares the module, once and before all else: a panic is written to the console and told to `on_panic`, because the
/// promises that it leaves behind never settle.
#[wasm_bindgen]
pub fn start(on_panic: Function) {
    std::panic::set_hook(Box::new(move |info| {
        console_error_panic_hook::hook(info);
        // If JavaScript throws as well, there is nobody left to tell.
        let _ = on_panic.call1(&JsValue::NULL, &info.to_string().into());
    }));
}

#[wasm_bindgen]
extern "C" {
    /// Of `LoadOptions` of index.d.ts, what says which files are read and how: `variant`, `unet`, `predictionType`, and as
    /// `OpenSource`s `tinyVae` and `vocabulary`, which has CLIP's `merges.txt`.
    #[wasm_bindgen(typescript_type = "object")]
    pub type Files;

    #[wasm_bindgen(method, getter)]
    fn variant(this: &Files) -> Option<String>;

    #[wasm_bindgen(method, getter)]
    fn unet(this: &Files) -> Option<String>;

    #[wasm_bindgen(method, getter, js_name = predictionType)]
    fn prediction_type(this: &Files) -> Option<String>;

    #[wasm_bindgen(method, getter, js_name = tinyVae)]
    fn tiny_vae(this: &Files) -> Option<OpenSource>;

    #[wasm_bindgen(method, getter)]
    fn vocabulary(this: &Files) -> OpenSource;

    /// `Pixels` of protocol.js.
    #[wasm_bindgen(typescript_type = "object")]
    pub type Pixels;

    #[wasm_bindgen(method, getter)]
    fn width(this: &Pixels) -> f64;

    #[wasm_bindgen(method, getter)]
    fn height(this: &Pixels) -> f64;

    #[wasm_bindgen(method, getter)]
    fn data(this: &Pixels) -> Uint8ClampedArray;
}

/// A loaded checkpoint; `free` it, and its runs, to free what it holds on its device.
#[wasm_bindgen]
pub struct Pipeline(pipeline::Pipeline);

#[wasm_bindgen]
impl Pipeline {
    /// Loads the checkpoint in `source` onto `device`, `"webgpu"` or `"cpu"`. `on_progress` is called with the path of the
    /// file being read, the bytes read so far of all weight files, and their sum.
    ///
    /// # Errors
    /// A JavaScript error with the `code` of its kind; an error of `source` as it came.
    pub async fn load(
        source: OpenSource,
        device: String,
        files: Files,
        on_progress: Function,
    ) -> Result<Pipeline, JsValue> {
        let failure = Failure::default();
        let read = |source| JsSource::new(source, failure.clone());
        let (source, vocabulary, tiny_vae) = (read(source), read(files.vocabulary()), files.tiny_vae().map(read));
        let device = open_device(&device).await.map_err(|error| Error::from(error).into_js())?;
        let mut on_progress = |LoadProgress { file, loaded, total }| {
            // A listener that throws cannot stop the load: that is what the source's signal is for.
            let _ = on_progress.call3(&JsValue::NULL, &file.into(), &(loaded as f64).into(), &(total as f64).into());
        };
        let options = OpenOptions {
            variant: files.variant(),
            unet: files.unet(),
            prediction_type: files.prediction_type(),
            vocabulary: Some(&vocabulary),
        };
        let load = async {
            let pipeline = Checkpoint::open(&source, &options).await?.load(device, &mut on_progress).await?;
            if let Some(tiny_vae) = tiny_vae {
                pipeline.set_tiny_vae(&tiny_vae, &mut |_, _| {}).await?;
            }
            Ok(Self(pipeline))
        };
        load.await.map_err(|error| failure.unwrap(error))
    }

    /// What the checkpoint says of itself: `ModelInfo` of index.d.ts, as JSON.
    pub fn info(&self) -> String {
        let info = self.0.info();
        json!({
            "class": info.class,
            "scheduler": info.scheduler,
            "solvers": Solver::ALL.map(Solver::name),
            "takesPrompt": info.takes_prompt,
            "takesSizes": info.takes_second_prompt,
            "takesImage": info.takes_image != Takes::Never,
            "takesMask": info.takes_mask != Takes::Never,
            "needsImage": info.takes_image == Takes::Required,
            "takesNoiseLevel": info.enlarges,
            "maxTokens": info.max_tokens,
            "width": info.width,
            "height": info.height,
            "sizeMultiple": info.scale_factor,
            "bytes": info.bytes,
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

    /// Merges the LoRAs of `set` into the weights, in place of those that were.
    pub fn set_loras(&self, set: LoraSet) -> Promise {
        let pipeline = self.0.clone();
        future_to_promise(async move {
            let loras: Vec<_> = set.0.iter().map(|(file, weight)| (&**file, *weight)).collect();
            let done = pipeline.set_loras(&loras).await;
            done.map(|()| JsValue::UNDEFINED).map_err(|error| Error::from(error).into_js())
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
        let (image, mask) = (image.map(picture_of), mask.map(picture_of));
        future_to_promise(async move {
            let sampler = async {
                let options: Options = serde_json::from_str(&options)?;
                let has_scheduler = options.scheduler.is_some();
                let options = options.into_sample_options();
                let sampler = async { pipeline.sampler(SampleOptions { seed, seeds, image, mask, ..options? }).await };
                sampler.await.map_err(|error| match error {
                    pipeline::Error::Diffusion(error) if has_scheduler => Error::Scheduler(error),
                    error => error.into(),
                })
            };
            let sampler = sampler.await.map_err(Error::into_js)?;
            let (total, warning) = (sampler.total() as u32, sampler.warning().map(str::to_owned));
            Ok(Sampler { total, warning, slot: Slot::new(sampler) }.into())
        })
    }
}

/// A LoRA's file, read.
#[wasm_bindgen]
pub struct Lora(Rc<LoraFile>);

#[wasm_bindgen]
impl Lora {
    /// Reads the one file of `source`.
    ///
    /// # Errors
    /// As of [`Pipeline::load`].
    pub async fn open(source: OpenSource) -> Result<Lora, JsValue> {
        let failure = Failure::default();
        let source = JsSource::new(source, failure.clone());
        match LoraFile::open(&source, source.single_file().unwrap_or_default()).await {
            Ok(file) => Ok(Self(Rc::new(file))),
            Err(error) => Err(failure.unwrap(error)),
        }
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

async fn open_device(kind: &str) -> Result<Device, pipeline::Error> {
    match kind {
        "cpu" => Ok(Device::Cpu),
        _ => Ok(Device::Gpu(gpu::Device::request(gpu::DeviceOptions::default()).await.map_err(device::Error::from)?)),
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

    /// Computes the next step; resolves to `PlainStep` of protocol.js but for its `milliseconds`, and after the last step to
    /// undefined.
    pub fn step(&self) -> Promise {
        self.ask(async |sampler| Ok(sampler.step().await?.map_or(JsValue::UNDEFINED, step_to_js)))
    }

    /// Resolves to x_T, a `Float32Array` `[batch, channels, height, width]`.
    pub fn initial_latents(&self) -> Promise {
        self.ask(async |sampler| Ok(Float32Array::from(sampler.initial_latents()).into()))
    }

    /// Resolves to x_t after the last step made, likewise.
    pub fn latents(&self) -> Promise {
        self.ask(async |sampler| Ok(Float32Array::from(&sampler.latents().await?[..]).into()))
    }

    /// Resolves to the picture of that x_t, likewise, in 0..1.
    pub fn image(&self) -> Promise {
        self.ask(async |sampler| Ok(Float32Array::from(&sampler.image().await?[..]).into()))
    }

    /// Frees what the run holds, now or when the step under way is done, and this object.
    pub fn dispose(self) {
        self.slot.dispose();
    }
}

impl Sampler {
    /// Has the sampler do something during which no other call can use it.
    fn ask(
        &self,
        work: impl AsyncFnOnce(&mut pipeline::Sampler) -> Result<JsValue, pipeline::Error> + 'static,
    ) -> Promise {
        let slot = self.slot.clone();
        future_to_promise(async move {
            let mut sampler = slot.take().map_err(Error::into_js)?;
            let answer = work(&mut sampler).await;
            slot.put(sampler);
            answer.map_err(|error| Error::from(error).into_js())
        })
    }
}

/// [`SampleOptions`] as JavaScript names them. What is absent takes the default there.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Options {
    prompt: Option<Texts>,
    prompt2: Option<Texts>,
    negative_prompt: Option<Texts>,
    negative_prompt2: Option<Texts>,
    num_images_per_prompt: Option<usize>,
    steps: Option<usize>,
    timesteps: Option<Vec<f64>>,
    sigmas: Option<Vec<f64>>,
    original_inference_steps: Option<usize>,
    guidance_scale: Option<f64>,
    guidance_rescale: Option<f64>,
    solver: Option<String>,
    /// The text of a scheduler_config.json. The package's options.js lets only one of this and the solver through.
    scheduler: Option<String>,
    eta: Option<f64>,
    use_clipped_model_output: Option<bool>,
    width: Option<usize>,
    height: Option<usize>,
    strength: Option<f64>,
    noise_level: Option<usize>,
    clip_skip: Option<usize>,
    long_prompts: Option<String>,
    generator: Option<String>,
    original_size: Option<[usize; 2]>,
    crops_coords_top_left: Option<[usize; 2]>,
    target_size: Option<[usize; 2]>,
    negative_original_size: Option<[usize; 2]>,
    negative_crops_coords_top_left: Option<[usize; 2]>,
    negative_target_size: Option<[usize; 2]>,
    preview: Option<String>,
    vae_tiling: Option<bool>,
}

/// A prompt, or a list of them.
#[derive(Deserialize)]
#[serde(untagged)]
enum Texts {
    One(String),
    Several(Vec<String>),
}

impl From<Texts> for Text {
    fn from(texts: Texts) -> Self {
        match texts {
            Texts::One(text) => text.into(),
            Texts::Several(texts) => texts.into(),
        }
    }
}

impl Options {
    /// All but the seeds and the pictures. Which words there are for a choice, options.js has seen to.
    fn into_sample_options(self) -> Result<SampleOptions, pipeline::Error> {
        let usual = SampleOptions::default();
        Ok(SampleOptions {
            prompt: self.prompt.map_or(usual.prompt, Text::from),
            prompt_2: self.prompt2.map(Text::from),
            negative_prompt: self.negative_prompt.map(Text::from),
            negative_prompt_2: self.negative_prompt2.map(Text::from),
            num_images_per_prompt: self.num_images_per_prompt.unwrap_or(usual.num_images_per_prompt),
            generator: match self.generator.as_deref() {
                Some("cuda") => Stream::TorchCuda,
                _ => Stream::TorchCpu,
            },
            steps: self.steps.unwrap_or(usual.steps),
            timesteps: self.timesteps,
            sigmas: self.sigmas,
            original_inference_steps: self.original_inference_steps,
            guidance_scale: self.guidance_scale.unwrap_or(usual.guidance_scale),
            guidance_rescale: self.guidance_rescale.unwrap_or(usual.guidance_rescale),
            scheduler: match (self.scheduler, self.solver) {
                (Some(config), _) => Scheduler::Config(Box::new(SchedulerConfig::from_json(&config)?)),
                (None, Some(name)) => Scheduler::Solver(name.parse()?),
                (None, None) => Scheduler::Checkpoint,
            },
            eta: self.eta.unwrap_or(usual.eta),
            use_clipped_model_output: self.use_clipped_model_output.unwrap_or(usual.use_clipped_model_output),
            height: self.height,
            width: self.width,
            strength: self.strength,
            noise_level: self.noise_level,
            clip_skip: self.clip_skip,
            long_prompts: match self.long_prompts.as_deref() {
                Some("chunks") => LongPrompts::Chunks,
                _ => LongPrompts::Cut,
            },
            original_size: self.original_size,
            crops_coords_top_left: self.crops_coords_top_left.unwrap_or(usual.crops_coords_top_left),
            target_size: self.target_size,
            negative_original_size: self.negative_original_size,
            negative_crops_coords_top_left: self
                .negative_crops_coords_top_left
                .unwrap_or(usual.negative_crops_coords_top_left),
            negative_target_size: self.negative_target_size,
            preview: match self.preview.as_deref() {
                Some("decode") => Preview::Decode,
                Some("tiny") => Preview::Tiny,
                Some("linear") => Preview::Linear,
                Some("none") => Preview::None,
                _ => Preview::Auto,
            },
            vae_tiling: self.vae_tiling.unwrap_or(usual.vae_tiling),
            ..usual
        })
    }
}

fn picture_of(pixels: Pixels) -> Rgba {
    Rgba { width: pixels.width() as usize, height: pixels.height() as usize, pixels: pixels.data().to_vec() }
}

fn step_to_js(step: StepOutput) -> JsValue {
    object(&[
        ("index", (step.index as f64).into()),
        ("total", (step.total as f64).into()),
        ("timestep", step.timestep.into()),
        ("images", images_to_js(step.images)),
        ("denoised", images_to_js(step.denoised)),
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
