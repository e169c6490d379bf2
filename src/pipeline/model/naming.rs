//! The names of the tensors of a checkpoint: diffusers' and transformers' own, or those of the original latent diffusion code
//! (LDM) and of OpenCLIP, which single-file checkpoints keep.

use std::collections::{HashMap, HashSet};

use crate::models::canonical_weight_name;
use crate::weights::TensorInfo;

/// The part of a stored tensor that a weight is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::pipeline) enum Part {
    /// All of the tensor.
    Whole,
    /// One of three equal groups of rows: Q, K and V stored as one matrix.
    Third(usize),
    /// All of the tensor, rows and columns exchanged.
    Transposed,
}

/// The names of the weights of one network in a file.
#[derive(Clone, Debug, Default)]
pub(in crate::pipeline) struct Naming {
    /// Prefix of all names of this network.
    prefix: String,
    style: Style,
    /// Prefix of the names of weights that this run of the network leaves out.
    left_out: Option<&'static str>,
}

/// Parts of the names of tensors that lie among a network's weights and are never run: counters and masks, which are no weights; CLIP's
/// other half and its projection, where only the text is asked for; losses of training; and convolutions that a config switches off.
const DEAD: [&str; 12] = [
    "position_ids",
    "attn_mask",
    "num_batches_tracked",
    "logit_scale",
    "text_projection",
    "visual",
    "vision_model",
    "visual_projection",
    "loss",
    "model_ema",
    "quant_conv",
    "post_quant_conv",
];

/// Whether the stored tensor `name` is one that no network is run with.
pub(in crate::pipeline) fn is_dead(name: &str) -> bool {
    name.split('.').any(|part| DEAD.contains(&part))
}

#[derive(Clone, Debug, Default)]
enum Style {
    /// The names of diffusers and transformers, today or in earlier versions.
    #[default]
    Diffusers,
    /// Modules of LDM with their paths in diffusers.
    Modules(HashMap<String, String>),
    /// OpenCLIP's text transformer.
    OpenClip,
}

impl Naming {
    /// diffusers' names behind `prefix`.
    pub fn diffusers(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned(), ..Self::default() }
    }

    /// The naming of a network that is run without the weights whose names in diffusers begin with `left_out`.
    pub fn without(self, left_out: Option<&'static str>) -> Self {
        Self { left_out, ..self }
    }

    /// LDM's names behind `prefix`, by the modules of a network.
    pub fn modules(prefix: &str, modules: Vec<(String, String)>) -> Self {
        let style = Style::Modules(modules.into_iter().collect());
        Self { prefix: prefix.to_owned(), style, left_out: None }
    }

    /// OpenCLIP's names behind `prefix`.
    pub fn open_clip(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned(), style: Style::OpenClip, left_out: None }
    }

    /// Whether the stored tensor `name` is of this network.
    pub fn is_of(&self, name: &str) -> bool {
        name.starts_with(&self.prefix)
    }

    /// Whether the stored tensor `name`, for which the network has no place, would make a difference if it had one. `wanted` tells
    /// the network's weights, by today's names in diffusers.
    pub fn is_missed(&self, name: &str, wanted: impl Fn(&str) -> bool) -> bool {
        let Some(inner) = name.strip_prefix(&self.prefix).filter(|inner| !is_dead(inner)) else { return false };
        let weights = self.weights(name);
        let weight = weights.first().map_or(inner, |(weight, _)| weight);
        // Text encoders are stored whole, and run up to a layer that their config says.
        let layer = weight.strip_prefix("encoder.layers.").and_then(|rest| rest.split('.').next());
        let unused_layer = |layer| !wanted(&format!("encoder.layers.{layer}.layer_norm1.weight"));
        !layer.is_some_and(unused_layer) && !self.left_out.is_some_and(|left_out| weight.starts_with(left_out))
    }

    /// The weights, by today's names in diffusers, that the stored tensor `name` is; none if it is of another network.
    pub fn weights(&self, name: &str) -> Vec<(String, Part)> {
        let Some(name) = name.strip_prefix(&self.prefix) else { return Vec::new() };
        match &self.style {
            Style::Diffusers => diffusers_weights(canonical_weight_name(name)),
            Style::Modules(modules) => {
                // The longest module path that is known; what is inside of transformer blocks is called the same.
                let known = name.rmatch_indices('.').find_map(|(at, _)| Some((modules.get(&name[..at])?, at)));
                known.map(|(module, at)| (format!("{module}{}", &name[at..]), Part::Whole)).into_iter().collect()
            }
            Style::OpenClip => open_clip_weights(name),
        }
    }
}

