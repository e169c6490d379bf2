//! The cost of a node, whatever executes it: arithmetic, and the bytes that have to move.
//!
//! Counted is what the op says, not what a kernel does: a convolution by Winograd's transform does less arithmetic, one that
//! reads a picture nine times moves more bytes. The ratio to what a device can do is therefore comparable between kernels.

use std::iter::Sum;
use std::ops::Add;

use super::{Graph, Node, NodeId, Op, SolverOp, WeightId, update};
#[cfg(feature = "training")]
use super::{
    OptimiserOp,
    gradient::{GradientOp, Norm},
};

/// Arithmetic and traffic of one node, or of several.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cost {
    /// Multiply-adds of convolutions, linear layers and attention, those with padding's zeros and with masked keys included.
    pub multiply_adds: u64,
    /// Floating point operations: two for each multiply-add, one for each other sum, product, comparison and function.
    pub flop: u64,
    /// Bytes of the operands, of the weights as stored, and of the result, each once.
    pub bytes: u64,
}

impl Add for Cost {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            multiply_adds: self.multiply_adds + other.multiply_adds,
            flop: self.flop + other.flop,
            bytes: self.bytes + other.bytes,
        }
    }
}

impl Sum for Cost {
    fn sum<I: Iterator<Item = Self>>(costs: I) -> Self {
        costs.fold(Self::default(), Self::add)
    }
}

/// Bytes of an element of a node's value, f32 or packed pixels.
const ELEMENT: u64 = 4;

/// Operations of a norm for each element: a sum for the mean; a difference, a square and a sum for the variance; scale and shift.
const NORM: u64 = 6;

/// Operations of a softmax for each score: scale, maximum, difference, exponential, sum, quotient.
const SOFTMAX: u64 = 6;

impl Graph {
    /// The cost of node `id`; `weight_bytes` says what a weight takes as it is stored.
    pub fn cost(&self, id: NodeId, weight_bytes: impl Fn(WeightId) -> u64) -> Cost {
        self.cost_of(id, &weight_bytes)
    }

