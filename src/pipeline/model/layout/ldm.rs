//! The networks of the original latent diffusion code (LDM), read from the names and shapes of their tensors: the config
//! that diffusers gives them, and which module is which.
//!
//! LDM numbers the layers of a UNet in one row, `input_blocks.0` to `output_blocks.11`, where diffusers has blocks of
//! layers; its VAE counts the decoder's levels from the finest. What shapes do not tell (attention heads, the size of
//! training) is for the caller to add.

use serde_json::{Value, json};

use crate::pipeline::model::naming::Tensors;

/// A module of LDM, and its path in diffusers.
type Modules = Vec<(String, String)>;

/// A network of LDM.
pub(super) struct Network {
    /// The network's `config.json`, as far as shapes tell it.
    pub config: Value,
    /// Names of its modules in diffusers.
    pub modules: Modules,
}

/// One resolution of a UNet.
#[derive(Default)]
struct Block {
    channels: usize,
    /// Transformer depth after each residual block; 0 without one.
    depths: Vec<usize>,
}

impl Block {
    fn crossed(&self) -> bool {
        self.depths.iter().any(|&depth| depth > 0)
    }

    /// `transformer_layers_per_block`: one depth, or one for each layer. Without transformers nobody reads it.
    fn depth(&self, unread: usize) -> Value {
        match self.depths.first() {
            _ if !self.crossed() => json!(unread),
            Some(first) if self.depths.iter().all(|depth| depth == first) => json!(first),
            _ => json!(self.depths),
        }
    }
}

