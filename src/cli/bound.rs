//! `undiffuse bound`: how many bits per dimension a model needs for pictures.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::{Value, json};
use undiffuse::pipeline::{Bound, BoundOptions, BoundSummary, Term, TermKind};

use super::chart::{Axis, Chart, Marks, Panel, Point, Series};
use super::chart_file::{self, Format};
use super::options::Given;
use super::output::{Output, bar, note, plain, result, results};
use super::{Error, device, model, picture, values};

/// Computes the variational bound of pictures: how many bits per dimension the model needs for them at most
///
/// The bound that a diffusion model is trained on (Ho et al. 2020, equation 5) is a sum: L_T, what is left of the picture at
/// the end of the forward process; L_t for each timestep t, how far the model's step from x_t is from the one that knows the
/// picture; and L_0, what the last step says about the pixels. Each but L_T takes one call of the network, at a picture to
/// which noise was added. All terms are needed for the bound itself; from some of them it is estimated, with a standard error.
///
/// For a model that works on latents it is the bound of the latents. They have no levels as pixels have, so that L_0 is by
/// a density: it may be negative, and the whole cannot be compared with the bits of pixels.
///
/// Prints a table, or with --json one line of JSON. The same seed gives the same noise: that of the term at t is
/// `torch.randn(shape, generator=manual_seed(seed + t))` for all pictures together.
#[derive(clap::Args)]
pub struct Args {
    /// The checkpoint: a folder with a model_index.json, or a single .safetensors or .gguf file
    model: PathBuf,

    /// PNG files, and folders of them, which are searched with the folders inside. All are brought to one size
    #[arg(required = true)]
    images: Vec<PathBuf>,

    #[command(flatten)]
    options: Given<BoundOptions>,

    /// Do not clamp the network's idea of the picture to the range of pixels. That of latents never is
    #[arg(long)]
    no_clip: bool,

    #[command(flatten)]
    files: model::Files,

    #[command(flatten)]
    device: device::Options,

    /// Print one line of JSON: the `terms` with bits per dimension of each picture, and the `total` with its standard errors
    #[arg(long)]
    json: bool,

    /// A bar chart of the terms by t, an SVG or a PNG by its name; an existing file is replaced
    #[arg(long, value_name = "FILE")]
    chart: Option<PathBuf>,
}

/// Computes the bound.
pub async fn run(args: Args) -> Result<(), Error> {
    let chart = match &args.chart {
        Some(path) => Some((path, Format::of(path)?, Output::new(path)?)),
        None => None,
    };
    let options = args.options.read()?;
    values::tell(&args.options.seeds);
    let paths = picture::files(&args.images)?;
    let images = paths.iter().map(|path| picture::read(path)).collect::<Result<Vec<_>, _>>()?;
    let checkpoint = args.files.open(&args.model).await?;
    let info = checkpoint.info();
    let size = [options.width.unwrap_or(info.width), options.height.unwrap_or(info.height)];
    let resized = images.iter().filter(|image| [image.width, image.height] != size).count();
    if resized > 0 {
        let [width, height] = size;
        note(format_args!("{resized} of {} pictures brought to {width}×{height}", images.len()));
    }
    let options = BoundOptions { images, clip_denoised: !args.no_clip, ..options };
    // Whatever is wrong with the options, before the weights are read.
    checkpoint.check_bound(&options)?;
    let device = device::open(args.device).await?;
    let pipeline = model::load(checkpoint, &args.model, device).await?;
    let seed = options.seed;
    let mut bound = pipeline.bound(options).await?;
    if let Some(warning) = bound.warning() {
        note(format_args!("warning: {warning}"));
    }
    walk(&mut bound).await?;
    let summary = bound.summary();
    if let Some((path, format, file)) = &chart {
        chart_file::write(&draw(&summary, &args.model), file, path, *format)?;
        note(format_args!("wrote {}", file.path().display()));
    }
    if args.json {
        let mut json = summary.to_json();
        if let Value::Object(map) = &mut json {
            let names: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
            map.extend([("images".to_owned(), json!(names)), ("seed".to_owned(), json!(seed.to_string()))]);
        }
        return result(format_args!("{json}"));
    }
    results(&table(&summary, &paths))
}

/// Computes all terms.
async fn walk(bound: &mut Bound) -> Result<(), Error> {
    let total = bound.total();
    let bar = bar("bound    {bar:30} {pos}/{len}  {per_sec}, {eta} left");
    bar.set_length(total as u64);
    let start = Instant::now();
    while bound.next_term().await?.is_some() {
        bar.inc(1);
    }
    bar.finish_and_clear();
    // L_T calls no network.
    let (calls, seconds) = (total - 1, start.elapsed().as_secs_f64());
    let s = if calls == 1 { "" } else { "s" };
    note(format_args!("{calls} term{s} in {seconds:.2} s, {:.1} ms per term", seconds * 1e3 / calls.max(1) as f64));
    Ok(())
}

/// What is said of latents wherever figures of theirs are shown.
const OF_LATENTS: &str =
    "this is the bound of latents: L_0 is by a density, may be negative, and is not comparable with bits of pixels";

