//! A graph with its weights, ready to run.

use std::rc::Rc;

use bytemuck::cast_slice_mut;
use undiffuse_kernels::{Job, elementwise, layout};

use super::form::Form;
use super::lower::{self, Places};
use super::machine::Region;
use super::network::Network;
use super::plan::RegionPlan;
use super::weights::Stored;
use super::{Device, Error, Machine, Weights};
use crate::graph::{Element, Graph, NodeId, Op, WeightRole, WeightSpec, find_weight};

/// A graph on the CPU. Inputs keep what was written to them; outputs keep their value until the next run.
#[derive(Debug)]
pub struct Program {
    pub(super) device: Device,
    network: Network,
    /// The graph's weights, as they were when this was prepared.
    weights: Vec<Stored>,
    forms: Vec<Form>,
    plan: RegionPlan,
    values: Region,
    /// A word for each node, which says whether its value is not finite.
    statuses: Region,
    pub(super) jobs: Vec<Job>,
    /// The node that each job helps to compute.
    pub(super) node_of_job: Vec<NodeId>,
    has_run: bool,
    /// Memory that the words are read to.
    found: Vec<u32>,
}

/// Memory of a program, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryReport {
    /// Memory of the values as planned: all of it is allocated when the program is prepared.
    pub activation_bytes: u64,
    /// Memory of the values that are alive at the same node, at most.
    pub live_bytes: u64,
}

impl Program {
    /// Prepares `graph`, each of whose weights is found by its name in exactly one of `weights`, on the device of the first of these or,
    /// if there are none, on `device`.
    ///
    /// # Errors
    /// If a weight of the graph is in none of `weights` or in two, has not been loaded or lies in the memory of another machine than
    /// the first of them, if there is no memory for the graph's values, or if it became unwanted.
    pub async fn new(device: &Device, graph: &Graph, weights: &[&Weights]) -> Result<Self, Error> {
        weights.iter().try_for_each(|weights| weights.check_complete())?;
        let device = weights.first().map_or(device, |weights| weights.device());
        let machine = device.machine();
        let network = Network::new(graph);
        let forms = network.forms();
        let mut bound = Vec::with_capacity(forms.len());
        #[cfg_attr(not(feature = "training"), expect(unused_mut, reason = "nothing is written"))]
        let mut written: Vec<usize> = Vec::new();
        #[cfg(feature = "training")]
        for node in graph.nodes().iter().filter(|node| node.op.written_weight().is_some()) {
            node.op.for_each_weight(|weight| written.push(weight.index()));
        }
        let sets: Vec<_> = weights.iter().map(|weights| weights.specs()).collect();
        for (spec @ WeightSpec { name, .. }, form) in graph.weights().iter().zip(&forms) {
            let [set, index] = find_weight(&sets, name)?.ok_or_else(|| Error::MissingWeight(name.clone()))?;
            if !Rc::ptr_eq(machine, weights[set].device().machine()) {
                let message = "it lies in another machine's memory than the network".to_owned();
                return Err(Error::Weight { name: name.clone(), message });
            }
            if cfg!(feature = "training")
                && written.contains(&bound.len())
                && weights[set].specs()[index].role != WeightRole::Plain
            {
                let message = "it is to be trained, and was not loaded as `WeightSpec::trained` has it".to_owned();
                return Err(Error::Weight { name: name.clone(), message });
            }
            bound.push(weights[set].find(index, *form, spec)?);
            // Forms that no program has had yet take time to make.
            device.pause().await?;
        }
        weights.iter().for_each(|weights| weights.forget_staging());
        let plan = RegionPlan::new(&network, &network.scratch(&forms));
        let region = |bytes: u64| {
            let region = usize::try_from(bytes).ok().and_then(|bytes| Region::new(machine, bytes));
            region.ok_or(Error::OutOfMemory { what: "the network's values".to_owned(), bytes })
        };
        let (values, statuses) = (region(plan.bytes)?, region(4 * graph.nodes().len() as u64)?);
        let mut program = Self {
            device: device.clone(),
            network,
            weights: bound,
            forms,
            plan,
            values,
            statuses,
            jobs: Vec::new(),
            node_of_job: Vec::new(),
            has_run: false,
            found: vec![0; graph.nodes().len()],
        };
        program.clear();
        (program.jobs, program.node_of_job) = program.lower(|program, id| program.is_checked(id));
        Ok(program)
    }

    /// Fills inputs with zeroes: a region holds anything.
    fn clear(&self) {
        let machine = self.device.machine();
        for (_, id) in self.graph().inputs() {
            machine.write(self.address(*id), &vec![0; 4 * self.graph().node(*id).elements()]);
        }
    }

