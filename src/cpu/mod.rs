//! Executes a graph on the CPU: the readable twin of every shader, and the device where there is no usable GPU.
//!
//! Each op is one function over slices, in a file named like its shader. Sums run in one fixed order and transcendental
//! functions are computed in software, so the same seed gives the same bits natively and in every browser.

mod activation;
mod attention;
mod convolution;
mod elementwise;
mod gemm;
mod layout;
mod linear_update;
mod math;
mod norm;
mod parallel;
mod program;
mod resample;
mod timestep_embedding;
mod weights;

pub use program::Program;
pub use weights::Weights;

/// What can go wrong on the CPU.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// An input or output that the network does not have.
    #[error(transparent)]
    Graph(#[from] crate::graph::Error),
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
    /// Weights that were never loaded.
    #[error("the checkpoint has no tensor `{0}`, which this network needs")]
    MissingWeight(String),
    /// Weight data that cannot be decoded.
    #[error("tensor `{name}`: {message}")]
    Weight {
        /// Name of the tensor.
        name: String,
        /// What is wrong with it.
        message: String,
    },
    /// A NaN or an infinity.
    #[error(
        "`{path}` ({op}) produced a value that is not finite: the weights or inputs are damaged, or the numbers overflow"
    )]
    NonFinite {
        /// Module path of the first node that made one.
        path: String,
        /// Its op.
        op: &'static str,
    },
    /// An output read before the first run.
    #[error("output `{0}` was read before the network ran")]
    NotRun(String),
}
