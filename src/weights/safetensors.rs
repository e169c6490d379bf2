//! Reads safetensors files, which are eight bytes of header length, a JSON header, and the tensors' bytes.
//!
//! The header comes first and is checked whole, so that a wrong checkpoint is refused before its gigabytes are
//! fetched; then one pass hands out each tensor in the order of the file. The `safetensors` crate wants the file in
//! memory, hence this reader; the rules it enforces are the crate's own and are tested against it.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::ops::Range;
use std::rc::Rc;

use serde::Deserialize;
use serde::de::{self, MapAccess, Visitor};

use super::{ByteStream, Dtype, Error, F16Bits, Source};

/// The format's own limit on the JSON header.
const MAX_HEADER_BYTES: u64 = 100_000_000;
/// The little-endian u64 that says how long the header is.
const LENGTH_BYTES: usize = 8;

/// What receives the tensors: called with each one's description and bytes, which may start at any address.
pub type Visit<'v, E> = dyn FnMut(&TensorInfo, &[u8]) -> Result<(), E> + 'v;

/// One tensor of a file, as its checked header describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// The file's path inside the checkpoint.
    pub file: Rc<str>,
    /// The name as stored: `down_blocks.0.resnets.0.conv1.weight`.
    pub name: String,
    /// The elements' type.
    pub dtype: Dtype,
    /// The sides, slowest first (row-major); empty for a scalar.
    pub shape: Vec<usize>,
    /// Where the bytes lie, counted from the start of the file: exactly the shape's product times the dtype's size.
    pub range: Range<u64>,
}

impl TensorInfo {
    /// Bytes that the tensor takes in the file.
    pub fn byte_length(&self) -> u64 {
        self.range.end - self.range.start
    }

    /// This tensor's `bytes` as f32; see [`Dtype::to_f32`].
    ///
    /// # Errors
    /// [`Error::Tensor`] for a dtype that holds no weights, or bytes that are not a whole number of elements.
    pub fn to_f32(&self, bytes: &[u8]) -> Result<Vec<f32>, Error> {
        self.dtype.to_f32(bytes).ok_or_else(|| self.no_weights(bytes.len()))
    }

    /// This tensor's `bytes` as the bits of f16; see [`Dtype::to_f16_bits`].
    ///
    /// # Errors
    /// As [`TensorInfo::to_f32`].
    pub fn to_f16_bits(&self, bytes: &[u8]) -> Result<F16Bits, Error> {
        self.dtype.to_f16_bits(bytes).ok_or_else(|| self.no_weights(bytes.len()))
    }

    fn no_weights(&self, bytes: usize) -> Error {
        self.error(format!(
            "{bytes} bytes of {} cannot be read as weights; store the tensor as F32, F16, BF16 or F64",
            self.dtype
        ))
    }

    /// An [`Error::Tensor`] that names this tensor and its file.
    pub fn error(&self, reason: impl Into<String>) -> Error {
        Error::Tensor { file: self.file.to_string(), tensor: self.name.clone(), reason: reason.into() }
    }
}

/// A safetensors file whose header has been read and checked, and whose tensors are still to come.
pub struct SafetensorsReader {
    file: Rc<str>,
    stream: Box<dyn ByteStream>,
    tensors: Vec<TensorInfo>,
    metadata: BTreeMap<String, String>,
    /// What arrived together with the header and lies behind it.
    pending: Vec<u8>,
    /// Bytes received so far, the header's included.
    loaded: u64,
    total: u64,
}

impl fmt::Debug for SafetensorsReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("SafetensorsReader");
        debug.field("file", &self.file).field("tensors", &self.tensors.len()).field("total", &self.total);
        debug.finish_non_exhaustive()
    }
}

impl SafetensorsReader {
    /// Opens `path` and reads its header.
    ///
    /// # Errors
    /// Whatever the source reports; [`Error::Header`] and [`Error::Tensor`] for a header that breaks the format's
    /// rules; [`Error::Truncated`] and [`Error::TrailingBytes`] where the file's length is known and is not what the
    /// header calls for.
    pub async fn open(source: &dyn Source, path: &str) -> Result<Self, Error> {
        let mut stream = source.open(path).await?;
        let invalid = |reason: String| Error::Header { file: path.to_owned(), reason };
        let length = stream.length();

        let mut bytes = Vec::new();
        let prefix = fill(&mut *stream, &mut bytes, LENGTH_BYTES, path).await?;
        let header_length = u64::from_le_bytes(prefix.try_into().unwrap_or_default());
        if header_length > MAX_HEADER_BYTES {
            return Err(invalid(format!(
                "its first eight bytes announce a header of {header_length} bytes, more than the format's {MAX_HEADER_BYTES}"
            )));
        }
        let data_start = LENGTH_BYTES as u64 + header_length;
        if let Some(received) = length.filter(|&length| length < data_start) {
            return Err(Error::Truncated { file: path.to_owned(), tensor: None, received, expected: data_start });
        }
        let header_end = LENGTH_BYTES + header_length as usize;
        fill(&mut *stream, &mut bytes, header_end, path).await?;
        let pending = bytes.split_off(header_end);

        let file = Rc::from(path);
        let (tensors, metadata) = parse_header(&file, &bytes[LENGTH_BYTES..], data_start)?;
        let total = tensors.last().map_or(data_start, |tensor| tensor.range.end);
        match length {
            Some(received) if received < total => {
                let tensor = tensors.iter().find(|tensor| tensor.range.end > received).map(|t| t.name.clone());
                return Err(Error::Truncated { file: path.to_owned(), tensor, received, expected: total });
            }
            Some(length) if length > total => {
                return Err(Error::TrailingBytes { file: path.to_owned(), expected: total });
            }
            _ => {}
        }
        let loaded = (bytes.len() + pending.len()) as u64;
        Ok(Self { file, stream, tensors, metadata, pending, loaded, total })
    }

