//! The GGUF reader and writer against files made byte by byte, and against files that nobody would write.

use std::io::Cursor;

use crate::common::hostile::{FILE, Tensors, Trickle, peak_of, read, read_bytes, refused_when_truncated};
use pollster::block_on;
use proptest::prelude::*;
use undiffuse::weights::gguf::{Entry, Writer};
use undiffuse::weights::{Encoding, Error, TensorFile};

/// Error messages, a future or two.
const CONSTANT: isize = 16 << 10;

const U32: u32 = 4;
const I32: u32 = 5;
const STRING: u32 = 8;
const ARRAY: u32 = 9;

const F32_TYPE: u32 = 0;
const F16_TYPE: u32 = 1;
const Q8_0_TYPE: u32 = 8;

fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

fn entry(key: &str, kind: u32, value: &[u8]) -> Vec<u8> {
    [&string(key)[..], &kind.to_le_bytes(), value].concat()
}

fn array(kind: u32, count: u64, values: &[u8]) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &count.to_le_bytes(), values].concat()
}

/// Sides are given as the format has them, fastest first.
fn tensor(name: &str, sides: &[u64], kind: u32, offset: u64) -> Vec<u8> {
    let sides_bytes: Vec<u8> = sides.iter().flat_map(|side| side.to_le_bytes()).collect();
    let count = (sides.len() as u32).to_le_bytes();
    [&string(name)[..], &count, &sides_bytes, &kind.to_le_bytes(), &offset.to_le_bytes()].concat()
}

/// A file with counts of its own.
fn counted(version: u32, counts: [u64; 2], entries: &[Vec<u8>], tensors: &[Vec<u8>]) -> Vec<u8> {
    let counts = counts.map(u64::to_le_bytes).concat();
    [&b"GGUF"[..], &version.to_le_bytes(), &counts, &entries.concat(), &tensors.concat()].concat()
}

fn file(entries: &[Vec<u8>], tensors: &[Vec<u8>], alignment: usize, data: &[u8]) -> Vec<u8> {
    let mut bytes = counted(3, [tensors.len() as u64, entries.len() as u64], entries, tensors);
    bytes.resize(bytes.len().next_multiple_of(alignment), 0);
    bytes.extend(data);
    bytes
}

/// Three tensors, not described in the order in which they lie, padded to 64; entries of every kind before them.
fn three() -> Vec<u8> {
    let entries = [
        entry("general.architecture", STRING, &string("diffusers")),
        entry("a.byte", 0, &[1]),
        entry("a.short", 3, &[1, 2]),
        entry("a.float", 6, &[0; 4]),
        entry("a.flag", 7, &[1]),
        entry("a.double", 12, &[0; 8]),
        entry("some.words", ARRAY, &array(STRING, 2, &[string("one"), string("")].concat())),
        entry("some.numbers", ARRAY, &array(I32, 3, &[7; 12])),
        entry("general.alignment", U32, &64u32.to_le_bytes()),
    ];
    let tensors = [
        tensor("blocks", &[32, 1], Q8_0_TYPE, 128),
        tensor("matrix", &[3, 2], F16_TYPE, 0),
        tensor("nothing", &[4, 0], F32_TYPE, 64),
        tensor("scalar", &[], F32_TYPE, 64),
    ];
    let mut data = vec![0; 192];
    data[..12].copy_from_slice(&[1; 12]);
    data[64..68].copy_from_slice(&[2; 4]);
    data[128..162].copy_from_slice(&[3; 34]);
    file(&entries, &tensors, 64, &data)
}

fn tensors_of_three() -> Tensors {
    vec![
        ("matrix".to_owned(), Encoding::F16, vec![2, 3], vec![1; 12]),
        ("nothing".to_owned(), Encoding::F32, vec![0, 4], vec![]),
        ("scalar".to_owned(), Encoding::F32, vec![], vec![2; 4]),
        ("blocks".to_owned(), Encoding::Q8_0, vec![1, 32], vec![3; 34]),
    ]
}

#[test]
fn tensors_come_in_file_order_whatever_the_chunks() {
    let bytes = three();
    // The last 30 bytes are padding, which not every program writes.
    for length in [bytes.len(), bytes.len() - 30, bytes.len() - 11] {
        for chunk in 1..=length {
            for announced in [None, Some(length as u64)] {
                let source = Trickle { bytes: bytes[..length].into(), chunk, announced };
                assert_eq!(read(&source), Ok(tensors_of_three()), "{length} bytes in chunks of {chunk}");
            }
        }
    }
    assert_eq!(read_bytes(&file(&[], &[], 32, &[])), Ok(vec![]));
    assert_eq!(read_bytes(&counted(2, [0, 0], &[], &[])), Ok(vec![]), "version 2, and no padding");
}

