//! The ops of a solver's step: what is computed around a network and no part of one.

use super::NodeId;

/// One operation of a solver's step. Its kernels, like its twin, know nothing of solvers but the coefficients that it reads.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum SolverOp {
    /// Classifier-free guidance with rescaling (Lin et al. 2023, arXiv 2305.08891, equations 15 and 16; diffusers'
    /// `rescale_noise_cfg`): guided = u + g·(c − u), then (φ·std(c)/std(guided) + 1 − φ)·guided with the standard
    /// deviations over each image.
    Guidance {
        /// `[2 * batch, ...]`, the unconditional half u first, then the conditional half c; the result is `[batch, ...]`.
        model_output: NodeId,
        /// The coefficients of [`SolverOp::LinearUpdate`], of which only g = [`update::GUIDANCE`] is read.
        coefficients: NodeId,
        /// φ, `guidance_rescale`.
        rescale: f32,
    },
    /// Dynamic thresholding (Saharia et al. 2022, arXiv 2205.11487, section 2.3): s is the `ratio` quantile of |x| over each
    /// image, at least 1 and then at most `max_value`; x is clamped to ±s and divided by s.
    Threshold {
        /// `[batch, ...]`.
        x: NodeId,
        /// `dynamic_thresholding_ratio`; between two values the quantile is linear, as `torch.quantile` has it.
        ratio: f32,
        /// `sample_max_value`.
        max_value: f32,
    },
    /// Guidance and the linear update of a solver's step in one op; see [`update`] for its terms.
    LinearUpdate {
        /// x_t, `[batch, ...]`.
        sample: NodeId,
        /// `[batch, ...]`, or `[2 * batch, ...]` with the unconditional half first.
        model_output: NodeId,
        /// Fresh noise, shape of `sample`.
        noise: NodeId,
        /// `[update::HISTORY * batch, ...]`.
        history: NodeId,
        /// `[update::COEFFICIENTS]`.
        coefficients: NodeId,
        /// x0, shape of `sample`, where the coefficients alone do not make it.
        x0: Option<NodeId>,
    },
}

impl SolverOp {
    /// The op's name in messages and profiles.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Guidance { .. } => "guidance",
            Self::Threshold { .. } => "threshold",
            Self::LinearUpdate { .. } => "linear_update",
        }
    }
}

/// The terms and coefficients of [`SolverOp::LinearUpdate`].
///
/// With g = guidance: output = u + g·(c − u) of a doubled batch, else the model output itself;
/// x0 = clamp(a·sample + b·output, −clip, clip), unless it is given;
/// each row of the result is a combination of `[sample, output, x0, noise, history…]`.
/// The result stacks along the batch axis: the new sample, x0, and the new history, [`update::HISTORY`] slots of it.
pub mod update {
    pub use crate::diffusion::HISTORY;

    /// Number of terms of a row.
    pub const TERMS: usize = 4 + HISTORY;
    /// Tensors stacked in the result: sample, x0, history.
    pub const RESULTS: usize = 2 + HISTORY;
    /// Index of the guidance scale g.
    pub const GUIDANCE: usize = 0;
    /// Index of a: what x0 takes of the sample.
    pub const X0_SAMPLE: usize = 1;
    /// Index of b: what x0 takes of the output.
    pub const X0_OUTPUT: usize = 2;
    /// Index of the clipping range of x0 (`f32::MAX` for none).
    pub const CLIP: usize = 3;
    /// Index of the first row, the new sample's; the history rows follow it.
    pub const ROWS: usize = 4;
    /// Length of the coefficient vector.
    pub const COEFFICIENTS: usize = ROWS + (1 + HISTORY) * TERMS;
}
