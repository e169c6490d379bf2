//! A CPU as a device: a handle that weights and programs share.

use std::cell::Cell;
use std::rc::Rc;

use undiffuse_kernels::Job;

use super::{Error, Machine, roofline};
use crate::profile::{Ceilings, now};

/// Something that runs kernels, shared by what lies in its memory.
#[derive(Clone, Debug)]
pub struct Device {
    machine: Rc<dyn Machine>,
    ceilings: Rc<Cell<Option<Ceilings>>>,
}

impl Device {
    /// The device that computes on `machine`.
    pub fn new(machine: Rc<dyn Machine>) -> Self {
        Self { machine, ceilings: Rc::default() }
    }

    /// The device of this process, with `threads` threads, by default one for each core.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn native(threads: Option<usize>, arithmetic: super::Arithmetic) -> Self {
        let cores = || std::thread::available_parallelism().map_or(1, |n| n.get());
        Self::new(Rc::new(super::Host::new(threads.unwrap_or_else(cores), arithmetic)))
    }

    /// Number of threads that work.
    pub fn threads(&self) -> usize {
        self.machine.threads()
    }

    /// The most that the machine can do, measured when it is first asked for.
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

    /// Floating point operations in a second, at most. That alone is measured sooner than [`Device::ceilings`].
    ///
    /// # Errors
    /// As [`Device::ceilings`].
    pub fn flop_per_second(&self) -> Result<f64, Error> {
        self.ceilings.get().map_or_else(|| roofline::flop_per_second(self), |known| Ok(known.flop_per_second))
    }

    /// Does `jobs`, with pauses; returns the seconds that they took without these.
    ///
    /// # Safety
    /// As of [`Machine::run`], until all is done or the future is dropped.
    ///
    /// # Errors
    /// [`Error::Aborted`] after a pause in which the work became unwanted, and those of [`Machine::run`]. Some jobs are done then.
    pub(super) async unsafe fn run(&self, jobs: &[Job]) -> Result<f64, Error> {
        let parts = jobs.iter().map(Job::parts).sum();
        let (mut done, mut seconds) = (0, 0.0);
        while done < parts {
            let start = now();
            // SAFETY: as the caller says.
            done = unsafe { self.machine.run(jobs, done) }?;
            seconds += now() - start;
            self.pause().await?;
        }
        Ok(seconds)
    }

    /// Does a short `job` at once.
    ///
    /// # Safety
    /// As of [`Machine::run`].
    ///
    /// # Errors
    /// Those of [`Machine::run`].
    pub(super) unsafe fn run_now(&self, job: Job) -> Result<(), Error> {
        let mut done = 0;
        while done < job.parts() {
            // SAFETY: as the caller says.
            done = unsafe { self.machine.run(&[job], done) }?;
        }
        Ok(())
    }

    /// A moment for others who use this thread, if it is due.
    ///
    /// # Errors
    /// [`Error::Aborted`] if what is being computed became unwanted.
    pub(super) async fn pause(&self) -> Result<(), Error> {
        if self.machine.pause().await { Ok(()) } else { Err(Error::Aborted) }
    }

    pub(super) fn machine(&self) -> &Rc<dyn Machine> {
        &self.machine
    }
}
