//! Pictures as pixels, `shaders/pack_rgba8.wgsl`.

use crate::gpu::error::Error;
use crate::gpu::kernel::{Entry, Operand, PLAIN, parameters, shader};
use crate::gpu::lowering::{Lowering, UNCOUNTED};
use crate::graph::{Node, Op};

parameters! {
    /// Parameters of `shaders/pack_rgba8.wgsl`.
    PackRgba8 {
        invocations: u32,
        channels: u32,
        pixels: u32,
    }
}

/// Numbers in −1..1 to RGBA8.
static PACK_RGBA8: Entry =
    Entry { name: "pack_rgba8", source: &[shader!("pack_rgba8")], parameters: PackRgba8::UNIFORM, ..PLAIN };

#[cfg(test)]
pub static ENTRIES: [&Entry; 1] = [&PACK_RGBA8];

/// Adds the dispatch that packs pictures.
pub fn lower(lowering: &mut Lowering, node: &Node) -> Result<(), Error> {
    let Op::PackRgba8 { x } = node.op else { return Ok(()) };
    let shape = lowering.shape(x);
    let parameters =
        PackRgba8 { invocations: UNCOUNTED, channels: shape[1] as u32, pixels: (shape[2] * shape[3]) as u32 };
    lowering.dispatch(PACK_RGBA8.kernel(), &[node.elements()], &[Operand::Node(x)], lowering.y(), &parameters)
}
