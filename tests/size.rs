//! A checkpoint of real size: the published config of Stable Diffusion 1.5's UNet with random f16 weights, and small other parts.
//! It takes 1.7 GB of disk and minutes of time, and is run by `cargo xtask test --only size` alone; the browser's half is
//! `tests/size/size.test.js`, on the files that this leaves.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Instant;

use half::f16;
use pollster::block_on;
use serde_json::{Map, Value, json};
use undiffuse::device::Device;
use undiffuse::gpu;
use undiffuse::graph::fuse;
use undiffuse::models::{AutoencoderKlConfig, ClipTextConfig, Unet2dConditionConfig, Unet2dConditionInputs};
use undiffuse::pipeline::{Checkpoint, OpenOptions, Preview, SampleOptions};
use undiffuse::weights::{DirectorySource, Encoding};

/// Pixels of a side: a 16×16 latent.
const SIDE: usize = 128;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn unet_config() -> String {
    fs::read_to_string(root().join("tests/published/stable-diffusion-v1-5.unet.json")).expect("a published config")
}

fn unet_graph(side: usize) -> undiffuse::graph::Graph {
    let config = Unet2dConditionConfig::from_json(&unet_config()).expect("the UNet's config");
    let inputs = Unet2dConditionInputs { batch: 2, height: side, width: side, tokens: 77, timestep_cond: false };
    fuse(&config.graph(inputs).expect("the UNet"))
}

/// Tensors by name, with their shapes.
type Tensors = Vec<(String, Vec<usize>)>;

fn tensors_of(graph: &undiffuse::graph::Graph) -> Tensors {
    graph.weights().iter().map(|spec| (spec.name.clone(), spec.shape.clone())).collect()
}

/// Writes a safetensors file of random f16 with the spread that keeps a network's values near one.
fn write_random(path: &Path, tensors: &Tensors) {
    let mut header = Map::new();
    let mut at = 0;
    for (name, shape) in tensors {
        let end = at + 2 * shape.iter().product::<usize>();
        header.insert(name.clone(), json!({ "dtype": "F16", "shape": shape, "data_offsets": [at, end] }));
        at = end;
    }
    let header = Value::from(header).to_string();
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path).expect("a file in target/"));
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    let mut state = 1u64;
    for (name, shape) in tensors {
        let (spread, centre) = match &shape[..] {
            [_] if name.ends_with("weight") => (0.1, 1.0),
            [_] => (0.1, 0.0),
            [_, inputs @ ..] => (1.0 / (inputs.iter().product::<usize>() as f32).sqrt(), 0.0),
            [] => (0.0, 0.0),
        };
        // One of 4096 numbers from -√3 to √3, whose mean square is one.
        let number = |i: usize| f16::from_f32(centre + spread * 1.732 * (i as f32 / 2048.0 - 1.0)).to_le_bytes();
        let numbers: Vec<[u8; 2]> = (0..4096).map(number).collect();
        for _ in 0..shape.iter().product::<usize>() {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            file.write_all(&numbers[(state >> 52) as usize]).unwrap();
        }
    }
    file.flush().unwrap();
}

/// The folder of the checkpoint, which is written the first time.
fn checkpoint() -> PathBuf {
    let folder = root().join("target/size");
    let write = |file: &str, text: &str| {
        let path = folder.join(file);
        fs::create_dir_all(path.parent().unwrap()).expect("a folder in target/");
        fs::write(path, text).expect("a file in target/");
    };
    let emoji64 = root().join("www/models/emoji64");
    for file in [
        "model_index.json",
        "scheduler/scheduler_config.json",
        "tokenizer/vocab.json",
        "tokenizer/merges.txt",
        "tokenizer/tokenizer_config.json",
        "tokenizer/special_tokens_map.json",
    ] {
        write(file, &fs::read_to_string(emoji64.join(file)).expect("a file of the model that comes with the site"));
    }
    let text_encoder = json!({
        "architectures": ["CLIPTextModel"], "hidden_size": 768, "intermediate_size": 768, "num_attention_heads": 12,
        "num_hidden_layers": 1, "max_position_embeddings": 77, "vocab_size": 3292, "hidden_act": "quick_gelu",
        "bos_token_id": 3290, "eos_token_id": 3291, "layer_norm_eps": 1e-5
    });
    let vae = json!({
        "_class_name": "AutoencoderKL", "in_channels": 3, "out_channels": 3, "latent_channels": 4,
        "block_out_channels": [32, 32, 32, 32], "layers_per_block": 1, "norm_num_groups": 16, "act_fn": "silu",
        "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D"],
        "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"],
        "scaling_factor": 0.18215, "sample_size": 512
    });
    write("unet/config.json", &unet_config());
    write("text_encoder/config.json", &text_encoder.to_string());
    write("vae/config.json", &vae.to_string());

    let text_config = ClipTextConfig::from_json(&text_encoder.to_string()).expect("the text encoder's config");
    let mut text = tensors_of(&text_config.graph(1, 77).expect("the text encoder"));
    text.push(("embeddings.token_embedding.weight".to_owned(), vec![3292, 768]));
    text.push(("embeddings.position_embedding.weight".to_owned(), vec![77, 768]));
    write_random(&folder.join("text_encoder/model.safetensors"), &text);

    let vae_config = AutoencoderKlConfig::from_json(&vae.to_string()).expect("the autoencoder's config");
    let mut pixels = tensors_of(&vae_config.encoder(1, SIDE, SIDE).expect("the encoder"));
    pixels.extend(tensors_of(&vae_config.decoder(1, SIDE / 8, SIDE / 8).expect("the decoder")));
    write_random(&folder.join("vae/diffusion_pytorch_model.safetensors"), &pixels);

    let unet = tensors_of(&unet_graph(SIDE / 8));
    let bytes: usize = unet.iter().map(|(_, shape)| 2 * shape.iter().product::<usize>()).sum();
    let path = folder.join("unet/diffusion_pytorch_model.safetensors");
    if fs::metadata(&path).map_or(0, |metadata| metadata.len()) < bytes as u64 {
        write_random(&path, &unet);
    }
    folder
}

