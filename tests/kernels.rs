//! Every op on the GPU and on the CPU against its twin.

use std::rc::Rc;

use half::{bf16, f16};
use undiffuse::cpu::{self, Arithmetic};
use undiffuse::gpu::Class;
use undiffuse::gpu::kernels::Storage;
use undiffuse::gpu::variants::{Choice, MatrixKernels, Product, Tile};
use undiffuse::graph::{
    Activation, Builder, Conv2dOptions, Element, Graph, NodeId, Padding, Pool2dOptions, Pooling, Scope,
    TimestepEmbeddingOptions, WeightRole, fuse, update,
};
use undiffuse::weights::Encoding;
use undiffuse::{gpu, twin};

fn device() -> gpu::Device {
    device_with(gpu::DeviceOptions::default())
}

fn device_with(options: gpu::DeviceOptions) -> gpu::Device {
    pollster::block_on(gpu::Device::request(options)).unwrap_or_else(|error| {
        panic!("{error}; these tests need a GPU or a software adapter: on Debian, apt-get install mesa-vulkan-drivers")
    })
}

/// The adapter with each of the matrix kernels: registers, every tile with f32 weights in workgroup memory, and every tile with f16
/// weights where they are stored so and the adapter's shaders know f16.
fn devices_with_all_matrix_kernels() -> Vec<(String, gpu::Device)> {
    let tiles = Tile::ALL.into_iter().flat_map(|tile| [Class::Nvidia, Class::Apple].map(|class| (tile, class)));
    let tiles = tiles.map(|(tile, class)| (format!("{tile:?} {class:?}"), class, MatrixKernels::Tiled(Some(tile))));
    let all = std::iter::once(("registers".to_owned(), Class::Other, MatrixKernels::Registers)).chain(tiles);
    let device = |class, kernels| {
        device_with(gpu::DeviceOptions { class: Some(class), kernels: Some(kernels), ..Default::default() })
    };
    let devices: Vec<_> = all.map(|(name, class, kernels)| (name, device(class, kernels))).collect();
    let product = Product { rows: 1, channels: 1, steps: 1 };
    let has_half = |device: &gpu::Device| {
        matches!(device.variants().choose(product, Storage::F16), Choice::Tiled { half: true, .. })
    };
    if !devices.iter().any(|(_, device)| has_half(device)) {
        println!("skipped: f16 in workgroup memory, which this adapter's shaders do not know");
    }
    devices
}

/// The first device, and one of the others: those in turn, each with three cases in a row.
fn two_of<T>(devices: &[T], case: usize) -> [&T; 2] {
    [&devices[0], &devices[1 + case / 3 % (devices.len() - 1)]]
}

/// The adapter with both families of attention kernels.
fn devices_with_all_attention_kernels() -> [(&'static str, gpu::Device); 2] {
    [("registers", MatrixKernels::Registers), ("flash", MatrixKernels::Tiled(None))]
        .map(|(name, kernels)| (name, device_with(gpu::DeviceOptions { kernels: Some(kernels), ..Default::default() })))
}

/// A small generator (splitmix64): the tests need variety, not quality.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One of `range`, ends included.
    fn pick(&mut self, range: std::ops::RangeInclusive<usize>) -> usize {
        range.start() + (self.next() % (range.end() - range.start() + 1) as u64) as usize
    }

    fn flip(&mut self) -> bool {
        self.next() & 1 == 1
    }

    /// Roughly normal.
    fn normal(&mut self) -> f32 {
        let sum: f32 = (0..4).map(|_| (self.next() >> 40) as f32 / (1 << 24) as f32).sum();
        (sum - 2.0) * 1.7
    }

    fn normals(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.normal()).collect()
    }
}

fn encode(dtype: Encoding, values: &[f32]) -> Vec<u8> {
    match dtype {
        Encoding::F16 => values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect(),
        Encoding::BF16 => values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect(),
        _ => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
    }
}

fn floats(words: &[u32]) -> Vec<f32> {
    words.iter().map(|&bits| f32::from_bits(bits)).collect()
}

