//! The check for values that are not finite, `shaders/non_finite.wgsl`.

use crate::gpu::bands::{grain, lines};
use crate::gpu::kernel::{Bands, Dispatch, Entry, Kernel, Operand, PLAIN, parameters, shader, words};
use crate::graph::{Graph, NodeId};

/// Elements that an invocation looks at.
const ELEMENTS: usize = 64;

parameters! {
    /// Parameters of `shaders/non_finite.wgsl`.
    NonFinite {
        invocations: u32,
        elements: u32,
        code: u32,
    }
}

/// Looks for infinities and NaNs by their bits.
static NON_FINITE: Entry = Entry {
    name: "non_finite",
    source: &[shader!("non_finite")],
    parameters: NonFinite::UNIFORM,
    split: Some(split),
    ..PLAIN
};

#[cfg(test)]
pub static ENTRIES: [&Entry; 1] = [&NON_FINITE];

/// The kernel of the check.
pub fn kernel() -> Kernel {
    NON_FINITE.kernel()
}

/// Whether `kernel` is the check, which is no part of what a node computes.
pub fn is_check(kernel: &Kernel) -> bool {
    kernel.is(&NON_FINITE)
}

/// A check of the value of `id` that runs after node `after`.
pub fn check(graph: &Graph, id: NodeId, after: NodeId) -> Dispatch {
    let elements = graph.node(id).elements() as u32;
    let parameters = NonFinite { invocations: elements.div_ceil(ELEMENTS as u32), elements, code: code_of_node(id) };
    Dispatch {
        node: after,
        kernel: kernel(),
        reads: vec![Operand::Node(id)],
        write: Operand::Status,
        words: words(&parameters).to_vec(),
    }
}

/// The status word's code for a node: the earlier the node, the larger.
fn code_of_node(id: NodeId) -> u32 {
    u32::MAX - id.index() as u32
}

/// The index of the node with this code.
pub fn node_of_code(code: u32) -> usize {
    (u32::MAX - code) as usize
}

/// Splits a check by numbers.
fn split(dispatch: &Dispatch, bands: Bands) -> Option<Vec<Dispatch>> {
    let &[x] = &dispatch.reads[..] else { return None };
    let whole: NonFinite = dispatch.parameters();
    bands.parts(whole.elements as usize, grain(1), &|range| {
        let (invocations, elements) = (range.len().div_ceil(ELEMENTS) as u32, range.len() as u32);
        let parameters = NonFinite { invocations, elements, ..whole };
        dispatch.with(&[lines(x, 1, range)], dispatch.write, &parameters)
    })
}
