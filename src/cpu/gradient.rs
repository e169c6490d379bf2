//! The jobs that compute the gradients of a network, and that change its weights.

use bytemuck::Zeroable;
use undiffuse_kernels::conv2d::{Algorithm, Conv2d};
use undiffuse_kernels::gradient::{attention, elementwise, norm, spread, weight};
use undiffuse_kernels::{Job, linear, optimiser};

use super::form::Form;
use super::lower::{F32, Places, copy, kernel};
use super::network::{Network, picture, rows_and_channels};
use crate::graph::gradient::{GradientOp, Norm};
use crate::graph::{Node, NodeId, OptimiserOp, Padding, Pooling, WeightId, WeightSpec, strides};

/// Numbers to which pieces of scratch memory are rounded up, so that each begins where kernels want it.
const ALIGNED: usize = undiffuse_kernels::ALIGNMENT / F32;

/// How the gradient of a product's input is computed: as a product with the turned weight.
struct Turned {
    /// The turned weight.
    spec: WeightSpec,
    /// The form in which it is read.
    form: Form,
    /// The convolution, but for its addresses; none for a linear layer.
    conv: Option<Conv2d>,
    /// Shape of `upstream` with zeros between its pixels, if the forward convolution left pixels out.
    dilated: Option<[usize; 4]>,
}

impl Turned {
    /// Of a convolution with the weight `of`, whose result has the shape `upstream` and its input the shape of `node`.
    fn of_conv2d(node: &Node, upstream: &[usize], of: &WeightSpec, stride: usize, padding: Padding) -> Self {
        let [out_channels, in_channels, kernel_height, kernel_width] = picture(&of.shape);
        let mut spec = of.clone();
        spec.shape = vec![in_channels, out_channels, kernel_height, kernel_width];
        let [batch, out_height, out_width, _] = picture(upstream);
        if kernel_height * kernel_width == 1 && stride == 1 && padding == Padding::default() {
            return Self { spec, form: Form::Linear, conv: None, dilated: None };
        }
        let spread = |side: usize| (side - 1) * stride + 1;
        let [_, height, width, _] = picture(&node.shape);
        let mut conv = Conv2d {
            residual_rows: 1,
            batch,
            height: spread(out_height),
            width: spread(out_width),
            in_channels: out_channels,
            kernel_height,
            kernel_width,
            stride: 1,
            // Below zero, and then the number that wraps to it, where the padding was as wide as the kernel.
            padding_top: (kernel_height - 1).wrapping_sub(padding.top),
            padding_left: (kernel_width - 1).wrapping_sub(padding.left),
            out_height: height,
            out_width: width,
            out_channels: in_channels,
            ..Zeroable::zeroed()
        };
        let is_usual = padding.top < kernel_height && padding.left < kernel_width;
        conv.algorithm = if is_usual { conv.choose() } else { Algorithm::DIRECT };
        let dilated = (stride > 1).then_some([batch, conv.height, conv.width, out_channels]);
        Self { spec, form: Form::Conv2d(conv.algorithm), conv: Some(conv), dilated }
    }

    /// Of a linear layer with the weight `of`.
    fn of_linear(of: &WeightSpec) -> Self {
        let [out, input, _] = of.matrix().unwrap_or_default();
        let spec = WeightSpec { shape: vec![input, out], ..of.clone() };
        Self { spec, form: Form::Linear, conv: None, dilated: None }
    }

    /// Numbers of scratch memory: of the turned weight, of that packed, of the dilated tensor, and of the convolution.
    fn scratch(&self) -> [usize; 4] {
        let turned = self.spec.shape.iter().product::<usize>();
        let packed = self.form.numbers(&self.spec).unwrap_or(usize::MAX / 8);
        let dilated = self.dilated.map_or(0, |shape| shape.iter().product());
        let conv = self.conv.map_or(0, |conv| conv.scratch_len());
        [turned, packed, dilated, conv].map(|numbers| numbers.next_multiple_of(ALIGNED))
    }

