//! Resizing and pooling. Twin of `shaders/resample.wgsl`.

use crate::graph::{Padding, Pooling};

/// `x` is `[batch, height, width, channels]`; source index = floor(i · in / out).
pub fn resize_nearest(x: &[f64], from: [usize; 2], to: [usize; 2], channels: usize, out: &mut [f64]) {
    let pictures = x.chunks_exact(from[0] * from[1] * channels).zip(out.chunks_exact_mut(to[0] * to[1] * channels));
    for (x, out) in pictures {
        for (pixel, out) in out.chunks_exact_mut(channels).enumerate() {
            let (row, column) = (pixel / to[1] * from[0] / to[0], pixel % to[1] * from[1] / to[1]);
            out.copy_from_slice(&x[(row * from[1] + column) * channels..][..channels]);
        }
    }
}

/// Bilinear. Where a pixel is taken from is computed in f32, as torch does: it decides between values, not only about their last bits.
pub fn resize_bilinear(x: &[f64], from: [usize; 2], to: [usize; 2], channels: usize, out: &mut [f64]) {
    let position = |index: usize, axis: usize| {
        let scale = from[axis] as f32 / to[axis] as f32;
        let at = f64::from((scale * (index as f32 + 0.5) - 0.5).max(0.0)).min((from[axis] - 1) as f64);
        (at.floor() as usize, at.ceil() as usize, at.fract())
    };
    let pictures = x.chunks_exact(from[0] * from[1] * channels).zip(out.chunks_exact_mut(to[0] * to[1] * channels));
    for (x, out) in pictures {
        for (index, out) in out.iter_mut().enumerate() {
            let (pixel, channel) = (index / channels, index % channels);
            let (top, bottom, down) = position(pixel / to[1], 0);
            let (left, right, across) = position(pixel % to[1], 1);
            let value = |row: usize, column: usize| x[(row * from[1] + column) * channels + channel];
            let in_row = |row| value(row, left) * (1.0 - across) + value(row, right) * across;
            *out = in_row(top) * (1.0 - down) + in_row(bottom) * down;
        }
    }
}

/// Sizes of a pooling.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Height and width of the input.
    pub input: [usize; 2],
    /// Height and width of the kernel.
    pub kernel: [usize; 2],
    /// Step between output pixels.
    pub stride: usize,
    /// Rows and columns by which the kernel reaches beyond the input.
    pub padding: Padding,
    /// Height and width of the output.
    pub output: [usize; 2],
    /// Channels of both.
    pub channels: usize,
}

impl Window {
    /// The pixels of the input that lie under the kernel where it makes `pixel` of the output, all pictures counted through.
    pub fn under(&self, pixel: usize) -> Vec<usize> {
        let Self { input, kernel, stride, padding, output, .. } = *self;
        let (column, row, batch) = (pixel % output[1], pixel / output[1] % output[0], pixel / output[1] / output[0]);
        let mut seen = Vec::new();
        for ky in 0..kernel[0] {
            for kx in 0..kernel[1] {
                // Without a sign, what lies above or to the left is beyond the last row or column.
                let y = (row * stride + ky).wrapping_sub(padding.top);
                let x = (column * stride + kx).wrapping_sub(padding.left);
                if y < input[0] && x < input[1] {
                    seen.push((batch * input[0] + y) * input[1] + x);
                }
            }
        }
        seen
    }
}

/// Maximum or mean of what lies under the kernel and in the picture.
pub fn pool2d(window: Window, pooling: Pooling, x: &[f64], out: &mut [f64]) {
    for (index, out) in out.iter_mut().enumerate() {
        let seen = window.under(index / window.channels);
        let values = seen.iter().map(|pixel| x[pixel * window.channels + index % window.channels]);
        *out = match pooling {
            Pooling::Max => values.fold(f64::NEG_INFINITY, f64::max),
            Pooling::Average => values.sum::<f64>() / seen.len() as f64,
        };
    }
}
