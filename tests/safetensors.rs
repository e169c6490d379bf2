//! The safetensors reader against the `safetensors` crate, and against files that nobody would write.

use crate::common::hostile::{FILE, Trickle, peak_of, read, read_bytes, refused_when_truncated, visit};
use pollster::block_on;
use proptest::prelude::*;
use safetensors::SafeTensors;
use safetensors::tensor::{TensorView, serialize};
use undiffuse::weights::{Encoding, Error, Gather, MemorySource, TensorFile, TensorInfo, read_small};

fn file(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

const TWO: &str = r#"{"__metadata__": {"format": "pt"}, "b": {"dtype": "F32", "shape": [2, 1], "data_offsets": [2, 10]},
    "none": {"dtype": "I64", "shape": [3, 0], "data_offsets": [2, 2]}, "a": {"dtype": "F16", "shape": [], "data_offsets": [0, 2]}} "#;
const DATA: [u8; 10] = [0, 0x3C, 1, 2, 3, 4, 5, 6, 7, 8];

fn two() -> crate::common::hostile::Tensors {
    vec![
        ("a".to_owned(), Encoding::F16, vec![], DATA[..2].to_vec()),
        ("none".to_owned(), Encoding::I64, vec![3, 0], vec![]),
        ("b".to_owned(), Encoding::F32, vec![2, 1], DATA[2..].to_vec()),
    ]
}

#[test]
fn tensors_come_in_file_order_whatever_the_chunks() {
    let bytes = file(TWO, &DATA);
    for chunk in 1..=bytes.len() {
        for announced in [None, Some(bytes.len() as u64)] {
            assert_eq!(
                read(&Trickle { bytes: bytes.clone().into(), chunk, announced }),
                Ok(two()),
                "chunks of {chunk}"
            );
        }
    }
    assert_eq!(read_bytes(&file("{}", &[])), Ok(vec![]));
}

#[test]
fn the_header_is_there_before_the_tensors_and_progress_counts_to_its_total() {
    let bytes = file(TWO, &DATA);
    let source = Trickle { bytes: bytes.clone().into(), chunk: 7, announced: None };
    let reader = block_on(TensorFile::open(&source, FILE)).unwrap();
    assert_eq!(reader.metadata()["format"], "pt");
    assert_eq!(reader.total_bytes(), bytes.len() as u64);
    let ranges: Vec<_> =
        reader.tensors().iter().map(|t| &bytes[t.range.start as usize..t.range.end as usize]).collect();
    assert_eq!(ranges, [&DATA[..2], &[], &DATA[2..]]);

    let (mut progress, mut seen) = (Vec::new(), Vec::new());
    let mut visit = Gather::new(|info: &TensorInfo, bytes: &[u8]| -> Result<(), Error> {
        seen.push((info.name.clone(), info.to_f32(bytes)?));
        Ok(())
    });
    let wanted = |info: &TensorInfo| info.name == "b";
    block_on(reader.stream(&mut |loaded| progress.push(loaded), &wanted, &mut visit)).unwrap();
    let floats = DATA[2..].chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    assert_eq!(seen, [("b".to_owned(), floats)]);
    assert!(progress.is_sorted());
    assert_eq!(progress.last(), Some(&(bytes.len() as u64)));
}

#[test]
fn an_error_of_the_visitor_ends_the_pass_and_names_file_and_tensor() {
    let mut source = MemorySource::new();
    source.insert(FILE, file(TWO, &DATA));
    let mut visited = 0;
    let result = visit(&source, |info, bytes| {
        visited += 1;
        info.to_f32(bytes).map(drop)
    });
    let message = result.unwrap_err().to_string();
    assert!(message.contains(FILE) && message.contains("\"none\"") && message.contains("I64"), "{message}");
    assert_eq!(visited, 2);
}

