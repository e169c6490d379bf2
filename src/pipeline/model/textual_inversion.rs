//! Files of textual inversions: embeddings of words of their own, which are told from LoRAs and checkpoints.

use crate::weights::{TensorFile, TensorInfo};

/// The description of such a file, for a message.
pub(in crate::pipeline) const TEXTUAL_INVERSION: &str =
    "a textual inversion, embeddings that a word of the prompt stands for; these are not supported yet";

/// Names under which trainers save embeddings, one for each text encoder.
const NAMES: [&str; 6] = ["emb_params", "clip_l", "clip_g", "t5", "text_encoders_0", "text_encoders_1"];

/// The widths of the text encoders that embeddings are made for.
const WIDTHS: [usize; 3] = [768, 1024, 1280];

/// Whether `file` is one: every tensor an embedding or a list of them, under a trainer's name or in a file of its own under
/// the word that it is for.
pub(in crate::pipeline) fn is_textual_inversion(file: &TensorFile) -> bool {
    let tensors = file.tensors();
    let is_embedding = |tensor: &TensorInfo| {
        let name = tensor.name.as_str();
        let is_alone = tensors.len() == 1 && !name.contains('.');
        let is_wide = tensor.shape.last().is_some_and(|width| WIDTHS.contains(width));
        let is_named = NAMES.contains(&name)
            || name.starts_with("string_to_param")
            || (name.starts_with('<') && name.ends_with('>'))
            || (is_alone && is_wide);
        is_named && matches!(tensor.shape.len(), 1 | 2)
    };
    !tensors.is_empty() && tensors.iter().all(is_embedding)
}
