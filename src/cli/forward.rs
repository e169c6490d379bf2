//! `undiffuse forward`: one network by itself, on tensors from a file.

use std::path::{Path, PathBuf};

use undiffuse::pipeline::{self, Component};
use undiffuse::weights::{self, ByteStream, DirectorySource, LocalBoxFuture, Source};

use super::output::{Output, note, result_path};
use super::tensors::{self, Stored};
use super::{Error, device, wgsl};

/// Runs one network of a checkpoint on tensors from a file
///
/// Tensors are named as diffusers names the arguments. F32, F16, BF16, F64, I64 and I32 are read,
/// all computed with as f32; a scalar may stand for a list of one.
///
///   UNet2DModel           sample, timestep → out
///   UNet2DConditionModel  sample, timestep, encoder_hidden_states → out, and what else its
///                         config calls for
///   AutoencoderKL         decode/in → decode/out; encode/in → encode/moments, encode/mean,
///                         encode/logvar, encode/std
///   CLIPTextModel         input_ids → hidden_states/0 and on, last_hidden_state, pooler_output
///
/// Prints the path of the outputs.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Folder of the network, with a config.json, such as emoji64/unet
    component: PathBuf,

    /// A safetensors file with the network's inputs, [batch, channels, height, width] where they are pictures
    #[arg(long, value_name = "FILE")]
    inputs: PathBuf,

    /// The safetensors file to write the outputs to, as f32; an existing file is replaced
    #[arg(long, value_name = "FILE")]
    outputs: PathBuf,

    /// The weights: a file of the network's folder or any other, such as diffusion_pytorch_model.fp16.safetensors;
    /// by default the one that the class writes
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,

    #[command(flatten)]
    device: device::Options,

    #[command(flatten)]
    wgsl: wgsl::ShaderFolder,
}

/// Runs the network.
pub async fn run(args: Args) -> Result<(), Error> {
    let outputs = Output::new(&args.outputs)?;
    let inputs = tensors::read(&args.inputs)?;
    if !args.component.is_dir() {
        return Err(Error::path(&args.component, "there is no such folder; give the folder of a network"));
    }
    let weights = args.weights.as_deref().map(|file| WeightFile::find(&args.component, file)).transpose()?;
    let device = device::open(args.device).await?;
    note(format_args!("device: {}", device::describe(&device)));
    let folder = DirectorySource::new(&args.component);
    let component = match &weights {
        None => Component::load(&folder, device.clone(), None).await,
        Some(file) => Component::load(&WithWeights { folder, file }, device.clone(), Some(&file.name)).await,
    };
    let component = component.map_err(|e| Error::checkpoint(&args.component, e))?;
    let computed = component.run(&inputs).await.map_err(|error| {
        let message = match &error {
            pipeline::Error::Input { name, .. } if !inputs.contains_key(name) => {
                let held = inputs.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
                format!("{error}; the file holds: {}", if held.is_empty() { "nothing" } else { &held })
            }
            _ => error.to_string(),
        };
        Error::path(&args.inputs, message)
    })?;
    let stored = computed.iter().map(|(name, tensor)| (name.as_str(), Stored::f32(&tensor.shape, &tensor.data)));
    outputs.write(&tensors::to_bytes(&args.outputs, stored)?)?;
    args.wgsl.write(&device)?;
    result_path(outputs.path())
}

/// A file of weights that was asked for by its path.
struct WeightFile {
    folder: DirectorySource,
    name: String,
}

impl WeightFile {
    /// Finds `file` in the network's folder, or else from where the command runs.
    fn find(component: &Path, file: &Path) -> Result<Self, Error> {
        let found = [component.join(file), file.to_owned()].into_iter().find(|path| path.is_file());
        let path = found.ok_or_else(|| {
            let message = format!("there is no such file, neither in {} nor here", component.display());
            Error::path(file, message)
        })?;
        match (path.parent(), path.file_name().and_then(|name| name.to_str())) {
            (Some(folder), Some(name)) => Ok(Self { folder: DirectorySource::new(folder), name: name.to_owned() }),
            _ => Err(Error::path(file, "the name of the file is not UTF-8 text")),
        }
    }
}

/// A network's folder whose weights lie in some other file.
struct WithWeights<'a> {
    folder: DirectorySource,
    file: &'a WeightFile,
}

impl Source for WithWeights<'_> {
    fn name(&self) -> &str {
        self.folder.name()
    }

    fn open<'a>(&'a self, path: &'a str) -> LocalBoxFuture<'a, Result<Box<dyn ByteStream>, weights::Error>> {
        if path == self.file.name { self.file.folder.open(path) } else { self.folder.open(path) }
    }
}
