//! A CPU as a device: a handle that weights and programs share.

use std::rc::Rc;

use super::Machine;

/// Something that runs kernels, shared by what lies in its memory.
#[derive(Clone, Debug)]
pub struct Device {
    machine: Rc<dyn Machine>,
}

impl Device {
    /// What `machine` is.
    pub fn new(machine: Rc<dyn Machine>) -> Self {
        Self { machine }
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

    pub(super) fn machine(&self) -> &Rc<dyn Machine> {
        &self.machine
    }
}
