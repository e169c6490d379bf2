//! Gradients of group and layer normalisation.
//!
//! Sums over the batch are made in two steps, as parts share them: [`NormGradient`] leaves partial ones, of a picture each or, where
//! pictures are single rows, of some rows each, and [`NormSums`] adds those up. Sums have a fixed order: those of each channel over its
//! pixels or rows; over the channels of a row, sixteen that its numbers take turns at.

use bytemuck::{Pod, Zeroable};

use crate::gradient::slope::{silu, slopes};
use crate::grid::{MAX_PARTS, cut};
use crate::norm::{GroupNorm, LINE, LayerNorm, Line, MAX_GROUPS, MAX_VECTORS, RUN, WORTH_A_PART, spread, vector};
use crate::simd::Simd;
use crate::tile::{load_up_to, store_up_to};
use crate::{Activation, Compute, Float};

/// Gradients of y = act(weight · x̂ + bias), where x̂ is x normalised over a group's pixels and channels (biased variance), for the
/// gradient of what follows with respect to y. Layer normalisation is the case of one pixel and one group, with rows for pictures.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct NormGradient {
    /// `[batch, pixels, channels]`: what was normalised.
    pub x: usize,
    /// `[batch, pixels, channels]`: the gradient with respect to y.
    pub upstream: usize,
    /// `[channels]`.
    pub weight: usize,
    /// `[channels]`; not read where there is no activation.
    pub bias: usize,
    /// `[batch * pixels + 2, channels]`: the gradient with respect to x, then rows for those with respect to weight and bias, which
    /// [`NormSums`] writes.
    pub out: usize,
    /// [`NormGradient::scratch_len`] numbers, which [`NormSums`] reads.
    pub scratch: usize,
    /// Pictures.
    pub batch: usize,
    /// Pixels of a picture.
    pub pixels: usize,
    /// Channels.
    pub channels: usize,
    /// Number of groups of consecutive channels.
    pub groups: usize,
    /// Number added to the variance.
    pub eps: Float,
    /// Activation of the norm's result.
    pub activation: Activation,
}

/// Rows that share partial sums where pictures are single rows.
const ROWS: usize = 32;

impl NormGradient {
    /// Whether it is a layer norm's.
    #[inline(always)]
    fn of_rows(&self) -> bool {
        self.pixels == 1 && self.groups == 1
    }

    /// The norm, as far as its statistics go.
    #[inline(always)]
    fn group_norm(&self) -> GroupNorm {
        GroupNorm {
            x: self.x,
            x2: 0,
            weight: self.weight,
            bias: self.bias,
            out: 0,
            batch: self.batch,
            pixels: self.pixels,
            channels: self.channels,
            channels2: 0,
            groups: self.groups,
            eps: self.eps,
            activation: self.activation,
        }
    }

    /// The norm where pictures are single rows, as far as its statistics go.
    #[inline(always)]
    fn layer_norm(&self) -> LayerNorm {
        let Self { x, weight, bias, batch: rows, channels, eps, .. } = *self;
        LayerNorm { x, weight, bias, out: 0, rows, channels, eps }
    }

    /// Number of partial sums.
    #[inline(always)]
    fn partials(&self) -> usize {
        if self.of_rows() { self.batch.div_ceil(ROWS) } else { self.batch }
    }

    /// Numbers of scratch memory that it needs: `[partial sums, 2, channels]`.
    pub fn scratch_len(&self) -> usize {
        self.partials() * 2 * self.channels
    }

    /// The job that is to follow: what completes the gradients with respect to weight and bias.
    pub fn sums(&self) -> NormSums {
        let Self { scratch, out, batch, pixels, channels, .. } = *self;
        NormSums { scratch, out, partials: self.partials(), rows: batch * pixels, channels }
    }

    pub(crate) fn count_parts(&self) -> usize {
        if self.of_rows() {
            (self.batch * self.channels / WORTH_A_PART).clamp(1, MAX_PARTS.min(self.partials().max(1)))
        } else {
            self.group_norm().count_parts()
        }
    }
}

