//! The machine that the kernels run on: memory, and something that does their jobs.

use std::rc::Rc;

use undiffuse_kernels::Job;

use super::Error;
use crate::weights::LocalBoxFuture;

/// Memory that kernels see, with threads that run them. Natively that is the process itself ([`super::Host`]); in a browser it is a
/// WebAssembly module of its own, whose memory nothing else touches.
///
/// An address is a number in that memory. Reading and writing outside of what was allocated panics; in a browser it throws, or where
/// that is still within the kernels' memory, harms nothing but the network's values.
///
/// # Safety
/// Jobs are made from the addresses that [`Machine::allocate`] returns: its regions are aligned to 64, as long as was asked, apart
/// from each other and from all that is not this machine's, and stay so until they are given back. [`Machine::run`] does all parts of
/// a job, each once, before any of the next one, and is at work on none when it returns.
pub unsafe trait Machine: std::fmt::Debug {
    /// A region of at least `bytes` bytes, aligned to 64, with anything in it; `None` if there is no memory for it.
    fn allocate(&self, bytes: usize) -> Option<usize>;

    /// Gives the region at `address` back.
    ///
    /// # Safety
    /// No job that is still to run names anything in it.
    unsafe fn free(&self, address: usize);

    /// Copies `bytes` to `address`.
    fn write(&self, address: usize, bytes: &[u8]);

    /// Copies what lies at `address` to `bytes`.
    fn read(&self, address: usize, bytes: &mut [u8]);

    /// Goes on with `jobs` where `done` of their parts are done, counted through all jobs: one job after the other, the parts of each
    /// on all threads. Returns how many parts are done then, at least one more: all of them, unless others wait for this thread.
    ///
    /// # Safety
    /// What [`undiffuse_kernels::run`] asks of each job holds when its turn comes.
    ///
    /// # Errors
    /// If a thread has ended in the middle of a part.
    unsafe fn run(&self, jobs: &[Job], done: usize) -> Result<usize, Error>;

    /// Lets others use this thread if their time has come, and returns whether what is being computed is still wanted. A machine
    /// whose thread nobody else waits for has no use for it.
    fn pause(&self) -> LocalBoxFuture<'_, bool> {
        Box::pin(std::future::ready(true))
    }

    /// Number of threads that work.
    fn threads(&self) -> usize;
}

/// A region of a machine's memory, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Region {
    machine: Rc<dyn Machine>,
    address: usize,
    bytes: usize,
}

impl Region {
    /// Takes a region of so many bytes; `None` if there is no memory for it.
    pub fn new(machine: &Rc<dyn Machine>, bytes: usize) -> Option<Self> {
        let address = machine.allocate(bytes)?;
        Some(Self { machine: machine.clone(), address, bytes })
    }

    /// Address of the region's first byte.
    pub fn address(&self) -> usize {
        self.address
    }

    /// Length of the region in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: whoever makes jobs of this region holds it for as long as they are run.
        unsafe { self.machine.free(self.address) };
    }
}
