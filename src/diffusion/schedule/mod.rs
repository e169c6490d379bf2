//! The numbers below every solver: β_t and ᾱ_t, the forward process that they make, and what a network predicts of it.
//!
//! | file | what it holds |
//! |---|---|
//! | `grid` | even grids and interpolation, to the last bit as numpy and torch have them |
//! | `betas` | β_t by the formulas that configs name |
//! | `noise_schedule` | β_t and ᾱ_t of all training timesteps |
//! | `noising` | the forward process: q(x_t given x_{t−1}), q(x_t given x_0), q(x_{t−1} given x_t and x_0), SNR, velocity |
//! | `prediction` | what the network's output says of x_0 and ε |
//! | `variance` | the variance of the reverse process's steps |

pub mod betas;
pub mod grid;
pub mod noise_schedule;
pub mod noising;
pub mod prediction;
pub mod variance;
