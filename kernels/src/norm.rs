//! Group and layer normalisation.
//!
//! Sums have a fixed order: of a group norm, those of each channel over its pixels; of a layer norm, sixteen that a row's numbers
//! take turns at.

use bytemuck::{Pod, Zeroable};

use crate::activation::activate;
use crate::grid::{MAX_PARTS, cut};
use crate::simd::{MAX_LANES, Simd};
use crate::tile::{load_up_to, store_up_to};
use crate::{Activation, Compute, Float};

/// Numbers that are worth a part of their own.
pub(crate) const WORTH_A_PART: usize = 1 << 14;

/// Channels whose sums are made together: a cache line.
pub(crate) const LINE: usize = MAX_LANES;

/// Groups that a part holds at most.
pub(crate) const MAX_GROUPS: usize = 64;

/// Vectors of a line, of those instruction sets that need most.
pub(crate) const MAX_VECTORS: usize = 4;

/// Pixels that are summed in f32 before they are added to a sum in f64.
pub(crate) const RUN: usize = 64;

/// Group normalisation with affine parameters (biased variance over a group's pixels and channels), then an activation; of x, or of x
/// with x2 behind it along the channels.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct GroupNorm {
    /// `[batch, pixels, channels]`.
    pub x: usize,
    /// `[batch, pixels, channels2]`, or 0 for none.
    pub x2: usize,
    /// `[channels + channels2]`.
    pub weight: usize,
    /// `[channels + channels2]`.
    pub bias: usize,
    /// `[batch, pixels, channels + channels2]`; may be `x` where there is no x2.
    pub out: usize,
    /// Pictures.
    pub batch: usize,
    /// Pixels of a picture.
    pub pixels: usize,
    /// Channels of x.
    pub channels: usize,
    /// Channels of x2; 0 for none.
    pub channels2: usize,
    /// Number of groups of consecutive channels.
    pub groups: usize,
    /// Number added to the variance.
    pub eps: Float,
    /// Activation of the result.
    pub activation: Activation,
}

/// Up to [`LINE`] channels of a picture.
#[derive(Clone, Copy)]
pub(crate) struct Line {
    /// The numbers of the first pixel.
    pub from: *const f32,
    /// Numbers from one pixel to the next.
    pub stride: usize,
    /// The first channel, counted through both inputs.
    pub channel: usize,
    /// Number of channels.
    pub count: usize,
}

/// Iterator over the lines of some channels of a picture.
pub(crate) struct Lines<'a> {
    norm: &'a GroupNorm,
    picture: usize,
    channel: usize,
    end: usize,
}

impl Iterator for Lines<'_> {
    type Item = Line;

    #[inline(always)]
    fn next(&mut self) -> Option<Line> {
        if self.channel >= self.end {
            return None;
        }
        let GroupNorm { x, x2, channels, channels2, pixels, .. } = *self.norm;
        let channel = self.channel;
        let (x, first, stride, end) = if channel < channels {
            (x, channel, channels, channels)
        } else {
            (x2, channel - channels, channels2, channels + channels2)
        };
        let from = (x as *const f32).wrapping_add(self.picture * pixels * stride + first);
        let count = LINE.min(end.min(self.end) - channel);
        self.channel += count;
        Some(Line { from, stride, channel, count })
    }
}

impl GroupNorm {
    pub(crate) fn channels_of_group(&self) -> usize {
        (self.channels + self.channels2) / self.groups.max(1)
    }

    /// Parts of a picture, and groups of a part.
    #[inline(always)]
    fn plan(&self) -> [usize; 2] {
        let work = self.batch * self.pixels * (self.channels + self.channels2);
        let wanted = (work / WORTH_A_PART).clamp(1, MAX_PARTS).div_ceil(self.batch.max(1));
        // Not less than a line, so that two parts seldom write to the same one.
        let least = LINE.div_ceil(self.channels_of_group().max(1));
        let groups = self.groups.div_ceil(wanted).max(least).min(MAX_GROUPS);
        [self.groups.div_ceil(groups), groups]
    }

    pub(crate) fn count_parts(&self) -> usize {
        self.batch * self.plan()[0]
    }

    /// The picture of a part, and its groups, from where to where.
    #[inline(always)]
    pub(crate) fn groups_of_part(&self, part: usize) -> (usize, [usize; 2]) {
        let [parts, groups] = self.plan();
        let first = part % parts * groups;
        (part / parts, [first, (first + groups).min(self.groups)])
    }

    /// The lines of some groups of a picture.
    #[inline(always)]
    pub(crate) fn lines(&self, picture: usize, groups: [usize; 2]) -> Lines<'_> {
        let size = self.channels_of_group();
        Lines { norm: self, picture, channel: groups[0] * size, end: groups[1] * size }
    }
}

