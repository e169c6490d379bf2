//! The parts of solvers: how they describe themselves, what a run asks of them, and what whole families of them share.
//!
//! | file | what it holds |
//! |---|---|
//! | `spec` | a solver's description of itself, and what a config makes of it |
//! | `common` | the keys that most classes have, and what they mean |
//! | `options` | how to walk a schedule: the arguments of `set_timesteps` and `step` |
//! | `run` | one run: where it begins, and how its steps become a table |
//! | `spacing` | which timesteps and σ a run visits |
//! | `scale` | the scales in which solvers hold x_t |
//! | `clipping`, `variance_type` | keys that several classes have |
//! | `sigma_space` | what solvers share that hold x_0 + σ·ε |
//! | `lambda_space` | what solvers share that integrate over λ; `dpm_solver`, both DPM-Solver++ among them |
//! | `consistency` | what solvers of distilled models share |

pub mod clipping;
pub mod common;
pub mod consistency;
pub mod dpm_solver;
pub mod lambda_space;
pub mod options;
pub mod run;
pub mod scale;
pub mod sigma_space;
pub mod spacing;
pub mod spec;
pub mod variance_type;
