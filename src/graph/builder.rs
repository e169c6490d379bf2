//! Builds a graph layer by layer; shapes are checked as each node is added.

use std::cell::RefCell;
use std::collections::HashMap;

use super::{
    Activation, BinaryOp, Element, Error, Graph, Node, NodeId, Op, Padding, Pooling, SolverOp, WeightId, WeightRole,
    WeightSpec, update,
};

/// A graph under construction.
#[derive(Default, Debug)]
pub struct Builder {
    graph: RefCell<Graph>,
    weight_ids: RefCell<HashMap<String, WeightId>>,
}

/// Most nodes of a graph, far more than any real network has: a config that asks for more is damaged.
const MAX_NODES: usize = 1 << 16;

impl Builder {
    /// An empty graph.
    pub fn new() -> Self {
        Self::default()
    }

    /// Goes on with a finished graph.
    #[cfg(feature = "training")]
    pub fn resume(graph: Graph) -> Self {
        let ids = graph.weights.iter().enumerate().map(|(index, spec)| (spec.name.clone(), WeightId(index)));
        Self { weight_ids: RefCell::new(ids.collect()), graph: RefCell::new(graph) }
    }

    /// The scope with the empty path.
    pub fn root(&self) -> Scope<'_> {
        Scope { builder: self, path: String::new() }
    }

    /// Name of a weight.
    #[cfg(feature = "training")]
    pub(super) fn weight_name(&self, id: WeightId) -> String {
        self.graph.borrow().weights[id.0].name.clone()
    }

    /// Shape of a weight.
    #[cfg(feature = "training")]
    pub(super) fn weight_shape(&self, id: WeightId) -> Vec<usize> {
        self.graph.borrow().weights[id.0].shape.clone()
    }

    /// The finished graph.
    pub fn finish(self) -> Graph {
        self.graph.into_inner()
    }
}

/// A place in the module tree: layers added here take their weights from `path.*`.
#[derive(Clone, Debug)]
pub struct Scope<'b> {
    builder: &'b Builder,
    path: String,
}

/// Options of [`Scope::conv2d`].
#[derive(Clone, Copy, Debug)]
pub struct Conv2dOptions {
    /// Channels of the result.
    pub out_channels: usize,
    /// Height and width of the kernel.
    pub kernel: [usize; 2],
    /// Step between result pixels.
    pub stride: usize,
    /// Zeros around the picture.
    pub padding: Padding,
    /// Whether there is a bias.
    pub bias: bool,
}

impl Conv2dOptions {
    /// A `kernel`×`kernel` convolution with bias, padded by (kernel − 1) / 2: an odd kernel keeps height and width.
    pub fn same(out_channels: usize, kernel: usize) -> Self {
        Self::same_rectangular(out_channels, [kernel, kernel])
    }

    /// A convolution with bias and a kernel of this height and width, padded by half of each less 1: odd sides keep height and width.
    pub fn same_rectangular(out_channels: usize, kernel: [usize; 2]) -> Self {
        let padding = Padding::around(kernel.map(|side| side.saturating_sub(1) / 2));
        Self { out_channels, kernel, stride: 1, padding, bias: true }
    }
}

/// Options of [`Scope::pool2d`].
#[derive(Clone, Copy, Debug)]
pub struct Pool2dOptions {
    /// The value made of the pixels under the kernel.
    pub pooling: Pooling,
    /// Height and width of the kernel.
    pub kernel: [usize; 2],
    /// Step between result pixels.
    pub stride: usize,
    /// Rows and columns by which the kernel reaches beyond the picture, less than its own size.
    pub padding: Padding,
}

impl Pool2dOptions {
    /// `torch.nn.MaxPool2d`: the largest of `kernel`×`kernel` pixels, without padding.
    pub fn max(kernel: usize, stride: usize) -> Self {
        Self { pooling: Pooling::Max, kernel: [kernel, kernel], stride, padding: Padding::default() }
    }

    /// `torch.nn.AvgPool2d`: the mean of `kernel`×`kernel` pixels, without padding.
    pub fn average(kernel: usize, stride: usize) -> Self {
        Self { pooling: Pooling::Average, ..Self::max(kernel, stride) }
    }
}

