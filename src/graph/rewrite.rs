//! Rewrites that make a graph cheaper and leave its values as they are.

use super::{BinaryOp, Graph, Node, NodeId, Op};

/// Folds an activation into the group norm before it, and the addition of a residual or a per-channel embedding into
/// the convolution or linear layer before it, wherever nothing else reads the value in between.
pub fn fuse(graph: &Graph) -> Graph {
    let uses = uses(graph);
    let mut nodes = graph.nodes.clone();
    // Where a fused producer's value is found from now on, and which producers are gone.
    let mut absorbed = vec![false; nodes.len()];
    // What is computed behind a step of an optimiser would read weights that it has changed.
    let end = nodes.iter().position(|node| node.op.written_weight().is_some()).unwrap_or(nodes.len());
    for index in 0..end {
        let fused = match nodes[index].op {
            Op::Activate { x, activation } if uses[x.0] == 1 => match nodes[x.0].op.clone() {
                Op::GroupNorm { x: source, weight, bias, groups, eps, activation: None } => {
                    let activation = Some(activation);
                    Some((x, Op::GroupNorm { x: source, weight, bias, groups, eps, activation }))
                }
                _ => None,
            },
            Op::Binary { op: BinaryOp::Add, a, b } => {
                let left = (uses[a.0] == 1).then(|| with_residual(&nodes, a, b)).flatten().map(|op| (a, op));
                left.or_else(|| (uses[b.0] == 1).then(|| with_residual(&nodes, b, a)).flatten().map(|op| (b, op)))
            }
            _ => None,
        };
        if let Some((producer, op)) = fused {
            nodes[index].op = op;
            nodes[index].path = nodes[producer.0].path.clone();
            absorbed[producer.0] = true;
        }
    }
    compact(graph, nodes, &absorbed)
}

/// Folds an enlargement to twice the size into the convolution that alone reads it, for executors whose convolutions can
/// address the smaller picture: the larger one, four times the memory, is then never made.
pub fn fold_upsampling(graph: &Graph) -> Graph {
    let uses = uses(graph);
    let mut nodes = graph.nodes.clone();
    let mut absorbed = vec![false; nodes.len()];
    for index in 0..nodes.len() {
        let Op::Conv2d { x, weight, .. } = nodes[index].op else { continue };
        let Op::ResizeNearest { x: source } = nodes[x.0].op else { continue };
        let doubled = match (&nodes[source.0].shape[..], &nodes[x.0].shape[..]) {
            (&[_, height, width, _], &[_, large_height, large_width, _]) => {
                [large_height, large_width] == [2 * height, 2 * width]
            }
            _ => false,
        };
        // A 1×1 convolution is a matrix product, which addresses no pixels.
        let addresses_pixels = graph.weight(weight).shape[2..] != [1, 1];
        if !doubled || !addresses_pixels || uses[x.0] > 1 {
            continue;
        }
        if let Op::Conv2d { x, upsample, .. } = &mut nodes[index].op {
            absorbed[x.0] = true;
            (*x, *upsample) = (source, true);
        }
    }
    compact(graph, nodes, &absorbed)
}

/// Number of nodes and outputs that read each node.
fn uses(graph: &Graph) -> Vec<usize> {
    let mut uses = vec![0; graph.nodes.len()];
    for node in &graph.nodes {
        node.op.for_each_input(|id| uses[id.0] += 1);
    }
    for (_, id) in &graph.outputs {
        uses[id.0] += 1;
    }
    uses
}

/// `producer`'s op with `residual` added to its result, if it can take it.
fn with_residual(nodes: &[Node], producer: NodeId, residual: NodeId) -> Option<Op> {
    let (shape, added) = (&nodes[producer.0].shape, &nodes[residual.0].shape);
    let per_channel = || shape.len() == 4 && *added == [shape[0], 1, 1, shape[3]];
    let mut op = nodes[producer.0].op.clone();
    match &mut op {
        Op::Conv2d { residual: slot @ None, .. } if added == shape || per_channel() => *slot = Some(residual),
        Op::Linear { residual: slot @ None, .. } if added == shape => *slot = Some(residual),
        _ => return None,
    }
    Some(op)
}

/// The graph without absorbed nodes, renumbered.
fn compact(graph: &Graph, nodes: Vec<Node>, absorbed: &[bool]) -> Graph {
    let mut moved = vec![NodeId(usize::MAX); nodes.len()];
    let mut kept: Vec<Node> = Vec::with_capacity(nodes.len());
    for (index, mut node) in nodes.into_iter().enumerate() {
        if absorbed[index] {
            continue;
        }
        node.op.map_inputs(|id| moved[id.0]);
        moved[index] = NodeId(kept.len());
        kept.push(node);
    }
    let rename = |ports: &[(String, NodeId)]| ports.iter().map(|(n, id)| (n.clone(), moved[id.0])).collect();
    Graph {
        nodes: kept,
        weights: graph.weights.clone(),
        inputs: rename(&graph.inputs),
        outputs: rename(&graph.outputs),
    }
}

