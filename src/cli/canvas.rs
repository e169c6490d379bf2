//! A picture to draw on: rectangles, lines and text, smooth at their edges.

use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster, get_raster_width};
use undiffuse::pipeline::Rgba;

pub use super::chart::{Anchor, Colour};

/// Heights of a line of text that there are, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Height {
    H16,
    H24,
    H32,
}

impl Height {
    fn raster(self) -> RasterHeight {
        match self {
            Self::H16 => RasterHeight::Size16,
            Self::H24 => RasterHeight::Size24,
            Self::H32 => RasterHeight::Size32,
        }
    }
}

/// How a text is written.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    pub height: Height,
    pub bold: bool,
    pub colour: Colour,
    pub anchor: Anchor,
}

impl Style {
    fn weight(self) -> FontWeight {
        if self.bold { FontWeight::Bold } else { FontWeight::Regular }
    }

    /// Width of a text in pixels.
    pub fn width(self, text: &str) -> f64 {
        (letters(text).count() * get_raster_width(self.weight(), self.height.raster())) as f64
    }
}

/// An opaque picture. Positions are in pixels from the top left corner; what lies outside is not drawn.
pub struct Canvas {
    width: usize,
    height: usize,
    pixels: Vec<Colour>,
}

impl Canvas {
    /// A picture of one colour.
    pub fn new(width: usize, height: usize, background: Colour) -> Self {
        Self { width, height, pixels: vec![background; width * height] }
    }

    /// Fills a rectangle from its left top to its right bottom corner.
    pub fn rect(&mut self, [left, top]: [f64; 2], [right, bottom]: [f64; 2], colour: Colour) {
        let (columns, rows) = (inside(left, right, self.width), inside(top, bottom, self.height));
        let share = |at: usize, from: f64, to: f64| (to.min(at as f64 + 1.0) - from.max(at as f64)).clamp(0.0, 1.0);
        for y in rows {
            for x in columns.clone() {
                self.blend(x, y, colour, share(x, left, right) * share(y, top, bottom));
            }
        }
    }

    /// Draws a straight line with round ends; a line without length is a disc.
    pub fn line(&mut self, from: [f64; 2], to: [f64; 2], width: f64, colour: Colour) {
        let reach = width / 2.0 + 1.0;
        let range =
            |axis: usize, most| inside(from[axis].min(to[axis]) - reach, from[axis].max(to[axis]) + reach, most);
        let along = [to[0] - from[0], to[1] - from[1]];
        let length = along[0] * along[0] + along[1] * along[1];
        for y in range(1, self.height) {
            for x in range(0, self.width) {
                let point = [x as f64 + 0.5 - from[0], y as f64 + 0.5 - from[1]];
                let share = match length > 0.0 {
                    true => ((point[0] * along[0] + point[1] * along[1]) / length).clamp(0.0, 1.0),
                    false => 0.0,
                };
                let distance = libm::hypot(point[0] - share * along[0], point[1] - share * along[1]);
                self.blend(x, y, colour, (width / 2.0 + 0.5 - distance).clamp(0.0, 1.0));
            }
        }
    }

    /// Writes `text` on the baseline `y`, from `x` or towards it. Of letters that the font does not have, Greek ones are spelled out
    /// and others become question marks.
    pub fn text(&mut self, x: f64, y: f64, text: &str, style: Style) {
        let raster = style.height.raster();
        let start = match style.anchor {
            Anchor::Start => x,
            Anchor::Middle => x - style.width(text) / 2.0,
            Anchor::End => x - style.width(text),
        };
        // Of the raster's height, this much lies above the baseline.
        let top = (y - 0.79 * raster.val() as f64).round() as i64;
        let mut left = start.round() as i64;
        for letter in letters(text) {
            let Some(shape) = get_raster(letter, style.weight(), raster) else { continue };
            for (row, line) in shape.rows().enumerate() {
                for (column, &ink) in line.iter().enumerate() {
                    let at = (usize::try_from(left + column as i64), usize::try_from(top + row as i64));
                    if let (Ok(x), Ok(y)) = at {
                        self.blend(x, y, style.colour, f64::from(ink) / 255.0);
                    }
                }
            }
            left += shape.width() as i64;
        }
    }

    /// Puts a picture on it, its alpha aside.
    pub fn picture(&mut self, left: usize, top: usize, picture: &Rgba) {
        for (row, line) in picture.pixels.chunks_exact(4 * picture.width.max(1)).enumerate() {
            for (column, pixel) in line.as_chunks::<4>().0.iter().enumerate() {
                let [r, g, b, _] = *pixel;
                self.blend(left + column, top + row, [r, g, b], 1.0);
            }
        }
    }

    /// The picture.
    pub fn into_picture(self) -> Rgba {
        let pixels = self.pixels.iter().flat_map(|&[r, g, b]| [r, g, b, 255]).collect();
        Rgba { width: self.width, height: self.height, pixels }
    }

