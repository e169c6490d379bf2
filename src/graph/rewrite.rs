//! Rewrites that make a graph cheaper and leave its values as they are.

use super::{BinaryOp, Graph, Node, NodeId, Op};

/// Folds an activation into the group norm before it, and the addition of a residual or a per-channel embedding into
/// the convolution or linear layer before it, wherever nothing else reads the value in between.
pub fn fuse(graph: &Graph) -> Graph {
    let mut uses = vec![0usize; graph.nodes.len()];
    for node in &graph.nodes {
        node.op.for_each_input(|id| uses[id.0] += 1);
    }
    for (_, id) in &graph.outputs {
        uses[id.0] += 1;
    }
    let mut nodes = graph.nodes.clone();
    // Where a fused producer's value is found from now on, and which producers are gone.
    let mut absorbed = vec![false; nodes.len()];
    for index in 0..nodes.len() {
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
