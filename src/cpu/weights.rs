//! Weights as the CPU wants them: f32, matrices in panels.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use half::f16;

use super::gemm::Panels;
use super::{Error, check_memory};
use crate::graph::WeightSpec;
use crate::weights::{Cutter, Dtype, LowRank, grow};

/// The weights of one network.
#[derive(Debug)]
pub struct Weights {
    specs: Vec<WeightSpec>,
    stored: Vec<Option<Stored>>,
    /// What a LoRA has made of some of them.
    merged: RefCell<HashMap<usize, Stored>>,
    arriving: Option<Arriving>,
}

/// A weight of which some bytes have come.
#[derive(Debug)]
struct Arriving {
    index: usize,
    dtype: Dtype,
    /// Bytes of the tensor still to come.
    missing: usize,
    /// Cuts what arrives where it can be converted.
    cutter: Cutter,
    elements: usize,
    values: Vec<f32>,
}

/// A weight in memory, shared by the programs that use it.
#[derive(Clone, Debug)]
pub(super) enum Stored {
    /// With whether a merged matrix is rounded to f16, as on a GPU.
    Matrix(Rc<Panels>, bool),
    Vector(Rc<[f32]>),
}

impl Weights {
    /// Places for the weights `specs`, of which none is loaded.
    ///
    /// # Errors
    /// If they would not fit into memory.
    pub fn new(specs: &[WeightSpec]) -> Result<Self, Error> {
        let (stored, merged) = (specs.iter().map(|_| None).collect(), RefCell::default());
        let weights = Self { specs: specs.to_vec(), stored, merged, arriving: None };
        check_memory("the weights as f32", weights.bytes())?;
        Ok(weights)
    }

    /// Bytes that they take when all are loaded, with what is merged.
    pub fn bytes(&self) -> u64 {
        let bytes = |spec: &WeightSpec| 4 * spec.shape.iter().map(|&side| side as u64).product::<u64>();
        let merged = self.merged.borrow();
        self.specs.iter().chain(merged.keys().map(|&index| &self.specs[index])).map(bytes).sum()
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
        if !dtype.is_weight() {
            return Err(self.error(index, format!("{dtype} holds no weights; convert the checkpoint to F16 or F32")));
        }
        let elements = self.specs.get(index).map_or(0, |spec| spec.shape.iter().product());
        let Some(missing) = dtype.bytes_of(elements) else {
            return Err(self.error(index, format!("{elements} elements are no whole blocks of {dtype}")));
        };
        let (cutter, values) = (Cutter::new(dtype.block().bytes), Vec::new());
        self.arriving = Some(Arriving { index, dtype, missing, cutter, elements, values });
        Ok(())
    }

    /// The next bytes of the weight.
    ///
    /// # Errors
    /// If they are more than the weight's shape has.
    pub fn chunk(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let Some(arriving) = &mut self.arriving else { return Ok(()) };
        let Arriving { index, dtype, missing, cutter, elements, values } = arriving;
        let Some(still_missing) = missing.checked_sub(bytes.len()) else {
            let (index, message) = (*index, format!("more bytes came than its shape takes as {dtype}"));
            self.arriving = None;
            return Err(self.error(index, message));
        };
        *missing = still_missing;
        cutter.push(bytes, |bytes| {
            let new = dtype.to_f32(bytes).unwrap_or_default();
            grow(values, new.len(), *elements);
            values.extend(new);
        });
        Ok(())
    }

    /// All bytes of the weight have come.
    ///
    /// # Errors
    /// If they are fewer than the weight's shape has.
    pub fn end(&mut self) -> Result<(), Error> {
        let Some(Arriving { index, dtype, missing, values, .. }) = self.arriving.take() else { return Ok(()) };
        if missing > 0 {
            return Err(self.error(index, format!("{missing} bytes of it as {dtype} are missing")));
        }
        let Some(spec) = self.specs.get(index) else { return Ok(()) };
        let as_half = dtype == Dtype::F16 || dtype.is_quantised();
        self.stored[index] = Some(match spec.matrix() {
            Some([out, input, taps]) => {
                let at = |k: usize, n: usize| values[(n * input + k % input) * taps + k / input];
                Stored::Matrix(Rc::new(Panels::from_fn(taps * input, out, at)), as_half)
            }
            None => Stored::Vector(values.into()),
        });
        Ok(())
    }

    /// Replaces matrix `index` by W + Σ scale·up·down, computed from the weight as it was loaded, in f32; for a convolution `up` is
    /// 1×1. It is rounded to f16 if it was f16 or quantised. The original stays beside it.
    ///
    /// Programs use the weights as they were when they were prepared.
    ///
    /// # Errors
    /// If the factors do not fit the weight, if it is no matrix, or if there is no memory for it.
    pub fn merge(&self, index: usize, additions: &[LowRank]) -> Result<(), Error> {
        let Some(spec) = self.specs.get(index) else { return Ok(()) };
        let error = |message| Error::Weight { name: spec.name.clone(), message };
        let (Stored::Matrix(original, as_half), Some([out, input, taps])) = (self.original(index)?, spec.matrix())
        else {
            return Err(error("a vector takes no low-rank addition".to_owned()));
        };
        self.restore(index);
        if additions.is_empty() {
            return Ok(());
        }
        let sum = LowRank::sum(additions, out, input * taps).map_err(error)?;
        check_memory("the weights with the LoRAs' as f32", self.bytes() + 4 * sum.len() as u64)?;
        let merged = Panels::from_fn(taps * input, out, |k, n| {
            let value = original.at(k, n) + sum[(n * input + k % input) * taps + k / input];
            if *as_half { f16::from_f32(value).to_f32() } else { value }
        });
        self.merged.borrow_mut().insert(index, Stored::Matrix(Rc::new(merged), *as_half));
        Ok(())
    }

    /// Takes back what [`Weights::merge`] has made of weight `index`.
    pub fn restore(&self, index: usize) {
        self.merged.borrow_mut().remove(&index);
    }

    /// Whether each weight of the network is there.
    ///
    /// # Errors
    /// Names the first that is missing.
    pub fn check_complete(&self) -> Result<(), Error> {
        (0..self.specs.len()).try_for_each(|index| self.original(index).map(drop))
    }

    /// The weights' names, shapes and roles.
    pub fn specs(&self) -> &[WeightSpec] {
        &self.specs
    }

    fn error(&self, index: usize, message: String) -> Error {
        Error::Weight { name: self.specs.get(index).map(|spec| spec.name.clone()).unwrap_or_default(), message }
    }

    /// The weight called `name`, as it is now.
    pub(super) fn find(&self, name: &str) -> Result<Stored, Error> {
        let index = self.specs.iter().position(|spec| spec.name == name);
        let index = index.ok_or_else(|| Error::MissingWeight(name.to_owned()))?;
        match self.merged.borrow().get(&index) {
            Some(merged) => Ok(merged.clone()),
            None => self.original(index).cloned(),
        }
    }

    fn original(&self, index: usize) -> Result<&Stored, Error> {
        self.stored[index].as_ref().ok_or_else(|| Error::MissingWeight(self.specs[index].name.clone()))
    }
}
