//! Input pictures, prepared as diffusers' `VaeImageProcessor` prepares them.

use crate::pipeline::error::Error;
use crate::pipeline::options::MAX_SIDE;
use crate::pipeline::rgba::Rgba;

/// The filter by which a picture is brought to another size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::pipeline) enum Filter {
    /// sinc(x)·sinc(x/3), |x| < 3.
    Lanczos,
    /// Keys' cubic with a = −1/2, |x| < 2.
    Bicubic,
}

impl Filter {
    fn support(self) -> f64 {
        match self {
            Self::Lanczos => 3.0,
            Self::Bicubic => 2.0,
        }
    }

    fn at(self, x: f64) -> f64 {
        let sinc = |x: f64| match std::f64::consts::PI * x {
            0.0 => 1.0,
            angle => libm::sin(angle) / angle,
        };
        let x = x.abs();
        match self {
            Self::Lanczos if x < 3.0 => sinc(x) * sinc(x / 3.0),
            Self::Bicubic if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
            Self::Bicubic if x < 2.0 => ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0,
            _ => 0.0,
        }
    }
}

/// Red, green and blue, 8 bits each, in rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::pipeline) struct Rgb {
    pub width: usize,
    pub height: usize,
    pixels: Vec<[u8; 3]>,
}

impl Rgb {
    /// Takes the colours of the picture given as `option`; its alpha is dropped, as Pillow's `convert("RGB")` does.
    ///
    /// # Errors
    /// If its sides are not those of a picture, or not those of its bytes.
    pub fn new(option: &'static str, picture: &Rgba) -> Result<Self, Error> {
        let Rgba { width, height, ref pixels } = *picture;
        let refuse = |message: String| Err(Error::option(option, format!("{width}×{height}"), message));
        if ![width, height].iter().all(|side| (1..=MAX_SIDE).contains(side)) {
            return refuse(format!("expected a picture with sides from 1 to {MAX_SIDE}"));
        }
        if pixels.len() != 4 * width * height {
            return refuse(format!("expected {} bytes of RGBA, got {}", 4 * width * height, pixels.len()));
        }
        let pixels = pixels.as_chunks::<4>().0.iter().map(|&[r, g, b, _]| [r, g, b]).collect();
        Ok(Self { width, height, pixels })
    }

    /// The picture at another size: Pillow's `resize`, bit for bit.
    pub fn resized(self, width: usize, height: usize, filter: Filter) -> Self {
        // Values are rounded between the two passes, so that their order counts; this is when Pillow begins with the columns.
        let columns_first = height < self.height && 2 * width + self.height > 2 * self.width + height;
        match columns_first {
            true => self.with_height(height, filter).with_width(width, filter),
            false => self.with_width(width, filter).with_height(height, filter),
        }
    }

    fn with_width(self, width: usize, filter: Filter) -> Self {
        if width == self.width {
            return self;
        }
        let weights = weights(self.width, width, filter);
        let rows = self.pixels.chunks_exact(self.width);
        let pixels = rows.flat_map(|row| weights.iter().map(|taps| taps.apply(|x| row[x]))).collect();
        Self { width, height: self.height, pixels }
    }

    fn with_height(self, height: usize, filter: Filter) -> Self {
        if height == self.height {
            return self;
        }
        let width = self.width;
        let row = |taps: &Taps| (0..width).map(|x| taps.apply(|y| self.pixels[y * width + x])).collect::<Vec<_>>();
        let pixels = weights(self.height, height, filter).iter().flat_map(row).collect();
        Self { width, height, pixels }
    }

    /// `[channels, height, width]` in −1..1: red, green and blue, or for 1 channel the luma.
    pub fn to_tensor(&self, channels: usize) -> Vec<f32> {
        self.levels(channels).into_iter().map(|level| 2.0 * (f32::from(level) / 255.0) - 1.0).collect()
    }

    /// `[channels, height, width]` in 0..255: red, green and blue, or for 1 channel the luma.
    pub fn levels(&self, channels: usize) -> Vec<u8> {
        match channels {
            1 => self.pixels.iter().map(luma).collect(),
            _ => (0..3).flat_map(|c| self.pixels.iter().map(move |pixel| pixel[c])).collect(),
        }
    }

