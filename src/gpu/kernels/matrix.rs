//! Matrix products: linear layers and convolutions, with bias and residual.
//!
//! `shaders/linear.wgsl`, `conv2d.wgsl` and `conv3x3.wgsl` keep their tiles in registers, `tiled.wgsl` has them in workgroup memory, and
//! `split_sum.wgsl` adds up the parts of a split depth. Which of them a device runs is said in [`crate::gpu::variants`].

use std::ops::Range;

use super::channels::CHANNELS;
use super::strided::drop_padding;
use crate::gpu::bands::{grain, lines};
use crate::gpu::error::Error;
#[cfg(test)]
use crate::gpu::kernel::Work;
use crate::gpu::kernel::{Axis, Bands, Dispatch, Entry, Operand, PLAIN, Setting, parameters, shader};
use crate::gpu::lowering::{ABSENT, Lowering, UNCOUNTED, rows_and_channels};
use crate::gpu::storage::{STORAGE, Storage};
use crate::gpu::variants::{Choice, Product, Tile, Tiling};
use crate::graph::{Node, NodeId, Op, WeightId};

parameters! {
    /// Parameters of `shaders/linear.wgsl`.
    Linear {
        invocations: u32,
        rows: u32,
        in_channels: u32,
        out_channels: u32,
        has_bias: u32,
        rows_per_residual: u32,
    }
}

/// A linear layer, tiles of 16 rows × 8 channels in registers.
static LINEAR: Entry = Entry {
    name: "linear",
    source: &[shader!("linear")],
    axes: &[&CHANNELS, &STORAGE],
    workgroup: 16,
    parameters: Linear::UNIFORM,
    reads: &[1, 2, 3, 4],
    write: 5,
    split: Some(split_linear),
    #[cfg(test)]
    work: Some(work_of_linear),
    ..PLAIN
};

parameters! {
    /// Parameters of `shaders/convolution.wgsl`.
    Convolution {
        invocations: u32,
        in_height: u32,
        in_width: u32,
        in_channels: u32,
        out_height: u32,
        out_width: u32,
        out_channels: u32,
        kernel_height: u32,
        kernel_width: u32,
        stride: u32,
        pad_top: u32,
        pad_left: u32,
        has_bias: u32,
        residual: u32,
        upsample: u32,
    }
}

/// A convolution, tiles of 4 × 4 pixels × 8 channels in registers.
static CONV2D: Entry = Entry {
    name: "conv2d",
    source: &[shader!("convolution"), shader!("conv2d")],
    axes: &[&CHANNELS, &STORAGE],
    workgroup: 16,
    parameters: Convolution::UNIFORM,
    reads: &[1, 2, 3, 4],
    write: 5,
    split: Some(split_convolution),
    #[cfg(test)]
    work: Some(work_of_conv2d),
    ..PLAIN
};

/// A 3×3 convolution with stride 1, in registers.
static CONV3X3: Entry = Entry {
    name: "conv3x3",
    source: &[shader!("convolution"), shader!("conv3x3")],
    #[cfg(test)]
    work: Some(work_of_conv3x3),
    ..CONV2D
};

/// The axis of [`tile_entry`]'s kernels: every [`Storage`] with tiles of f32, then f16 with tiles of f16, which rounds nothing and
/// needs a device whose shaders know f16.
static TILED_STORAGE: Axis = Axis(&{
    const COUNT: usize = Storage::ALL.len();
    let half = Storage::SETTINGS[Storage::F16 as usize];
    let mut settings = [Setting { name: "F16 tiles", front: shader!("half_tiles"), ..half }; COUNT + 1];
    let mut index = 0;
    while index < COUNT {
        settings[index] = Setting { front: shader!("full_tiles"), ..Storage::SETTINGS[index] };
        index += 1;
    }
    settings
});

/// The axis of [`tile_entry`]'s kernels: what is multiplied next is loaded a step before, or when it is needed, which takes fewer
/// registers. The index is that of [`Tile::lean`].
static LOADS: Axis = Axis(&[Setting::constant("ahead", &[("LEAN", 0.0)]), Setting::constant("lean", &[("LEAN", 1.0)])]);

