//! The oracle: every op as a plain loop over slices, in a file that its shader names.
//!
//! What computes pictures is [`crate::cpu`] and [`crate::gpu`]; what they compute is compared with this. So it shares no code and
//! no index arithmetic with them, reads weights as a checkpoint has them, and sums in f64. Native only, and slow.

mod activation;
mod attention;
mod convolution;
mod elementwise;
mod guidance;
mod layout;
mod linear_update;
mod norm;
mod program;
mod resample;
mod threshold;
mod timestep_embedding;

pub use program::Program;
