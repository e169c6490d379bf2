//! One graph, any engine: the CPU or WebGPU behind the same calls.

mod cpu;
mod engine;
mod error;
mod gpu;

use std::rc::Rc;

use self::engine::Engine;
pub use self::error::Error;
pub use crate::gpu::variants::Measured;
use crate::graph::{Graph, WeightSpec, fuse};
use crate::profile::Profile;
use crate::weights::{Encoding, LowRank};

/// Calls the engine that a value of the facade belongs to.
macro_rules! engine {
    ($value:expr, $part:ident => $call:expr) => {
        match $value {
            Self::Cpu($part) => $call,
            Self::Gpu($part) => $call,
        }
    };
}

/// A device that networks run on.
#[derive(Clone, Debug)]
pub enum Device {
    /// The executor of [`crate::cpu`].
    Cpu(crate::cpu::Device),
    /// The executor of [`crate::gpu`].
    Gpu(crate::gpu::Device),
}

impl Device {
    /// This machine's CPU, with all of its cores and vectors.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn cpu() -> Self {
        Self::Cpu(crate::cpu::Device::native(None, crate::cpu::Arithmetic::default()))
    }

    /// Floating point operations in a second at most, measured when first asked for; `None` on a GPU, of which it is not known
    /// beforehand.
    ///
    /// # Errors
    /// If there is no memory for the measurement.
    pub fn flop_per_second(&self) -> Result<Option<f64>, Error> {
        engine!(self, device => Engine::flop_per_second(device))
    }
}

/// Words read back from a device as the f32 values that they are.
pub fn floats(words: Vec<u32>) -> Vec<f32> {
    bytemuck::allocation::cast_vec(words)
}

/// The weights of one network on a device, shared by its programs.
#[derive(Debug)]
pub enum Weights {
    /// Weights on the CPU.
    Cpu(Rc<crate::cpu::Weights>),
    /// Weights on a GPU; freed when the last program that uses them is.
    Gpu(Rc<crate::gpu::Weights>),
}

/// Weights being loaded.
#[derive(Debug)]
pub enum WeightLoader {
    /// Weights on the CPU.
    Cpu(Box<crate::cpu::Weights>),
    /// Weights on a GPU.
    Gpu(Box<crate::gpu::Weights>),
}

/// A graph with its weights on a device; dropping it frees what it holds there.
#[derive(Debug)]
pub enum Program {
    /// A program on the CPU.
    Cpu(Box<crate::cpu::Program>),
    /// A program on a GPU.
    Gpu(Box<crate::gpu::Program>),
}

impl WeightLoader {
    /// Places on `device` for the weights `specs`.
    ///
    /// # Errors
    /// If they would not fit.
    pub fn new(device: &Device, specs: &[WeightSpec]) -> Result<Self, Error> {
        Ok(match device {
            Device::Cpu(device) => Self::Cpu(Box::new(device.places(specs)?)),
            Device::Gpu(device) => Self::Gpu(Box::new(device.places(specs)?)),
        })
    }

    /// Stores weight `index` of the specs from all of its bytes in the checkpoint.
    ///
    /// # Errors
    /// As [`WeightLoader::begin`], [`WeightLoader::chunk`] and [`WeightLoader::end`].
    pub fn put(&mut self, index: usize, dtype: Encoding, bytes: &[u8]) -> Result<(), Error> {
        self.begin(index, dtype)?;
        self.chunk(bytes)?;
        self.end()
    }

    /// Starts on weight `index` of the specs, whose bytes come next by [`WeightLoader::chunk`].
    ///
    /// # Errors
    /// If a tensor of this dtype cannot be the weight, or the device has no room for it.
    pub fn begin(&mut self, index: usize, dtype: Encoding) -> Result<(), Error> {
        engine!(self, weights => engine::Weights::begin(&mut **weights, index, dtype))
    }

    /// Takes the next bytes of the weight, any number, as stored in the checkpoint.
    ///
    /// # Errors
    /// If they are more than the weight has, or the device is lost.
    pub fn chunk(&mut self, bytes: &[u8]) -> Result<(), Error> {
        engine!(self, weights => engine::Weights::chunk(&mut **weights, bytes))
    }

