//! Loads the weights of one network: each tensor of the file goes to its place on the device as it arrives.

use std::collections::HashMap;

use super::Error;
use crate::device::{Device, WeightLoader, Weights};
use crate::graph::{WeightRole, WeightSpec};
use crate::models::canonical_weight_name;
use crate::weights::{Dtype, SafetensorsReader, TensorInfo};

/// A matrix of which only a few rows are needed at a time: it stays on the host, as stored.
#[derive(Clone, Debug)]
pub struct HostTable {
    name: String,
    shape: [usize; 2],
    dtype: Dtype,
    bytes: Vec<u8>,
}

impl HostTable {
    /// The place for tensor `name` of `rows`×`columns`.
    pub fn new(name: &str, rows: usize, columns: usize) -> Self {
        Self { name: name.to_owned(), shape: [rows, columns], dtype: Dtype::F32, bytes: Vec::new() }
    }

    /// Adds row `index` to `out`; false if there is no such row.
    pub fn add_row(&self, index: usize, out: &mut [f32]) -> bool {
        let length = self.shape[1] * self.dtype.size();
        let row = index.checked_mul(length).and_then(|start| self.bytes.get(start..start + length));
        let Some(values) = row.and_then(|row| self.dtype.to_f32(row)) else { return false };
        out.iter_mut().zip(values).for_each(|(out, value)| *out += value);
        true
    }
}

/// Streams `reader`'s file onto `device`: each tensor named in `specs` to the device, each named in `tables` to the host,
/// others passed over. `on_bytes` gets the bytes read so far.
///
/// # Errors
/// A damaged file, a tensor of another shape, a missing tensor, or the device's refusal.
pub async fn load_weights(
    reader: SafetensorsReader,
    device: &Device,
    specs: &[WeightSpec],
    tables: &mut [HostTable],
    on_bytes: &mut dyn FnMut(u64),
) -> Result<Weights, Error> {
    let file = reader.file().to_owned();
    let index: HashMap<&str, usize> = specs.iter().enumerate().map(|(i, spec)| (spec.name.as_str(), i)).collect();
    let places = |tensor: &TensorInfo, tables: &[HostTable]| {
        let name = canonical_weight_name(&tensor.name);
        (index.get(name.as_str()).copied(), tables.iter().position(|table| table.name == name))
    };
    // Shapes are compared before any byte is read, so that the wrong checkpoint is refused at once.
    let mut found = vec![false; specs.len() + tables.len()];
    for tensor in reader.tensors() {
        let (spec, table) = places(tensor, tables);
        let expected: &[usize] = match (spec, table) {
            (Some(i), _) => &specs[i].shape,
            (_, Some(i)) => &tables[i].shape,
            _ => continue,
        };
        let linear = spec.is_some_and(|i| specs[i].role == WeightRole::Linear);
        if tensor.shape != expected
            && !(linear && tensor.shape.len() == 4 && tensor.shape[..] == [expected, &[1, 1]].concat())
        {
            return Err(Error::Shape {
                file,
                tensor: tensor.name.clone(),
                found: tensor.shape.clone(),
                expected: expected.to_vec(),
                hint: hint(&tensor.name, &tensor.shape),
            });
        }
        found[spec.unwrap_or_else(|| specs.len() + table.unwrap_or(0))] = true;
    }
    if let Some(missing) = found.iter().position(|found| !found) {
        let name = specs
            .get(missing)
            .map(|spec| &spec.name)
            .or(tables.get(missing.wrapping_sub(specs.len())).map(|t| &t.name));
        return Err(Error::MissingTensor { file, tensor: name.cloned().unwrap_or_default() });
    }
    let mut loader = WeightLoader::new(device, specs);
    let tables = std::cell::RefCell::new(tables);
    let wanted = |tensor: &TensorInfo| {
        let (spec, table) = places(tensor, &tables.borrow());
        spec.is_some() || table.is_some()
    };
    let mut visit = |tensor: &TensorInfo, bytes: &[u8]| -> Result<(), Error> {
        let (spec, table) = places(tensor, &tables.borrow());
        if let Some(spec) = spec {
            loader.put(spec, tensor.dtype, bytes)?;
        } else if let Some(table) = table {
            let table = &mut tables.borrow_mut()[table];
            (table.dtype, table.bytes) = (tensor.dtype, bytes.to_vec());
        }
        Ok(())
    };
    reader.stream(&mut |loaded, _| on_bytes(loaded), &wanted, &mut visit).await?;
    Ok(loader.finish()?)
}

/// What a wrong shape of a telling tensor means.
fn hint(name: &str, shape: &[usize]) -> String {
    match (name, shape) {
        ("conv_in.weight", [_, 9, ..]) => "; an inpainting checkpoint, which is not supported yet".into(),
        ("conv_in.weight", [_, 7, ..]) => "; an upscaling checkpoint, which is not supported yet".into(),
        _ => "; the file and the config are not of the same model".into(),
    }
}
