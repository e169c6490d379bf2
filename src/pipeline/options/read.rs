//! Options as JSON has them, under the names of JavaScript.

use serde_json::{Map, Value};

use super::names::camel_case;
use super::values::{LongPrompts, Preview, Scheduler, Space, Text, Timesteps};
use crate::diffusion::{Cdf, SchedulerConfig, SolverKeys, SolverName, Variance};
use crate::noise::Stream;
use crate::pipeline::error::Error;
use crate::pipeline::rgba::Rgba;

/// Options that were given and that nobody has taken yet.
pub(super) struct Given {
    json: Map<String, Value>,
    /// Settings that the name of the solver said.
    named: SolverKeys,
}

impl Given {
    pub fn new(json: Map<String, Value>) -> Self {
        Self { json, named: SolverKeys::default() }
    }

    /// The value given as `name`, unless it is null.
    fn remove(&mut self, name: &str) -> Option<Value> {
        self.json.remove(&camel_case(name)).filter(|value| !value.is_null())
    }

    fn plain<T: Plain>(&mut self, name: &'static str) -> Result<Option<T>, Error> {
        let Some(value) = self.remove(name) else { return Ok(None) };
        match T::of(&value) {
            Some(plain) => Ok(Some(plain)),
            None => Err(Error::option(name, value, format!("expected {}", T::EXPECTED))),
        }
    }

    /// Refuses what nobody has taken.
    pub fn finish(self) -> Result<(), Error> {
        match self.json.keys().next() {
            Some(unknown) => Err(Error::option("options", format!("`{unknown}`"), "there is no such option")),
            None => Ok(()),
        }
    }
}

/// A field of a record of options.
pub(super) trait Take: Sized {
    /// The field `name` of what was given; `None` if it is absent.
    fn take(given: &mut Given, name: &'static str) -> Result<Option<Self>, Error>;
}

/// A field that is one value of JSON.
trait Plain: Sized {
    /// Description of the values that are expected.
    const EXPECTED: &'static str;

    /// The value in Rust; `None` if `value` is none of the expected.
    fn of(value: &Value) -> Option<Self>;
}

impl<T: Plain> Take for T {
    fn take(given: &mut Given, name: &'static str) -> Result<Option<Self>, Error> {
        given.plain(name)
    }
}

impl<T: Plain> Take for Option<T> {
    fn take(given: &mut Given, name: &'static str) -> Result<Option<Self>, Error> {
        given.plain(name).map(Some)
    }
}

impl Plain for bool {
    const EXPECTED: &'static str = "true or false";

    fn of(value: &Value) -> Option<Self> {
        value.as_bool()
    }
}

/// JSON has no words for what is not finite: that is a string, and is refused where it is used.
impl Plain for f64 {
    const EXPECTED: &'static str = "a number";

    fn of(value: &Value) -> Option<Self> {
        value.as_f64().or_else(|| value.as_str()?.parse().ok().filter(|number: &f64| !number.is_finite()))
    }
}

impl Plain for usize {
    const EXPECTED: &'static str = "a whole number";

    fn of(value: &Value) -> Option<Self> {
        value.as_u64()?.try_into().ok()
    }
}

/// A seed may be larger than the largest whole number that JavaScript's numbers hold exactly, and is written as a string.
impl Plain for u64 {
    const EXPECTED: &'static str = "a whole number from 0 to 2^64 - 1";

    fn of(value: &Value) -> Option<Self> {
        value.as_u64().or_else(|| value.as_str()?.parse().ok())
    }
}

impl Plain for String {
    const EXPECTED: &'static str = "a text";

    fn of(value: &Value) -> Option<Self> {
        value.as_str().map(str::to_owned)
    }
}

impl<T: Plain> Plain for Vec<T> {
    const EXPECTED: &'static str = "a list";

    fn of(value: &Value) -> Option<Self> {
        value.as_array()?.iter().map(T::of).collect()
    }
}

impl Plain for [usize; 2] {
    const EXPECTED: &'static str = "two whole numbers";