impl Compute for GroupNorm {
    #[inline(always)]
    unsafe fn compute<S: Simd>(&self, part: usize) {
        let (picture, groups) = self.groups_of_part(part);
        let size = self.channels_of_group();
        let [means, scales] = self.statistics::<S>(picture, groups);
        for line in self.lines(picture, groups) {
            let means = spread(line, &means, groups[0], size);
            let scales = spread(line, &scales, groups[0], size);
            if line.count == LINE {
                self.normalise::<S, true>(picture, line, &means, &scales);
            } else {
                self.normalise::<S, false>(picture, line, &means, &scales);
            }
        }
    }
}

/// Each group's value at the channels of a line.
#[inline(always)]
pub(crate) fn spread(line: Line, of_groups: &[f32; MAX_GROUPS], first_group: usize, size: usize) -> [f32; LINE] {
    let mut of_channels = [0.0; LINE];
    for index in 0..line.count {
        of_channels[index % LINE] = of_groups[((line.channel + index) / size - first_group) % MAX_GROUPS];
    }
    of_channels
}

/// Vector `index` of a line.
#[inline(always)]
pub(crate) unsafe fn vector<S: Simd, const WHOLE: bool>(from: *const f32, index: usize, count: usize) -> S::Vector {
    let from = from.wrapping_add(index * S::LANES);
    if WHOLE { S::load(from) } else { load_up_to::<S>(from, count.saturating_sub(index * S::LANES)) }
}

impl GroupNorm {
    /// The mean of each of up to [`MAX_GROUPS`] groups of a picture, and 1 / √(variance + eps).
    #[inline(always)]
    pub(crate) unsafe fn statistics<S: Simd>(&self, picture: usize, groups: [usize; 2]) -> [[f32; MAX_GROUPS]; 2] {
        let size = self.channels_of_group();
        let count = (self.pixels * size) as f64;

        // Sums of differences to each channel's first number, which are as exact as the spread allows whatever the mean.
        let mut sums = [0.0f64; MAX_GROUPS];
        for line in self.lines(picture, groups) {
            let mut pivots = [0.0; LINE];
            for index in 0..line.count {
                pivots[index % LINE] = *line.from.add(index);
            }
            let of_channels = self.sums::<S, false>(line, &pivots);
            for index in 0..line.count {
                let group = (line.channel + index) / size - groups[0];
                let pivot = f64::from(pivots[index % LINE]) * self.pixels as f64;
                sums[group % MAX_GROUPS] += of_channels[index % LINE] + pivot;
            }
        }
        let means = sums.map(|sum| (sum / count) as f32);

        let mut sums = [0.0f64; MAX_GROUPS];
        for line in self.lines(picture, groups) {
            let of_channels = self.sums::<S, true>(line, &spread(line, &means, groups[0], size));
            for index in 0..line.count {
                let group = (line.channel + index) / size - groups[0];
                sums[group % MAX_GROUPS] += of_channels[index % LINE];
            }
        }
        let scales = sums.map(|sum| (1.0 / (sum / count + f64::from(self.eps.get())).sqrt()) as f32);
        [means, scales]
    }

    /// The sum over the pixels of each channel of a line, of x − center or of (x − center)².
    #[inline(always)]
    unsafe fn sums<S: Simd, const SQUARES: bool>(&self, line: Line, centers: &[f32; LINE]) -> [f64; LINE] {
        if line.count == LINE {
            self.sums_of_line::<S, SQUARES, true>(line, centers)
        } else {
            self.sums_of_line::<S, SQUARES, false>(line, centers)
        }
    }

    #[inline(always)]
    unsafe fn sums_of_line<S: Simd, const SQUARES: bool, const WHOLE: bool>(
        &self,
        line: Line,
        centers: &[f32; LINE],
    ) -> [f64; LINE] {
        let mut totals = [0.0f64; LINE];
        let mut pixel = 0;
        while pixel < self.pixels {
            let end = (pixel + RUN).min(self.pixels);
            let mut sums = [S::splat(0.0); MAX_VECTORS];
            while pixel < end {
                let from = line.from.add(pixel * line.stride);
                for index in 0..LINE / S::LANES {
                    let center = S::load(centers.as_ptr().add(index * S::LANES));
                    let difference = S::sub(vector::<S, WHOLE>(from, index, line.count), center);
                    sums[index] = if SQUARES {
                        S::mul_add(difference, difference, sums[index])
                    } else {
                        S::add(sums[index], difference)
                    };
                }
                pixel += 1;
            }
            let mut of_run = [0.0; LINE];
            for index in 0..LINE / S::LANES {
                S::store(of_run.as_mut_ptr().add(index * S::LANES), sums[index]);
            }
            for (total, sum) in totals.iter_mut().zip(of_run) {
                *total += f64::from(sum);
            }
        }
        totals
    }

