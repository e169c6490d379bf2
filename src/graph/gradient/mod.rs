//! Gradients, graph to graph: what a loss depends on, differentiated in reverse.
//!
//! [`differentiate`] appends to a network the nodes that compute the gradients of its loss. Everything else that is known of graphs
//! holds of the result: it has a memory plan, costs, and a program on each executor. What a forward node needs of itself again, such as
//! a norm's mean and a softmax, is computed again in the backward one, so that nothing is kept but what forward nodes have made.

mod op;
mod rules;

pub use op::{GradientOp, Norm};
pub(super) use op::{each_gradient_input, each_gradient_weight};
pub use rules::{Wrt, differentiate};
