//! The bound of pictures, computed term by term.

use super::estimate::{BoundSummary, Term, TermKind, estimate};
use super::timesteps::timesteps;
use crate::diffusion::{Decoder, VariationalBound};
use crate::noise::{Generator, Stream};
use crate::pipeline::error::Error;
use crate::pipeline::model::checkpoint::{Checkpoint, Model};
use crate::pipeline::model::load::Parts;
use crate::pipeline::options::{BoundOptions, SampleOptions};
use crate::pipeline::pictures::encoder::Encoder;
use crate::pipeline::pictures::image::{Filter, Rgb};
use crate::pipeline::pictures::tiled::longest_tile;
use crate::pipeline::run::pipeline::Pipeline;
use crate::pipeline::run::request::{check_conditions, side};
use crate::pipeline::study::predictor::Predictor;

/// Most pictures that go through the network at once.
const MAX_BATCH: usize = 8;

/// Pictures that go through the network together.
#[derive(Debug)]
struct Chunk {
    first: usize,
    count: usize,
    /// Index of the predictor that is compiled for them.
    predictor: usize,
}

/// A bound that is being computed; dropping it frees what it holds on the device.
#[derive(Debug)]
pub struct Bound {
    bound: VariationalBound,
    decoder: Decoder,
    clip_denoised: bool,
    seed: u64,
    /// x_0 of each picture.
    data: Vec<Vec<f64>>,
    predictors: Vec<Predictor>,
    chunks: Vec<Chunk>,
    /// The timesteps that are still to be computed, ascending, each with how many it stands for.
    pending: Vec<(usize, f64)>,
    /// Whether each stands for a part of its own, rather than all for the whole.
    in_parts: bool,
    terms: Vec<Term>,
}

impl Pipeline {
    /// Brings the pictures to the model's size, encodes them where it works on latents, and compiles the network; no term is
    /// computed yet.
    ///
    /// # Errors
    /// An option that the model does not take, a model without such a bound, or the device's refusal.
    pub async fn bound(&self, options: BoundOptions) -> Result<Bound, Error> {
        let parts = &*self.parts;
        let info = &parts.model.info;
        let RequestedTerms { bound, size, of_latents, clip_denoised, pending, in_parts } =
            RequestedTerms::new(&parts.model, &options)?;
        let mut pictures = Vec::new();
        for image in &options.images {
            pictures.push(Rgb::new("images", image)?.resized(size[1], size[0], Filter::Lanczos));
        }
        let shape = [pictures.len(), info.latent_channels, size[0] / info.scale_factor, size[1] / info.scale_factor];
        let data = match of_latents {
            true => latents(parts, &options, &pictures, shape, bound.timesteps()).await?,
            false => {
                let levels = |picture: &Rgb| picture.levels(shape[1]).into_iter();
                pictures.iter().map(|p| levels(p).map(|level| f64::from(level) / 127.5 - 1.0).collect()).collect()
            }
        };
        let (predictors, chunks) = predictors(parts, &options, shape).await?;
        let decoder = if of_latents { Decoder::Density } else { Decoder::Discretised(options.cdf) };
        let seed = options.seed;
        Ok(Bound {
            bound,
            decoder,
            clip_denoised,
            seed,
            data,
            predictors,
            chunks,
            pending,
            in_parts,
            terms: Vec::new(),
        })
    }
}

impl Checkpoint {
    /// Whether [`Pipeline::bound`] with these options is possible, as far as it can be told without the weights.
    ///
    /// # Errors
    /// An option that the model does not take, or a model without such a bound.
    pub fn check_bound(&self, options: &BoundOptions) -> Result<(), Error> {
        RequestedTerms::new(&self.model, options)?;
        check_conditions(&self.model, &conditions(options, options.prompt.all()))?;
        options.images.iter().try_for_each(|image| Rgb::new("images", image).map(drop))
    }
}

