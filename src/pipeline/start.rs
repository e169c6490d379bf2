//! Where a run begins: x_T, and what of a given picture goes with it.

use super::Error;
use super::encoder::Encoder;
use super::image::nearest;
use super::load::Parts;
use super::request::{Request, Task};
use super::tiled::longest_tile;

/// The beginning of a run. All are `[batch, channels, height, width]` but for the mask.
#[derive(Debug)]
pub(super) struct Start {
    /// x_T, or x_t where image-to-image enters the schedule.
    pub latents: Vec<f32>,
    /// What the network sees beside x_t.
    pub extra: Option<Vec<f32>>,
    /// What is kept of a picture.
    pub kept: Option<Kept>,
}

/// A picture of which a part is kept.
#[derive(Debug)]
pub(super) struct Kept {
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
        let first = request.table.steps.first().map_or((1.0, 0.0), |step| step.forward);
        let streams = &mut request.streams;
        match &request.task {
            Task::Generate => {
                let latents = pure(&streams.randn(batch, length));
                Ok(Self { latents, extra: None, kept: None })
            }
            Task::ImageToImage(image) => {
                let mut encoder = Encoder::compile(parts, request.latents, longest_tile(&request.options)).await?;
                let posterior = encoder.encode(&image.to_tensor()).await?;
                let rows = if streams.are_several() { batch } else { 1 };
                let latents = posterior.sample(rows, &streams.randn(rows, length), batch);
                let latents = noised(&latents, &streams.randn(batch, length), first);
                Ok(Self { latents, extra: None, kept: None })
            }
            Task::Inpaint { image, mask, from_noise } => {
                let mut encoder = Encoder::compile(parts, request.latents, longest_tile(&request.options)).await?;
                let fills = parts.model.extra_channels() > 0;
                let picture = image.to_tensor();
                // One posterior for all pictures, whatever the number of streams.
                let known = match fills && *from_noise {
                    true => None,
                    false => {
                        let posterior = encoder.encode(&picture).await?;
                        Some(posterior.sample(1, &streams.randn(1, length), batch))
                    }
                };
                let noise = streams.randn(batch, length);
                let latents = match &known {
                    Some(known) if !from_noise => noised(known, &noise, first),
                    _ => pure(&noise),
                };
                let posterior_noise = streams.randn(1, length);
                let small = nearest(mask, [image.height, image.width], [height, width]);
                let mut extra = None;
                if fills {
                    // 1 in the mask is unknown, and the grey of 0 in the picture.
                    let masked: Vec<f32> =
                        picture.iter().zip(mask.iter().cycle()).map(|(v, m)| if *m < 0.5 { *v } else { 0.0 }).collect();
                    let masked = encoder.encode(&masked).await?.sample(1, &posterior_noise, 1);
                    extra = Some([&small[..], &masked].concat().repeat(batch));
                }
                let kept = match known {
                    Some(latents) if !fills => Some(Kept { latents, noise, mask: small }),
                    _ => None,
                };
                Ok(Self { latents, extra, kept })
            }
            Task::Upscale { image, noise_level } => {
                let picture = image.to_tensor();
                let noise = streams.randn(1, picture.len());
                let schedule = parts.model.low_res.as_ref().map(|(schedule, _)| schedule);
                let level = schedule.and_then(|schedule| schedule.alphas_cumprod.get(*noise_level));
                let level = level.map_or(1.0, |&level| f64::from(level));
                let picture = noised(&picture, &noise, (level.sqrt(), (1.0 - level).sqrt()));
                let latents = pure(&streams.randn(batch, length));
                Ok(Self { latents, extra: Some(picture.repeat(batch)), kept: None })
            }
        }
    }
}

/// The forward process (`add_noise`): `signal`·x_0 + `level`·ε.
fn noised(x0: &[f32], noise: &[f32], (signal, level): (f64, f64)) -> Vec<f32> {
    x0.iter().zip(noise).map(|(&x, &z)| signal as f32 * x + level as f32 * z).collect()
}
