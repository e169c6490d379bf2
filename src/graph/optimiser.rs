//! The ops of an optimiser's step: those that write weights.
//!
//! The value of such an op is the weight as it now is, and lies where the weight does. Nodes are computed in their order, so that what
//! reads a weight before its step sees what it was.

use super::{Element, Error, NodeId, Op, Scope, WeightId, WeightRole};

/// Length of [`OptimiserOp::AdamW`]'s coefficients.
pub const COEFFICIENTS: usize = 8;

/// One operation of an optimiser's step.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum OptimiserOp {
    /// Σ x², `[1]`.
    SumOfSquares {
        /// A tensor of any shape.
        x: NodeId,
    },
    /// AdamW (Loshchilov and Hutter 2017, arXiv 1711.05101, algorithm 2; `torch.optim.AdamW`) with clipping by the global norm
    /// (`torch.nn.utils.clip_grad_norm_`): with the coefficients `[d, a, b, c, ε, r, s, n]` and g = gradient · min(1, n / (√`squares` +
    /// 10⁻⁶)),
    ///
    /// ```text
    /// m ← m + a·(g − m)
    /// v ← b·v + c·g²
    /// weight ← d·weight − s·m / (√v/r + ε)
    /// ```
    AdamW {
        /// The weight.
        weight: WeightId,
        /// m, in its shape.
        first_moment: WeightId,
        /// v, in its shape.
        second_moment: WeightId,
        /// Its gradient.
        gradient: NodeId,
        /// Σ g² of all that is clipped together, `[1]`.
        squares: NodeId,
        /// `[COEFFICIENTS]`: 1 − learning rate · decay, 1 − β₁, β₂, 1 − β₂, ε, √(1 − β₂ᵗ), learning rate / (1 − β₁ᵗ), the largest norm.
        coefficients: NodeId,
    },
    /// average ← average + (1 − decay)·(weight − average): an exponential moving average, as diffusers' `EMAModel` keeps it.
    Ema {
        /// The average.
        average: WeightId,
        /// What is averaged, in its shape.
        weight: NodeId,
        /// 1 − decay, `[1]`.
        share: NodeId,
    },
}

impl OptimiserOp {
    /// The op's name in messages and profiles.
    pub fn name(&self) -> &'static str {
        match self {
            Self::SumOfSquares { .. } => "sum_of_squares",
            Self::AdamW { .. } => "adam_w",
            Self::Ema { .. } => "ema",
        }
    }

    /// The weight that the op writes, where its value lies.
    pub fn written(&self) -> Option<WeightId> {
        match *self {
            Self::SumOfSquares { .. } => None,
            Self::AdamW { weight, .. } => Some(weight),
            Self::Ema { average, .. } => Some(average),
        }
    }
}

/// Calls `$each` with a reference to each node that the op reads, shared or exclusive as the one to the op is.
macro_rules! each_optimiser_input {
    ($op:expr, $each:expr) => {{
        use $crate::graph::OptimiserOp;
        match $op {
            OptimiserOp::SumOfSquares { x } => [x].into_iter().for_each($each),
            OptimiserOp::AdamW { gradient, squares, coefficients, .. } => {
                [gradient, squares, coefficients].into_iter().for_each($each);
            }
            OptimiserOp::Ema { weight, share, .. } => [weight, share].into_iter().for_each($each),
        }
    }};
}
pub(super) use each_optimiser_input;

/// Calls `$each` with a reference to each weight that the op reads or writes, in the same way.
macro_rules! each_optimiser_weight {
    ($op:expr, $each:expr) => {{
        match $op {
            OptimiserOp::SumOfSquares { .. } => {}
            OptimiserOp::AdamW { weight, first_moment, second_moment, .. } => {
                [weight, first_moment, second_moment].into_iter().for_each($each);
            }
            OptimiserOp::Ema { average, .. } => [average].into_iter().for_each($each),
        }
    }};
}
pub(super) use each_optimiser_weight;

impl Scope<'_> {
    /// Σ x² over all of `tensors`, `[1]`.
    ///
    /// # Errors
    /// If there are none.
    pub fn sum_of_squares(&self, tensors: &[NodeId]) -> Result<NodeId, Error> {
        let mut total = None;
        for &x in tensors {
            let sum = self.push(Op::Optimiser(OptimiserOp::SumOfSquares { x }), vec![1], Element::F32)?;
            total = Some(total.map_or(Ok(sum), |total| self.add(total, sum))?);
        }
        total.ok_or_else(|| self.error("a sum over no tensors"))
    }

    /// A step of [`OptimiserOp::AdamW`] on `weight`, whose moments are the weights of its name with `.exp_avg` and `.exp_avg_sq` behind
    /// it (as torch calls them). Gives the new weight.
    ///
    /// # Errors
    /// If a shape does not fit.
    pub fn adam_w(
        &self,
        weight: WeightId,
        gradient: NodeId,
        squares: NodeId,
        coefficients: NodeId,
    ) -> Result<NodeId, Error> {
        let spec = self.weight_spec(weight);
        let fits = self.shape(gradient) == spec.shape && self.shape(squares) == [1];
        if !fits || self.shape(coefficients) != [COEFFICIENTS] {
            let found = [gradient, squares, coefficients].map(|id| self.shape(id));
            return Err(self.error(format!("a step on `{}` of {:?} by {found:?}", spec.name, spec.shape)));
        }
        let moment = |name: &str| self.weight(&format!("{}.{name}", spec.name), spec.shape.clone(), WeightRole::Plain);
        let (first_moment, second_moment) = (moment("exp_avg")?, moment("exp_avg_sq")?);
        let op = OptimiserOp::AdamW { weight, first_moment, second_moment, gradient, squares, coefficients };
        self.push(Op::Optimiser(op), spec.shape, Element::F32)
    }

    /// A step of [`OptimiserOp::Ema`] on the weight `name`, which averages `weight`; `share` is `[1]`.
    ///
    /// # Errors
    /// If a shape does not fit.
    pub fn ema(&self, name: &str, weight: NodeId, share: NodeId) -> Result<NodeId, Error> {
        if self.shape(share) != [1] {
            return Err(self.error(format!("a share of shape {:?}", self.shape(share))));
        }
        let average = self.weight(name, self.shape(weight), WeightRole::Plain)?;
        self.push(Op::Optimiser(OptimiserOp::Ema { average, weight, share }), self.shape(weight), Element::F32)
    }
}
