//! The forms that weights are stored in: what each kernel wants to read.

use undiffuse_kernels::conv2d::{self, Algorithm};
use undiffuse_kernels::{COLUMNS, Job, linear, unpack};

use crate::graph::WeightSpec;

/// The order of a weight in memory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Form {
    /// The order of its checkpoint.
    Plain,
    /// The order in which a linear layer reads it, which is also how a 1×1 convolution may be computed.
    Linear,
    /// The order in which a convolution reads it that is computed so.
    Conv2d(Algorithm),
}

impl Form {
    /// The form in which a weight is loaded, from which its checkpoint's order can be had back.
    pub fn of(spec: &WeightSpec) -> Self {
        match spec.matrix() {
            None => Self::Plain,
            Some([_, _, 1]) => Self::Linear,
            Some(_) => Self::Conv2d(Algorithm::DIRECT),
        }
    }

    /// Length of a weight in this form, in numbers; `None` if they are more than can be counted.
    pub fn numbers(self, spec: &WeightSpec) -> Option<usize> {
        let product = |sides: &[usize]| sides.iter().try_fold(1usize, |product, &side| product.checked_mul(side));
        let Some([out, input, height, width]) = kernel(spec).filter(|_| self != Self::Plain) else {
            return product(&spec.shape);
        };
        let taps = match self {
            Self::Conv2d(algorithm) => algorithm.positions([height, width]),
            _ => height * width,
        };
        product(&[out.checked_next_multiple_of(COLUMNS)?, input, taps])
    }

    /// The job that brings a weight from its checkpoint's order into this form; none if they are the same.
    pub fn pack(self, spec: &WeightSpec, plain: usize, packed: usize) -> Option<Job> {
        let [out, input, height, width] = kernel(spec)?;
        match self {
            Self::Plain => None,
            Self::Linear => {
                let in_features = input * height * width;
                Some(Job::new(linear::Pack { weight: plain, out: packed, out_features: out, in_features }))
            }
            Self::Conv2d(algorithm) => Some(Job::new(conv2d::Pack {
                weight: plain,
                out: packed,
                out_channels: out,
                in_channels: input,
                kernel_height: height,
                kernel_width: width,
                algorithm,
            })),
        }
    }

    /// The job that brings a weight from the form in which it is loaded into its checkpoint's order.
    pub fn unpack(spec: &WeightSpec, packed: usize, plain: usize) -> Option<Job> {
        let [out_channels, in_channels, height, width] = kernel(spec)?;
        Some(Job::new(unpack::Unpack { packed, out: plain, out_channels, in_channels, taps: height * width }))
    }
}

/// `[out, in, height, width]` of a matrix, which for a linear layer is a kernel of one pixel.
fn kernel(spec: &WeightSpec) -> Option<[usize; 4]> {
    let [out, input, _] = spec.matrix()?;
    let side = |axis: usize| spec.shape.get(axis).copied().unwrap_or(1);
    Some([out, input, side(2), side(3)])
}
