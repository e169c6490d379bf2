//! A graph compiled for a device: planned, recorded, replayed.

use std::collections::HashSet;
use std::future::Future;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use super::device::{Buffer, Device};
use super::kernels::{self, Kernel};
use super::lower::{self, Dispatch, Lowered, Operand};
use super::plan::{Lifetime, Plan};
use super::{Error, Weights, faults::Fault};
use crate::graph::{DType, Graph, Liveness, NodeId, Op};

/// Dispatches in one submit: few enough that none runs for long, many enough that submitting costs nothing.
const DISPATCHES_PER_SUBMIT: usize = 96;

/// Uniform buffers are bound at multiples of this many bytes.
const PARAMETER_STRIDE: usize = 256;

/// GPU memory of a program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryReport {
    /// Activations, which is also the peak: all of it is allocated when the program is compiled.
    pub activation_bytes: u64,
    /// What the activations would take without reuse.
    pub unplanned_bytes: u64,
    /// Parameters and constants of the dispatches.
    pub parameter_bytes: u64,
    /// Weights, also those that other programs share.
    pub weight_bytes: u64,
}

/// A graph on a GPU. Inputs keep what was written to them; outputs keep their value until the next run.
#[derive(Debug)]
pub struct Program {
    device: Device,
    graph: Graph,
    /// Path and op of each node, for errors.
    nodes: Rc<[(String, &'static str)]>,
    weights: Rc<Weights>,
    recorded: Vec<Recorded>,
    /// Checks of outputs, which end a run.
    checks: Vec<Recorded>,
    slots: Vec<Buffer>,
    /// The slot of each node.
    slot_of: Vec<usize>,
    /// Everything else that recorded dispatches use.
    parameters: Buffer,
    constants: Vec<Buffer>,
    status: Buffer,
    unplanned_bytes: u64,
}

#[derive(Debug)]
struct Recorded {
    node: NodeId,
    pipeline: wgpu::ComputePipeline,
    bind_group: wgpu::BindGroup,
    workgroups: [u32; 2],
}

impl Program {
    /// Compiles `graph`; its weights are looked up by name.
    ///
    /// # Errors
    /// If a weight is missing, a tensor exceeds the device's limits, memory runs out, a kernel does not compile, or the device is lost.
    pub async fn compile(device: &Device, graph: &Graph, weights: Rc<Weights>) -> Result<Self, Error> {
        device.check()?;
        weights.check()?;
        let found: Vec<_> = graph.weights().iter().map(|spec| weights.find(&spec.name)).collect::<Result<_, _>>()?;
        let lowered = lower::lower(graph, device.limits(), |id| found[id.index()].1)?;
        let checks = output_checks(graph);
        let mut seen = HashSet::new();
        let used: Vec<(Kernel, &str)> = (lowered.dispatches.iter().chain(&checks))
            .filter(|dispatch| seen.insert(dispatch.kernel.key()))
            .map(|dispatch| (dispatch.kernel, graph.node(dispatch.node).path.as_str()))
            .collect();
        device.compile(&used).await?;

        let (lifetimes, lifetime_of) = lifetimes(graph, &lowered);
        let scratch_lifetimes = lifetimes.len() - lowered.scratch.len();
        let limit = device.limits().binding_bytes;
        let nodes = (0..graph.nodes().len()).map(|index| (NodeId(index), lifetime_of[index]));
        let scratch = lowered.scratch.iter().enumerate().map(|(index, s)| (s.node, scratch_lifetimes + index));
        for (id, lifetime) in nodes.chain(scratch) {
            let bytes = lifetimes[lifetime].bytes;
            if bytes > limit {
                return Err(Error::TooLarge { what: graph.node(id).path.clone(), bytes, limit });
            }
        }
        let plan = Plan::new(&lifetimes);
        let bytes = plan.total();
        let (allocated, caught) = device.scoped(|| -> Result<_, Error> {
            let slots = plan.bytes.iter().map(|&bytes| device.storage_buffer("activations", bytes));
            let slots = slots.collect::<Result<Vec<_>, _>>()?;
            let constants = lowered.constants.iter().map(|values| {
                let buffer = device.storage_buffer("constant", 4 * values.len() as u64)?;
                device.write(&buffer, bytemuck::cast_slice(values));
                Ok(buffer)
            });
            let constants = constants.collect::<Result<Vec<_>, Error>>()?;
            let status = device.storage_buffer("status", 4)?;
            Ok((slots, constants, status))
        });
        let caught = caught.await;
        let (slots, constants, status) = allocated?;
        if let Err(fault) = caught {
            device.check()?;
            return Err(match fault {
                Fault::OutOfMemory => Error::OutOfMemory { what: "the network's activations".to_owned(), bytes },
                Fault::Message(message) => Error::Refused(message),
            });
        }

        let slot_of: Vec<usize> = lifetime_of.iter().map(|&lifetime| plan.slots[lifetime]).collect();
        let scratch_slots = &plan.slots[scratch_lifetimes..];
        let buffer_of = |operand: Operand| -> &wgpu::Buffer {
            match operand {
                Operand::Node(id) => &slots[slot_of[id.index()]],
                Operand::Scratch(index) => &slots[scratch_slots[index]],
                Operand::Constant(index) => &constants[index],
                Operand::Weight(id) => found[id.index()].0,
                Operand::Status => &status,
            }
        };
        let ((parameters, mut recorded), caught) =
            device.scoped(|| record(device, lowered.dispatches.iter().chain(&checks), buffer_of));
        if let Err(fault) = caught.await {
            device.check()?;
            return Err(Error::Refused(fault.to_string()));
        }
        let checks = recorded.split_off(lowered.dispatches.len().min(recorded.len()));
        let unplanned_bytes = lifetimes.iter().map(|lifetime| lifetime.bytes).sum();
        Ok(Self {
            device: device.clone(),
            graph: graph.clone(),
            nodes: graph.nodes().iter().map(|node| (node.path.clone(), node.op.name())).collect(),
            recorded,
            checks,
            slots,
            slot_of,
            parameters,
            constants,
            status,
            unplanned_bytes,
            weights,
        })
    }

    /// The graph that runs.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// GPU memory that the program uses.
    pub fn memory(&self) -> MemoryReport {
        MemoryReport {
            activation_bytes: self.slots.iter().map(|slot| slot.size()).sum(),
            unplanned_bytes: self.unplanned_bytes,
            parameter_bytes: self.parameters.size() + self.constants.iter().map(|buffer| buffer.size()).sum::<u64>(),
            weight_bytes: self.weights.bytes(),
        }
    }

    /// Frees the program's memory; every later call reports that. Dropping a program frees it as well.
    pub fn destroy(&self) {
        let buffers = self.slots.iter().chain(&self.constants).chain([&self.parameters, &self.status]);
        buffers.for_each(Buffer::free);
    }

    /// Whether the program can still be used.
    fn check(&self) -> Result<(), Error> {
        self.device.check()?;
        if self.status.is_freed() { Err(Error::Destroyed("network")) } else { self.weights.check() }
    }

    /// Fills an input.
    ///
    /// # Errors
    /// If there is no such input or it has another length, or if the device is lost.
    pub fn write(&self, input: &str, data: &[f32]) -> Result<(), Error> {
        self.check()?;
        let id = self.graph.input(input)?;
        let expected = self.graph.node(id).elements();
        if expected != data.len() {
            return Err(Error::InputLength { name: input.to_owned(), expected, found: data.len() });
        }
        self.device.write(self.buffer(id), bytemuck::cast_slice(data));
        Ok(())
    }

    /// Fills an input from the output of a program on the same device (which may be this one), without leaving the GPU.
    ///
    /// # Errors
    /// If there is no such input or output, if their lengths differ, or if the device is lost.
    pub fn copy_input(&self, input: &str, from: &Program, output: &str) -> Result<(), Error> {
        self.check()?;
        from.check()?;
        let (to, source) = (self.graph.input(input)?, from.graph.output(output)?);
        let (expected, found) = (self.graph.node(to).elements(), from.graph.node(source).elements());
        if expected != found {
            return Err(Error::InputLength { name: input.to_owned(), expected, found });
        }
        let mut encoder = self.device.raw().create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(from.buffer(source), 0, self.buffer(to), 0, 4 * expected as u64);
        self.device.queue().submit([encoder.finish()]);
        Ok(())
    }

    /// Starts the computation of the outputs; what is written or read later waits for it on the GPU.
    ///
    /// # Errors
    /// If the device is lost or has reported an error since the last call.
    pub fn run(&self) -> Result<(), Error> {
        self.check()?;
        self.submit(self.recorded.iter().chain(&self.checks));
        Ok(())
    }

    /// Clears the status word, then runs `dispatches` in as many submits as needed.
    fn submit<'a>(&self, dispatches: impl Iterator<Item = &'a Recorded>) {
        let mut dispatches = dispatches.peekable();
        let mut first = true;
        while first || dispatches.peek().is_some() {
            let mut encoder = self.device.raw().create_command_encoder(&Default::default());
            if std::mem::take(&mut first) {
                encoder.clear_buffer(&self.status, 0, None);
            }
            let mut pass = encoder.begin_compute_pass(&Default::default());
            for recorded in dispatches.by_ref().take(DISPATCHES_PER_SUBMIT) {
                pass.set_pipeline(&recorded.pipeline);
                pass.set_bind_group(0, &recorded.bind_group, &[]);
                pass.dispatch_workgroups(recorded.workgroups[0], recorded.workgroups[1], 1);
            }
            drop(pass);
            self.device.queue().submit([encoder.finish()]);
        }
    }

    /// Reads outputs of the last run, all in one transfer, as 32-bit words: the bits of f32 values, or packed pixels.
    ///
    /// # Errors
    /// [`Error::NonFinite`] with the first node that made a NaN or an infinity (which takes another run, see
    /// [`Program::diagnose`]); if there is no such output; if the device is lost.
    pub async fn read(&self, outputs: &[&str]) -> Result<Vec<Vec<u32>>, Error> {
        match self.begin_read(outputs)?.finish().await {
            Err(Error::NonFinite { path, op }) => {
                self.diagnose().await?;
                Err(Error::NonFinite { path, op })
            }
            result => result,
        }
    }

    /// Starts reading outputs of the last run. What is run after this call does not change what is read.
    ///
    /// # Errors
    /// If there is no such output, or if the device is lost.
    pub fn begin_read(&self, outputs: &[&str]) -> Result<PendingRead, Error> {
        self.check()?;
        let ids = outputs.iter().map(|name| self.graph.output(name)).collect::<Result<Vec<_>, _>>()?;
        let lengths: Vec<_> = ids.iter().map(|&id| self.graph.node(id).elements()).collect();
        let bytes = 4 + lengths.iter().map(|&elements| 4 * elements as u64).sum::<u64>();
        let staging = self.device.buffer(bytes, wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST);
        let mut encoder = self.device.raw().create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(&self.status, 0, &staging, 0, 4);
        let mut at = 4;
        for (&id, &elements) in ids.iter().zip(&lengths) {
            encoder.copy_buffer_to_buffer(self.buffer(id), 0, &staging, at, 4 * elements as u64);
            at += 4 * elements as u64;
        }
        let submission = self.device.queue().submit([encoder.finish()]);
        let mapped = Arc::new(Mapped::default());
        let signal = mapped.clone();
        staging.map_async(wgpu::MapMode::Read, .., move |result| signal.set(result.map_err(|e| e.to_string())));
        let (device, nodes) = (self.device.clone(), self.nodes.clone());
        Ok(PendingRead { device, staging, mapped, submission, lengths, nodes })
    }

    /// Repeats the last run with a check after each node.
    ///
    /// # Errors
    /// [`Error::NonFinite`] with the first node whose value is not finite (an input counts); if the device is lost.
    pub async fn diagnose(&self) -> Result<(), Error> {
        self.check()?;
        let nodes = self.graph.nodes();
        let is_checked =
            |index: &usize| !matches!(nodes[*index].op, Op::Reshape { .. }) && nodes[*index].dtype == DType::F32;
        let checks: Vec<_> =
            (0..nodes.len()).filter(is_checked).map(|i| non_finite_check(&self.graph, NodeId(i))).collect();
        self.device.compile(&[(kernels::NON_FINITE.kernel(), "")]).await?;
        let buffer_of = |operand: Operand| match operand {
            Operand::Node(id) => self.buffer(id),
            _ => &self.status,
        };
        let (_parameters, checks) = record(&self.device, checks.iter(), buffer_of);
        let mut dispatches = self.recorded.iter().peekable();
        let mut sequence = Vec::new();
        for check in &checks {
            while let Some(recorded) = dispatches.next_if(|recorded| recorded.node <= check.node) {
                sequence.push(recorded);
            }
            sequence.push(check);
        }
        self.submit(sequence.into_iter());
        self.begin_read(&[])?.finish().await.map(|_| ())
    }

    fn buffer(&self, id: NodeId) -> &wgpu::Buffer {
        &self.slots[self.slot_of[id.index()]]
    }
}

/// A read under way.
#[derive(Debug)]
pub struct PendingRead {
    device: Device,
    staging: Buffer,
    mapped: Arc<Mapped>,
    submission: wgpu::SubmissionIndex,
    /// Elements of each output.
    lengths: Vec<usize>,
    /// Path and op of each node.
    nodes: Rc<[(String, &'static str)]>,
}

impl PendingRead {
    /// Waits for the data.
    ///
    /// # Errors
    /// [`Error::NonFinite`] with an output that is not finite; if the device is lost; if the transfer fails.
    pub async fn finish(self) -> Result<Vec<Vec<u32>>, Error> {
        // Natively nothing arrives unless someone waits for it; in a browser this does nothing.
        let wait = wgpu::PollType::Wait { submission_index: Some(self.submission.clone()), timeout: None };
        let polled = self.device.raw().poll(wait).map_err(|error| error.to_string());
        let outcome = match polled {
            Ok(_) => self.mapped.wait().await,
            Err(message) => Err(message),
        };
        self.device.check()?;
        outcome.map_err(Error::ReadBack)?;
        let view = self.staging.slice(..).get_mapped_range().map_err(|error| Error::ReadBack(error.to_string()))?;
        let words: Vec<u32> = bytemuck::pod_collect_to_vec(&view);
        drop(view);
        let Some((&status, mut rest)) = words.split_first() else { return Ok(Vec::new()) };
        if status != 0 {
            let (path, op) = self.nodes.get(node_of_code(status)).cloned().unwrap_or_default();
            return Err(Error::NonFinite { path, op });
        }
        let outputs = self.lengths.iter().map(|&length| {
            let (words, others) = rest.split_at(length.min(rest.len()));
            rest = others;
            words.to_vec()
        });
        Ok(outputs.collect())
    }
}

/// Completion of a mapping, to be awaited.
#[derive(Debug, Default)]
struct Mapped {
    state: Mutex<MappedState>,
}

#[derive(Debug, Default)]
struct MappedState {
    result: Option<Result<(), String>>,
    waker: Option<Waker>,
}

impl Mapped {
    fn state(&self) -> MutexGuard<'_, MappedState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, result: Result<(), String>) {
        let mut state = self.state();
        state.result = Some(result);
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }

    fn wait(&self) -> impl Future<Output = Result<(), String>> {
        std::future::poll_fn(|context| {
            let mut state = self.state();
            match state.result.take() {
                Some(result) => Poll::Ready(result),
                None => {
                    state.waker = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
    }
}

/// The status word's code for a node: the earlier the node, the larger.
fn code_of_node(id: NodeId) -> u32 {
    u32::MAX - id.index() as u32
}

fn node_of_code(code: u32) -> usize {
    (u32::MAX - code) as usize
}

fn non_finite_check(graph: &Graph, id: NodeId) -> Dispatch {
    let elements = graph.node(id).elements() as u32;
    Dispatch {
        node: id,
        kernel: kernels::NON_FINITE.kernel(),
        reads: vec![Operand::Node(id)],
        write: Operand::Status,
        parameters: vec![elements.div_ceil(64), elements, code_of_node(id)],
    }
}

/// Checks of all outputs; of packed pixels what they are packed from, because no pixel is a NaN.
fn output_checks(graph: &Graph) -> Vec<Dispatch> {
    let checked = graph.outputs().iter().map(|&(_, id)| match graph.node(id).op {
        Op::PackRgba8 { x } => x,
        _ => id,
    });
    checked.map(|id| non_finite_check(graph, id)).collect()
}

/// Lifetimes of the nodes' storage, then of the scratch memory; and which is whose, by node.
fn lifetimes(graph: &Graph, lowered: &Lowered) -> (Vec<Lifetime>, Vec<usize>) {
    let liveness = Liveness::new(graph);
    let mut lifetimes = Vec::new();
    let mut of_node = vec![0; graph.nodes().len()];
    for (index, node) in graph.nodes().iter().enumerate() {
        let storage = liveness.storage(NodeId(index)).index();
        if storage != index {
            of_node[index] = of_node[storage];
            continue;
        }
        of_node[index] = lifetimes.len();
        let is_input = matches!(node.op, Op::Input);
        lifetimes.push(Lifetime {
            bytes: (4 * node.elements() as u64).next_multiple_of(16),
            first: if is_input { 0 } else { index },
            last: if is_input { usize::MAX } else { liveness.last_use(NodeId(index)) },
        });
    }
    lifetimes.extend(lowered.scratch.iter().map(|scratch| Lifetime {
        bytes: scratch.bytes.next_multiple_of(16),
        first: scratch.node.index(),
        last: scratch.node.index(),
    }));
    (lifetimes, of_node)
}

/// Uploads the parameters of `dispatches` and makes their bind groups.
fn record<'a, 'b>(
    device: &Device,
    dispatches: impl Iterator<Item = &'a Dispatch>,
    buffer_of: impl Fn(Operand) -> &'b wgpu::Buffer,
) -> (Buffer, Vec<Recorded>) {
    let dispatches: Vec<_> = dispatches.collect();
    let mut bytes = vec![0; PARAMETER_STRIDE * dispatches.len().max(1)];
    for (dispatch, room) in dispatches.iter().zip(bytes.chunks_exact_mut(PARAMETER_STRIDE)) {
        let parameters: &[u8] = bytemuck::cast_slice(&dispatch.parameters);
        room[..parameters.len()].copy_from_slice(parameters);
    }
    let usage = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
    let parameters = device.buffer(bytes.len() as u64, usage);
    device.write(&parameters, &bytes);
    let recorded = dispatches.iter().enumerate().filter_map(|(index, dispatch)| {
        let kernel = dispatch.kernel;
        let pipeline = device.pipeline(&kernel)?;
        let uniform = wgpu::BindingResource::Buffer(wgpu::BufferBinding {
            buffer: &parameters,
            offset: (index * PARAMETER_STRIDE) as u64,
            size: wgpu::BufferSize::new(PARAMETER_STRIDE as u64),
        });
        let tensor =
            |binding: u32, operand| wgpu::BindGroupEntry { binding, resource: buffer_of(operand).as_entire_binding() };
        let mut entries = vec![wgpu::BindGroupEntry { binding: 0, resource: uniform }];
        entries.extend(
            kernel.entry.reads.iter().zip(&dispatch.reads).map(|(&binding, &operand)| tensor(binding, operand)),
        );
        entries.push(tensor(kernel.entry.write, dispatch.write));
        let bind_group = device.raw().create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &pipeline.layout,
            entries: &entries,
        });
        let workgroups = kernel.workgroups(dispatch.parameters.first().copied().unwrap_or(0));
        Some(Recorded { node: dispatch.node, pipeline: pipeline.pipeline, bind_group, workgroups })
    });
    let recorded = recorded.collect();
    (parameters, recorded)
}
