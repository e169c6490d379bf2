//! Options as JSON has them, under the names of JavaScript.

use serde_json::{Map, Value};

use super::names::camel_case;
use super::values::{LongPrompts, Preview, Scheduler, Space, Text, Timesteps};
use crate::diffusion::{Cdf, SchedulerConfig, SolverKeys, SolverName, Variance};
use crate::noise::Stream;
use crate::pipeline::error::Error;
use crate::pipeline::rgba::Rgba;

/// Options that were given.
pub(super) struct Given {
    json: Map<String, Value>,
    /// The options that were asked for, under the names that they have in `json`.
    known: Vec<String>,
    /// Settings that the name of the solver said.
    named: SolverKeys,
    /// The first that is wrong.
    error: Option<Error>,
}

impl Given {
    pub fn new(json: Map<String, Value>) -> Self {
        Self { json, known: Vec::new(), named: SolverKeys::default(), error: None }
    }

    /// The value of the option `name`, unless it is null.
    fn value(&mut self, name: &str) -> Option<&Value> {
        self.known.push(camel_case(name));
        self.json.get(self.known.last()?).filter(|value| !value.is_null())
    }

    fn plain<T: Plain>(&mut self, name: &'static str) -> Option<T> {
        let value = self.value(name)?;
        let plain = T::of(value);
        if plain.is_none() {
            let value = value.clone();
            self.refuse(name, value, T::EXPECTED);
        }
        plain
    }

    /// Remembers what is wrong with an option. One word for all of them at the end keeps the code of each short.
    fn refuse(&mut self, name: &'static str, value: Value, message: &str) {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        self.error.get_or_insert(Error::option(name, value, message));
    }

    /// Unwraps what was made of an option.
    fn checked<T>(&mut self, made: Result<T, crate::diffusion::Error>) -> Option<T> {
        match made {
            Ok(made) => Some(made),
            Err(error) => {
                self.error.get_or_insert(error.into());
                None
            }
        }
    }

    /// Refuses what was wrong, and what nobody has asked for.
    pub fn finish(self) -> Result<(), Error> {
        match (self.error, self.json.keys().find(|&name| !self.known.contains(name))) {
            (Some(error), _) => Err(error),
            (None, Some(unknown)) => Err(Error::option("options", format!("`{unknown}`"), "there is no such option")),
            (None, None) => Ok(()),
        }
    }
}

/// A field of a record of options.
pub(super) trait Take: Sized {
    /// The field `name` of what was given; `None` if it is absent or wrong, which is known at the end.
    fn take(given: &mut Given, name: &'static str) -> Option<Self>;
}

/// A field that is one value of JSON.
trait Plain: Sized {
    /// Description of the values that are expected.
    const EXPECTED: &'static str;

    /// The value in Rust; `None` if `value` is none of the expected.
    fn of(value: &Value) -> Option<Self>;
}

impl<T: Plain> Take for T {
    fn take(given: &mut Given, name: &'static str) -> Option<Self> {
        given.plain(name)
    }
}

impl<T: Plain> Take for Option<T> {
    fn take(given: &mut Given, name: &'static str) -> Option<Self> {
        given.plain(name).map(Some)
    }
}

impl Plain for bool {
    const EXPECTED: &'static str = "expected true or false";

    fn of(value: &Value) -> Option<Self> {
        value.as_bool()
    }
}

/// JSON has no words for what is not finite: those are strings, as JavaScript and Rust write them, and are refused where they are used.
impl Plain for f64 {
    const EXPECTED: &'static str = "expected a number";

    fn of(value: &Value) -> Option<Self> {
        let Some(word) = value.as_str() else { return value.as_f64() };
        match word {
            "NaN" => Some(f64::NAN),
            "Infinity" | "inf" => Some(f64::INFINITY),
            "-Infinity" | "-inf" => Some(f64::NEG_INFINITY),
            _ => None,
        }
    }
}

impl Plain for usize {
    const EXPECTED: &'static str = "expected a whole number";

    fn of(value: &Value) -> Option<Self> {
        value.as_u64()?.try_into().ok()
    }
}

/// A seed may be larger than the largest whole number that JavaScript's numbers hold exactly, and is written as a string.
impl Plain for u64 {
    const EXPECTED: &'static str = "expected a whole number from 0 to 2^64 - 1";

    fn of(value: &Value) -> Option<Self> {
        value.as_u64().or_else(|| value.as_str()?.parse().ok())
    }
}

impl Plain for String {
    const EXPECTED: &'static str = "expected a text";