/// Number of positions of a kernel along a side with its padding; `None` if it does not fit.
fn positions(length: usize, padding: [usize; 2], kernel: usize, stride: usize) -> Option<usize> {
    let room = length.checked_add(padding[0])?.checked_add(padding[1])?.checked_sub(kernel)?;
    Some(room.checked_div(stride)? + 1)
}

/// Height and width of what a kernel makes of a picture of `sides` by moving over it; `None` if it fits nowhere.
fn moved_over(sides: [usize; 2], kernel: [usize; 2], stride: usize, padding: Padding) -> Option<[usize; 2]> {
    let height = positions(sides[0], [padding.top, padding.bottom], kernel[0], stride)?;
    Some([height, positions(sides[1], [padding.left, padding.right], kernel[1], stride)?])
}

/// Options of [`Scope::timestep_embedding`], named as in diffusers' `Timesteps`.
#[derive(Clone, Copy, Debug)]
pub struct TimestepEmbeddingOptions {
    /// Length of the embedding.
    pub dim: usize,
    /// True for cos before sin.
    pub flip_sin_to_cos: bool,
    /// Number subtracted from dim/2 in the exponent's divisor.
    pub downscale_freq_shift: f32,
    /// Factor of the angle.
    pub scale: f32,
}

impl<'b> Scope<'b> {
    /// The child module `name` (which may hold dots).
    pub fn at(&self, name: impl std::fmt::Display) -> Scope<'b> {
        let path = if self.path.is_empty() { name.to_string() } else { format!("{}.{name}", self.path) };
        Scope { builder: self.builder, path }
    }

    /// The module path.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Shape of a node.
    pub fn shape(&self, id: NodeId) -> Vec<usize> {
        self.builder.graph.borrow().nodes[id.0].shape.clone()
    }

    /// An error at this place.
    pub fn error(&self, message: impl Into<String>) -> Error {
        Error::Shape { path: self.path.clone(), message: message.into() }
    }

    pub(super) fn push(&self, op: Op, shape: Vec<usize>, dtype: Element) -> Result<NodeId, Error> {
        let elements = shape.iter().try_fold(1usize, |product, &d| product.checked_mul(d));
        if elements.is_none_or(|n| n == 0 || n > u32::MAX as usize / 4) {
            return Err(self.error(format!("{} would make a tensor of shape {shape:?}", op.name())));
        }
        let graph = &mut *self.builder.graph.borrow_mut();
        if graph.nodes.len() >= MAX_NODES {
            return Err(self.error(format!("more than {MAX_NODES} operations: no real network has so many layers")));
        }
        // Outside of every module, the op itself is the best name there is.
        let path = if self.path.is_empty() { op.name().to_owned() } else { self.path.clone() };
        graph.nodes.push(Node { op, shape, dtype, path });
        Ok(NodeId(graph.nodes.len() - 1))
    }

    pub(super) fn weight(&self, name: &str, shape: Vec<usize>, role: WeightRole) -> Result<WeightId, Error> {
        let name = self.at(name).path;
        let graph = &mut *self.builder.graph.borrow_mut();
        let mut ids = self.builder.weight_ids.borrow_mut();
        if let Some(&id) = ids.get(&name) {
            let first = &graph.weights[id.0];
            if first.shape != shape || first.role != role {
                let first = first.shape.clone();
                return Err(Error::WeightConflict { path: self.path.clone(), name, first, second: shape });
            }
            return Ok(id);
        }
        let id = WeightId(graph.weights.len());
        ids.insert(name.clone(), id);
        graph.weights.push(WeightSpec { name, shape, role });
        Ok(id)
    }

    fn picture(&self, x: NodeId) -> Result<[usize; 4], Error> {
        let shape = self.shape(x);
        shape.try_into().map_err(|s| self.error(format!("expected [batch, height, width, channels], got {s:?}")))
    }

    /// A weight of the graph.
    #[cfg(feature = "training")]
    pub(super) fn weight_spec(&self, id: WeightId) -> WeightSpec {
        self.builder.graph.borrow().weights[id.0].clone()
    }

    /// A tensor filled from outside.
    pub fn input(&self, name: &str, shape: &[usize]) -> Result<NodeId, Error> {
        #[cfg(feature = "training")]
        if self.builder.graph.borrow().input(name).is_ok() {
            return Err(self.error(format!("a second input `{name}`")));
        }
        let id = self.at(name).push(Op::Input, shape.to_vec(), Element::F32)?;
        self.builder.graph.borrow_mut().inputs.push((name.to_owned(), id));
        Ok(id)
    }

    /// The rows of the table `weight` at this path, `[rows, channels]`, whose numbers are `ids`: `torch.nn.Embedding`.
    #[cfg(feature = "training")]
    pub fn gather(&self, ids: NodeId, [rows, channels]: [usize; 2]) -> Result<NodeId, Error> {
        let table = self.weight("weight", vec![rows, channels], WeightRole::Plain)?;
        let mut shape = self.shape(ids);
        shape.push(channels);
        self.push(Op::Gather { table, ids }, shape, Element::F32)
    }

    /// Makes a node readable from outside under `name`.
    pub fn output(&self, name: &str, id: NodeId) {
        self.builder.graph.borrow_mut().outputs.push((name.to_owned(), id));
    }

    fn too_small(&self, [height, width]: [usize; 2], kernel: [usize; 2]) -> Error {
        self.error(format!("a picture of {height}×{width} is too small for a {}×{} kernel", kernel[0], kernel[1]))
    }

    /// `torch.nn.Conv2d` with `weight` and `bias` at this path; `x` is `[batch, height, width, in_channels]`.
    pub fn conv2d(&self, x: NodeId, options: Conv2dOptions) -> Result<NodeId, Error> {
        let [batch, height, width, channels] = self.picture(x)?;
        let Conv2dOptions { out_channels, kernel, stride, padding, bias } = options;
        let Some([out_height, out_width]) = moved_over([height, width], kernel, stride, padding) else {
            return Err(self.too_small([height, width], kernel));
        };
        let weight = self.weight("weight", vec![out_channels, channels, kernel[0], kernel[1]], WeightRole::Conv2d)?;
        let bias = bias.then(|| self.weight("bias", vec![out_channels], WeightRole::Vector)).transpose()?;
        let shape = vec![batch, out_height, out_width, out_channels];
        self.push(Op::Conv2d { x, weight, bias, residual: None, stride, padding, upsample: false }, shape, Element::F32)
    }

    /// `torch.nn.Linear` with `weight` and, if asked, `bias` at this path.
    pub fn linear(&self, x: NodeId, out_features: usize, bias: bool) -> Result<NodeId, Error> {
        let mut shape = self.shape(x);
        let Some(last) = shape.last_mut() else { return Err(self.error("linear of a scalar")) };
        let in_features = std::mem::replace(last, out_features);
        let weight = self.weight("weight", vec![out_features, in_features], WeightRole::Linear)?;
        let bias = bias.then(|| self.weight("bias", vec![out_features], WeightRole::Vector)).transpose()?;
        self.push(Op::Linear { x, weight, bias, residual: None }, shape, Element::F32)
    }

    /// `torch.nn.GroupNorm` over the last axis of `[batch, ..., channels]`.
    pub fn group_norm(&self, x: NodeId, groups: usize, eps: f32) -> Result<NodeId, Error> {
        let shape = self.shape(x);
        let channels = shape.last().copied().unwrap_or(0);
        if shape.len() < 2 || groups == 0 || !channels.is_multiple_of(groups) {
            return Err(self.error(format!("{groups} groups do not divide the {channels} channels of {shape:?}")));
        }
        let weight = self.weight("weight", vec![channels], WeightRole::Vector)?;
        let bias = self.weight("bias", vec![channels], WeightRole::Vector)?;
        self.push(Op::GroupNorm { x, weight, bias, groups, eps, activation: None }, shape, Element::F32)
    }

    /// `torch.nn.LayerNorm` over the last axis.
    pub fn layer_norm(&self, x: NodeId, eps: f32) -> Result<NodeId, Error> {
        let shape = self.shape(x);
        let Some(&channels) = shape.last() else { return Err(self.error("layer norm of a scalar")) };
        let weight = self.weight("weight", vec![channels], WeightRole::Vector)?;
        let bias = self.weight("bias", vec![channels], WeightRole::Vector)?;
        self.push(Op::LayerNorm { x, weight, bias, eps }, shape, Element::F32)
    }

    /// Scaled dot-product attention; `q` is `[batch, query_tokens, channels]`, `k` and `v` `[batch, key_tokens, channels]`.
    pub fn attention(&self, q: NodeId, k: NodeId, v: NodeId, heads: usize, causal: bool) -> Result<NodeId, Error> {
        let (qs, ks, vs) = (self.shape(q), self.shape(k), self.shape(v));
        let fits = qs.len() == 3 && ks == vs && ks.len() == 3 && qs[0] == ks[0] && qs[2] == ks[2];
        if !fits || heads == 0 || !qs[2].is_multiple_of(heads) || (causal && qs[1] != ks[1]) {
            return Err(self.error(format!("attention of {qs:?} over {ks:?} and {vs:?} with {heads} heads")));
        }
        self.push(Op::Attention { q, k, v, heads, causal }, qs, Element::F32)
    }

    /// An element-wise non-linearity.
    pub fn activate(&self, x: NodeId, activation: Activation) -> Result<NodeId, Error> {
        self.push(Op::Activate { x, activation }, self.shape(x), Element::F32)
    }

    /// diffusers' `GEGLU` after its projection: first half of the last axis times gelu of the second.
    pub fn geglu(&self, x: NodeId) -> Result<NodeId, Error> {
        let mut shape = self.shape(x);
        match shape.last_mut() {
            Some(last) if last.is_multiple_of(2) => *last /= 2,
            _ => return Err(self.error(format!("GEGLU needs an even last axis, got {shape:?}"))),
        }
        self.push(Op::Geglu { x }, shape, Element::F32)
    }

    /// a + b; each axis of `b` is that of `a` or 1.
    pub fn add(&self, a: NodeId, b: NodeId) -> Result<NodeId, Error> {
        self.binary(BinaryOp::Add, a, b)
    }

    /// a − b; each axis of `b` is that of `a` or 1.
    pub fn sub(&self, a: NodeId, b: NodeId) -> Result<NodeId, Error> {
        self.binary(BinaryOp::Sub, a, b)
    }

    /// a · b; each axis of `b` is that of `a` or 1.
    pub fn mul(&self, a: NodeId, b: NodeId) -> Result<NodeId, Error> {
        self.binary(BinaryOp::Mul, a, b)
    }

    fn binary(&self, op: BinaryOp, a: NodeId, b: NodeId) -> Result<NodeId, Error> {
        let (sa, sb) = (self.shape(a), self.shape(b));
        if sa.len() != sb.len() || sa.iter().zip(&sb).any(|(&da, &db)| db != da && db != 1) {
            return Err(self.error(format!("{op:?} of {sa:?} and {sb:?}")));
        }
        self.push(Op::Binary { op, a, b }, sa, Element::F32)
    }

    /// scale · x + shift.
    pub fn affine(&self, x: NodeId, scale: f32, shift: f32) -> Result<NodeId, Error> {
        self.push(Op::Affine { x, scale, shift }, self.shape(x), Element::F32)
    }

    /// Sums along axes, down to `shape`: each axis is that of `x` or 1.
    #[cfg(feature = "training")]
    pub fn sum(&self, x: NodeId, shape: &[usize]) -> Result<NodeId, Error> {
        let from = self.shape(x);
        if from == shape {
            return Ok(x);
        }
        if from.len() != shape.len() || from.iter().zip(shape).any(|(from, to)| to != from && *to != 1) {
            return Err(self.error(format!("{from:?} cannot be summed to {shape:?}")));
        }
        self.push(Op::Gradient(super::gradient::GradientOp::Sum { x }), shape.to_vec(), Element::F32)
    }

    /// Tensors one after the other along `axis`.
    pub fn concat(&self, inputs: &[NodeId], axis: usize) -> Result<NodeId, Error> {
        let shapes: Vec<_> = inputs.iter().map(|&id| self.shape(id)).collect();
        let misfit = || self.error(format!("concat along axis {axis} of {shapes:?}"));
        let mut shape = shapes.first().ok_or_else(misfit)?.clone();
        if axis >= shape.len() {
            return Err(misfit());
        }
        for other in &shapes[1..] {
            let same = |(i, (a, b)): (usize, (&usize, &usize))| i == axis || a == b;
            if other.len() != shape.len() || !shape.iter().zip(other).enumerate().all(same) {
                return Err(misfit());
            }
            shape[axis] += other[axis];
        }
        self.push(Op::Concat { inputs: inputs.to_vec(), axis }, shape, Element::F32)
    }

    /// The `length` indices from `start` on along `axis`.
    pub fn slice(&self, x: NodeId, axis: usize, start: usize, length: usize) -> Result<NodeId, Error> {
        let mut shape = self.shape(x);
        if axis >= shape.len() || start.checked_add(length).is_none_or(|end| end > shape[axis]) {
            return Err(self.error(format!("slice of {length} from {start} along axis {axis} of {shape:?}")));
        }
        shape[axis] = length;
        self.push(Op::Slice { x, axis, start }, shape, Element::F32)
    }

    /// The elements of `x` in another shape.
    pub fn reshape(&self, x: NodeId, shape: &[usize]) -> Result<NodeId, Error> {
        let from = self.shape(x);
        if from.iter().product::<usize>() != shape.iter().product::<usize>() {
            return Err(self.error(format!("{from:?} cannot be reshaped to {shape:?}")));
        }
        self.push(Op::Reshape { x }, shape.to_vec(), Element::F32)
    }

    /// Axis i of the result is axis `axes[i]` of `x`.
    pub fn permute(&self, x: NodeId, axes: &[usize]) -> Result<NodeId, Error> {
        let from = self.shape(x);
        if axes.len() != from.len() || !(0..from.len()).all(|axis| axes.contains(&axis)) {
            return Err(self.error(format!("{axes:?} is no permutation of the axes of {from:?}")));
        }
        let shape = axes.iter().map(|&axis| from[axis]).collect();
        self.push(Op::Permute { x, axes: axes.to_vec() }, shape, Element::F32)
    }

    /// Nearest-neighbour resampling of `[batch, height, width, channels]`.
    pub fn resize_nearest(&self, x: NodeId, height: usize, width: usize) -> Result<NodeId, Error> {
        let [batch, _, _, channels] = self.picture(x)?;
        self.push(Op::ResizeNearest { x }, vec![batch, height, width, channels], Element::F32)
    }

    /// Bilinear resampling of `[batch, height, width, channels]`.
    pub fn resize_bilinear(&self, x: NodeId, height: usize, width: usize) -> Result<NodeId, Error> {
        let [batch, _, _, channels] = self.picture(x)?;
        self.push(Op::ResizeBilinear { x }, vec![batch, height, width, channels], Element::F32)
    }

    /// Maximum or mean of the pixels under a kernel that moves over `[batch, height, width, channels]`; where it does not fit, an
    /// odd last row of 2×2 for instance, pixels are dropped.
    pub fn pool2d(&self, x: NodeId, options: Pool2dOptions) -> Result<NodeId, Error> {
        let [batch, height, width, channels] = self.picture(x)?;
        let Pool2dOptions { pooling, kernel, stride, padding } = options;
        let Padding { top, bottom, left, right } = padding;
        // Or there would be results of no pixel at all.
        if top.max(bottom) >= kernel[0] || left.max(right) >= kernel[1] {
            return Err(self.error(format!("a pooling of {}×{} pixels with {padding:?}", kernel[0], kernel[1])));
        }
        let Some([out_height, out_width]) = moved_over([height, width], kernel, stride, padding) else {
            return Err(self.too_small([height, width], kernel));
        };
        let shape = vec![batch, out_height, out_width, channels];
        self.push(Op::Pool2d { x, pooling, kernel, stride, padding }, shape, Element::F32)
    }

    /// The mean of all pixels of `[batch, height, width, channels]`: `[batch, channels]`.
    pub fn global_average(&self, x: NodeId) -> Result<NodeId, Error> {
        let [batch, height, width, channels] = self.picture(x)?;
        let options = Pool2dOptions { kernel: [height, width], ..Pool2dOptions::average(1, 1) };
        self.reshape(self.pool2d(x, options)?, &[batch, channels])
    }

    /// Sinusoidal embedding of `[batch]` numbers as `[batch, dim]`.
    pub fn timestep_embedding(&self, timestep: NodeId, options: TimestepEmbeddingOptions) -> Result<NodeId, Error> {
        let TimestepEmbeddingOptions { dim, flip_sin_to_cos, downscale_freq_shift, scale } = options;
        let [batch] = self.shape(timestep)[..] else {
            return Err(self.error(format!("timesteps of shape {:?}, expected [batch]", self.shape(timestep))));
        };
        if dim < 2 || (dim / 2) as f32 == downscale_freq_shift {
            return Err(self.error(format!("a timestep embedding of {dim} dimensions, shift {downscale_freq_shift}")));
        }
        let op = Op::TimestepEmbedding { timestep, flip_sin_to_cos, downscale_freq_shift, scale, max_period: 10_000.0 };
        self.push(op, vec![batch, dim], Element::F32)
    }

    /// Guidance by itself, `[2 * batch, ...]` → `[batch, ...]`: needed where it is rescaled, or where something else than
    /// [`Scope::linear_update`] reads the guided output. `coefficients` are those of the update.
    pub fn guidance(&self, model_output: NodeId, coefficients: NodeId, rescale: f32) -> Result<NodeId, Error> {
        let mut shape = self.shape(model_output);
        match shape.first_mut() {
            Some(rows) if rows.is_multiple_of(2) => *rows /= 2,
            _ => return Err(self.error(format!("guidance needs two halves of a batch, got {shape:?}"))),
        }
        if self.shape(coefficients) != [update::COEFFICIENTS] || !(0.0..=1.0).contains(&rescale) {
            let found = self.shape(coefficients);
            return Err(self.error(format!("guidance with coefficients of shape {found:?}, rescaled by {rescale}")));
        }
        self.push(Op::Solver(SolverOp::Guidance { model_output, coefficients, rescale }), shape, Element::F32)
    }

    /// x0 = a·sample + b·output with the update's own a and b, not clipped: what [`Scope::threshold`] is applied to.
    /// `model_output` is the output after guidance.
    pub fn predict_x0(&self, sample: NodeId, model_output: NodeId, coefficients: NodeId) -> Result<NodeId, Error> {
        let of_sample = self.mul(sample, self.number(coefficients, update::X0_SAMPLE, sample)?)?;
        let of_output = self.mul(model_output, self.number(coefficients, update::X0_OUTPUT, sample)?)?;
        self.add(of_sample, of_output)
    }

    /// Number `index` of the vector `numbers`, to be broadcast over a tensor of the rank of `like`.
    fn number(&self, numbers: NodeId, index: usize, like: NodeId) -> Result<NodeId, Error> {
        self.reshape(self.slice(numbers, 0, index, 1)?, &vec![1; self.shape(like).len()])
    }

    /// Dynamic thresholding of `[batch, ...]`, each image by itself.
    pub fn threshold(&self, x: NodeId, ratio: f32, max_value: f32) -> Result<NodeId, Error> {
        let shape = self.shape(x);
        if shape.is_empty() || !(0.0..=1.0).contains(&ratio) || max_value.is_nan() || max_value <= 0.0 {
            return Err(self.error(format!("a threshold at the quantile {ratio} of {shape:?}, at most {max_value}")));
        }
        self.push(Op::Solver(SolverOp::Threshold { x, ratio, max_value }), shape, Element::F32)
    }

    /// The noise times the standard deviation that the network has learned, element by element: `deviation`(a·v + b) for
    /// v = `variance`, the second half of the output's channels, and `[a, b]` = `line`.
    ///
    /// The deviation of `variance_type` `learned` is [`Activation::Sqrt`] of 1·v + 0. That of `learned_range` is
    /// [`Activation::Exp`] of (max − min)/4·v + (max + min)/4, where max and min are the logarithms of β_t and of the
    /// posterior's variance: half of their interpolation by (v + 1)/2 (Nichol & Dhariwal 2021, arXiv 2102.09672, equation 15).
    pub fn learned_noise(
        &self,
        noise: NodeId,
        variance: NodeId,
        line: NodeId,
        deviation: Activation,
    ) -> Result<NodeId, Error> {
        let scaled = self.mul(variance, self.number(line, 0, variance)?)?;
        let shifted = self.add(scaled, self.number(line, 1, variance)?)?;
        self.mul(noise, self.activate(shifted, deviation)?)
    }

    /// Guidance and a solver's update; the result stacks the new sample, x0 and the new history (see [`update`]). `x0`
    /// replaces the one that the coefficients would make.
    pub fn linear_update(
        &self,
        sample: NodeId,
        model_output: NodeId,
        noise: NodeId,
        history: NodeId,
        coefficients: NodeId,
        x0: Option<NodeId>,
    ) -> Result<NodeId, Error> {
        let mut shape = self.shape(sample);
        let times = |n: usize| {
            let mut s = shape.clone();
            s[0] *= n;
            s
        };
        let output = self.shape(model_output);
        let fits = (output == shape || output == times(2))
            && self.shape(noise) == shape
            && self.shape(history) == times(update::HISTORY)
            && self.shape(coefficients) == [update::COEFFICIENTS]
            && x0.is_none_or(|x0| self.shape(x0) == shape);
        if !fits {
            return Err(self.error(format!("update of a sample {shape:?} by a model output {output:?}")));
        }
        shape[0] *= update::RESULTS;
        self.push(
            Op::Solver(SolverOp::LinearUpdate { sample, model_output, noise, history, coefficients, x0 }),
            shape,
            Element::F32,
        )
    }

    /// `[batch, 1 or 3 channels, height, width]` in −1..1 as RGBA8 pixels `[batch, height, width]`.
    pub fn pack_rgba8(&self, x: NodeId) -> Result<NodeId, Error> {
        let [batch, channels, height, width] = self.picture(x)?;
        if channels != 1 && channels != 3 {
            return Err(self.error(format!("{channels} channels make no picture: 1 or 3 do")));
        }
        self.push(Op::PackRgba8 { x }, vec![batch, height, width], Element::U32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_fits_nowhere_or_sees_nothing_is_refused_and_names_the_layer() {
        let builder = Builder::new();
        let root = builder.root();
        let x = root.input("x", &[1, 2, 5, 4]).expect("an input");
        let pool = |options| root.at("pool").pool2d(x, options);
        let shape = |options| root.shape(pool(options).expect("a pooling that fits"));
        let [max, average] = [Pool2dOptions::max(3, 2), Pool2dOptions::average(2, 2)];
        assert_eq!(shape(average), [1, 1, 2, 4]);
        assert_eq!(shape(Pool2dOptions { padding: Padding::same(1), ..max }), [1, 1, 3, 4]);
        assert_eq!(shape(Pool2dOptions { kernel: [2, 5], ..average }), [1, 1, 1, 4]);
        let refused = [
            (max, "a picture of 2×5 is too small for a 3×3 kernel"),
            (Pool2dOptions { stride: 0, ..average }, "too small for a 2×2 kernel"),
            (Pool2dOptions { kernel: [0, 2], ..average }, "a pooling of 0×2 pixels"),
            (Pool2dOptions { padding: Padding::around([0, 2]), ..average }, "a pooling of 2×2 pixels with Padding"),
            (Pool2dOptions { kernel: [2, usize::MAX], ..average }, "too small"),
        ];
        for (options, expected) in refused {
            let message = pool(options).expect_err("no such pooling").to_string();
            assert!(message.starts_with("pool: ") && message.contains(expected), "{message}");
        }
        let rectangle = Conv2dOptions { padding: Padding::default(), ..Conv2dOptions::same_rectangular(4, [7, 1]) };
        let message = root.at("conv").conv2d(x, rectangle).expect_err("no such convolution").to_string();
        assert_eq!(message, "conv: a picture of 2×5 is too small for a 7×1 kernel");
        let same = root.at("conv").conv2d(x, Conv2dOptions::same_rectangular(8, [7, 1])).expect("a convolution");
        assert_eq!(root.shape(same), [1, 2, 5, 8]);
    }
}
