//! The engine of a device: something that keeps weights and runs graphs.
//!
//! An engine is chosen once, when a device is opened; which one it is, the facade knows by an arm for each ([`super::Device`]). The
//! traits are not made into objects: a module for browsers then holds those methods alone that it calls.

use std::rc::Rc;

use super::{Error, Measured};
use crate::graph::{Graph, WeightSpec};
use crate::profile::Profile;
use crate::weights::{Encoding, LowRank};

/// An open device of one kind.
pub trait Engine {
    /// Weights on such a device.
    type Weights: Weights<Program = Self::Program>;
    /// Programs of such a device.
    type Program: Program;

    /// Places for the weights `specs`, of which none is loaded.
    ///
    /// # Errors
    /// If they would not fit.
    fn places(&self, specs: &[WeightSpec]) -> Result<Self::Weights, Error>;

    /// Prepares `graph`, each of whose weights is in exactly one of the sets `weights`.
    ///
    /// # Errors
    /// If a weight is in none or in two of them, by name, or the device cannot run the graph.
    async fn compile(&self, graph: &Graph, weights: &[Rc<Self::Weights>]) -> Result<Self::Program, Error>;

    /// Floating point operations in a second at most, measured when first asked for, if the engine can tell beforehand.
    ///
    /// # Errors
    /// If there is no memory for the measurement.
    fn flop_per_second(&self) -> Result<Option<f64>, Error> {
        Ok(None)
    }

    /// The weights themselves, if they are this engine's.
    fn own(weights: &super::Weights) -> Option<&Rc<Self::Weights>>;
}

/// Weights on a device: loaded one by one, then shared by programs.
pub trait Weights {
    /// The engine's programs.
    type Program;

    /// Starts on weight `index` of the specs, whose bytes come next.
    ///
    /// # Errors
    /// If a tensor of this dtype cannot be the weight, or the device has no room for it.
    fn begin(&mut self, index: usize, dtype: Encoding) -> Result<(), Error>;

    /// Takes the next bytes of the weight, any number, as stored in the checkpoint.
    ///
    /// # Errors
    /// If they are more than the weight has, or the device is lost.
    fn chunk(&mut self, bytes: &[u8]) -> Result<(), Error>;

    /// Ends the weight, all of whose bytes have come.
    ///
    /// # Errors
    /// If they were too few, or the device is lost.
    fn end(&mut self) -> Result<(), Error>;

    /// Ends the loading, when the device has taken all weights.
    ///
    /// # Errors
    /// A weight that is missing, or for which there was no memory, by name.
    async fn finish(&mut self) -> Result<(), Error>;

    /// Names, shapes and roles.
    fn specs(&self) -> &[WeightSpec];

    /// Bytes on the device.
    fn bytes(&self) -> u64;

    /// Replaces matrix `index`, for programs compiled from now on, by the weight as it was loaded plus Σ scale·up·down.
    ///
    /// # Errors
    /// If the factors do not fit the weight, if it is no matrix, or if the device refuses.
    async fn merge(&self, index: usize, additions: &[LowRank]) -> Result<(), Error>;

    /// Takes back what [`Weights::merge`] has made of weight `index`, for programs compiled from now on.
    fn restore(&self, index: usize);

    /// Brings what an optimiser has changed to all programs that read it.
    ///
    /// # Errors
    /// If it became unwanted.
    #[cfg(feature = "training")]
    fn refresh(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Copies an output of `source` to the place of the weight `name`, for all programs that use it.
    ///
    /// # Errors
    /// If the weight is not kept as f32 or has been merged with additions, or if the output does not fit it.
    async fn store(&self, name: &str, source: &Self::Program, output: &str) -> Result<(), Error>;
}

/// A graph with its weights on a device. Inputs keep what was written to them; outputs keep their value until the next run.
pub trait Program {
    /// The graph as it is run.
    fn graph(&self) -> &Graph;

    /// Fills an input.
    ///
    /// # Errors
    /// If there is no such input or it has another length.
    fn write(&mut self, input: &str, data: &[f32]) -> Result<(), Error>;

    /// Fills an input with an output of `source`, on the device.
    ///
    /// # Errors
    /// If there is no such input or output, or they differ in length.
    fn copy_from(&mut self, input: &str, source: &Self, output: &str) -> Result<(), Error>;

    /// Fills an input with an output of the same program, on the device.
    ///
    /// # Errors
    /// As [`Program::copy_from`].
    fn feed_back(&mut self, input: &str, output: &str) -> Result<(), Error>;

    /// Computes the outputs, or queues the work.
    ///
    /// # Errors
    /// What stops the computation, if it is known by then.
    async fn run(&mut self) -> Result<(), Error>;

    /// The outputs `names` after a run, as 32-bit words: the bits of f32 values, or packed pixels.
    ///
    /// # Errors
    /// If there is no such output, nothing has run, a value was not finite, or the device is lost.
    async fn read(&mut self, names: &[&str]) -> Result<Vec<Vec<u32>>, Error>;

    /// The times of a run's nodes.
    ///
    /// # Errors
    /// As [`Program::run`], and if the device's ceilings cannot be measured.
    async fn profile(&mut self) -> Result<Profile, Error>;

    /// The fastest kernels for this program, if the engine has a choice.
    ///
    /// # Errors
    /// If memory runs out or the device is lost.
    async fn measure_kernels(&self) -> Result<Measured, Error> {
        Ok(Measured::default())
    }
}
