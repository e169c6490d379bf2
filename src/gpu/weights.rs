//! Weights in GPU memory: matrices in blocks, as f16, f32, bf16 or quantised; vectors as f32.

use std::cell::RefCell;
use std::rc::Rc;

use super::buffer::{Buffer, Memory};
use super::device::Device;
use super::error::Error;
use super::kernel::words;
use super::storage::{MERGE, Merge, Storage};
use super::upload::{Shape, Upload};
use crate::graph::WeightSpec;
use crate::weights::{Encoding, LowRank};

/// The weights of one network, or of several that share names.
///
/// A matrix is stored in blocks of 4 inputs × 4 outputs, the four outputs of one input together, the blocks ordered
/// `[kernel_height, kernel_width, in / 4, out / 4]`; what a block holds past the last channel is zero. It stays f16, bf16 or
/// quantised if the checkpoint has it so (see [`Storage`]); other block formats become f16, and the rest is f32.
#[derive(Debug)]
pub struct Weights {
    pub(super) device: Device,
    pub(super) specs: Vec<WeightSpec>,
    stored: Vec<Option<Stored>>,
    /// Matrices with low-rank additions, in place of some of them.
    pub(super) merged: RefCell<Vec<Option<Stored>>>,
    upload: Upload,
    /// The weight that is being uploaded.
    arriving: usize,
}

/// A weight on the device.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub buffer: Rc<Buffer>,
    pub storage: Storage,
}

impl Weights {
    /// Places for the weights `specs`, of which none is loaded.
    pub fn new(device: &Device, specs: &[WeightSpec]) -> Self {
        let stored = specs.iter().map(|_| None).collect();
        let (device, upload) = (device.clone(), Upload::new(device));
        Self {
            device,
            specs: specs.to_vec(),
            stored,
            merged: RefCell::new(vec![None; specs.len()]),
            upload,
            arriving: 0,
        }
    }

    /// Uploads the weight `index` from all of its bytes in the checkpoint: begin, one chunk, end.
    ///
    /// # Errors
    /// As [`Weights::begin`], [`Weights::chunk`] and [`Weights::end`].
    pub fn put(&mut self, index: usize, dtype: Encoding, bytes: &[u8]) -> Result<(), Error> {
        self.begin(index, dtype)?;
        self.chunk(bytes)?;
        self.end()
    }

    /// Starts on the weight `index`, whose bytes come next by [`Weights::chunk`].
    ///
    /// # Errors
    /// If a tensor of this dtype cannot be the weight, if it is larger than a buffer may be, or if the device is lost or had no
    /// memory for a weight before.
    pub fn begin(&mut self, index: usize, dtype: Encoding) -> Result<(), Error> {
        let Some(spec) = self.specs.get(index) else { return Ok(()) };
        self.arriving = index;
        let shape = spec.matrix().map_or(Shape::Vector, Shape::Matrix);
        self.upload.begin(&spec.name, shape, spec.shape.iter().product(), dtype)
    }

    /// Takes the next bytes of the weight; they are queued, and not kept.
    ///
    /// # Errors
    /// If they are more than the weight's shape takes.
    pub fn chunk(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.upload.chunk(bytes)
    }

    /// Ends the weight, all of whose bytes have come.
    ///
    /// # Errors
    /// If they are fewer than the weight's shape takes.
    pub fn end(&mut self) -> Result<(), Error> {
        if let Some((buffer, storage)) = self.upload.end()? {
            self.stored[self.arriving] = Some(Stored { buffer: Rc::new(buffer), storage });
        }
        Ok(())
    }

    /// Ends the loading: waits until the device has room for all weights or says that it has not.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] with the weight's name; a weight that is missing; a lost device.
    pub async fn finish(&mut self) -> Result<(), Error> {
        self.upload.finish().await?;
        self.check_complete()
    }

