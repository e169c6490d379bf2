//! The plots of the document.

use super::report::{Line, Point, number};
use crate::chart::{Anchor, Axis, Chart, Drawing, Marks, Paint, Panel, Range, Scale, Series, Shape, Size, label};

/// A bar for each line: how many times better, with the range over the rounds; the scale is logarithmic and begins at equality.
pub fn ratios(lines: &[Line]) -> String {
    const LABEL: f64 = 330.0;
    const WIDTH: f64 = 860.0;
    const ROW: f64 = 22.0;
    let most = lines.iter().fold(2.0, |most: f64, line| most.max(line.ratio.max));
    let least = lines.iter().fold(1.0, |least: f64, line| least.min(line.ratio.min));
    let range = Range { from: least, to: most * 1.05, scale: Scale::Logarithmic };
    let length = WIDTH - 60.0 - LABEL;
    let at = |value: f64| LABEL + range.share(value) * length;
    let height = ROW * (lines.len() as f64 + 1.5);
    let mut drawing = Drawing { size: [WIDTH, height], shapes: Vec::new() };
    for tick in range.ticks(length, 60.0) {
        drawing.line([at(tick), 0.0], [at(tick), height - ROW], 1.0, Paint::Faint);
        let text = format!("{}×", label(tick));
        drawing.text([at(tick), height - 6.0], &text, Size::Small, Anchor::Middle, Paint::Soft);
    }
    for (index, Line { what, ratio, .. }) in lines.iter().enumerate() {
        let y = ROW * index as f64 + 4.0;
        let (equal, median) = (at(1.0), at(ratio.median));
        let paint = Paint::Series(usize::from(median < equal));
        drawing.text([LABEL - 8.0, y + 11.0], what, Size::Small, Anchor::End, Paint::Ink);
        let (from, to) = ([median.min(equal), y], [median.max(equal), y + 14.0]);
        drawing.shapes.push(Shape::Bar { from, to, paint });
        let (low, high) = (at(ratio.min), at(ratio.max));
        drawing.line([low, y + 7.0], [high, y + 7.0], 2.0, Paint::Ink);
        let text = format!("{}×", number(ratio.median));
        drawing.text([high.max(equal) + 6.0, y + 11.0], &text, Size::Small, Anchor::Start, Paint::Ink);
    }
    drawing.to_svg("How many times faster or smaller")
}

/// A panel for each axis: the time of a step on every device, and, dashed, what the multiply-adds alone would make of its first one's;
/// both scales are logarithmic.
pub fn growth(points: &[Point]) -> String {
    let times = || points.iter().map(|point| point.step_ms);
    let (fastest, slowest) = (times().fold(f64::INFINITY, f64::min), times().fold(0.0, f64::max));
    let panels = names(points, |point| &point.axis).into_iter().map(|axis| {
        let along = |device: &'_ str| {
            points.iter().filter(|point| point.axis == axis && point.device == device).collect::<Vec<_>>()
        };
        let series = names(points, |point| &point.device).into_iter().flat_map(|device| {
            let by_work = |point: &Point| match along(device).first() {
                Some(first) => first.step_ms * point.multiply_adds / first.multiply_adds,
                None => point.step_ms,
            };
            let of = |name: &str, marks, y: &dyn Fn(&Point) -> f64| Series {
                name: name.to_owned(),
                marks,
                points: along(device)
                    .iter()
                    .map(|point| crate::chart::Point { x: point.value, y: y(point), error: None })
                    .collect(),
            };
            [of(device, Marks::Line, &|point| point.step_ms), of("", Marks::Dashed, &by_work)]
        });
        let title = if axis == "width" { "channels" } else { axis };
        Panel {
            title: String::new(),
            x: Axis::logarithmic(title),
            y: Axis::logarithmic("ms").over(fastest, slowest),
            series: series.collect(),
        }
    });
    let panels: Vec<Panel> = panels.collect();
    Chart {
        title: "The time of a step as a network grows".into(),
        notes: vec!["Dashed: by multiply-adds".into()],
        columns: panels.len(),
        panels,
    }
    .to_svg()
}

/// The names that points have, in the order of their first.
fn names(points: &[Point], name: fn(&Point) -> &str) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for point in points {
        if !names.contains(&name(point)) {
            names.push(name(point));
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::super::report::Spread;
    use super::*;

    #[test]
    fn a_bar_begins_at_equality_and_goes_to_the_better_side() {
        let line = |median: f64| {
            let spread = Spread { min: median * 0.9, median, max: median * 1.1, count: 3 };
            let one = Spread { min: 1.0, median: 1.0, max: 1.0, count: 3 };
            Line { what: "a < b".into(), unit: "ms".into(), ours: one, theirs: one, ratio: spread }
        };
        let svg = ratios(&[line(4.0), line(0.5)]);
        let bars: Vec<[f64; 2]> = svg
            .lines()
            .filter(|line| line.starts_with("<rect"))
            .map(|line| {
                let of = |name: &str| line.split(&format!(" {name}=\"")).nth(1).unwrap().split('"').next().unwrap();
                [of("x").parse().unwrap(), of("width").parse().unwrap()]
            })
            .collect();
        let [[left, width], [worse, short]] = bars[..] else { panic!("{svg}") };
        assert!((worse + short - left).abs() < 0.02, "one ends where the other begins: {bars:?}");
        assert!((width / short - 2.0).abs() < 0.01, "4 is twice as far from 1 as 1/2: {bars:?}");
        assert!(svg.contains(r#"class="s0""#) && svg.contains(r#"class="s1""#) && svg.contains("a &lt; b"), "{svg}");
    }

    #[test]
    fn names_cannot_break_a_plot() {
        let point = |value: f64| Point {
            axis: "side".into(),
            device: "<GPU & co>".into(),
            value,
            step_ms: value,
            peak_mib: None,
            parameters: 1.0,
            multiply_adds: value,
        };
        let svg = growth(&[point(1.0), point(8.0)]);
        assert!(svg.contains("&lt;GPU &amp; co&gt;") && svg.ends_with("</svg>\n"), "{svg}");
    }
}