    /// The cost of node `id`, by one function for all types of `weight_bytes`.
    fn cost_of(&self, id: NodeId, weight_bytes: &dyn Fn(WeightId) -> u64) -> Cost {
        let node = self.node(id);
        let elements = |id: NodeId| self.node(id).elements() as u64;
        let result = node.elements() as u64;
        let optional = |is_there: bool| if is_there { result } else { 0 };
        // What does not depend on the op's operands alone is counted in the arms.
        let (multiply_adds, other) = match &node.op {
            Op::Input
            | Op::Reshape { .. }
            | Op::Permute { .. }
            | Op::Concat { .. }
            | Op::Slice { .. }
            | Op::ResizeNearest { .. } => (0, 0),
            Op::Conv2d { weight, bias, residual, .. } | Op::Linear { weight, bias, residual, .. } => {
                // All axes of a weight but the first are summed over.
                let terms: usize = self.weight(*weight).shape.iter().skip(1).product();
                (result * terms as u64, optional(bias.is_some()) + optional(residual.is_some()))
            }
            Op::Attention { k, heads, .. } => {
                let keys = self.node(*k).shape.get(1).map_or(0, |&n| n as u64);
                let queries: u64 = node.shape.iter().take(2).map(|&n| n as u64).product();
                (2 * result * keys, SOFTMAX * queries * keys * *heads as u64)
            }
            Op::GroupNorm { activation, .. } => (0, NORM * result + optional(activation.is_some())),
            Op::LayerNorm { .. } => (0, NORM * result),
            Op::Activate { .. } | Op::Binary { .. } => (0, result),
            Op::Geglu { .. } | Op::Affine { .. } => (0, 2 * result),
            // Two weights and their sum, of each row and between the rows.
            Op::ResizeBilinear { .. } => (0, 9 * result),
            // Comparisons, or sums and a quotient, those in the padding included.
            Op::Pool2d { kernel, .. } => (0, (kernel[0] * kernel[1]) as u64 * result),
            // Two products and a function.
            Op::TimestepEmbedding { .. } => (0, 3 * result),
            // Guidance itself, two deviations, the factor.
            Op::Solver(SolverOp::Guidance { .. }) => (0, (3 + 2 * 4 + 1) * result),
            // An absolute value, the clamp, the quotient; how a quantile is found is a kernel's own affair.
            Op::Solver(SolverOp::Threshold { .. }) => (0, 4 * result),
            Op::Solver(SolverOp::LinearUpdate { sample, model_output, x0, .. }) => {
                let sample = elements(*sample);
                let guidance = if elements(*model_output) > sample { 3 } else { 0 };
                let x0 = if x0.is_some() { 0 } else { 5 };
                (0, sample * (guidance + x0 + ((1 + update::HISTORY) * (2 * update::TERMS - 1)) as u64))
            }
            #[cfg(feature = "training")]
            Op::Gather { .. } => (0, 0),
            #[cfg(feature = "training")]
            Op::Gradient(op) => self.cost_of_gradient(op, result),
            #[cfg(feature = "training")]
            Op::Optimiser(OptimiserOp::SumOfSquares { x }) => (0, 2 * elements(*x)),
            // Clipping, two moments, and the step with a root and two quotients; a difference, a product and a sum.
            #[cfg(feature = "training")]
            Op::Optimiser(OptimiserOp::AdamW { .. }) => (0, 15 * result),
            #[cfg(feature = "training")]
            Op::Optimiser(OptimiserOp::Ema { .. }) => (0, 3 * result),
            // A product and a sum, two bounds and the rounding, for each channel.
            Op::PackRgba8 { x } => (0, 5 * elements(*x)),
        };
        let mut bytes = 0;
        match &node.op {
            // The first is written from outside; the second shares its operand's memory.
            Op::Input | Op::Reshape { .. } => {}
            // Only what is taken is read.
            Op::Slice { .. } => bytes = 2 * ELEMENT * result,
            op => {
                let mut read = Vec::new();
                op.for_each_input(|id| {
                    if !read.contains(&id) {
                        read.push(id);
                    }
                });
                bytes += ELEMENT * (result + read.into_iter().map(elements).sum::<u64>());
                op.for_each_weight(|id| bytes += weight_bytes(id));
            }
        }
        Cost { multiply_adds, flop: 2 * multiply_adds + other, bytes }
    }

    /// Multiply-adds and other operations of a gradient whose value has `result` elements.
    #[cfg(feature = "training")]
    fn cost_of_gradient(&self, op: &GradientOp, result: u64) -> (u64, u64) {
        let elements = |id: NodeId| self.node(id).elements() as u64;
        let last = |id: NodeId| self.node(id).shape.last().map_or(1, |&n| n as u64);
        match *op {
            // The products of the forward op, in another order.
            GradientOp::Conv2dInput { upstream, weight, .. } | GradientOp::LinearInput { upstream, weight } => {
                let terms: usize = self.weight(weight).shape.iter().skip(1).product();
                (elements(upstream) * terms as u64, 0)
            }
            GradientOp::Conv2dWeight { upstream, .. } | GradientOp::LinearWeight { upstream, .. } => {
                (elements(upstream) / last(upstream) * result, 0)
            }
            // Scores and what they get, then a product for each operand; the softmax twice.
            GradientOp::Attention { q, k, heads, .. } => {
                let keys = self.node(k).shape.get(1).map_or(0, |&n| n as u64);
                let scores = elements(q) / last(q) * keys;
                (5 * scores * last(q), 2 * SOFTMAX * scores * heads as u64)
            }
            GradientOp::Norm(Norm { x, activation, .. }) => {
                (0, (2 * NORM + if activation.is_some() { 4 } else { 0 }) * elements(x))
            }
            GradientOp::Activate { .. } => (0, 4 * result),
            GradientOp::Geglu { .. } => (0, 4 * result),
            GradientOp::Resize { upstream, bilinear } => (0, if bilinear { 9 } else { 1 } * elements(upstream)),
            GradientOp::Pool2d { upstream, kernel, .. } => (0, (kernel[0] * kernel[1]) as u64 * elements(upstream)),
            GradientOp::Sum { x } | GradientOp::Gather { upstream: x, .. } => (0, elements(x)),
            GradientOp::Slice { .. } => (0, 0),
        }
    }

