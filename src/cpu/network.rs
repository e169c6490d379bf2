//! A graph as this executor computes it: what is read in place, and what each node asks of memory and weights.

use bytemuck::Zeroable;
use undiffuse_kernels::attention::Attention;
use undiffuse_kernels::conv2d::{Algorithm, Conv2d};

use super::form::Form;
#[cfg(feature = "training")]
use super::gradient;
use crate::graph::{Graph, Node, NodeId, Op, Padding, WeightId};
use crate::order::sort_by_key;

/// Bytes that Winograd's forms of a network's weights take at most, beside the weights as they were loaded: up to four times those,
/// which a large model must not be made to need. A constant, so that which are chosen, and so a result's bits, depends on no machine.
const WINOGRAD_BYTES: u64 = 512 << 20;

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
    /// Whether each node is a concatenation that those who read it read where its parts are.
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

    /// Number of channels of each of them.
    pub fn channels(&self, id: NodeId) -> [usize; 2] {
        let channels = |id| rows_and_channels(&self.graph.node(id).shape).1;
        let (first, second) = self.parts(id);
        [channels(first), second.map_or(0, channels)]
    }

    /// The form in which each weight is stored: for a convolution by what its shapes make fastest, as far as [`WINOGRAD_BYTES`] go; in
    /// its checkpoint's order if a gradient reads it too.
    pub fn forms(&self) -> Vec<Form> {
        let graph = &self.graph;
        let mut forms: Vec<Form> = graph.weights().iter().map(Form::of).collect();
        #[cfg(feature = "training")]
        for node in graph.nodes() {
            if matches!(node.op, Op::Gradient(_) | Op::Optimiser(_)) {
                node.op.for_each_weight(|weight| forms[weight.index()] = Form::Plain);
            }
        }
        // What each weight's first convolution would have, and the pixels that a picture has after it.
        let mut wanted: Vec<Option<(Algorithm, usize)>> = vec![None; forms.len()];
        for node in graph.nodes() {
            let Some((weight, conv)) = self.conv2d(node) else { continue };
            if forms[weight.index()] == Form::Plain {
                continue;
            }
            let (algorithm, of_weight) = (conv.choose(), &mut wanted[weight.index()]);
            // A weight that two convolutions would have in different forms stays as it was loaded: both can read that.
            *of_weight = Some(match *of_weight {
                Some((other, pixels)) if other != algorithm => (Algorithm::DIRECT, pixels),
                Some(first) => first,
                None => (algorithm, conv.out_height * conv.out_width),
            });
        }
        let mut winograd: Vec<_> = (wanted.into_iter().enumerate())
            .filter_map(|(weight, wanted)| Some((weight, wanted?)))
            .filter(|(_, (algorithm, _))| *algorithm != Algorithm::DIRECT)
            .collect();
        // The more pixels share a weight, the more products each of its bytes saves.
        sort_by_key(&mut winograd, |&(_, (_, pixels))| (u64::MAX - pixels as u64, 0));
        let mut left = WINOGRAD_BYTES;
        for (weight, (algorithm, _)) in winograd {
            let form = Form::Conv2d(algorithm);
            let bytes = form.numbers(&graph.weights()[weight]).map(|numbers| 4 * numbers as u64);
            if let Some(rest) = bytes.and_then(|bytes| left.checked_sub(bytes)) {
                left = rest;
                forms[weight] = form;
            }
        }
        forms
    }

    /// The form in which the convolution or linear layer `node` reads its weight, if weights are stored in `forms`: its own, but for one
    /// that a gradient reads too, which is packed anew in each run.
    pub fn form_read(&self, node: &Node, forms: &[Form]) -> Form {
        let (Op::Conv2d { weight, .. } | Op::Linear { weight, .. }) = node.op else { return Form::Plain };
        match forms[weight.index()] {
            Form::Plain => self.conv2d(node).map_or(Form::Linear, |(_, conv)| Form::Conv2d(conv.choose())),
            form => form,
        }
    }

    /// Bytes of memory that each node needs while it is computed, with weights in `forms`.
    pub fn scratch(&self, forms: &[Form]) -> Vec<usize> {
        let numbers = |node: &Node| match &node.op {
            Op::Conv2d { weight, .. } | Op::Linear { weight, .. } => {
                let (stored, read) = (forms[weight.index()], self.form_read(node, forms));
                let packed = if stored == read { Some(0) } else { read.numbers(self.graph.weight(*weight)) };
                let conv = self.conv2d(node).map_or(0, |(_, conv)| with_form(conv, read).scratch_len());
                packed.unwrap_or(usize::MAX / 8) + conv
            }
            Op::Attention { .. } => self.attention(node).map_or(0, |attention| attention.scratch_len()),
            #[cfg(feature = "training")]
            Op::Gradient(op) => gradient::scratch(self, node, op),
            _ => 0,
        };
        self.graph.nodes().iter().map(|node| 4 * numbers(node)).collect()
    }

    /// The operands of the attention `node` but for addresses; `None` for another op.
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

    /// The operands of the convolution `node` but for addresses and algorithm; `None` for another op, and for a convolution
    /// that is a linear layer.
    pub fn conv2d(&self, node: &Node) -> Option<(WeightId, Conv2d)> {
        let graph = &self.graph;
        let &Op::Conv2d { x, weight, residual, stride, padding, upsample, .. } = &node.op else { return None };
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
            upsample: upsample.into(),
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

    /// Number of pixels of `node` that share what is added to them: those of a picture, if it is `[batch, 1, 1, channels]`.
    pub fn residual_rows(&self, node: &Node, residual: Option<NodeId>) -> usize {
        match residual {
            Some(id) if self.graph.node(id).shape != node.shape => node.shape[1] * node.shape[2],
            _ => 1,
        }
    }
}