/// Names of diffusers and transformers; two of OpenCLIP's are left among them by stable-diffusion.cpp, which writes all others as
/// transformers does.
fn diffusers_weights(name: String) -> Vec<(String, Part)> {
    if name == "text_projection" {
        return vec![(format!("{name}.weight"), Part::Transposed)];
    }
    match name.split_once(".self_attn.in_proj.") {
        Some((layer, kind)) => thirds(&format!("{layer}.self_attn"), kind),
        None => vec![(name, Part::Whole)],
    }
}

/// The projections of an attention whose Q, K and V are stored as one.
fn thirds(attention: &str, kind: &str) -> Vec<(String, Part)> {
    let projections = ["q_proj", "k_proj", "v_proj"].into_iter().enumerate();
    projections.map(|(third, name)| (format!("{attention}.{name}.{kind}"), Part::Third(third))).collect()
}

/// OpenCLIP's text transformer is the one of CLIPTextModel, with Q, K and V in one matrix and the text projection as the
/// right-hand factor.
fn open_clip_weights(name: &str) -> Vec<(String, Part)> {
    let whole = |name: String| vec![(name, Part::Whole)];
    match name {
        "token_embedding.weight" => return whole("embeddings.token_embedding.weight".into()),
        "positional_embedding" => return whole("embeddings.position_embedding.weight".into()),
        "text_projection" => return vec![("text_projection.weight".into(), Part::Transposed)],
        // As transformers has it, in files of Segmind's.
        "text_projection.weight" => return whole(name.into()),
        _ => {}
    }
    if let Some(rest) = name.strip_prefix("ln_final.") {
        return whole(format!("final_layer_norm.{rest}"));
    }
    let layer = name.strip_prefix("transformer.resblocks.").and_then(|rest| rest.split_once('.'));
    let Some((index, inner)) = layer else { return Vec::new() };
    let weight = |inner: &str| format!("encoder.layers.{index}.{inner}");
    if let Some(kind) = inner.strip_prefix("attn.in_proj_") {
        return thirds(&weight("self_attn"), kind);
    }
    const MODULES: [(&str, &str); 5] = [
        ("ln_1", "layer_norm1"),
        ("ln_2", "layer_norm2"),
        ("attn.out_proj", "self_attn.out_proj"),
        ("mlp.c_fc", "mlp.fc1"),
        ("mlp.c_proj", "mlp.fc2"),
    ];
    let known = MODULES.iter().find_map(|(old, new)| Some((new, inner.strip_prefix(old)?.strip_prefix('.')?)));
    known.map(|(module, kind)| whole(weight(&format!("{module}.{kind}")))).unwrap_or_default()
}

/// Names have fewer parts than this: deeper ones are of no network that is known here.
const MAX_DEPTH: usize = 16;

/// More blocks, layers or levels in a row than any network has.
const MAX_COUNT: usize = 1 << 12;

/// The tensors of one network: their shapes, by their names behind its prefix.
pub(in crate::pipeline) struct Tensors<'a> {
    shapes: HashMap<&'a str, &'a [usize]>,
    /// The paths of all modules that have a tensor inside.
    modules: HashSet<&'a str>,
}

impl<'a> Tensors<'a> {
    /// The tensors, of all `tensors`, whose names start with `prefix`.
    pub fn new(tensors: impl IntoIterator<Item = &'a TensorInfo>, prefix: &str) -> Self {
        let (mut shapes, mut modules) = (HashMap::new(), HashSet::new());
        for tensor in tensors {
            if let Some(name) = tensor.name.strip_prefix(prefix) {
                shapes.insert(name, &tensor.shape[..]);
                modules.extend(name.match_indices('.').take(MAX_DEPTH).map(|(at, _)| &name[..at]));
            }
        }
        Self { shapes, modules }
    }

    /// Whether there is a tensor inside of the module `path`.
    pub fn has(&self, path: &str) -> bool {
        self.modules.contains(path)
    }

    /// Side `axis` of tensor `name`.
    pub fn side(&self, name: &str, axis: usize) -> Option<usize> {
        self.shapes.get(name)?.get(axis).copied()
    }

    /// Number of modules among `path.0`, `path.1`, …, up to the first that is missing.
    pub fn count(&self, path: &str) -> usize {
        (0..MAX_COUNT).take_while(|index| self.has(&format!("{path}.{index}"))).count()
    }
}
