//! The architectures: a component's `config.json` becomes a [`Graph`](crate::graph::Graph) whose weights carry the checkpoint's names.
//!
//! Modules, config keys and block names are those of `diffusers` and `transformers`. Graphs take and return pictures as those
//! libraries do, `[batch, channels, height, width]`; inside they are channels-last.

mod attention;
mod autoencoder_kl;
mod autoencoder_tiny;
mod clip_text;
mod config;
mod embeddings;
mod emoji_classifier;
mod feature_input;
pub mod inception_v3;
#[cfg(test)]
pub(crate) mod published;
mod resnet;
mod tiling;
mod unet_2d;
mod unet_2d_blocks;
mod unet_2d_condition;

pub use autoencoder_kl::AutoencoderKlConfig;
pub use autoencoder_tiny::AutoencoderTinyConfig;
pub use clip_text::ClipTextConfig;
pub use embeddings::{CLASS_EMBEDDING, guidance_scale_embedding};
pub use emoji_classifier::EmojiClassifierConfig;
pub use feature_input::feature_input;
pub use tiling::Tiling;
pub use unet_2d::Unet2dConfig;
pub use unet_2d_condition::{Unet2dConditionConfig, Unet2dConditionInputs};

use crate::graph::{NodeId, Scope};

/// A model that cannot be built.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// A `config.json` that is not what its class writes.
    #[error("{class}: {message}")]
    Config {
        /// The class that reads it.
        class: &'static str,
        /// Reason.
        message: String,
    },
    /// A switch or value that this class has in diffusers and that is not implemented here.
    #[error("{class}: `{key}` is {value}, which is not supported{hint}")]
    Unsupported {
        /// The class that reads it.
        class: &'static str,
        /// The key.
        key: String,
        /// Value of the key, as JSON.
        value: String,
        /// The values that are supported, after a colon; or nothing.
        hint: String,
    },
    /// Shapes that do not fit.
    #[error(transparent)]
    Graph(#[from] crate::graph::Error),
}

/// The name under which a weight is known today, for checkpoints from before diffusers 0.13 (attention layers called
/// `query`, `key`, `value`, `proj_attn`) and for text encoders saved with the `text_model.` prefix.
pub fn canonical_weight_name(name: &str) -> String {
    const RENAMED: [(&str, &str); 4] =
        [(".query.", ".to_q."), (".key.", ".to_k."), (".value.", ".to_v."), (".proj_attn.", ".to_out.0.")];
    let name = name.strip_prefix("text_model.").unwrap_or(name);
    for (old, new) in RENAMED {
        if let Some(at) = name.find(old) {
            return format!("{}{new}{}", &name[..at], &name[at + old.len()..]);
        }
    }
    name.to_owned()
}

/// `[batch, channels, height, width]` → `[batch, height, width, channels]`.
fn channels_last(scope: &Scope, x: NodeId) -> Result<NodeId, crate::graph::Error> {
    scope.permute(x, &[0, 2, 3, 1])
}

/// `[batch, height, width, channels]` → `[batch, channels, height, width]`.
fn channels_first(scope: &Scope, x: NodeId) -> Result<NodeId, crate::graph::Error> {
    scope.permute(x, &[0, 3, 1, 2])
}
