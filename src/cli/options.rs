//! The options of a record as arguments: made from the library's description of each, and read into the library's options.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::path::PathBuf;

use clap::builder::{PossibleValue, PossibleValuesParser, RangedU64ValueParser};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use serde_json::{Map, Value, json};
use undiffuse::pipeline::spec::{Described, Field, Kind, Recorded, described, with_names};
use undiffuse::pipeline::{self, BoundOptions, SampleOptions, Scheduler, camel_case};

use super::values::{Seed, seed};
use super::{Error, picture, scheduler};

/// A record of options in the library.
pub trait Record: Sized {
    /// Every field as the command has it.
    const FIELDS: &'static [Field];

    /// Reads the options from JSON.
    fn from_json(json: Map<String, Value>) -> Result<Self, pipeline::Error>;
}

impl Record for SampleOptions {
    const FIELDS: &'static [Field] = Self::FIELDS;

    fn from_json(json: Map<String, Value>) -> Result<Self, pipeline::Error> {
        Self::from_json(json)
    }
}

impl Record for BoundOptions {
    const FIELDS: &'static [Field] = Self::FIELDS;

    fn from_json(json: Map<String, Value>) -> Result<Self, pipeline::Error> {
        Self::from_json(json)
    }
}

/// The options of a record that were given.
pub struct Given<R> {
    /// Those that were given, and the defaults that a picture says, as JSON under JavaScript's names.
    pub values: Map<String, Value>,
    /// The files that were given, by their options.
    pub files: BTreeMap<&'static str, PathBuf>,
    /// The seeds: one for each picture, or one for all.
    pub seeds: Vec<Seed>,
    record: PhantomData<R>,
}

impl Given<SampleOptions> {
    /// The options of the library, with the pictures read.
    pub fn read_with_files(&self) -> Result<SampleOptions, Error> {
        let mut options = self.read()?;
        for (&name, path) in &self.files {
            match name {
                "image" => options.image = Some(picture::read(path)?),
                "mask" => options.mask = Some(picture::read(path)?),
                "scheduler" => {
                    let config = scheduler::Scheduler::read(path)?.config;
                    options.scheduler = Scheduler::Config(Box::new(config));
                }
                name => unreachable!("no option `{name}` is a file"),
            }
        }
        Ok(options)
    }

    /// The number of prompts, and that of pictures of each.
    pub fn counts(&self) -> [usize; 2] {
        let each = self.values.get("numImagesPerPrompt").and_then(Value::as_u64).unwrap_or(1);
        [self.texts("prompt").len().max(1), usize::try_from(each).unwrap_or(usize::MAX)]
    }
}

impl<R: Record> Given<R> {
    /// The options of the library, without files.
    pub fn read(&self) -> Result<R, Error> {
        Ok(R::from_json(self.values.clone())?)
    }

    /// True if `name` was given.
    pub fn has(&self, name: &str) -> bool {
        self.files.contains_key(name) || self.values.contains_key(&camel_case(name))
    }

    /// What a picture of prompt number `prompt` says of the values: those that were given and are not the default, and some whatever
    /// they are.
    pub fn recorded(&self, prompt: usize) -> Vec<(String, Value)> {
        let own = |option: Described| {
            let name = camel_case(option.name);
            let value = match self.values.get(&name)? {
                Value::Array(texts) if option.spec.kind == Kind::Texts => texts.get(prompt)?,
                value => value,
            };
            let default = option.default.and_then(|json| serde_json::from_str(&json).ok());
            let is_default = default.is_some_and(|default| is_same(&default, value));
            let is_recorded = match option.spec.recorded {
                Recorded::Always => true,
                Recorded::Given => !is_default,
                Recorded::Never => false,
            };
            is_recorded.then(|| (name, value.clone()))
        };
        described(R::FIELDS).into_iter().filter_map(own).collect()
    }

    /// The texts of the prompt `name`: none, one, or one for each picture's prompt.
    pub fn texts(&self, name: &str) -> Vec<String> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        match self.values.get(&camel_case(name)) {
            Some(Value::Array(texts)) => texts.iter().filter_map(text).collect(),
            value => value.and_then(text).into_iter().collect(),
        }
    }
}