parameters! {
    /// Parameters of `shaders/tiled.wgsl`.
    Tiled {
        invocations: u32,
        in_height: u32,
        in_width: u32,
        in_channels: u32,
        out_height: u32,
        out_width: u32,
        out_channels: u32,
        kernel_height: u32,
        kernel_width: u32,
        stride: u32,
        pad_top: u32,
        pad_left: u32,
        has_bias: u32,
        rows_per_residual: u32,
        rows: u32,
        steps: u32,
        upsample: u32,
    }
}

const OF_TILED: Entry = Entry {
    axes: &[&CHANNELS, &TILED_STORAGE, &LOADS],
    parameters: Tiled::UNIFORM,
    reads: &[1, 2, 3, 4],
    write: 5,
    split: Some(split_tiled),
    #[cfg(test)]
    work: Some(work_of_tiled),
    ..PLAIN
};

/// Tiles of 128 rows × 64 channels in workgroup memory.
static TILE_128X64: Entry = Entry {
    name: "tile_128x64",
    source: &[shader!("sums_8x8"), shader!("tiled"), shader!("tile_128x64")],
    workgroup: Tile::T128x64.invocations(),
    ..OF_TILED
};

/// Tiles of 64 rows × 64 channels in workgroup memory.
static TILE_64X64: Entry = Entry {
    name: "tile_64x64",
    source: &[shader!("sums_8x8"), shader!("tiled"), shader!("tile_64x64")],
    workgroup: Tile::T64x64.invocations(),
    ..OF_TILED
};

/// Tiles of 64 rows × 32 channels in workgroup memory.
static TILE_64X32: Entry = Entry {
    name: "tile_64x32",
    source: &[shader!("sums_8x4"), shader!("tiled"), shader!("tile_64x32")],
    workgroup: Tile::T64x32.invocations(),
    ..OF_TILED
};

fn tile_entry(tile: Tile) -> &'static Entry {
    match tile {
        Tile::T128x64 => &TILE_128X64,
        Tile::T64x64 | Tile::T64x64Lean => &TILE_64X64,
        Tile::T64x32 | Tile::T64x32Lean => &TILE_64X32,
    }
}

parameters! {
    /// Parameters of `shaders/split_sum.wgsl`.
    SplitSum {
        invocations: u32,
        rows: u32,
        channels: u32,
        splits: u32,
        has_bias: u32,
        rows_per_residual: u32,
    }
}

/// The sum over the splits of a product's depth.
static SPLIT_SUM: Entry = Entry {
    name: "split_sum",
    source: &[shader!("split_sum")],
    axes: &[&CHANNELS],
    parameters: SplitSum::UNIFORM,
    reads: &[1, 3, 4],
    write: 5,
    #[cfg(test)]
    work: Some(work_of_split_sum),
    ..PLAIN
};

#[cfg(test)]
pub static ENTRIES: [&Entry; 7] = [&LINEAR, &CONV2D, &CONV3X3, &TILE_128X64, &TILE_64X64, &TILE_64X32, &SPLIT_SUM];

/// The operands that a matrix kernel reads.
#[derive(Clone, Copy)]
struct Operands {
    x: NodeId,
    weight: WeightId,
    bias: Option<WeightId>,
    residual: Option<NodeId>,
}

impl Operands {
    fn bias(&self) -> Operand {
        self.bias.map_or(ABSENT, Operand::Weight)
    }

    fn residual(&self) -> Operand {
        self.residual.map_or(ABSENT, Operand::Node)
    }

    fn has_bias(&self) -> u32 {
        u32::from(self.bias.is_some())
    }

    fn reads(&self) -> [Operand; 4] {
        [Operand::Node(self.x), Operand::Weight(self.weight), self.bias(), self.residual()]
    }
}

