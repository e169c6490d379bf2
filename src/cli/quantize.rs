//! `undiffuse quantize`: a checkpoint becomes a smaller one.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use indicatif::{DecimalBytes, HumanCount, ProgressBar};
use undiffuse::weights::gguf::{Entry, Writer};
use undiffuse::weights::{self, DirectorySource, Encoding, Gather, TensorFile, TensorInfo};

use super::Error;
use super::output::{bar, note, plain, result_path};
use super::partial::PartialFolder;

/// Makes a checkpoint smaller
///
/// Writes a copy of MODEL whose weights are GGUF files with fewer bits. It is opened like any other checkpoint, by this
/// command, the page and the package. Configs, tokenizers and texts are copied.
///
/// What is quantised are the matrices of linear layers, in blocks of 32 weights along a row that share a scale. All else
/// is stored as f16: convolutions, whose rows are too short for blocks, embeddings, and matrices whose rows are no
/// multiple of 32; vectors (norms and biases) as f32. So how much is saved depends on the model: much of a large one is
/// linear layers, much of a small one convolutions.
///
/// Weights are read from safetensors files, in one piece or in shards; the plain file where there are variants, such as
/// fp16, beside it. Weights that are not read when a checkpoint is run, such as those of a safety checker, are left out.
/// One tensor at a time is in memory. What is written appears whole or not at all.
///
/// Prints the path of the new checkpoint; what became of each file goes to stderr.
#[derive(clap::Args)]
pub struct Args {
    /// Folder of a checkpoint, with a model_index.json; of one network, with a config.json; or one .safetensors file
    model: PathBuf,

    /// How the matrices of linear layers are stored
    #[arg(long, value_name = "FORMAT", value_parser = format_parser())]
    to: Encoding,

    /// The folder to write, or the file where MODEL is one; by default beside MODEL, with the format's name at the end. It
    /// must not exist yet
    #[arg(long, value_name = "PATH")]
    out: Option<PathBuf>,
}

/// What `--to` may name, with ggml's number for a file of that kind (`general.file_type`).
const FORMATS: [(&str, Encoding, u32); 6] = [
    ("f16", Encoding::F16, 1),
    ("q8_0", Encoding::Q8_0, 7),
    ("q5_1", Encoding::Q5_1, 9),
    ("q5_0", Encoding::Q5_0, 8),
    ("q4_1", Encoding::Q4_1, 3),
    ("q4_0", Encoding::Q4_0, 2),
];

/// What diffusers and transformers call their files of weights.
const STEMS: [&str; 2] = ["diffusion_pytorch_model", "model"];

/// The folders of a checkpoint whose weights are read when it is run.
const NETWORKS: [&str; 4] = ["unet", "vae", "text_encoder", "text_encoder_2"];

fn format_parser() -> impl TypedValueParser<Value = Encoding> {
    let described = |(name, dtype, _): (&'static str, Encoding, u32)| {
        let block = dtype.block();
        let bits = (8 * block.bytes) as f64 / block.elements as f64;
        PossibleValue::new(name).help(format!("{bits} bits a weight"))
    };
    let find = |name: String| FORMATS.iter().find(|format| format.0 == name).map(|format| format.1);
    PossibleValuesParser::new(FORMATS.map(described)).try_map(move |name| find(name).ok_or("there is no such format"))
}

/// Writes the smaller checkpoint.
pub async fn run(args: Args) -> Result<(), Error> {
    let model = &args.model;
    let format = FORMATS.iter().find(|format| format.1 == args.to).map_or("", |format| format.0);
    let is_file = model.is_file();
    if !is_file && !model.is_dir() {
        return Err(Error::path(model, "there is no such folder or file; give a checkpoint"));
    }
    let out = match args.out {
        Some(out) => out,
        None => beside(model, format, is_file)?,
    };
    let jobs = if is_file { vec![single(model)?] } else { plan(model)? };
    let unfinished = Unfinished::new(&out)?;

    let bar = bar("{prefix:10} {bar:30} {decimal_bytes}/{decimal_total_bytes}  {msg}");
    bar.set_prefix("quantising");
    bar.set_length(jobs.iter().map(Job::bytes).sum());
    if !is_file {
        fs::create_dir(&unfinished.path).map_err(|e| cannot_write(&out, e))?;
    }
    let mut summaries = Vec::new();
    for job in jobs {
        let to = if is_file { unfinished.path.clone() } else { unfinished.path.join(job.target()) };
        // One folder at a time: where the command is interrupted, the outer one must not come back.
        if let Some(folder) = to.parent().filter(|folder| !folder.is_dir()) {
            fs::create_dir(folder).map_err(|e| cannot_write(&out, e))?;
        }
        match job {
            Job::Copy { from, .. } => {
                fs::copy(&from, &to)
                    .map_err(|e| Error::path(&from, format!("cannot be copied to {}: {e}", out.display())))?;
            }
            Job::Convert(weights) => {
                bar.set_message(plain(&weights.target.display().to_string()).into_owned());
                summaries.push(weights.convert(model, &to, &out, args.to, &bar).await?);
            }
        }
    }
    unfinished.finish(&out)?;
    bar.finish_and_clear();
    summaries.iter().for_each(|summary| note(format_args!("{summary}")));
    result_path(&out)
}

