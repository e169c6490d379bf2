//! The memory plan of a program: where in one region each of its values lies, see [`crate::graph::Plan`].

use undiffuse_kernels::ALIGNMENT;

use crate::graph::{self, Graph, Lifetime, Liveness, NodeId, Op, Slabs, largest_live_set};

/// Offsets in a region.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// Of each node's value.
    pub of_node: Vec<usize>,
    /// Of the memory that each node needs while it is computed.
    pub of_scratch: Vec<usize>,
    /// Bytes that the region has.
    pub bytes: u64,
    /// Bytes of what is needed at the same node, at most: no plan takes less.
    pub live_bytes: u64,
}

impl Plan {
    /// Plans the values of `graph`, and `scratch` bytes within each of its nodes.
    pub fn new(graph: &Graph, scratch: &[usize]) -> Self {
        let liveness = Liveness::new(graph);
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
                Op::Input => add(bytes, 0, usize::MAX),
                _ => add(bytes, index, liveness.last_use(id)),
            });
        }
        let of_scratch: Vec<_> =
            scratch.iter().enumerate().map(|(index, &bytes)| add(bytes as u64, index, index)).collect();
        let slabs = Slabs { alignment: ALIGNMENT as u64, bytes: u64::MAX };
        let plan = graph::Plan::new(&lifetimes, &[], slabs);
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
    use crate::cpu::lower;
    use crate::models::published;

    #[test]
    fn memory_is_within_15_percent_of_what_no_plan_can_do_without() {
        for (name, graph) in published::graphs() {
            let graph = graph::fuse(&graph);
            let plan = Plan::new(&graph, &lower::scratch(&graph, &lower::forms(&graph)));
            let ratio = plan.bytes as f64 / plan.live_bytes as f64;
            println!("{name}: {:.1} MiB, {ratio:.3} of the largest live set", plan.bytes as f64 / f64::from(1 << 20));
            assert!(ratio < 1.15, "{name}");
        }
    }
}
