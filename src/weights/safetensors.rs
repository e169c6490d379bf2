//! The header of a safetensors file: eight bytes of length, then JSON; the tensors' bytes follow without a gap.
//!
//! The `safetensors` crate wants the file in memory, hence this reader; the rules it enforces are the crate's own and
//! are tested against it.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::rc::Rc;

use serde::Deserialize;
use serde::de::{self, MapAccess, SeqAccess, Visitor};

use super::tensor_file::{Beginning, Header, MAX_NAME, MAX_SIDES, MAX_TENSORS, TensorInfo};
use super::{Encoding, Error};
use crate::order::sort_by_key;

/// The format's own limit on the JSON header.
const MAX_HEADER_BYTES: u64 = 100_000_000;
/// The little-endian u64 that says how long the header is.
const LENGTH_BYTES: usize = 8;

/// Whether a file that begins with `head` can be one of safetensors: a length that is possible, then a brace.
pub(super) fn begins(head: &[u8]) -> bool {
    match head.split_first_chunk() {
        Some((length, [b'{', ..])) => u64::from_le_bytes(*length) <= MAX_HEADER_BYTES,
        _ => false,
    }
}

/// Reads and checks the header of the safetensors file that begins with `beginning`.
///
/// # Errors
/// [`Error::Header`] and [`Error::Tensor`] for a header that breaks the format's rules, [`Error::Truncated`] for one that
/// ends early, and whatever the stream reports.
pub(super) async fn read_header(beginning: &mut Beginning<'_>) -> Result<Header, Error> {
    let file = beginning.file().clone();
    let prefix = beginning.first(LENGTH_BYTES).await?;
    let header_length = u64::from_le_bytes(prefix.try_into().unwrap_or_default());
    if header_length > MAX_HEADER_BYTES {
        let reason = format!(
            "its first eight bytes announce a header of {header_length} bytes, more than the format's {MAX_HEADER_BYTES}"
        );
        return Err(Error::Header { file: file.to_string(), format: "safetensors", reason });
    }
    let bytes = beginning.first(LENGTH_BYTES + header_length as usize).await?;
    let (tensors, metadata) = parse_header(&file, &bytes[LENGTH_BYTES..], bytes.len() as u64)?;
    let end = tensors.last().map_or(bytes.len() as u64, |tensor| tensor.range.end);
    Ok(Header { tensors, metadata, lengths: end..=end })
}

/// The JSON header as written: nothing checked but its form and that no name occurs twice.
struct RawHeader {
    metadata: Metadata,
    tensors: Vec<(String, RawTensor)>,
}

#[derive(Deserialize)]
struct RawTensor {
    dtype: String,
    shape: Sides,
    data_offsets: (u64, u64),
}

/// A shape, of no more sides than any tensor has.
struct Sides(Vec<u64>);

impl<'de> Deserialize<'de> for Sides {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Each;
        impl<'de> Visitor<'de> for Each {
            type Value = Sides;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a list of sides")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Sides, A::Error> {
                let mut sides = Vec::new();
                while let Some(side) = list.next_element()? {
                    if sides.len() == MAX_SIDES {
                        return Err(de::Error::custom(format_args!("a tensor has more than {MAX_SIDES} sides")));
                    }
                    sides.push(side);
                }
                Ok(Sides(sides))
            }
        }
        deserializer.deserialize_seq(Each)
    }
}

/// `__metadata__`: texts under names, or null, which some writers put there for none.
#[derive(Default)]
struct Metadata(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Metadata {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Texts;
        impl<'de> Visitor<'de> for Texts {
            type Value = Metadata;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object of texts as `__metadata__`")
            }

            fn visit_unit<E: de::Error>(self) -> Result<Metadata, E> {
                Ok(Metadata::default())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Metadata, A::Error> {
                let mut texts = BTreeMap::new();
                while let Some((key, text)) = map.next_entry()? {
                    if texts.len() == MAX_TENSORS {
                        return Err(de::Error::custom(format_args!(
                            "`__metadata__` has more than {MAX_TENSORS} entries"
                        )));
                    }
                    texts.insert(key, text);
                }
                Ok(Metadata(texts))
            }
        }
        deserializer.deserialize_any(Texts)
    }
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
                    if name.len() > MAX_NAME {
                        let message =
                            format_args!("a tensor's name has {} letters, at most {MAX_NAME} are read", name.len());
                        return Err(de::Error::custom(message));
                    }
                    if names.len() == MAX_TENSORS {
                        return Err(de::Error::custom(format_args!("it has more than {MAX_TENSORS} tensors")));
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
    let invalid = |reason: String| Error::Header { file: file.to_string(), format: "safetensors", reason };
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
    sort_by_key(&mut tensors, |tensor| (tensor.range.start, tensor.range.end));
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
    Ok((tensors, raw.metadata.0))
}

fn check_tensor(file: &Rc<str>, name: String, raw: RawTensor, data_start: u64) -> Result<TensorInfo, Error> {
    let invalid = |reason: String| Error::Tensor { file: file.to_string(), tensor: name.clone(), reason };
    let dtype = Encoding::from_safetensors(&raw.dtype).ok_or_else(|| {
        invalid(format!("dtype {:?} is not supported; store the tensor as F32, F16 or BF16", raw.dtype))
    })?;
    let (Sides(shape), (begin, end)) = (raw.shape, raw.data_offsets);
    let described = shape
        .iter()
        .try_fold(dtype.block().bytes as u64, |bytes, &side| bytes.checked_mul(side))
        .ok_or_else(|| invalid(format!("shape {shape:?} has more elements than any file can hold")))?;
    if end.checked_sub(begin) != Some(described) {
        return Err(invalid(format!(
            "shape {shape:?} of {dtype} takes {described} bytes, and data_offsets are [{begin}, {end}]"
        )));
    }
    let range = data_start.checked_add(begin).zip(data_start.checked_add(end));
    let (start, end) =
        range.ok_or_else(|| invalid(format!("data_offsets [{begin}, {end}] lie beyond any file's end")))?;
    let sides = shape.iter().map(|&side| usize::try_from(side)).collect::<Result<_, _>>();
    let shape = sides.map_err(|_| invalid(format!("shape {shape:?} is too large for this machine")))?;
    Ok(TensorInfo { file: file.clone(), name, dtype, shape, range: start..end })
}
