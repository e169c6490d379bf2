//! Holds what the entry points say of their shaders to what naga finds in the WGSL.

use std::collections::HashSet;

use naga::{AddressSpace, Module, Scalar, TypeInner, VectorSize};

use super::ENTRIES;
use crate::gpu::kernel::{AXES, Entry, Kernel};

fn entries() -> impl Iterator<Item = &'static Entry> {
    ENTRIES.iter().flat_map(|family| family.iter().copied())
}

#[test]
fn every_kernel_is_valid_wgsl_and_the_table_says_what_is_in_it() {
    let mut names = HashSet::new();
    for kernel in entries().flat_map(Entry::kernels) {
        assert!(names.insert(kernel.to_string()), "two kernels are called {kernel}");
        let wgsl = kernel.wgsl();
        let module = naga::front::wgsl::parse_str(&wgsl)
            .unwrap_or_else(|error| panic!("{kernel}: {}", error.emit_to_string(&wgsl)));
        // The core of WebGPU: naga counts unpack2x16float apart, because OpenGL ES lacks it.
        let mut capabilities = naga::valid::Capabilities::SHADER_FLOAT16_IN_FLOAT32;
        capabilities.set(naga::valid::Capabilities::SHADER_FLOAT16, wgsl.contains("enable f16;"));
        let info = naga::valid::Validator::new(naga::valid::ValidationFlags::all(), capabilities)
            .validate(&module)
            .unwrap_or_else(|error| panic!("{kernel}: {error:?}"));
        let (index, entry) = (module.entry_points.iter().enumerate())
            .find(|(_, entry)| entry.name == kernel.entry.name)
            .unwrap_or_else(|| panic!("{kernel}: no entry point `{}`", kernel.entry.name));
        assert_eq!(entry.workgroup_size, [kernel.entry.workgroup, 1, 1], "{kernel}");
        assert!(kernel.entry.workgroup <= 256, "{kernel}: more invocations than every device has");
        let usage = info.get_entry_point(index);
        let mut reads = Vec::new();
        for (handle, variable) in module.global_variables.iter() {
            let Some(binding) = variable.binding else { continue };
            if usage[handle].is_empty() {
                continue;
            }
            assert_eq!(binding.group, 0, "{kernel}");
            match variable.space {
                AddressSpace::Uniform => {
                    assert_eq!(binding.binding, 0, "{kernel}");
                    check_parameters(kernel, &module, &module.types[variable.ty].inner);
                }
                AddressSpace::Storage { access } if access.contains(naga::StorageAccess::STORE) => {
                    assert_eq!(binding.binding, kernel.entry.write, "{kernel}: {:?}", variable.name);
                }
                _ => reads.push(binding.binding),
            }
        }
        reads.sort_unstable();
        assert_eq!(reads, kernel.entry.reads, "{kernel}");
        let overrides: HashSet<_> = module.overrides.iter().filter_map(|(_, found)| found.name.as_deref()).collect();
        for (name, _) in kernel.constants() {
            assert!(overrides.contains(name), "{kernel}: no override `{name}`");
        }
    }
}

/// Compares the fields of the shader's parameters with those of the Rust struct: names, offsets, types.
fn check_parameters(kernel: Kernel, module: &Module, found: &TypeInner) {
    let TypeInner::Struct { members, span } = found else { panic!("{kernel}: its parameters are no struct") };
    let uniform = kernel.entry.parameters;
    assert_eq!(*span as usize, 4 * uniform.words, "{kernel}: bytes of the parameters");
    let in_wgsl = members.iter().map(|member| {
        let name = match module.types[member.ty].inner {
            TypeInner::Scalar(Scalar::U32) => "u32",
            TypeInner::Scalar(Scalar::F32) => "f32",
            TypeInner::Vector { size: VectorSize::Quad, scalar: Scalar::U32 } => "[u32; 4]",
            _ => "a type that no parameter has",
        };
        (member.name.as_deref().unwrap_or_default(), member.offset as usize, name)
    });
    let in_rust = uniform.fields.iter().filter(|(name, ..)| !name.starts_with('_')).copied();
    assert_eq!(in_rust.collect::<Vec<_>>(), in_wgsl.collect::<Vec<_>>(), "{kernel}: fields of the parameters");
    assert_eq!(uniform.fields.first(), Some(&("invocations", 0, "u32")), "{kernel}");
}

#[test]
fn no_entry_point_has_more_axes_than_a_variant_holds_or_more_settings_than_an_index() {
    for entry in entries() {
        assert!(entry.axes.len() <= AXES, "{}", entry.name);
        assert!(entry.axes.iter().all(|axis| (1..=256).contains(&axis.0.len())), "{}", entry.name);
        let variants: HashSet<_> = entry.kernels().into_iter().collect();
        assert_eq!(variants.len(), entry.axes.iter().map(|axis| axis.0.len()).product::<usize>(), "{}", entry.name);
    }
}
