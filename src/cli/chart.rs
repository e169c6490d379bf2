//! Charts: a description of panels with bars or lines, laid out as shapes, and as SVG.
//!
//! Nothing but the standard library is used here: the plots of the project's own measurements are drawn by this file, too.

use std::fmt::Write;

/// Red, green and blue.
pub type Colour = [u8; 3];

/// Where a text is, as seen from its position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    Start,
    Middle,
    End,
}

/// Panels under a common title.
#[derive(Clone, Debug, Default)]
pub struct Chart {
    pub title: String,
    /// Lines of smaller text below the title.
    pub notes: Vec<String>,
    pub panels: Vec<Panel>,
    /// How many panels stand side by side; one if 0.
    pub columns: usize,
}

/// Series on common axes.
#[derive(Clone, Debug)]
pub struct Panel {
    /// Empty for none.
    pub title: String,
    pub x: Axis,
    pub y: Axis,
    pub series: Vec<Series>,
}

/// What an axis measures, and how.
#[derive(Clone, Debug)]
pub struct Axis {
    pub label: String,
    pub scale: Scale,
    /// What it shows at least, besides all points.
    pub from_to: Option<[f64; 2]>,
}

impl Axis {
    /// An axis on which every unit has the same length.
    pub fn linear(label: impl Into<String>) -> Self {
        Self { label: label.into(), scale: Scale::Linear, from_to: None }
    }

    /// An axis on which every factor has the same length; what is not above 0 cannot be shown on it.
    pub fn logarithmic(label: impl Into<String>) -> Self {
        Self { label: label.into(), scale: Scale::Logarithmic, from_to: None }
    }

    /// The axis over this range at least.
    pub fn over(self, from: f64, to: f64) -> Self {
        Self { from_to: Some([from, to]), ..self }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    Linear,
    Logarithmic,
}

/// Points that belong together.
#[derive(Clone, Debug)]
pub struct Series {
    /// As the legend has it; empty for what belongs to the series before it.
    pub name: String,
    pub marks: Marks,
    pub points: Vec<Point>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marks {
    /// A bar from the axis to each point.
    Bars,
    /// A line through all points, with a dot on each where they are few.
    Line,
    /// A dashed line without dots, for what is only there to compare with.
    Dashed,
}

/// A value, and how far it may be off in either direction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    pub x: f64,
    pub y: f64,
    pub error: Option<f64>,
}

/// Width of a panel with its labels, and its height, in SVG's pixels.
const PANEL: [f64; 2] = [860.0, 340.0];
/// Width and height of one of several panels side by side.
const NARROW: [f64; 2] = [460.0, 320.0];
/// Width of what is left free around a chart.
const MARGIN: f64 = 16.0;

/// Lengths between labels, as few as may be.
const TICK_DISTANCE: f64 = 60.0;

/// Most points of a line that get a dot.
const FEW: usize = 60;

/// Width of the ends of an error; where points are closer, errors are left out.
const WHISKER: f64 = 6.0;

/// What series are drawn in: hues that differ in lightness too.
const PALETTE: [Colour; 6] =
    [[47, 129, 247], [210, 105, 30], [46, 139, 87], [130, 80, 223], [191, 57, 137], [110, 119, 129]];

/// Colours of text, of lines in the background, and of the background.
const INK: Colour = [36, 41, 47];
const SOFT: Colour = [101, 109, 118];
const FAINT: Colour = [216, 222, 228];
pub const PAPER: Colour = [255, 255, 255];

/// What a shape is painted with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Paint {
    Ink,
    Soft,
    Faint,
    Series(usize),
}

impl Paint {
    /// The colour on white.
    pub fn colour(self) -> Colour {
        match self {
            Self::Ink => INK,
            Self::Soft => SOFT,
            Self::Faint => FAINT,
            Self::Series(index) => PALETTE[index % PALETTE.len()],
        }
    }

    /// The class of SVG.
    fn class(self) -> String {
        match self {
            Self::Ink => "ink".into(),
            Self::Soft => "soft".into(),
            Self::Faint => "faint".into(),
            Self::Series(index) => format!("s{}", index % PALETTE.len()),
        }
    }
}

/// How large a text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    Title,
    Panel,
    Small,
}

