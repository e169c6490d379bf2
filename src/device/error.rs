//! Errors on a device, whichever engine it is.

use crate::{cpu, gpu, graph};

/// An error on a device.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// An error on the CPU.
    #[error(transparent)]
    Cpu(#[from] cpu::Error),
    /// An error on a GPU.
    #[error(transparent)]
    Gpu(#[from] gpu::Error),
    /// An input or output that the network does not have.
    #[error(transparent)]
    Graph(#[from] graph::Error),
    /// A program, weights and a source of data that are not of one device.
    #[error("the parts of this network lie on different devices")]
    Mixed,
}

impl Error {
    /// True if a smaller network may do on this device.
    pub fn is_too_large(&self) -> bool {
        matches!(
            self,
            Self::Gpu(gpu::Error::TooLarge { .. } | gpu::Error::OutOfMemory { .. })
                | Self::Cpu(cpu::Error::OutOfMemory { .. })
        )
    }
}
