//! The ops that only a gradient, and the loss that it is of, are made of.

use crate::graph::{Activation, NodeId, Padding, Pooling, WeightId};

/// One operation of a backward pass. `upstream` is dL/dy for the result y of a forward op, and has its shape.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum GradientOp {
    /// dL/dx of a convolution, in x's shape: what of `upstream` each pixel has contributed to.
    Conv2dInput {
        /// `[batch, out_height, out_width, out_channels]`.
        upstream: NodeId,
        /// `[out_channels, in_channels, kernel_height, kernel_width]`.
        weight: WeightId,
        /// Step between the pixels of y, both axes.
        stride: usize,
        /// Zeros around x.
        padding: Padding,
    },
    /// dL/dW of a convolution, `[out_channels, in_channels, kernel_height, kernel_width]`: sums over all pixels of y.
    Conv2dWeight {
        /// `[batch, height, width, in_channels]`.
        x: NodeId,
        /// `[batch, out_height, out_width, out_channels]`.
        upstream: NodeId,
        /// Step between the pixels of y, both axes.
        stride: usize,
        /// Zeros around x.
        padding: Padding,
    },
    /// dL/dx = upstream · W of a linear layer.
    LinearInput {
        /// `[..., out_features]`.
        upstream: NodeId,
        /// `[out_features, in_features]`.
        weight: WeightId,
    },
    /// dL/dW = upstreamᵀ · x of a linear layer, `[out_features, in_features]`: sums over all rows.
    LinearWeight {
        /// `[..., in_features]`.
        x: NodeId,
        /// `[..., out_features]`.
        upstream: NodeId,
    },
    /// dL/dx of a normalisation and of the activation behind it, row by row, then a row of dL/dγ and one of dL/dβ: `[rows + 2,
    /// channels]`.
    Norm(Norm),
    /// dL/dq, dL/dk and dL/dv of an attention, each with all its tokens, one behind the other: `[batch * (query_tokens + 2 *
    /// key_tokens), channels]`.
    Attention {
        /// `[batch, query_tokens, channels]`.
        q: NodeId,
        /// `[batch, key_tokens, channels]`.
        k: NodeId,
        /// `[batch, key_tokens, channels]`.
        v: NodeId,
        /// `[batch, query_tokens, channels]`.
        upstream: NodeId,
        /// Number of heads; divides the channels.
        heads: usize,
        /// True if a token sees itself and those before it only.
        causal: bool,
    },
    /// upstream · f′(x) for an activation f.
    Activate {
        /// A tensor of any shape.
        x: NodeId,
        /// Shape of x.
        upstream: NodeId,
        /// The activation.
        activation: Activation,
    },
    /// dL/dx of a · gelu(b), in the shape of x: first what the factor a gets, then the gate b.
    Geglu {
        /// `[..., 2 * channels]`.
        x: NodeId,
        /// `[..., channels]`.
        upstream: NodeId,
    },
    /// dL/dx of a resizing: each pixel of x gathers from all that were made of it.
    Resize {
        /// `[batch, height, width, channels]` of the enlarged picture; the result has those of the other.
        upstream: NodeId,
        /// True if it was bilinear, else nearest neighbour.
        bilinear: bool,
    },
    /// dL/dx of a pooling. Of several largest pixels under a kernel the first has all of it, as in torch.
    Pool2d {
        /// `[batch, height, width, channels]`.
        x: NodeId,
        /// `[batch, out_height, out_width, channels]`.
        upstream: NodeId,
        /// The value made of the pixels under the kernel.
        pooling: Pooling,
        /// Height and width of the kernel.
        kernel: [usize; 2],
        /// Step between result pixels, both axes.
        stride: usize,
        /// Rows and columns by which the kernel reaches beyond `x`.
        padding: Padding,
    },
    /// dL/dx of a slice: `upstream` along an axis from `start` on, zeros elsewhere.
    Slice {
        /// Shape of the slice.
        upstream: NodeId,
        /// The axis.
        axis: usize,
        /// First index that was taken.
        start: usize,
    },
    /// Sums along axes: dL/dx of what was repeated along them, and what makes a number of a loss. Each axis of the result is that of x
    /// or 1.
    Sum {
        /// A tensor of any shape.
        x: NodeId,
    },
    /// dL/dtable of a gathering of rows, `[rows, channels]`: each row has the sum of what its copies get.
    Gather {
        /// `[...]`, the rows' numbers.
        ids: NodeId,
        /// `[..., channels]`.
        upstream: NodeId,
    },
}

/// The operands of a normalisation's gradient.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Norm {
    /// `[batch, ..., channels]`.
    pub x: NodeId,
    /// Shape of x.
    pub upstream: NodeId,
    /// γ, `[channels]`.
    pub weight: WeightId,
    /// β, `[channels]`.
    pub bias: WeightId,
    /// Number of groups of consecutive channels of a picture, or none: each row by itself (layer norm).
    pub groups: Option<usize>,
    /// Number added to the variance.
    pub eps: f32,
    /// Activation of the result.
    pub activation: Option<Activation>,
}

impl GradientOp {
    /// The op's name in messages and profiles.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Conv2dInput { .. } => "conv2d_input_gradient",
            Self::Conv2dWeight { .. } => "conv2d_weight_gradient",
            Self::LinearInput { .. } => "linear_input_gradient",
            Self::LinearWeight { .. } => "linear_weight_gradient",
            Self::Norm(_) => "norm_gradient",
            Self::Attention { .. } => "attention_gradient",
            Self::Activate { .. } => "activate_gradient",
            Self::Geglu { .. } => "geglu_gradient",
            Self::Resize { .. } => "resize_gradient",
            Self::Pool2d { .. } => "pool2d_gradient",
            Self::Slice { .. } => "slice_gradient",
            Self::Sum { .. } => "sum",
            Self::Gather { .. } => "gather_gradient",
        }
    }
}

/// Calls `$each` with a reference to each node that the gradient op reads, shared or exclusive as the one to the op is.
macro_rules! each_gradient_input {
    ($op:expr, $each:expr) => {{
        use $crate::graph::gradient::Norm;
        match $op {
            GradientOp::Conv2dInput { upstream, .. }
            | GradientOp::LinearInput { upstream, .. }
            | GradientOp::Resize { upstream, .. }
            | GradientOp::Slice { upstream, .. }
            | GradientOp::Sum { x: upstream } => [upstream].into_iter().for_each($each),
            GradientOp::Conv2dWeight { x, upstream, .. }
            | GradientOp::LinearWeight { x, upstream }
            | GradientOp::Norm(Norm { x, upstream, .. })
            | GradientOp::Activate { x, upstream, .. }
            | GradientOp::Geglu { x, upstream }
            | GradientOp::Pool2d { x, upstream, .. }
            | GradientOp::Gather { ids: x, upstream } => [x, upstream].into_iter().for_each($each),
            GradientOp::Attention { q, k, v, upstream, .. } => [q, k, v, upstream].into_iter().for_each($each),
        }
    }};
}
pub(in crate::graph) use each_gradient_input;

/// Calls `$each` with a reference to each weight that the gradient op reads, in the same way.
macro_rules! each_gradient_weight {
    ($op:expr, $each:expr) => {{
        let mut each = $each;
        match $op {
            GradientOp::Conv2dInput { weight, .. } | GradientOp::LinearInput { weight, .. } => each(weight),
            GradientOp::Norm($crate::graph::gradient::Norm { weight, bias, .. }) => {
                [weight, bias].into_iter().for_each(each);
            }
            _ => {}
        }
    }};
}
pub(in crate::graph) use each_gradient_weight;
