//! A checkpoint that is named on the command line: opened, and loaded with a progress bar.

use std::path::{Path, PathBuf};
use std::time::Instant;

use indicatif::DecimalBytes;
use serde_json::{Value, json};
use undiffuse::device::Device;
use undiffuse::pipeline::{self, Checkpoint, LoadProgress, Note, OpenOptions, Pipeline};
use undiffuse::weights::{DirectorySource, Source};

use super::Error;
use super::device;
use super::output::{bar, note, plain};

/// Which of a checkpoint's files.
#[derive(clap::Args, Clone, Debug)]
pub struct Files {
    /// Which of several sets of weights: `fp16` reads diffusion_pytorch_model.fp16.safetensors and its like
    #[arg(long, value_name = "NAME")]
    variant: Option<String>,

    /// The file of the UNet's weights in place of the folder's own, a path inside of MODEL, such as a GGUF file; under
    /// diffusers' names or those of the original code
    #[arg(long, value_name = "PATH")]
    unet: Option<String>,

    /// An autoencoder in place of the checkpoint's own, or where it has none: a file of weights, under diffusers' names or those of
    /// the original code; a folder with one; or another checkpoint, whose autoencoder is taken
    #[arg(long, value_name = "PATH")]
    vae: Option<PathBuf>,

    /// What the network of a checkpoint in one file predicts, epsilon or v_prediction, where the file does not say so
    #[arg(long, value_name = "TYPE")]
    prediction_type: Option<String>,
}

impl Files {
    /// What was given, to tell it from what else might have been.
    pub fn to_json(&self) -> Value {
        let Self { variant, unet, vae, prediction_type } = self;
        json!({ "variant": variant, "unet": unet, "vae": vae, "prediction_type": prediction_type })
    }

    /// What was given, under the names that the npm package has for it.
    pub fn options(&self) -> [(&'static str, Option<&str>); 4] {
        [
            ("variant", self.variant.as_deref()),
            ("unet", self.unet.as_deref()),
            ("vae", self.vae.as_deref().and_then(Path::file_name).and_then(|name| name.to_str())),
            ("predictionType", self.prediction_type.as_deref()),
        ]
    }

    /// Opens the checkpoint `model`: what is wrong with it is known before its weights are read, and what was assumed is said.
    pub async fn open(&self, model: &Path) -> Result<Checkpoint, Error> {
        if !model.is_dir() && !model.is_file() {
            let message =
                "there is no such folder or file; give the folder of a checkpoint, or a checkpoint in one file";
            return Err(Error::path(model, message));
        }
        if let Some(vae) = self.vae.as_deref().filter(|vae| !vae.is_dir() && !vae.is_file()) {
            let message = "there is no such folder or file; give an autoencoder's file of weights, its folder, or a checkpoint with one";
            return Err(Error::path(vae, message));
        }
        let checkpoint = self.try_open(model).await.map_err(|error| Error::checkpoint(model, error))?;
        for known in &checkpoint.info().notes {
            note(format_args!("warning: {}", words(known)));
        }
        Ok(checkpoint)
    }

    /// Opens what is at `model`, and says nothing.
    pub async fn try_open(&self, model: &Path) -> Result<Checkpoint, pipeline::Error> {
        let vae = self.vae.as_deref().map(DirectorySource::new);
        let which = OpenOptions {
            variant: self.variant.clone(),
            unet: self.unet.clone(),
            vae: vae.as_ref().map(|vae| vae as &dyn Source),
            prediction_type: self.prediction_type.clone(),
            vocabulary: None,
        };
        Checkpoint::open(&DirectorySource::new(model), &which).await
    }
}

/// A note on a checkpoint, with the option that says otherwise as it is written on a command line.
pub fn words(note: &Note) -> String {
    match note.option {
        Some((option, value)) => format!("{}; --{} {value} says otherwise", note.text, option.replace('_', "-")),
        None => note.text.clone(),
    }
}

/// Loads the weights of `checkpoint`, which lies in `model`.
pub async fn load(checkpoint: Checkpoint, model: &Path, device: Device) -> Result<Pipeline, Error> {
    note(format_args!("device: {}", device::describe(&device)));
    let bar = bar("loading  {bar:30} {decimal_bytes}/{decimal_total_bytes}  {msg}");
    let start = Instant::now();
    let mut on_progress = |progress: LoadProgress| {
        bar.set_length(progress.total);
        bar.set_position(progress.loaded);
        let part = plain(progress.file.split('/').next().unwrap_or_default());
        if bar.message() != part {
            bar.set_message(part.into_owned());
        }
    };
    let loaded = checkpoint.load(device, &mut on_progress).await;
    bar.finish_and_clear();
    let pipeline = loaded.map_err(|e| Error::checkpoint(model, e))?;
    let bytes = DecimalBytes(pipeline.info().bytes);
    note(format_args!("loaded {bytes} of weights in {:.2} s", start.elapsed().as_secs_f64()));
    Ok(pipeline)
}
