//! The sinusoidal embedding of timesteps, `shaders/timestep_embedding.wgsl`.

use crate::gpu::error::Error;
use crate::gpu::kernel::{Entry, Operand, PLAIN, parameters, shader};
use crate::gpu::lowering::{Lowering, UNCOUNTED};
use crate::graph::{Node, Op};

parameters! {
    /// Parameters of `shaders/timestep_embedding.wgsl`.
    TimestepEmbedding {
        invocations: u32,
        dim: u32,
        cos_first: u32,
        scale: f32,
    }
}

/// Sines and cosines of timesteps × frequencies.
static TIMESTEP_EMBEDDING: Entry = Entry {
    name: "timestep_embedding",
    source: &[shader!("timestep_embedding")],
    parameters: TimestepEmbedding::UNIFORM,
    reads: &[1, 2],
    write: 3,
    ..PLAIN
};

#[cfg(test)]
pub static ENTRIES: [&Entry; 1] = [&TIMESTEP_EMBEDDING];

/// Adds the dispatch of an embedding of timesteps.
pub fn lower(lowering: &mut Lowering, node: &Node) -> Result<(), Error> {
    let Op::TimestepEmbedding { timestep, flip_sin_to_cos, downscale_freq_shift, scale, max_period } = node.op else {
        return Ok(());
    };
    let dim = node.shape[1];
    let half = dim / 2;
    // Rounded to f32 where diffusers rounds: angles of a thousand radians magnify the difference.
    let exponent = |i: usize| -libm::logf(max_period) * i as f32 / (half as f32 - downscale_freq_shift);
    let frequencies = lowering.constant((0..half).map(|i| libm::expf(exponent(i))).collect());
    let parameters =
        TimestepEmbedding { invocations: UNCOUNTED, dim: dim as u32, cos_first: u32::from(flip_sin_to_cos), scale };
    let (kernel, reads) = (TIMESTEP_EMBEDDING.kernel(), [Operand::Node(timestep), frequencies]);
    lowering.dispatch(kernel, &[node.elements()], &reads, lowering.y(), &parameters)
}