/// The convolution `conv` computed as the form of its weight has it.
pub(super) fn with_form(conv: Conv2d, form: Form) -> Conv2d {
    let algorithm = if let Form::Conv2d(algorithm) = form { algorithm } else { Algorithm::DIRECT };
    Conv2d { algorithm, ..conv }
}

// The published configs are files.
#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests {
    use super::*;
    use crate::graph::fuse;
    use crate::models::published;

    /// Whether each 3×3 convolution of one pixel's step is computed by Winograd, with the pixels of its result.
    fn choices(network: &Network) -> Vec<(usize, bool)> {
        let forms = network.forms();
        let convs = network.graph().nodes().iter().filter_map(|node| network.conv2d(node));
        convs
            .filter(|(_, conv)| conv.kernel_height == 3 && conv.stride == 1)
            .map(|(weight, conv)| {
                let winograd = forms[weight.index()] != Form::of(network.graph().weight(weight));
                (conv.out_height * conv.out_width, winograd)
            })
            .collect()
    }

    #[test]
    fn forms_beside_the_loaded_ones_stay_small_in_the_largest_networks() {
        let mut largest = 0;
        for (name, graph) in published::graphs() {
            let network = Network::new(&fuse(&graph));
            let forms = network.forms();
            let added = forms.iter().zip(network.graph().weights()).filter(|(form, spec)| **form != Form::of(spec));
            let bytes: u64 = added.map(|(form, spec)| 4 * form.numbers(spec).unwrap() as u64).sum();
            println!("{name}: {} MiB", bytes >> 20);
            assert!(bytes <= 512 << 20, "{name}: {bytes} bytes");
            largest = largest.max(bytes);
        }
        assert!(largest > 256 << 20, "no network comes near the limit: {largest} bytes");
    }

    #[test]
    fn where_not_all_convolutions_can_have_it_those_of_large_pictures_are_computed_by_winograd() {
        let graphs: std::collections::HashMap<_, _> = published::graphs().into_iter().collect();
        let of = |name: &str| choices(&Network::new(&fuse(&graphs[name])));
        let unet = of("stable-diffusion-v1-5.unet.json");
        // But for the few whose channels are no whole vectors: the first and the last of the network.
        let share = |pixels: usize| {
            let here = unet.iter().filter(|(of, _)| *of == pixels);
            (here.clone().filter(|(_, winograd)| *winograd).count(), here.count())
        };
        let (winograd, all) = share(64 * 64);
        assert!(winograd + 2 >= all && winograd > 0, "{winograd} of {all}");
        assert_eq!(share(8 * 8).0, 0);
        assert!(share(8 * 8).1 > 0);
        // Those of a small network all have it.
        let small = of("config.json");
        let large_enough = small.iter().filter(|(pixels, _)| *pixels >= 64);
        assert!(large_enough.filter(|(_, winograd)| !*winograd).count() <= 2, "{small:?}");
    }
}
