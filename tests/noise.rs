//! The random streams against PyTorch's own draws: every tensor of `rng/torch_cpu.safetensors`, whatever it holds, and of
//! `rng/torch_cuda_philox_algorithm.safetensors`.

use std::{collections::BTreeMap, env, fs, path::PathBuf};

use half::{bf16, f16};
use safetensors::{SafeTensors, tensor::TensorView};
use undiffuse::noise::{Generator, Stream, TorchCpu, TorchCuda};

fn reference() -> PathBuf {
    env::var_os("UNDIFFUSE_REFERENCE").map_or_else(|| "tests/reference".into(), PathBuf::from)
}

/// One recorded call of `torch.rand` or `torch.randn`.
struct Draw<'a> {
    key: &'a str,
    kind: &'a str,
    dtype: &'a str,
    expected: TensorView<'a>,
}

impl Draw<'_> {
    /// Repeats the call on `stream`, and fails on the element that is furthest off.
    fn check(&self, stream: &mut TorchCpu) {
        let n = self.expected.shape().iter().product();
        let bytes = self.expected.data();
        let expected: Vec<f64>;
        let got: Vec<f64>;
        // Uniforms are exact; normals within what torch's own builds differ by.
        let tolerance: fn(f64) -> f64;
        match self.dtype {
            "f32" => {
                expected = bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()).into()).collect();
                let draw = if self.kind == "rand" { stream.rand(n) } else { stream.randn(n) };
                got = draw.into_iter().map(f64::from).collect();
                tolerance = |_| 5e-6;
            }
            "f64" => {
                expected = bytes.chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect();
                got = if self.kind == "rand" { stream.rand_f64(n) } else { stream.randn_f64(n) };
                tolerance = |_| 1e-13;
            }
            "f16" => {
                expected = bytes.chunks_exact(2).map(|b| f16::from_le_bytes(b.try_into().unwrap()).into()).collect();
                let draw = if self.kind == "rand" { stream.rand_f16(n) } else { stream.randn_f16(n) };
                got = draw.into_iter().map(f64::from).collect();
                tolerance = |x| unit_in_the_last_place(x, 11, -14);
            }
            "bf16" => {
                expected = bytes.chunks_exact(2).map(|b| bf16::from_le_bytes(b.try_into().unwrap()).into()).collect();
                let draw = if self.kind == "rand" { stream.rand_bf16(n) } else { stream.randn_bf16(n) };
                got = draw.into_iter().map(f64::from).collect();
                tolerance = |x| unit_in_the_last_place(x, 8, -126);
            }
            other => panic!("{}: dtype {other} is not one that torch draws", self.key),
        }
        assert_eq!(got.len(), expected.len(), "{}", self.key);
        let excess = |i: usize| {
            let allowed = if self.kind == "rand" { 0.0 } else { tolerance(expected[i]) };
            (got[i] - expected[i]).abs() - allowed
        };
        let worst = (0..n).max_by(|&a, &b| excess(a).total_cmp(&excess(b))).expect("a draw has elements");
        assert!(excess(worst) <= 0.0, "{}: element {worst} is {}, torch has {}", self.key, got[worst], expected[worst]);
    }
}

fn unit_in_the_last_place(x: f64, digits: i32, smallest_exponent: i32) -> f64 {
    let exponent = x.abs().log2().floor().max(f64::from(smallest_exponent));
    (exponent - f64::from(digits - 1)).exp2()
}

fn seed(part: &str) -> u64 {
    part.strip_prefix("seed").and_then(|digits| digits.parse().ok()).unwrap_or_else(|| panic!("{part} names no seed"))
}

#[test]
fn every_recorded_draw_is_reproduced() {
    let path = reference().join("rng/torch_cpu.safetensors");
    let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let names = tensors.names();
    let mut single = 0;
    let mut sequences: BTreeMap<(&str, &str), BTreeMap<usize, Draw>> = BTreeMap::new();
    for &key in &names {
        let expected = tensors.tensor(key).unwrap();
        match key.split('/').collect::<Vec<_>>()[..] {
            [kind @ ("rand" | "randn"), dtype, seed_part, _shape] => {
                Draw { key, kind, dtype, expected }.check(&mut TorchCpu::new(seed(seed_part)));
                single += 1;
            }
            ["seq", name, seed_part, draw] => {
                let [index, kind, dtype] = draw.split('_').collect::<Vec<_>>()[..] else { panic!("{key}: no draw") };
                let draws = sequences.entry((name, seed_part)).or_default();
                draws.insert(index.parse().unwrap(), Draw { key, kind, dtype, expected });
            }
            _ => panic!("{key}: neither a single draw nor one of a sequence"),
        }
    }
    for ((_, seed_part), draws) in &sequences {
        let mut stream = TorchCpu::new(seed(seed_part));
        for (position, (index, draw)) in draws.iter().enumerate() {
            assert_eq!(position, *index, "{}: a draw before it is missing", draw.key);
            draw.check(&mut stream);
        }
    }
    println!("noise: {single} single draws and {} sequences ran, none skipped", sequences.len());
    assert!(single > 0 && !sequences.is_empty(), "{} holds no draws", path.display());
}

#[test]
fn only_the_low_32_bits_of_a_seed_count() {
    assert_eq!(TorchCpu::new((1 << 32) + 5).rand(9), TorchCpu::new(5).rand(9));
}

/// Consecutive draws from one stream, by the part of their keys that says which stream.
#[test]
fn every_draw_of_the_cuda_algorithm_is_reproduced() {
    let path = reference().join("rng/torch_cuda_philox_algorithm.safetensors");
    let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let (mut ran, mut furthest) = (0, 0.0f64);
    let mut names = tensors.names();
    names.sort();
    let mut streams: BTreeMap<String, TorchCuda> = BTreeMap::new();
    for key in names {
        let (stream, new) = match key.split('/').collect::<Vec<_>>()[..] {
            ["randn", seed_part, count, _draw] => (format!("{seed_part}/{count}"), TorchCuda::new(seed(seed_part))),
            // A GPU that holds no more than these; the seed is 5.
            ["small_gpu_512_threads", _draw] => ("small".to_owned(), TorchCuda::with_max_threads(5, 512)),
            _ => panic!("{key}: no draw of this algorithm"),
        };
        let expected = tensors.tensor(key).unwrap();
        let expected: Vec<f32> =
            expected.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        let got = streams.entry(stream).or_insert(new).randn(expected.len());
        let off = |i: usize| f64::from((got[i] - expected[i]).abs());
        let worst = (0..got.len()).max_by(|&a, &b| off(a).total_cmp(&off(b))).expect("a draw has elements");
        assert!(off(worst) <= 5e-6, "{key}: element {worst} is {}, expected {}", got[worst], expected[worst]);
        furthest = furthest.max(off(worst));
        ran += 1;
    }
    println!("noise of the CUDA algorithm: {ran} draws ran, none skipped; off by {furthest:e} at most");
    assert!(ran > 0, "{} holds no draws", path.display());
}

#[test]
fn a_generator_is_the_stream_that_it_names() {
    assert_eq!(Generator::new(Stream::default(), 7).randn(20), TorchCpu::new(7).randn(20));
    assert_eq!(Generator::new(Stream::TorchCuda, 7).randn(20), TorchCuda::new(7).randn(20));
    assert!(TorchCuda::new(7).randn(0).is_empty());
}
