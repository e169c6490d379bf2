//! `UNet2DConditionModel`: noise prediction under a text condition, ε_θ(x_t, t, c).

use serde_json::Value;

use super::attention::Transformer2d;
use super::config::ConfigReader;
use super::embeddings::{ClassEmbed, Timesteps, timestep_embedding};
use super::resnet::ResnetOptions;
use super::unet_2d::{resnet_time_scale_shift, sample_size};
use super::unet_2d_blocks::{Attention, Block, Sampling};
use super::{Error, channels_first, channels_last};
use crate::graph::{Activation, Builder, Conv2dOptions, Graph, NodeId, Scope};

const CLASS: &str = "UNet2DConditionModel";

/// The config of a `UNet2DConditionModel`, under diffusers' names.
#[derive(Clone, Debug, PartialEq)]
pub struct Unet2dConditionConfig {
    /// Height and width of the latents that it was trained at.
    pub sample_size: Option<[usize; 2]>,
    /// Channels of the sample.
    pub in_channels: usize,
    /// Channels of the output.
    pub out_channels: usize,
    /// Width of the text embeddings, for each block.
    cross_attention_dim: Vec<usize>,
    /// Width of the guidance embedding of distilled models.
    pub time_cond_proj_dim: Option<usize>,
    center_input_sample: bool,
    timesteps: Timesteps,
    time_embed_dim: usize,
    time_embedding_act: Option<Activation>,
    conv_in_kernel: usize,
    conv_out_kernel: usize,
    down: Vec<BlockConfig>,
    up: Vec<BlockConfig>,
    mid: Mid,
    mid_block_scale_factor: f32,
    downsample_padding: usize,
    resnet: ResnetOptions,
    timestep_post_act: Option<Activation>,
    class_embed: Option<ClassEmbed>,
    class_embeddings_concat: bool,
    addition: Option<TextTime>,
}

/// `addition_embed_type` `text_time`: the pooled text and some numbers about the picture, embedded together.
#[derive(Clone, Copy, Debug, PartialEq)]
struct TextTime {
    /// `addition_time_embed_dim`, the length of a number's embedding.
    number: usize,
    /// `projection_class_embeddings_input_dim`, the length of all together.
    all: usize,
    /// Count of the numbers about the picture.
    numbers: usize,
}

impl TextTime {
    /// Length of the pooled text, if any is left for it.
    fn text(self) -> Option<usize> {
        self.all.checked_sub(self.numbers.checked_mul(self.number)?).filter(|&length| length > 0)
    }
}

#[derive(Clone, Debug, PartialEq)]
struct BlockConfig {
    channels: usize,
    layers: usize,
    /// Transformer depth after each residual block; empty without cross-attention.
    depths: Vec<usize>,
    heads: usize,
    cross_attention_dim: usize,
    only_cross_attention: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum Mid {
    None,
    Resnet,
    CrossAttention(BlockConfig),
}

/// Sizes of the inputs of [`Unet2dConditionConfig::graph`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unet2dConditionInputs {
    /// Rows of the batch.
    pub batch: usize,
    /// Height of the latents.
    pub height: usize,
    /// Width of the latents.
    pub width: usize,
    /// Number of text tokens.
    pub tokens: usize,
    /// Whether `timestep_cond` is given (only where the config has `time_cond_proj_dim`).
    pub timestep_cond: bool,
}

