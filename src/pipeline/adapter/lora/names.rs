//! The meaning of the names of a LoRA's tensors: the module that each changes, of which network, and how.
//!
//! | who names so | a tensor's name |
//! |---|---|
//! | kohya | `lora_unet_…_to_q.lora_down.weight`, dots replaced by underscores |
//! | diffusers, PEFT | `unet.….to_q.lora_A.weight`, with or without the adapter's name: `lora_A.default.weight` |
//! | PEFT by itself | `base_model.model.….to_q.lora_A.weight` |
//! | diffusers' old attention processors | `unet.….processor.to_q_lora.down.weight` |
//! | ComfyUI | `diffusion_model.….to_q.lora_up.weight`, under the names of the original code |
//!
//! Any beginning goes with any end. [`super::modules`] finds the weights that they mean.

use crate::weights::{self, TensorInfo};

/// The role of a LoRA's tensor in its module.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::pipeline) enum Part {
    /// `[rank, in, …]`.
    Down,
    /// `[out, rank, …]`.
    Up,
    /// A number; without it, the rank.
    Alpha,
    /// An embedding of a word that OneTrainer has put beside its LoRA, called as the word; no part of a module.
    Embedding,
}

/// Suffixes of the parts' names. Before them stands the name of the module.
const SUFFIXES: [(&str, Part); 12] = [
    (".lora_down.weight", Part::Down),
    (".lora_up.weight", Part::Up),
    (".lora_A", Part::Down),
    (".lora_B", Part::Up),
    (".lora.down.weight", Part::Down),
    (".lora.up.weight", Part::Up),
    (".lora_linear_layer.down.weight", Part::Down),
    (".lora_linear_layer.up.weight", Part::Up),
    ("_lora.down.weight", Part::Down),
    ("_lora.up.weight", Part::Up),
    ("_lora.alpha", Part::Alpha),
    (".alpha", Part::Alpha),
];

/// Prefixes of modules' names, each with its component of the checkpoint; the last is for names without a prefix.
const PREFIXES: [(&str, &str); 15] = [
    ("lora_unet_", "unet"),
    ("lora_te_", "text_encoder"),
    ("lora_te1_", "text_encoder"),
    ("lora_te2_", "text_encoder_2"),
    ("unet.", "unet"),
    ("text_encoder.", "text_encoder"),
    ("text_encoder_2.", "text_encoder_2"),
    ("diffusion_model.", "unet"),
    ("model.diffusion_model.", "unet"),
    ("text_encoders.clip_l.transformer.", "text_encoder"),
    ("text_encoders.clip_h.transformer.", "text_encoder"),
    ("text_encoders.clip_g.transformer.", "text_encoder_2"),
    ("text_model.", "text_encoder"),
    ("encoder.layers.", "text_encoder"),
    ("", "unet"),
];

/// Beginnings of a name that belong to the module after all.
const OF_MODULES: [&str; 2] = ["text_model.", "encoder.layers."];

/// Parts of names that tell a method other than LoRA.
const OTHER_METHODS: [(&str, &str); 20] = [
    ("dora_scale", "DoRA"),
    ("lora_magnitude_vector", "DoRA"),
    ("hada_", "LoHa"),
    ("lokr_", "LoKr"),
    ("lora_mid", "a Tucker decomposition (LoCon with `use_tucker`)"),
    ("oft_", "OFT"),
    (".a1.weight.", "GLoRA"),
    (".on_input.", "IA³"),
    ("vera_lambda_", "VeRA"),
    ("lora_embedding_", "a LoRA of an embedding"),
    ("lora_controlnet", "a Control-LoRA"),
    (".lora_B.bias.", BIAS),
    (".lora_up.bias.", BIAS),
    (".diff.", DIFFERENCE),
    (".diff_b.", DIFFERENCE),
    (".w_norm.", DIFFERENCE),
    (".b_norm.", DIFFERENCE),
    (".set_weight.", DIFFERENCE),
    (".reshape_weight.", DIFFERENCE),
    (".modules_to_save.", DIFFERENCE),
];
const BIAS: &str = "a LoRA with biases";
const DIFFERENCE: &str = "a weight that is replaced or added as a whole";

/// Parts of names of models that are no UNet.
const OTHER_MODELS: [(&str, &str); 8] = [
    ("double_blocks", FLUX),
    ("single_blocks", FLUX),
    ("single_transformer_blocks", FLUX),
    ("joint_blocks", DIT),
    ("lora_te3_", DIT),
    ("lora_transformer_", DIT),
    ("transformer.transformer_blocks.", DIT),
    ("lora_prior_", "a model of two stages, such as Stable Cascade"),
];
const FLUX: &str = "a model of the Flux family";
const DIT: &str = "a diffusion transformer, such as Stable Diffusion 3";

/// The module that a tensor belongs to, and what it is there.
///
/// # Errors
/// If it is no part of a LoRA, with what it is.
pub(in crate::pipeline) fn split(tensor: &TensorInfo) -> Result<(&str, Part), weights::Error> {
    let name = tensor.name.as_str();
    if let Some(embedding) = name.strip_prefix("bundle_emb.") {
        let word = embedding.rsplit_once('.').map_or(embedding, |(word, _)| word);
        return Ok((word.strip_suffix(".string_to_param").unwrap_or(word), Part::Embedding));
    }
    // With a dot at its end, so that a part can be told to end there.
    let closed = format!("{name}.");
    if let Some((_, method)) = OTHER_METHODS.into_iter().find(|(part, _)| closed.contains(part)) {
        return Err(tensor.error(format!("{method} is not supported; a LoRA with down and up matrices is")));
    }
    if let Some((_, model)) = OTHER_MODELS.into_iter().find(|(part, _)| name.contains(part)) {
        return Err(tensor.error(format!("the LoRA is for {model}, whose architecture is not supported")));
    }
    let name = without_adapter(name);
    let found = SUFFIXES.into_iter().find_map(|(suffix, part)| Some((name.strip_suffix(suffix)?, part)));
    found.ok_or_else(|| {
        tensor.error("no LoRA has a tensor of this name; they end in `.lora_down.weight`, `.lora_A.weight`, `.alpha` and the like")
    })
}

/// PEFT's `….lora_A.weight` and `….lora_A.default.weight`, where `default` is any name, as `….lora_A`.
fn without_adapter(name: &str) -> &str {
    let cut = |part: &str| {
        let at = name.match_indices(part).last()?.0 + part.len();
        let rest = name[at..].strip_suffix(".weight")?;
        let is_adapter = rest.is_empty() || (rest.starts_with('.') && !rest[1..].contains('.'));
        is_adapter.then(|| &name[..at])
    };
    cut(".lora_A").or_else(|| cut(".lora_B")).unwrap_or(name)
}

/// The component that the module called `stem` is of, and its path there.
pub(in crate::pipeline) fn module_of(stem: &str) -> (&'static str, String) {
    const PEFT: &str = "base_model.model.";
    let stem = stem.strip_prefix(PEFT).unwrap_or(stem);
    let (prefix, component) = PREFIXES.into_iter().find(|(prefix, _)| stem.starts_with(prefix)).unwrap_or_default();
    let path = if OF_MODULES.contains(&prefix) { stem } else { &stem[prefix.len()..] };
    let path = path.strip_prefix(PEFT).unwrap_or(path);
    // What torch puts before the names of a network that is compiled, or on several devices.
    (component, path.strip_prefix("module.").unwrap_or(path).replace("_orig_mod.", ""))
}
