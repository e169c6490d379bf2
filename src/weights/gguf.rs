//! GGUF files: metadata, a description of each tensor, and the tensors' bytes, all little endian.
//!
//! ```text
//! "GGUF", u32 version (2 or 3), u64 number of tensors, u64 number of metadata entries
//! entry:   string key, u32 type, value; an array is u32 type, u64 count, values; a string is u64 length, UTF-8
//! tensor:  string name, u32 number of sides, u64 sides (fastest first), u32 type, u64 offset from the data's start
//! padding to the alignment (`general.alignment`, 32 unless given), then the tensors, each padded to it
//! ```
//!
//! The header says nowhere how long it is, so it is taken apart as it arrives. Tensor names are whatever the writing
//! program calls them; [`Writer`] keeps diffusers' names.

use std::collections::{BTreeMap, HashSet};
use std::io::{self, Seek, SeekFrom, Write};
use std::rc::Rc;

use super::tensor_file::{Beginning, Header, MAX_NAME, MAX_TENSORS, TensorInfo};
use super::{Encoding, Error};
use crate::order::sort_by_key;

/// The first bytes of a GGUF file.
pub(super) const MAGIC: [u8; 4] = *b"GGUF";

/// Most bytes of a header, as for safetensors; the longest headers are those of language models with their vocabularies, some
/// 20 MB.
const MAX_HEADER_BYTES: u64 = 100_000_000;
/// Most sides of a tensor, as the format has it.
const MAX_SIDES: u64 = 4;
/// Alignment of the tensors, unless `general.alignment` says otherwise.
const DEFAULT_ALIGNMENT: u64 = 32;
/// The largest alignment that is believed; files use 32.
const MAX_ALIGNMENT: u64 = 1 << 16;

const STRING: u64 = 8;
const ARRAY: u64 = 9;
const U32: u64 = 4;

/// The tensor types by number; of those that are not read, the name.
const TYPES: [Result<Encoding, &str>; 42] = [
    Ok(Encoding::F32),
    Ok(Encoding::F16),
    Ok(Encoding::Q4_0),
    Ok(Encoding::Q4_1),
    Err("Q4_2"),
    Err("Q4_3"),
    Ok(Encoding::Q5_0),
    Ok(Encoding::Q5_1),
    Ok(Encoding::Q8_0),
    Err("Q8_1"),
    Ok(Encoding::Q2_K),
    Ok(Encoding::Q3_K),
    Ok(Encoding::Q4_K),
    Ok(Encoding::Q5_K),
    Ok(Encoding::Q6_K),
    Err("Q8_K"),
    Err("IQ2_XXS"),
    Err("IQ2_XS"),
    Err("IQ3_XXS"),
    Err("IQ1_S"),
    Ok(Encoding::IQ4_NL),
    Err("IQ3_S"),
    Err("IQ2_S"),
    Err("IQ4_XS"),
    Ok(Encoding::I8),
    Ok(Encoding::I16),
    Ok(Encoding::I32),
    Ok(Encoding::I64),
    Ok(Encoding::F64),
    Err("IQ1_M"),
    Ok(Encoding::BF16),
    Err("Q4_0_4_4"),
    Err("Q4_0_4_8"),
    Err("Q4_0_8_8"),
    Err("TQ1_0"),
    Err("TQ2_0"),
    Err("IQ4_NL_4_4"),
    Err("IQ4_NL_4_8"),
    Err("IQ4_NL_8_8"),
    Err("MXFP4"),
    Err("NVFP4"),
    Err("Q1_0"),
];