    /// `[height, width]`: 1 where the picture is rather white than black, else 0.
    pub fn to_mask(&self) -> Vec<f32> {
        self.pixels.iter().map(|pixel| if f32::from(luma(pixel)) / 255.0 < 0.5 { 0.0 } else { 1.0 }).collect()
    }
}

/// The brightness of a pixel, as Pillow's `convert("L")` has it: ITU-R 601-2 in 16-bit fixed point.
fn luma(&[r, g, b]: &[u8; 3]) -> u8 {
    ((u32::from(r) * 19595 + u32::from(g) * 38470 + u32::from(b) * 7471 + 0x8000) >> 16) as u8
}

/// Bits behind the point of a weight: what Pillow leaves itself for 8-bit pictures.
const PRECISION: u32 = 32 - 8 - 2;

/// The share of source pixels in a pixel of the result: weights in fixed point from the pixel `first` on.
struct Taps {
    first: usize,
    weights: Vec<i32>,
}

impl Taps {
    fn apply(&self, source: impl Fn(usize) -> [u8; 3]) -> [u8; 3] {
        let mut sums = [1i32 << (PRECISION - 1); 3];
        for (index, &weight) in (self.first..).zip(&self.weights) {
            let pixel = source(index);
            for (sum, value) in sums.iter_mut().zip(pixel) {
                *sum = sum.wrapping_add(i32::from(value).wrapping_mul(weight));
            }
        }
        sums.map(|sum| (sum >> PRECISION).clamp(0, 255) as u8)
    }
}

/// The weights for each of `to` pixels from a row of `from`. Where the row shrinks, the filter is widened to see all of it.
fn weights(from: usize, to: usize, filter: Filter) -> Vec<Taps> {
    let scale = from as f64 / to as f64;
    let widening = scale.max(1.0);
    let support = filter.support() * widening;
    let taps = |index: usize| {
        let centre = (index as f64 + 0.5) * scale;
        let first = (centre - support + 0.5).max(0.0) as usize;
        let end = ((centre + support + 0.5) as usize).min(from);
        let values: Vec<f64> = (first..end).map(|i| filter.at((i as f64 - centre + 0.5) / widening)).collect();
        let sum: f64 = values.iter().sum();
        let fixed = |value: &f64| (value / sum * f64::from(1 << PRECISION)).round() as i32;
        Taps { first, weights: values.iter().map(fixed).collect() }
    };
    (0..to).map(taps).collect()
}