/// How a convolution walks over its input.
#[derive(Clone, Copy)]
struct Taps {
    /// Height, width and channels of the input.
    of_x: [usize; 3],
    /// Height and width of the result.
    of_y: [usize; 2],
    kernel: [usize; 2],
    stride: usize,
    /// Zeros above and to the left.
    padding: [usize; 2],
    /// The picture has half the height and width that are said of it, and each pixel counts four times.
    upsample: bool,
}

/// Adds the dispatches of a convolution or of a linear layer.
pub fn lower(lowering: &mut Lowering, node: &Node) -> Result<(), Error> {
    match node.op {
        Op::Linear { x, weight, bias, residual } => {
            linear(lowering, Operands { x, weight, bias, residual }, u32::from(residual.is_some()))
        }
        Op::Conv2d { x, weight, bias, residual, stride, padding, upsample } => {
            let (&[_, in_height, in_width, in_channels], &[_, height, width, _]) = (lowering.shape(x), &node.shape[..])
            else {
                return Err(lowering.unsupported("its operands are no pictures".to_owned()));
            };
            // The kernels count in pixels of the enlarged picture.
            let [in_height, in_width] = [in_height, in_width].map(|side| if upsample { 2 * side } else { side });
            let of_weight = lowering.weight_shape(weight);
            let taps = Taps {
                of_x: [in_height, in_width, in_channels],
                of_y: [height, width],
                kernel: [of_weight[2], of_weight[3]],
                stride,
                padding: [padding.top, padding.left],
                upsample,
            };
            let operands = Operands { x, weight, bias, residual };
            let per_picture = residual.is_some_and(|id| lowering.shape(id) != node.shape);
            let rows_per_residual = residual.map_or(0, |_| if per_picture { height * width } else { 1 }) as u32;
            let unpadded = padding == Default::default();
            if taps.kernel == [1, 1] && stride == 1 && unpadded && !upsample {
                return linear(lowering, operands, rows_per_residual);
            }
            match tiling(lowering, node) {
                Some(tiling) => tiled(lowering, tiling, taps, operands, rows_per_residual),
                None => {
                    let residual = residual.map_or(0, |_| 1 + u32::from(per_picture));
                    convolution(lowering, node, taps, operands, residual)
                }
            }
        }
        _ => Ok(()),
    }
}

/// A linear layer, or a convolution that is one.
fn linear(lowering: &mut Lowering, operands: Operands, rows_per_residual: u32) -> Result<(), Error> {
    let node = lowering.node();
    let (rows, in_channels) = rows_and_channels(lowering.shape(operands.x));
    let (_, channels) = rows_and_channels(&node.shape);
    if let Some(tiling) = tiling(lowering, node) {
        let (of_x, of_y) = ([1, rows, in_channels], [1, rows]);
        let taps = Taps { of_x, of_y, kernel: [1, 1], stride: 1, padding: [0, 0], upsample: false };
        return tiled(lowering, tiling, taps, operands, rows_per_residual);
    }
    let (out, out_channels) = padded_output(lowering, rows, in_channels, channels, operands);
    let storage = lowering.storage(operands.weight);
    let kernel = LINEAR.kernel().channels(&[in_channels, out_channels]).stored_as(storage);
    let parameters = Linear {
        invocations: UNCOUNTED,
        rows: rows as u32,
        in_channels: in_channels as u32,
        out_channels: out_channels as u32,
        has_bias: operands.has_bias(),
        rows_per_residual,
    };
    lowering.dispatch(kernel, &[rows.div_ceil(16), channels.div_ceil(8)], &operands.reads(), out, &parameters)?;
    store_output(lowering, out, rows, out_channels, channels)
}

