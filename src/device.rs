//! One graph, either executor: the CPU or WebGPU behind the same calls.

use std::rc::Rc;

use crate::gpu::variants::Measured;
use crate::graph::{Graph, WeightSpec};
use crate::profile::Profile;
use crate::weights::{Dtype, LowRank};
use crate::{cpu, gpu};

/// Where networks run.
#[derive(Clone, Debug)]
pub enum Device {
    /// The executor of [`crate::cpu`].
    Cpu(cpu::Device),
    /// The executor of [`crate::gpu`].
    Gpu(gpu::Device),
}

impl Device {
    /// This machine's CPU, with all of its cores and vectors.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn cpu() -> Self {
        Self::Cpu(cpu::Device::native(None, cpu::Arithmetic::default()))
    }
}

/// What can go wrong on a device.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// On the CPU.
    #[error(transparent)]
    Cpu(#[from] cpu::Error),
    /// On a GPU.
    #[error(transparent)]
    Gpu(#[from] gpu::Error),
    /// A program, weights and a source of data that are not of one device.
    #[error("the parts of this network lie on different devices")]
    Mixed,
}

/// Words read back from a device as the f32 values that they are.
pub fn floats(words: Vec<u32>) -> Vec<f32> {
    bytemuck::allocation::cast_vec(words)
}

/// The weights of one network on a device, shared by its programs.
#[derive(Debug)]
pub enum Weights {
    /// On the CPU.
    Cpu(Rc<cpu::Weights>),
    /// On a GPU; freed when the last program that uses them is.
    Gpu(Rc<gpu::Weights>),
}

/// Weights being loaded.
#[derive(Debug)]
pub enum WeightLoader {
    /// On the CPU.
    Cpu(Box<cpu::Weights>),
    /// On a GPU.
    Gpu(Box<gpu::Weights>),
}

/// A graph with its weights on a device; dropping it frees what it holds there.
#[derive(Debug)]
pub enum Program {
    /// On the CPU.
    Cpu(Box<cpu::Program>),
    /// On a GPU.
    Gpu(Box<gpu::Program>),
}

impl WeightLoader {
    /// Places on `device` for the weights `specs`.
    ///
    /// # Errors
    /// If they would not fit.
    pub fn new(device: &Device, specs: &[WeightSpec]) -> Result<Self, Error> {
        match device {
            Device::Cpu(device) => Ok(Self::Cpu(Box::new(cpu::Weights::new(device, specs)?))),
            Device::Gpu(device) => Ok(Self::Gpu(Box::new(gpu::Weights::new(device, specs)))),
        }
    }

    /// Stores weight `index` of the specs from all of its bytes in the checkpoint.
    ///
    /// # Errors
    /// As [`WeightLoader::begin`], [`WeightLoader::chunk`] and [`WeightLoader::end`].
    pub fn put(&mut self, index: usize, dtype: Dtype, bytes: &[u8]) -> Result<(), Error> {
        match self {
            Self::Cpu(weights) => Ok(weights.put(index, dtype, bytes)?),
            Self::Gpu(weights) => Ok(weights.put(index, dtype, bytes)?),
        }
    }

    /// Starts on weight `index` of the specs, whose bytes come next by [`WeightLoader::chunk`].
    ///
    /// # Errors
    /// If a tensor of this dtype cannot be the weight, or the device has no room for it.
    pub fn begin(&mut self, index: usize, dtype: Dtype) -> Result<(), Error> {
        match self {
            Self::Cpu(weights) => Ok(weights.begin(index, dtype)?),
            Self::Gpu(weights) => Ok(weights.begin(index, dtype)?),
        }
    }

    /// The next bytes of the weight, any number, as stored in the checkpoint.
    ///
    /// # Errors
    /// If they are more than the weight has, or the device is lost.
    pub fn chunk(&mut self, bytes: &[u8]) -> Result<(), Error> {
        match self {
            Self::Cpu(weights) => Ok(weights.chunk(bytes)?),
            Self::Gpu(weights) => Ok(weights.chunk(bytes)?),
        }
    }

    /// All bytes of the weight have come.
    ///
    /// # Errors
    /// If they were too few, or the device is lost.
    pub fn end(&mut self) -> Result<(), Error> {
        match self {
            Self::Cpu(weights) => Ok(weights.end()?),
            Self::Gpu(weights) => Ok(weights.end()?),
        }
    }

    /// The loaded weights, when the device has taken all of them.
    ///
    /// # Errors
    /// A weight that is missing, or for which there was no memory, by name.
    pub async fn finish(self) -> Result<Weights, Error> {
        match self {
            Self::Cpu(mut weights) => {
                weights.finish()?;
                Ok(Weights::Cpu(Rc::new(*weights)))
            }
            Self::Gpu(mut weights) => {
                weights.finish().await?;
                Ok(Weights::Gpu(Rc::new(*weights)))
            }
        }
    }
}

impl Weights {
    /// Their names, shapes and roles; [`Weights::merge`] takes a position in this list.
    pub fn specs(&self) -> &[WeightSpec] {
        match self {
            Self::Cpu(weights) => weights.specs(),
            Self::Gpu(weights) => weights.specs(),
        }
    }

    /// Bytes that they take on the device.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Cpu(weights) => weights.bytes(),
            Self::Gpu(weights) => weights.bytes(),
        }
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
        match self {
            Self::Cpu(weights) => Ok(weights.merge(index, additions).await?),
            Self::Gpu(weights) => Ok(weights.merge(index, additions).await?),
        }
    }

    /// Takes back what [`Weights::merge`] has made of weight `index`, for programs compiled from now on.
    pub fn restore(&self, index: usize) {
        match self {
            Self::Cpu(weights) => weights.restore(index),
            Self::Gpu(weights) => weights.restore(index),
        }
    }
}