/// Reads a UNet; an error says what it has that UNets of LDM do not.
pub(super) fn unet(tensors: &Tensors) -> Result<Network, String> {
    let side = |name: String, axis| tensors.side(&name, axis).ok_or(format!("there is no tensor `{name}`"));
    let mut modules = Modules::new();
    let mut rename = |old: &str, new: &str| modules.push((old.to_owned(), new.to_owned()));
    const ENDS: [(&str, &str); 9] = [
        ("time_embed.0", "time_embedding.linear_1"),
        ("time_embed.2", "time_embedding.linear_2"),
        ("time_embed.cond_proj", "time_embedding.cond_proj"),
        // diffusers' own name, which some converted files keep.
        ("time_embedding.cond_proj", "time_embedding.cond_proj"),
        ("label_emb.0.0", "add_embedding.linear_1"),
        ("label_emb.0.2", "add_embedding.linear_2"),
        ("input_blocks.0.0", "conv_in"),
        ("out.0", "conv_norm_out"),
        ("out.2", "conv_out"),
    ];
    ENDS.iter().for_each(|(old, new)| rename(old, new));

    // A residual block, and the transformer after it if there is one: its depth.
    let layer = |modules: &mut Modules, at: &str, block: &str, index: usize| -> Result<usize, String> {
        resnet(modules, &format!("{at}.0"), &format!("{block}.resnets.{index}"));
        let attention = format!("{at}.1");
        let depth = tensors.count(&format!("{attention}.transformer_blocks"));
        if depth > 0 {
            modules.push((attention, format!("{block}.attentions.{index}")));
        } else if tensors.has(&format!("{attention}.qkv")) {
            return Err(format!("`{attention}` is attention without a text, of LDM's unconditional models"));
        }
        Ok(depth)
    };
    let mut down = Vec::new();
    let mut block = Block::default();
    for index in 1..tensors.count("input_blocks") {
        let (at, to) = (format!("input_blocks.{index}"), format!("down_blocks.{}", down.len()));
        if tensors.has(&format!("{at}.0.op")) {
            modules.push((format!("{at}.0.op"), format!("{to}.downsamplers.0.conv")));
            down.push(std::mem::take(&mut block));
        } else {
            block.channels = side(format!("{at}.0.out_layers.3.weight"), 0)?;
            block.depths.push(layer(&mut modules, &at, &to, block.depths.len())?);
        }
    }
    down.push(block);
    let mut up = Vec::new();
    let mut block = Block::default();
    for index in 0..tensors.count("output_blocks") {
        let (at, to) = (format!("output_blocks.{index}"), format!("up_blocks.{}", up.len()));
        block.depths.push(layer(&mut modules, &at, &to, block.depths.len())?);
        // Behind the residual block, and behind the transformer if there is one.
        let upsampler = ["1", "2"].map(|place| format!("{at}.{place}.conv")).into_iter().find(|at| tensors.has(at));
        if let Some(upsampler) = upsampler {
            modules.push((upsampler, format!("{to}.upsamplers.0.conv")));
            up.push(std::mem::take(&mut block));
        }
    }
    up.push(block);
    if up.len() != down.len() || up.iter().zip(down.iter().rev()).any(|(u, d)| u.depths.len() != d.depths.len() + 1) {
        return Err("its input and output blocks do not mirror each other".into());
    }

    let mid_depth = tensors.count("middle_block.1.transformer_blocks");
    let mid_block_type = if mid_depth > 0 {
        modules.push(("middle_block.1".into(), "mid_block.attentions.0".into()));
        resnet(&mut modules, "middle_block.2", "mid_block.resnets.1");
        json!("UNetMidBlock2DCrossAttn")
    } else if tensors.has("middle_block") {
        // One residual block: what a second one would be called is not in diffusers.
        json!("UNetMidBlock2D")
    } else {
        Value::Null
    };
    resnet(&mut modules, "middle_block.0", "mid_block.resnets.0");

    let depths: Vec<Value> = down.iter().map(|block| block.depth(mid_depth.max(1))).collect();
    let up_depths: Vec<Value> = up.iter().map(|block| block.depth(mid_depth.max(1))).collect();
    if mid_depth > 0 && depths.last() != Some(&json!(mid_depth)) {
        return Err("its middle block is of another depth than the block before it".into());
    }
    let types = |blocks: &[Block], crossed: &str, plain: &str| -> Vec<String> {
        blocks.iter().map(|block| if block.crossed() { crossed } else { plain }.to_owned()).collect()
    };
    let attention = modules.iter().find(|(_, new)| new.contains(".attentions."));
    let (attention, _) = attention.ok_or("it has no attention to a text")?;
    let cond_proj = ["time_embed.cond_proj.weight", "time_embedding.cond_proj.weight"];
    let time_cond_proj_dim = cond_proj.into_iter().find_map(|name| tensors.side(name, 1));
    let mut config = json!({
        "_class_name": "UNet2DConditionModel",
        "in_channels": side("input_blocks.0.0.weight".into(), 1)?,
        "out_channels": side("out.2.weight".into(), 0)?,
        "block_out_channels": down.iter().map(|block| block.channels).collect::<Vec<_>>(),
        "layers_per_block": down.iter().map(|block| block.depths.len()).collect::<Vec<_>>(),
        "down_block_types": types(&down, "CrossAttnDownBlock2D", "DownBlock2D"),
        "mid_block_type": mid_block_type,
        "up_block_types": types(&up, "CrossAttnUpBlock2D", "UpBlock2D"),
        "cross_attention_dim": side(format!("{attention}.transformer_blocks.0.attn2.to_k.weight"), 1)?,
        "time_cond_proj_dim": time_cond_proj_dim,
        "use_linear_projection": tensors.side(&format!("{attention}.proj_in.weight"), 2).is_none(),
    });
    config["transformer_layers_per_block"] = depths.iter().cloned().collect();
    if !up_depths.iter().eq(depths.iter().rev()) {
        config["reverse_transformer_layers_per_block"] = up_depths.into_iter().collect();
    }
    Ok(Network { config, modules })
}

/// The layers of a residual block.
fn resnet(modules: &mut Modules, old: &str, new: &str) {
    const LAYERS: [(&str, &str); 6] = [
        ("in_layers.0", "norm1"),
        ("in_layers.2", "conv1"),
        ("emb_layers.1", "time_emb_proj"),
        ("out_layers.0", "norm2"),
        ("out_layers.3", "conv2"),
        ("skip_connection", "conv_shortcut"),
    ];
    modules.extend(LAYERS.iter().map(|(from, to)| (format!("{old}.{from}"), format!("{new}.{to}"))));
}