#[test]
fn entries_that_are_text_are_kept() {
    let file = block_on(TensorFile::open(&Trickle { bytes: three().into(), chunk: 7, announced: None }, FILE)).unwrap();
    let kept: Vec<_> = file.metadata().iter().map(|(key, text)| (key.as_str(), text.as_str())).collect();
    assert_eq!(kept, [("general.architecture", "diffusers")]);
    assert_eq!(file.total_bytes() as usize, three().len() - 30);
}

#[test]
fn a_file_truncated_anywhere_is_refused_with_its_name() {
    let bytes = three();
    refused_when_truncated(&bytes, bytes.len() - 30);
    let message = read_bytes(&bytes[..bytes.len() - 31]).unwrap_err().to_string();
    assert!(message.contains("inside tensor \"blocks\""), "{message}");
}

#[test]
fn bytes_after_the_padding_are_refused() {
    let bytes = [&three()[..], &[0]].concat();
    let refused = Err(Error::TrailingBytes { file: FILE.to_owned(), expected: bytes.len() as u64 - 1 });
    for announced in [None, Some(bytes.len() as u64)] {
        assert_eq!(read(&Trickle { bytes: bytes.clone().into(), chunk: 50, announced }), refused);
    }
}

#[test]
fn a_shape_that_was_stored_in_rows_of_256_is_restored() {
    let shape: Vec<u8> = [8i32, 8, 2, 2].iter().flat_map(|side| side.to_le_bytes()).collect();
    let stored = |sides: &[u64]| {
        let entries = [entry("comfy.gguf.orig_shape.conv", ARRAY, &array(I32, 4, &shape))];
        file(&entries, &[tensor("conv", sides, Q8_0_TYPE, 0)], 32, &[5; 272])
    };
    let restored = vec![("conv".to_owned(), Encoding::Q8_0, vec![8, 8, 2, 2], vec![5; 272])];
    assert_eq!(read_bytes(&stored(&[256, 1])), Ok(restored));
    let message = read_bytes(&stored(&[256, 2])).unwrap_err().to_string();
    assert!(message.contains("[2, 256] cannot become the [8, 8, 2, 2] that the metadata gives"), "{message}");
}

