//! `undiffuse inspect`: what a checkpoint is, and whether it can be run, from its configs and headers alone.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use indicatif::{DecimalBytes, HumanCount};
use serde_json::{Map, Value};
use undiffuse::diffusion::PredictionType;
use undiffuse::pipeline::{self, ModelInfo, OpenComponent, brief};
use undiffuse::weights::{DirectorySource, Source, TensorFile, check_path, read_small};

use super::Error;
use super::error::in_words_of_inspect;
use super::model::{self, words};
use super::output::result;
use super::scheduler::Scheduler;

/// Configs are a few kilobytes.
const MAX_CONFIG: usize = 1 << 20;

/// Says what a checkpoint is and whether it can be run
///
/// Shows the parts of a pipeline with their classes, the numbers of their configs that matter most, the parameters,
/// bytes and dtypes of their weight files, the sizes of latents and picture, and the scheduler; then whether
/// `undiffuse sample` can run it, or the reasons why not. Only configs and the headers of weight files are read.
#[derive(clap::Args)]
pub struct Args {
    /// Folder of a checkpoint, with a model_index.json, or of one network, with a config.json; or a checkpoint in one file
    model: PathBuf,

    #[command(flatten)]
    files: model::Files,
}

/// The networks that can be run, with the keys of their configs that say most about them.
const NETWORKS: [(&str, &[&str]); 4] = [
    ("UNet2DModel", &["sample_size", "in_channels", "block_out_channels", "layers_per_block", "attention_head_dim"]),
    (
        "UNet2DConditionModel",
        &["sample_size", "in_channels", "block_out_channels", "layers_per_block", "cross_attention_dim"],
    ),
    ("AutoencoderKL", &["latent_channels", "block_out_channels", "layers_per_block", "scaling_factor"]),
    (
        "CLIPTextModel",
        &["vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings"],
    ),
];

/// What is printed: a name in the margin of the first line of each entry.
#[derive(Default)]
struct Report {
    lines: Vec<(String, String)>,
    /// Why it cannot be run.
    problems: Vec<String>,
    /// The scheduler's class, where it has no solver here and another must be chosen.
    unsolved: Option<String>,
}

/// Prints the report.
pub async fn run(args: Args) -> Result<(), Error> {
    let Args { model, files } = args;
    let folder = model.as_path();
    let mut report = Report::default();
    if folder.is_file() {
        report.single_file(folder, &files).await;
    } else if !folder.is_dir() {
        return Err(Error::path(folder, "there is no such folder; give the folder of a checkpoint, or its one file"));
    } else if folder.join("model_index.json").is_file() {
        report.pipeline(folder, &files).await?;
    } else if folder.join("config.json").is_file() {
        report.network("network", folder, None, &|_| true).await?;
        report.check_network("network", folder).await;
    } else {
        let message = "neither a checkpoint (no model_index.json) nor a network (no config.json)";
        return Err(Error::path(folder, message));
    }
    report.verdict();
    let width = report.lines.iter().map(|(name, _)| name.len().min(32)).max().unwrap_or(0);
    for (name, text) in &report.lines {
        result(format_args!("{:width$}  {}", brief(name), brief(text)))?;
    }
    Ok(())
}

impl Report {
    fn line(&mut self, name: &str, text: impl Into<String>) {
        self.lines.push((name.to_owned(), text.into()));
    }

    /// A checkpoint in one file: what it was recognised as.
    async fn single_file(&mut self, path: &Path, files: &model::Files) {
        let source = DirectorySource::new(path);
        let opened = files.try_open(path).await;
        if let Ok(checkpoint) = &opened {
            let info = checkpoint.info();
            self.line("pipeline", &info.class);
            self.line("layout", &info.layout);
            self.line("scheduler", &info.scheduler);
            let v_prediction = checkpoint.scheduler().prediction_type() == Ok(PredictionType::VPrediction);
            self.line("", format!("prediction_type {}", if v_prediction { "v_prediction" } else { "epsilon" }));
        }
        if let Ok(file) = TensorFile::open(&source, source.single_file().unwrap_or_default()).await {
            self.line("weights", describe(&file));
        }
        match &opened {
            Ok(checkpoint) => self.sizes(checkpoint.info()),
            Err(error) => self.problem(in_words_of_inspect(error)),
        }
    }

