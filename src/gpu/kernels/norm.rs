//! Normalisation: group norm in three passes (`shaders/group_norm.wgsl`) and layer norm (`shaders/layer_norm.wgsl`).

use super::channels::CHANNELS;
use super::elementwise::ACTIVATION;
use crate::gpu::bands::{grain, lines};
use crate::gpu::error::Error;
use crate::gpu::kernel::{Bands, Dispatch, Entry, Operand, PLAIN, parameters, shader};
use crate::gpu::lowering::{Lowering, UNCOUNTED, rows_and_channels};
use crate::graph::{Node, Op};

parameters! {
    /// Parameters of `shaders/group_norm.wgsl`, of all three passes.
    GroupNorm {
        invocations: u32,
        batch: u32,
        pixels: u32,
        channels: u32,
        groups: u32,
        slices: u32,
        pixels_per_slice: u32,
        eps: f32,
        first_slice: u32,
    }
}

/// The first pass: moments of each channel over slices of pixels.
static MOMENTS: Entry = Entry {
    name: "moments",
    source: &[shader!("activation_functions"), shader!("group_norm")],
    axes: &[&CHANNELS],
    workgroup: 32,
    parameters: GroupNorm::UNIFORM,
    write: 7,
    split: Some(split_moments),
    ..PLAIN
};

/// The second pass: moments of each group.
static COMBINE: Entry = Entry {
    name: "combine",
    source: &[shader!("activation_functions"), shader!("aligned"), shader!("group_norm")],
    workgroup: 32,
    parameters: GroupNorm::UNIFORM,
    reads: &[2, 6],
    write: 7,
    ..PLAIN
};

/// The third pass: the result, with an activation.
static NORMALIZE_PIXELS: Entry = Entry {
    name: "normalize_pixels",
    source: &[shader!("activation_functions"), shader!("group_norm")],
    axes: &[&CHANNELS, &ACTIVATION],
    workgroup: 32,
    parameters: GroupNorm::UNIFORM,
    reads: &[1, 3, 6],
    write: 5,
    split: Some(split_pixels),
    ..PLAIN
};

parameters! {
    /// Parameters of `shaders/layer_norm.wgsl`.
    LayerNorm {
        invocations: u32,
        channels: u32,
        eps: f32,
    }
}

/// Layer norm, an invocation for each row.
static LAYER_NORM: Entry = Entry {
    name: "layer_norm",
    source: &[shader!("layer_norm")],
    axes: &[&CHANNELS],
    workgroup: 16,
    parameters: LayerNorm::UNIFORM,
    reads: &[1, 2, 3],
    write: 5,
    ..PLAIN
};

#[cfg(test)]
pub static ENTRIES: [&Entry; 4] = [&MOMENTS, &COMBINE, &NORMALIZE_PIXELS, &LAYER_NORM];

/// Adds the dispatches of a norm.
pub fn lower(lowering: &mut Lowering, node: &Node) -> Result<(), Error> {
    let y = lowering.y();
    match node.op {
        Op::LayerNorm { x, weight, bias, eps } => {
            let (rows, channels) = rows_and_channels(lowering.shape(x));
            let kernel = LAYER_NORM.kernel().channels(&[channels]);
            let reads = [Operand::Node(x), Operand::Weight(weight), Operand::Weight(bias)];
            let parameters = LayerNorm { invocations: UNCOUNTED, channels: channels as u32, eps };
            lowering.dispatch(kernel, &[rows], &reads, y, &parameters)
        }
        Op::GroupNorm { x, weight, bias, groups, eps, activation } => {
            let (rows, channels) = rows_and_channels(lowering.shape(x));
            let batch = lowering.shape(x)[0];
            let pixels = rows / batch;
            // Slices long enough to be worth an invocation, and few enough to be merged by one.
            let slices = pixels.div_ceil(64).min(256);
            let pixels_per_slice = pixels.div_ceil(slices);
            let slices = pixels.div_ceil(pixels_per_slice);
            let quads = channels.div_ceil(4);
            let parameters = GroupNorm {
                invocations: UNCOUNTED,
                batch: batch as u32,
                pixels: pixels as u32,
                channels: channels as u32,
                groups: groups as u32,
                slices: slices as u32,
                pixels_per_slice: pixels_per_slice as u32,
                eps,
                first_slice: 0,
            };
            let partials = lowering.scratch(batch * slices * 12 * quads);
            let norm = lowering.scratch(batch * 12 * quads);
            let moments = MOMENTS.kernel().channels(&[channels]);
            lowering.dispatch(moments, &[batch, slices, quads], &[Operand::Node(x)], partials, &parameters)?;
            let reads = [Operand::Weight(weight), partials];
            lowering.dispatch(COMBINE.kernel(), &[batch, groups], &reads, norm, &parameters)?;
            let normalize = NORMALIZE_PIXELS.kernel().channels(&[channels]).activation(activation);
            let reads = [Operand::Node(x), Operand::Weight(bias), norm];
            lowering.dispatch(normalize, &[batch, pixels.div_ceil(4), quads], &reads, y, &parameters)
        }
        _ => Ok(()),
    }
}

/// Splits the first pass by slices of pixels.
fn split_moments(dispatch: &Dispatch, bands: Bands) -> Option<Vec<Dispatch>> {
    let (&[x], true) = (&dispatch.reads[..], bands.one_picture) else { return None };
    let whole: GroupNorm = dispatch.parameters();
    let [pixels, channels, pixels_per_slice] =
        [whole.pixels, whole.channels, whole.pixels_per_slice].map(|n| n as usize);
    bands.parts(whole.slices as usize, grain(pixels_per_slice * channels), &|range| {
        let of_pixels = range.start * pixels_per_slice..(range.end * pixels_per_slice).min(pixels);
        let parameters = GroupNorm {
            invocations: (range.len() * channels.div_ceil(4)) as u32,
            pixels: of_pixels.len() as u32,
            slices: range.len() as u32,
            first_slice: range.start as u32,
            ..whole
        };
        dispatch.with(&[lines(x, channels, &of_pixels)], dispatch.write, &parameters)
    })
}

/// Splits the third pass by blocks of four pixels.
fn split_pixels(dispatch: &Dispatch, bands: Bands) -> Option<Vec<Dispatch>> {
    let (&[x, bias, norm], true) = (&dispatch.reads[..], bands.one_picture) else { return None };
    let whole: GroupNorm = dispatch.parameters();
    let channels = whole.channels as usize;
    bands.parts(whole.pixels as usize, grain(channels).max(4), &|range| {
        let parameters = GroupNorm {
            invocations: (range.len().div_ceil(4) * channels.div_ceil(4)) as u32,
            pixels: range.len() as u32,
            ..whole
        };
        dispatch.with(&[lines(x, channels, range), bias, norm], lines(dispatch.write, channels, range), &parameters)
    })
}
