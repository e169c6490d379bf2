//! Values that options of several subcommands take: seeds, and what begins with a hyphen.

use std::ffi::{OsStr, OsString};
use std::hash::{BuildHasher, RandomState};

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

/// The arguments of `command` with each text that begins with a hyphen, or number below zero, joined to its option by `=`: by itself
/// clap takes what begins with a hyphen for an option. What is the name of one stays alone: the value before it was left out.
pub fn joined(command: &mut Command, arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    command.build();
    let command = &*command;
    let mut joined: Vec<OsString> = Vec::new();
    let mut subcommand = None;
    let mut arguments = arguments.peekable();
    while let Some(mut argument) = arguments.next() {
        let Some(given) = subcommand else {
            subcommand = argument.to_str().and_then(|name| command.find_subcommand(name));
            joined.push(argument);
            continue;
        };
        if argument == "--" {
            joined.push(argument);
            break;
        }
        let is_name = !argument.as_encoded_bytes().contains(&b'=');
        let takes_any = option(given, &argument).filter(|_| is_name).is_some_and(|option| {
            let kinds = ["TEXT", "NUMBER", "NUMBER,…", "LIST", "PIXELS", "H,W", "TOP,LEFT"];
            option.get_value_names().and_then(|names| names.first()).is_some_and(|name| kinds.contains(&name.as_str()))
        });
        let is_value = |next: &OsString| next.as_encoded_bytes().starts_with(b"-") && option(given, next).is_none();
        if takes_any && let Some(value) = arguments.next_if(is_value) {
            argument.push("=");
            argument.push(value);
        }
        joined.push(argument);
    }
    joined.extend(arguments);
    joined
}

/// The option of `command` that `argument` begins with.
fn option<'a>(command: &'a Command, argument: &OsStr) -> Option<&'a Arg> {
    let text = argument.to_str()?;
    command.get_arguments().find(|arg| {
        let is_short = |short: char| text.strip_prefix('-') == Some(short.encode_utf8(&mut [0; 4]));
        let name = text.split('=').next().and_then(|name| name.strip_prefix("--"));
        (arg.get_long().is_some() && arg.get_long() == name) || arg.get_short().is_some_and(is_short)
    })
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

    #[test]
    fn what_begins_with_a_hyphen_is_a_value_unless_it_is_an_option() {
        for (given, expected) in [
            ("sample m --prompt|-5 degrees|--seed|-1", "sample m --prompt=-5 degrees|--seed=-1"),
            ("sample m --prompt|--hot --|--out|-x", "sample m --prompt=--hot --|--out|-x"),
            ("sample m --prompt|--steps|3", "sample m --prompt|--steps|3"),
            ("sample m --prompt|--steps=3", "sample m --prompt|--steps=3"),
            ("sample m --prompt|-h", "sample m --prompt|-h"),
            ("sample m --negative-prompt|--help", "sample m --negative-prompt|--help"),
            ("sample m --prompt|a cat|--timesteps|-5,3", "sample m --prompt|a cat|--timesteps=-5,3"),
            ("sample m --prompt=-x|--vae-tiling|-y", "sample m --prompt=-x|--vae-tiling|-y"),
            ("sample m --prompt=-x|-y", "sample m --prompt=-x|-y"),
            ("sample m --|--prompt|-5", "sample m --|--prompt|-5"),
            ("schedule m --prompt|-5", "schedule m --prompt|-5"),
            ("--prompt|-5", "--prompt|-5"),
        ] {
            let split = |text: &str| {
                let (start, rest) = text.split_once(" m ").unwrap_or(("", text));
                let start = ["undiffuse", start].into_iter().filter(|part| !part.is_empty());
                start.chain(rest.split('|')).map(OsString::from).collect::<Vec<_>>()
            };
            assert_eq!(joined(&mut super::super::command(), split(given).into_iter()), split(expected));
        }
    }
}