/// A network on the GPU and on the CPU, and its twin.
struct Pair {
    twin: twin::Program,
    gpu: gpu::Program,
    cpu: Vec<(&'static str, cpu::Program)>,
}

/// The ways in which the CPU computes.
fn cpus() -> [(&'static str, cpu::Device); 3] {
    let device = |threads, arithmetic| cpu::Device::native(Some(threads), arithmetic);
    [
        ("fused, 1 thread", device(1, Arithmetic::Fused)),
        ("fused, 2 threads", device(2, Arithmetic::Fused)),
        ("separate, 1 thread", device(1, Arithmetic::Separate)),
    ]
}

fn weight_values(graph: &Graph, random: &mut Random) -> Vec<Vec<f32>> {
    let values = graph.weights().iter().map(|spec| {
        let inputs = spec.shape[1..].iter().product::<usize>() as f32;
        let (scale, shift) = if spec.role == WeightRole::Vector { (0.3, 0.7) } else { (1.0 / inputs.sqrt(), 0.0) };
        random.normals(spec.shape.iter().product()).iter().map(|v| v * scale + shift).collect()
    });
    values.collect()
}

impl Pair {
    fn new(device: &gpu::Device, graph: &Graph, dtype: Encoding, random: &mut Random) -> Self {
        let mut on_twin = Vec::new();
        let mut on_cpu = cpus().map(|(name, device)| (name, cpu::Weights::new(&device, graph.weights()).unwrap()));
        let mut on_gpu = gpu::Weights::new(device, graph.weights());
        for (index, values) in weight_values(graph, random).iter().enumerate() {
            let bytes = encode(dtype, values);
            on_twin.push(dtype.to_f32(&bytes).unwrap());
            on_cpu.iter_mut().for_each(|(_, weights)| weights.put(index, dtype, &bytes).unwrap());
            on_gpu.put(index, dtype, &bytes).unwrap();
        }
        pollster::block_on(on_gpu.finish()).unwrap();
        let twin = twin::Program::new(graph, on_twin).unwrap();
        let gpu = pollster::block_on(gpu::Program::compile(device, graph, &[Rc::new(on_gpu)])).unwrap();
        let on_cpu = on_cpu.iter();
        let prepare = |weights: &cpu::Weights| {
            pollster::block_on(cpu::Program::new(weights.device(), graph, &[weights])).unwrap()
        };
        let cpu = on_cpu.map(|(name, weights)| (*name, prepare(weights))).collect();
        let mut pair = Self { twin, gpu, cpu };
        for (name, id) in graph.inputs() {
            pair.write(name, &random.normals(graph.node(*id).elements()));
        }
        pair
    }

    fn write(&mut self, input: &str, data: &[f32]) {
        self.twin.write(input, data).unwrap();
        self.gpu.write(input, data).unwrap();
        self.cpu.iter_mut().for_each(|(_, program)| program.write(input, data).unwrap());
    }

    /// Runs all and compares all outputs: within `tolerance` times the largest magnitude, and on the CPU to the same bits with any
    /// number of threads.
    fn agree(&mut self, tolerance: f32, what: &str) {
        self.twin.run();
        self.gpu.run().unwrap();
        self.cpu.iter_mut().for_each(|(_, program)| pollster::block_on(program.run()).unwrap());
        let graph = self.twin.graph().clone();
        for (name, id) in graph.outputs() {
            let got = pollster::block_on(self.gpu.read(&[name])).unwrap().remove(0);
            self.compare(name, *id, &got, tolerance, &format!("{what}: {name}"));
            let on_cpu: Vec<_> = self.cpu.iter().map(|(_, program)| program.read_words(name).unwrap()).collect();
            for ((way, _), got) in self.cpu.iter().zip(&on_cpu) {
                self.compare(name, *id, got, tolerance, &format!("{what}, on the CPU, {way}: {name}"));
            }
            assert!(on_cpu[0] == on_cpu[1], "{what}: {name} depends on the number of threads");
        }
    }

    fn compare(&self, name: &str, id: NodeId, got: &[u32], tolerance: f32, what: &str) {
        let node = self.twin.graph().node(id);
        if node.dtype == Element::U32 {
            return assert_eq!(got, self.twin.read_u32(name).unwrap(), "{what}");
        }
        let (got, expected) = (floats(got), self.twin.read(name).unwrap());
        assert_eq!(got.len(), expected.len(), "{what}");
        let largest = expected.iter().fold(0f32, |m, v| m.max(v.abs()));
        let errors = got.iter().zip(&expected).map(|(g, e)| (g - e).abs()).enumerate();
        // A NaN is the worst of all.
        let rank = |error: f32| if error.is_nan() { f32::INFINITY } else { error };
        let (at, worst) = errors.max_by(|a, b| rank(a.1).total_cmp(&rank(b.1))).unwrap();
        assert!(
            worst <= tolerance * largest,
            "{what}[{at}] of shape {:?} is {}, expected {}: off by {worst:e}, allowed {:e}",
            node.shape,
            got[at],
            expected[at],
            tolerance * largest,
        );
    }
}

/// Builds a graph whose outputs are what `build` returns.
fn graph(build: impl FnOnce(&Scope) -> NodeId) -> Graph {
    let builder = Builder::new();
    let root = builder.root();
    let out = build(&root);
    root.output("out", out);
    builder.finish()
}

const F32_TOLERANCE: f32 = 1e-5;

/// Compares a graph as it is, and rewritten, on both devices.
fn check(device: &gpu::Device, graph: &Graph, dtype: Encoding, random: &mut Random, what: &str) {
    Pair::new(device, graph, dtype, random).agree(F32_TOLERANCE, what);
    let fused = fuse(graph);
    if fused != *graph {
        Pair::new(device, &fused, dtype, random).agree(F32_TOLERANCE, &format!("{what}, fused"));
    }
}

const DTYPES: [Encoding; 3] = [Encoding::F32, Encoding::F16, Encoding::BF16];

#[test]
fn convolutions_of_any_size_agree_with_the_cpu() {
    let (devices, mut random) = (devices_with_all_matrix_kernels(), Random(1));
    for case in 0..120 {
        let (batch, height, width) = (random.pick(1..=2), random.pick(1..=13), random.pick(1..=13));
        // Half of the channel counts are multiples of four, as in most layers.
        let mut count = |most| if random.flip() { 4 * random.pick(1..=most) } else { random.pick(1..=most) };
        let (channels, out_channels) = (count(10), count(11));
        let kernel = [[1, 1], [3, 3], [3, 3], [3, 3], [5, 5], [1, 7], [7, 1], [1, 3], [3, 1]][random.pick(0..=8)];
        let stride = random.pick(1..=2);
        let mut side = |axis: usize| random.pick(0..=kernel[axis] / 2);
        let padding = Padding { top: side(0), bottom: side(0), left: side(1), right: side(1) };
        if height + padding.top + padding.bottom < kernel[0] || width + padding.left + padding.right < kernel[1] {
            continue;
        }
        let options = Conv2dOptions { out_channels, kernel, stride, padding, bias: random.flip() };
        let residual = random.pick(0..=3);
        // The GPU has the enlargement in the convolution's addressing.
        let enlarged = random.pick(0..=3) == 0;
        let graph = graph(|root| {
            let mut x = root.input("x", &[batch, height, width, channels]).unwrap();
            if enlarged {
                x = root.resize_nearest(x, 2 * height, 2 * width).unwrap();
            }
            let y = root.at("conv").conv2d(x, options).unwrap();
            let shape = root.shape(y);
            let other = |shape: &[usize]| root.input("residual", shape).unwrap();
            match residual {
                1 => root.add(y, other(&shape)).unwrap(),
                2 => root.add(other(&shape), y).unwrap(),
                3 => root.add(y, other(&[batch, 1, 1, out_channels])).unwrap(),
                _ => y,
            }
        });
        let dtype = DTYPES[case % 3];
        for (kernels, device) in two_of(&devices, case) {
            let size = format!("{batch}×{height}×{width}×{channels}");
            let what = format!(
                "case {case}: {kernels}, {dtype} {options:?} of {size}, enlarged {enlarged}, residual {residual}"
            );
            check(device, &graph, dtype, &mut random, &what);
        }
    }
}

#[test]
fn linear_layers_of_any_size_agree_with_the_cpu() {
    let (devices, mut random) = (devices_with_all_matrix_kernels(), Random(2));
    for case in 0..40 {
        let mut count = |most| if random.flip() { 4 * random.pick(1..=most) } else { random.pick(1..=most) };
        let (inputs, outputs) = (count(40), count(20));
        let shape = [random.pick(1..=2), random.pick(1..=37), inputs];
        let (bias, residual) = (random.flip(), random.flip());
        let graph = graph(|root| {
            let x = root.input("x", &shape).unwrap();
            let y = root.at("linear").linear(x, outputs, bias).unwrap();
            if residual { root.add(y, root.input("residual", &root.shape(y)).unwrap()).unwrap() } else { y }
        });
        let dtype = DTYPES[case % 3];
        for (kernels, device) in two_of(&devices, case) {
            let what = format!("case {case}: {kernels}, {dtype} {shape:?} to {outputs}");
            check(device, &graph, dtype, &mut random, &what);
        }
    }
}

#[test]
fn products_of_several_tiles_and_splits_agree_with_the_cpu() {
    let (devices, mut random) = (devices_with_all_matrix_kernels(), Random(29));
    // Inputs, outputs, side of the picture, kernel, residual: depths of two splits and of many, the last of them shorter; results
    // of less than a tile and of several with a rest, their channels aligned or not; residuals of both shapes.
    let cases = [
        (Encoding::F16, 520, 40, [1, 5], 1, 1),
        (Encoding::F32, 1037, 70, [1, 3], 1, 0),
        (Encoding::F16, 68, 132, [9, 15], 3, 2),
        (Encoding::BF16, 61, 67, [5, 4], 3, 1),
        (Encoding::F16, 36, 20, [7, 23], 5, 2),
    ];
    for (dtype, inputs, outputs, [height, width], kernel, residual) in cases {
        let graph = graph(|root| {
            let x = root.input("x", &[2, height, width, inputs]).unwrap();
            let y = root.at("conv").conv2d(x, Conv2dOptions::same(outputs, kernel)).unwrap();
            match residual {
                1 => root.add(y, root.input("residual", &root.shape(y)).unwrap()).unwrap(),
                2 => root.add(y, root.input("residual", &[2, 1, 1, outputs]).unwrap()).unwrap(),
                _ => y,
            }
        });
        for (kernels, device) in &devices {
            let what = format!("{kernels}, {dtype} {inputs} to {outputs}, {kernel}×{kernel} of {height}×{width}");
            check(device, &graph, dtype, &mut random, &what);
        }
    }
}

#[test]
fn tensors_larger_than_a_binding_agree_with_the_cpu() {
    // Pictures of 1 MiB and more, of which a kernel gets a quarter: by matrix kernels of both families, of all kernel sizes, with
    // every kind of residual. Lines of the last have to be bound by fours to begin at a multiple of 256 bytes. None is so small that
    // the tiled kernels would split the depth.
    let mut random = Random(30);
    for case in 0..18 {
        let kernels = if case / 6 % 2 == 0 { MatrixKernels::Registers } else { MatrixKernels::Tiled(None) };
        let options =
            gpu::DeviceOptions { kernels: Some(kernels), binding_bytes: Some(256 << 10), ..Default::default() };
        let device = device_with(options);
        let [height, width, channels] = [[130, 64, 32], [64, 130, 32], [250, 50, 24]][(case + case / 6) % 3];
        let (kernel, stride) = [([1, 1], 1), ([3, 3], 1), ([3, 3], 2), ([5, 5], 1), ([7, 1], 1), ([1, 7], 2)][case % 6];
        let enlarged = kernel != [1, 1] && random.flip();
        let residual = random.pick(0..=2);
        let graph = graph(|root| {
            let x = root.input("x", &[1, height, width, channels]).unwrap();
            let mut h = root.at("norm").group_norm(x, 4, 1e-5).unwrap();
            if enlarged {
                h = root.resize_nearest(h, 2 * height, 2 * width).unwrap();
            }
            let out_channels = if enlarged || kernel == [5, 5] { channels / 2 } else { channels };
            let options = Conv2dOptions { stride, ..Conv2dOptions::same_rectangular(out_channels, kernel) };
            let y = match kernel {
                [1, 1] => root.at("linear").linear(h, out_channels, true).unwrap(),
                _ => root.at("conv").conv2d(h, options).unwrap(),
            };
            let shape = root.shape(y);
            match residual {
                1 => root.add(y, root.input("residual", &shape).unwrap()).unwrap(),
                2 if kernel != [1, 1] => {
                    root.add(y, root.input("residual", &[1, 1, 1, out_channels]).unwrap()).unwrap()
                }
                _ => y,
            }
        });
        let fused = fuse(&graph);
        let what = format!("{kernels:?}, {kernel:?} by {stride}, enlarged {enlarged}, residual {residual}");
        let mut pair = Pair::new(&device, &fused, Encoding::F32, &mut random);
        pair.agree(F32_TOLERANCE, &format!("case {case}: {height}×{width}×{channels}, {what}"));
        pair.write("x", &vec![f32::NAN; height * width * channels]);
        pair.gpu.run().unwrap();
        let error = pollster::block_on(pair.gpu.read(&["out"])).unwrap_err();
        assert_eq!(error, gpu::Error::NonFinite { path: "x".into(), op: "input" });
    }
}

#[test]
fn what_is_measured_for_a_network_is_used_by_it_and_changes_no_result() {
    let mut random = Random(30);
    let graph = graph(|root| {
        let x = root.input("x", &[2, 9, 8, 24]).unwrap();
        let x = root.at("first").conv2d(x, Conv2dOptions::same(80, 3)).unwrap();
        let x = root.at("second").conv2d(x, Conv2dOptions::same(80, 3)).unwrap();
        let x = root.at("third").conv2d(x, Conv2dOptions::same(80, 3)).unwrap();
        root.at("last").linear(x, 12, true).unwrap()
    });
    let device = device_with(gpu::DeviceOptions { kernels: Some(MatrixKernels::Tiled(None)), ..Default::default() });
    let mut pair = Pair::new(&device, &graph, Encoding::F16, &mut random);
    let measured = pollster::block_on(pair.gpu.measure_kernels()).unwrap();
    // The second and third convolutions are one product.
    let products = [(18, 80), (45, 80), (5, 12)].map(|(steps, channels)| Product { rows: 144, channels, steps });
    assert_eq!(measured.len(), products.len());
    for product in products {
        let tiling = measured[&(product, Storage::F16)];
        assert!(product.admits(tiling), "{product:?}: {tiling:?}");
    }
    pair.agree(F32_TOLERANCE, "before");
    device.set_measured(measured.clone());
    for (product, tiling) in &measured {
        let choice = device.variants().choose(product.0, product.1);
        assert!(matches!(choice, Choice::Tiled { tiling: chosen, .. } if chosen == *tiling), "{choice:?}");
    }
    Pair::new(&device, &graph, Encoding::F16, &mut random).agree(F32_TOLERANCE, "with what was measured");
    // A device that keeps its tiles in registers has nothing to choose from.
    let device = device_with(gpu::DeviceOptions { kernels: Some(MatrixKernels::Registers), ..Default::default() });
    let program = Pair::new(&device, &graph, Encoding::F16, &mut random).gpu;
    assert!(pollster::block_on(program.measure_kernels()).unwrap().is_empty());
}

#[test]
fn group_norms_agree_with_the_cpu_fused_or_not() {
    let (device, mut random) = (device(), Random(3));
    let activations = [None, Some(Activation::Silu), Some(Activation::Gelu), Some(Activation::Mish)];
    for case in 0..40 {
        let groups = random.pick(1..=8);
        let channels = groups * random.pick(1..=6);
        // From less than a slice of pixels to several, none of them full.
        let shape = [random.pick(1..=2), random.pick(1..=17), random.pick(1..=29), channels];
        let activation = activations[case % 4];
        let graph = graph(|root| {
            let x = root.input("x", &shape).unwrap();
            let y = root.at("norm").group_norm(x, groups, 1e-5).unwrap();
            activation.map_or(y, |activation| root.activate(y, activation).unwrap())
        });
        check(
            &device,
            &graph,
            Encoding::F32,
            &mut random,
            &format!("case {case}: {groups} groups of {shape:?}, {activation:?}"),
        );
    }
}

#[test]
fn a_group_norm_keeps_a_small_spread_around_a_large_mean() {
    let (device, mut random) = (device(), Random(4));
    let graph = graph(|root| {
        let x = root.input("x", &[2, 40, 30, 8]).unwrap();
        root.at("norm").group_norm(x, 2, 1e-6).unwrap()
    });
    let mut pair = Pair::new(&device, &graph, Encoding::F32, &mut random);
    let values: Vec<f32> = random.normals(2 * 40 * 30 * 8).iter().map(|v| 100.0 + 0.01 * v).collect();
    pair.write("x", &values);
    // The inputs themselves are rounded to 8e-6 of a spread of 1e-2.
    pair.agree(1e-4, "mean 100, spread 0.01");
}

#[test]
fn layer_norms_agree_with_the_cpu() {
    let (device, mut random) = (device(), Random(5));
    for case in 0..20 {
        let shape = [random.pick(1..=2), random.pick(1..=40), random.pick(2..=70)];
        let graph = graph(|root| root.at("norm").layer_norm(root.input("x", &shape).unwrap(), 1e-5).unwrap());
        check(&device, &graph, Encoding::F32, &mut random, &format!("case {case}: {shape:?}"));
    }
}

#[test]
fn attention_of_any_size_agrees_with_the_cpu() {
    let (devices, mut random) = (devices_with_all_attention_kernels(), Random(6));
    // Below, at and past what an invocation, a chunk and a tile of the flash kernel hold; 161 and 512 take several tiles.
    let head_sizes = [1, 2, 3, 4, 5, 8, 12, 24, 31, 40, 64, 80, 97, 128, 160, 161, 512];
    for case in 0..68 {
        let head_size = head_sizes[case % head_sizes.len()];
        let (batch, heads) = (random.pick(1..=2), random.pick(1..=3));
        let queries = random.pick(1..=70);
        let causal = random.flip();
        let keys = if causal { queries } else { random.pick(1..=77) };
        let channels = heads * head_size;
        let graph = graph(|root| {
            let q = root.input("q", &[batch, queries, channels]).unwrap();
            let k = root.input("k", &[batch, keys, channels]).unwrap();
            let v = root.input("v", &[batch, keys, channels]).unwrap();
            root.attention(q, k, v, heads, causal).unwrap()
        });
        for (kernels, device) in &devices {
            let sizes = format!("{batch}×{heads} heads of {head_size}, {queries} queries, {keys} keys");
            let what = format!("case {case}: {kernels}, {sizes}, causal {causal}");
            check(device, &graph, Encoding::F32, &mut random, &what);
        }
    }
}

#[test]
fn attention_larger_than_a_block_of_scores_agrees_with_the_cpu() {
    // 2 heads × 2200² scores are 39 MB, more than two blocks, and neither queries nor keys fill a tile.
    let (devices, mut random) = (devices_with_all_attention_kernels(), Random(7));
    for (heads, queries, keys) in [(2, 2201, 2203), (9, 61, 8190)] {
        let graph = graph(|root| {
            let q = root.input("q", &[1, queries, heads * 4]).unwrap();
            let k = root.input("k", &[1, keys, heads * 4]).unwrap();
            let v = root.input("v", &[1, keys, heads * 4]).unwrap();
            root.attention(q, k, v, heads, false).unwrap()
        });
        for (kernels, device) in &devices {
            let what = format!("{kernels}, {heads} heads, {queries} queries, {keys} keys");
            check(device, &graph, Encoding::F32, &mut random, &what);
        }
    }
}

#[test]
fn attention_with_large_logits_stays_finite() {
    let mut random = Random(8);
    let graph = graph(|root| {
        let [q, k, v] = ["q", "k", "v"].map(|name| root.input(name, &[1, 21, 16]).unwrap());
        root.attention(q, k, v, 2, true).unwrap()
    });
    for (kernels, device) in devices_with_all_attention_kernels() {
        let mut pair = Pair::new(&device, &graph, Encoding::F32, &mut random);
        for name in ["q", "k"] {
            let values: Vec<f32> = random.normals(21 * 16).iter().map(|v| v * 40.0).collect();
            pair.write(name, &values);
        }
        pair.agree(1e-4, &format!("{kernels}, logits of several thousand"));
    }
}

#[test]
fn activations_agree_with_the_cpu_also_far_out() {
    let (device, mut random) = (device(), Random(9));
    use Activation::*;
    for activation in [Silu, Gelu, GeluTanh, QuickGelu, Mish, Relu, Tanh] {
        for n in [1, 7, 4001] {
            let graph = graph(|root| root.activate(root.input("x", &[n]).unwrap(), activation).unwrap());
            let mut pair = Pair::new(&device, &graph, Encoding::F32, &mut random);
            pair.agree(1e-6, &format!("{activation:?} of {n}"));
            let spread: Vec<f32> = (0..n).map(|i| (2000.0 - i as f32) * 0.05).collect();
            pair.write("x", &spread);
            pair.agree(1e-6, &format!("{activation:?} from 100 to -100"));
            let far: Vec<f32> = (0..n).map(|i| if i % 2 == 0 { 1e4 } else { -1e4 }).collect();
            pair.write("x", &far);
            pair.agree(1e-6, &format!("{activation:?} of ±10⁴"));
        }
    }
}

#[test]
fn roots_and_exponentials_agree_with_the_cpu_where_they_are_defined() {
    let (device, mut random) = (device(), Random(22));
    let spread =
        |from: f32, to: f32| -> Vec<f32> { (0..=300).map(|i| from + (to - from) * i as f32 / 300.0).collect() };
    let ranges = [
        (Activation::Sqrt, spread(0.0, 1e-3)),
        (Activation::Sqrt, spread(0.0, 1e6)),
        (Activation::Exp, spread(-80.0, 1.0)),
        (Activation::Exp, spread(70.0, 80.0)),
    ];
    for (activation, values) in ranges {
        let graph = graph(|root| root.activate(root.input("x", &[values.len()]).unwrap(), activation).unwrap());
        let mut pair = Pair::new(&device, &graph, Encoding::F32, &mut random);
        pair.write("x", &values);
        pair.agree(F32_TOLERANCE, &format!("{activation:?} from {} to {}", values[0], values[300]));
    }
}

#[test]
fn geglu_and_affine_agree_with_the_cpu() {
    let (device, mut random) = (device(), Random(10));
    for case in 0..10 {
        let shape = [random.pick(1..=2), random.pick(1..=9), 2 * random.pick(1..=33)];
        let graph = graph(|root| {
            let y = root.geglu(root.input("x", &shape).unwrap()).unwrap();
            root.affine(y, -1.7, 0.3).unwrap()
        });
        check(&device, &graph, Encoding::F32, &mut random, &format!("case {case}: {shape:?}"));
    }
}

#[test]
fn binary_ops_broadcast_like_the_cpu() {
    let (device, mut random) = (device(), Random(11));
    for case in 0..30 {
        let rank = random.pick(1..=6);
        let shape: Vec<_> = (0..rank).map(|_| random.pick(1..=5)).collect();
        let other: Vec<_> = shape.iter().map(|&d| if random.flip() { d } else { 1 }).collect();
        let graph = graph(|root| {
            let (a, b) = (root.input("a", &shape).unwrap(), root.input("b", &other).unwrap());
            match case % 3 {
                0 => root.add(a, b),
                1 => root.sub(a, b),
                _ => root.mul(a, b),
            }
            .unwrap()
        });
        check(&device, &graph, Encoding::F32, &mut random, &format!("case {case}: {shape:?} and {other:?}"));
    }
}

#[test]
fn concatenations_slices_and_permutations_agree_with_the_cpu() {
    let (device, mut random) = (device(), Random(12));
    for case in 0..40 {
        let rank = random.pick(1..=6);
        let shape: Vec<_> = (0..rank).map(|_| random.pick(1..=5)).collect();
        let axis = random.pick(0..=rank - 1);
        let graph = graph(|root| {
            let inputs: Vec<_> = (0..random.pick(1..=3))
                .map(|i| {
                    let mut shape = shape.clone();
                    shape[axis] = random.pick(1..=5);
                    root.input(&format!("x{i}"), &shape).unwrap()
                })
                .collect();
            let all = root.concat(&inputs, axis).unwrap();
            let length = root.shape(all)[axis];
            let start = random.pick(0..=length - 1);
            let part = root.slice(all, axis, start, random.pick(1..=length - start)).unwrap();
            let mut axes: Vec<_> = (0..rank).collect();
            for i in (1..rank).rev() {
                axes.swap(i, random.pick(0..=i));
            }
            root.permute(part, &axes).unwrap()
        });
        check(&device, &graph, Encoding::F32, &mut random, &format!("case {case}: {shape:?} along {axis}"));
    }
}

#[test]
fn resampling_agrees_with_the_cpu() {
    let (device, mut random) = (device(), Random(13));
    for case in 0..20 {
        let shape = [random.pick(1..=2), random.pick(2..=9), random.pick(2..=9), random.pick(1..=9)];
        let (height, width) = (random.pick(1..=20), random.pick(1..=20));
        let graph = graph(|root| {
            let x = root.input("x", &shape).unwrap();
            root.output("bilinear", root.resize_bilinear(x, height, width).unwrap());
            root.resize_nearest(x, height, width).unwrap()
        });
        check(&device, &graph, Encoding::F32, &mut random, &format!("case {case}: {shape:?} to {height}×{width}"));
    }
}

#[test]
fn pooling_agrees_with_the_cpu_and_leaves_out_what_lies_in_the_padding() {
    let (device, mut random) = (device(), Random(31));
    for case in 0..40 {
        let shape = [random.pick(1..=2), random.pick(1..=11), random.pick(1..=11), random.pick(1..=9)];
        let pooling = [Pooling::Max, Pooling::Average][case % 2];
        let (kernel, stride) = ([random.pick(1..=4), random.pick(1..=4)], random.pick(1..=3));
        // Up to all but one row and column of the kernel.
        let mut side = |axis: usize| random.pick(0..=kernel[axis] - 1);
        let padding = Padding { top: side(0), bottom: side(0), left: side(1), right: side(1) };
        let options = Pool2dOptions { pooling, kernel, stride, padding };
        if shape[1] + padding.top + padding.bottom < kernel[0] || shape[2] + padding.left + padding.right < kernel[1] {
            continue;
        }
        let graph = graph(|root| {
            let x = root.input("x", &shape).unwrap();
            root.output("mean", root.global_average(x).unwrap());
            root.pool2d(x, options).unwrap()
        });
        let mut pair = Pair::new(&device, &graph, Encoding::F32, &mut random);
        pair.agree(F32_TOLERANCE, &format!("case {case}: {options:?} of {shape:?}"));
        // A maximum of negative numbers is not the padding's zero.
        let negative: Vec<f32> = random.normals(shape.iter().product()).iter().map(|v| -3.0 - v.abs()).collect();
        pair.write("x", &negative);
        pair.agree(F32_TOLERANCE, &format!("case {case}: {options:?} of {shape:?}, negative"));
    }
}

#[test]
fn padding_lowers_no_mean_and_a_maximum_hides_nothing_that_is_no_number() {
    let options = Pool2dOptions { padding: Padding::same(1), ..Pool2dOptions::average(3, 1) };
    let graph = graph(|root| {
        let x = root.input("x", &[1, 2, 3, 4]).unwrap();
        root.output("max", root.pool2d(x, Pool2dOptions { pooling: Pooling::Max, ..options }).unwrap());
        root.pool2d(x, options).unwrap()
    });
    let mut pair = Pair::new(&device(), &graph, Encoding::F32, &mut Random(32));
    pair.write("x", &[1.0; 24]);
    pair.agree(F32_TOLERANCE, "ones");
    assert_eq!(pair.twin.read("out").unwrap(), [1.0; 24]);
    pair.write("x", &[f32::NAN; 24]);
    for (_, program) in &mut pair.cpu {
        let error = pollster::block_on(program.run()).unwrap_err();
        assert!(matches!(error, cpu::Error::NonFinite { .. }), "{error}");
    }
}

#[test]
fn timestep_embeddings_agree_with_the_cpu_up_to_a_thousand_radians() {
    let (device, mut random) = (device(), Random(14));
    for dim in [2, 15, 32, 320] {
        for (flip_sin_to_cos, downscale_freq_shift) in [(true, 0.0), (false, 1.0)] {
            if (dim / 2) as f32 == downscale_freq_shift {
                continue;
            }
            let options = TimestepEmbeddingOptions { dim, flip_sin_to_cos, downscale_freq_shift, scale: 1.0 };
            let graph = graph(|root| root.timestep_embedding(root.input("t", &[5]).unwrap(), options).unwrap());
            let mut pair = Pair::new(&device, &graph, Encoding::F32, &mut random);
            pair.write("t", &[0.0, 1.0, 498.3, 999.0, -1.0]);
            pair.agree(2e-6, &format!("{options:?}"));
        }
    }
}

#[test]
fn the_linear_update_agrees_with_the_cpu_with_and_without_guidance() {
    let (device, mut random) = (device(), Random(15));
    for (batch, doubled, given) in [(1, 1, false), (1, 2, false), (3, 2, false), (2, 2, true), (1, 1, true)] {
        let shape = [batch, 4, 5, 7];
        let graph = graph(|root| {
            let sized = |name: &str, times: usize| root.input(name, &[times * batch, 4, 5, 7]).unwrap();
            let (sample, output) = (root.input("sample", &shape).unwrap(), sized("model_output", doubled));
            let (noise, history) = (sized("noise", 1), sized("history", update::HISTORY));
            let coefficients = root.input("coefficients", &[update::COEFFICIENTS]).unwrap();
            let x0 = given.then(|| sized("x0", 1));
            root.linear_update(sample, output, noise, history, coefficients, x0).unwrap()
        });
        let mut pair = Pair::new(&device, &graph, Encoding::F32, &mut random);
        for clip in [f32::MAX, 0.5] {
            let mut coefficients = random.normals(update::COEFFICIENTS);
            coefficients[update::CLIP] = clip;
            pair.write("coefficients", &coefficients);
            let what = format!("batch {batch}, {doubled} outputs each, clip {clip:e}, x0 given {given}");
            pair.agree(F32_TOLERANCE, &what);
        }
    }
}

#[test]
fn guidance_agrees_with_the_cpu_rescaled_or_not_for_images_of_any_size() {
    let (device, mut random) = (device(), Random(23));
    // Less than a workgroup, one more than it, and many rounds with a rest.
    for (batch, image) in [(1, [1, 2, 3]), (3, [1, 5, 13]), (2, [4, 16, 24]), (1, [4, 65, 67])] {
        for rescale in [0.0, 0.7, 1.0] {
            let graph = graph(|root| {
                let shape = [2 * batch, image[0], image[1], image[2]];
                let output = root.input("output", &shape).unwrap();
                let coefficients = root.input("coefficients", &[update::COEFFICIENTS]).unwrap();
                root.guidance(output, coefficients, rescale).unwrap()
            });
            let mut pair = Pair::new(&device, &graph, Encoding::F32, &mut random);
            for scale in [1.0, 7.5] {
                let mut coefficients = random.normals(update::COEFFICIENTS);
                coefficients[update::GUIDANCE] = scale;
                pair.write("coefficients", &coefficients);
                pair.agree(F32_TOLERANCE, &format!("batch {batch} of {image:?}, scale {scale}, rescaled {rescale}"));
            }
        }
    }
}

#[test]
fn rescaled_guidance_has_the_spread_of_the_conditional_output() {
    let (device, mut random) = (device(), Random(24));
    let shape = [4, 3, 7, 9];
    let graph = graph(|root| {
        let coefficients = root.input("coefficients", &[update::COEFFICIENTS]).unwrap();
        root.guidance(root.input("output", &shape).unwrap(), coefficients, 1.0).unwrap()
    });
    let mut pair = Pair::new(&device, &graph, Encoding::F32, &mut random);
    let (output, image) = (random.normals(4 * 189), 189);
    pair.write("output", &output);
    pair.write("coefficients", &[9.0; update::COEFFICIENTS]);
    pair.agree(F32_TOLERANCE, "fully rescaled");
    let deviation = |values: &[f32]| {
        let mean = values.iter().sum::<f32>() / image as f32;
        (values.iter().map(|v| (v - mean) * (v - mean)).sum::<f32>() / (image - 1) as f32).sqrt()
    };
    for (index, guided) in pair.twin.read("out").unwrap().chunks_exact(image).enumerate() {
        let conditional = &output[(2 + index) * image..][..image];
        let (found, expected) = (deviation(guided), deviation(conditional));
        assert!((found - expected).abs() < 1e-5 * expected, "image {index}: {found}, expected {expected}");
    }
}

#[test]
fn dynamic_thresholds_agree_with_the_cpu_for_images_of_any_size_and_with_equal_values() {
    let (device, mut random) = (device(), Random(25));
    for (batch, image) in [(2, [1, 1, 1]), (1, [1, 1, 2]), (3, [3, 5, 7]), (1, [4, 16, 24]), (2, [3, 33, 35])] {
        let count = batch * image.iter().product::<usize>();
        for (ratio, max_value) in [(0.995, 100.0), (0.5, 1e6), (1.0, 2.0), (0.0, 5.0), (0.9, 0.25)] {
            let shape = [batch, image[0], image[1], image[2]];
            let graph = graph(|root| root.threshold(root.input("x", &shape).unwrap(), ratio, max_value).unwrap());
            let mut pair = Pair::new(&device, &graph, Encoding::F32, &mut random);
            for (what, scale) in [("small", 0.01), ("usual", 3.0), ("large", 3e5)] {
                let values: Vec<f32> = random.normals(count).iter().map(|v| v * scale).collect();
                pair.write("x", &values);
                pair.agree(1e-6, &format!("{what} values of {shape:?}, quantile {ratio}, at most {max_value}"));
                // Few levels: what lies above a rank is often the same value again.
                let levels: Vec<f32> = values.iter().map(|v| (v / scale).round() * scale).collect();
                pair.write("x", &levels);
                pair.agree(1e-6, &format!("{what} levels of {shape:?}, quantile {ratio}, at most {max_value}"));
            }
        }
    }
}

#[test]
fn a_thresholded_x0_goes_into_the_update_as_the_coefficients_make_it() {
    let (device, mut random) = (device(), Random(26));
    let shape = [2, 3, 5, 7];
    let build = |thresholded: bool| {
        graph(|root| {
            let sized = |name: &str, times: usize| root.input(name, &[times * 2, 3, 5, 7]).unwrap();
            let (sample, output) = (root.input("sample", &shape).unwrap(), sized("output", 1));
            let (noise, history) = (sized("noise", 1), sized("history", update::HISTORY));
            let coefficients = root.input("coefficients", &[update::COEFFICIENTS]).unwrap();
            let x0 = thresholded.then(|| {
                let x0 = root.predict_x0(sample, output, coefficients).unwrap();
                // With a maximum of 1 the threshold is a plain clamp to ±1, which the update can do by itself.
                root.threshold(x0, 0.99, 1.0).unwrap()
            });
            root.linear_update(sample, output, noise, history, coefficients, x0).unwrap()
        })
    };
    let mut programs = [true, false].map(|given| Pair::new(&device, &build(given), Encoding::F32, &mut random));
    let mut coefficients = random.normals(update::COEFFICIENTS);
    coefficients[update::CLIP] = 1.0;
    let inputs = [("sample", 1), ("output", 1), ("noise", 1), ("history", update::HISTORY)];
    let inputs = inputs.map(|(name, times)| (name, random.normals(times * 210)));
    for pair in &mut programs {
        pair.write("coefficients", &coefficients);
        inputs.iter().for_each(|(name, values)| pair.write(name, values));
        pair.agree(F32_TOLERANCE, "an update");
    }
    let [given, own] = programs.each_ref().map(|pair| pair.twin.read("out").unwrap());
    for (index, (given, own)) in given.iter().zip(own).enumerate() {
        assert!((given - own).abs() < 1e-5, "{index}: {given} with x0 given, {own} without");
    }
}

#[test]
fn learned_deviations_are_those_of_the_two_variance_types() {
    let (device, mut random) = (device(), Random(27));
    let (variance, z) = ([0.04, 0.25, -1.0, 1.0, 0.0], [1.0, -2.0, 3.0, -4.0, 5.0]);
    let (min, max) = (-9.0f32, -4.0f32);
    let cases = [
        ("learned", Activation::Sqrt, [1.0, 0.0], &variance[..2]),
        ("learned_range", Activation::Exp, [(max - min) / 4.0, (max + min) / 4.0], &variance[..]),
        ("no noise", Activation::Sqrt, [0.0, 0.0], &variance[..]),
    ];
    for (what, deviation, line, variance) in cases {
        let shape = [1, variance.len(), 1, 1];
        let graph = graph(|root| {
            let (noise, v) = (root.input("noise", &shape).unwrap(), root.input("v", &shape).unwrap());
            root.learned_noise(noise, v, root.input("line", &[2]).unwrap(), deviation).unwrap()
        });
        let mut pair = Pair::new(&device, &graph, Encoding::F32, &mut random);
        pair.write("noise", &z[..variance.len()]);
        pair.write("v", variance);
        pair.write("line", &line);
        pair.agree(F32_TOLERANCE, what);
        for ((&v, z), found) in variance.iter().zip(z).zip(pair.twin.read("out").unwrap()) {
            let share = (v + 1.0) / 2.0;
            let expected = match what {
                "learned" => z * v.sqrt(),
                "learned_range" => z * (0.5 * (share * max + (1.0 - share) * min)).exp(),
                _ => 0.0,
            };
            assert!((found - expected).abs() < 1e-6, "{what} of {v}: {found}, expected {expected}");
        }
    }
}

#[test]
fn what_a_mask_covers_is_the_sample_and_the_rest_the_noised_image() {
    let (device, mut random) = (device(), Random(28));
    let shape = [2, 3, 4, 5];
    let graph = graph(|root| {
        let number = |name: &str| root.input(name, &[1, 1, 1, 1]).unwrap();
        let [x, image, noise] = ["x", "image", "noise"].map(|name| root.input(name, &shape).unwrap());
        let mask = root.input("mask", &[1, 1, 4, 5]).unwrap();
        let scaled = root.mul(image, number("a")).unwrap();
        let known = root.add(scaled, root.mul(noise, number("b")).unwrap()).unwrap();
        let outside = root.mul(known, root.affine(mask, -1.0, 1.0).unwrap()).unwrap();
        root.add(outside, root.mul(x, mask).unwrap()).unwrap()
    });
    let mut pair = Pair::new(&device, &graph, Encoding::F32, &mut random);
    let mask: Vec<f32> = (0..20).map(|i| (i % 3 == 0) as u8 as f32).collect();
    let [x, image, noise] = [(); 3].map(|()| random.normals(120));
    for (name, values) in [("mask", &mask), ("x", &x), ("image", &image), ("noise", &noise)] {
        pair.write(name, values);
    }
    pair.write("a", &[0.5]);
    pair.write("b", &[2.0]);
    pair.agree(F32_TOLERANCE, "an inpainting step");
    for (index, found) in pair.twin.read("out").unwrap().iter().enumerate() {
        let expected = if mask[index % 20] == 1.0 { x[index] } else { 0.5 * image[index] + 2.0 * noise[index] };
        assert!((found - expected).abs() < 1e-6, "{index}: {found}, expected {expected}");
    }
}

#[test]
fn operands_of_guidance_and_thresholds_that_do_not_fit_are_refused() {
    let builder = Builder::new();
    let root = builder.root();
    let coefficients = root.input("coefficients", &[update::COEFFICIENTS]).unwrap();
    let message = |result: Result<NodeId, undiffuse::graph::Error>| result.unwrap_err().to_string();
    let odd = root.input("odd", &[3, 2]).unwrap();
    let error = message(root.guidance(odd, coefficients, 0.5));
    assert!(error.contains("two halves of a batch, got [3, 2]"), "{error}");
    let even = root.input("even", &[2, 2]).unwrap();
    let error = message(root.guidance(even, odd, 0.5));
    assert!(error.contains("coefficients of shape [3, 2]"), "{error}");
    let error = message(root.guidance(even, coefficients, 1.5));
    assert!(error.contains("rescaled by 1.5"), "{error}");
    let error = message(root.threshold(even, 1.1, 1.0));
    assert!(error.contains("the quantile 1.1"), "{error}");
    let error = message(root.threshold(even, 0.9, f32::NAN));
    assert!(error.contains("at most NaN"), "{error}");
}

#[test]
fn pixels_are_packed_as_on_the_cpu_halves_to_even() {
    let (device, mut random) = (device(), Random(16));
    for channels in [1, 3] {
        let graph = graph(|root| root.pack_rgba8(root.input("x", &[2, channels, 16, 17]).unwrap()).unwrap());
        let mut pair = Pair::new(&device, &graph, Encoding::F32, &mut random);
        // Levels and the exact middles between them, and what lies outside.
        let n = 2 * channels * 16 * 17;
        let values: Vec<f32> = (0..n).map(|i| (i as f32 * 0.5 - 20.0) / 127.5 - 1.0).collect();
        pair.write("x", &values);
        pair.agree(0.0, &format!("{channels} channels"));
    }
}

#[test]
fn a_network_reuses_memory_and_runs_again_with_new_inputs() {
    let (device, mut random) = (device(), Random(17));
    let graph = graph(|root| {
        let mut x = root.input("x", &[2, 8, 8, 16]).unwrap();
        for layer in 0..8 {
            let scope = root.at(format!("layers.{layer}"));
            let h = scope.at("norm").group_norm(x, 4, 1e-5).unwrap();
            let h = scope.activate(h, Activation::Silu).unwrap();
            let h = scope.at("conv").conv2d(h, Conv2dOptions::same(16, 3)).unwrap();
            x = scope.add(h, x).unwrap();
        }
        let tokens = root.reshape(x, &[2, 64, 16]).unwrap();
        root.at("out").linear(tokens, 5, true).unwrap()
    });
    for graph in [fuse(&graph), graph] {
        let mut pair = Pair::new(&device, &graph, Encoding::F16, &mut random);
        for run in 0..3 {
            pair.agree(F32_TOLERANCE, &format!("run {run}"));
            pair.write("x", &random.normals(2 * 8 * 8 * 16));
        }
        let memory = pair.gpu.memory();
        assert!(memory.activation_bytes * 2 < memory.unplanned_bytes, "{memory:?}");
    }
}

#[test]
fn an_output_is_copied_to_an_input_without_leaving_the_gpu() {
    let (device, mut random) = (device(), Random(18));
    let graph = graph(|root| root.affine(root.input("x", &[33]).unwrap(), 2.0, 1.0).unwrap());
    let program = Pair::new(&device, &graph, Encoding::F32, &mut random).gpu;
    program.write("x", &[1.0; 33]).unwrap();
    for _ in 0..3 {
        program.run().unwrap();
        program.copy_input("x", &program, "out").unwrap();
    }
    assert_eq!(floats(&pollster::block_on(program.read(&["out"])).unwrap()[0]), [15.0; 33]);
}

#[test]
fn what_is_run_after_a_read_has_begun_does_not_change_what_is_read() {
    let (device, mut random) = (device(), Random(19));
    let graph = graph(|root| root.affine(root.input("x", &[3]).unwrap(), 1.0, 0.5).unwrap());
    let program = Pair::new(&device, &graph, Encoding::F32, &mut random).gpu;
    program.write("x", &[1.0; 3]).unwrap();
    program.run().unwrap();
    let pending = program.begin_read(&["out"]).unwrap();
    program.write("x", &[2.0; 3]).unwrap();
    program.run().unwrap();
    assert_eq!(floats(&pollster::block_on(pending.finish()).unwrap()[0]), [1.5; 3]);
}

/// Three layers, of which the second has a NaN or an infinity among its weights.
fn damaged(device: &gpu::Device, value: f32, pack: bool) -> gpu::Program {
    let graph = graph(|root| {
        let mut x = root.input("x", &[1, 6, 6, 3]).unwrap();
        for layer in 0..3 {
            x = root.at(format!("blocks.{layer}.conv")).conv2d(x, Conv2dOptions::same(3, 3)).unwrap();
        }
        if !pack {
            return x;
        }
        let pixels = root.pack_rgba8(root.permute(x, &[0, 3, 1, 2]).unwrap()).unwrap();
        // What comes later takes over the memory of what was packed.
        let mut later = root.input("later", &[108]).unwrap();
        for _ in 0..3 {
            later = root.affine(later, 1.0, 1.0).unwrap();
        }
        root.output("later", later);
        pixels
    });
    let mut weights = gpu::Weights::new(device, graph.weights());
    for (index, mut values) in weight_values(&graph, &mut Random(20)).into_iter().enumerate() {
        if graph.weights()[index].name == "blocks.1.conv.weight" {
            values[7] = value;
        }
        weights.put(index, Encoding::F32, &encode(Encoding::F32, &values)).unwrap();
    }
    pollster::block_on(weights.finish()).unwrap();
    let program = pollster::block_on(gpu::Program::compile(device, &graph, &[Rc::new(weights)])).unwrap();
    program.write("x", &[1.0; 108]).unwrap();
    program
}

#[test]
fn a_value_that_is_not_finite_is_reported_with_the_layer_that_made_it() {
    let device = device();
    for pack in [false, true] {
        for value in [f32::NAN, f32::NEG_INFINITY] {
            let program = damaged(&device, value, pack);
            program.run().unwrap();
            let error = pollster::block_on(program.read(&["out"])).unwrap_err();
            assert_eq!(error, gpu::Error::NonFinite { path: "blocks.1.conv".into(), op: "conv2d" });
        }
    }
}

#[test]
fn an_input_that_is_not_finite_is_reported_as_such() {
    let device = device();
    let program = damaged(&device, 0.5, false);
    let mut x = [1.0; 108];
    program.run().unwrap();
    pollster::block_on(program.read(&["out"])).unwrap();
    x[100] = f32::INFINITY;
    program.write("x", &x).unwrap();
    program.run().unwrap();
    let error = pollster::block_on(program.read(&["out"])).unwrap_err();
    assert_eq!(error, gpu::Error::NonFinite { path: "x".into(), op: "input" });
}

#[test]
fn a_nan_does_not_vanish_in_attention_or_an_activation() {
    let devices = devices_with_all_attention_kernels();
    let attention = graph(|root| {
        let [q, k, v] = ["q", "k", "v"].map(|name| root.input(name, &[1, 5, 8]).unwrap());
        root.attention(q, k, v, 2, false).unwrap()
    });
    let relu = graph(|root| root.activate(root.input("q", &[1, 5, 8]).unwrap(), Activation::Relu).unwrap());
    for (graph, (_, device)) in
        [&attention, &relu].into_iter().flat_map(|graph| devices.iter().map(move |d| (graph, d)))
    {
        for value in [f32::NAN, f32::INFINITY] {
            let program = Pair::new(device, graph, Encoding::F32, &mut Random(21)).gpu;
            let mut q = [0.5; 40];
            q[11] = value;
            program.write("q", &q).unwrap();
            program.run().unwrap();
            let error = pollster::block_on(program.read(&["out"])).unwrap_err();
            assert_eq!(error, gpu::Error::NonFinite { path: "q".into(), op: "input" });
        }
    }
}

#[test]
fn a_graph_over_the_limits_is_refused_with_the_tensors_name() {
    let device = device();
    let limit = device.limits().binding_bytes as usize;
    if limit / 4 > u32::MAX as usize / 8 {
        println!("skipped: this adapter's buffers are larger than a tensor may be");
        return;
    }
    let graph = graph(|root| {
        let x = root.input("x", &[limit / 16, 2]).unwrap();
        root.at("grow").affine(root.concat(&[x, x, x], 1).unwrap(), 1.0, 0.0).unwrap()
    });
    let weights = Rc::new(gpu::Weights::new(&device, graph.weights()));
    let before = device.allocated_bytes();
    let error = pollster::block_on(gpu::Program::compile(&device, &graph, &[weights])).unwrap_err();
    assert!(matches!(&error, gpu::Error::TooLarge { bytes, .. } if *bytes > limit as u64), "{error}");
    assert_eq!(device.allocated_bytes(), before);
}

#[test]
fn memory_is_given_back_when_programs_and_weights_are_destroyed() {
    let device = device();
    let program = damaged(&device, 0.5, false);
    assert!(device.allocated_bytes() >= program.memory().activation_bytes + program.memory().weight_bytes);
    program.run().unwrap();
    pollster::block_on(program.read(&["out"])).unwrap();
    let weights = program.memory().weight_bytes;
    program.destroy();
    assert_eq!(device.allocated_bytes(), weights);
    assert_eq!(program.run().unwrap_err(), gpu::Error::Destroyed("network"));
    drop(program);
    assert_eq!(device.allocated_bytes(), 0);
}

#[test]
fn a_program_whose_weights_were_destroyed_says_so() {
    let device = device();
    let graph = graph(|root| root.at("linear").linear(root.input("x", &[3, 5]).unwrap(), 7, true).unwrap());
    let mut weights = gpu::Weights::new(&device, graph.weights());
    for (index, values) in weight_values(&graph, &mut Random(21)).iter().enumerate() {
        weights.put(index, Encoding::F32, &encode(Encoding::F32, values)).unwrap();
    }
    let weights = Rc::new(weights);
    let program = pollster::block_on(gpu::Program::compile(&device, &graph, std::slice::from_ref(&weights))).unwrap();
    weights.destroy();
    assert_eq!(program.run().unwrap_err(), gpu::Error::Destroyed("checkpoint"));
    assert!(pollster::block_on(gpu::Program::compile(&device, &graph, &[weights])).is_err());
}

#[test]
fn a_lost_device_is_reported_by_every_later_call() {
    let device = device();
    let program = damaged(&device, 0.5, false);
    program.run().unwrap();
    device.destroy();
    let is_lost = |error: gpu::Error| assert!(matches!(error, gpu::Error::DeviceLost { .. }), "{error}");
    is_lost(pollster::block_on(program.read(&["out"])).unwrap_err());
    is_lost(program.run().unwrap_err());
    is_lost(program.write("x", &[0.0; 108]).unwrap_err());
    is_lost(program.copy_input("x", &program, "out").unwrap_err());
    is_lost(device.check().unwrap_err());
}

#[test]
fn data_of_the_wrong_length_and_unknown_names_are_refused() {
    let device = device();
    let program = damaged(&device, 0.5, false);
    let expected = gpu::Error::InputLength { name: "x".into(), expected: 108, found: 3 };
    assert_eq!(program.write("x", &[0.0; 3]).unwrap_err(), expected);
    assert!(matches!(program.write("y", &[]).unwrap_err(), gpu::Error::Graph(_)));
    assert!(matches!(pollster::block_on(program.read(&["y"])).unwrap_err(), gpu::Error::Graph(_)));
    let mut weights = gpu::Weights::new(&device, program.graph().weights());
    let error = weights.put(0, Encoding::F32, &[0; 8]).unwrap_err();
    assert!(error.to_string().contains("blocks.0.conv.weight"), "{error}");
    let error = weights.put(0, Encoding::U8, &[0; 81]).unwrap_err();
    assert!(error.to_string().contains("U8"), "{error}");
    let weights = [Rc::new(weights)];
    let error = pollster::block_on(gpu::Program::compile(&device, program.graph(), &weights)).unwrap_err();
    assert_eq!(error, gpu::Error::MissingWeight("blocks.0.conv.weight".into()));
}

#[test]
fn a_device_tells_what_its_kernels_were_compiled_from() {
    let device = device_with(gpu::DeviceOptions { kernels: Some(MatrixKernels::Registers), ..Default::default() });
    assert_eq!(device.sources(), []);
    let graph = graph(|root| {
        let x = root.input("x", &[1, 4, 4, 8]).unwrap();
        root.activate(root.at("norm").group_norm(x, 2, 1e-5).unwrap(), Activation::Gelu).unwrap()
    });
    Pair::new(&device, &fuse(&graph), Encoding::F32, &mut Random(73));
    let sources = device.sources();
    let names: Vec<_> = sources.iter().map(|source| source.name.as_str()).collect();
    assert_eq!(names, ["combine", "moments (Aligned)", "non_finite", "normalize_pixels (Aligned, Gelu)"]);
    assert_eq!(sources[3].constants, [("ACTIVATION", 2.0)]);
    for source in &sources {
        let module = naga::front::wgsl::parse_str(&source.wgsl).unwrap();
        let entry = source.name.split(' ').next().unwrap();
        assert!(module.entry_points.iter().any(|found| found.name == entry), "{}", source.name);
    }
}

#[test]
fn a_profile_has_the_time_and_cost_of_every_node_and_leaves_the_outputs_as_they_were() {
    let device = device();
    let graph = graph(|root| {
        let x = root.input("x", &[1, 16, 16, 32]).unwrap();
        let h = root.at("norm").group_norm(x, 8, 1e-5).unwrap();
        let h = root.at("conv").conv2d(h, Conv2dOptions::same(32, 3)).unwrap();
        let tokens = root.reshape(h, &[1, 256, 32]).unwrap();
        root.at("attn").attention(tokens, tokens, tokens, 4, false).unwrap()
    });
    let mut pair = Pair::new(&device, &graph, Encoding::F16, &mut Random(71));
    pair.write("x", &Random(72).normals(16 * 16 * 32));
    pair.gpu.run().unwrap();
    let before = pollster::block_on(pair.gpu.read(&["out"])).unwrap();
    let profile = pollster::block_on(pair.gpu.profile()).unwrap();
    assert!(pollster::block_on(pair.gpu.read(&["out"])).unwrap() == before, "the profile has changed the output");

    let found: Vec<_> = profile.nodes.iter().map(|node| (node.path.as_str(), node.op, node.kernel.as_str())).collect();
    assert_eq!(
        found[0],
        ("norm", "group_norm", "moments (Aligned), combine, normalize_pixels (Aligned, no activation)")
    );
    assert_eq!((found[1].0, found[1].1, found.len()), ("conv", "conv2d", 3));
    // Weights count as they are stored: half precision, a bias in single.
    let conv = &profile.nodes[1].cost;
    assert_eq!(conv.multiply_adds, 16 * 16 * 32 * 32 * 9);
    assert_eq!(conv.bytes, 4 * 2 * (16 * 16 * 32) + 2 * 32 * 32 * 9 + 4 * 32);
    assert!(profile.nodes.iter().all(|node| node.seconds > 0.0), "{:?}", profile.nodes);
    let sum: f64 = profile.nodes.iter().map(|node| node.seconds).sum();
    // Another program may take the processor meanwhile: only that both are of one magnitude is sure.
    assert!(sum < 10.0 * profile.whole && profile.whole < 10.0 * sum, "{sum} s in nodes, {} s in all", profile.whole);
}

#[test]
fn a_device_is_measured_once_and_between_bounds_that_no_machine_exceeds() {
    let device = device();
    let ceilings = pollster::block_on(device.ceilings()).unwrap();
    println!("{ceilings:?}");
    assert!((1e8..1e16).contains(&ceilings.flop_per_second), "{ceilings:?}");
    assert!((1e8..1e14).contains(&ceilings.bytes_per_second), "{ceilings:?}");
    assert_eq!(pollster::block_on(device.ceilings()).unwrap(), ceilings, "measured again");
}
