//! A graph evaluated node by node.

use super::Error;
use super::convolution::Residual;
#[cfg(feature = "training")]
use super::gradient;
use super::{
    activation, attention, convolution, elementwise, guidance, layout, linear_update, norm, resample, threshold,
    timestep_embedding,
};
use crate::graph::{Element, Graph, Node, NodeId, Op, Padding, SolverOp, WeightId, update};
#[cfg(feature = "training")]
use crate::graph::{
    OptimiserOp,
    gradient::{GradientOp, Norm},
};

/// A graph with its weights. Every node keeps its value until the next run.
#[derive(Debug)]
pub struct Program {
    graph: Graph,
    weights: Vec<Vec<f64>>,
    values: Vec<Vec<f64>>,
    pixels: Vec<Vec<u32>>,
    has_run: bool,
}

impl Program {
    /// Takes `graph` and, in the order of [`Graph::weights`], what its weights hold in the order that a checkpoint has them.
    ///
    /// # Errors
    /// If a weight is missing or has another length.
    pub fn new<T: Into<f64> + Copy>(graph: &Graph, weights: Vec<Vec<T>>) -> Result<Self, Error> {
        for (index, spec) in graph.weights().iter().enumerate() {
            let length = spec.shape.iter().product::<usize>();
            if weights.get(index).map(Vec::len) != Some(length) {
                return Err(Error::Weight(spec.name.clone()));
            }
        }
        let weights = weights.into_iter().map(|weight| weight.into_iter().map(Into::into).collect()).collect();
        let values = graph.nodes().iter().map(|node| vec![0.0; node.elements()]).collect();
        let pixels = vec![Vec::new(); graph.nodes().len()];
        Ok(Self { graph: graph.clone(), weights, values, pixels, has_run: false })
    }

    /// The graph that runs.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Fills an input.
    ///
    /// # Errors
    /// If there is no such input or it has another length.
    pub fn write<T: Into<f64> + Copy>(&mut self, input: &str, data: &[T]) -> Result<(), Error> {
        let id = self.graph.input(input)?;
        let value = &mut self.values[id.index()];
        if value.len() != data.len() {
            return Err(Error::InputLength { name: input.to_owned(), expected: value.len(), found: data.len() });
        }
        value.iter_mut().zip(data).for_each(|(value, &number)| *value = number.into());
        Ok(())
    }

    /// Computes all nodes.
    pub fn run(&mut self) {
        for index in 0..self.graph.nodes().len() {
            let node = &self.graph.nodes()[index];
            match node.op {
                Op::Input => {}
                Op::PackRgba8 { x } => {
                    let shape = &self.graph.node(x).shape;
                    let source = &self.values[x.index()];
                    self.pixels[index] = elementwise::pack_rgba8(source, shape[1], shape[2] * shape[3]);
                }
                #[cfg(feature = "training")]
                Op::Optimiser(op) => self.values[index] = self.optimise(op),
                _ => {
                    let mut out = std::mem::take(&mut self.values[index]);
                    self.compute(node, &mut out);
                    self.values[index] = out;
                }
            }
        }
        self.has_run = true;
    }

