//! The weights of one network: its files are opened and checked, then each tensor goes to its place as it arrives.

use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;

use super::naming::{Naming, Part};
use crate::device::{Device, WeightLoader, Weights};
use crate::graph::WeightSpec;
use crate::pipeline::error::Error;
use crate::weights::{Encoding, Sink, Source, TensorFile, TensorInfo};

/// The progress of loading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadProgress {
    /// Bytes of weights read.
    pub loaded: u64,
    /// Bytes of all weight files.
    pub total: u64,
    /// The file being read.
    pub file: String,
}

/// A matrix of which only a few rows are needed at a time: it stays on the host, as stored.
#[derive(Clone, Debug)]
pub struct HostTable {
    name: String,
    shape: [usize; 2],
    dtype: Encoding,
    bytes: Vec<u8>,
}

impl HostTable {
    /// The place for tensor `name` of `rows`×`columns`.
    pub fn new(name: &str, rows: usize, columns: usize) -> Self {
        Self { name: name.to_owned(), shape: [rows, columns], dtype: Encoding::F32, bytes: Vec::new() }
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
        let row = index.checked_mul(length).and_then(|start| self.bytes.get(start..start.checked_add(length)?));
        let Some(values) = row.and_then(|row| self.dtype.to_f32(row)) else { return false };
        out.iter_mut().zip(values).for_each(|(out, value)| *out += value);
        true
    }
}

/// The files that hold the weights of a network, each with its header checked; of the weights none has been read.
#[derive(Debug)]
pub struct WeightFile {
    files: Vec<Rc<TensorFile>>,
    /// The places of each file's tensors, by their stored names.
    places: Vec<HashMap<String, Vec<Place>>>,
    specs: Vec<WeightSpec>,
    tables: Vec<HostTable>,
}

/// The place of a tensor, or of a part of it.
#[derive(Clone, Copy, Debug)]
struct Place {
    part: Part,
    /// Number of the weight, those of the device before those of the host.
    weight: usize,
}

impl WeightFile {
    /// Opens the file at `path`, which calls the weights as diffusers does; see [`WeightFile::new`].
    ///
    /// # Errors
    /// A missing or damaged file, and those of [`WeightFile::new`].
    pub async fn open(
        source: &dyn Source,
        path: &str,
        specs: Vec<WeightSpec>,
        tables: Vec<HostTable>,
    ) -> Result<Self, Error> {
        let file = Rc::new(TensorFile::open(source, path).await?);
        Self::new(vec![file], &Naming::diffusers(""), specs, tables)
    }

    /// Finds the weights `specs`, which go to a device, and `tables`, which stay on the host, in `files`, which call them as
    /// `naming` says. Shapes are compared before any weight is read, so that the wrong checkpoint is refused at once.
    ///
    /// # Errors
    /// A tensor of another shape, one that is there twice, a missing one, or one that is of the network and has no place in it, by name.
    pub fn new(
        files: Vec<Rc<TensorFile>>,
        naming: &Naming,
        specs: Vec<WeightSpec>,
        tables: Vec<HostTable>,
    ) -> Result<Self, Error> {
        let shapes = specs.iter().map(|spec| (&spec.name, &spec.shape[..]));
        let shapes: Vec<_> = shapes.chain(tables.iter().map(|table| (&table.name, &table.shape[..]))).collect();
        let weights: HashMap<&str, usize> =
            shapes.iter().enumerate().map(|(i, (name, _))| (name.as_str(), i)).collect();
        let mut found: Vec<Option<&TensorInfo>> = vec![None; shapes.len()];
        let mut places = Vec::new();
        let mut missed = Vec::new();
        for file in &files {
            let mut places_of_file: HashMap<String, Vec<Place>> = HashMap::new();
            for tensor in file.tensors() {
                tensor.check_unscaled()?;
                let mut placed = false;
                for (name, part) in naming.weights(&tensor.name) {
                    let Some(&weight) = weights.get(name.as_str()) else { continue };
                    placed = true;
                    check(tensor, part, shapes[weight].1)?;
                    if let Some(table) = weight.checked_sub(specs.len()).and_then(|table| tables.get(table))
                        && tensor.dtype.bytes_of(table.columns()).is_none()
                    {
                        let reason = format!("its rows of {} are no whole blocks of {}", table.columns(), tensor.dtype);
                        return Err(tensor.error(format!("{reason}; store it as F16")).into());
                    }
                    if let Some(before) = found[weight].replace(tensor) {
                        let reason =
                            format!("tensor {:?} of {} is the same weight of the network", before.name, before.file);
                        return Err(tensor.error(reason).into());
                    }
                    places_of_file.entry(tensor.name.clone()).or_default().push(Place { part, weight });
                }
                if !placed && !tensor.is_empty() && naming.is_missed(&tensor.name, |name| weights.contains_key(name)) {
                    missed.push(&tensor.name[..]);
                }
            }
            places.push(places_of_file);
        }
        let file = files.first().map_or("", |file| file.file());
        if let Some(((name, _), _)) = shapes.iter().zip(found).find(|(_, found)| found.is_none()) {
            let with_lora = missed.iter().any(|name| name.contains(".base_layer.") || name.contains(".lora_A."));
            let hint = match with_lora {
                true => {
                    "; it was saved with a LoRA beside it: merge that first, as peft's `merge_and_unload` does, and save again"
                }
                false => "",
            };
            return Err(Error::MissingTensor { file: file.to_owned(), tensor: (*name).clone(), hint });
        }
        if !missed.is_empty() {
            return Err(Error::no_place(file, &missed));
        }
        Ok(Self { files, places, specs, tables })
    }

