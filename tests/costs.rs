//! The work of known networks, counted and timed.

use std::fs;

use pollster::block_on;
use undiffuse::cpu::{self, Arithmetic};
use undiffuse::graph::{Graph, Op, fuse};
use undiffuse::models::{Unet2dConditionConfig, Unet2dConditionInputs, Unet2dConfig};
use undiffuse::profile::Clock;
use undiffuse::weights::Encoding;

/// runwayml/stable-diffusion-v1-5.
const SD15: &str = r#"{
    "_class_name": "UNet2DConditionModel", "sample_size": 64, "in_channels": 4, "out_channels": 4,
    "block_out_channels": [320, 640, 1280, 1280], "layers_per_block": 2, "cross_attention_dim": 768,
    "attention_head_dim": 8,
    "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"]
}"#;

/// Multiply-adds in units of 10⁹.
fn giga(graph: &Graph) -> f64 {
    graph.total_cost(|id| graph.full_bytes(id)).multiply_adds as f64 / 1e9
}

fn config(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn conditional(json: &str, side: usize, tokens: usize) -> Graph {
    let config = Unet2dConditionConfig::from_json(json).expect("a config");
    let inputs = Unet2dConditionInputs { batch: 2, height: side, width: side, tokens, timestep_cond: false };
    config.graph(inputs).expect("a network")
}

// The totals are those of hooks on torch's own modules, which count convolutions, linear layers and attention alike.

#[test]
fn emoji64_costs_half_a_giga_for_a_guided_picture() {
    let graph = conditional(&config("www/models/emoji64/unet/config.json"), 16, 32);
    assert_eq!(format!("{:.3}", giga(&graph)), "0.520");
}

#[test]
fn ddpm_cifar10_costs_six_giga_of_which_most_in_3x3_convolutions() {
    let config = Unet2dConfig::from_json(&config("tests/published/ddpm-cifar10-32.unet.json")).expect("a config");
    let graph = config.graph(1, 32, 32).expect("a network");
    assert_eq!(format!("{:.2}", giga(&graph)), "6.22");
    let is_3x3 = |op: &Op| matches!(op, Op::Conv2d { weight, .. } if graph.weight(*weight).shape[2] == 3);
    let in_3x3 = graph.costs(|id| graph.full_bytes(id)).filter(|(node, _)| is_3x3(&node.op));
    let share = in_3x3.map(|(_, cost)| cost.multiply_adds).sum::<u64>() as f64 / 1e9 / giga(&graph);
    assert_eq!(format!("{share:.2}"), "0.88");
}

#[test]
fn stable_diffusion_costs_803_giga_for_a_guided_picture() {
    let graph = conditional(SD15, 64, 77);
    assert_eq!(format!("{:.0}", giga(&graph)), "803");
}

#[test]
fn fusion_leaves_the_multiply_adds_and_moves_fewer_bytes() {
    let graph = conditional(SD15, 64, 77);
    let fused = fuse(&graph);
    let [before, after] = [&graph, &fused].map(|graph| graph.total_cost(|id| graph.full_bytes(id) / 2));
    assert_eq!(before.multiply_adds, after.multiply_adds);
    assert_eq!(before.flop, after.flop);
    assert!(after.bytes < before.bytes, "{} became {}", before.bytes, after.bytes);
}

#[test]
fn a_profile_on_the_cpu_has_the_time_of_every_node_and_leaves_the_outputs_as_they_were() {
    let device = cpu::Device::native(Some(2), Arithmetic::Fused);
    let graph = fuse(&conditional(&config("www/models/emoji64/unet/config.json"), 16, 32));
    let mut weights = cpu::Weights::new(&device, graph.weights()).expect("weights that fit");
    for (index, spec) in graph.weights().iter().enumerate() {
        let count: usize = spec.shape.iter().product();
        let bytes: Vec<u8> = (0..count).flat_map(|i| ((i as f32 * 0.7).sin() * 0.05).to_le_bytes()).collect();
        weights.put(index, Encoding::F32, &bytes).expect("bytes of a weight");
    }
    let mut program = block_on(cpu::Program::new(&device, &graph, &[&weights])).expect("a complete network");
    program.write("sample", &[0.1; 2 * 4 * 16 * 16]).expect("an input");
    block_on(program.run()).expect("finite values");
    let before = program.read("out").expect("an output");

    let profile = block_on(program.profile()).expect("a profile");
    assert!(program.read("out").expect("an output") == before, "the profile has changed the output");
    assert_eq!(profile.clock, Clock::Processor);
    println!("{:?}", profile.ceilings);
    // No machine does less, and none that has two threads does so much.
    assert!((1e8..1e13).contains(&profile.ceilings.flop_per_second), "{:?}", profile.ceilings);
    assert!((1e8..1e13).contains(&profile.ceilings.bytes_per_second), "{:?}", profile.ceilings);
    let all: u64 = profile.nodes.iter().map(|node| node.cost.multiply_adds).sum();
    assert_eq!(format!("{:.3}", all as f64 / 1e9), "0.520");
    let seconds: f64 = profile.nodes.iter().map(|node| node.seconds).sum();
    // Another program may take the processor meanwhile: only that both are of one magnitude is sure.
    assert!(seconds < 10.0 * profile.whole && profile.whole < 10.0 * seconds, "{seconds} s, {} s", profile.whole);
    let convolution = profile.nodes.iter().find(|node| node.op == "conv2d").expect("a convolution");
    assert_eq!((convolution.path.as_str(), convolution.kernel.as_str()), ("conv_in", "Conv2d"));
}
