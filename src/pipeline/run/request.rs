//! The options of a run, resolved against a checkpoint: what is not possible is found here, before a weight is needed.

use super::random::Streams;
use super::step_graph::StepGraph;
use crate::diffusion::{self, Clip, LearnedVariance, SchedulerConfig, Solver, StepOptions, Table};
use crate::graph::Graph;
use crate::pipeline::condition::conditioning::Conditions;
use crate::pipeline::condition::prompts::Prompts;
use crate::pipeline::error::Error;
use crate::pipeline::model::checkpoint::{Checkpoint, Model, ModelInfo, Takes};
use crate::pipeline::model::family::Strength;
use crate::pipeline::options::{MAX_SIDE, SampleOptions, Scheduler};
use crate::pipeline::pictures::image::{Filter, Rgb};

/// Most pictures of one run.
const MAX_PICTURES: usize = 64;

/// Most noise that the upscaler adds unless told otherwise.
const NOISE_LEVEL: usize = 20;

/// The origin of x_T.
#[derive(Debug)]
pub(in crate::pipeline) enum Task {
    /// x_T from noise alone.
    Generate,
    /// x_T from a picture, with noise.
    ImageToImage(Rgb),
    /// x_T from a picture, of which only what `mask` `[height, width]` covers is drawn anew.
    Inpaint {
        image: Rgb,
        mask: Vec<f32>,
        /// Whether the picture is forgotten where it is drawn anew: `strength` is 1.
        from_noise: bool,
    },
    /// x_T from noise, beside a small picture.
    Upscale { image: Rgb, noise_level: usize },
}

/// A run that is possible.
#[derive(Debug)]
pub(in crate::pipeline) struct Request {
    pub task: Task,
    pub table: Table,
    /// `[batch, channels, height, width]` of x_t.
    pub latents: [usize; 4],
    /// Whether every picture has an unconditional half.
    pub guided: bool,
    /// The way in which the deviation of the noise comes out of the network, where it has learned it.
    pub learned: Option<LearnedVariance>,
    /// The texts, where the model has a text encoder.
    pub prompts: Option<Prompts>,
    pub streams: Streams,
    pub options: SampleOptions,
}

impl Checkpoint {
    /// Whether a run with these options is possible, as far as it can be told without the weights.
    ///
    /// # Errors
    /// An option that the model or the scheduler does not take.
    pub fn check(&self, options: &SampleOptions) -> Result<(), Error> {
        Request::new(&self.model, options.clone())?.step_graph(&self.model).map(drop)
    }
}

impl Request {
    /// The request that `options` make of `model`.
    ///
    /// # Errors
    /// An option that the model or the scheduler does not take.
    pub fn new(model: &Model, options: SampleOptions) -> Result<Self, Error> {
        check_conditions(model, &options)?;
        check_taken(model, &options)?;
        let batch = batch(&options)?;
        let (task, [height, width]) = task(model, &options)?;
        let table = table(model, &options, &task)?;
        let learned = table.steps.iter().find_map(|step| step.learned_variance);
        if learned.is_some() && !model.learns_variance() {
            return Err(Error::Diffusion(diffusion::Error::UnsupportedValue {
                class: scheduler(model, &options)?.class_name().to_owned(),
                key: "variance_type",
                value: "learned".to_owned(),
                supported: "fixed_small and fixed_large: this network has learned no variance".to_owned(),
            }));
        }
        let guided = model.guides(options.guidance_scale);
        let prompts = match model.texts.is_empty() {
            true => None,
            false => Some(Prompts::new(model, &options, guided)?),
        };
        let latents = [batch, model.info.latent_channels, height, width];
        Ok(Self { task, table, latents, guided, learned, prompts, streams: Streams::new(&options), options })
    }

    /// The values that the network is to be told.
    pub fn told(&self) -> Conditions<'_> {
        Conditions {
            options: &self.options,
            prompts: self.prompts.as_ref(),
            latents: self.latents,
            guided: self.guided,
            from_noise: matches!(self.task, Task::Generate),
            noise_level: match self.task {
                Task::Upscale { noise_level, .. } => Some(noise_level),
                _ => None,
            },
        }
    }

    /// The network and the update after it, as one graph.
    ///
    /// # Errors
    /// If the network cannot be built at this size: its config was proven when the checkpoint was opened.
    pub fn step_graph(&self, model: &Model) -> Result<Graph, Error> {
        let threshold = self.table.steps.iter().find_map(|step| match step.clip {
            Clip::Threshold { ratio, max_value } => Some((ratio as f32, max_value as f32)),
            _ => None,
        });
        let step = StepGraph {
            latents: self.latents,
            guided: self.guided,
            guidance_rescale: if self.guided { self.options.guidance_rescale as f32 } else { 0.0 },
            tokens: self.prompts.as_ref().map_or(0, |prompts| prompts.tokens),
            extra_channels: model.extra_channels(),
            keeps: matches!(self.task, Task::Inpaint { .. }) && model.extra_channels() == 0,
            threshold,
            learned: self.learned,
        };
        let [_, _, height, width] = self.latents;
        step.build(&model.unet).map_err(|e| model.info.too_large(height, width, e))
    }
}