impl Compute for NormGradient {
    #[inline(always)]
    unsafe fn compute<S: Simd>(&self, part: usize) {
        if self.of_rows() {
            let [start, end] = cut(part, self.count_parts(), self.partials(), 1);
            for partial in start..end {
                self.rows::<S>(partial);
            }
            return;
        }
        let norm = self.group_norm();
        let (picture, [mut group, last]) = norm.groups_of_part(part);
        // As few groups at a time as fill whole lines, so that their numbers stay in the caches from one pass to the next.
        let step = LINE >> norm.channels_of_group().trailing_zeros().min(LINE.trailing_zeros());
        while group < last {
            let end = (group + step).min(last);
            self.groups::<S>(&norm, picture, [group, end]);
            group = end;
        }
    }
}

/// What the gradient with respect to x takes from each channel of a line, or group: the mean, 1 / √(variance + eps), and the means of
/// weight · g and of weight · g · x̂ for g = upstream · act′.
#[derive(Clone, Copy)]
struct Statistics<const N: usize> {
    mean: [f32; N],
    scale: [f32; N],
    gradient: [f32; N],
    product: [f32; N],
}

impl Statistics<MAX_GROUPS> {
    /// Those of the channels of a line.
    #[inline(always)]
    fn spread(&self, line: Line, first_group: usize, size: usize) -> Statistics<LINE> {
        Statistics {
            mean: spread(line, &self.mean, first_group, size),
            scale: spread(line, &self.scale, first_group, size),
            gradient: spread(line, &self.gradient, first_group, size),
            product: spread(line, &self.product, first_group, size),
        }
    }
}

impl NormGradient {
    /// Computes some groups of a picture.
    #[inline(always)]
    unsafe fn groups<S: Simd>(&self, norm: &GroupNorm, picture: usize, groups: [usize; 2]) {
        let size = norm.channels_of_group();
        let count = (self.pixels * size) as f64;
        let [mean, scale] = norm.statistics::<S>(picture, groups);
        let mut statistics = Statistics { mean, scale, gradient: [0.0; MAX_GROUPS], product: [0.0; MAX_GROUPS] };
        let mut sums = [[0.0f64; MAX_GROUPS]; 2];
        for line in norm.lines(picture, groups) {
            let of_line = statistics.spread(line, groups[0], size);
            let [gradients, products] = if line.count == LINE {
                self.sums_of_line::<S, true>(picture, line, &of_line)
            } else {
                self.sums_of_line::<S, false>(picture, line, &of_line)
            };
            let weight = (self.weight as *const f32).add(line.channel);
            let of_weight = (self.scratch as *mut f32).add(picture * 2 * self.channels + line.channel);
            let of_bias = of_weight.add(self.channels);
            for index in 0..line.count {
                let group = ((line.channel + index) / size - groups[0]) % MAX_GROUPS;
                let (gradient, product) = (gradients[index % LINE], products[index % LINE]);
                *of_weight.add(index) = product as f32;
                *of_bias.add(index) = gradient as f32;
                sums[0][group] += f64::from(*weight.add(index)) * gradient;
                sums[1][group] += f64::from(*weight.add(index)) * product;
            }
        }
        for group in 0..MAX_GROUPS {
            statistics.gradient[group] = (sums[0][group] / count) as f32;
            statistics.product[group] = (sums[1][group] / count) as f32;
        }
        for line in norm.lines(picture, groups) {
            let of_line = statistics.spread(line, groups[0], size);
            if line.count == LINE {
                self.write_line::<S, true>(picture, line, &of_line);
            } else {
                self.write_line::<S, false>(picture, line, &of_line);
            }
        }
    }

    /// Numbers that lie before a line's first one in the tensors.
    #[inline(always)]
    fn offset(&self, picture: usize, line: Line) -> usize {
        picture * self.pixels * self.channels + line.channel
    }