    /// Ends the weight, all of whose bytes have come.
    ///
    /// # Errors
    /// If they were too few, or the device is lost.
    pub fn end(&mut self) -> Result<(), Error> {
        engine!(self, weights => engine::Weights::end(&mut **weights))
    }

    /// The loaded weights, when the device has taken all of them.
    ///
    /// # Errors
    /// A weight that is missing, or for which there was no memory, by name.
    pub async fn finish(self) -> Result<Weights, Error> {
        Ok(match self {
            Self::Cpu(weights) => Weights::Cpu(finished(*weights).await?),
            Self::Gpu(weights) => Weights::Gpu(finished(*weights).await?),
        })
    }
}

impl Weights {
    /// Names, shapes and roles of the weights; [`Weights::merge`] takes a position in this list.
    pub fn specs(&self) -> &[WeightSpec] {
        engine!(self, weights => engine::Weights::specs(&**weights))
    }

    /// Bytes that they take on the device.
    pub fn bytes(&self) -> u64 {
        engine!(self, weights => engine::Weights::bytes(&**weights))
    }

    /// Replaces matrix `index` by W + Σ scale·up·down, on the device. W is always the weight as it was loaded, so that rounding
    /// does not add up; it stays beside the result. For a convolution `up` is 1×1. Sums are f32; the result is kept as f32 if the
    /// weight was f32 or bf16, else as f16, rounded to nearest.
    ///
    /// Programs use the weights as they were when they were compiled: compile again for the new ones.
    ///
    /// # Errors
    /// If the factors do not fit the weight, if it is no matrix, or if the device refuses.
    pub async fn merge(&self, index: usize, additions: &[LowRank]) -> Result<(), Error> {
        engine!(self, weights => engine::Weights::merge(&**weights, index, additions).await)
    }

    /// Takes back what [`Weights::merge`] has made of weight `index`, for programs compiled from now on.
    pub fn restore(&self, index: usize) {
        engine!(self, weights => engine::Weights::restore(&**weights, index))
    }

    /// Brings what an optimiser has changed to all programs that read it, from their next run on.
    ///
    /// # Errors
    /// If it became unwanted.
    #[cfg(feature = "training")]
    pub fn refresh(&self) -> Result<(), Error> {
        engine!(self, weights => engine::Weights::refresh(&**weights))
    }

    /// Copies an f32 output of `source` to the place of the weight `name`, on the device, laid out as kernels read it. The output has
    /// the weight's shape and its checkpoint's order.
    ///
    /// Programs that were compiled with the weight see it from their next run on, and so do [`Weights::merge`] and programs to come.
    /// Only a program that was compiled before the weight was last merged or restored may keep what it had.
    ///
    /// # Errors
    /// If there is no such weight or output, if a matrix is not kept as f32, if additions are merged into the weight, if the shapes
    /// differ, or if the device refuses. A value that is not finite is found by [`Program::read`] of the output, not here.
    pub async fn store(&self, name: &str, source: &Program, output: &str) -> Result<(), Error> {
        match (self, source) {
            (Self::Cpu(weights), Program::Cpu(source)) => {
                engine::Weights::store(&**weights, name, source, output).await
            }
            (Self::Gpu(weights), Program::Gpu(source)) => {
                engine::Weights::store(&**weights, name, source, output).await
            }
            _ => Err(Error::Mixed),
        }
    }
}

impl Program {
    /// Prepares `graph`, each of whose weights is found by its name in exactly one of `weights`.
    ///
    /// # Errors
    /// If a weight is in none or in two of them, by name, or the device cannot run the graph.
    pub async fn compile(device: &Device, graph: &Graph, weights: &[&Weights]) -> Result<Self, Error> {
        let graph = fuse(graph);
        Ok(match device {
            Device::Cpu(device) => Self::Cpu(Box::new(compile(device, &graph, weights).await?)),
            Device::Gpu(device) => Self::Gpu(Box::new(compile(device, &graph, weights).await?)),
        })
    }