impl<R: Record> clap::Args for Given<R> {
    fn augment_args(command: Command) -> Command {
        let options = described(R::FIELDS);
        options.iter().filter_map(|option| argument(option, &options)).fold(command, Command::arg)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<R: Record> clap::FromArgMatches for Given<R> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut given = Self { values: Map::new(), files: BTreeMap::new(), seeds: Vec::new(), record: PhantomData };
        for option in described(R::FIELDS).iter().filter(|option| option.spec.command.is_some()) {
            let is_given = matches.value_source(option.name) == Some(ValueSource::CommandLine);
            if is_given || option.spec.recorded == Recorded::Always {
                given.take(option, matches);
            }
        }
        Ok(given)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl<R> Given<R> {
    /// Takes what `matches` has of an option.
    fn take(&mut self, option: &Described, matches: &ArgMatches) {
        let name = option.name;
        let value = match option.spec.kind {
            Kind::Text | Kind::Name(_) | Kind::Choice(_) => json!(one::<String>(matches, name)),
            Kind::Texts => match &list::<String>(matches, name)[..] {
                [text] => json!(text),
                texts => json!(texts),
            },
            Kind::Steps | Kind::Count | Kind::Whole => json!(one::<usize>(matches, name)),
            Kind::Number => one(matches, name).map_or(Value::Null, number),
            Kind::Numbers => list(matches, name).iter().map(number).collect(),
            Kind::Wholes => json!(list::<usize>(matches, name)),
            Kind::Pair(_) => json!(one::<[usize; 2]>(matches, name)),
            Kind::Flag | Kind::Setting => json!(one::<bool>(matches, name)),
            Kind::Seed | Kind::Seeds => {
                let given: Vec<Seed> = list(matches, name);
                let seeds: Vec<String> = given.iter().map(|seed| seed.value.to_string()).collect();
                // One for each picture goes before one for all, which is there by default.
                if option.spec.kind == Kind::Seeds || self.seeds.is_empty() {
                    self.seeds = given;
                }
                if option.spec.kind == Kind::Seed { json!(seeds.first()) } else { json!(seeds) }
            }
            // The library reads the name again, and what it says beside the solver.
            Kind::Solver => json!(matches.get_raw(name).and_then(|mut names| names.next()?.to_str())),
            Kind::Config | Kind::Picture | Kind::Pictures => {
                self.files.extend(one::<PathBuf>(matches, name).map(|path| (name, path.clone())));
                return;
            }
        };
        self.values.insert(camel_case(name), value);
    }
}

/// True if both are the same, and numbers the same number.
fn is_same(one: &Value, other: &Value) -> bool {
    one == other || one.as_f64().is_some_and(|number| Some(number) == other.as_f64())
}

/// A number as JSON, which has none that is not finite: those are strings.
fn number(value: &f64) -> Value {
    if value.is_finite() { json!(value) } else { json!(value.to_string()) }
}

fn one<'a, T: Clone + Send + Sync + 'static>(matches: &'a ArgMatches, name: &str) -> Option<&'a T> {
    matches.get_one(name)
}

fn list<T: Clone + Send + Sync + 'static>(matches: &ArgMatches, name: &str) -> Vec<T> {
    matches.get_many(name).into_iter().flatten().cloned().collect()
}

/// The option as an argument; `None` if the command has none.
fn argument(option: &Described, options: &[Described]) -> Option<Arg> {
    let spec = &option.spec;
    let more = spec.command?;
    let flag = |name: &str| format!("--{}", name.replace('_', "-"));
    let words = with_names(&option.words, options, &flag);
    let words = [words, with_names(more, options, &flag)].join(" ");
    let name = |usual: &'static str| spec.value_name.unwrap_or(usual);
    let arg = Arg::new(option.name)
        .long(option.name.replace('_', "-"))
        .help(words.trim_end_matches([' ', '.']).to_owned())
        .conflicts_with_all(spec.conflicts);
    let arg = spec.requires.iter().fold(arg, |arg, other| arg.requires(*other));
    let arg = match spec.kind {
        Kind::Text | Kind::Name(_) => arg.value_name(name(if spec.kind == Kind::Text { "TEXT" } else { "NAME" })),
        Kind::Texts => arg.value_name(name("TEXT")).action(ArgAction::Append),
        Kind::Seed => arg.value_name(name("NUMBER")).value_parser(seed),
        Kind::Seeds => separated(arg.value_name(name("NUMBER,…"))).value_parser(seed),
        Kind::Steps => arg.value_name(name("NUMBER")).value_parser(scheduler::steps),
        Kind::Count | Kind::Whole => arg.value_name(name("NUMBER")).value_parser(RangedU64ValueParser::<usize>::new()),
        Kind::Number => arg.value_name(name("NUMBER")).value_parser(value_parser!(f64)),
        Kind::Numbers => separated(arg.value_name(name("NUMBER,…"))).value_parser(value_parser!(f64)),
        Kind::Wholes => separated(arg.value_name(name("NUMBER,…"))).value_parser(RangedU64ValueParser::<usize>::new()),
        Kind::Pair(sides) => {
            let shown = if sides == ["top", "left"] { "TOP,LEFT" } else { "H,W" };
            arg.value_name(name(shown)).value_parser(pair)
        }
        Kind::Flag => arg.action(ArgAction::SetTrue),
        Kind::Setting => arg
            .value_name(name("true|false"))
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .value_parser(value_parser!(bool)),
        Kind::Choice(names) => {
            let shown = |(name, words): &(&'static str, &'static str)| PossibleValue::new(name).help(words);
            let named = spec.value_name.map_or_else(|| option.name.to_uppercase(), str::to_owned);
            arg.value_name(named).value_parser(PossibleValuesParser::new(names.iter().map(shown)))
        }
        Kind::Solver => arg.value_name(name("NAME")).value_parser(scheduler::SolverParser),
        Kind::Config => arg.value_name(name("CONFIG")).value_parser(value_parser!(PathBuf)),
        Kind::Picture | Kind::Pictures => arg.value_name(name("FILE")).value_parser(value_parser!(PathBuf)),
    };
    Some(match &option.default {
        Some(default) if !matches!(spec.kind, Kind::Flag | Kind::Pair(_)) => {
            arg.default_value(default.trim_matches('"').to_owned())
        }
        _ => arg,
    })
}

/// An argument of several values, with commas between them or given several times.
fn separated(arg: Arg) -> Arg {
    arg.value_delimiter(',').action(ArgAction::Append)
}

/// The two whole numbers of `text`.
fn pair(text: &str) -> Result<[usize; 2], String> {
    let numbers =
        text.split_once(',').and_then(|(one, other)| Some([one.trim().parse().ok()?, other.trim().parse().ok()?]));
    numbers.ok_or_else(|| "expected two whole numbers with a comma between them, such as 512,768".into())
}

#[cfg(test)]
mod tests {
    use clap::{Args, FromArgMatches};

    use super::*;

    fn given<R: Record>(arguments: &str) -> Given<R> {
        let command = Given::<R>::augment_args(Command::new("test"));
        let matches = command.try_get_matches_from(["test"].into_iter().chain(arguments.split_whitespace())).unwrap();
        Given::from_arg_matches(&matches).unwrap()
    }

    fn recorded(arguments: &str) -> Value {
        let recorded = given::<SampleOptions>(arguments).recorded(0);
        recorded.into_iter().filter(|(name, _)| !["steps", "seed", "guidanceScale"].contains(&name.as_str())).collect()
    }

    #[test]
    fn a_list_may_be_given_in_parts() {
        let options = given::<SampleOptions>("--seeds 1,2 --seeds 3 --timesteps 9,5 --timesteps 1");
        let values: Vec<u64> = options.seeds.iter().map(|seed| seed.value).collect();
        let read = options.read().unwrap();
        assert_eq!((values, read.seeds, read.timesteps), (vec![1, 2, 3], vec![1, 2, 3], Some(vec![9.0, 5.0, 1.0])));
        let bound = given::<BoundOptions>("--timesteps 1 --timesteps 0,4").read().unwrap();
        assert_eq!(bound.timesteps, pipeline::Timesteps::List(vec![1, 0, 4]));
    }

    #[test]
    fn a_picture_says_what_was_given_and_is_not_the_default() {
        let defaults = "--eta 0 --guidance-rescale 0.0 --generator cpu --long-prompts cut --crops-coords-top-left 0,0";
        assert_eq!(recorded(defaults), json!({}));
        assert_eq!(
            recorded("--eta 1 --generator cuda --clip-skip 1 --vae-tiling --target-size 2,3 --prompt a --prompt b"),
            json!({
                "eta": 1.0, "generator": "cuda", "clipSkip": 1, "vaeTiling": true, "targetSize": [2, 3], "prompt": "a",
            })
        );
        assert_eq!(recorded("--seeds 1,2 --num-images-per-prompt 2"), json!({}));
    }

    #[test]
    fn a_number_that_is_not_finite_is_handed_on() {
        assert!(given::<SampleOptions>("--guidance-scale NaN").read().unwrap().guidance_scale.is_nan());
        assert_eq!(given::<SampleOptions>("--sigmas 3,inf").read().unwrap().sigmas, Some(vec![3.0, f64::INFINITY]));
    }
}
