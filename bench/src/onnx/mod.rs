//! A [`Graph`] as an ONNX model, so that another runtime can be timed on the same network with the same weights.
//!
//! The model is what `torch.onnx` makes of the same module in opset 18: pictures are `[batch, channels, height, width]`, group
//! normalisation is an instance normalisation over groups, SiLU is x · sigmoid(x), linear layers are `MatMul` with the matrix
//! turned beforehand, weights of f16 are cast to f32 where they are used. A picture is turned only where a transformer reads it
//! as a sequence, as in the original.

mod proto;

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use anyhow::{Context, Result, bail};
use prost::Message;
use undiffuse::graph::{Activation, BinaryOp, Graph, NodeId, Op, Pooling, WeightId};
use undiffuse::weights::Encoding;

use crate::weights::{Tensor, Weights};
use proto::{
    AttributeProto, Dimension, FLOAT, FLOAT16, GraphProto, INT64, ModelProto, NodeProto, OperatorSetIdProto,
    TensorProto, TensorShapeProto, TensorType, TypeProto, ValueInfoProto,
};

/// Weights with fewer elements are stored as f32: a cast costs more than it saves.
const LEAST_ELEMENTS_IN_HALF: usize = 256;

/// The bytes of an `.onnx` file that computes `graph` with `weights`. The graph is one as models make them, before any rewrite.
///
/// # Errors
/// An op or a layout that UNets do not use, or a weight that is missing, by its layer.
pub fn model(graph: &Graph, weights: &Weights) -> Result<Vec<u8>> {
    let mut writer = Writer {
        graph,
        weights,
        values: Vec::new(),
        constants: HashMap::new(),
        made: HashSet::new(),
        model: GraphProto { name: "undiffuse".into(), ..GraphProto::default() },
    };
    for index in 0..graph.nodes().len() {
        let node = &graph.nodes()[index];
        let value =
            writer.node(index).with_context(|| format!("{} ({}) cannot be exported", node.path, node.op.name()))?;
        writer.values.push(value);
    }
    for (name, id) in graph.outputs() {
        let value = writer.value(*id).name;
        writer.push("Identity", vec![value], vec![name.clone()], vec![]);
        writer.model.output.push(port(name, &graph.node(*id).shape));
    }
    let opset_import = vec![OperatorSetIdProto { domain: String::new(), version: 18 }];
    let graph = Some(writer.model);
    Ok(ModelProto { ir_version: 10, producer_name: "undiffuse".into(), graph, opset_import }.encode_to_vec())
}

/// How a node's value lies in the ONNX model.
#[derive(Clone, Copy, PartialEq)]
enum Layout {
    /// As in the graph.
    Same,
    /// `[batch, channels, height, width]` of what the graph has as `[batch, height, width, channels]`.
    Picture,
}

#[derive(Clone)]
struct Value {
    name: String,
    layout: Layout,
}

struct Writer<'a> {
    graph: &'a Graph,
    weights: &'a Weights,
    /// What became of each node of the graph.
    values: Vec<Value>,
    /// The constants that there are, by shape, type and bytes.
    constants: HashMap<(Vec<usize>, i32, Vec<u8>), String>,
    /// The weights that there are, by their names.
    made: HashSet<String>,
    model: GraphProto,
}

