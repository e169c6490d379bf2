//! Weights on the GPU against their twins on the CPU: every storage, however the bytes arrive, and with LoRAs merged in.

use half::f16;
use pollster::block_on;
use undiffuse::device::{Device, Program, WeightLoader, Weights};
use undiffuse::gpu;
use undiffuse::graph::{Builder, Conv2dOptions, Graph, WeightRole, WeightSpec};
use undiffuse::twin;
use undiffuse::weights::{Encoding, LowRank};

fn gpu() -> gpu::Device {
    let options = gpu::DeviceOptions::default();
    block_on(gpu::Device::request(options)).unwrap_or_else(|error| {
        panic!("{error}; these tests need a GPU or a software adapter: on Debian, apt-get install mesa-vulkan-drivers")
    })
}

/// Numbers from -1 to 1 in no order (splitmix64).
fn numbers(seed: u64, count: usize) -> Vec<f32> {
    let number = |index: u64| {
        let mut z = (seed << 32 | index).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count as u64).map(number).collect()
}

/// Bytes of `count` elements. Formats that nothing writes get any bytes that make finite numbers: their scales, wherever
/// they lie in a block, are no large f16, nor are two bytes of anything else.
fn bytes(dtype: Encoding, seed: u64, count: usize) -> Vec<u8> {
    let values = numbers(seed, count);
    match dtype {
        Encoding::F64 => values.iter().flat_map(|&v| f64::from(v).to_le_bytes()).collect(),
        _ => dtype.encode(&values).unwrap_or_else(|| {
            let length = dtype.bytes_of(count).expect("whole blocks");
            numbers(seed, length).iter().map(|v| ((v + 1.0) * 16.0) as u8).collect()
        }),
    }
}

/// A network of one linear layer, with the layer's bias if it has one.
fn linear(input: usize, output: usize, bias: bool) -> Graph {
    let builder = Builder::new();
    let root = builder.root();
    let x = root.input("x", &[3, input]).unwrap();
    root.output("y", root.at("layer").linear(x, output, bias).unwrap());
    builder.finish()
}

/// A network of one convolution.
fn convolution(input: usize, output: usize, kernel: usize) -> Graph {
    let builder = Builder::new();
    let root = builder.root();
    let x = root.input("x", &[1, 6, 5, input]).unwrap();
    root.output("y", root.at("layer").conv2d(x, Conv2dOptions::same(output, kernel)).unwrap());
    builder.finish()
}

fn load(device: &Device, graph: &Graph, dtype: Encoding, chunk: usize) -> Weights {
    let mut loader = WeightLoader::new(device, graph.weights()).unwrap();
    for (index, spec) in graph.weights().iter().enumerate() {
        let dtype = if spec.role == WeightRole::Vector && dtype.is_quantised() { Encoding::F16 } else { dtype };
        loader.begin(index, dtype).unwrap();
        for bytes in bytes(dtype, index as u64, spec.shape.iter().product()).chunks(chunk) {
            loader.chunk(bytes).unwrap();
        }
        loader.end().unwrap();
    }
    block_on(loader.finish()).unwrap()
}

fn run(device: &Device, graph: &Graph, weights: &Weights) -> Vec<f32> {
    let mut program = block_on(Program::compile(device, graph, &[weights])).unwrap();
    program.write("x", &numbers(99, program.input_length("x").unwrap())).unwrap();
    block_on(program.run()).unwrap();
    block_on(program.read_f32("y")).unwrap()
}

/// What the layer of `weights` is, seen through a program that gets one input at a time.
fn matrix(device: &Device, weights: &Weights, input: usize, output: usize) -> Vec<f32> {
    let builder = Builder::new();
    let root = builder.root();
    let x = root.input("x", &[input, input]).unwrap();
    root.output("y", root.at("layer").linear(x, output, false).unwrap());
    let mut program = block_on(Program::compile(device, &builder.finish(), &[weights])).unwrap();
    let one: Vec<f32> = (0..input * input).map(|i| f32::from(u8::from(i / input == i % input))).collect();
    program.write("x", &one).unwrap();
    block_on(program.run()).unwrap();
    let columns = block_on(program.read_f32("y")).unwrap();
    (0..output * input).map(|i| columns[i % input * output + i / input]).collect()
}

