//! PEFT's settings of a LoRA, which say the alpha of modules that bring none: in the file's metadata, where diffusers writes
//! them since 0.34, or in an `adapter_config.json` beside it.

use serde_json::{Map, Value};

use crate::pipeline::error::Error;
use crate::pipeline::model::layout::read_json;
use crate::weights::{self, Source, TensorFile};

/// PEFT's name for the file.
const FILE: &str = "adapter_config.json";

/// Settings by which the weights are not what down and up matrices and alpha say.
const CHANGING: [&str; 9] = [
    "use_dora",
    "use_qalora",
    "use_bdlora",
    "lora_bias",
    "layer_replication",
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "velora_config",
];

/// Ways to begin the training that leave the checkpoint's own weights as they are.
const BEGINNINGS: [&str; 3] = ["gaussian", "eva", "orthogonal"];

/// The settings of a LoRA.
pub(in crate::pipeline) struct LoraSettings {
    /// The file that has them.
    file: String,
    settings: Map<String, Value>,
}

impl LoraSettings {
    /// The settings in the metadata of `file`, each under its component: `unet.lora_alpha`. `None` if there are none.
    ///
    /// # Errors
    /// If they cannot be read, or describe what is not supported.
    pub fn of(file: &TensorFile) -> Result<Option<Self>, Error> {
        let Some(json) = file.metadata().get("lora_adapter_metadata").filter(|json| !json.is_empty()) else {
            return Ok(None);
        };
        let settings = serde_json::from_slice(json.as_bytes()).map_err(|error| {
            invalid(file.file(), format!("its metadata `lora_adapter_metadata` cannot be read: {error}"))
        })?;
        Self { file: file.file().to_owned(), settings }.checked().map(Some)
    }

    /// The settings beside the file at `path`. `None` if there are none, or none that can be had: a host may refuse to say that
    /// it has no such file.
    ///
    /// # Errors
    /// As [`LoraSettings::of`].
    pub async fn beside(source: &dyn Source, path: &str) -> Result<Option<Self>, Error> {
        let file = path.rsplit_once('/').map_or(FILE.to_owned(), |(folder, _)| format!("{folder}/{FILE}"));
        match read_json(source, &file).await {
            Err(Error::Weights(weights::Error::NotFound { .. } | weights::Error::Read { .. })) => Ok(None),
            settings => Self { file, settings: settings? }.checked().map(Some),
        }
    }

    fn checked(self) -> Result<Self, Error> {
        for (key, value) in &self.settings {
            // `unet.use_dora` as well.
            let name = key.rsplit('.').next().unwrap_or_default();
            let is_off = matches!(value, Value::Null | Value::Bool(false));
            let supported = match (name, value) {
                ("use_dora", Value::Bool(true)) => {
                    return Err(invalid(&self.file, format!("`{key}`: DoRA is not supported")));
                }
                ("peft_type", Value::String(method)) => method == "LORA",
                ("init_lora_weights", Value::String(beginning)) => BEGINNINGS.contains(&beginning.as_str()),
                (name, _) => is_off || !CHANGING.contains(&name),
            };
            if !supported {
                return Err(invalid(&self.file, format!("`{key}` is {value}, which is not supported")));
            }
        }
        Ok(self)
    }

    /// The factor of the module `path` of `component`, of a rank: alpha / rank. `None` if alpha is not said.
    ///
    /// # Errors
    /// A rank that is another, or what cannot be read.
    pub fn scale(&self, component: &str, path: &str, rank: usize) -> Result<Option<f64>, Error> {
        if let Some(said) = self.number(component, path, "r", "rank_pattern")?.filter(|&said| said != rank as f64) {
            let reason =
                format!("the rank of {path:?} is {said} there and {rank} in the matrices; they are not of one LoRA");
            return Err(invalid(&self.file, reason));
        }
        let alpha = self.number(component, path, "lora_alpha", "alpha_pattern")?;
        let stabilised = self.get(component, "use_rslora").and_then(Value::as_bool) == Some(true);
        let rank = rank as f64;
        Ok(alpha.map(|alpha| alpha / if stabilised { rank.sqrt() } else { rank }))
    }

    fn get(&self, component: &str, key: &str) -> Option<&Value> {
        let of_component = self.settings.get(&format!("{component}.{key}")).or_else(|| self.settings.get(key));
        of_component.filter(|value| !value.is_null())
    }

    /// The number that `pattern` gives for a module, or `key` for all.
    fn number(&self, component: &str, path: &str, key: &str, pattern: &str) -> Result<Option<f64>, Error> {
        let mut found = self.get(component, key).map(|value| (key, value));
        let patterns = self.get(component, pattern).and_then(Value::as_object);
        let mut matched: Option<&str> = None;
        for (name, value) in patterns.into_iter().flatten() {
            if !is_of(path, name).map_err(|reason| invalid(&self.file, format!("`{pattern}`: {name:?} {reason}")))? {
                continue;
            }
            if let Some(other) = matched.filter(|_| found.is_none_or(|(_, said)| said != value)) {
                let reason = format!("`{pattern}`: {other:?} and {name:?} say different things of {path:?}");
                return Err(invalid(&self.file, reason));
            }
            (found, matched) = (Some((name.as_str(), value)), Some(name.as_str()));
        }
        let Some((key, value)) = found else { return Ok(None) };
        match value.as_f64() {
            Some(number) => Ok(Some(number)),
            None => Err(invalid(&self.file, format!("`{key}` is {value}, expected a number"))),
        }
    }
}

/// Whether PEFT's pattern `name` means the module `path`: its end, from a dot on, or all of it. A pattern is a regular
/// expression, and hardly ever more of one than a name, with `.*` before it or `^` for all.
fn is_of(path: &str, name: &str) -> Result<bool, &'static str> {
    let (whole, name) = name.strip_prefix('^').map_or((false, name), |name| (true, name));
    let (anywhere, name) = name.strip_prefix(".*").map_or((false, name), |name| (true, name));
    let name = name.strip_suffix('$').unwrap_or(name).replace("\\.", ".");
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)) {
        return Err("is a regular expression, of which only names are read");
    }
    let rest = path.strip_suffix(&name);
    Ok(rest.is_some_and(|rest| anywhere || rest.is_empty() || (!whole && rest.ends_with('.'))))
}

fn invalid(file: &str, reason: String) -> Error {
    weights::Error::Header { file: file.to_owned(), format: "LoRA", reason }.into()
}