    /// The jobs that compute `y` of `upstream`, which has `shape`.
    fn lower(&self, weight: usize, [upstream, scratch, y]: [usize; 3], shape: &[usize], jobs: &mut Vec<Job>) {
        let [turned, packed, dilated, _] = self.scratch();
        let (packed_at, dilated_at) = (scratch + F32 * turned, scratch + F32 * (turned + packed));
        let conv_at = dilated_at + F32 * dilated;
        let [in_channels, out_channels, taps] = self.spec.matrix().unwrap_or_default();
        jobs.push(Job::new(weight::Turn { weight, out: scratch, out_channels, in_channels, taps }));
        jobs.extend(self.form.pack(&self.spec, scratch, packed_at));
        let mut x = upstream;
        if let Some(of) = self.dilated {
            fill(dilated_at, of.iter().product(), jobs);
            let mut to = strides(&of);
            let apart = |axis: usize| (of[axis] - 1) / (shape[axis] - 1).max(1);
            (to[1], to[2]) = (to[1] * apart(1), to[2] * apart(2));
            copy(shape, [upstream, dilated_at], [&strides(shape), &to], jobs);
            x = dilated_at;
        }
        jobs.push(match self.conv {
            Some(conv) => Job::new(Conv2d { x, weight: packed_at, out: y, scratch: conv_at, ..conv }),
            None => Job::new(linear::Linear {
                x,
                weight: packed_at,
                out: y,
                residual_rows: 1,
                rows: rows_and_channels(shape).0,
                in_features: out_channels,
                out_features: in_channels,
                ..Zeroable::zeroed()
            }),
        });
    }
}

fn turned(network: &Network, node: &Node, op: &GradientOp) -> Option<(Turned, NodeId, WeightId)> {
    let graph = network.graph();
    match *op {
        GradientOp::Conv2dInput { upstream, weight, stride, padding } => {
            let shape = &graph.node(upstream).shape;
            Some((Turned::of_conv2d(node, shape, graph.weight(weight), stride, padding), upstream, weight))
        }
        GradientOp::LinearInput { upstream, weight } => {
            Some((Turned::of_linear(graph.weight(weight)), upstream, weight))
        }
        _ => None,
    }
}

/// The axes of a sum, those next to each other of which the same becomes taken together: lengths, and whether they are summed along.
fn axes_of_sum(from: &[usize], to: &[usize]) -> Vec<(usize, bool)> {
    let mut axes: Vec<(usize, bool)> = Vec::new();
    for (&length, &kept) in from.iter().zip(to).filter(|(length, _)| **length > 1) {
        match axes.last_mut() {
            Some((before, summed)) if *summed == (kept == 1) => *before *= length,
            _ => axes.push((length, kept == 1)),
        }
    }
    axes
}

/// Numbers of scratch memory that a gradient needs.
pub(super) fn scratch(network: &Network, node: &Node, op: &GradientOp) -> usize {
    match op {
        GradientOp::Conv2dInput { .. } | GradientOp::LinearInput { .. } => {
            turned(network, node, op).map_or(0, |(turned, ..)| turned.scratch().iter().sum())
        }
        GradientOp::Conv2dWeight { .. } if node.shape[2] * node.shape[3] > 1 => node.elements(),
        GradientOp::Norm(of) => norm_gradient(network, of).scratch_len(),
        GradientOp::Attention { .. } => attention_gradient(network, op).map_or(0, |op| op.scratch_len()),
        GradientOp::Sum { x } => {
            let mut axes = axes_of_sum(&network.graph().node(*x).shape, &node.shape);
            let mut numbers = 0;
            while axes.iter().filter(|(_, summed)| *summed).count() > 1 {
                let first = axes.iter().position(|(_, summed)| *summed).unwrap_or_default();
                axes[first] = (1, false);
                numbers += axes.iter().map(|(length, _)| length).product::<usize>().next_multiple_of(ALIGNED);
            }
            numbers
        }
        _ => 0,
    }
}

/// The gradient of a normalisation, but for its addresses.
fn norm_gradient(network: &Network, of: &Norm) -> norm::NormGradient {
    let shape = &network.graph().node(of.x).shape;
    let (rows, channels) = rows_and_channels(shape);
    let batch = if of.groups.is_some() { shape[0] } else { rows };
    norm::NormGradient {
        batch,
        pixels: rows / batch,
        channels,
        groups: of.groups.unwrap_or(1),
        eps: of.eps.into(),
        activation: kernel(of.activation),
        ..Zeroable::zeroed()
    }
}

