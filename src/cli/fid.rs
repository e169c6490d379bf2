//! `undiffuse fid`: how far generated pictures are from real ones.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::{Value, json};
use undiffuse::diffusion::{SolverKeys, SolverName};
use undiffuse::metrics::frechet::Reference;
use undiffuse::metrics::{Estimate, FeatureExtractor, FeatureSpace, INCEPTION_CONVERSION, Kid, Statistics, kid};
use undiffuse::pipeline::{ModelInfo, Preview, SampleOptions, Scheduler};
use undiffuse::weights::{DirectorySource, Source};

use super::feature_set::{Drawing, Extraction, FeatureSet, Features, Origin, Times, spread};
use super::metadata::Provenance;
use super::output::{Output, note, result};
use super::values::{self, Seed, seed};
use super::{Error, device, input, model, scheduler};

/// Most groups: each takes memory for a covariance, 32 MB with Inception's features.
const MAX_SPLITS: usize = 100;

/// Pictures that a model draws unless told otherwise.
const COUNT: usize = 10_000;

/// Measures how far generated pictures are from real ones: FID, and KID beside it
///
/// A network turns each picture into features; the Fréchet distance (FID, Heusel et al. 2017) compares the mean and the
/// covariance of these between the two sets, the kernel distance (KID, Bińkowski et al. 2018) the sets themselves. 0 is best.
/// Distances compare only where the features and the real pictures are the same, and FIDs only at the same number of
/// pictures, for FID is too large by an amount that falls with it; KID is not.
///
/// A standard error says how far the number would move with other generated pictures, measured against the same real ones.
///
/// A folder is searched for PNG files, folders inside of it too, and read in the order of their names. Pictures are not
/// held in memory, and a run that was interrupted goes on where it was when the same command is given again. What has
/// been computed once can be saved as a file of statistics and be given in place of the pictures. The .npz files of the
/// Python package pytorch-fid are such files too, if they are of Inception's features.
///
/// Prints two lines, or with --json one line of JSON.
#[derive(clap::Args)]
pub struct Args {
    /// The real pictures: a folder of PNG files, or statistics
    #[arg(long, value_name = "DIR|STATS")]
    real: PathBuf,

    /// The generated ones: a folder of PNG files, statistics, or a checkpoint, which then draws them
    #[arg(long, value_name = "DIR|STATS|MODEL")]
    generated: PathBuf,

    /// What makes features of pictures: `emoji`, a classifier of emoji pictures that is part of this command, or the path of
    /// a network's weights: InceptionV3's, for figures as they are published, or a folder like www/models/emoji-features
    #[arg(long, value_name = "NAME|PATH", default_value = "emoji")]
    features: String,

    /// How many pictures to draw, 10000 if it is not said; of a --generated folder, how many to take, spread evenly over the
    /// order of their names
    #[arg(long, value_name = "NUMBER", value_parser = count)]
    count: Option<usize>,

    /// What to draw; given several times, each in its turn
    #[arg(long, value_name = "TEXT")]
    prompt: Vec<String>,

    /// A text file with a prompt on each line, which follow those of --prompt; empty lines are passed over
    #[arg(long, value_name = "FILE")]
    prompts: Option<PathBuf>,

    /// Seed of the first picture drawn, 0 if it is not said, and any if it is `random` or -1; each further one has the next. With its seed and prompt, `sample`
    /// draws the same picture
    #[arg(long, value_name = "NUMBER", value_parser = seed)]
    seed: Option<Seed>,

    /// Number of steps, 25 if it is not said
    #[arg(long, value_name = "NUMBER", value_parser = scheduler::steps)]
    steps: Option<usize>,

    /// The solver; by default the one that the checkpoint was saved with
    #[arg(long, value_name = "NAME", value_parser = scheduler::SolverParser)]
    solver: Option<SolverName>,

    #[command(flatten)]
    settings: scheduler::Settings,

    /// How strongly the prompt is followed, 7.5 if it is not said; at 1 or below there is no guidance
    #[arg(long, value_name = "NUMBER")]
    guidance_scale: Option<f64>,

    /// DDIM's and TCD's η
    #[arg(long, value_name = "NUMBER")]
    eta: Option<f64>,

    /// A file for the statistics of the real pictures, as safetensors, to be given as --real from then on
    #[arg(long, value_name = "FILE")]
    save_real: Option<PathBuf>,

    /// A file for the statistics of the generated pictures, as safetensors, to be given as --generated from then on
    #[arg(long, value_name = "FILE")]
    save_generated: Option<PathBuf>,