/// What a chart is made of once it is laid out.
#[derive(Clone, Debug)]
pub enum Shape {
    Bar { from: [f64; 2], to: [f64; 2], paint: Paint },
    Line { points: Vec<[f64; 2]>, width: f64, dashed: bool, paint: Paint },
    Dot { at: [f64; 2], radius: f64, paint: Paint },
    Text { at: [f64; 2], text: String, size: Size, anchor: Anchor, paint: Paint },
}

/// Shapes and the size of the whole.
pub struct Drawing {
    pub size: [f64; 2],
    pub shapes: Vec<Shape>,
}

impl Drawing {
    /// Adds a text.
    pub fn text(&mut self, at: [f64; 2], text: &str, size: Size, anchor: Anchor, paint: Paint) {
        self.shapes.push(Shape::Text { at, text: text.to_owned(), size, anchor, paint });
    }

    /// Adds a straight line.
    pub fn line(&mut self, from: [f64; 2], to: [f64; 2], width: f64, paint: Paint) {
        self.shapes.push(Shape::Line { points: vec![from, to], width, dashed: false, paint });
    }

    /// The shapes as an SVG that can be read on a light page and on a dark one.
    pub fn to_svg(&self, title: &str) -> String {
        let [width, height] = self.size;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" role=\"img\">\n"
        );
        _ = writeln!(svg, "<title>{}</title>", escaped(title));
        svg.push_str(&style());
        for shape in &self.shapes {
            draw_svg(&mut svg, shape);
        }
        svg + "</svg>\n"
    }
}

impl Chart {
    /// The chart as an SVG that can be read on a light page and on a dark one.
    pub fn to_svg(&self) -> String {
        self.layout().to_svg(&self.title)
    }

    /// The chart as shapes.
    pub fn layout(&self) -> Drawing {
        let columns = self.columns.clamp(1, self.panels.len().max(1));
        let [width, height] = if columns == 1 { PANEL } else { NARROW };
        let rows = self.panels.len().div_ceil(columns);
        let mut drawing = Drawing { size: [width * columns as f64, 0.0], shapes: Vec::new() };
        let mut top = MARGIN;
        if !self.title.is_empty() {
            drawing.text([MARGIN, top + 14.0], &self.title, Size::Title, Anchor::Start, Paint::Ink);
            top += 24.0;
        }
        for note in &self.notes {
            drawing.text([MARGIN, top + 10.0], note, Size::Small, Anchor::Start, Paint::Soft);
            top += 17.0;
        }
        top += 6.0;
        for (index, panel) in self.panels.iter().enumerate() {
            let corner = [width * (index % columns) as f64, top + height * (index / columns) as f64];
            panel.layout(&mut drawing, corner, [width, height]);
        }
        drawing.size[1] = top + height * rows as f64;
        drawing
    }
}

