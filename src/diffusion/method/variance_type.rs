//! The variance of the reverse process's steps as configs name it.

use crate::diffusion::{error::Error, keys::Keys, schedule::variance::Variance};

/// The way in which a sampler computes the variance of its steps (`variance_type`).
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum VarianceType {
    /// β̃_t.
    FixedSmall,
    /// β_t.
    FixedLarge,
    /// β_t, of which diffusers takes the root of the logarithm.
    FixedLargeLog,
    /// The network's second half of channels.
    Learned,
    /// A variance between β̃_t and β_t, which the network's second half of channels chooses.
    LearnedRange,
}

impl VarianceType {
    /// Reads `variance_type`.
    pub fn read(keys: &Keys) -> Result<Self, Error> {
        let all = &[
            ("fixed_small", Self::FixedSmall),
            ("fixed_small_log", Self::FixedSmall),
            ("fixed_large", Self::FixedLarge),
            ("fixed_large_log", Self::FixedLargeLog),
            ("learned", Self::Learned),
            ("learned_range", Self::LearnedRange),
        ];
        keys.choice("variance_type", Self::FixedSmall, all)
    }

    /// The variance that the name means: an ending `_log` says only how a sampler computes with it.
    pub fn variance(self) -> Variance {
        match self {
            Self::FixedSmall => Variance::FixedSmall,
            Self::FixedLarge | Self::FixedLargeLog => Variance::FixedLarge,
            Self::Learned => Variance::Learned,
            Self::LearnedRange => Variance::LearnedRange,
        }
    }
}
