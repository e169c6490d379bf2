//! `AutoencoderTiny` (TAESD): a small approximation of a large autoencoder, for pictures of every step.

use super::config::ConfigReader;
use super::{Error, channels_first, channels_last};
use crate::graph::{Activation, Builder, Conv2dOptions, Error as GraphError, Graph, NodeId, Padding, Scope};

const CLASS: &str = "AutoencoderTiny";

/// The config of an `AutoencoderTiny`, under diffusers' names.
#[derive(Clone, Debug, PartialEq)]
pub struct AutoencoderTinyConfig {
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
    /// Channels and number of residual blocks at each resolution.
    encoder: Vec<(usize, usize)>,
    decoder: Vec<(usize, usize)>,
    upsampling_scaling_factor: usize,
    act_fn: Activation,
}

impl AutoencoderTinyConfig {
    /// Reads a `config.json`.
    ///
    /// # Errors
    /// If it is no `AutoencoderTiny` config, or asks for something that is not implemented.
    pub fn from_json(json: &str) -> Result<Self, Error> {
        let c = ConfigReader::new(CLASS, json)?;
        // `force_upcast` is about f16 activations, which are not used; `block_out_channels` repeats the decoder's; the latents'
        // magnitude and shift belong to latents stored as pictures, which neither `encode` nor `decode` makes.
        c.ignore(&["force_upcast", "block_out_channels", "latent_magnitude", "latent_shift"]);
        c.only("upsample_fn", "nearest".to_owned())?;
        let blocks = |channels_key: &str, count_key: &str, default: [usize; 4]| -> Result<Vec<_>, Error> {
            let channels = c.sizes(channels_key, &[64; 4])?;
            let counts = c.sizes(count_key, &default)?;
            c.check_length(count_key, counts.len(), channels.len())?;
            Ok(channels.into_iter().zip(counts).collect())
        };
        let config = Self {
            in_channels: c.size("in_channels", 3)?,
            out_channels: c.size("out_channels", 3)?,
            latent_channels: c.size("latent_channels", 4)?,
            scaling_factor: c.scaling_factor(1.0)?,
            shift_factor: c.get("shift_factor", 0.0)?,
            encoder: blocks("encoder_block_out_channels", "num_encoder_blocks", [1, 3, 3, 3])?,
            decoder: blocks("decoder_block_out_channels", "num_decoder_blocks", [3, 3, 3, 1])?,
            upsampling_scaling_factor: c.size_up_to("upsampling_scaling_factor", 2, 16)?,
            act_fn: c.activation("act_fn", Activation::Relu)?,
        };
        c.finish()?;
        Ok(config)
    }

    /// Ratio of a decoded picture's side to its latents' side.
    pub fn scale_factor(&self) -> usize {
        // Sixteen blocks of factor 16 at most: 2⁶⁰.
        self.decoder.iter().skip(1).fold(1, |factor, _| factor.saturating_mul(self.upsampling_scaling_factor))
    }

    /// The encoder for `batch` pictures of `height`×`width`: input `sample` `[batch, in_channels, height, width]` in −1..1,
    /// output `latents` `[batch, latent_channels, height / f, width / f]`, which have no distribution.
    ///
    /// # Errors
    /// If the config's numbers do not fit each other or the size.
    pub fn encoder(&self, batch: usize, height: usize, width: usize) -> Result<Graph, Error> {
        let builder = Builder::new();
        let root = builder.root();
        let sample = root.input("sample", &[batch, self.in_channels, height, width])?;
        let mut layers = Layers { scope: root.at("encoder.layers"), index: 0, activation: self.act_fn };
        let mut x = root.affine(channels_last(&root, sample)?, 0.5, 0.5)?;
        for (level, &(channels, count)) in self.encoder.iter().enumerate() {
            let halved =
                Conv2dOptions { stride: 2, padding: Padding::same(1), bias: false, ..Conv2dOptions::same(channels, 3) };
            x = layers.convolution(x, if level == 0 { Conv2dOptions::same(channels, 3) } else { halved })?;
            x = layers.blocks(x, count)?;
        }
        x = layers.convolution(x, Conv2dOptions::same(self.latent_channels, 3))?;
        root.output("latents", channels_first(&root, x)?);
        Ok(builder.finish())
    }

    /// The decoder for `batch` latents of `height`×`width`: input `latents` `[batch, latent_channels, height, width]` as the
    /// encoder makes them, output `sample` `[batch, out_channels, height * f, width * f]`, about −1..1.
    ///
    /// # Errors
    /// If the config's numbers do not fit each other or the size.
    pub fn decoder(&self, batch: usize, height: usize, width: usize) -> Result<Graph, Error> {
        let builder = Builder::new();
        let root = builder.root();
        let latents = root.input("latents", &[batch, self.latent_channels, height, width])?;
        root.output("sample", self.decode(&root, latents)?);
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
        let mut layers = Layers { scope: root.at("decoder.layers"), index: 0, activation: self.act_fn };
        let first = self.decoder.first().map_or(1, |&(channels, _)| channels);
        // Latents far out are drawn in: 3 · tanh(x / 3).
        let x = root.affine(channels_last(root, latents)?, 1.0 / 3.0, 0.0)?;
        let mut x = root.affine(root.activate(x, Activation::Tanh)?, 3.0, 0.0)?;
        x = layers.convolution(x, Conv2dOptions::same(first, 3))?;
        x = root.activate(x, self.act_fn)?;
        layers.index += 1;
        let last = self.decoder.len() - 1;
        for (level, &(channels, count)) in self.decoder.iter().enumerate() {
            x = layers.blocks(x, count)?;
            if level == last {
                x = layers.convolution(x, Conv2dOptions::same(self.out_channels, 3))?;
            } else {
                let (shape, factor) = (root.shape(x), self.upsampling_scaling_factor);
                x = root.resize_nearest(x, factor * shape[1], factor * shape[2])?;
                layers.index += 1;
                x = layers.convolution(x, Conv2dOptions { bias: false, ..Conv2dOptions::same(channels, 3) })?;
            }
        }
        Ok(channels_first(root, root.affine(x, 2.0, -1.0)?)?)
    }
}

/// A `torch.nn.Sequential`, whose layers are numbered, those without weights too.
struct Layers<'b> {
    scope: Scope<'b>,
    index: usize,
    activation: Activation,
}

impl Layers<'_> {
    fn convolution(&mut self, x: NodeId, options: Conv2dOptions) -> Result<NodeId, GraphError> {
        let scope = self.scope.at(self.index);
        self.index += 1;
        scope.conv2d(x, options)
    }

    /// `AutoencoderTinyBlock`, `count` times: three convolutions and a residual connection, of which the sum is rectified.
    fn blocks(&mut self, mut x: NodeId, count: usize) -> Result<NodeId, GraphError> {
        let channels = self.scope.shape(x)[3];
        for _ in 0..count {
            let block = self.scope.at(self.index);
            self.index += 1;
            let mut h = block.at("conv.0").conv2d(x, Conv2dOptions::same(channels, 3))?;
            for layer in ["conv.2", "conv.4"] {
                h = block.activate(h, self.activation)?;
                h = block.at(layer).conv2d(h, Conv2dOptions::same(channels, 3))?;
            }
            x = block.activate(block.add(h, x)?, Activation::Relu)?;
        }
        Ok(x)
    }
}