    /// The sums over the pixels of each channel of a line, of g and of g · x̂. Where there is an activation, g is left in `out`.
    #[inline(always)]
    unsafe fn sums_of_line<S: Simd, const WHOLE: bool>(
        &self,
        picture: usize,
        line: Line,
        statistics: &Statistics<LINE>,
    ) -> [[f64; LINE]; 2] {
        let zero = S::splat(0.0);
        let (mut mean, mut scale) = ([zero; MAX_VECTORS], [zero; MAX_VECTORS]);
        let (mut weight, mut bias) = ([zero; MAX_VECTORS], [zero; MAX_VECTORS]);
        let active = self.activation != Activation::NONE;
        for index in 0..LINE / S::LANES {
            mean[index] = S::load(statistics.mean.as_ptr().add(index * S::LANES));
            scale[index] = S::load(statistics.scale.as_ptr().add(index * S::LANES));
            if active {
                weight[index] = vector::<S, WHOLE>((self.weight as *const f32).add(line.channel), index, line.count);
                bias[index] = vector::<S, WHOLE>((self.bias as *const f32).add(line.channel), index, line.count);
            }
        }
        let upstream = (self.upstream as *const f32).add(self.offset(picture, line));
        let out = (self.out as *mut f32).add(self.offset(picture, line));
        let silu_follows = self.activation == Activation::SILU;
        let mut totals = [[0.0f64; LINE]; 2];
        let mut pixel = 0;
        while pixel < self.pixels {
            let end = (pixel + RUN).min(self.pixels);
            let (mut gradients, mut products) = ([zero; MAX_VECTORS], [zero; MAX_VECTORS]);
            while pixel < end {
                let x = line.from.add(pixel * line.stride);
                let upstream = upstream.add(pixel * line.stride);
                let out = out.add(pixel * line.stride);
                // Slopes of other activations than SiLU, whose function is not worth a copy of this loop each.
                let mut others = [0.0; LINE];
                if active && !silu_follows {
                    for index in 0..LINE / S::LANES {
                        let difference = S::sub(vector::<S, WHOLE>(x, index, line.count), mean[index]);
                        let y = S::mul_add(S::mul(difference, scale[index]), weight[index], bias[index]);
                        S::store(others.as_mut_ptr().add(index * S::LANES), y);
                    }
                    slopes::<S>(others.as_ptr(), others.as_mut_ptr(), LINE, self.activation);
                }
                for index in 0..LINE / S::LANES {
                    let difference = S::sub(vector::<S, WHOLE>(x, index, line.count), mean[index]);
                    let normal = S::mul(difference, scale[index]);
                    let mut gradient = vector::<S, WHOLE>(upstream, index, line.count);
                    if active {
                        let slope = if silu_follows {
                            silu::<S>(S::mul_add(normal, weight[index], bias[index]))
                        } else {
                            S::load(others.as_ptr().add(index * S::LANES))
                        };
                        gradient = S::mul(gradient, slope);
                        write_vector::<S, WHOLE>(out, index, line.count, gradient);
                    }
                    gradients[index] = S::add(gradients[index], gradient);
                    products[index] = S::mul_add(gradient, normal, products[index]);
                }
                pixel += 1;
            }
            let mut of_run = [[0.0; LINE]; 2];
            for index in 0..LINE / S::LANES {
                S::store(of_run[0].as_mut_ptr().add(index * S::LANES), gradients[index]);
                S::store(of_run[1].as_mut_ptr().add(index * S::LANES), products[index]);
            }
            for (totals, of_run) in totals.iter_mut().zip(&of_run) {
                for (total, sum) in totals.iter_mut().zip(of_run) {
                    *total += f64::from(*sum);
                }
            }
        }
        totals
    }

