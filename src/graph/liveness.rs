//! The storage that a node uses and how long it is needed.

use super::{Graph, NodeId, Op};

/// The node whose storage each node shares (itself, or the source of a chain of reshapes), and the last use of that storage.
#[derive(Clone, Debug)]
pub struct Liveness {
    storage: Vec<NodeId>,
    last_use: Vec<usize>,
}

impl Liveness {
    /// Analyses `graph`. Inputs and outputs live to the end: they are addressed from outside between runs.
    pub fn new(graph: &Graph) -> Self {
        let mut storage: Vec<NodeId> = Vec::with_capacity(graph.nodes().len());
        let mut last_use: Vec<usize> = (0..graph.nodes().len()).collect();
        for (index, node) in graph.nodes().iter().enumerate() {
            node.op.for_each_input(|id| last_use[storage[id.0].0] = index);
            storage.push(match node.op {
                Op::Reshape { x } => storage[x.0],
                _ => NodeId(index),
            });
        }
        for (_, id) in graph.inputs().iter().chain(graph.outputs()) {
            last_use[storage[id.0].0] = usize::MAX;
        }
        Self { storage, last_use }
    }

    /// The node whose storage `id` uses.
    pub fn storage(&self, id: NodeId) -> NodeId {
        self.storage[id.0]
    }

    /// Index of the last node that reads the storage of `id` (or makes it); `usize::MAX` if it lives to the end.
    pub fn last_use(&self, id: NodeId) -> usize {
        self.last_use[self.storage[id.0].0]
    }
}
