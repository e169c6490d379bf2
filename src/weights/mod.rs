//! Checkpoint files: untrusted bytes become checked tensors.
//!
//! [`source`] says where a checkpoint's files come from, [`tensor_file`] reads one of them in a single pass (the header
//! of each format in a module of its own: `safetensors`, [`gguf`]; `foreign` knows what is often found in their place), and
//! [`encoding`] turns a tensor's bytes into the numbers that a network is built from, with [`blocks`] for those that share a
//! scale; [`LowRank`] is what a LoRA adds to a tensor. Nothing here trusts a length that it has read: memory grows with the bytes that arrived, never with the size
//! that a file claims.

pub mod blocks;
pub mod encoding;
mod foreign;
pub mod gguf;
mod low_rank;
mod safetensors;
pub mod source;
pub mod tensor_file;

pub use encoding::{Block, Encoding, F16Bits};
pub use low_rank::LowRank;
#[cfg(not(target_arch = "wasm32"))]
pub use source::DirectorySource;
pub use source::{ByteStream, LocalBoxFuture, MemorySource, Source, check_path, read_small, read_whole};
pub(crate) use tensor_file::Cutter;
pub use tensor_file::{Gather, Sink, TensorFile, TensorInfo};

/// An error in a checkpoint's files.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The source holds no such file.
    #[error("{file}: there is no such file in {origin}; check the name, and that the folder is complete")]
    NotFound {
        /// Path inside the checkpoint.
        file: String,
        /// The source's name: a directory or a URL.
        origin: String,
    },
    /// The file is there and could not be read: permissions, a device, the network.
    #[error("{file}: reading failed: {reason}")]
    Read {
        /// Path inside the checkpoint.
        file: String,
        /// Reason, as the platform gives it.
        reason: String,
    },
    /// A path that could lead out of the checkpoint.
    #[error("{path:?} is not a path inside a checkpoint: use a relative path with forward slashes and without \"..\"")]
    Path {
        /// The path as given.
        path: String,
    },
    /// A file that is read whole is longer than any honest file of its kind.
    #[error("{file}: longer than {limit} bytes, which is more than a file of this kind can need")]
    TooLarge {
        /// Path inside the checkpoint.
        file: String,
        /// The most bytes that would have been read.
        limit: usize,
    },
    /// The file ends early.
    #[error("{file}: the file {}{}; download it again", ending(*.received, *.expected), within(.tensor))]
    Truncated {
        /// Path inside the checkpoint.
        file: String,
        /// The tensor in which the file ends, where its header had arrived.
        tensor: Option<String>,
        /// Number of bytes received.
        received: u64,
        /// Number of bytes that its own header calls for.
        expected: u64,
    },
    /// The file goes on after its last tensor.
    #[error("{file}: the header describes {expected} bytes and the file is longer; it is damaged, download it again")]
    TrailingBytes {
        /// Path inside the checkpoint.
        file: String,
        /// Number of bytes that its own header calls for.
        expected: u64,
    },
    /// A file of Python's pickle format, which is a program rather than data.
    #[error("{file}: this is a PyTorch pickle, which can run any code when it is opened, and is not opened here; where \
        you trust its origin, convert it once with Python's diffusers: {}", conversion(.file))]
    Pickle {
        /// Path inside the checkpoint.
        file: String,
    },
    /// Another file in the place of one of a checkpoint's: what a failed download leaves, or what is no model.
    #[error("{file}: this is {found}")]
    Foreign {
        /// Path inside the checkpoint.
        file: String,
        /// Description of the file, and what to do.
        found: String,
    },
    /// The file's header is none of its format.
    #[error("{file}: not a valid {format} file: {reason}")]
    Header {
        /// Path inside the checkpoint.
        file: String,
        /// Format that its first bytes name.
        format: &'static str,
        /// The rule that it breaks.
        reason: String,
    },
    /// One tensor's description breaks a rule, or its dtype does not fit its use.
    #[error("{file}: tensor {tensor:?}: {reason}")]
    Tensor {
        /// Path inside the checkpoint.
        file: String,
        /// The tensor's name as stored.
        tensor: String,
        /// The rule that it breaks.
        reason: String,
    },
}

/// The line of Python that makes safetensors of a pickle: of a component's weights in a folder, or of a whole checkpoint.
fn conversion(file: &str) -> &'static str {
    if file.ends_with(".bin") {
        "DiffusionPipeline.from_pretrained(\"FOLDER\").save_pretrained(\"NEW\")"
    } else {
        "StableDiffusionPipeline.from_single_file(\"FILE\").save_pretrained(\"NEW\")"
    }
}

fn ending(received: u64, expected: u64) -> String {
    match received {
        0 => "is empty".to_owned(),
        _ => format!("ends after {received} of {expected} bytes"),
    }
}

fn within(tensor: &Option<String>) -> String {
    tensor.as_ref().map(|name| format!(", inside tensor {name:?}")).unwrap_or_default()
}
