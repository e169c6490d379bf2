//! The beginning of a run: x_T, and the parts of a given picture that go with it.

use super::random::Streams;
use super::request::{Request, Task};
use crate::diffusion::Noising;
use crate::pipeline::error::Error;
use crate::pipeline::model::load::Parts;
use crate::pipeline::pictures::encoder::Encoder;
use crate::pipeline::pictures::image::{Rgb, nearest};
use crate::pipeline::pictures::tiled::longest_tile;

/// The beginning of a run. All are `[batch, channels, height, width]` but for the mask.
#[derive(Debug)]
pub(in crate::pipeline) struct Start {
    /// x_T, or x_t where image-to-image enters the schedule.
    pub latents: Vec<f32>,
    /// The network's input beside x_t.
    pub extra: Option<Vec<f32>>,
    /// The part of a picture that is kept.
    pub kept: Option<KeptPart>,
}

/// A picture of which a part is kept.
#[derive(Debug)]
pub(in crate::pipeline) struct KeptPart {
    /// The picture.
    pub latents: Vec<f32>,
    /// The noise that it gets at each step.
    pub noise: Vec<f32>,
    /// `[1, 1, height, width]`, 1 where it is drawn anew.
    pub mask: Vec<f32>,
}

impl Start {
    /// Encodes the picture of `request` and draws the noise, in the order in which diffusers draws.
    ///
    /// # Errors
    /// If the encoder cannot be built at this size, or the device's refusal.
    pub async fn new(parts: &Parts, request: &mut Request) -> Result<Self, Error> {
        let [batch, channels, height, width] = request.latents;
        let length = channels * height * width;
        let sigma = request.table.init_noise_sigma;
        let pure = |noise: &[f32]| -> Vec<f32> { noise.iter().map(|z| z * sigma as f32).collect() };
        let first = request.table.steps.first().map_or(Noising::of_sigma(0.0), |step| step.forward);
        let streams = &mut request.streams;
        match &request.task {
            Task::Generate => {
                let latents = pure(&streams.randn(batch, length));
                Ok(Self { latents, extra: None, kept: None })
            }
            Task::ImageToImage(image) => {
                let x0 = x0(parts, image, streams, request.latents, longest_tile(&request.options)).await?;
                let latents = first.add_noise(&x0, &streams.randn(batch, length));
                Ok(Self { latents, extra: None, kept: None })
            }
            Task::Inpaint { image, mask, from_noise } => {
                let mut encoder = Encoder::compile(parts, request.latents, longest_tile(&request.options)).await?;
                let fills = parts.model.extra_channels() > 0;
                let picture = image.to_tensor(3);
                let rows = streams.rows();
                let known = match fills && *from_noise {
                    true => None,
                    false => {
                        let posterior = encoder.encode(&picture).await?;
                        Some(posterior.sample(rows, &streams.randn(rows, length), batch))
                    }
                };
                let noise = streams.randn(batch, length);
                let latents = match &known {
                    Some(known) if !from_noise => first.add_noise(known, &noise),
                    _ => pure(&noise),
                };
                let posterior_noise = streams.randn(rows, length);
                let small = nearest(mask, [image.height, image.width], [height, width]);
                let mut extra = None;
                if fills {
                    // 1 in the mask is unknown, and the grey of 0 in the picture.
                    let masked: Vec<f32> =
                        picture.iter().zip(mask.iter().cycle()).map(|(v, m)| if *m < 0.5 { *v } else { 0.0 }).collect();
                    let masked = encoder.encode(&masked).await?.sample(rows, &posterior_noise, batch);
                    extra =
                        Some(masked.chunks_exact(length).flat_map(|masked| [&small[..], masked].concat()).collect());
                }
                let kept = match known {
                    Some(latents) if !fills => Some(KeptPart { latents, noise, mask: small }),
                    _ => None,
                };
                Ok(Self { latents, extra, kept })
            }
            Task::Upscale { image, noise_level } => {
                let picture = image.to_tensor(3);
                let rows = streams.rows();
                let noise = streams.randn(rows, picture.len());
                let schedule = parts.model.low_res.as_ref().map(|(schedule, _)| schedule);
                let level = schedule.and_then(|schedule| schedule.alphas_cumprod.get(*noise_level));
                let level = level.map_or(1.0, |&level| f64::from(level));
                let pictures = Noising::of_alpha_bar(level).add_noise(&picture.repeat(rows), &noise);
                let latents = pure(&streams.randn(batch, length));
                Ok(Self { latents, extra: Some(pictures.repeat(batch / rows)), kept: None })
            }
        }
    }
}

/// x_0 of a picture for each of a batch, `[batch, channels, height, width]`: a draw from what the autoencoder makes of it, one for
/// all or one from each stream; without an autoencoder the picture itself, and nothing is drawn.
///
/// # Errors
/// If the encoder cannot be built at this size, a value is not finite, or the device's refusal.
pub(in crate::pipeline) async fn x0(
    parts: &Parts,
    image: &Rgb,
    streams: &mut Streams,
    latents: [usize; 4],
    longest: usize,
) -> Result<Vec<f32>, Error> {
    let [batch, channels, height, width] = latents;
    if parts.vae().is_none() {
        return Ok(image.to_tensor(channels).repeat(batch));
    }
    let posterior = Encoder::compile(parts, latents, longest).await?.encode(&image.to_tensor(3)).await?;
    let rows = streams.rows();
    Ok(posterior.sample(rows, &streams.randn(rows, channels * height * width), batch))
}