    /// Writes the result of a line.
    #[inline(always)]
    unsafe fn normalise<S: Simd, const WHOLE: bool>(
        &self,
        picture: usize,
        line: Line,
        means: &[f32; LINE],
        scales: &[f32; LINE],
    ) {
        let channels = self.channels + self.channels2;
        let zero = S::splat(0.0);
        let (mut mean, mut scale, mut bias) = ([zero; MAX_VECTORS], [zero; MAX_VECTORS], [zero; MAX_VECTORS]);
        for index in 0..LINE / S::LANES {
            let weight = vector::<S, WHOLE>((self.weight as *const f32).add(line.channel), index, line.count);
            mean[index] = S::load(means.as_ptr().add(index * S::LANES));
            scale[index] = S::mul(S::load(scales.as_ptr().add(index * S::LANES)), weight);
            bias[index] = vector::<S, WHOLE>((self.bias as *const f32).add(line.channel), index, line.count);
        }
        let silu = self.activation == Activation::SILU;
        for pixel in 0..self.pixels {
            let from = line.from.add(pixel * line.stride);
            let out = (self.out as *mut f32).add((picture * self.pixels + pixel) * channels + line.channel);
            for index in 0..LINE / S::LANES {
                let difference = S::sub(vector::<S, WHOLE>(from, index, line.count), mean[index]);
                let mut value = S::mul_add(difference, scale[index], bias[index]);
                if silu {
                    value = crate::math::times_sigmoid::<S>(value, value);
                }
                let to = out.wrapping_add(index * S::LANES);
                if WHOLE {
                    S::store(to, value);
                } else {
                    store_up_to::<S>(to, value, line.count.saturating_sub(index * S::LANES));
                }
            }
            if !silu && self.activation != Activation::NONE {
                activate::<S>(out, out, line.count, self.activation);
            }
        }
    }
}

/// Layer normalisation over rows with affine parameters.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct LayerNorm {
    /// `[rows, channels]`.
    pub x: usize,
    /// `[channels]`.
    pub weight: usize,
    /// `[channels]`.
    pub bias: usize,
    /// `[rows, channels]`; may be `x`.
    pub out: usize,
    /// Rows.
    pub rows: usize,
    /// Numbers of a row.
    pub channels: usize,
    /// Number added to the variance.
    pub eps: Float,
}

impl LayerNorm {
    pub(crate) fn count_parts(&self) -> usize {
        (self.rows * self.channels / WORTH_A_PART).clamp(1, MAX_PARTS.min(self.rows.max(1)))
    }

    /// The mean of a row, and 1 / √(variance + eps).
    #[inline(always)]
    pub(crate) unsafe fn statistics<S: Simd>(&self, row: *const f32) -> [f32; 2] {
        let count = self.channels as f32;
        let pivot = *row;
        let mean = pivot + self.sum::<S, false>(row, pivot) / count;
        let variance = self.sum::<S, true>(row, mean) / count;
        [mean, 1.0 / (variance + self.eps.get()).sqrt()]
    }

    /// The sum of x − center over a row, or of (x − center)².
    #[inline(always)]
    unsafe fn sum<S: Simd, const SQUARES: bool>(&self, row: *const f32, center: f32) -> f32 {
        let mut sums = [S::splat(0.0); MAX_VECTORS];
        let mut channel = 0;
        while channel < self.channels {
            let left = self.channels - channel;
            for index in 0..LINE / S::LANES {
                let left = left.saturating_sub(index * S::LANES);
                let x = load_up_to::<S>(row.wrapping_add(channel + index * S::LANES), left);
                let center =
                    if left >= S::LANES { S::splat(center) } else { S::load_first([center; MAX_LANES].as_ptr(), left) };
                let difference = S::sub(x, center);
                sums[index] = if SQUARES {
                    S::mul_add(difference, difference, sums[index])
                } else {
                    S::add(sums[index], difference)
                };
            }
            channel += LINE;
        }
        let mut lanes = [0.0; LINE];
        for index in 0..LINE / S::LANES {
            S::store(lanes.as_mut_ptr().add(index * S::LANES), sums[index]);
        }
        lanes.iter().sum()
    }
}

impl Compute for LayerNorm {
    #[inline(always)]
    unsafe fn compute<S: Simd>(&self, part: usize) {
        let [start, end] = cut(part, self.count_parts(), self.rows, 1);
        for row in start..end {
            let x = (self.x as *const f32).add(row * self.channels);
            let out = (self.out as *mut f32).add(row * self.channels);
            let [mean, scale] = self.statistics::<S>(x);
            let (mean, scale) = (S::splat(mean), S::splat(scale));
            let mut channel = 0;
            while channel < self.channels {
                let left = self.channels - channel;
                let weight = load_up_to::<S>((self.weight as *const f32).add(channel), left);
                let bias = load_up_to::<S>((self.bias as *const f32).add(channel), left);
                let difference = S::sub(load_up_to::<S>(x.add(channel), left), mean);
                let value = S::mul_add(S::mul(difference, scale), weight, bias);
                store_up_to::<S>(out.add(channel), value, left);
                channel += S::LANES;
            }
        }
    }
}