/// The gradient of an attention, but for its addresses; `None` for another op.
fn attention_gradient(network: &Network, op: &GradientOp) -> Option<attention::AttentionGradient> {
    let &GradientOp::Attention { q, k, heads, causal, .. } = op else { return None };
    let [q, k] = [q, k].map(|id| &network.graph().node(id).shape);
    let channels = q[2];
    Some(attention::AttentionGradient {
        q_stride: channels,
        k_stride: channels,
        v_stride: channels,
        batch: q[0],
        heads,
        head_size: channels / heads,
        query_tokens: q[1],
        key_tokens: k[1],
        causal: usize::from(causal),
        ..Zeroable::zeroed()
    })
}

fn fill(y: usize, count: usize, jobs: &mut Vec<Job>) {
    jobs.push(Job::new(spread::Fill { y, count, value: 0.0.into() }));
}

/// Appends the jobs of the gradient `node`.
pub(super) fn lower(places: &Places, id: NodeId, op: &GradientOp, jobs: &mut Vec<Job>) {
    let (network, node) = (places.network, places.graph().node(id));
    let (y, scratch, elements) = (places.node(id), places.scratch(id), node.elements());
    match *op {
        GradientOp::Conv2dInput { .. } | GradientOp::LinearInput { .. } => {
            let Some((turned, upstream, weight)) = turned(network, node, op) else { return };
            let at = [places.node(upstream), scratch, y];
            turned.lower(places.weight(weight), at, places.shape(upstream), jobs);
        }
        GradientOp::Conv2dWeight { x, upstream, stride, padding } => {
            let [batch, height, width, in_channels] = picture(places.shape(x));
            let [_, out_height, out_width, out_channels] = picture(places.shape(upstream));
            let [_, _, kernel_height, kernel_width] = picture(&node.shape);
            let taps = kernel_height * kernel_width;
            jobs.push(Job::new(weight::WeightGradient {
                x: places.node(x),
                upstream: places.node(upstream),
                out: if taps > 1 { scratch } else { y },
                batch,
                height,
                width,
                in_channels,
                kernel_height,
                kernel_width,
                stride,
                padding_top: padding.top,
                padding_left: padding.left,
                out_height,
                out_width,
                out_channels,
            }));
            if taps > 1 {
                // From one matrix for each tap to a kernel for each pair of channels.
                let matrix = out_channels * in_channels;
                let shape = [out_channels, in_channels, taps];
                copy(&shape, [scratch, y], [&[in_channels, 1, matrix], &strides(&shape)], jobs);
            }
        }
        GradientOp::LinearWeight { x, upstream } => {
            let (rows, in_channels) = rows_and_channels(places.shape(x));
            jobs.push(Job::new(weight::WeightGradient {
                x: places.node(x),
                upstream: places.node(upstream),
                out: y,
                batch: 1,
                height: 1,
                width: rows,
                in_channels,
                kernel_height: 1,
                kernel_width: 1,
                stride: 1,
                padding_top: 0,
                padding_left: 0,
                out_height: 1,
                out_width: rows,
                out_channels: rows_and_channels(places.shape(upstream)).1,
            }));
        }
        GradientOp::Norm(of) => {
            let gradient = norm::NormGradient {
                x: places.node(of.x),
                upstream: places.node(of.upstream),
                weight: places.weight(of.weight),
                bias: places.weight(of.bias),
                out: y,
                scratch,
                ..norm_gradient(network, &of)
            };
            jobs.push(Job::new(gradient));
            jobs.push(Job::new(gradient.sums()));
        }
        GradientOp::Attention { q, k, v, upstream, .. } => {
            jobs.extend(attention_gradient(network, op).map(|gradient| {
                let [q, k, v, upstream] = [q, k, v, upstream].map(|id| places.node(id));
                Job::new(attention::AttentionGradient { q, k, v, upstream, out: y, scratch, ..gradient })
            }));
        }
        GradientOp::Activate { x, upstream, activation } => jobs.push(Job::new(elementwise::ActivateGradient {
            x: places.node(x),
            upstream: places.node(upstream),
            out: y,
            count: elements,
            activation: kernel(Some(activation)),
        })),
        GradientOp::Geglu { x, upstream } => {
            let (rows, channels) = rows_and_channels(places.shape(upstream));
            let [x, upstream] = [x, upstream].map(|id| places.node(id));
            jobs.push(Job::new(elementwise::GegluGradient { x, upstream, out: y, rows, channels }));
        }
        GradientOp::Resize { upstream, bilinear } => {
            let [batch, in_height, in_width, channels] = picture(&node.shape);
            let [_, height, width, _] = picture(places.shape(upstream));
            jobs.push(Job::new(spread::ResizeGradient {
                upstream: places.node(upstream),
                y,
                batch,
                in_height,
                in_width,
                height,
                width,
                channels,
                bilinear: usize::from(bilinear),
            }));
        }
        GradientOp::Pool2d { x, upstream, pooling, kernel, stride, padding } => {
            let [batch, in_height, in_width, channels] = picture(&node.shape);
            let [_, height, width, _] = picture(places.shape(upstream));
            jobs.push(Job::new(spread::Pool2dGradient {
                x: places.node(x),
                upstream: places.node(upstream),
                y,
                batch,
                in_height,
                in_width,
                height,
                width,
                channels,
                kernel_height: kernel[0],
                kernel_width: kernel[1],
                stride,
                padding_top: padding.top,
                padding_left: padding.left,
                average: usize::from(pooling == Pooling::Average),
            }));
        }
        GradientOp::Slice { upstream, axis, start } => {
            fill(y, elements, jobs);
            let (shape, to) = (places.shape(upstream), strides(&node.shape));
            copy(shape, [places.node(upstream), y + F32 * start * to[axis]], [&strides(shape), &to], jobs);
        }
        GradientOp::Sum { x } => sum(places.node(x), places.shape(x), y, &node.shape, scratch, jobs),
        GradientOp::Gather { ids, upstream } => {
            let (count, channels) = rows_and_channels(places.shape(upstream));
            let (x, ids) = (places.node(upstream), places.node(ids));
            jobs.push(Job::new(spread::Scatter { x, ids, table: y, rows: node.shape[0], channels, count }));
        }
    }
}

