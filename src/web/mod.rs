//! The JavaScript side of the crate: what the package's worker calls. Nothing else knows JavaScript.
//!
//! Two classes cross the boundary, [`Pipeline`] and [`Sampler`]. Methods that take time return promises, and hold nothing
//! that another call could find borrowed, in whatever order JavaScript makes its calls.

mod error;
mod slot;
mod source;

use js_sys::{Array, Float32Array, Function, Object, Promise, Reflect, Uint8ClampedArray};
use serde::Deserialize;
use serde_json::json;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::future_to_promise;

use crate::device::{self, Device};
use crate::diffusion::{SchedulerConfig, Solver};
use crate::gpu;
use crate::pipeline::{self, LoadProgress, Preview, Rgba, SampleOptions, Scheduler, StepOutput};
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
        _options: JsValue,
        on_progress: Function,
    ) -> Result<Pipeline, JsValue> {
        let failure = Failure::default();
        let source = JsSource::new(source, failure.clone());
        let device = open_device(&device).await.map_err(|error| Error::from(error).into_js())?;
        let mut on_progress = |LoadProgress { file, loaded, total }| {
            // A listener that throws cannot stop the load: that is what the source's signal is for.
            let _ = on_progress.call3(&JsValue::NULL, &file.into(), &(loaded as f64).into(), &(total as f64).into());
        };
        match pipeline::Pipeline::load(&source, device, &mut on_progress).await {
            Ok(pipeline) => Ok(Self(pipeline)),
            Err(error) => Err(failure.behind(&error).unwrap_or_else(|| Error::from(error).into_js())),
        }
    }

    /// What the checkpoint says of itself: `ModelInfo` of index.d.ts, as JSON.
    pub fn info(&self) -> String {
        let info = self.0.info();
        json!({
            "class": info.class,
            "scheduler": info.scheduler,
            "solvers": Solver::ALL.map(Solver::name),
            "takesPrompt": info.takes_prompt,
            "takesImage": info.takes_prompt,
            "takesMask": info.takes_prompt,
            "needsImage": false,
            "takesNoiseLevel": false,
            "takesSizes": false,
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

    /// Prepares a run; resolves to a [`Sampler`]. `options` are those of `SampleOptions` in index.d.ts but for the seed and
    /// the signal, as JSON; `scheduler` in it is JSON of its own, in a string.
    pub fn sample(&self, seed: u64, _seeds: Vec<u64>, options: String, _image: JsValue, _mask: JsValue) -> Promise {
        let pipeline = self.0.clone();
        future_to_promise(async move {
            let sampler = async {
                let options: Options = serde_json::from_str(&options)?;
                let has_scheduler = options.scheduler.is_some();
                let sampler = async { pipeline.sampler(options.with_seed(seed)?).await };
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
    prompt: Option<String>,
    negative_prompt: Option<String>,
    steps: Option<usize>,
    guidance_scale: Option<f64>,
    solver: Option<String>,
    /// The text of a scheduler_config.json. The package's options.js lets only one of this and the solver through.
    scheduler: Option<String>,
    eta: Option<f64>,
    width: Option<usize>,
    height: Option<usize>,
    preview: Option<String>,
}

impl Options {
    fn with_seed(self, seed: u64) -> Result<SampleOptions, pipeline::Error> {
        let usual = SampleOptions::default();
        Ok(SampleOptions {
            prompt: self.prompt.unwrap_or(usual.prompt),
            negative_prompt: self.negative_prompt.unwrap_or(usual.negative_prompt),
            seed,
            steps: self.steps.unwrap_or(usual.steps),
            guidance_scale: self.guidance_scale.unwrap_or(usual.guidance_scale),
            scheduler: match (self.scheduler, self.solver) {
                (Some(config), _) => Scheduler::Config(Box::new(SchedulerConfig::from_json(&config)?)),
                (None, Some(name)) => Scheduler::Solver(name.parse()?),
                (None, None) => Scheduler::Checkpoint,
            },
            eta: self.eta.unwrap_or(usual.eta),
            height: self.height,
            width: self.width,
            preview: if self.preview.as_deref() == Some("none") { Preview::None } else { Preview::Decode },
        })
    }
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