/// `[height, width]` brought to another size, nearest neighbour: source index = floor(i · in / out).
pub(in crate::pipeline) fn nearest(
    mask: &[f32],
    [height, width]: [usize; 2],
    [to_height, to_width]: [usize; 2],
) -> Vec<f32> {
    let row = |y: usize| mask[y * height / to_height * width..].iter().take(width);
    (0..to_height).flat_map(|y| (0..to_width).filter_map(move |x| row(y).nth(x * width / to_width).copied())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(width: usize, height: usize) -> Rgb {
        let value = |i: usize| ((i as u64 * 2_654_435_761) >> 7) as u8;
        let pixels = (0..width * height).map(|i| [value(3 * i), value(3 * i + 1), value(3 * i + 2)]).collect();
        Rgb { width, height, pixels }
    }

    #[test]
    fn a_picture_whose_bytes_are_not_its_size_is_refused() {
        let short = Rgba { width: 2, height: 2, pixels: vec![0; 12] };
        let error = Rgb::new("image", &short).unwrap_err().to_string();
        assert_eq!(error, "`image` is 2×2: expected 16 bytes of RGBA, got 12");
        let empty = Rgba { width: 0, height: 2, pixels: vec![] };
        let error = Rgb::new("mask", &empty).unwrap_err().to_string();
        assert_eq!(error, "`mask` is 0×2: expected a picture with sides from 1 to 8192");
    }

    #[test]
    fn a_constant_picture_stays_constant_at_every_size() {
        for (filter, to) in [(Filter::Lanczos, [3, 50]), (Filter::Lanczos, [31, 2]), (Filter::Bicubic, [9, 8])] {
            let constant = Rgb { width: 17, height: 13, pixels: vec![[200, 3, 255]; 17 * 13] };
            let resized = constant.resized(to[0], to[1], filter);
            assert!(resized.pixels.iter().all(|&pixel| pixel == [200, 3, 255]), "{filter:?} to {to:?}");
            assert_eq!(resized.pixels.len(), to[0] * to[1]);
        }
    }

    /// Expected pixels are those of Pillow 13.
    #[test]
    fn a_picture_is_resized_as_pillow_does() {
        type Pixels = &'static [[u8; 3]];
        let cases: [([usize; 2], [usize; 2], Filter, Pixels); 3] = [
            (
                [7, 5],
                [4, 3],
                Filter::Lanczos,
                &[
                    [156, 226, 212],
                    [185, 161, 151],
                    [101, 92, 72],
                    [42, 21, 73],
                    [234, 211, 197],
                    [157, 149, 138],
                    [91, 63, 45],
                    [14, 125, 151],
                    [206, 196, 183],
                    [147, 135, 123],
                    [63, 43, 31],
                    [93, 146, 123],
                ],
            ),
            (
                [3, 4],
                [5, 3],
                Filter::Lanczos,
                &[
                    [33, 235, 222],
                    [93, 210, 198],
                    [174, 161, 149],
                    [161, 129, 117],
                    [128, 122, 110],
                    [74, 44, 31],
                    [119, 96, 83],
                    [176, 163, 150],
                    [160, 148, 135],
                    [131, 117, 104],
                    [116, 107, 95],
                    [145, 134, 122],
                    [177, 164, 151],
                    [157, 144, 131],
                    [133, 120, 107],
                ],
            ),
            (
                [5, 6],
                [4, 4],
                Filter::Bicubic,
                &[
                    [40, 164, 151],
                    [179, 161, 149],
                    [194, 181, 162],
                    [132, 119, 105],
                    [110, 81, 69],
                    [88, 76, 54],
                    [99, 88, 177],
                    [182, 169, 194],
                    [147, 212, 199],
                    [177, 156, 143],
                    [111, 94, 96],
                    [80, 68, 60],
                    [59, 120, 107],
                    [89, 147, 134],
                    [150, 212, 198],
                    [175, 153, 141],
                ],
            ),
        ];
        for (from, to, filter, expected) in cases {
            let resized = picture(from[0], from[1]).resized(to[0], to[1], filter);
            assert_eq!(resized.pixels, expected, "{filter:?} from {from:?} to {to:?}");
        }
    }

    #[test]
    fn a_mask_is_split_at_half() {
        let pixels = [[127, 127, 127, 255], [128, 128, 128, 0], [255, 0, 0, 255], [0, 255, 0, 255]].concat();
        let mask = Rgb::new("mask", &Rgba { width: 4, height: 1, pixels }).unwrap();
        assert_eq!(mask.to_mask(), [0.0, 1.0, 0.0, 1.0]);
    }

    #[test]
    fn levels_are_the_colours_one_after_the_other_or_how_bright_they_are() {
        let pixels = [[255, 0, 10, 255], [0, 255, 20, 0]].concat();
        let picture = Rgb::new("image", &Rgba { width: 1, height: 2, pixels }).unwrap();
        assert_eq!(picture.levels(3), [255, 0, 0, 255, 10, 20]);
        assert_eq!(picture.levels(1), [77, 152], "Pillow's convert(\"L\")");
    }

    #[test]
    fn pixels_lie_from_minus_one_to_one_plane_by_plane_and_grey_is_one_plane() {
        let pixels = [[0, 255, 51, 9], [0, 255, 0, 0]].concat();
        let picture = Rgb::new("image", &Rgba { width: 2, height: 1, pixels }).unwrap();
        assert_eq!(picture.to_tensor(3), [-1.0, -1.0, 1.0, 1.0, -0.6, -1.0]);
        // 0.587·255 and for the first 0.114·51 as well.
        assert_eq!(picture.to_tensor(1), [156.0, 150.0].map(|level: f32| 2.0 * (level / 255.0) - 1.0));
    }

    #[test]
    fn a_mask_is_its_nearest_pixel_at_another_size() {
        let mask = [0.0, 1.0, 0.0, 0.0, 1.0, 1.0];
        assert_eq!(nearest(&mask, [2, 3], [1, 2]), [0.0, 1.0]);
        assert_eq!(nearest(&mask, [2, 3], [2, 3]), mask);
    }
}
