//! Errors between a checkpoint and a picture.

use std::borrow::Cow;

use crate::{device, diffusion, graph, models, text, weights};

/// A pipeline that cannot be loaded or run.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// A file of the checkpoint.
    #[error(transparent)]
    Weights(#[from] weights::Error),
    /// A tokenizer's files.
    #[error("{folder}/{source}")]
    Tokenizer {
        /// The tokenizer's folder.
        folder: String,
        /// Reason.
        source: text::Error,
    },
    /// A prompt that the tokenizer cannot encode.
    #[error(transparent)]
    Text(#[from] text::Error),
    /// The scheduler's config or the steps asked of it.
    #[error(transparent)]
    Diffusion(#[from] diffusion::Error),
    /// A component's config.
    #[error("{file}: {source}")]
    Model {
        /// The `config.json`.
        file: String,
        /// Reason.
        source: models::Error,
    },
    /// A JSON file that is not what it should be.
    #[error("{file}: {message}")]
    Json {
        /// The file.
        file: String,
        /// Reason.
        message: String,
    },
    /// A pipeline class that is not implemented.
    #[error("model_index.json: `_class_name` is {class:?}; supported are {supported}")]
    UnsupportedPipeline {
        /// The class.
        class: String,
        /// The supported classes.
        supported: String,
    },
    /// A file that is no whole checkpoint of a known kind.
    #[error(
        "{file}: this is {found}; one file can be opened where it is a whole checkpoint of Stable Diffusion 1.x, 2.x or XL"
    )]
    SingleFile {
        /// The file.
        file: String,
        /// Description of the content.
        found: String,
    },
    /// A tensor whose shape is not what the config calls for.
    #[error("{file}: tensor `{tensor}` is {found:?}, but the network needs {expected:?}{hint}")]
    Shape {
        /// The file.
        file: String,
        /// Name of the tensor.
        tensor: String,
        /// Shape in the file.
        found: Vec<usize>,
        /// Shape that the network needs.
        expected: Vec<usize>,
        /// Possible explanation.
        hint: &'static str,
    },
    /// A tensor that the network needs and the file does not have.
    #[error("{file}: there is no tensor `{tensor}`, which the network needs{hint}")]
    MissingTensor {
        /// The file.
        file: String,
        /// Name of the tensor.
        tensor: String,
        /// Possible explanation.
        hint: &'static str,
    },
    /// Weights that the network has no place for.
    #[error(
        "{file}: the network has no place for {tensors}; it has parts that are not supported, or the config is of another"
    )]
    NoPlace {
        /// The file.
        file: String,
        /// The first of the tensors, and how many there are.
        tensors: String,
    },
    /// A network that cannot be addressed; a mistake of this library rather than of its user.
    #[error(transparent)]
    Graph(#[from] graph::Error),
    /// The device that computes.
    #[error(transparent)]
    Device(#[from] device::Error),
    /// An option of a run.
    #[error("`{option}` is {value}: {message}")]
    Option {
        /// Name of the option.
        option: &'static str,
        /// Value of the option.
        value: String,
        /// The allowed values.
        message: String,
    },
    /// A source that was given in the place of a part of the checkpoint.
    #[error("`{option}` {name}: {source}")]
    Given {
        /// Name of the option.
        option: &'static str,
        /// Name of the source, as it calls itself.
        name: String,
        /// Reason.
        source: Box<Error>,
    },
    /// A tensor given to a network by a caller.
    #[error("input `{name}`: {message}")]
    Input {
        /// Name of the input.
        name: String,
        /// Reason.
        message: String,
    },
}

/// The names of [`OpenOptions`](super::OpenOptions), as errors have them.
const OPENING: [&str; 5] = ["variant", "unet", "vae", "prediction_type", "vocabulary"];

impl Error {
    pub(super) fn model(file: &str, error: impl Into<models::Error>) -> Self {
        Error::Model { file: file.to_owned(), source: error.into() }
    }

    /// Whether this is about an option of a run, rather than about what was opened.
    pub fn is_of_option(&self) -> bool {
        use diffusion::Error::{NumInferenceSteps, Option};
        matches!(
            self,
            Self::Option { .. } | Self::Given { .. } | Self::Diffusion(Option { .. } | NumInferenceSteps { .. })
        )
    }

    /// The sentence of this error with each option, which this library calls by names such as `guidance_scale`, as `written` has it:
    /// as a command or another language spells and quotes it. The number of steps is `steps`, whoever found it wrong.
    pub fn with_option_names(&self, written: &dyn Fn(&str) -> String) -> String {
        let sentence = self.to_string();
        let renamed = |name: &str| match name {
            "num_inference_steps" => written("steps"),
            // Elsewhere there are tensors and classes between backquotes too.
            _ if self.is_of_option() || OPENING.contains(&name) => written(name),
            _ => format!("`{name}`"),
        };
        let parts = sentence.split('`').enumerate().map(|(index, part)| match index % 2 {
            0 => part.to_owned(),
            _ => part.split(" and ").map(renamed).collect::<Vec<_>>().join(" and "),
        });
        parts.collect()
    }

    /// An error for lack of a place for `tensors`, of which there is one at least.
    pub(super) fn no_place(file: &str, tensors: &[&str]) -> Self {
        Error::NoPlace { file: file.to_owned(), tensors: list(tensors) }
    }

    pub(super) fn option(option: &'static str, value: impl ToString, message: impl Into<String>) -> Self {
        Error::Option { option, value: value.to_string(), message: message.into() }
    }
}

/// The first of the tensors `names`, and how many there are.
pub(super) fn list(names: &[&str]) -> String {
    const SHOWN: usize = 3;
    let shown = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    match names.len() {
        1 => format!("tensor {shown}"),
        count if count > SHOWN => format!("{count} tensors, the first {shown}"),
        count => format!("{count} tensors, {shown}"),
    }
}

/// Cuts the middle out of a message that is longer than anyone reads: an error may quote a name or a value that a file has
/// made as long as itself. What is wrong stands at its beginning, and what to do at its end.
pub fn brief(message: &str) -> Cow<'_, str> {
    const MOST: usize = 1000;
    const ENDING: usize = 300;
    let length = message.chars().count();
    if length <= MOST {
        return Cow::Borrowed(message);
    }
    let beginning: String = message.chars().take(MOST - ENDING).collect();
    let ending: String = message.chars().skip(length - ENDING).collect();
    Cow::Owned(format!("{beginning} … ({} characters left out) … {ending}", length - MOST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_without_end_keeps_its_beginning_and_its_ending() {
        let quoted = "ß".repeat(900_000);
        let message = format!("unet/config.json: `{quoted}` is 1: the key is not known");
        let cut = brief(&message);
        assert!(cut.starts_with("unet/config.json: `ßß") && cut.ends_with("ßß` is 1: the key is not known"), "{cut}");
        assert!(cut.contains("(899047 characters left out)"), "{cut}");
        assert!(cut.chars().count() < 1100);
        assert_eq!(brief("short"), "short");
        assert_eq!(brief(&"ß".repeat(1000)), "ß".repeat(1000));
    }
}