impl Unet2dConditionConfig {
    /// Reads a `config.json`.
    ///
    /// # Errors
    /// If it is no `UNet2DConditionModel` config, or asks for something that is not implemented.
    pub fn from_json(json: &str) -> Result<Self, Error> {
        let c = ConfigReader::new(CLASS, json)?;
        // Numerics and training only: attention here always runs in f32.
        c.ignore(&["dropout", "upcast_attention", "addition_embed_type_num_heads", "use_linear_projection"]);
        // Read by block types that are refused, or without effect in those that are built.
        c.ignore(&["mid_block_only_cross_attention", "resnet_skip_time_act", "resnet_out_scale_factor"]);
        c.only("dual_cross_attention", false)?;
        for key in ["encoder_hid_dim", "encoder_hid_dim_type", "cross_attention_norm"] {
            c.only_null(key)?;
        }
        c.only("attention_type", "default".to_owned())?;
        c.only("time_embedding_type", "positional".to_owned())?;

        let block_out_channels = c.sizes("block_out_channels", &[320, 640, 1280, 1280])?;
        let blocks = block_out_channels.len();
        let cross_attention_dim = c.size_per_block("cross_attention_dim", 1280, blocks)?;
        let head_key = if c.optional::<Value>("num_attention_heads")?.is_some() {
            "num_attention_heads"
        } else {
            "attention_head_dim"
        };
        c.ignore(&["attention_head_dim"]);
        let heads = c.size_per_block(head_key, 8, blocks)?;
        let layers = c.size_per_block("layers_per_block", 2, blocks)?;
        if layers.iter().any(|&n| n > 64) {
            return Err(c.error("`layers_per_block` is over 64"));
        }
        let depths = depths(&c, "transformer_layers_per_block", blocks)?.unwrap_or(vec![Depth::All(1); blocks]);
        let up_depths = depths_reversed(&c, &depths, blocks)?;
        let only_cross = match c.optional::<Value>("only_cross_attention")? {
            Some(Value::Array(_)) => c.get::<Vec<bool>>("only_cross_attention", vec![])?,
            _ => vec![c.get("only_cross_attention", false)?; blocks],
        };
        c.check_length("only_cross_attention", only_cross.len(), blocks)?;

        let names = |key: &str, default: &[&str]| -> Result<Vec<String>, Error> {
            let names: Vec<String> = c.get(key, default.iter().map(|&s| s.to_owned()).collect())?;
            c.check_length(key, names.len(), blocks)?;
            Ok(names)
        };
        let crossed = "CrossAttnDownBlock2D";
        let down_names = names("down_block_types", &[crossed, crossed, crossed, "DownBlock2D"])?;
        let crossed = "CrossAttnUpBlock2D";
        let up_names = names("up_block_types", &["UpBlock2D", crossed, crossed, crossed])?;
        let block = |index: usize, layers: usize, depth: &Depth, crossed: bool| -> Result<BlockConfig, Error> {
            Ok(BlockConfig {
                channels: block_out_channels[index],
                layers,
                depths: if crossed { depth.for_layers(&c, layers)? } else { vec![] },
                heads: heads[index],
                cross_attention_dim: cross_attention_dim[index],
                only_cross_attention: only_cross[index],
            })
        };
        let mut down = Vec::new();
        for (index, name) in down_names.iter().enumerate() {
            let crossed = match name.as_str() {
                "CrossAttnDownBlock2D" => true,
                "DownBlock2D" => false,
                _ => return Err(c.unsupported("down_block_types", &format!("`{name}` is not known"))),
            };
            down.push(block(index, layers[index], &depths[index], crossed)?);
        }
        let mut up = Vec::new();
        for (index, name) in up_names.iter().enumerate() {
            let crossed = match name.as_str() {
                "CrossAttnUpBlock2D" => true,
                "UpBlock2D" => false,
                _ => return Err(c.unsupported("up_block_types", &format!("`{name}` is not known"))),
            };
            let mirrored = blocks - 1 - index;
            up.push(block(mirrored, layers[mirrored] + 1, &up_depths[index], crossed)?);
        }
        let last = blocks - 1;
        let mid = match c.optional::<String>("mid_block_type")?.as_deref() {
            Some("UNetMidBlock2D") => Mid::Resnet,
            None if c.is_null("mid_block_type") => Mid::None,
            None | Some("UNetMidBlock2DCrossAttn") => {
                Mid::CrossAttention(BlockConfig { only_cross_attention: false, ..block(last, 1, &depths[last], true)? })
            }
            Some(_) => return Err(c.unsupported("mid_block_type", "`UNetMidBlock2DCrossAttn` is")),
        };
        let projection = c.optional_size("projection_class_embeddings_input_dim")?;
        let need_projection =
            || projection.ok_or_else(|| c.error("`projection_class_embeddings_input_dim` is missing"));
        let classes = c.optional_size("num_class_embeds")?;
        let class_embed = match c.optional::<String>("class_embed_type")?.as_deref() {
            None => classes.map(ClassEmbed::Table),
            Some("timestep") => Some(ClassEmbed::Timestep),
            Some("identity") => Some(ClassEmbed::Identity),
            Some("projection") => Some(ClassEmbed::Projection(need_projection()?)),
            Some("simple_projection") => Some(ClassEmbed::SimpleProjection(need_projection()?)),
            Some(_) => {
                let known = "`timestep`, `identity`, `projection` or `simple_projection` is";
                return Err(c.unsupported("class_embed_type", known));
            }
        };
        let addition_time_embed_dim = c.optional_size("addition_time_embed_dim")?;
        let addition = match c.optional::<String>("addition_embed_type")?.as_deref() {
            None => None,
            Some("text_time") => {
                let number = addition_time_embed_dim.ok_or_else(|| c.error("`addition_time_embed_dim` is missing"))?;
                let addition = TextTime { number, all: need_projection()?, numbers: 6 };
                if addition.text().is_none() {
                    return Err(c.error("`projection_class_embeddings_input_dim` leaves no room for the pooled text"));
                }
                Some(addition)
            }
            Some(_) => return Err(c.unsupported("addition_embed_type", "`text_time` is")),
        };
        let config = Self {
            sample_size: sample_size(&c)?,
            in_channels: c.size("in_channels", 4)?,
            out_channels: c.size("out_channels", 4)?,
            cross_attention_dim,
            time_cond_proj_dim: c.optional_size("time_cond_proj_dim")?,
            center_input_sample: c.get("center_input_sample", false)?,
            timesteps: Timesteps {
                flip_sin_to_cos: c.get("flip_sin_to_cos", true)?,
                freq_shift: c.get("freq_shift", 0.0)?,
            },
            time_embed_dim: c.optional_size("time_embedding_dim")?.unwrap_or(4 * block_out_channels[0]),
            time_embedding_act: c.optional_activation("time_embedding_act_fn")?,
            conv_in_kernel: c.size_up_to("conv_in_kernel", 3, 63)?,
            conv_out_kernel: c.size_up_to("conv_out_kernel", 3, 63)?,
            down,
            up,
            mid,
            mid_block_scale_factor: c.get("mid_block_scale_factor", 1.0)?,
            downsample_padding: c.downsample_padding()?,
            resnet: ResnetOptions {
                groups: c.size("norm_num_groups", 32)?,
                eps: c.get("norm_eps", 1e-5)?,
                activation: c.activation("act_fn", Activation::Silu)?,
                scale_shift: resnet_time_scale_shift(&c)?,
                output_scale_factor: 1.0,
            },
            timestep_post_act: c.optional_activation("timestep_post_act")?,
            class_embed,
            class_embeddings_concat: c.get("class_embeddings_concat", false)?,
            addition,
        };
        c.finish()?;
        Ok(config)
    }

