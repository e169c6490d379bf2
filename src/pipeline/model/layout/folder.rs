//! The weight files of a component's folder, as they are on the hub: whole or in shards, plain or in a variant such as
//! `fp16`, safetensors or GGUF.

use std::cell::Cell;
use std::collections::{BTreeMap, HashSet};
use std::rc::Rc;

use serde_json::Value;

use crate::pipeline::error::Error;
use crate::weights::{self, Source, TensorFile, read_small};

/// An index names each tensor once: a megabyte for the largest networks there are.
const MAX_INDEX: usize = 16 << 20;
/// Shards are gigabytes, so there are a few of them.
const MAX_SHARDS: usize = 256;

/// The forms in which the weights of a component may be stored; each is one request where there is no such file.
#[derive(Clone, Copy)]
enum Form {
    /// `model.safetensors`
    Plain,
    /// `model.safetensors.index.json`, of shards
    Index,
    /// `model.gguf`
    Gguf,
    /// `model.fp16.safetensors`
    Variant,
    /// `model.safetensors.index.fp16.json`
    VariantIndex,
    /// `model.fp16.safetensors.index.json`, as the index was called at first
    OldVariantIndex,
}

impl Form {
    const PLAIN: [Form; 3] = [Form::Plain, Form::Index, Form::Gguf];
    const VARIANTS: [Form; 3] = [Form::Variant, Form::VariantIndex, Form::OldVariantIndex];

    fn file(self, stem: &str, variant: &str) -> String {
        match self {
            Form::Plain => format!("{stem}.safetensors"),
            Form::Index => format!("{stem}.safetensors.index.json"),
            Form::Gguf => format!("{stem}.gguf"),
            Form::Variant => format!("{stem}.{variant}.safetensors"),
            Form::VariantIndex => format!("{stem}.safetensors.index.{variant}.json"),
            Form::OldVariantIndex => format!("{stem}.{variant}.safetensors.index.json"),
        }
    }

    fn is_index(self) -> bool {
        matches!(self, Form::Index | Form::VariantIndex | Form::OldVariantIndex)
    }
}

/// Finds and opens the weight files of components.
pub(super) struct Finder<'a> {
    source: &'a dyn Source,
    variant: Option<&'a str>,
    /// The form found last, which the next component most likely has too.
    likely: Cell<Option<usize>>,
}

impl<'a> Finder<'a> {
    /// A finder for components in `source`, of `variant` where they have it.
    pub fn new(source: &'a dyn Source, variant: Option<&'a str>) -> Self {
        Self { source, variant, likely: Cell::new(None) }
    }

    /// The files in `folder` (empty, or ending in a slash) whose names start with `stem`. Without a variant, the plain files
    /// are taken, and where there are none, those of `fp16`; with one, its files are, and the plain ones of a component that
    /// has no others unless it `must` have the variant.
    ///
    /// # Errors
    /// If there are none, saying so where there is a pickle; a damaged file, or an index and shards that do not fit.
    pub async fn open(&self, folder: &str, stem: &str, must: bool) -> Result<Vec<Rc<TensorFile>>, Error> {
        let (first, second) = match self.variant {
            None => (Form::PLAIN, Form::VARIANTS),
            Some(_) => (Form::VARIANTS, Form::PLAIN),
        };
        let mut forms: Vec<Form> = first.into_iter().chain(second).collect();
        if must && self.variant.is_some() {
            forms.truncate(Form::VARIANTS.len());
        }
        let path = |form: Form| format!("{folder}{}", form.file(stem, self.variant.unwrap_or("fp16")));
        let mut order: Vec<usize> = (0..forms.len()).collect();
        if let Some(likely) = self.likely.get().filter(|&likely| likely < forms.len()) {
            order[..=likely].rotate_right(1);
        }
        for index in order {
            let path = path(forms[index]);
            let opened = if forms[index].is_index() {
                self.open_shards(folder, &path).await
            } else {
                TensorFile::open(self.source, &path).await.map(|file| vec![Rc::new(file)]).map_err(Error::from)
            };
            match opened {
                Err(Error::Weights(weights::Error::NotFound { file, .. })) if file == path => {}
                opened => {
                    self.likely.set(Some(index));
                    return opened;
                }
            }
        }
        let pickle = format!("{folder}{}.bin", if stem == "model" { "pytorch_model" } else { stem });
        let missing = |path| weights::Error::NotFound { file: path, origin: self.source.name().to_owned() };
        match self.source.open(&pickle).await {
            Ok(_) => Err(weights::Error::Pickle { file: pickle }.into()),
            // The error names the file that most checkpoints have.
            Err(weights::Error::NotFound { .. }) => Err(missing(path(forms[0])).into()),
            Err(error) => Err(error.into()),
        }
    }

    /// The shards that the index at `path` names, each with all of the tensors that the index says it has.
    async fn open_shards(&self, folder: &str, path: &str) -> Result<Vec<Rc<TensorFile>>, Error> {
        let damaged = |message: String| Error::Json { file: path.to_owned(), message };
        let bytes = read_small(self.source, path, MAX_INDEX).await?;
        let index: Value = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        let shards_of = index.get("weight_map").and_then(Value::as_object).map(|map| {
            map.iter()
                .map(|(tensor, shard)| Some((tensor.as_str(), shard.as_str()?)))
                .collect::<Option<BTreeMap<_, _>>>()
        });
        let weight_map =
            shards_of.flatten().ok_or_else(|| damaged("it has no `weight_map` of tensors and files".into()))?;
        let mut shards = Vec::new();
        for &shard in weight_map.values() {
            if let Err(at) = shards.binary_search(&shard) {
                if shards.len() == MAX_SHARDS {
                    return Err(damaged(format!("it names more than {MAX_SHARDS} shards")));
                }
                shards.insert(at, shard);
            }
        }
        if shards.is_empty() {
            return Err(damaged("it names no shard".into()));
        }
        if let Some(shard) = shards.iter().find(|shard| shard.contains('/')) {
            return Err(damaged(format!("it names {shard:?}; a shard lies beside its index")));
        }
        let mut files = Vec::new();
        for shard in shards {
            let file = TensorFile::open(self.source, &format!("{folder}{shard}")).await?;
            let has: HashSet<&str> = file.tensors().iter().map(|tensor| tensor.name.as_str()).collect();
            let mut named = weight_map.iter().filter(|(_, of)| **of == shard);
            if let Some((tensor, _)) = named.find(|(tensor, _)| !has.contains(*tensor)) {
                return Err(damaged(format!(
                    "tensor `{tensor}` is said to be in {shard}, and is not; download both again"
                )));
            }
            files.push(Rc::new(file));
        }
        Ok(files)
    }
}
