//! What can go wrong in the command, each a sentence that names the file or the option.

use std::io;
use std::path::Path;

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
    #[error("{folder}: {}", .source.with_option_names(&flag))]
    Checkpoint {
        /// The folder, as it was given.
        folder: String,
        /// What is wrong.
        source: Box<pipeline::Error>,
    },
    /// A scheduler's config.
    #[error("{path}: {}", pipeline::Error::from(.source.clone()).with_option_names(&flag))]
    Scheduler {
        /// The file.
        path: String,
        /// What is wrong.
        source: diffusion::Error,
    },
    /// An option, an input, or the device.
    #[error("{}", .0.with_option_names(&flag))]
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

/// An option as the command line has it.
fn flag(option: &str) -> String {
    format!("--{}", option.replace('_', "-"))
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
