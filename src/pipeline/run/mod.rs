//! One run of the reverse process, from options to x_0.

pub(super) mod estimate;
pub(super) mod pace;
pub(super) mod pipeline;
pub(super) mod random;
pub(super) mod request;
pub(super) mod sampler;
pub(super) mod schedule;
pub(super) mod start;
pub(super) mod step_graph;