    async fn pipeline(&mut self, folder: &Path, files: &model::Files) -> Result<(), Error> {
        let index = read_json(folder, "model_index.json").await?;
        let text = |key: &str| index.get(key).and_then(Value::as_str);
        let version = text("_diffusers_version").map_or(String::new(), |v| format!(", saved by diffusers {v}"));
        self.line("pipeline", format!("{}{version}", text("_class_name").unwrap_or("of no class")));

        let opened = files.try_open(folder).await;
        let read = match &opened {
            Ok(checkpoint) => {
                self.line("layout", &checkpoint.info().layout);
                Some(checkpoint.files())
            }
            Err(error) => {
                self.problem(in_words_of_inspect(error));
                None
            }
        };
        for (name, class) in &index {
            // `"unet": ["diffusers", "UNet2DConditionModel"]`; a part that was left out is `[null, null]`.
            let Some(class) = class.get(1).and_then(Value::as_str) else { continue };
            let part = folder.join(name);
            if name == "scheduler" {
                self.scheduler(folder);
            } else if check_path(name).is_ok() && part.join("config.json").is_file() {
                let prefix = format!("{name}/");
                let read =
                    |file: &str| read.as_ref().is_none_or(|read| read.contains(&format!("{prefix}{file}").as_str()));
                self.network(name, &part, Some(class), &read).await?;
                // Others, such as a safety checker, are not run.
                if opened.is_err() && NETWORKS.iter().any(|(network, _)| *network == class) {
                    self.check_network(name, &part).await;
                }
            } else if name == "unet" && folder.join("config.json").is_file() {
                self.network(name, folder, Some(class), &|_| true).await?;
            } else {
                self.line(name, class);
            }
        }
        if let Ok(checkpoint) = &opened {
            self.sizes(checkpoint.info());
        }
        Ok(())
    }

    /// One network: its class, which the pipeline says or else its config, the numbers of that, its weight files and whether each is `read`.
    async fn network(
        &mut self,
        name: &str,
        folder: &Path,
        class: Option<&str>,
        read: &dyn Fn(&str) -> bool,
    ) -> Result<(), Error> {
        let config = read_json(folder, "config.json").await?;
        let own = config.get("_class_name").or_else(|| config.get("architectures")?.get(0)).and_then(Value::as_str);
        let class = class.or(own).unwrap_or("of no class");
        self.line(name, class);
        let network = NETWORKS.iter().find(|(network, _)| *network == class);
        if let Some((_, keys)) = network {
            let numbers = keys.iter().filter_map(|key| Some((*key, config.get(*key)?)));
            self.line("", numbers.map(|(key, value)| format!("{key} {value}")).collect::<Vec<_>>().join(", "));
        }
        let source = DirectorySource::new(folder);
        for file in weight_files(folder) {
            let described = TensorFile::open(&source, &file).await.map(|file| describe(&file));
            let unread = if read(&file) { "" } else { ", not read" };
            self.line("", described.unwrap_or_else(|error| error.to_string()) + unread);
        }
        Ok(())
    }

    /// Whether the network of `folder` can be run.
    async fn check_network(&mut self, name: &str, folder: &Path) {
        if let Err(error) = OpenComponent::open(&DirectorySource::new(folder), None).await {
            self.problem(format!("{name}: {}", in_words_of_inspect(&error)));
        }
    }

