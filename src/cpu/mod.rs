//! Executes a graph on the CPU: the device where there is no usable GPU.
//!
//! What computes is the crate `undiffuse-kernels`, functions over plain memory. This room puts a network before them: [`Weights`] are
//! packed as kernels read them, a [`Program`] is a graph planned into one region of memory and lowered to a list of jobs once, and
//! replayed for every step without another allocation. Where memory and threads are is known to a [`Machine`] only: natively that is
//! the process ([`Host`]), in a browser a WebAssembly module beside this one.

mod device;
mod form;
#[cfg(feature = "training")]
mod gradient;
#[cfg(not(target_arch = "wasm32"))]
mod host;
mod lower;
mod machine;
mod network;
mod plan;
mod profile;
mod program;
mod roofline;
mod weights;

pub use device::Device;
#[cfg(not(target_arch = "wasm32"))]
pub use host::Host;
pub use machine::Machine;
pub use program::{MemoryReport, Program};
pub use undiffuse_kernels::{Arithmetic, Job};
pub use weights::Weights;

/// An error on the CPU.
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
        /// Reason.
        message: String,
    },
    /// A NaN or an infinity.
    #[error(
        "`{path}` ({op}) produced a value that is not finite: the weights or inputs are damaged, or the numbers overflow"
    )]
    NonFinite {
        /// Module path of the first node that made one.
        path: String,
        /// Op of the node.
        op: &'static str,
    },
    /// More memory than there is.
    #[error("out of memory: {what} needs {bytes} bytes, which cannot be had; try a smaller picture or model")]
    OutOfMemory {
        /// Purpose of the memory.
        what: String,
        /// Number of bytes.
        bytes: u64,
    },
    /// A run that nobody wants any more.
    #[error("stopped, as was asked")]
    Aborted,
    /// Kernels that came to no end.
    #[error("the CPU's kernels failed: {0}; load the model again")]
    Machine(String),
    /// An output read before the first run.
    #[error("output `{0}` was read before the network ran")]
    NotRun(String),
}
