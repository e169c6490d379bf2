//! Every error of the crate as a JavaScript error: a stable `code`, the sentence, and the file, tensor or option concerned.

use js_sys::Reflect;
use wasm_bindgen::JsValue;

#[cfg(feature = "features")]
use crate::metrics;
use crate::{cpu, device, diffusion, gpu, graph, models, pipeline, text, weights};

/// An error of a call from JavaScript.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An error from the pipeline or below.
    #[error(transparent)]
    Pipeline(#[from] pipeline::Error),
    /// An error from the features of pictures or what is made of them.
    #[cfg(feature = "features")]
    #[error(transparent)]
    Metrics(#[from] metrics::Error),
    /// A device that does not open.
    #[error(transparent)]
    Device(#[from] device::Error),
    /// Options that are not the JSON that the package's options.js makes.
    #[error("the options cannot be read: {0}")]
    Options(#[from] serde_json::Error),
    /// A scheduler's config that came with the options instead of the checkpoint.
    #[error(transparent)]
    Scheduler(diffusion::Error),
    /// The run is in use by a call that has not returned.
    #[error("this run is computing a step already; wait for that one first")]
    Busy,
    /// An error of JavaScript's own, as it came.
    #[error("{0:?}")]
    Js(JsValue),
    /// The run was disposed of.
    #[error("this run was disposed of")]
    Disposed,
}

/// The facts of an error besides its sentence: `code` and `ErrorDetails` of index.d.ts.
struct Facts {
    code: &'static str,
    file: Option<String>,
    tensor: Option<String>,
    option: Option<String>,
    limit: Option<u64>,
}

impl Error {
    /// A JavaScript `Error`, which the package's errors.js turns into one of its classes.
    pub fn into_js(self) -> JsValue {
        let facts = match &self {
            Self::Js(error) => return error.clone(),
            Self::Pipeline(error) => of_pipeline(error),
            #[cfg(feature = "features")]
            Self::Metrics(error) => of_metrics(error),
            Self::Device(error) => of_device(error),
            Self::Options(_) => Facts::new("invalid-option"),
            Self::Scheduler(error) => match of_diffusion(error) {
                facts @ Facts { option: Some(_), .. } => facts,
                _ => Facts::new("invalid-option").option("scheduler"),
            },
            Self::Busy => Facts::new("busy"),
            Self::Disposed => Facts::new("disposed"),
        };
        let sentence = match self {
            Self::Pipeline(error) => error.with_option_names(&quoted),
            Self::Scheduler(error) => pipeline::Error::from(error).with_option_names(&pipeline::camel_case),
            error => error.to_string(),
        };
        let error = JsValue::from(js_sys::Error::new(&pipeline::brief(&sentence)));
        let details = [("file", facts.file), ("tensor", facts.tensor), ("option", facts.option)];
        let details = details.into_iter().filter_map(|(key, value)| Some((key, value?)));
        let details = details.chain([("code", facts.code.to_owned())]).map(|(key, value)| (key, value.into()));
        let limit = facts.limit.map(|limit| ("limit", JsValue::from(limit as f64)));
        for (key, value) in details.chain(limit) {
            // A fresh object takes every property.
            let _ = Reflect::set(&error, &key.into(), &value);
        }
        error
    }
}

/// An option as sentences have it.
fn quoted(option: &str) -> String {
    format!("`{}`", pipeline::camel_case(option))
}

impl Facts {
    fn new(code: &'static str) -> Self {
        Self { code, file: None, tensor: None, option: None, limit: None }
    }

    fn file(self, file: impl Into<String>) -> Self {
        Self { file: Some(file.into()), ..self }
    }

    fn tensor(self, tensor: impl Into<String>) -> Self {
        Self { tensor: Some(tensor.into()), ..self }
    }

    fn option(self, option: &str) -> Self {
        Self { option: Some(pipeline::camel_case(option)), ..self }
    }
}

fn of_pipeline(error: &pipeline::Error) -> Facts {
    use pipeline::Error::*;
    match error {
        Weights(error) => of_weights(error),
        Tokenizer { folder, source } => of_text(folder, source),
        Text(error) => of_text("tokenizer", error),
        Diffusion(error) => of_diffusion(error),
        Model { file, source } => of_model(source).file(file),
        Json { file, .. } => Facts::new("file-corrupt").file(file),
        SingleFile { file, .. } | NoPlace { file, .. } => Facts::new("unsupported").file(file),
        UnsupportedPipeline { .. } => Facts::new("unsupported").file("model_index.json"),
        Shape { file, tensor, .. } | MissingTensor { file, tensor, .. } => {
            Facts::new("shape-mismatch").file(file).tensor(tensor)
        }
        Graph(error) => of_graph(error),
        Device(error) => of_device(error),
        Option { option, .. } => Facts::new("invalid-option").option(option),
        Given { source, .. } => of_pipeline(source),
        Input { .. } => Facts::new("internal"),
    }
}

#[cfg(feature = "features")]
fn of_metrics(error: &metrics::Error) -> Facts {
    use metrics::Error::*;
    match error {
        Weights(error) => of_weights(error),
        Model { file, source } => of_model(source).file(file),
        NoFeatureNetwork { name, .. } => Facts::new("unsupported").file(name),
        Pickle { file } => Facts::new("unsupported").file(file),
        MissingTensor { file, tensor, .. } | Shape { file, tensor, .. } => {
            Facts::new("shape-mismatch").file(file).tensor(tensor)
        }
        Picture { .. } => Facts::new("invalid-option").option("images"),
        NoLabels { .. } => Facts::new("unsupported"),
        File { file, .. } | NoStatistics { file } => Facts::new("file-corrupt").file(file),
        Spaces { .. } | TooFew { .. } => Facts::new("invalid-option").option("real"),
        NotFinite { .. } | Covariance { .. } | Length { .. } => Facts::new("file-corrupt"),
        Device(error) => of_device(error),
    }
}

fn of_weights(error: &weights::Error) -> Facts {
    use weights::Error::*;
    match error {
        NotFound { file, .. } => Facts::new("file-missing").file(file),
        Read { file, .. } => Facts::new("file-unreadable").file(file),
        Pickle { file } => Facts::new("unsupported").file(file),
        Path { path } => Facts::new("file-corrupt").file(path),
        TooLarge { file, .. } | TrailingBytes { file, .. } | Header { file, .. } | Foreign { file, .. } => {
            Facts::new("file-corrupt").file(file)
        }
        Truncated { file, tensor, .. } => Facts { tensor: tensor.clone(), ..Facts::new("file-truncated").file(file) },
        Tensor { file, tensor, .. } => Facts::new("file-corrupt").file(file).tensor(tensor),
    }
}

fn of_text(folder: &str, error: &text::Error) -> Facts {
    use text::Error::*;
    let corrupt = |file: &str| Facts::new("file-corrupt").file(format!("{folder}/{file}"));
    match error {
        File { file, .. } => corrupt(file),
        Merge { .. } => corrupt("merges.txt"),
        MissingToken { .. } => corrupt("vocab.json"),
        TooFewPositions { .. } => Facts::new("unsupported").file("text_encoder/config.json"),
    }
}

fn of_diffusion(error: &diffusion::Error) -> Facts {
    use diffusion::Error::*;
    let config = "scheduler/scheduler_config.json";
    match error {
        Json(_) | NoClassName | WrongType { .. } => Facts::new("file-corrupt").file(config),
        UnsupportedClass { .. } | UnsupportedValue { .. } | NotFinite { .. } | Bound(_) => {
            Facts::new("unsupported").file(config)
        }
        NumInferenceSteps { .. } | Option { option: "num_inference_steps", .. } => {
            Facts::new("invalid-option").option("steps")
        }
        Option { option, .. } => Facts::new("invalid-option").option(option),
        Length { .. } => Facts::new("internal"),
    }
}

fn of_model(error: &models::Error) -> Facts {
    use models::Error::*;
    match error {
        Config { .. } => Facts::new("file-corrupt"),
        Unsupported { .. } => Facts::new("unsupported"),
        Graph(error) => of_graph(error),
    }
}

fn of_graph(error: &graph::Error) -> Facts {
    use graph::Error::*;
    match error {
        Shape { path, .. } | WeightConflict { path, .. } => Facts::new("shape-mismatch").tensor(path),
        #[cfg(feature = "training")]
        Gradient { path, .. } => Facts::new("unsupported").tensor(path),
        AmbiguousWeight(_) | NoSuchPort { .. } => Facts::new("internal"),
    }
}

fn of_device(error: &device::Error) -> Facts {
    match error {
        device::Error::Cpu(error) => of_cpu(error),
        device::Error::Gpu(error) => of_gpu(error),
        device::Error::Graph(error) => of_graph(error),
        device::Error::Mixed => Facts::new("internal"),
    }
}

fn of_gpu(error: &gpu::Error) -> Facts {
    use gpu::Error::*;
    match error {
        NoAdapter(_) | NoDevice(_) => Facts::new("no-gpu"),
        DeviceLost { .. } => Facts::new("device-lost"),
        OutOfMemory { what, .. } => Facts::new("out-of-memory").tensor(what),
        TooLarge { what, limit, .. } => Facts { limit: Some(*limit), ..Facts::new("out-of-memory").tensor(what) },
        Kernel { path, .. } => Facts::new("gpu").tensor(path),
        Uncaptured(_) | Refused(_) | ReadBack(_) => Facts::new("gpu"),
        Unsupported { path, .. } => Facts::new("unsupported").tensor(path),
        Graph(error) => of_graph(error),
        MissingWeight(name) => Facts::new("shape-mismatch").tensor(name),
        Weight { name, .. } => Facts::new("file-corrupt").tensor(name),
        NonFinite { path, .. } => Facts::new("non-finite").tensor(path),
        Destroyed(_) => Facts::new("disposed"),
        InputLength { .. } => Facts::new("internal"),
    }
}

fn of_cpu(error: &cpu::Error) -> Facts {
    use cpu::Error::*;
    match error {
        Graph(error) => of_graph(error),
        MissingWeight(name) => Facts::new("shape-mismatch").tensor(name),
        Weight { name, .. } => Facts::new("file-corrupt").tensor(name),
        NonFinite { path, .. } => Facts::new("non-finite").tensor(path),
        OutOfMemory { .. } => Facts::new("out-of-memory"),
        Aborted => Facts::new("aborted"),
        Machine(_) => Facts::new("device-lost"),
        InputLength { .. } | NotRun(_) => Facts::new("internal"),
    }
}