    /// Width of the text embeddings that the network takes.
    pub fn cross_attention_dim(&self) -> usize {
        self.cross_attention_dim[0]
    }

    /// Rows and columns of the table [`CLASS_EMBEDDING`](super::CLASS_EMBEDDING), if there is one. It is no weight of the
    /// graph: rows are looked up outside, and are what the graph takes as `class_labels`.
    pub fn class_embedding(&self) -> Option<[usize; 2]> {
        match self.class_embed {
            Some(ClassEmbed::Table(classes)) => Some([classes, self.time_embed_dim]),
            _ => None,
        }
    }

    /// Number of `time_ids` that the network takes: 6 in SDXL, two for each of original size, crop and target size; 5 in its
    /// refiner, where an aesthetic score replaces the target size; 0 if it takes none.
    pub fn time_ids(&self) -> usize {
        self.addition.map_or(0, |addition| addition.numbers)
    }

    /// Sets the length of the pooled text, from which the number of [`time_ids`](Self::time_ids) follows; the config gives
    /// only the length of both together, of which 6 numbers are taken until this is called.
    ///
    /// # Errors
    /// If no whole number of them fits, or the network takes no pooled text.
    pub fn set_text_embeds(&mut self, length: usize) -> Result<(), Error> {
        let misfit = |message: String| Err(Error::Config { class: CLASS, message });
        let Some(addition) = &mut self.addition else {
            return misfit("the network takes no `text_embeds`".into());
        };
        match addition.all.checked_sub(length) {
            Some(rest) if length > 0 && rest > 0 && rest.is_multiple_of(addition.number) => {
                addition.numbers = rest / addition.number;
                Ok(())
            }
            _ => misfit(format!(
                "`projection_class_embeddings_input_dim` is {}, which is not {length} numbers of pooled text and some times {}",
                addition.all, addition.number
            )),
        }
    }

