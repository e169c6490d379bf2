//! Charts as files: SVG, or a PNG drawn from the same shapes.

use std::path::Path;

use undiffuse::pipeline::Rgba;

use super::canvas::{Canvas, Height, Style};
use super::chart::{Chart, Drawing, PAPER, Shape, Size};
use super::output::Output;
use super::{Error, picture};

/// Pixels of a PNG on each side of one of SVG's.
const PNG_SCALE: f64 = 2.0;

/// A kind of file that a chart can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Svg,
    Png,
}

impl Format {
    /// The kind that a file's name ends on.
    ///
    /// # Errors
    /// Another ending.
    pub fn of(path: &Path) -> Result<Self, Error> {
        match path.extension().and_then(|extension| extension.to_str()).map(str::to_ascii_lowercase).as_deref() {
            Some("svg") => Ok(Self::Svg),
            Some("png") => Ok(Self::Png),
            _ => Err(Error::path(path, "a chart is an SVG or a PNG; give a name that ends on .svg or .png")),
        }
    }
}

/// Writes a chart.
///
/// # Errors
/// If the file cannot be written.
pub fn write(chart: &Chart, file: &Output, path: &Path, format: Format) -> Result<(), Error> {
    match format {
        Format::Svg => file.write(chart.to_svg().as_bytes()),
        Format::Png => file.write(&picture::encode(&to_picture(chart), &[]).map_err(|error| Error::path(path, error))?),
    }
}

/// The chart as a picture on white.
fn to_picture(chart: &Chart) -> Rgba {
    let Drawing { size, shapes } = chart.layout();
    let [width, height] = size.map(|side| (side * PNG_SCALE).ceil() as usize);
    let mut canvas = Canvas::new(width, height, PAPER);
    shapes.iter().for_each(|shape| draw_png(&mut canvas, shape));
    canvas.into_picture()
}

fn draw_png(canvas: &mut Canvas, shape: &Shape) {
    let scaled = |at: [f64; 2]| at.map(|value| value * PNG_SCALE);
    match shape {
        Shape::Bar { from, to, paint } => {
            let (mut from, mut to) = (scaled(*from), scaled(*to));
            // Neighbours share an edge, which must be that of a pixel or shine through.
            (from[0], to[0]) = (from[0].round(), to[0].round().max(from[0].round() + 1.0));
            canvas.rect(from, to, paint.colour());
        }
        Shape::Line { points, width, dashed, paint } => {
            let places: Vec<[f64; 2]> = points.iter().map(|&at| scaled(at)).collect();
            let width = width * PNG_SCALE;
            let mut pen = |from, to| canvas.line(from, to, width, paint.colour());
            match places[..] {
                [[x1, y1], [x2, y2]] if !dashed && (x1 == x2 || y1 == y2) => {
                    // Straight along the pixels, with edges on theirs.
                    let edge = |centre: f64| (centre - width / 2.0).round();
                    let (left, right) = if x1 == x2 { (edge(x1), edge(x1) + width) } else { (x1.min(x2), x1.max(x2)) };
                    let (top, bottom) = if y1 == y2 { (edge(y1), edge(y1) + width) } else { (y1.min(y2), y1.max(y2)) };
                    canvas.rect([left, top], [right, bottom], paint.colour());
                }
                _ if *dashed => dashes(&places, [10.0, 8.0], &mut pen),
                _ => places.windows(2).for_each(|pair| pen(pair[0], pair[1])),
            }
        }
        Shape::Dot { at, radius, paint } => {
            canvas.line(scaled(*at), scaled(*at), 2.0 * radius * PNG_SCALE, paint.colour());
        }
        Shape::Text { at: [x, y], text, size, anchor, paint } => {
            let (height, bold) = match size {
                Size::Title => (Height::H32, true),
                Size::Panel => (Height::H24, true),
                Size::Small => (Height::H24, false),
            };
            let style = Style { height, bold, colour: paint.colour(), anchor: *anchor };
            canvas.text(x * PNG_SCALE, y * PNG_SCALE, text, style);
        }
    }
}

/// Draws a line in pieces of a length, with gaps of another between them.
fn dashes(points: &[[f64; 2]], [dash, gap]: [f64; 2], pen: &mut dyn FnMut([f64; 2], [f64; 2])) {
    let mut walked = 0.0;
    for pair in points.windows(2) {
        let [from, to] = [pair[0], pair[1]];
        let length = libm::hypot(to[0] - from[0], to[1] - from[1]);
        let at = |share: f64| [0, 1].map(|axis| from[axis] + (to[axis] - from[axis]) * share / length);
        let mut done = 0.0;
        while done < length {
            let phase = walked % (dash + gap);
            let left = if phase < dash { dash - phase } else { dash + gap - phase };
            let next = (done + left.max(1e-6)).min(length);
            if phase < dash {
                pen(at(done), at(next));
            }
            walked += next - done;
            done = next;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::chart::{Axis, Marks, Panel, Point, Series};
    use super::*;

    #[test]
    fn a_png_is_drawn_whatever_the_numbers_are() {
        for ys in [&[][..], &[1.0], &[0.0, 0.0], &[f64::NAN, f64::INFINITY, 0.0, -1.0, 1e-300, 1e300], &[1.0; 1000]] {
            for marks in [Marks::Bars, Marks::Line, Marks::Dashed] {
                for y in [Axis::linear("y"), Axis::logarithmic("y")] {
                    let points = ys.iter().enumerate();
                    let points = points.map(|(x, &y)| Point { x: x as f64, y, error: Some(0.1) }).collect();
                    let series = vec![Series { name: "<a & b>".into(), marks, points }];
                    let panel = Panel { title: "panel".into(), x: Axis::linear("t"), y, series };
                    let picture = to_picture(&Chart { panels: vec![panel], ..Chart::default() });
                    assert_eq!(picture.pixels.len(), 4 * picture.width * picture.height);
                    assert!(picture.pixels.iter().any(|&byte| byte != 255), "something is drawn");
                }
            }
        }
    }

    #[test]
    fn a_file_that_is_neither_kind_of_chart_is_refused() {
        assert_eq!(Format::of(Path::new("a/b.SVG")).unwrap(), Format::Svg);
        assert_eq!(Format::of(Path::new("b.png")).unwrap(), Format::Png);
        for name in ["chart", "chart.pdf", ".svg"] {
            assert!(Format::of(Path::new(name)).is_err(), "{name}");
        }
    }
}
