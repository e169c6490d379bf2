//! Where a checkpoint's files are, and what is in them under which name.
//!
//! | file | what it holds |
//! |---|---|
//! | `mod` | [`Layout`]: configs, weights, tokenizers and schedulers, wherever they lie |
//! | `folder` | the weight files of a component's folder: variants, shards, GGUF |
//! | `names` | what files call the weights of a network |
//! | `single_file` | checkpoints in one file: what they are, and the configs that they imply |
//! | `ldm` | the networks of such files: from the shapes of their tensors to configs and names |

mod folder;
mod ldm;
mod names;
mod single_file;

use std::cell::Cell;
use std::rc::Rc;

use serde_json::{Map, Value, json};

pub(super) use names::{Naming, Part};

use self::folder::Finder;
use self::names::Tensors;
use self::single_file::SingleFile;
use super::Error;
use super::weight_file::{HostTable, WeightFile};
use crate::diffusion::SchedulerConfig;
use crate::graph::WeightSpec;
use crate::text::Tokenizer;
use crate::weights::{self, Source, TensorFile, read_small};

/// Configs are a few kilobytes; a vocabulary with its merges can be megabytes.
const MAX_CONFIG: usize = 1 << 20;
const MAX_TOKENIZER: usize = 64 << 20;

/// CLIP's merges, from which its whole vocabulary follows: single files bring no tokenizer. In a browser they are fetched
/// where they are needed.
const CLIP_MERGES: Option<&[u8]> =
    if cfg!(target_arch = "wasm32") { None } else { Some(include_bytes!("../../../assets/clip/merges.txt")) };

/// Which of a checkpoint's files to open, where there is a choice, and what its files do not say.
#[derive(Clone, Default)]
pub struct OpenOptions<'a> {
    /// diffusers' `variant`: with `fp16`, `model.fp16.safetensors` is opened and its like. Without one the plain files are,
    /// and those of `fp16` where there are no others. For folders.
    pub variant: Option<String>,
    /// The file of the UNet's weights, a path inside the checkpoint, in place of the UNet's own; such as a GGUF file, under
    /// diffusers' names or under those of the original code. For folders.
    pub unet: Option<String>,
    /// What a single file's network predicts, `epsilon` or `v_prediction`. Most files say so; where one of Stable
    /// Diffusion 2.x does not, v is assumed.
    pub prediction_type: Option<String>,
    /// Where CLIP's `merges.txt` lies, for checkpoints in one file, which bring no tokenizer. Native builds have their own.
    pub vocabulary: Option<&'a dyn Source>,
}

/// A checkpoint whose files have been found.
pub(super) struct Layout<'a> {
    source: &'a dyn Source,
    options: &'a OpenOptions<'a>,
    index: Map<String, Value>,
    files: Files<'a>,
}

enum Files<'a> {
    /// A folder for each component. `flat`: a model of one network, whose files lie side by side at the root.
    Folder {
        weights: Finder<'a>,
        flat: Cell<bool>,
    },
    Single {
        file: Rc<TensorFile>,
        found: SingleFile,
    },
}

impl<'a> Layout<'a> {
    /// Looks at what `source` holds: a folder with a `model_index.json`, one with the `config.json` of a `UNet2DModel`, or
    /// one file.
    ///
    /// # Errors
    /// If there is no checkpoint, it is damaged, or it is none of a known kind; an option that means nothing to it.
    pub async fn open(source: &'a dyn Source, options: &'a OpenOptions<'a>) -> Result<Self, Error> {
        let v_prediction = match options.prediction_type.as_deref() {
            None => None,
            Some("epsilon") => Some(false),
            Some("v_prediction") => Some(true),
            Some(other) => return Err(Error::option("prediction_type", other, "expected epsilon or v_prediction")),
        };
        if let Some(name) = source.single_file() {
            let of_folders = [("variant", &options.variant), ("unet", &options.unet)];
            if let Some((option, Some(value))) = of_folders.into_iter().find(|(_, value)| value.is_some()) {
                return Err(Error::option(option, value, "a checkpoint in one file has no other files to choose from"));
            }
            let file = TensorFile::open(source, name).await?;
            let found = SingleFile::recognise(&file, v_prediction)?;
            let index = found.index.clone();
            return Ok(Self { source, options, index, files: Files::Single { file: Rc::new(file), found } });
        }
        if let Some(value) = &options.prediction_type {
            let message = "it is for checkpoints in one file; a folder's scheduler_config.json says what is predicted";
            return Err(Error::option("prediction_type", value, message));
        }
        let (index, flat) = match read_json(source, "model_index.json").await {
            Err(error @ Error::Weights(weights::Error::NotFound { .. })) => {
                (network_index(source).await?.ok_or(error)?, true)
            }
            index => (index?, false),
        };
        let weights = Finder::new(source, options.variant.as_deref());
        Ok(Self { source, options, index, files: Files::Folder { weights, flat: Cell::new(flat) } })
    }