// The twin is native only.
#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests {
    use super::*;
    use crate::graph::{Activation, Builder, Conv2dOptions};

    /// A residual block as models build them: norm, activation, convolution plus time embedding, and a residual.
    fn residual_block() -> Graph {
        let builder = Builder::new();
        let root = builder.root();
        let build = || {
            let x = root.input("x", &[2, 4, 4, 8])?;
            let temb = root.input("temb", &[2, 1, 1, 8])?;
            let h = root.activate(root.at("norm").group_norm(x, 2, 1e-5)?, Activation::Silu)?;
            let h = root.at("conv1").conv2d(h, Conv2dOptions::same(8, 3))?;
            let h = root.add(h, temb)?;
            let h = root.at("proj").linear(h, 8, true)?;
            let sum = root.add(x, h)?;
            root.output("out", sum);
            Ok::<_, crate::graph::Error>(())
        };
        build().expect("shapes that fit");
        builder.finish()
    }

    #[test]
    fn norm_and_activation_convolution_and_embedding_linear_and_residual_become_one_node_each() {
        let fused = fuse(&residual_block());
        let ops: Vec<_> = fused.nodes().iter().map(|node| node.op.name()).collect();
        assert_eq!(ops, ["input", "input", "group_norm", "conv2d", "linear"]);
        let paths: Vec<_> = fused.nodes()[2..].iter().map(|node| node.path.as_str()).collect();
        assert_eq!(paths, ["norm", "conv1", "proj"]);
    }

    #[test]
    fn a_value_that_something_else_reads_is_not_folded_away() {
        let builder = Builder::new();
        let root = builder.root();
        let x = root.input("x", &[1, 2, 2, 4]).expect("an input");
        let h = root.at("conv").conv2d(x, Conv2dOptions::same(4, 1)).expect("a convolution");
        root.output("before", h);
        root.output("out", root.add(h, x).expect("a sum"));
        let graph = builder.finish();
        assert_eq!(fuse(&graph), graph);
    }

    /// Two enlargements: one that a convolution alone reads, one that is read twice.
    fn enlarged_block() -> Graph {
        let builder = Builder::new();
        let root = builder.root();
        let build = || {
            let x = root.input("x", &[2, 3, 5, 4])?;
            let large = root.resize_nearest(x, 6, 10)?;
            let h = root.at("conv1").conv2d(large, Conv2dOptions::same(4, 3))?;
            let larger = root.resize_nearest(h, 12, 20)?;
            let sum = root.add(root.at("conv2").conv2d(larger, Conv2dOptions::same(4, 3))?, larger)?;
            root.output("out", sum);
            Ok::<_, crate::graph::Error>(())
        };
        build().expect("shapes that fit");
        builder.finish()
    }

    #[test]
    fn an_enlargement_that_one_convolution_reads_becomes_a_part_of_it() {
        let folded = fold_upsampling(&enlarged_block());
        let ops: Vec<_> = folded.nodes().iter().map(|node| node.op.name()).collect();
        assert_eq!(ops, ["input", "conv2d", "resize_nearest", "conv2d", "binary"]);
        assert!(matches!(folded.nodes()[1].op, Op::Conv2d { upsample: true, .. }));
        assert!(matches!(folded.nodes()[3].op, Op::Conv2d { upsample: false, .. }));
    }

    #[test]
    fn rewrites_leave_the_values_as_they_are() {
        for (graph, rewrite) in [(residual_block(), fuse as fn(&Graph) -> Graph), (enlarged_block(), fold_upsampling)] {
            compare(&graph, &rewrite(&graph));
        }
    }

    fn compare(graph: &Graph, rewritten: &Graph) {
        let run = |graph: &Graph| {
            let weights = graph.weights().iter().map(|spec| {
                let count: usize = spec.shape.iter().product();
                (0..count).map(|i| (i as f32 * 0.7).sin() * 0.3).collect()
            });
            let mut program = crate::twin::Program::new(graph, weights.collect()).expect("a complete network");
            for (name, id) in graph.inputs() {
                let values: Vec<f32> = (0..graph.node(*id).elements()).map(|i| (i as f32 * 0.3).cos()).collect();
                program.write(name, &values).expect("an input");
            }
            program.run();
            program.read("out").expect("an output").to_vec()
        };
        let (plain, fused) = (run(graph), run(rewritten));
        for (index, (plain, fused)) in plain.iter().zip(&fused).enumerate() {
            assert!((plain - fused).abs() < 1e-5, "{index}: {plain} became {fused}");
        }
    }
}
