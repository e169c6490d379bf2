//! A weight on its way into GPU memory: its bytes are queued as they arrive, and a kernel lays them out.
//!
//! The host holds no more than the chunk at hand. Rows that have arrived lie in one staging buffer until it is full of
//! whole blocks of four of them; then they are laid out, and the buffer is filled again. The queue keeps the order.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use super::buffer::{Buffer, Memory};
use super::device::{Device, Outcome};
use super::error::Error;
use super::kernel::Kernel;
use super::storage::Storage;
use crate::weights::{Cutter, Encoding};

/// Bytes of rows that are laid out at once, unless a single block of rows is more.
const STAGING_BYTES: u64 = 4 << 20;

/// Bytes that are converted at once, where the host has to convert.
const CONVERTED_AT_ONCE: usize = 64 << 10;

/// Submits that may be under way while bytes are queued: the queue keeps a copy of them until it comes to them.
const UNDER_WAY: usize = 2;

/// The form in which a weight is laid out.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shape {
    /// f32 values, one after the other.
    Vector,
    /// `[out, in, taps]`, in blocks.
    Matrix([usize; 3]),
}

/// The data type that a tensor of `dtype` has to be converted to first, and its storage; vectors are f32.
///
/// `None` if it holds no weights.
fn storage_of(shape: Shape, dtype: Encoding) -> Option<(Encoding, Storage)> {
    dtype.is_weight().then(|| match shape {
        Shape::Vector => (Encoding::F32, Storage::F32),
        Shape::Matrix(sizes) => Storage::of_matrix(sizes, dtype),
    })
}

/// The way into GPU memory, for one weight at a time.
#[derive(Debug)]
pub(super) struct Upload {
    queue: Queue,
    arriving: Option<Arriving>,
}

impl Upload {
    pub fn new(device: &Device) -> Self {
        let (staging, outcomes, submissions) = Default::default();
        Self { queue: Queue { device: device.clone(), staging, outcomes, submissions }, arriving: None }
    }

    /// Allocates the weight `name`, of as many elements as `elements`, a tensor of `dtype`.
    ///
    /// # Errors
    /// If the tensor cannot be the weight, or is larger than a buffer may be; what the device has said of earlier weights.
    pub fn begin(&mut self, name: &str, shape: Shape, elements: usize, dtype: Encoding) -> Result<(), Error> {
        self.arriving = None;
        self.queue.hear()?;
        self.queue.device.check()?;
        self.arriving = Some(Arriving::new(&mut self.queue, name, shape, elements, dtype)?);
        Ok(())
    }

    /// Takes the next bytes of the weight.
    ///
    /// # Errors
    /// If they are more than the tensor has, or cannot be converted; the weight is given up.
    pub fn chunk(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let Some(mut arriving) = self.arriving.take() else { return Ok(()) };
        arriving.chunk(&mut self.queue, bytes)?;
        self.arriving = Some(arriving);
        Ok(())
    }

    /// The weight, all bytes of which have come; what is queued fills it.
    ///
    /// # Errors
    /// If bytes are missing.
    pub fn end(&mut self) -> Result<Option<(Buffer, Storage)>, Error> {
        let Some(arriving) = self.arriving.take() else { return Ok(None) };
        match arriving.missing {
            0 => Ok(Some((arriving.buffer, arriving.storage))),
            missing => Err(arriving.error(format!("{missing} bytes of it as {} are missing", arriving.dtype))),
        }
    }

    /// Frees what only loading needs, and waits for what the device has to say.
    ///
    /// # Errors
    /// The first thing that went wrong: no memory for a weight, by name, or a kernel that does not compile.
    pub async fn finish(&mut self) -> Result<(), Error> {
        self.queue.staging = None;
        while let Some(outcome) = self.queue.outcomes.pop_front() {
            outcome.await?;
        }
        self.queue.device.check()
    }
}

/// The device's queue, with what all weights share on their way.
struct Queue {
    device: Device,
    staging: Option<Buffer>,
    outcomes: VecDeque<Outcome>,
    submissions: VecDeque<wgpu::SubmissionIndex>,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").field("staging", &self.staging).finish_non_exhaustive()
    }
}

impl Queue {
    /// Hears what the device has said by now, without waiting: an allocation that failed should end the loading soon.
    fn hear(&mut self) -> Result<(), Error> {
        let mut context = Context::from_waker(Waker::noop());
        while let Some(outcome) = self.outcomes.front_mut() {
            let Poll::Ready(result) = outcome.as_mut().poll(&mut context) else { break };
            self.outcomes.pop_front();
            result?;
        }
        Ok(())
    }

