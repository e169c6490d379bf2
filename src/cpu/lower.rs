//! The jobs that compute a node of the network: a pure function of shapes and addresses.

use undiffuse_kernels::attention::Attention;
use undiffuse_kernels::conv2d::Conv2d;
use undiffuse_kernels::{
    Activation as Kernel, Job, activation, elementwise, guidance, layout, linear, linear_update, norm, resample,
    timestep_embedding,
};

use super::form::Form;
#[cfg(feature = "training")]
use super::gradient;
use super::network::{Network, picture, rows_and_channels, with_form};
use super::plan::RegionPlan;
use super::weights::Stored;
use crate::graph::{Activation, BinaryOp, Graph, Node, NodeId, Op, Pooling, SolverOp, Walk, WeightId, strides, update};

/// Bytes of an f32.
pub(super) const F32: usize = 4;

/// The places of a program's values and weights.
pub(super) struct Places<'a> {
    /// The network.
    pub network: &'a Network,
    /// Address of the region of its values.
    pub values: usize,
    /// Place of each in it.
    pub plan: &'a RegionPlan,
    /// The network's weights.
    pub weights: &'a [Stored],
    /// The form of each.
    pub forms: &'a [Form],
}

impl Places<'_> {
    pub(super) fn node(&self, id: NodeId) -> usize {
        match self.graph().written_weight(id) {
            Some(weight) => self.weight(weight),
            None => self.values + self.plan.of_node[id.index()],
        }
    }

    pub(super) fn scratch(&self, id: NodeId) -> usize {
        self.values + self.plan.of_scratch[id.index()]
    }

    pub(super) fn weight(&self, id: WeightId) -> usize {
        self.weights[id.index()].address()
    }

    /// Address of a weight, or 0 for none.
    fn optional_weight(&self, id: Option<WeightId>) -> usize {
        id.map_or(0, |id| self.weight(id))
    }

    /// Address of a node's value, or 0 for none.
    fn optional_node(&self, id: Option<NodeId>) -> usize {
        id.map_or(0, |id| self.node(id))
    }

    pub(super) fn graph(&self) -> &Graph {
        self.network.graph()
    }

    pub(super) fn shape(&self, id: NodeId) -> &[usize] {
        &self.graph().node(id).shape
    }

    /// Addresses of the one or two values that `id` stands for, 0 in place of the second.
    fn parts(&self, id: NodeId) -> [usize; 2] {
        let (first, second) = self.network.parts(id);
        [self.node(first), self.optional_node(second)]
    }
}

pub(super) fn kernel(activation: Option<Activation>) -> Kernel {
    match activation {
        None => Kernel::NONE,
        Some(Activation::Silu) => Kernel::SILU,
        Some(Activation::Gelu) => Kernel::GELU,
        Some(Activation::GeluTanh) => Kernel::GELU_TANH,
        Some(Activation::QuickGelu) => Kernel::QUICK_GELU,
        Some(Activation::Mish) => Kernel::MISH,
        Some(Activation::Relu) => Kernel::RELU,
        Some(Activation::Tanh) => Kernel::TANH,
        Some(Activation::Exp) => Kernel::EXP,
        Some(Activation::Sqrt) => Kernel::SQRT,
    }
}