impl Writer<'_> {
    fn value(&self, id: NodeId) -> Value {
        self.values[id.index()].clone()
    }

    fn shape(&self, id: NodeId) -> &[usize] {
        &self.graph.node(id).shape
    }

    fn push(&mut self, op: &str, input: Vec<String>, output: Vec<String>, attribute: Vec<AttributeProto>) {
        let name = format!("{op}.{}", self.model.node.len());
        self.model.node.push(NodeProto { input, output, name, op_type: op.into(), attribute });
    }

    /// Adds an operator with one result; returns that one's name.
    fn op(&mut self, op: &str, input: &[&str], attribute: Vec<AttributeProto>) -> String {
        let output = format!("v{}", self.model.node.len());
        self.push(op, input.iter().map(|&name| name.to_owned()).collect(), vec![output.clone()], attribute);
        output
    }

    /// A constant; equal ones are stored once.
    fn constant(&mut self, dims: &[usize], data_type: i32, raw_data: Vec<u8>) -> String {
        let name = format!("c{}", self.model.initializer.len());
        match self.constants.entry((dims.to_vec(), data_type, raw_data.clone())) {
            Entry::Occupied(known) => return known.get().clone(),
            Entry::Vacant(place) => place.insert(name.clone()),
        };
        self.initializer(&name, dims, data_type, raw_data);
        name
    }

    fn initializer(&mut self, name: &str, dims: &[usize], data_type: i32, raw_data: Vec<u8>) {
        self.model.initializer.push(TensorProto { dims: signed(dims), data_type, name: name.into(), raw_data });
    }

    fn floats(&mut self, dims: &[usize], values: &[f32]) -> String {
        self.constant(dims, FLOAT, values.iter().flat_map(|value| value.to_le_bytes()).collect())
    }

    fn integers(&mut self, values: &[usize]) -> String {
        self.constant(&[values.len()], INT64, values.iter().flat_map(|&value| (value as i64).to_le_bytes()).collect())
    }

    /// A weight in the given shape, or turned over if that has its two axes exchanged.
    fn weight(&mut self, id: WeightId, dims: &[usize], turned: bool) -> Result<String> {
        let spec = self.graph.weight(id);
        let name = if turned { format!("{}.t", spec.name) } else { spec.name.clone() };
        if !self.made.insert(name.clone()) {
            return Ok(name);
        }
        let Tensor { dtype, bytes } = self.weights.tensor(spec)?;
        let elements: usize = spec.shape.iter().product();
        let in_half = dtype == Encoding::F16 && elements >= LEAST_ELEMENTS_IN_HALF;
        let mut raw = match in_half {
            true => bytes.into_owned(),
            false => {
                let values = dtype.to_f32(&bytes).context("a weight that is cut short")?;
                values.iter().flat_map(|value| value.to_le_bytes()).collect()
            }
        };
        if let (true, &[rows, columns]) = (turned, dims) {
            raw = transposed(&raw, columns, rows, raw.len() / elements);
        }
        if in_half {
            let stored = format!("{name}.f16");
            self.initializer(&stored, dims, FLOAT16, raw);
            self.push("Cast", vec![stored], vec![name.clone()], vec![int("to", i64::from(FLOAT))]);
        } else {
            self.initializer(&name, dims, FLOAT, raw);
        }
        Ok(name)
    }

    /// The ONNX operators for node `index` of the graph.
    fn node(&mut self, index: usize) -> Result<Value> {
        let graph = self.graph;
        let node = &graph.nodes()[index];
        let same = |name| Ok(Value { name, layout: Layout::Same });
        match &node.op {
            Op::Input => {
                let known = graph.inputs().iter().find(|(_, id)| id.index() == index);
                let (name, _) = known.context("an input without a name")?;
                self.model.input.push(port(name, &node.shape));
                same(name.clone())
            }
            Op::Conv2d { upsample: true, .. } => bail!("a network is written as it was built, before any rewrite"),
            Op::Conv2d { x, weight, bias, residual, stride, padding, upsample: false } => {
                let dims = graph.weight(*weight).shape.clone();
                let pads = [padding.top, padding.left, padding.bottom, padding.right];
                let attributes =
                    vec![ints("kernel_shape", &dims[2..]), ints("strides", &[*stride; 2]), ints("pads", &pads)];
                let convolved = self.convolution(*x, *weight, &dims, *bias, attributes)?;
                self.plus(convolved, *residual)
            }
            Op::Linear { x, weight, bias, residual } => {
                let source = self.value(*x);
                let &[outputs, inputs, ..] = &graph.weight(*weight).shape[..] else { bail!("no matrix") };
                let computed = match (source.layout, node.shape.len()) {
                    (Layout::Picture, _) => {
                        let attributes = vec![ints("kernel_shape", &[1, 1])];
                        self.convolution(*x, *weight, &[outputs, inputs, 1, 1], *bias, attributes)?
                    }
                    (Layout::Same, 2) => {
                        let matrix = self.weight(*weight, &[outputs, inputs], false)?;
                        let mut operands = vec![source.name, matrix];
                        if let Some(bias) = bias {
                            operands.push(self.weight(*bias, &[outputs], false)?);
                        }
                        let operands: Vec<&str> = operands.iter().map(String::as_str).collect();
                        Value { name: self.op("Gemm", &operands, vec![int("transB", 1)]), layout: Layout::Same }
                    }
                    (Layout::Same, _) => {
                        let matrix = self.weight(*weight, &[inputs, outputs], true)?;
                        let mut name = self.op("MatMul", &[&source.name, &matrix], vec![]);
                        if let Some(bias) = bias {
                            let bias = self.weight(*bias, &[outputs], false)?;
                            name = self.op("Add", &[&name, &bias], vec![]);
                        }
                        Value { name, layout: Layout::Same }
                    }
                };
                self.plus(computed, *residual)
            }
            Op::GroupNorm { x, weight, bias, groups, eps, activation } => {
                let source = self.picture(*x)?;
                let &[batch, height, width, channels] = &node.shape[..] else { bail!("no picture") };
                let grouped = self.integers(&[batch, *groups, channels / groups * height * width]);
                let whole = self.integers(&[batch, channels, height, width]);
                let (ones, zeros) = (self.floats(&[*groups], &vec![1.0; *groups]), vec![0.0; *groups]);
                let zeros = self.floats(&[*groups], &zeros);
                let (weight, bias) =
                    (self.weight(*weight, &[channels, 1, 1], false)?, self.weight(*bias, &[channels, 1, 1], false)?);
                let h = self.op("Reshape", &[&source, &grouped], vec![]);
                let h = self.op("InstanceNormalization", &[&h, &ones, &zeros], vec![float("epsilon", *eps)]);
                let h = self.op("Reshape", &[&h, &whole], vec![]);
                let h = self.op("Mul", &[&h, &weight], vec![]);
                let h = self.op("Add", &[&h, &bias], vec![]);
                let name = match activation {
                    None => h,
                    Some(activation) => self.activation(&h, *activation)?,
                };
                Ok(Value { name, layout: Layout::Picture })
            }
            Op::LayerNorm { x, weight, bias, eps } => {
                let source = self.same(*x)?;
                let channels = node.shape.last().copied().unwrap_or(0);
                let (weight, bias) =
                    (self.weight(*weight, &[channels], false)?, self.weight(*bias, &[channels], false)?);
                let attributes = vec![int("axis", -1), float("epsilon", *eps)];
                same(self.op("LayerNormalization", &[&source, &weight, &bias], attributes))
            }
            Op::Attention { q, k, v, heads, causal: false } => {
                let &[batch, tokens, channels] = &node.shape[..] else { bail!("no sequence") };
                let keys = self.shape(*k)[1];
                let size = channels / heads;
                let mut split = |id: NodeId, tokens, order: &[usize]| -> Result<String> {
                    let source = self.same(id)?;
                    let dims = self.integers(&[batch, tokens, *heads, size]);
                    let h = self.op("Reshape", &[&source, &dims], vec![]);
                    Ok(self.op("Transpose", &[&h], vec![ints("perm", order)]))
                };
                let (q, k, v) = (
                    split(*q, tokens, &[0, 2, 1, 3])?,
                    split(*k, keys, &[0, 2, 3, 1])?,
                    split(*v, keys, &[0, 2, 1, 3])?,
                );
                let scale = self.floats(&[], &[1.0 / (size as f32).sqrt()]);
                let q = self.op("Mul", &[&q, &scale], vec![]);
                let scores = self.op("MatMul", &[&q, &k], vec![]);
                let shares = self.op("Softmax", &[&scores], vec![int("axis", -1)]);
                let h = self.op("MatMul", &[&shares, &v], vec![]);
                let h = self.op("Transpose", &[&h], vec![ints("perm", &[0, 2, 1, 3])]);
                let dims = self.integers(&node.shape);
                same(self.op("Reshape", &[&h, &dims], vec![]))
            }
            Op::Activate { x, activation } => {
                let Value { name, layout } = self.value(*x);
                Ok(Value { name: self.activation(&name, *activation)?, layout })
            }
            Op::Geglu { x } => {
                let source = self.same(*x)?;
                let (a, b) = (format!("a{}", self.model.node.len()), format!("b{}", self.model.node.len()));
                let attributes = vec![int("axis", -1), int("num_outputs", 2)];
                self.push("Split", vec![source], vec![a.clone(), b.clone()], attributes);
                let gelu = self.activation(&b, Activation::Gelu)?;
                same(self.op("Mul", &[&a, &gelu], vec![]))
            }
            Op::Binary { op, a, b } => {
                let (a, b) = (self.value(*a), self.value(*b));
                if a.layout != b.layout {
                    bail!("operands in two layouts");
                }
                let op = match op {
                    BinaryOp::Add => "Add",
                    BinaryOp::Sub => "Sub",
                    BinaryOp::Mul => "Mul",
                };
                Ok(Value { name: self.op(op, &[&a.name, &b.name], vec![]), layout: a.layout })
            }
            Op::Affine { x, scale, shift } => {
                let Value { mut name, layout } = self.value(*x);
                let (scale, shift) = (self.floats(&[], &[*scale]), self.floats(&[], &[*shift]));
                name = self.op("Mul", &[&name, &scale], vec![]);
                Ok(Value { name: self.op("Add", &[&name, &shift], vec![]), layout })
            }
            Op::Concat { inputs, axis } => {
                let values: Vec<Value> = inputs.iter().map(|&id| self.value(id)).collect();
                let layout = values.first().context("nothing to join")?.layout;
                if values.iter().any(|value| value.layout != layout) {
                    bail!("operands in two layouts");
                }
                let names: Vec<&str> = values.iter().map(|value| value.name.as_str()).collect();
                let axis = int("axis", axis_in(layout, *axis)? as i64);
                Ok(Value { name: self.op("Concat", &names, vec![axis]), layout })
            }
            Op::Slice { x, axis, start } => {
                let Value { name, layout } = self.value(*x);
                let end = start + node.shape[*axis];
                let operands = [*start, end, axis_in(layout, *axis)?].map(|number| self.integers(&[number]));
                Ok(Value { name: self.op("Slice", &[&name, &operands[0], &operands[1], &operands[2]], vec![]), layout })
            }
            Op::Reshape { x } => self.reshape(*x, &node.shape),
            Op::Permute { x, axes } => {
                let Value { name, layout } = self.value(*x);
                match (layout, &axes[..]) {
                    (Layout::Same, [0, 2, 3, 1]) => Ok(Value { name, layout: Layout::Picture }),
                    (Layout::Picture, [0, 3, 1, 2]) => same(name),
                    (Layout::Same, _) => same(self.op("Transpose", &[&name], vec![ints("perm", axes)])),
                    (Layout::Picture, _) => bail!("a picture whose axes are permuted"),
                }
            }
            Op::ResizeNearest { x } => {
                let source = self.picture(*x)?;
                let &[batch, height, width, channels] = &node.shape[..] else { bail!("no picture") };
                let sizes = self.integers(&[batch, channels, height, width]);
                let attributes = vec![
                    text("mode", "nearest"),
                    text("nearest_mode", "floor"),
                    text("coordinate_transformation_mode", "asymmetric"),
                ];
                let name = self.op("Resize", &[&source, "", "", &sizes], attributes);
                Ok(Value { name, layout: Layout::Picture })
            }
            Op::Pool2d { x, pooling, kernel, stride, padding } => {
                let source = self.picture(*x)?;
                let pads = [padding.top, padding.left, padding.bottom, padding.right];
                let attributes =
                    vec![ints("kernel_shape", kernel), ints("strides", &[*stride, *stride]), ints("pads", &pads)];
                let operator = match pooling {
                    Pooling::Max => "MaxPool",
                    Pooling::Average => "AveragePool",
                };
                Ok(Value { name: self.op(operator, &[&source], attributes), layout: Layout::Picture })
            }
            Op::TimestepEmbedding { timestep, flip_sin_to_cos, downscale_freq_shift, scale, max_period } => {
                let source = self.same(*timestep)?;
                let half = node.shape[1] / 2;
                if !node.shape[1].is_multiple_of(2) {
                    bail!("an odd number of dimensions");
                }
                let frequency =
                    |i: usize| (-max_period.ln() * i as f32 / (half as f32 - downscale_freq_shift)).exp() * scale;
                let frequencies: Vec<f32> = (0..half).map(frequency).collect();
                let (column, frequencies) = (self.integers(&[node.shape[0], 1]), self.floats(&[1, half], &frequencies));
                let h = self.op("Reshape", &[&source, &column], vec![]);
                let angles = self.op("Mul", &[&h, &frequencies], vec![]);
                let (sin, cos) = (self.op("Sin", &[&angles], vec![]), self.op("Cos", &[&angles], vec![]));
                let parts = if *flip_sin_to_cos { [&cos[..], &sin] } else { [&sin[..], &cos] };
                same(self.op("Concat", &parts, vec![int("axis", 1)]))
            }
            _ => bail!("no operator stands for it"),
        }
    }

    fn convolution(
        &mut self,
        x: NodeId,
        weight: WeightId,
        dims: &[usize],
        bias: Option<WeightId>,
        attributes: Vec<AttributeProto>,
    ) -> Result<Value> {
        let mut operands = vec![self.picture(x)?, self.weight(weight, dims, false)?];
        if let Some(bias) = bias {
            operands.push(self.weight(bias, &dims[..1], false)?);
        }
        let operands: Vec<&str> = operands.iter().map(String::as_str).collect();
        Ok(Value { name: self.op("Conv", &operands, attributes), layout: Layout::Picture })
    }

    fn plus(&mut self, value: Value, residual: Option<NodeId>) -> Result<Value> {
        let Some(residual) = residual else { return Ok(value) };
        let residual = self.value(residual);
        if residual.layout != value.layout {
            bail!("a residual in another layout");
        }
        Ok(Value { name: self.op("Add", &[&value.name, &residual.name], vec![]), layout: value.layout })
    }

    fn activation(&mut self, x: &str, activation: Activation) -> Result<String> {
        Ok(match activation {
            Activation::Silu => {
                let gate = self.op("Sigmoid", &[x], vec![]);
                self.op("Mul", &[x, &gate], vec![])
            }
            Activation::Gelu => {
                let [root, one, half] = [std::f32::consts::SQRT_2, 1.0, 0.5].map(|value| self.floats(&[], &[value]));
                let h = self.op("Div", &[x, &root], vec![]);
                let h = self.op("Erf", &[&h], vec![]);
                let h = self.op("Add", &[&h, &one], vec![]);
                let scaled = self.op("Mul", &[x, &half], vec![]);
                self.op("Mul", &[&scaled, &h], vec![])
            }
            _ => bail!("no operators stand for {activation:?}"),
        })
    }

    /// A free reshape in the graph; here a picture becomes a sequence, or the other way round, with a transposition.
    fn reshape(&mut self, x: NodeId, to: &[usize]) -> Result<Value> {
        let Value { mut name, layout } = self.value(x);
        if let (Layout::Picture, &[batch, 1, 1, channels]) = (layout, self.shape(x)) {
            let dims = self.integers(&[batch, channels]);
            name = self.op("Reshape", &[&name, &dims], vec![]);
        } else if layout == Layout::Picture {
            name = self.op("Transpose", &[&name], vec![ints("perm", &[0, 2, 3, 1])]);
        }
        if let &[batch, 1, 1, channels] = to {
            let dims = self.integers(&[batch, channels, 1, 1]);
            return Ok(Value { name: self.op("Reshape", &[&name, &dims], vec![]), layout: Layout::Picture });
        }
        let dims = self.integers(to);
        name = self.op("Reshape", &[&name, &dims], vec![]);
        if to.len() == 4 {
            name = self.op("Transpose", &[&name], vec![ints("perm", &[0, 3, 1, 2])]);
            return Ok(Value { name, layout: Layout::Picture });
        }
        Ok(Value { name, layout: Layout::Same })
    }

    fn picture(&self, id: NodeId) -> Result<String> {
        let Value { name, layout } = self.value(id);
        if layout == Layout::Picture { Ok(name) } else { bail!("it reads a picture that is none") }
    }

    fn same(&self, id: NodeId) -> Result<String> {
        let Value { name, layout } = self.value(id);
        if layout == Layout::Same { Ok(name) } else { bail!("it reads a picture as a sequence") }
    }
}

