//! The memory plan: which values share memory, decided from their lifetimes before anything is allocated.
//!
//! Both executors plan with it: the CPU one arena, the GPU several buffers, because a dispatch may not read and write the
//! same one.

use crate::order::ascending;

/// Number of plans that are made from each order to find a good one.
const ROUNDS: usize = 24;

/// A need for memory, from one node to another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lifetime {
    /// Bytes.
    pub bytes: u64,
    /// Index of the node that writes it first; 0 for what is written from outside.
    pub first: usize,
    /// Index of the last node that reads it; `usize::MAX` if it outlives the run.
    pub last: usize,
}

impl Lifetime {
    /// Whether both are needed at some node. What dies at a node and what is made there are: no node writes over what it reads.
    fn meets(&self, other: &Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

/// Limits of the memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Slabs {
    /// Number of bytes that all offsets are multiples of.
    pub alignment: u64,
    /// Most bytes of a slab, unless a single value is larger.
    pub bytes: u64,
}

/// The place of a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Place {
    /// Index of the slab.
    pub slab: usize,
    /// Bytes from its start.
    pub offset: u64,
}

/// Slabs of memory, and a place in them for each lifetime.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SlabPlan {
    /// The place of each lifetime.
    pub places: Vec<Place>,
    /// Bytes of each slab.
    pub slabs: Vec<u64>,
}

impl SlabPlan {
    /// Gives each lifetime a range that nothing else uses at the same time; the lifetimes of each pair in `apart` lie in different
    /// slabs.
    ///
    /// Values are placed one after the other, each where the slabs grow least by it, and there in the smallest gap. The first order
    /// is by size, or by time; then those that ended highest come earlier, as long as there is something to be gained, a few
    /// times each, and the best plan is taken.
    pub fn new(lifetimes: &[Lifetime], apart: &[(usize, usize)], slabs: Slabs) -> Self {
        let mut enemies: Vec<Vec<usize>> = vec![Vec::new(); lifetimes.len()];
        for &(a, b) in apart.iter().filter(|(a, b)| a != b) {
            enemies[a].push(b);
            enemies[b].push(a);
        }
        let least = largest_live_set(lifetimes);
        let by_size = ascending(lifetimes.iter().map(|l| (u64::MAX - l.bytes, l.first as u64)));
        let by_time = ascending(lifetimes.iter().map(|l| (l.first as u64, u64::MAX - l.bytes)));
        let mut order = by_size;
        let mut best: Option<Self> = None;
        for round in 0..2 * ROUNDS {
            if round == ROUNDS {
                order.clone_from(&by_time);
            }
            let plan = Placing::new(lifetimes, &enemies, slabs).place(&order);
            let is_highest = |&index: &usize| {
                let Place { slab, offset } = plan.places[index];
                offset + lifetimes[index].bytes == plan.slabs[slab]
            };
            for position in 0..order.len() {
                if is_highest(&order[position]) {
                    order[position / 2..=position].rotate_right(1);
                }
            }
            if best.as_ref().is_none_or(|best| plan.total() < best.total()) {
                best = Some(plan);
            }
            // Within 1/16 of what is possible, no further round is worth its time.
            if best.as_ref().is_some_and(|best| best.total() <= least + least / 16) {
                break;
            }
        }
        best.unwrap_or_default()
    }

    /// Bytes of all slabs together: the most that the values ever take.
    pub fn total(&self) -> u64 {
        self.slabs.iter().sum()
    }
}

/// Bytes of the values that are needed at the same node, at most: no plan takes less.
pub fn largest_live_set(lifetimes: &[Lifetime]) -> u64 {
    let alive = |node| lifetimes.iter().filter(move |l| l.first <= node && node <= l.last).map(|l| l.bytes).sum();
    lifetimes.iter().map(|l| alive(l.first)).max().unwrap_or(0)
}

/// A plan in the making.
struct Placing<'l> {
    lifetimes: &'l [Lifetime],
    /// Lifetimes that may not be in the same slab, for each lifetime.
    enemies: &'l [Vec<usize>],
    limits: Slabs,
    plan: SlabPlan,
    placed: Vec<bool>,
    /// Values in each slab, by offset.
    contents: Vec<Vec<usize>>,
}

impl<'l> Placing<'l> {
    fn new(lifetimes: &'l [Lifetime], enemies: &'l [Vec<usize>], limits: Slabs) -> Self {
        let plan = SlabPlan { places: vec![Place::default(); lifetimes.len()], slabs: Vec::new() };
        Self { lifetimes, enemies, limits, plan, placed: vec![false; lifetimes.len()], contents: Vec::new() }
    }

