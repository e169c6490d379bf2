//! The way from words to what the network is told.

pub(super) mod conditioning;
pub(super) mod prompts;
