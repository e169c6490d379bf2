//! Kernels that measure what a device can do at most, `shaders/roofline.wgsl`.

use crate::gpu::kernel::{Entry, PLAIN, parameters, shader};

parameters! {
    /// Parameters of `shaders/roofline.wgsl`.
    Roofline {
        invocations: u32,
        rounds: u32,
    }
}

/// Products with a matrix, as the kernels write them.
pub static MATRICES: Entry = Entry {
    name: "matrices",
    source: &[shader!("roofline_f32"), shader!("roofline")],
    parameters: Roofline::UNIFORM,
    ..PLAIN
};

/// Explicit multiply-adds.
pub static MULTIPLY_ADDS: Entry = Entry { name: "multiply_adds", ..MATRICES };

/// Multiply-adds of f16, for devices whose shaders know it.
pub static HALF_MULTIPLY_ADDS: Entry =
    Entry { name: "half_multiply_adds", source: &[shader!("roofline_f16"), shader!("roofline")], ..MATRICES };

/// A copy of vectors, four to an invocation.
pub static COPY_VECTORS: Entry = Entry { name: "copy_vectors", ..MATRICES };

#[cfg(test)]
pub static ENTRIES: [&Entry; 4] = [&MATRICES, &MULTIPLY_ADDS, &HALF_MULTIPLY_ADDS, &COPY_VECTORS];
