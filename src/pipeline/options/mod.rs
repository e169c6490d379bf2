//! The options of runs, under diffusers' names: each described once, for Rust, the command, the package and the page.
//!
//! | file | what it holds |
//! |---|---|
//! | `table` | every option with its type, its default, its description, and what it is to its faces |
//! | `records` | the structs and readers that are made of that |
//! | `spec` | the words for what an option is to its faces |
//! | `values` | the types of options |
//! | `read` | how they are read from JSON |

mod names;
mod read;
mod records;
#[cfg(not(target_arch = "wasm32"))]
pub mod spec;
mod values;

pub use names::camel_case;
pub use records::{BoundOptions, ForwardOptions, SampleOptions};
pub(super) use values::MAX_SIDE;
pub use values::{LongPrompts, Preview, Scheduler, Space, Text, Timesteps};
