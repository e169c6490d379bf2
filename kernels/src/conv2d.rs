//! 2-D convolution (cross-correlation, as in torch) as a matrix product whose rows are gathered while it is computed.

use bytemuck::{Pod, Zeroable};

use crate::grid::Grid;
use crate::simd::Simd;
use crate::tile::{self, Epilogue, MAX_ROWS, multiply, panel};
use crate::{COLUMNS, Compute, winograd};

/// Convolution of x, or of x with x2 behind it along the channels, plus bias, plus residual.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Conv2d {
    /// `[batch, height, width, in_channels]`.
    pub x: usize,
    /// `[batch, height, width, in_channels2]`, or 0 for none.
    pub x2: usize,
    /// The weight as [`Pack`] has stored it for `algorithm`.
    pub weight: usize,
    /// `[out_channels]`, or 0 for none.
    pub bias: usize,
    /// `[pixels / residual_rows, out_channels]` for all pixels of the result, or 0 for none; may be `out`.
    pub residual: usize,
    /// Pixels of the result that share a row of the residual: 1 for a residual of the result's shape, those of a picture for
    /// `[batch, 1, 1, out_channels]`.
    pub residual_rows: usize,
    /// `[batch, out_height, out_width, out_channels]`.
    pub out: usize,
    /// [`Conv2d::scratch_len`] numbers, or 0 if that is 0.
    pub scratch: usize,
    /// Pictures.
    pub batch: usize,
    /// Height of the input.
    pub height: usize,
    /// Width of the input.
    pub width: usize,
    /// Channels of x.
    pub in_channels: usize,
    /// Channels of x2; 0 for none.
    pub in_channels2: usize,
    /// 1 if the convolution sees each pixel of the input as 2×2 of them (nearest-neighbour resizing), else 0.
    pub upsample: usize,
    /// Height of the kernel.
    pub kernel_height: usize,
    /// Width of the kernel.
    pub kernel_width: usize,
    /// Step between pixels of the result, both axes.
    pub stride: usize,
    /// Rows of zeros above the input, after any resizing.
    pub padding_top: usize,
    /// Columns of zeros to the left. Those to the right and below follow from the result's size.
    pub padding_left: usize,
    /// Height of the result.
    pub out_height: usize,
    /// Width of the result.
    pub out_width: usize,
    /// Channels of the result.
    pub out_channels: usize,
    /// The way it is computed; [`Conv2d::choose`] knows what is best.
    pub algorithm: Algorithm,
}

/// The way in which a convolution is computed, which decides how its weight is stored.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Pod, Zeroable)]
pub struct Algorithm(usize);

impl Algorithm {
    /// One sum over kernel and channels. For every shape.
    pub const DIRECT: Self = Self(0);
    /// Winograd's F(2×2, 3×3): 2.25 times fewer products, weights of 16/9 the size.
    pub const WINOGRAD_2: Self = Self(2);
    /// Winograd's F(4×4, 3×3): 4 times fewer products, weights of 4 times the size.
    pub const WINOGRAD_4: Self = Self(4);

    /// Numbers that a kernel of one channel becomes.
    pub fn positions(self, [height, width]: [usize; 2]) -> usize {
        match self {
            Self::DIRECT => height * width,
            winograd => (winograd.0 + 2) * (winograd.0 + 2),
        }
    }

    /// Numbers of a weight as it is stored.
    pub fn packed_len(self, [out_channels, in_channels, height, width]: [usize; 4]) -> usize {
        out_channels.next_multiple_of(COLUMNS) * in_channels * self.positions([height, width])
    }
}

/// Zeros that stand for pixels in the padding, and the channels of a pixel that are taken at once.
static ZEROS: [f32; 512] = [0.0; 512];

/// True if all but the sizes of a picture are such as Winograd's algorithms need.
const fn is_plain(conv: &Conv2d) -> bool {
    conv.kernel_height == 3 && conv.kernel_width == 3 && conv.stride == 1
}

