//! The times of a network's nodes, next to what they would take on a device that did nothing but arithmetic or nothing but
//! moving bytes: the roofline (Williams, Waterman & Patterson 2009, doi 10.1145/1498765.1498785).

use serde_json::{Value, json};

use crate::graph::{Cost, Graph, NodeId, WeightId};
use crate::order::sort_floats;

/// The most that a device can do, as measured on this very device.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Ceilings {
    /// Floating point operations a second: a loop of multiply-adds in f32 without any memory traffic.
    pub flop_per_second: f64,
    /// Floating point operations a second in f16; `None` if the device does not compute in it.
    pub half_flop_per_second: Option<f64>,
    /// Bytes read and written a second: a copy that is larger than the caches.
    pub bytes_per_second: f64,
}

impl Ceilings {
    /// The least time that `cost` takes under these ceilings, in seconds.
    pub fn seconds(&self, cost: Cost) -> f64 {
        (cost.flop as f64 / self.flop_per_second).max(cost.bytes as f64 / self.bytes_per_second)
    }
}

/// The clock by which times were taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Clock {
    /// The GPU's own timestamps before and after each node.
    Timestamps,
    /// Waits for each node; what an empty wait takes is subtracted.
    Waits,
    /// The processor's clock around each node.
    Processor,
}

impl Clock {
    /// The clock's name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Clock::Timestamps => "timestamps",
            Clock::Waits => "waits",
            Clock::Processor => "processor",
        }
    }
}

/// The measurements of an executor.
#[derive(Clone, PartialEq, Debug)]
pub struct Times {
    /// The clock by which times were taken.
    pub clock: Clock,
    /// Seconds that the whole network takes as it usually runs, typical of several runs.
    pub whole: f64,
    /// The nodes that do something, in execution order.
    pub nodes: Vec<NodeTime>,
}

/// The time of one node.
#[derive(Clone, PartialEq, Debug)]
pub struct NodeTime {
    /// The node.
    pub node: NodeId,
    /// The kernels that compute it, with their variants.
    pub kernel: String,
    /// Seconds, typical of several runs.
    pub seconds: f64,
}

/// A network's times with what explains them.
#[derive(Clone, PartialEq, Debug)]
pub struct Profile {
    /// The clock by which times were taken.
    pub clock: Clock,
    /// The most that the device can do.
    pub ceilings: Ceilings,
    /// Seconds that the whole network takes as it usually runs.
    pub whole: f64,
    /// The nodes that do something, in execution order.
    pub nodes: Vec<NodeProfile>,
}

/// One node of a [`Profile`].
#[derive(Clone, PartialEq, Debug)]
pub struct NodeProfile {
    /// Module path, such as `down_blocks.1.resnets.0.conv1`.
    pub path: String,
    /// The op's name.
    pub op: &'static str,
    /// Shape of the result.
    pub shape: Vec<usize>,
    /// The kernels that compute it, with their variants.
    pub kernel: String,
    /// Seconds.
    pub seconds: f64,
    /// Arithmetic and traffic of the node.
    pub cost: Cost,
    /// The least time that it could take on this device as a share of the time that it takes. Above 1 where its operands are
    /// still in a cache, which the ceiling of bytes leaves out.
    pub roofline: f64,
}

impl Profile {
    /// Joins what was measured of `graph` with what it costs; `weight_bytes` says what a weight takes on the device.
    pub fn new(graph: &Graph, times: Times, ceilings: Ceilings, weight_bytes: impl Fn(WeightId) -> u64) -> Self {
        let Times { clock, whole, nodes } = times;
        let join = |NodeTime { node: id, kernel, seconds }: NodeTime| {
            let node = graph.node(id);
            let cost = graph.cost(id, &weight_bytes);
            // A clock may find that a node takes no time at all, and JSON knows no infinity.
            let roofline = Some(ceilings.seconds(cost) / seconds).filter(|share| share.is_finite()).unwrap_or(1.0);
            let (path, op, shape) = (node.path.clone(), node.op.name(), node.shape.clone());
            NodeProfile { path, op, shape, kernel, seconds, cost, roofline }
        };
        Self { clock, ceilings, whole, nodes: nodes.into_iter().map(join).collect() }
    }

