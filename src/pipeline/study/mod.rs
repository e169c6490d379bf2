//! Measurements of a model besides runs.

pub(super) mod bound;
pub(super) mod evaluate;
pub(super) mod noising;
pub(super) mod predictor;
