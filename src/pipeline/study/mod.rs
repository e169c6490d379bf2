//! What is measured of a model besides running it.

pub(super) mod bound;
pub(super) mod evaluate;
pub(super) mod noising;
pub(super) mod predictor;