/// Reads and checks the header of the file that begins with `beginning`, and that with [`MAGIC`].
///
/// # Errors
/// [`Error::Header`] and [`Error::Tensor`] for a header that breaks the format's rules or describes what is not read,
/// [`Error::Truncated`] for one that ends early, and whatever the stream reports.
pub(super) async fn read_header(beginning: &mut Beginning<'_>) -> Result<Header, Error> {
    let file = beginning.file().clone();
    let mut bytes = Cursor { beginning, at: MAGIC.len() };
    match bytes.uint(4).await? {
        2 | 3 => {}
        version @ (0x0200_0000 | 0x0300_0000) => {
            let version = version >> 24;
            return Err(bytes.error(format!("it is version {version} in big endian; convert it to little endian")));
        }
        version => {
            let reason =
                format!("it is version {version}, and versions 2 and 3 are read; write it anew with ggml's tools");
            return Err(bytes.error(reason));
        }
    }
    let (tensors, entries) = (bytes.uint(8).await?, bytes.uint(8).await?);
    for (count, what) in [(tensors, "tensors"), (entries, "entries of metadata")] {
        if count > MAX_TENSORS as u64 {
            return Err(bytes.error(format!("it announces {count} {what}, and at most {MAX_TENSORS} are read")));
        }
    }
    let entries = Entries::read(&mut bytes, entries).await?;

    let mut described = Vec::new();
    let mut names = HashSet::new();
    for _ in 0..tensors {
        let tensor = Described::read(&mut bytes).await?;
        if !names.insert(tensor.name.clone()) {
            return Err(bytes.error(format!("tensor {:?} is there twice", tensor.name)));
        }
        described.push(tensor);
    }
    drop(names);

    let header_end = bytes.at as u64;
    let data_start = header_end.next_multiple_of(entries.alignment);
    let tensors = described.into_iter().map(|tensor| tensor.check(&file, data_start, &entries));
    let mut tensors = tensors.collect::<Result<Vec<_>, _>>()?;
    // An empty tensor shares its offset with the tensor that follows it, so the end decides between them.
    sort_by_key(&mut tensors, |tensor| (tensor.range.start, tensor.range.end));
    let (mut end, mut padded) = (header_end, data_start);
    for tensor in &tensors {
        if tensor.range.start != padded {
            let relation = if tensor.range.start < padded { "overlap" } else { "leave a hole after" };
            return Err(tensor.error(format!("its bytes {relation} what comes before them")));
        }
        end = tensor.range.end;
        let next = end.checked_next_multiple_of(entries.alignment);
        padded = next.ok_or_else(|| tensor.error("its bytes lie beyond any file's end"))?;
    }
    Ok(Header { tensors, metadata: entries.texts, lengths: end..=padded })
}

/// The metadata that matters here.
struct Entries {
    texts: BTreeMap<String, String>,
    alignment: u64,
    /// Shapes, slowest side first, of tensors that ComfyUI's converter has stored in rows of 256.
    shapes: BTreeMap<String, Vec<u64>>,
}

impl Entries {
    async fn read(bytes: &mut Cursor<'_, '_>, count: u64) -> Result<Self, Error> {
        let mut entries = Self { texts: BTreeMap::new(), alignment: DEFAULT_ALIGNMENT, shapes: BTreeMap::new() };
        let mut keys = HashSet::new();
        for _ in 0..count {
            let key = bytes.string().await?;
            if !keys.insert(key.clone()) {
                return Err(bytes.error(format!("metadata entry {key:?} is there twice")));
            }
            let kind = bytes.uint(4).await?;
            if key == "general.alignment" {
                let alignment = if kind == U32 { bytes.uint(4).await? } else { 0 };
                if !alignment.is_power_of_two() || alignment > MAX_ALIGNMENT {
                    let reason = format!("`general.alignment` is no u32 that is a power of two up to {MAX_ALIGNMENT}");
                    return Err(bytes.error(reason));
                }
                entries.alignment = alignment;
            } else if kind == STRING {
                entries.texts.insert(key, bytes.string().await?);
            } else if kind != ARRAY {
                let width = bytes.width(&key, kind)?;
                bytes.take(width).await?;
            } else {
                let (kind, count) = (bytes.uint(4).await?, bytes.uint(8).await?);
                if kind == STRING {
                    for _ in 0..count {
                        let length = bytes.uint(8).await?;
                        bytes.take(length).await?;
                    }
                    continue;
                }
                let width = bytes.width(&key, kind)?;
                match key.strip_prefix("comfy.gguf.orig_shape.").filter(|_| width <= 8 && count <= MAX_SIDES) {
                    Some(tensor) => {
                        let mut shape = Vec::new();
                        for _ in 0..count {
                            shape.push(bytes.uint(width).await?);
                        }
                        entries.shapes.insert(tensor.to_owned(), shape);
                    }
                    None => {
                        bytes.take(width.saturating_mul(count)).await?;
                    }
                }
            }
        }
        Ok(entries)
    }
}

/// A tensor as the header describes it.
struct Described {
    name: String,
    /// Sides, slowest first.
    shape: Vec<u64>,
    kind: u64,
    offset: u64,
}

impl Described {
    async fn read(bytes: &mut Cursor<'_, '_>) -> Result<Self, Error> {
        let name = bytes.string().await?;
        if name.len() > MAX_NAME {
            let reason = format!("a tensor's name has {} letters, at most {MAX_NAME} are read", name.len());
            return Err(bytes.error(reason));
        }
        let sides = bytes.uint(4).await?;
        if sides > MAX_SIDES {
            return Err(
                bytes.error(format!("tensor {name:?} has {sides} sides, and the format has at most {MAX_SIDES}"))
            );
        }
        let mut shape = Vec::new();
        for _ in 0..sides {
            shape.push(bytes.uint(8).await?);
        }
        shape.reverse();
        Ok(Self { name, shape, kind: bytes.uint(4).await?, offset: bytes.uint(8).await? })
    }

