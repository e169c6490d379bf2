//! The library's table of options: its own files, which make nothing but descriptions here.

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
        pub struct $record;

        impl $record {
            pub const FIELDS: &'static [Field] = &[
                $( Field {
                    name: stringify!($name),
                    lines: &[ $($line),* ],
                    default: stringify!($default),
                    spec: &[ $($spec)? ],
                    parts: &[ $($( Part { name: stringify!($part), lines: &[ $($part_line),* ], spec: $part_spec }, )*)? ],
                }, )*
            ];
        }
    };
}

#[path = "../../src/pipeline/options/names.rs"]
mod names;
#[path = "../../src/pipeline/options/spec.rs"]
#[allow(dead_code)] // the command's part of it
pub mod spec;

pub use names::camel_case;
use spec::*;

include!("../../src/pipeline/options/table.rs");