    /// Leave the features of each picture out of what is saved: a smaller file, which gives a FID alone and, as --generated, no
    /// standard error
    #[arg(long)]
    without_features: bool,

    /// A folder to keep the pictures in that are drawn, as 000000.png and so on
    #[arg(long, value_name = "DIR")]
    save_pictures: Option<PathBuf>,

    /// How many groups of pictures are left out in turn for the standard errors, 2 to 100; 0 for none, which with Inception's
    /// features spares minutes
    #[arg(long, value_name = "NUMBER", default_value_t = 20, value_parser = splits)]
    splits: usize,

    /// Print one line of JSON: distances, standard errors, numbers of pictures, what they were made with, and times
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    files: model::Files,

    #[command(flatten)]
    device: device::Options,
}

fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0 | 1) => Err("a distance takes two pictures at least, and is worth something with thousands".into()),
        Ok(count) => Ok(count),
        Err(_) => Err("expected a whole number of pictures, such as 10000".into()),
    }
}

fn splits(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(splits @ (0 | 2..=MAX_SPLITS)) => Ok(splits),
        _ => Err(format!("expected a whole number of groups from 2 to {MAX_SPLITS}, or 0 for no standard error")),
    }
}

/// Computes the distances.
pub async fn run(args: Args) -> Result<(), Error> {
    // Whatever can be refused is refused before a network is loaded, let alone hours later.
    let (save_real, save_generated) = outputs(&args)?;
    args.seed.iter().for_each(|&seed| values::tell(&[seed]));
    let real = Origin::of(&args.real)?;
    let mut generated = Origin::of(&args.generated)?;
    if matches!(real, Origin::Model) {
        return Err(Error::path(&args.real, "this is no folder of pictures and no file of statistics of some"));
    }
    for (option, output, origin) in
        [("--save-real", &save_real, &real), ("--save-generated", &save_generated, &generated)]
    {
        if output.is_some() && matches!(origin, Origin::Statistics(_)) {
            return Err(Error::option(option, "these are statistics already, and there is nothing to save"));
        }
    }
    if let (Origin::Statistics(real), Origin::Statistics(generated)) = (&real, &generated) {
        let (real, generated) = (&real.statistics.space, &generated.statistics.space);
        real.check(generated).map_err(|error| Error::path(&args.generated, error))?;
    }
    check_options(&args, &generated)?;
    let prompts = prompts(&args)?;
    if let (Origin::Folder(files), Some(count)) = (&mut generated, args.count) {
        if files.len() < count {
            note(format_args!(
                "warning: {}: there are {} pictures, not {count}",
                args.generated.display(),
                files.len()
            ));
        }
        *files = spread(std::mem::take(files), count);
    }
    for (path, origin) in [(&args.real, &real), (&args.generated, &generated)] {
        if let Origin::Folder(files) = origin
            && files.len() < 2
        {
            return Err(Error::path(path, "there is one picture; a distance takes two at least"));
        }
    }
    let checkpoint = match generated {
        Origin::Model => Some(args.files.open(&args.generated).await?),
        _ => None,
    };
    let settings = settings(&args);
    let made = || made(&args);
    let drawing = Drawing {
        model: &args.generated,
        options: options(&args),
        prompts: &prompts,
        seed: args.seed.map_or(0, |seed| seed.value),
        count: args.count.unwrap_or(COUNT),
        save: args.save_pictures.as_deref(),
        settings: settings.to_string(),
        made: &made,
    };
    if let Some(checkpoint) = &checkpoint {
        if checkpoint.info().takes_prompt && prompts.is_empty() {
            let message = "this model draws what a prompt says; give some with --prompts or --prompt";
            return Err(Error::path(&args.generated, message));
        }
        checkpoint.check(&drawing.options(0..2))?;
        let real = matches!(real, Origin::Folder(_)).then_some(args.real.as_path());
        drawing.prepare(checkpoint.info(), real)?;
    }

    let is_file = |origin: &Origin| matches!(origin, Origin::Statistics(_));
    let (mut pipeline, mut described) = (None, None);
    let mut extraction = match is_file(&real) && is_file(&generated) {
        true => None,
        false => {
            let device = device::open(args.device).await?;
            described = Some(device::describe(&device));
            let extractor = extractor(&args.features, device.clone()).await?;
            let space = FeatureSpace::of(&extractor);
            for (path, origin) in [(&args.real, &real), (&args.generated, &generated)] {
                if let Origin::Statistics(file) = origin {
                    check_space(path, &file.statistics, &space)?;
                }
            }
            let numbers = args.device.numbers(&device);
            match checkpoint {
                Some(checkpoint) => pipeline = Some(model::load(checkpoint, &args.generated, device).await?),
                None => note(format_args!("device: {}", device::describe(&device))),
            }
            Some(Extraction { extractor, device: numbers })
        }
    };
    let files = |origin: &Origin| match origin {
        Origin::Folder(files) => Some(files.clone()),
        _ => None,
    };
    let (kinds, real_files) = ([kind(&real), kind(&generated)], files(&real));
    let is_same = fs::canonicalize(&args.real).is_ok_and(|real| fs::canonicalize(&args.generated).ok() == Some(real));
    let real_set = match (real, &mut extraction) {
        (Origin::Folder(files), Some(extraction)) => extraction.of_folder(&args.real, &files, None).await?,
        (Origin::Statistics(file), _) => FeatureSet::of_file(&args.real, file)?,
        _ => return Err(Error::path(&args.real, "no pictures")),
    };
    report(&real_set.times);
    if let Some(output) = &save_real {
        real_set.save(output, !args.without_features)?;
    }
    let generated_set = match (generated, &mut extraction, &pipeline) {
        (Origin::Statistics(file), _, _) => FeatureSet::of_file(&args.generated, file)?,
        (Origin::Folder(files), Some(extraction), _) => {
            let same = real_files.as_deref().filter(|_| is_same).map(|files| (files, &real_set));
            extraction.of_folder(&args.generated, &files, same).await?
        }
        (_, Some(extraction), Some(pipeline)) => extraction.of_model(pipeline, &drawing).await?,
        _ => return Err(Error::path(&args.generated, "no pictures")),
    };
    report(&generated_set.times);
    if let Some(output) = &save_generated {
        generated_set.save(output, !args.without_features)?;
    }

    let warnings = warnings(&real_set, &generated_set, is_same);
    warnings.iter().for_each(|warning| note(format_args!("warning: {warning}")));
    let start = Instant::now();
    let reference = Reference::new(&real_set.statistics)?;
    // Of both sets what their statistics say counts, though a file may hold features that say otherwise.
    let value = reference.distance(&generated_set.statistics)?;
    let fid = Estimate { value, standard_error: reference.standard_error(&generated_set.groups(args.splits)?)? };
    drop(reference);
    let kid = match (&real_set.rows, &generated_set.rows) {
        (Some(real), Some(generated)) => {
            let options = kid::Options { splits: args.splits, ..Default::default() };
            Some(kid::kid(real.rows(), generated.rows(), options)?)
        }
        _ => None,
    };
    let seconds = start.elapsed().as_secs_f64();
    let space = &real_set.statistics.space;
    match args.json {
        false => print(&fid, &kid, &real_set.statistics, &generated_set.statistics)?,
        true => {
            let model = pipeline.as_ref().map(|pipeline| {
                let info = pipeline.info();
                json!({
                    "class": info.class,
                    "scheduler": info.scheduler,
                    "settings": settings,
                    "prompts": prompts.len(),
                    "prompts_file": args.prompts.as_ref().map(|path| path.display().to_string()),
                    "network_calls": generated_set.times.calls,
                    "seed": drawing.seed.to_string(),
                    "size": size(info),
                })
            });
            let set = |path: &Path, kind: &str, set: &FeatureSet| {
                json!({
                    "path": path.display().to_string(),
                    "kind": kind,
                    "pictures": set.statistics.count,
                    "made_from": set.statistics.made_from,
                    "computed": set.times.pictures,
                    "seconds": { "drawing": set.times.drawing.as_secs_f64(), "extracting": set.times.extracting.as_secs_f64() },
                })
            };
            let mut generated = set(&args.generated, kinds[1], &generated_set);
            generated["model"] = model.unwrap_or(Value::Null);
            let json = json!({
                "fid": { "value": fid.value, "standard_error": fid.standard_error, "splits": args.splits },
                "kid": kid.map(|kid| json!({
                    "value": kid.value,
                    "standard_error": kid.standard_error,
                    "splits": args.splits,
                    "subsets": kid.subsets,
                    "subset_size": kid.subset_size,
                })),
                "features": {
                    "extractor": space.extractor,
                    "fingerprint": space.fingerprint,
                    "dimension": space.dimension,
                },
                "real": set(&args.real, kinds[0], &real_set),
                "generated": generated,
                "device": described,
                "seconds": { "distances": seconds },
                "warnings": warnings,
                "version": env!("CARGO_PKG_VERSION"),
            });
            result(format_args!("{json}"))?;
        }
    }
    // In the other order, the second might hold what the first is about to remove.
    [generated_set.rows, real_set.rows].into_iter().flatten().for_each(Features::remove);
    Ok(())
}

