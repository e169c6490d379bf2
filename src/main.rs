//! The `undiffuse` command.
fn main() {}