    /// Fills an input.
    ///
    /// # Errors
    /// If there is no such input or it has another length.
    pub fn write(&mut self, input: &str, data: &[f32]) -> Result<(), Error> {
        engine!(self, program => engine::Program::write(&mut **program, input, data))
    }

    /// Number of elements of an input.
    ///
    /// # Errors
    /// If there is no such input.
    pub fn input_length(&self, input: &str) -> Result<usize, Error> {
        let graph = engine!(self, program => engine::Program::graph(&**program));
        Ok(graph.node(graph.input(input)?).elements())
    }

    /// Fills an input with an output of `source`, on the device.
    ///
    /// # Errors
    /// If there is no such input or output, or they differ in length.
    pub fn copy_from(&mut self, input: &str, source: &Program, output: &str) -> Result<(), Error> {
        match (self, source) {
            (Self::Cpu(program), Self::Cpu(source)) => {
                engine::Program::copy_from(&mut **program, input, source, output)
            }
            (Self::Gpu(program), Self::Gpu(source)) => {
                engine::Program::copy_from(&mut **program, input, source, output)
            }
            _ => Err(Error::Mixed),
        }
    }

    /// Fills an input with an output of the same program, on the device.
    ///
    /// # Errors
    /// As [`Program::copy_from`].
    pub fn feed_back(&mut self, input: &str, output: &str) -> Result<(), Error> {
        engine!(self, program => engine::Program::feed_back(&mut **program, input, output))
    }

    /// Computes the outputs; on a GPU, queues the work.
    ///
    /// # Errors
    /// A value that is not finite (on a GPU found by [`Program::read`]), a lost device, or on the CPU, that the outputs became
    /// unwanted.
    pub async fn run(&mut self) -> Result<(), Error> {
        engine!(self, program => engine::Program::run(&mut **program).await)
    }

    /// The fastest kernels for this program on this device: [`crate::gpu::Program::measure_kernels`]. The CPU has no choice.
    ///
    /// # Errors
    /// If memory runs out or the device is lost.
    pub async fn measure_kernels(&self) -> Result<Measured, Error> {
        engine!(self, program => engine::Program::measure_kernels(&**program).await)
    }

    /// The times of a run's nodes, with the inputs that were written last; the device's ceilings are measured when they are
    /// first needed. Takes some tens of runs.
    ///
    /// # Errors
    /// As [`Program::run`], and if the kernels that measure the ceilings do not compile.
    pub async fn profile(&mut self) -> Result<Profile, Error> {
        engine!(self, program => engine::Program::profile(&mut **program).await)
    }

    /// The outputs `names` after a run, as 32-bit words: the bits of f32 values, or packed pixels.
    ///
    /// # Errors
    /// If there is no such output, nothing has run, a value was not finite, or the device is lost.
    pub async fn read(&mut self, names: &[&str]) -> Result<Vec<Vec<u32>>, Error> {
        engine!(self, program => engine::Program::read(&mut **program, names).await)
    }

    /// One f32 output after a run.
    ///
    /// # Errors
    /// As [`Program::read`].
    pub async fn read_f32(&mut self, name: &str) -> Result<Vec<f32>, Error> {
        Ok(self.read(&[name]).await?.remove(0).into_iter().map(f32::from_bits).collect())
    }
}

/// Compiles `graph` on `engine`, whose weights all of `weights` have to be.
async fn compile<E: Engine>(engine: &E, graph: &Graph, weights: &[&Weights]) -> Result<E::Program, Error> {
    let own = weights.iter().map(|weights| E::own(weights).cloned().ok_or(Error::Mixed));
    engine.compile(graph, &own.collect::<Result<Vec<_>, _>>()?).await
}

/// The weights when the device has taken all of them, to be shared.
async fn finished<W: engine::Weights>(mut weights: W) -> Result<Rc<W>, Error> {
    weights.finish().await?;
    Ok(Rc::new(weights))
}
