//! Pictures of x_t and x̂_0, after every step and at the end.

use std::cell::{OnceCell, RefCell};
use std::rc::Rc;

use super::linear_preview::LinearPreview;
use super::painter::{Canvas, Paint, Painter};
use super::tiled::longest_tile;
use super::tiny_vae::TinyVae;
use crate::device::{Program, Weights};
use crate::graph::Builder;
use crate::models::AutoencoderKlConfig;
use crate::pipeline::error::Error;
use crate::pipeline::model::load::Parts;
use crate::pipeline::options::{Preview, SampleOptions};
use crate::pipeline::rgba::Rgba;

/// Means of a pipeline's previews besides its own autoencoder.
#[derive(Debug, Default)]
pub(in crate::pipeline) struct Previews {
    /// The tiny autoencoder for [`Preview::Tiny`].
    tiny_vae: RefCell<Option<Rc<TinyVae>>>,
    /// The linear map for [`Preview::Linear`].
    linear: OnceCell<Rc<LinearPreview>>,
}

impl Previews {
    /// Takes a tiny autoencoder for runs that start from now on.
    pub fn set_tiny_vae(&self, tiny_vae: TinyVae) {
        *self.tiny_vae.borrow_mut() = Some(Rc::new(tiny_vae));
    }

    /// The linear map for the autoencoder of `parts`, fitted when it is first asked for.
    ///
    /// # Errors
    /// As [`LinearPreview::fit`].
    async fn linear(
        &self,
        parts: &Parts,
        vae: &AutoencoderKlConfig,
        weights: &Weights,
    ) -> Result<Rc<LinearPreview>, Error> {
        if let Some(fitted) = self.linear.get() {
            return Ok(fitted.clone());
        }
        let fitted = Rc::new(LinearPreview::fit(&parts.device, vae, weights).await?);
        Ok(self.linear.get_or_init(|| fitted).clone())
    }
}

/// The pictures of a step: one for each of the batch.
#[derive(Debug, Default)]
pub(in crate::pipeline) struct StepPictures {
    /// x_t.
    pub images: Vec<Rgba>,
    /// x̂_0.
    pub denoised: Vec<Rgba>,
}

/// Makes pictures from the outputs of a step's program: `prev_sample`, the batch of x_t, and `frames`, the same and then
/// the batch of x̂_0.
#[derive(Debug)]
pub(in crate::pipeline) struct Previewer {
    batch: usize,
    /// Painter of x_t and x̂_0, on the way.
    painter: Option<Painter>,
    /// Painter of x_0 at the end.
    decoder: Painter,
    /// Whether `decoder` paints `frames`, on the way as well.
    decodes_all: bool,
    /// Rows and columns of a picture.
    size: [usize; 2],
}

impl Previewer {
    /// Prepares pictures of latents `[batch, channels, height, width]`, decoded in tiles where the whole is too large for the
    /// device or [`SampleOptions::vae_tiling`] asks for it. Without an autoencoder the latents are the pictures.
    ///
    /// # Errors
    /// If the decoder cannot be built at that size, the device refuses it, or a tiny autoencoder is asked for and there is
    /// none.
    pub async fn compile(
        parts: &Parts,
        previews: &Previews,
        options: &SampleOptions,
        latents: [usize; 4],
    ) -> Result<Self, Error> {
        let [batch, _, height, width] = latents;
        let (preview, tiny) = chosen(parts, previews, options.preview)?;
        let decodes_all = preview == Preview::Decode || (parts.vae().is_none() && preview != Preview::None);
        let scale_factor = parts.model.info.scale_factor;
        let longest_tile = longest_tile(options);
        let decoded = Canvas { latents, with_denoised: decodes_all, scale_factor, longest_tile };
        let decoder = decoder(parts, decoded).await?;
        let painter = painter(parts, previews, preview, tiny, Canvas { with_denoised: true, ..decoded }).await?;
        let size = [height, width].map(|side| side * scale_factor);
        Ok(Self { batch, painter, decoder, decodes_all, size })
    }

    /// The pictures to be shown of the step that `step` has just made; its new sample times `scale` has about unit variance. At
    /// the last step, where x_0 is x̂_0 but for the solver's last bit of noise, the decoded picture is both.
    ///
    /// # Errors
    /// A value that is not finite, with the layer that made it, or a lost device.
    pub async fn draw(&mut self, step: &mut Program, scale: f32, is_last: bool) -> Result<StepPictures, Error> {
        let painter = if is_last { Some(&mut self.decoder) } else { self.on_the_way() };
        let Some(painter) = painter else { return Ok(StepPictures::default()) };
        let pictures = match painter.paint(step, scale).await {
            Ok(()) => painter.pictures().await,
            Err(error) => Err(error),
        };
        let mut images = match pictures {
            Ok(pictures) => pictures,
            // A picture that is not finite comes from the step before it, which knows the layer.
            Err(error) => {
                step.read(&[]).await?;
                return Err(error);
            }
        };
        images.iter_mut().for_each(|image| enlarge(image, self.size));
        let denoised = if images.len() > self.batch { images.split_off(self.batch) } else { images.clone() };
        Ok(StepPictures { images, denoised })
    }