impl Program {
    /// Prepares `graph`, whose weights are looked up by name.
    ///
    /// # Errors
    /// If a weight is missing, or the device cannot run the graph.
    pub async fn compile(device: &Device, graph: &Graph, weights: &Weights) -> Result<Self, Error> {
        match (device, weights) {
            (Device::Cpu(_), Weights::Cpu(weights)) => {
                Ok(Self::Cpu(Box::new(cpu::Program::new(graph, weights).await?)))
            }
            (Device::Gpu(device), Weights::Gpu(weights)) => {
                Ok(Self::Gpu(Box::new(gpu::Program::compile(device, graph, weights.clone()).await?)))
            }
            _ => Err(Error::Mixed),
        }
    }

    /// Fills an input.
    ///
    /// # Errors
    /// If there is no such input or it has another length.
    pub fn write(&mut self, input: &str, data: &[f32]) -> Result<(), Error> {
        match self {
            Self::Cpu(program) => Ok(program.write(input, data)?),
            Self::Gpu(program) => Ok(program.write(input, data)?),
        }
    }

    /// Number of elements of an input.
    ///
    /// # Errors
    /// If there is no such input.
    pub fn input_length(&self, input: &str) -> Result<usize, Error> {
        let graph = match self {
            Self::Cpu(program) => program.graph(),
            Self::Gpu(program) => program.graph(),
        };
        Ok(graph.node(graph.input(input).map_err(cpu::Error::from)?).elements())
    }

    /// Fills an input with an output of `source`, on the device.
    ///
    /// # Errors
    /// If there is no such input or output, or they differ in length.
    pub fn copy_from(&mut self, input: &str, source: &Program, output: &str) -> Result<(), Error> {
        match (self, source) {
            (Self::Cpu(program), Self::Cpu(source)) => Ok(program.copy_from(input, source, output)?),
            (Self::Gpu(program), Self::Gpu(source)) => Ok(program.copy_input(input, source, output)?),
            _ => Err(Error::Mixed),
        }
    }

    /// Fills an input with an output of the same program, on the device.
    ///
    /// # Errors
    /// As [`Program::copy_from`].
    pub fn feed_back(&mut self, input: &str, output: &str) -> Result<(), Error> {
        match self {
            Self::Cpu(program) => Ok(program.feed_back(input, output)?),
            Self::Gpu(program) => Ok(program.copy_input(input, program, output)?),
        }
    }

    /// Computes the outputs; on a GPU, queues the work.
    ///
    /// # Errors
    /// A value that is not finite (on a GPU found by [`Program::read`]), a lost device, or on the CPU, that the outputs became
    /// unwanted.
    pub async fn run(&mut self) -> Result<(), Error> {
        match self {
            Self::Cpu(program) => Ok(program.run().await?),
            Self::Gpu(program) => Ok(program.run()?),
        }
    }

    /// The fastest kernels for this program on this device: [`gpu::Program::measure_kernels`]. The CPU has no choice.
    ///
    /// # Errors
    /// If memory runs out or the device is lost.
    pub async fn measure_kernels(&self) -> Result<Measured, Error> {
        match self {
            Self::Cpu(_) => Ok(Measured::default()),
            Self::Gpu(program) => Ok(program.measure_kernels().await?),
        }
    }

    /// Where the time of a run goes, with the inputs that were written last; the device's ceilings are measured when they are first
    /// needed. Takes some tens of runs.
    ///
    /// # Errors
    /// As [`Program::run`], and if the kernels that measure the ceilings do not compile.
    pub async fn profile(&mut self) -> Result<Profile, Error> {
        match self {
            Self::Cpu(program) => Ok(program.profile().await?),
            Self::Gpu(program) => Ok(program.profile().await?),
        }
    }

    /// The outputs `names` after a run, as 32-bit words: the bits of f32 values, or packed pixels.
    ///
    /// # Errors
    /// If there is no such output, nothing has run, a value was not finite, or the device is lost.
    pub async fn read(&mut self, names: &[&str]) -> Result<Vec<Vec<u32>>, Error> {
        match self {
            Self::Cpu(program) => names.iter().map(|name| Ok(program.read_words(name)?)).collect(),
            Self::Gpu(program) => Ok(program.read(names).await?),
        }
    }

    /// One f32 output after a run.
    ///
    /// # Errors
    /// As [`Program::read`].
    pub async fn read_f32(&mut self, name: &str) -> Result<Vec<f32>, Error> {
        Ok(self.read(&[name]).await?.remove(0).into_iter().map(f32::from_bits).collect())
    }
}