    /// Each node with its cost, in execution order.
    pub fn costs(&self, weight_bytes: impl Fn(WeightId) -> u64) -> impl Iterator<Item = (&Node, Cost)> {
        (self.nodes.iter().enumerate()).map(move |(index, node)| (node, self.cost(NodeId(index), &weight_bytes)))
    }

    /// The cost of all nodes together.
    pub fn total_cost(&self, weight_bytes: impl Fn(WeightId) -> u64) -> Cost {
        self.costs(weight_bytes).map(|(_, cost)| cost).sum()
    }

    /// The arithmetic of all nodes together, in floating point operations.
    pub fn flop(&self) -> u64 {
        self.total_cost(|_| 0).flop
    }

    /// Bytes of weight `id` in the precision of activations, f32.
    pub fn full_bytes(&self, id: WeightId) -> u64 {
        ELEMENT * self.weight(id).shape.iter().map(|&n| n as u64).product::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Activation, Builder, Conv2dOptions, Scope};

    /// The cost of the node that `build` makes last, with weights in half precision.
    fn cost(build: impl FnOnce(&Scope) -> Result<NodeId, crate::graph::Error>) -> Cost {
        let builder = Builder::new();
        let id = build(&builder.root()).expect("shapes that fit");
        let graph = builder.finish();
        graph.cost(id, |weight| graph.full_bytes(weight) / 2)
    }

    #[test]
    fn a_convolution_costs_its_taps_and_reads_everything_once() {
        let found = cost(|root| {
            let x = root.input("x", &[2, 8, 8, 16])?;
            root.conv2d(x, Conv2dOptions { stride: 2, ..Conv2dOptions::same(32, 3) })
        });
        let (result, weight) = (2 * 4 * 4 * 32, 32 * 16 * 9);
        let multiply_adds = result * 16 * 9;
        let bytes = 4 * (2 * 8 * 8 * 16 + result) + 2 * (weight + 32);
        assert_eq!(found, Cost { multiply_adds, flop: 2 * multiply_adds + result, bytes });
    }

    #[test]
    fn attention_costs_two_products_and_a_softmax() {
        let found = cost(|root| {
            let (q, k) = (root.input("q", &[2, 10, 12])?, root.input("k", &[2, 7, 12])?);
            root.attention(q, k, k, 3, false)
        });
        let multiply_adds = 2 * (2 * 10 * 7 * 12);
        // The same tensor as keys and values is read once.
        let bytes = 4 * (2 * 10 * 12 + 2 * 7 * 12 + 2 * 10 * 12);
        assert_eq!(found, Cost { multiply_adds, flop: 2 * multiply_adds + 6 * (2 * 3 * 10 * 7), bytes });
    }

    #[test]
    fn what_moves_nothing_costs_nothing_and_a_slice_reads_what_it_takes() {
        let nothing = cost(|root| root.reshape(root.input("x", &[4, 6])?, &[24]));
        assert_eq!(nothing, Cost::default());
        let slice = cost(|root| root.slice(root.input("x", &[4, 6])?, 0, 1, 2));
        assert_eq!(slice, Cost { multiply_adds: 0, flop: 0, bytes: 2 * 4 * 12 });
    }

    #[test]
    fn a_graph_costs_the_sum_of_its_nodes() {
        let builder = Builder::new();
        let root = builder.root();
        let x = root.input("x", &[3, 4]).expect("an input");
        let h = root.at("proj").linear(x, 5, false).expect("a layer");
        root.activate(h, Activation::Silu).expect("an activation");
        let graph = builder.finish();
        let total = graph.total_cost(|id| graph.full_bytes(id));
        let (linear, silu) = (4 * (12 + 20 + 15), 4 * (15 + 15));
        assert_eq!(total, Cost { multiply_adds: 60, flop: 2 * 60 + 15, bytes: linear + silu });
    }
}