impl Panel {
    fn layout(&self, drawing: &mut Drawing, [left, top]: [f64; 2], [width, height]: [f64; 2]) {
        let shown: Vec<Vec<Point>> = self.series.iter().map(|series| self.shown(series)).collect();
        let bars = self.series.iter().any(|series| series.marks == Marks::Bars);
        let ends =
            |point: &Point| [point.y, point.y - point.error.unwrap_or(0.0), point.y + point.error.unwrap_or(0.0)];
        let ys = shown.iter().flatten().flat_map(ends).filter(|y| self.y.scale == Scale::Linear || *y > 0.0);
        let origin = (bars && self.y.scale == Scale::Linear).then_some(0.0);
        let least = |axis: &Axis| axis.from_to.into_iter().flatten();
        let y_range = Range::new(ys.chain(origin).chain(least(&self.y)), self.y.scale, true);
        let xs = shown.iter().flatten().map(|point| point.x);
        let x_range = Range::new(xs.chain(least(&self.x)), self.x.scale, false);

        // Titles, then the plot, then the labels of x.
        let mut y = top;
        if !self.title.is_empty() {
            drawing.text([left + MARGIN, y + 12.0], &self.title, Size::Panel, Anchor::Start, Paint::Ink);
            y += 20.0;
        }
        drawing.text([left + MARGIN, y + 10.0], &self.y.label, Size::Small, Anchor::Start, Paint::Soft);
        self.legend(drawing, left + width - MARGIN, y + 10.0);
        let (upper, lower) = (y + 24.0, top + height - 48.0);
        let y_ticks = y_range.ticks(lower - upper, 36.0);
        let widest = y_ticks.iter().map(|&tick| label(tick).chars().count()).max().unwrap_or(0);
        let start = left + MARGIN + 7.0 * widest as f64 + 8.0;
        let end = left + width - MARGIN - 12.0;
        let axis_y = |value: f64| lower - (lower - upper) * y_range.share(value);
        // Bars at the ends need half their width.
        let gap = shown.iter().map(|points| narrowest(points, &x_range)).fold(1.0, f64::min);
        let inset = if bars { (gap * (end - start) / 2.0).clamp(2.0, 40.0) } else { 6.0 };
        let axis_x = |value: f64| start + inset + (end - start - 2.0 * inset) * x_range.share(value);

        for &tick in &y_ticks {
            let at = axis_y(tick);
            drawing.line([start, at], [end, at], 1.0, Paint::Faint);
            drawing.text([start - 8.0, at + 4.0], &label(tick), Size::Small, Anchor::End, Paint::Soft);
        }
        for &tick in &x_range.ticks(end - start, TICK_DISTANCE) {
            let at = axis_x(tick);
            drawing.line([at, lower], [at, lower + 4.0], 1.0, Paint::Soft);
            drawing.text([at, lower + 18.0], &label(tick), Size::Small, Anchor::Middle, Paint::Soft);
        }
        let middle = (start + end) / 2.0;
        drawing.text([middle, lower + 36.0], &self.x.label, Size::Small, Anchor::Middle, Paint::Soft);

        let base = axis_y(origin.unwrap_or(f64::NEG_INFINITY)).clamp(upper, lower);
        let room = gap * (end - start - 2.0 * inset);
        // Where bars are as dense as pixels they touch, so that no pattern appears between them.
        let bar = if room < 4.0 { room.max(1.5) } else { (0.8 * room).min(40.0) };
        let bars_of = self.series.iter().zip(&shown).filter(|(series, _)| series.marks == Marks::Bars);
        let all_bars: Vec<Point> = bars_of.flat_map(|(_, points)| points).copied().collect();
        for (index, (series, points)) in self.series.iter().zip(&shown).enumerate() {
            let paint = self.paint(index);
            let places: Vec<[f64; 2]> = points.iter().map(|point| [axis_x(point.x), axis_y(point.y)]).collect();
            match series.marks {
                Marks::Bars => {
                    for &[x, y] in &places {
                        let (from, to) = ([x - bar / 2.0, y.min(base)], [x + bar / 2.0, y.max(base)]);
                        drawing.shapes.push(Shape::Bar { from, to, paint });
                    }
                }
                Marks::Line | Marks::Dashed => {
                    let dashed = series.marks == Marks::Dashed;
                    let width = if dashed { 1.5 } else { 2.0 };
                    drawing.shapes.push(Shape::Line { points: places.clone(), width, dashed, paint });
                    if !dashed && places.len() <= FEW {
                        drawing.shapes.extend(places.iter().map(|&at| Shape::Dot { at, radius: 3.0, paint }));
                    }
                }
            }
            let whiskers = if series.marks == Marks::Bars { Paint::Ink } else { paint };
            let neighbours = if series.marks == Marks::Bars { &all_bars } else { points };
            let crowded = |point: &Point| {
                let apart = |other: &Point| (axis_x(other.x) - axis_x(point.x)).abs();
                neighbours.iter().any(|other| other.x != point.x && apart(other) < WHISKER)
            };
            for (point, [x, _]) in points.iter().zip(&places) {
                let Some(error) = point.error.filter(|error| *error > 0.0 && !crowded(point)) else { continue };
                let (high, low) = (axis_y(point.y + error), axis_y(point.y - error).clamp(upper, lower));
                drawing.line([*x, high], [*x, low], 1.0, whiskers);
                for end in [high, low] {
                    drawing.line([x - WHISKER / 2.0, end], [x + WHISKER / 2.0, end], 1.0, whiskers);
                }
            }
        }
        drawing.line([start, base], [end, base], 1.0, Paint::Soft);
    }

    /// The colour of a series. One without a name belongs to the one before it.
    fn paint(&self, index: usize) -> Paint {
        Paint::Series(self.series.iter().skip(1).take(index).filter(|series| !series.name.is_empty()).count())
    }

