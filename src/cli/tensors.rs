//! Safetensors files of a user's own: inputs, outputs and traces.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use undiffuse::pipeline::NamedTensor;
use undiffuse::weights;

use super::{Error, input};

/// Most bytes of a file of inputs: far more than a network takes.
const MAX_FILE: u64 = 1 << 34;

/// Reads all tensors of a file as f32. A scalar becomes a list of one, which is what networks take.
pub fn read(path: &Path) -> Result<BTreeMap<String, NamedTensor>, Error> {
    let bytes = input::read(path, MAX_FILE)?;
    let file = SafeTensors::deserialize(&bytes)
        .map_err(|e| Error::path(path, format!("not a valid safetensors file: {e}")))?;
    file.iter()
        .map(|(name, view)| {
            let data = to_f32(view.dtype(), view.data()).ok_or_else(|| {
                let dtype = view.dtype();
                Error::path(path, format!("tensor `{name}` is {dtype}; store it as F32, F16, BF16, F64, I64 or I32"))
            })?;
            let shape = if view.shape().is_empty() { vec![1] } else { view.shape().to_vec() };
            Ok((name.to_owned(), NamedTensor { shape, data }))
        })
        .collect()
}

fn to_f32(dtype: Dtype, bytes: &[u8]) -> Option<Vec<f32>> {
    match dtype {
        // Token ids, timesteps and labels, all far below 2^24.
        Dtype::I64 => Some(bytes.as_chunks().0.iter().map(|&b| i64::from_le_bytes(b) as f32).collect()),
        Dtype::I32 => Some(bytes.as_chunks().0.iter().map(|&b| i32::from_le_bytes(b) as f32).collect()),
        float => weights::Encoding::from_safetensors(&float.to_string())?.to_f32(bytes),
    }
}

/// A tensor to be written.
pub struct Stored {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Stored {
    /// Of f32.
    pub fn f32(shape: &[usize], data: &[f32]) -> Self {
        let bytes = data.iter().flat_map(|v| v.to_le_bytes()).collect();
        Self { dtype: Dtype::F32, shape: shape.to_vec(), bytes }
    }

    /// Of i64, as torch keeps token ids.
    pub fn i64(shape: &[usize], data: impl IntoIterator<Item = i64>) -> Self {
        let bytes = data.into_iter().flat_map(i64::to_le_bytes).collect();
        Self { dtype: Dtype::I64, shape: shape.to_vec(), bytes }
    }
}

/// The bytes of the safetensors file that `path` is going to be.
pub fn to_bytes<'a>(path: &Path, tensors: impl IntoIterator<Item = (&'a str, Stored)>) -> Result<Vec<u8>, Error> {
    let tensors: Vec<(&str, Stored)> = tensors.into_iter().collect();
    let views: Result<Vec<_>, _> = tensors
        .iter()
        .map(|(name, t)| TensorView::new(t.dtype, t.shape.clone(), &t.bytes).map(|view| (*name, view)))
        .collect();
    views.and_then(|views| safetensors::serialize(views, None)).map_err(|e| Error::path(path, e))
}
