//! CLIP's tokenizer: normalization, words, byte pair encoding, special tokens.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use serde_json::{Map, Value};

use super::Error;
use super::bpe::{Bpe, END_OF_WORD, byte_to_char, char_to_byte};
use super::special::{AddedToken, SpecialTokens, TokenFiles, added_tokens, parse};
use super::unicode::{is_letter, is_number, nfc, push_lowercase};
use crate::order::sort_by_key;

/// A CLIP tokenizer (transformers' `CLIPTokenizer`, whose ids it gives), with the vocabulary of one checkpoint.
///
/// Text is composed (NFC), blanks are joined, letters are lower-cased; words are runs of letters, single digits, runs
/// of anything else, and English contractions; each word is encoded by itself, its last token marked `</w>`.
#[derive(Debug)]
pub struct Tokenizer {
    /// Every token's text, by id.
    tokens: Vec<String>,
    bpe: Bpe,
    added: Vec<(AddedToken, u32)>,
    bos: u32,
    eos: u32,
    pad: u32,
    max_length: usize,
}

/// A prompt as a text encoder takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedPrompt {
    /// BOS, the prompt, EOS, then padding: exactly as many as the text encoder has positions for.
    pub ids: Vec<u32>,
    /// The end of the prompt that did not fit, in the tokenizer's own spelling; `None` if all of it did.
    pub truncated: Option<String>,
}

impl Tokenizer {
    /// Reads a tokenizer from the files that checkpoints keep in `tokenizer/`. What none of `files` says is as CLIP has it, and the
    /// prompt's length is for the text encoder to limit.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Merge`] or [`Error::MissingToken`], with the file and the line or token at fault.
    pub fn from_files(vocab_json: &[u8], merges_txt: &[u8], files: TokenFiles) -> Result<Self, Error> {
        let vocab = vocabulary("vocab.json", parse("vocab.json", vocab_json)?)?;
        let special = SpecialTokens::read(files)?;
        Self::build_from_lines(vocab, &merge_lines(merges_txt)?, special)
    }

    /// Makes the tokenizer whose vocabulary was trained into `merges_txt`, without a `vocab.json`: the ids are those that
    /// CLIP gives, first the 256 bytes, then the same at a word's end, then what each merge makes, then the start and the
    /// end of a text.
    ///
    /// # Errors
    /// As [`Tokenizer::from_files`].
    pub fn from_merges(merges_txt: &[u8], tokenizer_config: Option<&[u8]>) -> Result<Self, Error> {
        let lines = merge_lines(merges_txt)?;
        // In the ascending order of the characters: those that stand for themselves, then those from U+0100 on.
        let (mut bytes, others): (Vec<char>, Vec<char>) =
            (0..=u8::MAX).map(byte_to_char).partition(|&character| character < '\u{100}');
        bytes.extend(others);
        let bytes = ["", END_OF_WORD].into_iter().flat_map(|end| bytes.iter().map(move |byte| format!("{byte}{end}")));
        let merged = lines.iter().map(|(_, left, right)| format!("{left}{right}"));
        let tokens = bytes.chain(merged).chain(SPELLED.map(str::to_owned));
        let mut vocab = HashMap::new();
        for (id, token) in (0..).zip(tokens) {
            if vocab.insert(token.clone(), id).is_some() {
                let reason = format!("{token:?} comes about in two ways");
                return Err(Error::File { file: "merges.txt", reason });
            }
        }
        let files = TokenFiles { config: tokenizer_config, ..TokenFiles::default() };
        Self::build_from_lines(vocab, &lines, SpecialTokens::read(files)?)
    }

    fn build_from_lines(
        vocab: HashMap<String, u32>,
        lines: &[(usize, &str, &str)],
        special: SpecialTokens,
    ) -> Result<Self, Error> {
        let merges = lines
            .iter()
            .map(|&(line, left, right)| merge_ids(&vocab, left, right).map_err(|reason| Error::Merge { line, reason }));
        let merges = merges.collect::<Result<Vec<_>, _>>()?;
        Self::build(vocab, merges, special)
    }

