//! Winograd's minimal filtering for 3×3 convolutions (Lavin and Gray 2016, arXiv 1509.09308): Aᵀ[(G g Gᵀ) ⊙ (Bᵀ d B)]A.
//!
//! M×M pixels of the result come from T×T pixels of the input, T = M + 2, by T² products summed over channels instead of 9 M²; and
//! those sums, one matrix product for each of the T² positions, are what takes the time. F(4×4, 3×3) interpolates at 0, ±√½, ±√2 and ∞,
//! where the matrices' entries, and with them the rounding errors, stay small.

use core::f32::consts::{FRAC_1_SQRT_2, SQRT_2};

use crate::COLUMNS;
use crate::conv2d::{Conv2d, Pack};
use crate::grid::{MAX_PARTS, WORTH_A_PART, cut};
use crate::simd::Simd;
use crate::tile::{self, MAX_ROWS, multiply, panel};

/// Transformed numbers of the input that a part holds at a time, at most: 1 MiB.
const CACHED: usize = 1 << 18;

/// The cut of a convolution into tiles and parts.
pub(crate) struct WinogradPlan {
    /// Tiles along a column and a row of a picture.
    tiles: [usize; 2],
    /// Tiles of all pictures.
    count: usize,
    /// Parts along the tiles.
    down: usize,
    /// Parts along the channels of the result.
    across: usize,
    /// Tiles that a part transforms at a time.
    run: usize,
    /// Positions in a tile: T².
    positions: usize,
    /// Channels of the input.
    channels: usize,
}

impl WinogradPlan {
    #[inline(always)]
    pub fn new<const M: usize>(conv: &Conv2d) -> Self {
        let positions = (M + 2) * (M + 2);
        let channels = conv.in_channels + conv.in_channels2;
        let tiles = [conv.out_height.div_ceil(M), conv.out_width.div_ceil(M)];
        let count = conv.batch * tiles[0] * tiles[1];
        let depth = (positions * channels).clamp(1, WORTH_A_PART);
        let parts = (count * conv.out_channels / (WORTH_A_PART / depth)).clamp(1, MAX_PARTS / 2);
        let down = (count / 16).clamp(1, parts);
        // Each part along the channels transforms the input for itself.
        let across = (parts / down).clamp(1, conv.out_channels.div_ceil(2 * COLUMNS).max(1));
        let run = (CACHED / (positions * channels).max(1)).max(1).next_multiple_of(16).min(count.div_ceil(down));
        Self { tiles, count, down, across, run, positions, channels }
    }

    pub fn parts(&self) -> usize {
        self.down * self.across
    }

    /// Numbers of scratch memory for each part.
    #[inline(always)]
    fn scratch_of_part(&self) -> usize {
        self.run * self.positions * (self.channels + COLUMNS)
    }

    pub fn scratch_len(&self) -> usize {
        self.parts() * self.scratch_of_part()
    }
}

/// factor · a + b.
#[inline(always)]
unsafe fn times<S: Simd>(factor: f32, a: S::Vector, b: S::Vector) -> S::Vector {
    S::mul_add(S::splat(factor), a, b)
}

/// Bᵀ d, for T numbers of each lane.
#[inline(always)]
unsafe fn input_transform<S: Simd, const T: usize>(d: [S::Vector; T]) -> [S::Vector; T] {
    let mut v = d;
    if T == 4 {
        v[0] = S::sub(d[0], d[2]);
        v[1] = S::add(d[1], d[2]);
        v[2] = S::sub(d[2], d[1]);
        v[3] = S::sub(d[1], d[3]);
    } else {
        v[0] = times::<S>(-2.5, d[2], S::add(d[0], d[4]));
        v[5] = times::<S>(-2.5, d[3], S::add(d[1], d[5]));
        let even = times::<S>(-2.0, d[2], d[4]);
        let odd = times::<S>(FRAC_1_SQRT_2, d[3], S::mul(S::splat(-SQRT_2), d[1]));
        v[1] = S::add(even, odd);
        v[2] = S::sub(even, odd);
        let even = times::<S>(-0.5, d[2], d[4]);
        let odd = times::<S>(SQRT_2, d[3], S::mul(S::splat(-FRAC_1_SQRT_2), d[1]));
        v[3] = S::add(even, odd);
        v[4] = S::sub(even, odd);
    }
    v
}

