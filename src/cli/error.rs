//! What can go wrong in the command, each a sentence that names the file or the option.

use std::io;
use std::path::Path;

use clap::Command;

use undiffuse::{diffusion, metrics, pipeline, weights};

/// A command that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder on the command line.
    #[error("{path}: {message}")]
    Path {
        /// As it was given.
        path: String,
        /// What is wrong and what to do.
        message: String,
    },
    /// Something inside a checkpoint, which names its own file.
    #[error("{folder}: {source}")]
    Checkpoint {
        /// The folder, as it was given.
        folder: String,
        /// What is wrong.
        source: Box<pipeline::Error>,
    },
    /// A scheduler's config.
    #[error("{path}: {source}")]
    Scheduler {
        /// The file.
        path: String,
        /// What is wrong.
        source: diffusion::Error,
    },
    /// An option, an input, or the device.
    #[error(transparent)]
    Run(Box<pipeline::Error>),
    /// A device that was asked for and is not there.
    #[error("--device {choice}: {message}")]
    Device {
        /// As it was given.
        choice: &'static str,
        /// What is missing and what to do.
        message: String,
    },
    /// Nowhere to keep what was measured, or what has been computed so far.
    #[error("{what}: there is no folder to keep results in; set XDG_CACHE_HOME to one")]
    Cache {
        /// What asks for it.
        what: &'static str,
    },
    /// An option that means nothing to what was given with it, or that is missing.
    #[error("{option}: {message}")]
    Option {
        /// As it is written.
        option: &'static str,
        /// What is wrong and what to do.
        message: String,
    },
    /// Features, statistics or distances.
    #[error(transparent)]
    Metrics(#[from] metrics::Error),
    /// Nobody can be told the result.
    #[error("stdout: {0}")]
    Stdout(io::Error),
}

impl Error {
    /// An error about a path of the command line.
    pub fn path(path: &Path, message: impl ToString) -> Self {
        Self::Path { path: path.display().to_string(), message: message.to_string() }
    }

    /// An error about an option.
    pub fn option(option: &'static str, message: impl Into<String>) -> Self {
        Self::Option { option, message: message.into() }
    }

    /// The error in one line, in the words of the subcommand that was given: the library's options have other names there.
    pub fn in_words_of(&self, subcommand: &Command) -> String {
        let written = |error: &pipeline::Error| error.with_option_names(&|option| written(option, subcommand));
        let words = match self {
            Self::Run(error) => written(error),
            Self::Checkpoint { source, .. } if source.is_of_option() => written(source),
            Self::Checkpoint { folder, source } => inside(folder, &written(source)),
            Self::Scheduler { source, .. } if pipeline::Error::from(source.clone()).is_of_option() => {
                written(&source.clone().into())
            }
            _ => self.to_string(),
        };
        // A driver's message may run over several lines.
        words.lines().map(str::trim).collect::<Vec<_>>().join(" ")
    }

    /// An error inside the checkpoint or component in `folder`.
    pub fn checkpoint(folder: &Path, source: impl Into<pipeline::Error>) -> Self {
        match source.into() {
            // It names the folder itself.
            source @ pipeline::Error::Weights(weights::Error::NotFound { .. }) => source.into(),
            source => Self::Checkpoint { folder: folder.display().to_string(), source: Box::new(source) },
        }
    }
}

impl From<pipeline::Error> for Error {
    fn from(error: pipeline::Error) -> Self {
        Self::Run(Box::new(error))
    }
}

/// The sentence `words` about something inside of `folder`, which may be the one file that the sentence begins with.
fn inside(folder: &str, words: &str) -> String {
    let name = Path::new(folder).file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let words = words.strip_prefix(name).and_then(|rest| rest.strip_prefix(": ")).unwrap_or(words);
    format!("{folder}: {words}")
}

/// The option as it is written on the command line, or else the word in backquotes.
fn written(name: &str, subcommand: &Command) -> String {
    flag(name, subcommand).unwrap_or_else(|| format!("`{name}`"))
}

/// The sentence of `error` as `inspect` writes options.
pub fn in_words_of_inspect(error: &pipeline::Error) -> String {
    let command = super::command();
    match command.find_subcommand("inspect") {
        Some(subcommand) => error.with_option_names(&|option| written(option, subcommand)),
        None => error.to_string(),
    }
}

/// Options of the library that are not called the same with hyphens.
const OTHERWISE: [(&str, &str); 3] = [("images", "images"), ("timestep", "timesteps"), ("weight", "lora")];