    /// Writes the gradient with respect to the numbers of a line.
    #[inline(always)]
    unsafe fn write_line<S: Simd, const WHOLE: bool>(&self, picture: usize, line: Line, statistics: &Statistics<LINE>) {
        let zero = S::splat(0.0);
        let (mut mean, mut scale) = ([zero; MAX_VECTORS], [zero; MAX_VECTORS]);
        let (mut weight, mut gradient, mut product) = ([zero; MAX_VECTORS], [zero; MAX_VECTORS], [zero; MAX_VECTORS]);
        for index in 0..LINE / S::LANES {
            weight[index] = vector::<S, WHOLE>((self.weight as *const f32).add(line.channel), index, line.count);
            mean[index] = S::load(statistics.mean.as_ptr().add(index * S::LANES));
            scale[index] = S::load(statistics.scale.as_ptr().add(index * S::LANES));
            gradient[index] = S::load(statistics.gradient.as_ptr().add(index * S::LANES));
            product[index] = S::load(statistics.product.as_ptr().add(index * S::LANES));
        }
        let out = (self.out as *mut f32).add(self.offset(picture, line));
        let from = self.gradients(self.offset(picture, line));
        for pixel in 0..self.pixels {
            let x = line.from.add(pixel * line.stride);
            let from = from.add(pixel * line.stride);
            let out = out.add(pixel * line.stride);
            for index in 0..LINE / S::LANES {
                let difference = S::sub(vector::<S, WHOLE>(x, index, line.count), mean[index]);
                let normal = S::mul(difference, scale[index]);
                let weighted = S::mul(vector::<S, WHOLE>(from, index, line.count), weight[index]);
                let rest = S::sub(S::sub(weighted, gradient[index]), S::mul(normal, product[index]));
                write_vector::<S, WHOLE>(out, index, line.count, S::mul(rest, scale[index]));
            }
        }
    }

    /// Where g is from the number `offset` on: what `out` has been left, if there is an activation.
    #[inline(always)]
    unsafe fn gradients(&self, offset: usize) -> *const f32 {
        let from = if self.activation == Activation::NONE { self.upstream } else { self.out };
        (from as *const f32).add(offset)
    }
}

/// Writes vector `index` of a line.
#[inline(always)]
unsafe fn write_vector<S: Simd, const WHOLE: bool>(to: *mut f32, index: usize, count: usize, value: S::Vector) {
    let to = to.wrapping_add(index * S::LANES);
    if WHOLE {
        S::store(to, value);
    } else {
        store_up_to::<S>(to, value, count.saturating_sub(index * S::LANES));
    }
}

impl NormGradient {
    /// Computes the rows that share partial sum `partial`.
    #[inline(always)]
    unsafe fn rows<S: Simd>(&self, partial: usize) {
        let norm = self.layer_norm();
        let of_weight = (self.scratch as *mut f32).add(partial * 2 * self.channels);
        for index in 0..2 * self.channels {
            *of_weight.add(index) = 0.0;
        }
        for row in partial * ROWS..((partial + 1) * ROWS).min(self.batch) {
            let [mean, scale] = norm.statistics::<S>((self.x as *const f32).add(row * self.channels));
            self.row::<S>(row, S::splat(mean), S::splat(scale), of_weight);
        }
    }