impl Conv2d {
    /// The algorithm that takes least time, by the shape of one picture alone: in a batch a picture comes out as it does alone.
    ///
    /// Winograd's save products, but their weights are larger: where few tiles share them, reading the weights is what takes the time.
    /// `cargo run --release -p undiffuse-kernels --example rates` prints what the limits below rest on.
    pub fn choose(&self) -> Algorithm {
        let whole_vectors =
            self.in_channels.is_multiple_of(COLUMNS / 2) && self.in_channels2.is_multiple_of(COLUMNS / 2);
        if !is_plain(self) || !whole_vectors || self.out_channels < COLUMNS / 2 {
            return Algorithm::DIRECT;
        }
        let tiles = |size: usize| self.out_height.div_ceil(size) * self.out_width.div_ceil(size);
        if tiles(4) >= 8 {
            Algorithm::WINOGRAD_4
        } else if tiles(2) >= 4 {
            Algorithm::WINOGRAD_2
        } else {
            Algorithm::DIRECT
        }
    }

    /// Numbers of scratch memory that it needs.
    pub fn scratch_len(&self) -> usize {
        match self.algorithm {
            Algorithm::WINOGRAD_2 => winograd::WinogradPlan::new::<2>(self).scratch_len(),
            Algorithm::WINOGRAD_4 => winograd::WinogradPlan::new::<4>(self).scratch_len(),
            _ => 0,
        }
    }

    /// Pixels of the result.
    fn pixels(&self) -> usize {
        self.batch * self.out_height * self.out_width
    }

    /// Length of the sum that makes a number of the result.
    fn depth(&self) -> usize {
        self.kernel_height * self.kernel_width * (self.in_channels + self.in_channels2)
    }

    fn grid(&self) -> Grid {
        Grid::new(self.pixels(), self.depth(), self.out_channels)
    }

    pub(crate) fn count_parts(&self) -> usize {
        match self.algorithm {
            Algorithm::WINOGRAD_2 => winograd::WinogradPlan::new::<2>(self).parts(),
            Algorithm::WINOGRAD_4 => winograd::WinogradPlan::new::<4>(self).parts(),
            _ => self.grid().parts(),
        }
    }

    #[inline(always)]
    pub(crate) fn epilogue(&self) -> Epilogue {
        Epilogue {
            bias: self.bias as *const f32,
            residual: self.residual as *const f32,
            residual_rows: self.residual_rows,
            out: self.out as *mut f32,
            columns: self.out_channels,
        }
    }

    /// The channels of a pixel, x's and then x2's, in stretches that are no longer than [`ZEROS`].
    #[inline(always)]
    pub(crate) fn stretches(&self) -> Stretches {
        Stretches { inputs: [(self.x, self.in_channels), (self.x2, self.in_channels2)], input: 0, first: 0, before: 0 }
    }

    /// Address of a stretch of the pixel's channels: `picture` of the batch, at `row` and `column` after resizing, which may be
    /// in the padding.
    #[inline(always)]
    pub(crate) unsafe fn pixel(&self, stretch: &Stretch, picture: usize, row: isize, column: isize) -> *const f32 {
        // Negative numbers are large ones here.
        let (row, column) = (row as usize >> self.upsample, column as usize >> self.upsample);
        if row >= self.height || column >= self.width {
            return ZEROS.as_ptr();
        }
        stretch.from.add(((picture * self.height + row) * self.width + column) * stretch.channels)
    }
}

/// Some channels of all pixels.
pub(crate) struct Stretch {
    /// The channels of the first pixel.
    from: *const f32,
    /// Numbers from one pixel to the next.
    channels: usize,
    /// Channels before it, of both inputs together.
    pub before: usize,
    /// Number of channels.
    pub len: usize,
}

/// Iterator over the stretches of a pixel's channels.
pub(crate) struct Stretches {
    inputs: [(usize, usize); 2],
    input: usize,
    first: usize,
    before: usize,
}

impl Iterator for Stretches {
    type Item = Stretch;

    #[inline(always)]
    fn next(&mut self) -> Option<Stretch> {
        if self.first >= self.inputs[self.input].1 {
            (self.input, self.first) = (1, if self.input == 0 { 0 } else { self.first });
        }
        let (x, channels) = self.inputs[1.min(self.input)];
        if self.first >= channels {
            return None;
        }
        let len = (channels - self.first).min(ZEROS.len());
        let from = (x as *const f32).wrapping_add(self.first);
        let stretch = Stretch { from, channels, before: self.before, len };
        self.first += len;
        self.before += len;
        Some(stretch)
    }
}

impl Compute for Conv2d {
    #[inline(always)]
    unsafe fn compute<S: Simd>(&self, part: usize) {
        match self.algorithm {
            Algorithm::WINOGRAD_2 => winograd::compute::<S, 2, 4>(self, part),
            Algorithm::WINOGRAD_4 => winograd::compute::<S, 4, 6>(self, part),
            _ => self.direct::<S>(part),
        }
    }
}

