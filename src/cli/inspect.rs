//! `undiffuse inspect`: what a checkpoint is, and whether it can be run, from its configs and headers alone.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use indicatif::{DecimalBytes, HumanCount};
use serde_json::{Map, Value};
use undiffuse::device::Device;
use undiffuse::models::{AutoencoderKlConfig, Unet2dConditionConfig, Unet2dConfig};
use undiffuse::pipeline::{Component, Pipeline};
use undiffuse::weights::{self, ByteStream, DirectorySource, LocalBoxFuture, SafetensorsReader, Source};

use super::Error;
use super::output::result;
use super::scheduler::Scheduler;

/// Says what a checkpoint is and whether it can be run
///
/// Shows the parts of a pipeline with their classes, the numbers of their configs that matter most, the parameters,
/// bytes and dtypes of their weight files, the sizes of latents and picture, and the scheduler; then whether
/// `undiffuse sample` can run it, or the reasons why not. Only configs and the headers of weight files are read.
#[derive(clap::Args)]
pub struct Args {
    /// Folder of a checkpoint, with a model_index.json, or of one network, with a config.json
    model: PathBuf,
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
}

/// Prints the report.
pub async fn run(args: Args) -> Result<(), Error> {
    let folder = args.model.as_path();
    if !folder.is_dir() {
        return Err(Error::path(folder, "there is no such folder; give the folder of a checkpoint"));
    }
    let mut report = Report::default();
    if folder.join("model_index.json").is_file() {
        report.pipeline(folder).await?;
    } else if folder.join("config.json").is_file() {
        report.network("network", folder).await?;
    } else {
        let message = "neither a checkpoint (no model_index.json) nor a network (no config.json)";
        return Err(Error::path(folder, message));
    }
    report.verdict();
    let width = report.lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, text) in &report.lines {
        result(format_args!("{name:width$}  {text}"))?;
    }
    Ok(())
}

impl Report {
    fn line(&mut self, name: &str, text: impl Into<String>) {
        self.lines.push((name.to_owned(), text.into()));
    }

    async fn pipeline(&mut self, folder: &Path) -> Result<(), Error> {
        let index = read_json(&folder.join("model_index.json"))?;
        let text = |key: &str| index.get(key).and_then(Value::as_str);
        let version = text("_diffusers_version").map_or(String::new(), |v| format!(", saved by diffusers {v}"));
        self.line("pipeline", format!("{}{version}", text("_class_name").unwrap_or("of no class")));

        let source = HeadersOnly::new(folder);
        let loaded = Pipeline::load(&source, Device::Cpu, &mut |_| {}).await.map(drop).map_err(|e| e.to_string());
        self.check(&source, loaded);
        for (name, class) in &index {
            // `"unet": ["diffusers", "UNet2DConditionModel"]`; a part that was left out is `[null, null]`.
            let Some(class) = class.get(1).and_then(Value::as_str) else { continue };
            let part = folder.join(name);
            if name == "scheduler" {
                self.scheduler(folder);
            } else if NETWORKS.iter().any(|(network, _)| *network == class) && part.join("config.json").is_file() {
                self.network(name, &part).await?;
            } else {
                self.line(name, class);
            }
        }
        self.sizes(folder);
        Ok(())
    }

    /// One network: its class, the numbers of its config, its weight files.
    async fn network(&mut self, name: &str, folder: &Path) -> Result<(), Error> {
        let config = read_json(&folder.join("config.json"))?;
        let class = config.get("_class_name").or_else(|| config.get("architectures")?.get(0)).and_then(Value::as_str);
        let class = class.unwrap_or("of no class");
        self.line(name, class);
        let keys = NETWORKS.iter().find(|(network, _)| *network == class).map_or(&[][..], |(_, keys)| keys);
        let number = |key: &&str| config.get(*key).map(|value| format!("{key} {value}"));
        let numbers: Vec<String> = keys.iter().filter_map(number).collect();
        if !numbers.is_empty() {
            self.line("", numbers.join(", "));
        }
        let source = DirectorySource::new(folder);
        for file in weight_files(folder) {
            let described = SafetensorsReader::open(&source, &file).await.map(|reader| describe(&reader));
            self.line("", described.unwrap_or_else(|error| error.to_string()));
        }
        let source = HeadersOnly::new(folder);
        let loaded = Component::load(&source, Device::Cpu, None).await.map(drop);
        self.check(&source, loaded.map_err(|error| format!("{name}: {error}")));
        Ok(())
    }

    fn scheduler(&mut self, folder: &Path) {
        let scheduler = match Scheduler::read(folder) {
            Ok(scheduler) => scheduler,
            Err(error) => {
                self.line("scheduler", "cannot be used");
                return self.problem(error.to_string());
            }
        };
        let solver = match scheduler.config.solver() {
            Some(solver) => format!("solver {solver}"),
            None => "no solver of its own here: choose one with --solver".to_owned(),
        };
        self.line("scheduler", format!("{}, {solver}", scheduler.config.class_name()));
        let keys = ["prediction_type", "num_train_timesteps", "beta_schedule", "timestep_spacing"];
        let values = keys.iter().filter_map(|key| Some(format!("{key} {}", scheduler.stored(key)?)));
        self.line("", values.collect::<Vec<_>>().join(", "));
    }