    /// Computes a row, and adds to the sums `[2, channels]` from `of_weight` on.
    #[inline(always)]
    unsafe fn row<S: Simd>(&self, row: usize, mean: S::Vector, scale: S::Vector, of_weight: *mut f32) {
        let x = (self.x as *const f32).add(row * self.channels);
        let out = (self.out as *mut f32).add(row * self.channels);
        let (weight, bias) = (self.weight as *const f32, self.bias as *const f32);
        if self.activation != Activation::NONE {
            let mut channel = 0;
            while channel < self.channels {
                let left = self.channels - channel;
                let normal = S::mul(S::sub(load_up_to::<S>(x.add(channel), left), mean), scale);
                let weight = load_up_to::<S>(weight.add(channel), left);
                let y = S::mul_add(normal, weight, load_up_to::<S>(bias.add(channel), left));
                store_up_to::<S>(out.add(channel), y, left);
                channel += S::LANES;
            }
            slopes::<S>(out, out, self.channels, self.activation);
            let upstream = (self.upstream as *const f32).add(row * self.channels);
            let mut channel = 0;
            while channel < self.channels {
                let left = self.channels - channel;
                let slope = load_up_to::<S>(out.add(channel), left);
                let gradient = S::mul(load_up_to::<S>(upstream.add(channel), left), slope);
                store_up_to::<S>(out.add(channel), gradient, left);
                channel += S::LANES;
            }
        }
        let from = self.gradients(row * self.channels);

        let zero = S::splat(0.0);
        let (mut gradients, mut products) = ([zero; MAX_VECTORS], [zero; MAX_VECTORS]);
        let mut channel = 0;
        while channel < self.channels {
            for index in 0..LINE / S::LANES {
                let at = channel + index * S::LANES;
                let left = self.channels.saturating_sub(at);
                let normal = S::mul(S::sub(load_up_to::<S>(x.wrapping_add(at), left), mean), scale);
                let gradient = load_up_to::<S>(from.wrapping_add(at), left);
                let weighted = S::mul(gradient, load_up_to::<S>(weight.wrapping_add(at), left));
                gradients[index] = S::add(gradients[index], weighted);
                products[index] = S::mul_add(weighted, normal, products[index]);
            }
            channel += LINE;
        }
        let count = self.channels as f64;
        let gradient_mean = S::splat((total::<S>(&gradients) / count) as f32);
        let product_mean = S::splat((total::<S>(&products) / count) as f32);

        let of_bias = of_weight.add(self.channels);
        let mut channel = 0;
        while channel < self.channels {
            let left = self.channels - channel;
            let normal = S::mul(S::sub(load_up_to::<S>(x.add(channel), left), mean), scale);
            let gradient = load_up_to::<S>(from.add(channel), left);
            let weighted = S::mul(gradient, load_up_to::<S>(weight.add(channel), left));
            let rest = S::sub(S::sub(weighted, gradient_mean), S::mul(normal, product_mean));
            store_up_to::<S>(out.add(channel), S::mul(rest, scale), left);
            let (of_weight, of_bias) = (of_weight.add(channel), of_bias.add(channel));
            store_up_to::<S>(of_weight, S::mul_add(gradient, normal, load_up_to::<S>(of_weight, left)), left);
            store_up_to::<S>(of_bias, S::add(load_up_to::<S>(of_bias, left), gradient), left);
            channel += S::LANES;
        }
    }
}

/// The sum of the lanes of a line, in their order.
#[inline(always)]
unsafe fn total<S: Simd>(sums: &[S::Vector; MAX_VECTORS]) -> f64 {
    let mut lanes = [0.0; LINE];
    for index in 0..LINE / S::LANES {
        S::store(lanes.as_mut_ptr().add(index * S::LANES), sums[index]);
    }
    let mut total = 0.0;
    for lane in lanes {
        total += f64::from(lane);
    }
    total
}

/// The end of a [`NormGradient`]: its partial sums added up.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct NormSums {
    /// `[partials, 2, channels]`.
    pub scratch: usize,
    /// `[rows + 2, channels]`, of which the last two rows are written.
    pub out: usize,
    /// Number of partial sums.
    pub partials: usize,
    /// Rows before the sums.
    pub rows: usize,
    /// Channels.
    pub channels: usize,
}

impl NormSums {
    pub(crate) fn count_parts(&self) -> usize {
        let columns = 2 * self.channels;
        (self.partials * columns / WORTH_A_PART).clamp(1, MAX_PARTS.min(columns.div_ceil(LINE).max(1)))
    }
}

impl Compute for NormSums {
    #[inline(always)]
    unsafe fn compute<S: Simd>(&self, part: usize) {
        let columns = 2 * self.channels;
        let [mut column, end] = cut(part, self.count_parts(), columns, LINE);
        while column < end {
            let count = LINE.min(end - column);
            let mut totals = [0.0f64; LINE];
            for partial in 0..self.partials {
                let from = (self.scratch as *const f32).add(partial * columns + column);
                for index in 0..count {
                    totals[index % LINE] += f64::from(*from.add(index));
                }
            }
            let out = (self.out as *mut f32).add(self.rows * self.channels + column);
            for index in 0..count {
                *out.add(index) = totals[index % LINE] as f32;
            }
            column += count;
        }
    }
}
