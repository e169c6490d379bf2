//! Attention layers and the transformers made of them (diffusers' `Attention`, `BasicTransformerBlock`, `Transformer2DModel`).

use crate::graph::{Error, NodeId, Scope};

/// `Attention` without biases on q, k and v: `x` is `[batch, tokens, channels]`, `context` what it attends to.
fn attention(scope: &Scope, x: NodeId, context: NodeId, heads: usize) -> Result<NodeId, Error> {
    let channels = scope.shape(x)[2];
    let q = scope.at("to_q").linear(x, channels, false)?;
    let k = scope.at("to_k").linear(context, channels, false)?;
    let v = scope.at("to_v").linear(context, channels, false)?;
    let out = scope.attention(q, k, v, heads, false)?;
    scope.at("to_out.0").linear(out, channels, true)
}

/// The self-attention of `UNet2DModel` and of the autoencoder's middle: with biases, its own group norm and a residual connection.
#[derive(Clone, Copy, Debug)]
pub struct SelfAttention {
    /// Groups of the norm; `None` for no norm.
    pub groups: Option<usize>,
    /// Number added to the norm's variance.
    pub eps: f32,
    /// Number of heads.
    pub heads: usize,
    /// The sum with the residual is divided by this.
    pub rescale_output_factor: f32,
}

impl SelfAttention {
    /// Adds the layer to `x`, which is `[batch, height, width, channels]`.
    pub fn block(&self, scope: &Scope, x: NodeId) -> Result<NodeId, Error> {
        let shape = scope.shape(x);
        let channels = shape[3];
        let h = match self.groups {
            Some(groups) => scope.at("group_norm").group_norm(x, groups, self.eps)?,
            None => x,
        };
        let h = scope.reshape(h, &[shape[0], shape[1] * shape[2], channels])?;
        let project = |name: &str| scope.at(name).linear(h, channels, true);
        let (q, k, v) = (project("to_q")?, project("to_k")?, project("to_v")?);
        let h = scope.attention(q, k, v, self.heads, false)?;
        let h = scope.at("to_out.0").linear(h, channels, true)?;
        let sum = scope.add(scope.reshape(h, &shape)?, x)?;
        let factor = self.rescale_output_factor;
        if factor == 1.0 { Ok(sum) } else { scope.affine(sum, 1.0 / factor, 0.0) }
    }
}

/// `Transformer2DModel` over the pixels of a picture.
#[derive(Clone, Copy, Debug)]
pub struct Transformer2d {
    /// `norm_num_groups` of the opening norm, whose eps is always 1e-6.
    pub groups: usize,
    /// `num_attention_heads`.
    pub heads: usize,
    /// Number of transformer blocks.
    pub depth: usize,
    /// True if the first attention of each block attends to the text as well.
    pub only_cross_attention: bool,
}

impl Transformer2d {
    /// Adds the transformer to `x`, which is `[batch, height, width, channels]`, `context` the text embeddings `[batch, tokens,
    /// cross_attention_dim]`.
    ///
    /// The projections at both ends are 1×1 convolutions or linear layers, by `use_linear_projection`; over channels-last
    /// pictures these are the same.
    pub fn block(&self, scope: &Scope, x: NodeId, context: NodeId) -> Result<NodeId, Error> {
        let shape = scope.shape(x);
        let channels = shape[3];
        let h = scope.at("norm").group_norm(x, self.groups, 1e-6)?;
        let h = scope.reshape(h, &[shape[0], shape[1] * shape[2], channels])?;
        let mut h = scope.at("proj_in").linear(h, channels, true)?;
        for index in 0..self.depth {
            h = self.basic_block(&scope.at(format_args!("transformer_blocks.{index}")), h, context)?;
        }
        let h = scope.at("proj_out").linear(h, channels, true)?;
        scope.add(scope.reshape(h, &shape)?, x)
    }

    /// `BasicTransformerBlock`: self-attention, cross-attention, GEGLU feed-forward.
    fn basic_block(&self, scope: &Scope, x: NodeId, context: NodeId) -> Result<NodeId, Error> {
        let channels = scope.shape(x)[2];
        let norm = |name, h| scope.at(name).layer_norm(h, 1e-5);
        let h = norm("norm1", x)?;
        let h = attention(&scope.at("attn1"), h, if self.only_cross_attention { context } else { h }, self.heads)?;
        let x = scope.add(h, x)?;
        let h = attention(&scope.at("attn2"), norm("norm2", x)?, context, self.heads)?;
        let x = scope.add(h, x)?;
        let h = scope.at("ff.net.0.proj").linear(norm("norm3", x)?, 8 * channels, true)?;
        let h = scope.at("ff.net.2").linear(scope.geglu(h)?, channels, true)?;
        scope.add(h, x)
    }
}