/// The files for statistics.
fn outputs(args: &Args) -> Result<(Option<Output>, Option<Output>), Error> {
    let open = |path: &Option<PathBuf>| path.as_deref().map(Output::new).transpose();
    let (real, generated) = (open(&args.save_real)?, open(&args.save_generated)?);
    if let (Some(one), Some(other)) = (&real, &generated)
        && one.is_same_file(other)
    {
        return Err(Error::option("--save-generated", "this is the file of --save-real; give each its own"));
    }
    Ok((real, generated))
}

/// Refuses what only a model has a use for, where there is none.
fn check_options(args: &Args, generated: &Origin) -> Result<(), Error> {
    let given = [
        ("--prompt", !args.prompt.is_empty()),
        ("--prompts", args.prompts.is_some()),
        ("--seed", args.seed.is_some()),
        ("--steps", args.steps.is_some()),
        ("--solver", args.solver.is_some()),
        ("the solver's settings", args.settings.keys(None) != SolverKeys::default()),
        ("--guidance-scale", args.guidance_scale.is_some()),
        ("--eta", args.eta.is_some()),
        ("--save-pictures", args.save_pictures.is_some()),
        ("--count", args.count.is_some() && matches!(generated, Origin::Statistics(_))),
    ];
    let of = match generated {
        Origin::Model => return Ok(()),
        Origin::Folder(_) => "the --generated pictures are there already, and no model draws them",
        Origin::Statistics(_) => "the --generated pictures are there as statistics, and no model draws them",
    };
    given.into_iter().find(|(_, given)| *given).map_or(Ok(()), |(option, _)| Err(Error::option(option, of)))
}