    /// Reads a tokenizer from a `tokenizer.json`, the one file that transformers 5 writes instead of the vocabulary and
    /// the merges, and from the `tokenizer_config.json` beside it.
    ///
    /// # Errors
    /// [`Error::File`] for a tokenizer that is not CLIP's kind of BPE, and those of [`Tokenizer::from_files`].
    pub fn from_tokenizer_json(tokenizer_json: &[u8], tokenizer_config: Option<&[u8]>) -> Result<Self, Error> {
        const FILE: &str = "tokenizer.json";
        let failed = |reason: String| Error::File { file: FILE, reason };
        let mut json = parse(FILE, tokenizer_json)?;
        let mut model = match json.remove("model") {
            Some(Value::Object(model)) => model,
            _ => return Err(failed("it has no model".to_owned())),
        };
        let is_clip = |(key, value): (&String, &Value)| match key.as_str() {
            "type" => value.is_null() || value == "BPE",
            "end_of_word_suffix" => value == END_OF_WORD,
            "byte_fallback" | "ignore_merges" => value == false,
            _ => true,
        };
        if !model.contains_key("end_of_word_suffix") || !model.iter().all(is_clip) {
            return Err(failed("its model is not CLIP's BPE, whose words end in \"</w>\"".to_owned()));
        }
        let (Some(Value::Object(vocab)), Some(Value::Array(merges))) = (model.remove("vocab"), model.remove("merges"))
        else {
            return Err(failed("its model has no vocab, or no merges".to_owned()));
        };
        let vocab = vocabulary(FILE, vocab)?;
        let merges = merges.iter().enumerate().map(|(index, merge)| {
            // Since 2024 a pair, before that a line of merges.txt.
            let (left, right) = match merge {
                Value::String(line) => line.split_once(' ').unwrap_or((line, "")),
                _ => match merge.as_array().map(Vec::as_slice) {
                    Some([Value::String(left), Value::String(right)]) => (left.as_str(), right.as_str()),
                    _ => return Err(failed(format!("merge {index} is {merge}, expected two tokens"))),
                },
            };
            merge_ids(&vocab, left, right).map_err(|reason| failed(format!("merge {index}: {reason}")))
        });
        let merges = merges.collect::<Result<Vec<_>, _>>()?;
        let files = TokenFiles { config: tokenizer_config, ..TokenFiles::default() };
        let mut special = SpecialTokens::read(files)?;
        special.listed.extend(added_tokens(&json)?);
        Self::build(vocab, merges, special)
    }

    fn build(
        mut vocab: HashMap<String, u32>,
        merges: Vec<((u32, u32), u32)>,
        mut special: SpecialTokens,
    ) -> Result<Self, Error> {
        sort_by_key(&mut special.listed, |&(id, _)| (id.into(), 0));
        let mut added: Vec<(AddedToken, u32)> = Vec::new();
        for (id, token) in special.listed {
            // A listed token may stand behind the vocabulary's end and then makes it longer.
            let next = vocab.len() as u32;
            let known = match vocab.entry(token.content.clone()) {
                Entry::Occupied(known) => *known.get(),
                Entry::Vacant(free) => *free.insert(next),
            };
            if known != id {
                let reason = format!("token {:?} is listed with id {id}, and is {known}", token.content);
                let file = "tokenizer_config.json, added_tokens.json or tokenizer.json";
                return Err(Error::File { file, reason });
            }
            added.retain(|(earlier, _)| earlier.content != token.content);
            added.push((token, id));
        }
        let listed = added.len();
        let mut id_of = |role: &'static str, token: AddedToken| -> Result<u32, Error> {
            let id =
                *vocab.get(&token.content).ok_or_else(|| Error::MissingToken { role, token: token.content.clone() })?;
            // A listed description stands; among the four roles the last to describe a token decides.
            if !added[..listed].iter().any(|(_, known)| *known == id) {
                added.retain(|(_, known)| *known != id);
                added.push((token, id));
            }
            Ok(id)
        };
        let bos = id_of("bos_token", special.bos)?;
        let eos = id_of("eos_token", special.eos)?;
        let unk = id_of("unk_token", special.unk)?;
        let pad = id_of("pad_token", special.pad)?;
        // The longest token first: where two begin at the same place, it wins.
        sort_by_key(&mut added, |(token, _)| (u64::MAX - token.content.len() as u64, 0));
        for (token, _) in added.iter_mut().filter(|(token, _)| token.normalized) {
            token.content = normalize(&token.content);
        }

