//! The oracle: every op as a plain loop over slices, in a file that its shader names.
//!
//! What computes pictures is [`crate::cpu`] and [`crate::gpu`]; what they compute is compared with this. So it shares no code and
//! no index arithmetic with them, reads weights as a checkpoint has them, and sums in f64. Native only, and slow.

mod activation;
mod attention;
mod convolution;
mod elementwise;
#[cfg(feature = "training")]
mod gradient;
mod guidance;
mod layout;
mod linear_update;
mod norm;
mod program;
mod resample;
mod threshold;
mod timestep_embedding;

pub use program::Program;

/// An error of the oracle.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// An input or output that the network does not have.
    #[error(transparent)]
    Graph(#[from] crate::graph::Error),
    /// A weight that is missing, or has another length than its shape says.
    #[error("the weight `{0}` is missing or of another length")]
    Weight(String),
    /// Data of the wrong length for an input.
    #[error("input `{name}` takes {expected} numbers, got {found}")]
    InputLength {
        /// Name of the input.
        name: String,
        /// Elements that it has.
        expected: usize,
        /// Elements given.
        found: usize,
    },
    /// An output that nothing has made, or of another element type than was asked for.
    #[error("output `{0}` was read before the network ran, or as another type")]
    NotRun(String),
}
