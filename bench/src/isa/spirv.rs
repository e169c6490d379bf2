//! WGSL to SPIR-V, with the settings that wgpu has for a Vulkan device (`wgpu-hal`, `vulkan/adapter.rs`).

use anyhow::{Context, Result, anyhow};
use naga::back::spv;
use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};
use naga::valid::{Capabilities, ValidationFlags, Validator};
use naga::{AddressSpace, ShaderStage};
use undiffuse::gpu::KernelSource;

/// A compute shader as a driver takes it.
pub struct Module {
    pub words: Vec<u32>,
    pub entry: String,
    /// The kind of every buffer, in the order of their bindings, which are numbered from 0.
    pub bindings: Vec<Buffer>,
}

/// A kind of binding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Buffer {
    Uniform,
    Storage,
}

/// Compiles a kernel for a device that checks the bounds of buffers itself, if it is `robust`, or does not.
pub fn compile(source: &KernelSource, robust: bool) -> Result<Module> {
    let module = naga::front::wgsl::parse_str(&source.wgsl).map_err(|error| anyhow!("{error}"))?;
    let info = Validator::new(ValidationFlags::all(), Capabilities::all()).validate(&module).context("invalid WGSL")?;
    let constants = source.constants.iter().map(|&(name, value)| (name.to_owned(), value)).collect();
    let of = (ShaderStage::Compute, source.entry);
    let (module, info) = naga::back::pipeline_constants::process_overrides(&module, &info, Some(of), &constants)?;
    let place = module.entry_points.iter().position(|entry| entry.name == source.entry).context("no entry point")?;
    let used = info.get_entry_point(place);
    let used = module.global_variables.iter().filter(|(handle, _)| !used[*handle].is_empty());
    let bound = used.filter_map(|(_, variable)| {
        let kind = if variable.space == AddressSpace::Uniform { Buffer::Uniform } else { Buffer::Storage };
        Some((variable.binding?, kind))
    });
    let mut found: Vec<_> = bound.collect();
    found.sort_by_key(|(binding, _)| binding.binding);
    let numbered = found.iter().zip(0..).map(|(&(binding, _), number)| {
        (binding, spv::BindingInfo { descriptor_set: 0, binding: number, binding_array_size: None })
    });
    let options = spv::Options {
        lang_version: (1, 6),
        flags: spv::WriterFlags::LABEL_VARYINGS | spv::WriterFlags::FORCE_POINT_SIZE,
        fake_missing_bindings: false,
        binding_map: numbered.collect(),
        bounds_check_policies: BoundsCheckPolicies {
            index: BoundsCheckPolicy::Restrict,
            buffer: if robust { BoundsCheckPolicy::Unchecked } else { BoundsCheckPolicy::Restrict },
            image_load: BoundsCheckPolicy::Unchecked,
            binding_array: BoundsCheckPolicy::Unchecked,
        },
        zero_initialize_workgroup_memory: spv::ZeroInitializeWorkgroupMemoryMode::Native,
        ..spv::Options::default()
    };
    let pipeline = spv::PipelineOptions { shader_stage: ShaderStage::Compute, entry_point: source.entry.to_owned() };
    let words = spv::write_vec(&module, &info, &options, Some(&pipeline))?;
    Ok(Module { words, entry: source.entry.to_owned(), bindings: found.into_iter().map(|(_, kind)| kind).collect() })
}
