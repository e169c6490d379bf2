//! Changes to a checkpoint that is open.

pub(super) mod lora;
