//! The ops on tensors, and what each computes. Those of a solver's step are [`SolverOp`]s.

#[cfg(feature = "training")]
use super::gradient::{GradientOp, each_gradient_input, each_gradient_weight};
#[cfg(feature = "training")]
use super::optimiser::{OptimiserOp, each_optimiser_input, each_optimiser_weight};
use super::solver::SolverOp;
use super::{NodeId, WeightId};

/// Padding of a convolution, with zeros, or of a pooling, with nothing; in pixels.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Padding {
    /// Rows above.
    pub top: usize,
    /// Rows below.
    pub bottom: usize,
    /// Columns to the left.
    pub left: usize,
    /// Columns to the right.
    pub right: usize,
}

impl Padding {
    /// The padding of `pixels` on all four sides.
    pub const fn same(pixels: usize) -> Self {
        Self::around([pixels, pixels])
    }

    /// The padding of so many rows above and below, and so many columns to the left and to the right.
    pub const fn around([rows, columns]: [usize; 2]) -> Self {
        Self { top: rows, bottom: rows, left: columns, right: columns }
    }

    /// One row below and one column to the right: the (0, 1, 0, 1) padding before diffusers' unpadded stride-2 convolutions.
    pub const fn bottom_right() -> Self {
        Self { top: 0, bottom: 1, left: 0, right: 1 }
    }
}

/// Element-wise non-linearities.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Activation {
    /// x · sigmoid(x), also called swish.
    Silu,
    /// x · Φ(x), exact, through erf.
    Gelu,
    /// GELU by its tanh approximation (`gelu_new`, `gelu-approximate`).
    GeluTanh,
    /// x · sigmoid(1.702 x), as in CLIP ViT-L.
    QuickGelu,
    /// x · tanh(ln(1 + eˣ)).
    Mish,
    /// max(x, 0).
    Relu,
    /// tanh(x).
    Tanh,
    /// eˣ, for exponents from −80 to 80.
    Exp,
    /// √x; of a negative number it is not a number, which the run then reports.
    Sqrt,
}

/// Element-wise operations on two tensors.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum BinaryOp {
    /// a + b.
    Add,
    /// a − b.
    Sub,
    /// a · b.
    Mul,
}

/// The value that a pooling makes of the pixels under its kernel.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Pooling {
    /// The largest of these pixels.
    Max,
    /// The mean of these pixels.
    Average,
}

