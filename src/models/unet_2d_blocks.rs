//! The down, middle and up blocks of UNets (diffusers' `unet_2d_blocks.py`).
//!
//! diffusers has a class for each mixture of residual blocks, attention and sampling; here a block takes what comes after
//! each residual block as a function, and its way of sampling as a value.

use super::attention::{SelfAttention, Transformer2d};
use super::resnet::{Resample, ResnetOptions, downsample_2d, upsample_2d};
use crate::graph::{Error, NodeId, Scope};

/// The attention of a block after each residual block.
#[derive(Clone, Copy, Debug)]
pub enum Attention<'a> {
    /// No attention.
    None,
    /// Attention of the pixels to each other.
    Own(SelfAttention),
    /// Attention of the pixels to each other and to the text; one transformer for each residual block.
    Cross(&'a [Transformer2d], NodeId),
}

impl Attention<'_> {
    /// Attention `index` of a block.
    fn apply(&self, scope: &Scope, x: NodeId, index: usize) -> Result<NodeId, Error> {
        let scope = scope.at(format_args!("attentions.{index}"));
        match self {
            Attention::None => Ok(x),
            Attention::Own(attention) => attention.block(&scope, x),
            Attention::Cross(transformers, context) => match transformers.get(index) {
                Some(transformer) => transformer.block(&scope, x, *context),
                None => Err(scope.error("no transformer is configured for this layer")),
            },
        }
    }
}

/// The change of resolution at the end of a block.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sampling {
    /// No change: the last block.
    None,
    /// A convolution, `Downsample2D` or `Upsample2D`.
    Convolution,
    /// A residual block that resamples.
    Resnet,
}

/// A block of `layers` residual blocks with `channels` output channels.
#[derive(Clone, Copy, Debug)]
pub struct Block<'a> {
    /// Options of the residual blocks.
    pub resnet: ResnetOptions,
    /// Number of residual blocks.
    pub layers: usize,
    /// Output channels.
    pub channels: usize,
    /// Attention after each residual block.
    pub attention: Attention<'a>,
    /// Change of the resolution.
    pub sampling: Sampling,
}

impl Block<'_> {
    /// A down block; pushes the result of each layer to `skips`.
    pub fn down(
        &self,
        scope: &Scope,
        mut x: NodeId,
        temb: Option<NodeId>,
        downsample_padding: usize,
        skips: &mut Vec<NodeId>,
    ) -> Result<NodeId, Error> {
        for index in 0..self.layers {
            x = self.layer(scope, x, temb, index)?;
            skips.push(x);
        }
        let sampler = scope.at("downsamplers.0");
        x = match self.sampling {
            Sampling::None => return Ok(x),
            Sampling::Convolution => downsample_2d(&sampler, x, downsample_padding)?,
            Sampling::Resnet => self.resnet.block(&sampler, x, temb, self.channels, Some(Resample::Down))?,
        };
        skips.push(x);
        Ok(x)
    }

    /// An up block; takes a skip tensor off `skips` for each layer and grows to the size of the next one.
    pub fn up(
        &self,
        scope: &Scope,
        mut x: NodeId,
        temb: Option<NodeId>,
        skips: &mut Vec<NodeId>,
    ) -> Result<NodeId, Error> {
        for index in 0..self.layers {
            let skip = skips.pop().ok_or_else(|| scope.error("no skip connection is left for this block"))?;
            x = self.layer(scope, scope.concat(&[x, skip], 3)?, temb, index)?;
        }
        let shape = scope.shape(x);
        let size = skips.last().map_or([2 * shape[1], 2 * shape[2]], |&skip| {
            let shape = scope.shape(skip);
            [shape[1], shape[2]]
        });
        let sampler = scope.at("upsamplers.0");
        match self.sampling {
            Sampling::None => Ok(x),
            Sampling::Convolution => upsample_2d(&sampler, x, size),
            Sampling::Resnet => {
                self.resnet.block(&sampler, x, temb, self.channels, Some(Resample::Up(size[0], size[1])))
            }
        }
    }

    /// A middle block: a residual block, then attention and another residual block `layers` times.
    pub fn mid(&self, scope: &Scope, x: NodeId, temb: Option<NodeId>) -> Result<NodeId, Error> {
        let resnet = |x, index: usize| {
            self.resnet.block(&scope.at(format_args!("resnets.{index}")), x, temb, self.channels, None)
        };
        let mut x = resnet(x, 0)?;
        for index in 0..self.layers {
            x = resnet(self.attention.apply(scope, x, index)?, index + 1)?;
        }
        Ok(x)
    }

    fn layer(&self, scope: &Scope, x: NodeId, temb: Option<NodeId>, index: usize) -> Result<NodeId, Error> {
        let resnet = scope.at(format_args!("resnets.{index}"));
        let x = self.resnet.block(&resnet, x, temb, self.channels, None)?;
        self.attention.apply(scope, x, index)
    }
}
