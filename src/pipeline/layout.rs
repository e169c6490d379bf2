//! Where a checkpoint's files are: the folder that diffusers writes, as `save_pretrained` leaves it or as the hub serves it.

use serde_json::{Map, Value};

use super::Error;
use super::weight_file::{HostTable, WeightFile};
use crate::diffusion::SchedulerConfig;
use crate::graph::WeightSpec;
use crate::text::Tokenizer;
use crate::weights::{self, Source, read_small};

/// Configs are a few kilobytes; a vocabulary with its merges can be megabytes.
const MAX_CONFIG: usize = 1 << 20;
const MAX_TOKENIZER: usize = 64 << 20;

/// Which of a checkpoint's files to open, where there is a choice.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct OpenOptions {
    /// diffusers' `variant`: `fp16` opens `model.fp16.safetensors` and its like.
    pub variant: Option<String>,
}

/// A checkpoint whose files have been found.
pub(super) struct Layout<'a> {
    source: &'a dyn Source,
    index: Map<String, Value>,
}

impl<'a> Layout<'a> {
    /// Looks at what `source` holds.
    ///
    /// # Errors
    /// If there is no checkpoint, or its `model_index.json` is damaged.
    pub async fn open(source: &'a dyn Source, _options: &OpenOptions) -> Result<Self, Error> {
        Ok(Self { source, index: read_json(source, "model_index.json").await? })
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

    /// The path of `file` of a component, for messages too.
    pub fn path(&self, component: &str, file: &str) -> String {
        format!("{component}/{file}")
    }

    /// The text of a component's `config.json`.
    ///
    /// # Errors
    /// If it is missing or no text.
    pub async fn config(&self, component: &str) -> Result<String, Error> {
        read_text(self.source, &self.path(component, "config.json")).await
    }

    /// The header of a component's weights, checked against what the network needs; see [`WeightFile::open`].
    ///
    /// # Errors
    /// If there is no file of weights, and those of [`WeightFile::open`].
    pub async fn weights(
        &self,
        component: &str,
        specs: Vec<WeightSpec>,
        tables: Vec<HostTable>,
    ) -> Result<WeightFile, Error> {
        // transformers and diffusers name their files differently.
        let name = if component.starts_with("text_encoder") { "model" } else { "diffusion_pytorch_model" };
        WeightFile::open(self.source, &self.path(component, &format!("{name}.safetensors")), specs, tables).await
    }

    /// The tokenizer `component` (`tokenizer`, `tokenizer_2`): from `vocab.json` and `merges.txt`, or where there is no
    /// vocabulary from `tokenizer.json`.
    ///
    /// # Errors
    /// If a file is missing or damaged.
    pub async fn tokenizer(&self, component: &str) -> Result<Tokenizer, Error> {
        let read = async |file: &str| read_small(self.source, &self.path(component, file), MAX_TOKENIZER).await;
        let optional = async |file: &str| match read(file).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(weights::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        };
        let damaged = |source| Error::Tokenizer { folder: component.to_owned(), source };
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
        let text = read_text(self.source, &self.path(component, "scheduler_config.json")).await?;
        Ok(SchedulerConfig::from_json(&text)?)
    }
}

pub(super) async fn read_text(source: &dyn Source, path: &str) -> Result<String, Error> {
    let bytes = read_small(source, path, MAX_CONFIG).await?;
    String::from_utf8(bytes).map_err(|_| Error::Json { file: path.to_owned(), message: "not UTF-8 text".into() })
}

pub(super) async fn read_json(source: &dyn Source, path: &str) -> Result<Map<String, Value>, Error> {
    let text = read_text(source, path).await?;
    serde_json::from_str(&text).map_err(|e| Error::Json { file: path.to_owned(), message: e.to_string() })
}
