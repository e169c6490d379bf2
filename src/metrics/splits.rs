//! Pictures drawn at random, the same each time.

use crate::noise::Mt19937;

/// Whole numbers at random.
pub(super) struct Draws(Mt19937);

impl Draws {
    pub fn new(seed: u32) -> Self {
        Self(Mt19937::new(seed))
    }

    /// One of 0..`end`, all of which are as likely as 2^-32 allows; `end` is at least 1.
    fn below(&mut self, end: usize) -> usize {
        ((u64::from(self.0.next_u32()) * end as u64) >> 32) as usize
    }

    /// `count` of 0..`from` without repetition, in random order.
    pub fn choose(&mut self, count: usize, from: usize) -> Vec<usize> {
        let mut all: Vec<usize> = (0..from).collect();
        for place in 0..count.min(from) {
            let other = place + self.below(from - place);
            all.swap(place, other);
        }
        all.truncate(count);
        all
    }
}

/// Deals `count` pictures at random into `groups` groups, whose sizes differ by one at most: the group of each picture. The
/// same for the same two numbers.
///
/// At random, because pictures lie in some order, of names or prompts, and neighbours are alike.
pub fn deal(count: usize, groups: usize) -> Vec<usize> {
    let mut dealt = vec![0; count];
    for (place, picture) in Draws::new(0).choose(count, count).into_iter().enumerate() {
        dealt[picture] = place % groups.max(1);
    }
    dealt
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_picture_is_dealt_once_into_groups_of_equal_size_that_mix_neighbours() {
        let dealt = deal(103, 10);
        let sizes: Vec<usize> = (0..10).map(|group| dealt.iter().filter(|&&g| g == group).count()).collect();
        assert_eq!(sizes.iter().sum::<usize>(), 103);
        assert!(sizes.iter().all(|&size| size == 10 || size == 11), "{sizes:?}");
        assert!(dealt[..20].iter().any(|&g| g != dealt[0]) && dealt != (0..103).map(|i| i % 10).collect::<Vec<_>>());
        assert_eq!(dealt, deal(103, 10));
        assert_eq!(deal(0, 3), []);
        assert_eq!(deal(2, 0), [0, 0]);
    }

    #[test]
    fn a_choice_has_no_repetition_and_all_are_as_likely() {
        let mut draws = Draws::new(1);
        let mut often = [0usize; 12];
        for _ in 0..4000 {
            let mut chosen = draws.choose(3, 12);
            chosen.iter().for_each(|&i| often[i] += 1);
            chosen.sort_unstable();
            chosen.dedup();
            assert_eq!(chosen.len(), 3);
        }
        // 1000 times each, with a standard deviation of 27.
        assert!(often.iter().all(|times| times.abs_diff(1000) < 130), "{often:?}");
        assert_eq!(draws.choose(5, 3).len(), 3, "there are no more");
    }
}
