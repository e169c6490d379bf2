//! Guidance and the linear update of a solver's step.

use bytemuck::{Pod, Zeroable};

use crate::Compute;
use crate::memory;
use crate::simd::Simd;

/// Slots of history.
const HISTORY: usize = 5;
/// Terms of a row: sample, output, x0, noise, history.
const TERMS: usize = 4 + HISTORY;
/// Coefficients before the first row: g, what x0 takes of the sample and of the output, and its clipping range.
const ROWS: usize = 4;
/// All coefficients: one row for the new sample, and one for each slot of history.
const COEFFICIENTS: usize = ROWS + (1 + HISTORY) * TERMS;

/// The update of a solver's step: each row of the result is a combination of `[sample, output, x0, noise, history…]`, with
/// output = u + g·(c − u) of a doubled batch, else the model output itself, and x0 = clamp(a·sample + b·output, ±clip) unless
/// it is given. The result stacks the new sample, x0, and the new history.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct LinearUpdate {
    /// `[elements]`.
    pub sample: usize,
    /// `[elements]`, or `[2, elements]` if `guided`, the unconditional half first.
    pub model_output: usize,
    /// `[elements]`.
    pub noise: usize,
    /// `[5, elements]`.
    pub history: usize,
    /// `[58]`: g, a, b, clip, then six rows of nine.
    pub coefficients: usize,
    /// `[elements]`, or 0.
    pub x0: usize,
    /// `[7, elements]`.
    pub y: usize,
    /// Numbers of the sample.
    pub elements: usize,
    /// 1 if the model output is twice as long, else 0.
    pub guided: usize,
}

impl LinearUpdate {
    pub(crate) fn count_parts(&self) -> usize {
        memory::parts(self.elements * (TERMS + 2 + HISTORY), self.elements)
    }
}

impl Compute for LinearUpdate {
    #[inline(always)]
    unsafe fn compute<S: Simd>(&self, part: usize) {
        let n = self.elements;
        let coefficients = &*(self.coefficients as *const [f32; COEFFICIENTS]);
        let [guidance, of_sample, of_output, clip, rows @ ..] = coefficients;
        let (rows, _) = rows.as_chunks::<TERMS>();
        for i in memory::range(n, self.count_parts(), part) {
            let read = |tensor: usize, row: usize| *(tensor as *const f32).add(row * n + i);
            let write = |row: usize, value: f32| *(self.y as *mut f32).add(row * n + i) = value;
            let (sample, mut output) = (read(self.sample, 0), read(self.model_output, 0));
            if self.guided == 1 {
                output += guidance * (read(self.model_output, 1) - output);
            }
            let x0 = match self.x0 {
                0 => crate::elementwise::clamp(of_sample * sample + of_output * output, *clip),
                given => read(given, 0),
            };
            let mut terms = [sample, output, x0, read(self.noise, 0), 0.0, 0.0, 0.0, 0.0, 0.0];
            for slot in 0..HISTORY {
                terms[4 + slot] = read(self.history, slot);
            }
            write(1, x0);
            for (row, weights) in rows.iter().enumerate() {
                let sum = weights.iter().zip(terms).fold(0.0, |sum, (weight, term)| sum + weight * term);
                write(if row == 0 { 0 } else { 1 + row }, sum);
            }
        }
    }
}
