//! Quantised weights: blocks against ggml's Python package, bit for bit.
#![cfg(not(target_arch = "wasm32"))]

mod common;

use std::collections::BTreeMap;

use common::{Tally, reference};
use safetensors::SafeTensors;
use undiffuse::weights::Dtype;

/// The tensors of a file of the reference, as bytes.
fn bytes_of(file: &str) -> BTreeMap<String, Vec<u8>> {
    let path = reference("quant").join(file);
    let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let tensors = SafeTensors::deserialize(&bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    tensors.iter().map(|(name, view)| (name.to_owned(), view.data().to_vec())).collect()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

/// Both are the same number, the same zero, or both NaN.
fn same(actual: &[f32], expected: &[f32]) -> Result<f64, String> {
    if actual.len() != expected.len() {
        return Err(format!("{} elements, expected {}", actual.len(), expected.len()));
    }
    let differs = |(a, b): (&f32, &f32)| a.to_bits() != b.to_bits() && !(a.is_nan() && b.is_nan());
    match actual.iter().zip(expected).position(differs) {
        Some(e) => Err(format!("element {e} is {:?}, expected {:?}", actual[e], expected[e])),
        None => Ok(0.0),
    }
}

#[test]
fn blocks_of_the_reference_are_written_and_read_bit_for_bit() {
    let mut tally = Tally::default();
    let tensors = bytes_of("blocks.safetensors");
    for (name, expected) in &tensors {
        let [tensor, dtype, "bytes"] = name.split('/').collect::<Vec<_>>()[..] else { continue };
        let Some(dtype) = Dtype::from_name(dtype) else {
            tally.fail(format!("{name}: there is no such dtype"));
            continue;
        };
        let values = floats(&tensors[&format!("{tensor}/f32")]);
        let written = dtype.encode(&values).unwrap_or_default();
        let differs = written.iter().zip(expected).position(|(a, b)| a != b);
        tally.check(
            &format!("{name} written"),
            match (written.len() == expected.len(), differs) {
                (true, None) => Ok(0.0),
                (true, Some(at)) => Err(format!("byte {at} is {}, expected {}", written[at], expected[at])),
                (false, _) => Err(format!("{} bytes, expected {}", written.len(), expected.len())),
            },
        );
        let read = dtype.to_f32(expected).unwrap_or_default();
        tally.check(
            &format!("{name} read"),
            same(&read, &floats(&tensors[&format!("{tensor}/{}/dequant", dtype.name())])),
        );
    }
    tally.finish("tensors in blocks");
}

#[test]
fn formats_that_are_only_read_agree_bit_for_bit() {
    let mut tally = Tally::default();
    let tensors = bytes_of("kquants_dequant_only.safetensors");
    for (name, bytes) in &tensors {
        let Some(dtype) = name.strip_suffix("/bytes") else { continue };
        let read = Dtype::from_name(dtype).and_then(|dtype| dtype.to_f32(bytes)).unwrap_or_default();
        tally.check(dtype, same(&read, &floats(&tensors[&format!("{dtype}/dequant")])));
    }
    tally.finish("formats of blocks that are only read");
}