/// The options of a bound that is possible.
struct RequestedTerms {
    bound: VariationalBound,
    /// Height and width in pixels.
    size: [usize; 2],
    of_latents: bool,
    clip_denoised: bool,
    /// The timesteps of [`Bound`].
    pending: Vec<(usize, f64)>,
    in_parts: bool,
}

impl RequestedTerms {
    /// The terms that `options` ask of `model`.
    fn new(model: &Model, options: &BoundOptions) -> Result<Self, Error> {
        let info = &model.info;
        let pictures = options.images.len();
        if pictures == 0 {
            return Err(Error::option("images", "a list of none", "give at least one picture"));
        }
        let size =
            [side(info, "height", options.height, info.height)?, side(info, "width", options.width, info.width)?];
        let of_latents = model.vae.is_some();
        let clip_denoised = options.clip_denoised && !of_latents;
        let bound = model.scheduler.variational_bound(options.variance, clip_denoised.then_some(1.0))?;
        let has_variance = model.unet.out_channels() == 2 * info.latent_channels;
        if bound.variance().is_learned() && !has_variance {
            let message = "the network has learned no variance; choose fixed_small or fixed_large";
            return Err(Error::option("variance", bound.variance(), message));
        }
        let prompts = options.prompt.all().len();
        if prompts != 1 && prompts != pictures {
            let message = format!("expected one prompt, or one for each of the {pictures} pictures");
            return Err(Error::option("prompt", format!("a list of {prompts}"), message));
        }
        let (pending, in_parts) = timesteps(options, bound.timesteps())?;
        Ok(Self { bound, size, of_latents, clip_denoised, pending, in_parts })
    }
}

/// The options of some of the pictures, which have these `prompts`.
fn conditions(options: &BoundOptions, prompts: &[String]) -> SampleOptions {
    SampleOptions {
        prompt: prompts.to_vec().into(),
        negative_prompt: options.negative_prompt.clone(),
        guidance_scale: options.guidance_scale,
        ..SampleOptions::default()
    }
}

impl Bound {
    /// Number of terms in all, L_T included.
    pub fn total(&self) -> usize {
        let prior = usize::from(self.terms.is_empty());
        self.terms.len() + prior + self.pending.len()
    }

    /// Warning for the user: words of a prompt that the model cannot see.
    pub fn warning(&self) -> Option<&str> {
        self.predictors.iter().find_map(Predictor::warning)
    }

    /// Computes the next term: L_T first, then by descending t; `None` after the last.
    ///
    /// # Errors
    /// A value that is not finite, with the layer or the timestep that made it; a timestep at which there is no term; or a lost
    /// device.
    pub async fn next_term(&mut self) -> Result<Option<Term>, Error> {
        let term = if self.terms.is_empty() {
            let bits_per_dim = self.data.iter().map(|x0| self.bound.prior(x0)).collect();
            Term { kind: TermKind::Prior, timestep: None, stands_for: 1.0, bits_per_dim }
        } else {
            let Some(&(timestep, stands_for)) = self.pending.last() else { return Ok(None) };
            let bits_per_dim = self.at(timestep).await?;
            self.pending.pop();
            let kind = if timestep == 0 { TermKind::Decoder } else { TermKind::Transition };
            Term { kind, timestep: Some(timestep), stands_for, bits_per_dim }
        };
        self.terms.push(term.clone());
        Ok(Some(term))
    }