    /// `_class_name` of the pipeline, such as `StableDiffusionXLPipeline`.
    pub fn class(&self) -> &str {
        self.index("_class_name").and_then(Value::as_str).unwrap_or_default()
    }

    /// What `model_index.json` says of `key`, such as `force_zeros_for_empty_prompt`.
    pub fn index(&self, key: &str) -> Option<&Value> {
        self.index.get(key)
    }

    /// Whether the pipeline has `component`, such as `text_encoder_2`; one that was left out is `[null, null]`.
    pub fn has(&self, component: &str) -> bool {
        self.index(component).and_then(|class| class.get(1)).is_some_and(Value::is_string)
    }

    /// What the checkpoint is, for people: a folder, or a file and its kind.
    pub fn kind(&self) -> String {
        match &self.files {
            Files::Folder { flat, .. } if flat.get() => "a network with its scheduler".into(),
            Files::Folder { .. } => "a folder as diffusers writes it".into(),
            Files::Single { found, .. } => format!("a single file, {}", found.kind),
        }
    }

    /// The path of `file` of a component, for messages too.
    pub fn path(&self, component: &str, file: &str) -> String {
        match &self.files {
            Files::Folder { flat, .. } if flat.get() => file.to_owned(),
            Files::Folder { .. } => format!("{component}/{file}"),
            Files::Single { file: single, .. } => format!("{} ({component})", single.file()),
        }
    }

    /// Tells the source which files of the `networks`, each with its tokenizer if it has one, will be read, so that their ways need not be
    /// one after the other. Small files come first: what is asked for last waits where connections are few.
    pub fn expect(&self, networks: &[(&str, Option<&str>)]) {
        const TOKENIZER: [&str; 4] = ["tokenizer_config.json", "vocab.json", "merges.txt", "special_tokens_map.json"];
        let (Files::Folder { .. }, None) = (&self.files, &self.options.variant) else { return };
        let mut paths = vec![self.path("scheduler", "scheduler_config.json")];
        paths.extend(networks.iter().map(|(network, _)| self.path(network, "config.json")));
        for tokenizer in networks.iter().filter_map(|(_, tokenizer)| *tokenizer) {
            paths.extend(TOKENIZER.map(|file| self.path(tokenizer, file)));
        }
        for &(network, _) in networks.iter().filter(|(network, _)| *network != "unet" || self.options.unet.is_none()) {
            paths.push(self.path(network, &format!("{}.safetensors", stem(network))));
        }
        self.source.expect(&paths);
    }

    /// The text of a component's `config.json`.
    ///
    /// # Errors
    /// If it is missing or no text.
    pub async fn config(&self, component: &str) -> Result<String, Error> {
        self.json(component, "config.json").await
    }

    /// The headers of a component's weights, checked against what the network needs; see [`WeightFile::new`].
    ///
    /// # Errors
    /// If there is no file of weights, one is damaged or a pickle, or does not hold what the network needs.
    pub async fn weights(
        &self,
        component: &str,
        specs: Vec<WeightSpec>,
        tables: Vec<HostTable>,
    ) -> Result<WeightFile, Error> {
        let is_unet = component == "unet";
        let (files, naming) = match &self.files {
            Files::Single { file, found } => {
                let naming = found.naming(component).ok_or_else(|| self.missing(component, "weights"))?;
                (vec![file.clone()], naming.clone())
            }
            Files::Folder { weights, .. } => {
                let files = match self.options.unet.as_deref().filter(|_| is_unet) {
                    Some(path) => vec![Rc::new(TensorFile::open(self.source, path).await?)],
                    None => weights.open(&self.path(component, ""), stem(component), is_unet).await?,
                };
                let naming = if is_unet { unet_naming(&files)? } else { Naming::diffusers("") };
                (files, naming)
            }
        };
        WeightFile::new(files, &naming, specs, tables)
    }

    /// The tokenizer `component` (`tokenizer`, `tokenizer_2`): from `vocab.json` and `merges.txt`, or where there is no
    /// vocabulary from `tokenizer.json`. Checkpoints in one file have CLIP's.
    ///
    /// # Errors
    /// If a file is missing or damaged.
    pub async fn tokenizer(&self, component: &str) -> Result<Tokenizer, Error> {
        let damaged = |source| Error::Tokenizer { folder: component.to_owned(), source };
        if let Files::Single { .. } = self.files {
            let config = self.json(component, "tokenizer_config.json").await?;
            let merges = match (self.options.vocabulary, CLIP_MERGES) {
                (Some(source), _) => read_small(source, "merges.txt", MAX_TOKENIZER).await?,
                (None, Some(merges)) => merges.to_vec(),
                (None, None) => {
                    let message = "a checkpoint in one file brings no tokenizer, and CLIP's merges.txt is to be given";
                    return Err(Error::option("vocabulary", "absent", message));
                }
            };
            return Tokenizer::from_merges(&merges, Some(config.as_bytes())).map_err(damaged);
        }
        let read = async |file: &str| read_small(self.source, &self.path(component, file), MAX_TOKENIZER).await;
        let optional = async |file: &str| match read(file).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(weights::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        };
        let config = optional("tokenizer_config.json").await?;
        let Some(vocab) = optional("vocab.json").await? else {
            let json = match optional("tokenizer.json").await? {
                Some(json) => json,
                // Neither file: the error names the one that most checkpoints have.
                None => read("vocab.json").await?,
            };
            return Tokenizer::from_tokenizer_json(&json, config.as_deref()).map_err(damaged);
        };
        let merges = read("merges.txt").await?;
        let special = optional("special_tokens_map.json").await?;
        Tokenizer::from_files(&vocab, &merges, config.as_deref(), special.as_deref()).map_err(damaged)
    }