    fn of(value: &Value) -> Option<Self> {
        match value.as_array().map(Vec::as_slice) {
            Some([one, other]) => Some([Plain::of(one)?, Plain::of(other)?]),
            _ => None,
        }
    }
}

impl Plain for Text {
    const EXPECTED: &'static str = "a text, or a list of texts";

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
    Stream: "cpu or cuda" {
        "cpu" => Self::TorchCpu,
        "cuda" => Self::TorchCuda,
    }
    LongPrompts: "cut or chunks" {
        "cut" => Self::Cut,
        "chunks" => Self::Chunks,
    }
    Preview: "auto, decode, tiny, linear or none" {
        "auto" => Self::Auto,
        "decode" => Self::Decode,
        "tiny" => Self::Tiny,
        "linear" => Self::Linear,
        "none" => Self::None,
    }
    Space: "latents or pixels" {
        "latents" => Self::Latents,
        "pixels" => Self::Pixels,
    }
    Cdf: "exact or tanh" {
        "exact" => Self::Exact,
        "tanh" => Self::Tanh,
    }
}

impl Take for Option<Variance> {
    fn take(given: &mut Given, name: &'static str) -> Result<Option<Self>, Error> {
        match given.plain::<String>(name)? {
            Some(variance) => Ok(Some(Some(variance.parse()?))),
            None => Ok(None),
        }
    }
}

/// Pictures are no JSON.
impl Take for Option<Rgba> {
    fn take(_: &mut Given, _: &'static str) -> Result<Option<Self>, Error> {
        Ok(None)
    }
}

impl Take for Rgba {
    fn take(_: &mut Given, _: &'static str) -> Result<Option<Self>, Error> {
        Ok(None)
    }
}

impl Take for Vec<Rgba> {
    fn take(_: &mut Given, _: &'static str) -> Result<Option<Self>, Error> {
        Ok(None)
    }
}

impl Take for Scheduler {
    fn take(given: &mut Given, name: &'static str) -> Result<Option<Self>, Error> {
        match (given.remove(name), given.plain::<String>("solver")?) {
            (Some(_), Some(solver)) => Err(Error::option("solver", solver, "leave it out, or else `scheduler`")),
            (Some(config), None) => Ok(Some(Self::Config(Box::new(SchedulerConfig::from_value(config)?)))),
            (None, Some(solver)) => {
                let SolverName { solver, keys } = solver.parse()?;
                given.named = keys;
                Ok(Some(Self::Solver(solver)))
            }
            (None, None) => Ok(None),
        }
    }
}

/// The settings that are given, and those that the solver's name says.
impl Take for SolverKeys {
    fn take(given: &mut Given, _: &'static str) -> Result<Option<Self>, Error> {
        let own = Self {
            use_karras_sigmas: given.plain("use_karras_sigmas")?,
            use_exponential_sigmas: given.plain("use_exponential_sigmas")?,
            use_beta_sigmas: given.plain("use_beta_sigmas")?,
            algorithm_type: given.plain("algorithm_type")?,
            solver_order: given.plain("solver_order")?,
        };
        Ok(Some(own.or(std::mem::take(&mut given.named))))
    }
}

impl Take for Timesteps {
    fn take(given: &mut Given, name: &'static str) -> Result<Option<Self>, Error> {
        let (listed, terms, random) = (given.plain(name)?, given.plain("terms")?, given.plain("random")?);
        Ok(match (listed, terms) {
            (Some(_), Some::<usize>(terms)) => {
                return Err(Error::option("terms", terms, "leave it out, or else `timesteps`"));
            }
            (Some(list), None) => Some(Self::List(list)),
            (None, Some(count)) if random == Some(true) => Some(Self::Drawn(count)),
            (None, Some(count)) => Some(Self::Spread(count)),
            (None, None) => None,
        })
    }
}