    fn of(value: &Value) -> Option<Self> {
        value.as_str().map(str::to_owned)
    }
}

impl<T: Plain> Plain for Vec<T> {
    const EXPECTED: &'static str = "expected a list";

    fn of(value: &Value) -> Option<Self> {
        value.as_array()?.iter().map(T::of).collect()
    }
}

impl Plain for [usize; 2] {
    const EXPECTED: &'static str = "expected two whole numbers";

    fn of(value: &Value) -> Option<Self> {
        match value.as_array().map(Vec::as_slice) {
            Some([one, other]) => Some([Plain::of(one)?, Plain::of(other)?]),
            _ => None,
        }
    }
}

impl Plain for Text {
    const EXPECTED: &'static str = "expected a text, or a list of texts";

    fn of(value: &Value) -> Option<Self> {
        match value {
            Value::String(text) => Some(text.as_str().into()),
            list => Vec::<String>::of(list).map(Self::from),
        }
    }
}

/// A field that is the name of one of a few values.
macro_rules! choices {
    ($($type:ty: $expected:literal { $($name:literal => $value:expr,)* })*) => {
        $(impl Plain for $type {
            const EXPECTED: &'static str = $expected;

            fn of(value: &Value) -> Option<Self> {
                match value.as_str()? {
                    $($name => Some($value),)*
                    _ => None,
                }
            }
        })*
    };
}

choices! {
    Stream: "expected cpu or cuda" {
        "cpu" => Self::TorchCpu,
        "cuda" => Self::TorchCuda,
    }
    LongPrompts: "expected cut or chunks" {
        "cut" => Self::Cut,
        "chunks" => Self::Chunks,
    }
    Preview: "expected auto, decode, tiny, linear or none" {
        "auto" => Self::Auto,
        "decode" => Self::Decode,
        "tiny" => Self::Tiny,
        "linear" => Self::Linear,
        "none" => Self::None,
    }
    Space: "expected latents or pixels" {
        "latents" => Self::Latents,
        "pixels" => Self::Pixels,
    }
    Cdf: "expected exact or tanh" {
        "exact" => Self::Exact,
        "tanh" => Self::Tanh,
    }
}

impl Take for Option<Variance> {
    fn take(given: &mut Given, name: &'static str) -> Option<Self> {
        let name: String = given.plain(name)?;
        given.checked(name.parse()).map(Some)
    }
}

/// Pictures are no JSON.
impl Take for Option<Rgba> {
    fn take(_: &mut Given, _: &'static str) -> Option<Self> {
        None
    }
}

impl Take for Rgba {
    fn take(_: &mut Given, _: &'static str) -> Option<Self> {
        None
    }
}

impl Take for Vec<Rgba> {
    fn take(_: &mut Given, _: &'static str) -> Option<Self> {
        None
    }
}

impl Take for Scheduler {
    fn take(given: &mut Given, name: &'static str) -> Option<Self> {
        let config = given.value(name).cloned();
        match (config, given.plain::<String>("solver")) {
            (Some(_), Some(solver)) => {
                given.refuse("solver", solver.into(), "leave it out, or else `scheduler`");
                None
            }
            (Some(config), None) => {
                given.checked(SchedulerConfig::from_value(config)).map(|config| Self::Config(Box::new(config)))
            }
            (None, Some(solver)) => {
                let SolverName { solver, keys } = given.checked(solver.parse())?;
                given.named = keys;
                Some(Self::Solver(solver))
            }
            (None, None) => None,
        }
    }
}

/// The settings that are given, and those that the solver's name says.
impl Take for SolverKeys {
    fn take(given: &mut Given, _: &'static str) -> Option<Self> {
        let own = Self {
            use_karras_sigmas: given.plain("use_karras_sigmas"),
            use_exponential_sigmas: given.plain("use_exponential_sigmas"),
            use_beta_sigmas: given.plain("use_beta_sigmas"),
            algorithm_type: given.plain("algorithm_type"),
            solver_order: given.plain("solver_order"),
        };
        Some(own.or(std::mem::take(&mut given.named)))
    }
}

impl Take for Timesteps {
    fn take(given: &mut Given, name: &'static str) -> Option<Self> {
        let (listed, terms, random) = (given.plain(name), given.plain::<usize>("terms"), given.plain("random"));
        match (listed, terms) {
            (Some(_), Some(terms)) => {
                given.refuse("terms", terms.into(), "leave it out, or else `timesteps`");
                None
            }
            (Some(list), None) => Some(Self::List(list)),
            (None, Some(count)) if random == Some(true) => Some(Self::Drawn(count)),
            (None, Some(count)) => Some(Self::Spread(count)),
            (None, None) => None,
        }
    }
}
