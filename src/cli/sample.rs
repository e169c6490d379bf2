//! `undiffuse sample`: a prompt and a seed become a picture.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::ValueEnum;
use serde_json::Value;
use undiffuse::device::Device;
use undiffuse::diffusion::SolverName;
use undiffuse::noise::Stream;
use undiffuse::pipeline::{LongPrompts, LoraFile, Preview, Rgba, SampleOptions, Sampler, Scheduler, Text};
use undiffuse::weights::DirectorySource;

use super::metadata::Provenance;
use super::output::{Output, bar, note, notes, result_path};
use super::tensors::{self, Stored};
use super::values::{self, Seed, seed};
use super::{Error, device, model, picture, profile, scheduler, tuned, wgsl};

/// Draws a picture
///
/// Runs the reverse process of the checkpoint in MODEL, from the noise that the seed gives to a picture. The same
/// seed and options give the same picture, which is also the one that diffusers draws with
/// `torch.Generator("cpu").manual_seed(seed)`.
///
/// Which of diffusers' pipelines runs is decided by the model and by what is given: with --image a picture is changed,
/// with --image and --mask a part of it is drawn anew, and a model that was made to enlarge takes an --image and
/// enlarges it. An option that means nothing to the model is refused.
///
/// Prints the path of each picture. The device, the time and what else a person may want to know go to stderr. A picture
/// says inside of its file what it was made with.
#[derive(clap::Args)]
pub struct Args {
    /// The checkpoint: a folder with a model_index.json, or a single .safetensors or .gguf file
    model: PathBuf,

    /// What to draw; required by models that take a prompt, refused by others. Given several times, each is drawn
    #[arg(long, value_name = "TEXT")]
    prompt: Vec<String>,

    /// What to stay away from; without effect at a guidance scale of 1 or below. One for all prompts, or one for each
    #[arg(long, value_name = "TEXT")]
    negative_prompt: Vec<String>,

    /// SDXL: what the second text encoder reads; by default the same as the first
    #[arg(long, value_name = "TEXT")]
    prompt_2: Vec<String>,

    /// SDXL: likewise, of the negative prompt
    #[arg(long, value_name = "TEXT")]
    negative_prompt_2: Vec<String>,

    /// Seed of the noise. `random` or -1 for any: which one is said, and stands in the picture
    #[arg(long, value_name = "NUMBER", default_value = "0", value_parser = seed)]
    seed: Seed,

    /// A seed for each picture, in place of one for all: each is then the picture that it would be alone
    #[arg(long, value_name = "NUMBER,…", value_delimiter = ',', value_parser = seed, conflicts_with = "seed")]
    seeds: Vec<Seed>,

    /// Which of torch's random streams the seeds are for
    #[arg(long, value_enum, default_value_t = Generator::Cpu)]
    generator: Generator,

    /// How many pictures to draw of each prompt, all at once
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    num_images_per_prompt: usize,

    /// Number of steps, diffusers' `num_inference_steps`
    #[arg(long, value_name = "NUMBER", default_value_t = 25, value_parser = scheduler::steps)]
    steps: usize,

    /// The timesteps themselves, in place of their number, for solvers that take them
    #[arg(long, value_name = "NUMBER,…", value_delimiter = ',', conflicts_with = "steps")]
    timesteps: Option<Vec<f64>>,

    /// The noise levels σ themselves, likewise
    #[arg(long, value_name = "NUMBER,…", value_delimiter = ',', conflicts_with_all = ["steps", "timesteps"])]
    sigmas: Option<Vec<f64>>,

    /// LCM: how many steps the model was distilled from; by default what its scheduler says
    #[arg(long, value_name = "NUMBER")]
    original_inference_steps: Option<usize>,

    /// How strongly the prompt is followed: g in ε_u + g·(ε_c − ε_u). At 1 or below there is no guidance, and a step
    /// takes half the time
    #[arg(long, value_name = "NUMBER", default_value_t = 7.5)]
    guidance_scale: f64,

    /// How far the guided prediction is brought back to the spread of the one that the prompt gives, from 0 to 1
    #[arg(long, value_name = "NUMBER", default_value_t = 0.0)]
    guidance_rescale: f64,

    /// The solver that walks from noise to picture, with the checkpoint's noise schedule; by default the one that the
    /// checkpoint was saved with. "DPM++ 2M SDE Karras" and the like say its settings too
    #[arg(long, value_name = "NAME", value_parser = scheduler::SolverParser, conflicts_with = "scheduler")]
    solver: Option<SolverName>,

    #[command(flatten)]
    settings: scheduler::Settings,

