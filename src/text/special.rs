//! The special and the added tokens, and the files that name them.

use serde_json::{Map, Value};

use super::Error;

/// A token that is found in the text as it stands, before the text is cut into words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddedToken {
    pub content: String,
    /// Whether it is looked for in the normalized text, and so in any case, or in the text as typed.
    pub normalized: bool,
    lstrip: bool,
    rstrip: bool,
    single_word: bool,
}

impl AddedToken {
    /// Reads a special token as the files write it: its text alone, or an object of it and its flags.
    pub fn read(file: &'static str, written: &Value) -> Result<Self, Error> {
        let content = written.as_str().or_else(|| written.get("content")?.as_str());
        let flag = |key: &str| written.get(key).map_or(Some(false), Value::as_bool);
        let read = || {
            Some(Self {
                content: content?.to_owned(),
                normalized: flag("normalized")?,
                lstrip: flag("lstrip")?,
                rstrip: flag("rstrip")?,
                single_word: flag("single_word")?,
            })
        };
        let token = read().ok_or_else(|| {
            let reason = format!("{written} is no special token: expected its text, or an object with its `content`");
            Error::File { file, reason }
        })?;
        token.check(file)?;
        Ok(token)
    }

    /// The flags change where a token is found. No CLIP tokenizer sets them.
    fn check(&self, file: &'static str) -> Result<(), Error> {
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

/// The files beside a vocabulary that say which tokens are special and which were added. Each may be missing.
#[derive(Clone, Copy, Debug, Default)]
pub struct TokenFiles<'a> {
    /// `tokenizer_config.json`.
    pub config: Option<&'a [u8]>,
    /// `special_tokens_map.json`, of older checkpoints.
    pub special_tokens_map: Option<&'a [u8]>,
    /// `added_tokens.json`, of older checkpoints.
    pub added_tokens: Option<&'a [u8]>,
    /// `tokenizer.json`, of which the tokens that were added are read.
    pub tokenizer: Option<&'a [u8]>,
}

impl TokenFiles<'_> {
    /// Whether the config says all by itself, as transformers has written it since version 4.34: then it alone is read.
    pub fn are_complete(&self) -> bool {
        let config = self.config.and_then(|json| parse(CONFIG, json).ok());
        config.is_some_and(|config| known(&config, "added_tokens_decoder").is_some())
    }
}

const CONFIG: &str = "tokenizer_config.json";
const MAP: &str = "special_tokens_map.json";
const ADDED: &str = "added_tokens.json";
const TOKENIZER: &str = "tokenizer.json";

/// The content of the files.
#[derive(Debug)]
pub struct SpecialTokens {
    pub bos: AddedToken,
    pub eos: AddedToken,
    pub unk: AddedToken,
    pub pad: AddedToken,
    /// Tokens that a file gives together with their ids, in no order.
    pub listed: Vec<(u32, AddedToken)>,
    /// The longest prompt in tokens, the start and the end included.
    pub max_length: usize,
}

impl SpecialTokens {
    /// Reads the files as transformers does: what none of them says is CLIP's default, and special_tokens_map.json wins over
    /// tokenizer_config.json. If the latter lists its `added_tokens_decoder`, the others are not looked at.
    pub fn read(files: TokenFiles) -> Result<Self, Error> {
        let read = |file, json: Option<&[u8]>| -> Result<Map<String, Value>, Error> {
            Ok(json.map(|json| parse(file, json)).transpose()?.unwrap_or_default())
        };
        let config = read(CONFIG, files.config)?;
        let decoder = known(&config, "added_tokens_decoder");
        let TokenFiles { special_tokens_map, added_tokens: added, tokenizer, .. } = match decoder {
            Some(_) => TokenFiles::default(),
            None => files,
        };
        let map = read(MAP, special_tokens_map)?;
        let token = |role: &str, default: &str| match (known(&map, role), known(&config, role)) {
            (Some(written), _) => AddedToken::read(MAP, written),
            (None, Some(written)) => AddedToken::read(CONFIG, written),
            (None, None) => AddedToken::read(CONFIG, &default.into()),
        };
        let invalid = |reason: String| Error::File { file: CONFIG, reason };
        let mut listed = Vec::new();
        if let Some(decoder) = decoder {
            let decoder = decoder
                .as_object()
                .ok_or_else(|| invalid("added_tokens_decoder is no object of ids and tokens".to_owned()))?;
            for (id, written) in decoder {
                let id = id.parse().map_err(|_| invalid(format!("added_tokens_decoder has {id:?} for an id")))?;
                listed.push((id, AddedToken::read(CONFIG, written)?));
            }
        }
        let (bos, eos) = (token("bos_token", "<|startoftext|>")?, token("eos_token", "<|endoftext|>")?);
        let (unk, pad) = (token("unk_token", "<|endoftext|>")?, token("pad_token", "<|endoftext|>")?);
        for (content, id) in read(ADDED, added)? {
            let number = id.as_u64().and_then(|id| u32::try_from(id).ok());
            let no_id = || Error::File { file: ADDED, reason: format!("token {content:?} has {id} for an id") };
            let number = number.ok_or_else(no_id)?;
            let mut token = AddedToken::read(ADDED, &content.as_str().into())?;
            token.normalized = ![&bos, &eos, &unk, &pad].iter().any(|special| special.content == content);
            listed.push((number, token));
        }
        if let Some(json) = tokenizer {
            listed.extend(added_tokens(&parse(TOKENIZER, json)?)?);
        }
        let max_length = match known(&config, "model_max_length") {
            None => usize::MAX,
            Some(written) => match written.as_f64() {
                // A float, because "no limit" is written as 1e30; it saturates, and is meant to.
                Some(length) if length >= 2.0 => length as usize,
                Some(length) => {
                    return Err(invalid(format!("model_max_length is {length}; a prompt needs at least 2 tokens")));
                }
                None => return Err(invalid(format!("model_max_length is {written}, expected a number"))),
            },
        };
        Ok(Self { bos, eos, unk, pad, listed, max_length })
    }
}

/// The `added_tokens` of a tokenizer.json with their ids.
pub fn added_tokens(tokenizer: &Map<String, Value>) -> Result<Vec<(u32, AddedToken)>, Error> {
    let written = match tokenizer.get("added_tokens") {
        None => &[][..],
        Some(Value::Array(written)) => written,
        Some(_) => return Err(Error::File { file: TOKENIZER, reason: "its added_tokens are no list".to_owned() }),
    };
    let tokens = written.iter().map(|written| {
        let id = written.get("id").and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok());
        let no_id = || Error::File { file: TOKENIZER, reason: format!("added token {written} has no id") };
        Ok((id.ok_or_else(no_id)?, AddedToken::read(TOKENIZER, written)?))
    });
    tokens.collect()
}

/// The value of `key` in a file, unless it is null.
fn known<'a>(file: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    file.get(key).filter(|value| !value.is_null())
}

/// Parses one of the tokenizer's JSON files, which are objects.
pub fn parse(file: &'static str, json: &[u8]) -> Result<Map<String, Value>, Error> {
    match serde_json::from_slice(json) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(Error::File { file, reason: "it is no JSON object".to_owned() }),
        Err(error) => Err(Error::File { file, reason: error.to_string() }),
    }
}