    /// The profile as JSON: `Profile` of index.d.ts.
    pub fn to_json(&self) -> Value {
        let nodes = self.nodes.iter().map(|node| {
            json!({
                "path": node.path,
                "op": node.op,
                "shape": node.shape,
                "kernel": node.kernel,
                "milliseconds": node.seconds * 1e3,
                "multiplyAdds": node.cost.multiply_adds,
                "flop": node.cost.flop,
                "bytes": node.cost.bytes,
                "roofline": node.roofline,
            })
        });
        json!({
            "clock": self.clock.name(),
            "milliseconds": self.whole * 1e3,
            "ceilings": {
                "flopPerSecond": self.ceilings.flop_per_second,
                "halfFlopPerSecond": self.ceilings.half_flop_per_second,
                "bytesPerSecond": self.ceilings.bytes_per_second,
            },
            "nodes": nodes.collect::<Value>(),
        })
    }
}

/// The mean of several times but for the slowest quarter, during which something else had the device; 0 of none. A median would
/// be one of the few values that a browser's clock has.
pub(crate) fn typical(mut times: Vec<f64>) -> f64 {
    sort_floats(&mut times);
    times.truncate(times.len() - times.len() / 4);
    times.iter().sum::<f64>() / times.len().max(1) as f64
}

/// Seconds since an arbitrary moment.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn now() -> f64 {
    use std::sync::OnceLock;
    use std::time::Instant;
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_secs_f64()
}

/// Seconds since an arbitrary moment. The standard library has no clock in a browser.
#[cfg(target_arch = "wasm32")]
pub(crate) fn now() -> f64 {
    #[wasm_bindgen::prelude::wasm_bindgen]
    extern "C" {
        #[wasm_bindgen::prelude::wasm_bindgen(js_namespace = performance, js_name = now)]
        fn milliseconds() -> f64;
    }
    milliseconds() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Activation, Builder};

    const CEILINGS: Ceilings = Ceilings { flop_per_second: 1e9, half_flop_per_second: None, bytes_per_second: 1e8 };

    /// The roofline share of `seconds` for a linear layer of 100 inputs and outputs over `rows` rows.
    fn roofline(rows: usize, seconds: f64) -> f64 {
        let builder = Builder::new();
        let root = builder.root();
        let x = root.input("x", &[rows, 100]).expect("an input");
        let node = root.at("proj").linear(x, 100, false).expect("a layer");
        let graph = builder.finish();
        let times = Times {
            clock: Clock::Processor,
            whole: seconds,
            nodes: vec![NodeTime { node, kernel: "linear".to_owned(), seconds }],
        };
        Profile::new(&graph, times, CEILINGS, |id| graph.full_bytes(id)).nodes[0].roofline
    }

    #[test]
    fn many_rows_are_held_against_the_arithmetic_and_few_against_the_bytes() {
        // 2·1000·100·100 FLOP in 20 ms at 10⁹ a second; 840 kB in 8.4 ms at 10⁸.
        assert!((roofline(1000, 0.04) - 0.5).abs() < 1e-9);
        // 20 kFLOP; 40 kB of weights and 800 B of rows.
        assert!((roofline(1, 0.000816) - 0.5).abs() < 1e-9);
    }

    #[test]
    fn a_node_that_takes_no_time_is_at_the_roofline() {
        assert_eq!(roofline(1, 0.0), 1.0);
    }

    #[test]
    fn a_profile_in_json_names_each_node_with_its_cost() {
        let builder = Builder::new();
        let root = builder.root();
        let x = root.input("x", &[2, 4]).expect("an input");
        let node = root.at("act").activate(x, Activation::Silu).expect("an activation");
        let times = Times {
            clock: Clock::Waits,
            whole: 0.002,
            nodes: vec![NodeTime { node, kernel: "activation (Silu)".to_owned(), seconds: 0.001 }],
        };
        let json = Profile::new(&builder.finish(), times, CEILINGS, |_| 0).to_json();
        let expected = json!({
            "path": "act", "op": "activate", "shape": [2, 4], "kernel": "activation (Silu)", "milliseconds": 1.0,
            "multiplyAdds": 0, "flop": 8, "bytes": 64, "roofline": 64.0 / 1e8 / 0.001,
        });
        assert_eq!(json["nodes"][0], expected);
        assert_eq!((&json["clock"], &json["milliseconds"]), (&json!("waits"), &json!(2.0)));
    }

    #[test]
    fn a_typical_time_leaves_out_the_slowest() {
        assert_eq!(typical(vec![5.0, 1.0, 90.0, 3.0]), 3.0);
        assert_eq!(typical(vec![2.0, 4.0]), 3.0);
        assert_eq!(typical(Vec::new()), 0.0);
    }
}
