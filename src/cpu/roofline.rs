//! A machine's ceilings, measured on it.

use undiffuse_kernels::layout::Copy;
use undiffuse_kernels::roofline::MultiplyAdds;
use undiffuse_kernels::{ALIGNMENT, Job};

use super::machine::Region;
use super::{Device, Error};
use crate::profile::{Ceilings, now};

/// A measurement is made longer until it takes so many seconds, which no clock's steps disturb.
const LONG_ENOUGH: f64 = 0.004;

/// How often the one that is long enough is repeated; the fastest counts.
const REPETITIONS: usize = 5;

/// Bytes of a copy: more than caches hold.
const COPIED: usize = 32 << 20;

/// Measures `device`, in some tens of milliseconds.
pub fn measure(device: &Device) -> Result<Ceilings, Error> {
    let machine = device.machine();
    let region = |bytes: usize| {
        let what = "the measurement of this machine".to_owned();
        Region::new(machine, bytes).ok_or(Error::OutOfMemory { what, bytes: bytes as u64 })
    };
    let (source, destination) = (region(COPIED)?, region(COPIED)?);
    // As many as keep every thread busy to the end.
    let parts = 4 * machine.threads();
    let sums = region(parts * (4 * MultiplyAdds::LENGTH).next_multiple_of(ALIGNMENT))?;
    let time = |jobs: &[Job]| {
        let start = now();
        // SAFETY: the jobs read and write these regions, which are as long as they say.
        unsafe { machine.run(jobs) };
        now() - start
    };

    let arithmetic = |count: usize| Job::new(MultiplyAdds { y: sums.address(), count, parts });
    let mut count = MultiplyAdds::STEP << 8;
    // The bound is for a clock that stands still.
    while time(&[arithmetic(count)]) < LONG_ENOUGH && count < 1 << 28 {
        count *= 2;
    }
    let best = |jobs: &[Job]| (0..REPETITIONS).map(|_| time(jobs)).fold(f64::INFINITY, f64::min);
    let seconds = best(&[arithmetic(count)]);
    let (shape, strides) = ([1, 1, 1, COPIED / 4], [0, 0, 0, 1]);
    let (x, y) = (source.address(), destination.address());
    let copy = Job::new(Copy { x, y, shape, x_strides: strides, y_strides: strides });
    // The first one makes the system grant the memory.
    time(&[copy]);
    Ok(Ceilings {
        flop_per_second: 2.0 * count as f64 * parts as f64 / seconds,
        half_flop_per_second: None,
        bytes_per_second: 2.0 * COPIED as f64 / best(&[copy]),
    })
}
