//! The special tokens, and the files that name them: tokenizer_config.json and special_tokens_map.json.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::Error;

/// A token that is found in the text as it stands, before the text is cut into words.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct AddedToken {
    pub content: String,
    /// Whether it is looked for in the normalized text, and so in any case, or in the text as typed.
    #[serde(default)]
    pub normalized: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default)]
    single_word: bool,
}

impl AddedToken {
    /// The flags change where a token is found. No CLIP tokenizer sets them.
    pub fn check(&self, file: &'static str) -> Result<(), Error> {
        let flags = [("lstrip", self.lstrip), ("rstrip", self.rstrip), ("single_word", self.single_word)];
        match flags.into_iter().find(|&(_, set)| set) {
            Some((flag, _)) => {
                let reason = format!("token {:?} has {flag} set, which is not supported", self.content);
                Err(Error::File { file, reason })
            }
            None if self.content.is_empty() => {
                Err(Error::File { file, reason: "a special token is the empty string".to_owned() })
            }
            None => Ok(()),
        }
    }
}

/// A special token as the files write it: its text alone, or with its flags.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Written {
    Text(String),
    Token(AddedToken),
}

impl Written {
    fn into_token(self) -> AddedToken {
        match self {
            Written::Token(token) => token,
            Written::Text(content) => {
                AddedToken { content, normalized: false, lstrip: false, rstrip: false, single_word: false }
            }
        }
    }
}

/// Either file; each leaves out what it does not know.
#[derive(Debug, Default, Deserialize)]
struct File {
    bos_token: Option<Written>,
    eos_token: Option<Written>,
    unk_token: Option<Written>,
    pad_token: Option<Written>,
    added_tokens_decoder: Option<BTreeMap<u32, AddedToken>>,
    /// A float, because "no limit" is written as 1e30.
    model_max_length: Option<f64>,
}

/// What the two files say.
#[derive(Debug)]
pub struct SpecialTokens {
    pub bos: AddedToken,
    pub eos: AddedToken,
    pub unk: AddedToken,
    pub pad: AddedToken,
    /// Tokens that a file gives together with their ids.
    pub listed: Vec<(u32, AddedToken)>,
    /// The longest prompt in tokens, the start and the end included.
    pub max_length: usize,
}

impl SpecialTokens {
    /// Reads the files as transformers does: what neither file says is CLIP's default, and special_tokens_map.json
    /// (older checkpoints) wins over tokenizer_config.json, unless the latter lists its `added_tokens_decoder`.
    pub fn read(config: Option<&[u8]>, map: Option<&[u8]>) -> Result<Self, Error> {
        const CONFIG: &str = "tokenizer_config.json";
        const MAP: &str = "special_tokens_map.json";
        let config: File = config.map(|json| parse(CONFIG, json)).transpose()?.unwrap_or_default();
        let map = map.filter(|_| config.added_tokens_decoder.is_none());
        let map: File = map.map(|json| parse(MAP, json)).transpose()?.unwrap_or_default();
        let token = |mapped: Option<Written>, configured: Option<Written>, default: &str| {
            let file = if mapped.is_some() { MAP } else { CONFIG };
            let written = mapped.or(configured).unwrap_or_else(|| Written::Text(default.to_owned()));
            let token = written.into_token();
            token.check(file).map(|()| token)
        };
        let listed: Vec<_> = config.added_tokens_decoder.unwrap_or_default().into_iter().collect();
        for (_, token) in &listed {
            token.check(CONFIG)?;
        }
        let max_length = match config.model_max_length {
            None => usize::MAX,
            // Saturates, and "no limit" is meant to.
            Some(length) if length >= 2.0 => length as usize,
            Some(length) => {
                let reason = format!("model_max_length is {length}; a prompt needs at least 2 tokens");
                return Err(Error::File { file: CONFIG, reason });
            }
        };
        Ok(Self {
            bos: token(map.bos_token, config.bos_token, "<|startoftext|>")?,
            eos: token(map.eos_token, config.eos_token, "<|endoftext|>")?,
            unk: token(map.unk_token, config.unk_token, "<|endoftext|>")?,
            pad: token(map.pad_token, config.pad_token, "<|endoftext|>")?,
            listed,
            max_length,
        })
    }
}

/// Parses one of the tokenizer's JSON files.
pub fn parse<T: DeserializeOwned>(file: &'static str, json: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(json).map_err(|error| Error::File { file, reason: error.to_string() })
}
