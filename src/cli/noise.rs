//! `undiffuse noise`: the forward process of a picture, as a sheet of pictures and a table.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde_json::{Value, json};
use undiffuse::diffusion::{NoiseSchedule, Noising, SchedulerConfig, SolverName};
use undiffuse::noise::Stream;
use undiffuse::pipeline::{self, ForwardOptions, ForwardProcess, NoisyPicture, Preview, Rgba, Scheduler, Space, Text};

use super::canvas::{Anchor, Canvas, Colour, Height, Style};
use super::output::{Output, bar, note, result};
use super::values::{self, Seed, seed};
use super::{Error, device, model, picture, scheduler};

/// Shows how a picture dissolves in noise
///
/// Adds the noise of the given timesteps to IMAGE, x_t = √ᾱ_t·x_0 + √(1−ᾱ_t)·ε with one ε for all, and writes a sheet with a picture
/// of each, in the order in which they are given. Prints a table: β_t, the variance that timestep t adds; α_t = 1 − β_t; ᾱ_t, the
/// share of the picture's variance that is left; and the signal-to-noise ratio ᾱ_t/(1−ᾱ_t) in decibels.
///
/// With --model the noise schedule is that of the checkpoint, and noise is added to what it works on: where it has an autoencoder,
/// to latents, which `undiffuse sample --start-timestep` with the same seed begins with. --predict asks its network once at each
/// timestep, and adds what it takes for the noise, and the picture that this leaves.
#[derive(clap::Args)]
pub struct Args {
    /// A PNG
    image: PathBuf,

    /// Timesteps from 0, the least noise, to 999 in most schedules; by default five, evenly spread
    #[arg(long, value_name = "NUMBER,…", value_delimiter = ',')]
    timesteps: Option<Vec<usize>>,

    /// A checkpoint, whose noise schedule it is: a folder with a model_index.json, or a single .safetensors or .gguf file
    #[arg(long, value_name = "MODEL")]
    model: Option<PathBuf>,

    #[command(flatten)]
    files: model::Files,

    /// A noise schedule of 1000 timesteps, where there is no --model
    #[arg(long, value_enum, default_value_t = Schedule::Linear, conflicts_with = "model")]
    schedule: Schedule,

    /// The schedule shifted and scaled so that nothing is left of the picture at the last timestep
    #[arg(long, conflicts_with = "model")]
    zero_terminal_snr: bool,

    /// Seed of the noise; `random` or -1 for any, which is then said
    #[arg(long, value_name = "NUMBER", default_value = "0", value_parser = seed)]
    seed: Seed,

    /// What noise is added to; by default what the --model works on, and pixels where there is none
    #[arg(long, value_enum)]
    space: Option<In>,

    /// Show latents through the model's own decoder rather than through a quick and soft approximation of it
    #[arg(long, requires = "model")]
    decode: bool,

    /// Ask the network of the --model once at each timestep: two rows more, of ε̂ and of x̂_0
    #[arg(long, requires = "model")]
    predict: bool,

    /// What the network is told; nothing by default
    #[arg(long, value_name = "TEXT", requires = "predict")]
    prompt: Option<String>,

    /// What to stay away from; without effect at a guidance scale of 1 or below
    #[arg(long, value_name = "TEXT", requires = "predict")]
    negative_prompt: Option<String>,

    /// How strongly the prompt is followed. At 1 or below there is no guidance
    #[arg(long, value_name = "NUMBER", default_value_t = 1.0, requires = "predict")]
    guidance_scale: f64,

    /// The solver that the checkpoint's scheduler is swapped for
    #[arg(long, value_name = "NAME", value_parser = scheduler::SolverParser, requires = "model")]
    solver: Option<SolverName>,

    #[command(flatten)]
    device: device::Options,

    /// Print one line of JSON in place of the table: for each timestep `timestep`, `beta`, `alpha`, `alphaBar`, `signal`, `noise`,
    /// `snr`, and with --predict `meanSquaredError`
    #[arg(long)]
    json: bool,