    fn compute(&self, node: &Node, out: &mut [f64]) {
        let value = |id: NodeId| &self.values[id.index()][..];
        let shape = |id: NodeId| &self.graph.node(id).shape[..];
        let weights = |id: WeightId| &self.weights[id.index()][..];
        let last_of = |node: &Node| node.shape.last().copied().unwrap_or(1);
        let last = |id: NodeId| last_of(self.graph.node(id));
        let residual_of = |id: Option<NodeId>| match id {
            None => Residual::None,
            Some(id) if shape(id) == node.shape => Residual::Full(value(id)),
            Some(id) => Residual::PerChannel(value(id)),
        };
        match &node.op {
            Op::Input | Op::PackRgba8 { .. } => {}
            #[cfg(feature = "training")]
            Op::Optimiser(_) => {}
            &Op::Reshape { x } => out.copy_from_slice(value(x)),
            &Op::Conv2d { x, weight, bias, residual, stride, padding, upsample } => {
                let kernel = &self.graph.weight(weight).shape;
                let (small, mut input, mut enlarged) = ([shape(x)[1], shape(x)[2]], value(x), Vec::new());
                let size = if upsample { small.map(|side| 2 * side) } else { small };
                if upsample {
                    enlarged.resize(4 * input.len(), 0.0);
                    resample::resize_nearest(input, small, size, shape(x)[3], &mut enlarged);
                    input = &enlarged;
                }
                let mut geometry = geometry(shape(x), kernel, &node.shape, stride, padding);
                geometry.input = size;
                let bias = bias.map(weights);
                convolution::convolution(geometry, input, weights(weight), bias, residual_of(residual), out);
            }
            &Op::Linear { x, weight, bias, residual } => {
                let (bias, residual) = (bias.map(weights), residual_of(residual));
                convolution::linear(last(x), last_of(node), value(x), weights(weight), bias, residual, out);
            }
            &Op::GroupNorm { x, weight, bias, groups, eps, activation } => {
                let channels = last(x);
                let pixels = value(x).len() / shape(x)[0] / channels;
                norm::group_norm(value(x), out, [pixels, channels, groups], eps.into(), weights(weight), weights(bias));
                if let Some(activation) = activation {
                    out.iter_mut().for_each(|y| *y = activation::activate(*y, activation));
                }
            }
            &Op::LayerNorm { x, weight, bias, eps } => {
                norm::layer_norm(value(x), out, eps.into(), weights(weight), weights(bias));
            }
            &Op::Attention { q, k, v, heads, causal } => {
                let geometry = attention::Geometry {
                    query_tokens: shape(q)[1],
                    key_tokens: shape(k)[1],
                    channels: last(q),
                    heads,
                    causal,
                };
                attention::attention(geometry, value(q), value(k), value(v), out);
            }
            &Op::Activate { x, activation } => {
                out.iter_mut().zip(value(x)).for_each(|(y, x)| *y = activation::activate(*x, activation));
            }
            &Op::Geglu { x } => activation::geglu(value(x), out, last(x) / 2),
            &Op::Binary { op, a, b } => elementwise::binary(op, value(a), shape(a), value(b), shape(b), out),
            &Op::Affine { x, scale, shift } => elementwise::affine(value(x), scale.into(), shift.into(), out),
            Op::Concat { inputs, axis } => {
                let inner = node.shape[axis + 1..].iter().product();
                let mut start = 0;
                for &id in inputs {
                    let length = shape(id)[*axis];
                    layout::copy_into(value(id), length, out, node.shape[*axis], start, inner);
                    start += length;
                }
            }
            &Op::Slice { x, axis, start } => {
                let inner = node.shape[axis + 1..].iter().product();
                layout::copy_out_of(value(x), shape(x)[axis], start, out, node.shape[axis], inner);
            }
            Op::Permute { x, axes } => layout::permute(value(*x), shape(*x), axes, out),
            &Op::ResizeNearest { x } => {
                let (from, to) = ([shape(x)[1], shape(x)[2]], [node.shape[1], node.shape[2]]);
                resample::resize_nearest(value(x), from, to, last(x), out);
            }
            &Op::ResizeBilinear { x } => {
                let (from, to) = ([shape(x)[1], shape(x)[2]], [node.shape[1], node.shape[2]]);
                resample::resize_bilinear(value(x), from, to, last(x), out);
            }
            &Op::Pool2d { x, pooling, kernel, stride, padding } => {
                resample::pool2d(window(shape(x), &node.shape, kernel, stride, padding), pooling, value(x), out);
            }
            &Op::TimestepEmbedding { timestep, flip_sin_to_cos, downscale_freq_shift, scale, max_period } => {
                let dim = node.shape[1];
                let options =
                    timestep_embedding::Options { dim, flip_sin_to_cos, downscale_freq_shift, scale, max_period };
                timestep_embedding::timestep_embedding(value(timestep), options, out);
            }
            #[cfg(feature = "training")]
            &Op::Gather { table, ids } => {
                let (table, channels) = (weights(table), last_of(node));
                for (out, &id) in out.chunks_exact_mut(channels).zip(value(ids)) {
                    out.copy_from_slice(&table[id as usize * channels..][..channels]);
                }
            }
            #[cfg(feature = "training")]
            Op::Gradient(op) => self.gradient(node, op, out),
            &Op::Solver(SolverOp::Guidance { model_output, coefficients, rescale }) => {
                let scale = value(coefficients)[update::GUIDANCE];
                guidance::guidance(value(model_output), scale, rescale.into(), node.elements() / node.shape[0], out);
            }
            &Op::Solver(SolverOp::Threshold { x, ratio, max_value }) => {
                threshold::threshold(value(x), ratio, max_value, node.elements() / node.shape[0], out);
            }
            &Op::Solver(SolverOp::LinearUpdate { sample, model_output, noise, history, coefficients, x0 }) => {
                let operands = linear_update::Operands {
                    sample: value(sample),
                    model_output: value(model_output),
                    noise: value(noise),
                    history: value(history),
                    coefficients: value(coefficients),
                    x0: x0.map(value),
                };
                linear_update::linear_update(operands, out);
            }
        }
    }