    fn allocate(&mut self, name: &str, bytes: u64) -> Result<Buffer, Error> {
        let device = self.device.clone();
        let (buffer, caught) = device.scoped(|| device.storage_buffer(name, bytes));
        let what = name.to_owned();
        self.outcomes.push_back(Box::pin(async move { caught.await.map_err(|fault| fault.of_buffer(what, bytes)) }));
        buffer
    }

    /// The staging buffer, with room for `bytes`, which are part of the weight `name`.
    fn stage(&mut self, name: &str, bytes: u64) -> Result<(), Error> {
        if self.staging.as_ref().is_none_or(|staging| staging.size() < bytes) {
            self.staging = None;
            let usual = STAGING_BYTES.min(self.device.limits().binding_bytes);
            self.staging = Some(self.allocate(name, bytes.max(usual))?);
        }
        Ok(())
    }

    /// Lays out what is staged.
    fn lay_out(&mut self, kernel: Kernel, parameters: &[u32], to: &Buffer) {
        let Some(staging) = &self.staging else { return };
        let (pipeline, outcome) = self.device.pipeline_at_once(&kernel);
        self.outcomes.extend(outcome);
        self.submissions.push_back(self.device.dispatch(&kernel, &pipeline, parameters, &[Memory::whole(staging)], to));
        if self.submissions.len() > UNDER_WAY {
            // In a browser this does nothing, and the browser sees to it itself.
            let submission_index = self.submissions.pop_front();
            let _ = self.device.raw().poll(wgpu::PollType::Wait { submission_index, timeout: None });
        }
    }
}

/// A weight of which some bytes have come.
#[derive(Debug)]
struct Arriving {
    name: String,
    shape: Shape,
    dtype: Encoding,
    /// The data type that the host converts it to.
    converted: Encoding,
    storage: Storage,
    buffer: Buffer,
    /// Bytes of the tensor still to come.
    missing: u64,
    /// Cuts what arrives where it can be converted.
    elements: Cutter,
    /// Cuts what is written at whole words, as WebGPU wants it.
    words: Cutter,
    /// Bytes of a row of a matrix.
    row_bytes: u64,
    /// Rows that are laid out at once, and those that have been.
    rows_at_once: usize,
    rows_done: usize,
    /// Bytes of the rows being staged, or of the vector, that have come, and that are written.
    filled: u64,
    written: u64,
}

impl Arriving {
    fn new(queue: &mut Queue, name: &str, shape: Shape, elements: usize, dtype: Encoding) -> Result<Self, Error> {
        let error = |message| Error::Weight { name: name.to_owned(), message };
        let Some((converted, storage)) = storage_of(shape, dtype) else {
            return Err(error(format!("{dtype} holds no weights; convert the checkpoint to F16 or F32")));
        };
        let Some(missing) = dtype.bytes_of(elements) else {
            return Err(error(format!("{elements} elements are no whole blocks of {dtype}")));
        };
        let (mut row_bytes, mut rows_at_once) = (0, 0);
        let bytes = match shape {
            Shape::Vector => 4 * elements as u64,
            Shape::Matrix(sizes @ [out, input, taps]) => {
                row_bytes = converted.bytes_of(input * taps).unwrap_or(0) as u64;
                let blocks = (STAGING_BYTES / (4 * row_bytes).max(1)).clamp(1, 1 << 20) as usize;
                rows_at_once = out.min(4 * blocks);
                queue.stage(name, rows_at_once as u64 * row_bytes)?;
                storage.matrix_bytes(sizes)
            }
        };
        Ok(Self {
            name: name.to_owned(),
            shape,
            dtype,
            converted,
            storage,
            buffer: queue.allocate(name, bytes)?,
            missing: missing as u64,
            elements: Cutter::new(dtype.block().bytes),
            words: Cutter::new(4),
            row_bytes,
            rows_at_once,
            rows_done: 0,
            filled: 0,
            written: 0,
        })
    }

    fn error(&self, message: String) -> Error {
        Error::Weight { name: self.name.clone(), message }
    }

