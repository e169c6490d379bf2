//! Weights as the CPU wants them: f32, matrices in panels.

use super::gemm::Panels;
use super::{Error, check_memory};
use crate::graph::{WeightRole, WeightSpec};
use crate::weights::{Cutter, Dtype, grow};

/// The weights of one network.
#[derive(Debug)]
pub struct Weights {
    specs: Vec<WeightSpec>,
    stored: Vec<Option<Stored>>,
    arriving: Option<Arriving>,
}

/// A weight of which some bytes have come.
#[derive(Debug)]
struct Arriving {
    index: usize,
    dtype: Dtype,
    cutter: Cutter,
    values: Vec<f32>,
}

#[derive(Debug)]
enum Stored {
    Matrix(Panels),
    Vector(Vec<f32>),
}

impl Weights {
    /// Places for the weights `specs`, of which none is loaded.
    ///
    /// # Errors
    /// If they would not fit into memory.
    pub fn new(specs: &[WeightSpec]) -> Result<Self, Error> {
        let weights = Self { specs: specs.to_vec(), stored: specs.iter().map(|_| None).collect(), arriving: None };
        check_memory("the weights as f32", weights.bytes())?;
        Ok(weights)
    }

    /// Bytes that they take when all are loaded.
    pub fn bytes(&self) -> u64 {
        let elements = |spec: &WeightSpec| spec.shape.iter().map(|&side| side as u64).product::<u64>();
        self.specs.iter().map(|spec| 4 * elements(spec)).sum()
    }

    /// Stores the weight `index` from all of its bytes in the checkpoint: begin, one chunk, end.
    ///
    /// # Errors
    /// If the bytes are not those of a tensor of the weight's shape.
    pub fn put(&mut self, index: usize, dtype: Dtype, bytes: &[u8]) -> Result<(), Error> {
        self.begin(index, dtype)?;
        self.chunk(bytes)?;
        self.end()
    }

    /// Starts on the weight `index`, whose bytes come next by [`Weights::chunk`].
    ///
    /// # Errors
    /// If a tensor of this dtype holds no weights.
    pub fn begin(&mut self, index: usize, dtype: Dtype) -> Result<(), Error> {
        if dtype.to_f32(&[]).is_none() {
            return Err(self.error(index, format!("{dtype} holds no weights; convert the checkpoint to F16 or F32")));
        }
        self.arriving = Some(Arriving { index, dtype, cutter: Cutter::new(dtype.block().bytes), values: Vec::new() });
        Ok(())
    }

    /// The next bytes of the weight.
    ///
    /// # Errors
    /// If they are more than the weight's shape has.
    pub fn chunk(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let Some(Arriving { index, dtype, cutter, values }) = &mut self.arriving else { return Ok(()) };
        let Some(spec) = self.specs.get(*index) else { return Ok(()) };
        let elements = spec.shape.iter().product::<usize>();
        cutter.push(bytes, |bytes| {
            let new = dtype.to_f32(bytes).unwrap_or_default();
            if new.len() > elements - values.len() {
                let message = format!("more bytes came than the shape {:?} takes as {dtype}", spec.shape);
                return Err(Error::Weight { name: spec.name.clone(), message });
            }
            grow(values, new.len(), elements);
            values.extend(new);
            Ok(())
        })
    }

    /// All bytes of the weight have come.
    ///
    /// # Errors
    /// If they are fewer than the weight's shape has.
    pub fn end(&mut self) -> Result<(), Error> {
        let Some(Arriving { index, dtype, cutter, values }) = self.arriving.take() else { return Ok(()) };
        let Some(spec) = self.specs.get(index) else { return Ok(()) };
        if values.len() != spec.shape.iter().product::<usize>() || !cutter.is_done() {
            let message = format!("{} elements came for the shape {:?} of {dtype}", values.len(), spec.shape);
            return Err(self.error(index, message));
        }
        self.stored[index] = Some(match (spec.role, &spec.shape[..]) {
            (WeightRole::Conv2d, &[out, input, height, width]) => {
                let taps = height * width;
                Stored::Matrix(Panels::from_fn(taps * input, out, |k, n| {
                    values[(n * input + k % input) * taps + k / input]
                }))
            }
            (WeightRole::Linear, &[out, input]) => {
                Stored::Matrix(Panels::from_fn(input, out, |k, n| values[n * input + k]))
            }
            _ => Stored::Vector(values),
        });
        Ok(())
    }

    /// Whether each weight of the network is there.
    ///
    /// # Errors
    /// Names the first that is missing.
    pub fn check_complete(&self) -> Result<(), Error> {
        match self.stored.iter().position(Option::is_none) {
            Some(index) => Err(Error::MissingWeight(self.specs[index].name.clone())),
            None => Ok(()),
        }
    }

    /// The weights' names, shapes and roles.
    pub fn specs(&self) -> &[WeightSpec] {
        &self.specs
    }

    fn error(&self, index: usize, message: String) -> Error {
        Error::Weight { name: self.specs.get(index).map(|spec| spec.name.clone()).unwrap_or_default(), message }
    }

    pub(super) fn matrix(&self, index: usize) -> Result<&Panels, Error> {
        match &self.stored[index] {
            Some(Stored::Matrix(panels)) => Ok(panels),
            _ => Err(Error::MissingWeight(self.specs[index].name.clone())),
        }
    }

    pub(super) fn vector(&self, index: usize) -> Result<&[f32], Error> {
        match &self.stored[index] {
            Some(Stored::Vector(values)) => Ok(values),
            _ => Err(Error::MissingWeight(self.specs[index].name.clone())),
        }
    }
}