/// A convolution in registers; `residual` is as the shader has it.
fn convolution(
    lowering: &mut Lowering,
    node: &Node,
    taps: Taps,
    operands: Operands,
    residual: u32,
) -> Result<(), Error> {
    let Taps { of_x: [in_height, in_width, in_channels], of_y: [height, width], kernel, stride, .. } = taps;
    let (rows, channels) = rows_and_channels(&node.shape);
    let batch = node.shape[0];
    let (out, out_channels) = padded_output(lowering, rows, in_channels, channels, operands);
    let entry = if kernel == [3, 3] && stride == 1 { &CONV3X3 } else { &CONV2D };
    let storage = lowering.storage(operands.weight);
    let chosen = entry.kernel().channels(&[in_channels, out_channels]).stored_as(storage);
    let tiles = [batch, height.div_ceil(4), width.div_ceil(4), channels.div_ceil(8)];
    let parameters = Convolution {
        invocations: UNCOUNTED,
        in_height: in_height as u32,
        in_width: in_width as u32,
        in_channels: in_channels as u32,
        out_height: height as u32,
        out_width: width as u32,
        out_channels: out_channels as u32,
        kernel_height: kernel[0] as u32,
        kernel_width: kernel[1] as u32,
        stride: stride as u32,
        pad_top: taps.padding[0] as u32,
        pad_left: taps.padding[1] as u32,
        has_bias: operands.has_bias(),
        residual,
        upsample: u32::from(taps.upsample),
    };
    lowering.dispatch(chosen, &tiles, &operands.reads(), out, &parameters)?;
    store_output(lowering, out, rows, out_channels, channels)
}

/// How the product of `node` is tiled in workgroup memory, and whether its weights are f16 there; `None` if it is not tiled.
fn tiling(lowering: &Lowering, node: &Node) -> Option<(Product, Tiling, bool)> {
    let (product, weight) = Product::of(lowering.graph(), node)?;
    match lowering.variants.choose(product, lowering.storage(weight)) {
        Choice::Registers => None,
        Choice::Tiled { tiling, half } => Some((product, tiling, half)),
    }
}

/// A product by the kernel that tiles it in workgroup memory.
fn tiled(
    lowering: &mut Lowering,
    (product, tiling, half): (Product, Tiling, bool),
    taps: Taps,
    operands: Operands,
    rows_per_residual: u32,
) -> Result<(), Error> {
    let (Product { rows, channels, steps }, Tiling { tile, splits }) = (product, tiling);
    let [in_height, in_width, in_channels] = taps.of_x;
    let storage = if half { Storage::ALL.len() } else { lowering.storage(operands.weight) as usize };
    let kernel = (tile_entry(tile).kernel().channels(&[in_channels, channels]))
        .with(&TILED_STORAGE, storage)
        .with(&LOADS, usize::from(tile.lean()));
    let y = lowering.y();
    let out = if splits == 1 { y } else { lowering.scratch(splits * rows * channels) };
    let [tile_rows, tile_channels] = tile.sizes();
    let [a, b, c] = [splits, rows.div_ceil(tile_rows), channels.div_ceil(tile_channels)];
    // With several splits, bias and residual are added where the splits are.
    let own = |parameter: u32| if splits == 1 { parameter } else { 0 };
    let parameters = Tiled {
        invocations: UNCOUNTED,
        in_height: in_height as u32,
        in_width: in_width as u32,
        in_channels: in_channels as u32,
        out_height: taps.of_y[0] as u32,
        out_width: taps.of_y[1] as u32,
        out_channels: channels as u32,
        kernel_height: taps.kernel[0] as u32,
        kernel_width: taps.kernel[1] as u32,
        stride: taps.stride as u32,
        pad_top: taps.padding[0] as u32,
        pad_left: taps.padding[1] as u32,
        has_bias: own(operands.has_bias()),
        rows_per_residual: own(rows_per_residual),
        rows: rows as u32,
        steps: steps.div_ceil(splits) as u32,
        upsample: u32::from(taps.upsample),
    };
    let [x, weight, bias, residual] = operands.reads();
    let reads = [x, weight, bias, if splits == 1 { residual } else { ABSENT }];
    lowering.dispatch(kernel, &[a, b, c, kernel.entry.workgroup as usize], &reads, out, &parameters)?;
    if splits == 1 {
        return Ok(());
    }
    let kernel = SPLIT_SUM.kernel().channels(&[channels]);
    let parameters = SplitSum {
        invocations: UNCOUNTED,
        rows: rows as u32,
        channels: channels as u32,
        splits: splits as u32,
        has_bias: operands.has_bias(),
        rows_per_residual,
    };
    lowering.dispatch(kernel, &[rows, channels.div_ceil(4)], &[out, bias, residual], y, &parameters)
}

