//! Opens an adapter, and owns everything that programs on it share: queue, compiled kernels, what went wrong.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use super::buffer::{Buffer, Memory};
use super::capabilities::{Capabilities, Class, Limits};
use super::error::Error;
use super::faults::{Caught, Faults, scoped};
use super::kernel::{Kernel, KernelSource};
use super::shaders::Shaders;
use super::variants::{MatrixKernels, Measured, Variants};
use crate::profile::Ceilings;

/// Attention scores are made in blocks of this size.
const SCORE_BYTES: u64 = 16 << 20;

/// The adapter to ask for, and what of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DeviceOptions {
    /// True to ask for a software adapter even where there is a GPU; browsers decide for themselves.
    pub force_fallback_adapter: bool,
    /// True to ask for no larger buffers and no more features than every adapter has.
    pub default_limits: bool,
    /// Most bytes of a part of a buffer that kernels are given, for tests of what is done if it is small.
    pub binding_bytes: Option<u64>,
    /// The make of the adapter, if the caller knows better than wgpu, which in a browser learns no vendor.
    pub class: Option<Class>,
    /// Matrix kernels to use instead of those that suit the adapter, whatever they cost there.
    pub kernels: Option<MatrixKernels>,
}

/// A description of an adapter.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeviceInfo {
    /// Name of the adapter, as far as the platform tells it.
    pub adapter: String,
    /// Name of the backend: `vulkan`, `metal`, `dx12` or `webgpu`.
    pub backend: &'static str,
    /// True if it computes on the CPU, where the CPU executor is usually faster.
    pub software: bool,
}

/// An open device. Clones share it.
#[derive(Clone, Debug)]
pub struct Device {
    shared: Rc<Shared>,
}

#[derive(Debug)]
struct Shared {
    device: wgpu::Device,
    queue: wgpu::Queue,
    info: DeviceInfo,
    limits: Limits,
    shaders: Shaders,
    capabilities: Capabilities,
    variants: RefCell<Variants>,
    faults: Arc<Faults>,
    pipelines: RefCell<HashMap<Kernel, Pipeline>>,
    allocated: Rc<Cell<u64>>,
    ceilings: Cell<Option<Ceilings>>,
}

/// The platform's answer to something that was queued, once it comes.
pub(super) type Outcome = Pin<Box<dyn Future<Output = Result<(), Error>>>>;

/// A compiled kernel.
#[derive(Clone, Debug)]
pub(super) struct Pipeline {
    pub pipeline: wgpu::ComputePipeline,
    pub layout: wgpu::BindGroupLayout,
}

impl Device {
    /// Opens the adapter that the platform prefers.
    ///
    /// Only WebGPU's default limits and no optional features are needed; larger buffers, and f16 in shaders, are asked for where the
    /// adapter has them.
    ///
    /// # Errors
    /// If there is no WebGPU, no adapter, or no device to be had from it.
    #[cfg(not(target_arch = "wasm32"))]
    pub async fn request(options: DeviceOptions) -> Result<Self, Error> {
        Self::with_shaders(options, Shaders::default()).await
    }

