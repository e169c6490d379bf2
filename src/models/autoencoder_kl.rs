//! `AutoencoderKL`: pictures to latents and back.

use super::attention::SelfAttention;
use super::config::ConfigReader;
use super::resnet::{ResnetOptions, downsample_2d, upsample_2d};
use super::unet_2d_blocks::{Attention, Block, Sampling};
use super::{Error, channels_first, channels_last};
use crate::graph::{Activation, Builder, Conv2dOptions, Graph, NodeId, Scope};

const CLASS: &str = "AutoencoderKL";

/// The config of an `AutoencoderKL`, under diffusers' names.
#[derive(Clone, Debug, PartialEq)]
pub struct AutoencoderKlConfig {
    /// Channels of the pictures that it encodes.
    pub in_channels: usize,
    /// Channels of the pictures that it decodes.
    pub out_channels: usize,
    /// Channels of the latents.
    pub latent_channels: usize,
    /// The generation model's latents are this times the encoder's.
    pub scaling_factor: f64,
    /// Number subtracted from the encoder's latents before they are scaled.
    pub shift_factor: f64,
    block_out_channels: Vec<usize>,
    layers_per_block: usize,
    resnet: ResnetOptions,
    mid_block_add_attention: bool,
    use_quant_conv: bool,
    use_post_quant_conv: bool,
}

impl AutoencoderKlConfig {
    /// Reads a `config.json`.
    ///
    /// # Errors
    /// If it is no `AutoencoderKL` config, or asks for something that is not implemented.
    pub fn from_json(json: &str) -> Result<Self, Error> {
        let c = ConfigReader::new(CLASS, json)?;
        // `force_upcast` is about f16 activations, which are not used; the size is that of training.
        c.ignore(&["force_upcast", "sample_size"]);
        for key in ["latents_mean", "latents_std"] {
            c.only_null(key)?;
        }
        let block_out_channels = c.sizes("block_out_channels", &[64])?;
        for (key, name) in [("down_block_types", "DownEncoderBlock2D"), ("up_block_types", "UpDecoderBlock2D")] {
            let types: Vec<String> = c.get(key, vec![name.to_owned()])?;
            c.check_length(key, types.len(), block_out_channels.len())?;
            if types.iter().any(|found| found != name) {
                return Err(c.unsupported(key, &format!("only `{name}` is")));
            }
        }
        let config = Self {
            in_channels: c.size("in_channels", 3)?,
            out_channels: c.size("out_channels", 3)?,
            latent_channels: c.size("latent_channels", 4)?,
            scaling_factor: c.scaling_factor(0.18215)?,
            shift_factor: c.get("shift_factor", 0.0)?,
            layers_per_block: c.size_up_to("layers_per_block", 1, 64)?,
            resnet: ResnetOptions {
                groups: c.size("norm_num_groups", 32)?,
                eps: 1e-6,
                activation: c.activation("act_fn", Activation::Silu)?,
                scale_shift: false,
                output_scale_factor: 1.0,
            },
            mid_block_add_attention: c.get("mid_block_add_attention", true)?,
            use_quant_conv: c.get("use_quant_conv", true)?,
            use_post_quant_conv: c.get("use_post_quant_conv", true)?,
            block_out_channels,
        };
        c.finish()?;
        Ok(config)
    }

    /// Ratio of a picture's side to its latents' side.
    pub fn scale_factor(&self) -> usize {
        1 << (self.block_out_channels.len() - 1)
    }