    /// The paths of its files inside the checkpoint.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.files.iter().map(|file| file.file())
    }

    /// The weights that go to a device.
    pub fn specs(&self) -> &[WeightSpec] {
        &self.specs
    }

    /// Bytes of its files.
    pub fn bytes(&self) -> u64 {
        bytes_of([self])
    }

    /// Streams the weights to their places; see [`load`]. `on_bytes` gets the bytes read so far.
    ///
    /// # Errors
    /// A file that ends early, or the device's refusal.
    pub async fn load(
        self,
        device: &Device,
        on_bytes: &mut dyn FnMut(u64),
    ) -> Result<(Weights, Vec<HostTable>), Error> {
        let mut on_progress = |progress: LoadProgress| on_bytes(progress.loaded);
        Ok(load(vec![self], device, &mut on_progress).await?.remove(0))
    }
}

/// Whether `tensor`, or `part` of it, can be a weight of shape `expected`.
fn check(tensor: &TensorInfo, part: Part, expected: &[usize]) -> Result<(), Error> {
    let shape = match (part, &tensor.shape[..]) {
        (Part::Third(_), [rows, rest @ ..]) if rows.is_multiple_of(3) => [&[rows / 3], rest].concat(),
        (Part::Transposed, &[rows, columns]) => vec![columns, rows],
        (Part::Whole, shape) => shape.to_vec(),
        // No network has a weight without a side.
        _ => vec![],
    };
    // A 1×1 convolution and a linear layer are stored as each other.
    let squeezed = |shape: &[usize]| shape.strip_suffix(&[1, 1]).unwrap_or(shape).to_vec();
    if squeezed(&shape) != squeezed(expected) {
        return Err(Error::Shape {
            file: tensor.file.to_string(),
            tensor: tensor.name.clone(),
            found: tensor.shape.clone(),
            expected: expected.to_vec(),
            hint: hint(&tensor.name, &tensor.shape),
        });
    }
    if !tensor.dtype.is_weight() {
        let reason = format!(
            "it is {}, which is not read as weights; take a file in F32, F16, BF16 or 8-bit floats",
            tensor.dtype
        );
        return Err(tensor.error(reason).into());
    }
    Ok(())
}

/// Bytes of the files of all `networks`, those that they share counted once.
pub fn bytes_of<'a>(networks: impl IntoIterator<Item = &'a WeightFile>) -> u64 {
    distinct(networks).iter().map(|file| file.total_bytes()).sum()
}

fn distinct<'a>(networks: impl IntoIterator<Item = &'a WeightFile>) -> Vec<Rc<TensorFile>> {
    let mut files: Vec<Rc<TensorFile>> = Vec::new();
    for file in networks.into_iter().flat_map(|network| &network.files) {
        if !files.iter().any(|known| Rc::ptr_eq(known, file)) {
            files.push(file.clone());
        }
    }
    files
}

