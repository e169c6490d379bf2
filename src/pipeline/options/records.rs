//! Records of options, made from their descriptions in `table`.

use serde_json::{Map, Value};

use super::read::{Given, Take};
#[cfg(not(target_arch = "wasm32"))]
use super::spec::*;
use super::values::*;
use crate::diffusion::{Cdf, SolverKeys, Variance};
use crate::noise::Stream;
use crate::pipeline::error::Error;
use crate::pipeline::rgba::Rgba;

/// A record of options: the struct, its defaults, its reader of JSON, and what its faces are made from.
///
/// Each field has its description, its type and its default, and then either what it is to its faces, or the options that it is made
/// of, each with a description of its own.
macro_rules! options {
    (
        $(#[$about:meta])*
        $record:ident {
            $(
                $(#[doc = $line:literal])*
                $name:ident: $type:ty = $default:expr
                $(, $spec:expr)?
                $(=> { $( $(#[doc = $part_line:literal])* $part:ident: $part_spec:expr; )* })?;
            )*
        }
    ) => {
        $(#[$about])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $record {
            $( $(#[doc = $line])* pub $name: $type, )*
        }

        impl Default for $record {
            fn default() -> Self {
                Self { $( $name: $default, )* }
            }
        }

        impl $record {
            /// Every field as its faces have it, in order.
            #[cfg(not(target_arch = "wasm32"))]
            #[doc(hidden)]
            pub const FIELDS: &'static [Field] = &[
                $( Field {
                    name: stringify!($name),
                    lines: &[ $($line),* ],
                    default: stringify!($default),
                    spec: &[ $($spec)? ],
                    parts: &[ $($( Part { name: stringify!($part), lines: &[ $($part_line),* ], spec: $part_spec }, )*)? ],
                }, )*
            ];

            /// Reads the options from JSON under the names that JavaScript has for them; what is absent takes the default. Pictures
            /// are no JSON, and none are read.
            ///
            /// # Errors
            /// An option of another type than its own, or that there is not.
            pub fn from_json(json: Map<String, Value>) -> Result<Self, Error> {
                let mut given = Given::new(json);
                let mut options = Self::default();
                $( if let Some(value) = Take::take(&mut given, stringify!($name)) {
                    options.$name = value;
                } )*
                given.finish()?;
                Ok(options)
            }
        }
    };
}

include!("table.rs");

impl ForwardOptions {
    /// The options for a picture, everything else as it is by default.
    pub fn new(image: Rgba) -> Self {
        Self { image, ..Self::default() }
    }
}