    /// The sizes of latents and picture, where the configs can be read; where they cannot, that is a problem already.
    fn sizes(&mut self, folder: &Path) {
        let text = |part: &str| fs::read_to_string(folder.join(part).join("config.json")).unwrap_or_default();
        let unet = text("unet");
        let unet = Unet2dConditionConfig::from_json(&unet)
            .map(|config| (config.sample_size, config.in_channels))
            .or_else(|_| Unet2dConfig::from_json(&unet).map(|config| (config.sample_size, config.in_channels)));
        let Ok((Some([height, width]), channels)) = unet else { return };
        let factor = match folder.join("vae").is_dir() {
            true => AutoencoderKlConfig::from_json(&text("vae")).map(|config| config.scale_factor()),
            false => Ok(1),
        };
        let Ok(factor) = factor else { return };
        self.line("latents", format!("{channels} channels of {width}×{height}"));
        let multiples = if factor == 1 { String::new() } else { format!(", or other multiples of {factor}") };
        self.line("picture", format!("{}×{} pixels{multiples}", width * factor, height * factor));
    }

    /// Notes why loading failed, unless it came as far as the weights.
    fn check(&mut self, source: &HeadersOnly, loaded: Result<(), String>) {
        if let Err(error) = loaded
            && !source.reached_weights.get()
        {
            self.problem(error);
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
            self.line("supported", "yes");
        }
        for (index, problem) in problems.into_iter().enumerate() {
            if index == 0 { self.line("supported", format!("no: {problem}")) } else { self.line("", problem) }
        }
    }
}

fn read_json(path: &Path) -> Result<Map<String, Value>, Error> {
    let text = fs::read_to_string(path).map_err(|e| Error::path(path, e))?;
    serde_json::from_str(&text).map_err(|e| Error::path(path, e))
}

/// The names of the safetensors files in `folder`, sorted.
fn weight_files(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(|name| name.ends_with(".safetensors")).collect();
    names.sort();
    names
}

/// `diffusion_pytorch_model.safetensors: 860,000,000 parameters, 1.72 GB, F16`
fn describe(reader: &SafetensorsReader) -> String {
    let mut parameters: BTreeMap<&str, u64> = BTreeMap::new();
    for tensor in reader.tensors() {
        *parameters.entry(tensor.dtype.name()).or_default() += tensor.byte_length() / tensor.dtype.size() as u64;
    }
    let total = HumanCount(parameters.values().sum());
    let dtypes = match parameters.len() {
        0 | 1 => parameters.into_keys().collect(),
        _ => parameters.iter().map(|(dtype, n)| format!("{} {dtype}", HumanCount(*n))).collect::<Vec<_>>().join(" + "),
    };
    format!("{}: {total} parameters, {}, {dtypes}", reader.file(), DecimalBytes(reader.total_bytes()))
}

/// A folder that ends at the first weight. What loads up to there can be run: every config, the tokenizer and all
/// headers have been read and checked by then, and by the same code that loads them to run.
struct HeadersOnly {
    folder: DirectorySource,
    reached_weights: Rc<Cell<bool>>,
}

impl HeadersOnly {
    fn new(folder: &Path) -> Self {
        Self { folder: DirectorySource::new(folder), reached_weights: Rc::default() }
    }
}

impl Source for HeadersOnly {
    fn name(&self) -> &str {
        self.folder.name()
    }

    fn open<'a>(&'a self, path: &'a str) -> LocalBoxFuture<'a, Result<Box<dyn ByteStream>, weights::Error>> {
        Box::pin(async move {
            let stream = self.folder.open(path).await?;
            if !path.ends_with(".safetensors") {
                return Ok(stream);
            }
            let (file, reached_weights) = (path.to_owned(), self.reached_weights.clone());
            Ok(Box::new(Header { file, stream, position: 0, end: u64::MAX, reached_weights }) as Box<dyn ByteStream>)
        })
    }
}

/// The header of a safetensors file.
struct Header {
    file: String,
    stream: Box<dyn ByteStream>,
    position: u64,
    /// Where the header ends, once its first eight bytes have said so.
    end: u64,
    reached_weights: Rc<Cell<bool>>,
}

impl ByteStream for Header {
    fn length(&self) -> Option<u64> {
        self.stream.length()
    }

    fn next_chunk<'a>(&'a mut self) -> LocalBoxFuture<'a, Result<Option<Vec<u8>>, weights::Error>> {
        Box::pin(async move {
            if self.position >= self.end {
                self.reached_weights.set(true);
                return Err(weights::Error::Read { file: self.file.clone(), reason: "only headers are read".into() });
            }
            let Some(mut chunk) = self.stream.next_chunk().await? else { return Ok(None) };
            if let (0, Some(&length)) = (self.position, chunk.first_chunk()) {
                self.end = u64::from_le_bytes(length).saturating_add(8);
            }
            chunk.truncate(usize::try_from(self.end - self.position).unwrap_or(usize::MAX));
            self.position += chunk.len() as u64;
            Ok(Some(chunk))
        })
    }
}
