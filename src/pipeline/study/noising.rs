//! The forward process of a picture under a checkpoint: x_t at any timestep, as a picture, and what the network makes of it in one
//! call.

use std::rc::Rc;

use super::predictor::Predictor;
use crate::diffusion::{Noising, NoisingAt, Reading, SchedulerConfig};
use crate::noise::{Generator, Stream};
use crate::pipeline::error::Error;
use crate::pipeline::model::load::Parts;
use crate::pipeline::options::{ForwardOptions, SampleOptions, Space};
use crate::pipeline::pictures::image::Rgb;
use crate::pipeline::pictures::painter::rgba8;
use crate::pipeline::pictures::preview::Viewer;
use crate::pipeline::pictures::tiled::longest_tile;
use crate::pipeline::rgba::Rgba;
use crate::pipeline::run::pipeline::Pipeline;
use crate::pipeline::run::random::Streams;
use crate::pipeline::run::request::{self, check_conditions};
use crate::pipeline::run::start;

/// x_t.
#[derive(Clone, Debug, PartialEq)]
pub struct Noised {
    /// `[1, channels, height, width]`.
    pub sample: Vec<f32>,
    /// A picture of it.
    pub image: Rgba,
}

/// The prediction of the network for x_t in one call.
#[derive(Clone, Debug, PartialEq)]
pub struct Prediction {
    /// ε̂, `[1, channels, height, width]`.
    pub epsilon: Vec<f32>,
    /// x̂_0, `[1, channels, height, width]`, as the network has it, before a solver may clip it.
    pub x0: Vec<f32>,
    /// A picture of ε̂.
    pub epsilon_image: Rgba,
    /// A picture of x̂_0.
    pub x0_image: Rgba,
    /// The mean of (ε − ε̂)² over all elements, which training makes small: 1 for a network that says 0.
    pub mean_squared_error: f64,
}

/// A picture in pixels and the noise that it gets: a forward process that needs no model.
#[derive(Clone, Debug)]
pub struct NoisyPicture {
    /// `[1, channels, height, width]`.
    shape: [usize; 4],
    x0: Vec<f32>,
    noise: Vec<f32>,
}

impl NoisyPicture {
    /// A picture whose x_0 is the colours of `image` in −1..1, and whose ε is the first draw from the seed's stream.
    ///
    /// # Errors
    /// If the sides of `image` are not those of a picture, or not those of its bytes.
    pub fn new(image: &Rgba, seed: u64, generator: Stream) -> Result<Self, Error> {
        let image = Rgb::new("image", image)?;
        let x0 = image.to_tensor(3);
        let noise = Generator::new(generator, seed).randn(x0.len());
        Ok(Self { shape: [1, 3, image.height, image.width], x0, noise })
    }

    /// x_t, to which `forward` leads; without it, x_0 and the pixels as they are.
    pub fn at(&self, forward: Option<Noising>) -> Noised {
        let sample = self.sample(forward);
        let image = self.picture(&sample);
        Noised { sample, image }
    }

    fn sample(&self, forward: Option<Noising>) -> Vec<f32> {
        match forward {
            Some(forward) => forward.add_noise(&self.x0, &self.noise),
            None => self.x0.clone(),
        }
    }

    /// Pixels in −1..1 as a picture.
    fn picture(&self, pixels: &[f32]) -> Rgba {
        let [_, _, height, width] = self.shape;
        Rgba { width, height, pixels: rgba8(pixels, height * width) }
    }
}

/// A picture, the noise that it gets, and what shows them; dropping it frees what it holds on the device.
#[derive(Debug)]
pub struct ForwardProcess {
    parts: Rc<Parts>,
    scheduler: SchedulerConfig,
    options: SampleOptions,
    data: NoisyPicture,
    /// Viewer of latents. Pixels need none.
    viewer: Option<Viewer>,
    /// Whether x_t is what the model works on.
    is_of_model: bool,
    /// The network, once it has been asked.
    predictor: Option<Predictor>,
}

impl Pipeline {
    /// Brings the picture to its size, encodes it where latents are asked for, and draws the noise. No network but the
    /// autoencoder's is compiled yet.
    ///
    /// # Errors
    /// An option that the model does not take, or the device's refusal.
    pub async fn forward_process(&self, options: ForwardOptions) -> Result<ForwardProcess, Error> {
        let parts = self.parts.clone();
        let model = &parts.model;
        let space = options.space;
        let options = SampleOptions {
            image: Some(options.image),
            seed: options.seed,
            generator: options.generator,
            scheduler: options.scheduler,
            prompt: options.prompt,
            negative_prompt: options.negative_prompt,
            guidance_scale: options.guidance_scale,
            height: options.height,
            width: options.width,
            preview: options.preview,
            ..SampleOptions::default()
        };
        check_conditions(model, &options)?;
        let scheduler = request::scheduler(model, &options)?;
        // Refuses a class without a solver.
        scheduler.num_train_timesteps()?;
        let mut streams = Streams::new(&options);
        let is_of_model = space == Space::Latents || model.vae.is_none();
        let (shape, x0) = match is_of_model {
            true if !model.info.takes_start_timestep => {
                let message = format!("a {} begins with noise and not with a picture; choose pixels", model.info.class);
                return Err(Error::option("space", "latents", message));
            }
            true => {
                let (image, [height, width]) = request::picture(model, &options)?;
                let shape = [1, model.info.latent_channels, height, width];
                (shape, start::x0(&parts, &image, &mut streams, shape, longest_tile(&options)).await?)
            }
            false => {
                let image = request::pixels(&options)?;
                ([1, 3, image.height, image.width], image.to_tensor(3))
            }
        };
        let noise = streams.randn(1, x0.len());
        let viewer = match is_of_model && model.vae.is_some() {
            true => Some(Viewer::compile(&parts, &self.previews, &options, shape).await?),
            false => None,
        };
        let data = NoisyPicture { shape, x0, noise };
        Ok(ForwardProcess { parts, scheduler, options, data, viewer, is_of_model, predictor: None })
    }
}

