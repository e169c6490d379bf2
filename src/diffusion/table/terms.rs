//! Linear combinations of what a step has at hand.

use std::{
    fmt,
    ops::{Add, Mul, Sub},
};

use serde::Serialize;

/// The number of tensors of earlier steps that a solver may keep.
pub const HISTORY: usize = 5;

/// A linear combination of what a step has at hand; each tensor has the sample's shape.
///
/// A `Terms` is a vector in that space: solvers add and scale them, and so spell their equations as in the papers.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Terms {
    /// The coefficient of x_t.
    pub sample: f64,
    /// The coefficient of the network's output, after guidance.
    pub model_output: f64,
    /// The coefficient of x̂_0, after clipping.
    pub x0: f64,
    /// The coefficient of this step's fresh noise z ~ N(0, 1).
    pub noise: f64,
    /// The coefficients of the history's slots, as they are before this step.
    pub history: [f64; HISTORY],
}

impl Terms {
    pub(in crate::diffusion) const ZERO: Self =
        Self { sample: 0.0, model_output: 0.0, x0: 0.0, noise: 0.0, history: [0.0; HISTORY] };
    /// x_t itself.
    pub const SAMPLE: Self = Self { sample: 1.0, ..Self::ZERO };
    /// The network's output itself.
    pub const MODEL_OUTPUT: Self = Self { model_output: 1.0, ..Self::ZERO };
    /// The clipped x̂_0 itself.
    pub const X0: Self = Self { x0: 1.0, ..Self::ZERO };
    /// The fresh noise itself.
    pub const NOISE: Self = Self { noise: 1.0, ..Self::ZERO };
    /// The history's slots themselves. As a step's `history`: nothing moves.
    pub const HISTORY: [Self; HISTORY] = {
        let mut slots = [Self::ZERO; HISTORY];
        let mut i = 0;
        while i < HISTORY {
            slots[i].history[i] = 1.0;
            i += 1;
        }
        slots
    };

    /// The combination itself, for one element: `values` has what each term is there.
    pub fn dot(&self, values: &Self) -> f64 {
        let now = self.sample * values.sample
            + self.model_output * values.model_output
            + self.x0 * values.x0
            + self.noise * values.noise;
        values.history.iter().zip(self.history).fold(now, |sum, (slot, coefficient)| sum + coefficient * slot)
    }

    /// The history after `newest` has moved into slot 0 and those behind it one back, `kept` slots in all.
    pub(in crate::diffusion) fn pushed(newest: Self, kept: usize) -> [Self; HISTORY] {
        std::array::from_fn(|slot| match slot {
            _ if slot >= kept => Self::HISTORY[slot],
            0 => newest,
            _ => Self::HISTORY[slot - 1],
        })
    }

    fn zip(self, other: Self, f: impl Fn(f64, f64) -> f64) -> Self {
        Self {
            sample: f(self.sample, other.sample),
            model_output: f(self.model_output, other.model_output),
            x0: f(self.x0, other.x0),
            noise: f(self.noise, other.noise),
            history: std::array::from_fn(|i| f(self.history[i], other.history[i])),
        }
    }

    pub(in crate::diffusion) fn is_finite(&self) -> bool {
        [self.sample, self.model_output, self.x0, self.noise].iter().chain(&self.history).all(|c| c.is_finite())
    }
}

impl Add for Terms {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }
}

impl Sub for Terms {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }
}

impl Mul<f64> for Terms {
    type Output = Self;

    fn mul(self, factor: f64) -> Self {
        self.zip(self, |a, _| a * factor)
    }
}

impl fmt::Display for Terms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = [(self.sample, "x_t"), (self.model_output, "out"), (self.x0, "x0"), (self.noise, "z")];
        let mut separator = "";
        for (coefficient, name) in named.into_iter().filter(|&(coefficient, _)| coefficient != 0.0) {
            write!(f, "{separator}{coefficient:+.6}·{name}")?;
            separator = " ";
        }
        for (slot, coefficient) in self.history.iter().enumerate().filter(|&(_, &coefficient)| coefficient != 0.0) {
            write!(f, "{separator}{coefficient:+.6}·h{slot}")?;
            separator = " ";
        }
        if separator.is_empty() { f.write_str("0") } else { Ok(()) }
    }
}