    /// The sheet to write, a PNG of 8-bit RGB; an existing file is replaced
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// A noise schedule as models are trained with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Schedule {
    /// β_t evenly from 0.0001 to 0.02: DDPM
    Linear,
    /// √β_t evenly, β_t from 0.00085 to 0.012: Stable Diffusion
    #[value(name = "scaled_linear")]
    ScaledLinear,
    /// ᾱ_t as the square of a cosine: improved DDPM
    #[value(alias = "squaredcos_cap_v2")]
    Cosine,
}

/// What noise is added to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum In {
    /// The pixels of the picture
    Pixels,
    /// What the model works on
    Latents,
}

/// One timestep.
struct Column {
    timestep: usize,
    /// x_t, and with --predict ε̂ and x̂_0.
    pictures: Vec<Rgba>,
    mean_squared_error: Option<f64>,
}

/// The schedule that the table is of.
enum Levels {
    Schedule(NoiseSchedule),
    /// Rectified flow has no β_t.
    Flow(Box<SchedulerConfig>),
}

/// Writes the sheet and prints the table.
pub async fn run(args: Args) -> Result<(), Error> {
    let out = Output::new(&args.out)?;
    values::tell(&[args.seed]);
    let image = picture::read(&args.image)?;
    let (levels, columns) = match &args.model {
        Some(path) => with_model(&args, path, image).await?,
        None => without_model(&args, &image)?,
    };
    let sheet = sheet(&levels, &columns);
    out.write(&picture::encode(&sheet, &[]).map_err(|e| Error::path(&args.out, e))?)?;
    if args.json {
        let rows: Vec<Value> = columns.iter().map(|column| levels.json(column)).collect();
        return result(format_args!("{}", Value::Array(rows)));
    }
    levels.header(args.predict)?;
    columns.iter().try_for_each(|column| levels.print(column))
}

/// The timesteps of a schedule of `all` that are asked for.
fn timesteps(args: &Args, all: usize) -> Vec<usize> {
    let last = all.saturating_sub(1);
    args.timesteps.clone().unwrap_or_else(|| (0..5).map(|i| (i * all / 4).min(last)).collect())
}

fn without_model(args: &Args, image: &Rgba) -> Result<(Levels, Vec<Column>), Error> {
    if args.space == Some(In::Latents) {
        let message = "latents are a model's; give one with --model".into();
        let error = pipeline::Error::Option { option: "space", value: "latents".into(), message };
        return Err(error.into());
    }
    let schedule = match args.schedule {
        Schedule::Linear => NoiseSchedule::linear(1e-4, 0.02, 1000),
        Schedule::ScaledLinear => NoiseSchedule::scaled_linear(0.00085, 0.012, 1000),
        Schedule::Cosine => NoiseSchedule::cosine(1000),
    };
    let schedule = if args.zero_terminal_snr { schedule.with_zero_terminal_snr() } else { schedule };
    let noisy = NoisyPicture::new(image, args.seed.value, Stream::TorchCpu)?;
    let asked = timesteps(args, schedule.num_train_timesteps());
    check_size(&asked, 1, image)?;
    let column = |timestep: usize| {
        let forward = schedule.marginal(timestep).ok_or_else(|| pipeline::Error::Option {
            option: "timesteps",
            value: timestep.to_string(),
            message: format!("the timesteps of this schedule are 0 to {}", schedule.num_train_timesteps() - 1),
        })?;
        Ok(Column { timestep, pictures: vec![noisy.at(Some(forward)).image], mean_squared_error: None })
    };
    let columns = asked.into_iter().map(column).collect::<Result<_, Error>>()?;
    Ok((Levels::Schedule(schedule), columns))
}