fn assert_close(got: &[f32], expected: &[f32], tolerance: f32, what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(0.0f32, |most, v| most.max(v.abs()));
    // total_cmp has NaN as the largest.
    let differences = got.iter().zip(expected).map(|(a, b)| (a - b).abs()).enumerate();
    let (at, difference) = differences.max_by(|a, b| a.1.total_cmp(&b.1)).expect("an element");
    assert!(difference <= tolerance * largest, "{what}: element {at} is off by {difference} of {largest}");
}

const PLAIN: [Encoding; 6] =
    [Encoding::F32, Encoding::F16, Encoding::BF16, Encoding::F64, Encoding::F8E4M3, Encoding::F8E5M2];
const KEPT: [Encoding; 5] = [Encoding::Q8_0, Encoding::Q4_0, Encoding::Q4_1, Encoding::Q5_0, Encoding::Q5_1];
const UNPACKED: [Encoding; 6] =
    [Encoding::Q2_K, Encoding::Q3_K, Encoding::Q4_K, Encoding::Q5_K, Encoding::Q6_K, Encoding::IQ4_NL];

#[test]
fn every_storage_computes_what_the_cpu_computes_however_its_bytes_arrive() {
    let device = Device::Gpu(gpu());
    let agree = |graph: &Graph, dtype: Encoding, tolerance: f32| {
        let expected = run(&Device::cpu(), graph, &load(&Device::cpu(), graph, dtype, usize::MAX));
        for chunk in [usize::MAX, 1000, 37, 1] {
            let got = run(&device, graph, &load(&device, graph, dtype, chunk));
            let spec = &graph.weights()[0].shape;
            assert_close(&got, &expected, tolerance, &format!("{spec:?} as {dtype} in chunks of {chunk}"));
            let on_cpu = run(&Device::cpu(), graph, &load(&Device::cpu(), graph, dtype, chunk));
            assert_eq!(on_cpu, expected, "{spec:?} as {dtype} in chunks of {chunk}, on the CPU");
        }
    };
    for dtype in PLAIN {
        for (input, output) in [(8, 12), (5, 7), (4, 1), (1, 6)] {
            agree(&linear(input, output, true), dtype, 1e-6);
            agree(&convolution(input, output, 3), dtype, 1e-6);
        }
        agree(&convolution(6, 5, 1), dtype, 1e-6);
    }
    for dtype in KEPT {
        for (input, output) in [(32, 4), (64, 10), (96, 1)] {
            agree(&linear(input, output, true), dtype, 1e-6);
            agree(&convolution(input, output, 1), dtype, 1e-6);
        }
        // Rows of nine taps are no whole blocks: the tensor as a whole is.
        agree(&convolution(8, 4, 3), dtype, 2e-3);
    }
    for dtype in UNPACKED {
        agree(&linear(256, 6, false), dtype, 2e-3);
    }
}

#[test]
fn a_matrix_larger_than_the_staging_buffer_comes_in_pieces() {
    let device = Device::Gpu(gpu());
    for (dtype, input, output) in
        [(Encoding::F32, 1100, 2051), (Encoding::F16, 1500, 3002), (Encoding::Q8_0, 2080, 4097)]
    {
        let graph = linear(input, output, false);
        let expected = run(&Device::cpu(), &graph, &load(&Device::cpu(), &graph, dtype, usize::MAX));
        let got = run(&device, &graph, &load(&device, &graph, dtype, 1 << 20));
        assert_close(&got, &expected, 1e-5, dtype.name());
    }
}