/// The terms, one to a line, and what they come to.
fn table(summary: &BoundSummary, paths: &[PathBuf]) -> String {
    let mut text = String::new();
    let several = paths.len() > 1;
    let error = |error: Option<f64>| error.map_or(String::new(), |error| format!("  ± {}", figure(error)));
    // Writing to a string cannot fail.
    _ = writeln!(text, "   t  term  bits/dim{}", if several { "    ± over pictures" } else { "" });
    for term in &summary.terms {
        let timestep = term.timestep.map_or(String::new(), |t| t.to_string());
        let (mean, of_pictures) = term.mean();
        _ = writeln!(text, "{timestep:>4}  {}   {:>9}{}", term.kind.symbol(), figure(mean), error(of_pictures));
    }
    let clipped = if summary.clip_denoised { ", x̂_0 clamped" } else { "" };
    let of = if summary.of_latents { "latents" } else { "pixels" };
    _ = writeln!(text, "\n{} dimensions of {of}, variance {}{clipped}", summary.dimensions, summary.variance);
    let computed = summary.terms.len() - 1;
    match &summary.total {
        None => _ = writeln!(text, "the bound is not estimated: it takes the term of t = 0 and another one"),
        Some(total) => {
            let all = computed == summary.num_train_timesteps;
            _ = write!(text, "bound: {} bits/dim", figure(total.mean));
            match total.error_of_timesteps {
                _ if all => {}
                Some(error) => {
                    let of = summary.num_train_timesteps;
                    _ = write!(text, "  ± {} as estimated from {computed} of {of} timesteps", figure(error));
                }
                None => _ = write!(text, "  as estimated from {computed} of {} timesteps", summary.num_train_timesteps),
            }
            if let Some(error) = total.error_of_pictures {
                _ = write!(text, "  ± {} over {} pictures", figure(error), paths.len());
            }
            text.push('\n');
            if several {
                for (path, bits) in paths.iter().zip(&total.bits_per_dim) {
                    _ = writeln!(text, "  {:>9}  {}", figure(*bits), plain(&path.display().to_string()));
                }
            }
        }
    }
    if summary.of_latents {
        _ = writeln!(text, "{OF_LATENTS}");
    }
    text
}

/// A number to four digits that count.
fn figure(value: f64) -> String {
    match value.abs() {
        0.0 => "0".into(),
        size if (1e-4..1e4).contains(&size) => {
            let digits = (3 - size.log10().floor() as i32).max(0) as usize;
            format!("{value:.digits$}")
        }
        _ => format!("{value:.3e}"),
    }
}

/// The terms by t, as bars on a logarithmic scale.
fn draw(summary: &BoundSummary, model: &Path) -> Chart {
    let point = |term: &Term| {
        let (y, error) = term.mean();
        Point { x: term.timestep.unwrap_or(summary.num_train_timesteps) as f64, y, error }
    };
    let kinds = [TermKind::Transition, TermKind::Decoder, TermKind::Prior];
    let series = kinds.map(|kind| {
        let of = summary.terms.iter().filter(|term| term.kind == kind).map(point);
        let points: Vec<Point> = of.filter(|point| point.y > 0.0).collect();
        // Each kind has its colour whether the others are there or not.
        let name = if points.is_empty() { String::new() } else { kind.symbol().into() };
        Series { name, marks: Marks::Bars, points }
    });
    let pictures = summary.terms.first().map_or(0, |term| term.bits_per_dim.len());
    let name = model.canonicalize().unwrap_or_else(|_| model.to_owned());
    let name = name.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let mut first = match &summary.total {
        Some(total) => format!("{} bits per dimension", figure(total.mean)),
        None => "not estimated".into(),
    };
    if let Some(error) = summary.total.as_ref().and_then(|total| total.error_of_timesteps).filter(|error| *error > 0.0)
    {
        _ = write!(
            first,
            " ± {} ({} of {} timesteps)",
            figure(error),
            summary.terms.len() - 1,
            summary.num_train_timesteps
        );
    }
    let s = if pictures == 1 { "" } else { "s" };
    let of = if summary.of_latents { "latents" } else { "pixels" };
    _ = write!(
        first,
        ", {pictures} picture{s}, {} dimensions of {of}, variance {}",
        summary.dimensions, summary.variance
    );
    let mut notes = vec![first];
    for term in &summary.terms {
        let (mean, _) = term.mean();
        if mean <= 0.0 {
            let at = term.timestep.map_or(String::new(), |t| format!(" at t = {t}"));
            notes.push(format!("{}{at} is {} and not shown", term.kind.symbol(), figure(mean)));
        }
    }
    if summary.of_latents {
        notes.push(OF_LATENTS.into());
    }
    let terms = Panel {
        title: String::new(),
        x: Axis::linear("timestep t; L_0 is that of t = 0, and L_T stands behind the last")
            .over(0.0, summary.num_train_timesteps as f64),
        y: Axis::logarithmic("bits per dimension"),
        series: series.into(),
    };
    let mut panels = vec![terms];
    if summary.total.is_some() {
        panels.push(sums(summary));
    }
    Chart { title: format!("Variational bound, {name}"), notes, panels, columns: 1 }
}

/// What the terms come to from t = 0 on, where most of the bound is.
fn sums(summary: &BoundSummary) -> Panel {
    let mut sum = 0.0;
    let sums = summary.terms.iter().rev().filter_map(|term| {
        sum += term.stands_for * term.mean().0;
        Some(Point { x: term.timestep? as f64 + 1.0, y: sum, error: None })
    });
    let points = sums.collect();
    Panel {
        title: String::new(),
        x: Axis::logarithmic("t + 1"),
        y: Axis::linear("bits per dimension of L_0 and all terms up to t"),
        series: vec![Series { name: String::new(), marks: Marks::Line, points }],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_has_the_digits_that_count() {
        let numbers = [0.0, 3.24159, 12.3456, 0.00123456, 1.23456e-6, -0.5, 123456.0];
        assert_eq!(numbers.map(figure), ["0", "3.242", "12.35", "0.001235", "1.235e-6", "-0.5000", "1.235e5"]);
    }
}
