//! A CPU as a device: a handle that weights and programs share.

use std::cell::Cell;
use std::rc::Rc;

use super::{Error, Machine, roofline};
use crate::profile::Ceilings;

/// Something that runs kernels, shared by what lies in its memory.
#[derive(Clone, Debug)]
pub struct Device {
    machine: Rc<dyn Machine>,
    ceilings: Rc<Cell<Option<Ceilings>>>,
}

impl Device {
    /// What `machine` is.
    pub fn new(machine: Rc<dyn Machine>) -> Self {
        Self { machine, ceilings: Rc::default() }
    }

    /// This process, with `threads` threads, by default one for each core.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn native(threads: Option<usize>, arithmetic: super::Arithmetic) -> Self {
        let cores = || std::thread::available_parallelism().map_or(1, |n| n.get());
        Self::new(Rc::new(super::Host::new(threads.unwrap_or_else(cores), arithmetic)))
    }

    /// How many threads work.
    pub fn threads(&self) -> usize {
        self.machine.threads()
    }

    /// What the machine can do at most, measured when it is first asked for.
    ///
    /// # Errors
    /// If there is no memory for the measurement.
    pub fn ceilings(&self) -> Result<Ceilings, Error> {
        if let Some(known) = self.ceilings.get() {
            return Ok(known);
        }
        let measured = roofline::measure(self)?;
        self.ceilings.set(Some(measured));
        Ok(measured)
    }

    /// How many floating point operations it does in a second at most. That alone is measured sooner than [`Device::ceilings`].
    ///
    /// # Errors
    /// As [`Device::ceilings`].
    pub fn flop_per_second(&self) -> Result<f64, Error> {
        self.ceilings.get().map_or_else(|| roofline::flop_per_second(self), |known| Ok(known.flop_per_second))
    }

    pub(super) fn machine(&self) -> &Rc<dyn Machine> {
        &self.machine
    }
}
