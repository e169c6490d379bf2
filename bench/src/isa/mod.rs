//! What the compiler of a GPU's driver makes of a network's kernels, for a GPU that need not be there.
//!
//! Mesa's driver for AMD compiles for the chip that the environment variable `RADV_FORCE_FAMILY` names, on "Null hardware" that runs
//! nothing. wgpu opens no device there, because it submits work while it does, so that Vulkan is called here without it ([`vulkan`]), with
//! the SPIR-V that it would be given by wgpu ([`spirv`]). The machine code is read for what is in its hottest loop ([`assembly`]).

mod assembly;
mod spirv;
mod vulkan;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use undiffuse::gpu::kernels::Storage;
use undiffuse::gpu::kernels_of;
use undiffuse::gpu::variants::{MatrixKernels, Variants};

use crate::network::Network;

/// Compiles every kernel that a step of `network` needs, with f16 weights, on the GPU of Mesa's driver for AMD, and reports what they
/// became; of `kernels`, if it is given, instead of those that suit the GPU. Machine code is written to `folder`, if it is given.
///
/// # Errors
/// If there is no such driver, or a kernel does not compile.
pub fn report(network: &Network, kernels: Option<MatrixKernels>, folder: Option<&Path>) -> Result<Value> {
    let gpu = match vulkan::Gpu::open()? {
        Ok(gpu) => gpu,
        Err(missing) => return Ok(json!({ "missing": missing })),
    };
    let variants = Variants::new(gpu.capabilities(), kernels);
    let smallest = u64::from(gpu.smallest_subgroup());
    let mut rows = Vec::new();
    for kernel in kernels_of(&network.graph, &variants, Storage::F16)? {
        let name = &kernel.source.name;
        let module = spirv::compile(&kernel.source, gpu.robust()).with_context(|| name.clone())?;
        let compiled = gpu.compile(&module).with_context(|| name.clone())?;
        if let (Some(folder), Some(text)) = (folder, &compiled.assembly) {
            fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
            let file = folder.join(name.replace(|c: char| !c.is_ascii_alphanumeric() && c != '_', "-") + ".s");
            fs::write(&file, text).with_context(|| file.display().to_string())?;
        }
        let hot = compiled.assembly.as_deref().and_then(assembly::hottest_loop);
        rows.push(json!({
            "kernel": name,
            "launches": kernel.launches,
            "multiply_adds": kernel.multiply_adds,
            "invocations": kernel.source.workgroup,
            "registers": compiled.statistic("VGPRs"),
            "spilled": compiled.statistic("Spilled VGPRs"),
            "workgroup_bytes": compiled.statistic("LDS size"),
            // The driver counts in subgroups of the smallest size that the chip has.
            "subgroups": compiled.statistic("Subgroups per SIMD").map(|n| n * smallest / u64::from(compiled.subgroup.max(1))),
            "subgroup": compiled.subgroup,
            "cycles": compiled.statistic("Inverse Throughput"),
            "hot": hot.map(|hot| json!({
                "multiply_adds": hot.multiply_adds, "vector": hot.vector, "shared": hot.shared, "memory": hot.memory,
            })),
        }));
    }
    Ok(json!({ "device": gpu.name(), "driver": gpu.driver(), "network": network.name, "kernels": rows }))
}
