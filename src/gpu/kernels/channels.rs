//! How kernels reach the channels of their tensors.

use crate::gpu::kernel::{Axis, Kernel, Setting, shader};

/// The axis of kernels that read channels four at a time: every channel count is a multiple of four, or any is.
pub static CHANNELS: Axis =
    Axis(&[Setting::text("Aligned", &[shader!("aligned")]), Setting::text("Unaligned", &[shader!("unaligned")])]);

impl Kernel {
    /// The variant for tensors of these channel counts.
    pub fn channels(self, counts: &[usize]) -> Self {
        self.with(&CHANNELS, usize::from(!counts.iter().all(|count| count.is_multiple_of(4))))
    }
}