    /// Does an optimiser's step on the weights; gives the value of its node.
    #[cfg(feature = "training")]
    fn optimise(&mut self, op: OptimiserOp) -> Vec<f64> {
        match op {
            OptimiserOp::SumOfSquares { x } => vec![self.values[x.index()].iter().map(|x| x * x).sum()],
            OptimiserOp::AdamW { weight, first_moment, second_moment, gradient, squares, coefficients } => {
                let &[kept, a, b, c, epsilon, correction, step, limit] = &self.values[coefficients.index()][..] else {
                    return Vec::new();
                };
                let ratio = limit / (self.values[squares.index()][0].sqrt() + 1e-6);
                let clip = if ratio > 1.0 { 1.0 } else { ratio };
                for (i, gradient) in self.values[gradient.index()].iter().map(|g| g * clip).enumerate() {
                    let first = &mut self.weights[first_moment.index()][i];
                    *first += a * (gradient - *first);
                    let first = *first;
                    let second = &mut self.weights[second_moment.index()][i];
                    *second = b * *second + c * gradient * gradient;
                    let spread = second.sqrt() / correction + epsilon;
                    let weight = &mut self.weights[weight.index()][i];
                    *weight = kept * *weight - step * first / spread;
                }
                self.weights[weight.index()].clone()
            }
            OptimiserOp::Ema { average, weight, share } => {
                let share = self.values[share.index()][0];
                let weight = &self.values[weight.index()];
                let average = &mut self.weights[average.index()];
                average.iter_mut().zip(weight).for_each(|(average, weight)| *average += share * (weight - *average));
                average.clone()
            }
        }
    }

