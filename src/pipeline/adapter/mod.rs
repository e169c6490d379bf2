//! What changes a checkpoint that is open.

pub(super) mod lora;
