//! A device's ceilings, measured on it.

use super::buffer::{Buffer, Memory};
use super::device::Device;
use super::error::Error;
use super::kernel::{Kernel, words};
use super::kernels::roofline::{COPY_VECTORS, HALF_MULTIPLY_ADDS, MATRICES, MULTIPLY_ADDS, Roofline};
use super::read_back;
use crate::profile::{Ceilings, now};

/// A measurement is made longer until it takes so many seconds, which no wait and no clock's steps disturb.
const LONG_ENOUGH: f64 = 0.01;

/// Repetitions of a measurement that is long enough; the fastest counts.
const REPETITIONS: usize = 5;

/// Invocations of the arithmetic: enough to fill the largest GPU.
const INVOCATIONS: u32 = 1 << 17;

/// Operations of an invocation in each round: 8 sums of 4 lanes take 4 products each.
const FLOP: f64 = 2.0 * 8.0 * 4.0 * 4.0;

/// Bytes of a copy on a GPU, more than its caches hold; a software adapter has smaller ones, and is slow.
const COPIED: [u64; 2] = [64 << 20, 16 << 20];

impl Device {
    /// The device's ceilings, measured when they are first asked for.
    ///
    /// # Errors
    /// If the device is lost, has no memory for the measurement, or does not compile its kernels.
    pub async fn ceilings(&self) -> Result<Ceilings, Error> {
        if let Some(known) = self.known_ceilings().get() {
            return Ok(known);
        }
        let measured = measure(self).await?;
        self.known_ceilings().set(Some(measured));
        Ok(measured)
    }
}

/// Measures `device`, in some tens of milliseconds and what compiling three small kernels takes.
async fn measure(device: &Device) -> Result<Ceilings, Error> {
    let half = device.capabilities().f16;
    let arithmetic = [Some(&MATRICES), Some(&MULTIPLY_ADDS), half.then_some(&HALF_MULTIPLY_ADDS)];
    let arithmetic = arithmetic.map(|entry| entry.map(|entry| entry.kernel()));
    let copy = COPY_VECTORS.kernel();
    let all: Vec<_> = arithmetic.into_iter().flatten().chain([copy]).map(|kernel| (kernel, "roofline")).collect();
    device.compile(&all).await?;

    let [on_gpu, in_software] = COPIED;
    let copied = if device.info().software { in_software } else { on_gpu }.min(device.limits().binding_bytes);
    let source = device.storage_buffer("roofline", copied)?;
    let destination = device.storage_buffer("roofline", copied)?;
    device.write(&source, bytemuck::cast_slice(&[1e-6f32; 36]));
    let buffers = (&source, &destination);

    let mut rates = [0.0; 3];
    for (rate, kernel) in rates.iter_mut().zip(arithmetic) {
        let Some(kernel) = kernel else { continue };
        let mut rounds = 4;
        let seconds = fastest(device, async |longer| {
            rounds *= longer;
            queue(device, kernel, Roofline { invocations: INVOCATIONS, rounds }, buffers);
        });
        let seconds = seconds.await?;
        *rate = FLOP * f64::from(INVOCATIONS) * f64::from(rounds) / seconds;
    }
    let mut copies = 1;
    let vectors = (copied / 64) as u32;
    let seconds = fastest(device, async |longer| {
        copies *= longer;
        (0..copies).for_each(|_| queue(device, copy, Roofline { invocations: vectors, rounds: 0 }, buffers));
    });
    let seconds = seconds.await?;
    let [matrices, multiply_adds, half_rate] = rates;
    Ok(Ceilings {
        flop_per_second: multiply_adds.max(matrices),
        half_flop_per_second: half.then_some(half_rate),
        bytes_per_second: 2.0 * (64 * vectors) as f64 * f64::from(copies) / seconds,
    })
}

/// The least time that the work queued by `work` takes, when it is long enough. The argument says how many times as much is to
/// be done as the last time.
async fn fastest(device: &Device, mut work: impl AsyncFnMut(u32)) -> Result<f64, Error> {
    let (mut longer, mut best, mut counted) = (1, f64::INFINITY, 0);
    // A device that is never slow enough is one whose clock stands still: 2^24 times the least work is beyond any GPU.
    for _ in 0..24 + REPETITIONS {
        read_back::idle(device).await?;
        let start = now();
        work(longer).await;
        read_back::idle(device).await?;
        let seconds = now() - start;
        if seconds < LONG_ENOUGH {
            // What was counted before was long only by a step of a coarse clock, or by what else the machine did.
            (longer, best, counted) = (2, f64::INFINITY, 0);
            continue;
        }
        (longer, best, counted) = (1, best.min(seconds), counted + 1);
        if counted == REPETITIONS {
            break;
        }
    }
    Ok(best)
}

fn queue(device: &Device, kernel: Kernel, parameters: Roofline, (source, destination): (&Buffer, &Buffer)) {
    if let Some(pipeline) = device.pipeline(&kernel) {
        device.dispatch(&kernel, &pipeline, words(&parameters), &[Memory::whole(source)], destination);
    }
}
