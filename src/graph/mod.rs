//! A network as a static graph of typed ops.
//!
//! A [`Graph`] is a value: nodes in execution order, each with a fixed shape and dtype that were checked when the node was
//! added. It knows no model and no device. Pictures inside a graph are channels-last, `[batch, height, width, channels]`,
//! so that a picture is a sequence of tokens after a free reshape, and 1×1 convolution, linear layer and attention all read
//! contiguous channels; models permute from and to diffusers' `[batch, channels, height, width]` at their borders.
//!
//! Networks are built through [`Builder`], whose scopes follow the module paths of the checkpoint, so that a weight is
//! named by where it is used and an error names the layer.

mod builder;
mod cost;
#[cfg(feature = "training")]
pub mod gradient;
#[cfg(feature = "training")]
mod insert;
mod liveness;
mod op;
#[cfg(feature = "training")]
pub mod optimiser;
mod plan;
mod rewrite;
mod single;
mod solver;
mod split;
mod walk;

pub use builder::{Builder, Conv2dOptions, Pool2dOptions, Scope, TimestepEmbeddingOptions};
pub use cost::Cost;
#[cfg(feature = "training")]
pub use insert::Adapt;
pub use liveness::Liveness;
pub use op::{Activation, BinaryOp, Op, Padding, Pooling};
#[cfg(feature = "training")]
pub use optimiser::OptimiserOp;
pub use plan::{Lifetime, Place, SlabPlan, Slabs, largest_live_set};
pub use rewrite::{fold_upsampling, fuse};
pub use solver::{SolverOp, update};
pub use split::{Split, split};
pub(crate) use walk::{Walk, strides};

/// Index of a node in its graph; nodes only refer to earlier ones.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct NodeId(pub(crate) usize);

impl NodeId {
    /// Position in [`Graph::nodes`].
    pub fn index(self) -> usize {
        self.0
    }
}

/// Index of a weight in [`Graph::weights`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct WeightId(pub(crate) usize);

impl WeightId {
    /// Position in [`Graph::weights`].
    pub fn index(self) -> usize {
        self.0
    }
}

/// Element type of an activation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Element {
    /// 32-bit float: every activation.
    F32,
    /// 32-bit unsigned: packed RGBA8 pixels.
    U32,
}

/// The use of a weight, from which a device derives how to lay it out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WeightRole {
    /// Convolution kernel, `[out_channels, in_channels, kernel_height, kernel_width]`.
    Conv2d,
    /// Linear layer, `[out_features, in_features]`; 1×1 kernels `[out, in, 1, 1]` are accepted in its place.
    Linear,
    /// Bias or norm parameter, `[channels]`.
    Vector,
    /// Numbers in the order of the checkpoint, of any shape: a table of which rows are taken, the state of an optimiser, and every weight
    /// that one changes.
    Plain,
}

/// A weight that the graph needs, under its name in the checkpoint.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WeightSpec {
    /// Name in the checkpoint, such as `down_blocks.0.resnets.0.conv1.weight`.
    pub name: String,
    /// Shape in the checkpoint.
    pub shape: Vec<usize>,
    /// Use of the weight.
    pub role: WeightRole,
}

impl WeightSpec {
    /// Mismatch between the output `name` of `graph` and this weight's values: another shape or element type. `None` if they
    /// fit.
    ///
    /// # Errors
    /// If there is no such output.
    pub(crate) fn mismatch(&self, graph: &Graph, name: &str) -> Result<Option<String>, Error> {
        let Node { shape, dtype, .. } = graph.node(graph.output(name)?);
        let differs = *shape != self.shape || *dtype != Element::F32;
        Ok(differs.then(|| format!("output `{name}` is {dtype:?} {shape:?}, the weight F32 {:?}", self.shape)))
    }

    /// This weight where an optimiser changes it, whatever reads it besides.
    #[cfg(feature = "training")]
    pub fn trained(&self) -> Self {
        Self { role: WeightRole::Plain, ..self.clone() }
    }

    /// `[out, in, height · width]` of a weight that is a matrix of a product; `None` for another.
    pub fn matrix(&self) -> Option<[usize; 3]> {
        match (self.role, &self.shape[..]) {
            (WeightRole::Conv2d, &[out, input, height, width]) => Some([out, input, height * width]),
            (WeightRole::Linear, &[out, input]) => Some([out, input, 1]),
            _ => None,
        }
    }
}

