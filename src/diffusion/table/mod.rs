//! The reverse process as a table: what one step is, and its plain execution.
//!
//! | file | what it holds |
//! |---|---|
//! | `terms` | linear combinations of what a step has at hand |
//! | `clip` | what happens to x̂_0, and the deviation that a network has learned |
//! | `step` | one call of the network and the update after it |
//! | `whole` | all steps of a run, as one prints them |

pub mod clip;
pub mod step;
pub mod terms;
pub mod whole;
