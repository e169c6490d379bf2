//! Weights as the CPU wants them: f32, matrices in panels.

use super::gemm::Panels;
use super::{Error, check_memory};
use crate::graph::{WeightRole, WeightSpec};
use crate::weights::Dtype;

/// The weights of one network.
#[derive(Debug)]
pub struct Weights {
    specs: Vec<WeightSpec>,
    stored: Vec<Option<Stored>>,
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
        let weights = Self { specs: specs.to_vec(), stored: specs.iter().map(|_| None).collect() };
        check_memory("the weights as f32", weights.bytes())?;
        Ok(weights)
    }

    /// Bytes that they take when all are loaded.
    pub fn bytes(&self) -> u64 {
        let elements = |spec: &WeightSpec| spec.shape.iter().map(|&side| side as u64).product::<u64>();
        self.specs.iter().map(|spec| 4 * elements(spec)).sum()
    }

    /// Stores the weight `index` from its bytes in the checkpoint.
    ///
    /// # Errors
    /// If the bytes are not those of a tensor of the weight's shape.
    pub fn put(&mut self, index: usize, dtype: Dtype, bytes: &[u8]) -> Result<(), Error> {
        let Some(spec) = self.specs.get(index) else { return Ok(()) };
        let error = |message| Error::Weight { name: spec.name.clone(), message };
        let unusable = || error(format!("{} bytes of {} are no weights", bytes.len(), dtype.name()));
        let values = dtype.to_f32(bytes).ok_or_else(unusable)?;
        if values.len() != spec.shape.iter().product::<usize>() {
            return Err(error(format!("{} values for the shape {:?}", values.len(), spec.shape)));
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