#[test]
fn a_header_that_breaks_a_rule_is_refused_and_the_rule_is_named() {
    let w = |sides: &[u64], kind, offset| vec![tensor("w", sides, kind, offset)];
    let with_entry = |entry: Vec<u8>| file(&[entry], &[], 32, &[]);
    let with = |tensors: Vec<Vec<u8>>| file(&[], &tensors, 32, &[0; 96]);
    let pair = |offset| with(vec![tensor("w", &[16], F32_TYPE, 0), tensor("v", &[8], F32_TYPE, offset)]);
    let alignment = |kind, bytes: &[u8]| with_entry(entry("general.alignment", kind, bytes));
    let cases = [
        (counted(1, [0, 0], &[], &[]), "version 1, and versions 2 and 3 are read"),
        (counted(3u32.swap_bytes(), [0, 0], &[], &[]), "version 3 in big endian"),
        (counted(3, [0, 1], &[string("\u{e9}")], &[]).replace(0xC3, b'x'), "not UTF-8"),
        (with_entry(entry("a", 13, &[])), "\"a\" is of type 13, which the format does not have"),
        (with_entry(entry("a", ARRAY, &array(ARRAY, 1, &array(0, 0, &[])))), "\"a\" is an array of arrays"),
        (with_entry(entry("a", ARRAY, &array(77, 1, &[]))), "\"a\" is of type 77"),
        (file(&[entry("a", 0, &[0]), entry("a", 0, &[0])], &[], 32, &[]), "\"a\" is there twice"),
        (with_entry(entry("a", STRING, &u64::MAX.to_le_bytes())), "longer than 100000000 bytes"),
        (with_entry(entry("a", ARRAY, &array(12, u64::MAX, &[]))), "longer than 100000000 bytes"),
        (alignment(U32, &[0; 4]), "`general.alignment` is no u32 that is a power of two"),
        (alignment(U32, &[24, 0, 0, 0]), "`general.alignment` is no u32 that is a power of two"),
        (alignment(U32, &[0, 0, 0, 128]), "`general.alignment` is no u32 that is a power of two up to 65536"),
        (alignment(10, &[32, 0, 0, 0, 0, 0, 0, 0]), "`general.alignment` is no u32"),
        (with(w(&[1, 1, 1, 1, 8], F32_TYPE, 0)), "\"w\" has 5 sides"),
        (with(w(&[256], 23, 0)), "stored as IQ4_XS, which is not supported"),
        (with(w(&[256], 39, 0)), "stored as MXFP4, which is not supported"),
        (with(vec![tensor(&"w".repeat(1025), &[8], F32_TYPE, 0)]), "a tensor's name has 1025 letters"),
        (counted(3, [1 << 40, 0], &[], &[]), "announces 1099511627776 tensors, and at most 65536 are read"),
        (counted(3, [0, 1 << 63], &[], &[]), "announces 9223372036854775808 entries of metadata"),
        (with(w(&[256], 1000, 0)), "stored as ggml's type 1000, which is not supported"),
        (with(w(&[48], Q8_0_TYPE, 0)), "the rows of shape [48] are no whole blocks of Q8_0"),
        (with(w(&[16, 2], Q8_0_TYPE, 0)), "the rows of shape [2, 16] are no whole blocks of Q8_0"),
        (with(w(&[], Q8_0_TYPE, 0)), "are no whole blocks of Q8_0"),
        (with(w(&[1 << 32, 1 << 32], F32_TYPE, 0)), "more elements than any file"),
        (with(w(&[1 << 62], F32_TYPE, 0)), "beyond any file's end"),
        (with(w(&[8], F32_TYPE, u64::MAX - 40)), "beyond any file's end"),
        (with(w(&[8], F32_TYPE, 32)), "\"w\": its bytes leave a hole after"),
        (with(w(&[8], F32_TYPE, 1)), "\"w\": its bytes leave a hole after"),
        (pair(96), "\"v\": its bytes leave a hole after"),
        (pair(32), "\"v\": its bytes overlap"),
        (pair(0), "overlap"),
        (with(vec![tensor("w", &[8], F32_TYPE, 0), tensor("w", &[8], F32_TYPE, 32)]), "\"w\" is there twice"),
    ];
    for (index, (bytes, rule)) in cases.into_iter().enumerate() {
        let message = read_bytes(&bytes).unwrap_err().to_string();
        assert!(message.starts_with(FILE) && message.contains(rule), "case {index}: {message:?} should say {rule:?}");
    }
}

/// One byte replaced by another wherever it is.
trait Replace {
    fn replace(self, from: u8, to: u8) -> Self;
}

impl Replace for Vec<u8> {
    fn replace(mut self, from: u8, to: u8) -> Self {
        self.iter_mut().filter(|byte| **byte == from).for_each(|byte| *byte = to);
        self
    }
}

#[test]
fn a_file_that_claims_gigabytes_gets_no_memory_for_them() {
    let claims = [
        counted(3, [u64::MAX, 0], &[], &[]),
        counted(3, [0, u64::MAX], &[], &[]),
        counted(3, [0, 1], &[entry("a", STRING, &99_999_000u64.to_le_bytes())], &[]),
        counted(3, [0, 1], &[entry("a", ARRAY, &array(STRING, u64::MAX, &string("x")))], &[]),
        counted(3, [0, 1], &[entry("a", ARRAY, &array(10, 12_000_000, &[]))], &[]),
        file(&[], &[tensor("w", &[1 << 40], F32_TYPE, 0)], 32, &[0; 100]),
    ];
    for bytes in claims {
        for announced in [None, Some(1 << 50)] {
            let source = Trickle { bytes: bytes.clone().into(), chunk: 10, announced };
            let peak = peak_of(|| assert!(read(&source).is_err()));
            assert!(peak < CONSTANT, "{peak} bytes for a file of {}", source.bytes.len());
        }
    }
}

fn writer(tensors: &[(&str, &[usize])]) -> Writer<Cursor<Vec<u8>>> {
    let tensors = tensors.iter().map(|(name, shape)| ((*name).to_owned(), shape.to_vec())).collect();
    Writer::new(Cursor::default(), vec![], tensors).unwrap()
}