/// A number that is out of range whatever the model.
fn number(option: &'static str, value: f64, range: std::ops::RangeInclusive<f64>, message: &str) -> Result<(), Error> {
    match range.contains(&value) {
        true => Ok(()),
        false => Err(Error::option(option, value, message)),
    }
}

/// Refuses what the network cannot be told: texts and sizes that it has no use for, and numbers out of range.
pub(in crate::pipeline) fn check_conditions(model: &Model, options: &SampleOptions) -> Result<(), Error> {
    number(
        "guidance_scale",
        options.guidance_scale,
        -1e4..=1e4,
        "expected a number from -10000 to 10000, such as 7.5",
    )?;
    number("guidance_rescale", options.guidance_rescale, 0.0..=1.0, "expected a number from 0 to 1, such as 0.7")?;
    let refuse = |option, given, what| refuse(model, option, given, what);
    if !model.info.takes_prompt {
        let given = options.prompt.all().iter().any(|text| !text.is_empty());
        refuse("prompt", given, "prompt")?;
        let given = options.negative_prompt.iter().flat_map(|text| text.all()).any(|text| !text.is_empty());
        refuse("negative_prompt", given, "prompt")?;
        refuse("clip_skip", options.clip_skip.is_some(), "prompt")?;
    }
    if !model.info.takes_second_prompt {
        refuse("prompt_2", options.prompt_2.is_some(), "second prompt")?;
        refuse("negative_prompt_2", options.negative_prompt_2.is_some(), "second prompt")?;
        refuse("original_size", options.original_size.is_some(), "original size")?;
        refuse("target_size", options.target_size.is_some(), "target size")?;
        refuse("negative_original_size", options.negative_original_size.is_some(), "original size")?;
        refuse("negative_target_size", options.negative_target_size.is_some(), "target size")?;
        refuse("crops_coords_top_left", options.crops_coords_top_left != [0, 0], "crop")?;
        refuse("negative_crops_coords_top_left", options.negative_crops_coords_top_left != [0, 0], "crop")?;
    }
    if let Some(skip) = options.clip_skip {
        // What is never used is not left to skip.
        let spared = model.family.unused_layers;
        let layers = model.texts.iter().map(|(_, config)| config.num_hidden_layers).min().unwrap_or(0);
        let most = layers.saturating_sub(spared);
        if skip > most {
            return Err(Error::option(
                "clip_skip",
                skip,
                format!("this model's text encoder has {most} layers to skip"),
            ));
        }
    }
    Ok(())
}

/// Refuses `option` where it is given, because this model takes no such thing.
fn refuse(model: &Model, option: &'static str, given: bool, what: &str) -> Result<(), Error> {
    match given {
        true => Err(Error::option(option, "given", format!("a {} takes no {what}", model.info.class))),
        false => Ok(()),
    }
}

/// Refuses pictures and sizes that the model has no use for, and misses what it needs.
fn check_taken(model: &Model, options: &SampleOptions) -> Result<(), Error> {
    let strength = options.strength.unwrap_or(1.0);
    number("strength", strength, 0.0..=1.0, "expected a number from 0 to 1, such as 0.8")?;
    let refuse = |option, given, what: &str| refuse(model, option, given, what);
    if model.info.enlarges {
        refuse("strength", options.strength.is_some(), "strength")?;
        refuse("height", options.height.is_some(), "size: it enlarges `image`")?;
        refuse("width", options.width.is_some(), "size: it enlarges `image`")?;
    } else {
        refuse("noise_level", options.noise_level.is_some(), "noise level")?;
    }
    if let Some(start) = options.start_timestep {
        refuse("start_timestep", !model.info.takes_start_timestep, "timestep to begin at")?;
        let message = match (&options.image, options.strength) {
            (None, _) => "it says how noisy a picture is to begin with: give `image` too",
            (Some(_), Some(_)) => "`strength` says where to begin as well: give one of the two",
            (Some(_), None) => "",
        };
        if !message.is_empty() {
            return Err(Error::option("start_timestep", start, message));
        }
    }
    // Whoever takes no picture for image-to-image may take one for a timestep of it.
    let takes_image = match (model.info.takes_image, options.start_timestep) {
        (Takes::Never, Some(_)) => Takes::Optional,
        (takes, _) => takes,
    };
    for (option, what, takes, given) in [
        ("image", "picture", takes_image, options.image.is_some()),
        ("mask", "mask", model.info.takes_mask, options.mask.is_some()),
    ] {
        refuse(option, given && takes == Takes::Never, what)?;
        if !given && takes == Takes::Required {
            let message = match model.info.takes_mask {
                Takes::Required => "this model fills a part of a picture: give a picture and a mask",
                _ => "this model enlarges a picture: give one",
            };
            return Err(Error::option(option, "absent", message));
        }
    }
    if options.mask.is_some() && options.image.is_none() {
        return Err(Error::option("mask", "given", "it belongs to a picture: give `image` too"));
    }
    if options.strength.is_some() && options.image.is_none() {
        return Err(Error::option("strength", "given", "it is for image-to-image and inpainting: give `image` too"));
    }
    Ok(())
}

