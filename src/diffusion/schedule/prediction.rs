//! The meaning of the network's output for x_0 and for ε.

use serde::{Serialize, Serializer};

/// A quantity as a linear combination of the sample and of the network's output.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Reading {
    /// The coefficient of the sample.
    pub sample: f64,
    /// The coefficient of the network's output.
    pub output: f64,
}

impl Reading {
    /// `sample`·x_t + `output`·output.
    pub const fn new(sample: f64, output: f64) -> Self {
        Self { sample, output }
    }

    /// True if neither coefficient divides by zero.
    pub fn is_finite(self) -> bool {
        self.sample.is_finite() && self.output.is_finite()
    }
}

/// The reading is written as the pair of its coefficients.
impl Serialize for Reading {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.sample, self.output).serialize(serializer)
    }
}

/// The target that the network was trained on (`prediction_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PredictionType {
    /// ε, the noise.
    Epsilon,
    /// x_0, the image itself.
    Sample,
    /// v = √ᾱ·ε − √(1−ᾱ)·x_0 (Salimans and Ho 2022).
    VPrediction,
    /// ε − x_0, the velocity of rectified flow.
    FlowPrediction,
}

impl PredictionType {
    /// x̂_0 from x_t and the network's output, where x_t = `signal`·x_0 + `noise`·ε.
    pub(in crate::diffusion) fn x0(self, signal: f64, noise: f64) -> Reading {
        match self {
            Self::Epsilon => Reading::new(1.0 / signal, -noise / signal),
            Self::Sample => Reading::new(0.0, 1.0),
            Self::VPrediction => Reading::new(signal, -noise),
            // Only with rectified flow, where signal = 1 − noise.
            Self::FlowPrediction => Reading::new(1.0, -noise),
        }
    }

    /// ε̂ from x_t and the network's output, where x_t = `signal`·x_0 + `noise`·ε.
    pub(in crate::diffusion) fn epsilon(self, signal: f64, noise: f64) -> Reading {
        match self {
            Self::Epsilon => Reading::new(0.0, 1.0),
            Self::Sample => Reading::new(1.0 / noise, -signal / noise),
            Self::VPrediction => Reading::new(noise, signal),
            Self::FlowPrediction => Reading::new(1.0, signal),
        }
    }
}
