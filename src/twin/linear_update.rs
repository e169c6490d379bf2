//! Guidance and a solver's update. Twin of `shaders/linear_update.wgsl`.

use crate::graph::update::{CLIP, GUIDANCE, HISTORY, ROWS, TERMS, X0_OUTPUT, X0_SAMPLE};

/// Operands of the update; see [`crate::graph::update`].
#[derive(Clone, Copy, Debug)]
pub struct Operands<'a> {
    /// x_t.
    pub sample: &'a [f32],
    /// As long as `sample`, or twice (unconditional half first).
    pub model_output: &'a [f32],
    /// Fresh noise.
    pub noise: &'a [f32],
    /// [`HISTORY`] times as long as `sample`.
    pub history: &'a [f32],
    /// The coefficient vector.
    pub coefficients: &'a [f32],
    /// As long as `sample`, if it is given.
    pub x0: Option<&'a [f32]>,
}

/// `out` stacks the new sample, x0, and the new history.
pub fn linear_update(operands: Operands, out: &mut [f32]) {
    let Operands { sample, model_output, noise, history, coefficients, x0 } = operands;
    let n = sample.len();
    for i in 0..n {
        let mut output = model_output[i];
        if model_output.len() > n {
            output += coefficients[GUIDANCE] * (model_output[n + i] - output);
        }
        let clip = coefficients[CLIP];
        let predicted = || (coefficients[X0_SAMPLE] * sample[i] + coefficients[X0_OUTPUT] * output).clamp(-clip, clip);
        let x0 = x0.map_or_else(predicted, |x0| x0[i]);
        let mut terms = [0.0; TERMS];
        terms[..4].copy_from_slice(&[sample[i], output, x0, noise[i]]);
        for slot in 0..HISTORY {
            terms[4 + slot] = history[slot * n + i];
        }
        let row = |row: usize| {
            let weights = &coefficients[ROWS + row * TERMS..][..TERMS];
            weights.iter().zip(terms).map(|(weight, term)| weight * term).sum::<f32>()
        };
        out[i] = row(0);
        out[n + i] = x0;
        for slot in 0..HISTORY {
            out[(2 + slot) * n + i] = row(1 + slot);
        }
    }
}