/// Reads an autoencoder, under LDM's names or diffusers' own, which need no other; an error names the tensor that is missing.
pub(super) fn vae(tensors: &Tensors) -> Result<Network, String> {
    let side = |name: &str, axis| tensors.side(name, axis).ok_or(format!("there is no tensor `{name}`"));
    let original = !tensors.has("decoder.up_blocks");
    let (up, block, attention) = match original {
        true => ("decoder.up", "block", "decoder.mid.attn_1"),
        false => ("decoder.up_blocks", "resnets", "decoder.mid_block.attentions"),
    };
    // Both halves have the same levels. LDM counts those of the decoder from its end.
    let levels = tensors.count(up);
    let mut channels = Vec::new();
    for level in 0..levels {
        let number = if original { level } else { levels - 1 - level };
        channels.push(side(&format!("{up}.{number}.{block}.0.conv1.weight"), 0)?);
    }
    let config = json!({
        "_class_name": "AutoencoderKL",
        "in_channels": side("decoder.conv_out.weight", 0)?,
        "out_channels": side("decoder.conv_out.weight", 0)?,
        "latent_channels": side("decoder.conv_in.weight", 1)?,
        "block_out_channels": channels,
        "layers_per_block": tensors.count(&format!("{up}.0.{block}")).saturating_sub(1),
        "down_block_types": vec!["DownEncoderBlock2D"; levels],
        "up_block_types": vec!["UpDecoderBlock2D"; levels],
        "mid_block_add_attention": tensors.has(attention),
        "use_quant_conv": tensors.has("quant_conv"),
        "use_post_quant_conv": tensors.has("post_quant_conv"),
    });
    Ok(Network { config, modules: if original { vae_modules(tensors, levels) } else { Modules::new() } })
}

/// The modules of an autoencoder of LDM with so many levels.
fn vae_modules(tensors: &Tensors, levels: usize) -> Modules {
    let mut modules: Modules = ["quant_conv", "post_quant_conv"].map(|name| (name.into(), name.into())).into();
    for level in 0..levels {
        let layers = tensors.count(&format!("decoder.up.{level}.block"));
        let (down, up) = (format!("encoder.down.{level}"), format!("decoder.up.{level}"));
        let down_to = format!("encoder.down_blocks.{level}");
        let up_to = format!("decoder.up_blocks.{}", levels - 1 - level);
        for layer in 0..layers {
            for (from, to) in [(&down, &down_to), (&up, &up_to)] {
                let (from, to) = (format!("{from}.block.{layer}"), format!("{to}.resnets.{layer}"));
                modules.push((format!("{from}.nin_shortcut"), format!("{to}.conv_shortcut")));
                modules.push((from, to));
            }
        }
        modules.push((format!("{down}.downsample.conv"), format!("{down_to}.downsamplers.0.conv")));
        modules.push((format!("{up}.upsample.conv"), format!("{up_to}.upsamplers.0.conv")));
    }
    for half in ["encoder", "decoder"] {
        const LAYERS: [(&str, &str); 10] = [
            ("conv_in", "conv_in"),
            ("mid.block_1", "mid_block.resnets.0"),
            ("mid.attn_1.norm", "mid_block.attentions.0.group_norm"),
            ("mid.attn_1.q", "mid_block.attentions.0.to_q"),
            ("mid.attn_1.k", "mid_block.attentions.0.to_k"),
            ("mid.attn_1.v", "mid_block.attentions.0.to_v"),
            ("mid.attn_1.proj_out", "mid_block.attentions.0.to_out.0"),
            ("mid.block_2", "mid_block.resnets.1"),
            ("norm_out", "conv_norm_out"),
            ("conv_out", "conv_out"),
        ];
        modules.extend(LAYERS.iter().map(|(from, to)| (format!("{half}.{from}"), format!("{half}.{to}"))));
    }
    modules
}
