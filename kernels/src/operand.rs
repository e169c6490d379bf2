//! Operands that are not plain sizes, each one word of a job.

use bytemuck::{Pod, Zeroable};

/// An f32 in a word.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
pub struct Float(usize);

impl Float {
    /// The number it holds.
    #[inline(always)]
    pub fn get(self) -> f32 {
        f32::from_bits(self.0 as u32)
    }
}

impl From<f32> for Float {
    fn from(value: f32) -> Self {
        Self(value.to_bits() as usize)
    }
}

impl std::fmt::Debug for Float {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.get().fmt(f)
    }
}

/// An element-wise non-linearity in a word.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Pod, Zeroable)]
pub struct Activation(usize);

impl Activation {
    /// None: x.
    pub const NONE: Self = Self(0);
    /// x · sigmoid(x).
    pub const SILU: Self = Self(1);
    /// x · Φ(x), exact, through erf.
    pub const GELU: Self = Self(2);
    /// GELU by its tanh approximation.
    pub const GELU_TANH: Self = Self(3);
    /// x · sigmoid(1.702 x).
    pub const QUICK_GELU: Self = Self(4);
    /// x · tanh(ln(1 + eˣ)).
    pub const MISH: Self = Self(5);
    /// max(x, 0).
    pub const RELU: Self = Self(6);
    /// tanh(x).
    pub const TANH: Self = Self(7);
    /// eˣ.
    pub const EXP: Self = Self(8);
    /// √x.
    pub const SQRT: Self = Self(9);
}
