//! Places of a checkpoint's files, and the names of what is in them.
//!
//! | file | what it holds |
//! |---|---|
//! | `mod` | [`Layout`]: configs, weights, tokenizers and schedulers, wherever they lie |
//! | `folder` | the weight files of a component's folder: variants, shards, GGUF |
//! | `note` | what was assumed |
//! | `single_file` | checkpoints in one file: what they are, and the configs that they imply |
//! | `ldm` | the networks of such files: from the shapes of their tensors to configs and names |

mod folder;
mod ldm;
mod note;
mod single_file;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use serde_json::{Map, Value, json};

use self::folder::Finder;
pub use self::note::Note;
use self::single_file::SingleFile;
use crate::diffusion::SchedulerConfig;
use crate::graph::WeightSpec;
use crate::pipeline::error::Error;
use crate::pipeline::model::family::Family;
use crate::pipeline::model::naming::{Naming, Tensors};
use crate::pipeline::model::weight_file::{HostTable, WeightFile};
use crate::text::{TokenFiles, Tokenizer};
use crate::weights::{self, Source, TensorFile, TensorInfo, read_small};

/// Configs are a few kilobytes; a vocabulary with its merges can be megabytes.
const MAX_CONFIG: usize = 1 << 20;
const MAX_TOKENIZER: usize = 64 << 20;

/// CLIP's merges, from which its whole vocabulary follows: single files bring no tokenizer. In a browser they are fetched
/// where they are needed.
const CLIP_MERGES: Option<&[u8]> =
    if cfg!(target_arch = "wasm32") { None } else { Some(include_bytes!("../../../../assets/clip/merges.txt")) };

/// The choice among a checkpoint's files, and settings that its files do not have.
#[derive(Clone, Default)]
pub struct OpenOptions<'a> {
    /// diffusers' `variant`: with `fp16`, `model.fp16.safetensors` is opened and its like. Without one the plain files are,
    /// and those of `fp16` where there are no others. For folders.
    pub variant: Option<String>,
    /// The file of the UNet's weights, a path inside the checkpoint, in place of the UNet's own; such as a GGUF file, under
    /// diffusers' names or under those of the original code. For folders.
    pub unet: Option<String>,
    /// An autoencoder in place of the checkpoint's own: a file of weights, under diffusers' names or those of the original code; a folder
    /// with one and perhaps its `config.json`; or another checkpoint, whose autoencoder is taken.
    pub vae: Option<&'a dyn Source>,
    /// Prediction type of a single file's network, `epsilon` or `v_prediction`. Most files say so; where one of Stable
    /// Diffusion 2.x does not, v is assumed.
    pub prediction_type: Option<String>,
    /// Source of CLIP's `merges.txt`, for checkpoints in one file, which bring no tokenizer. Native builds have their own.
    pub vocabulary: Option<&'a dyn Source>,
}