/// Returns where a matrix kernel writes, and with how many channels.
///
/// A network's last layer often has three channels. Rather than compile a pipeline for it alone, its rows are padded to a
/// multiple of four (as its weights are) in scratch memory, and [`store_output`] copies what counts.
fn padded_output(
    lowering: &mut Lowering,
    rows: usize,
    in_channels: usize,
    channels: usize,
    operands: Operands,
) -> (Operand, usize) {
    let padded = channels.next_multiple_of(4);
    if padded == channels || !in_channels.is_multiple_of(4) || operands.residual.is_some() {
        return (lowering.y(), channels);
    }
    (lowering.scratch(rows * padded), padded)
}

fn store_output(
    lowering: &mut Lowering,
    out: Operand,
    rows: usize,
    padded: usize,
    channels: usize,
) -> Result<(), Error> {
    if padded == channels {
        return Ok(());
    }
    drop_padding(lowering, out, rows, padded, channels)
}

/// x, weight, bias and residual of a product that can be split: one of a single picture whose result is a node's, since one in
/// scratch memory is laid out otherwise.
fn operands_to_split(dispatch: &Dispatch, bands: Bands) -> Option<[Operand; 4]> {
    let operands = <[Operand; 4]>::try_from(&dispatch.reads[..]).ok()?;
    (bands.one_picture && matches!(dispatch.write, Operand::Node(_))).then_some(operands)
}

/// Some rows of a linear layer.
fn split_linear(dispatch: &Dispatch, bands: Bands) -> Option<Vec<Dispatch>> {
    let whole: Linear = dispatch.parameters();
    let sizes = [whole.rows, whole.in_channels, whole.out_channels, whole.rows_per_residual, whole.invocations];
    split_rows(dispatch, bands, sizes, 16, &|reads, write, rows, invocations| {
        dispatch.with(&reads, write, &Linear { invocations, rows, ..whole })
    })
}

/// Makes a part of a linear layer from its operands, its result, its rows and its invocations.
type RowsPart<'p> = &'p dyn Fn([Operand; 4], Operand, u32, u32) -> Dispatch;

/// Splits a linear layer by rows. Its sizes are rows, input and output channels, rows that share one of the residual, and
/// invocations.
fn split_rows(
    dispatch: &Dispatch,
    bands: Bands,
    sizes: [u32; 5],
    tile_rows: usize,
    part: RowsPart,
) -> Option<Vec<Dispatch>> {
    let [x, weight, bias, residual] = operands_to_split(dispatch, bands)?;
    let [rows, in_channels, channels, rows_per_residual, invocations] = sizes.map(|n| n as usize);
    if rows_per_residual > 1 && rows_per_residual < rows {
        return None;
    }
    let of_line = invocations / rows.div_ceil(tile_rows);
    bands.parts(rows, grain(in_channels).max(grain(channels)), &|range| {
        let residual = if rows_per_residual == 1 { lines(residual, channels, range) } else { residual };
        let reads = [lines(x, in_channels, range), weight, bias, residual];
        let invocations = of_line * range.len().div_ceil(tile_rows);
        part(reads, lines(dispatch.write, channels, range), range.len() as u32, invocations as u32)
    })
}

