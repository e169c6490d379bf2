//! The CLIP tokenizer.
//!
//! [`Tokenizer`] reads a checkpoint's own vocabulary and turns a prompt into the ids that its text encoder expects.

mod bpe;
mod special;
mod tokenizer;
mod unicode;

pub use special::TokenFiles;
pub use tokenizer::{EncodedPrompt, Tokenizer};

/// An error in a tokenizer's files.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A file is not what its name says.
    #[error("{file}: {reason}")]
    File {
        /// The file's name inside the tokenizer's folder.
        file: &'static str,
        /// Reason, and the place.
        reason: String,
    },
    /// A line of merges.txt is not a merge of two tokens of the vocabulary.
    #[error("merges.txt: line {line}: {reason}")]
    Merge {
        /// The line's number, from 1.
        line: usize,
        /// Reason.
        reason: String,
    },
    /// A token that the tokenizer cannot do without is not in the vocabulary.
    #[error("the tokenizer's vocabulary has no {role} {token:?}: its files do not belong together")]
    MissingToken {
        /// The token's key in tokenizer_config.json: `bos_token`, `eos_token`, `unk_token` or `pad_token`.
        role: &'static str,
        /// The token's text.
        token: String,
    },
    /// The text encoder's positions do not even hold the start and the end of a prompt.
    #[error("the text encoder has {positions} positions; a prompt needs at least 2, for its start and its end")]
    TooFewPositions {
        /// `max_position_embeddings` of the text encoder's config.json.
        positions: usize,
    },
}
