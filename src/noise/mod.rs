//! Random streams that reproduce PyTorch's, so that a seed gives the picture that diffusers gives.
//!
//! [`TorchCpu`] is `torch.Generator("cpu")`. Uniform draws equal torch's bit for bit. Normal draws are within 5e-6 of
//! torch (torch's own builds differ from each other by 2e-6), and carry the same bits on every device: every
//! transcendental function here is software (`libm`), never the platform's.

mod mt19937;
mod torch_cpu;

pub use torch_cpu::TorchCpu;
