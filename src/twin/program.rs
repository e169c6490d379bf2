//! A graph evaluated node by node.

use super::Error;
use super::convolution::Residual;
use super::{
    activation, attention, convolution, elementwise, guidance, layout, linear_update, norm, resample, threshold,
    timestep_embedding,
};
use crate::graph::{Element, Graph, Node, NodeId, Op, SolverOp, WeightId, update};

/// A graph with its weights. Every node keeps its value until the next run.
#[derive(Debug)]
pub struct Program {
    graph: Graph,
    weights: Vec<Vec<f32>>,
    values: Vec<Vec<f32>>,
    pixels: Vec<Vec<u32>>,
    has_run: bool,
}

impl Program {
    /// Takes `graph` and, in the order of [`Graph::weights`], what its weights hold in the order that a checkpoint has them.
    ///
    /// # Errors
    /// If a weight is missing or has another length.
    pub fn new(graph: &Graph, weights: Vec<Vec<f32>>) -> Result<Self, Error> {
        for (index, spec) in graph.weights().iter().enumerate() {
            let length = spec.shape.iter().product::<usize>();
            if weights.get(index).map(Vec::len) != Some(length) {
                return Err(Error::Weight(spec.name.clone()));
            }
        }
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
    pub fn write(&mut self, input: &str, data: &[f32]) -> Result<(), Error> {
        let id = self.graph.input(input)?;
        let value = &mut self.values[id.index()];
        if value.len() != data.len() {
            return Err(Error::InputLength { name: input.to_owned(), expected: value.len(), found: data.len() });
        }
        value.copy_from_slice(data);
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
                _ => {
                    let mut out = std::mem::take(&mut self.values[index]);
                    self.compute(node, &mut out);
                    self.values[index] = out;
                }
            }
        }
        self.has_run = true;
    }

    fn compute(&self, node: &Node, out: &mut [f32]) {
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
                let geometry = convolution::Geometry {
                    input: size,
                    channels: shape(x)[3],
                    kernel: [kernel[2], kernel[3]],
                    stride,
                    padding,
                    output: [node.shape[1], node.shape[2]],
                    out_channels: kernel[0],
                };
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
                norm::group_norm(value(x), out, [pixels, channels, groups], eps, weights(weight), weights(bias));
                if let Some(activation) = activation {
                    out.iter_mut().for_each(|y| *y = activation::activate(*y, activation));
                }
            }
            &Op::LayerNorm { x, weight, bias, eps } => {
                norm::layer_norm(value(x), out, eps, weights(weight), weights(bias));
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
            &Op::Affine { x, scale, shift } => elementwise::affine(value(x), scale, shift, out),
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
                let window = resample::Window {
                    input: [shape(x)[1], shape(x)[2]],
                    kernel,
                    stride,
                    padding,
                    output: [node.shape[1], node.shape[2]],
                    channels: last(x),
                };
                resample::pool2d(window, pooling, value(x), out);
            }
            &Op::TimestepEmbedding { timestep, flip_sin_to_cos, downscale_freq_shift, scale, max_period } => {
                let dim = node.shape[1];
                let options =
                    timestep_embedding::Options { dim, flip_sin_to_cos, downscale_freq_shift, scale, max_period };
                timestep_embedding::timestep_embedding(value(timestep), options, out);
            }
            &Op::Solver(SolverOp::Guidance { model_output, coefficients, rescale }) => {
                let scale = value(coefficients)[update::GUIDANCE];
                guidance::guidance(value(model_output), scale, rescale, node.elements() / node.shape[0], out);
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

    /// The value of an f32 output after a run.
    ///
    /// # Errors
    /// If there is no such output, or no run has made it.
    pub fn read(&self, output: &str) -> Result<&[f32], Error> {
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
