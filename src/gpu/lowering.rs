//! The dispatches of a graph as they are gathered while it is translated: what all families of kernels lower with.

use bytemuck::Pod;

use super::capabilities::Limits;
use super::error::Error;
use super::kernel::{Dispatch, Entry, Kernel, Operand, words};
use super::storage::Storage;
use super::variants::Variants;
use crate::graph::{Graph, Node, NodeId, WeightId};

/// Memory that a node needs while it is computed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scratch {
    /// The node.
    pub node: NodeId,
    /// Bytes.
    pub bytes: u64,
}

/// A graph as a list of dispatches.
#[derive(Clone, Debug, Default)]
pub struct Lowered {
    /// Dispatches in execution order.
    pub dispatches: Vec<Dispatch>,
    /// Memory within nodes.
    pub scratch: Vec<Scratch>,
    /// Numbers to upload once.
    pub constants: Vec<Vec<f32>>,
}

/// The constant that is bound where an optional operand is absent.
pub const ABSENT: Operand = Operand::Constant(0);

/// The invocations of a dispatch that [`Lowering::dispatch`] has yet to count.
pub const UNCOUNTED: u32 = 0;

/// A graph of which the nodes before one are translated.
pub struct Lowering<'g> {
    graph: &'g Graph,
    /// The limits of the device.
    pub limits: Limits,
    /// The kernels that it runs.
    pub variants: &'g Variants,
    storage: &'g dyn Fn(WeightId) -> Storage,
    lowered: Lowered,
    node: NodeId,
}

impl<'g> Lowering<'g> {
    /// A lowering of `graph` with nothing translated yet; `storage` says how the matrix of a weight is stored.
    pub fn new(
        graph: &'g Graph,
        limits: Limits,
        variants: &'g Variants,
        storage: &'g dyn Fn(WeightId) -> Storage,
    ) -> Self {
        let lowered = Lowered { constants: vec![vec![0.0; 4]], ..Lowered::default() };
        Self { graph, limits, variants, storage, lowered, node: NodeId(0) }
    }

    /// Lets the dispatches that follow be those of node `index`.
    pub fn begin(&mut self, index: usize) -> &'g Node {
        self.node = NodeId(index);
        self.graph.node(self.node)
    }

    /// Whether a dispatch of the node was added.
    pub fn has_begun(&self) -> bool {
        self.lowered.dispatches.last().is_some_and(|dispatch| dispatch.node == self.node)
    }

    /// The dispatches that were added, with what they need.
    pub fn finish(self) -> Lowered {
        self.lowered
    }

    /// Adds a launch of `kernel` with as many invocations as the product of `counts`, which become the first of its parameters.
    ///
    /// # Errors
    /// If they are more than 32 bits hold.
    pub fn dispatch<P: Pod>(
        &mut self,
        kernel: Kernel,
        counts: &[usize],
        reads: &[Operand],
        write: Operand,
        parameters: &P,
    ) -> Result<(), Error> {
        self.push(kernel, counts, reads, write, words(parameters))
    }

    fn push(
        &mut self,
        kernel: Kernel,
        counts: &[usize],
        reads: &[Operand],
        write: Operand,
        words: &[u32],
    ) -> Result<(), Error> {
        if cfg!(test) {
            let Entry { parameters, reads: bindings, .. } = kernel.entry;
            assert_eq!((words.len(), reads.len()), (parameters.words, bindings.len()), "{kernel}");
        }
        let product = counts.iter().try_fold(1usize, |n, &m| n.checked_mul(m));
        let Some(invocations) = product.and_then(|n| u32::try_from(n).ok()) else {
            return Err(self.unsupported(format!("{kernel} would need {counts:?} invocations")));
        };
        let (reads, mut words) = (reads.to_vec(), words.to_vec());
        words[0] = invocations;
        self.lowered.dispatches.push(Dispatch { node: self.node, kernel, reads, write, words });
        Ok(())
    }

    /// Memory for `elements` numbers while the node is computed.
    pub fn scratch(&mut self, elements: usize) -> Operand {
        self.lowered.scratch.push(Scratch { node: self.node, bytes: 4 * elements as u64 });
        Operand::Scratch(self.lowered.scratch.len() - 1)
    }

    /// Numbers that are uploaded once.
    pub fn constant(&mut self, values: Vec<f32>) -> Operand {
        self.lowered.constants.push(values);
        Operand::Constant(self.lowered.constants.len() - 1)
    }

    /// The graph.
    pub fn graph(&self) -> &'g Graph {
        self.graph
    }

    /// The node that is being translated.
    pub fn node(&self) -> &'g Node {
        self.graph.node(self.node)
    }

    /// The value of the node.
    pub fn y(&self) -> Operand {
        Operand::Node(self.node)
    }

    /// The shape of the value of `id`.
    pub fn shape(&self, id: NodeId) -> &'g [usize] {
        &self.graph.node(id).shape
    }

    /// The shape of a weight.
    pub fn weight_shape(&self, id: WeightId) -> &'g [usize] {
        &self.graph.weight(id).shape
    }

    /// The storage of the matrix of a weight.
    pub fn storage(&self, id: WeightId) -> Storage {
        (self.storage)(id)
    }

    /// An error about the node.
    pub fn unsupported(&self, message: String) -> Error {
        let node = self.node();
        Error::Unsupported { path: node.path.clone(), op: node.op.name(), message }
    }
}

/// Product of all axes but the last, and length of the last.
pub fn rows_and_channels(shape: &[usize]) -> (usize, usize) {
    let channels = shape.last().copied().unwrap_or(1);
    (shape.iter().product::<usize>() / channels, channels)
}
