//! Resampling of pictures, `shaders/resample.wgsl`: nearest neighbour, bilinear, pooling.

use bytemuck::Zeroable;

use super::channels::CHANNELS;
use crate::gpu::error::Error;
use crate::gpu::kernel::{Entry, Operand, PLAIN, parameters, shader};
use crate::gpu::lowering::Lowering;
use crate::graph::{Node, Op, Pooling};

parameters! {
    /// Parameters of `shaders/resample.wgsl`.
    Resample {
        invocations: u32,
        in_height: u32,
        in_width: u32,
        out_height: u32,
        out_width: u32,
        channels: u32,
        scale_y: f32,
        scale_x: f32,
        kernel_height: u32,
        kernel_width: u32,
        stride: u32,
        pad_top: u32,
        pad_left: u32,
        average: u32,
    }
}

/// Nearest neighbour.
static NEAREST: Entry = Entry {
    name: "nearest",
    source: &[shader!("resample")],
    axes: &[&CHANNELS],
    parameters: Resample::UNIFORM,
    write: 5,
    ..PLAIN
};

/// Bilinear, without antialiasing.
static BILINEAR: Entry = Entry { name: "bilinear", ..NEAREST };

/// Maximum or mean under a kernel.
static POOL: Entry = Entry { name: "pool", ..NEAREST };

#[cfg(test)]
pub static ENTRIES: [&Entry; 3] = [&NEAREST, &BILINEAR, &POOL];

/// Adds the dispatch of a resize or of a pooling.
pub fn lower(lowering: &mut Lowering, node: &Node) -> Result<(), Error> {
    let (Op::ResizeNearest { x } | Op::ResizeBilinear { x } | Op::Pool2d { x, .. }) = node.op else { return Ok(()) };
    let (&[_, in_height, in_width, channels], &[batch, height, width, _]) = (lowering.shape(x), &node.shape[..]) else {
        return Err(lowering.unsupported("its operand is no picture".to_owned()));
    };
    let mut parameters = Resample {
        in_height: in_height as u32,
        in_width: in_width as u32,
        out_height: height as u32,
        out_width: width as u32,
        channels: channels as u32,
        ..Resample::zeroed()
    };
    let entry = match node.op {
        Op::ResizeBilinear { .. } => {
            // torch rounds the scale first; a shader's quotient may be off by more.
            parameters.scale_y = in_height as f32 / height as f32;
            parameters.scale_x = in_width as f32 / width as f32;
            &BILINEAR
        }
        Op::Pool2d { pooling, kernel, stride, padding, .. } => {
            parameters.kernel_height = kernel[0] as u32;
            parameters.kernel_width = kernel[1] as u32;
            parameters.stride = stride as u32;
            parameters.pad_top = padding.top as u32;
            parameters.pad_left = padding.left as u32;
            parameters.average = u32::from(pooling == Pooling::Average);
            &POOL
        }
        _ => &NEAREST,
    };
    let kernel = entry.kernel().channels(&[channels]);
    let quads = [batch, height, width, channels.div_ceil(4)];
    lowering.dispatch(kernel, &quads, &[Operand::Node(x)], lowering.y(), &parameters)
}