/// A checkpoint whose files have been found.
pub(in crate::pipeline) struct Layout<'a> {
    source: &'a dyn Source,
    options: &'a OpenOptions<'a>,
    index: Map<String, Value>,
    files: Files<'a>,
    /// An autoencoder in place of its own: its config, and its weights.
    vae: Option<(String, Vec<Rc<TensorFile>>)>,
    notes: RefCell<Vec<Note>>,
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
            let mut notes = Vec::new();
            let found = SingleFile::recognise(&file, v_prediction, options.vae.is_some(), &mut notes)?;
            let index = found.index.clone();
            let files = Files::Single { file: Rc::new(file), found };
            let layout = Self { source, options, index, files, vae: None, notes: RefCell::new(notes) };
            return layout.with_vae().await;
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
        let files = Files::Folder { weights, flat: Cell::new(flat) };
        Self { source, options, index, files, vae: None, notes: RefCell::default() }.with_vae().await
    }

    /// Opens the autoencoder that takes the place of the checkpoint's own, if one was given.
    async fn with_vae(mut self) -> Result<Self, Error> {
        let Some(source) = self.options.vae else { return Ok(self) };
        if Family::of(self.class())?.autoencoder.is_none() {
            return Err(Error::option("vae", source.name(), format!("a {} has no autoencoder", self.class())));
        }
        self.vae = Some(self.open_vae(source).await.map_err(|error| self.of_given("vae", error))?);
        Ok(self)
    }

    /// An error in what takes the place of `component`, which is to say so.
    fn of_given(&self, component: &str, error: Error) -> Error {
        match self.options.vae.filter(|_| component == "vae") {
            Some(source) => Error::Given { option: "vae", name: source.name().to_owned(), source: Box::new(error) },
            None => error,
        }
    }

    /// The config and the weights of the autoencoder in `source`.
    async fn open_vae(&self, source: &dyn Source) -> Result<(String, Vec<Rc<TensorFile>>), Error> {
        let (files, config) = match source.single_file() {
            Some(name) => (vec![Rc::new(TensorFile::open(source, name).await?)], None),
            None => {
                let mut folder = "";
                let mut config = optional(read_text(source, "config.json").await)?;
                if config.is_none() {
                    config = optional(read_text(source, "vae/config.json").await)?;
                    folder = if config.is_some() { "vae/" } else { "" };
                }
                let weights = Finder::new(source, self.options.variant.as_deref());
                (weights.open(folder, stem("vae"), false).await?, config)
            }
        };
        let config = match config {
            Some(config) => config,
            None => {
                // What shapes do not tell is as in the checkpoint's own, or as its kind has it.
                let own = optional(self.json("vae", "config.json").await)?;
                let own = own.unwrap_or_else(|| json!({ "scaling_factor": scaling_factor(self.class()) }).to_string());
                let mut config = parse(&self.path("vae", "config.json"), &own)?;
                let network = ldm::vae(&tensors_of(&files, vae_prefix(&files)));
                let network = network.map_err(|reason| Error::Json {
                    file: name_of(&files),
                    message: format!("this is no AutoencoderKL: {reason}"),
                })?;
                config.extend(network.config.as_object().cloned().into_iter().flatten());
                Value::Object(config).to_string()
            }
        };
        Ok((config, files))
    }

    /// Notes that something was assumed.
    pub fn note(&self, text: String) {
        self.notes.borrow_mut().push(Note { text, option: None });
    }

    /// The assumptions so far.
    pub fn notes(&self) -> Vec<Note> {
        self.notes.borrow().clone()
    }

    /// The class that the pipeline names for `component`.
    pub fn class_of(&self, component: &str) -> Option<&str> {
        self.index(component)?.get(1)?.as_str()
    }

    /// `_class_name` of the pipeline, such as `StableDiffusionXLPipeline`.
    pub fn class(&self) -> &str {
        self.index("_class_name").and_then(Value::as_str).unwrap_or_default()
    }

    /// The value of `key` in `model_index.json`, such as `force_zeros_for_empty_prompt`.
    pub fn index(&self, key: &str) -> Option<&Value> {
        self.index.get(key)
    }

    /// Whether the pipeline has `component`, such as `text_encoder_2`; one that was left out is `[null, null]`.
    pub fn has(&self, component: &str) -> bool {
        self.index(component).and_then(|class| class.get(1)).is_some_and(Value::is_string)
    }

    /// The kind of the checkpoint, for people: a folder, or a file and its kind.
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
            _ if self.given(component).is_some() => file.to_owned(),
            Files::Folder { flat, .. } if flat.get() => file.to_owned(),
            Files::Folder { .. } => format!("{component}/{file}"),
            Files::Single { file: single, .. } => format!("{} ({component})", single.file()),
        }
    }

    /// Tells the source which files of the `networks`, each with its tokenizer if it has one, will be read, so that their ways need not be
    /// one after the other. Small files come first: what is asked for last waits where connections are few.
    pub fn prefetch(&self, networks: &[(&str, Option<&str>)]) {
        const TOKENIZER: [&str; 4] = ["tokenizer_config.json", "vocab.json", "merges.txt", "special_tokens_map.json"];
        let (Files::Folder { .. }, None) = (&self.files, &self.options.variant) else { return };
        let mut paths = vec![self.path("scheduler", "scheduler_config.json")];
        paths.extend(networks.iter().map(|(network, _)| self.path(network, "config.json")));
        for tokenizer in networks.iter().filter_map(|(_, tokenizer)| *tokenizer) {
            paths.extend(TOKENIZER.map(|file| self.path(tokenizer, file)));
        }
        let own = |network: &str| match network {
            "unet" => self.options.unet.is_none(),
            "vae" => self.vae.is_none(),
            _ => true,
        };
        for &(network, _) in networks.iter().filter(|(network, _)| own(network)) {
            paths.push(self.path(network, &format!("{}.safetensors", stem(network))));
        }
        self.source.prefetch(&paths);
    }

    /// The text of a component's `config.json`.
    ///
    /// # Errors
    /// If it is missing or no text.
    pub async fn config(&self, component: &str) -> Result<String, Error> {
        match self.given(component) {
            Some((config, _)) => Ok(config.clone()),
            None => self.json(component, "config.json").await,
        }
    }

    /// The replacement of `component`, if one was given.
    fn given(&self, component: &str) -> Option<&(String, Vec<Rc<TensorFile>>)> {
        self.vae.as_ref().filter(|_| component == "vae")
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
        let (files, naming) = match (&self.files, self.given(component)) {
            (_, Some((_, files))) => {
                (files.clone(), naming_of(files).map_err(|error| self.of_given(component, error))?)
            }
            (Files::Single { file, found }, _) => {
                let naming = found.naming(component).ok_or_else(|| self.missing(component, "weights"))?;
                (vec![file.clone()], naming.clone())
            }
            (Files::Folder { weights, .. }, _) => {
                let is_unet = component == "unet";
                let files = match self.options.unet.as_deref().filter(|_| is_unet) {
                    Some(path) => vec![Rc::new(TensorFile::open(self.source, path).await?)],
                    None => weights.open(&self.path(component, ""), stem(component), is_unet).await?,
                };
                let naming = naming_of(&files)?;
                (files, naming)
            }
        };
        WeightFile::new(files, &naming, specs, tables).map_err(|error| self.of_given(component, error))
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
        let optional = async |file: &str| optional(read(file).await.map_err(Error::from));
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
        let mut files = TokenFiles { config: config.as_deref(), ..TokenFiles::default() };
        // Since transformers 4.34 the config has all that the others say.
        let (mut special, mut added, mut json) = (None, None, None);
        if !files.are_complete() {
            special = optional("special_tokens_map.json").await?;
            // Some servers refuse what is not there, and most checkpoints have no tokens to add.
            let optional = async |file: &str| match optional(file).await {
                Err(Error::Weights(error @ weights::Error::Read { .. })) => {
                    self.note(format!("{error}; tokens that it may add are not known"));
                    Ok(None)
                }
                read => read,
            };
            added = optional("added_tokens.json").await?;
            json = optional("tokenizer.json").await?;
        }
        files.special_tokens_map = special.as_deref();
        files.added_tokens = added.as_deref();
        files.tokenizer = json.as_deref();
        Tokenizer::from_files(&vocab, &merges, files).map_err(damaged)
    }

    /// The scheduler `component` (`scheduler`, `low_res_scheduler`) that the checkpoint was saved with.
    ///
    /// # Errors
    /// If its config is missing or asks for what is not supported.
    pub async fn scheduler(&self, component: &str) -> Result<SchedulerConfig, Error> {
        let json = self.json(component, "scheduler_config.json").await?;
        let class = self.class_of(component);
        let config = SchedulerConfig::of_class(&json, class)?;
        if let (Some(own), Some(class)) = (config.own_class(), class)
            && own != class
        {
            self.note(format!("the {component} is a {class}, as model_index.json says; its own config names {own}"));
        }
        Ok(config)
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

/// Stem of the weight files of a component: transformers and diffusers differ.
fn stem(component: &str) -> &'static str {
    if component.starts_with("text_encoder") { "model" } else { "diffusion_pytorch_model" }
}

