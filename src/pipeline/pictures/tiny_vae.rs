//! A tiny autoencoder beside the model's own, for previews.

use crate::device::Weights;
use crate::models::{AutoencoderKlConfig, AutoencoderTinyConfig};
use crate::pipeline::error::Error;
use crate::pipeline::model::layout::{network_weights, read_text};
use crate::pipeline::model::load::Parts;
use crate::weights::Source;

/// Path of its config inside its source.
const CONFIG: &str = "config.json";

/// The decoder of an `AutoencoderTiny` on a device.
#[derive(Debug)]
pub(in crate::pipeline) struct TinyVae {
    pub config: AutoencoderTinyConfig,
    pub weights: Weights,
}

impl TinyVae {
    /// Loads the one in `source` onto the device of `parts`. `on_bytes` gets the bytes read so far and those of the whole file.
    ///
    /// # Errors
    /// A missing, damaged or unsupported file, by name; one that is for other latents than this model's; or the device's
    /// refusal.
    pub async fn load(parts: &Parts, source: &dyn Source, on_bytes: &mut dyn FnMut(u64, u64)) -> Result<Self, Error> {
        let error = |e| Error::model(CONFIG, e);
        let config = AutoencoderTinyConfig::from_json(&read_text(source, CONFIG).await?).map_err(error)?;
        check_fit(&config, parts.model.vae.as_ref())?;
        let graph = config.decoder(1, 1, 1).map_err(error)?;
        let file = network_weights(source, false, Some("encoder."), graph.weights().to_vec(), vec![]).await?;
        let total = file.bytes();
        let (weights, _) = file.load(&parts.device, &mut |loaded| on_bytes(loaded, total)).await?;
        Ok(Self { config, weights })
    }
}

/// Whether the tiny autoencoder decodes what the model's own does, to pictures of the same size.
fn check_fit(tiny: &AutoencoderTinyConfig, vae: Option<&AutoencoderKlConfig>) -> Result<(), Error> {
    let misfit = |message: String| Err(Error::Json { file: CONFIG.to_owned(), message });
    let Some(vae) = vae else { return misfit("this model has no latents: its samples are the pictures".into()) };
    let facts = [
        ("latent_channels", tiny.latent_channels, vae.latent_channels),
        ("out_channels", tiny.out_channels, vae.out_channels),
    ];
    if let Some((key, found, expected)) = facts.into_iter().find(|(_, found, expected)| found != expected) {
        return misfit(format!("`{key}` is {found}, and the model's own autoencoder has {expected}"));
    }
    match (tiny.scale_factor(), vae.scale_factor()) {
        (found, expected) if found != expected => {
            misfit(format!("it enlarges latents {found} times, and the model's own autoencoder {expected} times"))
        }
        _ => Ok(()),
    }
}