#[test]
fn a_file_truncated_anywhere_is_refused_with_its_name() {
    let bytes = file(TWO, &DATA);
    refused_when_truncated(&bytes, bytes.len());
    let message = read_bytes(&bytes[..bytes.len() - 1]).unwrap_err().to_string();
    assert!(message.contains("inside tensor \"b\""), "{message}");
}

#[test]
fn bytes_after_the_last_tensor_are_refused() {
    let bytes = file(TWO, &[&DATA[..], &[0]].concat());
    let refused = Err(Error::TrailingBytes { file: FILE.to_owned(), expected: bytes.len() as u64 - 1 });
    for chunk in [1, 7, bytes.len() - 1, bytes.len()] {
        for announced in [None, Some(bytes.len() as u64)] {
            assert_eq!(read(&Trickle { bytes: bytes.clone().into(), chunk, announced }), refused, "chunks of {chunk}");
        }
    }
}

#[test]
fn a_header_that_breaks_a_rule_is_refused_and_the_rule_is_named() {
    let tensor = |dtype: &str, shape: &str, offsets: &str| {
        format!(r#"{{"dtype": "{dtype}", "shape": {shape}, "data_offsets": {offsets}}}"#)
    };
    let one = |dtype: &str, shape: &str, offsets: &str| format!(r#"{{"w": {}}}"#, tensor(dtype, shape, offsets));
    let pair = |first: &str, second: &str| {
        format!(r#"{{"w": {}, "v": {}}}"#, tensor("U8", "[4]", first), tensor("U8", "[4]", second))
    };
    let twice = format!(r#"{{"w": {0}, "w": {0}}}"#, tensor("U8", "[4]", "[0, 4]"));
    let cases = [
        ("".to_owned(), "does not start with a brace"),
        (" {}".to_owned(), "does not start with a brace"),
        ("[]".to_owned(), "does not start with a brace"),
        ("{} x".to_owned(), "trailing characters"),
        ("{\"w\"".to_owned(), "cannot be read"),
        ("{\"\u{0}\": 1}".to_owned(), "cannot be read"),
        (r#"{"w": {"dtype": "U8", "shape": [4]}}"#.to_owned(), "missing field `data_offsets`"),
        (r#"{"__metadata__": {"a": 1}}"#.to_owned(), "invalid type"),
        (r#"{"__metadata__": {"a": null}}"#.to_owned(), "invalid type: null"),
        (r#"{"__metadata__": []}"#.to_owned(), "expected an object of texts as `__metadata__`"),
        (r#"{"__metadata__": null, "__metadata__": null}"#.to_owned(), "duplicate field"),
        (one("U8", "[1,1,1,1,1,1,1,1,4]", "[0, 4]"), "a tensor has more than 8 sides"),
        (format!(r#"{{"{}": 1}}"#, "w".repeat(1025)), "a tensor's name has 1025 letters"),
        (one("F8_E8M0", "[4]", "[0, 4]"), "dtype \"F8_E8M0\" is not supported; store the tensor as F32"),
        (one("F8_E4M3FNUZ", "[4]", "[0, 4]"), "dtype \"F8_E4M3FNUZ\" is not supported"),
        (one("C64", "[1]", "[0, 8]"), "dtype \"C64\" is not supported"),
        (r#"{"__metadata__": {}, "__metadata__": {}}"#.to_owned(), "duplicate field"),
        (twice, "\"w\" is there twice"),
        (one("F4", "[4]", "[0, 2]"), "dtype \"F4\" is not supported"),
        (one("U8", "[-4]", "[0, 4]"), "cannot be read"),
        (one("U8", "[4.0]", "[0, 4]"), "cannot be read"),
        (one("U8", "[4]", "[4, 0]"), "takes 4 bytes"),
        (one("F32", "[4]", "[0, 4]"), "takes 16 bytes"),
        (one("U8", "[4]", "[1, 5]"), "leave a hole after those of the header"),
        (one("F32", "[4294967296, 4294967296]", "[0, 4]"), "more elements than any file"),
        (one("U8", "[4]", "[18446744073709551611, 18446744073709551615]"), "beyond any file's end"),
        (pair("[0, 4]", "[5, 9]"), "\"v\": its bytes leave a hole after those of tensor \"w\""),
        (pair("[0, 4]", "[3, 7]"), "\"v\": its bytes overlap those of tensor \"w\""),
        (pair("[0, 4]", "[0, 4]"), "overlap"),
    ];
    for (header, rule) in cases {
        let message = read_bytes(&file(&header, &[0; 4])).unwrap_err().to_string();
        assert!(message.starts_with(FILE) && message.contains(rule), "{header}\n{message:?} should say {rule:?}");
    }
    let long = [&100_000_001u64.to_le_bytes()[..], b"{}"].concat();
    assert!(read_bytes(&long).unwrap_err().to_string().contains("100000001 bytes"));
}

#[test]
fn metadata_that_is_null_is_none() {
    let tensors = r#""w": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}"#;
    for header in [format!(r#"{{"__metadata__": null, {tensors}}}"#), format!(r#"{{{tensors}, "__metadata__": null}}"#)]
    {
        let bytes = file(&header, &[7]);
        assert_eq!(read_bytes(&bytes), Ok(vec![("w".to_owned(), Encoding::U8, vec![1], vec![7])]));
        assert!(SafeTensors::deserialize(&bytes).is_ok(), "the crate reads it");
    }
}

#[test]
fn more_tensors_than_any_checkpoint_has_are_refused() {
    let entry = |index: usize| format!(r#""{index}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#);
    let many = |count: usize| file(&format!("{{{}}}", (0..count).map(entry).collect::<Vec<_>>().join(",")), &[]);
    assert_eq!(read_bytes(&many(1 << 16)).map(|tensors| tensors.len()), Ok(1 << 16));
    let message = read_bytes(&many((1 << 16) + 1)).unwrap_err().to_string();
    assert!(message.contains("it has more than 65536 tensors"), "{message}");
    let texts = (0..=1 << 16).map(|index| format!(r#""{index}":"""#)).collect::<Vec<_>>().join(",");
    let message = read_bytes(&file(&format!(r#"{{"__metadata__":{{{texts}}}}}"#), &[])).unwrap_err().to_string();
    assert!(message.contains("`__metadata__` has more than 65536 entries"), "{message}");
}

#[test]
fn what_lies_in_a_files_place_is_named_with_what_to_do() {
    let refusal = |path: &str, bytes: &[u8]| {
        let mut source = MemorySource::new();
        source.insert(path, bytes);
        block_on(TensorFile::open(&source, path)).map(drop).unwrap_err().to_string()
    };
    let pointer =
        format!("version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 3438167540\n", "ab".repeat(32));
    let cases: &[(&[u8], &str)] = &[
        (pointer.as_bytes(), "this is a Git LFS pointer, which stands for the file; run `git lfs pull`"),
        (b"\n <!DOCTYPE HTML>\n<title>Sign in</title>", "this is a web page in place of the file"),
        (b"\xEF\xBB\xBF<html lang=en>", "this is a web page in place of the file"),
        (b"<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code>", "answered in place of the file: \"<?xml version"),
        (b"<Error><Code>NoSuchKey</Code></Error>", "answered in place of the file: \"<Error><Code>NoSuchKey"),
        (b"{\"error\":\"Unauthorized\"}", "answered in place of the file: \"{\\\"error\\\":\\\"Unauthorized"),
        (b"{\n  \"message\": \"Not Found\"}", "answered in place of the file"),
        (b"{\"weight_map\": {}}", "this is a text in place of tensors: \"{\\\"weight_map"),
        (b"Entry not found", "this is a text in place of tensors: \"Entry not found\"; download the file itself"),
        (
            b"PK\x03\x04\0\0\x08\x08\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x0A\0\x18\0a/data.pkl",
            "this is a PyTorch pickle",
        ),
        (b"\x80\x04\x95\xA0\0\0\0\0\0\0\0}\x94\x8C\x01a", "this is a PyTorch pickle"),
        (
            b"PK\x03\x04\x14\0\0\0\x08\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x09\0\0\0model.txt...",
            "this is an archive; unpack it",
        ),
        // With a time of zero, its first eight bytes are a length that is possible.
        (b"\x1F\x8B\x08\0\0\0\0\0\0\x03\xAB", "this is an archive; unpack it"),
        (b"%PDF-1.7\n...", "this is a PDF"),
        (b"\x89PNG\r\n\x1A\n\0\0", "this is a picture"),
        (b"\x89HDF\r\n\x1A\n\0\0", "this is an HDF5 file"),
        (b"tjgg\x03\0\0\0\0\0", "this is a file of ggml from before GGUF"),
        (&[0; 4096], "this is a file that begins with zeros: it was not downloaded to its end"),
        (b"", "the file is empty; download it again"),
    ];
    for &(bytes, found) in cases {
        let message = refusal("unet/w.safetensors", bytes);
        assert!(
            message.starts_with("unet/w.safetensors: ") && message.contains(found),
            "{message:?} should say {found:?}"
        );
        assert!(refusal("w.gguf", bytes).contains(found), "a name tells nothing");
    }
    let noise = [0xC3, 0x28, 0xF0, 0x11, 0x90, 0x07, 0xA5, 0xEE, 0x31, 0x02];
    assert!(refusal("w.safetensors", &noise).contains("not a valid safetensors file"));
    let message = refusal("w.gguf", &noise);
    assert_eq!(message, "w.gguf: not a valid GGUF file: it does not begin with these letters; download it again");

    let mut source = MemorySource::new();
    source.insert("config.json", pointer.as_bytes());
    let message = block_on(read_small(&source, "config.json", 1 << 10)).unwrap_err().to_string();
    assert!(message.starts_with("config.json: this is a Git LFS pointer"), "{message}");
    for honest in ["{\"vocab_size\": 3}", "#version: 0.2\nt h\n", "{\"!\": 0}"] {
        source.insert("config.json", honest);
        assert_eq!(block_on(read_small(&source, "config.json", 1 << 10)), Ok(honest.as_bytes().to_vec()));
    }
}

/// Error messages, the JSON parser's buffers, a future or two.
const CONSTANT: isize = 16 << 10;

#[test]
fn a_file_that_claims_gigabytes_gets_no_memory_for_them() {
    let header =
        |bytes: u64| format!(r#"{{"w": {{"dtype": "U8", "shape": [{bytes}], "data_offsets": [0, {bytes}]}}}}"#);
    let claims = [
        [&99_999_999u64.to_le_bytes()[..], b"{"].concat(),
        file(&header(1 << 40), &[0; 100]),
        file(&header(u64::MAX / 4), &[0; 100]),
    ];
    for bytes in claims {
        for announced in [None, Some(1 << 50)] {
            let source = Trickle { bytes: bytes.clone().into(), chunk: 10, announced };
            let peak = peak_of(|| assert!(read(&source).is_err()));
            assert!(peak < CONSTANT, "{peak} bytes for a file of {}", source.bytes.len());
        }
    }
}

#[test]
fn one_pass_holds_one_wanted_tensor_and_passes_over_the_others() {
    const SIDE: usize = 1 << 20;
    const CHUNK: usize = 10_000;
    let entry = |name: &str, index: usize| {
        format!(
            r#""{name}": {{"dtype": "U8", "shape": [{SIDE}], "data_offsets": [{}, {}]}}"#,
            index * SIDE,
            (index + 1) * SIDE
        )
    };
    let header = format!("{{{}, {}, {}}}", entry("a", 0), entry("b", 1), entry("c", 2));
    let source = Trickle { bytes: file(&header, &vec![7; 3 * SIDE]).into(), chunk: CHUNK, announced: None };
    let peak = |wanted: &dyn Fn(&TensorInfo) -> bool| {
        peak_of(|| {
            let reader = block_on(TensorFile::open(&source, FILE)).unwrap();
            let mut visit = Gather::new(|_: &TensorInfo, bytes: &[u8]| -> Result<(), Error> {
                assert_eq!(bytes.len(), SIDE);
                Ok(())
            });
            block_on(reader.stream(&mut |_| {}, wanted, &mut visit)).unwrap();
        })
    };
    // While the buffer grows, the old one is still there. It grows for the first tensor and then stays.
    assert!(peak(&|_| true) < (2 * SIDE + 3 * CHUNK) as isize + CONSTANT);
    assert!(peak(&|_| false) < (3 * CHUNK) as isize + CONSTANT);
}

/// A valid file of tensors with the given dtypes, shapes and bytes, as the `safetensors` crate writes it.
fn written(tensors: &[(Encoding, Vec<usize>, Vec<u8>)]) -> Vec<u8> {
    let views = tensors.iter().enumerate().map(|(index, (dtype, shape, data))| {
        let dtype = match dtype {
            Encoding::F16 => safetensors::Dtype::F16,
            Encoding::F32 => safetensors::Dtype::F32,
            Encoding::I64 => safetensors::Dtype::I64,
            other => panic!("{other} is not generated"),
        };
        (format!("tensor.{index}"), TensorView::new(dtype, shape.clone(), data).unwrap())
    });
    serialize(views, None).unwrap()
}

fn tensors() -> impl Strategy<Value = Vec<(Encoding, Vec<usize>, Vec<u8>)>> {
    let dtype = prop::sample::select(vec![Encoding::F16, Encoding::F32, Encoding::I64]);
    let tensor = (dtype, prop::collection::vec(0usize..4, 0..4), any::<u8>()).prop_map(|(dtype, shape, seed)| {
        let length = dtype.bytes_of(shape.iter().product()).unwrap();
        (dtype, shape, (0..length).map(|i| (i as u8).wrapping_mul(31) ^ seed).collect())
    });
    prop::collection::vec(tensor, 0..6)
}

proptest! {
    #[test]
    fn what_the_crate_writes_is_read_back(tensors in tensors(), chunk in 1usize..200) {
        let bytes = written(&tensors);
        let read = read(&Trickle { bytes: bytes.into(), chunk, announced: None }).unwrap();
        prop_assert_eq!(read.len(), tensors.len());
        for (name, dtype, shape, bytes) in read {
            let index: usize = name.strip_prefix("tensor.").unwrap().parse().unwrap();
            prop_assert_eq!(&(dtype, shape, bytes), &tensors[index]);
        }
    }

    #[test]
    fn a_damaged_file_is_read_only_if_the_crate_reads_it_too(
        tensors in tensors(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = written(&tensors);
        for (index, byte) in damage {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        if let Ok(read) = read_bytes(&bytes) {
            let crates = SafeTensors::deserialize(&bytes).unwrap();
            prop_assert_eq!(read.len(), crates.len());
            for (name, _, shape, data) in read {
                let view = crates.tensor(&name).unwrap();
                prop_assert_eq!((view.shape(), view.data()), (&shape[..], &data[..]));
            }
        }
    }

    #[test]
    fn arbitrary_bytes_take_no_more_memory_than_they_bring(
        header in prop_oneof![prop::collection::vec(any::<u8>(), 0..300), "[{}\\[\\],:\"a0-9]{0,300}".prop_map(String::into_bytes)],
        honest in any::<bool>(),
    ) {
        let length = if honest { header.len() as u64 } else { u64::from_le_bytes([9, 0, 1, 0, 0, 0, 0, 0]) };
        let bytes = [&length.to_le_bytes()[..], &header].concat();
        let peak = peak_of(|| drop(read_bytes(&bytes)));
        prop_assert!(peak < CONSTANT + 20 * bytes.len() as isize, "{} bytes", peak);
    }
}