    /// Opens the adapter that the platform prefers, for kernels that are made of `shaders`: [`Device::request`], where these are not
    /// built in.
    ///
    /// # Errors
    /// As there.
    pub async fn with_shaders(options: DeviceOptions, shaders: Shaders) -> Result<Self, Error> {
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
        let adapter = instance
            .request_adapter(&wgpu::RequestAdapterOptions {
                power_preference: wgpu::PowerPreference::HighPerformance,
                force_fallback_adapter: options.force_fallback_adapter,
                ..Default::default()
            })
            .await
            .map_err(|error| Error::NoAdapter(error.to_string()))?;
        let available = match options.default_limits {
            true => wgpu::Limits::defaults().or_worse_values_from(&adapter.limits()),
            false => adapter.limits(),
        };
        let limits = wgpu::Limits {
            max_buffer_size: available.max_buffer_size,
            max_storage_buffer_binding_size: options
                .binding_bytes
                .map_or(available.max_storage_buffer_binding_size, |asked| {
                    asked.min(available.max_storage_buffer_binding_size)
                }),
            ..wgpu::Limits::defaults().or_worse_values_from(&available)
        };
        let buffer_bytes = limits.max_buffer_size;
        let binding_bytes = limits.max_storage_buffer_binding_size.min(buffer_bytes);
        let required_features = match options.default_limits {
            true => wgpu::Features::empty(),
            false => adapter.features() & Capabilities::OPTIONAL,
        };
        let descriptor = wgpu::DeviceDescriptor { required_features, required_limits: limits, ..Default::default() };
        let (device, queue) =
            adapter.request_device(&descriptor).await.map_err(|error| Error::NoDevice(error.to_string()))?;
        let faults = Faults::watch(&device);
        let found = adapter.get_info();
        let class = options.class.filter(|&class| class != Class::Other).unwrap_or_else(|| Class::of(&found));
        let capabilities = Capabilities::new(class, required_features);
        let variants = RefCell::new(Variants::new(capabilities, options.kernels));
        let info = DeviceInfo {
            adapter: found.name,
            backend: match found.backend {
                wgpu::Backend::BrowserWebGpu => "webgpu",
                backend => backend.to_str(),
            },
            software: found.device_type == wgpu::DeviceType::Cpu,
        };
        let limits = Limits { buffer_bytes, binding_bytes, score_bytes: SCORE_BYTES.min(binding_bytes) };
        let (pipelines, allocated, ceilings) = Default::default();
        let shared = Shared {
            device,
            queue,
            info,
            limits,
            shaders,
            capabilities,
            variants,
            faults,
            pipelines,
            allocated,
            ceilings,
        };
        Ok(Self { shared: Rc::new(shared) })
    }

    /// A description of the adapter.
    pub fn info(&self) -> &DeviceInfo {
        &self.shared.info
    }

    /// The limits of the device.
    pub fn limits(&self) -> Limits {
        self.shared.limits
    }

    /// The capabilities of the device.
    pub fn capabilities(&self) -> Capabilities {
        self.shared.capabilities
    }

    /// The kernels that the device runs.
    pub fn variants(&self) -> Variants {
        self.shared.variants.borrow().clone()
    }

    /// Lets programs that are compiled from now on use what was measured by [`super::Program::measure_kernels`], on this adapter.
    pub fn set_measured(&self, measured: Measured) {
        self.shared.variants.borrow_mut().set_measured(measured);
    }

    /// Bytes of all buffers that exist on this device now.
    pub fn allocated_bytes(&self) -> u64 {
        self.shared.allocated.get()
    }

    /// The device's ceilings, if they were measured ([`Device::ceilings`]).
    pub(super) fn known_ceilings(&self) -> &Cell<Option<Ceilings>> {
        &self.shared.ceilings
    }

    /// Gives the device back to the platform; every later call on it reports a lost device.
    pub fn destroy(&self) {
        self.shared.faults.note_lost("it was destroyed".to_owned());
        self.shared.device.destroy();
    }

    /// Whether the device can still be used.
    ///
    /// # Errors
    /// [`Error::DeviceLost`], or once what the device reported outside of any operation that waits for its errors.
    pub fn check(&self) -> Result<(), Error> {
        let uncaptured = self.shared.faults.take_uncaptured();
        if uncaptured.is_some() {
            // On a lost device everything is an error, and natively the news of the loss waits for a poll.
            let _ = self.shared.device.poll(wgpu::PollType::Poll);
        }
        match (self.shared.faults.lost(), uncaptured) {
            (Some(reason), _) => Err(Error::DeviceLost { reason }),
            (None, Some(message)) => Err(Error::Uncaptured(message)),
            (None, None) => Ok(()),
        }
    }

    pub(super) fn raw(&self) -> &wgpu::Device {
        &self.shared.device
    }

    pub(super) fn queue(&self) -> &wgpu::Queue {
        &self.shared.queue
    }

    /// Runs `action`; the future gives the first error that it caused.
    pub(super) fn scoped<R>(&self, action: impl FnOnce() -> R) -> (R, Caught) {
        scoped(&self.shared.device, action)
    }

