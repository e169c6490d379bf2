//! Random streams that reproduce PyTorch's, so that a seed gives the picture that diffusers gives.
//!
//! [`TorchCpu`] is `torch.Generator("cpu")`. Uniform draws equal torch's bit for bit. Normal draws are within 5e-6 of
//! torch (torch's own builds differ from each other by 2e-6), and carry the same bits on every device: every
//! transcendental function here is software (`libm`), never the platform's. [`TorchCuda`] is `torch.Generator("cuda")`, and
//! as close.

mod mt19937;
mod torch_cpu;
mod torch_cuda;

pub(crate) use mt19937::Mt19937;
pub use torch_cpu::TorchCpu;
pub use torch_cuda::TorchCuda;

/// The random stream of torch that a seed is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stream {
    /// `torch.Generator("cpu")`, what most scripts use.
    #[default]
    TorchCpu,
    /// `torch.Generator("cuda")`.
    TorchCuda,
}

/// A random stream of either kind.
#[derive(Clone, Debug)]
pub enum Generator {
    /// `torch.Generator("cpu")`.
    TorchCpu(TorchCpu),
    /// `torch.Generator("cuda")`.
    TorchCuda(TorchCuda),
}

impl Generator {
    /// `torch.Generator(…).manual_seed(seed)`.
    pub fn new(stream: Stream, seed: u64) -> Self {
        match stream {
            Stream::TorchCpu => Self::TorchCpu(TorchCpu::new(seed)),
            Stream::TorchCuda => Self::TorchCuda(TorchCuda::new(seed)),
        }
    }

    /// `torch.randn(n, dtype=torch.float32)`: standard normal.
    pub fn randn(&mut self, n: usize) -> Vec<f32> {
        match self {
            Self::TorchCpu(stream) => stream.randn(n),
            Self::TorchCuda(stream) => stream.randn(n),
        }
    }
}
