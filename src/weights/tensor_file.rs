//! Reads a file of tensors in a single pass: its header first, then each tensor's bytes as they arrive.
//!
//! The header comes first and is checked whole, so that a wrong checkpoint is refused before its gigabytes are
//! fetched. Then a [`Sink`] gets the tensors in the order of the file, in chunks: a tensor never lies in memory whole
//! unless the sink gathers it ([`Gather`]).

use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Range, RangeInclusive};
use std::rc::Rc;

use super::{ByteStream, Encoding, Error, F16Bits, Source, foreign, gguf, safetensors};

/// The most tensors of a file, or entries of its metadata; the largest checkpoints have some thousand.
pub(super) const MAX_TENSORS: usize = 1 << 16;
/// The most sides of a tensor. Weights have at most 5.
pub(super) const MAX_SIDES: usize = 8;
/// The longest name of a tensor in bytes.
pub(super) const MAX_NAME: usize = 1 << 10;

/// Parts of the names of tensors that hold scales or tables for the weights beside them, as ComfyUI, bitsandbytes, GPTQ and
/// others store these.
const SCALES: [&str; 7] =
    ["scaled_fp8", ".scale_weight", ".weight_scale", ".comfy_quant", ".weight.absmax", ".SCB", ".qweight"];

/// One tensor of a file, as its checked header describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// The file's path inside the checkpoint.
    pub file: Rc<str>,
    /// The name as stored: `down_blocks.0.resnets.0.conv1.weight`.
    pub name: String,
    /// The elements' type.
    pub dtype: Encoding,
    /// The sides, slowest first (row-major); empty for a scalar.
    pub shape: Vec<usize>,
    /// Place of the bytes, counted from the start of the file: exactly what the shape takes in this dtype.
    pub range: Range<u64>,
}

impl TensorInfo {
    /// Bytes that the tensor takes in the file.
    pub fn byte_length(&self) -> u64 {
        self.range.end - self.range.start
    }

    /// Whether it has no element, as what is left of a parameter that was taken out.
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    /// This tensor's `bytes` as f32; see [`Encoding::to_f32`].
    ///
    /// # Errors
    /// [`Error::Tensor`] for a dtype that holds no weights, or bytes that are not a whole number of elements.
    pub fn to_f32(&self, bytes: &[u8]) -> Result<Vec<f32>, Error> {
        self.dtype.to_f32(bytes).ok_or_else(|| self.no_weights(bytes.len()))
    }

    /// This tensor's `bytes` as the bits of f16; see [`Encoding::to_f16_bits`].
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

    /// Refuses a tensor without which the weights beside it are not what they say.
    ///
    /// # Errors
    /// [`Error::Tensor`] if this holds their scales, or a table that they are looked up in.
    pub fn check_unscaled(&self) -> Result<(), Error> {
        match SCALES.iter().any(|part| self.name.contains(part)) {
            true => Err(self.error(
                "weights that are scaled or looked up by tensors beside them are not supported; take a file without these, in F16 say",
            )),
            false => Ok(()),
        }
    }

    /// An [`Error::Tensor`] that names this tensor and its file.
    pub fn error(&self, reason: impl Into<String>) -> Error {
        Error::Tensor { file: self.file.to_string(), tensor: self.name.clone(), reason: reason.into() }
    }
}

/// The content of a format's header, checked.
#[derive(Debug)]
pub(super) struct Header {
    /// Every tensor, in the order of the file. No two overlap; bytes between them are padding.
    pub tensors: Vec<TensorInfo>,
    /// Other text of the header.
    pub metadata: BTreeMap<String, String>,
    /// Possible lengths of the file: from the last tensor's end to that of the padding after it.
    pub lengths: RangeInclusive<u64>,
}

/// The beginning of a file, as far as its header needs it.
pub(super) struct Beginning<'s> {
    file: Rc<str>,
    stream: &'s mut dyn ByteStream,
    bytes: Vec<u8>,
}

impl Beginning<'_> {
    /// The file's path inside the checkpoint.
    pub fn file(&self) -> &Rc<str> {
        &self.file
    }

    /// The file's first `length` bytes. What has been read stays at hand, and no more memory is taken than for what
    /// has arrived.
    ///
    /// # Errors
    /// [`Error::Truncated`] for a shorter file, and whatever the stream reports.
    pub async fn first(&mut self, length: usize) -> Result<&[u8], Error> {
        let file = self.file.clone();
        let truncated =
            |received| Error::Truncated { file: file.to_string(), tensor: None, received, expected: length as u64 };
        // A known length spares the wait for bytes that will not come.
        if let Some(received) = self.stream.length().filter(|&known| known < length as u64) {
            return Err(truncated(received));
        }
        match self.at_most(length).await?.len() {
            received if received < length => Err(truncated(received as u64)),
            _ => Ok(&self.bytes[..length]),
        }
    }

    /// The file's first bytes, `length` of them or all that it has.
    ///
    /// # Errors
    /// Whatever the stream reports.
    pub async fn at_most(&mut self, length: usize) -> Result<&[u8], Error> {
        while self.bytes.len() < length {
            match self.stream.next_chunk().await? {
                Some(chunk) if self.bytes.is_empty() => self.bytes = chunk,
                Some(chunk) => self.bytes.extend_from_slice(&chunk),
                None => break,
            }
        }
        Ok(&self.bytes[..self.bytes.len().min(length)])
    }
}

