//! Reads a component's `config.json`: absent keys take the class's defaults, what is not understood is refused by name.

use std::cell::RefCell;

use serde_json::{Map, Value};

use super::Error;
use crate::graph::Activation;

/// A size larger than any dimension of a real checkpoint.
const MAX_SIZE: usize = 1 << 17;

/// Keys that diffusers' `EMAModel` writes into the config of the network that it averages: how it did that.
const EMA_MODEL: [&str; 7] =
    ["decay", "inv_gamma", "min_decay", "optimization_step", "power", "update_after_step", "use_ema_warmup"];

/// What a value of a config can be read as.
pub trait FromValue: Sized {
    /// What comes before that where several are expected.
    const LIST: &str = "";
    /// What it has to be, for those who wrote something else.
    const EXPECTED: &str;

    fn from_value(value: &Value) -> Option<Self>;
}

macro_rules! from_value {
    ($($type:ty, $expected:literal: $value:ident => $read:expr;)*) => {
        $(impl FromValue for $type {
            const EXPECTED: &str = $expected;

            fn from_value($value: &Value) -> Option<Self> {
                $read
            }
        })*
    };
}

from_value! {
    Value, "anything": value => Some(value.clone());
    bool, "true or false": value => value.as_bool();
    u32, "a whole number": value => value.as_u64()?.try_into().ok();
    usize, "a whole number": value => value.as_u64()?.try_into().ok();
    f32, "a number": value => value.as_f64().map(|number| number as f32);
    f64, "a number": value => value.as_f64();
    String, "a text": value => value.as_str().map(str::to_owned);
}

impl<T: FromValue> FromValue for Vec<T> {
    const LIST: &str = "a list, each ";
    const EXPECTED: &str = T::EXPECTED;

    fn from_value(value: &Value) -> Option<Self> {
        value.as_array()?.iter().map(T::from_value).collect()
    }
}

/// A config file being read; remembers which keys were asked for.
pub struct ConfigReader {
    class: &'static str,
    map: Map<String, Value>,
    seen: RefCell<Vec<String>>,
}

impl ConfigReader {
    /// Parses the text of a `config.json` for `class`, which is the class that it names, if it names one.
    pub fn new(class: &'static str, json: &str) -> Result<Self, Error> {
        // As bytes, like all JSON here: each kind of input has a parser of its own, which the module would carry too.
        match serde_json::from_slice(json.as_bytes()) {
            Ok(Value::Object(map)) => {
                let reader = Self { class, map, seen: RefCell::default() };
                match reader.map.get("_class_name").and_then(Value::as_str) {
                    Some(named) if named != class => Err(reader.unsupported("_class_name", &format!("`{class}` is"))),
                    _ => Ok(reader),
                }
            }
            Ok(_) => Err(Error::Config { class, message: "expected a JSON object".into() }),
            Err(error) => Err(Error::Config { class, message: error.to_string() }),
        }
    }

    /// The object under `key`, where there is one, in place of the whole.
    pub fn section(mut self, key: &str) -> Self {
        if let Some(Value::Object(section)) = self.map.remove(key) {
            self.map = section;
        }
        self
    }

    /// An error about this file.
    pub fn error(&self, message: impl Into<String>) -> Error {
        Error::Config { class: self.class, message: message.into() }
    }

    /// An error about a value that is not implemented; `hint` says what is.
    pub fn unsupported(&self, key: &str, hint: &str) -> Error {
        let value = self.map.get(key).unwrap_or(&Value::Null).to_string();
        let hint = if hint.is_empty() { String::new() } else { format!(": {hint}") };
        Error::Unsupported { class: self.class, key: key.to_owned(), value, hint }
    }

    /// The value of `key`; `None` if it is absent or null.
    pub fn optional<T: FromValue>(&self, key: &str) -> Result<Option<T>, Error> {
        let Some(value) = self.known(key)? else { return Ok(None) };
        match T::from_value(value) {
            Some(read) => Ok(Some(read)),
            None => Err(self.error(format!("`{key}` is {value}, expected {}{}", T::LIST, T::EXPECTED))),
        }
    }

    /// What is written under `key`, unless it is null.
    fn known(&self, key: &str) -> Result<Option<&Value>, Error> {
        self.seen.borrow_mut().push(key.to_owned());
        match self.map.get(key) {
            None | Some(Value::Null) => Ok(None),
            // Networks compute in f32, where it is infinite and draws a flat picture; no number here is meant to be as large.
            Some(Value::Number(number)) if number.as_f64().is_some_and(|number| (number as f32).is_infinite()) => {
                Err(self.error(format!("`{key}` is {number}, which is more than an f32 can be")))
            }
            value => Ok(value),
        }
    }

    /// The value of `key`, or the class's default.
    pub fn get<T: FromValue>(&self, key: &str, default: T) -> Result<T, Error> {
        Ok(self.optional(key)?.unwrap_or(default))
    }

    /// Whether `key` is there and null, which differs from its absence where the class's default is something else.
    pub fn is_null(&self, key: &str) -> bool {
        self.map.get(key).is_some_and(Value::is_null)
    }

    /// A dimension: at least 1.
    pub fn size(&self, key: &str, default: usize) -> Result<usize, Error> {
        let size = self.get(key, default)?;
        self.check_size(key, size)?;
        Ok(size)
    }

