//! From a node of the graph to the dispatches that compute it: a pure function, without a device.

use super::kernels::{self, Channels, Entry, Kernel, Storage};
use super::variants::{Choice, Product, Tiling, Variants};
use super::{Error, Limits, bands};
use crate::graph::{BinaryOp, Graph, Node, NodeId, Op, Pooling, Walk, WeightId, strides};

/// A tensor that a dispatch reads or writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operand {
    /// The value of a node.
    Node(NodeId),
    /// Some bytes of the value of a node.
    Part(NodeId, Span),
    /// A weight, laid out by [`super::Weights`].
    Weight(WeightId),
    /// Memory for the duration of one node: an index into [`Lowered::scratch`].
    Scratch(usize),
    /// Numbers known beforehand: an index into [`Lowered::constants`].
    Constant(usize),
    /// The word that says whether a value is not finite.
    Status,
}

/// A part of a tensor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    /// First byte.
    pub offset: u64,
    /// Number of bytes.
    pub bytes: u64,
}

/// One launch of a kernel.
#[derive(Clone, Debug)]
pub struct Dispatch {
    /// The node that it computes or helps to compute.
    pub node: NodeId,
    /// The kernel.
    pub kernel: Kernel,
    /// Tensors read, in the order of the kernel's `reads`.
    pub reads: Vec<Operand>,
    /// Tensor written.
    pub write: Operand,
    /// The kernel's parameters as 32-bit words; the first is the number of invocations.
    pub parameters: Vec<u32>,
}

/// Memory that a node needs while it is computed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scratch {
    /// The node.
    pub node: NodeId,
    /// Bytes.
    pub bytes: u64,
}

/// A graph as a list of dispatches.
#[derive(Clone, Debug, Default)]
pub struct Lowered {
    /// In execution order.
    pub dispatches: Vec<Dispatch>,
    /// Memory within nodes.
    pub scratch: Vec<Scratch>,
    /// Numbers to upload once.
    pub constants: Vec<Vec<f32>>,
}

/// The constant that is bound where an optional operand is absent.
const ABSENT: Operand = Operand::Constant(0);

/// Translates `graph` to the kernels that `variants` chooses; `storage` says how the matrix of a weight is stored.
///
/// # Errors
/// If a node has dimensions that the kernels cannot address.
pub fn lower(
    graph: &Graph,
    limits: Limits,
    variants: &Variants,
    storage: impl Fn(WeightId) -> Storage,
) -> Result<Lowered, Error> {
    let lowered = Lowered { constants: vec![vec![0.0; 4]], ..Lowered::default() };
    let mut lowering = Lowering { graph, limits, variants, storage, lowered, node: NodeId(0) };
    for index in 0..graph.nodes().len() {
        lowering.node = NodeId(index);
        lowering.lower_node(&graph.nodes()[index])?;
    }
    let mut lowered = lowering.lowered;
    let dispatches = std::mem::take(&mut lowered.dispatches).into_iter();
    lowered.dispatches = dispatches.flat_map(|dispatch| bands::split(graph, dispatch, limits.binding_bytes)).collect();
    Ok(lowered)
}

struct Lowering<'g, F> {
    graph: &'g Graph,
    limits: Limits,
    variants: &'g Variants,
    storage: F,
    lowered: Lowered,
    node: NodeId,
}