/// `sd` → `sd-q8_0`, `sd.safetensors` → `sd-q8_0.gguf`.
fn beside(model: &Path, format: &str, is_file: bool) -> Result<PathBuf, Error> {
    // `.` and `..` have a name, too.
    let whole = fs::canonicalize(model).map_err(|e| Error::path(model, e))?;
    let name = if is_file { whole.file_stem() } else { whole.file_name() };
    let Some(name) = name else {
        return Err(Error::path(model, "this folder has no name to add to; name the new one with --out"));
    };
    let mut new = name.to_owned();
    new.push(format!("-{format}{}", if is_file { ".gguf" } else { "" }));
    let given = model.parent().filter(|_| model.file_name().is_some());
    Ok(given.or(whole.parent()).unwrap_or(Path::new("")).join(new))
}

/// One file to write.
enum Job {
    /// As it is: `to` is its path in the checkpoint.
    Copy { from: PathBuf, to: PathBuf },
    /// The weights of a network.
    Convert(Weights),
}

impl Job {
    /// Its path in the new checkpoint.
    fn target(&self) -> &Path {
        match self {
            Job::Copy { to, .. } => to,
            Job::Convert(weights) => &weights.target,
        }
    }

    fn bytes(&self) -> u64 {
        match self {
            Job::Copy { .. } => 0,
            Job::Convert(weights) => weights.bytes,
        }
    }
}

/// The weights of one network.
struct Weights {
    folder: PathBuf,
    /// One file, or its shards in order.
    files: Vec<String>,
    bytes: u64,
    target: PathBuf,
}

/// The job for one file.
fn single(file: &Path) -> Result<Job, Error> {
    let name =
        file.file_name().and_then(OsStr::to_str).ok_or_else(|| Error::path(file, "its name is not UTF-8 text"))?;
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let bytes = fs::metadata(file).map_err(|e| Error::path(file, e))?.len();
    let (folder, files) = (folder.to_owned(), vec![name.to_owned()]);
    Ok(Job::Convert(Weights { folder, files, bytes, target: Path::new(name).with_extension("gguf") }))
}

/// What there is to do for the checkpoint or network in `model`.
fn plan(model: &Path) -> Result<Vec<Job>, Error> {
    let is_pipeline = model.join("model_index.json").is_file();
    if !is_pipeline && !model.join("config.json").is_file() {
        let message = "neither a checkpoint (no model_index.json) nor a network (no config.json)";
        return Err(Error::path(model, message));
    }
    let mut jobs = Vec::new();
    let names = names(model)?;
    // Some checkpoints of a single network have its files beside model_index.json.
    folder(model, Path::new(""), !is_pipeline, &mut jobs)?;
    for name in names.iter().filter(|name| is_pipeline && !name.starts_with('.') && model.join(name).is_dir()) {
        let network = NETWORKS.contains(&name.as_str());
        folder(model, Path::new(name), network && model.join(name).join("config.json").is_file(), &mut jobs)?;
    }
    match jobs.iter().any(|job| matches!(job, Job::Convert(_))) {
        true => Ok(jobs),
        false => Err(Error::path(model, "it holds no weights in safetensors files")),
    }
}