/// Streams the weights of all `networks` to their places, each as it arrives; other tensors pass by. A file is read once,
/// however many networks it serves: those must be loaded together. Gives what it got, in the same order.
///
/// # Errors
/// A file that ends early, or the device's refusal.
pub async fn load(
    networks: Vec<WeightFile>,
    device: &Device,
    on_progress: &mut dyn FnMut(LoadProgress),
) -> Result<Vec<(Weights, Vec<HostTable>)>, Error> {
    let files = distinct(&networks);
    let total = bytes_of(&networks);
    let mut targets: Vec<Targets> = files.iter().map(|_| Targets::new()).collect();
    let mut loading = Vec::new();
    for (network, WeightFile { files: of_network, places, specs, tables }) in networks.into_iter().enumerate() {
        for (file, places) in of_network.iter().zip(places) {
            let number = files.iter().position(|known| Rc::ptr_eq(known, file));
            let Some(targets) = number.and_then(|number| targets.get_mut(number)) else { continue };
            for (tensor, places) in places {
                let places = places.into_iter().map(|place| (network, place));
                targets.entry(tensor).or_default().extend(places);
            }
        }
        loading.push(Loading { loader: WeightLoader::new(device, &specs)?, on_device: specs.len(), tables });
    }
    let mut before = 0;
    for (file, targets) in files.into_iter().zip(&targets) {
        let (path, length) = (file.file().to_owned(), file.total_bytes());
        let shared = || Error::Json { file: path.clone(), message: "it is being read for another network".into() };
        let file = Rc::try_unwrap(file).map_err(|_| shared())?;
        let mut on_bytes = |loaded| on_progress(LoadProgress { loaded: before + loaded, total, file: path.clone() });
        let mut sink = Distributor { networks: &mut loading, targets, position: 0, arriving: Vec::new() };
        file.stream(&mut on_bytes, &|tensor| targets.contains_key(&tensor.name), &mut sink).await?;
        before += length;
    }
    let mut loaded = Vec::new();
    for Loading { loader, tables, .. } in loading {
        loaded.push((loader.finish().await?, tables));
    }
    Ok(loaded)
}

/// The numbers of networks, with the places there, for the tensors of a file by their stored names.
type Targets = HashMap<String, Vec<(usize, Place)>>;

/// A network whose weights are arriving.
struct Loading {
    loader: WeightLoader,
    /// Weights from this number on stay on the host.
    on_device: usize,
    tables: Vec<HostTable>,
}

impl Loading {
    fn begin(&mut self, weight: usize, dtype: Encoding) -> Result<(), Error> {
        match weight.checked_sub(self.on_device).and_then(|index| self.tables.get_mut(index)) {
            Some(table) => {
                table.dtype = dtype;
                table.bytes.clear();
                Ok(())
            }
            None => Ok(self.loader.begin(weight, dtype)?),
        }
    }

    fn chunk(&mut self, weight: usize, bytes: &[u8]) -> Result<(), Error> {
        match weight.checked_sub(self.on_device).and_then(|index| self.tables.get_mut(index)) {
            Some(table) => {
                table.bytes.extend_from_slice(bytes);
                Ok(())
            }
            None => Ok(self.loader.chunk(bytes)?),
        }
    }

    fn end(&mut self, weight: usize) -> Result<(), Error> {
        match weight.checked_sub(self.on_device).and_then(|index| self.tables.get_mut(index)) {
            Some(table) => {
                table.bytes.shrink_to_fit();
                Ok(())
            }
            None => Ok(self.loader.end()?),
        }
    }
}

/// Hands each tensor of a file, as it arrives, to the networks that have a place for it.
struct Distributor<'a> {
    networks: &'a mut [Loading],
    targets: &'a Targets,
    /// Bytes of the current tensor that have arrived.
    position: u64,
    arriving: Vec<Arriving>,
}

/// A weight whose bytes are arriving.
struct Arriving {
    network: usize,
    weight: usize,
    dtype: Encoding,
    /// Bytes of the tensor that it takes.
    range: Range<u64>,
    /// Number of columns of a matrix whose rows and columns are to be exchanged, and what has arrived of it.
    transposed: Option<(usize, Vec<u8>)>,
}