/// One operation. Pictures are `[batch, height, width, channels]`; "rows" are all leading axes of a tensor taken together.
#[derive(Clone, PartialEq, Debug)]
pub enum Op {
    /// A tensor that is filled from outside before each run.
    Input,
    /// 2-D convolution (cross-correlation, as in torch) plus bias, plus a residual of the result's shape or `[batch, 1, 1, channels]`.
    Conv2d {
        /// `[batch, height, width, in_channels]`.
        x: NodeId,
        /// `[out_channels, in_channels, kernel_height, kernel_width]`.
        weight: WeightId,
        /// `[out_channels]`.
        bias: Option<WeightId>,
        /// Tensor added to the result.
        residual: Option<NodeId>,
        /// Step between result pixels, both axes.
        stride: usize,
        /// Zeros around `x`.
        padding: Padding,
        /// True if `x` is first enlarged to twice its height and width, nearest neighbour. Only [`super::fold_upsampling`]
        /// makes it, which the GPU's programs ask for.
        upsample: bool,
    },
    /// x Wᵀ + bias over the last axis, plus a residual of the result's shape.
    Linear {
        /// `[..., in_features]`.
        x: NodeId,
        /// `[out_features, in_features]`.
        weight: WeightId,
        /// `[out_features]`.
        bias: Option<WeightId>,
        /// Tensor added to the result.
        residual: Option<NodeId>,
    },
    /// Group normalisation with affine parameters (biased variance over a group's pixels and channels), then an activation.
    GroupNorm {
        /// `[batch, ..., channels]`.
        x: NodeId,
        /// `[channels]`.
        weight: WeightId,
        /// `[channels]`.
        bias: WeightId,
        /// Number of groups of consecutive channels.
        groups: usize,
        /// Number added to the variance.
        eps: f32,
        /// Activation of the result.
        activation: Option<Activation>,
    },
    /// Layer normalisation over the last axis with affine parameters.
    LayerNorm {
        /// `[..., channels]`.
        x: NodeId,
        /// `[channels]`.
        weight: WeightId,
        /// `[channels]`.
        bias: WeightId,
        /// Number added to the variance.
        eps: f32,
    },
    /// softmax(q kᵀ / √head_size) v for each head; head h owns the channels `h * head_size ..`.
    Attention {
        /// `[batch, query_tokens, channels]`.
        q: NodeId,
        /// `[batch, key_tokens, channels]`.
        k: NodeId,
        /// `[batch, key_tokens, channels]`.
        v: NodeId,
        /// Number of heads; divides the channels.
        heads: usize,
        /// True if a token sees itself and those before it only.
        causal: bool,
    },
    /// An activation by itself.
    Activate {
        /// A tensor of any shape.
        x: NodeId,
        /// The activation.
        activation: Activation,
    },
    /// a · gelu(b) for a = the first half of the last axis and b = the second.
    Geglu {
        /// `[..., 2 * channels]`.
        x: NodeId,
    },
    /// An element-wise operation; every axis of `b` is that of `a` or 1.
    Binary {
        /// The operation.
        op: BinaryOp,
        /// Left operand; the result has its shape.
        a: NodeId,
        /// Right operand, of the same rank.
        b: NodeId,
    },
    /// scale · x + shift.
    Affine {
        /// A tensor of any shape.
        x: NodeId,
        /// Factor.
        scale: f32,
        /// Summand.
        shift: f32,
    },
    /// Tensors one after the other along an axis.
    Concat {
        /// The tensors, at least one; their shapes are equal but for `axis`.
        inputs: Vec<NodeId>,
        /// The axis.
        axis: usize,
    },
    /// `start .. start + result's length` along an axis.
    Slice {
        /// Source.
        x: NodeId,
        /// The axis.
        axis: usize,
        /// First index taken.
        start: usize,
    },
    /// The elements of the source in another shape; costs nothing.
    Reshape {
        /// Source.
        x: NodeId,
    },
    /// Axis i of the result is axis `axes[i]` of the source.
    Permute {
        /// Source.
        x: NodeId,
        /// A permutation of its axes.
        axes: Vec<usize>,
    },
    /// Nearest neighbour: source index = floor(i · in / out).
    ResizeNearest {
        /// `[batch, height, width, channels]`.
        x: NodeId,
    },
    /// Bilinear, torch's `interpolate(mode="bilinear", align_corners=False)` without antialiasing: pixel i of the result lies
    /// at max((i + ½) · in / out − ½, 0) of `x`, in f32.
    ResizeBilinear {
        /// `[batch, height, width, channels]`.
        x: NodeId,
    },
    /// Maximum or mean of the pixels under a kernel that moves over the picture; those in the padding do not count, neither as
    /// values nor in the mean's divisor (torch's `count_include_pad=False`).
    Pool2d {
        /// `[batch, height, width, channels]`.
        x: NodeId,
        /// The value made of the pixels under the kernel.
        pooling: Pooling,
        /// Height and width of the kernel.
        kernel: [usize; 2],
        /// Step between result pixels, both axes.
        stride: usize,
        /// Rows and columns by which the kernel reaches beyond `x`, less than its own size.
        padding: Padding,
    },
    /// Sinusoidal embedding of `[batch]` numbers as `[batch, dim]` (diffusers' `get_timestep_embedding`).
    TimestepEmbedding {
        /// `[batch]`.
        timestep: NodeId,
        /// True for cos before sin.
        flip_sin_to_cos: bool,
        /// Number subtracted from dim/2 in the exponent's divisor.
        downscale_freq_shift: f32,
        /// Factor of the angle.
        scale: f32,
        /// Largest period, 10000 in all known models.
        max_period: f32,
    },
    /// Rows of a table: `[..., channels]`.
    #[cfg(feature = "training")]
    Gather {
        /// `[rows, channels]`.
        table: WeightId,
        /// `[...]`, whole numbers from 0 to below the rows.
        ids: NodeId,
    },
    /// An op of a solver's step, which is no part of a network.
    Solver(SolverOp),
    /// An op of a gradient, which is made of a network by [`super::gradient`].
    #[cfg(feature = "training")]
    Gradient(GradientOp),
    /// An op of an optimiser's step, which writes weights.
    #[cfg(feature = "training")]
    Optimiser(OptimiserOp),
    /// `[batch, channels, height, width]` in −1..1 (1 or 3 channels) to RGBA8 pixels `[batch, height, width]`, red in the lowest
    /// byte: 255 · clamp(x/2 + 1/2, 0, 1), halves rounded to even, alpha 255.
    PackRgba8 {
        /// `[batch, channels, height, width]`.
        x: NodeId,
    },
}