fn device() -> gpu::Device {
    block_on(gpu::Device::request(gpu::DeviceOptions::default())).unwrap_or_else(|error| {
        panic!("{error}; these tests need a GPU or a software adapter: on Debian, apt-get install mesa-vulkan-drivers")
    })
}

/// The most memory that this process has had, where the system tells.
fn peak_memory() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    peak.map_or("unknown".to_owned(), |peak| peak.trim().to_owned())
}

#[test]
#[ignore = "takes minutes and 1.7 GB of disk: cargo xtask test --only size"]
fn stable_diffusion_1_5_loads_and_makes_a_step_natively() {
    let source = DirectorySource::new(checkpoint());
    let device = device();
    let before = peak_memory();
    let start = Instant::now();
    let checkpoint = block_on(Checkpoint::open(&source, &OpenOptions::default())).expect("a checkpoint");
    let pipeline = block_on(checkpoint.load(Device::Gpu(device.clone()), &mut |_| {})).expect("a pipeline");
    let loaded = start.elapsed();
    let weights = device.allocated_bytes();

    let options = SampleOptions {
        prompt: "a fox".into(),
        steps: 1,
        width: Some(SIDE),
        height: Some(SIDE),
        preview: Preview::None,
        ..SampleOptions::default()
    };
    let start = Instant::now();
    let mut sampler = block_on(pipeline.sampler(options)).expect("a run");
    let compiled = start.elapsed();
    let start = Instant::now();
    let output = block_on(sampler.step()).expect("a step").expect("one step");
    println!(
        "{}: load {:.1} s, compile {:.1} s, a step with guidance at {SIDE}×{SIDE} pixels {:.1} s; \
         weights {:.0} MB, all buffers {:.0} MB; process at most {} (before: {before})",
        device.info().adapter,
        loaded.as_secs_f64(),
        compiled.as_secs_f64(),
        start.elapsed().as_secs_f64(),
        weights as f64 / 1e6,
        device.allocated_bytes() as f64 / 1e6,
        peak_memory(),
    );
    assert_eq!((output.index, output.total), (0, 1));
}

#[test]
#[ignore = "takes 1.7 GB of memory: cargo xtask test --only size"]
fn the_memory_plan_is_what_the_device_allocates() {
    let device = device();
    // A picture of the model's own size: a 64×64 latent.
    let graph = unet_graph(64);
    let mut weights = gpu::Weights::new(&device, graph.weights());
    let mut planned = 0;
    for (index, spec) in graph.weights().iter().enumerate() {
        let bytes = Encoding::F16.bytes_of(spec.shape.iter().product()).unwrap();
        planned += bytes as u64;
        weights.begin(index, Encoding::F16).unwrap();
        let zeros = vec![0; 1 << 20];
        (0..bytes).step_by(zeros.len()).for_each(|at| weights.chunk(&zeros[..zeros.len().min(bytes - at)]).unwrap());
        weights.end().unwrap();
    }
    block_on(weights.finish()).unwrap();
    let program = block_on(gpu::Program::compile(&device, &graph, &[Rc::new(weights)])).unwrap();
    let memory = program.memory();
    let planned = planned + memory.activation_bytes + memory.parameter_bytes;
    let allocated = device.allocated_bytes();
    println!(
        "planned {:.1} MB, allocated {:.1} MB: {memory:?}, without a plan the activations would take {:.1} MB",
        planned as f64 / 1e6,
        allocated as f64 / 1e6,
        memory.unplanned_bytes as f64 / 1e6,
    );
    assert!(allocated.abs_diff(planned) * 20 <= allocated, "planned {planned}, allocated {allocated}");
}