    /// A scheduler_config.json, or a folder with one, to use as it is in place of the checkpoint's
    #[arg(long, value_name = "CONFIG")]
    scheduler: Option<PathBuf>,

    /// DDIM's and TCD's η: the share of DDPM's noise that each step adds, from 0 to 1. Other solvers pay no heed to it
    #[arg(long, value_name = "NUMBER", default_value_t = 0.0)]
    eta: f64,

    /// DDIM: compute ε anew from the clipped x̂_0
    #[arg(long)]
    use_clipped_model_output: bool,

    /// Height in pixels; by default that of --image, or what the model was trained at
    #[arg(long, value_name = "PIXELS")]
    height: Option<usize>,

    /// Width in pixels; likewise
    #[arg(long, value_name = "PIXELS")]
    width: Option<usize>,

    /// A PNG to start from, to paint into or to enlarge
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,

    /// A PNG that says where to paint into --image: white is drawn anew, black stays
    #[arg(long, value_name = "FILE", requires = "image")]
    mask: Option<PathBuf>,

    /// How much of --image is given up to noise, from 0 to 1; by default what diffusers takes: 0.8, with a mask 1, and
    /// for SDXL 0.3 and 0.9999
    #[arg(long, value_name = "NUMBER", requires = "image")]
    strength: Option<f64>,

    /// In its place: the timestep of training at which to begin, from 0 to 999 in most models, whether or not a run would visit
    /// it. --image gets the noise of that timestep, and is denoised from there. With or without a --prompt
    #[arg(long, value_name = "NUMBER", requires = "image", conflicts_with = "strength")]
    start_timestep: Option<usize>,

    /// How much noise is added to the --image that is to be enlarged; by default 20
    #[arg(long, value_name = "NUMBER")]
    noise_level: Option<usize>,

    /// Decode and encode pictures in tiles even where the whole would fit: takes less memory and gives a slightly
    /// different picture
    #[arg(long)]
    vae_tiling: bool,

    /// How many of the text encoder's last layers to leave out
    #[arg(long, value_name = "NUMBER")]
    clip_skip: Option<usize>,

    /// What becomes of a prompt that is longer than the text encoder
    #[arg(long, value_enum, default_value_t = Long::Cut)]
    long_prompts: Long,

    /// SDXL: height and width that the picture is said to have had; by default its own
    #[arg(long, value_name = "H,W", value_parser = pair)]
    original_size: Option<[usize; 2]>,

    /// SDXL: how far from its top and left it is said to have been cropped; by default 0,0
    #[arg(long, value_name = "TOP,LEFT", value_parser = pair)]
    crops_coords_top_left: Option<[usize; 2]>,

    /// SDXL: the size that it is said to have been made for; by default its own
    #[arg(long, value_name = "H,W", value_parser = pair)]
    target_size: Option<[usize; 2]>,

    /// SDXL: --original-size of what to stay away from
    #[arg(long, value_name = "H,W", value_parser = pair)]
    negative_original_size: Option<[usize; 2]>,

    /// SDXL: --crops-coords-top-left of what to stay away from
    #[arg(long, value_name = "TOP,LEFT", value_parser = pair)]
    negative_crops_coords_top_left: Option<[usize; 2]>,

    /// SDXL: --target-size of what to stay away from
    #[arg(long, value_name = "H,W", value_parser = pair)]
    negative_target_size: Option<[usize; 2]>,

    /// A LoRA to merge into the weights, or its folder, with how much of it, 1 if it is not said; can be given several times
    #[arg(long, value_name = "FILE[:WEIGHT]", value_parser = lora)]
    lora: Vec<(PathBuf, f64)>,

    #[command(flatten)]
    files: model::Files,

    #[command(flatten)]
    device: device::Options,

    /// When the pictures are drawn, measure which kernels this GPU runs the model with in the least time, and use them from
    /// the next run on. Takes a few seconds
    #[arg(long)]
    tune: bool,

    /// The picture to write, a PNG of 8-bit RGB; an existing file is replaced. Of several pictures, x.png becomes
    /// x-0.png, x-1.png and so on
    #[arg(long, value_name = "FILE")]
    out: PathBuf,

    /// A safetensors file to write the run to, as f32: `timesteps` [steps], `initial_latents` [B, C, H, W],
    /// `latents_after_step` [steps, B, C, H, W], `image` [B, 3, H, W] in 0..1, of 1 channel where the model is grey; and as i64 `token_ids` and
    /// `negative_token_ids` [prompts, tokens] where the model takes a prompt
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,

