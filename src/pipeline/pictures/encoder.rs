//! Pictures to latents: the first half of the autoencoder.

use super::tiled::{Direction, Tiled};
use crate::models::AutoencoderKlConfig;
use crate::pipeline::error::Error;
use crate::pipeline::model::load::Parts;

/// The first half of the autoencoder, for one picture.
pub(in crate::pipeline) struct Encoder<'a> {
    config: &'a AutoencoderKlConfig,
    network: Tiled,
}

impl<'a> Encoder<'a> {
    /// Prepares it for latents of `[_, _, height, width]`, of which no tile is longer than `longest`.
    ///
    /// # Errors
    /// If there is no autoencoder, it cannot be built at this size, or the device refuses it.
    pub async fn compile(parts: &'a Parts, [_, _, height, width]: [usize; 4], longest: usize) -> Result<Self, Error> {
        let Some((config, weights)) = parts.vae() else {
            let message = "this model has no autoencoder that would take a picture";
            return Err(Error::option("image", "given", message));
        };
        let scale = config.scale_factor();
        let graph = |[rows, columns]: [usize; 2]| {
            let graph = config.encoder(1, rows * scale, columns * scale);
            graph.map_err(|e| parts.model.info.too_large(height, width, e))
        };
        let (size, direction) = ([height, width], Direction::Encode(scale));
        let network = Tiled::compile(&parts.device, weights, size, longest, direction, &graph).await?;
        Ok(Self { config, network })
    }

    /// Encodes `[1, 3, height, width]` in −1..1.
    ///
    /// # Errors
    /// A value that is not finite, or a lost device.
    pub async fn encode(&mut self, picture: &[f32]) -> Result<Posterior<'a>, Error> {
        Ok(Posterior { config: self.config, moments: self.network.run(picture).await? })
    }
}

/// The distribution of latents that an autoencoder makes of a picture, `DiagonalGaussianDistribution`.
pub(in crate::pipeline) struct Posterior<'a> {
    config: &'a AutoencoderKlConfig,
    moments: Vec<f32>,
}

impl Posterior<'_> {
    /// `rows` samples by as many rows of noise, repeated to make a batch, and scaled for the generation model.
    pub fn sample(&self, rows: usize, noise: &[f32], batch: usize) -> Vec<f32> {
        let (mean, logvar) = self.halves();
        let latent = |((&mean, &logvar), &z): ((&f32, &f32), &f32)| {
            let std = libm::expf(0.5 * logvar.clamp(-30.0, 20.0));
            self.scaled(mean + std * z)
        };
        let moments = mean.iter().zip(logvar).cycle();
        let samples: Vec<f32> = moments.zip(noise).map(latent).collect();
        samples.repeat(batch / rows.max(1))
    }

    /// The mean, which is also the mode: one row, scaled for the generation model.
    pub fn mean(&self) -> Vec<f32> {
        self.halves().0.iter().map(|&mean| self.scaled(mean)).collect()
    }

    /// The means and the logarithms of the variances.
    fn halves(&self) -> (&[f32], &[f32]) {
        self.moments.split_at(self.moments.len() / 2)
    }

    /// A latent as the generation model has it.
    fn scaled(&self, latent: f32) -> f32 {
        (latent - self.config.shift_factor as f32) * self.config.scaling_factor as f32
    }
}
