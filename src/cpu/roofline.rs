//! A machine's ceilings, measured on it.

use undiffuse_kernels::layout::Copy;
use undiffuse_kernels::roofline::MultiplyAdds;
use undiffuse_kernels::{ALIGNMENT, Job};

use super::machine::Region;
use super::{Device, Error};
use crate::profile::{Ceilings, now};

/// A measurement is made longer until it takes so many seconds, which no clock's steps disturb.
const LONG_ENOUGH: f64 = 0.004;

/// Number of repetitions of a measurement; the fastest counts.
const REPETITIONS: usize = 5;

/// Bytes of a copy: more than caches hold.
const COPIED: usize = 32 << 20;

/// Measures `device`, in some tens of milliseconds.
pub fn measure(device: &Device) -> Result<Ceilings, Error> {
    let (source, destination) = (region(device, COPIED)?, region(device, COPIED)?);
    let (shape, strides) = ([1, 1, 1, COPIED / 4], [0, 0, 0, 1]);
    let (x, y) = (source.address(), destination.address());
    let copy = Job::new(Copy { x, y, shape, x_strides: strides, y_strides: strides });
    // The first one makes the system grant the memory.
    time(device, copy)?;
    Ok(Ceilings {
        flop_per_second: flop_per_second(device)?,
        half_flop_per_second: None,
        bytes_per_second: 2.0 * COPIED as f64 / best(device, copy)?,
    })
}

/// Measures what `device` computes at most, which takes hardly any memory.
pub fn flop_per_second(device: &Device) -> Result<f64, Error> {
    // As many as keep every thread busy to the end.
    let parts = 4 * device.machine().threads();
    let sums = region(device, parts * (4 * MultiplyAdds::LENGTH).next_multiple_of(ALIGNMENT))?;
    let arithmetic = |count: usize| Job::new(MultiplyAdds { y: sums.address(), count, parts });
    let mut count = MultiplyAdds::STEP << 8;
    // The fastest of several is what has to be long enough: a single one is, too, where something else had the processor.
    let mut seconds = best(device, arithmetic(count))?;
    // The bound is for a clock that stands still.
    while seconds < LONG_ENOUGH && count < 1 << 28 {
        count *= 2;
        seconds = best(device, arithmetic(count))?;
    }
    Ok(2.0 * count as f64 * parts as f64 / seconds)
}

fn region(device: &Device, bytes: usize) -> Result<Region, Error> {
    let what = "the measurement of this machine".to_owned();
    Region::new(device.machine(), bytes).ok_or(Error::OutOfMemory { what, bytes: bytes as u64 })
}

/// The seconds that a job takes whose memory the caller holds.
fn time(device: &Device, job: Job) -> Result<f64, Error> {
    let start = now();
    // SAFETY: the job reads and writes regions of its caller's, which are as long as it says.
    unsafe { device.run_now(job) }?;
    Ok(now() - start)
}

fn best(device: &Device, job: Job) -> Result<f64, Error> {
    (0..REPETITIONS).try_fold(f64::INFINITY, |best, _| Ok(time(device, job)?.min(best)))
}
