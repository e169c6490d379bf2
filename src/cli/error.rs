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
        let words = match self {
            Self::Run(error) => of_pipeline(error, subcommand),
            Self::Checkpoint { source, .. } => of_pipeline(source, subcommand),
            Self::Scheduler { source, .. } => of_diffusion(source, subcommand),
            _ => None,
        };
        // A driver's message may run over several lines.
        words.unwrap_or_else(|| self.to_string()).lines().map(str::trim).collect::<Vec<_>>().join(" ")
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

/// What is said of an option; none of an error about something else.
fn of_pipeline(error: &pipeline::Error, subcommand: &Command) -> Option<String> {
    match error {
        pipeline::Error::Option { option, value, message } => Some(of_option(option, value, message, subcommand)),
        pipeline::Error::Diffusion(error) => of_diffusion(error, subcommand),
        _ => None,
    }
}

fn of_diffusion(error: &diffusion::Error, subcommand: &Command) -> Option<String> {
    match error {
        diffusion::Error::Option { option, value, expected } => Some(of_option(option, value, expected, subcommand)),
        diffusion::Error::NumInferenceSteps { num_inference_steps, class, least, most } => {
            let expected = format!("{class} takes {least} to {most} here");
            Some(of_option("steps", &num_inference_steps.to_string(), &expected, subcommand))
        }
        _ => None,
    }
}

fn of_option(option: &str, value: &str, message: &str, subcommand: &Command) -> String {
    let names: Vec<String> = option.split(" and ").map(|name| quoted(name, subcommand)).collect();
    // A message names other options in backticks.
    let parts = message.split('`').enumerate();
    let message: Vec<String> =
        parts.map(|(index, part)| if index % 2 == 1 { quoted(part, subcommand) } else { part.to_owned() }).collect();
    format!("{} is {value}: {}", names.join(" and "), message.concat())
}

/// The option as it is written on the command line, or else the word in backticks.
fn quoted(name: &str, subcommand: &Command) -> String {
    flag(name, subcommand).unwrap_or_else(|| format!("`{name}`"))
}

/// Options of the library that are not called the same with hyphens.
const OTHERWISE: [(&str, &str); 4] =
    [("images", "images"), ("num_inference_steps", "steps"), ("timestep", "timesteps"), ("weight", "lora")];

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
                        options.extend(name.into_iter().flat_map(|name| name.split(" and ")).map(str::to_owned));
                    }
                }
            }
        }
        options
    }

    #[test]
    fn every_option_of_the_library_has_a_name_on_the_command_line() {
        // A browser's, those that the command leaves alone or makes right itself, and a key of a scheduler's config.
        const NOT_GIVEN: [&str; 5] = ["begin_index", "lms_order", "preview", "variance_type", "vocabulary"];
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
        ] {
            assert_eq!(said(subcommand, error), expected);
        }
    }
}