        let byte_id = |byte: usize, suffix: &str| {
            let token = format!("{}{suffix}", byte_to_char(byte as u8));
            vocab.get(&token).copied().unwrap_or(unk)
        };
        let bpe = Bpe {
            inner: std::array::from_fn(|byte| byte_id(byte, "")),
            last: std::array::from_fn(|byte| byte_id(byte, END_OF_WORD)),
            merges: (0..).zip(merges).map(|(rank, (pair, merged))| (pair, (rank, merged))).collect(),
        };
        let mut tokens = vec![String::new(); vocab.len()];
        for (token, id) in vocab {
            tokens[id as usize] = token;
        }
        Ok(Self { tokens, bpe, added, bos, eos, pad, max_length: special.max_length })
    }

    /// Number of tokens: every id is below it, and the text encoder's embedding needs as many rows.
    pub fn vocab_size(&self) -> usize {
        self.tokens.len()
    }

    /// The ids of `text` between BOS and EOS, however many there are.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        let mut ids = vec![self.bos];
        self.split_at_added(text, false, &mut ids, &|raw, ids| {
            self.split_at_added(&normalize(raw), true, ids, &|normalized, ids| {
                for word in words(normalized) {
                    self.bpe.encode_word(word, ids);
                }
            });
        });
        ids.push(self.eos);
        ids
    }

    /// The ids of `text`, padded or truncated to the length that the text encoder takes: the tokenizer's
    /// `model_max_length`, and no more than `max_position_embeddings` of the text encoder's config. A truncated prompt
    /// still ends in EOS.
    ///
    /// # Errors
    /// [`Error::TooFewPositions`] for fewer than two positions.
    pub fn encode_padded(&self, text: &str, max_position_embeddings: usize) -> Result<EncodedPrompt, Error> {
        if max_position_embeddings < 2 {
            return Err(Error::TooFewPositions { positions: max_position_embeddings });
        }
        let length = self.max_length.min(max_position_embeddings);
        let mut ids = self.encode(text);
        let truncated = (ids.len() > length).then(|| {
            let lost = self.decode(&ids[length - 1..ids.len() - 1]);
            ids.truncate(length - 1);
            ids.push(self.eos);
            lost
        });
        ids.resize(length, self.pad);
        Ok(EncodedPrompt { ids, truncated })
    }

    /// The text of `ids`, for people to read: lower case, a space after each word. Ids beyond the vocabulary are left out.
    pub fn decode(&self, ids: &[u32]) -> String {
        let mut bytes = Vec::new();
        for token in ids.iter().filter_map(|&id| self.tokens.get(id as usize)) {
            let (inner, end) = match token.strip_suffix(END_OF_WORD) {
                Some(inner) => (inner, " "),
                None => (token.as_str(), ""),
            };
            bytes.extend(inner.chars().filter_map(char_to_byte));
            bytes.extend_from_slice(end.as_bytes());
        }
        String::from_utf8_lossy(&bytes).trim_end().to_owned()
    }

    /// Finds the added tokens of one kind in `text`, leftmost first, and gives what lies between them to `between`.
    fn split_at_added(&self, text: &str, normalized: bool, ids: &mut Vec<u32>, between: &dyn Fn(&str, &mut Vec<u32>)) {
        let mut start = 0;
        let mut at = 0;
        while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
            let mut candidates = self.added.iter().filter(|(token, _)| token.normalized == normalized);
            match candidates.find(|(token, _)| rest.starts_with(&token.content)) {
                Some((token, id)) => {
                    between(&text[start..at], ids);
                    ids.push(*id);
                    at += token.content.len();
                    start = at;
                }
                None => at += rest.chars().next().map_or(1, char::len_utf8),
            }
        }
        between(&text[start..], ids);
    }
}

/// Composed, runs of blanks joined to one space, lower case. Lower case goes character by character: a sigma stays σ
/// at the end of a word too, unlike with `str::to_lowercase`.
fn normalize(text: &str) -> String {
    let mut normalized = String::with_capacity(text.len());
    for c in nfc(text).chars() {
        if !c.is_whitespace() {
            push_lowercase(&mut normalized, c);
        } else if !normalized.ends_with(' ') {
            normalized.push(' ');
        }
    }
    normalized
}