    /// The jobs of all nodes in their order, each with its node; where `checked`, followed by the search for what is not finite.
    fn lower(&self, checked: impl Fn(&Self, NodeId) -> bool) -> (Vec<Job>, Vec<NodeId>) {
        let places = Places {
            network: &self.network,
            values: self.values.address(),
            plan: &self.plan,
            weights: &self.weights,
            forms: &self.forms,
        };
        let (mut jobs, mut nodes) = (Vec::new(), Vec::new());
        for (index, node) in self.graph().nodes().iter().enumerate() {
            let id = NodeId(index);
            lower::lower(&places, id, &mut jobs);
            if checked(self, id) {
                // Pixels hide what they were made of.
                let x = if let Op::PackRgba8 { x } = node.op { x } else { id };
                let y = self.statuses.address() + 4 * index;
                let elements = self.graph().node(x).elements();
                jobs.push(Job::new(elementwise::NonFinite { x: self.address(x), y, elements }));
            }
            nodes.resize(jobs.len(), id);
        }
        (jobs, nodes)
    }

    /// Whether a value must be finite: an output, and what weights are written from.
    fn is_checked(&self, id: NodeId) -> bool {
        let mut is_read = false;
        #[cfg(feature = "training")]
        for node in self.graph().nodes().iter().filter(|node| node.op.written_weight().is_some()) {
            // A sum over all gradients tells of each.
            node.op.for_each_input(|input| is_read |= input == id && self.graph().node(id).elements() == 1);
        }
        is_read |= self.graph().outputs().iter().any(|(_, output)| *output == id);
        is_read
    }

    fn address(&self, id: NodeId) -> usize {
        match self.graph().written_weight(id) {
            Some(weight) => self.weights[weight.index()].address(),
            None => self.values.address() + self.plan.of_node[id.index()],
        }
    }

    /// The machine that its values are on.
    pub(super) fn machine(&self) -> &Rc<dyn Machine> {
        self.device.machine()
    }

    /// Address of an f32 output after a run.
    ///
    /// # Errors
    /// If there is no such output, or no run has made it.
    pub(super) fn place(&self, output: &str) -> Result<usize, Error> {
        Ok(self.address(self.output(output, Element::F32)?))
    }

    /// The graph that runs.
    pub fn graph(&self) -> &Graph {
        self.network.graph()
    }

    /// The memory of its values.
    pub fn memory(&self) -> MemoryReport {
        MemoryReport { activation_bytes: self.plan.bytes, live_bytes: self.plan.live_bytes }
    }

    /// Fills an input.
    ///
    /// # Errors
    /// If there is no such input or it has another length.
    pub fn write(&mut self, input: &str, data: &[f32]) -> Result<(), Error> {
        let id = self.input(input, data.len())?;
        self.device.machine().write(self.address(id), bytemuck::cast_slice(data));
        Ok(())
    }

    /// Fills an input with an output of `source`, which may be this program.
    ///
    /// # Errors
    /// If there is no such input or output, they differ in length, or nothing has made the output yet.
    fn copy(&self, input: &str, source: &Self, output: &str) -> Result<(), Error> {
        let from = source.output(output, Element::F32)?;
        let elements = source.graph().node(from).elements();
        let to = self.input(input, elements)?;
        if !Rc::ptr_eq(self.device.machine(), source.device.machine()) {
            let mut bytes = vec![0; 4 * elements];
            source.device.machine().read(source.address(from), &mut bytes);
            self.device.machine().write(self.address(to), &bytes);
            return Ok(());
        }
        let (shape, strides) = ([1, 1, 1, elements], [0, 0, 0, 1]);
        let (x, y) = (source.address(from), self.address(to));
        let job = Job::new(layout::Copy { x, y, shape, x_strides: strides, y_strides: strides });
        // SAFETY: both values are as long as the job says and lie in regions that the programs hold; inputs and outputs live to the
        // end of a run, so they share no memory.
        unsafe { self.device.run_now(job) }
    }

    /// Fills an input with an output of `source`, in the machine's memory.
    ///
    /// # Errors
    /// If there is no such input or output, they differ in length, or no run has made the output.
    pub fn copy_from(&mut self, input: &str, source: &Self, output: &str) -> Result<(), Error> {
        self.copy(input, source, output)
    }

    /// Fills an input with an output of the same program, in the machine's memory.
    ///
    /// # Errors
    /// As [`Program::copy_from`].
    pub fn feed_back(&mut self, input: &str, output: &str) -> Result<(), Error> {
        self.copy(input, self, output)
    }

