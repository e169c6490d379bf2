//! Latents to pictures on the device, by whatever turns the one into the other.

use super::tiled::{Direction, Tiled};
use crate::device::{Program, Weights, floats};
use crate::graph::{Builder, Graph, NodeId, Scope};
use crate::models;
use crate::pipeline::error::Error;
use crate::pipeline::model::load::Parts;
use crate::pipeline::rgba::Rgba;

/// The latents to paint.
#[derive(Clone, Copy, Debug)]
pub(in crate::pipeline) struct Canvas {
    /// `[batch, channels, height, width]`.
    pub latents: [usize; 4],
    /// Whether there are latents of x̂_0 as well.
    pub with_denoised: bool,
    /// Ratio of a picture's side to its latents' side.
    pub scale_factor: usize,
    /// The longest side of latents to paint at once, for as long as the device takes it.
    pub longest_tile: usize,
}

/// Adds to a graph what turns latents as the noise predictor leaves them into pictures of 1 or 3 channels.
pub(in crate::pipeline) type Paint<'a> = dyn Fn(&Scope, NodeId) -> Result<NodeId, models::Error> + 'a;

/// A program that paints latents.
#[derive(Debug)]
pub(in crate::pipeline) struct Painter {
    means: Means,
    /// Number of pictures of x_t; if there are more, as many others are of x̂_0.
    batch: usize,
    /// Number of pictures made at once.
    frames: usize,
    /// Rows and columns of the pictures.
    size: [usize; 2],
}

#[derive(Debug)]
enum Means {
    /// All frames at once, from latents that never leave the device.
    Whole(Program),
    /// Frame by frame in tiles, for pictures too large for that; with what was painted last.
    Tiled(Tiled, Vec<f32>),
}

impl Painter {
    /// Prepares pictures by `paint`, whose weights are `weights`.
    ///
    /// # Errors
    /// If it cannot be built at that size, or the device refuses it.
    pub async fn compile(parts: &Parts, weights: &Weights, canvas: Canvas, paint: &Paint<'_>) -> Result<Self, Error> {
        let Canvas { latents: [batch, channels, height, width], with_denoised, scale_factor, longest_tile } = canvas;
        let frames = if with_denoised { 2 * batch } else { batch };
        let whole = || -> Result<Graph, models::Error> {
            let builder = Builder::new();
            let root = builder.root();
            let scale = root.input("scale", &[frames, 1, 1, 1])?;
            let latents = root.input("latents", &[frames, channels, height, width])?;
            let image = paint(&root, root.mul(latents, scale)?)?;
            root.output("image", image);
            root.output("pixels", root.pack_rgba8(image)?);
            Ok(builder.finish())
        };
        let tile = |[height, width]: [usize; 2]| -> Result<Graph, models::Error> {
            let builder = Builder::new();
            let root = builder.root();
            let image = paint(&root, root.input("latents", &[1, channels, height, width])?)?;
            root.output("image", image);
            Ok(builder.finish())
        };
        let too_large = |e| parts.model.info.too_large(height, width, e);
        let program = match longest_tile >= height.max(width) {
            true => Some(Program::compile(&parts.device, &whole().map_err(too_large)?, &[weights]).await),
            false => None,
        };
        let means = match program {
            Some(Ok(program)) => Means::Whole(program),
            Some(Err(error)) if !error.is_too_large() => return Err(error.into()),
            _ => {
                let graph = |size| tile(size).map_err(too_large);
                let (size, direction) = ([height, width], Direction::Decode(scale_factor));
                let tiled = Tiled::compile(&parts.device, weights, size, longest_tile, direction, &graph).await?;
                Means::Tiled(tiled, Vec::new())
            }
        };
        Ok(Self { means, batch, frames, size: [height, width].map(|side| side * scale_factor) })
    }

