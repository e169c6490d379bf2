//! The kernels that a graph is translated to, told without a device. Native only: in a browser the shaders are a file of their own.

use std::collections::HashMap;

use super::capabilities::Limits;
use super::error::Error;
use super::kernel::KernelSource;
use super::lower::lower;
use super::shaders::Shaders;
use super::storage::Storage;
use super::variants::Variants;
use crate::graph::{Graph, fold_upsampling, fuse};

/// A kernel that a graph is translated to.
#[derive(Clone, PartialEq, Debug)]
pub struct KernelUse {
    /// The module that is compiled.
    pub source: KernelSource,
    /// Launches in a run.
    pub launches: usize,
    /// The multiply-adds of the nodes that it computes, in a run; a node of several kernels counts for its first.
    pub multiply_adds: u64,
}

/// The kernels that compute `graph` where `variants` are run and matrices are stored as `storage`, in the order in which they are first
/// launched. No device is needed for that, so that they can be looked at for one that is not there.
///
/// # Errors
/// If a node has dimensions that the kernels cannot address.
pub fn kernels_of(graph: &Graph, variants: &Variants, storage: Storage) -> Result<Vec<KernelUse>, Error> {
    /// Large enough that nothing is split: which kernels there are does not depend on it.
    const LIMITS: Limits = Limits { buffer_bytes: u64::MAX, binding_bytes: u64::MAX, score_bytes: 16 << 20 };
    let graph = &fold_upsampling(&fuse(graph));
    let (mut uses, mut places): (Vec<KernelUse>, HashMap<_, usize>) = Default::default();
    let mut before = None;
    for dispatch in lower(graph, LIMITS, variants, |_| storage)?.dispatches {
        let place = *places.entry(dispatch.kernel).or_insert(uses.len());
        if place == uses.len() {
            uses.push(KernelUse { source: dispatch.kernel.source(&Shaders::default()), launches: 0, multiply_adds: 0 });
        }
        uses[place].launches += 1;
        if before.replace(dispatch.node) != Some(dispatch.node) {
            uses[place].multiply_adds += graph.cost(dispatch.node, |_| 0).multiply_adds;
        }
    }
    Ok(uses)
}

#[cfg(test)]
mod tests {
    use super::super::capabilities::{Capabilities, Class};
    use super::*;
    use crate::graph::Builder;

    #[test]
    fn the_kernels_of_a_graph_are_listed_once_with_their_launches_and_what_they_compute() {
        let builder = Builder::new();
        let root = builder.root();
        let x = root.input("x", &[1, 6, 8]).unwrap();
        let mut y = root.at("0").linear(x, 8, true).unwrap();
        y = root.layer_norm(y, 1e-5).unwrap();
        y = root.at("1").linear(y, 8, true).unwrap();
        root.output("y", y);
        let graph = builder.finish();
        let variants = Variants::new(Capabilities::of_class(Class::Amd, true), None);
        let uses = kernels_of(&graph, &variants, Storage::F16).unwrap();
        let found: Vec<_> = uses.iter().map(|of| (of.source.entry, of.launches, of.multiply_adds)).collect();
        assert_eq!(found, [("tile_64x32", 2, 2 * 6 * 8 * 8), ("layer_norm", 1, 0)]);
    }
}