/// Where an axis of the graph's shape lies in this layout.
fn axis_in(layout: Layout, axis: usize) -> Result<usize> {
    match layout {
        Layout::Same => Ok(axis),
        Layout::Picture => [0, 2, 3, 1].get(axis).copied().context("a picture has four axes"),
    }
}

/// A matrix of elements of `size` bytes, turned over.
fn transposed(bytes: &[u8], rows: usize, columns: usize, size: usize) -> Vec<u8> {
    let element = |row: usize, column: usize| &bytes[(row * columns + column) * size..][..size];
    (0..columns).flat_map(|column| (0..rows).flat_map(move |row| element(row, column))).copied().collect()
}

fn signed(numbers: &[usize]) -> Vec<i64> {
    numbers.iter().map(|&number| number as i64).collect()
}

fn port(name: &str, shape: &[usize]) -> ValueInfoProto {
    let dim = shape.iter().map(|&length| Dimension { dim_value: Some(length as i64) }).collect();
    let tensor_type = Some(TensorType { elem_type: FLOAT, shape: Some(TensorShapeProto { dim }) });
    ValueInfoProto { name: name.into(), r#type: Some(TypeProto { tensor_type }) }
}

/// Attributes, each with the number of its type in `AttributeProto.AttributeType`.
fn float(name: &str, value: f32) -> AttributeProto {
    AttributeProto { name: name.into(), f: Some(value), kind: 1, ..AttributeProto::default() }
}

fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto { name: name.into(), i: Some(value), kind: 2, ..AttributeProto::default() }
}

