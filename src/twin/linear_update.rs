//! Guidance and a solver's update. Twin of `shaders/linear_update.wgsl`.

use crate::diffusion::Terms;
use crate::graph::update::{CLIP, GUIDANCE, HISTORY, ROWS, TERMS, X0_OUTPUT, X0_SAMPLE};

/// Operands of the update; see [`crate::graph::update`].
#[derive(Clone, Copy, Debug)]
pub struct Operands<'a> {
    /// x_t.
    pub sample: &'a [f64],
    /// The model's output, as long as `sample`, or twice as long (unconditional half first).
    pub model_output: &'a [f64],
    /// Fresh noise.
    pub noise: &'a [f64],
    /// [`HISTORY`] times as long as `sample`.
    pub history: &'a [f64],
    /// The coefficient vector.
    pub coefficients: &'a [f64],
    /// x0, as long as `sample`, if it is given.
    pub x0: Option<&'a [f64]>,
}

/// `out` stacks the new sample, x0, and the new history. What a row of coefficients makes of an element is said in [`Terms::dot`].
pub fn linear_update(operands: Operands, out: &mut [f64]) {
    let Operands { sample, model_output, noise, history, coefficients, x0 } = operands;
    let n = sample.len();
    let number = |index: usize| coefficients[index];
    let row = |row: usize| {
        let row = |term: usize| number(ROWS + row * TERMS + term);
        let history = std::array::from_fn(|slot| row(4 + slot));
        Terms { sample: row(0), model_output: row(1), x0: row(2), noise: row(3), history }
    };
    let (of_sample, of_history): (_, [Terms; HISTORY]) = (row(0), std::array::from_fn(|slot| row(1 + slot)));
    for i in 0..n {
        let at = |tensor: &[f64], part: usize| tensor[part * n + i];
        let mut output = at(model_output, 0);
        if model_output.len() > n {
            output += number(GUIDANCE) * (at(model_output, 1) - output);
        }
        let predicted = || number(X0_SAMPLE) * at(sample, 0) + number(X0_OUTPUT) * output;
        let x0 = x0.map_or_else(|| predicted().clamp(-number(CLIP), number(CLIP)), |x0| at(x0, 0));
        let history = std::array::from_fn(|slot| at(history, slot));
        let now = Terms { sample: at(sample, 0), model_output: output, x0, noise: at(noise, 0), history };
        out[i] = of_sample.dot(&now);
        out[n + i] = x0;
        for (slot, terms) in of_history.iter().enumerate() {
            out[(2 + slot) * n + i] = terms.dot(&now);
        }
    }
}