/// Cuts normalized text into words. As a regular expression, with the first alternative that fits taken at each place:
/// `<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+`
fn words(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text.trim_start();
    std::iter::from_fn(move || {
        let length = word_length(rest)?;
        let (word, after) = rest.split_at(length);
        rest = after.trim_start();
        Some(word)
    })
    .flat_map(|word| {
        // These two are cut out of what surrounds them, but are words of their own only as special tokens. Here they
        // are text, and their letters and signs are encoded apart.
        let signs = if SPELLED.contains(&word) { 2 } else { 0 };
        let (open, inner) = word.split_at(signs);
        let (inner, close) = inner.split_at(inner.len() - signs);
        [open, inner, close].into_iter().filter(|part| !part.is_empty())
    })
}

const SPELLED: [&str; 2] = ["<|startoftext|>", "<|endoftext|>"];
const CONTRACTIONS: [&str; 7] = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d"];

/// The length in bytes of the word with which `text` begins; `None` at its end.
fn word_length(text: &str) -> Option<usize> {
    let first = text.chars().next()?;
    if let Some(fixed) = SPELLED.iter().chain(&CONTRACTIONS).find(|fixed| text.starts_with(**fixed)) {
        return Some(fixed.len());
    }
    let end_of = |inside: fn(char) -> bool| text.find(|c| !inside(c)).unwrap_or(text.len());
    Some(if is_letter(first) {
        end_of(is_letter)
    } else if is_number(first) {
        first.len_utf8()
    } else {
        end_of(|c| !c.is_whitespace() && !is_number(c) && !is_letter(c))
    })
}

/// The merges of a merges.txt: number of the line, left and right token.
fn merge_lines(merges_txt: &[u8]) -> Result<Vec<(usize, &str, &str)>, Error> {
    let text = std::str::from_utf8(merges_txt).map_err(|error| {
        let line = 1 + merges_txt[..error.valid_up_to()].iter().filter(|&&byte| byte == b'\n').count();
        Error::Merge { line, reason: "it is not UTF-8".to_owned() }
    })?;
    let lines = text.lines().enumerate().filter(|&(index, line)| {
        let version = index == 0 && line.starts_with("#version");
        !version && !line.is_empty()
    });
    let merges = lines.map(|(index, line)| {
        let two =
            line.split_once(' ').filter(|(left, right)| !left.is_empty() && !right.is_empty() && !right.contains(' '));
        let reason = || format!("{line:?} is not two tokens with one space between them");
        let (left, right) = two.ok_or_else(|| Error::Merge { line: index + 1, reason: reason() })?;
        Ok((index + 1, left, right))
    });
    merges.collect()
}

fn merge_ids(vocab: &HashMap<String, u32>, left: &str, right: &str) -> Result<((u32, u32), u32), String> {
    let id = |token: &str| vocab.get(token).copied().ok_or_else(|| format!("token {token:?} is not in the vocabulary"));
    Ok(((id(left)?, id(right)?), id(&format!("{left}{right}"))?))
}

/// The tokens of a JSON object of them and their ids, if these are 0, 1, 2, … with none missing and none twice: the embedding has a
/// row for each.
fn vocabulary(file: &'static str, json: Map<String, Value>) -> Result<HashMap<String, u32>, Error> {
    let failed = |reason: String| Error::File { file, reason };
    let mut owners: Vec<Option<&str>> = vec![None; json.len()];
    for (token, id) in &json {
        let owner = id.as_u64().and_then(|id| owners.get_mut(usize::try_from(id).ok()?)).ok_or_else(|| {
            failed(format!(
                "token {token:?} has id {id} in a vocabulary of {}: ids are missing, or a token is there twice",
                json.len()
            ))
        })?;
        if let Some(other) = owner.replace(token) {
            return Err(failed(format!("tokens {other:?} and {token:?} both have id {id}")));
        }
    }
    Ok((0..).zip(owners.into_iter().flatten()).map(|(id, token)| (token.to_owned(), id)).collect())
}