    /// Fills a buffer from byte `start` on.
    pub(super) fn write_at(&self, buffer: &wgpu::Buffer, start: u64, bytes: &[u8]) {
        self.shared.queue.write_buffer(buffer, start, bytes);
    }

    /// Fills the start of a buffer.
    pub(super) fn write(&self, buffer: &wgpu::Buffer, bytes: &[u8]) {
        self.write_at(buffer, 0, bytes);
    }

    /// A buffer for the tensor `what`.
    ///
    /// Running out of memory is noticed by the error scope around the call, if there is one, else at the next [`Device::check`].
    pub(super) fn storage_buffer(&self, what: &str, bytes: u64) -> Result<Buffer, Error> {
        use wgpu::BufferUsages as Usage;
        let bytes = bytes.next_multiple_of(16);
        let limit = self.shared.limits.binding_bytes;
        if bytes > limit {
            return Err(Error::TooLarge { what: what.to_owned(), bytes, limit });
        }
        Ok(self.buffer(bytes, Usage::STORAGE | Usage::COPY_SRC | Usage::COPY_DST))
    }

    /// A buffer for several tensors, of which a kernel is given a part.
    pub(super) fn slab(&self, bytes: u64) -> Buffer {
        use wgpu::BufferUsages as Usage;
        self.buffer(bytes.next_multiple_of(16), Usage::STORAGE | Usage::COPY_SRC | Usage::COPY_DST)
    }

    /// A buffer for other uses.
    pub(super) fn buffer(&self, bytes: u64, usage: wgpu::BufferUsages) -> Buffer {
        Buffer::new(&self.shared.device, bytes, usage, &self.shared.allocated)
    }

    /// Compiles those of `kernels` that are not compiled yet; with each comes the module path of a node that needs it.
    pub(super) async fn compile(&self, kernels: &[(Kernel, &str)]) -> Result<(), Error> {
        let mut outcomes = Vec::new();
        for &(kernel, path) in kernels {
            if self.shared.pipelines.borrow().contains_key(&kernel) {
                continue;
            }
            let (pipeline, caught) = self.scoped(|| self.create_pipeline(&kernel));
            outcomes.push((kernel, path, pipeline, caught));
        }
        // Errors are waited for at the end, so that a browser may compile several kernels at a time.
        for (kernel, path, pipeline, caught) in outcomes {
            match caught.await {
                Ok(()) => self.shared.pipelines.borrow_mut().insert(kernel, pipeline),
                Err(fault) => {
                    self.check()?;
                    let (kernel, path) = (kernel.to_string(), path.to_owned());
                    return Err(Error::Kernel { kernel, path, message: fault.to_string() });
                }
            };
        }
        Ok(())
    }

    /// Every kernel that the device has compiled, in the order of their names.
    pub fn sources(&self) -> Vec<KernelSource> {
        let pipelines = self.shared.pipelines.borrow();
        let mut sources: Vec<_> = pipelines.keys().map(|kernel| kernel.source(&self.shared.shaders)).collect();
        sources.sort_by(|one, other| one.name.cmp(&other.name));
        sources
    }

    /// A kernel that [`Device::compile`] has compiled.
    pub(super) fn pipeline(&self, kernel: &Kernel) -> Option<Pipeline> {
        self.shared.pipelines.borrow().get(kernel).cloned()
    }

    /// A kernel to be used before it is known to compile, and what will be known of that.
    pub(super) fn pipeline_at_once(&self, kernel: &Kernel) -> (Pipeline, Option<Outcome>) {
        if let Some(pipeline) = self.pipeline(kernel) {
            return (pipeline, None);
        }
        let (pipeline, caught) = self.scoped(|| self.create_pipeline(kernel));
        self.shared.pipelines.borrow_mut().insert(*kernel, pipeline.clone());
        let (device, kernel) = (self.clone(), *kernel);
        let outcome = async move {
            let Err(fault) = caught.await else { return Ok(()) };
            device.shared.pipelines.borrow_mut().remove(&kernel);
            let (kernel, path) = (kernel.to_string(), "loading".to_owned());
            Err(Error::Kernel { kernel, path, message: fault.to_string() })
        };
        (pipeline, Some(Box::pin(outcome)))
    }