/// Splits a convolution in registers by lines of the result.
fn split_convolution(dispatch: &Dispatch, bands: Bands) -> Option<Vec<Dispatch>> {
    let whole: Convolution = dispatch.parameters();
    let picture = Picture {
        in_height: whole.in_height as usize,
        in_width: whole.in_width as usize,
        in_channels: whole.in_channels as usize,
        height: whole.out_height as usize,
        y_line: (whole.out_width * whole.out_channels) as usize,
        kernel_height: whole.kernel_height as usize,
        stride: whole.stride as usize,
        pad_top: whole.pad_top as isize,
        upsample: whole.upsample,
        has_residual_lines: whole.residual == 1,
    };
    // A line of tiles is four lines of pixels.
    let tiles = |lines: usize| lines.div_ceil(4) as u32;
    let of_tiles = whole.invocations / tiles(picture.height);
    split_lines(dispatch, bands, picture, &|reads, write, band| {
        let parameters = Convolution {
            invocations: of_tiles * tiles(band.lines.len()),
            in_height: band.in_height as u32,
            out_height: band.lines.len() as u32,
            pad_top: band.pad_top as u32,
            ..whole
        };
        dispatch.with(&reads, write, &parameters)
    })
}

/// Splits a product in workgroup memory: by rows if it is a linear layer, which is a convolution of a picture one line high by a
/// single pixel; else by lines of the result.
fn split_tiled(dispatch: &Dispatch, bands: Bands) -> Option<Vec<Dispatch>> {
    let whole: Tiled = dispatch.parameters();
    let tile = Tile::ALL.into_iter().find(|&tile| dispatch.kernel.is(tile_entry(tile)))?;
    let tile_rows = tile.sizes()[0];
    if [whole.in_height, whole.out_height, whole.kernel_height, whole.kernel_width] == [1; 4] {
        let sizes = [whole.rows, whole.in_channels, whole.out_channels, whole.rows_per_residual, whole.invocations];
        return split_rows(dispatch, bands, sizes, tile_rows, &|reads, write, rows, invocations| {
            let parameters = Tiled { invocations, in_width: rows, out_width: rows, rows, ..whole };
            dispatch.with(&reads, write, &parameters)
        });
    }
    let width = whole.out_width as usize;
    let picture = Picture {
        in_height: whole.in_height as usize,
        in_width: whole.in_width as usize,
        in_channels: whole.in_channels as usize,
        height: whole.out_height as usize,
        y_line: width * whole.out_channels as usize,
        kernel_height: whole.kernel_height as usize,
        stride: whole.stride as usize,
        pad_top: whole.pad_top as isize,
        upsample: whole.upsample,
        has_residual_lines: whole.rows_per_residual == 1,
    };
    let tiles = |lines: usize| (lines * width).div_ceil(tile_rows) as u32;
    let of_tiles = whole.invocations / tiles(picture.height);
    split_lines(dispatch, bands, picture, &|reads, write, band| {
        let parameters = Tiled {
            invocations: of_tiles * tiles(band.lines.len()),
            in_height: band.in_height as u32,
            out_height: band.lines.len() as u32,
            pad_top: band.pad_top as u32,
            rows: (band.lines.len() * width) as u32,
            ..whole
        };
        dispatch.with(&reads, write, &parameters)
    })
}

/// The sizes of a convolution that is to be split.
struct Picture {
    in_height: usize,
    in_width: usize,
    in_channels: usize,
    height: usize,
    /// Numbers of a line of the result.
    y_line: usize,
    kernel_height: usize,
    stride: usize,
    pad_top: isize,
    /// As in the shaders.
    upsample: u32,
    /// Whether the residual has the lines of the result.
    has_residual_lines: bool,
}

/// A part of a convolution.
struct Band<'r> {
    /// Lines of the result.
    lines: &'r Range<usize>,
    /// Lines of the input that it is bound to, as they are addressed.
    in_height: usize,
    /// Lines above the part's first; fewer than none, if more of the input had to be bound.
    pad_top: i32,
}

/// Makes a part of a convolution from its operands and its result.
type LinesPart<'p> = &'p dyn Fn([Operand; 4], Operand, &Band) -> Dispatch;

