//! Splits dispatches whose tensors are larger than a binding may be: a part is bound to those lines of its picture that it
//! touches. So the decoder of a 512×512 picture, whose largest values are 256 MiB, runs where a binding has 128 MiB at most.
//!
//! A part is the same kernel with other numbers of lines and another padding, so that no shader needs to know of it; an entry point
//! that can be split says how ([`super::kernel::Entry::split`]). A dispatch that is not split, because it is a batch or a kernel that
//! has no such tensors in known networks, is refused as too large by the memory plan.

use std::ops::Range;

use super::kernel::{ALIGNMENT, Bands, Dispatch, Operand, Span};
use crate::graph::{Graph, NodeId};

/// Most parts of a dispatch.
const PARTS: usize = 64;

/// The dispatch itself, or the parts that do its work with bindings of at most `limit` bytes, if there are such.
pub fn split(graph: &Graph, dispatch: Dispatch, limit: u64) -> Vec<Dispatch> {
    let is_large = |operand: &Operand| matches!(*operand, Operand::Node(id) if bytes_of(graph, id) > limit);
    if !is_large(&dispatch.write) && !dispatch.reads.iter().any(is_large) {
        return vec![dispatch];
    }
    let bands = Bands { limit, one_picture: graph.node(dispatch.node).shape.first() == Some(&1) };
    let parts = dispatch.kernel.entry.split.and_then(|split| split(&dispatch, bands));
    parts.unwrap_or_else(|| vec![dispatch])
}

fn bytes_of(graph: &Graph, id: NodeId) -> u64 {
    4 * graph.node(id).elements() as u64
}

/// `range` of the lines of an operand that have `line` numbers each; an operand that is no node's value stays whole.
pub fn lines(operand: Operand, line: usize, range: &Range<usize>) -> Operand {
    let bytes = |count: usize| 4 * (count * line) as u64;
    match operand {
        Operand::Node(id) => Operand::Part(id, Span { offset: bytes(range.start), bytes: bytes(range.len()) }),
        other => other,
    }
}

/// The number of lines, of `line` numbers each, of which the start of a binding must be a multiple.
pub fn grain(line: usize) -> usize {
    let factors_of_two = (4 * line).trailing_zeros().min(ALIGNMENT.trailing_zeros());
    ALIGNMENT as usize >> factors_of_two
}

impl Bands {
    fn fit(self, dispatch: &Dispatch) -> bool {
        let fits = |operand: &Operand| match operand {
            Operand::Part(_, span) => span.bytes <= self.limit && span.offset.is_multiple_of(ALIGNMENT),
            _ => true,
        };
        fits(&dispatch.write) && dispatch.reads.iter().all(fits)
    }

    /// The fewest parts of the `count` lines that fit the limit; each but the last has a multiple of `grain` lines.
    pub fn parts(self, count: usize, grain: usize, part: &dyn Fn(&Range<usize>) -> Dispatch) -> Option<Vec<Dispatch>> {
        (2..=PARTS).find_map(|parts| {
            let most = count.div_ceil(parts).next_multiple_of(grain);
            let parts: Vec<_> =
                (0..count).step_by(most).map(|start| part(&(start..(start + most).min(count)))).collect();
            parts.iter().all(|part| self.fit(part)).then_some(parts)
        })
    }
}
