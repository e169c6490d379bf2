//! A profile summed over the nodes of each op.

use serde_json::{Value, json};
use undiffuse::profile::{NodeProfile, Profile};

/// For each op, the one that takes longest first: its nodes, their time, arithmetic and traffic, and the share of the roofline that
/// they reach together. With it the device's ceilings and what the nodes' times leave of a whole step.
pub fn by_kind(profile: &Profile) -> Value {
    let mut kinds: Vec<(&str, Vec<&NodeProfile>)> = Vec::new();
    for node in &profile.nodes {
        match kinds.iter_mut().find(|(op, _)| *op == node.op) {
            Some((_, nodes)) => nodes.push(node),
            None => kinds.push((node.op, vec![node])),
        }
    }
    let seconds = |nodes: &[&NodeProfile]| nodes.iter().map(|node| node.seconds).sum::<f64>();
    kinds.sort_by(|(_, one), (_, other)| seconds(other).total_cmp(&seconds(one)));
    let kinds = kinds.iter().map(|(op, nodes)| {
        let least: f64 = nodes.iter().map(|node| profile.ceilings.seconds(node.cost)).sum();
        json!({
            "op": op,
            "nodes": nodes.len(),
            "ms": seconds(nodes) * 1e3,
            "gflop": nodes.iter().map(|node| node.cost.flop).sum::<u64>() as f64 / 1e9,
            "gb": nodes.iter().map(|node| node.cost.bytes).sum::<u64>() as f64 / 1e9,
            "roofline": least / seconds(nodes).max(f64::MIN_POSITIVE),
        })
    });
    json!({
        "clock": profile.clock.name(),
        "whole_ms": profile.whole * 1e3,
        "gflops": profile.ceilings.flop_per_second / 1e9,
        "half_gflops": profile.ceilings.half_flop_per_second.map(|rate| rate / 1e9),
        "copy_gb": profile.ceilings.bytes_per_second / 1e9,
        "kinds": kinds.collect::<Value>(),
    })
}

#[cfg(test)]
mod tests {
    use undiffuse::graph::Cost;
    use undiffuse::profile::{Ceilings, Clock};

    use super::*;

    #[test]
    fn nodes_of_an_op_are_summed_and_the_slowest_op_comes_first() {
        let node = |op, seconds, flop| NodeProfile {
            path: String::new(),
            op,
            shape: Vec::new(),
            kernel: String::new(),
            seconds,
            cost: Cost { multiply_adds: 0, flop, bytes: 0 },
            roofline: 0.0,
        };
        let profile = Profile {
            clock: Clock::Waits,
            ceilings: Ceilings { flop_per_second: 1e9, half_flop_per_second: None, bytes_per_second: 1e9 },
            whole: 0.006,
            nodes: vec![
                node("linear", 0.001, 500_000),
                node("conv2d", 0.003, 1_000_000),
                node("linear", 0.001, 500_000),
            ],
        };
        let report = by_kind(&profile);
        assert_eq!(report["kinds"][0]["op"], "conv2d");
        let linear = &report["kinds"][1];
        assert_eq!((&linear["nodes"], &linear["gflop"], &linear["roofline"]), (&json!(2), &json!(0.001), &json!(0.5)));
    }
}