/// A receiver of the tensors of a file: for each one `begin`, its bytes in any number of chunks of any length, `end`.
pub trait Sink<E> {
    /// Begins the next tensor.
    ///
    /// # Errors
    /// If it cannot be used; the pass ends.
    fn begin(&mut self, tensor: &TensorInfo) -> Result<(), E>;

    /// Takes the tensor's next bytes. A chunk may end within an element, and start at any address.
    ///
    /// # Errors
    /// As [`Sink::begin`].
    fn chunk(&mut self, bytes: &[u8]) -> Result<(), E>;

    /// Ends the tensor: all bytes that [`TensorInfo::byte_length`] announces have come.
    ///
    /// # Errors
    /// As [`Sink::begin`].
    fn end(&mut self) -> Result<(), E>;
}

/// A sink that gathers each tensor and hands it whole to a function. One buffer serves all of them; it grows with what has
/// arrived, to at most twice that.
pub struct Gather<F> {
    visit: F,
    tensor: Option<TensorInfo>,
    bytes: Vec<u8>,
}

impl<F> Gather<F> {
    /// Gathers for `visit`.
    pub fn new(visit: F) -> Self {
        Self { visit, tensor: None, bytes: Vec::new() }
    }
}

impl<E, F: FnMut(&TensorInfo, &[u8]) -> Result<(), E>> Sink<E> for Gather<F> {
    fn begin(&mut self, tensor: &TensorInfo) -> Result<(), E> {
        self.bytes.clear();
        self.tensor = Some(tensor.clone());
        Ok(())
    }

    fn chunk(&mut self, bytes: &[u8]) -> Result<(), E> {
        let whole = self.tensor.as_ref().map_or(0, TensorInfo::byte_length);
        grow(&mut self.bytes, bytes.len(), usize::try_from(whole).unwrap_or(usize::MAX));
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn end(&mut self) -> Result<(), E> {
        match &self.tensor {
            Some(tensor) => (self.visit)(tensor, &self.bytes),
            None => Ok(()),
        }
    }
}

/// Makes room for `more` elements behind those of `values`, which will be `whole` in the end. The room doubles and stops at
/// the whole, so that it is never more than twice what has arrived, nor more than what is to come.
fn grow<T>(values: &mut Vec<T>, more: usize, whole: usize) {
    let needed = values.len() + more;
    if needed > values.capacity() {
        values.reserve_exact(needed.saturating_mul(2).min(whole).max(needed) - values.len());
    }
}

/// Cuts the chunks of a tensor at the borders of its elements.
#[derive(Debug)]
pub(crate) struct Cutter {
    unit: usize,
    /// The beginning of an element that goes on in the next chunk.
    rest: Vec<u8>,
}

impl Cutter {
    /// A cutter for elements, or blocks of them, of `unit` bytes.
    pub fn new(unit: usize) -> Self {
        Self { unit, rest: Vec::new() }
    }

    /// Hands the elements that are complete with `chunk` to `to`, in at most two pieces.
    pub fn push(&mut self, mut chunk: &[u8], mut to: impl FnMut(&[u8])) {
        if !self.rest.is_empty() {
            let (head, tail) = chunk.split_at(chunk.len().min(self.unit - self.rest.len()));
            self.rest.extend_from_slice(head);
            chunk = tail;
            if self.rest.len() < self.unit {
                return;
            }
            to(&self.rest);
        }
        let (whole, rest) = chunk.split_at(chunk.len() - chunk.len() % self.unit);
        if !whole.is_empty() {
            to(whole);
        }
        self.rest.clear();
        self.rest.extend_from_slice(rest);
    }

    /// Hands what is left to `to`, filled up with zeros to an element.
    pub fn flush(&mut self, mut to: impl FnMut(&[u8])) {
        if !self.rest.is_empty() {
            self.rest.resize(self.unit, 0);
            to(&self.rest);
            self.rest.clear();
        }
    }
}

/// A file whose header has been read and checked, and whose tensors are still to come.
pub struct TensorFile {
    file: Rc<str>,
    stream: Box<dyn ByteStream>,
    header: Header,
    /// The chunk that arrived last; at first the header and what came with it.
    chunk: Vec<u8>,
    /// Number of the chunk's bytes that have been passed on.
    used: usize,
    /// Bytes received so far.
    received: u64,
}

impl fmt::Debug for TensorFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("TensorFile");
        debug.field("file", &self.file).field("tensors", &self.tensors().len()).field("total", &self.total_bytes());
        debug.finish_non_exhaustive()
    }
}