impl Sink<Error> for Distributor<'_> {
    fn begin(&mut self, tensor: &TensorInfo) -> Result<(), Error> {
        self.position = 0;
        self.arriving.clear();
        let length = tensor.byte_length();
        for &(network, Place { part, weight }) in self.targets.get(&tensor.name).into_iter().flatten() {
            let range = match part {
                Part::Third(third) => length / 3 * third as u64..length / 3 * (third as u64 + 1),
                Part::Whole | Part::Transposed => 0..length,
            };
            let columns = tensor.shape.last().copied().unwrap_or_default();
            let transposed = (part == Part::Transposed).then(|| (columns, Vec::new()));
            self.arriving.push(Arriving { network, weight, dtype: tensor.dtype, range, transposed });
        }
        Ok(())
    }

    fn chunk(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let chunk = self.position..self.position + bytes.len() as u64;
        self.position = chunk.end;
        for arriving in &mut self.arriving {
            let range = arriving.range.start.max(chunk.start)..arriving.range.end.min(chunk.end);
            let Some(network) = self.networks.get_mut(arriving.network).filter(|_| range.start < range.end) else {
                continue;
            };
            let own = &bytes[(range.start - chunk.start) as usize..(range.end - chunk.start) as usize];
            if let Some((_, gathered)) = &mut arriving.transposed {
                gathered.extend_from_slice(own);
                continue;
            }
            if range.start == arriving.range.start {
                network.begin(arriving.weight, arriving.dtype)?;
            }
            network.chunk(arriving.weight, own)?;
            if range.end == arriving.range.end {
                network.end(arriving.weight)?;
            }
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), Error> {
        for Arriving { network, weight, dtype, transposed, .. } in self.arriving.drain(..) {
            let (Some((columns, bytes)), Some(network)) = (transposed, self.networks.get_mut(network)) else {
                continue;
            };
            let (dtype, bytes) = transpose(dtype, columns, &bytes);
            network.begin(weight, dtype)?;
            network.chunk(weight, &bytes)?;
            network.end(weight)?;
        }
        Ok(())
    }
}

/// A matrix with rows and columns exchanged; as f32 where its elements are stored in blocks along its rows.
fn transpose(dtype: Encoding, columns: usize, bytes: &[u8]) -> (Encoding, Vec<u8>) {
    if dtype.is_quantised() {
        let values = dtype.to_f32(bytes).unwrap_or_default();
        return transpose(Encoding::F32, columns, bytemuck::cast_slice(&values));
    }
    let size = dtype.block().bytes;
    let row = (columns * size).max(1);
    let elements =
        (0..columns).flat_map(|column| bytes.chunks_exact(row).map(move |row| &row[column * size..][..size]));
    (dtype, elements.flatten().copied().collect())
}

/// Possible explanation of the wrong shape of a telling tensor.
fn hint(name: &str, shape: &[usize]) -> &'static str {
    match (name, shape) {
        ("conv_in.weight", [_, 9, ..]) => "; an inpainting checkpoint, with the config of another",
        ("conv_in.weight", [_, 7, ..]) => "; an upscaling checkpoint, with the config of another",
        _ => "; the file and the config are not of the same model",
    }
}

#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests {
    use pollster::block_on;

    use super::*;
    use crate::weights::MemorySource;

    #[test]
    fn weights_with_scales_beside_them_are_refused_rather_than_read_without() {
        for name in ["scaled_fp8", "w.scale_weight", "w.weight_scale", "w.comfy_quant", "w.weight.absmax"] {
            let header = format!(
                r#"{{"w.weight":{{"dtype":"F8_E4M3","shape":[1],"data_offsets":[0,1]}},"{name}":{{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}}}"#
            );
            let mut source = MemorySource::new();
            source.insert(
                "w.safetensors",
                [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0, 0]].concat(),
            );
            let message = block_on(WeightFile::open(&source, "w.safetensors", vec![], vec![])).unwrap_err().to_string();
            assert!(
                message.contains(name) && message.contains("scaled or looked up by tensors beside them"),
                "{message}"
            );
        }
    }

    #[test]
    fn a_table_whose_rows_share_blocks_is_refused_by_name() {
        // A GGUF file of a table of 8×4, all of it in one block of Q8_0.
        let string = |text: &str| [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat();
        let numbers = |numbers: &[u32]| numbers.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<u8>>();
        let mut file = [&b"GGUF"[..], &numbers(&[3, 1, 0, 1, 0])].concat();
        file.extend(string("comfy.gguf.orig_shape.table"));
        file.extend(numbers(&[9, 5, 2, 0, 8, 4]));
        file.extend(string("table"));
        file.extend(numbers(&[1, 32, 0, 8, 0, 0]));
        file.resize(file.len().next_multiple_of(32) + 34, 0);
        let mut source = MemorySource::new();
        source.insert("w.gguf", file);
        let table = HostTable::new("table", 8, 4);
        let message = block_on(WeightFile::open(&source, "w.gguf", vec![], vec![table])).unwrap_err().to_string();
        assert_eq!(message, "w.gguf: tensor \"table\": its rows of 4 are no whole blocks of Q8_0; store it as F16");
    }
}