#[test]
fn quantised_weights_take_as_many_bytes_as_in_their_file_and_loading_leaves_nothing_else() {
    let gpu = gpu();
    for dtype in KEPT.into_iter().chain([Encoding::F16, Encoding::BF16, Encoding::F32]) {
        let graph = linear(64, 128, false);
        let weights = load(&Device::Gpu(gpu.clone()), &graph, dtype, 100);
        assert_eq!(weights.bytes(), dtype.bytes_of(64 * 128).unwrap() as u64, "{dtype}");
        assert_eq!(gpu.allocated_bytes(), weights.bytes(), "{dtype}");
    }
    assert_eq!(gpu.allocated_bytes(), 0);
}

#[test]
fn bytes_that_are_not_the_weights_are_refused_with_its_name() {
    for device in [Device::cpu(), Device::Gpu(gpu())] {
        let graph = linear(48, 2, true);
        let refused = |index: usize, dtype: Encoding, bytes: &[u8]| {
            let mut loader = WeightLoader::new(&device, graph.weights()).unwrap();
            loader.put(index, dtype, bytes).unwrap_err().to_string()
        };
        let cases = [
            (refused(0, Encoding::I8, &[0; 96]), "layer.weight", "I8 holds no weights"),
            (refused(0, Encoding::F16, &[0; 191]), "layer.weight", "1 bytes of it as F16 are missing"),
            (refused(0, Encoding::F16, &[0; 194]), "layer.weight", "more bytes came"),
            (refused(1, Encoding::F32, &[0; 9]), "layer.bias", "more bytes came"),
            (refused(1, Encoding::F32, &[0; 7]), "layer.bias", "1 bytes of it as F32 are missing"),
            (refused(0, Encoding::Q4_0, &[0; 17]), "layer.weight", "37 bytes of it as Q4_0 are missing"),
            (refused(1, Encoding::Q4_0, &[0; 18]), "layer.bias", "2 elements are no whole blocks of Q4_0"),
        ];
        for (message, name, reason) in cases {
            assert!(message.contains(name) && message.contains(reason), "{message:?} should say {name}, {reason}");
        }
        let mut loader = WeightLoader::new(&device, graph.weights()).unwrap();
        loader.put(0, Encoding::F16, &[0; 192]).unwrap();
        let message = block_on(loader.finish()).unwrap_err().to_string();
        assert!(message.contains("layer.bias"), "{message}");
    }
}

#[test]
fn numbers_that_f16_cannot_hold_are_refused_where_blocks_become_f16() {
    // A scale of 60000 times a quant of 127.
    let block: Vec<u8> = f16::from_f32(60000.0).to_le_bytes().into_iter().chain([127; 16]).collect();
    let graph = linear(32, 1, false);
    let mut loader = WeightLoader::new(&Device::Gpu(gpu()), graph.weights()).unwrap();
    let message = loader.put(0, Encoding::IQ4_NL, &block).unwrap_err().to_string();
    assert!(message.contains("layer.weight") && message.contains("beyond what f16 can hold"), "{message}");
}

/// An addition of rank `rank` to a weight.
fn addition(spec: &WeightSpec, rank: usize, seed: u64, scale: f32) -> LowRank {
    let (out, columns) = (spec.shape[0], spec.shape[1..].iter().product::<usize>());
    LowRank { up: numbers(seed, out * rank), down: numbers(seed + 1, rank * columns), scale }
}