    /// Computes the outputs. If this ends before its end, by an error or because it is dropped, the next run computes them as if it
    /// were the first; weights that the graph writes may then be some of them new and some old.
    ///
    /// # Errors
    /// [`Error::NonFinite`] with the first node that made a NaN or an infinity, if one has reached an output or what weights are written
    /// from, and then no weight has changed; [`Error::Aborted`] if the outputs became unwanted.
    pub async fn run(&mut self) -> Result<(), Error> {
        self.begin();
        let (jobs, writing) = self.jobs.split_at(self.first_writing());
        // SAFETY: each job reads and writes values and weights of this program, where the plan and the loader have put them; the
        // program holds their regions.
        unsafe { self.device.run(jobs) }.await?;
        if cfg!(feature = "training") && !writing.is_empty() && self.first_non_finite().is_none() {
            // SAFETY: as above.
            unsafe { self.device.run(&self.jobs[self.first_writing()..]) }.await?;
        }
        self.finish().await
    }

    /// The first of the jobs that change weights, or of those behind it.
    fn first_writing(&self) -> usize {
        self.before_writing(&self.node_of_job)
    }

    /// How many of the jobs of `nodes` come before those that change weights.
    fn before_writing(&self, nodes: &[NodeId]) -> usize {
        let writes = |id: &NodeId| self.graph().node(*id).op.written_weight().is_some();
        let first = if cfg!(feature = "training") { nodes.iter().position(writes) } else { None };
        first.unwrap_or(nodes.len())
    }

    /// Runs as [`Program::run`] does, and returns the seconds that each node took.
    ///
    /// # Errors
    /// As [`Program::run`].
    pub async fn run_timed(&mut self) -> Result<Vec<f64>, Error> {
        self.begin();
        let mut of_node = vec![0.0; self.graph().nodes().len()];
        for (id, job) in self.node_of_job.iter().zip(&self.jobs) {
            // SAFETY: as in `run`.
            of_node[id.index()] += unsafe { self.device.run(std::slice::from_ref(job)) }.await?;
        }
        self.finish().await?;
        Ok(of_node)
    }

    /// Takes the outputs back, and the words that a run which came to no end has left.
    fn begin(&mut self) {
        if !std::mem::take(&mut self.has_run) {
            self.device.machine().write(self.statuses.address(), &vec![0; 4 * self.found.len()]);
        }
    }

    async fn finish(&mut self) -> Result<(), Error> {
        self.has_run = self.first_non_finite().is_none();
        if self.has_run {
            return Ok(());
        }
        // Something is wrong: compute it again, with a look at every node, but for what writes weights. Inputs are as they were.
        let (jobs, nodes) =
            self.lower(|program, id| program.graph().node(id).dtype == Element::F32 && !program.network.is_joined(id));
        // SAFETY: as in `run`.
        unsafe { self.device.run(&jobs[..self.before_writing(&nodes)]) }.await?;
        let first = self.first_non_finite().unwrap_or(NodeId(0));
        let node = self.graph().node(first);
        Err(Error::NonFinite { path: node.path.clone(), op: node.op.name() })
    }

    /// The first node that was looked at and whose value is not finite.
    fn first_non_finite(&mut self) -> Option<NodeId> {
        self.device.machine().read(self.statuses.address(), cast_slice_mut(&mut self.found));
        self.found.iter().position(|&word| word != 0).map(NodeId)
    }

    /// The value of an f32 output after a run.
    ///
    /// # Errors
    /// If there is no such output, or no run has made it.
    pub fn read(&self, output: &str) -> Result<Vec<f32>, Error> {
        let id = self.output(output, Element::F32)?;
        let mut values = vec![0.0f32; self.graph().node(id).elements()];
        self.device.machine().read(self.address(id), cast_slice_mut(&mut values));
        Ok(values)
    }

    /// The words of an output after a run: the bits of f32 values, or packed pixels.
    ///
    /// # Errors
    /// As [`Program::read`].
    pub fn read_words(&self, output: &str) -> Result<Vec<u32>, Error> {
        let id = self.output(output, self.graph().node(self.graph().output(output)?).dtype)?;
        let mut words = vec![0u32; self.graph().node(id).elements()];
        self.device.machine().read(self.address(id), cast_slice_mut(&mut words));
        Ok(words)
    }

    fn input(&self, input: &str, found: usize) -> Result<NodeId, Error> {
        let id = self.graph().input(input)?;
        let expected = self.graph().node(id).elements();
        if expected != found {
            return Err(Error::InputLength { name: input.to_owned(), expected, found });
        }
        Ok(id)
    }

    fn output(&self, output: &str, dtype: Element) -> Result<NodeId, Error> {
        let id = self.graph().output(output)?;
        if !self.has_run || self.graph().node(id).dtype != dtype {
            return Err(Error::NotRun(output.to_owned()));
        }
        Ok(id)
    }
}