/// Adds what there is to do for the files of `inner`, a folder of the checkpoint or itself; a folder that `needs` weights
/// must have some.
fn folder(model: &Path, inner: &Path, needs: bool, jobs: &mut Vec<Job>) -> Result<(), Error> {
    let path = model.join(inner);
    let converted = needs || inner.as_os_str().is_empty();
    let mut sets: BTreeMap<(String, String), Vec<Shard>> = BTreeMap::new();
    for name in names(&path)? {
        let from = path.join(&name);
        if !from.is_file() || name.contains(".index.") {
            continue;
        }
        if let Some((set, shard)) = name.strip_suffix(".safetensors").map(parts) {
            if converted && STEMS.contains(&set.0.as_str()) {
                let bytes = fs::metadata(&from).map_err(|e| Error::path(&from, e))?.len();
                sets.entry(set).or_default().push(Shard { bytes, ..shard });
            }
        } else if is_text(&name) {
            jobs.push(Job::Copy { from, to: inner.join(name) });
        }
    }
    // Without a variant comes first.
    let Some(((stem, variant), mut shards)) = sets.into_iter().next() else {
        return match needs {
            true => Err(Error::path(
                &path,
                "it holds no weights in safetensors files, the only ones that are quantised; load the checkpoint with \
                 diffusers and save it with save_pretrained",
            )),
            false => Ok(()),
        };
    };
    shards.sort_by_key(|shard| shard.number);
    let dot = if variant.is_empty() { "" } else { "." };
    let count = shards.first().map_or(0, |shard| shard.of);
    if let Some(missing) = (1..=count).find(|&number| !shards.iter().any(|s| (s.number, s.of) == (number, count))) {
        let message = format!("shard {missing} of {count} of {stem}{dot}{variant} is missing");
        return Err(Error::path(&path, message));
    }
    let bytes = shards.iter().map(|shard| shard.bytes).sum();
    let target = inner.join(format!("{stem}.gguf"));
    let files = shards.into_iter().map(|shard| shard.name).collect();
    jobs.push(Job::Convert(Weights { folder: path, files, bytes, target }));
    Ok(())
}

/// A file of weights: one of `of`, counted from 1, or the only one, and then both are 0.
struct Shard {
    name: String,
    bytes: u64,
    number: usize,
    of: usize,
}

/// `model.fp16-00001-of-00002` → (`model`, `fp16`), shard 1 of 2.
fn parts(stem: &str) -> ((String, String), Shard) {
    let shard = |name: &str| -> Option<(String, usize, usize)> {
        let (rest, of) = name.rsplit_once("-of-")?;
        let (rest, number) = rest.rsplit_once('-')?;
        Some((rest.to_owned(), number.parse().ok()?, of.parse().ok()?))
    };
    let (set, number, of) = shard(stem).unwrap_or((stem.to_owned(), 0, 0));
    let (name, variant) = set.split_once('.').unwrap_or((&set, ""));
    let file = format!("{stem}.safetensors");
    ((name.to_owned(), variant.to_owned()), Shard { name: file, bytes: 0, number, of })
}

/// Configs, vocabularies, and what says whose work it is.
fn is_text(name: &str) -> bool {
    let extension = Path::new(name).extension().and_then(OsStr::to_str);
    let legal = ["LICENSE", "LICENCE", "NOTICE", "COPYING"].iter().any(|start| name.starts_with(start));
    !name.starts_with('.') && (legal || matches!(extension, Some("json" | "txt" | "md")))
}

/// What lies in `folder`, sorted.
fn names(folder: &Path) -> Result<Vec<String>, Error> {
    let failed = |e: io::Error| Error::path(folder, e);
    let entries = fs::read_dir(folder).map_err(failed)?.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    // A name that is no text is not one of a checkpoint's.
    let mut names: Vec<String> = entries.iter().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    Ok(names)
}

/// What became of a network's weights.
struct Summary {
    target: PathBuf,
    before: u64,
    after: u64,
    /// Numbers of weights, by dtype.
    weights: BTreeMap<&'static str, u64>,
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { target, before, after, weights } = self;
        let weights: Vec<_> =
            weights.iter().map(|(dtype, number)| format!("{} {dtype}", HumanCount(*number))).collect();
        let (before, after) = (DecimalBytes(*before), DecimalBytes(*after));
        write!(f, "{}: {before} → {after}, {}", target.display(), weights.join(" + "))
    }
}

/// Why a file could not be converted.
enum Failed {
    Reading(weights::Error),
    Writing(io::Error),
}

impl From<weights::Error> for Failed {
    fn from(error: weights::Error) -> Self {
        Failed::Reading(error)
    }
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Failed::Writing(error)
    }
}

impl Weights {
    /// Writes the file `to`, a part of `out`.
    async fn convert(
        &self,
        model: &Path,
        to: &Path,
        out: &Path,
        dtype: Encoding,
        bar: &ProgressBar,
    ) -> Result<Summary, Error> {
        let converted = self.stream(model, to, dtype, bar).await;
        converted.map_err(|failed| match failed {
            Failed::Reading(error) => Error::checkpoint(&self.folder, error),
            Failed::Writing(error) => cannot_write(out, error),
        })
    }

