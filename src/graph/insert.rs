//! A network as a part of another.

use super::{Error, Graph, NodeId, Op, Scope, WeightId};

/// What is made of a node that was added, at its path: itself, or something that takes its place.
pub type Adapt<'a> = &'a mut dyn FnMut(&Scope, &Op, NodeId) -> Result<NodeId, Error>;

impl Scope<'_> {
    /// Adds `graph` at this path, below which its weights are named; gives the nodes of its outputs, in their order.
    ///
    /// An input whose name is in `bound` is the node beside it, any other becomes an input here.
    ///
    /// # Errors
    /// If a bound node has another shape than the input, there is no such input, or a weight of one name has two shapes.
    pub fn insert(&self, graph: &Graph, bound: &[(&str, NodeId)]) -> Result<Vec<NodeId>, Error> {
        self.insert_adapted(graph, bound, &mut |_, _, id| Ok(id))
    }

    /// Adds `graph` as [`Scope::insert`] does, with what `adapt` makes of each of its nodes but inputs.
    ///
    /// # Errors
    /// As [`Scope::insert`], and what `adapt` refuses.
    pub fn insert_adapted(&self, graph: &Graph, bound: &[(&str, NodeId)], adapt: Adapt) -> Result<Vec<NodeId>, Error> {
        for (name, _) in bound {
            graph.input(name)?;
        }
        let weights: Vec<WeightId> = graph
            .weights()
            .iter()
            .map(|spec| self.weight(&spec.name, spec.shape.clone(), spec.role))
            .collect::<Result<_, _>>()?;
        let mut moved: Vec<NodeId> = Vec::with_capacity(graph.nodes().len());
        for (index, node) in graph.nodes().iter().enumerate() {
            let of_input = graph.inputs().iter().find(|(_, id)| id.index() == index);
            moved.push(match of_input.map(|(name, _)| name.as_str()) {
                Some(name) => match bound.iter().find(|(input, _)| *input == name) {
                    None => self.input(name, &node.shape)?,
                    Some(&(_, to)) if self.shape(to) == node.shape => to,
                    Some(&(_, to)) => {
                        let message = format!("`{name}` takes {:?}, and is given {:?}", node.shape, self.shape(to));
                        return Err(self.error(message));
                    }
                },
                None => {
                    let mut op: Op = node.op.clone();
                    op.map_inputs(|id| moved[id.0]);
                    op.map_weights(|id| weights[id.0]);
                    let scope = self.at(&node.path);
                    let id = scope.push(op.clone(), node.shape.clone(), node.dtype)?;
                    let adapted = adapt(&scope, &op, id)?;
                    if self.shape(adapted) != node.shape {
                        let found = self.shape(adapted);
                        return Err(scope.error(format!("{found:?} takes the place of {:?}", node.shape)));
                    }
                    adapted
                }
            });
        }
        Ok(graph.outputs().iter().map(|(_, id)| moved[id.0]).collect())
    }
}
