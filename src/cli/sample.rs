//! `undiffuse sample`: a prompt and a seed become a picture.

use std::path::{Path, PathBuf};
use std::time::Instant;

use indicatif::DecimalBytes;
use undiffuse::diffusion::Solver;
use undiffuse::pipeline::{Checkpoint, OpenOptions, Pipeline, Preview, Rgba, SampleOptions, Sampler, Scheduler};
use undiffuse::weights::DirectorySource;

use super::output::{Output, bar, note, result};
use super::tensors::{self, Stored};
use super::{Error, device, scheduler};

/// Draws a picture
///
/// Runs the reverse process of the checkpoint in MODEL, from the noise that the seed gives to a picture. The same
/// seed and options give the same picture, which is also the one that diffusers draws with
/// `torch.Generator("cpu").manual_seed(seed)`.
///
/// Prints the path of the picture. The device, the time and what else a person may want to know go to stderr.
#[derive(clap::Args)]
pub struct Args {
    /// Folder of the checkpoint, with a model_index.json
    model: PathBuf,

    /// What to draw; required by models that take a prompt, refused by others
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,

    /// What to stay away from; without effect at a guidance scale of 1 or below
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    negative_prompt: String,

    /// Seed of the noise
    #[arg(long, value_name = "NUMBER", default_value_t = 0, value_parser = seed, allow_negative_numbers = true)]
    seed: u64,

    /// Number of steps, diffusers' `num_inference_steps`
    #[arg(long, value_name = "NUMBER", default_value_t = 25, value_parser = scheduler::steps, allow_negative_numbers = true)]
    steps: usize,

    /// How strongly the prompt is followed: g in ε_u + g·(ε_c − ε_u). At 1 or below there is no guidance, and a step
    /// takes half the time
    #[arg(long, value_name = "NUMBER", default_value_t = 7.5, allow_negative_numbers = true)]
    guidance_scale: f64,

    /// The solver that walks from noise to picture, with the checkpoint's noise schedule; by default the one that the
    /// checkpoint was saved with
    #[arg(long, value_name = "NAME", value_parser = scheduler::solver_parser(), conflicts_with = "scheduler")]
    solver: Option<Solver>,

    /// A scheduler_config.json, or a folder with one, to use as it is in place of the checkpoint's
    #[arg(long, value_name = "CONFIG")]
    scheduler: Option<PathBuf>,

    /// DDIM's η: the share of DDPM's noise that each step adds, from 0 to 1. Other solvers pay no heed to it
    #[arg(long, value_name = "NUMBER", default_value_t = 0.0, allow_negative_numbers = true)]
    eta: f64,

    /// Height in pixels; by default what the model was trained at
    #[arg(long, value_name = "PIXELS", allow_negative_numbers = true)]
    height: Option<usize>,

    /// Width in pixels; by default what the model was trained at
    #[arg(long, value_name = "PIXELS", allow_negative_numbers = true)]
    width: Option<usize>,

    /// Where the networks run
    #[arg(long, value_enum, default_value_t = device::Choice::Auto)]
    device: device::Choice,

    /// The picture to write, a PNG of 8-bit RGB; an existing file is replaced
    #[arg(long, value_name = "FILE")]
    out: PathBuf,

    /// A safetensors file to write the run to, as f32: `timesteps` [steps], `initial_latents` [B, C, H, W],
    /// `latents_after_step` [steps, B, C, H, W], `image` [B, 3, H, W] in 0..1, of 1 channel where the model is grey; and as i64 `token_ids` and
    /// `negative_token_ids` [B, tokens] where the model takes a prompt
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
}

fn seed(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("expected a whole number from 0 to {}", u64::MAX))
}

