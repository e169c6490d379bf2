//! The kernels: a family of them in each file, which has their parameters, their entry points and how ops are lowered to them. This is
//! the list of the families.

mod attention;
mod channels;
mod elementwise;
mod matrix;
pub(super) mod non_finite;
mod norm;
mod pixels;
#[cfg(test)]
mod reflection;
mod resample;
pub(super) mod roofline;
mod solver;
mod strided;
mod timestep;

use super::error::Error;
#[cfg(test)]
use super::kernel::Entry;
use super::lowering::Lowering;
pub use super::storage::Storage;
use crate::graph::{Node, Op};

/// Every entry point.
#[cfg(test)]
static ENTRIES: [&[&Entry]; 12] = [
    &matrix::ENTRIES,
    &norm::ENTRIES,
    &attention::ENTRIES,
    &elementwise::ENTRIES,
    &strided::ENTRIES,
    &resample::ENTRIES,
    &timestep::ENTRIES,
    &solver::ENTRIES,
    &pixels::ENTRIES,
    &non_finite::ENTRIES,
    &roofline::ENTRIES,
    &super::storage::ENTRIES,
];

/// Adds the dispatches that compute `node`, which is the one that `lowering` has begun.
pub(super) fn lower(lowering: &mut Lowering, node: &Node) -> Result<(), Error> {
    match node.op {
        Op::Input | Op::Reshape { .. } => Ok(()),
        Op::Conv2d { .. } | Op::Linear { .. } => matrix::lower(lowering, node),
        Op::GroupNorm { .. } | Op::LayerNorm { .. } => norm::lower(lowering, node),
        Op::Attention { .. } => attention::lower(lowering, node),
        Op::Activate { .. } | Op::Affine { .. } | Op::Geglu { .. } => elementwise::lower(lowering, node),
        Op::Binary { .. } | Op::Concat { .. } | Op::Slice { .. } | Op::Permute { .. } => strided::lower(lowering, node),
        Op::ResizeNearest { .. } | Op::ResizeBilinear { .. } | Op::Pool2d { .. } => resample::lower(lowering, node),
        Op::TimestepEmbedding { .. } => timestep::lower(lowering, node),
        // Refused where it is seen that nothing was added.
        #[cfg(feature = "training")]
        Op::Gather { .. } | Op::Gradient(_) | Op::Optimiser(_) => Ok(()),
        Op::Solver(ref op) => solver::lower(lowering, node, op),
        Op::PackRgba8 { .. } => pixels::lower(lowering, node),
    }
}