    /// The points that have a place on the axes.
    fn shown(&self, series: &Series) -> Vec<Point> {
        let fits = |scale, value: f64| value.is_finite() && (scale == Scale::Linear || value > 0.0);
        let here = |point: &&Point| fits(self.x.scale, point.x) && fits(self.y.scale, point.y);
        series.points.iter().filter(here).copied().collect()
    }

    /// The names of the series, each after its mark, up to `right`.
    fn legend(&self, drawing: &mut Drawing, right: f64, y: f64) {
        // As wide as letters are in a wide font, so that nothing overlaps in any.
        let width = |name: &str| 7.2 * name.chars().count() as f64;
        let mut x = right;
        for (index, series) in self.series.iter().enumerate().rev().filter(|(_, series)| !series.name.is_empty()) {
            let paint = self.paint(index);
            x -= width(&series.name);
            drawing.text([x, y], &series.name, Size::Small, Anchor::Start, Paint::Soft);
            x -= 6.0;
            match series.marks {
                Marks::Bars => drawing.shapes.push(Shape::Bar { from: [x - 10.0, y - 9.0], to: [x, y + 1.0], paint }),
                marks => {
                    let points = vec![[x - 18.0, y - 4.0], [x, y - 4.0]];
                    drawing.shapes.push(Shape::Line { points, width: 2.0, dashed: marks == Marks::Dashed, paint });
                }
            }
            x -= 34.0;
        }
    }
}

/// The least distance between two neighbours, as a share of the axis; 1 if there are none.
fn narrowest(points: &[Point], range: &Range) -> f64 {
    let mut shares: Vec<f64> = points.iter().map(|point| range.share(point.x)).collect();
    shares.sort_by(f64::total_cmp);
    let gaps = shares.windows(2).map(|pair| pair[1] - pair[0]).filter(|gap| *gap > 0.0);
    gaps.fold(1.0, f64::min)
}

/// From the least to the largest value that an axis shows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    pub from: f64,
    pub to: f64,
    pub scale: Scale,
}

impl Range {
    /// A range that holds all `values`; with `room`, one that ends on round numbers.
    fn new(values: impl Iterator<Item = f64>, scale: Scale, room: bool) -> Self {
        let (mut from, mut to) =
            values.fold((f64::INFINITY, f64::NEG_INFINITY), |(from, to), v| (from.min(v), to.max(v)));
        if from > to {
            (from, to) = if scale == Scale::Linear { (0.0, 1.0) } else { (1.0, 10.0) };
        }
        if from == to {
            let wider = if from == 0.0 { 1.0 } else { 0.5 * from.abs() };
            (from, to) = if scale == Scale::Linear { (from - wider, to + wider) } else { (from / 2.0, to * 2.0) };
        }
        if room {
            match scale {
                Scale::Linear => {
                    let step = step(from, to, 6);
                    (from, to) = ((from / step).floor() * step, (to / step).ceil() * step);
                }
                // What is least should still have a bar.
                Scale::Logarithmic => (from, to) = (from / 1.5, to * 1.2),
            }
        }
        Self { from, to, scale }
    }

    /// Where a value lies, 0 at the beginning and 1 at the end.
    pub fn share(&self, value: f64) -> f64 {
        match self.scale {
            Scale::Linear => (value - self.from) / (self.to - self.from),
            Scale::Logarithmic if value <= 0.0 => f64::NEG_INFINITY,
            Scale::Logarithmic => (value.ln() - self.from.ln()) / (self.to.ln() - self.from.ln()),
        }
    }

    /// Round numbers within, some `distance` apart on an axis of `length`.
    pub fn ticks(&self, length: f64, distance: f64) -> Vec<f64> {
        let most = ((length / distance) as usize).max(2);
        match self.scale {
            Scale::Linear => {
                let step = step(self.from, self.to, most);
                let (first, last) = ((self.from / step).ceil() as i64, (self.to / step + 1e-9).floor() as i64);
                (first..=last).map(|tick| tick as f64 * step).collect()
            }
            Scale::Logarithmic => {
                let (low, high) = (self.from.log10().floor() as i32, self.to.log10().ceil() as i32);
                let all = |steps: &[f64], every: usize| -> Vec<f64> {
                    let powers = (low..=high).filter(|power| power.rem_euclid(every as i32) == 0);
                    let of = powers.flat_map(|power| steps.iter().map(move |step| step * 10f64.powi(power)));
                    of.filter(|tick| (self.from..=self.to).contains(tick)).collect()
                };
                let fine = all(&[1.0, 2.0, 5.0], 1);
                if fine.len() <= most {
                    return fine;
                }
                (1..=high.abs_diff(low) as usize + 1)
                    .map(|every| all(&[1.0], every))
                    .find(|t| t.len() <= most)
                    .unwrap_or(fine)
            }
        }
    }
}

