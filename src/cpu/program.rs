//! A graph with its weights, ready to run.

use std::rc::Rc;

use super::convolution::Residual;
use super::gemm::Panels;
use super::weights::Stored;
use super::{
    Error, Weights, activation, attention, check_memory, convolution, elementwise, guidance, layout, linear_update,
    norm, resample, threshold,
};
use super::{timestep_embedding, timestep_embedding::timestep_embedding as embed};
use crate::graph::{DType, Graph, Liveness, Node, NodeId, Op, WeightId, update};

/// A graph on the CPU. Inputs keep what was written to them; outputs keep their value until the next run.
#[derive(Debug)]
pub struct Program {
    graph: Graph,
    liveness: Liveness,
    /// The graph's weights, as they were when this was prepared.
    weights: Vec<Stored>,
    values: Vec<Vec<f32>>,
    pixels: Vec<Vec<u32>>,
    has_run: bool,
}

impl Program {
    /// Prepares `graph`; its weights are looked up by name.
    ///
    /// # Errors
    /// If a weight of the graph is not among `weights` or has not been loaded.
    pub fn new(graph: &Graph, weights: Rc<Weights>) -> Result<Self, Error> {
        weights.check_complete()?;
        let bound = graph.weights().iter().map(|spec| weights.find(&spec.name)).collect::<Result<_, _>>()?;
        let mut values = vec![Vec::new(); graph.nodes().len()];
        for (_, id) in graph.inputs() {
            values[id.index()] = vec![0.0; graph.node(*id).elements()];
        }
        let pixels = vec![Vec::new(); graph.nodes().len()];
        let liveness = Liveness::new(graph);
        check_memory("the network with its weights", weights.bytes().saturating_add(peak_bytes(graph, &liveness)))?;
        Ok(Self { graph: graph.clone(), liveness, weights: bound, values, pixels, has_run: false })
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

    /// Computes the outputs.
    ///
    /// # Errors
    /// [`Error::NonFinite`] with the first node that made a NaN or an infinity.
    pub fn run(&mut self) -> Result<(), Error> {
        let mut values = std::mem::take(&mut self.values);
        let result = self.evaluate(&mut values);
        self.values = values;
        self.has_run = result.is_ok();
        result
    }

    fn evaluate(&mut self, values: &mut [Vec<f32>]) -> Result<(), Error> {
        for index in 0..self.graph.nodes().len() {
            let node = &self.graph.nodes()[index];
            match node.op {
                Op::Input | Op::Reshape { .. } => {}
                Op::PackRgba8 { x } => {
                    let shape = &self.graph.node(x).shape;
                    let source = &values[self.liveness.storage(x).index()];
                    self.pixels[index] = elementwise::pack_rgba8(source, shape[1], shape[2] * shape[3]);
                }
                _ => {
                    let mut out = std::mem::take(&mut values[index]);
                    out.resize(node.elements(), 0.0);
                    self.compute(node, values, &mut out)?;
                    if !out.iter().fold(true, |finite, v| finite & v.is_finite()) {
                        return Err(Error::NonFinite { path: node.path.clone(), op: node.op.name() });
                    }
                    values[index] = out;
                }
            }
            let node = &self.graph.nodes()[index];
            node.op.for_each_input(|id| {
                if self.liveness.last_use(id) == index {
                    values[self.liveness.storage(id).index()] = Vec::new();
                }
            });
        }
        Ok(())
    }

    fn compute(&self, node: &Node, values: &[Vec<f32>], out: &mut [f32]) -> Result<(), Error> {
        let value = |id: NodeId| &values[self.liveness.storage(id).index()][..];
        let shape = |id: NodeId| &self.graph.node(id).shape[..];
        let missing = |id: WeightId| Error::MissingWeight(self.graph.weight(id).name.clone());
        let matrix = |id: WeightId| -> Result<&Panels, Error> {
            match &self.weights[id.index()] {
                Stored::Matrix(panels, _) => Ok(panels),
                Stored::Vector(_) => Err(missing(id)),
            }
        };
        let vector = |id: WeightId| -> Result<&[f32], Error> {
            match &self.weights[id.index()] {
                Stored::Vector(values) => Ok(values),
                Stored::Matrix(..) => Err(missing(id)),
            }
        };
        let last = |id: NodeId| shape(id).last().copied().unwrap_or(1);
        let residual_of = |id: Option<NodeId>| match id {
            None => Residual::None,
            Some(id) if shape(id) == node.shape => Residual::Full(value(id)),
            Some(id) => Residual::PerChannel(value(id)),
        };
        match &node.op {
            Op::Input | Op::Reshape { .. } | Op::PackRgba8 { .. } => {}
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
                };
                let bias = bias.map(vector).transpose()?;
                convolution::convolution(geometry, input, matrix(weight)?, bias, residual_of(residual), out);
            }
            &Op::Linear { x, weight, bias, residual } => {
                let channels = last(x);
                let geometry = convolution::Geometry::linear(value(x).len() / channels, channels);
                let bias = bias.map(vector).transpose()?;
                convolution::convolution(geometry, value(x), matrix(weight)?, bias, residual_of(residual), out);
            }
            &Op::GroupNorm { x, weight, bias, groups, eps, activation } => {
                let channels = last(x);
                let pixels = value(x).len() / shape(x)[0] / channels;
                norm::group_norm(value(x), out, [pixels, channels, groups], eps, vector(weight)?, vector(bias)?);
                if let Some(activation) = activation {
                    activation::activate(out, activation);
                }
            }
            &Op::LayerNorm { x, weight, bias, eps } => {
                norm::layer_norm(value(x), out, eps, vector(weight)?, vector(bias)?);
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
                out.copy_from_slice(value(x));
                activation::activate(out, activation);
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
            &Op::AvgPool2 { x } => resample::avg_pool2(value(x), [shape(x)[1], shape(x)[2]], last(x), out),
            &Op::TimestepEmbedding { timestep, flip_sin_to_cos, downscale_freq_shift, scale, max_period } => {
                let dim = node.shape[1];
                let options =
                    timestep_embedding::Options { dim, flip_sin_to_cos, downscale_freq_shift, scale, max_period };
                embed(value(timestep), options, out);
            }
            &Op::Guidance { model_output, coefficients, rescale } => {
                let scale = value(coefficients)[update::GUIDANCE];
                guidance::guidance(value(model_output), scale, rescale, node.elements() / node.shape[0], out);
            }
            &Op::Threshold { x, ratio, max_value } => {
                threshold::threshold(value(x), ratio, max_value, node.elements() / node.shape[0], out);
            }
            &Op::LinearUpdate { sample, model_output, noise, history, coefficients, x0 } => {
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
        Ok(())
    }

    /// The value of an f32 output after a run.
    ///
    /// # Errors
    /// If there is no such output, or no run has made it.
    pub fn read(&self, output: &str) -> Result<&[f32], Error> {
        let id = self.graph.output(output)?;
        if !self.has_run || self.graph.node(id).dtype != DType::F32 {
            return Err(Error::NotRun(output.to_owned()));
        }
        Ok(&self.values[self.liveness.storage(id).index()])
    }

    /// The value of a packed-pixel output after a run.
    ///
    /// # Errors
    /// If there is no such output, or no run has made it.
    pub fn read_u32(&self, output: &str) -> Result<&[u32], Error> {
        let id = self.graph.output(output)?;
        if !self.has_run || self.graph.node(id).dtype != DType::U32 {
            return Err(Error::NotRun(output.to_owned()));
        }
        Ok(&self.pixels[id.index()])
    }
}

/// Bytes of the values that are alive at the same time, at most.
fn peak_bytes(graph: &Graph, liveness: &Liveness) -> u64 {
    let bytes = |index: usize| 4 * graph.nodes()[index].elements() as u64;
    let mut ends: Vec<Vec<usize>> = vec![Vec::new(); graph.nodes().len()];
    let (mut alive, mut peak) = (0, 0);
    for (index, node) in graph.nodes().iter().enumerate() {
        if !matches!(node.op, Op::Reshape { .. }) {
            alive += bytes(index);
            if let Some(ending) = ends.get_mut(liveness.last_use(NodeId(index))) {
                ending.push(index);
            }
        }
        peak = peak.max(alive);
        alive -= ends[index].iter().map(|&ended| bytes(ended)).sum::<u64>();
    }
    peak
}
