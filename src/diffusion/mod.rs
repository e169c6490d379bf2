//! The mathematics of the reverse process, x_T → x_0: pure functions and tables, no tensors' storage, no I/O.
//!
//! A checkpoint's `scheduler_config.json` becomes a [`SchedulerConfig`]; with a number of steps it becomes a [`Table`],
//! one [`Step`] for each call of the network. Every solver here is linear between the network's calls (only the
//! clipping of x̂_0 sits in between), so a step is a handful of coefficients, known before sampling starts.
//!
//! Letters are the field's. β_t is the variance that training adds at timestep t, α_t = 1 − β_t, and
//! ᾱ_t = ∏ α_s ("alpha_bar", diffusers' `alphas_cumprod`). The sample is x_t = √ᾱ_t·x_0 + √(1−ᾱ_t)·ε; σ is the ratio of
//! its noise to its signal, √((1−ᾱ_t)/ᾱ_t). Solvers in σ-space (Euler and its kin) hold x_t/√ᾱ_t instead.
//!
//! | file | what it holds |
//! |---|---|
//! | `config` | `scheduler_config.json`, and diffusers' `from_config` between classes |
//! | `schedule` | β_t and ᾱ_t, the forward process |
//! | `spacing` | which timesteps and σ a run visits |
//! | `table` | what a step is, and its plain execution |
//! | `ddpm`, `ddim`, `euler`, `euler_ancestral`, `dpmpp` | a solver each: the equation, then the coefficients |

mod config;
mod ddim;
mod ddpm;
mod dpmpp;
mod error;
mod euler;
mod euler_ancestral;
mod keys;
mod schedule;
mod spacing;
mod table;

pub use config::{SchedulerConfig, Solver};
pub use error::Error;
pub use schedule::{NoiseSchedule, velocity};
pub use table::{Applied, Clip, HISTORY, Step, StepOptions, Table, Terms};