    /// Show where the time of a step goes, node by node, next to what this device can do at most; with a FILE, write all of it
    /// there as JSON as well. The last step is measured, some tens of times
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true)]
    profile: Option<Option<PathBuf>>,

    #[command(flatten)]
    wgsl: wgsl::ShaderFolder,
}

/// One of torch's random streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Generator {
    /// `torch.Generator("cpu")`
    Cpu,
    /// `torch.Generator("cuda")`
    Cuda,
}

/// What becomes of a prompt that is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Long {
    /// What is too much is dropped, and named in a warning
    Cut,
    /// It is encoded in several parts
    Chunks,
}

fn pair(text: &str) -> Result<[usize; 2], String> {
    let numbers =
        text.split_once(',').and_then(|(one, other)| Some([one.trim().parse().ok()?, other.trim().parse().ok()?]));
    numbers.ok_or_else(|| "expected two whole numbers with a comma between them, such as 512,768".into())
}

fn lora(text: &str) -> Result<(PathBuf, f64), String> {
    // A colon may be part of the path.
    let weighted = text.rsplit_once(':').and_then(|(file, weight)| Some((file, weight.parse::<f64>().ok()?)));
    let (file, weight) = weighted.unwrap_or((text, 1.0));
    match weight.is_finite() {
        true => Ok((file.into(), weight)),
        false => Err("expected a finite weight after the colon".into()),
    }
}

/// Draws the pictures.
pub async fn run(args: Args) -> Result<(), Error> {
    // Everything that can be wrong with the arguments alone, before the weights are read.
    let outs = outputs(&args)?;
    let trace = args.trace.as_deref().map(Output::new).transpose()?;
    let profile = args.profile.iter().flatten().next().map(|path| Output::new(path)).transpose()?;
    let others = [("--trace", &trace), ("--profile", &profile)];
    for (index, (name, file)) in others.iter().enumerate() {
        let Some(file) = file else { continue };
        let same = |other: &Output| other.is_same_file(file);
        let earlier = others[..index].iter().find(|(_, other)| other.as_ref().is_some_and(same));
        let first = if outs.iter().any(same) { Some("--out") } else { earlier.map(|(name, _)| *name) };
        if let Some(first) = first {
            return Err(Error::path(&args.out, format!("{first} and {name} name the same file; give each its own")));
        }
    }
    let options = options(&args)?;
    values::tell(if args.seeds.is_empty() { std::slice::from_ref(&args.seed) } else { &args.seeds });
    let checkpoint = args.files.open(&args.model).await?;
    if checkpoint.info().takes_prompt && args.prompt.is_empty() && args.start_timestep.is_none() {
        return Err(Error::path(&args.model, "this model draws what a prompt says; give one with --prompt"));
    }
    checkpoint.check(&options)?;
    let loras = loras(&args.lora).await?;
    for (lora, (path, _)) in loras.iter().zip(&args.lora) {
        checkpoint.check_lora(lora).map_err(|e| Error::checkpoint(folder_of(path), e))?;
        lora.notes().iter().for_each(|said| note(format_args!("warning: {said}")));
    }
    let device = device::open(args.device).await?;
    let pipeline = model::load(checkpoint, &args.model, device.clone()).await?;
    if !loras.is_empty() {
        let weighted: Vec<_> = loras.iter().zip(&args.lora).map(|(file, (_, weight))| (file, *weight)).collect();
        pipeline.set_loras(&weighted).await?;
    }
    let mut sampler = pipeline.sampler(options).await?;
    if let Some(warning) = sampler.warning() {
        let cure = if warning.contains("too long") { "; with --long-prompts chunks it sees all" } else { "" };
        note(format_args!("warning: {warning}{cure}"));
    }
    let mut recorded = trace.as_ref().map(|_| Trace::default());
    let pictures = walk(&mut sampler, recorded.as_mut()).await?;
    if args.profile.is_some() {
        let measured = sampler.profile().await?;
        notes(&profile::Report(&measured).to_string());
        if let Some(file) = profile {
            file.write(format!("{:#}\n", measured.to_json()).as_bytes())?;
        }
    }
    if let (Some(trace), Some(recorded), Some(path), Some(first)) = (&trace, &recorded, &args.trace, pictures.first()) {
        let mut tensors = recorded.tensors(&mut sampler, first).await?;
        if pipeline.info().takes_prompt {
            let nothing = [String::new()];
            let given = |texts: &'_ [String]| if texts.is_empty() { nothing.to_vec() } else { texts.to_vec() };
            let texts = [("token_ids", given(&args.prompt)), ("negative_token_ids", given(&args.negative_prompt))];
            for (name, texts) in texts {
                let ids = texts.iter().map(|text| pipeline.tokenize(text)).collect::<Result<Vec<_>, _>>()?;
                let shape = [ids.len(), ids.first().map_or(0, Vec::len)];
                tensors.push((name, Stored::i64(&shape, ids.into_iter().flatten().map(i64::from))));
            }
        }
        trace.write(&tensors::to_bytes(path, tensors)?)?;
    }
    for (index, (out, drawn)) in outs.iter().zip(&pictures).enumerate() {
        let texts = made(&args, index).texts(drawn.width, drawn.height, &pipeline.info().scheduler);
        out.write(&picture::encode(drawn, &texts).map_err(|e| Error::path(&args.out, e))?)?;
        result_path(out.path())?;
    }
    args.wgsl.write(&device)?;
    if args.tune {
        tune(&device, &sampler).await?;
    }
    Ok(())
}