    /// Queues one launch of `kernel`, whose first parameter is the number of invocations.
    pub(super) fn dispatch(
        &self,
        kernel: &Kernel,
        pipeline: &Pipeline,
        parameters: &[u32],
        reads: &[Memory],
        write: &Buffer,
    ) -> wgpu::SubmissionIndex {
        let device = &self.shared.device;
        let mut bytes = bytemuck::cast_slice(parameters).to_vec();
        bytes.resize(bytes.len().next_multiple_of(16), 0);
        let uniform = self.buffer(bytes.len() as u64, wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST);
        self.write(&uniform, &bytes);
        let bindings = [0].iter().chain(kernel.entry.reads).chain([&kernel.entry.write]);
        let memories = [Memory::whole(&uniform)].into_iter().chain(reads.iter().copied()).chain([Memory::whole(write)]);
        let entries: Vec<_> = bindings
            .zip(memories)
            .map(|(&binding, memory)| wgpu::BindGroupEntry { binding, resource: memory.binding() })
            .collect();
        let bind_group = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &pipeline.layout,
            entries: &entries,
        });
        let mut encoder = device.create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        pass.set_pipeline(&pipeline.pipeline);
        pass.set_bind_group(0, &bind_group, &[]);
        let [x, y] = kernel.workgroups(parameters.first().copied().unwrap_or(0));
        pass.dispatch_workgroups(x, y, 1);
        drop(pass);
        self.shared.queue.submit([encoder.finish()])
    }

    fn create_pipeline(&self, kernel: &Kernel) -> Pipeline {
        let device = &self.shared.device;
        let label = kernel.to_string();
        let label = Some(label.as_str());
        let buffer = |binding, ty| wgpu::BindGroupLayoutEntry {
            binding,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
            count: None,
        };
        let mut entries = vec![buffer(0, wgpu::BufferBindingType::Uniform)];
        entries.extend(
            kernel.entry.reads.iter().map(|&n| buffer(n, wgpu::BufferBindingType::Storage { read_only: true })),
        );
        entries.push(buffer(kernel.entry.write, wgpu::BufferBindingType::Storage { read_only: false }));
        let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label, entries: &entries });
        let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label,
            bind_group_layouts: &[Some(&layout)],
            ..Default::default()
        });
        let source = wgpu::ShaderSource::Wgsl(kernel.module(&self.shared.shaders).into());
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor { label, source });
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label,
            layout: Some(&pipeline_layout),
            module: &module,
            entry_point: Some(kernel.entry.name),
            compilation_options: wgpu::PipelineCompilationOptions {
                constants: &kernel.constants(),
                ..Default::default()
            },
            cache: None,
        });
        Pipeline { pipeline, layout }
    }
}

#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests {
    use super::super::kernel::{Entry, PLAIN};
    use super::*;

    /// A kernel with a mistake in its shader.
    static BROKEN: Entry = Entry {
        name: "broken",
        source: &["@compute @workgroup_size(1) fn broken() { undefined(); }"],
        workgroup: 1,
        reads: &[],
        write: 1,
        ..PLAIN
    };

    #[test]
    fn a_kernel_that_does_not_compile_is_reported_with_its_name_and_the_node() {
        let broken = BROKEN.kernel();
        let device = pollster::block_on(Device::request(DeviceOptions::default())).unwrap();
        let error = pollster::block_on(device.compile(&[(broken, "mid_block.resnets.0")])).unwrap_err();
        let Error::Kernel { kernel, path, message } = error else { panic!("{error}") };
        assert_eq!((kernel.as_str(), path.as_str()), ("broken", "mid_block.resnets.0"));
        assert!(message.contains("undefined"), "{message}");
        assert!(device.pipeline(&broken).is_none());
        assert_eq!(device.check(), Ok(()));
    }
}
