//! Embeddings of timesteps, classes and guidance scales (diffusers' `Timesteps`, `TimestepEmbedding`, `class_embedding`).

use crate::graph::{Activation, Error, NodeId, Scope, TimestepEmbeddingOptions};

/// The table that `class_labels` are looked up in, where a UNet has one.
pub const CLASS_EMBEDDING: &str = "class_embedding.weight";

/// `Timesteps`: the sinusoid that tells a network which step it is at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timesteps {
    /// True for cos before sin.
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

/// Kind of `class_labels`, and how they are embedded (`num_class_embeds`, `class_embed_type`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ClassEmbed {
    /// Rows of a table of this many classes, which are looked up outside.
    Table(usize),
    /// Numbers that are embedded as timesteps are.
    Timestep,
    /// The embeddings themselves.
    Identity,
    /// Vectors of this length, through a `TimestepEmbedding`.
    Projection(usize),
    /// Vectors of this length, through a linear layer.
    SimpleProjection(usize),
}

impl ClassEmbed {
    /// Adds the input `class_labels` for `batch` rows; gives `[batch, time_embed_dim]`. A timestep's sinusoid has `first`
    /// numbers and its layers `activation`.
    pub fn embed(
        self,
        root: &Scope,
        [batch, first, time_embed_dim]: [usize; 3],
        timesteps: Timesteps,
        activation: Activation,
    ) -> Result<NodeId, Error> {
        let labels = |shape: &[usize]| root.input("class_labels", shape);
        let scope = root.at("class_embedding");
        match self {
            ClassEmbed::Table(_) | ClassEmbed::Identity => labels(&[batch, time_embed_dim]),
            ClassEmbed::Timestep => {
                let sinusoid = timesteps.project(root, labels(&[batch])?, first)?;
                timestep_embedding(&scope, sinusoid, None, time_embed_dim, activation)
            }
            ClassEmbed::Projection(dim) => {
                timestep_embedding(&scope, labels(&[batch, dim])?, None, time_embed_dim, Activation::Silu)
            }
            ClassEmbed::SimpleProjection(dim) => scope.linear(labels(&[batch, dim])?, time_embed_dim, true),
        }
    }
}

/// The `timestep_cond` of models that were distilled with guidance (LCM; diffusers' `get_guidance_scale_embedding`): the
/// sinusoid of 1000 · (`guidance_scale` − 1) in `dim` numbers, sin before cos. Rounded to f32 where the library rounds.
pub fn guidance_scale_embedding(guidance_scale: f32, dim: usize) -> Vec<f32> {
    let half = dim / 2;
    let step = libm::logf(10_000.0) / half.saturating_sub(1) as f32;
    // The exponential is taken in f64 to be rounded once: an angle of ten thousand radians magnifies its last bit.
    let frequency = |index: usize| libm::exp(f64::from(index as f32 * -step)) as f32;
    let angle = |index: usize| (guidance_scale - 1.0) * 1000.0 * frequency(index);
    let (sin, cos) = ((0..half).map(|i| libm::sinf(angle(i))), (0..half).map(|i| libm::cosf(angle(i))));
    // An odd dimension ends with a zero.
    sin.chain(cos).chain((2 * half < dim).then_some(0.0)).collect()
}