async fn with_model(args: &Args, path: &Path, image: Rgba) -> Result<(Levels, Vec<Column>), Error> {
    let checkpoint = args.files.open(path).await?;
    let info = checkpoint.info();
    let space = match args.space {
        Some(In::Pixels) => Space::Pixels,
        Some(In::Latents) | None => Space::Latents,
    };
    if space == Space::Latents && !info.takes_start_timestep {
        let message = "this model has no encoder for a picture to begin with; give --space pixels";
        return Err(Error::path(path, message));
    }
    let config = match &args.solver {
        Some(name) => checkpoint.scheduler().swap_to(name.solver).map_err(pipeline::Error::from)?,
        None => checkpoint.scheduler().clone(),
    };
    // Whatever is wrong with the timesteps, before the weights are read.
    let asked = timesteps(args, config.num_train_timesteps().map_err(pipeline::Error::from)?);
    asked.iter().try_for_each(|&t| config.noising_at(t).map(drop)).map_err(pipeline::Error::from)?;
    let device = device::open(args.device).await?;
    let pipeline = model::load(checkpoint, path, device).await?;
    let options = ForwardOptions {
        space,
        seed: args.seed.value,
        scheduler: args.solver.as_ref().map_or(Scheduler::Checkpoint, |name| Scheduler::Solver(name.solver)),
        prompt: args.prompt.as_deref().map(Text::from).unwrap_or_default(),
        negative_prompt: args.negative_prompt.as_deref().map(Text::from),
        guidance_scale: args.guidance_scale,
        preview: if args.decode { Preview::Decode } else { Preview::Auto },
        ..ForwardOptions::new(image)
    };
    let mut process = pipeline.forward_process(options).await?;
    let columns = columns(&mut process, &asked, args.predict).await?;
    if let Some(warning) = process.warning() {
        note(format_args!("warning: {warning}"));
    }
    let schedule = config.noise_schedule().map_err(pipeline::Error::from)?;
    let levels = if schedule.betas.is_empty() { Levels::Flow(Box::new(config)) } else { Levels::Schedule(schedule) };
    Ok((levels, columns))
}