    /// Paints what the program `step` has made: its output `prev_sample` times `scale`, and if there are more frames, the
    /// whole output `frames`, of which that is the first half.
    ///
    /// # Errors
    /// A value that is not finite, or a lost device.
    pub async fn paint(&mut self, step: &mut Program, scale: f32) -> Result<(), Error> {
        let output = if self.frames == self.batch { "prev_sample" } else { "frames" };
        let mut scales = vec![1.0; self.frames];
        scales[..self.batch].fill(scale);
        match &mut self.means {
            Means::Whole(program) => {
                program.copy_from("latents", step, output)?;
                program.write("scale", &scales)?;
                program.run().await?;
            }
            Means::Tiled(tiled, images) => {
                let latents = step.read_f32(output).await?;
                images.clear();
                for (latents, scale) in latents.chunks_exact(latents.len() / self.frames).zip(scales) {
                    let scaled: Vec<f32> = latents.iter().map(|value| value * scale).collect();
                    images.extend(tiled.run(&scaled).await?);
                }
            }
        }
        Ok(())
    }

    /// Paints `latents` times `scale`, as many as there are frames, which come from elsewhere.
    ///
    /// # Errors
    /// As [`Painter::paint`].
    pub async fn paint_latents(&mut self, latents: &[f32], scale: f32) -> Result<(), Error> {
        match &mut self.means {
            Means::Whole(program) => {
                program.write("latents", latents)?;
                program.write("scale", &vec![scale; self.frames])?;
                program.run().await?;
            }
            Means::Tiled(tiled, images) => {
                images.clear();
                for latents in latents.chunks_exact((latents.len() / self.frames).max(1)) {
                    let scaled: Vec<f32> = latents.iter().map(|value| value * scale).collect();
                    images.extend(tiled.run(&scaled).await?);
                }
            }
        }
        Ok(())
    }

    /// The pictures that were painted last: of x_t, then of x̂_0.
    ///
    /// # Errors
    /// A value that is not finite, or a lost device.
    pub async fn pictures(&mut self) -> Result<Vec<Rgba>, Error> {
        let [height, width] = self.size;
        let pixels = height * width;
        Ok(match &mut self.means {
            Means::Whole(program) => {
                let words = program.read(&["pixels"]).await?.remove(0);
                let picture = |words: &[u32]| Rgba { width, height, pixels: bytemuck::cast_slice(words).to_vec() };
                words.chunks_exact(pixels.max(1)).map(picture).collect()
            }
            Means::Tiled(_, images) => {
                let picture = |image: &[f32]| Rgba { width, height, pixels: rgba8(image, pixels) };
                images.chunks_exact((images.len() / self.frames).max(1)).map(picture).collect()
            }
        })
    }

    /// The pictures of x_t that were painted last, `[batch, channels, height, width]`, about −1..1.
    ///
    /// # Errors
    /// As [`Painter::pictures`].
    pub async fn image(&mut self) -> Result<Vec<f32>, Error> {
        let mut image = match &mut self.means {
            Means::Whole(program) => floats(program.read(&["image"]).await?.remove(0)),
            Means::Tiled(_, images) => images.clone(),
        };
        image.truncate(image.len() / self.frames * self.batch);
        Ok(image)
    }
}

/// A picture `[1 or 3 channels, pixels]` in −1..1 as RGBA8, as [`Op::PackRgba8`](crate::graph::Op::PackRgba8) makes it.
pub(in crate::pipeline) fn rgba8(image: &[f32], pixels: usize) -> Vec<u8> {
    let level = |value: f32| (255.0 * (value * 0.5 + 0.5).clamp(0.0, 1.0)).round_ties_even() as u8;
    let channel = |pixel: usize, channel: usize| image.get(channel * pixels + pixel).or(image.get(pixel)).copied();
    let colour = |pixel: usize, index: usize| level(channel(pixel, index).unwrap_or_default());
    (0..pixels).flat_map(|pixel| [colour(pixel, 0), colour(pixel, 1), colour(pixel, 2), 255]).collect()
}
