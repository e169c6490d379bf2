//! Convolution and linear layers. Twin of `shaders/conv2d.wgsl`, `shaders/conv3x3.wgsl` and `shaders/linear.wgsl`.
//!
//! A linear layer over `[rows, in]` is a 1×1 convolution of a picture one pixel high, so one loop serves both.

use super::gemm::{Kernel, PANEL, Panels, ROWS, multiply, pack, vectorised};
use super::parallel::for_each_chunk;
use crate::graph::Padding;

/// Sizes of a convolution.
#[derive(Clone, Copy, Debug)]
pub struct Geometry {
    /// Height and width of the input.
    pub input: [usize; 2],
    /// Input channels.
    pub channels: usize,
    /// Height and width of the kernel.
    pub kernel: [usize; 2],
    /// Step between output pixels.
    pub stride: usize,
    /// Zeros around the input.
    pub padding: Padding,
    /// Height and width of the output.
    pub output: [usize; 2],
}

impl Geometry {
    /// A linear layer over `rows` rows of `channels`.
    pub fn linear(rows: usize, channels: usize) -> Self {
        let padding = Padding::default();
        Self { input: [1, rows], channels, kernel: [1, 1], stride: 1, padding, output: [1, rows] }
    }
}

/// What is added to the product.
#[derive(Clone, Copy, Debug)]
pub enum Residual<'a> {
    /// Nothing.
    None,
    /// A value for each output element.
    Full(&'a [f32]),
    /// A value for each picture and channel, `[batch, channels]`.
    PerChannel(&'a [f32]),
}

/// Numbers that stay in a core's second-level cache: 512 KiB.
const CACHED: usize = 1 << 17;

/// `x` is `[batch, height, width, channels]`; `weight` has its rows in the order kernel row, kernel column, input channel.
pub fn convolution(
    geometry: Geometry,
    x: &[f32],
    weight: &Panels,
    bias: Option<&[f32]>,
    residual: Residual,
    out: &mut [f32],
) {
    let columns = weight.columns();
    let pixels = geometry.output[0] * geometry.output[1];
    // A run of output pixels whose inputs stay in the cache while all panels pass over them.
    let run = (CACHED / weight.rows().max(1)).clamp(ROWS, pixels.next_multiple_of(ROWS)) / ROWS * ROWS;
    let taps = geometry.kernel[0] * geometry.kernel[1];
    let work = out.len() * taps * geometry.channels;
    let picture = geometry.input[0] * geometry.input[1] * geometry.channels;
    for (batch, out) in out.chunks_exact_mut(pixels * columns).enumerate() {
        let x = &x[batch * picture..(batch + 1) * picture];
        let residual = match residual {
            Residual::Full(all) => Residual::Full(&all[batch * pixels * columns..]),
            Residual::PerChannel(all) => Residual::PerChannel(&all[batch * columns..(batch + 1) * columns]),
            Residual::None => Residual::None,
        };
        for_each_chunk(out, run * columns, work, |index, out| {
            vectorised(Run { geometry, x, weight, bias, residual, first: index * run, out });
        });
    }
}

/// Consecutive output pixels of one picture.
struct Run<'a> {
    geometry: Geometry,
    x: &'a [f32],
    weight: &'a Panels,
    bias: Option<&'a [f32]>,
    residual: Residual<'a>,
    first: usize,
    out: &'a mut [f32],
}

impl Kernel for Run<'_> {
    #[inline(always)]
    fn run(self) {
        let Geometry { kernel, channels, .. } = self.geometry;
        let (k, columns) = (self.weight.rows(), self.weight.columns());
        let pixels = self.out.len() / columns;
        // What each pixel sees of the input, ROWS pixels to a block; the padding stays zero.
        let mut blocks = vec![0.0; pixels.next_multiple_of(ROWS) * k];
        for (block, packed) in blocks.chunks_exact_mut(ROWS * k).enumerate() {
            for row in 0..ROWS.min(pixels - block * ROWS) {
                for tap in 0..kernel[0] * kernel[1] {
                    if let Some(source) = self.source(self.first + block * ROWS + row, tap) {
                        pack(&mut packed[tap * channels * ROWS..], row, source);
                    }
                }
            }
        }
        for (panel, values) in self.weight.iter().enumerate() {
            for (block, packed) in blocks.chunks_exact(ROWS * k).enumerate() {
                let start = block * ROWS;
                let tile = multiply(packed, values);
                let first_column = panel * PANEL;
                let width = PANEL.min(columns - first_column);
                for (offset, sums) in tile.iter().enumerate().take(pixels - start) {
                    let at = (start + offset) * columns + first_column;
                    let whole = (self.first + start + offset) * columns + first_column;
                    for (column, &sum) in sums[..width].iter().enumerate() {
                        let bias = self.bias.map_or(0.0, |b| b[first_column + column]);
                        let residual = match self.residual {
                            Residual::None => 0.0,
                            Residual::Full(all) => all[whole + column],
                            Residual::PerChannel(all) => all[first_column + column],
                        };
                        self.out[at + column] = sum + bias + residual;
                    }
                }
            }
        }
    }
}

impl Run<'_> {
    /// Channels of the input pixel that the kernel's `tap` sees for output `pixel`; `None` in the padding.
    #[inline(always)]
    fn source(&self, pixel: usize, tap: usize) -> Option<&[f32]> {
        let Geometry { input, channels, kernel, stride, padding, output } = self.geometry;
        let row = (pixel / output[1] * stride + tap / kernel[1]).checked_sub(padding.top)?;
        let column = (pixel % output[1] * stride + tap % kernel[1]).checked_sub(padding.left)?;
        if row >= input[0] || column >= input[1] {
            return None;
        }
        let at = (row * input[1] + column) * channels;
        Some(&self.x[at..at + channels])
    }
}
