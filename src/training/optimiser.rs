//! The numbers of an optimiser's step, and of the average that is kept of its weights.

use std::num::NonZeroU32;

use crate::graph::optimiser::COEFFICIENTS;

/// AdamW's settings (`torch.optim.AdamW`).
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct AdamW {
    /// β₁ and β₂, the decay of the moments, from 0 to below 1.
    pub betas: [f64; 2],
    /// ε, above zero.
    pub eps: f64,
    /// Decay of the weights, at least zero.
    pub weight_decay: f64,
    /// The largest norm that all gradients together may have.
    pub max_grad_norm: f64,
}

impl Default for AdamW {
    fn default() -> Self {
        Self { betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.01, max_grad_norm: 1.0 }
    }
}

impl AdamW {
    /// The coefficients of [`crate::graph::OptimiserOp::AdamW`] in step `step`, counted from 1.
    pub fn coefficients(&self, step: NonZeroU32, learning_rate: f64) -> [f32; COEFFICIENTS] {
        let [of_first, of_second] = self.betas.map(|beta| 1.0 - libm::pow(beta, f64::from(step.get())));
        let [beta1, beta2] = self.betas;
        [
            1.0 - learning_rate * self.weight_decay,
            1.0 - beta1,
            beta2,
            1.0 - beta2,
            self.eps,
            of_second.sqrt(),
            learning_rate / of_first,
            self.max_grad_norm,
        ]
        .map(|number| number as f32)
    }
}
