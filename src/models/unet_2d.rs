//! `UNet2DModel`: noise prediction without a prompt.

use super::attention::SelfAttention;
use super::config::ConfigReader;
use super::embeddings::{ClassEmbed, Timesteps, timestep_embedding};
use super::resnet::ResnetOptions;
use super::unet_2d_blocks::{Attention, Block, Sampling};
use super::{Error, channels_first, channels_last};
use crate::graph::{Activation, Builder, Conv2dOptions, Graph, NodeId, Scope};

const CLASS: &str = "UNet2DModel";

/// The config of a `UNet2DModel`, under diffusers' names.
#[derive(Clone, Debug, PartialEq)]
pub struct Unet2dConfig {
    /// Height and width that it was trained at.
    pub sample_size: Option<[usize; 2]>,
    /// Channels of the sample.
    pub in_channels: usize,
    /// Channels of the output.
    pub out_channels: usize,
    center_input_sample: bool,
    timesteps: Timesteps,
    time_embed_dim: usize,
    down: Vec<(Kind, Sampling)>,
    up: Vec<(Kind, Sampling)>,
    block_out_channels: Vec<usize>,
    layers_per_block: usize,
    mid_block_scale_factor: f32,
    downsample_padding: usize,
    resnet: ResnetOptions,
    attention_head_dim: Option<usize>,
    attn_norm_num_groups: Option<usize>,
    add_attention: bool,
    class_embed: Option<ClassEmbed>,
    has_mid_block: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Plain,
    Attention,
}

impl Unet2dConfig {
    /// Reads a `config.json`.
    ///
    /// # Errors
    /// If it is no `UNet2DModel` config, or asks for something that is not implemented.
    pub fn from_json(json: &str) -> Result<Self, Error> {
        let c = ConfigReader::new(CLASS, json)?;
        c.ignore(&["dropout", "num_train_timesteps"]);
        c.only("time_embedding_type", "positional".to_owned())?;
        let block_out_channels = c.sizes("block_out_channels", &[224, 448, 672, 896])?;
        let blocks = block_out_channels.len();
        let by_resnet = |key: &str| match c.optional::<String>(key)?.as_deref() {
            None | Some("conv") => Ok(false),
            Some("resnet") => Ok(true),
            Some(_) => Err(c.unsupported(key, "`conv` or `resnet` is")),
        };
        let down_default = ["DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"];
        let up_default = ["AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"];
        let block_types = |key: &str, default: [&str; 4], resnet_sampling: bool| -> Result<Vec<_>, Error> {
            let names: Vec<String> = c.get(key, default.map(str::to_owned).to_vec())?;
            c.check_length(key, names.len(), blocks)?;
            names
                .iter()
                .enumerate()
                .map(|(index, name)| {
                    let last = index + 1 == blocks;
                    let by = |resnet: bool| match (last, resnet) {
                        (true, _) => Sampling::None,
                        (false, true) => Sampling::Resnet,
                        (false, false) => Sampling::Convolution,
                    };
                    match name.as_str() {
                        "DownBlock2D" | "UpBlock2D" => Ok((Kind::Plain, by(false))),
                        "ResnetDownsampleBlock2D" | "ResnetUpsampleBlock2D" => Ok((Kind::Plain, by(true))),
                        "AttnDownBlock2D" | "AttnUpBlock2D" => Ok((Kind::Attention, by(resnet_sampling))),
                        _ => Err(c.unsupported(key, &format!("`{name}` is not known"))),
                    }
                })
                .collect()
        };
        let down = block_types("down_block_types", down_default, by_resnet("downsample_type")?)?;
        let up = block_types("up_block_types", up_default, by_resnet("upsample_type")?)?;
        let has_mid_block = match c.optional::<String>("mid_block_type")?.as_deref() {
            Some("UNetMidBlock2D") => true,
            // Absent, the class makes one; null says that there is none.
            None => !c.is_null("mid_block_type"),
            Some(_) => return Err(c.unsupported("mid_block_type", "`UNetMidBlock2D` or null is")),
        };
        let classes = c.optional_size("num_class_embeds")?;
        let class_embed = match c.optional::<String>("class_embed_type")?.as_deref() {
            None => classes.map(ClassEmbed::Table),
            Some("timestep") => Some(ClassEmbed::Timestep),
            Some("identity") => Some(ClassEmbed::Identity),
            Some(_) => return Err(c.unsupported("class_embed_type", "`timestep` or `identity` is")),
        };
        let config = Self {
            sample_size: sample_size(&c)?,
            in_channels: c.size("in_channels", 3)?,
            out_channels: c.size("out_channels", 3)?,
            center_input_sample: c.get("center_input_sample", false)?,
            timesteps: Timesteps {
                flip_sin_to_cos: c.get("flip_sin_to_cos", true)?,
                freq_shift: c.get("freq_shift", 0.0)?,
            },
            time_embed_dim: c.optional_size("time_embedding_dim")?.unwrap_or(4 * block_out_channels[0]),
            down,
            up,
            layers_per_block: c.size_up_to("layers_per_block", 2, 64)?,
            mid_block_scale_factor: c.get("mid_block_scale_factor", 1.0)?,
            downsample_padding: c.downsample_padding()?,
            resnet: ResnetOptions {
                groups: c.size("norm_num_groups", 32)?,
                eps: c.get("norm_eps", 1e-5)?,
                activation: c.activation("act_fn", Activation::Silu)?,
                scale_shift: resnet_time_scale_shift(&c)?,
                output_scale_factor: 1.0,
            },
            attention_head_dim: match c.is_null("attention_head_dim") {
                true => c.optional_size("attention_head_dim")?,
                false => Some(c.size("attention_head_dim", 8)?),
            },
            attn_norm_num_groups: c.optional_size("attn_norm_num_groups")?,
            add_attention: c.get("add_attention", true)?,
            class_embed,
            has_mid_block,
            block_out_channels,
        };
        c.finish()?;
        Ok(config)
    }

