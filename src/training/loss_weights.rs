//! The weight of a sample in the loss, by how noisy it is.

use crate::diffusion::PredictionType;

/// How much each timestep counts.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct LossWeights {
    /// γ of min-SNR weighting, above zero: timesteps whose signal-to-noise ratio is larger count as if it were γ (Hang et al. 2023, arXiv
    /// 2303.09556, equation 3; diffusers' `snr_gamma`). If none, each counts 1.
    pub snr_gamma: Option<f64>,
}

impl LossWeights {
    /// The weight of a timestep with this signal-to-noise ratio, for a network that predicts `prediction`; the squared error of x_0
    /// times min(SNR, γ), expressed as one of what is predicted.
    pub fn at(self, snr: f64, prediction: PredictionType) -> f64 {
        let Some(gamma) = self.snr_gamma else { return 1.0 };
        let capped = snr.min(gamma);
        match prediction {
            // Of noise alone, the limit.
            PredictionType::Epsilon if snr == 0.0 => 1.0,
            PredictionType::Epsilon => capped / snr,
            PredictionType::VPrediction => capped / (snr + 1.0),
            PredictionType::Sample => capped,
            // x̂_0 = x_t − σ·v, with σ = 1/(1 + √SNR).
            PredictionType::FlowPrediction => capped / ((1.0 + snr.sqrt()) * (1.0 + snr.sqrt())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_of_epsilon_is_one_of_x0_times_the_snr() {
        let weights = LossWeights { snr_gamma: Some(5.0) };
        for snr in [0.01, 1.0, 5.0, 400.0] {
            let of_x0 = weights.at(snr, PredictionType::Sample);
            assert!((weights.at(snr, PredictionType::Epsilon) * snr - of_x0).abs() < 1e-12);
            assert!((weights.at(snr, PredictionType::VPrediction) * (snr + 1.0) - of_x0).abs() < 1e-12);
            let sigma = 1.0 / (1.0 + snr.sqrt());
            assert!((weights.at(snr, PredictionType::FlowPrediction) / (sigma * sigma) - of_x0).abs() < 1e-9);
        }
        assert_eq!(weights.at(0.25, PredictionType::Epsilon), 1.0);
        assert_eq!(weights.at(0.0, PredictionType::Epsilon), 1.0);
        assert_eq!(LossWeights::default().at(400.0, PredictionType::Epsilon), 1.0);
    }
}
