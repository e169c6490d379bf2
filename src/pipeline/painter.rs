//! Latents to pictures on the device, by whatever turns the one into the other.

use super::load::Parts;
use super::text_encoder::floats;
use super::{Error, Rgba};
use crate::device::{Program, Weights};
use crate::graph::{Builder, NodeId, Scope, fuse};
use crate::models;

/// A program that paints latents.
#[derive(Debug)]
pub(super) struct Painter {
    program: Program,
    /// How many of the pictures are of x_t; if there are more, as many others are of x̂_0.
    batch: usize,
    /// How many pictures it makes at once.
    frames: usize,
    /// Their rows and columns.
    size: [usize; 2],
}

impl Painter {
    /// Prepares pictures of latents `[batch, channels, height, width]`, of x_t only or of x̂_0 as well. `paint` adds to a
    /// graph what turns latents as the noise predictor leaves them into pictures of 1 or 3 channels, with `weights`.
    ///
    /// # Errors
    /// If it cannot be built at that size, or the device refuses it.
    pub async fn compile(
        parts: &Parts,
        weights: &Weights,
        [batch, channels, height, width]: [usize; 4],
        with_denoised: bool,
        paint: impl Fn(&Scope, NodeId) -> Result<NodeId, models::Error>,
    ) -> Result<Self, Error> {
        let frames = if with_denoised { 2 * batch } else { batch };
        let builder = Builder::new();
        let root = builder.root();
        let paint = || {
            let scale = root.input("scale", &[frames, 1, 1, 1])?;
            let image = paint(&root, root.mul(root.input("latents", &[frames, channels, height, width])?, scale)?)?;
            root.output("image", image);
            root.output("pixels", root.pack_rgba8(image)?);
            Ok::<_, models::Error>(root.shape(image))
        };
        let shape = paint().map_err(|e| parts.model.info.too_large(height, width, e))?;
        let program = Program::compile(&parts.device, &fuse(&builder.finish()), weights).await?;
        Ok(Self { program, batch, frames, size: [shape[2], shape[3]] })
    }

    /// Paints what the program `step` has made: its output `prev_sample` times `scale`, and if there are more frames, the
    /// whole output `frames`, of which that is the first half.
    ///
    /// # Errors
    /// A value that is not finite, or a lost device.
    pub fn paint(&mut self, step: &Program, scale: f32) -> Result<(), Error> {
        let output = if self.frames == self.batch { "prev_sample" } else { "frames" };
        let mut scales = vec![1.0; self.frames];
        scales[..self.batch].fill(scale);
        self.program.copy_from("latents", step, output)?;
        self.program.write("scale", &scales)?;
        Ok(self.program.run()?)
    }

    /// The pictures of the last run: of x_t, then of x̂_0.
    ///
    /// # Errors
    /// A value that is not finite, or a lost device.
    pub async fn pictures(&mut self) -> Result<Vec<Rgba>, Error> {
        let [height, width] = self.size;
        let pixels = self.program.read(&["pixels"]).await?.remove(0);
        let picture = |pixels: &[u32]| Rgba { width, height, pixels: bytemuck::cast_slice(pixels).to_vec() };
        Ok(pixels.chunks_exact((height * width).max(1)).map(picture).collect())
    }

    /// The pictures of x_t of the last run, `[batch, channels, height, width]`, about −1..1.
    ///
    /// # Errors
    /// As [`Painter::pictures`].
    pub async fn image(&mut self) -> Result<Vec<f32>, Error> {
        let mut image = floats(self.program.read(&["image"]).await?.remove(0));
        image.truncate(image.len() / self.frames * self.batch);
        Ok(image)
    }
}
