//! Checkpoint files: untrusted bytes become checked tensors.
pub mod dtype;
pub use dtype::*;
/// What can be wrong with a checkpoint's files.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {}
