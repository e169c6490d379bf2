//! A graph compiled for a device: planned, recorded, replayed.

use std::collections::HashSet;
use std::rc::Rc;

use super::bands;
use super::buffer::{Buffer, Memory};
use super::device::Device;
use super::error::Error;
use super::kernel::{Dispatch, Kernel, Operand};
use super::kernels::non_finite;
use super::lower;
use super::plan::Placement;
use super::read_back::{NodeNames, PendingRead};
use super::variants::Variants;
use super::weights::Stored;
use super::weights::Weights;
use crate::graph::{Element, Graph, NodeId, Op, WeightSpec, find_weight, fold_upsampling};

/// Dispatches in one submit: few enough that none runs for long, many enough that submitting costs nothing.
pub(super) const DISPATCHES_PER_SUBMIT: usize = 96;

/// Uniform buffers are bound at multiples of this many bytes.
const PARAMETER_STRIDE: usize = 256;

/// GPU memory of a program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryReport {
    /// Activations as planned, which is also the peak: all of it is allocated when the program is compiled.
    pub activation_bytes: u64,
    /// Bytes of the activations if none shared memory.
    pub unplanned_bytes: u64,
    /// Parameters and constants of the dispatches.
    pub parameter_bytes: u64,
    /// Weights, also those that other programs share.
    pub weight_bytes: u64,
}

/// A graph on a GPU. Inputs keep what was written to them; outputs keep their value until the next run.
#[derive(Debug)]
pub struct Program {
    pub(super) device: Device,
    graph: Graph,
    pub(super) nodes: NodeNames,
    pub(super) weights: Vec<Rc<Weights>>,
    /// The weights as they were when this was compiled, which keeps them alive.
    pub(super) bound: Vec<Stored>,
    pub(super) recorded: Vec<Recorded>,
    placement: Placement,
    slabs: Vec<Buffer>,
    parameters: Buffer,
    constants: Vec<Buffer>,
    pub(super) status: Buffer,
}

/// A dispatch with everything bound.
#[derive(Debug)]
pub(super) struct Recorded {
    /// The node that it computes or helps to compute, or after which it checks.
    pub(super) node: NodeId,
    pub(super) kernel: Kernel,
    pipeline: wgpu::ComputePipeline,
    bind_group: wgpu::BindGroup,
    workgroups: [u32; 2],
}

impl Recorded {
    /// Adds it to `pass`.
    pub(super) fn encode(&self, pass: &mut wgpu::ComputePass) {
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, &self.bind_group, &[]);
        pass.dispatch_workgroups(self.workgroups[0], self.workgroups[1], 1);
    }
}

impl Program {
    /// Compiles `graph`, each of whose weights is found by its name in exactly one of `weights`.
    ///
    /// # Errors
    /// If a weight is in none of them or in two, a tensor exceeds the device's limits, memory runs out, a kernel does not compile, or the device is lost.
    pub async fn compile(device: &Device, graph: &Graph, weights: &[Rc<Weights>]) -> Result<Self, Error> {
        Self::compile_with(device, graph, weights, &device.variants()).await
    }

