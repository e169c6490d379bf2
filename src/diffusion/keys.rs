//! Typed look-up in a `scheduler_config.json`: an absent key takes the class default, a wrong one is refused by name.

use serde_json::{Map, Value};

use super::error::Error;

/// The keys that a config sets, and the class that they are read for.
#[derive(Debug, Clone, PartialEq)]
pub struct Keys {
    pub class: String,
    map: Map<String, Value>,
    /// Keys that only [`rewrite`](Self::rewrite) set.
    added: Vec<&'static str>,
}

impl Keys {
    /// Sets `key` as a pipeline does when it is built. Where the file did not hold it, another class will not see it.
    pub fn rewrite(&mut self, key: &'static str, value: Value) {
        if self.map.insert(key.to_owned(), value).is_none() {
            self.added.push(key);
        }
    }

    /// Sets `key` as if the file did.
    pub fn set(&mut self, key: &'static str, value: Value) {
        self.map.insert(key.to_owned(), value);
    }

    /// Leaves `key` at its class's default.
    pub fn remove(&mut self, key: &str) {
        self.map.remove(key);
    }

    /// Reads `text` for `class`, or without one for the class that it names.
    pub fn parse(text: &str, class: Option<&str>) -> Result<Self, Error> {
        match serde_json::from_slice(quote_bare_numbers(text).as_bytes()) {
            Ok(value) => Self::of(value, class),
            Err(error) => Err(Error::Json(error.to_string())),
        }
    }

    /// Takes the object `value` for `class`, or without one for the class that it names. Numbers that are not finite are strings in it.
    pub fn of(value: Value, class: Option<&str>) -> Result<Self, Error> {
        let Value::Object(map) = value else { return Err(Error::NoClassName) };
        match class.or(map.get("_class_name").and_then(Value::as_str)) {
            Some(class) => Ok(Self { class: class.to_owned(), map, added: Vec::new() }),
            None => Err(Error::NoClassName),
        }
    }

    /// The class that the file itself names.
    pub fn own_class(&self) -> Option<&str> {
        self.map.get("_class_name")?.as_str()
    }

    /// The keys of this file, read for another class.
    pub fn for_class(&self, class: &str) -> Self {
        let mut map = self.map.clone();
        for added in &self.added {
            map.remove(*added);
        }
        Self { class: class.to_owned(), map, added: Vec::new() }
    }

    /// A switch. `null` is Python's `None`, and counts as false.
    pub fn bool(&self, key: &'static str, default: bool) -> Result<bool, Error> {
        match self.map.get(key) {
            None => Ok(default),
            Some(Value::Null) => Ok(false),
            Some(Value::Bool(value)) => Ok(*value),
            Some(other) => Err(wrong_type(key, "true or false", other)),
        }
    }

    pub fn f64(&self, key: &'static str, default: f64) -> Result<f64, Error> {
        match self.map.get(key) {
            None => Ok(default),
            Some(value) => number(value).ok_or_else(|| wrong_type(key, "a number", value)),
        }
    }

