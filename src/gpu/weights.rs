//! Weights in GPU memory: matrices in blocks as f16 or f32, vectors as f32.

use super::Error;
use super::device::{Buffer, Device};
use super::kernels::Storage;
use crate::graph::{WeightRole, WeightSpec};
use crate::weights::Dtype;

/// The weights of one network, or of several that share names.
///
/// A matrix is stored in blocks of 4 inputs × 4 outputs, the four outputs of one input together, the blocks ordered
/// `[kernel_height, kernel_width, in / 4, out / 4]`; what a block holds past the last channel is zero. It stays f16 if the
/// checkpoint has it so (or in bf16 of f16's range), and is f32 otherwise.
#[derive(Debug)]
pub struct Weights {
    device: Device,
    specs: Vec<WeightSpec>,
    stored: Vec<Option<Stored>>,
    arriving: (usize, Option<Dtype>, Vec<u8>),
}

#[derive(Debug)]
struct Stored {
    buffer: Buffer,
    storage: Storage,
}

impl Weights {
    /// Places for the weights `specs`, of which none is loaded.
    pub fn new(device: &Device, specs: &[WeightSpec]) -> Self {
        Self {
            device: device.clone(),
            specs: specs.to_vec(),
            stored: specs.iter().map(|_| None).collect(),
            arriving: (0, None, Vec::new()),
        }
    }

    /// Uploads the weight `index` from its bytes in the checkpoint.
    ///
    /// # Errors
    /// If the bytes are not those of a tensor of the weight's shape, if it is larger than a buffer may be, or if the device is lost.
    pub fn put(&mut self, index: usize, dtype: Dtype, bytes: &[u8]) -> Result<(), Error> {
        self.device.check()?;
        let Some(spec) = self.specs.get(index) else { return Ok(()) };
        let error = |message| Error::Weight { name: spec.name.clone(), message };
        let elements = spec.shape.iter().product::<usize>();
        if elements.checked_mul(dtype.size()) != Some(bytes.len()) {
            return Err(error(format!("{} bytes are no {:?} of {dtype}", bytes.len(), spec.shape)));
        }
        let no_weights = || error(format!("{dtype} holds no weights; convert the checkpoint to F16 or F32"));
        let matrix = match (spec.role, &spec.shape[..]) {
            (WeightRole::Conv2d, &[out, input, height, width]) => Some([out, input, height * width]),
            (WeightRole::Linear, &[out, input]) => Some([out, input, 1]),
            _ => None,
        };
        let halves = match (matrix, dtype) {
            (Some(_), Dtype::F16 | Dtype::BF16) => {
                dtype.to_f16_bits(bytes).filter(|halves| halves.overflowed == 0).map(|halves| halves.bits)
            }
            _ => None,
        };
        let upload = |data: &[u8]| {
            let buffer = self.device.storage_buffer(&spec.name, data.len() as u64)?;
            self.device.write(&buffer, data);
            Ok::<_, Error>(buffer)
        };
        let floats = || dtype.to_f32(bytes).ok_or_else(no_weights);
        let (buffer, storage) = match (matrix, halves) {
            (Some(sizes), Some(bits)) => (upload(bytemuck::cast_slice(&blocks(&bits, sizes)))?, Storage::F16),
            (Some(sizes), None) => (upload(bytemuck::cast_slice(&blocks(&floats()?, sizes)))?, Storage::F32),
            (None, _) => {
                let mut values = floats()?;
                values.resize(elements.next_multiple_of(4), 0.0);
                (upload(bytemuck::cast_slice(&values))?, Storage::F32)
            }
        };
        self.stored[index] = Some(Stored { buffer, storage });
        Ok(())
    }

    /// Starts on the weight `index`.
    pub fn begin(&mut self, index: usize, dtype: Dtype) -> Result<(), Error> {
        self.arriving = (index, Some(dtype), Vec::new());
        Ok(())
    }

    /// The next bytes of the weight.
    pub fn chunk(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.arriving.2.extend_from_slice(bytes);
        Ok(())
    }

    /// All bytes of the weight have come.
    pub fn end(&mut self) -> Result<(), Error> {
        let (index, dtype, bytes) = std::mem::take(&mut self.arriving);
        dtype.map_or(Ok(()), |dtype| self.put(index, dtype, &bytes))
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
        match self.stored.iter().position(Option::is_none) {
            Some(index) => Err(Error::MissingWeight(self.specs[index].name.clone())),
            None => Ok(()),
        }
    }

    /// Frees the weights' memory; programs that use them report that from then on. Dropping the last of them frees it as well.
    pub fn destroy(&self) {
        self.stored.iter().flatten().for_each(|stored| stored.buffer.free());
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
        self.stored.iter().flatten().map(|stored| stored.buffer.size()).sum()
    }

    /// The buffer of the weight called `name`, and how it is stored.
    pub(super) fn find(&self, name: &str) -> Result<(&Buffer, Storage), Error> {
        let position = self.specs.iter().position(|spec| spec.name == name);
        let stored = position.and_then(|index| self.stored[index].as_ref());
        stored.map(|stored| (&stored.buffer, stored.storage)).ok_or_else(|| Error::MissingWeight(name.to_owned()))
    }
}

/// `values[out][in][tap]` in blocks `[tap][in / 4][out / 4]` of 4 × 4.
fn blocks<T: Copy + Default>(values: &[T], [out, input, taps]: [usize; 3]) -> Vec<T> {
    let (in_blocks, out_blocks) = (input.div_ceil(4), out.div_ceil(4));
    let mut blocks = vec![T::default(); taps * in_blocks * out_blocks * 16];
    for (n, row) in values.chunks_exact(input * taps).enumerate() {
        for (k, weights) in row.chunks_exact(taps).enumerate() {
            let at = ((k / 4) * out_blocks + n / 4) * 16 + k % 4 * 4 + n % 4;
            for (tap, &weight) in weights.iter().enumerate() {
                blocks[tap * in_blocks * out_blocks * 16 + at] = weight;
            }
        }
    }
    blocks
}