async fn columns(process: &mut ForwardProcess, asked: &[usize], predict: bool) -> Result<Vec<Column>, Error> {
    let bar = bar("noising  {bar:30} {pos}/{len}");
    bar.set_length(asked.len() as u64);
    let mut columns = Vec::new();
    for &timestep in asked {
        let noised = process.at(Some(timestep)).await?.image;
        if columns.is_empty() {
            // All others are of the size of the first one.
            check_size(asked, if predict { 3 } else { 1 }, &noised)?;
        }
        let mut column = Column { timestep, pictures: vec![noised], mean_squared_error: None };
        if predict {
            let prediction = process.predict(timestep).await?;
            column.pictures.extend([prediction.epsilon_image, prediction.x0_image]);
            column.mean_squared_error = Some(prediction.mean_squared_error);
        }
        columns.push(column);
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(columns)
}

impl Levels {
    /// The forward process in the scale that a network sees.
    fn forward(&self, timestep: usize) -> Noising {
        let forward = match self {
            Self::Schedule(schedule) => schedule.marginal(timestep),
            Self::Flow(config) => config.noising_at(timestep).ok().map(|at| at.seen()),
        };
        // Timesteps were checked before.
        forward.unwrap_or(Noising { signal: 1.0, noise: 0.0 })
    }

    /// β_t, α_t and ᾱ_t.
    fn betas(&self, timestep: usize) -> Option<[f64; 3]> {
        match self {
            Self::Schedule(schedule) => {
                Some([schedule.beta(timestep)?, schedule.alpha(timestep)?, schedule.alpha_bar(timestep)?])
            }
            Self::Flow(_) => None,
        }
    }

    fn header(&self, predicts: bool) -> Result<(), Error> {
        let levels = match self {
            Self::Schedule(_) => format!("{:>9}  {:>9}  {:>11}", "beta_t", "alpha_t", "alpha_bar_t"),
            Self::Flow(_) => format!("{:>9}  {:>9}", "1-sigma_t", "sigma_t"),
        };
        let error = if predicts { "   mean squared error of epsilon" } else { "" };
        result(format_args!("{:>5}  {levels}  {:>8}{error}", "t", "SNR, dB"))
    }

    fn print(&self, column: &Column) -> Result<(), Error> {
        let forward = self.forward(column.timestep);
        let levels = match self.betas(column.timestep) {
            Some([beta, alpha, alpha_bar]) => format!("{beta:>9.6}  {alpha:>9.6}  {alpha_bar:>11.4e}"),
            None => format!("{:>9.6}  {:>9.6}", forward.signal, forward.noise),
        };
        let error = column.mean_squared_error.map_or(String::new(), |error| format!("   {error:.6}"));
        result(format_args!("{:>5}  {levels}  {:>8.2}{error}", column.timestep, decibels(forward)))
    }

    fn json(&self, column: &Column) -> Value {
        let forward = self.forward(column.timestep);
        let mut row = json!({
            "timestep": column.timestep,
            "signal": forward.signal,
            "noise": forward.noise,
            "snr": forward.snr(),
        });
        if let Some([beta, alpha, alpha_bar]) = self.betas(column.timestep) {
            row["beta"] = beta.into();
            row["alpha"] = alpha.into();
            row["alphaBar"] = alpha_bar.into();
        }
        if let Some(error) = column.mean_squared_error {
            row["meanSquaredError"] = error.into();
        }
        row
    }

    /// What is written below a picture.
    fn caption(&self, column: &Column) -> Vec<String> {
        let forward = self.forward(column.timestep);
        let level = match self.betas(column.timestep) {
            Some([_, _, alpha_bar]) => format!("ᾱ = {}", short(alpha_bar)),
            None => format!("σ = {}", short(forward.noise)),
        };
        let error = column.mean_squared_error.map(|error| format!("mse {}", short(error)));
        [format!("t = {}", column.timestep), level].into_iter().chain(error).collect()
    }
}

/// A number from 0 to about 1 in a few letters.
fn short(number: f64) -> String {
    if number == 0.0 || number >= 0.001 { format!("{number:.4}") } else { format!("{number:.2e}") }
}

/// The signal-to-noise ratio.
fn decibels(forward: Noising) -> f64 {
    20.0 * (libm::log10(forward.signal) - libm::log10(forward.noise))
}

const BACKGROUND: Colour = [255; 3];
const INK: Colour = [32; 3];
/// Pixels between pictures and around them.
const GAP: usize = 12;
/// Height of a line of text.
const LINE: usize = 20;
/// Small pictures are shown several times as large, up to about this: captions need room.
const SIDE: usize = 192;
/// Most pixels of a sheet.
const MOST: usize = 1 << 27;

const STYLE: Style = Style { height: Height::H16, bold: false, colour: INK, anchor: Anchor::Middle };
/// Room for a line of a caption: its longest is of a small number, and with Greek letters spelled out.
const WIDEST: &str = "ᾱ = 1.00e-10";
/// Lines of a caption: one more where the network was asked.
fn lines(rows: usize) -> usize {
    2 + usize::from(rows > 1)
}

/// Where everything on a sheet is, in pixels.
struct SheetLayout {
    /// How many times as large as they are pictures are shown.
    times: usize,
    /// Height and width of a picture as it is shown.
    picture: [usize; 2],
    /// Names of the rows, in two lines each; none of a single row.
    names: &'static [[&'static str; 2]],
    /// Width of these.
    margin: usize,
    /// From a column to the next.
    cell: usize,
    /// Width and height of the sheet.
    size: [usize; 2],
}

impl SheetLayout {
    /// That of `columns` columns of `rows` pictures like `first`.
    fn new(columns: usize, rows: usize, first: &Rgba) -> Self {
        let times = (SIDE / first.height.max(first.width).max(1)).max(1);
        let [height, width] = [first.height, first.width].map(|side| side * times);
        let names: &[[&str; 2]] =
            if rows > 1 { &[["x_t", ""], ["predicted", "ε"], ["predicted", "x_0"]] } else { &[] };
        let margin = names.iter().flatten().map(|name| STYLE.width(name) as usize + GAP).max().unwrap_or(0);
        let cell = width.max(STYLE.width(WIDEST) as usize) + GAP;
        let size = [GAP + margin + columns.saturating_mul(cell), GAP + rows * (height + GAP) + lines(rows) * LINE];
        Self { times, picture: [height, width], names, margin, cell, size }
    }
}

/// Refuses a sheet that would be too large, before anything is computed for it.
fn check_size(asked: &[usize], rows: usize, first: &Rgba) -> Result<(), Error> {
    let SheetLayout { size, .. } = SheetLayout::new(asked.len(), rows, first);
    if size[0].saturating_mul(size[1]) > MOST {
        let message = format!("the sheet would have {}×{} pixels; give fewer, or a smaller picture", size[0], size[1]);
        let value = format!("a list of {}", asked.len());
        return Err(pipeline::Error::Option { option: "timesteps", value, message }.into());
    }
    Ok(())
}