    fn place(mut self, order: &[usize]) -> SlabPlan {
        for &index in order {
            let bytes = self.lifetimes[index].bytes;
            let mut refused = vec![false; self.plan.slabs.len()];
            for &enemy in self.enemies[index].iter().filter(|&&enemy| self.placed[enemy]) {
                refused[self.plan.places[enemy].slab] = true;
            }
            let candidates = (0..self.plan.slabs.len()).filter(|&slab| !refused[slab]).filter_map(|slab| {
                let (offset, gap) = self.gap(slab, index);
                let end = offset + bytes;
                let growth = end.saturating_sub(self.plan.slabs[slab]);
                (growth == 0 || end <= self.limits.bytes).then_some((growth, gap, Place { slab, offset }))
            });
            let place = candidates.min_by_key(|&(growth, gap, _)| (growth, gap)).map(|(_, _, place)| place);
            let place = place.unwrap_or_else(|| {
                self.plan.slabs.push(0);
                self.contents.push(Vec::new());
                Place { slab: self.plan.slabs.len() - 1, offset: 0 }
            });
            let size = &mut self.plan.slabs[place.slab];
            *size = (*size).max(place.offset + bytes);
            let contents = &mut self.contents[place.slab];
            let position = contents.partition_point(|&other| self.plan.places[other].offset <= place.offset);
            contents.insert(position, index);
            self.plan.places[index] = place;
            self.placed[index] = true;
        }
        self.plan
    }

    /// The smallest gap of `slab` in which lifetime `index` fits: its offset and bytes, the latter `u64::MAX` behind everything.
    fn gap(&self, slab: usize, index: usize) -> (u64, u64) {
        let own = self.lifetimes[index];
        let (mut best, mut end) = ((0, u64::MAX), 0u64);
        for &other in &self.contents[slab] {
            if !own.meets(&self.lifetimes[other]) {
                continue;
            }
            let start = self.plan.places[other].offset;
            let free = start.saturating_sub(end);
            if own.bytes <= free && free < best.1 {
                best = (end, free);
            }
            end = end.max((start + self.lifetimes[other].bytes).next_multiple_of(self.limits.alignment));
        }
        if best.1 == u64::MAX { (end, u64::MAX) } else { best }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Slabs = Slabs { alignment: 1, bytes: u64::MAX };

    fn lifetimes(list: &[(u64, usize, usize)]) -> Vec<Lifetime> {
        list.iter().map(|&(bytes, first, last)| Lifetime { bytes, first, last }).collect()
    }

    /// Pairs of a chain's nodes that must be kept apart: each writes its own value and reads the one before.
    fn neighbours(count: usize) -> Vec<(usize, usize)> {
        (1..count).map(|i| (i - 1, i)).collect()
    }

    #[test]
    fn a_chain_takes_what_two_of_its_values_take() {
        let chain = lifetimes(&(0..10).map(|i| (100, i, i + 1)).collect::<Vec<_>>());
        let plan = SlabPlan::new(&chain, &[], ONE);
        assert_eq!(plan.slabs, [200]);
        let plan = SlabPlan::new(&chain, &neighbours(10), ONE);
        assert_eq!(plan.slabs, [100, 100]);
        assert!(plan.places.windows(2).all(|pair| pair[0].slab != pair[1].slab));
    }

    #[test]
    fn nothing_overlaps_in_time_and_place_and_enemies_never_share_a_slab() {
        let mut state = 1u64;
        let mut next = |n: u64| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) % n
        };
        for slabs in [ONE, Slabs { alignment: 256, bytes: u64::MAX }, Slabs { alignment: 256, bytes: 6000 }] {
            let list: Vec<_> = (0..200)
                .map(|_| {
                    let first = next(50) as usize;
                    let last = if next(8) == 0 { usize::MAX } else { first + next(9) as usize };
                    (4 * (1 + next(1000)), first, last)
                })
                .collect();
            let all = lifetimes(&list);
            let apart: Vec<_> = (0..150).map(|_| (next(200) as usize, next(200) as usize)).collect();
            let plan = SlabPlan::new(&all, &apart, slabs);
            assert!(plan.slabs.iter().all(|&bytes| bytes <= slabs.bytes));
            for (i, a) in all.iter().enumerate() {
                let at = plan.places[i];
                assert!(at.offset.is_multiple_of(slabs.alignment));
                assert!(at.offset + a.bytes <= plan.slabs[at.slab]);
                for (j, b) in all.iter().enumerate().skip(i + 1) {
                    let other = plan.places[j];
                    let apart = at.slab != other.slab
                        || at.offset + a.bytes <= other.offset
                        || other.offset + b.bytes <= at.offset;
                    assert!(apart || !a.meets(b), "{a:?} at {at:?} and {b:?} at {other:?}");
                }
            }
            for (a, b) in apart.into_iter().filter(|(a, b)| a != b) {
                assert_ne!(plan.places[a].slab, plan.places[b].slab);
            }
            assert!(plan.total() >= largest_live_set(&all));
            assert!(plan.total() < all.iter().map(|l| l.bytes).sum());
        }
    }

    #[test]
    fn a_value_goes_into_the_smallest_gap_that_it_fits() {
        // Node 0 leaves gaps of 100 and 50 between what lives on.
        let all = lifetimes(&[(100, 0, 0), (110, 0, 1), (50, 0, 0), (120, 0, 1), (40, 1, 1)]);
        let plan = SlabPlan::new(&all, &[], ONE);
        assert_eq!((plan.total(), largest_live_set(&all)), (380, 380));
    }

    #[test]
    fn a_value_larger_than_a_slab_should_be_gets_one_of_its_own() {
        let all = lifetimes(&[(100, 0, 1), (30, 0, 1), (30, 0, 1), (30, 0, 1)]);
        let plan = SlabPlan::new(&all, &[], Slabs { alignment: 1, bytes: 64 });
        assert_eq!(plan.slabs, [100, 60, 30]);
    }
}
