//! Embeddings of timesteps (diffusers' `Timesteps` and `TimestepEmbedding`).

use crate::graph::{Activation, Error, NodeId, Scope, TimestepEmbeddingOptions};

/// `Timesteps`: the sinusoid that tells a network which step it is at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timesteps {
    /// cos before sin.
    pub flip_sin_to_cos: bool,
    /// `freq_shift`.
    pub freq_shift: f32,
}

impl Timesteps {
    /// `[n]` → `[n, dim]`.
    pub fn project(&self, scope: &Scope, timestep: NodeId, dim: usize) -> Result<NodeId, Error> {
        let (flip_sin_to_cos, downscale_freq_shift) = (self.flip_sin_to_cos, self.freq_shift);
        let options = TimestepEmbeddingOptions { dim, flip_sin_to_cos, downscale_freq_shift, scale: 1.0 };
        scope.timestep_embedding(timestep, options)
    }
}

/// `TimestepEmbedding`: two linear layers; `condition` is added to the input through `cond_proj`.
pub fn timestep_embedding(
    scope: &Scope,
    sample: NodeId,
    condition: Option<NodeId>,
    time_embed_dim: usize,
    activation: Activation,
) -> Result<NodeId, Error> {
    let mut h = sample;
    if let Some(condition) = condition {
        let width = *scope.shape(sample).last().unwrap_or(&1);
        h = scope.add(h, scope.at("cond_proj").linear(condition, width, false)?)?;
    }
    let h = scope.at("linear_1").linear(h, time_embed_dim, true)?;
    let h = scope.activate(h, activation)?;
    scope.at("linear_2").linear(h, time_embed_dim, true)
}