/// All prompts in their order.
fn prompts(args: &Args) -> Result<Vec<String>, Error> {
    let mut prompts = args.prompt.clone();
    if let Some(path) = &args.prompts {
        let text = input::text(path)?;
        let before = prompts.len();
        prompts.extend(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned));
        if prompts.len() == before {
            return Err(Error::path(path, "there is no prompt in this file; it has one on each line"));
        }
    }
    Ok(prompts)
}

fn options(args: &Args) -> SampleOptions {
    let usual = SampleOptions::default();
    SampleOptions {
        steps: args.steps.unwrap_or(usual.steps),
        guidance_scale: args.guidance_scale.unwrap_or(usual.guidance_scale),
        scheduler: args.solver.as_ref().map_or(Scheduler::Checkpoint, |name| Scheduler::Solver(name.solver)),
        solver_keys: args.settings.keys(args.solver.as_ref()),
        eta: args.eta.unwrap_or(usual.eta),
        preview: Preview::None,
        ..usual
    }
}

/// The options that decide about the pictures, for the result and to tell runs apart.
fn settings(args: &Args) -> Value {
    let SampleOptions { steps, guidance_scale, eta, solver_keys, .. } = options(args);
    let mut settings = json!({
        "steps": steps,
        "solver": args.solver.as_ref().map(|name| name.solver.name()),
        "guidance_scale": guidance_scale,
        "eta": eta,
        "files": args.files.to_json(),
    });
    if solver_keys != SolverKeys::default() {
        // Runs without any go by the name that they have always had.
        let SolverKeys { use_karras_sigmas, use_exponential_sigmas, use_beta_sigmas, algorithm_type, solver_order } =
            solver_keys;
        settings["solver_keys"] = json!({
            "use_karras_sigmas": use_karras_sigmas,
            "use_exponential_sigmas": use_exponential_sigmas,
            "use_beta_sigmas": use_beta_sigmas,
            "algorithm_type": algorithm_type,
            "solver_order": solver_order,
        });
    }
    settings
}

/// What a picture is said to be made with, but for its prompt and seed.
fn made(args: &Args) -> Provenance {
    let SampleOptions { steps, guidance_scale, scheduler, solver_keys, .. } = options(args);
    let path = args.generated.canonicalize().unwrap_or_else(|_| args.generated.clone());
    Provenance::new(path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned())
        .with("steps", steps)
        .with("guidanceScale", guidance_scale)
        .with_solver(&scheduler, &solver_keys)
        .with("eta", args.eta)
        .with_files(&args.files)
}