/// The pictures, a column for each timestep, with captions.
fn sheet(levels: &Levels, columns: &[Column]) -> Rgba {
    let style = STYLE;
    let empty = Rgba { width: 1, height: 1, pixels: vec![0; 4] };
    let first = columns.first().and_then(|column| column.pictures.first()).unwrap_or(&empty);
    let rows = columns.first().map_or(0, |column| column.pictures.len());
    let SheetLayout { times, picture: [height, width], names, margin, cell, size } =
        SheetLayout::new(columns.len(), rows, first);
    let mut canvas = Canvas::new(size[0], size[1], BACKGROUND);
    let top = |row: usize| GAP + row * (height + GAP);
    for (row, names) in names.iter().enumerate() {
        for (line, name) in names.iter().enumerate() {
            let y = top(row) + height / 2 + line * LINE;
            canvas.text(GAP as f64, y as f64, name, Style { anchor: Anchor::Start, ..style });
        }
    }
    for (index, column) in columns.iter().enumerate() {
        let left = GAP + margin + index * cell;
        for (row, picture) in column.pictures.iter().enumerate() {
            canvas.picture(left + (cell - GAP - width) / 2, top(row), &enlarged(picture, times));
        }
        for (line, text) in levels.caption(column).iter().enumerate() {
            let middle = (left + (cell - GAP) / 2) as f64;
            canvas.text(middle, (top(rows) + line * LINE + LINE - GAP) as f64, text, style);
        }
    }
    canvas.into_picture()
}

/// The picture with every pixel `times` as wide and as high.
fn enlarged(picture: &Rgba, times: usize) -> Rgba {
    let [height, width] = [picture.height, picture.width].map(|side| side * times);
    let source = picture.pixels.as_chunks::<4>().0;
    let pixel = |i: usize| source[i / width / times * picture.width + i % width / times];
    Rgba { width, height, pixels: (0..width * height).flat_map(pixel).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pixel_grows_alike() {
        let picture = Rgba { width: 2, height: 1, pixels: vec![1, 2, 3, 4, 5, 6, 7, 8] };
        let row = [[1, 2, 3, 4], [1, 2, 3, 4], [5, 6, 7, 8], [5, 6, 7, 8]].concat();
        assert_eq!(enlarged(&picture, 2), Rgba { width: 4, height: 2, pixels: row.repeat(2) });
        assert_eq!(enlarged(&picture, 1), picture);
    }

    #[test]
    fn a_sheet_that_would_be_too_large_is_refused_by_its_first_picture() {
        let picture = Rgba { width: 200, height: 4000, pixels: vec![0; 4 * 200 * 4000] };
        let asked: Vec<usize> = (0..160).collect();
        let error = check_size(&asked, 1, &picture).unwrap_err().to_string();
        assert!(error.contains("`timesteps` is a list of 160") && error.contains("pixels; give fewer"), "{error}");
        check_size(&asked[..2], 1, &picture).unwrap();
        check_size(&asked[..60], 1, &picture).unwrap();
        check_size(&asked[..60], 3, &picture).unwrap_err();
    }

    #[test]
    fn a_sheet_is_of_the_size_that_was_checked_and_captions_fit() {
        let levels = Levels::Schedule(NoiseSchedule::linear(1e-4, 0.02, 1000));
        let picture = Rgba { width: 2, height: 30, pixels: vec![0; 4 * 60] };
        let column = |timestep| Column { timestep, pictures: vec![picture.clone(); 3], mean_squared_error: Some(1e-5) };
        let columns = [0, 500, 999].map(column);
        let sheet = sheet(&levels, &columns);
        assert_eq!([sheet.width, sheet.height], SheetLayout::new(3, 3, &picture).size);
        for column in &columns {
            let caption = levels.caption(column);
            assert!(caption.len() == lines(3) && caption.iter().all(|line| STYLE.width(line) <= STYLE.width(WIDEST)));
        }
    }
}