/// The weights of the network in `source`, a folder with a `config.json`; `text` for those of transformers. Those whose names in diffusers
/// begin with `left_out` are not needed.
///
/// # Errors
/// As [`Layout::weights`].
pub(in crate::pipeline) async fn network_weights(
    source: &dyn Source,
    text: bool,
    left_out: Option<&'static str>,
    specs: Vec<WeightSpec>,
    tables: Vec<HostTable>,
) -> Result<WeightFile, Error> {
    let stem = stem(if text { "text_encoder" } else { "unet" });
    let files = Finder::new(source, None).open("", stem, false).await?;
    let naming = naming_of(&files)?.without(left_out);
    WeightFile::new(files, &naming, specs, tables)
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
    });
    let is_unet = config.get("_class_name").and_then(Value::as_str) == Some("UNet2DModel");
    Ok(index.as_object().cloned().filter(|_| is_unet))
}

/// The naming of the weights of a network in `files`: that of diffusers and transformers, or of the original code.
fn naming_of(files: &[Rc<TensorFile>]) -> Result<Naming, Error> {
    for prefix in ["", "model.diffusion_model.", "diffusion_model."] {
        let tensors = tensors_of(files, prefix);
        if tensors.has("input_blocks") {
            let unet = ldm::unet(&tensors).map_err(|reason| Error::SingleFile {
                file: name_of(files),
                found: format!("a UNet that is not known: {reason}"),
            })?;
            return Ok(Naming::modules(prefix, unet.modules));
        }
        if prefix.is_empty() && tensors.has("transformer.resblocks") {
            return Ok(Naming::open_clip(prefix));
        }
    }
    let prefix = vae_prefix(files);
    let tensors = tensors_of(files, prefix);
    if tensors.has("decoder.mid.block_1") {
        let vae = ldm::vae(&tensors).map_err(|reason| Error::Json { file: name_of(files), message: reason })?;
        return Ok(Naming::modules(prefix, vae.modules));
    }
    // What torch.compile and parallel training put in front of all names of a network.
    let wrapped = |wrapper: &&str| tensors_of_all(files).all(|tensor| tensor.name.starts_with(wrapper));
    Ok(Naming::diffusers(["_orig_mod.", "module."].into_iter().find(wrapped).unwrap_or(prefix)))
}

