//! The work of known networks, counted.
#![cfg(not(target_arch = "wasm32"))]

use std::fs;

use undiffuse::graph::{Graph, Op, fuse};
use undiffuse::models::{Unet2dConditionConfig, Unet2dConditionInputs, Unet2dConfig};

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