/// The number of pictures.
fn batch(options: &SampleOptions) -> Result<usize, Error> {
    let prompts = options.prompt.all().len();
    if prompts == 0 {
        return Err(Error::option("prompt", "a list of none", "give at least one prompt"));
    }
    let batch = prompts.saturating_mul(options.num_images_per_prompt);
    if !(1..=MAX_PICTURES).contains(&batch) {
        let message = format!("that makes {batch} pictures; a run draws 1 to {MAX_PICTURES}");
        return Err(Error::option("num_images_per_prompt", options.num_images_per_prompt, message));
    }
    let seeds = options.seeds.len();
    if seeds != 0 && seeds != batch {
        return Err(Error::option(
            "seeds",
            format!("a list of {seeds}"),
            format!("{batch} pictures need {batch} seeds"),
        ));
    }
    Ok(batch)
}

/// A side in pixels: `value`, or if absent the `default`.
pub(in crate::pipeline) fn side(
    info: &ModelInfo,
    option: &'static str,
    value: Option<usize>,
    default: usize,
) -> Result<usize, Error> {
    let (pixels, multiple) = (value.unwrap_or(default), info.scale_factor);
    if pixels == 0 || !pixels.is_multiple_of(multiple) || pixels > MAX_SIDE {
        return Err(Error::option(option, pixels, format!("expected a multiple of {multiple} up to {MAX_SIDE}")));
    }
    Ok(pixels)
}

/// The task, and `[height, width]` of its latents.
fn task(model: &Model, options: &SampleOptions) -> Result<(Task, [usize; 2]), Error> {
    let info = &model.info;
    let multiple = info.scale_factor;
    let side = |option, value, default| side(info, option, value, default);
    let sides =
        |height, width| Ok::<_, Error>([side("height", options.height, height)?, side("width", options.width, width)?]);
    let Some(image) = &options.image else {
        let [height, width] = sides(info.height, info.width)?;
        return Ok((Task::Generate, [height / multiple, width / multiple]));
    };
    // diffusers rounds the sides of a picture down.
    let rounded = [image.height, image.width].map(|side| side - side % multiple);
    let most = if info.enlarges { MAX_SIDE / multiple } else { MAX_SIDE };
    if rounded.iter().any(|side| !(1..=most).contains(side)) {
        let size = format!("{}×{}", image.width, image.height);
        return Err(Error::option("image", size, format!("expected sides from {multiple} to {most}")));
    }
    let rgb = Rgb::new("image", image)?;
    if let Some((_, furthest)) = &model.low_res {
        let noise_level = options.noise_level.unwrap_or(NOISE_LEVEL);
        if noise_level > *furthest {
            return Err(Error::option("noise_level", noise_level, format!("expected at most {furthest}")));
        }
        let [height, width] = rounded;
        return Ok((Task::Upscale { image: rgb.resized(width, height, Filter::Bicubic), noise_level }, rounded));
    }
    // Without an autoencoder, a picture that was not made for the model is larger than what it was trained at by far.
    let [height, width] = match &options.mask {
        None if model.vae.is_some() => sides(rounded[0], rounded[1])?,
        _ => sides(info.height, info.width)?,
    };
    let image = rgb.resized(width, height, Filter::Lanczos);
    let task = match &options.mask {
        Some(mask) => {
            let mask = Rgb::new("mask", mask)?.resized(width, height, Filter::Lanczos).to_mask();
            Task::Inpaint {
                image,
                mask,
                from_noise: options.start_timestep.is_none() && strength(model, options) == 1.0,
            }
        }
        None => Task::ImageToImage(image),
    };
    Ok((task, [height / multiple, width / multiple]))
}