    /// The term of `timestep` in bits per dimension, for each picture.
    async fn at(&mut self, timestep: usize) -> Result<Vec<f64>, Error> {
        let length = self.data.first().map_or(0, Vec::len);
        let mut stream = Generator::new(Stream::TorchCpu, self.seed.wrapping_add(timestep as u64));
        let noise = stream.randn(self.data.len() * length);
        let mut bits = Vec::new();
        for &Chunk { first, count, predictor } in &self.chunks {
            let data = &self.data[first..first + count];
            let noise = noise[first * length..].chunks_exact(length.max(1));
            let noised = data.iter().zip(noise).map(|(x0, noise)| self.bound.noised(timestep, x0, noise));
            let x_t = noised.collect::<Result<Vec<_>, _>>()?;
            let sample: Vec<f32> = x_t.iter().flatten().map(|&x| x as f32).collect();
            let outputs = self.predictors[predictor].predict(&sample, timestep as f32).await?;
            let outputs = outputs.chunks_exact((outputs.len() / count).max(1));
            for ((x0, x_t), output) in data.iter().zip(&x_t).zip(outputs) {
                // What a network has learned of the variance is left out where a fixed one was asked for.
                let read = if self.bound.variance().is_learned() { output.len() } else { length };
                let output: Vec<f64> = output[..read].iter().map(|&value| value.into()).collect();
                bits.push(self.bound.term(timestep, x0, x_t, &output, self.decoder)?);
            }
        }
        match bits.iter().all(|bits| bits.is_finite()) {
            true => Ok(bits),
            false => Err(Error::option(
                "variance",
                self.bound.variance(),
                format!("at timestep {timestep} it gives a term that is not finite; choose another"),
            )),
        }
    }

    /// The terms so far, and from all of them the whole.
    pub fn summary(&self) -> BoundSummary {
        let complete = self.pending.is_empty() && !self.terms.is_empty();
        BoundSummary {
            of_latents: self.decoder == Decoder::Density,
            dimensions: self.data.first().map_or(0, Vec::len),
            num_train_timesteps: self.bound.timesteps(),
            variance: self.bound.variance(),
            clip_denoised: self.clip_denoised,
            terms: self.terms.clone(),
            total: if complete { estimate(&self.terms, self.bound.timesteps(), self.in_parts) } else { None },
        }
    }
}

/// The latents of the pictures, scaled as the network sees them.
async fn latents(
    parts: &Parts,
    options: &BoundOptions,
    pictures: &[Rgb],
    shape: [usize; 4],
    steps: usize,
) -> Result<Vec<Vec<f64>>, Error> {
    let longest = longest_tile(&conditions(options, options.prompt.all()));
    let mut encoder = Encoder::compile(parts, shape, longest).await?;
    let [_, channels, height, width] = shape;
    let mut stream = Generator::new(Stream::TorchCpu, options.seed.wrapping_add(steps as u64));
    let mut data = Vec::new();
    for picture in pictures {
        let posterior = encoder.encode(&picture.to_tensor(3)).await?;
        let latents = match options.sample_posterior {
            true => posterior.sample(1, &stream.randn(channels * height * width), 1),
            false => posterior.mean(),
        };
        data.push(latents.into_iter().map(f64::from).collect());
    }
    Ok(data)
}

/// The network for as many pictures at once as there may be: compiled anew only where their number or their prompts differ.
async fn predictors(
    parts: &Parts,
    options: &BoundOptions,
    [pictures, channels, height, width]: [usize; 4],
) -> Result<(Vec<Predictor>, Vec<Chunk>), Error> {
    let prompts = options.prompt.all();
    let size = pictures.div_ceil(pictures.div_ceil(MAX_BATCH));
    let (mut predictors, mut chunks) = (Vec::new(), Vec::<Chunk>::new());
    for first in (0..pictures).step_by(size) {
        let count = size.min(pictures - first);
        let same = chunks.last().filter(|last| last.count == count && prompts.len() == 1);
        let predictor = same.map_or(predictors.len(), |last| last.predictor);
        if predictor == predictors.len() {
            let of = if prompts.len() == 1 { prompts } else { &prompts[first..first + count] };
            let conditions = conditions(options, of);
            predictors.push(Predictor::compile(parts, &conditions, [count, channels, height, width]).await?);
        }
        chunks.push(Chunk { first, count, predictor });
    }
    Ok((predictors, chunks))
}
