//! The variational bound of pictures under a checkpoint, term by term: how many bits per dimension it needs for them at most.

mod estimate;
mod job;
mod timesteps;

pub use estimate::{BoundEstimate, BoundSummary, Term, TermKind};
pub use job::Bound;