/// The picture that a run from `image` begins with, and `[height, width]` of its latents.
pub(in crate::pipeline) fn picture(model: &Model, options: &SampleOptions) -> Result<(Rgb, [usize; 2]), Error> {
    match task(model, options)? {
        (Task::ImageToImage(image) | Task::Inpaint { image, .. } | Task::Upscale { image, .. }, size) => {
            Ok((image, size))
        }
        (Task::Generate, _) => Err(no_picture()),
    }
}

/// The picture itself, or at the size that is asked for.
pub(in crate::pipeline) fn pixels(options: &SampleOptions) -> Result<Rgb, Error> {
    let image = Rgb::new("image", options.image.as_ref().ok_or_else(no_picture)?)?;
    let side = |option, value: Option<usize>, default: usize| match value.unwrap_or(default) {
        pixels if (1..=MAX_SIDE).contains(&pixels) => Ok(pixels),
        pixels => Err(Error::option(option, pixels, format!("expected a number from 1 to {MAX_SIDE}"))),
    };
    let (width, height) = (side("width", options.width, image.width)?, side("height", options.height, image.height)?);
    Ok(image.resized(width, height, Filter::Lanczos))
}

fn no_picture() -> Error {
    Error::option("image", "absent", "give a picture")
}

/// The share of the schedule that a run from a picture walks.
fn strength(model: &Model, options: &SampleOptions) -> f64 {
    let Strength { image, inpaint } = model.family.strength;
    let usual = if options.mask.is_some() { inpaint } else { image };
    options.strength.unwrap_or(usual)
}

/// The solver and its settings.
pub(in crate::pipeline) fn scheduler(model: &Model, options: &SampleOptions) -> Result<SchedulerConfig, Error> {
    let of_checkpoint = if options.mask.is_some() { &model.inpaint_scheduler } else { &model.scheduler };
    let scheduler = match &options.scheduler {
        Scheduler::Checkpoint => of_checkpoint.clone(),
        Scheduler::Solver(solver) => of_checkpoint.swap_to(*solver)?,
        Scheduler::Config(config) => (**config).clone(),
    };
    Ok(scheduler.with_keys(&options.solver_keys)?)
}

/// The steps to make.
pub(in crate::pipeline) fn table(model: &Model, options: &SampleOptions, task: &Task) -> Result<Table, Error> {
    let scheduler = &scheduler(model, options)?;
    // A list of what to visit says how many steps there are.
    let steps = match (&options.timesteps, &options.sigmas) {
        (Some(timesteps), _) => timesteps.len(),
        (None, Some(sigmas)) => scheduler.solver().map_or(sigmas.len(), |solver| solver.steps_of_sigmas(sigmas)),
        (None, None) => options.steps,
    };
    let mut step_options = StepOptions {
        eta: options.eta,
        use_clipped_model_output: options.use_clipped_model_output,
        timesteps: options.timesteps.clone(),
        sigmas: options.sigmas.clone(),
        original_inference_steps: options.original_inference_steps,
        ..StepOptions::default()
    };
    if !matches!(task, Task::ImageToImage(_) | Task::Inpaint { .. }) {
        return Ok(scheduler.table(steps, &step_options)?);
    }
    // The pipeline that fills a part of a picture leaves steps out, like other families.
    let is_own = model.family.spreads_steps_of.is_some_and(|own| scheduler.solver() == Some(own));
    let spreads = is_own && matches!(task, Task::ImageToImage(_));
    if let Some(start) = options.start_timestep {
        match spreads && options.timesteps.is_none() {
            true => {
                let original = options.original_inference_steps;
                step_options.timesteps = Some(scheduler.distilled_timesteps(start, steps, original)?);
            }
            false => step_options.start_timestep = Some(start),
        }
        return Ok(scheduler.table(steps, &step_options)?);
    }
    let strength = strength(model, options);
    if spreads {
        step_options.strength = strength;
        return Ok(scheduler.table(steps, &step_options)?);
    }
    let order = scheduler.solver().map_or(1, Solver::order);
    // Of a list of timesteps diffusers counts every call of the network, but leaves out as many as if they were steps.
    let calls = steps.saturating_mul(order).saturating_sub(order - 1);
    let counted = if options.timesteps.is_some() { calls } else { steps };
    let left_out = counted - ((counted as f64 * strength) as usize).min(counted);
    step_options.begin_index = left_out.saturating_mul(order);
    if step_options.begin_index >= calls && steps > 0 {
        let message = format!("that leaves none of {steps} steps; give more of either");
        return Err(Error::option("strength", strength, message));
    }
    Ok(scheduler.table(steps, &step_options)?)
}
