//! Measures which tilings are fastest on an adapter, with the products of a network.

use super::error::Error;
use super::kernels::non_finite::is_check;
use super::program::Program;
use super::read_back;
use super::variants::{Measured, Product};
use crate::graph::NodeId;
use crate::profile::now;

/// A candidate is repeated until it takes so many seconds: many times what a wait costs.
const LONG_ENOUGH: f64 = 0.002;

/// Repetitions of a measurement; the fastest counts.
const REPETITIONS: usize = 3;

impl Program {
    /// Takes the time of the tilings that suit each product of the network, with its own weights, and returns the fastest: for
    /// [`super::Device::set_measured`], and to be kept for this adapter. A few milliseconds for each; nothing if the device keeps
    /// its tiles in registers.
    ///
    /// # Errors
    /// If memory runs out or the device is lost.
    pub async fn measure_kernels(&self) -> Result<Measured, Error> {
        self.check()?;
        let variants = self.device.variants();
        let mut measured = Measured::new();
        for (index, node) in self.graph().nodes().iter().enumerate() {
            let Some((product, weight)) = Product::of(self.graph(), node) else { continue };
            let Some(storage) = self.bound.get(weight.index()).map(|stored| stored.storage) else { continue };
            let key = (product, storage);
            if measured.contains_key(&key) {
                continue;
            }
            let graph = self.graph().single(NodeId(index));
            let (mut repeats, mut best) = (None, f64::INFINITY);
            for tiling in variants.candidates(product) {
                let mut variants = variants.clone();
                variants.set_measured(Measured::from([(key, tiling)]));
                let candidate = Program::compile_with(&self.device, &graph, &self.weights, &variants).await?;
                // The first candidate says how often all are repeated, so that they are compared alike.
                let repeats = match repeats {
                    Some(repeats) => repeats,
                    None => *repeats.insert(candidate.repeats().await?),
                };
                let seconds = candidate.fastest(repeats).await?;
                if seconds < best {
                    best = seconds;
                    measured.insert(key, tiling);
                }
            }
        }
        Ok(measured)
    }

    /// The number of runs that take long enough.
    async fn repeats(&self) -> Result<u32, Error> {
        // The first run wakes the device up.
        self.time(1).await?;
        let mut repeats = 1;
        while repeats < 256 && self.time(repeats).await? < LONG_ENOUGH {
            repeats *= 2;
        }
        Ok(repeats)
    }

    async fn fastest(&self, repeats: u32) -> Result<f64, Error> {
        let mut best = f64::INFINITY;
        // The first run is one too many: it may find the device asleep.
        for _ in 0..=REPETITIONS {
            best = self.time(repeats).await?.min(best);
        }
        Ok(best)
    }

    /// Seconds of `repeats` runs, without the check of the output.
    async fn time(&self, repeats: u32) -> Result<f64, Error> {
        let product = || self.recorded.iter().filter(|recorded| !is_check(&recorded.kernel));
        let start = now();
        self.submit((0..repeats).flat_map(|_| product()));
        read_back::idle(&self.device).await?;
        Ok(now() - start)
    }
}