    fn check(self, file: &Rc<str>, data_start: u64, entries: &Entries) -> Result<TensorInfo, Error> {
        let Self { name, shape, kind, offset } = self;
        let invalid = |reason: String| Error::Tensor { file: file.to_string(), tensor: name.clone(), reason };
        let unsupported = |stored: &str| {
            invalid(format!(
                "it is stored as {stored}, which is not supported; take a file in F16, BF16, Q8_0, Q5_1, Q5_0, Q4_1, \
                 Q4_0, Q2_K to Q6_K or IQ4_NL"
            ))
        };
        let dtype = match usize::try_from(kind).ok().and_then(|kind| TYPES.get(kind)) {
            Some(&Ok(dtype)) => dtype,
            Some(Err(name)) => return Err(unsupported(name)),
            None => return Err(unsupported(&format!("ggml's type {kind}"))),
        };
        let product = |shape: &[u64]| shape.iter().try_fold(1u64, |elements, &side| elements.checked_mul(side));
        let elements = product(&shape);
        let elements =
            elements.ok_or_else(|| invalid(format!("shape {shape:?} has more elements than any file can hold")))?;
        let block = dtype.block();
        if shape.last().is_some_and(|row| !row.is_multiple_of(block.elements as u64))
            || (shape.is_empty() && dtype.is_quantised())
        {
            return Err(invalid(format!("the rows of shape {shape:?} are no whole blocks of {dtype}")));
        }
        let length = (elements / block.elements as u64).checked_mul(block.bytes as u64);
        let start = data_start.checked_add(offset);
        let end = start.zip(length).and_then(|(start, length)| start.checked_add(length));
        let (Some(start), Some(end)) = (start, end) else {
            return Err(invalid(format!("offset {offset} with shape {shape:?} lies beyond any file's end")));
        };
        let shape = match entries.shapes.get(&name) {
            Some(original) if product(original) == Some(elements) => original,
            Some(original) => {
                return Err(invalid(format!(
                    "its shape {shape:?} cannot become the {original:?} that the metadata gives"
                )));
            }
            None => &shape,
        };
        let shape = shape.iter().map(|&side| usize::try_from(side)).collect::<Result<_, _>>();
        let shape = shape.map_err(|_| invalid("its shape is too large for this machine".to_owned()))?;
        Ok(TensorInfo { file: file.clone(), name, dtype, shape, range: start..end })
    }
}

/// A file's beginning, taken apart as it arrives.
struct Cursor<'b, 's> {
    beginning: &'b mut Beginning<'s>,
    at: usize,
}

impl Cursor<'_, '_> {
    fn error(&self, reason: impl Into<String>) -> Error {
        Error::Header { file: self.beginning.file().to_string(), format: "GGUF", reason: reason.into() }
    }

    /// The next `length` bytes.
    async fn take(&mut self, length: u64) -> Result<&[u8], Error> {
        let end = (self.at as u64).saturating_add(length);
        if end > MAX_HEADER_BYTES {
            return Err(self.error(format!("its header is longer than {MAX_HEADER_BYTES} bytes")));
        }
        let start = std::mem::replace(&mut self.at, end as usize);
        Ok(&self.beginning.first(end as usize).await?[start..])
    }

    /// The next `width` bytes, at most 8, as a number without sign.
    async fn uint(&mut self, width: u64) -> Result<u64, Error> {
        let bytes = self.take(width).await?;
        Ok(bytes.iter().rev().fold(0, |number, &byte| (number << 8) | u64::from(byte)))
    }

    async fn string(&mut self) -> Result<String, Error> {
        let length = self.uint(8).await?;
        let text = self.take(length).await?.to_vec();
        String::from_utf8(text).map_err(|_| self.error("a key, name or text in its header is not UTF-8"))
    }

    /// Bytes of a number or boolean of type `kind`.
    fn width(&self, key: &str, kind: u64) -> Result<u64, Error> {
        match kind {
            0 | 1 | 7 => Ok(1),
            2 | 3 => Ok(2),
            4..=6 => Ok(4),
            10..=12 => Ok(8),
            ARRAY => Err(self.error(format!("metadata entry {key:?} is an array of arrays, which is not supported"))),
            _ => Err(self.error(format!("metadata entry {key:?} is of type {kind}, which the format does not have"))),
        }
    }
}

/// A metadata entry to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// UTF-8 text.
    Text(String),
    /// A number.
    U32(u32),
}

/// Writes a GGUF file of version 3, one tensor after the other: none but the one at hand is in memory.
///
/// A tensor's dtype may be chosen as late as its bytes are given, since the header is written last, into the room that was
/// left for it.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    metadata: Vec<(String, Entry)>,
    tensors: Vec<ToWrite>,
    /// Number of the tensors that have been written.
    written: usize,
    /// Offset of the next one, counted from the first.
    offset: u64,
}

