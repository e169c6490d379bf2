//! What each op hands on to its operands.

use super::op::{GradientOp, Norm};
use crate::graph::{BinaryOp, Builder, Element, Error, Graph, Node, NodeId, Op, Scope, WeightId};

/// Something that a loss is differentiated with respect to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wrt {
    /// A node, usually an input.
    Node(NodeId),
    /// A weight.
    Weight(WeightId),
}

/// Appends to `graph` the gradients of `loss`, which is one number, with respect to each of `wrt`; returns the longer graph with the
/// node of each gradient, in the shape of what it is for.
///
/// Only what leads from one of `wrt` to the loss is differentiated. The graph may be fused ([`crate::graph::fuse`]): an activation
/// within a norm then need not be kept. Enlargements are not yet folded into convolutions.
///
/// # Errors
/// If the loss is not one number, does not depend on one of `wrt`, or does so through an op that has no gradient.
pub fn differentiate(graph: Graph, loss: NodeId, wrt: &[Wrt]) -> Result<(Graph, Vec<NodeId>), Error> {
    let nodes = graph.nodes().to_vec();
    let leads_to_wrt = leading_to(&graph, wrt);
    let failed = |message: String| Error::Gradient { path: nodes[loss.0].path.clone(), message };
    let shape = &nodes[loss.0].shape;
    if shape.iter().product::<usize>() != 1 {
        return Err(failed(format!("a loss is one number, and this has the shape {shape:?}")));
    }
    let builder = Builder::resume(graph);
    let mut backward =
        Backward { builder: &builder, of_node: vec![None; nodes.len()], of_weight: Vec::new(), leads_to_wrt, wrt };
    backward.of_node[loss.0] = Some(builder.root().at(&nodes[loss.0].path).affine(loss, 0.0, 1.0)?);
    for (index, node) in nodes.iter().enumerate().rev() {
        if let Some(upstream) = backward.of_node[index].filter(|_| backward.leads_to_wrt[index]) {
            let scope = builder.root().at(&node.path);
            for (to, gradient) in contributions(&backward, &scope, node, NodeId(index), upstream)? {
                backward.add(&scope, to, gradient)?;
            }
        }
    }
    let gradients = wrt.iter().map(|&wrt| {
        backward.found(wrt).ok_or_else(|| {
            let of = match wrt {
                Wrt::Node(id) => nodes[id.0].path.clone(),
                Wrt::Weight(id) => builder.weight_name(id),
            };
            failed(format!("the loss does not depend on `{of}`"))
        })
    });
    let gradients = gradients.collect::<Result<Vec<_>, _>>()?;
    Ok((builder.finish(), gradients))
}

/// Whether each node depends on one of `wrt`.
fn leading_to(graph: &Graph, wrt: &[Wrt]) -> Vec<bool> {
    let mut leads = vec![false; graph.nodes().len()];
    for (index, node) in graph.nodes().iter().enumerate() {
        let mut found = wrt.contains(&Wrt::Node(NodeId(index)));
        node.op.for_each_input(|id| found |= leads[id.0]);
        node.op.for_each_weight(|id| found |= wrt.contains(&Wrt::Weight(id)));
        leads[index] = found;
    }
    leads
}

/// A backward pass under construction.
struct Backward<'a> {
    builder: &'a Builder,
    /// dL/dy of each node of the forward pass, as far as it is known.
    of_node: Vec<Option<NodeId>>,
    of_weight: Vec<(WeightId, NodeId)>,
    leads_to_wrt: Vec<bool>,
    wrt: &'a [Wrt],
}

impl Backward<'_> {
    fn wants(&self, to: Wrt) -> bool {
        match to {
            Wrt::Node(id) => self.leads_to_wrt[id.0],
            Wrt::Weight(_) => self.wrt.contains(&to),
        }
    }

    fn found(&self, wrt: Wrt) -> Option<NodeId> {
        match wrt {
            Wrt::Node(id) => self.of_node[id.0],
            Wrt::Weight(id) => self.of_weight.iter().find(|(weight, _)| *weight == id).map(|&(_, gradient)| gradient),
        }
    }

    /// Adds a gradient to what has come for the same node or weight before.
    fn add(&mut self, scope: &Scope, to: Wrt, gradient: NodeId) -> Result<(), Error> {
        let sum = self.found(to).map_or(Ok(gradient), |before| scope.add(before, gradient))?;
        match to {
            Wrt::Node(id) => self.of_node[id.0] = Some(sum),
            Wrt::Weight(id) => {
                self.of_weight.retain(|(weight, _)| *weight != id);
                self.of_weight.push((id, sum));
            }
        }
        Ok(())
    }
}