    async fn stream(&self, model: &Path, to: &Path, dtype: Encoding, bar: &ProgressBar) -> Result<Summary, Failed> {
        let source = DirectorySource::new(&self.folder);
        let mut files = Vec::new();
        for file in &self.files {
            let file = TensorFile::open(&source, file).await?;
            file.tensors().iter().try_for_each(TensorInfo::check_unscaled)?;
            files.push(file);
        }
        // What else is in there, such as the numbers of positions, the networks make themselves.
        let is_weight = |tensor: &TensorInfo| tensor.dtype.is_weight();
        let tensors = files.iter().flat_map(TensorFile::tensors).filter(|tensor| is_weight(tensor));
        let tensors = tensors.map(|tensor| (tensor.name.clone(), tensor.shape.clone())).collect();
        let text = |text: &OsStr| Entry::Text(text.to_string_lossy().into_owned());
        let file_type = FORMATS.iter().find(|format| format.1 == dtype).map_or(0, |format| format.2);
        let mut metadata = vec![
            ("general.architecture".to_owned(), Entry::Text("diffusers".to_owned())),
            ("general.name".to_owned(), text(model.file_stem().unwrap_or_default())),
            ("general.file_type".to_owned(), Entry::U32(file_type)),
            ("general.quantization_version".to_owned(), Entry::U32(2)),
        ];
        // Such as what the network predicts, which no tensor of a checkpoint in one file tells.
        let said: BTreeMap<_, _> = files.iter().flat_map(TensorFile::metadata).collect();
        let said = said.into_iter().filter(|(key, _)| key.starts_with("modelspec."));
        metadata.extend(said.map(|(key, value)| (key.clone(), Entry::Text(value.clone()))));
        let mut writer = Writer::new(BufWriter::new(File::create_new(to)?), metadata, tensors)?;
        let mut weights = BTreeMap::new();
        for file in files {
            let mut before = 0;
            let mut on_bytes = |read: u64| bar.inc(read - std::mem::replace(&mut before, read));
            let mut sink = Gather::new(|tensor: &TensorInfo, bytes: &[u8]| -> Result<(), Failed> {
                let values = tensor.to_f32(bytes)?;
                let stored = storage(tensor, &values, dtype)?;
                let encoded =
                    stored.encode(&values).ok_or_else(|| tensor.error(format!("it cannot be stored as {stored}")))?;
                *weights.entry(stored.name()).or_default() += values.len() as u64;
                Ok(writer.tensor(stored, &encoded)?)
            });
            file.stream(&mut on_bytes, &is_weight, &mut sink).await?;
        }
        let (_, after) = writer.finish()?;
        Ok(Summary { target: self.target.clone(), before: self.bytes, after, weights })
    }
}

/// What a tensor is stored as where linear layers are to be `dtype`.
fn storage(tensor: &TensorInfo, values: &[f32], dtype: Encoding) -> Result<Encoding, weights::Error> {
    if !values.iter().all(|value| value.is_finite()) {
        return Err(tensor.error("it holds a value that is not finite; the file is damaged, download it again"));
    }
    let is_linear = tensor.name.ends_with(".weight") && !tensor.name.ends_with("embedding.weight");
    Ok(match tensor.shape[..] {
        [] | [_] => Encoding::F32,
        // Scales are f16, too.
        _ if values.iter().any(|value| value.abs() > 65504.0) => Encoding::F32,
        [_, row] if is_linear && row % dtype.block().elements == 0 => dtype,
        _ => Encoding::F16,
    })
}

fn cannot_write(out: &Path, error: io::Error) -> Error {
    Error::path(out, format!("cannot be written: {error}"))
}

/// Where the new checkpoint grows, beside its place; removed unless it is finished.
struct Unfinished {
    folder: PartialFolder,
    /// What is to be moved to its place.
    path: PathBuf,
}

impl Unfinished {
    /// Makes sure that `out` is free and can be written.
    fn new(out: &Path) -> Result<Self, Error> {
        let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let Some(name) = out.file_name() else {
            return Err(Error::path(out, "this is no name for something new"));
        };
        match fs::symlink_metadata(out) {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
            // A name that is too long.
            Err(error) => return Err(cannot_write(out, error)),
            Ok(_) => {
                let message = "it exists already; name another place with --out, or remove it first";
                return Err(Error::path(out, message));
            }
        }
        if !folder.is_dir() {
            return Err(Error::path(out, format!("the folder {} does not exist; create it first", folder.display())));
        }
        let folder = PartialFolder::new(folder).map_err(|e| cannot_write(out, e))?;
        let path = folder.path().join(name);
        Ok(Self { folder, path })
    }

    /// Puts it in its place.
    fn finish(self, out: &Path) -> Result<(), Error> {
        let Self { folder: _folder, path } = self;
        fs::rename(path, out).map_err(|e| cannot_write(out, e))
    }
}
