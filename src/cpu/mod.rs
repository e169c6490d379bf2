//! Executes a graph on the CPU: the readable twin of every shader, and the device where there is no usable GPU.
//!
//! Each op is one function over slices, in a file that names its shader. Sums run in one fixed order and transcendental
//! functions are computed in software, so the same seed gives the same bits natively and in every browser.

mod activation;
mod attention;
mod convolution;
mod elementwise;
mod gemm;
mod guidance;
mod layout;
mod linear_update;
mod math;
mod norm;
mod parallel;
mod program;
mod resample;
mod threshold;
mod timestep_embedding;
mod weights;

pub use program::Program;
pub use weights::Weights;

/// Bytes that weights and activations may take together: in a browser, a module has 4 GiB for everything.
const MEMORY: u64 = if cfg!(target_arch = "wasm32") { 3 << 30 } else { 1 << 62 };

/// Refuses what would not fit, because an allocation that fails ends the module without a word.
fn check_memory(what: &'static str, bytes: u64) -> Result<(), Error> {
    if bytes > MEMORY { Err(Error::OutOfMemory { what, bytes, limit: MEMORY }) } else { Ok(()) }
}

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
    /// More memory than there can be.
    #[error("out of memory: {what} needs {bytes} bytes, and {limit} can be had; try a smaller picture or model")]
    OutOfMemory {
        /// For what.
        what: &'static str,
        /// How much.
        bytes: u64,
        /// How much can be had.
        limit: u64,
    },
    /// An output read before the first run.
    #[error("output `{0}` was read before the network ran")]
    NotRun(String),
}
