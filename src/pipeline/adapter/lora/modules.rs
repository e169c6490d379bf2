//! The weight of a network that the name of a LoRA's module means.
//!
//! kohya's names have underscores for dots, so that they cannot be taken apart: the table is built from the network's side.
//! LoRAs for SDXL name the UNet's modules as the original LDM code does; those names are in the table as well.

use std::collections::HashMap;

use crate::graph::WeightSpec;

/// The matrices of a network by the flattened names of their modules.
pub(in crate::pipeline) struct ModuleTable(HashMap<String, usize>);

impl ModuleTable {
    /// The table of the weights `specs`; values are their indices.
    pub fn new(specs: &[WeightSpec]) -> Self {
        let first_block = specs.iter().filter_map(|spec| spec.name.strip_prefix("down_blocks.0.resnets."));
        let layers =
            first_block.filter_map(|rest| rest.split('.').next()?.parse::<usize>().ok()).max().map_or(1, |i| i + 1);
        let mut table = HashMap::new();
        for (index, spec) in specs.iter().enumerate().filter(|(_, spec)| spec.matrix().is_some()) {
            let Some(module) = spec.name.strip_suffix(".weight") else { continue };
            if let Some(original) = original_path(module, specs, layers) {
                table.insert(original, index);
            }
            table.insert(Self::flatten(module), index);
        }
        Self(table)
    }

    /// The index of the weight of the module with the flattened name `path`.
    pub fn find(&self, path: &str) -> Option<usize> {
        self.0.get(path).copied()
    }

    /// Whether `path` is in the 24th layer of a text encoder of 23: the text of Stable Diffusion 2.x is taken before it, and
    /// what changes it changes nothing.
    pub fn is_past_its_end(&self, path: &str) -> bool {
        let has_layer = |layer: &str| self.0.keys().any(|module| module.starts_with(layer));
        let last = "encoder_layers_23_";
        path.starts_with(last) && has_layer("encoder_layers_22_") && !has_layer(last)
    }

    /// A module's path with underscores for dots, under today's name where an attention processor or a text encoder's old
    /// layer is meant.
    pub fn flatten(path: &str) -> String {
        let flat = path.replace('.', "_").replace("_processor_to_", "_to_");
        let mut flat = flat.strip_prefix("text_model_").map(str::to_owned).unwrap_or(flat);
        if flat.ends_with("_to_out") {
            flat.push_str("_0");
        }
        const TEXT: [(&str, &str); 4] = [
            ("self_attn_to_q", "self_attn_q_proj"),
            ("self_attn_to_k", "self_attn_k_proj"),
            ("self_attn_to_v", "self_attn_v_proj"),
            ("self_attn_to_out_0", "self_attn_out_proj"),
        ];
        match TEXT.into_iter().find_map(|(old, new)| Some(flat.strip_suffix(old)?.to_owned() + new)) {
            Some(renamed) => renamed,
            None => flat,
        }
    }
}

/// The flattened path of a UNet's `module` in the original LDM code, whose blocks count on through all resolutions; `layers`
/// is diffusers' `layers_per_block`.
fn original_path(module: &str, specs: &[WeightSpec], layers: usize) -> Option<String> {
    let number = |text: &str| text.parse::<usize>().ok();
    let parts: Vec<&str> = module.split('.').collect();
    let resnet = |rest: &[&str]| {
        Some(match rest {
            ["conv1"] => "in_layers_2",
            ["time_emb_proj"] => "emb_layers_1",
            ["conv2"] => "out_layers_3",
            ["conv_shortcut"] => "skip_connection",
            _ => return None,
        })
    };
    Some(match &parts[..] {
        ["conv_in"] => "input_blocks_0_0".to_owned(),
        ["conv_out"] => "out_2".to_owned(),
        ["time_embedding", "linear_1"] => "time_embed_0".to_owned(),
        ["time_embedding", "linear_2"] => "time_embed_2".to_owned(),
        ["add_embedding", "linear_1"] => "label_emb_0_0".to_owned(),
        ["add_embedding", "linear_2"] => "label_emb_0_2".to_owned(),
        ["down_blocks", block, "downsamplers", "0", "conv"] => {
            format!("input_blocks_{}_0_op", (number(block)? + 1) * (layers + 1))
        }
        ["down_blocks", block, kind, layer, rest @ ..] => {
            let at = 1 + number(block)? * (layers + 1) + number(layer)?;
            match *kind {
                "resnets" => format!("input_blocks_{at}_0_{}", resnet(rest)?),
                "attentions" => format!("input_blocks_{at}_1_{}", rest.join("_")),
                _ => return None,
            }
        }
        ["mid_block", "resnets", layer, rest @ ..] => format!("middle_block_{}_{}", 2 * number(layer)?, resnet(rest)?),
        ["mid_block", "attentions", "0", rest @ ..] => format!("middle_block_1_{}", rest.join("_")),
        ["up_blocks", block, "upsamplers", "0", "conv"] => {
            // It comes after the block's last layer, and after that layer's attention if there is one.
            let attention = format!("up_blocks.{block}.attentions.");
            let place = if specs.iter().any(|spec| spec.name.starts_with(&attention)) { 2 } else { 1 };
            format!("output_blocks_{}_{place}_conv", number(block)? * (layers + 1) + layers)
        }
        ["up_blocks", block, kind, layer, rest @ ..] => {
            let at = number(block)? * (layers + 1) + number(layer)?;
            match *kind {
                "resnets" => format!("output_blocks_{at}_0_{}", resnet(rest)?),
                "attentions" => format!("output_blocks_{at}_1_{}", rest.join("_")),
                _ => return None,
            }
        }
        _ => return None,
    })
}
