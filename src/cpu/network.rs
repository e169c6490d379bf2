//! A graph as this executor computes it: what is read in place, and what each node asks of memory and weights.

use bytemuck::Zeroable;
use undiffuse_kernels::attention::Attention;
use undiffuse_kernels::conv2d::{Algorithm, Conv2d};

use super::form::Form;
use crate::graph::{Graph, Node, NodeId, Op, Padding, WeightId};

/// `[batch, height, width, channels]` of a picture; of another tensor what its axes are, the missing ones 1.
pub(super) fn picture(shape: &[usize]) -> [usize; 4] {
    std::array::from_fn(|axis| shape.get(axis).copied().unwrap_or(1))
}

/// Product of all axes but the last, and the last.
pub(super) fn rows_and_channels(shape: &[usize]) -> (usize, usize) {
    let channels = shape.last().copied().unwrap_or(1);
    (shape.iter().product::<usize>() / channels.max(1), channels)
}

/// A graph, and which of its values are never made.
#[derive(Debug)]
pub(super) struct Network {
    graph: Graph,
    /// Of each node, whether it is a concatenation that those who read it read where its parts are.
    joined: Vec<bool>,
}

impl Network {
    /// Looks for concatenations of two tensors along the channels that only convolutions, linear layers and group norms read.
    pub fn new(graph: &Graph) -> Self {
        let mut joined: Vec<bool> = (graph.nodes().iter())
            .map(|node| matches!(&node.op, Op::Concat { inputs, axis } if inputs.len() == 2 && axis + 1 == node.shape.len()))
            .collect();
        for node in graph.nodes() {
            // Whatever else it reads, and a residual, has to be in one place.
            let reads_in_place = match node.op {
                Op::Conv2d { x, residual, .. } | Op::Linear { x, residual, .. } if residual != Some(x) => Some(x),
                Op::GroupNorm { x, .. } => Some(x),
                _ => None,
            };
            node.op.for_each_input(|id| joined[id.index()] &= reads_in_place == Some(id));
        }
        for (_, id) in graph.outputs() {
            joined[id.index()] = false;
        }
        Self { graph: graph.clone(), joined }
    }

    /// The graph.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Whether `id` is read where its parts are.
    pub fn is_joined(&self, id: NodeId) -> bool {
        self.joined[id.index()]
    }

    /// The one or two nodes whose values are that of `id`, one behind the other along the channels.
    pub fn parts(&self, id: NodeId) -> (NodeId, Option<NodeId>) {
        match &self.graph.node(id).op {
            Op::Concat { inputs, .. } if self.is_joined(id) => (inputs[0], Some(inputs[1])),
            _ => (id, None),
        }
    }

    /// How many channels each of them has.
    pub fn channels(&self, id: NodeId) -> [usize; 2] {
        let channels = |id| rows_and_channels(&self.graph.node(id).shape).1;
        let (first, second) = self.parts(id);
        [channels(first), second.map_or(0, channels)]
    }

    /// The form in which each weight is read: for a convolution by what its shapes make fastest.
    pub fn forms(&self) -> Vec<Form> {
        let graph = &self.graph;
        let mut forms: Vec<Option<Form>> = vec![None; graph.weights().len()];
        for node in graph.nodes() {
            let Some((weight, conv)) = self.conv2d(node) else { continue };
            let loaded = Form::of(graph.weight(weight));
            let form = match conv.choose() {
                Algorithm::DIRECT => loaded,
                winograd => Form::Conv2d(winograd),
            };
            let of_weight = &mut forms[weight.index()];
            // A weight that two convolutions would have in different forms stays as it was loaded: both can read that.
            *of_weight = Some(if of_weight.is_none_or(|other| other == form) { form } else { loaded });
        }
        forms.into_iter().zip(graph.weights()).map(|(form, spec)| form.unwrap_or_else(|| Form::of(spec))).collect()
    }

    /// Bytes of memory that each node needs while it is computed, with weights in `forms`.
    pub fn scratch(&self, forms: &[Form]) -> Vec<usize> {
        let numbers = |node: &Node| match (self.conv2d(node), self.attention(node)) {
            (Some((weight, conv)), _) => with_form(conv, forms[weight.index()]).scratch_len(),
            (_, Some(attention)) => attention.scratch_len(),
            _ => 0,
        };
        self.graph.nodes().iter().map(|node| 4 * numbers(node)).collect()
    }

    /// What the attention `node` is but for addresses; `None` for another op.
    pub fn attention(&self, node: &Node) -> Option<Attention> {
        let graph = &self.graph;
        let &Op::Attention { q, k, v, heads, causal } = &node.op else { return None };
        let [batch, query_tokens, channels, _] = picture(&graph.node(q).shape);
        let [k_stride, v_stride] = [k, v].map(|id| rows_and_channels(&graph.node(id).shape).1);
        Some(Attention {
            q_stride: channels,
            k_stride,
            v_stride,
            batch,
            heads,
            head_size: channels / heads,
            query_tokens,
            key_tokens: graph.node(k).shape[1],
            causal: usize::from(causal),
            ..Zeroable::zeroed()
        })
    }

    /// What the convolution `node` is but for addresses and algorithm; `None` for another op, and for a convolution that is a linear layer.
    pub fn conv2d(&self, node: &Node) -> Option<(WeightId, Conv2d)> {
        let graph = &self.graph;
        let &Op::Conv2d { x, weight, residual, stride, padding, .. } = &node.op else { return None };
        let [batch, height, width, _] = picture(&graph.node(x).shape);
        let [in_channels, in_channels2] = self.channels(x);
        let [_, out_height, out_width, out_channels] = picture(&node.shape);
        let [_, _, kernel_height, kernel_width] = picture(&graph.weight(weight).shape);
        if kernel_height * kernel_width == 1 && stride == 1 && padding == Padding::default() {
            return None;
        }
        let conv = Conv2d {
            residual_rows: self.residual_rows(node, residual),
            batch,
            height,
            width,
            in_channels,
            in_channels2,
            kernel_height,
            kernel_width,
            stride,
            padding_top: padding.top,
            padding_left: padding.left,
            out_height,
            out_width,
            out_channels,
            ..Zeroable::zeroed()
        };
        Some((weight, conv))
    }

    /// How many pixels of `node` share what is added to them: those of a picture, if it is `[batch, 1, 1, channels]`.
    pub fn residual_rows(&self, node: &Node, residual: Option<NodeId>) -> usize {
        match residual {
            Some(id) if self.graph.node(id).shape != node.shape => node.shape[1] * node.shape[2],
            _ => 1,
        }
    }
}

/// `conv` computed as the form of its weight has it.
pub(super) fn with_form(conv: Conv2d, form: Form) -> Conv2d {
    let algorithm = if let Form::Conv2d(algorithm) = form { algorithm } else { Algorithm::DIRECT };
    Conv2d { algorithm, ..conv }
}