/// Splits a convolution by lines of the result.
fn split_lines(dispatch: &Dispatch, bands: Bands, picture: Picture, part: LinesPart) -> Option<Vec<Dispatch>> {
    let [x, weight, bias, residual] = operands_to_split(dispatch, bands)?;
    let Picture { upsample, y_line, .. } = picture;
    let x_line = (picture.in_width >> upsample) * picture.in_channels;
    let x_grain = grain(x_line);
    bands.parts(picture.height, grain(y_line), &|range| {
        // What the part's taps touch, in lines of the picture as it is addressed.
        let first = (range.start * picture.stride) as isize - picture.pad_top;
        let end = ((range.end - 1) * picture.stride + picture.kernel_height) as isize - picture.pad_top;
        let stored = picture.in_height >> upsample;
        let from = (first.max(0) as usize >> upsample).min(stored - 1) / x_grain * x_grain;
        let to = (end.max(1) as usize).div_ceil(1 << upsample).clamp(from + 1, stored);
        let pad_top = ((from << upsample) as isize - first) as i32;
        let residual = if picture.has_residual_lines { lines(residual, y_line, range) } else { residual };
        let reads = [lines(x, x_line, &(from..to)), weight, bias, residual];
        let band = Band { lines: range, in_height: (to - from) << upsample, pad_top };
        part(reads, lines(dispatch.write, y_line, range), &band)
    })
}

/// Bytes of four channels of x.
#[cfg(test)]
const QUAD: f64 = 16.0;

/// Bytes of a block of 4 × 4 weights as f16.
#[cfg(test)]
const BLOCK: f64 = 32.0;

#[cfg(test)]
fn work_of_linear(dispatch: &Dispatch) -> Work {
    let p: Linear = dispatch.parameters();
    let quads = f64::from(p.invocations) * f64::from(p.in_channels.div_ceil(4));
    Work { multiply_adds: quads * 16.0 * 8.0 * 4.0, bytes: quads * (16.0 * QUAD + 2.0 * BLOCK) }
}

#[cfg(test)]
fn work_of_conv2d(dispatch: &Dispatch) -> Work {
    let p: Convolution = dispatch.parameters();
    let taps = f64::from(p.kernel_height) * f64::from(p.kernel_width);
    let quads = f64::from(p.invocations) * f64::from(p.in_channels.div_ceil(4)) * taps;
    Work { multiply_adds: quads * 16.0 * 8.0 * 4.0, bytes: quads * (16.0 * QUAD + 2.0 * BLOCK) }
}

#[cfg(test)]
fn work_of_conv3x3(dispatch: &Dispatch) -> Work {
    let p: Convolution = dispatch.parameters();
    let quads = f64::from(p.invocations) * f64::from(p.in_channels.div_ceil(4));
    Work { multiply_adds: quads * 16.0 * 8.0 * 4.0 * 9.0, bytes: 3.0 * quads * (24.0 * QUAD + 6.0 * BLOCK) }
}

#[cfg(test)]
fn work_of_tiled(dispatch: &Dispatch) -> Work {
    let p: Tiled = dispatch.parameters();
    let Some(tile) = Tile::ALL.into_iter().find(|&tile| dispatch.kernel.is(tile_entry(tile))) else {
        return Work::default();
    };
    let [rows, channels] = tile.sizes();
    let steps = f64::from(p.kernel_height * p.kernel_width * p.in_channels.div_ceil(16));
    let tiles = (p.rows as usize).div_ceil(rows) * (p.out_channels as usize).div_ceil(channels);
    let sums = match dispatch.write {
        Operand::Scratch(_) => {
            f64::from(p.rows) * f64::from(p.out_channels) * 4.0 * (steps / f64::from(p.steps)).ceil()
        }
        _ => 0.0,
    };
    let (tile_steps, rows, channels) = (tiles as f64 * steps, rows as f64, channels as f64);
    Work {
        multiply_adds: tile_steps * rows * channels * 16.0,
        bytes: tile_steps * (rows * 4.0 * QUAD + channels * BLOCK) + sums,
    }
}

#[cfg(test)]
fn work_of_split_sum(dispatch: &Dispatch) -> Work {
    let p: SplitSum = dispatch.parameters();
    let sums = f64::from(p.rows) * f64::from(p.channels) * 4.0;
    Work { multiply_adds: 0.0, bytes: sums * (f64::from(p.splits) + 1.0) }
}
