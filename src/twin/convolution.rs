//! Convolution and linear layers. Twin of `shaders/conv2d.wgsl`, `shaders/conv3x3.wgsl` and `shaders/linear.wgsl`.

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
    /// Output channels.
    pub out_channels: usize,
}

/// The values that are added to the product.
#[derive(Clone, Copy, Debug)]
pub enum Residual<'a> {
    /// No values.
    None,
    /// A value for each output element.
    Full(&'a [f64]),
    /// A value for each picture and channel, `[batch, channels]`.
    PerChannel(&'a [f64]),
}

/// `x` is `[batch, height, width, channels]`, `weight` `[out_channels, channels, kernel height, kernel width]`.
pub fn convolution(
    geometry: Geometry,
    x: &[f64],
    weight: &[f64],
    bias: Option<&[f64]>,
    residual: Residual,
    out: &mut [f64],
) {
    let Geometry { input, channels, kernel, stride, padding, output, out_channels } = geometry;
    for (index, out) in out.iter_mut().enumerate() {
        let (n, pixel) = (index % out_channels, index / out_channels);
        let (column, row, batch) = (pixel % output[1], pixel / output[1] % output[0], pixel / output[1] / output[0]);
        let mut sum = 0.0;
        for ky in 0..kernel[0] {
            for kx in 0..kernel[1] {
                // Without a sign, what lies above or to the left is beyond the last row or column.
                let y = (row * stride + ky).wrapping_sub(padding.top);
                let x_at = (column * stride + kx).wrapping_sub(padding.left);
                if y >= input[0] || x_at >= input[1] {
                    continue;
                }
                for c in 0..channels {
                    let value = x[((batch * input[0] + y) * input[1] + x_at) * channels + c];
                    let factor = weight[((n * channels + c) * kernel[0] + ky) * kernel[1] + kx];
                    sum += value * factor;
                }
            }
        }
        let added = match residual {
            Residual::None => 0.0,
            Residual::Full(all) => all[index],
            Residual::PerChannel(all) => all[batch * out_channels + n],
        };
        *out = sum + bias.map_or(0.0, |bias| bias[n]) + added;
    }
}

/// x Wᵀ: `x` is `[rows, in_features]`, `weight` `[out_features, in_features]`; bias and residual as of a convolution.
pub fn linear(
    in_features: usize,
    out_features: usize,
    x: &[f64],
    weight: &[f64],
    bias: Option<&[f64]>,
    residual: Residual,
    out: &mut [f64],
) {
    let geometry = Geometry {
        input: [1, x.len() / in_features],
        channels: in_features,
        kernel: [1, 1],
        stride: 1,
        padding: Padding::default(),
        output: [1, x.len() / in_features],
        out_channels: out_features,
    };
    convolution(geometry, x, weight, bias, residual, out);
}