/// Draws the picture.
pub async fn run(args: Args) -> Result<(), Error> {
    // Everything that can be wrong with the arguments alone, before the weights are read.
    let out = Output::new(&args.out)?;
    let trace = args.trace.as_deref().map(Output::new).transpose()?;
    if trace.as_ref().is_some_and(|trace| trace.is_same_file(&out)) {
        return Err(Error::path(&args.out, "--out and --trace name the same file; give each its own"));
    }
    let scheduler = match (&args.scheduler, args.solver) {
        (Some(path), _) => Scheduler::Config(Box::new(scheduler::Scheduler::read(path)?.config)),
        (None, Some(solver)) => Scheduler::Solver(solver),
        (None, None) => Scheduler::Checkpoint,
    };
    if !args.model.is_dir() {
        return Err(Error::path(&args.model, "there is no such folder; give the folder of a checkpoint"));
    }
    let checkpoint = Checkpoint::open(&DirectorySource::new(&args.model), &OpenOptions::default()).await;
    let checkpoint = checkpoint.map_err(|error| Error::checkpoint(&args.model, error))?;
    if checkpoint.info().takes_prompt && args.prompt.is_none() {
        return Err(Error::path(&args.model, "this model draws what a prompt says; give one with --prompt"));
    }
    let prompt = args.prompt.unwrap_or_default();
    let options = SampleOptions {
        prompt: prompt.clone(),
        negative_prompt: args.negative_prompt.clone(),
        seed: args.seed,
        steps: args.steps,
        guidance_scale: args.guidance_scale,
        scheduler,
        eta: args.eta,
        height: args.height,
        width: args.width,
        preview: Preview::None,
        vae_tiling: false,
    };
    let pipeline = load(checkpoint, &args.model, args.device).await?;
    let mut sampler = pipeline.sampler(options).await?;
    if let Some(warning) = sampler.warning() {
        note(format_args!("warning: {warning}"));
    }
    let mut recorded = trace.as_ref().map(|_| Trace::default());
    let picture = walk(&mut sampler, recorded.as_mut()).await?;
    let png = encode_png(&picture).map_err(|e| Error::path(&args.out, e))?;
    if let (Some(trace), Some(recorded), Some(path)) = (&trace, &recorded, &args.trace) {
        let mut tensors = recorded.tensors(&mut sampler, &picture).await?;
        if pipeline.info().takes_prompt {
            for (name, text) in [("token_ids", &prompt), ("negative_token_ids", &args.negative_prompt)] {
                let ids = pipeline.tokenize(text)?;
                tensors.push((name, Stored::i64(&[1, ids.len()], ids.into_iter().map(i64::from))));
            }
        }
        trace.write(&tensors::to_bytes(path, tensors)?)?;
    }
    out.write(&png)?;
    result(format_args!("{}", out.path()))
}

async fn load(checkpoint: Checkpoint, model: &Path, choice: device::Choice) -> Result<Pipeline, Error> {
    let device = device::open(choice).await?;
    note(format_args!("device: {}", device::describe(&device)));
    let bar = bar("loading  {bar:30} {decimal_bytes}/{decimal_total_bytes}  {msg}");
    let start = Instant::now();
    let mut on_progress = |progress: undiffuse::pipeline::LoadProgress| {
        bar.set_length(progress.total);
        bar.set_position(progress.loaded);
        let part = progress.file.split('/').next().unwrap_or_default();
        if bar.message() != part {
            bar.set_message(part.to_owned());
        }
    };
    let loaded = checkpoint.load(device, &mut on_progress).await;
    bar.finish_and_clear();
    let pipeline = loaded.map_err(|e| Error::checkpoint(model, e))?;
    let bytes = DecimalBytes(pipeline.info().bytes);
    note(format_args!("loaded {bytes} of weights in {:.2} s", start.elapsed().as_secs_f64()));
    Ok(pipeline)
}

/// Makes all steps; the picture of x_0.
async fn walk(sampler: &mut Sampler, mut trace: Option<&mut Trace>) -> Result<Rgba, Error> {
    let total = sampler.total();
    let bar = bar("sampling {bar:30} {pos}/{len}  {per_sec}, {eta} left");
    bar.set_length(total as u64);
    let start = Instant::now();
    let mut picture = None;
    while let Some(step) = sampler.step().await? {
        if let Some(trace) = trace.as_deref_mut() {
            trace.timesteps.push(step.timestep as f32);
            trace.latents.extend(sampler.latents().await?);
        }
        picture = step.images.into_iter().next();
        bar.inc(1);
    }
    bar.finish_and_clear();
    let milliseconds = start.elapsed().as_secs_f64() * 1e3 / total.max(1) as f64;
    let s = if total == 1 { "" } else { "s" };
    note(format_args!("{total} step{s}, {milliseconds:.1} ms per step"));
    // A table has at least one step, and the last one is decoded.
    Ok(picture.unwrap_or(Rgba { width: 0, height: 0, pixels: Vec::new() }))
}

/// What a run went through.
#[derive(Default)]
struct Trace {
    timesteps: Vec<f32>,
    latents: Vec<f32>,
}

impl Trace {
    /// What is written of it, and of where it began and ended.
    async fn tensors(&self, sampler: &mut Sampler, picture: &Rgba) -> Result<Vec<(&'static str, Stored)>, Error> {
        let shape = sampler.latents_shape();
        let steps = self.timesteps.len();
        let image = sampler.image().await?;
        let channels = image.len() / (shape[0] * picture.height * picture.width).max(1);
        Ok(vec![
            ("timesteps", Stored::f32(&[steps], &self.timesteps)),
            ("initial_latents", Stored::f32(&shape, sampler.initial_latents())),
            ("latents_after_step", Stored::f32(&[&[steps], &shape[..]].concat(), &self.latents)),
            ("image", Stored::f32(&[shape[0], channels, picture.height, picture.width], &image)),
        ])
    }
}

/// The picture as a PNG; its alpha, which is opaque everywhere, is left out.
fn encode_png(picture: &Rgba) -> Result<Vec<u8>, png::EncodingError> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, picture.width as u32, picture.height as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header()?;
    let rgb: Vec<u8> = picture.pixels.as_chunks::<4>().0.iter().flat_map(|&[r, g, b, _]| [r, g, b]).collect();
    writer.write_image_data(&rgb)?;
    writer.finish()?;
    Ok(file)
}