async fn tune(device: &Device, sampler: &Sampler) -> Result<(), Error> {
    let measured = sampler.measure_kernels().await?;
    let (Device::Gpu(device), false) = (device, measured.is_empty()) else {
        note(format_args!("--tune: this device has no choice of kernels"));
        return Ok(());
    };
    let path = tuned::remember(device, &measured)?;
    note(format_args!("kept the fastest kernels for {} products in {}", measured.len(), path.display()));
    Ok(())
}

/// A file for each picture.
fn outputs(args: &Args) -> Result<Vec<Output>, Error> {
    let count = args.prompt.len().max(1).saturating_mul(args.num_images_per_prompt);
    if count <= 1 {
        return Ok(vec![Output::new(&args.out)?]);
    }
    let numbered = |index: usize| {
        // Names need not be text.
        let mut name = args.out.file_stem().unwrap_or_default().to_owned();
        name.push(format!("-{index}"));
        if let Some(extension) = args.out.extension() {
            name.push(".");
            name.push(extension);
        }
        Output::new(&args.out.with_file_name(name))
    };
    // How many at most is for the checkpoint to say, and soon: so many names are enough.
    (0..count.min(1024)).map(numbered).collect()
}

fn options(args: &Args) -> Result<SampleOptions, Error> {
    let text = |texts: &[String]| (!texts.is_empty()).then(|| Text::from(texts.to_vec()));
    let picture = |path: &Option<PathBuf>| path.as_deref().map(picture::read).transpose();
    Ok(SampleOptions {
        prompt: text(&args.prompt).unwrap_or_default(),
        prompt_2: text(&args.prompt_2),
        negative_prompt: text(&args.negative_prompt),
        negative_prompt_2: text(&args.negative_prompt_2),
        num_images_per_prompt: args.num_images_per_prompt,
        seed: args.seed.value,
        seeds: args.seeds.iter().map(|seed| seed.value).collect(),
        generator: match args.generator {
            Generator::Cpu => Stream::TorchCpu,
            Generator::Cuda => Stream::TorchCuda,
        },
        steps: args.steps,
        timesteps: args.timesteps.clone(),
        sigmas: args.sigmas.clone(),
        original_inference_steps: args.original_inference_steps,
        guidance_scale: args.guidance_scale,
        guidance_rescale: args.guidance_rescale,
        scheduler: match (&args.scheduler, &args.solver) {
            (Some(path), _) => Scheduler::Config(Box::new(scheduler::Scheduler::read(path)?.config)),
            (None, Some(name)) => Scheduler::Solver(name.solver),
            (None, None) => Scheduler::Checkpoint,
        },
        solver_keys: args.settings.keys(args.solver.as_ref()),
        eta: args.eta,
        use_clipped_model_output: args.use_clipped_model_output,
        height: args.height,
        width: args.width,
        image: picture(&args.image)?,
        mask: picture(&args.mask)?,
        strength: args.strength,
        start_timestep: args.start_timestep,
        noise_level: args.noise_level,
        clip_skip: args.clip_skip,
        long_prompts: match args.long_prompts {
            Long::Cut => LongPrompts::Cut,
            Long::Chunks => LongPrompts::Chunks,
        },
        original_size: args.original_size,
        crops_coords_top_left: args.crops_coords_top_left.unwrap_or_default(),
        target_size: args.target_size,
        negative_original_size: args.negative_original_size,
        negative_crops_coords_top_left: args.negative_crops_coords_top_left.unwrap_or_default(),
        negative_target_size: args.negative_target_size,
        preview: Preview::None,
        vae_tiling: args.vae_tiling,
    })
}

