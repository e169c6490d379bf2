//! Gives the weight of a matrix product back in the order that a checkpoint has.

use bytemuck::{Pod, Zeroable};

use crate::simd::Simd;
use crate::tile::panel;
use crate::{COLUMNS, Compute};

/// Undoes what [`crate::linear::Pack`] has done, and [`crate::conv2d::Pack`] for a direct convolution.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Unpack {
    /// The packed weight.
    pub packed: usize,
    /// `[out_channels, in_channels, taps]`.
    pub out: usize,
    /// Rows of the weight.
    pub out_channels: usize,
    /// Columns of the weight.
    pub in_channels: usize,
    /// Positions in the kernel of a convolution; 1 for a linear layer.
    pub taps: usize,
}

impl Unpack {
    pub(crate) fn count_parts(&self) -> usize {
        self.out_channels.div_ceil(COLUMNS)
    }
}

impl Compute for Unpack {
    #[inline(always)]
    unsafe fn compute<S: Simd>(&self, part: usize) {
        let depth = self.in_channels * self.taps;
        for n in part * COLUMNS..self.out_channels.min((part + 1) * COLUMNS) {
            let column = n % panel::<S>();
            let from = (self.packed as *const f32).add((n - column) * depth + column);
            let to = (self.out as *mut f32).add(n * depth);
            for tap in 0..self.taps {
                for channel in 0..self.in_channels {
                    let k = tap * self.in_channels + channel;
                    *to.add(channel * self.taps + tap) = *from.add(k * panel::<S>());
                }
            }
        }
    }
}