    fn chunk(&mut self, queue: &mut Queue, bytes: &[u8]) -> Result<(), Error> {
        let missing = self.missing.checked_sub(bytes.len() as u64);
        self.missing =
            missing.ok_or_else(|| self.error(format!("more bytes came than its shape takes as {}", self.dtype)))?;
        if self.converted == self.dtype {
            self.write(queue, bytes);
            return Ok(());
        }
        for bytes in bytes.chunks(CONVERTED_AT_ONCE) {
            let mut whole = Vec::new();
            self.elements.push(bytes, |bytes| whole.extend_from_slice(bytes));
            let Some(converted) = convert(self.dtype, self.converted, &whole) else {
                return Err(
                    self.error(format!("it has numbers beyond what f16 can hold, which {} is kept as", self.dtype))
                );
            };
            self.write(queue, &converted);
        }
        Ok(())
    }

    /// Queues converted bytes, and the layout of all rows that are complete with them.
    fn write(&mut self, queue: &mut Queue, mut bytes: &[u8]) {
        let Shape::Matrix([out, ..]) = self.shape else {
            let (buffer, written) = (&self.buffer, &mut self.written);
            self.words.push(bytes, |words| {
                queue.device.write_at(buffer, *written, words);
                *written += words.len() as u64;
            });
            return;
        };
        while !bytes.is_empty() {
            let rows = self.rows_at_once.min(out - self.rows_done);
            let room = rows as u64 * self.row_bytes - self.filled;
            let (now, later) = bytes.split_at(usize::try_from(room).map_or(bytes.len(), |room| room.min(bytes.len())));
            bytes = later;
            self.filled += now.len() as u64;
            let Some(staging) = &queue.staging else { return };
            let written = &mut self.written;
            let mut queue_words = |words: &[u8]| {
                queue.device.write_at(staging, *written, words);
                *written += words.len() as u64;
            };
            self.words.push(now, &mut queue_words);
            if now.len() as u64 == room {
                self.words.flush(&mut queue_words);
                self.lay_out(queue, rows);
                (self.rows_done, self.filled, self.written) = (self.rows_done + rows, 0, 0);
            }
        }
    }

    /// Queues the layout of the `rows` that are staged.
    fn lay_out(&self, queue: &mut Queue, rows: usize) {
        let Shape::Matrix(sizes) = self.shape else { return };
        let (kernel, parameters) = self.storage.lay_out(sizes, rows, self.rows_done);
        queue.lay_out(kernel, &parameters, &self.buffer);
    }
}

/// Whole elements of one dtype as another, F32 or F16; `None` if f16 cannot hold one.
fn convert(from: Encoding, to: Encoding, bytes: &[u8]) -> Option<Vec<u8>> {
    if to == Encoding::F16 {
        let halves = from.to_f16_bits(bytes).filter(|halves| halves.overflowed == 0)?;
        return Some(halves.bits.into_iter().flat_map(u16::to_le_bytes).collect());
    }
    Some(from.to_f32(bytes)?.into_iter().flat_map(f32::to_le_bytes).collect())
}

#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests {
    use pollster::block_on;

    use super::super::device::DeviceOptions;
    use super::super::faults::Fault;
    use super::*;

    /// An answer of the device that is there the second time someone asks.
    fn late(result: Result<(), Error>) -> Outcome {
        let mut result = Some(result);
        let mut asked = false;
        Box::pin(std::future::poll_fn(move |context| {
            context.waker().wake_by_ref();
            match std::mem::replace(&mut asked, true) {
                true => Poll::Ready(result.take().unwrap_or(Ok(()))),
                false => Poll::Pending,
            }
        }))
    }

    #[test]
    fn memory_that_ran_out_ends_the_loading_at_the_next_weight_or_at_its_end() {
        let device = block_on(Device::request(DeviceOptions::default())).unwrap();
        let no_memory = || Fault::OutOfMemory.of_buffer("large.weight".to_owned(), 1 << 30);
        let mut upload = Upload::new(&device);
        upload.queue.outcomes.extend([late(Ok(())), late(Err(no_memory()))]);
        // The first answer is not there yet, then it is and the second is not.
        for _ in 0..2 {
            upload.begin("small.bias", Shape::Vector, 4, Encoding::F32).unwrap();
            upload.chunk(&[0; 16]).unwrap();
            upload.end().unwrap();
        }
        assert_eq!(upload.begin("next.bias", Shape::Vector, 4, Encoding::F32), Err(no_memory()));

        let mut upload = Upload::new(&device);
        upload.queue.outcomes.push_back(late(Err(no_memory())));
        let message = block_on(upload.finish()).unwrap_err().to_string();
        assert!(message.contains("out of GPU memory: large.weight needs 1073741824 bytes"), "{message}");
    }
}