/// Aᵀ m; the first M numbers are used.
#[inline(always)]
unsafe fn output_transform<S: Simd, const T: usize>(m: [S::Vector; T]) -> [S::Vector; 4] {
    let mut y = [m[0]; 4];
    let (sum, difference) = (S::add(m[1], m[2]), S::sub(m[1], m[2]));
    if T == 4 {
        y[0] = S::add(m[0], sum);
        y[1] = S::sub(difference, m[3]);
    } else {
        let (sum2, difference2) = (S::add(m[3], m[4]), S::sub(m[3], m[4]));
        y[0] = S::add(S::add(m[0], sum), sum2);
        y[1] = times::<S>(SQRT_2, difference2, S::mul(S::splat(FRAC_1_SQRT_2), difference));
        y[2] = times::<S>(2.0, sum2, S::mul(S::splat(0.5), sum));
        y[3] = times::<S>(2.0 * SQRT_2, difference2, times::<S>(0.5 * FRAC_1_SQRT_2, difference, m[5]));
    }
    y
}

/// G g, in f64: it is done once, and the error would be in every product.
#[inline(always)]
fn weight_transform<const T: usize>(g: [f64; 3]) -> [f64; T] {
    let mut u = [0.0; T];
    u[0] = g[0];
    u[T - 1] = g[2];
    if T == 4 {
        u[1] = 0.5 * (g[0] + g[1] + g[2]);
        u[2] = 0.5 * (g[0] - g[1] + g[2]);
    } else {
        let root = core::f64::consts::FRAC_1_SQRT_2;
        let (even, odd) = (g[0] + 0.5 * g[2], root * g[1]);
        u[1] = (even + odd) / -1.5;
        u[2] = (even - odd) / -1.5;
        let (even, odd) = (g[0] + 2.0 * g[2], 2.0 * root * g[1]);
        u[3] = (even + odd) / 6.0;
        u[4] = (even - odd) / 6.0;
    }
    u
}

#[inline(always)]
pub(crate) unsafe fn compute<S: Simd, const M: usize, const T: usize>(conv: &Conv2d, part: usize) {
    let plan = WinogradPlan::new::<M>(conv);
    let [mut first, end] = cut(part / plan.across, plan.down, plan.count, 1);
    let columns = cut(part % plan.across, plan.across, conv.out_channels, COLUMNS);
    let input = (conv.scratch as *mut f32).add(part * plan.scratch_of_part());
    let products = input.add(plan.run * plan.positions * plan.channels);
    while first < end {
        let tiles = [first, (first + plan.run).min(end)];
        transform_input::<S, M, T>(conv, &plan, tiles, input);
        let mut column = columns[0];
        while column < columns[1] {
            if conv.out_channels - column > S::LANES {
                multiply_tiles::<S, true>(conv, &plan, tiles[1] - tiles[0], column, input, products);
                transform_output::<S, M, T, true>(conv, &plan, tiles, column, products);
            } else {
                multiply_tiles::<S, false>(conv, &plan, tiles[1] - tiles[0], column, input, products);
                transform_output::<S, M, T, false>(conv, &plan, tiles, column, products);
            }
            column += panel::<S>();
        }
        first = tiles[1];
    }
}

impl WinogradPlan {
    /// Picture, row and column of the first pixel of tile `index` of the result.
    #[inline(always)]
    fn corner<const M: usize>(&self, index: usize) -> [usize; 3] {
        let (line, column) = (index / self.tiles[1], index % self.tiles[1]);
        [line / self.tiles[0], line % self.tiles[0] * M, column * M]
    }
}

/// Bᵀ d B of some tiles: `[positions, tiles, channels]`.
#[inline(always)]
unsafe fn transform_input<S: Simd, const M: usize, const T: usize>(
    conv: &Conv2d,
    plan: &WinogradPlan,
    tiles: [usize; 2],
    out: *mut f32,
) {
    let step = (tiles[1] - tiles[0]) * plan.channels;
    for stretch in conv.stretches() {
        for index in tiles[0]..tiles[1] {
            let [picture, row, column] = plan.corner::<M>(index);
            let (top, left) = (row as isize - conv.padding_top as isize, column as isize - conv.padding_left as isize);
            let mut pixels = [[core::ptr::null(); T]; T];
            for (row, pixels) in pixels.iter_mut().enumerate() {
                for (column, pixel) in pixels.iter_mut().enumerate() {
                    *pixel = conv.pixel(&stretch, picture, top + row as isize, left + column as isize);
                }
            }
            let out = out.add((index - tiles[0]) * plan.channels + stretch.before);
            let mut channel = 0;
            while channel < stretch.len {
                let zero = S::splat(0.0);
                let mut half = [[zero; T]; T];
                for column in 0..T {
                    let mut d = [zero; T];
                    for row in 0..T {
                        d[row] = S::load(pixels[row][column].add(channel));
                    }
                    let v = input_transform::<S, T>(d);
                    for row in 0..T {
                        half[row][column] = v[row];
                    }
                }
                for row in 0..T {
                    let v = input_transform::<S, T>(half[row]);
                    for column in 0..T {
                        S::store(out.add((row * T + column) * step + channel), v[column]);
                    }
                }
                channel += S::LANES;
            }
        }
    }
}