    /// The file's path inside the checkpoint.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Every tensor, in the order of the file.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The header's `__metadata__`.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// The file's length in bytes, as its header gives it.
    pub fn total_bytes(&self) -> u64 {
        self.total
    }

    /// Reads the rest of the file once and hands each tensor that `wanted` accepts to `visit`, in the order of the
    /// file. At most one tensor and one chunk are held; tensors that are not wanted pass by without being kept.
    ///
    /// `on_bytes(loaded, total)` is called for each chunk; the total is the header's, so it is always known.
    ///
    /// # Errors
    /// [`Error::Truncated`] or [`Error::TrailingBytes`] if the file does not end where its header says, whatever the
    /// stream reports, and the first error of `visit`.
    pub async fn stream<E: From<Error>>(
        mut self,
        on_bytes: &mut dyn FnMut(u64, Option<u64>),
        wanted: &dyn Fn(&TensorInfo) -> bool,
        visit: &mut Visit<'_, E>,
    ) -> Result<(), E> {
        let mut chunk = std::mem::take(&mut self.pending);
        let mut rest: &[u8] = &chunk;
        on_bytes(self.loaded, Some(self.total));
        // The beginning of a tensor that goes on in the next chunk. One buffer serves all of them.
        let mut partial = Vec::new();
        for tensor in &self.tensors {
            let keep = wanted(tensor);
            let mut missing = tensor.byte_length();
            partial.clear();
            loop {
                let take = usize::try_from(missing).map_or(rest.len(), |missing| missing.min(rest.len()));
                let (head, tail) = rest.split_at(take);
                rest = tail;
                missing -= take as u64;
                if missing == 0 {
                    if keep && partial.is_empty() {
                        visit(tensor, head)?;
                    } else if keep {
                        append(&mut partial, head, missing);
                        visit(tensor, &partial)?;
                    }
                    break;
                }
                if keep {
                    append(&mut partial, head, missing);
                }
                let Some(next) = self.stream.next_chunk().await? else {
                    return Err(E::from(Error::Truncated {
                        file: self.file.to_string(),
                        tensor: Some(tensor.name.clone()),
                        received: self.loaded,
                        expected: self.total,
                    }));
                };
                chunk = next;
                rest = &chunk;
                self.loaded += chunk.len() as u64;
                on_bytes(self.loaded.min(self.total), Some(self.total));
            }
        }
        while rest.is_empty() {
            let Some(next) = self.stream.next_chunk().await? else { return Ok(()) };
            chunk = next;
            rest = &chunk;
        }
        Err(E::from(Error::TrailingBytes { file: self.file.to_string(), expected: self.total }))
    }
}

/// Opens `path`, checks its header, and hands every tensor to `visit` in the order of the file:
/// [`SafetensorsReader::open`], then [`SafetensorsReader::stream`].
///
/// # Errors
/// Those of the two, and the first error of `visit`.
pub async fn stream_safetensors<E: From<Error>>(
    source: &dyn Source,
    path: &str,
    on_bytes: &mut dyn FnMut(u64, Option<u64>),
    visit: &mut Visit<'_, E>,
) -> Result<(), E> {
    SafetensorsReader::open(source, path).await?.stream(on_bytes, &|_| true, visit).await
}

/// Appends `head` to a tensor of which `missing` bytes are still to come after it. The buffer doubles, and stops at the
/// tensor's size: it is never more than twice what has arrived, nor more than the tensor.
fn append(partial: &mut Vec<u8>, head: &[u8], missing: u64) {
    let needed = partial.len() + head.len();
    if needed > partial.capacity() {
        let whole = usize::try_from(missing).ok().and_then(|missing| needed.checked_add(missing)).unwrap_or(usize::MAX);
        partial.reserve_exact(needed.saturating_mul(2).min(whole) - partial.len());
    }
    partial.extend_from_slice(head);
}