    /// A number from 1 to `most`.
    pub fn size_up_to(&self, key: &str, default: usize, most: usize) -> Result<usize, Error> {
        let size = self.size(key, default)?;
        if size > most {
            return Err(self.unsupported(key, &format!("up to {most} is")));
        }
        Ok(size)
    }

    /// `downsample_padding`: 1, or 0 for one row and column of zeros at the bottom right.
    pub fn downsample_padding(&self) -> Result<usize, Error> {
        match self.get("downsample_padding", 1)? {
            padding @ (0 | 1) => Ok(padding),
            _ => Err(self.unsupported("downsample_padding", "0 or 1 is")),
        }
    }

    /// A dimension that may be absent.
    pub fn optional_size(&self, key: &str) -> Result<Option<usize>, Error> {
        let size = self.optional(key)?;
        size.map_or(Ok(()), |size| self.check_size(key, size))?;
        Ok(size)
    }

    /// A list of dimensions, one for each block.
    pub fn sizes(&self, key: &str, default: &[usize]) -> Result<Vec<usize>, Error> {
        let sizes: Vec<usize> = self.get(key, default.to_vec())?;
        if sizes.is_empty() || sizes.len() > 16 {
            return Err(self.error(format!("`{key}` has {} entries, expected 1 to 16", sizes.len())));
        }
        sizes.iter().try_for_each(|&size| self.check_size(key, size))?;
        Ok(sizes)
    }

    fn check_size(&self, key: &str, size: usize) -> Result<(), Error> {
        if size == 0 || size > MAX_SIZE {
            return Err(self.error(format!("`{key}` is {size}, expected 1 to {MAX_SIZE}")));
        }
        Ok(())
    }

    /// One dimension for all `blocks`, or a list with one for each.
    pub fn size_per_block(&self, key: &str, default: usize, blocks: usize) -> Result<Vec<usize>, Error> {
        let sizes = match self.optional::<Value>(key)? {
            Some(Value::Array(_)) => self.sizes(key, &[])?,
            _ => vec![self.size(key, default)?; blocks],
        };
        self.check_length(key, sizes.len(), blocks)?;
        Ok(sizes)
    }

    /// Checks the length of a list that has an entry for each block.
    pub fn check_length(&self, key: &str, found: usize, blocks: usize) -> Result<(), Error> {
        if found != blocks {
            return Err(self.error(format!("`{key}` has {found} entries for {blocks} blocks")));
        }
        Ok(())
    }

    /// The `scaling_factor`, by which latents are divided.
    pub fn scaling_factor(&self, default: f64) -> Result<f64, Error> {
        let factor: f64 = self.get("scaling_factor", default)?;
        if factor == 0.0 || !factor.is_finite() {
            return Err(self.error(format!("`scaling_factor` is {factor}")));
        }
        Ok(factor)
    }

    /// A switch that is only implemented at `value`, its default.
    pub fn only<T: FromValue + PartialEq>(&self, key: &str, value: T) -> Result<(), Error> {
        match self.optional::<T>(key) {
            Ok(None) => Ok(()),
            Ok(Some(found)) if found == value => Ok(()),
            _ => Err(self.unsupported(key, "")),
        }
    }

    /// A switch that is only implemented when null or absent.
    pub fn only_null(&self, key: &str) -> Result<(), Error> {
        match self.optional::<Value>(key)? {
            None => Ok(()),
            Some(_) => Err(self.unsupported(key, "")),
        }
    }

    /// Keys that have no effect on inference.
    pub fn ignore(&self, keys: &[&str]) {
        self.seen.borrow_mut().extend(keys.iter().map(|&key| key.to_owned()));
    }

    /// An activation by diffusers' or transformers' name.
    pub fn activation(&self, key: &str, default: Activation) -> Result<Activation, Error> {
        Ok(self.optional_activation(key)?.unwrap_or(default))
    }

    /// An activation that may be absent.
    pub fn optional_activation(&self, key: &str) -> Result<Option<Activation>, Error> {
        Ok(match self.optional::<String>(key)?.as_deref() {
            None => None,
            Some("silu" | "swish") => Some(Activation::Silu),
            Some("gelu") => Some(Activation::Gelu),
            Some("gelu_new" | "gelu_pytorch_tanh") => Some(Activation::GeluTanh),
            Some("quick_gelu") => Some(Activation::QuickGelu),
            Some("mish") => Some(Activation::Mish),
            Some("relu") => Some(Activation::Relu),
            Some(_) => return Err(self.unsupported(key, "silu, gelu, gelu_new, quick_gelu, mish or relu is")),
        })
    }

    /// Refuses keys that were not asked for and say something: a switch nobody looked at would be run wrongly.
    pub fn finish(self) -> Result<(), Error> {
        let seen = self.seen.borrow();
        let silent = |value: &Value| matches!(value, Value::Null | Value::Bool(false));
        let foreign = |key: &str| key.starts_with('_') || EMA_MODEL.contains(&key);
        let unknown = |(key, value): &(&String, &Value)| !foreign(key) && !seen.contains(key) && !silent(value);
        match self.map.iter().find(unknown) {
            Some((key, _)) => Err(self.unsupported(key, "the key is not known")),
            None => Ok(()),
        }
    }
}