/// Appends the jobs of the node `id`.
pub(super) fn lower(places: &Places, id: NodeId, jobs: &mut Vec<Job>) {
    let (network, node) = (places.network, places.graph().node(id));
    let (y, elements) = (places.node(id), node.elements());
    match &node.op {
        Op::Input | Op::Reshape { .. } => {}
        &Op::Conv2d { x, weight, bias, residual, .. } | &Op::Linear { x, weight, bias, residual } => {
            let (bias, residual_at) = (places.optional_weight(bias), places.optional_node(residual));
            let ([x, x2], of_x) = (places.parts(x), x);
            let (mut weight_at, mut scratch) = (places.weight(weight), places.scratch(id));
            let (stored, read) = (places.forms[weight.index()], network.form_read(node, places.forms));
            if stored != read {
                // It has changed since the last run.
                let spec = places.graph().weight(weight);
                jobs.extend(read.pack(spec, weight_at, scratch));
                weight_at = scratch;
                scratch += F32 * read.numbers(spec).unwrap_or_default();
            }
            if let Some((_, conv)) = network.conv2d(node) {
                jobs.push(Job::new(Conv2d {
                    x,
                    x2,
                    weight: weight_at,
                    bias,
                    residual: residual_at,
                    out: y,
                    scratch,
                    ..with_form(conv, read)
                }));
                return;
            }
            let (rows, _) = rows_and_channels(places.shape(of_x));
            let [in_features, in_features2] = network.channels(of_x);
            jobs.push(Job::new(linear::Linear {
                x,
                x2,
                weight: weight_at,
                bias,
                residual: residual_at,
                residual_rows: network.residual_rows(node, residual),
                out: y,
                rows,
                in_features,
                in_features2,
                out_features: rows_and_channels(&node.shape).1,
            }));
        }
        &Op::GroupNorm { x, weight, bias, groups, eps, activation } => {
            let (rows, _) = rows_and_channels(&node.shape);
            let (batch, [channels, channels2]) = (node.shape[0], network.channels(x));
            let [x, x2] = places.parts(x);
            jobs.push(Job::new(norm::GroupNorm {
                x,
                x2,
                weight: places.weight(weight),
                bias: places.weight(bias),
                out: y,
                batch,
                pixels: rows / batch,
                channels,
                channels2,
                groups,
                eps: eps.into(),
                activation: kernel(activation),
            }));
        }
        &Op::LayerNorm { x, weight, bias, eps } => {
            let (rows, channels) = rows_and_channels(places.shape(x));
            let (weight, bias, eps) = (places.weight(weight), places.weight(bias), eps.into());
            jobs.push(Job::new(norm::LayerNorm { x: places.node(x), weight, bias, out: y, rows, channels, eps }));
        }
        &Op::Attention { q, k, v, .. } => {
            jobs.extend(network.attention(node).map(|attention| {
                let [q, k, v] = [q, k, v].map(|id| places.node(id));
                Job::new(Attention { q, k, v, out: y, scratch: places.scratch(id), ..attention })
            }));
        }
        &Op::Activate { x, activation } => {
            let activation = kernel(Some(activation));
            jobs.push(Job::new(activation::Activate { x: places.node(x), out: y, count: elements, activation }));
        }
        &Op::Geglu { x } => {
            let (rows, channels) = rows_and_channels(&node.shape);
            jobs.push(Job::new(activation::Geglu { x: places.node(x), out: y, rows, channels }));
        }
        &Op::Affine { x, scale, shift } => {
            let (scale, shift) = (scale.into(), shift.into());
            jobs.push(Job::new(elementwise::Affine { x: places.node(x), y, elements, scale, shift }));
        }
        &Op::Binary { op, a, b } => binary(places, node, y, op, [a, b], jobs),
        // Read where its parts are.
        Op::Concat { .. } if network.is_joined(id) => {}
        Op::Concat { inputs, axis } => {
            let y_strides = strides(&node.shape);
            let mut start = 0;
            for &input in inputs {
                let shape = places.shape(input);
                copy(
                    shape,
                    [places.node(input), y + F32 * start * y_strides[*axis]],
                    [&strides(shape), &y_strides],
                    jobs,
                );
                start += shape[*axis];
            }
        }
        Op::Slice { x, axis, start } => {
            let x_strides = strides(places.shape(*x));
            let from = places.node(*x) + F32 * start * x_strides[*axis];
            copy(&node.shape, [from, y], [&x_strides, &strides(&node.shape)], jobs);
        }
        Op::Permute { x, axes } => {
            let of_source = strides(places.shape(*x));
            let x_strides: Vec<_> = axes.iter().map(|&axis| of_source[axis]).collect();
            copy(&node.shape, [places.node(*x), y], [&x_strides, &strides(&node.shape)], jobs);
        }
        &Op::ResizeNearest { x } => {
            let [batch, in_height, in_width, channels] = picture(places.shape(x));
            let [_, height, width, _] = picture(&node.shape);
            let x = places.node(x);
            jobs.push(Job::new(resample::ResizeNearest { x, y, batch, in_height, in_width, height, width, channels }));
        }
        &Op::ResizeBilinear { x } => {
            let [batch, in_height, in_width, channels] = picture(places.shape(x));
            let [_, height, width, _] = picture(&node.shape);
            let x = places.node(x);
            jobs.push(Job::new(resample::ResizeBilinear { x, y, batch, in_height, in_width, height, width, channels }));
        }
        &Op::Pool2d { x, pooling, kernel, stride, padding } => {
            let [batch, in_height, in_width, channels] = picture(places.shape(x));
            let [_, height, width, _] = picture(&node.shape);
            jobs.push(Job::new(resample::Pool2d {
                x: places.node(x),
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
        &Op::TimestepEmbedding { timestep, flip_sin_to_cos, downscale_freq_shift, scale, max_period } => {
            let (batch, dim) = rows_and_channels(&node.shape);
            jobs.push(Job::new(timestep_embedding::TimestepEmbedding {
                timestep: places.node(timestep),
                y,
                batch,
                dim,
                flip_sin_to_cos: usize::from(flip_sin_to_cos),
                downscale_freq_shift: downscale_freq_shift.into(),
                scale: scale.into(),
                max_period: max_period.into(),
            }));
        }
        #[cfg(feature = "training")]
        &Op::Gather { table, ids } => gradient::gather(places, id, table, ids, jobs),
        #[cfg(feature = "training")]
        Op::Gradient(op) => gradient::lower(places, id, op, jobs),
        #[cfg(feature = "training")]
        Op::Optimiser(op) => gradient::optimise(places, id, op, jobs),
        &Op::Solver(SolverOp::Guidance { model_output, coefficients, rescale }) => {
            jobs.push(Job::new(guidance::Guidance {
                x: places.node(model_output),
                scale: places.node(coefficients) + F32 * update::GUIDANCE,
                y,
                batch: node.shape[0],
                image: elements / node.shape[0],
                rescale: rescale.into(),
            }));
        }
        &Op::Solver(SolverOp::Threshold { x, ratio, max_value }) => {
            let (batch, image) = (node.shape[0], elements / node.shape[0]);
            let (ratio, max_value) = (ratio.into(), max_value.into());
            jobs.push(Job::new(guidance::Threshold { x: places.node(x), y, batch, image, ratio, max_value }));
        }
        &Op::Solver(SolverOp::LinearUpdate { sample, model_output, noise, history, coefficients, x0 }) => {
            let elements = places.graph().node(sample).elements();
            jobs.push(Job::new(linear_update::LinearUpdate {
                sample: places.node(sample),
                model_output: places.node(model_output),
                noise: places.node(noise),
                history: places.node(history),
                coefficients: places.node(coefficients),
                x0: places.optional_node(x0),
                y,
                elements,
                guided: usize::from(places.graph().node(model_output).elements() > elements),
            }));
        }
        &Op::PackRgba8 { x } => {
            let [batch, channels, height, width] = picture(places.shape(x));
            let x = places.node(x);
            jobs.push(Job::new(elementwise::PackRgba8 { x, y, batch, channels, pixels: height * width }));
        }
    }
}

/// One copy for each box of four axes; the addresses and strides are those of the source and the result.
pub(super) fn copy(shape: &[usize], [x, y]: [usize; 2], [x_strides, y_strides]: [&[usize]; 2], jobs: &mut Vec<Job>) {
    let walk = Walk::new(shape, [x_strides, y_strides, y_strides]);
    for [x_start, _, y_start] in walk.boxes([0; 3]) {
        let [x_strides, y_strides, _] = inner(&walk);
        jobs.push(Job::new(layout::Copy {
            x: x + F32 * x_start,
            y: y + F32 * y_start,
            shape: last_four(&walk.shape),
            x_strides,
            y_strides,
        }));
    }
}

fn binary(places: &Places, node: &Node, y: usize, op: BinaryOp, operands: [NodeId; 2], jobs: &mut Vec<Job>) {
    let [a, b] = operands.map(|id| places.node(id));
    let b_shape = places.shape(operands[1]);
    let mut b_strides = strides(b_shape);
    for (stride, (of_b, of_a)) in b_strides.iter_mut().zip(b_shape.iter().zip(&node.shape)) {
        if of_b != of_a {
            *stride = 0;
        }
    }
    let own = strides(&node.shape);
    let walk = Walk::new(&node.shape, [&own, &b_strides, &own]);
    let operation = match op {
        BinaryOp::Add => layout::Binary::ADD,
        BinaryOp::Sub => layout::Binary::SUB,
        BinaryOp::Mul => layout::Binary::MUL,
    };
    for [a_start, b_start, y_start] in walk.boxes([0; 3]) {
        let [a_strides, b_strides, y_strides] = inner(&walk);
        jobs.push(Job::new(layout::Binary {
            a: a + F32 * a_start,
            b: b + F32 * b_start,
            y: y + F32 * y_start,
            operation,
            shape: last_four(&walk.shape),
            a_strides,
            b_strides,
            y_strides,
        }));
    }
}

fn inner(walk: &Walk) -> [[usize; 4]; 3] {
    [0, 1, 2].map(|tensor| last_four(&walk.strides[tensor]))
}

/// The last four of at least four numbers.
fn last_four(numbers: &[usize]) -> [usize; 4] {
    std::array::from_fn(|index| numbers[numbers.len() - 4 + index])
}
