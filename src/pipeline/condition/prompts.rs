//! Prompts as token ids, as the text encoders of a checkpoint get them.

use crate::models::ClipTextConfig;
use crate::pipeline::error::Error;
use crate::pipeline::model::checkpoint::Model;
use crate::pipeline::options::{LongPrompts, SampleOptions, Text};
use crate::text::Tokenizer;

/// Most chunks of a prompt: some two thousand tokens with the usual text encoders.
const MAX_CHUNKS: usize = 32;

/// A text as rows of token ids for one encoder: one row, or as many as there are chunks.
pub(in crate::pipeline) type Chunks = Vec<Vec<u32>>;

/// All texts of a run for one text encoder.
#[derive(Debug)]
pub(in crate::pipeline) struct Texts {
    /// The texts of the prompts.
    pub prompts: Vec<Chunks>,
    /// The negative texts, one for each prompt, or none if there is no guidance or a zero embedding takes their place.
    pub negatives: Vec<Chunks>,
}

/// The texts of a run.
#[derive(Debug)]
pub(in crate::pipeline) struct Prompts {
    /// The texts for each text encoder of the model.
    pub encoders: Vec<Texts>,
    /// Tokens of a text, the same for all texts and encoders.
    pub tokens: usize,
    /// Words that the model cannot see, in a sentence for each text that is too long.
    pub warning: Option<String>,
}

impl Prompts {
    /// Tokenizes the prompts of `options`, and where there is guidance the negative ones.
    ///
    /// # Errors
    /// Lists of texts that do not fit each other, or a text that no text encoder of this length can take.
    pub fn new(model: &Model, options: &SampleOptions, guided: bool) -> Result<Self, Error> {
        let count = options.prompt.all().len();
        let fallback = |second: &Option<Text>, first: &Text| match second {
            // As in diffusers, an empty text for the second encoder is none.
            Some(text) if text.all().iter().any(|text| !text.is_empty()) => text.clone(),
            _ => first.clone(),
        };
        let zeros = options.negative_prompt.is_none() && model.zero_negative();
        let negative = options.negative_prompt.clone().unwrap_or_default();
        let second = fallback(&options.prompt_2, &options.prompt);
        let second_negative = fallback(&options.negative_prompt_2, &negative);
        let texts = [
            [("prompt", &options.prompt), ("negative_prompt", &negative)],
            [("prompt_2", &second), ("negative_prompt_2", &second_negative)],
        ];

        let mut lost: Vec<(&str, String)> = Vec::new();
        let mut encoders = Vec::new();
        for ((tokenizer, config), [prompt, negative]) in model.texts.iter().zip(texts) {
            let mut chunks = |(option, text): (&'static str, &Text)| -> Result<Vec<Chunks>, Error> {
                let texts = text.all();
                if texts.len() != count && texts.len() != 1 {
                    let message = format!("expected one text, or one for each of the {count} prompts");
                    return Err(Error::option(option, format!("a list of {}", texts.len()), message));
                }
                let encode = |text: &String| match options.long_prompts {
                    LongPrompts::Chunks => {
                        let chunks = in_chunks(tokenizer, config, text)?;
                        if chunks.len() > MAX_CHUNKS {
                            let found = format!("a text of {} chunks", chunks.len());
                            return Err(Error::option(option, found, format!("expected at most {MAX_CHUNKS}")));
                        }
                        Ok(chunks)
                    }
                    LongPrompts::Cut => {
                        let encoding = tokenizer.encode_padded(text, config.max_position_embeddings)?;
                        // Encoders that are told the same lose the same.
                        if let Some(words) = encoding.truncated.filter(|words| lost.iter().all(|(_, w)| w != words)) {
                            lost.push((option, words));
                        }
                        Ok(vec![encoding.ids])
                    }
                };
                let encoded = texts.iter().map(encode).collect::<Result<Vec<_>, Error>>()?;
                Ok(encoded.into_iter().cycle().take(count).collect())
            };
            let prompts = chunks(prompt)?;
            let negatives = if guided && !zeros { chunks(negative)? } else { Vec::new() };
            encoders.push(Texts { prompts, negatives });
        }
        let tokens = pad(model, &mut encoders)?;
        let sentence = |(option, words): &(&str, String)| {
            let words = shortened(words);
            format!("the {} is too long for this model; it does not see: {words}", option.replace('_', " "))
        };
        let warning = (!lost.is_empty()).then(|| lost.iter().map(sentence).collect::<Vec<_>>().join("; "));
        Ok(Self { encoders, tokens, warning })
    }
}

/// Words as a sentence can quote them: of many, the first and the last.
fn shortened(words: &str) -> String {
    const ENDS: usize = 6;
    let all: Vec<&str> = words.split_whitespace().collect();
    match all.len().saturating_sub(2 * ENDS) {
        // Few are told as briefly by themselves as by their number.
        0..=3 => words.to_owned(),
        more => {
            let (first, last) = (all[..ENDS].join(" "), all[ENDS + more..].join(" "));
            format!("{first} … and {more} more, to … {last}")
        }
    }
}

/// The ids of `text` in chunks that each have a BOS, an EOS and padding of their own.
///
/// # Errors
/// If that leaves no room for a word.
fn in_chunks(tokenizer: &Tokenizer, config: &ClipTextConfig, text: &str) -> Result<Chunks, Error> {
    let empty = tokenizer.encode_padded("", config.max_position_embeddings)?.ids;
    let ids = tokenizer.encode(text);
    let [bos, words @ .., eos] = &ids[..] else { return Ok(vec![empty]) };
    let Some(room) = empty.len().checked_sub(2).filter(|&room| room > 0) else {
        let message = format!("a chunk of {} tokens has no room for a word; cut the prompt", empty.len());
        return Err(Error::option("long_prompts", "chunks", message));
    };
    let chunk = |words: &[u32]| {
        let mut ids = empty.clone();
        let filled = [&[*bos], words, &[*eos]].concat();
        ids[..filled.len()].copy_from_slice(&filled);
        ids
    };
    let chunks: Chunks = words.chunks(room).map(chunk).collect();
    Ok(if chunks.is_empty() { vec![empty] } else { chunks })
}

/// Gives all texts as many chunks as the longest has; the number of their tokens.
fn pad(model: &Model, encoders: &mut [Texts]) -> Result<usize, Error> {
    let all = |texts: &Texts| texts.prompts.iter().chain(&texts.negatives).map(Vec::len).max();
    let chunks = encoders.iter().filter_map(all).max().unwrap_or(0);
    let mut lengths = Vec::new();
    for (texts, (tokenizer, config)) in encoders.iter_mut().zip(&model.texts) {
        let empty = tokenizer.encode_padded("", config.max_position_embeddings)?.ids;
        lengths.push(empty.len());
        texts.prompts.iter_mut().chain(&mut texts.negatives).for_each(|text| text.resize(chunks, empty.clone()));
    }
    match lengths[..] {
        [first, second] if first != second => {
            let message = format!("the text encoders take {first} and {second} tokens, which cannot lie side by side");
            Err(Error::Json { file: "text_encoder_2/config.json".into(), message })
        }
        [length, ..] => Ok(length * chunks),
        [] => Ok(0),
    }
}
