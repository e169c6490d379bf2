//! Residual blocks and their sampling layers (diffusers' `ResnetBlock2D`, `Downsample2D`, `Upsample2D`).

use crate::graph::{Activation, Conv2dOptions, Error, NodeId, Padding, Pool2dOptions, Scope};

/// The options that all residual blocks of a network share.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ResnetOptions {
    /// `norm_num_groups`.
    pub groups: usize,
    /// `norm_eps`.
    pub eps: f32,
    /// `act_fn`.
    pub activation: Activation,
    /// True if `resnet_time_scale_shift` is `scale_shift` rather than `default`.
    pub scale_shift: bool,
    /// `output_scale_factor`.
    pub output_scale_factor: f32,
}

/// A change of resolution inside a residual block.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Resample {
    /// Half the height and width, by means of 2×2 pixels.
    Down,
    /// This height and width, by nearest neighbour.
    Up(usize, usize),
}

impl ResnetOptions {
    /// `ResnetBlock2D`; `x` is `[batch, height, width, channels]`, `temb` the time embedding after its activation, `[batch, time_embed_dim]`.
    pub fn block(
        &self,
        scope: &Scope,
        x: NodeId,
        temb: Option<NodeId>,
        out_channels: usize,
        resample: Option<Resample>,
    ) -> Result<NodeId, Error> {
        let norm = |name, h| scope.at(name).group_norm(h, self.groups, self.eps);
        let resampled = |h| match resample {
            None => Ok(h),
            Some(Resample::Down) => scope.pool2d(h, Pool2dOptions::average(2, 2)),
            Some(Resample::Up(height, width)) => scope.resize_nearest(h, height, width),
        };
        let h = scope.activate(norm("norm1", x)?, self.activation)?;
        let mut h = scope.at("conv1").conv2d(resampled(h)?, Conv2dOptions::same(out_channels, 3))?;
        match temb {
            None => h = norm("norm2", h)?,
            Some(temb) => {
                let batch = scope.shape(temb)[0];
                let width = if self.scale_shift { 2 * out_channels } else { out_channels };
                let temb = scope.at("time_emb_proj").linear(temb, width, true)?;
                let temb = scope.reshape(temb, &[batch, 1, 1, width])?;
                if self.scale_shift {
                    let scale = scope.affine(scope.slice(temb, 3, 0, out_channels)?, 1.0, 1.0)?;
                    let shift = scope.slice(temb, 3, out_channels, out_channels)?;
                    h = scope.add(scope.mul(norm("norm2", h)?, scale)?, shift)?;
                } else {
                    h = norm("norm2", scope.add(h, temb)?)?;
                }
            }
        }
        let h = scope.activate(h, self.activation)?;
        let h = scope.at("conv2").conv2d(h, Conv2dOptions::same(out_channels, 3))?;
        let mut shortcut = resampled(x)?;
        if scope.shape(x)[3] != out_channels {
            shortcut = scope.at("conv_shortcut").linear(shortcut, out_channels, true)?;
        }
        let sum = scope.add(shortcut, h)?;
        if self.output_scale_factor == 1.0 { Ok(sum) } else { scope.affine(sum, 1.0 / self.output_scale_factor, 0.0) }
    }
}

/// `Downsample2D` with a convolution; padding 0 stands for one row and column of zeros at the bottom right.
pub fn downsample_2d(scope: &Scope, x: NodeId, padding: usize) -> Result<NodeId, Error> {
    let out_channels = scope.shape(x)[3];
    let padding = if padding == 0 { Padding::bottom_right() } else { Padding::same(padding) };
    scope.at("conv").conv2d(x, Conv2dOptions { stride: 2, padding, ..Conv2dOptions::same(out_channels, 3) })
}

/// `Upsample2D` with a convolution, to `height`×`width`.
pub fn upsample_2d(scope: &Scope, x: NodeId, [height, width]: [usize; 2]) -> Result<NodeId, Error> {
    let out_channels = scope.shape(x)[3];
    let x = scope.resize_nearest(x, height, width)?;
    scope.at("conv").conv2d(x, Conv2dOptions::same(out_channels, 3))
}