    /// Rows and columns of the table [`CLASS_EMBEDDING`](super::CLASS_EMBEDDING), if there is one. It is no weight of the
    /// graph: rows are looked up outside, and are what the graph takes as `class_labels`.
    pub fn class_embedding(&self) -> Option<[usize; 2]> {
        match self.class_embed {
            Some(ClassEmbed::Table(classes)) => Some([classes, self.time_embed_dim]),
            _ => None,
        }
    }

    /// The network for `batch` samples of `height`×`width`.
    ///
    /// Inputs: `sample` `[batch, in_channels, height, width]`, `timestep` `[batch]`, and, as the config has it, `class_labels`
    /// `[batch]` or `[batch, time_embed_dim]`: with [a table](Self::class_embedding) its rows. Output: `out` `[batch,
    /// out_channels, height, width]`.
    ///
    /// # Errors
    /// If the config's numbers do not fit each other or the size.
    pub fn graph(&self, batch: usize, height: usize, width: usize) -> Result<Graph, Error> {
        let builder = Builder::new();
        let root = builder.root();
        let sample = root.input("sample", &[batch, self.in_channels, height, width])?;
        let out = self.add_to(&root, sample)?;
        root.output("out", out);
        Ok(builder.finish())
    }

    /// Adds the network to a graph whose `sample` is made there; the other inputs are added under their names.
    ///
    /// # Errors
    /// As [`Self::graph`].
    pub fn add_to(&self, root: &Scope, sample: NodeId) -> Result<NodeId, Error> {
        let batch = root.shape(sample)[0];
        let timestep = root.input("timestep", &[batch])?;
        let first = self.block_out_channels[0];

        let sinusoid = self.timesteps.project(root, timestep, first)?;
        let scope = root.at("time_embedding");
        let mut emb = timestep_embedding(&scope, sinusoid, None, self.time_embed_dim, Activation::Silu)?;
        if let Some(class_embed) = self.class_embed {
            let sizes = [batch, first, self.time_embed_dim];
            emb = root.add(emb, class_embed.embed(root, sizes, self.timesteps, Activation::Silu)?)?;
        }
        let temb = Some(root.activate(emb, self.resnet.activation)?);

        let mut x = channels_last(root, sample)?;
        if self.center_input_sample {
            x = root.affine(x, 2.0, -1.0)?;
        }
        x = root.at("conv_in").conv2d(x, Conv2dOptions::same(first, 3))?;

        let heads = |channels: usize| channels / self.attention_head_dim.unwrap_or(channels).min(channels);
        let own = |channels, groups, rescale_output_factor| {
            let (eps, heads) = (self.resnet.eps, heads(channels));
            Attention::Own(SelfAttention { groups, eps, heads, rescale_output_factor })
        };
        let attention = |kind, channels| match kind {
            Kind::Plain => Attention::None,
            Kind::Attention => own(channels, Some(self.resnet.groups), 1.0),
        };
        let mut skips = vec![x];
        for (index, &(kind, sampling)) in self.down.iter().enumerate() {
            let channels = self.block_out_channels[index];
            let attention = attention(kind, channels);
            let block = Block { resnet: self.resnet, layers: self.layers_per_block, channels, attention, sampling };
            let scope = root.at(format_args!("down_blocks.{index}"));
            x = block.down(&scope, x, temb, self.downsample_padding, &mut skips)?;
        }
        if self.has_mid_block {
            let channels = root.shape(x)[3];
            let groups = self.attn_norm_num_groups.or((!self.resnet.scale_shift).then_some(self.resnet.groups));
            let attention = match self.add_attention {
                true => own(channels, groups, self.mid_block_scale_factor),
                false => Attention::None,
            };
            let resnet = ResnetOptions { output_scale_factor: self.mid_block_scale_factor, ..self.resnet };
            let block = Block { resnet, layers: 1, channels, attention, sampling: Sampling::None };
            x = block.mid(&root.at("mid_block"), x, temb)?;
        }
        for (index, &(kind, sampling)) in self.up.iter().enumerate() {
            let channels = self.block_out_channels[self.up.len() - 1 - index];
            let attention = attention(kind, channels);
            let block = Block { resnet: self.resnet, layers: self.layers_per_block + 1, channels, attention, sampling };
            x = block.up(&root.at(format_args!("up_blocks.{index}")), x, temb, &mut skips)?;
        }
        x = root.at("conv_norm_out").group_norm(x, self.resnet.groups, self.resnet.eps)?;
        x = root.activate(x, Activation::Silu)?;
        x = root.at("conv_out").conv2d(x, Conv2dOptions::same(self.out_channels, 3))?;
        Ok(channels_first(root, x)?)
    }
}

/// The `sample_size` as one number or as `[height, width]`.
pub(super) fn sample_size(c: &ConfigReader) -> Result<Option<[usize; 2]>, Error> {
    Ok(match c.optional::<serde_json::Value>("sample_size")? {
        None => None,
        Some(serde_json::Value::Array(_)) => match c.sizes("sample_size", &[])?[..] {
            [height, width] => Some([height, width]),
            _ => return Err(c.error("`sample_size` must be a number or [height, width]")),
        },
        Some(_) => c.optional_size("sample_size")?.map(|side| [side, side]),
    })
}

/// `resnet_time_scale_shift`: true for `scale_shift`.
pub(super) fn resnet_time_scale_shift(c: &ConfigReader) -> Result<bool, Error> {
    match c.optional::<String>("resnet_time_scale_shift")?.as_deref() {
        None | Some("default") => Ok(false),
        Some("scale_shift") => Ok(true),
        Some(_) => Err(c.unsupported("resnet_time_scale_shift", "`default` or `scale_shift` is")),
    }
}