    #[cfg(feature = "training")]
    fn gradient(&self, node: &Node, op: &GradientOp, out: &mut [f64]) {
        let value = |id: NodeId| &self.values[id.index()][..];
        let shape = |id: NodeId| &self.graph.node(id).shape[..];
        let weights = |id: WeightId| &self.weights[id.index()][..];
        let last = |id: NodeId| shape(id).last().copied().unwrap_or(1);
        let norm = |norm: &Norm| {
            let &Norm { x, upstream, weight, bias, groups, eps, activation } = norm;
            let pixels = if groups.is_some() { value(x).len() / shape(x)[0] / last(x) } else { 1 };
            gradient::Norm {
                x: value(x),
                upstream: value(upstream),
                weight: weights(weight),
                bias: weights(bias),
                pixels,
                groups: groups.unwrap_or(1),
                eps: eps.into(),
                activation,
            }
        };
        match *op {
            GradientOp::Conv2dInput { upstream, weight, stride, padding } => {
                let kernel = &self.graph.weight(weight).shape;
                let geometry = geometry(&node.shape, kernel, shape(upstream), stride, padding);
                gradient::conv2d_input(geometry, value(upstream), weights(weight), out);
            }
            GradientOp::Conv2dWeight { x, upstream, stride, padding } => {
                let geometry = geometry(shape(x), &node.shape, shape(upstream), stride, padding);
                gradient::conv2d_weight(geometry, value(x), value(upstream), out);
            }
            GradientOp::LinearInput { upstream, weight } => {
                let sides = [*node.shape.last().unwrap_or(&1), last(upstream)];
                gradient::linear_input(sides, value(upstream), weights(weight), out);
            }
            GradientOp::LinearWeight { x, upstream } => {
                gradient::linear_weight([last(x), last(upstream)], value(x), value(upstream), out);
            }
            GradientOp::Norm(of) => norm(&of).gradient(out),
            GradientOp::Attention { q, k, v, upstream, heads, causal } => {
                let (query_tokens, key_tokens) = (shape(q)[1], shape(k)[1]);
                let geometry = attention::Geometry { query_tokens, key_tokens, channels: last(q), heads, causal };
                gradient::attention(geometry, [q, k, v, upstream].map(value), out);
            }
            GradientOp::Activate { x, upstream, activation } => {
                for ((out, &x), upstream) in out.iter_mut().zip(value(x)).zip(value(upstream)) {
                    *out = upstream * activation::slope(x, activation);
                }
            }
            GradientOp::Geglu { x, upstream } => gradient::geglu(value(x), value(upstream), last(upstream), out),
            GradientOp::Resize { upstream, bilinear } => {
                let (from, to) = ([node.shape[1], node.shape[2]], [shape(upstream)[1], shape(upstream)[2]]);
                gradient::resize(value(upstream), from, to, last(upstream), bilinear, out);
            }
            GradientOp::Pool2d { x, upstream, pooling, kernel, stride, padding } => {
                let window = window(shape(x), shape(upstream), kernel, stride, padding);
                gradient::pool2d(window, pooling, value(x), value(upstream), out);
            }
            GradientOp::Slice { upstream, axis, start } => {
                out.fill(0.0);
                let inner = node.shape[axis + 1..].iter().product();
                layout::copy_into(value(upstream), shape(upstream)[axis], out, node.shape[axis], start, inner);
            }
            GradientOp::Sum { x } => gradient::sum(value(x), shape(x), &node.shape, out),
            GradientOp::Gather { ids, upstream } => gradient::gather(value(ids), value(upstream), last(upstream), out),
        }
    }

    /// The value of an f32 output after a run, rounded to what an executor can hold.
    ///
    /// # Errors
    /// If there is no such output, or no run has made it.
    pub fn read(&self, output: &str) -> Result<Vec<f32>, Error> {
        Ok(self.read_f64(output)?.iter().map(|&value| value as f32).collect())
    }

    /// The value of an f32 output after a run, as it was computed.
    ///
    /// # Errors
    /// As [`Program::read`].
    pub fn read_f64(&self, output: &str) -> Result<&[f64], Error> {
        let id = self.graph.output(output)?;
        if !self.has_run || self.graph.node(id).dtype != Element::F32 {
            return Err(Error::NotRun(output.to_owned()));
        }
        Ok(&self.values[id.index()])
    }

    /// The value of a packed-pixel output after a run.
    ///
    /// # Errors
    /// If there is no such output, or no run has made it.
    pub fn read_u32(&self, output: &str) -> Result<&[u32], Error> {
        let id = self.graph.output(output)?;
        if !self.has_run || self.graph.node(id).dtype != Element::U32 {
            return Err(Error::NotRun(output.to_owned()));
        }
        Ok(&self.pixels[id.index()])
    }
}

/// The convolution of a picture of the shape `x` to one of the shape `y`.
fn geometry(x: &[usize], weight: &[usize], y: &[usize], stride: usize, padding: Padding) -> convolution::Geometry {
    convolution::Geometry {
        input: [x[1], x[2]],
        channels: x[3],
        kernel: [weight[2], weight[3]],
        stride,
        padding,
        output: [y[1], y[2]],
        out_channels: weight[0],
    }
}

/// The pooling of a picture of the shape `x` to one of the shape `y`.
fn window(x: &[usize], y: &[usize], kernel: [usize; 2], stride: usize, padding: Padding) -> resample::Window {
    resample::Window { input: [x[1], x[2]], kernel, stride, padding, output: [y[1], y[2]], channels: x[3] }
}