    /// Replaces matrix `index` by W + Σ scale·up·down, computed from the weight as it was loaded, in f32; for a convolution `up` is
    /// 1×1. It is kept as f32 if it was f32 or bf16, else as f16, rounded to nearest. The original stays beside it.
    ///
    /// Programs use the weights as they were when they were compiled.
    ///
    /// # Errors
    /// If the factors do not fit the weight, if it is no matrix, if there is no memory for it, or if the device is lost.
    pub async fn merge(&self, index: usize, additions: &[LowRank]) -> Result<(), Error> {
        self.device.check()?;
        self.check()?;
        let Some(spec) = self.specs.get(index) else { return Ok(()) };
        let error = |message| Error::Weight { name: spec.name.clone(), message };
        let original = self.original(index)?;
        let sizes = spec.matrix().ok_or_else(|| error("a vector takes no low-rank addition".to_owned()))?;
        let Factors { rank, down, up } = Factors::new(additions, sizes).map_err(error)?;

        self.restore(index);
        if rank == 0 {
            return Ok(());
        }
        let kernel = MERGE.kernel().stored_as(original.storage);
        self.device.compile(&[(kernel, &spec.name)]).await?;
        let Some(pipeline) = self.device.pipeline(&kernel) else { return Ok(()) };
        let storage = original.storage.merged();
        let bytes = storage.matrix_bytes(sizes);
        let (buffers, caught) = self.device.scoped(|| -> Result<_, Error> {
            let merged = self.device.storage_buffer(&spec.name, bytes)?;
            let factor = |values: &[f32]| {
                let buffer = self.device.storage_buffer(&spec.name, 4 * values.len() as u64)?;
                self.device.write_at(&buffer, 0, bytemuck::cast_slice(values));
                Ok::<_, Error>(buffer)
            };
            Ok((merged, factor(&down)?, factor(&up)?))
        });
        let caught = caught.await;
        let (merged, down, up) = buffers?;
        caught.map_err(|fault| fault.of_buffer(spec.name.clone(), bytes))?;
        let parameters = Merge::new(sizes, rank, storage);
        let reads = [Memory::whole(&down), Memory::whole(&original.buffer), Memory::whole(&up)];
        self.device.dispatch(&kernel, &pipeline, words(&parameters), &reads, &merged);
        self.merged.borrow_mut()[index] = Some(Stored { buffer: Rc::new(merged), storage });
        Ok(())
    }

    /// Takes back what [`Weights::merge`] has made of weight `index`.
    pub fn restore(&self, index: usize) {
        if let Some(merged) = self.merged.borrow_mut().get_mut(index) {
            *merged = None;
        }
    }

    /// The weights' names, shapes and roles.
    pub fn specs(&self) -> &[WeightSpec] {
        &self.specs
    }

    /// Whether each weight is there.
    ///
    /// # Errors
    /// Names the first that is missing.
    pub fn check_complete(&self) -> Result<(), Error> {
        (0..self.specs.len()).try_for_each(|index| self.original(index).map(drop))
    }

    /// Frees the weights' memory; programs that use them report that from then on. Dropping the last of them frees it as well.
    pub fn destroy(&self) {
        self.stored
            .iter()
            .flatten()
            .chain(self.merged.borrow().iter().flatten())
            .for_each(|stored| stored.buffer.free());
    }

    /// Whether the weights can still be used.
    pub(super) fn check(&self) -> Result<(), Error> {
        match self.stored.iter().flatten().any(|stored| stored.buffer.is_freed()) {
            true => Err(Error::Destroyed("checkpoint")),
            false => Ok(()),
        }
    }

    /// Bytes of GPU memory.
    pub fn bytes(&self) -> u64 {
        let merged = self.merged.borrow();
        self.stored.iter().flatten().chain(merged.iter().flatten()).map(|stored| stored.buffer.size()).sum()
    }

    /// The weight `index`, as it is now.
    pub(super) fn find(&self, index: usize) -> Result<Stored, Error> {
        match &self.merged.borrow()[index] {
            Some(merged) => Ok(merged.clone()),
            None => self.original(index).cloned(),
        }
    }

    pub(super) fn original(&self, index: usize) -> Result<&Stored, Error> {
        self.stored[index].as_ref().ok_or_else(|| Error::MissingWeight(self.specs[index].name.clone()))
    }
}

/// Low-rank additions one below the other, as the kernel reads them.
struct Factors {
    rank: usize,
    /// `[rank, taps, in / 4]` vectors of four inputs.
    down: Vec<f32>,
    /// `[rank, out / 4]` vectors of four outputs, with the scales.
    up: Vec<f32>,
}

impl Factors {
    fn new(additions: &[LowRank], [out, input, taps]: [usize; 3]) -> Result<Self, String> {
        let (padded_out, padded_input) = (out.next_multiple_of(4), input.next_multiple_of(4));
        let mut factors = Self { rank: 0, down: Vec::new(), up: Vec::new() };
        for addition in additions {
            let rank = addition.rank(out, input * taps)?;
            for r in 0..rank {
                let up = |n: usize| if n < out { addition.scale * addition.up[n * rank + r] } else { 0.0 };
                factors.up.extend((0..padded_out).map(up));
                let row = &addition.down[r * input * taps..][..input * taps];
                for tap in 0..taps {
                    factors.down.extend((0..padded_input).map(|k| row.get(k * taps + tap).copied().unwrap_or(0.0)));
                }
            }
            factors.rank += rank;
        }
        Ok(factors)
    }
}
