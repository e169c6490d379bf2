//! How close generated pictures come to real ones.
//!
//! A [`FeatureExtractor`] turns pictures into vectors of numbers, whose distributions are then compared.

mod error;
mod feature_network;
mod features;

pub use error::Error;
pub use features::{Classification, FeatureExtractor, Label};