    /// The encoder for `batch` pictures of `height`×`width`: input `sample` `[batch, in_channels, height, width]` in −1..1,
    /// output `moments` `[batch, 2 * latent_channels, height / f, width / f]`, the mean's channels before the log-variance's.
    ///
    /// # Errors
    /// If the config's numbers do not fit each other or the size.
    pub fn encoder(&self, batch: usize, height: usize, width: usize) -> Result<Graph, Error> {
        let builder = Builder::new();
        let root = builder.root();
        let sample = root.input("sample", &[batch, self.in_channels, height, width])?;
        let scope = root.at("encoder");
        let mut x = channels_last(&root, sample)?;
        x = scope.at("conv_in").conv2d(x, Conv2dOptions::same(self.block_out_channels[0], 3))?;
        for (index, &channels) in self.block_out_channels.iter().enumerate() {
            let block = scope.at(format_args!("down_blocks.{index}"));
            for layer in 0..self.layers_per_block {
                x = self.resnet.block(&block.at(format_args!("resnets.{layer}")), x, None, channels, None)?;
            }
            if index + 1 < self.block_out_channels.len() {
                x = downsample_2d(&block.at("downsamplers.0"), x, 0)?;
            }
        }
        x = self.mid_block(&scope, x)?;
        x = self.norm_out(&scope, x)?;
        x = scope.at("conv_out").conv2d(x, Conv2dOptions::same(2 * self.latent_channels, 3))?;
        if self.use_quant_conv {
            x = root.at("quant_conv").linear(x, 2 * self.latent_channels, true)?;
        }
        root.output("moments", channels_first(&root, x)?);
        Ok(builder.finish())
    }

    /// The decoder for `batch` latents of `height`×`width`: input `latents` `[batch, latent_channels, height, width]` as the
    /// encoder makes them (not scaled), output `sample` `[batch, out_channels, height * f, width * f]`, about −1..1.
    ///
    /// # Errors
    /// If the config's numbers do not fit each other or the size.
    pub fn decoder(&self, batch: usize, height: usize, width: usize) -> Result<Graph, Error> {
        let builder = Builder::new();
        let root = builder.root();
        let latents = root.input("latents", &[batch, self.latent_channels, height, width])?;
        let sample = self.decode(&root, latents)?;
        root.output("sample", sample);
        Ok(builder.finish())
    }

    /// Adds the decoder to a graph whose `latents` `[batch, latent_channels, height, width]` are made there, scaled as the
    /// generation model leaves them; gives `[batch, out_channels, height * f, width * f]`, about −1..1.
    ///
    /// # Errors
    /// As [`Self::decoder`].
    pub fn add_to(&self, root: &Scope, latents: NodeId) -> Result<NodeId, Error> {
        self.decode(root, root.affine(latents, (1.0 / self.scaling_factor) as f32, self.shift_factor as f32)?)
    }

    fn decode(&self, root: &Scope, latents: NodeId) -> Result<NodeId, Error> {
        let mut x = channels_last(root, latents)?;
        if self.use_post_quant_conv {
            x = root.at("post_quant_conv").linear(x, self.latent_channels, true)?;
        }
        let scope = root.at("decoder");
        let last = self.block_out_channels.len() - 1;
        x = scope.at("conv_in").conv2d(x, Conv2dOptions::same(self.block_out_channels[last], 3))?;
        x = self.mid_block(&scope, x)?;
        for (index, &channels) in self.block_out_channels.iter().rev().enumerate() {
            let block = scope.at(format_args!("up_blocks.{index}"));
            for layer in 0..=self.layers_per_block {
                x = self.resnet.block(&block.at(format_args!("resnets.{layer}")), x, None, channels, None)?;
            }
            if index < last {
                let shape = root.shape(x);
                x = upsample_2d(&block.at("upsamplers.0"), x, [2 * shape[1], 2 * shape[2]])?;
            }
        }
        x = self.norm_out(&scope, x)?;
        x = scope.at("conv_out").conv2d(x, Conv2dOptions::same(self.out_channels, 3))?;
        Ok(channels_first(root, x)?)
    }

    /// `UNetMidBlock2D` with one attention head as wide as the picture has channels.
    fn mid_block(&self, scope: &Scope, x: NodeId) -> Result<NodeId, Error> {
        let channels = scope.shape(x)[3];
        let (groups, eps) = (Some(self.resnet.groups), self.resnet.eps);
        let attention = match self.mid_block_add_attention {
            true => Attention::Own(SelfAttention { groups, eps, heads: 1, rescale_output_factor: 1.0 }),
            false => Attention::None,
        };
        let block = Block { resnet: self.resnet, layers: 1, channels, attention, sampling: Sampling::None };
        Ok(block.mid(&scope.at("mid_block"), x, None)?)
    }

    fn norm_out(&self, scope: &Scope, x: NodeId) -> Result<NodeId, Error> {
        let x = scope.at("conv_norm_out").group_norm(x, self.resnet.groups, self.resnet.eps)?;
        Ok(scope.activate(x, self.resnet.activation)?)
    }
}
