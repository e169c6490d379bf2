//! What can go wrong between pictures and a distance.

use crate::{pipeline, weights};

/// Pictures, features or statistics that no distance can be had of.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// The extractor: its files, its network, or the device that runs it.
    #[error(transparent)]
    Extractor(#[from] pipeline::Error),
    /// A file of statistics or of an extractor that cannot be read.
    #[error(transparent)]
    Weights(#[from] weights::Error),
    /// A file of statistics that is not what it should be.
    #[error("{file}: {message}")]
    File {
        /// The file.
        file: String,
        /// What is wrong and what to do.
        message: String,
    },
    /// Features of two extractors.
    #[error(
        "{left} and {right} lie in different spaces, between which there is no distance; extract both with one network"
    )]
    Spaces {
        /// One of them.
        left: String,
        /// The other.
        right: String,
    },
    /// Fewer pictures than a number can be computed from.
    #[error("{what} of {count} picture{}: at least {needed} are needed", if *.count == 1 { "" } else { "s" })]
    TooFew {
        /// What was to be computed.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// How many it takes.
        needed: usize,
    },
    /// A number that is none.
    #[error("{what} is not finite: the extractor's weights or the statistics are damaged")]
    NotFinite {
        /// Which number.
        what: String,
    },
    /// Lists that do not fit together.
    #[error("{what} has {found} numbers where {expected} are expected")]
    Length {
        /// Which list.
        what: &'static str,
        /// Its length.
        found: usize,
        /// What the dimension calls for.
        expected: usize,
    },
    /// An eigenvalue iteration that came to no end.
    #[error("the eigenvalues of a covariance matrix were not found within {0} rotations")]
    Eigenvalues(usize),
}
