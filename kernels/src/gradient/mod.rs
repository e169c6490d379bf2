//! What training needs: gradients.

pub mod attention;
pub mod elementwise;
pub mod norm;
pub(crate) mod slope;
pub mod spread;
pub mod weight;
