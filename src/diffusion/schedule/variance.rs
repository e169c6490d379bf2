//! The variance of the reverse process's steps.

use std::{fmt, str::FromStr};

use crate::diffusion::error::Error;

/// σ_t², the variance of the model's step (`variance_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variance {
    /// β̃_t: right where the data is one point (Ho et al. 2020, section 3.2).
    FixedSmall,
    /// β_t, but β̃_1 at t = 0: right where the data is N(0, I).
    FixedLarge,
    /// The network's second half of channels v is the variance itself.
    Learned,
    /// exp(f·log β_t + (1−f)·log β̃_t) with f = (v+1)/2: Nichol and Dhariwal 2021, arXiv 2102.09672, equation 15.
    LearnedRange,
}

impl Variance {
    /// All variances, in the order that they are listed to users.
    pub const ALL: [Self; 4] = [Self::FixedSmall, Self::FixedLarge, Self::Learned, Self::LearnedRange];

    /// Name in diffusers.
    pub fn name(self) -> &'static str {
        match self {
            Self::FixedSmall => "fixed_small",
            Self::FixedLarge => "fixed_large",
            Self::Learned => "learned",
            Self::LearnedRange => "learned_range",
        }
    }

    /// True if it comes out of the network.
    pub fn is_learned(self) -> bool {
        matches!(self, Self::Learned | Self::LearnedRange)
    }
}

impl fmt::Display for Variance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Variance {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|variance| variance.name() == name).ok_or_else(|| Error::Option {
            option: "variance",
            value: format!("{name:?}"),
            expected: format!("choose one of {}", Self::ALL.map(Self::name).join(", ")),
        })
    }
}