    fn blend(&mut self, x: usize, y: usize, colour: Colour, share: f64) {
        if x >= self.width || y >= self.height {
            return;
        }
        for (channel, new) in self.pixels[y * self.width + x].iter_mut().zip(colour) {
            *channel = (f64::from(*channel) + share * (f64::from(new) - f64::from(*channel))).round() as u8;
        }
    }
}

/// The pixels of a side of `length` that lie between two positions, in whole or in part.
fn inside(from: f64, to: f64, length: usize) -> std::ops::Range<usize> {
    let clamped = |at: f64| at.clamp(0.0, length as f64) as usize;
    clamped(from.floor())..clamped(to.ceil())
}

/// A text in letters that the font has.
fn letters(text: &str) -> impl Iterator<Item = char> {
    text.chars().flat_map(|c| {
        let spelled = match c {
            'α' => "alpha",
            'ᾱ' => "alpha_bar",
            'β' => "beta",
            'ε' => "epsilon",
            'σ' => "sigma",
            'φ' => "phi",
            'γ' => "gamma",
            'η' => "eta",
            '−' | '–' | '—' => "-",
            '…' => "...",
            '√' => "sqrt",
            _ => "",
        };
        let known = matches!(c, ' '..='~' | '\u{a0}'..='\u{ff}');
        let kept = spelled.is_empty().then_some(if known { c } else { '?' });
        // Combining marks have no width of their own.
        let kept = kept.filter(|_| !('\u{300}'..='\u{36f}').contains(&c));
        spelled.chars().chain(kept)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHITE: Colour = [255; 3];
    const BLACK: Colour = [0; 3];

    /// How dark it is in all, in pixels.
    fn ink(canvas: &Canvas) -> f64 {
        canvas.pixels.iter().map(|pixel| f64::from(255 - pixel[0]) / 255.0).sum()
    }

    #[test]
    fn what_is_drawn_has_its_area_wherever_it_lies() {
        for offset in [0.0, 0.25, 0.5] {
            let mut canvas = Canvas::new(20, 20, WHITE);
            canvas.rect([3.0 + offset, 4.0], [8.0 + offset, 6.5], BLACK);
            assert!((ink(&canvas) - 12.5).abs() < 0.05, "{}", ink(&canvas));
            let mut canvas = Canvas::new(40, 40, WHITE);
            canvas.line([10.0 + offset, 10.0], [20.0 + offset, 25.0], 2.0, BLACK);
            let area = 2.0 * f64::hypot(10.0, 15.0) + std::f64::consts::PI;
            assert!((ink(&canvas) / area - 1.0).abs() < 0.05, "{} of {area}", ink(&canvas));
        }
    }

    #[test]
    fn what_lies_outside_is_not_drawn() {
        let mut canvas = Canvas::new(8, 8, WHITE);
        canvas.rect([-5.0, -5.0], [-1.0, 100.0], BLACK);
        canvas.rect([9.0, 0.0], [f64::INFINITY, 3.0], BLACK);
        canvas.line([-10.0, -10.0], [100.0, -10.0], 3.0, BLACK);
        let style = Style { height: Height::H16, bold: true, colour: BLACK, anchor: Anchor::End };
        canvas.text(-100.0, 5.0, "gone", style);
        assert_eq!(ink(&canvas), 0.0);
        canvas.rect([-5.0, -5.0], [100.0, 100.0], BLACK);
        assert_eq!(ink(&canvas), 64.0);
    }

    #[test]
    fn a_text_is_where_its_anchor_says() {
        let columns = |anchor| {
            let mut canvas = Canvas::new(200, 30, WHITE);
            canvas.text(100.0, 20.0, "±5 ᾱ", Style { height: Height::H16, bold: false, colour: BLACK, anchor });
            let dark = (0..200).filter(|x| (0..30).any(|y| canvas.pixels[y * 200 + x][0] < 128)).collect::<Vec<_>>();
            (dark[0], dark[dark.len() - 1])
        };
        assert!(columns(Anchor::Start).0 >= 100 && columns(Anchor::End).1 < 100);
        let (first, last) = columns(Anchor::Middle);
        assert!(first.abs_diff(200 - last) < 8, "{first}..{last}");
    }

    #[test]
    fn greek_is_spelled_out_and_marks_have_no_width() {
        assert_eq!(letters("ε̂ ≤ ᾱ − 1").collect::<String>(), "epsilon ? alpha_bar - 1");
    }

    #[test]
    fn a_picture_is_put_where_it_belongs() {
        let mut canvas = Canvas::new(3, 2, WHITE);
        canvas.picture(1, 1, &Rgba { width: 3, height: 1, pixels: vec![1, 2, 3, 0, 4, 5, 6, 255, 7, 8, 9, 255] });
        let picture = canvas.into_picture();
        assert_eq!((picture.width, picture.height), (3, 2));
        assert_eq!(picture.pixels[12..], [255, 255, 255, 255, 1, 2, 3, 255, 4, 5, 6, 255]);
    }
}