impl TensorFile {
    /// Opens `path` and reads its header. The first bytes tell the format, not the name.
    ///
    /// # Errors
    /// Whatever the source reports; [`Error::Pickle`] and [`Error::Foreign`]; [`Error::Header`] and [`Error::Tensor`] for a header that breaks the
    /// format's rules; [`Error::Truncated`] and [`Error::TrailingBytes`] where the file's length is known and is not what the
    /// header calls for.
    pub async fn open(source: &dyn Source, path: &str) -> Result<Self, Error> {
        let mut stream = source.open(path).await?;
        let length = stream.length();
        let mut beginning = Beginning { file: Rc::from(path), stream: &mut *stream, bytes: Vec::new() };
        let head = beginning.at_most(foreign::HEAD).await?;
        let header = if head.starts_with(&gguf::MAGIC) {
            gguf::read_header(&mut beginning).await?
        } else if safetensors::begins(head) {
            safetensors::read_header(&mut beginning).await?
        } else if let Some(error) = foreign::recognise_in_place_of_tensors(path, head) {
            return Err(error);
        } else if path.ends_with(".gguf") && !head.is_empty() {
            let reason = "it does not begin with these letters; download it again".to_owned();
            return Err(Error::Header { file: path.to_owned(), format: "GGUF", reason });
        } else {
            safetensors::read_header(&mut beginning).await?
        };
        let Beginning { file, bytes: chunk, .. } = beginning;

        let (shortest, longest) = (*header.lengths.start(), *header.lengths.end());
        match length {
            Some(received) if received < shortest => {
                let tensor = header.tensors.iter().find(|tensor| tensor.range.end > received).map(|t| t.name.clone());
                return Err(Error::Truncated { file: path.to_owned(), tensor, received, expected: shortest });
            }
            Some(length) if length > longest => {
                return Err(Error::TrailingBytes { file: path.to_owned(), expected: longest });
            }
            _ => {}
        }
        let received = chunk.len() as u64;
        Ok(Self { file, stream, header, chunk, used: 0, received })
    }

    /// The file's path inside the checkpoint.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Every tensor, in the order of the file.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.header.tensors
    }

    /// Other text of the header: the `__metadata__` of a safetensors file, the entries of a GGUF file that are text.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.header.metadata
    }

    /// The file's length in bytes, as its header gives it.
    pub fn total_bytes(&self) -> u64 {
        *self.header.lengths.start()
    }

    /// Reads the rest of the file once and hands each tensor that `wanted` accepts to `sink`, in the order of the file,
    /// as it arrives. One chunk is held at a time.
    ///
    /// `on_bytes` gets the bytes read so far, of [`TensorFile::total_bytes`], for each chunk.
    ///
    /// # Errors
    /// [`Error::Truncated`] or [`Error::TrailingBytes`] if the file does not end where its header says, whatever the
    /// stream reports, and the first error of `sink`.
    pub async fn stream<E: From<Error>>(
        mut self,
        on_bytes: &mut dyn FnMut(u64),
        wanted: &dyn Fn(&TensorInfo) -> bool,
        sink: &mut dyn Sink<E>,
    ) -> Result<(), E> {
        on_bytes(self.received.min(self.total_bytes()));
        for tensor in std::mem::take(&mut self.header.tensors) {
            let wanted = wanted(&tensor);
            self.pass(&tensor, tensor.range.start, on_bytes, &mut |_| Ok::<_, E>(())).await?;
            if wanted {
                sink.begin(&tensor)?;
                self.pass(&tensor, tensor.range.end, on_bytes, &mut |bytes| sink.chunk(bytes)).await?;
                sink.end()?;
            } else {
                self.pass(&tensor, tensor.range.end, on_bytes, &mut |_| Ok::<_, E>(())).await?;
            }
        }
        let longest = *self.header.lengths.end();
        while self.received <= longest {
            if !self.next_chunk().await? {
                return Ok(());
            }
        }
        Err(E::from(Error::TrailingBytes { file: self.file.to_string(), expected: longest }))
    }

    /// Hands what lies before `end` in the file, the bytes of `tensor` or the padding before them, to `to`.
    async fn pass<E: From<Error>>(
        &mut self,
        tensor: &TensorInfo,
        end: u64,
        on_bytes: &mut dyn FnMut(u64),
        to: &mut dyn FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        loop {
            let rest = &self.chunk[self.used..];
            let missing = end.saturating_sub(self.received - rest.len() as u64);
            let take = usize::try_from(missing).map_or(rest.len(), |missing| missing.min(rest.len()));
            if take > 0 {
                to(&rest[..take])?;
                self.used += take;
            }
            if take as u64 == missing {
                return Ok(());
            }
            if !self.next_chunk().await? {
                return Err(E::from(Error::Truncated {
                    file: self.file.to_string(),
                    tensor: Some(tensor.name.clone()),
                    received: self.received,
                    expected: self.total_bytes(),
                }));
            }
            on_bytes(self.received.min(self.total_bytes()));
        }
    }

    /// Replaces the chunk, all of which is used, by the next one; false at the end of the file.
    async fn next_chunk(&mut self) -> Result<bool, Error> {
        let next = self.stream.next_chunk().await?;
        let more = next.is_some();
        (self.chunk, self.used) = (next.unwrap_or_default(), 0);
        self.received += self.chunk.len() as u64;
        Ok(more)
    }
}