/// Prefix of the names of an autoencoder in `files`; empty if there is none.
fn vae_prefix(files: &[Rc<TensorFile>]) -> &'static str {
    let is_in = |prefix: &&str| tensors_of(files, prefix).has("decoder.conv_in");
    ["first_stage_model.", "vae."].into_iter().find(is_in).unwrap_or_default()
}

/// The tensors of all `files` behind `prefix`.
fn tensors_of<'a>(files: &'a [Rc<TensorFile>], prefix: &str) -> Tensors<'a> {
    Tensors::new(tensors_of_all(files), prefix)
}

fn tensors_of_all(files: &[Rc<TensorFile>]) -> impl Iterator<Item = &TensorInfo> {
    files.iter().flat_map(|file| file.tensors())
}

/// The first of `files`, for messages.
fn name_of(files: &[Rc<TensorFile>]) -> String {
    files.first().map_or(String::new(), |file| file.file().to_owned())
}

/// `scaling_factor` of the autoencoders that pipelines of `class` have.
fn scaling_factor(class: &str) -> f64 {
    if class.contains("XL") { 0.13025 } else { 0.18215 }
}

/// The result of a read, `None` for a file that is not there.
fn optional<T>(read: Result<T, Error>) -> Result<Option<T>, Error> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(Error::Weights(weights::Error::NotFound { .. })) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Parses the JSON object in `file`.
fn parse(file: &str, json: &str) -> Result<Map<String, Value>, Error> {
    serde_json::from_slice(json.as_bytes())
        .map_err(|error| Error::Json { file: file.to_owned(), message: error.to_string() })
}

pub(in crate::pipeline) async fn read_text(source: &dyn Source, path: &str) -> Result<String, Error> {
    let bytes = read_small(source, path, MAX_CONFIG).await?;
    String::from_utf8(bytes).map_err(|_| Error::Json { file: path.to_owned(), message: "not UTF-8 text".into() })
}

pub(in crate::pipeline) async fn read_json(source: &dyn Source, path: &str) -> Result<Map<String, Value>, Error> {
    parse(path, &read_text(source, path).await?)
}
