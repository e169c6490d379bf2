//! What the weights of convolutions and linear layers get, and their weights turned for what their inputs get.

use bytemuck::{Pod, Zeroable};

use crate::grid::{MAX_PARTS, WORTH_A_PART, cut};
use crate::simd::Simd;
use crate::tile::{MAX_ROWS, Sums, load_up_to, panel, store_up_to, zeros};
use crate::{Compute, memory};

/// dL/dW of a convolution, tap by tap; of a linear layer, if there is one line of pixels and one tap.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct WeightGradient {
    /// `[batch, height, width, in_channels]`.
    pub x: usize,
    /// `[batch, out_height, out_width, out_channels]`.
    pub upstream: usize,
    /// `[kernel_height * kernel_width, out_channels, in_channels]`.
    pub out: usize,
    /// Pictures.
    pub batch: usize,
    /// Height of the input.
    pub height: usize,
    /// Width of the input.
    pub width: usize,
    /// Channels of x.
    pub in_channels: usize,
    /// Height of the kernel.
    pub kernel_height: usize,
    /// Width of the kernel.
    pub kernel_width: usize,
    /// Step between pixels of the result, both axes.
    pub stride: usize,
    /// Rows of zeros above the input.
    pub padding_top: usize,
    /// Columns of zeros to the left.
    pub padding_left: usize,
    /// Height of the result.
    pub out_height: usize,
    /// Width of the result.
    pub out_width: usize,
    /// Channels of the result.
    pub out_channels: usize,
}

/// Pixels whose products are summed in registers before they are added to memory: of as many, both tensors' rows stay in the caches.
const PIXELS: usize = 256;

/// Rows of the weight that a part has at least.
const LEAST_ROWS: usize = 16;

/// A piece of the weight at one tap that registers hold.
#[derive(Clone, Copy)]
struct Tile {
    /// The tap's row and column in the kernel.
    down: usize,
    right: usize,
    /// The first output channel, and where they end.
    first: usize,
    end: usize,
    /// The first input channel.
    column: usize,
}

impl WeightGradient {
    fn taps(&self) -> usize {
        self.kernel_height * self.kernel_width
    }

    fn pixels(&self) -> usize {
        self.batch * self.out_height * self.out_width
    }

    /// Parts of each tap.
    fn cuts(&self) -> usize {
        let of_tap = self.out_channels * self.in_channels / (WORTH_A_PART / self.pixels().clamp(1, WORTH_A_PART));
        let wanted = of_tap.saturating_mul(self.taps()).clamp(1, MAX_PARTS).div_ceil(self.taps().max(1));
        wanted.min(self.out_channels.div_ceil(LEAST_ROWS)).max(1)
    }

    pub(crate) fn count_parts(&self) -> usize {
        self.taps() * self.cuts()
    }
}

impl Compute for WeightGradient {
    #[inline(always)]
    unsafe fn compute<S: Simd>(&self, part: usize) {
        let (tap, cuts) = (part / self.cuts(), self.cuts());
        let [start, end] = cut(part % cuts, cuts, self.out_channels, 8);
        let (down, right) = (tap / self.kernel_width, tap % self.kernel_width);
        let out = (self.out as *mut f32).add(tap * self.out_channels * self.in_channels);
        let mut pixel = 0;
        while pixel < self.pixels() {
            let pixels = [pixel, (pixel + PIXELS).min(self.pixels())];
            let mut first = start;
            while first < end {
                let mut column = 0;
                while column < self.in_channels {
                    let tile = Tile { down, right, first, end, column };
                    let left = self.in_channels - column;
                    if left >= panel::<S>() {
                        self.add::<S, true, true>(tile, pixels, out);
                    } else if left > S::LANES {
                        self.add::<S, true, false>(tile, pixels, out);
                    } else if left == S::LANES {
                        self.add::<S, false, true>(tile, pixels, out);
                    } else {
                        self.add::<S, false, false>(tile, pixels, out);
                    }
                    column += panel::<S>();
                }
                first += S::ROWS;
            }
            pixel = pixels[1];
        }
    }
}

