//! From a graph to the dispatches that compute it: a pure function, without a device.

use super::capabilities::Limits;
use super::error::Error;
use super::lowering::{Lowered, Lowering};
use super::storage::Storage;
use super::variants::Variants;
use super::{bands, kernels};
use crate::graph::{Graph, Op, WeightId};

/// Translates `graph` to the kernels that `variants` chooses; `storage` says how the matrix of a weight is stored.
///
/// # Errors
/// If a node has dimensions that the kernels cannot address.
pub fn lower(
    graph: &Graph,
    limits: Limits,
    variants: &Variants,
    storage: impl Fn(WeightId) -> Storage,
) -> Result<Lowered, Error> {
    let mut lowering = Lowering::new(graph, limits, variants, &storage);
    for index in 0..graph.nodes().len() {
        let node = lowering.begin(index);
        kernels::lower(&mut lowering, node)?;
        // Its memory would hold anything.
        if !lowering.has_begun() && !matches!(node.op, Op::Input | Op::Reshape { .. }) {
            return Err(lowering.unsupported("there is no kernel for it on a GPU".to_owned()));
        }
    }
    let mut lowered = lowering.finish();
    let dispatches = std::mem::take(&mut lowered.dispatches).into_iter();
    lowered.dispatches = dispatches.flat_map(|dispatch| bands::split(graph, dispatch, limits.binding_bytes)).collect();
    Ok(lowered)
}
