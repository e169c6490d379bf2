//! The plots of the document: SVG that can be read on a light page and on a dark one.

use std::fmt::Write;

use super::report::{Line, Point, number};

/// Text and lines in the colours of the page, series in ones that stand out on both.
const STYLE: &str = "<style>
text { font: 12px system-ui, sans-serif; fill: #24292f }
.faint { fill: none; stroke: #8c959f; stroke-opacity: 0.4 }
.end { text-anchor: end }
.middle { text-anchor: middle }
.a { fill: #2f81f7; stroke: #2f81f7 }
.b { fill: #d2691e; stroke: #d2691e }
.line { fill: none; stroke-width: 2 }
.dashed { stroke-dasharray: 4 4 }
@media (prefers-color-scheme: dark) { text { fill: #d0d7de } }
</style>
";

/// A bar for each line: how many times better, with the range over the rounds; the scale is logarithmic and begins at equality.
pub fn ratios(lines: &[Line]) -> String {
    const LABEL: f64 = 330.0;
    const WIDTH: f64 = 860.0;
    const ROW: f64 = 22.0;
    let most = lines.iter().fold(2.0, |most: f64, line| most.max(line.ratio.max));
    let least = lines.iter().fold(1.0, |least: f64, line| least.min(line.ratio.min));
    let scale = Scale::new(least, most * 1.05, LABEL, WIDTH - 60.0);
    let height = ROW * (lines.len() as f64 + 1.5);
    let mut svg = begin(WIDTH, height);
    for tick in ticks(least, most) {
        let x = scale.at(tick);
        _ = writeln!(svg, r#"<line class="faint" x1="{x:.1}" y1="0" x2="{x:.1}" y2="{:.1}"/>"#, height - ROW);
        text(&mut svg, x, height - 6.0, "middle", &format!("{}×", tick_text(tick)));
    }
    for (index, Line { what, ratio, .. }) in lines.iter().enumerate() {
        let y = ROW * index as f64 + 4.0;
        let (from, to) = (scale.at(1.0), scale.at(ratio.median));
        let (class, left) = if to < from { ("b", to) } else { ("a", from) };
        text(&mut svg, LABEL - 8.0, y + 12.0, "end", what);
        let width = (to - from).abs();
        _ = writeln!(
            svg,
            r#"<rect class="{class}" x="{left:.1}" y="{y:.1}" width="{width:.1}" height="14" fill-opacity="0.7"/>"#
        );
        let (low, high, middle) = (scale.at(ratio.min), scale.at(ratio.max), y + 7.0);
        _ = writeln!(
            svg,
            r#"<line class="{class} line" x1="{low:.1}" y1="{middle:.1}" x2="{high:.1}" y2="{middle:.1}"/>"#
        );
        text(&mut svg, high.max(from) + 6.0, y + 12.0, "", &format!("{}×", number(ratio.median)));
    }
    svg + "</svg>\n"
}

/// A panel for each axis: the time of a step on both devices, and, dashed, what the multiply-adds alone would make of the first
/// one's; both scales are logarithmic.
pub fn growth(points: &[Point]) -> String {
    const PANEL: f64 = 290.0;
    const HEIGHT: f64 = 260.0;
    const LEFT: f64 = 44.0;
    let mut axes: Vec<&str> = Vec::new();
    let mut devices: Vec<&str> = Vec::new();
    for point in points {
        if !axes.contains(&point.axis.as_str()) {
            axes.push(&point.axis);
        }
        if !devices.contains(&point.device.as_str()) {
            devices.push(&point.device);
        }
    }
    let range = |pick: fn(&Point) -> f64, of: &[&Point]| {
        of.iter().fold((f64::INFINITY, 0.0_f64), |(least, most), point| (least.min(pick(point)), most.max(pick(point))))
    };
    let all: Vec<&Point> = points.iter().collect();
    let (fastest, slowest) = range(|point| point.step_ms, &all);
    let mut svg = begin(PANEL * axes.len() as f64, HEIGHT);
    for (index, axis) in axes.iter().enumerate() {
        let left = PANEL * index as f64 + LEFT;
        let along: Vec<&Point> = points.iter().filter(|point| point.axis == **axis).collect();
        let (least, most) = range(|point| point.value, &along);
        let x = Scale::new(least, most, left, left + PANEL - LEFT - 16.0);
        let y = Scale::new(fastest, slowest, HEIGHT - 40.0, 30.0);
        let (right, title) = (x.at(most), if *axis == "width" { "channels" } else { axis });
        for tick in ticks(fastest, slowest) {
            let at = y.at(tick);
            _ = writeln!(svg, r#"<line class="faint" x1="{left:.1}" y1="{at:.1}" x2="{right:.1}" y2="{at:.1}"/>"#);
            text(&mut svg, left - 4.0, at + 4.0, "end", &tick_text(tick));
        }
        let mut named: Vec<f64> = along.iter().map(|point| point.value).collect();
        named.sort_by(f64::total_cmp);
        named.dedup();
        for value in named {
            text(&mut svg, x.at(value), HEIGHT - 24.0, "middle", &tick_text(value));
        }
        text(&mut svg, (left + right) / 2.0, HEIGHT - 6.0, "middle", title);
        for (device, class) in devices.iter().zip(["a", "b"]) {
            let of: Vec<&&Point> = along.iter().filter(|point| point.device == **device).collect();
            let Some(first) = of.first() else { continue };
            let by_work = |point: &Point| first.step_ms * point.multiply_adds / first.multiply_adds;
            let mut series = |style: &str, pick: &dyn Fn(&Point) -> f64| {
                let at = |point: &&&Point| format!("{:.1},{:.1}", x.at(point.value), y.at(pick(point)));
                let path: Vec<String> = of.iter().map(at).collect();
                _ = writeln!(svg, r#"<polyline class="{class} line {style}" points="{}"/>"#, path.join(" "));
            };
            series("", &|point| point.step_ms);
            series("dashed", &by_work);
        }
    }
    for (index, (device, class)) in devices.iter().zip(["a", "b"]).enumerate() {
        let at = LEFT + 320.0 * index as f64;
        _ = writeln!(svg, r#"<rect class="{class}" x="{at}" y="6" width="12" height="12"/>"#);
        text(&mut svg, at + 18.0, 16.0, "", &format!("{device}, ms (dashed: by multiply-adds)"));
    }
    svg + "</svg>\n"
}

/// A logarithmic scale.
struct Scale {
    from: f64,
    to: f64,
    start: f64,
    end: f64,
}

impl Scale {
    fn new(from: f64, to: f64, start: f64, end: f64) -> Self {
        Self { from, to, start, end }
    }

    fn at(&self, value: f64) -> f64 {
        let share = (value / self.from).ln() / (self.to / self.from).ln();
        self.start + share * (self.end - self.start)
    }
}

/// Round numbers of a range that spans at least a factor of two: 1, 2 and 5, or over many decades their powers of ten alone.
fn ticks(least: f64, most: f64) -> Vec<f64> {
    let (low, high) = (least.log10().floor() as i32, most.log10().ceil() as i32);
    let steps: &[f64] = if high - low > 2 { &[1.0] } else { &[1.0, 2.0, 5.0] };
    let all = (low..=high).flat_map(|power| steps.iter().map(move |step| step * 10f64.powi(power)));
    all.filter(|tick| (least..=most).contains(tick)).collect()
}

fn tick_text(value: f64) -> String {
    format!("{}", (value * 1e6).round() / 1e6)
}

fn begin(width: f64, height: f64) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\">\n{STYLE}"
    )
}

fn text(svg: &mut String, x: f64, y: f64, class: &str, content: &str) {
    let content = content.replace('&', "&amp;").replace('<', "&lt;");
    _ = writeln!(svg, r#"<text class="{class}" x="{x:.1}" y="{y:.1}">{content}</text>"#);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_logarithmic_scale_gives_every_factor_the_same_length() {
        let scale = Scale::new(1.0, 100.0, 0.0, 50.0);
        assert!((scale.at(10.0) - 25.0).abs() < 1e-9);
        assert!((scale.at(100.0) - 50.0).abs() < 1e-9);
    }

    #[test]
    fn ticks_are_round_and_few() {
        assert_eq!(ticks(1.0, 40.0), [1.0, 2.0, 5.0, 10.0, 20.0]);
        assert_eq!(ticks(3.0, 5000.0), [10.0, 100.0, 1000.0]);
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
        assert!(svg.contains("&lt;GPU &amp; co>") && svg.ends_with("</svg>\n"), "{svg}");
    }
}