impl Conv2d {
    #[inline(always)]
    unsafe fn direct<S: Simd>(&self, part: usize) {
        let epilogue = self.epilogue();
        let depth = self.depth();
        let panels = self.grid().panels::<S>(part, self.pixels(), depth, self.out_channels);
        for ([start, end], column) in panels {
            if self.out_channels - column > S::LANES {
                self.panel::<S, true>(&epilogue, start, end, column, depth);
            } else {
                self.panel::<S, false>(&epilogue, start, end, column, depth);
            }
        }
    }

    /// The pixels from `start` to `end` of the result, in the panel that begins with channel `column`.
    #[inline(always)]
    unsafe fn panel<S: Simd, const WIDE: bool>(
        &self,
        epilogue: &Epilogue,
        start: usize,
        end: usize,
        column: usize,
        depth: usize,
    ) {
        let weight = (self.weight as *const f32).add(column * depth);
        let channels = self.in_channels + self.in_channels2;
        let mut first = start;
        while first < end {
            let mut corners = [(0, 0, 0); MAX_ROWS];
            for (index, corner) in corners[..S::ROWS].iter_mut().enumerate() {
                let pixel = (first + index).min(end - 1);
                let (line, column) = (pixel / self.out_width, pixel % self.out_width);
                let (picture, row) = (line / self.out_height, line % self.out_height);
                let top = (row * self.stride) as isize - self.padding_top as isize;
                *corner = (picture, top, (column * self.stride) as isize - self.padding_left as isize);
            }
            let mut sums = tile::zeros::<S>();
            for tap in 0..self.kernel_height * self.kernel_width {
                let (down, right) = ((tap / self.kernel_width) as isize, (tap % self.kernel_width) as isize);
                for stretch in self.stretches() {
                    let mut rows = [ZEROS.as_ptr(); MAX_ROWS];
                    for (address, &(picture, top, left)) in rows[..S::ROWS].iter_mut().zip(&corners) {
                        *address = self.pixel(&stretch, picture, top + down, left + right);
                    }
                    let matrix = weight.add((tap * channels + stretch.before) * panel::<S>());
                    multiply::<S, WIDE>(&mut sums, rows, matrix, panel::<S>(), stretch.len);
                }
            }
            epilogue.store_tile::<S, WIDE>(first, end, column, &sums);
            first += S::ROWS;
        }
    }
}

/// Stores the weight of a [`Conv2d`] as it is read.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Pack {
    /// `[out_channels, in_channels, kernel_height, kernel_width]`.
    pub weight: usize,
    /// [`Algorithm::packed_len`] numbers.
    pub out: usize,
    /// Channels of the result.
    pub out_channels: usize,
    /// Channels of the input.
    pub in_channels: usize,
    /// Height of the kernel.
    pub kernel_height: usize,
    /// Width of the kernel.
    pub kernel_width: usize,
    /// Algorithm for which it is stored.
    pub algorithm: Algorithm,
}

impl Pack {
    pub(crate) fn count_parts(&self) -> usize {
        self.out_channels.div_ceil(COLUMNS)
    }
}

impl Compute for Pack {
    #[inline(always)]
    unsafe fn compute<S: Simd>(&self, part: usize) {
        match self.algorithm {
            Algorithm::WINOGRAD_2 => winograd::pack::<S, 2, 4>(self, part),
            Algorithm::WINOGRAD_4 => winograd::pack::<S, 4, 6>(self, part),
            _ => self.direct::<S>(part),
        }
    }
}

impl Pack {
    #[inline(always)]
    unsafe fn direct<S: Simd>(&self, part: usize) {
        let taps = self.kernel_height * self.kernel_width;
        let weight = self.weight as *const f32;
        let mut column = part * COLUMNS;
        while column < (part + 1) * COLUMNS {
            for tap in 0..taps {
                let before = column * taps + tap * panel::<S>();
                let out = (self.out as *mut f32).add(before * self.in_channels);
                tile::pack_panel::<S>(self.in_channels, self.out_channels, column, out, |channel, n| {
                    *weight.add((n * self.in_channels + channel) * taps + tap)
                });
            }
            column += panel::<S>();
        }
    }
}
