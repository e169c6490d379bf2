//! Values that options of several subcommands take: seeds and texts.

use std::ffi::OsStr;
use std::hash::{BuildHasher, RandomState};

use clap::builder::{StringValueParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::{Arg, Command};

use super::output::note;

/// A seed: one that was given, or any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed {
    /// What it is.
    pub value: u64,
    is_any: bool,
}

/// Reads a seed: a number, or `random` or -1 for any.
pub fn seed(text: &str) -> Result<Seed, String> {
    match text {
        // Short enough to be typed again. Each state hashes nothing to another number.
        "random" | "-1" => Ok(Seed { value: RandomState::new().hash_one(()) & u64::from(u32::MAX), is_any: true }),
        _ => match text.parse() {
            Ok(value) => Ok(Seed { value, is_any: false }),
            Err(_) => Err(format!("expected a whole number from 0 to {}, or `random` for any", u64::MAX)),
        },
    }
}

/// Says which seeds it has come to, where any would have done.
pub fn tell(seeds: &[Seed]) {
    if seeds.iter().any(|seed| seed.is_any) {
        let s = if seeds.len() == 1 { "" } else { "s" };
        let values: Vec<String> = seeds.iter().map(|seed| seed.value.to_string()).collect();
        note(format_args!("seed{s}: {}", values.join(",")));
    }
}

/// Has every option take what it may be given: a text that begins with a hyphen, or a number below zero, of which its own parser can
/// then say what is wrong. By itself clap takes both for options.
pub fn hyphens(command: Command) -> Command {
    command.mut_args(|arg| {
        let names = arg.get_value_names().unwrap_or_default();
        match names.first().map(|name| name.as_str()) {
            Some("TEXT") => arg.allow_hyphen_values(true).value_parser(TextParser),
            Some("NUMBER" | "PIXELS") => arg.allow_negative_numbers(true),
            Some("NUMBER,…" | "LIST" | "H,W" | "TOP,LEFT") => arg.allow_hyphen_values(true),
            _ => arg,
        }
    })
}

/// Takes any text but the name of an option, which is not what a picture is to show: the text before it was left out.
#[derive(Clone)]
struct TextParser;

impl TypedValueParser for TextParser {
    type Value = String;

    fn parse_ref(&self, command: &Command, arg: Option<&Arg>, value: &OsStr) -> Result<String, clap::Error> {
        let text = StringValueParser::new().parse_ref(command, arg, value)?;
        let name = text.split('=').next().unwrap_or_default();
        let is_name = |arg: &Arg| {
            let is_long = arg.get_long().is_some_and(|long| name.strip_prefix("--") == Some(long));
            is_long || arg.get_short().is_some_and(|short| text.strip_prefix('-') == Some(short.encode_utf8(&mut [0; 4])))
        };
        if !command.get_arguments().any(is_name) {
            return Ok(text);
        }
        let option = arg.map(ToString::to_string).unwrap_or_default();
        let message = format!("a value is required for '{option}' but none was supplied: '{name}' is another option\n");
        Err(clap::Error::raw(ErrorKind::ValueValidation, message).with_cmd(command))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_number_or_any() {
        assert_eq!(seed("18446744073709551615"), Ok(Seed { value: u64::MAX, is_any: false }));
        for any in ["random", "-1"] {
            let seeds: Vec<u64> = (0..8).map(|_| seed(any).unwrap().value).collect();
            assert!(seeds.iter().all(|&value| value <= u64::from(u32::MAX)), "{seeds:?}");
            assert!(seeds.iter().any(|&value| value != seeds[0]), "{seeds:?}");
        }
        for wrong in ["-2", "1.5", "18446744073709551616", "", "any", "1 "] {
            assert!(seed(wrong).unwrap_err().contains("or `random`"), "{wrong:?}");
        }
    }
}
