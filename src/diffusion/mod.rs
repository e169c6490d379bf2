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
//! | file | what it holds |
//! |---|---|
//! | `solver`, `names` | the solvers by name, and the names that people have for them |
//! | `config`, `keys` | `scheduler_config.json`, and diffusers' `from_config` between classes |
//! | `schedule` | β_t and ᾱ_t |
//! | `forward` | the forward process: q(x_t given x_{t−1}), q(x_t given x_0), q(x_{t−1} given x_t and x_0), SNR, velocity |
//! | `bound` | the variational bound of the chain, term by term |
//! | `spacing` | which timesteps and σ a run visits |
//! | `table` | what a step is, and its plain execution |
//! | `sigma_space` | what solvers share that hold x_0 + σ·ε: `euler`, `euler_ancestral`, `lms`, `heun`, `dpm2` (with `dpm2_ancestral`) |
//! | `lambda_space` | what solvers share that integrate over λ: `dpmpp_2m`, `dpmpp_2s` (both of `dpmpp`), `unipc`, `deis` |
//! | `consistency` | what `lcm` and `tcd` share |
//! | the solvers just named, `ddpm`, `ddim`, `pndm`, `flow_euler` | the equation, then the coefficients |

mod bound;
mod config;
mod consistency;
mod ddim;
mod ddpm;
mod deis;
mod dpm2;
mod dpmpp;
mod dpmpp_2m;
mod dpmpp_2s;
mod error;
mod euler;
mod euler_ancestral;
mod flow_euler;
mod forward;
mod heun;
mod keys;
mod lambda_space;
mod lcm;
mod lms;
mod names;
mod pndm;
mod schedule;
mod sigma_space;
mod solver;
mod spacing;
mod table;
mod tcd;
mod unipc;

pub use bound::{Cdf, Decoder, Variance, VariationalBound};
pub use config::{PredictionType, SchedulerConfig};
pub use error::Error;
pub use forward::{Forward, ForwardAt, Posterior};
pub use names::{SolverKeys, SolverName};
pub use schedule::NoiseSchedule;
pub use solver::Solver;
pub use table::{Applied, Clip, HISTORY, LearnedVariance, Step, StepOptions, Table, Terms};