    /// The network for inputs of the given sizes.
    ///
    /// Inputs: `sample` `[batch, in_channels, height, width]`, `timestep` `[batch]`, `encoder_hidden_states`
    /// `[batch, tokens, cross_attention_dim]`, and as the config has them `timestep_cond` `[batch, time_cond_proj_dim]`,
    /// `class_labels` `[batch]` or `[batch, length]` (with [a table](Self::class_embedding) its rows), `added_cond_kwargs.text_embeds`
    /// `[batch, length]` and `added_cond_kwargs.time_ids` `[batch, count]` (see [`time_ids`](Self::time_ids)).
    /// Output: `out` `[batch, out_channels, height, width]`.
    ///
    /// # Errors
    /// If the config's numbers do not fit each other or the sizes.
    pub fn graph(&self, inputs: Unet2dConditionInputs) -> Result<Graph, Error> {
        let builder = Builder::new();
        let root = builder.root();
        let Unet2dConditionInputs { batch, height, width, tokens, .. } = inputs;
        let sample = root.input("sample", &[batch, self.in_channels, height, width])?;
        let out = self.add_to(&root, sample, inputs.batch, tokens, inputs.timestep_cond)?;
        root.output("out", out);
        Ok(builder.finish())
    }

    /// Adds the network to a graph whose `sample` is made there; the other inputs are added under their names.
    ///
    /// # Errors
    /// As [`Self::graph`].
    pub fn add_to(
        &self,
        root: &Scope,
        sample: NodeId,
        batch: usize,
        tokens: usize,
        timestep_cond: bool,
    ) -> Result<NodeId, Error> {
        let timestep = root.input("timestep", &[batch])?;
        let context = root.input("encoder_hidden_states", &[batch, tokens, self.cross_attention_dim()])?;
        let first = self.down[0].channels;
        let temb = Some(self.time_embedding(root, timestep, batch, timestep_cond)?);

        let mut x = channels_last(root, sample)?;
        if self.center_input_sample {
            x = root.affine(x, 2.0, -1.0)?;
        }
        x = root.at("conv_in").conv2d(x, Conv2dOptions::same(first, self.conv_in_kernel))?;

        let mut skips = vec![x];
        for (index, config) in self.down.iter().enumerate() {
            let scope = root.at(format_args!("down_blocks.{index}"));
            let transformers = self.transformers(config, &scope)?;
            let block = self.block(config, index + 1 == self.down.len(), &transformers, context);
            x = block.down(&scope, x, temb, self.downsample_padding, &mut skips)?;
        }
        let scope = root.at("mid_block");
        let resnet = ResnetOptions { output_scale_factor: self.mid_block_scale_factor, ..self.resnet };
        let channels = root.shape(x)[3];
        let mid = Block { resnet, layers: 0, channels, attention: Attention::None, sampling: Sampling::None };
        x = match &self.mid {
            Mid::None => x,
            Mid::Resnet => mid.mid(&scope, x, temb)?,
            Mid::CrossAttention(config) => {
                let transformers = self.transformers(config, &scope)?;
                Block { layers: 1, attention: Attention::Cross(&transformers, context), ..mid }.mid(&scope, x, temb)?
            }
        };
        for (index, config) in self.up.iter().enumerate() {
            let scope = root.at(format_args!("up_blocks.{index}"));
            let transformers = self.transformers(config, &scope)?;
            let block = self.block(config, index + 1 == self.up.len(), &transformers, context);
            x = block.up(&scope, x, temb, &mut skips)?;
        }
        x = root.at("conv_norm_out").group_norm(x, self.resnet.groups, self.resnet.eps)?;
        x = root.activate(x, self.resnet.activation)?;
        x = root.at("conv_out").conv2d(x, Conv2dOptions::same(self.out_channels, self.conv_out_kernel))?;
        Ok(channels_first(root, x)?)
    }