/// One job for each stretch of axes that is summed along; what is between two lies in the scratch memory.
fn sum(mut x: usize, from: &[usize], y: usize, to: &[usize], mut scratch: usize, jobs: &mut Vec<Job>) {
    let mut axes = axes_of_sum(from, to);
    while let Some(first) = axes.iter().position(|(_, summed)| *summed) {
        let product = |axes: &[(usize, bool)]| axes.iter().map(|(length, _)| length).product::<usize>();
        let (outer, length, inner) = (product(&axes[..first]), axes[first].0, product(&axes[first + 1..]));
        axes[first] = (1, false);
        let is_last = !axes.iter().any(|(_, summed)| *summed);
        let to = if is_last { y } else { scratch };
        jobs.push(Job::new(spread::Sum { x, y: to, outer, length, inner }));
        x = to;
        scratch += F32 * product(&axes).next_multiple_of(ALIGNED);
    }
}

/// Appends the job of a gathering.
pub(super) fn gather(places: &Places, id: NodeId, table: WeightId, ids: NodeId, jobs: &mut Vec<Job>) {
    let (count, channels) = rows_and_channels(&places.graph().node(id).shape);
    let rows = places.graph().weight(table).shape[0];
    let (table, ids) = (places.weight(table), places.node(ids));
    jobs.push(Job::new(spread::Gather { table, ids, y: places.node(id), rows, channels, count }));
}

/// Appends the job of an optimiser's step.
pub(super) fn optimise(places: &Places, id: NodeId, op: &OptimiserOp, jobs: &mut Vec<Job>) {
    let node = |id: NodeId| places.node(id);
    let (y, count) = (node(id), places.graph().node(id).elements());
    jobs.push(match *op {
        OptimiserOp::SumOfSquares { x } => {
            let count = places.graph().node(x).elements();
            Job::new(optimiser::SumOfSquares { x: node(x), y, count })
        }
        OptimiserOp::AdamW { first_moment, second_moment, gradient, squares, coefficients, .. } => {
            let [first_moment, second_moment] = [first_moment, second_moment].map(|id| places.weight(id));
            let [gradient, squares, coefficients] = [gradient, squares, coefficients].map(node);
            let weight = y;
            Job::new(optimiser::AdamW { weight, first_moment, second_moment, gradient, squares, coefficients, count })
        }
        OptimiserOp::Ema { weight, share, .. } => {
            Job::new(optimiser::Ema { average: y, x: node(weight), share: node(share), count })
        }
    });
}