/// What picture `index` was made with. One with a seed of its own is drawn again by that alone.
fn made(args: &Args, index: usize) -> Provenance {
    let name = |path: &Path| path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    let file = |path: &Option<PathBuf>| path.as_deref().map(name);
    // `.` has no name of its own.
    let model = args.model.canonicalize().unwrap_or_else(|_| args.model.clone());
    let text = |texts: &[String]| texts.get(index / args.num_images_per_prompt.max(1)).or(texts.first()).cloned();
    let alone = !args.seeds.is_empty();
    let together = !alone && args.prompt.len().max(1) * args.num_images_per_prompt > 1;
    let loras = args.lora.iter().map(|(path, weight)| serde_json::json!({ "name": name(path), "weight": weight }));
    Provenance::new(name(&model))
        .with("prompt", text(&args.prompt))
        .with("prompt2", text(&args.prompt_2))
        .with("negativePrompt", text(&args.negative_prompt))
        .with("negativePrompt2", text(&args.negative_prompt_2))
        .with("seed", args.seeds.get(index).unwrap_or(&args.seed).value.to_string())
        .with("generator", (args.generator == Generator::Cuda).then_some("cuda"))
        .with(
            "picture",
            together.then(|| format!("{} of {}", index + 1, args.prompt.len().max(1) * args.num_images_per_prompt)),
        )
        .with("steps", args.timesteps.as_ref().or(args.sigmas.as_ref()).map_or(args.steps, Vec::len))
        .with("timesteps", args.timesteps.clone())
        .with("sigmas", args.sigmas.clone())
        .with("originalInferenceSteps", args.original_inference_steps)
        .with("guidanceScale", args.guidance_scale)
        .with("guidanceRescale", (args.guidance_rescale != 0.0).then_some(args.guidance_rescale))
        .with_solver(args.solver.as_ref(), args.settings.keys(args.solver.as_ref()))
        .with("scheduler", file(&args.scheduler))
        .with("eta", (args.eta != 0.0).then_some(args.eta))
        .with("useClippedModelOutput", args.use_clipped_model_output.then_some(true))
        .with("height", args.height)
        .with("width", args.width)
        .with("image", file(&args.image))
        .with("mask", file(&args.mask))
        .with("strength", args.strength)
        .with("startTimestep", args.start_timestep)
        .with("noiseLevel", args.noise_level)
        .with("clipSkip", args.clip_skip)
        .with("longPrompts", (args.long_prompts == Long::Chunks).then_some("chunks"))
        .with("originalSize", args.original_size.map(Vec::from))
        .with("cropsCoordsTopLeft", args.crops_coords_top_left.map(Vec::from))
        .with("targetSize", args.target_size.map(Vec::from))
        .with("negativeOriginalSize", args.negative_original_size.map(Vec::from))
        .with("negativeCropsCoordsTopLeft", args.negative_crops_coords_top_left.map(Vec::from))
        .with("negativeTargetSize", args.negative_target_size.map(Vec::from))
        .with("loras", loras.collect::<Vec<Value>>())
        .with("vaeTiling", args.vae_tiling.then_some(true))
        .with_files(&args.files)
}

/// The headers and the matrices of the LoRAs.
async fn loras(given: &[(PathBuf, f64)]) -> Result<Vec<LoraFile>, Error> {
    let mut files = Vec::new();
    for (path, _) in given {
        let source = DirectorySource::new(folder_of(path));
        let opened = match path.is_dir() {
            true => LoraFile::open_folder(&source).await,
            false => LoraFile::open(&source, &path.file_name().unwrap_or_default().to_string_lossy()).await,
        };
        files.push(opened.map_err(|e| Error::checkpoint(folder_of(path), e))?);
    }
    Ok(files)
}

/// The folder that a LoRA is, or is in.
fn folder_of(lora: &Path) -> &Path {
    let parent = lora.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if lora.is_dir() { lora } else { parent }
}

/// Makes all steps; the pictures of x_0.
async fn walk(sampler: &mut Sampler, mut trace: Option<&mut Trace>) -> Result<Vec<Rgba>, Error> {
    let total = sampler.total();
    let bar = bar("sampling {bar:30} {pos}/{len}  {per_sec}, {eta} left");
    bar.set_length(total as u64);
    let start = Instant::now();
    let mut pictures = Vec::new();
    while let Some(step) = sampler.step().await? {
        if let Some(trace) = trace.as_deref_mut() {
            trace.timesteps.push(step.timestep as f32);
            trace.latents.extend(sampler.latents().await?);
        }
        pictures = step.images;
        bar.inc(1);
    }
    bar.finish_and_clear();
    let milliseconds = start.elapsed().as_secs_f64() * 1e3 / total.max(1) as f64;
    let s = if total == 1 { "" } else { "s" };
    note(format_args!("{total} step{s}, {milliseconds:.1} ms per step"));
    Ok(pictures)
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
