//! The weights of one network: a file is opened and checked, then each tensor goes to its place as it arrives.

use std::collections::HashMap;

use super::Error;
use crate::device::{Device, WeightLoader, Weights};
use crate::graph::{WeightRole, WeightSpec};
use crate::models::canonical_weight_name;
use crate::weights::{Dtype, Sink, Source, TensorFile, TensorInfo};

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

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.shape[0]
    }

    /// Length of a row.
    pub fn columns(&self) -> usize {
        self.shape[1]
    }

    /// Adds row `index` to `out`; false if there is no such row.
    pub fn add_row(&self, index: usize, out: &mut [f32]) -> bool {
        let Some(length) = self.dtype.bytes_of(self.shape[1]) else { return false };
        let row = index.checked_mul(length).and_then(|start| self.bytes.get(start..start + length));
        let Some(values) = row.and_then(|row| self.dtype.to_f32(row)) else { return false };
        out.iter_mut().zip(values).for_each(|(out, value)| *out += value);
        true
    }
}

/// A weight file whose header has all that a network needs; of the weights none has been read.
#[derive(Debug)]
pub struct WeightFile {
    file: TensorFile,
    specs: Vec<WeightSpec>,
    tables: Vec<HostTable>,
}

/// Where a tensor of the file goes.
#[derive(Clone, Copy)]
enum Place {
    Device(usize),
    Host(usize),
}

impl WeightFile {
    /// Opens `path` for the weights `specs`, which go to a device, and `tables`, which stay on the host. Shapes are compared
    /// before any weight is read, so that the wrong checkpoint is refused at once.
    ///
    /// # Errors
    /// A damaged file, a tensor of another shape, or a missing tensor, by name.
    pub async fn open(
        source: &dyn Source,
        path: &str,
        specs: Vec<WeightSpec>,
        tables: Vec<HostTable>,
    ) -> Result<Self, Error> {
        let file = Self { file: TensorFile::open(source, path).await?, specs, tables };
        let mut found = vec![false; file.specs.len() + file.tables.len()];
        let places = file.places();
        for tensor in file.file.tensors() {
            let (expected, role, index) = match places.get(canonical_weight_name(&tensor.name).as_str()) {
                Some(&Place::Device(index)) => (&file.specs[index].shape[..], Some(file.specs[index].role), index),
                Some(&Place::Host(index)) => (&file.tables[index].shape[..], None, file.specs.len() + index),
                None => continue,
            };
            let squeezed = tensor.shape.strip_suffix(&[1, 1]).filter(|_| role == Some(WeightRole::Linear));
            if tensor.shape != expected && squeezed != Some(expected) {
                return Err(Error::Shape {
                    file: path.to_owned(),
                    tensor: tensor.name.clone(),
                    found: tensor.shape.clone(),
                    expected: expected.to_vec(),
                    hint: hint(&tensor.name, &tensor.shape),
                });
            }
            if !tensor.dtype.is_weight() {
                let reason = format!("it is {}, which no weight is stored as; f32, f16 and bf16 are", tensor.dtype);
                return Err(tensor.error(reason).into());
            }
            found[index] = true;
        }
        let names = file.specs.iter().map(|spec| &spec.name).chain(file.tables.iter().map(|table| &table.name));
        match names.zip(found).find(|(_, found)| !found) {
            Some((name, _)) => Err(Error::MissingTensor { file: path.to_owned(), tensor: name.clone() }),
            None => Ok(file),
        }
    }

    /// Its path inside the checkpoint.
    pub fn path(&self) -> &str {
        self.file.file()
    }

    /// Its length.
    pub fn bytes(&self) -> u64 {
        self.file.total_bytes()
    }

    fn places(&self) -> HashMap<String, Place> {
        let specs = self.specs.iter().enumerate().map(|(index, spec)| (spec.name.clone(), Place::Device(index)));
        let tables = self.tables.iter().enumerate().map(|(index, table)| (table.name.clone(), Place::Host(index)));
        specs.chain(tables).collect()
    }

    /// Streams the weights to their places, each as it arrives; other tensors of the file pass by. `on_bytes` gets the bytes
    /// read so far.
    ///
    /// # Errors
    /// A file that ends early, or the device's refusal.
    pub async fn load(
        self,
        device: &Device,
        on_bytes: &mut dyn FnMut(u64),
    ) -> Result<(Weights, Vec<HostTable>), Error> {
        let places = self.places();
        let place = |tensor: &TensorInfo| places.get(canonical_weight_name(&tensor.name).as_str()).copied();
        let Self { file, specs, mut tables } = self;
        let loader = WeightLoader::new(device, &specs)?;
        let mut sink = Places { place: &place, loader, tables: &mut tables, current: None };
        file.stream(on_bytes, &|tensor| place(tensor).is_some(), &mut sink).await?;
        Ok((sink.loader.finish().await?, tables))
    }
}

/// Passes each tensor to its place.
struct Places<'a> {
    place: &'a dyn Fn(&TensorInfo) -> Option<Place>,
    loader: WeightLoader,
    tables: &'a mut [HostTable],
    /// Where the tensor that is arriving goes.
    current: Option<Place>,
}

impl Sink<Error> for Places<'_> {
    fn begin(&mut self, tensor: &TensorInfo) -> Result<(), Error> {
        self.current = (self.place)(tensor);
        match self.current {
            Some(Place::Device(index)) => self.loader.begin(index, tensor.dtype)?,
            Some(Place::Host(index)) => {
                self.tables[index].dtype = tensor.dtype;
                self.tables[index].bytes.clear();
            }
            None => {}
        }
        Ok(())
    }

    fn chunk(&mut self, bytes: &[u8]) -> Result<(), Error> {
        match self.current {
            Some(Place::Device(_)) => self.loader.chunk(bytes)?,
            Some(Place::Host(index)) => self.tables[index].bytes.extend_from_slice(bytes),
            None => {}
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), Error> {
        match self.current {
            Some(Place::Device(_)) => self.loader.end()?,
            Some(Place::Host(index)) => self.tables[index].bytes.shrink_to_fit(),
            None => {}
        }
        Ok(())
    }
}

/// What a wrong shape of a telling tensor means.
fn hint(name: &str, shape: &[usize]) -> String {
    match (name, shape) {
        ("conv_in.weight", [_, 9, ..]) => "; an inpainting checkpoint, which is not supported yet".into(),
        ("conv_in.weight", [_, 7, ..]) => "; an upscaling checkpoint, which is not supported yet".into(),
        _ => "; the file and the config are not of the same model".into(),
    }
}
