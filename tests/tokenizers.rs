//! The tokenizer against transformers' ids, and against texts and files that nobody would write.

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use serde_json::Value;
use undiffuse::text::{Error, TokenFiles, Tokenizer};

fn reference() -> PathBuf {
    let root = std::env::var_os("UNDIFFUSE_REFERENCE").map_or("tests/reference".into(), PathBuf::from);
    root.join("tokenizers")
}

/// The tokenizer in `folder`, from the files that it has.
fn load(folder: &Path) -> Result<Tokenizer, Error> {
    let file = |name: &str| fs::read(folder.join(name)).ok();
    let config = file("tokenizer_config.json");
    match (file("vocab.json"), file("merges.txt"), file("tokenizer.json")) {
        (Some(vocab), Some(merges), _) => {
            let map = file("special_tokens_map.json");
            let (config, special_tokens_map) = (config.as_deref(), map.as_deref());
            Tokenizer::from_files(&vocab, &merges, TokenFiles { config, special_tokens_map, ..TokenFiles::default() })
        }
        (_, _, Some(json)) => Tokenizer::from_tokenizer_json(&json, config.as_deref()),
        _ => panic!("{}: no tokenizer in this folder", folder.display()),
    }
}

fn tiny() -> Tokenizer {
    load(&reference().join("tiny")).unwrap()
}

fn ids(json: &Value) -> Vec<u32> {
    json.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

fn from_hex(hex: &str) -> String {
    let bytes = (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap());
    String::from_utf8(bytes.collect()).unwrap()
}

/// The names in `folder` that `keep` accepts, sorted.
fn names(folder: &Path, keep: impl Fn(&str) -> bool) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| keep(name));
    names.sort();
    names
}

#[test]
fn every_reference_text_gives_the_ids_of_transformers() {
    let root = reference();
    let (mut ran, mut failures) = (0, Vec::new());
    for list in names(&root, |name| name.starts_with("cases_") && name.ends_with(".json")) {
        let list: Value = serde_json::from_slice(&fs::read(root.join(list)).unwrap()).unwrap();
        let folder = list["tokenizer_dir"].as_str().unwrap();
        let other_savers = format!("{folder}_as_saved_by_");
        for folder in names(&root, |name| name == folder || name.starts_with(&other_savers)) {
            let tokenizer = load(&root.join(&folder)).unwrap();
            assert_eq!(tokenizer.vocab_size() as u64, list["vocab_size"].as_u64().unwrap(), "{folder}");
            for case in list["cases"].as_array().unwrap() {
                let text = from_hex(case["text_utf8_hex"].as_str().unwrap());
                let expected = ids(&case["ids"]);
                let padded = ids(&case["ids_77"]);
                let encoding = tokenizer.encode_padded(&text, padded.len()).unwrap();
                let checks = [(tokenizer.encode(&text), &expected), (encoding.ids, &padded)];
                for (got, expected) in checks.iter().filter(|(got, expected)| got != *expected) {
                    let at = got.iter().zip(*expected).position(|(a, b)| a != b);
                    let case = &case["i"];
                    failures.push(format!("{folder}, case {case}, {text:?}, at {at:?}:\n  {got:?}\n  {expected:?}"));
                }
                assert_eq!(encoding.truncated.is_some(), expected.len() > padded.len(), "{folder}, {text:?}");
                ran += 1;
            }
        }
    }
    println!("tokenizers: {ran} cases ran, none skipped");
    assert!(ran > 0, "{}: no cases", root.display());
    assert!(failures.is_empty(), "{} of {ran} cases differ:\n{}", failures.len(), failures.join("\n"));
}

