//! The mathematics of the forward process, x_0 → x_T, and of the reverse process, x_T → x_0: pure functions and tables, no
//! tensors' storage, no I/O.
//!
//! A checkpoint's `scheduler_config.json` becomes a [`SchedulerConfig`]; with a number of steps it becomes a [`Table`],
//! one [`Step`] for each call of the network. Every solver here is linear between the network's calls (only the
//! clipping of x̂_0 sits in between), so a step is a handful of coefficients, known before sampling starts.
//!
//! Letters are the field's. β_t is the variance that training adds at timestep t, α_t = 1 − β_t, and
//! ᾱ_t = ∏ α_s ("alpha_bar", diffusers' `alphas_cumprod`). The sample is x_t = √ᾱ_t·x_0 + √(1−ᾱ_t)·ε; σ is the ratio of
//! its noise to its signal, √((1−ᾱ_t)/ᾱ_t). Solvers in σ-space (Euler and its kin) hold x_t/√ᾱ_t instead.
//!
//! | room | what it holds |
//! |---|---|
//! | `schedule` | β_t and ᾱ_t, the forward process that they make, and what a network predicts of it |
//! | `bound` | the variational bound of the chain, term by term |
//! | `table` | what a step is, and its plain execution |
//! | `keys` | typed look-up in `scheduler_config.json`, and diffusers' `from_config` between classes |
//! | `method` | what solvers are built from, and how one describes itself |
//! | `solvers` | a file for each solver: the equation, the coefficients, the description; and the list of them |
//! | `names` | the names that people have for solvers |
//! | `config` | [`SchedulerConfig`] |
//!
//! Each imports only from those above it, and none from this module, which is what others see. A new solver: `docs/contributing.md`.

mod bound;
mod config;
mod error;
mod keys;
mod method;
mod names;
mod schedule;
mod solvers;
mod table;

pub use bound::{Cdf, Decoder, VariationalBound};
pub use config::SchedulerConfig;
pub use error::Error;
pub use method::options::StepOptions;
pub use names::{SolverKeys, SolverName};
pub use schedule::noise_schedule::NoiseSchedule;
pub use schedule::noising::{Noising, NoisingAt, Posterior, Velocity};
pub use schedule::prediction::{PredictionType, Reading};
pub use schedule::variance::Variance;
pub use solvers::Solver;
pub use table::clip::{Clip, LearnedVariance};
pub use table::step::{Applied, Step};
pub use table::terms::{HISTORY, Terms};
pub use table::whole::Table;