impl ForwardProcess {
    /// T, the number of training timesteps, which are 0 to T − 1, and in rectified flow T as well.
    pub fn num_train_timesteps(&self) -> usize {
        self.scheduler.num_train_timesteps().unwrap_or_default()
    }

    /// The solver in whose scale x_t is.
    pub fn scheduler(&self) -> &SchedulerConfig {
        &self.scheduler
    }

    /// `[1, channels, height, width]` of x_t.
    pub fn shape(&self) -> [usize; 4] {
        self.data.shape
    }

    /// ε, the noise.
    pub fn noise(&self) -> &[f32] {
        &self.data.noise
    }

    /// Warning for the user once the network has been asked: words of the prompt that it cannot see.
    pub fn warning(&self) -> Option<&str> {
        self.predictor.as_ref().and_then(Predictor::warning)
    }

    /// x_t at a timestep, and x_0 at `None`. Of what the model works on it is, bit for bit, where a run with the same seed, size and
    /// solver and this [`start_timestep`](SampleOptions::start_timestep) begins. Pixels of a model that works on latents have the
    /// scale that its network sees, and at `None` they are those of the picture.
    ///
    /// # Errors
    /// A timestep that is not one of training, a value that is not finite, or a lost device.
    pub async fn at(&mut self, timestep: Option<usize>) -> Result<Noised, Error> {
        let at = timestep.map(|timestep| self.scheduler.noising_at(timestep)).transpose()?;
        let scale = at.map_or(1.0, |at| at.input_scale);
        let (forward, scale) = match self.is_of_model {
            true => (at.map(|at| at.forward), scale as f32),
            false => (at.map(NoisingAt::seen), 1.0),
        };
        let sample = self.data.sample(forward);
        let image = self.show(&sample, scale).await?;
        Ok(Noised { sample, image })
    }

    /// Asks the network once, for ε and x_0 at this timestep.
    ///
    /// # Errors
    /// Pixels of a model that works on latents, a timestep that is not one of training or at which the network does not say what x_0
    /// is, a condition that the model does not take, a value that is not finite, or a lost device.
    pub async fn predict(&mut self, timestep: usize) -> Result<Prediction, Error> {
        if !self.is_of_model {
            let message = "this model's network sees latents; a prediction needs that space";
            return Err(Error::option("space", "pixels", message));
        }
        let at = self.scheduler.noising_at(timestep)?;
        if !(at.x0.sample.is_finite() && at.epsilon.sample.is_finite()) {
            let message = "only the picture or only the noise is left there, of which the network says nothing";
            return Err(Error::option("timestep", timestep, message));
        }
        let scale = at.input_scale as f32;
        let seen: Vec<f32> = self.data.sample(Some(at.forward)).into_iter().map(|x| x * scale).collect();
        let mut predictor = match self.predictor.take() {
            Some(predictor) => predictor,
            None => Predictor::compile(&self.parts, &self.options, self.data.shape).await?,
        };
        let output = predictor.predict(&seen, at.timestep as f32).await;
        self.predictor = Some(predictor);
        let output = output?;
        // A learned variance follows the output.
        let read = |reading: Reading| -> Vec<f32> {
            let pairs = seen.iter().zip(&output);
            pairs.map(|(&x, &out)| (reading.sample * f64::from(x) + reading.output * f64::from(out)) as f32).collect()
        };
        let (epsilon, x0) = (read(at.epsilon), read(at.x0));
        let noise = &self.data.noise;
        let error = |(&epsilon, &of_network): (&f32, &f32)| {
            let difference = f64::from(epsilon) - f64::from(of_network);
            difference * difference
        };
        let mean_squared_error = noise.iter().zip(&epsilon).map(error).sum::<f64>() / noise.len().max(1) as f64;
        let epsilon_image = self.show(&epsilon, 1.0).await?;
        let x0_image = self.show(&x0, 1.0).await?;
        Ok(Prediction { epsilon, x0, epsilon_image, x0_image, mean_squared_error })
    }

    /// The picture of `sample` times `scale`.
    async fn show(&mut self, sample: &[f32], scale: f32) -> Result<Rgba, Error> {
        match &mut self.viewer {
            Some(viewer) => viewer.show(sample, scale).await,
            None => Ok(self.data.picture(&sample.iter().map(|x| x * scale).collect::<Vec<_>>())),
        }
    }
}
