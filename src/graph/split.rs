//! Takes out of a graph what need not be computed again each time it runs.

use super::{Graph, Node, NodeId, Op};

/// A graph in two parts.
#[derive(Clone, PartialEq, Debug)]
pub struct Split {
    /// The part that depends on the fixed inputs alone; its outputs are inputs of [`Split::each`] by the same names.
    pub once: Graph,
    /// The rest of the graph, with the outputs of the whole.
    pub each: Graph,
}

/// Splits `graph` for a sequence of runs over which the inputs called `fixed` keep their values. Each part has those inputs of
/// the whole that it reads, and all of its weights.
///
/// In a text-conditional UNet `once` has the keys and values of each cross-attention, which are made from the text.
pub fn split(graph: &Graph, fixed: &[&str]) -> Split {
    let mut is_fixed = vec![false; graph.nodes.len()];
    for (name, id) in &graph.inputs {
        is_fixed[id.0] = fixed.contains(&name.as_str());
    }
    // Fixed values that something in `each` reads, or that are asked for.
    let mut crosses = vec![false; graph.nodes.len()];
    for (index, node) in graph.nodes.iter().enumerate() {
        if !matches!(node.op, Op::Input) {
            let mut all = true;
            node.op.for_each_input(|id| all &= is_fixed[id.0]);
            is_fixed[index] = all;
            if !all {
                node.op.for_each_input(|id| crosses[id.0] |= is_fixed[id.0]);
            }
        }
    }
    graph.outputs.iter().for_each(|(_, id)| crosses[id.0] |= is_fixed[id.0]);

    let mut once = Part::new(graph);
    let mut each = Part::new(graph);
    for (index, node) in graph.nodes.iter().enumerate() {
        let is_input = matches!(node.op, Op::Input);
        match is_fixed[index] {
            false => each.add(index, node.clone()),
            true if is_input => {
                once.add(index, node.clone());
                if crosses[index] {
                    each.add(index, node.clone());
                }
            }
            true => {
                once.add(index, node.clone());
                if crosses[index] {
                    // Paths repeat; an index makes the name unique.
                    let name = format!("{}#{index}", node.path);
                    each.add(index, Node { op: Op::Input, ..node.clone() });
                    each.graph.inputs.push((name.clone(), each.moved[index]));
                    once.graph.outputs.push((name, once.moved[index]));
                }
            }
        }
    }
    for (name, id) in &graph.inputs {
        once.name_input(name, *id);
        each.name_input(name, *id);
    }
    each.graph.outputs = graph.outputs.iter().map(|(name, id)| (name.clone(), each.moved[id.0])).collect();
    Split { once: once.graph, each: each.graph }
}

/// A part being made.
struct Part {
    graph: Graph,
    /// The node here that each node of the whole has become, once it is here.
    moved: Vec<NodeId>,
}

impl Part {
    const ABSENT: NodeId = NodeId(usize::MAX);

    fn new(whole: &Graph) -> Self {
        let graph = Graph { weights: whole.weights.clone(), ..Graph::default() };
        Self { graph, moved: vec![Self::ABSENT; whole.nodes.len()] }
    }

    fn add(&mut self, index: usize, mut node: Node) {
        node.op.map_inputs(|id| self.moved[id.0]);
        self.moved[index] = NodeId(self.graph.nodes.len());
        self.graph.nodes.push(node);
    }

    fn name_input(&mut self, name: &str, id: NodeId) {
        if self.moved[id.0] != Self::ABSENT {
            self.graph.inputs.push((name.to_owned(), self.moved[id.0]));
        }
    }
}

// The twin is native only.
#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests {
    use super::*;
    use crate::graph::Builder;

    /// x·W + y + b(text), with b(text) = (text·V)·U; the output `told` is text·V.
    fn conditional() -> Graph {
        let builder = Builder::new();
        let root = builder.root();
        let build = || {
            let x = root.input("x", &[2, 4])?;
            let y = root.input("y", &[2, 4])?;
            let text = root.input("text", &[2, 3])?;
            let told = root.at("to_k").linear(text, 4, false)?;
            let b = root.at("proj").linear(told, 4, false)?;
            let sum = root.add(root.add(root.at("x").linear(x, 4, false)?, y)?, b)?;
            root.output("out", sum);
            root.output("told", told);
            Ok::<_, crate::graph::Error>(())
        };
        build().expect("shapes that fit");
        builder.finish()
    }

    fn names(ports: &[(String, NodeId)]) -> Vec<&str> {
        ports.iter().map(|(name, _)| name.as_str()).collect()
    }

    #[test]
    fn what_depends_on_fixed_inputs_alone_is_computed_once() {
        let Split { once, each } = split(&conditional(), &["text"]);
        assert_eq!(names(once.inputs()), ["text"]);
        assert_eq!(names(once.outputs()), ["to_k#3", "proj#4"]);
        assert_eq!(once.nodes().iter().map(|node| node.op.name()).collect::<Vec<_>>(), ["input", "linear", "linear"]);
        assert_eq!(names(each.inputs()), ["to_k#3", "proj#4", "x", "y"]);
        assert_eq!(names(each.outputs()), ["out", "told"]);
        let linear = each.nodes().iter().filter(|node| node.op.name() == "linear").count();
        assert_eq!(linear, 1, "only the layer of x is left");
    }

    #[test]
    fn a_graph_without_fixed_inputs_stays_whole() {
        let graph = conditional();
        let Split { once, each } = split(&graph, &[]);
        assert_eq!((once.nodes().len(), once.outputs().len()), (0, 0));
        assert_eq!(each, graph);
    }

    #[test]
    fn a_fixed_input_that_both_parts_read_is_an_input_of_both() {
        let Split { once, each } = split(&conditional(), &["y", "text"]);
        assert_eq!(names(once.inputs()), ["y", "text"]);
        assert_eq!(names(each.inputs()), ["to_k#3", "proj#4", "x", "y"]);
    }

    #[test]
    fn the_parts_together_make_what_the_whole_makes() {
        let graph = conditional();
        let Split { once, each } = split(&graph, &["text"]);
        let program = |graph: &Graph, names: &[&str]| {
            let weights = graph.weights().iter().map(|spec| {
                let count: usize = spec.shape.iter().product();
                (0..count).map(|i| (i as f32 * 0.7).sin() * 0.3).collect()
            });
            let mut program = crate::twin::Program::new(graph, weights.collect()).expect("a complete network");
            for (seed, name) in ["x", "y", "text"].into_iter().enumerate().filter(|(_, name)| names.contains(name)) {
                let length = graph.node(graph.input(name).expect("an input")).elements();
                let values: Vec<f32> = (0..length).map(|i| ((seed * 10 + i) as f32).cos()).collect();
                program.write(name, &values).expect("an input");
            }
            program
        };
        let mut whole = program(&graph, &["x", "y", "text"]);
        whole.run();
        let mut first = program(&once, &["text"]);
        first.run();
        let mut rest = program(&each, &["x", "y"]);
        for (name, _) in once.outputs() {
            rest.write(name, &first.read(name).expect("an output")).expect("an input");
        }
        rest.run();
        for name in ["out", "told"] {
            assert_eq!(rest.read(name), whole.read(name), "{name}");
        }
    }
}