    /// Compiles `graph` with the kernels that `variants` chooses.
    pub(super) async fn compile_with(
        device: &Device,
        graph: &Graph,
        weights: &[Rc<Weights>],
        variants: &Variants,
    ) -> Result<Self, Error> {
        device.check()?;
        weights.iter().try_for_each(|weights| weights.check())?;
        let sets: Vec<_> = weights.iter().map(|weights| weights.specs()).collect();
        let find = |WeightSpec { name, role, .. }: &WeightSpec| match find_weight(&sets, name)? {
            Some([set, index]) if cfg!(feature = "training") && sets[set][index].role != *role => {
                let message = "it is kept as it is in the checkpoint, to be trained, and this network reads it otherwise; load it for each".to_owned();
                Err(Error::Weight { name: name.clone(), message })
            }
            Some([set, index]) => weights[set].find(index),
            None => Err(Error::MissingWeight(name.clone())),
        };
        let found: Vec<_> = graph.weights().iter().map(find).collect::<Result<_, _>>()?;
        let graph = &fold_upsampling(graph);
        let lowered = lower::lower(graph, device.limits(), variants, |id| found[id.index()].storage)?;
        let placement = Placement::new(graph, &lowered, device.limits())?;
        let mut dispatches = lowered.dispatches;
        insert_output_checks(graph, &mut dispatches, device.limits().binding_bytes);
        let mut seen = HashSet::new();
        let used: Vec<(Kernel, &str)> = (dispatches.iter())
            .filter(|dispatch| seen.insert(dispatch.kernel))
            .map(|dispatch| (dispatch.kernel, graph.node(dispatch.node).path.as_str()))
            .collect();
        device.compile(&used).await?;

        let (allocated, caught) = device.scoped(|| -> Result<_, Error> {
            let slabs: Vec<_> = placement.slabs.iter().map(|&bytes| device.slab(bytes)).collect();
            let constants = lowered.constants.iter().map(|values| {
                let buffer = device.storage_buffer("constant", 4 * values.len() as u64)?;
                device.write(&buffer, bytemuck::cast_slice(values));
                Ok(buffer)
            });
            let constants = constants.collect::<Result<Vec<_>, Error>>()?;
            let status = device.storage_buffer("status", 4)?;
            Ok((slabs, constants, status))
        });
        let caught = caught.await;
        let (slabs, constants, status) = allocated?;
        if let Err(fault) = caught {
            device.check()?;
            return Err(fault.of_buffer("the network's activations".to_owned(), placement.total()));
        }

        let memory_of = |operand: Operand| match operand {
            Operand::Node(id) => Memory::range(&slabs, placement.nodes[id.index()]),
            Operand::Part(id, span) => Memory::range(&slabs, placement.nodes[id.index()].part(span)),
            Operand::Scratch(index) => Memory::range(&slabs, placement.scratch[index]),
            Operand::Constant(index) => Memory::whole(&constants[index]),
            Operand::Weight(id) => Memory::whole(&found[id.index()].buffer),
            Operand::Status => Memory::whole(&status),
        };
        let ((parameters, recorded), caught) = device.scoped(|| record(device, &dispatches, memory_of));
        if let Err(fault) = caught.await {
            device.check()?;
            return Err(Error::Refused(fault.to_string()));
        }
        Ok(Self {
            device: device.clone(),
            graph: graph.clone(),
            nodes: graph.nodes().iter().map(|node| (node.path.clone(), node.op.name())).collect(),
            recorded,
            slabs,
            placement,
            parameters,
            constants,
            status,
            weights: weights.to_vec(),
            bound: found,
        })
    }

    /// The graph that runs.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// GPU memory that the program uses.
    pub fn memory(&self) -> MemoryReport {
        MemoryReport {
            activation_bytes: self.placement.total(),
            unplanned_bytes: self.placement.unplanned_bytes,
            parameter_bytes: self.parameters.size() + self.constants.iter().map(|buffer| buffer.size()).sum::<u64>(),
            weight_bytes: self.weights.iter().map(|weights| weights.bytes()).sum(),
        }
    }

    /// Frees the program's memory; every later call reports that. Dropping a program frees it as well.
    pub fn destroy(&self) {
        let buffers = self.slabs.iter().chain(&self.constants).chain([&self.parameters, &self.status]);
        buffers.for_each(Buffer::free);
    }

    /// Whether the program can still be used.
    pub(super) fn check(&self) -> Result<(), Error> {
        self.device.check()?;
        match self.bound.iter().any(|stored| stored.buffer.is_freed()) {
            _ if self.status.is_freed() => Err(Error::Destroyed("network")),
            true => Err(Error::Destroyed("checkpoint")),
            false => Ok(()),
        }
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
        let Memory { buffer, offset, .. } = self.memory_of(id);
        self.device.write_at(buffer, offset, bytemuck::cast_slice(data));
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
        let (to, source) = (self.memory_of(to), from.memory_of(source));
        encoder.copy_buffer_to_buffer(source.buffer, source.offset, to.buffer, to.offset, 4 * expected as u64);
        self.device.queue().submit([encoder.finish()]);
        Ok(())
    }