#[test]
fn merging_adds_to_the_original_on_both_devices_and_restoring_brings_it_back() {
    let device = Device::Gpu(gpu());
    for graph in [linear(64, 10, false), convolution(32, 6, 3), convolution(32, 6, 1), linear(32, 4, true)] {
        for dtype in [Encoding::F32, Encoding::F16, Encoding::BF16, Encoding::F8E4M3, Encoding::Q8_0, Encoding::Q5_1] {
            let what = format!("{:?} as {dtype}", graph.weights()[0].shape);
            let on_cpu = load(&Device::cpu(), &graph, dtype, 1000);
            let on_gpu = load(&device, &graph, dtype, 1000);
            let spec = &graph.weights()[0];
            let additions = [addition(spec, 4, 7, 0.3), addition(spec, 1, 8, -1.2)];
            let before = (run(&Device::cpu(), &graph, &on_cpu), run(&device, &graph, &on_gpu));
            let (bytes, mut earlier) =
                (on_gpu.bytes(), block_on(Program::compile(&device, &graph, &[&on_gpu])).unwrap());

            // Something else first: it must leave nothing behind.
            for weights in [&on_cpu, &on_gpu] {
                block_on(weights.merge(0, &[addition(spec, 3, 9, 5.0)])).unwrap();
                block_on(weights.merge(0, &additions)).unwrap();
            }
            assert!(on_gpu.bytes() > bytes, "{what}: the original stays");
            let after = (run(&Device::cpu(), &graph, &on_cpu), run(&device, &graph, &on_gpu));
            // A sum that lies between two f16 may be rounded to either.
            let tolerance = if matches!(dtype, Encoding::F32 | Encoding::BF16) { 1e-6 } else { 1e-3 };
            assert_close(&after.1, &after.0, tolerance, &what);
            assert!(after.0.iter().zip(&before.0).any(|(a, b)| (a - b).abs() > 0.1), "{what}: nothing was added");

            earlier.write("x", &numbers(99, earlier.input_length("x").unwrap())).unwrap();
            block_on(earlier.run()).unwrap();
            assert_eq!(block_on(earlier.read_f32("y")).unwrap(), before.1, "{what}: in a program from before");

            for weights in [&on_cpu, &on_gpu] {
                weights.restore(0);
            }
            assert_eq!(on_gpu.bytes(), bytes, "{what}");
            assert_eq!(run(&Device::cpu(), &graph, &on_cpu), before.0, "{what}: restored");
            assert_eq!(run(&device, &graph, &on_gpu), before.1, "{what}: restored");
        }
    }
}

#[test]
fn a_merged_weight_is_rounded_once_to_the_precision_it_had() {
    let (input, output) = (32, 6);
    let graph = linear(input, output, false);
    for device in [Device::cpu(), Device::Gpu(gpu())] {
        for dtype in [Encoding::F32, Encoding::F16, Encoding::BF16, Encoding::F8E5M2, Encoding::Q8_0] {
            let weights = load(&device, &graph, dtype, 1000);
            let original = matrix(&device, &weights, input, output);
            assert_eq!(original, dtype.to_f32(&bytes(dtype, 0, input * output)).unwrap(), "{dtype}");
            // Rank 1 with powers of two in `down`: every product is exact, and the sum is rounded once.
            let up = numbers(5, output);
            let down: Vec<f32> = (0..input).map(|k| [1.0, 0.5, 3e-8, 2.0f32.powi(-14), 100.0][k % 5]).collect();
            let down: Vec<f32> = down.iter().map(|d| 2.0f32.powf(d.log2().round())).collect();
            block_on(weights.merge(0, &[LowRank { up: up.clone(), down: down.clone(), scale: 1.0 }])).unwrap();
            let merged = matrix(&device, &weights, input, output);
            for (i, (&got, &w)) in merged.iter().zip(&original).enumerate() {
                let sum = w + up[i / input] * down[i % input];
                let expected = match dtype {
                    Encoding::F32 | Encoding::BF16 => sum,
                    _ => f16::from_f32(sum).to_f32(),
                };
                assert_eq!(got, expected, "{dtype}, element {i}: {w} + {}", up[i / input] * down[i % input]);
            }
        }
    }
}