    pub fn optional_f64(&self, key: &'static str) -> Result<Option<f64>, Error> {
        match self.map.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(_) => self.f64(key, 0.0).map(Some),
        }
    }

    /// A key of which only `null` is supported.
    pub fn null(&self, key: &'static str) -> Result<(), Error> {
        match self.map.get(key) {
            None | Some(Value::Null) => Ok(()),
            Some(other) => Err(self.unsupported(key, other, "null")),
        }
    }

    /// A number above zero, and finite.
    pub fn positive(&self, key: &'static str) -> Result<Option<f64>, Error> {
        match self.optional_f64(key)? {
            Some(value) if !(value > 0.0 && value.is_finite()) => {
                Err(self.unsupported(key, value, "null, or finite numbers above 0"))
            }
            value => Ok(value),
        }
    }

    /// A whole number within `range`, or `null`.
    pub fn optional_integer(
        &self,
        key: &'static str,
        default: Option<i64>,
        range: std::ops::RangeInclusive<i64>,
    ) -> Result<Option<i64>, Error> {
        match self.map.get(key) {
            None => Ok(default),
            Some(Value::Null) => Ok(None),
            Some(_) => self.integer(key, 0, range).map(Some),
        }
    }

    /// A whole number within `range`.
    pub fn integer(&self, key: &'static str, default: i64, range: std::ops::RangeInclusive<i64>) -> Result<i64, Error> {
        let Some(value) = self.map.get(key) else { return Ok(default) };
        if number(value).is_none() {
            return Err(wrong_type(key, "a whole number", value));
        }
        value.as_i64().filter(|integer| range.contains(integer)).ok_or_else(|| {
            self.unsupported(key, value, format!("whole numbers from {} to {}", range.start(), range.end()))
        })
    }

    pub fn optional_numbers(&self, key: &'static str) -> Result<Option<Vec<f64>>, Error> {
        match self.map.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Array(values)) => values
                .iter()
                .map(|value| number(value).ok_or_else(|| wrong_type(key, "a list of numbers", value)))
                .collect::<Result<_, _>>()
                .map(Some),
            Some(other) => Err(wrong_type(key, "a list of numbers or null", other)),
        }
    }

    /// One of the named choices; the first is the class default. `null` counts as a name, spelled "null".
    pub fn choice<T: Copy>(&self, key: &'static str, default: T, choices: &[(&str, T)]) -> Result<T, Error> {
        let name = match self.map.get(key) {
            None => return Ok(default),
            Some(Value::String(name)) => name.as_str(),
            Some(Value::Null) => "null",
            Some(other) => return Err(wrong_type(key, "a name", other)),
        };
        choices.iter().find(|(choice, _)| *choice == name).map(|&(_, value)| value).ok_or_else(|| {
            let supported: Vec<&str> = choices.iter().map(|&(name, _)| name).collect();
            self.unsupported(key, name, supported.join(", "))
        })
    }

    /// `clip_sample_range`.
    pub fn clip_sample_range(&self) -> Result<f64, Error> {
        match self.f64("clip_sample_range", 1.0)? {
            range if (0.0..f64::INFINITY).contains(&range) => Ok(range),
            range => Err(self.unsupported("clip_sample_range", range, "finite numbers that are not negative")),
        }
    }

    /// `final_sigmas_type`: whether the last step ends on σ = 0 rather than on the smallest of the schedule.
    pub fn final_sigma_is_zero(&self) -> Result<bool, Error> {
        self.choice("final_sigmas_type", true, &[("zero", true), ("sigma_min", false)])
    }

    pub fn unsupported(&self, key: &'static str, value: impl ToString, supported: impl Into<String>) -> Error {
        Error::UnsupportedValue {
            class: self.class.clone(),
            key,
            value: value.to_string(),
            supported: supported.into(),
        }
    }
}

fn wrong_type(key: &'static str, expected: &'static str, found: &Value) -> Error {
    Error::WrongType { key, expected, found: found.to_string() }
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(name) => match name.as_str() {
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            "NaN" => Some(f64::NAN),
            _ => None,
        },
        _ => None,
    }
}

/// Python's `json` writes non-finite numbers as bare tokens, which JSON has no room for: puts them in quotes.
fn quote_bare_numbers(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len());
    let (mut in_string, mut escaped) = (false, false);
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let bare = ["-Infinity", "Infinity", "NaN"].into_iter().find(|token| !in_string && rest.starts_with(token));
        if let Some(token) = bare {
            quoted.extend(["\"", token, "\""]);
            rest = &rest[token.len()..];
            continue;
        }
        if escaped {
            escaped = false;
        } else if in_string && c == '\\' {
            escaped = true;
        } else if c == '"' {
            in_string = !in_string;
        }
        quoted.push(c);
        rest = &rest[c.len_utf8()..];
    }
    quoted
}