    /// Starts the computation of the outputs; what is written or read later waits for it on the GPU.
    ///
    /// # Errors
    /// If the device is lost or has reported an error since the last call.
    pub fn run(&self) -> Result<(), Error> {
        self.check()?;
        self.submit(self.recorded.iter());
        Ok(())
    }

    /// Clears the status word, then runs `dispatches` in as many submits as needed.
    pub(super) fn submit<'a>(&self, dispatches: impl Iterator<Item = &'a Recorded>) {
        let mut dispatches = dispatches.peekable();
        let mut first = true;
        while first || dispatches.peek().is_some() {
            let mut encoder = self.device.raw().create_command_encoder(&Default::default());
            if std::mem::take(&mut first) {
                encoder.clear_buffer(&self.status, 0, None);
            }
            let mut pass = encoder.begin_compute_pass(&Default::default());
            for recorded in dispatches.by_ref().take(DISPATCHES_PER_SUBMIT) {
                recorded.encode(&mut pass);
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
        let sources: Vec<_> = ids.iter().map(|&id| (self.memory_of(id), self.graph.node(id).elements())).collect();
        Ok(PendingRead::begin(&self.device, &self.status, &sources, self.nodes.clone()))
    }

    /// Repeats the last run with a check after each node.
    ///
    /// # Errors
    /// [`Error::NonFinite`] with the first node whose value is not finite (an input counts); if the device is lost.
    pub async fn diagnose(&self) -> Result<(), Error> {
        self.check()?;
        let nodes = self.graph.nodes();
        let is_checked =
            |index: &usize| !matches!(nodes[*index].op, Op::Reshape { .. }) && nodes[*index].dtype == Element::F32;
        let checks: Vec<_> = (0..nodes.len())
            .filter(is_checked)
            .map(|i| non_finite::check(&self.graph, NodeId(i), NodeId(i)))
            .flat_map(|check| bands::split(&self.graph, check, self.device.limits().binding_bytes))
            .collect();
        self.device.compile(&[(non_finite::kernel(), "")]).await?;
        let memory_of = |operand: Operand| match operand {
            Operand::Node(id) => self.memory_of(id),
            Operand::Part(id, span) => Memory::range(&self.slabs, self.placement.nodes[id.index()].part(span)),
            _ => Memory::whole(&self.status),
        };
        let (_parameters, checks) = record(&self.device, &checks, memory_of);
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

    /// The memory that the value of a node is in.
    pub(super) fn memory_of(&self, id: NodeId) -> Memory<'_> {
        Memory::range(&self.slabs, self.placement.nodes[id.index()])
    }
}

/// Adds checks of all outputs, by bindings of at most `limit` bytes, each after the node that makes it, before its operands'
/// memory is used for something else.
fn insert_output_checks(graph: &Graph, dispatches: &mut Vec<Dispatch>, limit: u64) {
    for &(_, id) in graph.outputs() {
        let checked = match graph.node(id).op {
            // No pixel is a NaN; what they are packed from may be.
            Op::PackRgba8 { x } => x,
            _ => id,
        };
        let position = dispatches.partition_point(|dispatch| dispatch.node <= id);
        let checks = bands::split(graph, non_finite::check(graph, checked, id), limit);
        dispatches.splice(position..position, checks);
    }
}

/// Uploads the parameters of `dispatches` and makes their bind groups.
fn record<'b>(
    device: &Device,
    dispatches: &[Dispatch],
    memory_of: impl Fn(Operand) -> Memory<'b>,
) -> (Buffer, Vec<Recorded>) {
    let mut bytes = vec![0; PARAMETER_STRIDE * dispatches.len().max(1)];
    for (dispatch, room) in dispatches.iter().zip(bytes.chunks_exact_mut(PARAMETER_STRIDE)) {
        let parameters: &[u8] = bytemuck::cast_slice(&dispatch.words);
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
        let tensor = |binding: u32, operand| wgpu::BindGroupEntry { binding, resource: memory_of(operand).binding() };
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
        let workgroups = dispatch.workgroups();
        Some(Recorded { node: dispatch.node, kernel, pipeline: pipeline.pipeline, bind_group, workgroups })
    });
    let recorded = recorded.collect();
    (parameters, recorded)
}