#[test]
fn the_rounding_to_f16_is_right_for_small_large_and_halfway_numbers() {
    let device = Device::Gpu(gpu());
    let graph = linear(32, 4, false);
    let mut loader = WeightLoader::new(&device, graph.weights()).unwrap();
    loader.put(0, Encoding::F16, &[0; 256]).unwrap();
    let weights = block_on(loader.finish()).unwrap();
    // One by one: halfway between two f16, next to that, subnormal, on the way to zero, the largest, and their negatives.
    let halfway = [1.0 + 1.0 / 2048.0, 1.0 + 3.0 / 2048.0, 2049.0, 2051.0];
    let near = halfway.map(|v: f32| v.next_up()).into_iter().chain(halfway.map(|v: f32| v.next_down()));
    let small =
        [2.0f32.powi(-14), 2.0f32.powi(-14).next_down(), 6e-8, 3e-8, 2.0f32.powi(-25), 2.0f32.powi(-25).next_up()];
    let others = [65504.0, 65519.0, 0.1, 0.0, 1e-20, 3.5 * 2.0f32.powi(-24), 1.0 / 3.0];
    let mut values: Vec<f32> = halfway.into_iter().chain(near).chain(small).chain(others).collect();
    values.resize(64, 0.7);
    let all: Vec<f32> = values.iter().flat_map(|v| [*v, -v]).collect();
    // [4, 32] as a sum of four products of rank one: each row of its own.
    let up: Vec<f32> = (0..16).map(|i| f32::from(u8::from(i / 4 == i % 4))).collect();
    block_on(weights.merge(0, &[LowRank { up, down: all.clone(), scale: 1.0 }])).unwrap();
    let got = matrix(&device, &weights, 32, 4);
    for (got, value) in got.iter().zip(&all) {
        assert_eq!(*got, f16::from_f32(*value).to_f32(), "{value:e}");
    }
}

#[test]
fn an_addition_that_does_not_fit_is_refused_with_the_weights_name() {
    for device in [Device::cpu(), Device::Gpu(gpu())] {
        let graph = linear(8, 4, true);
        let weights = load(&device, &graph, Encoding::F32, 1000);
        let wrong = LowRank { up: vec![1.0; 8], down: vec![1.0; 12], scale: 1.0 };
        let message = block_on(weights.merge(0, &[wrong])).unwrap_err().to_string();
        assert!(message.contains("layer.weight") && message.contains("do not make a matrix of 4×8"), "{message}");
        let one = LowRank { up: vec![1.0; 4], down: vec![1.0; 1], scale: 1.0 };
        let message = block_on(weights.merge(1, &[one])).unwrap_err().to_string();
        assert!(message.contains("layer.bias") && message.contains("takes no low-rank addition"), "{message}");
    }
}

/// A program that has made twice its input `values`, of `shape`, as `new`.
fn doubling(device: &Device, shape: &[usize], values: &[f32]) -> Program {
    let builder = Builder::new();
    let root = builder.root();
    root.output("new", root.affine(root.input("values", shape).unwrap(), 2.0, 0.0).unwrap());
    let nothing = block_on(WeightLoader::new(device, &[]).unwrap().finish()).unwrap();
    let mut program = block_on(Program::compile(device, &builder.finish(), &[&nothing])).unwrap();
    program.write("values", values).unwrap();
    block_on(program.run()).unwrap();
    program
}

