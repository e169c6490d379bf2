//! Errors of a GPU.

/// An error on a GPU.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// No WebGPU, or no adapter that it may use.
    #[error("no WebGPU adapter: {0}")]
    NoAdapter(String),
    /// The adapter refuses to give a device.
    #[error("the WebGPU adapter gives no device: {0}")]
    NoDevice(String),
    /// The device is gone: driver reset, too long a computation, or destroyed by the browser.
    #[error("the GPU device was lost ({reason}); load the model again to continue")]
    DeviceLost {
        /// Reason, as the platform gives it.
        reason: String,
    },
    /// An error that no particular operation was waiting for.
    #[error("the GPU reported an error: {0}")]
    Uncaptured(String),
    /// A kernel that does not compile, or not for this device.
    #[error("kernel `{kernel}`, needed for `{path}`, does not compile on this device: {message}")]
    Kernel {
        /// Name and variant of the kernel.
        kernel: String,
        /// Module path of the first node that needs it.
        path: String,
        /// Message of the compiler.
        message: String,
    },
    /// Commands that the device refuses.
    #[error("the GPU refuses to run this network: {0}")]
    Refused(String),
    /// Not enough memory.
    #[error("out of GPU memory: {what} needs {bytes} bytes; try a smaller picture or model, or close other tabs")]
    OutOfMemory {
        /// Purpose of the memory.
        what: String,
        /// Number of bytes.
        bytes: u64,
    },
    /// A tensor larger than the device's limits.
    #[error("`{what}` needs a buffer of {bytes} bytes, this device allows {limit}; try a smaller picture or batch")]
    TooLarge {
        /// Path of the node or name of the weight.
        what: String,
        /// Bytes of the buffer.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// A node with dimensions that no kernel handles.
    #[error("`{path}` ({op}): {message}")]
    Unsupported {
        /// Module path of the node.
        path: String,
        /// Op of the node.
        op: &'static str,
        /// Reason.
        message: String,
    },
    /// Weights that were never loaded.
    #[error("the checkpoint has no tensor `{0}`, which this network needs")]
    MissingWeight(String),
    /// Weight data that cannot be used.
    #[error("tensor `{name}`: {message}")]
    Weight {
        /// Name of the tensor.
        name: String,
        /// Reason.
        message: String,
    },
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
    /// Something that was freed before.
    #[error("this {0} was disposed of; load the model again to continue")]
    Destroyed(&'static str),
    /// Results that could not be copied back.
    #[error("reading results back from the GPU failed: {0}")]
    ReadBack(String),
}
