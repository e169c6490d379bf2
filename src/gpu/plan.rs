//! The memory plan: which tensors share a buffer, decided from their lifetimes before anything is allocated.

use super::lower::Scratch;
use super::{Error, Limits};
use crate::graph::{Graph, Liveness, NodeId, Op};
use crate::order::ascending;

/// What needs memory, and when.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lifetime {
    /// Bytes.
    pub bytes: u64,
    /// Index of the node that writes it first; 0 for what is written from outside.
    pub first: usize,
    /// Index of the last node that reads it; `usize::MAX` if it outlives the run.
    pub last: usize,
}

/// Slots, each of which becomes a buffer.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Plan {
    /// The slot of each lifetime.
    pub slots: Vec<usize>,
    /// Bytes of each slot.
    pub bytes: Vec<u64>,
}

impl Plan {
    /// Gives each lifetime a slot that no other one uses at the same time.
    ///
    /// The memory of something that dies at a node is free after that node only, so that no node reads and writes one buffer. Of the free slots the smallest that is large enough is taken,
    /// else the largest is enlarged.
    pub fn new(lifetimes: &[Lifetime]) -> Self {
        let order = ascending(lifetimes.iter().map(|lifetime| (lifetime.first as u64, 0)));
        let mut plan = Plan { slots: vec![0; lifetimes.len()], bytes: Vec::new() };
        // Until which node each slot is taken.
        let mut taken_until: Vec<usize> = Vec::new();
        for index in order {
            let Lifetime { bytes, first, last } = lifetimes[index];
            let free = || (0..taken_until.len()).filter(|&slot| taken_until[slot] < first);
            let fitting = free().filter(|&slot| plan.bytes[slot] >= bytes).min_by_key(|&slot| plan.bytes[slot]);
            let slot = fitting.or_else(|| free().max_by_key(|&slot| plan.bytes[slot])).unwrap_or(taken_until.len());
            if slot == taken_until.len() {
                taken_until.push(0);
                plan.bytes.push(0);
            }
            taken_until[slot] = last;
            plan.bytes[slot] = plan.bytes[slot].max(bytes);
            plan.slots[index] = slot;
        }
        plan
    }

    /// Bytes of all slots together: the most that a program's activations ever take.
    pub fn total(&self) -> u64 {
        self.bytes.iter().sum()
    }
}

/// Where each tensor of a graph is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Layout {
    /// The slots.
    pub plan: Plan,
    /// The slot of each node's value.
    pub slot_of_node: Vec<usize>,
    /// The slot of each piece of scratch memory.
    pub slot_of_scratch: Vec<usize>,
    /// What the tensors would take if none shared a slot.
    pub unplanned_bytes: u64,
}

impl Layout {
    /// Plans the values of `graph` and the memory that is needed within its nodes.
    ///
    /// # Errors
    /// If one of them is larger than the device's buffers may be.
    pub fn new(graph: &Graph, scratch: &[Scratch], limits: Limits) -> Result<Self, Error> {
        let liveness = Liveness::new(graph);
        let mut lifetimes: Vec<Lifetime> = Vec::new();
        let mut add = |id: NodeId, bytes: u64, first, last| {
            let (bytes, limit) = (bytes.next_multiple_of(16), limits.binding_bytes);
            if bytes > limit {
                return Err(Error::TooLarge { what: graph.node(id).path.clone(), bytes, limit });
            }
            lifetimes.push(Lifetime { bytes, first, last });
            Ok(lifetimes.len() - 1)
        };
        let mut lifetime_of: Vec<usize> = Vec::with_capacity(graph.nodes().len());
        for (index, node) in graph.nodes().iter().enumerate() {
            let (id, bytes) = (NodeId(index), 4 * node.elements() as u64);
            let storage = liveness.storage(id);
            lifetime_of.push(match node.op {
                _ if storage != id => lifetime_of[storage.index()],
                Op::Input => add(id, bytes, 0, usize::MAX)?,
                _ => add(id, bytes, index, liveness.last_use(id))?,
            });
        }
        for piece in scratch {
            add(piece.node, piece.bytes, piece.node.index(), piece.node.index())?;
        }
        let plan = Plan::new(&lifetimes);
        let slot_of_node = lifetime_of.iter().map(|&lifetime| plan.slots[lifetime]).collect();
        let slot_of_scratch = plan.slots[lifetimes.len() - scratch.len()..].to_vec();
        let unplanned_bytes = lifetimes.iter().map(|lifetime| lifetime.bytes).sum();
        Ok(Self { plan, slot_of_node, slot_of_scratch, unplanned_bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lifetimes(list: &[(u64, usize, usize)]) -> Vec<Lifetime> {
        list.iter().map(|&(bytes, first, last)| Lifetime { bytes, first, last }).collect()
    }

    #[test]
    fn a_chain_needs_two_slots() {
        let chain: Vec<_> = (0..10).map(|i| (100, i, i + 1)).collect();
        let plan = Plan::new(&lifetimes(&chain));
        assert_eq!(plan.bytes, [100, 100]);
        assert!(plan.slots.windows(2).all(|pair| pair[0] != pair[1]));
    }

    #[test]
    fn what_is_alive_at_the_same_node_never_shares_a_slot() {
        // A small pseudo-random set, compared pair by pair.
        let mut state = 1u64;
        let mut next = |n: u64| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) % n
        };
        let list: Vec<_> = (0..200)
            .map(|_| {
                let first = next(50) as usize;
                let last = if next(8) == 0 { usize::MAX } else { first + next(9) as usize };
                (4 * (1 + next(1000)), first, last)
            })
            .collect();
        let all = lifetimes(&list);
        let plan = Plan::new(&all);
        for (i, a) in all.iter().enumerate() {
            assert!(plan.bytes[plan.slots[i]] >= a.bytes);
            for (j, b) in all.iter().enumerate().skip(i + 1) {
                let overlap = a.first <= b.last && b.first <= a.last;
                assert!(!overlap || plan.slots[i] != plan.slots[j], "{a:?} and {b:?} share slot {}", plan.slots[i]);
            }
        }
        assert!(plan.total() < all.iter().map(|l| l.bytes).sum());
    }

    #[test]
    fn the_smallest_fitting_slot_is_reused_and_the_largest_is_grown() {
        let all = lifetimes(&[(10, 0, 0), (100, 0, 0), (50, 0, 0), (40, 1, 1), (200, 1, 1)]);
        let plan = Plan::new(&all);
        assert_eq!(plan.slots[3], plan.slots[2]);
        assert_eq!(plan.slots[4], plan.slots[1]);
        assert_eq!(plan.bytes, [10, 200, 50]);
    }
}