#[test]
fn a_program_writes_weights_of_each_role_which_programs_compiled_before_and_after_see() {
    let large = {
        let builder = Builder::new();
        let root = builder.root();
        let x = root.input("x", &[1, 32, 32, 16]).unwrap();
        root.output("y", root.at("layer").conv2d(x, Conv2dOptions::same(16, 3)).unwrap());
        builder.finish()
    };
    for graph in [linear(64, 10, true), linear(7, 5, true), convolution(5, 6, 3), convolution(32, 6, 1), large] {
        for device in [Device::cpu(), Device::Gpu(gpu())] {
            let what = format!("{:?} on {device:?}", graph.weights()[0].shape);
            let weights = load(&device, &graph, Encoding::F32, 1000);
            let x = numbers(99, graph.node(graph.inputs()[0].1).elements());
            let mut program = block_on(Program::compile(&device, &graph, &[&weights])).unwrap();
            program.write("x", &x).unwrap();
            block_on(program.run()).unwrap();
            let mut stored = Vec::new();
            for (index, spec) in graph.weights().iter().enumerate() {
                let values = numbers(40 + index as u64, spec.shape.iter().product());
                let source = doubling(&device, &spec.shape, &values);
                block_on(weights.store(&spec.name, &source, "new")).unwrap();
                stored.push(values.iter().map(|value| 2.0 * value).collect::<Vec<f32>>());
            }
            let mut twin = twin::Program::new(&graph, stored).unwrap();
            twin.write("x", &x).unwrap();
            twin.run();
            let expected = twin.read("y").unwrap();
            block_on(program.run()).unwrap();
            assert_close(&block_on(program.read_f32("y")).unwrap(), &expected, 1e-5, &format!("{what}, before"));
            assert_close(&run(&device, &graph, &weights), &expected, 1e-5, &format!("{what}, after"));
            // What additions are merged into is the weight as it was written.
            let none = addition(&graph.weights()[0], 1, 7, 0.0);
            block_on(weights.merge(0, &[none])).unwrap();
            assert_close(&run(&device, &graph, &weights), &expected, 1e-5, &format!("{what}, merged"));
        }
    }
}

#[test]
fn weights_that_a_program_cannot_write_are_refused_by_name() {
    let graph = linear(8, 4, true);
    for device in [Device::cpu(), Device::Gpu(gpu())] {
        let refused = |weights: &Weights, name: &str, shape: &[usize], words: &str| {
            let source = doubling(&device, shape, &vec![1.0; shape.iter().product()]);
            let message = block_on(weights.store(name, &source, "new")).unwrap_err().to_string();
            assert!(message.contains(name) && message.contains(words), "{message}");
        };
        let weights = load(&device, &graph, Encoding::F32, 1000);
        refused(&weights, "layer.weight", &[8, 4], "[8, 4], the weight F32 [4, 8]");
        refused(&weights, "other.weight", &[4, 8], "has no tensor");
        block_on(weights.merge(0, &[addition(&graph.weights()[0], 1, 7, 1.0)])).unwrap();
        refused(&weights, "layer.weight", &[4, 8], "additions");
        for dtype in [Encoding::F16, Encoding::BF16] {
            let weights = load(&device, &graph, dtype, 1000);
            refused(&weights, "layer.weight", &[4, 8], &format!("a matrix of {dtype} takes no new values"));
            let bias = doubling(&device, &[4], &[1.0; 4]);
            block_on(weights.store("layer.bias", &bias, "new")).unwrap();
        }
    }
}

#[test]
fn a_program_finds_each_weight_in_one_of_several_sets() {
    let graph = linear(8, 4, true);
    for device in [Device::cpu(), Device::Gpu(gpu())] {
        let set = |range: std::ops::Range<usize>| {
            let specs = &graph.weights()[range.clone()];
            let mut loader = WeightLoader::new(&device, specs).unwrap();
            for (index, (number, spec)) in range.zip(specs).enumerate() {
                let bytes = bytes(Encoding::F32, number as u64, spec.shape.iter().product());
                loader.put(index, Encoding::F32, &bytes).unwrap();
            }
            block_on(loader.finish()).unwrap()
        };
        let (all, matrix, bias) = (set(0..2), set(0..1), set(1..2));
        let mut program = block_on(Program::compile(&device, &graph, &[&bias, &matrix])).unwrap();
        program.write("x", &numbers(99, 24)).unwrap();
        block_on(program.run()).unwrap();
        assert_eq!(block_on(program.read_f32("y")).unwrap(), run(&device, &graph, &all));
        let refused = |sets: &[&Weights]| block_on(Program::compile(&device, &graph, sets)).unwrap_err().to_string();
        let twice = refused(&[&all, &bias]);
        assert!(twice.contains("layer.bias") && twice.contains("two of the sets"), "{twice}");
        let never = refused(&[&matrix]);
        assert!(never.contains("layer.bias") && never.contains("has no tensor"), "{never}");
    }
}