    /// The pictures of x_T, `latents`, which has about unit variance times `scale`.
    ///
    /// # Errors
    /// A value that is not finite, or a lost device.
    pub async fn draw_initial(&mut self, latents: &[f32], scale: f32) -> Result<Vec<Rgba>, Error> {
        let (batch, size) = (self.batch, self.size);
        let Some(painter) = self.on_the_way() else { return Ok(Vec::new()) };
        // It has frames for x̂_0 too, which is not known yet.
        painter.paint_latents(&latents.repeat(2), scale).await?;
        let mut images = painter.pictures().await?;
        images.truncate(batch);
        images.iter_mut().for_each(|image| enlarge(image, size));
        Ok(images)
    }

    /// The painter of x_t and x̂_0 before the last step; `None` if they are not to be shown.
    fn on_the_way(&mut self) -> Option<&mut Painter> {
        match &mut self.painter {
            None if self.decodes_all => Some(&mut self.decoder),
            painter => painter.as_mut(),
        }
    }

    /// The pictures of the x_t that `step` has just made, decoded, `[batch, channels, height, width]` in 0..1.
    ///
    /// # Errors
    /// As [`Previewer::draw`].
    pub async fn image(&mut self, step: &mut Program) -> Result<Vec<f32>, Error> {
        self.decoder.paint(step, 1.0).await?;
        let mut image = self.decoder.image().await?;
        image.iter_mut().for_each(|v| *v = (*v * 0.5 + 0.5).clamp(0.0, 1.0));
        Ok(image)
    }
}

/// Shows latents that come from elsewhere, one at a time.
#[derive(Debug)]
pub(in crate::pipeline) struct Viewer {
    painter: Painter,
    size: [usize; 2],
}

impl Viewer {
    /// Prepares pictures of latents `[1, channels, height, width]` as [`SampleOptions::preview`] says, where it says none as it is
    /// by default.
    ///
    /// # Errors
    /// As [`Previewer::compile`].
    pub async fn compile(
        parts: &Parts,
        previews: &Previews,
        options: &SampleOptions,
        latents: [usize; 4],
    ) -> Result<Self, Error> {
        let preview = if options.preview == Preview::None { Preview::Auto } else { options.preview };
        let (preview, tiny) = chosen(parts, previews, preview)?;
        let scale_factor = parts.model.info.scale_factor;
        let canvas = Canvas { latents, with_denoised: false, scale_factor, longest_tile: longest_tile(options) };
        let painter = match painter(parts, previews, preview, tiny, canvas).await? {
            Some(painter) => painter,
            None => decoder(parts, canvas).await?,
        };
        let [_, _, height, width] = latents;
        Ok(Self { painter, size: [height, width].map(|side| side * scale_factor) })
    }

    /// The picture of `latents` times `scale`.
    ///
    /// # Errors
    /// A value that is not finite, or a lost device.
    pub async fn show(&mut self, latents: &[f32], scale: f32) -> Result<Rgba, Error> {
        self.painter.paint_latents(latents, scale).await?;
        let mut picture = self.painter.pictures().await?.swap_remove(0);
        enlarge(&mut picture, self.size);
        Ok(picture)
    }
}

/// The choice that `preview` stands for in this pipeline, and the tiny autoencoder that it may need.
fn chosen(parts: &Parts, previews: &Previews, preview: Preview) -> Result<(Preview, Option<Rc<TinyVae>>), Error> {
    let tiny = previews.tiny_vae.borrow().clone();
    Ok(match (preview, tiny) {
        (Preview::Auto, tiny) => (if tiny.is_some() { Preview::Tiny } else { Preview::Linear }, tiny),
        (Preview::Tiny, None) if parts.vae().is_some() => {
            let message = "the pipeline was given no tiny autoencoder; `linear` needs none";
            return Err(Error::option("preview", "tiny", message));
        }
        other => other,
    })
}

/// The arithmetic of the pictures of a step on the way and of those of the last, for latents `[batch, channels, height, width]`, in
/// floating point operations. A linear map is next to free and not counted.
///
/// # Errors
/// As [`Previewer::compile`], but for the device's refusal.
pub(in crate::pipeline) fn costs(
    parts: &Parts,
    previews: &Previews,
    options: &SampleOptions,
    latents: [usize; 4],
) -> Result<[u64; 2], Error> {
    let [batch, channels, height, width] = latents;
    let (preview, tiny) = chosen(parts, previews, options.preview)?;
    let of = |paint: &Paint<'_>| -> Result<u64, Error> {
        let builder = Builder::new();
        let root = builder.root();
        let latents = root.input("latents", &[1, channels, height, width]).map_err(Error::from)?;
        paint(&root, latents).map_err(|e| parts.model.info.too_large(height, width, e))?;
        Ok(builder.finish().flop())
    };
    let decode = parts.vae().map_or(Ok(0), |(vae, _)| of(&|root, x| vae.add_to(root, x)))?;
    // On the way x̂_0 is shown beside x_t.
    let (each, last) = match (preview, tiny) {
        (Preview::Decode, _) => (2 * decode, 2 * decode),
        (Preview::Tiny, Some(tiny)) => (2 * of(&|root, x| tiny.config.add_to(root, x))?, decode),
        _ => (0, decode),
    };
    Ok([each, last].map(|flop| flop * batch as u64))
}