/// Reads until `bytes` holds at least `length` bytes, and returns that many.
async fn fill<'b>(
    stream: &mut dyn ByteStream,
    bytes: &'b mut Vec<u8>,
    length: usize,
    path: &str,
) -> Result<&'b [u8], Error> {
    while bytes.len() < length {
        match stream.next_chunk().await? {
            Some(chunk) if bytes.is_empty() => *bytes = chunk,
            Some(chunk) => bytes.extend_from_slice(&chunk),
            None => {
                let (received, expected) = (bytes.len() as u64, length as u64);
                return Err(Error::Truncated { file: path.to_owned(), tensor: None, received, expected });
            }
        }
    }
    Ok(&bytes[..length])
}

/// The JSON header as written: nothing checked but its form and that no name occurs twice.
struct RawHeader {
    metadata: BTreeMap<String, String>,
    tensors: Vec<(String, RawTensor)>,
}

#[derive(Deserialize)]
struct RawTensor {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = RawHeader;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a JSON object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawHeader, A::Error> {
                let mut metadata = None;
                let mut tensors = Vec::new();
                let mut names = HashSet::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        if metadata.replace(map.next_value()?).is_some() {
                            return Err(de::Error::duplicate_field("__metadata__"));
                        }
                        continue;
                    }
                    if !names.insert(name.clone()) {
                        return Err(de::Error::custom(format_args!("tensor {name:?} is there twice")));
                    }
                    let tensor = map.next_value()?;
                    tensors.push((name, tensor));
                }
                Ok(RawHeader { metadata: metadata.unwrap_or_default(), tensors })
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// Parses the JSON of a header and checks it; `data_start` is where the tensors' bytes begin in the file. Returns the
/// tensors in the order of the file.
fn parse_header(
    file: &Rc<str>,
    json: &[u8],
    data_start: u64,
) -> Result<(Vec<TensorInfo>, BTreeMap<String, String>), Error> {
    let invalid = |reason: String| Error::Header { file: file.to_string(), reason };
    // The format wants the brace first; serde_json alone would accept space before it.
    if json.first() != Some(&b'{') {
        return Err(invalid("its header does not start with a brace".to_owned()));
    }
    let raw: RawHeader =
        serde_json::from_slice(json).map_err(|error| invalid(format!("its header cannot be read: {error}")))?;
    let mut tensors = raw
        .tensors
        .into_iter()
        .map(|(name, tensor)| check_tensor(file, name, tensor, data_start))
        .collect::<Result<Vec<_>, _>>()?;

    // An empty tensor shares its offset with the tensor that follows it, so the end decides between them.
    tensors.sort_by_key(|tensor| (tensor.range.start, tensor.range.end));
    let mut end = data_start;
    let mut before: Option<&TensorInfo> = None;
    for tensor in &tensors {
        if tensor.range.start != end {
            let relation = if tensor.range.start < end { "overlap" } else { "leave a hole after" };
            let neighbour = before.map_or("the header".to_owned(), |before| format!("tensor {:?}", before.name));
            return Err(tensor.error(format!("its bytes {relation} those of {neighbour}")));
        }
        end = tensor.range.end;
        before = Some(tensor);
    }
    Ok((tensors, raw.metadata))
}

fn check_tensor(file: &Rc<str>, name: String, raw: RawTensor, data_start: u64) -> Result<TensorInfo, Error> {
    let invalid = |reason: String| Error::Tensor { file: file.to_string(), tensor: name.clone(), reason };
    let dtype = Dtype::from_safetensors(&raw.dtype)
        .ok_or_else(|| invalid(format!("dtype {:?} is not supported", raw.dtype)))?;
    let (begin, end) = raw.data_offsets;
    let described = raw
        .shape
        .iter()
        .try_fold(dtype.size() as u64, |bytes, &side| bytes.checked_mul(side))
        .ok_or_else(|| invalid(format!("shape {:?} has more elements than any file can hold", raw.shape)))?;
    if end.checked_sub(begin) != Some(described) {
        return Err(invalid(format!(
            "shape {:?} of {dtype} takes {described} bytes, and data_offsets are [{begin}, {end}]",
            raw.shape
        )));
    }
    let range = data_start.checked_add(begin).zip(data_start.checked_add(end));
    let (start, end) =
        range.ok_or_else(|| invalid(format!("data_offsets [{begin}, {end}] lie beyond any file's end")))?;
    let shape = raw.shape.iter().map(|&side| usize::try_from(side)).collect::<Result<_, _>>();
    let shape = shape.map_err(|_| invalid(format!("shape {:?} is too large for this machine", raw.shape)))?;
    Ok(TensorInfo { file: file.clone(), name, dtype, shape, range: start..end })
}