/// One operation with its result's shape.
#[derive(Clone, PartialEq, Debug)]
pub struct Node {
    /// The operation, with the nodes and weights that it reads.
    pub op: Op,
    /// Shape of the result, row-major.
    pub shape: Vec<usize>,
    /// Element type of the result.
    pub dtype: Element,
    /// Module path of the layer, such as `down_blocks.1.resnets.0.conv1`.
    pub path: String,
}

impl Node {
    /// Number of elements of the result.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// A network with fixed shapes.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct Graph {
    nodes: Vec<Node>,
    weights: Vec<WeightSpec>,
    inputs: Vec<(String, NodeId)>,
    outputs: Vec<(String, NodeId)>,
}

impl Graph {
    /// Nodes in execution order.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The node `id`.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0]
    }

    /// Weights in order of first use.
    pub fn weights(&self) -> &[WeightSpec] {
        &self.weights
    }

    /// The weight `id`.
    pub fn weight(&self, id: WeightId) -> &WeightSpec {
        &self.weights[id.0]
    }

    /// The weight called `name`, if there is one.
    pub fn weight_id(&self, name: &str) -> Option<WeightId> {
        self.weights.iter().position(|spec| spec.name == name).map(WeightId)
    }

    /// The weight in whose place the value of `id` lies, if it is one that the graph writes, whatever its shape.
    pub(crate) fn written_weight(&self, id: NodeId) -> Option<WeightId> {
        match self.node(id).op {
            Op::Reshape { x } => self.written_weight(x),
            ref op => op.written_weight(),
        }
    }

    /// Named inputs.
    pub fn inputs(&self) -> &[(String, NodeId)] {
        &self.inputs
    }

    /// Named outputs.
    pub fn outputs(&self) -> &[(String, NodeId)] {
        &self.outputs
    }

    /// The input called `name`.
    ///
    /// # Errors
    /// If there is none; the message lists those there are.
    pub fn input(&self, name: &str) -> Result<NodeId, Error> {
        find(&self.inputs, name, "input")
    }

    /// The output called `name`.
    ///
    /// # Errors
    /// If there is none; the message lists those there are.
    pub fn output(&self, name: &str) -> Result<NodeId, Error> {
        find(&self.outputs, name, "output")
    }
}

/// The place of the weight `name` in `sets`, as the position of the set and that in it; `None` if it is in none.
///
/// # Errors
/// If two of them have it.
pub fn find_weight(sets: &[&[WeightSpec]], name: &str) -> Result<Option<[usize; 2]>, Error> {
    let mut found = None;
    for (set, specs) in sets.iter().enumerate() {
        let Some(index) = specs.iter().position(|spec| spec.name == name) else { continue };
        if found.replace([set, index]).is_some() {
            return Err(Error::AmbiguousWeight(name.to_owned()));
        }
    }
    Ok(found)
}

fn find(list: &[(String, NodeId)], name: &str, kind: &'static str) -> Result<NodeId, Error> {
    list.iter().find(|(n, _)| n == name).map(|(_, id)| *id).ok_or_else(|| Error::NoSuchPort {
        kind,
        name: name.to_owned(),
        known: list.iter().map(|(n, _)| n.as_str()).collect::<Vec<_>>().join(", "),
    })
}

/// A graph that cannot be built or addressed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// Operands whose shapes do not fit.
    #[error("{path}: {message}")]
    Shape {
        /// Module path of the layer.
        path: String,
        /// Reason, with the shapes.
        message: String,
    },
    /// One weight name asked for with two shapes or roles.
    #[error("{path}: weight `{name}` is used as {first:?} and as {second:?}")]
    WeightConflict {
        /// Module path of the second use.
        path: String,
        /// Name of the weight.
        name: String,
        /// Shape at first use.
        first: Vec<usize>,
        /// Shape at the second.
        second: Vec<usize>,
    },
    /// A loss without a gradient.
    #[cfg(feature = "training")]
    #[error("{path}: {message}")]
    Gradient {
        /// Module path of the layer.
        path: String,
        /// Reason.
        message: String,
    },
    /// One weight name in two of the sets of weights that a network is given.
    #[error("weight `{0}` is in two of the sets of weights that this network is given")]
    AmbiguousWeight(String),
    /// An input or output that the graph does not have.
    #[error("no {kind} called `{name}`; this network has: {known}")]
    NoSuchPort {
        /// Kind of the name: `input` or `output`.
        kind: &'static str,
        /// The name asked for.
        name: String,
        /// The names there are.
        known: String,
    },
}