impl<F: Fn(WeightId) -> Storage> Lowering<'_, F> {
    /// Adds a launch of as many invocations as the product of `invocations`.
    fn dispatch<const N: usize>(
        &mut self,
        kernel: Kernel,
        reads: &[Operand],
        write: Operand,
        invocations: &[usize],
        parameters: [u32; N],
    ) -> Result<(), Error> {
        let node = self.graph.node(self.node);
        let product = invocations.iter().try_fold(1usize, |n, &m| n.checked_mul(m));
        let Some(count) = product.and_then(|n| u32::try_from(n).ok()) else {
            let message = format!("{kernel} would need {invocations:?} invocations");
            return Err(Error::Unsupported { path: node.path.clone(), op: node.op.name(), message });
        };
        let parameters = std::iter::once(count).chain(parameters).collect();
        let reads = reads.to_vec();
        self.lowered.dispatches.push(Dispatch { node: self.node, kernel, reads, write, parameters });
        Ok(())
    }

    fn scratch(&mut self, elements: usize) -> Operand {
        self.lowered.scratch.push(Scratch { node: self.node, bytes: 4 * elements as u64 });
        Operand::Scratch(self.lowered.scratch.len() - 1)
    }

    fn constant(&mut self, values: Vec<f32>) -> Operand {
        self.lowered.constants.push(values);
        Operand::Constant(self.lowered.constants.len() - 1)
    }

    fn shape(&self, id: NodeId) -> &[usize] {
        &self.graph.node(id).shape
    }

    /// Length of the last axis, and product of the others.
    fn rows_and_channels(&self, id: NodeId) -> (usize, usize) {
        let shape = self.shape(id);
        let channels = shape.last().copied().unwrap_or(1);
        (shape.iter().product::<usize>() / channels, channels)
    }

    fn lower_node(&mut self, node: &Node) -> Result<(), Error> {
        let y = Operand::Node(self.node);
        let elements = node.elements();
        match &node.op {
            Op::Input | Op::Reshape { .. } => Ok(()),
            Op::Conv2d { .. } => self.conv2d(node),
            Op::Linear { x, weight, bias, residual } => {
                let rows_per_residual = residual.map_or(0, |_| 1);
                self.matrix_product(*x, *weight, *bias, *residual, rows_per_residual)
            }
            Op::GroupNorm { .. } => self.group_norm(node),
            Op::LayerNorm { x, weight, bias, eps } => {
                let (rows, channels) = self.rows_and_channels(*x);
                let kernel = kernels::LAYER_NORM.with(Channels::of(&[channels]));
                let reads = [Operand::Node(*x), Operand::Weight(*weight), Operand::Weight(*bias)];
                self.dispatch(kernel, &reads, y, &[rows], [channels as u32, eps.to_bits()])
            }
            Op::Attention { .. } => self.attention(node),
            Op::Activate { x, activation } => {
                let kernel = kernels::ACTIVATE.kernel().activation(Some(*activation));
                let parameters = [0, 0, 0];
                self.dispatch(kernel, &[Operand::Node(*x)], y, &[elements.div_ceil(4)], parameters)
            }
            Op::Affine { x, scale, shift } => {
                let parameters = [scale.to_bits(), shift.to_bits(), 0];
                self.dispatch(kernels::AFFINE.kernel(), &[Operand::Node(*x)], y, &[elements.div_ceil(4)], parameters)
            }
            Op::Geglu { x } => {
                let (_, channels) = self.rows_and_channels(self.node);
                self.dispatch(kernels::GEGLU.kernel(), &[Operand::Node(*x)], y, &[elements], [0, 0, channels as u32])
            }
            Op::Binary { op, a, b } => {
                let code = match op {
                    BinaryOp::Add => 0,
                    BinaryOp::Sub => 1,
                    BinaryOp::Mul => 2,
                };
                let mut b_strides = strides(self.shape(*b));
                for (stride, (&of_b, &of_a)) in b_strides.iter_mut().zip(self.shape(*b).iter().zip(self.shape(*a))) {
                    if of_b != of_a {
                        *stride = 0;
                    }
                }
                let own = strides(&node.shape);
                let walk = Walk::new(&node.shape, [&own, &b_strides, &own]);
                self.strided(kernels::BINARY.kernel(), &[Operand::Node(*a), Operand::Node(*b)], code, walk, [0; 3])
            }
            Op::Concat { inputs, axis } => {
                let y_strides = strides(&node.shape);
                let mut start = 0;
                for &input in inputs {
                    let shape = self.shape(input);
                    let length = shape[*axis];
                    let walk = Walk::new(shape, [&strides(shape), &y_strides, &y_strides]);
                    self.strided(
                        kernels::COPY.kernel(),
                        &[Operand::Node(input)],
                        0,
                        walk,
                        [0, 0, start * y_strides[*axis]],
                    )?;
                    start += length;
                }
                Ok(())
            }
            Op::Slice { x, axis, start } => {
                let x_strides = strides(self.shape(*x));
                let own = strides(&node.shape);
                let walk = Walk::new(&node.shape, [&x_strides, &own, &own]);
                self.strided(kernels::COPY.kernel(), &[Operand::Node(*x)], 0, walk, [start * x_strides[*axis], 0, 0])
            }
            Op::Permute { x, axes } => {
                let of_source = strides(self.shape(*x));
                let x_strides: Vec<_> = axes.iter().map(|&axis| of_source[axis]).collect();
                let own = strides(&node.shape);
                let walk = Walk::new(&node.shape, [&x_strides, &own, &own]);
                self.strided(kernels::COPY.kernel(), &[Operand::Node(*x)], 0, walk, [0; 3])
            }
            Op::ResizeNearest { x } => self.resample(&kernels::NEAREST, *x, node, [0; 8]),
            Op::ResizeBilinear { x } => {
                // torch rounds the scale first; a shader's quotient may be off by more.
                let scale = |axis: usize| (self.shape(*x)[axis] as f32 / node.shape[axis] as f32).to_bits();
                let scales = [scale(1), scale(2), 0, 0, 0, 0, 0, 0];
                self.resample(&kernels::BILINEAR, *x, node, scales)
            }
            Op::Pool2d { x, pooling, kernel, stride, padding } => {
                let average = usize::from(*pooling == Pooling::Average);
                let window = [kernel[0], kernel[1], *stride, padding.top, padding.left, average].map(|n| n as u32);
                let [a, b, c, d, e, f] = window;
                self.resample(&kernels::POOL, *x, node, [0, 0, a, b, c, d, e, f])
            }
            Op::TimestepEmbedding { timestep, flip_sin_to_cos, downscale_freq_shift, scale, max_period } => {
                let dim = node.shape[1];
                let half = dim / 2;
                // Rounded to f32 where diffusers rounds: angles of a thousand radians magnify the difference.
                let exponent = |i: usize| -libm::logf(*max_period) * i as f32 / (half as f32 - downscale_freq_shift);
                let frequencies = self.constant((0..half).map(|i| libm::expf(exponent(i))).collect());
                let parameters = [dim as u32, u32::from(*flip_sin_to_cos), scale.to_bits()];
                let reads = [Operand::Node(*timestep), frequencies];
                self.dispatch(kernels::TIMESTEP_EMBEDDING.kernel(), &reads, y, &[elements], parameters)
            }
            Op::Guidance { model_output, coefficients, rescale } => {
                let kernel = kernels::GUIDANCE.kernel();
                let reads = [model_output, coefficients].map(|&id| Operand::Node(id));
                let image = elements / node.shape[0];
                let lanes = [node.shape[0], kernel.entry.workgroup as usize];
                self.dispatch(kernel, &reads, y, &lanes, [image as u32, rescale.to_bits()])
            }
            Op::Threshold { x, ratio, max_value } => {
                let kernel = kernels::THRESHOLD.kernel();
                let image = elements / node.shape[0];
                let lanes = [node.shape[0], kernel.entry.workgroup as usize];
                let parameters = [image as u32, ratio.to_bits(), max_value.to_bits()];
                self.dispatch(kernel, &[Operand::Node(*x)], y, &lanes, parameters)
            }
            Op::LinearUpdate { sample, model_output, noise, history, coefficients, x0 } => {
                let count = self.graph.node(*sample).elements();
                let guided = self.graph.node(*model_output).elements() > count;
                let [a, b, c, d, e] = [sample, model_output, noise, history, coefficients].map(|&id| Operand::Node(id));
                let reads = [a, b, c, d, e, x0.map_or(ABSENT, Operand::Node)];
                let parameters = [u32::from(guided), u32::from(x0.is_some())];
                self.dispatch(kernels::LINEAR_UPDATE.kernel(), &reads, y, &[count], parameters)
            }
            Op::PackRgba8 { x } => {
                let shape = self.shape(*x);
                let parameters = [shape[1] as u32, (shape[2] * shape[3]) as u32];
                self.dispatch(kernels::PACK_RGBA8.kernel(), &[Operand::Node(*x)], y, &[elements], parameters)
            }
        }
    }

    fn conv2d(&mut self, node: &Node) -> Result<(), Error> {
        let &Op::Conv2d { x, weight, bias, residual, stride, padding, upsample } = &node.op else { return Ok(()) };
        let (&[batch, in_height, in_width, in_channels], &[_, height, width, channels]) =
            (self.shape(x), &node.shape[..])
        else {
            return Err(self.malformed("its operands are no pictures"));
        };
        // The kernels count in pixels of the enlarged picture.
        let [in_height, in_width] = [in_height, in_width].map(|side| if upsample { 2 * side } else { side });
        let kernel = [self.graph.weight(weight).shape[2], self.graph.weight(weight).shape[3]];
        let per_picture = residual.is_some_and(|id| self.shape(id) != node.shape);
        let unpadded = padding == Default::default();
        if kernel == [1, 1] && stride == 1 && unpadded && !upsample {
            let rows_per_residual = match residual {
                None => 0,
                Some(_) if per_picture => height * width,
                Some(_) => 1,
            };
            return self.matrix_product(x, weight, bias, residual, rows_per_residual);
        }
        let rows = batch * height * width;
        if let Some(tiled) = self.tiled() {
            let (of_x, padding) = ([in_height, in_width, in_channels], [padding.top, padding.left]);
            let walk = TapWalk { of_x, of_y: [height, width], kernel, stride, padding, upsample };
            let rows_per_residual = residual.map_or(0, |_| if per_picture { height * width } else { 1 });
            let operands = MatrixOperands { x, weight, bias, residual, rows_per_residual };
            return self.tiled_product(tiled, walk, operands);
        }
        let (out, out_channels) = self.padded_output(rows, in_channels, channels, residual);
        let channel_counts = [in_channels, out_channels];
        let family = if kernel == [3, 3] && stride == 1 { &kernels::CONV3X3 } else { &kernels::CONV2D };
        let chosen = family.with(Channels::of(&channel_counts)).weights((self.storage)(weight));
        let parameters = [
            in_height,
            in_width,
            in_channels,
            height,
            width,
            out_channels,
            kernel[0],
            kernel[1],
            stride,
            padding.top,
            padding.left,
            usize::from(bias.is_some()),
            residual.map_or(0, |_| 1 + usize::from(per_picture)),
            usize::from(upsample),
        ];
        let reads = [
            Operand::Node(x),
            Operand::Weight(weight),
            bias.map_or(ABSENT, Operand::Weight),
            residual.map_or(ABSENT, Operand::Node),
        ];
        let tiles = [batch, height.div_ceil(4), width.div_ceil(4), channels.div_ceil(8)];
        self.dispatch(chosen, &reads, out, &tiles, parameters.map(|n| n as u32))?;
        self.drop_padding(out, rows, out_channels, channels)
    }

    fn matrix_product(
        &mut self,
        x: NodeId,
        weight: WeightId,
        bias: Option<WeightId>,
        residual: Option<NodeId>,
        rows_per_residual: usize,
    ) -> Result<(), Error> {
        let (rows, in_channels) = self.rows_and_channels(x);
        let (_, channels) = self.rows_and_channels(self.node);
        if let Some(tiled) = self.tiled() {
            let (of_x, of_y) = ([1, rows, in_channels], [1, rows]);
            let walk = TapWalk { of_x, of_y, kernel: [1, 1], stride: 1, padding: [0, 0], upsample: false };
            let operands = MatrixOperands { x, weight, bias, residual, rows_per_residual };
            return self.tiled_product(tiled, walk, operands);
        }
        let (out, out_channels) = self.padded_output(rows, in_channels, channels, residual);
        let kernel = kernels::LINEAR.with(Channels::of(&[in_channels, out_channels])).weights((self.storage)(weight));
        let parameters = [rows, in_channels, out_channels, usize::from(bias.is_some()), rows_per_residual];
        let reads = [
            Operand::Node(x),
            Operand::Weight(weight),
            bias.map_or(ABSENT, Operand::Weight),
            residual.map_or(ABSENT, Operand::Node),
        ];
        let tiles = [rows.div_ceil(16), channels.div_ceil(8)];
        self.dispatch(kernel, &reads, out, &tiles, parameters.map(|n| n as u32))?;
        self.drop_padding(out, rows, out_channels, channels)
    }

    /// How the product of this node is tiled in workgroup memory, if it is.
    fn tiled(&self) -> Option<Tiled> {
        let (product, weight) = Product::of(self.graph, self.graph.node(self.node))?;
        match self.variants.choose(product, (self.storage)(weight)) {
            Choice::Registers => None,
            Choice::Tiled { tiling, half } => Some(Tiled { product, tiling, half }),
        }
    }

    /// A product by the kernel that tiles it in workgroup memory.
    fn tiled_product(&mut self, tiled: Tiled, walk: TapWalk, operands: MatrixOperands) -> Result<(), Error> {
        let Tiled { product: Product { rows, channels, steps }, tiling: Tiling { tile, splits }, half } = tiled;
        let MatrixOperands { x, weight, bias, residual, rows_per_residual } = operands;
        let [in_height, in_width, in_channels] = walk.of_x;
        let aligned = Channels::of(&[in_channels, channels]);
        let kernel = tile.entry().with(aligned).weights((self.storage)(weight)).half_tiles(half);
        let y = Operand::Node(self.node);
        let out = if splits == 1 { y } else { self.scratch(splits * rows * channels) };
        let (has_bias, bias) = (usize::from(bias.is_some()), bias.map_or(ABSENT, Operand::Weight));
        let residual = residual.map_or(ABSENT, Operand::Node);
        // With several splits, bias and residual are added where the splits are.
        let own = |parameter: usize| if splits == 1 { parameter } else { 0 };
        let parameters = [
            in_height,
            in_width,
            in_channels,
            walk.of_y[0],
            walk.of_y[1],
            channels,
            walk.kernel[0],
            walk.kernel[1],
            walk.stride,
            walk.padding[0],
            walk.padding[1],
            own(has_bias),
            own(rows_per_residual),
            rows,
            steps.div_ceil(splits),
            usize::from(walk.upsample),
        ];
        let [tile_rows, tile_channels] = tile.sizes();
        let groups = [splits, rows.div_ceil(tile_rows), channels.div_ceil(tile_channels)];
        let [a, b, c] = groups;
        let lanes = [a, b, c, kernel.entry.workgroup as usize];
        let reads = [Operand::Node(x), Operand::Weight(weight), bias, if splits == 1 { residual } else { ABSENT }];
        self.dispatch(kernel, &reads, out, &lanes, parameters.map(|n| n as u32))?;
        if splits == 1 {
            return Ok(());
        }
        let kernel = kernels::SPLIT_SUM.with(Channels::of(&[channels]));
        let parameters = [rows, channels, splits, has_bias, rows_per_residual].map(|n| n as u32);
        self.dispatch(kernel, &[out, bias, residual], y, &[rows, channels.div_ceil(4)], parameters)
    }

    /// Where a matrix kernel writes, and with how many channels.
    ///
    /// A network's last layer often has three channels. Rather than compile a pipeline for it alone, its rows are padded to a
    /// multiple of four (as its weights are) in scratch memory, and [`Self::drop_padding`] copies what counts.
    fn padded_output(
        &mut self,
        rows: usize,
        in_channels: usize,
        channels: usize,
        residual: Option<NodeId>,
    ) -> (Operand, usize) {
        let padded = channels.next_multiple_of(4);
        if padded == channels || !in_channels.is_multiple_of(4) || residual.is_some() {
            return (Operand::Node(self.node), channels);
        }
        (self.scratch(rows * padded), padded)
    }

    fn drop_padding(&mut self, out: Operand, rows: usize, padded: usize, channels: usize) -> Result<(), Error> {
        if padded == channels {
            return Ok(());
        }
        let walk = Walk::new(&[rows, channels], [&[padded, 1], &[channels, 1], &[channels, 1]]);
        self.strided(kernels::COPY.kernel(), &[out], 0, walk, [0; 3])
    }

    fn group_norm(&mut self, node: &Node) -> Result<(), Error> {
        let &Op::GroupNorm { x, weight, bias, groups, eps, activation } = &node.op else { return Ok(()) };
        let (rows, channels) = self.rows_and_channels(x);
        let batch = self.shape(x)[0];
        let pixels = rows / batch;
        // Slices long enough to be worth an invocation, and few enough to be merged by one.
        let slices = pixels.div_ceil(64).min(256);
        let pixels_per_slice = pixels.div_ceil(slices);
        let slices = pixels.div_ceil(pixels_per_slice);
        let quads = channels.div_ceil(4);
        let sizes = [batch, pixels, channels, groups, slices, pixels_per_slice].map(|n| n as u32);
        let [a, b, c, d, e, f] = sizes;
        let parameters = [a, b, c, d, e, f, eps.to_bits(), 0];
        let partials = self.scratch(batch * slices * 12 * quads);
        let norm = self.scratch(batch * 12 * quads);
        let moments = kernels::MOMENTS.with(Channels::of(&[channels]));
        self.dispatch(moments, &[Operand::Node(x)], partials, &[batch, slices, quads], parameters)?;
        let reads = [Operand::Weight(weight), partials];
        self.dispatch(kernels::COMBINE.kernel(), &reads, norm, &[batch, groups], parameters)?;
        let normalize = kernels::NORMALIZE_PIXELS.with(Channels::of(&[channels])).activation(activation);
        let reads = [Operand::Node(x), Operand::Weight(bias), norm];
        let blocks = [batch, pixels.div_ceil(4), quads];
        self.dispatch(normalize, &reads, Operand::Node(self.node), &blocks, parameters)
    }

    fn attention(&mut self, node: &Node) -> Result<(), Error> {
        let &Op::Attention { q, k, v, heads, causal } = &node.op else { return Ok(()) };
        let &[batch, query_tokens, channels] = self.shape(q) else {
            return Err(self.malformed("its operands are no sequences"));
        };
        let key_tokens = self.shape(k)[1];
        let head_size = channels / heads;
        let scale = 1.0 / (head_size as f32).sqrt();
        if self.variants.flash_attention() {
            // Tiles of whole heads where an invocation has registers enough, else of equal parts.
            let quads = head_size.div_ceil(4);
            let slices = quads.div_ceil(8 * kernels::FLASH_COLUMNS);
            let columns = quads.div_ceil(8 * slices);
            let kernel = kernels::FLASH_ATTENTION.with(Channels::of(&[head_size])).columns(columns);
            let sizes = [query_tokens, key_tokens, heads, head_size, channels, channels, channels, 0, 0, 0];
            let [a, b, c, d, e, f, g, h, i, j] = sizes.map(|n| n as u32);
            let parameters = [a, b, c, d, e, f, g, h, i, j, scale.to_bits(), u32::from(causal)];
            let lanes = [batch * heads, slices, query_tokens.div_ceil(64), kernel.entry.workgroup as usize];
            let reads = [q, k, v].map(Operand::Node);
            return self.dispatch(kernel, &reads, Operand::Node(self.node), &lanes, parameters);
        }
        let key_quads = key_tokens.div_ceil(4);
        // Blocks of whole heads where one head's scores fit the budget, else of a head's queries.
        let rows = (self.limits.score_bytes as usize / (16 * key_quads)).max(4);
        let (pairs_at_once, queries_at_once) =
            if rows >= query_tokens { (rows / query_tokens, query_tokens) } else { (1, rows / 4 * 4) };
        let pairs_at_once = pairs_at_once.min(batch * heads);
        let score = self.scratch(pairs_at_once * queries_at_once * key_quads * 4);
        let scores = kernels::SCORES.with(Channels::of(&[head_size]));
        let mix_values = kernels::MIX_VALUES.with(Channels::of(&[head_size]));
        for pair in (0..batch * heads).step_by(pairs_at_once) {
            let pairs = pairs_at_once.min(batch * heads - pair);
            for query in (0..query_tokens).step_by(queries_at_once) {
                let queries = queries_at_once.min(query_tokens - query);
                let sizes = [query_tokens, key_tokens, channels, heads, pair, query, queries].map(|n| n as u32);
                let [a, b, c, d, e, f, g] = sizes;
                let parameters = [a, b, c, d, e, f, g, scale.to_bits(), u32::from(causal)];
                let tiles = [pairs, queries.div_ceil(4), key_quads];
                self.dispatch(scores, &[Operand::Node(q), Operand::Node(k)], score, &tiles, parameters)?;
                self.dispatch(kernels::SOFTMAX.kernel(), &[], score, &[pairs, queries], parameters)?;
                let tiles = [pairs, queries.div_ceil(4), head_size.div_ceil(8)];
                let y = Operand::Node(self.node);
                self.dispatch(mix_values, &[Operand::Node(v), score], y, &tiles, parameters)?;
            }
        }
        Ok(())
    }

    /// `options` are the parameters behind the sizes.
    fn resample(&mut self, entry: &'static Entry, x: NodeId, node: &Node, options: [u32; 8]) -> Result<(), Error> {
        let (&[_, in_height, in_width, channels], &[batch, height, width, _]) = (self.shape(x), &node.shape[..]) else {
            return Err(self.malformed("its operand is no picture"));
        };
        let mut parameters = [0; 13];
        parameters[..5].copy_from_slice(&[in_height, in_width, height, width, channels].map(|n| n as u32));
        parameters[5..].copy_from_slice(&options);
        let kernel = entry.with(Channels::of(&[channels]));
        let quads = [batch, height, width, channels.div_ceil(4)];
        self.dispatch(kernel, &[Operand::Node(x)], Operand::Node(self.node), &quads, parameters)
    }

    /// One dispatch for each box of four axes; `starts` are the first elements of the two operands and of the result.
    fn strided(
        &mut self,
        kernel: Kernel,
        reads: &[Operand],
        operation: u32,
        walk: Walk,
        starts: [usize; 3],
    ) -> Result<(), Error> {
        let outer = walk.shape.len() - 4;
        for starts in walk.boxes(starts) {
            // The vectors of the parameters are aligned to 16 bytes.
            let mut parameters = [0; 23];
            parameters[0] = operation;
            parameters[1..4].copy_from_slice(&starts.map(|start| start as u32));
            let [a_strides, b_strides, y_strides] = &walk.strides;
            for (vector, values) in [&walk.shape, a_strides, b_strides, y_strides].into_iter().enumerate() {
                for (lane, &value) in values[outer..].iter().enumerate() {
                    parameters[7 + 4 * vector + lane] = value as u32;
                }
            }
            self.dispatch(kernel, reads, Operand::Node(self.node), &walk.shape[outer..], parameters)?;
        }
        Ok(())
    }

    /// For shapes that the graph's builder would have refused.
    fn malformed(&self, message: &str) -> Error {
        let node = self.graph.node(self.node);
        Error::Unsupported { path: node.path.clone(), op: node.op.name(), message: message.to_owned() }
    }
}

/// A product that is tiled in workgroup memory.
#[derive(Clone, Copy)]
struct Tiled {
    product: Product,
    tiling: Tiling,
    /// Whether the weights are f16 there.
    half: bool,
}

/// How a convolution walks over its input.
#[derive(Clone, Copy)]
struct TapWalk {
    /// Height, width and channels of the input.
    of_x: [usize; 3],
    /// Height and width of the result.
    of_y: [usize; 2],
    kernel: [usize; 2],
    stride: usize,
    /// Zeros above and to the left.
    padding: [usize; 2],
    /// The picture has half the height and width that are said of it, and each pixel counts four times.
    upsample: bool,
}

/// What a matrix kernel reads.
#[derive(Clone, Copy)]
struct MatrixOperands {
    x: NodeId,
    weight: WeightId,
    bias: Option<WeightId>,
    residual: Option<NodeId>,
    /// Consecutive rows of the result that share one of the residual; 0 if there is none.
    rows_per_residual: usize,
}