fn text(name: &str, value: &str) -> AttributeProto {
    AttributeProto { name: name.into(), s: Some(value.into()), kind: 3, ..AttributeProto::default() }
}

fn ints(name: &str, values: &[usize]) -> AttributeProto {
    AttributeProto { name: name.into(), ints: signed(values), kind: 7, ..AttributeProto::default() }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use undiffuse::graph::Builder;

    use super::*;
    use crate::network::{Name, Network, Size};

    fn exported(name: Name) -> (Network, GraphProto) {
        let network = Network::new(name, Size::default(), Path::new("")).expect("a network of the benchmark");
        let model = model(&network.graph, &Weights::Random).expect("ops that can be exported");
        let graph = ModelProto::decode(&model[..]).expect("what was just encoded").graph.expect("a graph");
        (network, graph)
    }

    #[test]
    fn nothing_is_read_before_it_is_made() {
        for name in [Name::Emoji64, Name::Cifar, Name::Small] {
            let (network, graph) = exported(name);
            let mut known: HashSet<&str> = graph.initializer.iter().map(|tensor| tensor.name.as_str()).collect();
            known.extend(graph.input.iter().map(|port| port.name.as_str()));
            for node in &graph.node {
                for input in node.input.iter().filter(|input| !input.is_empty()) {
                    assert!(known.contains(input.as_str()), "{}: {} reads {input}", network.name, node.name);
                }
                for output in &node.output {
                    assert!(known.insert(output), "{}: {output} is made twice", network.name);
                }
            }
            assert!(known.contains("out"));
        }
    }

    #[test]
    fn pictures_are_turned_around_transformers_alone() {
        let (network, graph) = exported(Name::Cifar);
        let attentions = network.graph.nodes().iter().filter(|node| node.op.name() == "attention").count();
        let transpositions = graph.node.iter().filter(|node| node.op_type == "Transpose").count();
        // The picture in and out; queries, keys and values by heads, and what comes of them.
        assert_eq!(transpositions, 6 * attentions);
    }

    #[test]
    fn weights_stay_halves_and_matrices_are_turned_beforehand() {
        let (network, graph) = exported(Name::Small);
        let find = |name: &str| graph.initializer.iter().find(|tensor| tensor.name == name).expect("an initializer");
        let spec = |name: &str| network.graph.weights().iter().find(|spec| spec.name == name).expect("a weight");

        let kernel = find("conv_in.weight.f16");
        assert_eq!((kernel.data_type, &kernel.dims[..]), (FLOAT16, &[64, 4, 3, 3][..]));
        assert_eq!(kernel.raw_data, *Weights::Random.tensor(spec("conv_in.weight")).expect("a tensor").bytes);

        let name = "down_blocks.0.attentions.0.transformer_blocks.0.ff.net.0.proj.weight";
        let (turned, straight) =
            (find(&format!("{name}.t.f16")), Weights::Random.tensor(spec(name)).expect("a tensor"));
        let [rows, columns] = spec(name).shape[..] else { panic!("no matrix") };
        assert_eq!(turned.dims, [columns as i64, rows as i64]);
        let (row, column) = (3, 5);
        assert_eq!(
            turned.raw_data[2 * (column * rows + row)..][..2],
            straight.bytes[2 * (row * columns + column)..][..2]
        );
    }

    #[test]
    fn an_op_that_has_no_operator_is_refused_by_its_layer() {
        let builder = Builder::new();
        let root = builder.root();
        let x = root.input("x", &[1, 2]).expect("an input");
        root.output("out", root.at("gate").activate(x, Activation::Mish).expect("an activation"));
        let error = model(&builder.finish(), &Weights::Random).expect_err("a refusal");
        assert!(
            format!("{error:#}").contains("gate (activate) cannot be exported: no operators stand for Mish"),
            "{error:#}"
        );
    }
}
