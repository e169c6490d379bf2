//! The memory plan of a program: where each of its tensors lies, see [`crate::graph::SlabPlan`].

use super::capabilities::Limits;
use super::error::Error;
use super::kernel::{ALIGNMENT, Operand, Span};
use super::lowering::Lowered;
use crate::graph::{Graph, Lifetime, Liveness, NodeId, Op, SlabPlan, Slabs, largest_live_set};

/// Most bytes of a slab, unless a single tensor is larger: drivers find room for several of this size where they find
/// none for one of all.
const SLAB_BYTES: u64 = 256 << 20;

/// A range of a slab.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range {
    /// Index of the slab.
    pub slab: usize,
    /// First byte.
    pub offset: u64,
    /// Number of bytes.
    pub bytes: u64,
}

impl Range {
    /// A part of it.
    pub fn part(self, span: Span) -> Self {
        Self { offset: self.offset + span.offset, bytes: span.bytes, ..self }
    }
}

/// The place of each tensor of a graph.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Placement {
    /// Bytes of each slab, which becomes a buffer.
    pub slabs: Vec<u64>,
    /// The place of each node's value.
    pub nodes: Vec<Range>,
    /// The place of each piece of scratch memory.
    pub scratch: Vec<Range>,
    /// Bytes of the tensors if none shared memory.
    pub unplanned_bytes: u64,
    /// Bytes of the largest set of tensors that are needed at the same time: no plan takes less.
    pub live_bytes: u64,
}

impl Placement {
    /// Plans the values of `graph` and the memory that is needed within its nodes.
    ///
    /// The results of a dispatch lie in another slab than its operands, because a buffer cannot be bound for both; so do
    /// outputs and inputs, because no buffer can be copied into itself.
    ///
    /// # Errors
    /// If one of them is larger than the device's buffers may be.
    pub fn new(graph: &Graph, lowered: &Lowered, limits: Limits) -> Result<Self, Error> {
        let liveness = Liveness::new(graph);
        let mut lifetimes: Vec<Lifetime> = Vec::new();
        let mut add = |id: NodeId, bytes: u64, first, last| {
            let (bytes, limit) = (bytes.next_multiple_of(16), limits.buffer_bytes);
            if bytes > limit {
                return Err(Error::TooLarge { what: graph.node(id).path.clone(), bytes, limit });
            }
            lifetimes.push(Lifetime { bytes, first, last });
            Ok(lifetimes.len() - 1)
        };
        let mut of_node: Vec<usize> = Vec::with_capacity(graph.nodes().len());
        for (index, node) in graph.nodes().iter().enumerate() {
            let (id, bytes) = (NodeId(index), 4 * node.elements() as u64);
            let storage = liveness.storage(id);
            of_node.push(match node.op {
                _ if storage != id => of_node[storage.index()],
                Op::Input => add(id, bytes, 0, usize::MAX)?,
                _ => add(id, bytes, index, liveness.last_use(id))?,
            });
        }
        let of_scratch = lowered.scratch.iter().map(|piece| {
            let node = piece.node.index();
            add(piece.node, piece.bytes, node, node)
        });
        let of_scratch = of_scratch.collect::<Result<Vec<_>, _>>()?;

        let lifetime_of = |operand: &Operand| match *operand {
            Operand::Node(id) | Operand::Part(id, _) => Some(of_node[id.index()]),
            Operand::Scratch(index) => Some(of_scratch[index]),
            Operand::Weight(_) | Operand::Constant(_) | Operand::Status => None,
        };
        let mut apart = Vec::new();
        for dispatch in &lowered.dispatches {
            let whole = dispatch.reads.iter().chain([&dispatch.write]).filter(|o| !matches!(o, Operand::Part(..)));
            let largest = whole.filter_map(lifetime_of).map(|lifetime| lifetimes[lifetime].bytes).max().unwrap_or(0);
            if largest > limits.binding_bytes {
                let what = graph.node(dispatch.node).path.clone();
                return Err(Error::TooLarge { what, bytes: largest, limit: limits.binding_bytes });
            }
            let Some(written) = lifetime_of(&dispatch.write) else { continue };
            apart.extend(dispatch.reads.iter().filter_map(lifetime_of).map(|read| (read, written)));
        }
        for &(_, output) in graph.outputs() {
            apart.extend(graph.inputs().iter().map(|&(_, input)| (of_node[input.index()], of_node[output.index()])));
        }
        let slabs = Slabs { alignment: ALIGNMENT, bytes: SLAB_BYTES.min(limits.buffer_bytes) };
        let plan = SlabPlan::new(&lifetimes, &apart, slabs);
        let range = |&lifetime: &usize| {
            let (place, bytes) = (plan.places[lifetime], lifetimes[lifetime].bytes);
            Range { slab: place.slab, offset: place.offset, bytes }
        };
        Ok(Self {
            nodes: of_node.iter().map(range).collect(),
            scratch: of_scratch.iter().map(range).collect(),
            unplanned_bytes: lifetimes.iter().map(|lifetime| lifetime.bytes).sum(),
            live_bytes: largest_live_set(&lifetimes),
            slabs: plan.slabs,
        })
    }

    /// Bytes of all slabs together.
    pub fn total(&self) -> u64 {
        self.slabs.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::capabilities::{Capabilities, Class};
    use crate::gpu::kernels::Storage;
    use crate::gpu::lower::lower;
    use crate::gpu::variants::Variants;
    use crate::graph::{fold_upsampling, fuse};
    use crate::models::{AutoencoderKlConfig, published};

    /// The limits that every device has.
    const DEFAULT: Limits = Limits { buffer_bytes: 256 << 20, binding_bytes: 128 << 20, score_bytes: 16 << 20 };

    #[test]
    fn an_autoencoder_decodes_512_by_512_as_a_whole_under_default_limits() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/published/sd-vae-ft-mse.vae.json");
        let config = std::fs::read_to_string(path).expect("a published config");
        let decoder = AutoencoderKlConfig::from_json(&config).expect("a config").decoder(1, 64, 64).expect("a network");
        let graph = fold_upsampling(&fuse(&decoder));
        for class in [Class::Software, Class::Nvidia] {
            let lowered =
                lower(&graph, DEFAULT, &Variants::new(Capabilities::of_class(class, false), None), |_| Storage::F16)
                    .expect("kernels");
            let placement = Placement::new(&graph, &lowered, DEFAULT).expect("tensors that fit");
            let parts = lowered.dispatches.iter().filter(|d| matches!(d.write, Operand::Part(..))).count();
            assert!(parts > 0, "its largest values are larger than a binding");
            println!("{class:?}: {} MiB, {parts} parts", placement.total() >> 20);
        }
    }

    #[test]
    fn memory_is_within_15_percent_of_what_no_plan_can_do_without() {
        for (name, graph) in published::graphs() {
            let graph = fold_upsampling(&fuse(&graph));
            for class in [Class::Software, Class::Nvidia] {
                let variants = Variants::new(Capabilities::of_class(class, false), None);
                let lowered = lower(&graph, DEFAULT, &variants, |_| Storage::F32).expect("kernels for every node");
                let placement = Placement::new(&graph, &lowered, DEFAULT).expect("tensors that fit");
                let ratio = placement.total() as f64 / placement.live_bytes as f64;
                let mib = placement.total() as f64 / f64::from(1 << 20);
                println!("{name}, {class:?}: {mib:.1} MiB, {ratio:.3} of the largest live set");
                assert!(ratio < 1.15, "{name}, {class:?}");
            }
        }
    }
}