    fn block<'a>(
        &self,
        config: &BlockConfig,
        last: bool,
        transformers: &'a [Transformer2d],
        context: NodeId,
    ) -> Block<'a> {
        let attention = if transformers.is_empty() { Attention::None } else { Attention::Cross(transformers, context) };
        let sampling = if last { Sampling::None } else { Sampling::Convolution };
        Block { resnet: self.resnet, layers: config.layers, channels: config.channels, attention, sampling }
    }

    fn transformers(&self, config: &BlockConfig, scope: &Scope) -> Result<Vec<Transformer2d>, Error> {
        let (found, expected) = (config.cross_attention_dim, self.cross_attention_dim());
        if found != expected && !config.depths.is_empty() {
            let message =
                format!("`cross_attention_dim` is {found} here and {expected} elsewhere; one text serves all");
            return Err(scope.error(message).into());
        }
        let (groups, heads, only_cross_attention) = (self.resnet.groups, config.heads, config.only_cross_attention);
        let transformer = |&depth| Transformer2d { groups, heads, depth, only_cross_attention };
        Ok(config.depths.iter().map(transformer).collect())
    }

    /// The time embedding with all that is added to it, after the activation that every residual block applies to it.
    fn time_embedding(
        &self,
        root: &Scope,
        timestep: NodeId,
        batch: usize,
        timestep_cond: bool,
    ) -> Result<NodeId, Error> {
        let (first, width, act) = (self.down[0].channels, self.time_embed_dim, self.resnet.activation);
        let condition = match self.time_cond_proj_dim {
            Some(dim) if timestep_cond => Some(root.input("timestep_cond", &[batch, dim])?),
            _ => None,
        };
        let sinusoid = self.timesteps.project(root, timestep, first)?;
        let mut emb = timestep_embedding(&root.at("time_embedding"), sinusoid, condition, width, act)?;
        if let Some(activation) = self.timestep_post_act {
            emb = root.activate(emb, activation)?;
        }
        if let Some(class_embed) = self.class_embed {
            let class = class_embed.embed(root, [batch, first, width], self.timesteps, act)?;
            emb = if self.class_embeddings_concat { root.concat(&[emb, class], 1)? } else { root.add(emb, class)? };
        }
        if let Some(addition) = self.addition {
            let TextTime { number, numbers, .. } = addition;
            let text = root.input("added_cond_kwargs.text_embeds", &[batch, addition.text().unwrap_or(0)])?;
            let ids = root.input("added_cond_kwargs.time_ids", &[batch, numbers])?;
            let ids = self.timesteps.project(root, root.reshape(ids, &[batch * numbers])?, number)?;
            let ids = root.reshape(ids, &[batch, numbers * number])?;
            let added = root.concat(&[text, ids], 1)?;
            emb =
                root.add(emb, timestep_embedding(&root.at("add_embedding"), added, None, width, Activation::Silu)?)?;
        }
        if let Some(activation) = self.time_embedding_act {
            emb = root.activate(emb, activation)?;
        }
        Ok(root.activate(emb, act)?)
    }
}

/// Transformer depth of one block: for all its layers, or for each.
#[derive(Clone, Debug)]
enum Depth {
    All(usize),
    Each(Vec<usize>),
}

impl Depth {
    fn for_layers(&self, c: &ConfigReader, layers: usize) -> Result<Vec<usize>, Error> {
        match self {
            Depth::All(depth) => Ok(vec![*depth; layers]),
            Depth::Each(depths) if depths.len() == layers => Ok(depths.clone()),
            Depth::Each(depths) => {
                Err(c.error(format!("transformer depths {depths:?} for a block of {layers} layers")))
            }
        }
    }
}

/// A number, or a list with a number or a list for each block.
fn depths(c: &ConfigReader, key: &str, blocks: usize) -> Result<Option<Vec<Depth>>, Error> {
    let depth = |value: &Value| match value.as_u64() {
        Some(depth @ 1..=64) => Ok(depth as usize),
        _ => Err(c.error(format!("`{key}` holds {value}, expected depths from 1 to 64"))),
    };
    let one = |value: &Value| -> Result<Depth, Error> {
        match value {
            Value::Array(each) => Ok(Depth::Each(each.iter().map(depth).collect::<Result<_, _>>()?)),
            value => Ok(Depth::All(depth(value)?)),
        }
    };
    Ok(match c.optional::<Value>(key)? {
        None => None,
        Some(Value::Array(list)) => {
            c.check_length(key, list.len(), blocks)?;
            Some(list.iter().map(one).collect::<Result<_, _>>()?)
        }
        Some(value) => Some(vec![one(&value)?; blocks]),
    })
}

/// Depths of the up blocks: given, or those of the down blocks in reverse.
fn depths_reversed(c: &ConfigReader, depths_down: &[Depth], blocks: usize) -> Result<Vec<Depth>, Error> {
    let given = depths(c, "reverse_transformer_layers_per_block", blocks)?;
    Ok(given.unwrap_or_else(|| depths_down.iter().rev().cloned().collect()))
}
