//! Pictures of x_t and x̂_0, after every step and at the end.

use super::Error;
use super::load::Parts;
use super::text_encoder::floats;
use crate::device::Program;
use crate::graph::{Builder, fuse};

/// Which pictures a run shows on its way; the last x_t is always decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Preview {
    /// Each x_t and each x̂_0, decoded.
    #[default]
    Decode,
    /// None.
    None,
}

/// An RGBA picture, 8 bits a channel, rows from the top.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rgba {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// `4 * width * height` bytes.
    pub pixels: Vec<u8>,
}

/// What is shown of a step: one picture for each of the batch.
#[derive(Debug, Default)]
pub(super) struct Drawn {
    /// x_t.
    pub images: Vec<Rgba>,
    /// x̂_0.
    pub denoised: Vec<Rgba>,
}

/// Makes pictures from the output `frames` of a step's program: the batch of x_t, then that of x̂_0.
#[derive(Debug)]
pub(super) struct Previewer {
    preview: Preview,
    decoder: Program,
    /// `[batch, channels, height, width]` of the pictures.
    shape: [usize; 4],
}

impl Previewer {
    /// Prepares pictures of latents `[batch, channels, height, width]`. Without an autoencoder the latents are the pictures.
    ///
    /// # Errors
    /// If the decoder cannot be built at that size, or the device refuses it.
    pub async fn compile(parts: &Parts, preview: Preview, latents: [usize; 4]) -> Result<Self, Error> {
        let [batch, channels, height, width] = latents;
        let frames = 2 * batch;
        let (decoder, channels) = match &parts.vae {
            Some((config, weights)) => {
                let graph = config.preview(frames, height, width);
                let graph = graph.map_err(|e| parts.info.too_large(height, width, e))?;
                (Program::compile(&parts.device, &fuse(&graph), weights).await?, config.out_channels)
            }
            None => {
                let builder = Builder::new();
                let root = builder.root();
                let latents = root.input("latents", &[frames, channels, height, width])?;
                let image = root.affine(latents, 1.0, 0.0)?;
                root.output("image", image);
                root.output("pixels", root.pack_rgba8(image)?);
                // No weights are needed; the noise predictor's say which device this is.
                (Program::compile(&parts.device, &builder.finish(), &parts.unet_weights).await?, channels)
            }
        };
        let scale = parts.info.scale_factor;
        Ok(Self { preview, decoder, shape: [batch, channels, height * scale, width * scale] })
    }

    /// What is to be shown of the step that `step` has just made.
    ///
    /// # Errors
    /// A value that is not finite, with the layer that made it, or a lost device.
    pub async fn draw(&mut self, step: &mut Program, is_last: bool) -> Result<Drawn, Error> {
        if self.preview == Preview::None && !is_last {
            return Ok(Drawn::default());
        }
        self.decode(step)?;
        let frames = match self.decoder.read(&["pixels"]).await {
            Ok(mut outputs) => outputs.remove(0),
            // A picture that is not finite comes from the step before it, which knows the layer.
            Err(error) => {
                step.read(&[]).await?;
                return Err(error.into());
            }
        };
        let [batch, _, height, width] = self.shape;
        let picture = |pixels: &[u32]| Rgba { width, height, pixels: bytemuck::cast_slice(pixels).to_vec() };
        let mut pictures = frames.chunks_exact((height * width).max(1)).map(picture);
        Ok(Drawn { images: pictures.by_ref().take(batch).collect(), denoised: pictures.collect() })
    }

    /// The pictures of the x_t that `step` has just made, `[batch, channels, height, width]` in 0..1.
    ///
    /// # Errors
    /// As [`Previewer::draw`].
    pub async fn image(&mut self, step: &Program) -> Result<Vec<f32>, Error> {
        self.decode(step)?;
        let mut image = floats(self.decoder.read(&["image"]).await?.remove(0));
        image.truncate(self.shape.iter().product());
        image.iter_mut().for_each(|v| *v = (*v * 0.5 + 0.5).clamp(0.0, 1.0));
        Ok(image)
    }

    fn decode(&mut self, step: &Program) -> Result<(), Error> {
        self.decoder.copy_from("latents", step, "frames")?;
        Ok(self.decoder.run()?)
    }
}