/// The model's own way from latents to pictures. Without an autoencoder they are the pictures.
async fn decoder(parts: &Parts, canvas: Canvas) -> Result<Painter, Error> {
    match parts.vae() {
        Some((vae, weights)) => Painter::compile(parts, weights, canvas, &|root, x| vae.add_to(root, x)).await,
        // No weights are needed; the noise predictor's say which device this is.
        None => Painter::compile(parts, &parts.unet, canvas, &|_, x| Ok(x)).await,
    }
}

/// A quicker one, where `preview` asks for it and there is anything to be quicker than.
async fn painter(
    parts: &Parts,
    previews: &Previews,
    preview: Preview,
    tiny: Option<Rc<TinyVae>>,
    canvas: Canvas,
) -> Result<Option<Painter>, Error> {
    Ok(match (preview, tiny, parts.vae()) {
        (Preview::Tiny, Some(tiny), Some(_)) => {
            let TinyVae { config, weights } = &*tiny;
            Some(Painter::compile(parts, weights, canvas, &|root, x| config.add_to(root, x)).await?)
        }
        (Preview::Linear, _, Some((vae, weights))) => {
            let map = previews.linear(parts, vae, weights).await?;
            let canvas = Canvas { scale_factor: 1, longest_tile: usize::MAX, ..canvas };
            Some(Painter::compile(parts, &map.weights, canvas, &|root, x| map.add_to(root, x)).await?)
        }
        _ => None,
    })
}

/// Makes a picture as large as `[height, width]`, bilinearly.
fn enlarge(picture: &mut Rgba, [height, width]: [usize; 2]) {
    if [picture.height, picture.width] == [height, width] {
        return;
    }
    let columns: Vec<_> = (0..width).map(|x| between(x, width, picture.width)).collect();
    let mut pixels = Vec::with_capacity(4 * width * height);
    for (top, bottom, down) in (0..height).map(|y| between(y, height, picture.height)) {
        let row = |y: usize| &picture.pixels[4 * y * picture.width..][..4 * picture.width];
        let (upper, lower) = (row(top), row(bottom));
        for &(left, right, across) in &columns {
            for channel in 0..4 {
                let mix = |row: &[u8]| {
                    let [a, b] = [left, right].map(|x| u32::from(row[4 * x + channel]));
                    a * (FINE - across) + b * across
                };
                let sum = mix(upper) * (FINE - down) + mix(lower) * down;
                pixels.push(((sum + FINE * FINE / 2) / (FINE * FINE)) as u8);
            }
        }
    }
    *picture = Rgba { width, height, pixels };
}

/// Parts of a pixel that [`enlarge`] distinguishes.
const FINE: u32 = 256;

/// The two of `source` pixels between which pixel `i` of `target` lies, and how far it is to the second.
fn between(i: usize, target: usize, source: usize) -> (usize, usize, u32) {
    let last = (source - 1) as f32;
    let at = ((i as f32 + 0.5) * source as f32 / target as f32 - 0.5).clamp(0.0, last);
    (at as usize, (at as usize + 1).min(source - 1), (at.fract() * FINE as f32) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grey(width: usize, height: usize, levels: &[u8]) -> Rgba {
        Rgba { width, height, pixels: levels.iter().flat_map(|&level| [level, level, level, 255]).collect() }
    }

    #[test]
    fn an_enlarged_picture_blends_between_the_middles_of_its_pixels() {
        let mut picture = grey(2, 2, &[0, 100, 200, 44]);
        enlarge(&mut picture, [4, 4]);
        let expected = [0, 25, 75, 100, 50, 59, 77, 86, 150, 127, 81, 58, 200, 161, 83, 44];
        // The second of the second row is 9/16 of the first pixel, 3/16 of each neighbour and 1/16 of the last.
        assert_eq!(picture, grey(4, 4, &expected));
    }

    #[test]
    fn a_picture_of_one_pixel_and_one_of_the_right_size_are_left_as_they_are() {
        let mut picture = grey(1, 1, &[77]);
        enlarge(&mut picture, [3, 2]);
        assert_eq!(picture, grey(2, 3, &[77; 6]));
        enlarge(&mut picture, [3, 2]);
        assert_eq!(picture, grey(2, 3, &[77; 6]));
    }
}
