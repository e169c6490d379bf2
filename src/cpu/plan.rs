//! The memory plan of a program: where in one region each of its values lies, see [`crate::graph::SlabPlan`].

use undiffuse_kernels::ALIGNMENT;

use super::network::Network;
use crate::graph::{self, Lifetime, Liveness, NodeId, Op, Slabs, largest_live_set};

/// Offsets in a region.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RegionPlan {
    /// Offset of each node's value.
    pub of_node: Vec<usize>,
    /// Offset of the memory that each node needs while it is computed.
    pub of_scratch: Vec<usize>,
    /// Bytes that the region has.
    pub bytes: u64,
    /// Bytes of what is needed at the same node, at most: no plan takes less.
    pub live_bytes: u64,
}

impl RegionPlan {
    /// Plans the values of `network`, and `scratch` bytes within each of its nodes.
    pub fn new(network: &Network, scratch: &[usize]) -> Self {
        let graph = network.graph();
        let liveness = Liveness::new(graph);
        let mut last_uses: Vec<usize> =
            (0..graph.nodes().len()).map(|index| liveness.last_use(NodeId(index))).collect();
        for index in 0..last_uses.len() {
            // Who reads a concatenation in place reads its parts.
            if let (first, Some(second)) = network.parts(NodeId(index)) {
                for part in [first, second].map(|id| liveness.storage(id).index()) {
                    last_uses[part] = last_uses[part].max(last_uses[index]);
                }
            }
        }
        let mut lifetimes: Vec<Lifetime> = Vec::with_capacity(2 * graph.nodes().len());
        let mut add = |bytes: u64, first, last| {
            lifetimes.push(Lifetime { bytes: bytes.next_multiple_of(ALIGNMENT as u64), first, last });
            lifetimes.len() - 1
        };
        let mut of_node: Vec<usize> = Vec::with_capacity(graph.nodes().len());
        for (index, node) in graph.nodes().iter().enumerate() {
            let (id, bytes) = (NodeId(index), 4 * node.elements() as u64);
            let storage = liveness.storage(id);
            of_node.push(match node.op {
                _ if storage != id => of_node[storage.index()],
                _ if network.is_joined(id) => of_node[network.parts(id).0.index()],
                Op::Input => add(bytes, 0, usize::MAX),
                // Where the weight is.
                _ if node.op.written_weight().is_some() => add(0, index, index),
                _ => add(bytes, index, last_uses[index]),
            });
        }
        let of_scratch: Vec<_> =
            scratch.iter().enumerate().map(|(index, &bytes)| add(bytes as u64, index, index)).collect();
        let slabs = Slabs { alignment: ALIGNMENT as u64, bytes: u64::MAX };
        let plan = graph::SlabPlan::new(&lifetimes, &[], slabs);
        let offset = |&lifetime: &usize| plan.places[lifetime].offset as usize;
        Self {
            of_node: of_node.iter().map(offset).collect(),
            of_scratch: of_scratch.iter().map(offset).collect(),
            bytes: plan.total(),
            live_bytes: largest_live_set(&lifetimes),
        }
    }
}

// The published configs are files.
#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests {
    use super::*;
    use crate::models::published;

    #[test]
    fn memory_is_within_15_percent_of_what_no_plan_can_do_without() {
        for (name, graph) in published::graphs() {
            let network = Network::new(&graph::fuse(&graph));
            let plan = RegionPlan::new(&network, &network.scratch(&network.forms()));
            let ratio = plan.bytes as f64 / plan.live_bytes as f64;
            println!("{name}: {:.1} MiB, {ratio:.3} of the largest live set", plan.bytes as f64 / f64::from(1 << 20));
            assert!(ratio < 1.15, "{name}");
        }
    }
}