/// What transformers 5.23 gives for the tiny vocabulary with these files.
#[test]
fn the_files_decide_where_special_tokens_are_found() {
    let folder = reference().join("tiny");
    let vocab = fs::read(folder.join("vocab.json")).unwrap();
    let merges = fs::read(folder.join("merges.txt")).unwrap();
    let tokens = |config: Option<&str>, map: Option<&str>| {
        let (config, special_tokens_map) = (config.map(str::as_bytes), map.map(str::as_bytes));
        let files = TokenFiles { config, special_tokens_map, ..TokenFiles::default() };
        let tokenizer = Tokenizer::from_files(&vocab, &merges, files).unwrap();
        let padding = *tokenizer.encode_padded("", 77).unwrap().ids.last().unwrap();
        let ids = tokenizer.encode("!<|STARTOFTEXT|>b <|endoftext|>! <|ENDOFTEXT|>!");
        (padding, [0, 839, 840].map(|special| ids[1..ids.len() - 1].iter().filter(|&&id| id == special).count()))
    };
    let flags = |content: &str| {
        format!(
            r#"{{"content": "{content}", "lstrip": false, "normalized": true, "rstrip": false, "single_word": false}}"#
        )
    };
    let (start, end) = (flags("<|startoftext|>"), flags("<|endoftext|>"));
    let dicts = format!(r#"{{"bos_token": {start}, "eos_token": {end}, "pad_token": "<|endoftext|>"}}"#);

    // Nothing said, or plain strings: in the text as typed, and only in lower case.
    assert_eq!(tokens(None, None), (840, [1, 0, 1]));
    assert_eq!(tokens(Some(r#"{"bos_token": "<|startoftext|>"}"#), None), (840, [1, 0, 1]));
    // With flags: in the normalized text, so in any case. The plain pad token that comes later wins for the end token.
    assert_eq!(tokens(Some(&dicts), None), (840, [0, 1, 1]));
    // The map wins over the config. "!" as padding is a special token everywhere.
    let unk = format!(r#"{{"pad_token": "!", "unk_token": {end}}}"#);
    assert_eq!(tokens(Some(&dicts), Some(&unk)), (0, [3, 1, 2]));
    // Unless the config lists its tokens, whose flags then stand.
    let listed = format!(r#"{{"bos_token": {start}, "added_tokens_decoder": {{"0": {}, "840": {end}}}}}"#, flags("!"));
    assert_eq!(tokens(Some(&listed), Some(&unk)), (840, [3, 1, 2]));
}

/// What transformers 5.24 gives for the tiny vocabulary with these files.
#[test]
fn tokens_that_were_added_have_the_ids_that_their_file_gives_them() {
    let folder = reference().join("tiny");
    let vocab = fs::read(folder.join("vocab.json")).unwrap();
    let merges = fs::read(folder.join("merges.txt")).unwrap();
    let ids = |files: TokenFiles, text: &str| -> Result<Vec<u32>, String> {
        let tokenizer = Tokenizer::from_files(&vocab, &merges, files).map_err(|error| error.to_string())?;
        Ok(tokenizer.encode(text).into_iter().filter(|&id| id >= 839).collect())
    };
    let text = "a <my-cat> in <MY-STYLE>, <my-cat><my-style>";
    let cat_and_style = br#"{"<my-style>": 842, "<my-cat>": 841, "<|endoftext|>": 840}"#;
    let added = TokenFiles { added_tokens: Some(cat_and_style), ..TokenFiles::default() };
    assert_eq!(ids(TokenFiles::default(), text), Ok(vec![839, 840]));
    assert_eq!(ids(added, text), Ok(vec![839, 841, 842, 841, 842, 840]));
    // A tokenizer.json beside the vocabulary lists them too.
    let json = br#"{"added_tokens": [{"id": 841, "content": "<my-cat>", "normalized": true}], "model": {}}"#;
    let json = TokenFiles { tokenizer: Some(json), ..TokenFiles::default() };
    assert_eq!(ids(json, text), Ok(vec![839, 841, 841, 840]));
    // A config that lists what was added says all.
    let complete = TokenFiles { config: Some(br#"{"added_tokens_decoder": {}}"#), ..added };
    assert!(complete.are_complete() && !added.are_complete());
    assert_eq!(ids(complete, text), Ok(vec![839, 840]));

    let refusal = |added_tokens: &str| {
        ids(TokenFiles { added_tokens: Some(added_tokens.as_bytes()), ..TokenFiles::default() }, "").unwrap_err()
    };
    assert_eq!(refusal(r#"{"<x>": "841"}"#), "added_tokens.json: token \"<x>\" has \"841\" for an id");
    assert!(refusal(r#"{"<x>": 850}"#).contains("token \"<x>\" is listed with id 850, and is 841"));
    assert!(refusal("[]").starts_with("added_tokens.json: "));
}

#[test]
fn a_long_prompt_ends_in_eos_and_says_what_was_lost() {
    let tokenizer = tiny();
    let whole = tokenizer.encode("A painting of the LIGHT and a fox");
    let encoding = tokenizer.encode_padded("A painting of the LIGHT and a fox", 6).unwrap();
    assert_eq!(encoding.ids[..5], whole[..5]);
    assert_eq!(encoding.ids[5], *whole.last().unwrap());
    assert_eq!(encoding.truncated.as_deref(), Some("light and a fox"));
    assert_eq!(tokenizer.encode_padded("fox", 6).unwrap().truncated, None);
    assert_eq!(tokenizer.encode_padded("fox", 1), Err(Error::TooFewPositions { positions: 1 }));
    assert_eq!(tokenizer.encode_padded("fox", 512).unwrap().ids.len(), 77, "model_max_length");
}

#[test]
fn a_word_of_a_megabyte_takes_no_quadratic_time() {
    let tokenizer = tiny();
    let count = tokenizer.encode(&"in".repeat(1 << 19)).len();
    assert!(count > 1000, "{count}");
}

#[test]
fn a_malformed_file_is_named_with_the_line_or_token_at_fault() {
    const VOCAB: &str = r#"{"a": 0, "b</w>": 1, "ab</w>": 2, "<|startoftext|>": 3, "<|endoftext|>": 4}"#;
    let read = |vocab: &str, merges: &[u8], config: Option<&str>| {
        let files = TokenFiles { config: config.map(str::as_bytes), ..TokenFiles::default() };
        Tokenizer::from_files(vocab.as_bytes(), merges, files)
            .map(|tokenizer| tokenizer.encode("ab"))
            .map_err(|error| error.to_string())
    };
    assert_eq!(read(VOCAB, b"#version: 0.2\r\na b</w>\r\n", None), Ok(vec![3, 2, 4]));

    let refused = |vocab: &str, merges: &[u8], config: Option<&str>, parts: &[&str]| {
        let message = read(vocab, merges, config).unwrap_err();
        assert!(parts.iter().all(|part| message.contains(part)), "{message:?} should name {parts:?}");
    };
    refused("[]", b"", None, &["vocab.json", "JSON object"]);
    refused("{\"a\": 0", b"", None, &["vocab.json", "line 1"]);
    refused(r#"{"a": -1}"#, b"", None, &["vocab.json"]);
    refused(r#"{"a": 0, "a": 1}"#, b"", None, &["vocab.json", "\"a\" has id 1"]);
    refused(r#"{"a": 0, "b": 0}"#, b"", None, &["vocab.json", "both have id 0"]);
    refused(r#"{"a": 0, "b": 2}"#, b"", None, &["vocab.json", "\"b\" has id 2"]);
    refused(r#"{"a": 0}"#, b"", None, &["bos_token", "<|startoftext|>"]);
    refused(VOCAB, b"#version: 0.2\nab", None, &["merges.txt: line 2", "two tokens"]);
    refused(VOCAB, b"a b</w>\na b c", None, &["merges.txt: line 2", "two tokens"]);
    refused(VOCAB, b"a b</w>\n\na  b", None, &["merges.txt: line 3", "two tokens"]);
    refused(VOCAB, b"a b</w>\na c", None, &["merges.txt: line 2", "\"c\" is not in the vocabulary"]);
    refused(VOCAB, b"b</w> a", None, &["merges.txt: line 1", "\"b</w>a\""]);
    refused(VOCAB, b"a b</w>\n\xFF", None, &["merges.txt: line 2", "UTF-8"]);
    refused(VOCAB, b"", Some(r#"{"pad_token": "!"}"#), &["pad_token", "\"!\""]);
    refused(VOCAB, b"", Some(r#"{"pad_token": 5}"#), &["tokenizer_config.json", "5 is no special token"]);
    refused(VOCAB, b"", Some(r#"{"model_max_length": "77"}"#), &["model_max_length is \"77\"", "a number"]);
    refused(VOCAB, b"", Some(r#"{"added_tokens_decoder": [1]}"#), &["added_tokens_decoder is no object"]);
    refused(VOCAB, b"", Some(r#"{"added_tokens_decoder": {"x": "a"}}"#), &["added_tokens_decoder has \"x\" for an id"]);
    refused(VOCAB, b"", Some(r#"{"model_max_length": 1}"#), &["tokenizer_config.json", "model_max_length"]);
    refused(VOCAB, b"", Some(r#"{"added_tokens_decoder": {"9": {"content": "a"}}}"#), &["\"a\"", "id 9"]);
    let stripping = r#"{"eos_token": {"content": "<|endoftext|>", "lstrip": true}}"#;
    refused(VOCAB, b"", Some(stripping), &["tokenizer_config.json", "lstrip"]);

    let other = Tokenizer::from_tokenizer_json(br#"{"model": {"type": "BPE", "vocab": {}, "merges": []}}"#, None);
    assert!(other.unwrap_err().to_string().contains("not CLIP's BPE"));

    let in_one_file = |merges: &str, added: &str| {
        let vocab = r#"{"a": 0, "b</w>": 1, "ab</w>": 2, "<|startoftext|>": 3, "<|endoftext|>": 4}"#;
        let model = format!(r#"{{"type": "BPE", "end_of_word_suffix": "</w>", "vocab": {vocab}, "merges": {merges}}}"#);
        Tokenizer::from_tokenizer_json(format!(r#"{{"model": {model}, "added_tokens": {added}}}"#).as_bytes(), None)
    };
    let message = |merges, added| in_one_file(merges, added).unwrap_err().to_string();
    assert!(in_one_file(r#"[["a", "b</w>"]]"#, r#"[{"id": 4, "content": "<|endoftext|>"}]"#).is_ok());
    assert!(message("[7]", "[]").contains("tokenizer.json: merge 0 is 7, expected two tokens"));
    assert!(message("[]", r#"[{"content": "a"}]"#).contains("has no id"));
    assert!(message("[]", r#"[{"id": 4, "content": 5}]"#).contains("is no special token"));
}

proptest! {
    #[test]
    fn any_text_gives_ids_of_the_vocabulary(text in "\\PC*|[a-z'<|>! \u{301}\u{130}]{0,40}|.*") {
        let tokenizer = tiny();
        let ids = tokenizer.encode(&text);
        prop_assert_eq!((ids[0], ids[ids.len() - 1]), (839, 840));
        prop_assert!(ids.iter().all(|&id| (id as usize) < tokenizer.vocab_size()));
        let padded = tokenizer.encode_padded(&text, 77).unwrap();
        prop_assert_eq!(padded.ids.len(), 77);
        prop_assert_eq!(padded.truncated.is_some(), ids.len() > 77);
    }

    #[test]
    fn case_and_the_width_of_blanks_do_not_matter(text in "[a-zA-Z0-9 ,.'é-]{0,60}") {
        let tokenizer = tiny();
        let ids = tokenizer.encode(&text);
        prop_assert_eq!(&ids, &tokenizer.encode(&text.to_uppercase()));
        prop_assert_eq!(&ids, &tokenizer.encode(&text.replace(' ', " \n\u{3000}")));
    }

    #[test]
    fn plain_text_survives_decoding(text in "[a-z]{1,9}( [a-z]{1,9}){0,5}") {
        let tokenizer = tiny();
        let ids = tokenizer.encode(&text);
        prop_assert_eq!(tokenizer.decode(&ids[1..ids.len() - 1]), text);
    }

    #[test]
    fn arbitrary_files_are_refused_without_a_panic(
        vocab in prop::collection::vec(any::<u8>(), 0..200),
        merges in prop::collection::vec(any::<u8>(), 0..200),
        config in "\\{\"(bos_token|model_max_length|added_tokens_decoder)\": (\\{\\}|-1|1e400|\"\"|null)\\}",
    ) {
        let valid = br#"{"a": 0, "<|startoftext|>": 1, "<|endoftext|>": 2}"#;
        let config = config.as_bytes();
        let _ = Tokenizer::from_files(&vocab, &merges, TokenFiles::default());
        let _ = Tokenizer::from_files(valid, &merges, TokenFiles { config: Some(config), ..TokenFiles::default() });
        for any in [&vocab, &merges] {
            let files = TokenFiles { config: None, special_tokens_map: Some(any), added_tokens: Some(any), tokenizer: Some(any) };
            let _ = Tokenizer::from_files(valid, b"", files);
        }
        let _ = Tokenizer::from_tokenizer_json(&vocab, Some(config));
    }
}
