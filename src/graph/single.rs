//! One node of a graph as a graph of its own.

use super::{Graph, Node, NodeId, Op};

impl Graph {
    /// The node `id` by itself: its operands are inputs without names, its value is the output `out`. It has all weights of the whole.
    pub fn single(&self, id: NodeId) -> Graph {
        let mut single = Graph { weights: self.weights.clone(), ..Graph::default() };
        let mut node = self.node(id).clone();
        // Operands that are the same node stay the same one.
        let mut moved: Vec<(NodeId, NodeId)> = Vec::new();
        node.op.map_inputs(|operand| match moved.iter().find(|(from, _)| *from == operand) {
            Some(&(_, to)) => to,
            None => {
                let to = NodeId(single.nodes.len());
                single.nodes.push(Node { op: Op::Input, ..self.node(operand).clone() });
                moved.push((operand, to));
                to
            }
        });
        single.outputs.push(("out".to_owned(), NodeId(single.nodes.len())));
        single.nodes.push(node);
        single
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Builder;

    #[test]
    fn a_node_by_itself_has_its_operands_as_inputs_each_once() {
        let builder = Builder::new();
        let root = builder.root();
        let x = root.input("x", &[2, 4]).unwrap();
        let y = root.at("proj").linear(x, 4, true).unwrap();
        let sum = root.add(y, y).unwrap();
        root.output("sum", sum);
        let graph = builder.finish();

        let single = graph.single(sum);
        assert_eq!(single.nodes().len(), 2);
        assert_eq!(single.node(NodeId(0)).op, Op::Input);
        assert_eq!(single.node(NodeId(0)).shape, [2, 4]);
        assert_eq!(single.outputs(), [("out".to_owned(), NodeId(1))]);
        assert_eq!(single.weights(), graph.weights());
        let mut operands = Vec::new();
        single.node(NodeId(1)).op.for_each_input(|id| operands.push(id));
        assert_eq!(operands, [NodeId(0), NodeId(0)]);
    }
}