/// The product, at each position, of `[tiles, channels]` and the panel of weights that begins with `column`:
/// `[positions, tiles, panel]`.
#[inline(always)]
unsafe fn multiply_tiles<S: Simd, const WIDE: bool>(
    conv: &Conv2d,
    plan: &WinogradPlan,
    tiles: usize,
    column: usize,
    input: *const f32,
    products: *mut f32,
) {
    let weight = (conv.weight as *const f32).add(column * plan.positions * plan.channels);
    for position in 0..plan.positions {
        let input = input.add(position * tiles * plan.channels);
        let products = products.add(position * tiles * panel::<S>());
        let matrix = weight.add(position * plan.channels * panel::<S>());
        let mut first = 0;
        while first < tiles {
            let mut rows = [input; MAX_ROWS];
            for (index, address) in rows[..S::ROWS].iter_mut().enumerate() {
                *address = input.add((first + index).min(tiles - 1) * plan.channels);
            }
            let mut sums = tile::zeros::<S>();
            multiply::<S, WIDE>(&mut sums, rows, matrix, panel::<S>(), plan.channels);
            for index in 0..S::ROWS {
                if first + index < tiles {
                    let out = products.add((first + index) * panel::<S>());
                    S::store(out, sums[index][0]);
                    if WIDE {
                        S::store(out.add(S::LANES), sums[index][1]);
                    }
                }
            }
            first += S::ROWS;
        }
    }
}

/// Aᵀ m A of some tiles, into the result.
#[inline(always)]
unsafe fn transform_output<S: Simd, const M: usize, const T: usize, const WIDE: bool>(
    conv: &Conv2d,
    plan: &WinogradPlan,
    tiles: [usize; 2],
    column: usize,
    products: *const f32,
) {
    let epilogue = conv.epilogue();
    let step = (tiles[1] - tiles[0]) * panel::<S>();
    for index in tiles[0]..tiles[1] {
        let [picture, top, left] = plan.corner::<M>(index);
        for vector in 0..if WIDE { 2 } else { 1 } {
            let products = products.add((index - tiles[0]) * panel::<S>() + vector * S::LANES);
            let zero = S::splat(0.0);
            let mut half = [[zero; T]; 4];
            for column in 0..T {
                let mut m = [zero; T];
                for row in 0..T {
                    m[row] = S::load(products.add((row * T + column) * step));
                }
                let y = output_transform::<S, T>(m);
                for row in 0..M {
                    half[row][column] = y[row];
                }
            }
            for row in 0..M {
                let y = output_transform::<S, T>(half[row]);
                for right in 0..M {
                    if top + row < conv.out_height && left + right < conv.out_width {
                        let pixel = (picture * conv.out_height + top + row) * conv.out_width + left + right;
                        epilogue.store::<S>(pixel, column + vector * S::LANES, y[right]);
                    }
                }
            }
        }
    }
}

/// G g Gᵀ of the weights of some columns: panels of `[positions, channels, panel]`.
#[inline(always)]
pub(crate) unsafe fn pack<S: Simd, const M: usize, const T: usize>(pack: &Pack, part: usize) {
    let weight = pack.weight as *const f32;
    let step = pack.in_channels * panel::<S>();
    for column in part * COLUMNS..(part + 1) * COLUMNS {
        let first = column / panel::<S>() * panel::<S>();
        let out = (pack.out as *mut f32).add(first * T * T * pack.in_channels + column - first);
        for channel in 0..pack.in_channels {
            let mut half = [[0.0; 3]; T];
            if column < pack.out_channels {
                let g = weight.add((column * pack.in_channels + channel) * 9);
                for right in 0..3 {
                    let u = weight_transform::<T>([0, 1, 2].map(|down| f64::from(*g.add(down * 3 + right))));
                    for row in 0..T {
                        half[row][right] = u[row];
                    }
                }
            }
            for row in 0..T {
                let u = weight_transform::<T>(half[row]);
                for right in 0..T {
                    *out.add((row * T + right) * step + channel * panel::<S>()) = u[right] as f32;
                }
            }
        }
    }
}