/// What `subcommand` calls the library's option `name`, if it has it.
fn flag(name: &str, subcommand: &Command) -> Option<String> {
    let renamed = OTHERWISE.iter().find(|(library, _)| *library == name).map(|(_, here)| (*here).to_owned());
    let wanted = renamed.unwrap_or_else(|| name.replace('_', "-"));
    let argument = subcommand.get_arguments().find(|argument| match argument.get_long() {
        Some(long) => long == wanted,
        None => argument.get_id() == wanted.as_str(),
    })?;
    match argument.get_long() {
        Some(long) => Some(format!("--{long}")),
        None => argument.get_value_names()?.first().map(|name| name.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;

    use super::*;

    /// What the library calls its options in errors, as its source has it.
    fn options() -> BTreeSet<String> {
        let mut options = BTreeSet::new();
        let mut folders =
            ["src/pipeline", "src/diffusion"].map(|folder| Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).to_vec();
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let source = fs::read_to_string(&path).unwrap();
                let source = source.split("#[cfg(test)]").next().unwrap();
                for beginning in ["Error::option(", "option: ", "refuse(", "number(", "side(info, "] {
                    for rest in source.split(beginning).skip(1) {
                        let name = rest.trim_start().strip_prefix('"').and_then(|rest| rest.split('"').next());
                        let names = name.into_iter().flat_map(|name| name.split(" and "));
                        // As `with_option_names` has it.
                        options.extend(names.map(|name| name.replace("num_inference_steps", "steps")));
                    }
                }
            }
        }
        options
    }

    #[test]
    fn every_option_of_the_library_has_a_name_on_the_command_line() {
        // A browser's, those that the command leaves alone or makes right itself, and a key of a scheduler's config.
        const NOT_GIVEN: [&str; 6] = ["begin_index", "lms_order", "options", "preview", "variance_type", "vocabulary"];
        let command = super::super::command();
        let options = options();
        assert!(options.len() > 30 && options.contains("guidance_scale") && options.contains("height"), "{options:?}");
        let is_named = |option: &str| command.get_subcommands().any(|subcommand| flag(option, subcommand).is_some());
        let unnamed: Vec<_> =
            options.iter().filter(|option| !is_named(option) && !NOT_GIVEN.contains(&option.as_str())).collect();
        assert!(unnamed.is_empty(), "no option of any subcommand is called {unnamed:?}");
        for (library, _) in OTHERWISE {
            assert!(is_named(library), "{library}");
        }
    }

    #[test]
    fn errors_are_in_the_words_of_the_command_line() {
        let command = super::super::command();
        let said = |subcommand: &str, error: Error| error.in_words_of(command.find_subcommand(subcommand).unwrap());
        let option = |option, value: &str, message: &str| {
            Error::from(pipeline::Error::Option { option, value: value.into(), message: message.into() })
        };
        let steps = diffusion::Error::NumInferenceSteps {
            num_inference_steps: 1001,
            class: "DDIMScheduler".into(),
            least: 1,
            most: 1000,
        };
        for (subcommand, error, expected) in [
            (
                "sample",
                option("guidance_scale", "NaN", "expected a number"),
                "--guidance-scale is NaN: expected a number",
            ),
            ("sample", option("mask", "given", "give `image` too"), "--mask is given: give --image too"),
            ("sample", option("width and height", "9×9", "no"), "--width and --height is 9×9: no"),
            (
                "sample",
                pipeline::Error::from(steps.clone()).into(),
                "--steps is 1001: DDIMScheduler takes 1 to 1000 here",
            ),
            (
                "schedule",
                Error::Scheduler { path: "x".into(), source: steps },
                "--steps is 1001: DDIMScheduler takes 1 to 1000 here",
            ),
            (
                "bound",
                option("images", "a list of none", "give at least one"),
                "IMAGES is a list of none: give at least one",
            ),
            (
                "bound",
                option("mask", "given", "`fixed_small` is not `mask`"),
                "`mask` is given: `fixed_small` is not `mask`",
            ),
            ("noise", option("timestep", "3", "a\n   b"), "--timesteps is 3: a b"),
            (
                "sample",
                Error::checkpoint(
                    Path::new("models/x.safetensors"),
                    pipeline::Error::SingleFile { file: "x.safetensors".into(), found: "what `vae` takes, `q`".into() },
                ),
                "models/x.safetensors: this is what --vae takes, `q`; one file can be opened where it is a whole \
                 checkpoint of Stable Diffusion 1.x, 2.x or XL",
            ),
        ] {
            assert_eq!(said(subcommand, error), expected);
        }
    }
}
