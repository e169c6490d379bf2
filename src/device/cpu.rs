//! The engine of [`crate::cpu`].

use std::rc::Rc;

use super::engine::{Engine, Program, Weights};
use super::{Error, Weights as Any};
use crate::cpu;
use crate::graph::{Graph, WeightSpec};
use crate::profile::Profile;
use crate::weights::{Encoding, LowRank};

impl Engine for cpu::Device {
    type Weights = cpu::Weights;
    type Program = cpu::Program;

    fn places(&self, specs: &[WeightSpec]) -> Result<cpu::Weights, Error> {
        Ok(cpu::Weights::new(self, specs)?)
    }

    async fn compile(&self, graph: &Graph, weights: &[Rc<cpu::Weights>]) -> Result<cpu::Program, Error> {
        let weights: Vec<&cpu::Weights> = weights.iter().map(|weights| &**weights).collect();
        Ok(cpu::Program::new(self, graph, &weights).await?)
    }

    fn flop_per_second(&self) -> Result<Option<f64>, Error> {
        Ok(Some(self.flop_per_second()?))
    }

    fn own(weights: &Any) -> Option<&Rc<cpu::Weights>> {
        if let Any::Cpu(weights) = weights { Some(weights) } else { None }
    }
}

impl Weights for cpu::Weights {
    type Program = cpu::Program;

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
        Ok(self.finish()?)
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

    #[cfg(feature = "training")]
    fn refresh(&self) -> Result<(), Error> {
        Ok(self.refresh()?)
    }

    async fn store(&self, name: &str, source: &cpu::Program, output: &str) -> Result<(), Error> {
        Ok(self.store(name, source, output)?)
    }
}

impl Program for cpu::Program {
    fn graph(&self) -> &Graph {
        self.graph()
    }

    fn write(&mut self, input: &str, data: &[f32]) -> Result<(), Error> {
        Ok(self.write(input, data)?)
    }

    fn copy_from(&mut self, input: &str, source: &Self, output: &str) -> Result<(), Error> {
        Ok(self.copy_from(input, source, output)?)
    }

    fn feed_back(&mut self, input: &str, output: &str) -> Result<(), Error> {
        Ok(self.feed_back(input, output)?)
    }

    async fn run(&mut self) -> Result<(), Error> {
        Ok(self.run().await?)
    }

    async fn read(&mut self, names: &[&str]) -> Result<Vec<Vec<u32>>, Error> {
        names.iter().map(|name| Ok(self.read_words(name)?)).collect()
    }

    async fn profile(&mut self) -> Result<Profile, Error> {
        Ok(self.profile().await?)
    }
}