/// Calls `$each` with a reference to each node that the op reads, shared or exclusive as the one to the op is.
macro_rules! each_input {
    ($op:expr, $each:expr) => {{
        let mut each = $each;
        match $op {
            Op::Input => {}
            Op::Conv2d { x, residual, .. } | Op::Linear { x, residual, .. } => {
                each(x);
                residual.into_iter().for_each(each);
            }
            Op::GroupNorm { x, .. }
            | Op::LayerNorm { x, .. }
            | Op::Activate { x, .. }
            | Op::Geglu { x }
            | Op::Affine { x, .. }
            | Op::Slice { x, .. }
            | Op::Reshape { x }
            | Op::Permute { x, .. }
            | Op::ResizeNearest { x }
            | Op::ResizeBilinear { x }
            | Op::Pool2d { x, .. }
            | Op::PackRgba8 { x }
            | Op::Solver(SolverOp::Threshold { x, .. })
            | Op::TimestepEmbedding { timestep: x, .. } => each(x),
            Op::Attention { q, k, v, .. } => [q, k, v].into_iter().for_each(each),
            #[cfg(feature = "training")]
            Op::Gather { ids, .. } => each(ids),
            #[cfg(feature = "training")]
            Op::Gradient(op) => each_gradient_input!(op, each),
            #[cfg(feature = "training")]
            Op::Optimiser(op) => each_optimiser_input!(op, each),
            Op::Binary { a, b, .. } => [a, b].into_iter().for_each(each),
            Op::Concat { inputs, .. } => inputs.into_iter().for_each(each),
            Op::Solver(SolverOp::Guidance { model_output, coefficients, .. }) => {
                [model_output, coefficients].into_iter().for_each(each);
            }
            Op::Solver(SolverOp::LinearUpdate { sample, model_output, noise, history, coefficients, x0 }) => {
                [sample, model_output, noise, history, coefficients].into_iter().chain(x0).for_each(each);
            }
        }
    }};
}

/// Calls `$each` with a reference to each weight that the op reads, shared or exclusive as the one to the op is.
macro_rules! each_weight {
    ($op:expr, $each:expr) => {{
        let mut each = $each;
        match $op {
            Op::Conv2d { weight, bias, .. } | Op::Linear { weight, bias, .. } => {
                each(weight);
                bias.into_iter().for_each(each);
            }
            Op::GroupNorm { weight, bias, .. } | Op::LayerNorm { weight, bias, .. } => {
                [weight, bias].into_iter().for_each(each);
            }
            #[cfg(feature = "training")]
            Op::Gather { table, .. } => each(table),
            #[cfg(feature = "training")]
            Op::Gradient(op) => each_gradient_weight!(op, each),
            #[cfg(feature = "training")]
            Op::Optimiser(op) => each_optimiser_weight!(op, each),
            _ => {}
        }
    }};
}

impl Op {
    /// The op's name in messages and profiles.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Input => "input",
            Op::Conv2d { .. } => "conv2d",
            Op::Linear { .. } => "linear",
            Op::GroupNorm { .. } => "group_norm",
            Op::LayerNorm { .. } => "layer_norm",
            Op::Attention { .. } => "attention",
            Op::Activate { .. } => "activate",
            Op::Geglu { .. } => "geglu",
            Op::Binary { .. } => "binary",
            Op::Affine { .. } => "affine",
            Op::Concat { .. } => "concat",
            Op::Slice { .. } => "slice",
            Op::Reshape { .. } => "reshape",
            Op::Permute { .. } => "permute",
            Op::ResizeNearest { .. } => "resize_nearest",
            Op::ResizeBilinear { .. } => "resize_bilinear",
            Op::Pool2d { .. } => "pool2d",
            Op::TimestepEmbedding { .. } => "timestep_embedding",
            #[cfg(feature = "training")]
            Op::Gather { .. } => "gather",
            Op::Solver(op) => op.name(),
            #[cfg(feature = "training")]
            Op::Gradient(op) => op.name(),
            #[cfg(feature = "training")]
            Op::Optimiser(op) => op.name(),
            Op::PackRgba8 { .. } => "pack_rgba8",
        }
    }

    /// The weight that the op writes; its value lies there.
    pub fn written_weight(&self) -> Option<WeightId> {
        match self {
            #[cfg(feature = "training")]
            Op::Optimiser(op) => op.written(),
            _ => None,
        }
    }

    /// Calls `visit` with each node the op reads, in a fixed order.
    pub fn for_each_input(&self, mut visit: impl FnMut(NodeId)) {
        each_input!(self, |id: &NodeId| visit(*id));
    }

    /// Calls `visit` with each weight the op reads, in a fixed order.
    pub fn for_each_weight(&self, mut visit: impl FnMut(WeightId)) {
        each_weight!(self, |id: &WeightId| visit(*id));
    }

    /// Replaces each weight the op reads.
    #[cfg(feature = "training")]
    pub fn map_weights(&mut self, mut map: impl FnMut(WeightId) -> WeightId) {
        each_weight!(self, |id: &mut WeightId| *id = map(*id));
    }

    /// Replaces each node the op reads.
    pub fn map_inputs(&mut self, mut map: impl FnMut(NodeId) -> NodeId) {
        each_input!(self, |id: &mut NodeId| *id = map(*id));
    }
}
