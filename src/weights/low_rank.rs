//! Low-rank additions to a matrix: what a LoRA adds to one weight.

use std::ops::Range;

/// scale · up · down, to be added to a weight of `[out, in]` or `[out, in, height, width]`.
#[derive(Clone, Debug, PartialEq)]
pub struct LowRank {
    /// `[out, rank]`.
    pub up: Vec<f32>,
    /// `[rank, in · height · width]`, in the weight's own order.
    pub down: Vec<f32>,
    /// The factor, alpha / rank and the user's weight together.
    pub scale: f32,
}

impl LowRank {
    /// The rank, which says how `up` and `down` are read.
    ///
    /// # Errors
    /// If they do not fit a weight of `out` rows and `columns` columns, as a sentence.
    pub fn rank(&self, out: usize, columns: usize) -> Result<usize, String> {
        let rank = self.up.len().checked_div(out).unwrap_or(0);
        let fits = |numbers: usize, side: usize| rank.checked_mul(side) == Some(numbers);
        if rank == 0 || !fits(self.up.len(), out) || !fits(self.down.len(), columns) {
            let (up, down) = (self.up.len(), self.down.len());
            return Err(format!(
                "low-rank factors of {up} and {down} numbers do not make a matrix of {out}×{columns}; \
                 the LoRA is of another model"
            ));
        }
        Ok(rank)
    }

    /// Rows `rows` of Σ scale·up·down of all `additions`, `[out, columns]`; summed in f32 in their order.
    ///
    /// # Errors
    /// As [`LowRank::rank`].
    pub(crate) fn sum(additions: &[Self], out: usize, columns: usize, rows: Range<usize>) -> Result<Vec<f32>, String> {
        let mut sum = vec![0.0; rows.len() * columns];
        for addition in additions {
            let rank = addition.rank(out, columns)?;
            let ups = addition.up.chunks_exact(rank).skip(rows.start);
            for (row, up) in sum.chunks_exact_mut(columns.max(1)).zip(ups) {
                for (up, down) in up.iter().zip(addition.down.chunks_exact(columns.max(1))) {
                    let factor = addition.scale * up;
                    row.iter_mut().zip(down).for_each(|(sum, down)| *sum += factor * down);
                }
            }
        }
        Ok(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn additions_are_scaled_and_summed() {
        let one = LowRank { up: vec![1.0, 2.0], down: vec![10.0, 20.0, 30.0], scale: 0.5 };
        let two = LowRank { up: vec![1.0, 0.0, 0.0, 1.0], down: vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0], scale: 1.0 };
        let additions = [one, two];
        let sum = |rows| LowRank::sum(&additions, 2, 3, rows).unwrap();
        assert_eq!(sum(0..2), [6.0, 12.0, 18.0, 14.0, 25.0, 36.0]);
        assert_eq!(sum(1..2), [14.0, 25.0, 36.0]);
    }

    #[test]
    fn factors_of_another_matrix_are_refused_with_its_size() {
        let factors = |up: usize, down: usize| LowRank { up: vec![0.0; up], down: vec![0.0; down], scale: 1.0 };
        assert_eq!(factors(8, 12).rank(4, 6), Ok(2));
        for wrong in [factors(0, 0), factors(9, 12), factors(8, 6), factors(3, 6), factors(8, 13)] {
            let message = wrong.rank(4, 6).unwrap_err();
            assert!(message.contains("do not make a matrix of 4×6"), "{message}");
        }
        assert!(factors(4, 6).rank(0, 6).is_err());
    }
}