/// What `node`, whose gradient is `upstream`, hands on to each operand and weight that leads somewhere. The node itself is `id`.
fn contributions(
    backward: &Backward,
    scope: &Scope,
    node: &Node,
    id: NodeId,
    upstream: NodeId,
) -> Result<Vec<(Wrt, NodeId)>, Error> {
    let mut handed = Vec::new();
    let shape = |id: NodeId| scope.shape(id);
    let gradient = |op: GradientOp, shape: Vec<usize>| scope.push(Op::Gradient(op), shape, Element::F32);
    let mut hand = |to: Wrt, make: &dyn Fn() -> Result<NodeId, Error>| {
        if backward.wants(to) {
            handed.push((to, make()?));
        }
        Ok::<_, Error>(())
    };
    let residual_of = |residual: NodeId| scope.sum(upstream, &shape(residual));
    // A vector has a number for each channel, which all rows share.
    let bias_of = || {
        let channels = *node.shape.last().unwrap_or(&1);
        let rows = scope.reshape(upstream, &[node.elements() / channels, channels])?;
        scope.reshape(scope.sum(rows, &[1, channels])?, &[channels])
    };
    match node.op {
        Op::Input => {}
        Op::Conv2d { x, weight, bias, residual, stride, padding, upsample } => {
            if upsample {
                return Err(scope.error(
                    "a convolution into which an enlargement is folded has no gradient: differentiate before folding",
                ));
            }
            hand(Wrt::Node(x), &|| gradient(GradientOp::Conv2dInput { upstream, weight, stride, padding }, shape(x)))?;
            hand(Wrt::Weight(weight), &|| {
                let of_weight = backward.builder.weight_shape(weight);
                gradient(GradientOp::Conv2dWeight { x, upstream, stride, padding }, of_weight)
            })?;
            if let Some(bias) = bias {
                hand(Wrt::Weight(bias), &bias_of)?;
            }
            if let Some(residual) = residual {
                hand(Wrt::Node(residual), &|| residual_of(residual))?;
            }
        }
        Op::Linear { x, weight, bias, residual } => {
            hand(Wrt::Node(x), &|| gradient(GradientOp::LinearInput { upstream, weight }, shape(x)))?;
            hand(Wrt::Weight(weight), &|| {
                gradient(GradientOp::LinearWeight { x, upstream }, backward.builder.weight_shape(weight))
            })?;
            if let Some(bias) = bias {
                hand(Wrt::Weight(bias), &bias_of)?;
            }
            if let Some(residual) = residual {
                hand(Wrt::Node(residual), &|| residual_of(residual))?;
            }
        }
        Op::GroupNorm { x, weight, bias, .. } | Op::LayerNorm { x, weight, bias, .. } => {
            let (groups, eps, activation) = match node.op {
                Op::GroupNorm { groups, eps, activation, .. } => (Some(groups), eps, activation),
                Op::LayerNorm { eps, .. } => (None, eps, None),
                _ => return Ok(handed),
            };
            let channels = *node.shape.last().unwrap_or(&1);
            let rows = node.elements() / channels;
            let norm = Norm { x, upstream, weight, bias, groups, eps, activation };
            let all = gradient(GradientOp::Norm(norm), vec![rows + 2, channels])?;
            hand(Wrt::Node(x), &|| scope.reshape(scope.slice(all, 0, 0, rows)?, &shape(x)))?;
            let row = |row| scope.reshape(scope.slice(all, 0, row, 1)?, &[channels]);
            hand(Wrt::Weight(weight), &|| row(rows))?;
            hand(Wrt::Weight(bias), &|| row(rows + 1))?;
        }
        Op::Attention { q, k, v, heads, causal } => {
            let rows = [q, k, v].map(|id| shape(id)[0] * shape(id)[1]);
            let all = vec![rows.iter().sum(), node.shape[2]];
            let all = gradient(GradientOp::Attention { q, k, v, upstream, heads, causal }, all)?;
            let mut start = 0;
            for (operand, rows) in [q, k, v].into_iter().zip(rows) {
                hand(Wrt::Node(operand), &|| scope.reshape(scope.slice(all, 0, start, rows)?, &shape(operand)))?;
                start += rows;
            }
        }
        Op::Activate { x, activation } => {
            hand(Wrt::Node(x), &|| gradient(GradientOp::Activate { x, upstream, activation }, shape(x)))?;
        }
        Op::Geglu { x } => hand(Wrt::Node(x), &|| gradient(GradientOp::Geglu { x, upstream }, shape(x)))?,
        Op::Binary { op, a, b } => {
            let of_b = |gradient| scope.sum(gradient, &shape(b));
            match op {
                BinaryOp::Add => {
                    hand(Wrt::Node(a), &|| Ok(upstream))?;
                    hand(Wrt::Node(b), &|| of_b(upstream))?;
                }
                BinaryOp::Sub => {
                    hand(Wrt::Node(a), &|| Ok(upstream))?;
                    hand(Wrt::Node(b), &|| scope.affine(of_b(upstream)?, -1.0, 0.0))?;
                }
                BinaryOp::Mul => {
                    hand(Wrt::Node(a), &|| scope.mul(upstream, b))?;
                    hand(Wrt::Node(b), &|| of_b(scope.mul(upstream, a)?))?;
                }
            }
        }
        Op::Affine { x, scale, .. } => hand(Wrt::Node(x), &|| scope.affine(upstream, scale, 0.0))?,
        Op::Concat { ref inputs, axis } => {
            let mut start = 0;
            for &input in inputs {
                let length = shape(input)[axis];
                hand(Wrt::Node(input), &|| scope.slice(upstream, axis, start, length))?;
                start += length;
            }
        }
        Op::Slice { x, axis, start } => {
            hand(Wrt::Node(x), &|| gradient(GradientOp::Slice { upstream, axis, start }, shape(x)))?;
        }
        Op::Reshape { x } => hand(Wrt::Node(x), &|| scope.reshape(upstream, &shape(x)))?,
        Op::Permute { x, ref axes } => {
            let mut inverse = vec![0; axes.len()];
            axes.iter().enumerate().for_each(|(to, &from)| inverse[from] = to);
            hand(Wrt::Node(x), &|| scope.permute(upstream, &inverse))?;
        }
        Op::ResizeNearest { x } | Op::ResizeBilinear { x } => {
            let bilinear = matches!(node.op, Op::ResizeBilinear { .. });
            hand(Wrt::Node(x), &|| gradient(GradientOp::Resize { upstream, bilinear }, shape(x)))?;
        }
        Op::Pool2d { x, pooling, kernel, stride, padding } => {
            let op = GradientOp::Pool2d { x, upstream, pooling, kernel, stride, padding };
            hand(Wrt::Node(x), &|| gradient(op, shape(x)))?;
        }
        Op::Gather { table, ids } => {
            hand(Wrt::Weight(table), &|| {
                gradient(GradientOp::Gather { ids, upstream }, backward.builder.weight_shape(table))
            })?;
            no_gradient(backward, scope, node, ids)?;
        }
        Op::Gradient(GradientOp::Sum { x }) => hand(Wrt::Node(x), &|| {
            // What was summed gets the sum's gradient each.
            scope.add(scope.affine(x, 0.0, 0.0)?, upstream)
        })?,
        Op::TimestepEmbedding { timestep, .. } => no_gradient(backward, scope, node, timestep)?,
        Op::Solver(_) | Op::Gradient(_) | Op::Optimiser(_) | Op::PackRgba8 { .. } => {
            no_gradient(backward, scope, node, id)?
        }
    }
    Ok(handed)
}

/// Refuses an op that has no gradient, if it leads to something that one is wanted for.
fn no_gradient(backward: &Backward, scope: &Scope, node: &Node, through: NodeId) -> Result<(), Error> {
    if backward.leads_to_wrt[through.0] {
        let message = format!("{} has no gradient", node.op.name());
        return Err(Error::Gradient { path: scope.path().to_owned(), message });
    }
    Ok(())
}