/// The least of 1, 2 and 5 times a power of ten that divides a range into at most `most` parts.
fn step(from: f64, to: f64, most: usize) -> f64 {
    let least = (to - from) / most as f64;
    let power = 10f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .map(|step| step * power)
        .into_iter()
        .find(|step| *step >= least * (1.0 - 1e-9))
        .unwrap_or(least)
}

/// A tick in as few characters as tell it.
pub fn label(value: f64) -> String {
    if value != 0.0 && !(1e-4..1e6).contains(&value.abs()) {
        return format!("{value:.0e}");
    }
    // Ticks are round: what is behind the sixth digit is the rounding of a product.
    let digits = (5 - value.abs().max(1e-9).log10().floor() as i32).clamp(0, 9) as usize;
    let text = format!("{value:.digits$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    if text == "-0" { "0".into() } else { text.to_owned() }
}

fn style() -> String {
    let rule = |class: &str, [r, g, b]: Colour| {
        let colour = format!("#{r:02x}{g:02x}{b:02x}");
        format!(".{class} {{ fill: {colour} }} polyline.{class} {{ fill: none; stroke: {colour} }}\n")
    };
    let light = [("ink", INK), ("soft", SOFT), ("faint", FAINT)];
    let dark = [("ink", [230, 237, 243]), ("soft", [145, 152, 161]), ("faint", [48, 54, 61])];
    let rules =
        |colours: &[(&str, Colour)]| colours.iter().map(|(class, colour)| rule(class, *colour)).collect::<String>();
    let series: String =
        PALETTE.iter().enumerate().map(|(index, colour)| rule(&format!("s{index}"), *colour)).collect();
    format!(
        "<style>\ntext {{ font-family: system-ui, sans-serif }}\npolyline {{ stroke-linejoin: round }}\n{}{series}\
         @media (prefers-color-scheme: dark) {{\n{}}}\n</style>\n",
        rules(&light),
        rules(&dark)
    )
}

fn draw_svg(svg: &mut String, shape: &Shape) {
    // Writing to a string cannot fail.
    match shape {
        Shape::Bar { from: [left, top], to: [right, bottom], paint } => {
            let (width, height) = (right - left, bottom - top);
            _ = writeln!(
                svg,
                r#"<rect class="{}" x="{left:.2}" y="{top:.2}" width="{width:.2}" height="{height:.2}"/>"#,
                paint.class()
            );
        }
        Shape::Line { points, width, dashed, paint } => {
            let points: Vec<String> = points.iter().map(|[x, y]| format!("{x:.2},{y:.2}")).collect();
            let dashes = if *dashed { r#" stroke-dasharray="5 4""# } else { "" };
            _ = writeln!(
                svg,
                r#"<polyline class="{}" stroke-width="{width}"{dashes} points="{}"/>"#,
                paint.class(),
                points.join(" ")
            );
        }
        Shape::Dot { at: [x, y], radius, paint } => {
            _ = writeln!(svg, r#"<circle class="{}" cx="{x:.2}" cy="{y:.2}" r="{radius}"/>"#, paint.class());
        }
        Shape::Text { at: [x, y], text, size, anchor, paint } => {
            let (pixels, weight) = match size {
                Size::Title => (15, 600),
                Size::Panel => (13, 600),
                Size::Small => (11, 400),
            };
            let anchor = match anchor {
                Anchor::Start => "start",
                Anchor::Middle => "middle",
                Anchor::End => "end",
            };
            _ = writeln!(
                svg,
                r#"<text class="{}" x="{x:.2}" y="{y:.2}" font-size="{pixels}" font-weight="{weight}" text-anchor="{anchor}">{}</text>"#,
                paint.class(),
                escaped(text)
            );
        }
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(from: f64, to: f64, scale: Scale) -> Range {
        Range { from, to, scale }
    }

    #[test]
    fn ticks_are_round_and_no_more_than_there_is_room_for() {
        let ticks = |from, to, scale, length| range(from, to, scale).ticks(length, 50.0);
        assert_eq!(ticks(0.0, 10.0, Scale::Linear, 300.0), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        assert_eq!(ticks(-0.03, 0.31, Scale::Linear, 300.0), [0.0, 0.1, 0.2, 0.30000000000000004]);
        assert_eq!(ticks(1.0, 40.0, Scale::Logarithmic, 300.0), [1.0, 2.0, 5.0, 10.0, 20.0]);
        assert_eq!(ticks(0.003, 5000.0, Scale::Logarithmic, 300.0), [0.01, 0.1, 1.0, 10.0, 100.0, 1000.0]);
        assert_eq!(ticks(1e-9, 1e9, Scale::Logarithmic, 200.0), [1e-5, 1.0, 1e5]);
    }

    #[test]
    fn a_label_is_as_short_as_its_number() {
        let numbers = [0.0, 0.1 + 0.2, -0.05, 1200.0, 1e-4, 2e-5, 5e6, 250.0, 0.00085];
        let labels = ["0", "0.3", "-0.05", "1200", "0.0001", "2e-5", "5e6", "250", "0.00085"];
        assert_eq!(numbers.map(label), labels);
    }

    #[test]
    fn a_range_holds_its_values_and_is_never_empty() {
        for (values, scale) in [
            (vec![], Scale::Linear),
            (vec![], Scale::Logarithmic),
            (vec![0.0], Scale::Linear),
            (vec![3.0, 3.0], Scale::Logarithmic),
            (vec![-2.5, 7.1], Scale::Linear),
            (vec![1e-6, 3.0], Scale::Logarithmic),
        ] {
            let range = Range::new(values.iter().copied(), scale, true);
            assert!(range.from < range.to, "{range:?}");
            assert!(values.iter().all(|&value| (0.0..=1.0).contains(&range.share(value))), "{values:?} in {range:?}");
        }
    }

    fn chart(points: Vec<Point>, marks: Marks, y: Axis) -> Chart {
        let series = vec![Series { name: "<a & b>".into(), marks, points }];
        let panel = Panel { title: "panel".into(), x: Axis::linear("t"), y, series };
        Chart { title: "A <title> & more".into(), notes: vec!["note".into()], panels: vec![panel], columns: 1 }
    }

    fn points(ys: &[f64]) -> Vec<Point> {
        ys.iter().enumerate().map(|(x, &y)| Point { x: x as f64, y, error: Some(0.1) }).collect()
    }

    #[test]
    fn an_svg_is_drawn_whatever_the_numbers_are() {
        let strange = [f64::NAN, f64::INFINITY, 0.0, -1.0, 1e-300, 1e300];
        for ys in [&[][..], &[1.0], &[0.0, 0.0], &strange, &[1.0; 1000]] {
            for marks in [Marks::Bars, Marks::Line, Marks::Dashed] {
                for y in [Axis::linear("y"), Axis::logarithmic("y")] {
                    let chart = chart(points(ys), marks, y);
                    let svg = chart.to_svg();
                    assert!(svg.ends_with("</svg>\n") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
                    assert!(!svg.contains("<a &") && svg.contains("&lt;a &amp; b&gt;"), "names cannot break it: {svg}");
                }
            }
        }
    }

    #[test]
    fn a_bar_is_as_high_as_its_value() {
        let svg = chart(points(&[1.0, 2.0, 4.0]), Marks::Bars, Axis::linear("y")).to_svg();
        let heights: Vec<f64> = svg
            .lines()
            .filter(|line| line.starts_with("<rect class=\"s0\""))
            .map(|line| line.split("height=\"").nth(1).unwrap().split('"').next().unwrap().parse().unwrap())
            .collect();
        // The legend's comes first.
        let [_, one, two, four] = heights[..] else { panic!("{heights:?}") };
        assert!((two / one - 2.0).abs() < 0.01 && (four / one - 4.0).abs() < 0.01, "{heights:?}");
    }
}