impl WeightGradient {
    /// Adds what some pixels contribute to a tile; the first of them begin it.
    #[inline(always)]
    unsafe fn add<S: Simd, const WIDE: bool, const WHOLE: bool>(
        &self,
        tile: Tile,
        [start, end]: [usize; 2],
        out: *mut f32,
    ) {
        let mut sums: Sums<S::Vector> = zeros::<S>();
        let left = self.in_channels - tile.column;
        let (top, first_column) =
            (tile.down.wrapping_sub(self.padding_top), tile.right.wrapping_sub(self.padding_left));
        // The pixels of a line under which this tap is not in the padding.
        let skipped = self.padding_left.saturating_sub(tile.right).div_ceil(self.stride);
        let reach = (self.width + self.padding_left).saturating_sub(tile.right).div_ceil(self.stride);
        let mut line = start / self.out_width;
        while line * self.out_width < end {
            let before = line * self.out_width;
            let from = start.saturating_sub(before).max(skipped);
            let to = (end - before).min(self.out_width).min(reach);
            let row = (line % self.out_height * self.stride).wrapping_add(top);
            if row < self.height && from < to {
                let picture = line / self.out_height;
                let at = (picture * self.height + row) * self.width + (from * self.stride).wrapping_add(first_column);
                let mut x = (self.x as *const f32).add(at * self.in_channels + tile.column);
                let mut upstream = (self.upstream as *const f32).add((before + from) * self.out_channels + tile.first);
                // Rows beyond the last are the last again, and not kept.
                let mut rows = [0; MAX_ROWS];
                for (index, row) in rows[..S::ROWS].iter_mut().enumerate() {
                    *row = index.min(tile.end - 1 - tile.first);
                }
                for _ in from..to {
                    let first = load::<S, WHOLE, WIDE>(x, left);
                    let second = if WIDE { load_second::<S, WHOLE>(x, left) } else { first };
                    for index in 0..S::ROWS {
                        let factor = S::splat(*upstream.add(rows[index]));
                        sums[index][0] = S::mul_add(factor, first, sums[index][0]);
                        if WIDE {
                            sums[index][1] = S::mul_add(factor, second, sums[index][1]);
                        }
                    }
                    x = x.wrapping_add(self.stride * self.in_channels);
                    upstream = upstream.wrapping_add(self.out_channels);
                }
            }
            line += 1;
        }
        for index in 0..S::ROWS {
            if tile.first + index < tile.end {
                let at = out.add((tile.first + index) * self.in_channels + tile.column);
                accumulate::<S>(at, sums[index][0], left, start == 0);
                if WIDE {
                    accumulate::<S>(at.wrapping_add(S::LANES), sums[index][1], left - S::LANES, start == 0);
                }
            }
        }
    }
}

/// The first vector of a panel of which `left` numbers are there.
#[inline(always)]
unsafe fn load<S: Simd, const WHOLE: bool, const WIDE: bool>(from: *const f32, left: usize) -> S::Vector {
    if WHOLE || WIDE { S::load(from) } else { S::load_first(from, left) }
}

/// The second vector.
#[inline(always)]
unsafe fn load_second<S: Simd, const WHOLE: bool>(from: *const f32, left: usize) -> S::Vector {
    if WHOLE { S::load(from.add(S::LANES)) } else { S::load_first(from.add(S::LANES), left - S::LANES) }
}

/// Adds a vector to the `left` numbers that are at `to`, or writes it there.
#[inline(always)]
unsafe fn accumulate<S: Simd>(to: *mut f32, value: S::Vector, left: usize, is_first: bool) {
    let before = if is_first { S::splat(0.0) } else { load_up_to::<S>(to, left) };
    store_up_to::<S>(to, S::add(before, value), left);
}

/// Swaps a weight's input and output channels and turns its kernel by half a turn: convolved with it, what a convolution's result gets
/// is what its input gets.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Turn {
    /// `[out_channels, in_channels, taps]`.
    pub weight: usize,
    /// `[in_channels, out_channels, taps]`.
    pub out: usize,
    /// Rows of the weight.
    pub out_channels: usize,
    /// Columns of the weight.
    pub in_channels: usize,
    /// Positions in the kernel of a convolution; 1 for a linear layer.
    pub taps: usize,
}

/// Channels of each kind that a block of a turned weight has, so that whole cache lines are read and written.
const BLOCK: usize = 16;

impl Turn {
    pub(crate) fn count_parts(&self) -> usize {
        memory::parts(self.out_channels * self.in_channels * self.taps, self.in_channels.div_ceil(BLOCK))
    }
}

impl Compute for Turn {
    #[inline(always)]
    unsafe fn compute<S: Simd>(&self, part: usize) {
        let (weight, out) = (self.weight as *const f32, self.out as *mut f32);
        let blocks = memory::range(self.in_channels.div_ceil(BLOCK), self.count_parts(), part);
        let mut n = 0;
        while n < self.out_channels {
            for c in blocks.start * BLOCK..(blocks.end * BLOCK).min(self.in_channels) {
                for row in n..(n + BLOCK).min(self.out_channels) {
                    let from = weight.add((row * self.in_channels + c) * self.taps);
                    let to = out.add((c * self.out_channels + row) * self.taps);
                    for tap in 0..self.taps {
                        *to.add(tap) = *from.add(self.taps - 1 - tap);
                    }
                }
            }
            n += BLOCK;
        }
    }
}