#[derive(Debug)]
struct ToWrite {
    name: String,
    shape: Vec<usize>,
    kind: u32,
    offset: u64,
}

impl<W: Write + Seek> Writer<W> {
    /// Begins a file of `tensors`, names and shapes (slowest side first) in the order in which they will come.
    ///
    /// # Errors
    /// Whatever `out` reports; a shape of more than four sides.
    pub fn new(out: W, metadata: Vec<(String, Entry)>, tensors: Vec<(String, Vec<usize>)>) -> io::Result<Self> {
        if let Some((name, shape)) = tensors.iter().find(|(_, shape)| shape.len() as u64 > MAX_SIDES) {
            return Err(misuse(format!("tensor {name:?} has {} sides, and GGUF has at most {MAX_SIDES}", shape.len())));
        }
        let tensors = tensors.into_iter().map(|(name, shape)| ToWrite { name, shape, kind: 0, offset: 0 }).collect();
        let mut writer = Self { out, metadata, tensors, written: 0, offset: 0 };
        let room = writer.header();
        writer.out.write_all(&room)?;
        Ok(writer)
    }

    /// Writes the next tensor.
    ///
    /// # Errors
    /// Whatever the output reports; a dtype that GGUF does not have, rows that are no whole blocks of it, bytes that are not
    /// the shape's, or a tensor too many.
    pub fn tensor(&mut self, dtype: Encoding, bytes: &[u8]) -> io::Result<()> {
        let Some(tensor) = self.tensors.get_mut(self.written) else {
            return Err(misuse("more tensors than announced".to_owned()));
        };
        let wrong = |what: &str| misuse(format!("tensor {:?} of {:?}: {what} {dtype}", tensor.name, tensor.shape));
        let kind = TYPES.iter().position(|&kind| kind == Ok(dtype)).ok_or_else(|| wrong("GGUF has no"))?;
        let row = tensor.shape.last().copied().unwrap_or(1);
        let rows = tensor.shape.iter().rev().skip(1).try_fold(1usize, |rows, &side| rows.checked_mul(side));
        let length = dtype.bytes_of(row).zip(rows).and_then(|(row, rows)| row.checked_mul(rows));
        if length != Some(bytes.len()) {
            return Err(wrong(&format!("{} bytes are not its rows in", bytes.len())));
        }
        (tensor.kind, tensor.offset) = (kind as u32, self.offset);
        let padding = (bytes.len() as u64).next_multiple_of(DEFAULT_ALIGNMENT) as usize - bytes.len();
        self.out.write_all(bytes)?;
        self.out.write_all(&[0; DEFAULT_ALIGNMENT as usize][..padding])?;
        self.offset += (bytes.len() + padding) as u64;
        self.written += 1;
        Ok(())
    }

    /// Writes the header; the file's output, flushed, and its length in bytes.
    ///
    /// # Errors
    /// Whatever the output reports; tensors that were announced and did not come.
    pub fn finish(mut self) -> io::Result<(W, u64)> {
        if let Some(tensor) = self.tensors.get(self.written) {
            return Err(misuse(format!("tensor {:?} was announced and not written", tensor.name)));
        }
        let header = self.header();
        self.out.seek(SeekFrom::Start(0))?;
        self.out.write_all(&header)?;
        self.out.flush()?;
        Ok((self.out, header.len() as u64 + self.offset))
    }

    /// The header of what is known by now. Its length depends on names and numbers of sides only.
    fn header(&self) -> Vec<u8> {
        let mut bytes = Vec::from(MAGIC);
        let string = |bytes: &mut Vec<u8>, text: &str| {
            bytes.extend((text.len() as u64).to_le_bytes());
            bytes.extend(text.as_bytes());
        };
        bytes.extend(3u32.to_le_bytes());
        bytes.extend((self.tensors.len() as u64).to_le_bytes());
        bytes.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            string(&mut bytes, key);
            match value {
                Entry::Text(text) => {
                    bytes.extend((STRING as u32).to_le_bytes());
                    string(&mut bytes, text);
                }
                Entry::U32(number) => {
                    bytes.extend((U32 as u32).to_le_bytes());
                    bytes.extend(number.to_le_bytes());
                }
            }
        }
        for ToWrite { name, shape, kind, offset } in &self.tensors {
            string(&mut bytes, name);
            bytes.extend((shape.len() as u32).to_le_bytes());
            bytes.extend(shape.iter().rev().flat_map(|&side| (side as u64).to_le_bytes()));
            bytes.extend(kind.to_le_bytes());
            bytes.extend(offset.to_le_bytes());
        }
        bytes.resize(bytes.len().next_multiple_of(DEFAULT_ALIGNMENT as usize), 0);
        bytes
    }
}

fn misuse(reason: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, reason)
}
