//! Errors between pictures and a distance.

use crate::{device, models, weights};

/// The command that makes `inception.safetensors` of the pickle that `pytorch-fid` downloads, whose name stands in it.
pub const INCEPTION_CONVERSION: &str = "python -c \"import torch; from safetensors.torch import save_file; \
    save_file({k: v.clone(memory_format=torch.contiguous_format) for k, v in \
    torch.load('pt_inception-2015-12-05-6726825d.pth', map_location='cpu', weights_only=True).items() \
    if v.is_floating_point() and not k.startswith('fc.')}, 'inception.safetensors')\"";

/// A network that cannot be loaded, or pictures, features or statistics that cannot be compared.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// A file of the network or of statistics.
    #[error(transparent)]
    Weights(#[from] weights::Error),
    /// The network's config.
    #[error("{file}: {source}")]
    Model {
        /// The `config.json`.
        file: String,
        /// Reason.
        source: models::Error,
    },
    /// A folder or file that holds no network whose features can be compared.
    #[error(
        "{name}: {found}; a feature network is a folder with the config.json and model.safetensors of an EmojiClassifier, \
        or InceptionV3 as inception.safetensors"
    )]
    NoFeatureNetwork {
        /// The folder or file.
        name: String,
        /// Description of the content.
        found: String,
    },
    /// InceptionV3 as `pytorch-fid` downloads it: a pickle.
    #[error(
        "{file}: this is a PyTorch pickle, which can run any code when it is opened, and is not opened here; where you \
        trust its origin, convert it once, with its name in place of pt_inception-2015-12-05-6726825d.pth: \
        {INCEPTION_CONVERSION}"
    )]
    Pickle {
        /// The file.
        file: String,
    },
    /// A tensor that the network needs and the file does not have.
    #[error(
        "{file}: there is no tensor `{tensor}`, which {network} needs; the file is not complete, or of another network"
    )]
    MissingTensor {
        /// The file.
        file: String,
        /// Name of the tensor.
        tensor: String,
        /// The network's name.
        network: &'static str,
    },
    /// A tensor of another shape.
    #[error("{file}: tensor `{tensor}` is {found:?}, but {network} needs {expected:?}; the file is of another network")]
    Shape {
        /// The file.
        file: String,
        /// Name of the tensor.
        tensor: String,
        /// Shape in the file.
        found: Vec<usize>,
        /// Shape that the network needs.
        expected: Vec<usize>,
        /// The network's name.
        network: &'static str,
    },
    /// A picture that is none.
    #[error("picture {index}: {message}")]
    Picture {
        /// Number of the picture among those given, from 0.
        index: usize,
        /// Reason.
        message: String,
    },
    /// Names for what is seen on a picture, asked of a network that knows none.
    #[error("{extractor} gives features alone: it does not say what is on a picture")]
    NoLabels {
        /// The network's name.
        extractor: &'static str,
    },
    /// A file of tensors that are no statistics.
    #[error("{file}: this file holds no statistics of pictures")]
    NoStatistics {
        /// The file.
        file: String,
    },
    /// A file of statistics that is not what it should be.
    #[error("{file}: {message}")]
    File {
        /// The file.
        file: String,
        /// Reason, with what to do.
        message: String,
    },
    /// Features of two extractors.
    #[error(
        "{left} and {right} lie in different spaces, between which there is no distance; extract both with one network"
    )]
    Spaces {
        /// One of the two spaces.
        left: String,
        /// The other space.
        right: String,
    },
    /// Fewer pictures than a number can be computed from.
    #[error("{what} of {count} picture{}: at least {needed} are needed", if *.count == 1 { "" } else { "s" })]
    TooFew {
        /// The number that was to be computed.
        what: &'static str,
        /// Number of pictures that were given.
        count: usize,
        /// Number of pictures that are needed.
        needed: usize,
    },
    /// A number that is none.
    #[error("{what} is not finite: the extractor's weights or the statistics are damaged")]
    NotFinite {
        /// Name of the number.
        what: String,
    },
    /// A covariance that no pictures have.
    #[error(
        "the covariance of {made_from} is none, at row {row} and column {column}: no variance is below 0, and a covariance is \
        the same both ways and no larger than the variances allow; the statistics are damaged"
    )]
    Covariance {
        /// Description of the pictures.
        made_from: String,
        /// Number of a feature, from 0.
        row: usize,
        /// Number of the other feature.
        column: usize,
    },
    /// Lists that do not fit together.
    #[error("{what} has {found} numbers where {expected} are expected")]
    Length {
        /// Name of the list.
        what: &'static str,
        /// Length of the list.
        found: usize,
        /// Length that the dimension calls for.
        expected: usize,
    },
    /// The device that computes.
    #[error(transparent)]
    Device(#[from] device::Error),
}