#[test]
fn a_writer_refuses_what_no_reader_could_read() {
    let five = vec![("w".to_owned(), vec![1; 5])];
    let message = Writer::new(Cursor::new(vec![]), vec![], five).unwrap_err().to_string();
    assert_eq!(message, "tensor \"w\" has 5 sides, and GGUF has at most 4");

    let refused =
        |shape: &[usize], dtype, bytes: &[u8]| writer(&[("w", shape)]).tensor(dtype, bytes).unwrap_err().to_string();
    assert_eq!(refused(&[2], Encoding::Bool, &[0; 2]), "tensor \"w\" of [2]: GGUF has no BOOL");
    assert_eq!(refused(&[2], Encoding::F16, &[0; 2]), "tensor \"w\" of [2]: 2 bytes are not its rows in F16");
    assert_eq!(
        refused(&[2, 16], Encoding::Q8_0, &[0; 34]),
        "tensor \"w\" of [2, 16]: 34 bytes are not its rows in Q8_0"
    );

    let mut one = writer(&[("w", &[1])]);
    one.tensor(Encoding::F32, &[0; 4]).unwrap();
    assert_eq!(one.tensor(Encoding::F32, &[0; 4]).unwrap_err().to_string(), "more tensors than announced");
    let message = writer(&[("w", &[1])]).finish().unwrap_err().to_string();
    assert_eq!(message, "tensor \"w\" was announced and not written");
}

fn tensors() -> impl Strategy<Value = Tensors> {
    let dtype = prop::sample::select(vec![
        Encoding::F16,
        Encoding::F32,
        Encoding::I64,
        Encoding::Q8_0,
        Encoding::Q4_1,
        Encoding::Q6_K,
    ]);
    let tensor = (dtype, prop::collection::vec(0usize..4, 0..4), any::<u8>()).prop_map(|(dtype, mut shape, seed)| {
        match shape.last_mut() {
            Some(row) => *row *= dtype.block().elements,
            None => shape.push(dtype.block().elements),
        }
        let length = dtype.bytes_of(shape.iter().product()).unwrap();
        (dtype, shape, (0..length).map(|i| (i as u8).wrapping_mul(31) ^ seed).collect())
    });
    prop::collection::vec(tensor, 0..6).prop_map(|tensors| {
        let named = |(index, (dtype, shape, bytes))| (format!("tensor.{index}"), dtype, shape, bytes);
        tensors.into_iter().enumerate().map(named).collect()
    })
}

fn written(tensors: &Tensors) -> Vec<u8> {
    let metadata = vec![
        ("general.architecture".to_owned(), Entry::Text("a".to_owned())),
        ("general.file_type".to_owned(), Entry::U32(7)),
    ];
    let announced = tensors.iter().map(|(name, _, shape, _)| (name.clone(), shape.clone())).collect();
    let mut writer = Writer::new(Cursor::new(vec![]), metadata, announced).unwrap();
    for (_, dtype, _, bytes) in tensors {
        writer.tensor(*dtype, bytes).unwrap();
    }
    let (out, length) = writer.finish().unwrap();
    assert_eq!(out.get_ref().len() as u64, length);
    out.into_inner()
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(tensors in tensors(), chunk in 1usize..200) {
        let bytes = written(&tensors);
        let mut read = read(&Trickle { bytes: bytes.into(), chunk, announced: None }).unwrap();
        // Empty tensors lie where the next one does, in any order.
        read.sort_by(|a, b| a.0.cmp(&b.0));
        prop_assert_eq!(read, tensors);
    }

    #[test]
    fn a_damaged_file_is_refused_or_all_of_it_is_accounted_for(
        tensors in tensors(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = written(&tensors);
        for (index, byte) in damage {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        let mut result = Ok(vec![]);
        let peak = peak_of(|| result = read_bytes(&bytes));
        prop_assert!(peak < CONSTANT + 20 * bytes.len() as isize, "{} bytes", peak);
        for (name, dtype, shape, data) in result.unwrap_or_default() {
            prop_assert_eq!(dtype.bytes_of(shape.iter().product()), Some(data.len()), "{}", name);
            prop_assert!(data.is_empty() || bytes.windows(data.len()).any(|window| window == data));
        }
    }

    #[test]
    fn arbitrary_bytes_take_no_more_memory_than_they_bring(
        counts in [0u64..3, 0u64..3],
        rest in prop::collection::vec(prop_oneof![4 => 0u8..4, 1 => any::<u8>()], 0..300),
    ) {
        let bytes = [counted(3, counts, &[], &[]), rest].concat();
        let peak = peak_of(|| drop(read_bytes(&bytes)));
        prop_assert!(peak < CONSTANT + 20 * bytes.len() as isize, "{} bytes", peak);
    }
}
