//! The engine of [`crate::gpu`].

use std::rc::Rc;

use super::engine::{Engine, Program, Weights};
use super::{Error, Measured, Weights as Any};
use crate::gpu;
use crate::graph::{Graph, WeightSpec};
use crate::profile::Profile;
use crate::weights::{Encoding, LowRank};

impl Engine for gpu::Device {
    type Weights = gpu::Weights;
    type Program = gpu::Program;

    fn places(&self, specs: &[WeightSpec]) -> Result<gpu::Weights, Error> {
        Ok(gpu::Weights::new(self, specs))
    }

    async fn compile(&self, graph: &Graph, weights: &[Rc<gpu::Weights>]) -> Result<gpu::Program, Error> {
        Ok(gpu::Program::compile(self, graph, weights).await?)
    }

    fn own(weights: &Any) -> Option<&Rc<gpu::Weights>> {
        if let Any::Gpu(weights) = weights { Some(weights) } else { None }
    }
}

impl Weights for gpu::Weights {
    type Program = gpu::Program;

    fn begin(&mut self, index: usize, dtype: Encoding) -> Result<(), Error> {
        Ok(self.begin(index, dtype)?)
    }

    fn chunk(&mut self, bytes: &[u8]) -> Result<(), Error> {
        Ok(self.chunk(bytes)?)
    }

    fn end(&mut self) -> Result<(), Error> {
        Ok(self.end()?)
    }

    async fn finish(&mut self) -> Result<(), Error> {
        Ok(self.finish().await?)
    }

    fn specs(&self) -> &[WeightSpec] {
        self.specs()
    }

    fn bytes(&self) -> u64 {
        self.bytes()
    }

    async fn merge(&self, index: usize, additions: &[LowRank]) -> Result<(), Error> {
        Ok(self.merge(index, additions).await?)
    }

    fn restore(&self, index: usize) {
        self.restore(index);
    }

    async fn store(&self, name: &str, source: &gpu::Program, output: &str) -> Result<(), Error> {
        Ok(self.store(name, source, output).await?)
    }
}

impl Program for gpu::Program {
    fn graph(&self) -> &Graph {
        self.graph()
    }

    fn write(&mut self, input: &str, data: &[f32]) -> Result<(), Error> {
        Ok(gpu::Program::write(self, input, data)?)
    }

    fn copy_from(&mut self, input: &str, source: &Self, output: &str) -> Result<(), Error> {
        Ok(self.copy_input(input, source, output)?)
    }

    fn feed_back(&mut self, input: &str, output: &str) -> Result<(), Error> {
        Ok(self.copy_input(input, self, output)?)
    }

    async fn run(&mut self) -> Result<(), Error> {
        Ok(gpu::Program::run(self)?)
    }

    async fn read(&mut self, names: &[&str]) -> Result<Vec<Vec<u32>>, Error> {
        Ok(gpu::Program::read(self, names).await?)
    }

    async fn profile(&mut self) -> Result<Profile, Error> {
        Ok(gpu::Program::profile(self).await?)
    }

    async fn measure_kernels(&self) -> Result<Measured, Error> {
        Ok(self.measure_kernels().await?)
    }
}