    fn scheduler(&mut self, folder: &Path) {
        let scheduler = match Scheduler::read(folder) {
            Ok(scheduler) => scheduler,
            Err(error) => {
                self.line("scheduler", "cannot be used");
                return self.problem(error.to_string());
            }
        };
        let class = scheduler.config.class_name();
        match scheduler.config.solver() {
            Some(solver) => self.line("scheduler", format!("{class}, solver {solver}")),
            None => {
                self.line("scheduler", format!("{class}, which has no solver here"));
                self.unsolved = Some(class.to_owned());
            }
        }
        // What a class predicts unless its config says otherwise.
        let prediction_type = scheduler.stored("prediction_type").and_then(Value::as_str).unwrap_or("epsilon");
        let others = ["num_train_timesteps", "beta_schedule", "timestep_spacing"];
        let others = others.iter().filter_map(|key| Some((key, scheduler.stored(key)?)));
        let others = others.map(|(key, value)| match value.as_str() {
            Some(name) => format!(", {key} {name}"),
            None => format!(", {key} {value}"),
        });
        self.line("", format!("prediction_type {prediction_type}{}", others.collect::<String>()));
    }

    fn sizes(&mut self, info: &ModelInfo) {
        let ModelInfo { width, height, scale_factor, latent_channels, .. } = *info;
        self.line(
            "latents",
            format!("{latent_channels} channels of {}×{}", width / scale_factor, height / scale_factor),
        );
        let multiples =
            if scale_factor == 1 { String::new() } else { format!(", or other multiples of {scale_factor}") };
        self.line("picture", format!("{width}×{height} pixels{multiples}"));
        for (index, note) in info.notes.iter().enumerate() {
            self.line(if index == 0 { "notes" } else { "" }, words(note));
        }
    }

    fn problem(&mut self, problem: String) {
        // A file is looked at for the pipeline and for its own part; the part's message ends like the pipeline's.
        if !self.problems.iter().any(|known| problem.ends_with(known.as_str())) {
            self.problems.push(problem);
        }
    }

    fn verdict(&mut self) {
        let problems = std::mem::take(&mut self.problems);
        if problems.is_empty() {
            let verdict = match self.unsolved.take() {
                None => "yes".to_owned(),
                Some(class) => format!("yes, with --solver, as there is none for {class}"),
            };
            self.line("supported", verdict);
        }
        for (index, problem) in problems.into_iter().enumerate() {
            if index == 0 { self.line("supported", format!("no: {problem}")) } else { self.line("", problem) }
        }
    }
}

/// The JSON object in `file` of `folder`.
async fn read_json(folder: &Path, file: &str) -> Result<Map<String, Value>, Error> {
    let bytes = read_small(&DirectorySource::new(folder), file, MAX_CONFIG).await;
    let bytes = bytes.map_err(|error| Error::checkpoint(folder, pipeline::Error::from(error)))?;
    serde_json::from_slice(&bytes).map_err(|error| Error::path(&folder.join(file), error))
}

/// The names of the files of weights in `folder`, sorted.
fn weight_files(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> =
        names.filter(|name| name.ends_with(".safetensors") || name.ends_with(".gguf")).collect();
    names.sort();
    names
}

/// `diffusion_pytorch_model.safetensors: 860,000,000 parameters, 1.72 GB, F16`
fn describe(file: &TensorFile) -> String {
    let mut parameters: BTreeMap<&str, u64> = BTreeMap::new();
    for tensor in file.tensors() {
        *parameters.entry(tensor.dtype.name()).or_default() += tensor.shape.iter().product::<usize>() as u64;
    }
    let total = HumanCount(parameters.values().sum());
    let dtypes = match parameters.len() {
        0 | 1 => parameters.into_keys().collect(),
        _ => parameters.iter().map(|(dtype, n)| format!("{} {dtype}", HumanCount(*n))).collect::<Vec<_>>().join(" + "),
    };
    format!("{}: {total} parameters, {}, {dtypes}", file.file(), DecimalBytes(file.total_bytes()))
}
