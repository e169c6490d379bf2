//! `undiffuse sample`: a prompt and a seed become a picture.

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::Value;
use undiffuse::device::Device;
use undiffuse::pipeline::{LoraFile, Preview, Rgba, SampleOptions, Sampler};
use undiffuse::weights::DirectorySource;

use super::metadata::Provenance;
use super::options::Given;
use super::output::{Output, bar, note, notes, result_path};
use super::tensors::{self, Stored};
use super::{Error, device, model, picture, profile, tuned, values, wgsl};

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

    #[command(flatten)]
    run: Given<SampleOptions>,

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
    let options = SampleOptions { preview: Preview::None, ..args.run.read_with_files()? };
    values::tell(&args.run.seeds);
    let checkpoint = args.files.open(&args.model).await?;
    if checkpoint.info().takes_prompt && !args.run.has("prompt") && options.start_timestep.is_none() {
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
    let made: Vec<Provenance> = (0..outs.len()).map(|index| made(&args, &options, index)).collect();
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
            let given = |name| Some(args.run.texts(name)).filter(|texts| !texts.is_empty()).unwrap_or(nothing.to_vec());
            let texts = [("token_ids", given("prompt")), ("negative_token_ids", given("negative_prompt"))];
            for (name, texts) in texts {
                let ids = texts.iter().map(|text| pipeline.tokenize(text)).collect::<Result<Vec<_>, _>>()?;
                let shape = [ids.len(), ids.first().map_or(0, Vec::len)];
                tensors.push((name, Stored::i64(&shape, ids.into_iter().flatten().map(i64::from))));
            }
        }
        trace.write(&tensors::to_bytes(path, tensors)?)?;
    }
    for ((out, drawn), made) in outs.iter().zip(&pictures).zip(&made) {
        let texts = made.texts(drawn.width, drawn.height, &pipeline.info().scheduler);
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
    let [prompts, each] = args.run.counts();
    let count = prompts.saturating_mul(each);
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

/// What picture `index` was made with. One with a seed of its own is drawn again by that alone.
fn made(args: &Args, options: &SampleOptions, index: usize) -> Provenance {
    let name = |path: &Path| path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    // `.` has no name of its own.
    let model = args.model.canonicalize().unwrap_or_else(|_| args.model.clone());
    let [prompts, each] = args.run.counts();
    let pictures = prompts * each;
    let is_alone = args.run.has("seeds");
    let loras = args.lora.iter().map(|(path, weight)| serde_json::json!({ "name": name(path), "weight": weight }));
    let values = args.run.recorded(index / each.max(1)).into_iter();
    let made = values.fold(Provenance::new(name(&model)), |made, (option, value)| made.with(&option, value));
    let files = args.run.files.iter().fold(made, |made, (option, path)| made.with(option, name(path)));
    let steps = options.timesteps.as_ref().or(options.sigmas.as_ref()).map_or(options.steps, Vec::len);
    let seed = args.run.seeds.get(index).or(args.run.seeds.first()).map_or(options.seed, |seed| seed.value);
    files
        .with("steps", steps)
        .with("seed", seed.to_string())
        .with("picture", (!is_alone && pictures > 1).then(|| format!("{} of {pictures}", index + 1)))
        .with_solver(&options.scheduler, &options.solver_keys)
        .with("loras", loras.collect::<Vec<Value>>())
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
