//! What the tensors of a checkpoint are called: diffusers' and transformers' own names, or those of the original
//! latent diffusion code (LDM) and of OpenCLIP, which single-file checkpoints keep.

use std::collections::HashMap;

use crate::models::canonical_weight_name;
use crate::weights::TensorInfo;

/// Which part of a stored tensor a weight is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::pipeline) enum Part {
    /// All of it.
    Whole,
    /// One of three equal groups of rows: Q, K and V stored as one matrix.
    Third(usize),
    /// All of it, rows and columns exchanged.
    Transposed,
}

/// How a file calls the weights of one network.
#[derive(Clone, Debug, Default)]
pub(in crate::pipeline) struct Naming {
    /// What stands before all names of this network.
    prefix: String,
    style: Style,
}

#[derive(Clone, Debug, Default)]
enum Style {
    /// As diffusers and transformers call them, today or in earlier versions.
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
        Self { prefix: prefix.to_owned(), style: Style::Diffusers }
    }

    /// LDM's names behind `prefix`, by the modules of a network.
    pub fn modules(prefix: &str, modules: Vec<(String, String)>) -> Self {
        Self { prefix: prefix.to_owned(), style: Style::Modules(modules.into_iter().collect()) }
    }

    /// OpenCLIP's names behind `prefix`.
    pub fn open_clip(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned(), style: Style::OpenClip }
    }

    /// The weights, by today's names in diffusers, that the stored tensor `name` is; none where it is of another network.
    pub fn weights(&self, name: &str) -> Vec<(String, Part)> {
        let Some(name) = name.strip_prefix(&self.prefix) else { return Vec::new() };
        match &self.style {
            Style::Diffusers => vec![(canonical_weight_name(name), Part::Whole)],
            Style::Modules(modules) => {
                // The longest module path that is known; what is inside of transformer blocks is called the same.
                let known = name.rmatch_indices('.').find_map(|(at, _)| Some((modules.get(&name[..at])?, at)));
                known.map(|(module, at)| (format!("{module}{}", &name[at..]), Part::Whole)).into_iter().collect()
            }
            Style::OpenClip => open_clip_weights(name),
        }
    }
}

/// OpenCLIP's text transformer is the one of CLIPTextModel, with Q, K and V in one matrix and the text projection as the
/// right-hand factor.
fn open_clip_weights(name: &str) -> Vec<(String, Part)> {
    let whole = |name: String| vec![(name, Part::Whole)];
    match name {
        "token_embedding.weight" => return whole("embeddings.token_embedding.weight".into()),
        "positional_embedding" => return whole("embeddings.position_embedding.weight".into()),
        "text_projection" => return vec![("text_projection.weight".into(), Part::Transposed)],
        _ => {}
    }
    if let Some(rest) = name.strip_prefix("ln_final.") {
        return whole(format!("final_layer_norm.{rest}"));
    }
    let layer = name.strip_prefix("transformer.resblocks.").and_then(|rest| rest.split_once('.'));
    let Some((index, inner)) = layer else { return Vec::new() };
    let weight = |inner: &str| format!("encoder.layers.{index}.{inner}");
    if let Some(kind) = inner.strip_prefix("attn.in_proj_") {
        let projections = ["q_proj", "k_proj", "v_proj"].into_iter().enumerate();
        return projections.map(|(third, p)| (weight(&format!("self_attn.{p}.{kind}")), Part::Third(third))).collect();
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

/// The tensors of one network: their shapes, by their names behind its prefix.
pub(super) struct Tensors<'a>(Vec<(&'a str, &'a [usize])>);

impl<'a> Tensors<'a> {
    /// Those of all `tensors` whose names start with `prefix`.
    pub fn new(tensors: &'a [TensorInfo], prefix: &str) -> Self {
        let of = tensors.iter().filter_map(|tensor| Some((tensor.name.strip_prefix(prefix)?, &tensor.shape[..])));
        Self(of.collect())
    }

    /// Whether there is a tensor inside of the module `path`.
    pub fn has(&self, path: &str) -> bool {
        let inside = format!("{path}.");
        self.0.iter().any(|(name, _)| name.starts_with(&inside))
    }

    /// Side `axis` of tensor `name`.
    pub fn side(&self, name: &str, axis: usize) -> Option<usize> {
        self.0.iter().find(|(other, _)| *other == name)?.1.get(axis).copied()
    }

    /// How many of `path.0`, `path.1`, … there are.
    pub fn count(&self, path: &str) -> usize {
        (0..).take_while(|index| self.has(&format!("{path}.{index}"))).count()
    }
}