/// The network that `features` names.
async fn extractor(features: &str, device: undiffuse::device::Device) -> Result<FeatureExtractor, Error> {
    let path = Path::new(features);
    if features == "emoji" {
        return Ok(FeatureExtractor::emoji(device).await?);
    }
    if features == "inception" && !path.exists() {
        return Err(Error::option(
            "--features",
            format!(
                "Inception's weights are not part of this command; give their file, --features inception.safetensors, which is \
                 made of pytorch-fid's pt_inception-2015-12-05-6726825d.pth by: {INCEPTION_CONVERSION}"
            ),
        ));
    }
    if !path.exists() {
        let message = format!("there is no {features:?}: give `emoji`, or the path of a network's weights");
        return Err(Error::option("--features", message));
    }
    let source = DirectorySource::new(path);
    FeatureExtractor::load(&source, device).await.map_err(|error| Error::path(Path::new(source.name()), error))
}

fn check_space(path: &Path, statistics: &Statistics, space: &FeatureSpace) -> Result<(), Error> {
    space.check(&statistics.space).map_err(|_| {
        let message = format!(
            "these statistics are of {}, the pictures are to be compared by {space}; give the same network with --features, \
             or make the statistics anew",
            statistics.space
        );
        Error::path(path, message)
    })
}

/// What may mislead about the numbers.
fn warnings(real: &FeatureSet, generated: &FeatureSet, is_same: bool) -> Vec<String> {
    let mut warnings = Vec::new();
    if is_same {
        let message =
            "these are the --real pictures themselves, not others of their kind: the distances say nothing of a model";
        warnings.push(message.to_owned());
    }
    for (name, set) in [("real", real), ("generated", generated)] {
        let Statistics { count, space, .. } = &set.statistics;
        if let Some(count) = count.filter(|_| set.statistics.is_singular()) {
            let dimension = space.dimension;
            warnings.push(format!(
                "{count} {name} pictures are too few for {dimension} features: their covariance is singular, and the FID far \
                 too large; take several thousand, or go by the KID"
            ));
        }
    }
    let without = |set: &FeatureSet| set.rows.is_none();
    let (of_real, of_generated) = (without(real), without(generated));
    if of_real || of_generated {
        let which = match (of_real, of_generated) {
            (true, true) => "both",
            (true, false) => "the real",
            _ => "the generated",
        };
        let error = if of_generated { ", nor a standard error" } else { "" };
        warnings.push(format!("the statistics of {which} pictures hold no features: there is no KID{error}"));
    }
    warnings
}

fn kind(origin: &Origin) -> &'static str {
    match origin {
        Origin::Statistics(_) => "statistics",
        Origin::Folder(_) => "folder",
        Origin::Model => "model",
    }
}

fn size(info: &ModelInfo) -> Value {
    json!([info.height, info.width])
}

/// How fast it went, for a person.
fn report(times: &Times) {
    let Times { pictures, drawing, extracting, .. } = *times;
    let rate = |seconds: f64| pictures as f64 / seconds.max(1e-9);
    match (pictures, drawing.is_zero()) {
        (0, _) => {}
        (_, true) => {
            let seconds = extracting.as_secs_f64();
            note(format_args!("{pictures} pictures in {seconds:.1} s, {:.1} per second", rate(seconds)));
        }
        (_, false) => {
            let (drawing, extracting) = (drawing.as_secs_f64(), extracting.as_secs_f64());
            note(format_args!(
                "{pictures} pictures drawn in {drawing:.1} s, {:.1} per second, and their features taken in {extracting:.1} s, \
                 {:.1} per second",
                rate(drawing),
                rate(extracting)
            ));
        }
    }
}

fn print(fid: &Estimate, kid: &Option<Kid>, real: &Statistics, generated: &Statistics) -> Result<(), Error> {
    let counted = |statistics: &Statistics| statistics.count.map_or("an unknown number of".into(), |n| n.to_string());
    let error = |error: Option<f64>, digits: usize| error.map_or(String::new(), |error| format!(" ± {error:.digits$}"));
    result(format_args!(
        "FID  {:.4}{}  ({}; {} real and {} generated pictures)",
        fid.value,
        error(fid.standard_error, 4),
        real.space,
        counted(real),
        counted(generated)
    ))?;
    match kid {
        Some(kid) => result(format_args!(
            "KID  {:.6}{}  ({} subset{} of {})",
            kid.value,
            error(kid.standard_error, 6),
            kid.subsets,
            if kid.subsets == 1 { "" } else { "s" },
            kid.subset_size
        )),
        None => Ok(()),
    }
}