    /// The scheduler `component` (`scheduler`, `low_res_scheduler`) that the checkpoint was saved with.
    ///
    /// # Errors
    /// If its config is missing or asks for what is not supported.
    pub async fn scheduler(&self, component: &str) -> Result<SchedulerConfig, Error> {
        Ok(SchedulerConfig::from_json(&self.json(component, "scheduler_config.json").await?)?)
    }

    /// The text of a component's config, called `file` where it lies in a folder.
    async fn json(&self, component: &str, file: &str) -> Result<String, Error> {
        let flat = match &self.files {
            Files::Single { found, .. } => {
                let config = found.configs.get(component).ok_or_else(|| self.missing(component, file))?;
                return Ok(config.to_string());
            }
            Files::Folder { flat, .. } => flat,
        };
        let found = read_text(self.source, &self.path(component, file)).await;
        let one_network = !self.has("vae") && !self.has("text_encoder");
        match found {
            // The first published models of one network have their files side by side.
            Err(Error::Weights(weights::Error::NotFound { .. })) if one_network && !flat.get() => {
                match read_text(self.source, file).await {
                    Ok(text) => {
                        flat.set(true);
                        Ok(text)
                    }
                    Err(_) => found,
                }
            }
            found => found,
        }
    }

    fn missing(&self, component: &str, file: &str) -> Error {
        let origin = self.source.name().to_owned();
        weights::Error::NotFound { file: format!("{component}/{file}"), origin }.into()
    }
}

/// What the weight files of a component are called: transformers and diffusers differ.
fn stem(component: &str) -> &'static str {
    if component.starts_with("text_encoder") { "model" } else { "diffusion_pytorch_model" }
}

/// The weights of the network in `source`, a folder with a `config.json`; `text` for those of transformers.
///
/// # Errors
/// As [`Layout::weights`].
pub(super) async fn network_weights(
    source: &dyn Source,
    text: bool,
    specs: Vec<WeightSpec>,
    tables: Vec<HostTable>,
) -> Result<WeightFile, Error> {
    let stem = stem(if text { "text_encoder" } else { "unet" });
    let files = Finder::new(source, None).open("", stem, false).await?;
    WeightFile::new(files, &Naming::diffusers(""), specs, tables)
}

/// The `model_index.json` of a folder that has none: the files of a `UNet2DModel`, beside those of its scheduler.
async fn network_index(source: &dyn Source) -> Result<Option<Map<String, Value>>, Error> {
    let config = match read_json(source, "config.json").await {
        Err(Error::Weights(weights::Error::NotFound { .. })) => return Ok(None),
        config => config?,
    };
    let index = json!({
        "_class_name": "DDPMPipeline",
        "unet": ["diffusers", "UNet2DModel"],
        "scheduler": ["diffusers", "DDPMScheduler"],
    });
    let is_unet = config.get("_class_name").and_then(Value::as_str) == Some("UNet2DModel");
    Ok(index.as_object().cloned().filter(|_| is_unet))
}

/// How `files` call the weights of a UNet: as diffusers does, or as the original code.
fn unet_naming(files: &[Rc<TensorFile>]) -> Result<Naming, Error> {
    for prefix in ["", "model.diffusion_model."] {
        let Some(file) = files.iter().find(|file| Tensors::new(file.tensors(), prefix).has("input_blocks")) else {
            continue;
        };
        let unet = ldm::unet(&Tensors::new(file.tensors(), prefix)).map_err(|reason| Error::SingleFile {
            file: file.file().to_owned(),
            found: format!("a UNet that is not known: {reason}"),
        })?;
        return Ok(Naming::modules(prefix, unet.modules));
    }
    Ok(Naming::diffusers(""))
}

pub(super) async fn read_text(source: &dyn Source, path: &str) -> Result<String, Error> {
    let bytes = read_small(source, path, MAX_CONFIG).await?;
    String::from_utf8(bytes).map_err(|_| Error::Json { file: path.to_owned(), message: "not UTF-8 text".into() })
}

pub(super) async fn read_json(source: &dyn Source, path: &str) -> Result<Map<String, Value>, Error> {
    let text = read_text(source, path).await?;
    serde_json::from_slice(text.as_bytes()).map_err(|e| Error::Json { file: path.to_owned(), message: e.to_string() })
}
