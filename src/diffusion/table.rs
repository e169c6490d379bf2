//! The reverse process as a table: what one step is, and its plain execution.

use std::{
    fmt,
    ops::{Add, Mul, Sub},
};

use serde::Serialize;

use super::{Error, Forward, NoiseSchedule, config::Common, spacing};

/// How many tensors of earlier steps a solver may keep.
pub const HISTORY: usize = 5;

/// A linear combination of what a step has at hand; each tensor has the sample's shape.
///
/// A `Terms` is a vector in that space: solvers add and scale them, and so spell their equations as in the papers.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Terms {
    /// The coefficient of x_t.
    pub sample: f64,
    /// The coefficient of the network's output, after guidance.
    pub model_output: f64,
    /// The coefficient of x̂_0, after clipping.
    pub x0: f64,
    /// The coefficient of this step's fresh noise z ~ N(0, 1).
    pub noise: f64,
    /// The coefficients of the history's slots, as they are before this step.
    pub history: [f64; HISTORY],
}

impl Terms {
    const ZERO: Self = Self { sample: 0.0, model_output: 0.0, x0: 0.0, noise: 0.0, history: [0.0; HISTORY] };
    /// x_t itself.
    pub const SAMPLE: Self = Self { sample: 1.0, ..Self::ZERO };
    /// The network's output itself.
    pub const MODEL_OUTPUT: Self = Self { model_output: 1.0, ..Self::ZERO };
    /// The clipped x̂_0 itself.
    pub const X0: Self = Self { x0: 1.0, ..Self::ZERO };
    /// The fresh noise itself.
    pub const NOISE: Self = Self { noise: 1.0, ..Self::ZERO };
    /// The history's slots themselves. As a step's `history`: nothing moves.
    pub const HISTORY: [Self; HISTORY] = {
        let mut slots = [Self::ZERO; HISTORY];
        let mut i = 0;
        while i < HISTORY {
            slots[i].history[i] = 1.0;
            i += 1;
        }
        slots
    };

    /// The history after `newest` has moved into slot 0 and those behind it one back, `kept` slots in all.
    pub(super) fn pushed(newest: Self, kept: usize) -> [Self; HISTORY] {
        std::array::from_fn(|slot| match slot {
            _ if slot >= kept => Self::HISTORY[slot],
            0 => newest,
            _ => Self::HISTORY[slot - 1],
        })
    }

    fn zip(self, other: Self, f: impl Fn(f64, f64) -> f64) -> Self {
        Self {
            sample: f(self.sample, other.sample),
            model_output: f(self.model_output, other.model_output),
            x0: f(self.x0, other.x0),
            noise: f(self.noise, other.noise),
            history: std::array::from_fn(|i| f(self.history[i], other.history[i])),
        }
    }

    fn is_finite(&self) -> bool {
        [self.sample, self.model_output, self.x0, self.noise].iter().chain(&self.history).all(|c| c.is_finite())
    }
}

impl Add for Terms {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }
}

impl Sub for Terms {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }
}

impl Mul<f64> for Terms {
    type Output = Self;

    fn mul(self, factor: f64) -> Self {
        self.zip(self, |a, _| a * factor)
    }
}

/// What happens to x̂_0 before it is used.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Clip {
    /// Nothing.
    None,
    /// Clamped to ± this (`clip_sample_range`).
    Range(f64),
    /// Dynamic thresholding (Saharia et al. 2022, arXiv 2205.11487): s is the `ratio` quantile of |x̂_0| over each
    /// image, at least 1 and at most `max_value`; x̂_0 is clamped to ± s and divided by s.
    Threshold {
        /// `dynamic_thresholding_ratio`.
        ratio: f64,
        /// `sample_max_value`. It wins where it is below 1.
        max_value: f64,
    },
}

/// How the second half of the network's channels becomes the standard deviation of a step's noise, where a model has
/// learned it (`variance_type`). v is that half, element by element.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LearnedVariance {
    /// v is the variance itself: √v.
    Learned,
    /// v lies between −1 and 1 and interpolates between two logarithms of the variance: exp(½·(f·max + (1−f)·min)),
    /// f = (v+1)/2. Nichol and Dhariwal 2021, arXiv 2102.09672, equation 15.
    LearnedRange {
        /// log β̃_t, the posterior's variance.
        min_log: f64,
        /// log β_t.
        max_log: f64,
    },
}

impl LearnedVariance {
    /// The standard deviation.
    pub fn std(self, v: f64) -> f64 {
        match self {
            Self::Learned => v.sqrt(),
            Self::LearnedRange { min_log, max_log } => {
                let fraction = (v + 1.0) / 2.0;
                libm::exp(0.5 * (fraction * max_log + (1.0 - fraction) * min_log))
            }
        }
    }
}

/// One call of the network and the update that follows it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Step {
    /// What the network is told; a fraction in some solvers.
    pub timestep: f64,
    /// The network's input is `input_scale`·x_t (`scale_model_input`).
    pub input_scale: f64,
    /// x̂_0 = `x0.0`·x_t + `x0.1`·output, then [`clip`](Self::clip): the network's idea of the final sample.
    ///
    /// Where Euler churns, the noise that it adds belongs to x̂_0 too; this leaves it out. x_{t−1} does not.
    pub x0: (f64, f64),
    /// What happens to x̂_0 before it is used.
    pub clip: Clip,
    /// x_{t−1}.
    pub prev_sample: Terms,
    /// What each slot of the history holds after this step.
    pub history: [Terms; HISTORY],
    /// Whether the step consumes one `randn` of the sample's shape from the random stream. It may do so only to
    /// multiply it with zero.
    pub draws_noise: bool,
    /// What the noise is multiplied with, element by element, before [`prev_sample`](Self::prev_sample) takes its share:
    /// from the second half of the network's channels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learned_variance: Option<LearnedVariance>,
    /// The forward process at this step (`add_noise`): x_t = `forward.0`·x_0 + `forward.1`·ε, in the scale that this solver
    /// holds x_t in (see [`Forward`]). Image-to-image starts from it, and inpainting returns to it.
    pub forward: (f64, f64),
}

/// What [`Step::apply`] computes.
#[derive(Debug, Clone, PartialEq)]
pub struct Applied {
    /// x_{t−1}.
    pub prev_sample: Vec<f32>,
    /// x̂_0 after clipping.
    pub x0: Vec<f32>,
}

impl Step {
    /// A step that changes nothing, to be completed: the network is told `timestep`, and x_t is
    /// `forward.signal`·x_0 + `forward.noise`·ε there.
    pub(super) fn at(timestep: f64, forward: Forward) -> Self {
        Self {
            timestep,
            input_scale: 1.0,
            x0: (1.0, 0.0),
            clip: Clip::None,
            prev_sample: Terms::SAMPLE,
            history: Terms::HISTORY,
            draws_noise: false,
            learned_variance: None,
            forward: (forward.signal, forward.noise),
        }
    }

    /// The update, spelled out in f64 over plain slices: what every faster executor is tested against.
    ///
    /// All tensors are `[batch, channels, height, width]`; `model_output` is the network's output after guidance, and
    /// may have twice the channels, of which the second half is read only for a
    /// [learned variance](Self::learned_variance). `noise` is read if the step [draws noise](Self::draws_noise).
    /// `history` starts as zeros and is updated in place. `image_len` is channels · height · width.
    ///
    /// # Errors
    /// Refuses tensors of different lengths, and a length that is not a whole number of images.
    pub fn apply(
        &self,
        sample: &[f32],
        model_output: &[f32],
        noise: Option<&[f32]>,
        history: &mut [Vec<f32>; HISTORY],
        image_len: usize,
    ) -> Result<Applied, Error> {
        let len = sample.len();
        let check = |name, found: usize, expected: usize| match found == expected {
            true => Ok(()),
            false => Err(Error::Length { name, found, expected }),
        };
        check("image_len", image_len.max(1) * (len / image_len.max(1)), len)?;
        let doubled = model_output.len() == 2 * len && len > 0;
        let learned_variance = self.learned_variance.filter(|_| self.draws_noise);
        if !doubled {
            check("model_output", model_output.len(), if learned_variance.is_some() { 2 * len } else { len })?;
        }
        // The index of an element's output; `half` 1 is that of its v.
        let at = |i: usize, half: usize| match doubled {
            true => (2 * (i / image_len) + half) * image_len + i % image_len,
            false => i,
        };
        let noise = match (self.draws_noise, noise) {
            (false, _) => None,
            (true, None) => return Err(Error::Length { name: "noise", found: 0, expected: len }),
            (true, Some(noise)) => check("noise", noise.len(), len).map(|()| Some(noise))?,
        };
        for slot in history.iter() {
            check("history", slot.len(), len)?;
        }

        let mut x0: Vec<f64> = sample
            .iter()
            .enumerate()
            .map(|(i, &x)| self.x0.0 * f64::from(x) + self.x0.1 * f64::from(model_output[at(i, 0)]))
            .collect();
        x0.chunks_mut(image_len.max(1)).for_each(|image| self.clip.apply(image));

        let mut prev_sample = Vec::with_capacity(len);
        for (i, (&x, &x0)) in sample.iter().zip(&x0).enumerate() {
            let output = model_output[at(i, 0)];
            let std = learned_variance.map_or(1.0, |learned| learned.std(f64::from(model_output[at(i, 1)])));
            let z = std * noise.map_or(0.0, |noise| f64::from(noise[i]));
            let slots: [f64; HISTORY] = std::array::from_fn(|slot| f64::from(history[slot][i]));
            let combine = |terms: &Terms| {
                let now = terms.sample * f64::from(x)
                    + terms.model_output * f64::from(output)
                    + terms.x0 * x0
                    + terms.noise * z;
                slots.iter().zip(terms.history).fold(now, |sum, (slot, coefficient)| sum + coefficient * slot)
            };
            prev_sample.push(combine(&self.prev_sample) as f32);
            for (slot, terms) in history.iter_mut().zip(&self.history) {
                slot[i] = combine(terms) as f32;
            }
        }
        Ok(Applied { prev_sample, x0: x0.into_iter().map(|x| x as f32).collect() })
    }

    fn is_finite(&self) -> bool {
        [self.timestep, self.input_scale, self.x0.0, self.x0.1, self.forward.0, self.forward.1]
            .iter()
            .all(|value| value.is_finite())
            && self.prev_sample.is_finite()
            && self.history.iter().all(Terms::is_finite)
            && match self.learned_variance {
                Some(LearnedVariance::LearnedRange { min_log, max_log }) => min_log.is_finite() && max_log.is_finite(),
                Some(LearnedVariance::Learned) | None => true,
            }
    }
}

impl Clip {
    /// Clips one image in place.
    fn apply(self, image: &mut [f64]) {
        match self {
            Self::None => {}
            Self::Range(range) => image.iter_mut().for_each(|x| *x = x.clamp(-range, range)),
            Self::Threshold { ratio, max_value } => {
                let s = quantile_of_magnitude(image, ratio).max(1.0).min(max_value);
                image.iter_mut().for_each(|x| *x = x.clamp(-s, s) / s);
            }
        }
    }
}

/// `torch.quantile(|x|, q)`: between two values, linear.
fn quantile_of_magnitude(values: &[f64], q: f64) -> f64 {
    let mut magnitudes: Vec<f64> = values.iter().map(|x| x.abs()).collect();
    magnitudes.sort_unstable_by(f64::total_cmp);
    let rank = q * magnitudes.len().saturating_sub(1) as f64;
    let at = |i: f64| magnitudes.get(i as usize).copied().unwrap_or(0.0);
    let (low, high) = (at(rank.floor()), at(rank.ceil()));
    low + (high - low) * rank.fract()
}

/// The reverse process from x_T (or, with a `begin_index`, from a later x_t) to x_0.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Table {
    /// What to do, in order.
    pub steps: Vec<Step>,
    /// How many calls of the network make one of the steps that a user counts: 1, or 2 in Heun's method and
    /// DPM-Solver-2. Image-to-image begins at step n − ⌊n·strength⌋ times this.
    pub order: usize,
    /// x_T = `init_noise_sigma`·z, z ~ N(0, 1). Image-to-image uses the first step's [`forward`](Step::forward) instead.
    pub init_noise_sigma: f64,
    /// The timestep of every call of the network, those before `begin_index` included.
    pub timesteps: Vec<f64>,
    /// diffusers' `sigmas`: one for each timestep, and where the last step arrives (DPM-Solver-2 repeats that). Empty in
    /// classes that have none.
    pub sigmas: Vec<f64>,
}

impl Table {
    /// Refuses a table with any number in it that is not finite, be it of a step that is left out.
    pub(super) fn check_finite(&self, class: &str) -> Result<(), Error> {
        let refuse = |index, timestep| Err(Error::NotFinite { class: class.to_owned(), index, timestep });
        let sigmas = self.sigmas.iter().zip(&self.timesteps).enumerate();
        if let Some((index, (_, &timestep))) = sigmas.into_iter().find(|(_, (sigma, _))| !sigma.is_finite()) {
            return refuse(index, timestep);
        }
        match self.steps.iter().enumerate().find(|(_, step)| !step.is_finite()) {
            None => Ok(()),
            Some((index, step)) => refuse(index + self.timesteps.len() - self.steps.len(), step.timestep),
        }
    }
}

/// One line for each step: the network's timestep, the levels of signal and noise in x_t, the network's input scale,
/// x̂_0, and the combination that is x_{t−1}. Zero coefficients are left out.
impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "init_noise_sigma {:.6}", self.init_noise_sigma)?;
        writeln!(
            f,
            "{:>4}  {:>9}  {:>11}  {:>11}  {:>11}  {:<38}  x_{{t-1}}",
            "step", "timestep", "signal", "noise", "input_scale", "x0"
        )?;
        for (index, step) in self.steps.iter().enumerate() {
            let x0 = Terms { sample: step.x0.0, model_output: step.x0.1, ..Terms::ZERO };
            let clip = match step.clip {
                Clip::None => String::new(),
                Clip::Range(range) => format!(" in ±{range}"),
                Clip::Threshold { ratio, max_value } => format!(" threshold {ratio} ≤{max_value}"),
            };
            let learned = if step.learned_variance.is_some() { " (z times the learned deviation)" } else { "" };
            writeln!(
                f,
                "{index:>4}  {:>9.3}  {:>11.6}  {:>11.6}  {:>11.6}  {:<38}  {}{learned}",
                step.timestep,
                step.forward.0,
                step.forward.1,
                step.input_scale,
                format!("{x0}{clip}"),
                step.prev_sample,
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Terms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = [(self.sample, "x_t"), (self.model_output, "out"), (self.x0, "x0"), (self.noise, "z")];
        let mut separator = "";
        for (coefficient, name) in named.into_iter().filter(|&(coefficient, _)| coefficient != 0.0) {
            write!(f, "{separator}{coefficient:+.6}·{name}")?;
            separator = " ";
        }
        for (slot, coefficient) in self.history.iter().enumerate().filter(|&(_, &coefficient)| coefficient != 0.0) {
            write!(f, "{separator}{coefficient:+.6}·h{slot}")?;
            separator = " ";
        }
        if separator.is_empty() { f.write_str("0") } else { Ok(()) }
    }
}

/// How to walk the schedule: the arguments of diffusers' `set_timesteps` and `step`.
///
/// What another class's `step` takes (`eta`, `lms_order`, the `s_` options) is not looked at; what its `set_timesteps`
/// takes is refused.
#[derive(Debug, Clone, PartialEq)]
pub struct StepOptions {
    /// DDIM: the share of DDPM's noise that each step adds, from 0 (none) to 1. TCD: how far back to jump and add noise
    /// again, its paper's γ.
    pub eta: f64,
    /// DDIM: derive ε̂ again from the clipped x̂_0.
    pub use_clipped_model_output: bool,
    /// Where to start, in calls of the network: image-to-image enters the schedule late. Solvers that look back begin
    /// anew here.
    pub begin_index: usize,
    /// Where to start, as a timestep of training: at this one, whether or not the run would visit it, and then at those below it
    /// that it would. Where it would, this is the [`begin_index`](Self::begin_index) of that timestep, where a solver repeats it the
    /// last. Where it would not, the step from here to the next timestep is one like the others, for PNDM a plain step of DDIM.
    pub start_timestep: Option<usize>,
    /// Timesteps to visit in place of a spacing, descending (DDPM, Euler, Heun, both DPM-Solver++, LCM, TCD, flow).
    pub timesteps: Option<Vec<f64>>,
    /// σ to visit in place of a spacing, descending: Euler takes them with the final one; UniPC with `use_flow_sigmas` and
    /// flow take them without it, and shift them.
    pub sigmas: Option<Vec<f64>>,
    /// With `use_dynamic_shifting`, how far to shift the schedule towards its noisy end.
    pub mu: Option<f64>,
    /// LCM, TCD: the number of steps that the model was distilled on, in place of the config's.
    pub original_inference_steps: Option<usize>,
    /// LCM, TCD: the share of the distilled schedule to use, from its clean end. Image-to-image in other classes sets
    /// [`begin_index`](Self::begin_index).
    pub strength: f64,
    /// LMS: how many derivatives to fit, `step`'s `order`.
    pub lms_order: usize,
    /// Euler: how much noise to add before each step, in all (Karras et al. 2022, algorithm 2).
    pub s_churn: f64,
    /// Euler: the smallest σ at which to churn.
    pub s_tmin: f64,
    /// Euler: the largest σ at which to churn.
    pub s_tmax: f64,
    /// Euler: the scale of the noise that churning adds.
    pub s_noise: f64,
}

impl Default for StepOptions {
    fn default() -> Self {
        Self {
            eta: 0.0,
            use_clipped_model_output: false,
            begin_index: 0,
            start_timestep: None,
            timesteps: None,
            sigmas: None,
            mu: None,
            original_inference_steps: None,
            strength: 1.0,
            lms_order: 4,
            s_churn: 0.0,
            s_tmin: 0.0,
            s_tmax: f64::INFINITY,
            s_noise: 1.0,
        }
    }
}

impl StepOptions {
    /// The options of `set_timesteps` that are given, and that not every class takes.
    pub(super) fn given(&self) -> impl Iterator<Item = &'static str> {
        [
            ("timesteps", self.timesteps.is_some()),
            ("sigmas", self.sigmas.is_some()),
            ("mu", self.mu.is_some()),
            ("original_inference_steps", self.original_inference_steps.is_some()),
            ("strength", self.strength != 1.0),
        ]
        .into_iter()
        .filter_map(|(option, given)| given.then_some(option))
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        let refuse =
            |option, value: String, expected: &str| Err(Error::Option { option, value, expected: expected.to_owned() });
        for (option, value) in [("eta", self.eta), ("strength", self.strength)] {
            if !(0.0..=1.0).contains(&value) {
                return refuse(option, value.to_string(), "give a number from 0 to 1");
            }
        }
        for (option, value) in
            [("s_churn", self.s_churn), ("s_tmin", self.s_tmin), ("s_tmax", self.s_tmax), ("s_noise", self.s_noise)]
        {
            // Only s_tmax may be infinite, and is by default.
            if value.is_nan() || value < 0.0 || (value.is_infinite() && option != "s_tmax") {
                return refuse(option, value.to_string(), "give a number that is not negative");
            }
        }
        if let Some(start) = self.start_timestep
            && (self.begin_index != 0 || self.strength != 1.0)
        {
            return refuse("start_timestep", start.to_string(), "give one of begin_index, strength and start_timestep");
        }
        if !(1..=HISTORY).contains(&self.lms_order) {
            return refuse("lms_order", self.lms_order.to_string(), "give a number from 1 to 5");
        }
        if let Some(mu) = self.mu.filter(|mu| !mu.is_finite()) {
            return refuse("mu", mu.to_string(), "give a finite number");
        }
        if let Some(timesteps) = &self.timesteps {
            if self.sigmas.is_some() {
                return refuse("sigmas", "given".into(), "give timesteps or sigmas, not both");
            }
            if timesteps.windows(2).any(|pair| pair[0] <= pair[1]) {
                return refuse("timesteps", format!("{timesteps:?}"), "they must descend");
            }
        }
        if let Some(sigmas) = &self.sigmas
            && (sigmas.iter().any(|sigma| !(0.0..f64::INFINITY).contains(sigma))
                || sigmas.windows(2).any(|pair| pair[0] < pair[1]))
        {
            return refuse("sigmas", format!("{sigmas:?}"), "they must descend to zero or above");
        }
        Ok(())
    }
}

/// Where a run begins in its list of timesteps.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Begin {
    /// The index, in calls of the network.
    pub(super) index: usize,
    /// Whether the run would not have visited the timestep: what was before it is unknown, and levels before it mean nothing.
    pub(super) is_between: bool,
    /// How many more timesteps the list has become: one where it begins above all that it would visit.
    pub(super) added: usize,
}

/// All that a solver needs to make its table.
pub(super) struct Run<'a> {
    pub(super) class: &'a str,
    pub(super) order: usize,
    pub(super) common: &'a Common,
    pub(super) noise_schedule: &'a NoiseSchedule,
    pub(super) num_inference_steps: usize,
    pub(super) options: &'a StepOptions,
}

impl Run<'_> {
    /// Refuses an option that was given to a class that does not take it.
    pub(super) fn refuse(&self, option: &'static str, given: bool) -> Result<(), Error> {
        match given {
            false => Ok(()),
            true => Err(Error::Option {
                option,
                value: "given".into(),
                expected: format!("{} does not take it in this configuration", self.class),
            }),
        }
    }

    /// The timesteps that a user gives, in classes of the training schedule's whole timesteps.
    pub(super) fn custom_timesteps(&self) -> Result<Option<Vec<f64>>, Error> {
        let Some(timesteps) = &self.options.timesteps else { return Ok(None) };
        let range = 0.0..self.common.num_train_timesteps as f64;
        match timesteps.iter().find(|&t| !range.contains(t) || t.fract() != 0.0) {
            None => Ok(Some(timesteps.clone())),
            Some(t) => Err(Error::Option {
                option: "timesteps",
                value: t.to_string(),
                expected: format!("give whole numbers below num_train_timesteps = {}", self.common.num_train_timesteps),
            }),
        }
    }

    /// ᾱ at a timestep of the run, which an offset may have pushed past the end of the schedule.
    pub(super) fn alpha_bar(&self, timestep: f64) -> Result<f64, Error> {
        self.noise_schedule.alpha_bar_of_run(timestep as i64).ok_or_else(|| Error::Option {
            option: "steps",
            value: self.num_inference_steps.to_string(),
            expected: format!(
                "they begin at timestep {timestep}, behind the schedule's last, {}, since the scheduler's \"steps_offset\" is {}; take \
                 fewer steps or another scheduler",
                self.common.num_train_timesteps - 1,
                self.common.steps_offset
            ),
        })
    }

    /// x_t at a timestep of the run from x_0.
    pub(super) fn forward(&self, timestep: f64) -> Result<Forward, Error> {
        self.alpha_bar(timestep).map(Forward::of_alpha_bar)
    }

    /// Finds where the run begins in the `timesteps` that it would visit, and puts a `start_timestep` there that it would not:
    /// in the place of the one before it, so that those after it keep their indices.
    pub(super) fn begin(&self, timesteps: &mut Vec<f64>) -> Begin {
        self.begin_at(timesteps, None)
    }

    /// [`begin`](Self::begin) in classes that hold a σ for each of `timesteps`, as f32, and perhaps a final one. Two timesteps are
    /// the same where their σ are: timesteps that were looked up from σ may be rounded.
    pub(super) fn begin_with_sigmas(&self, timesteps: &mut Vec<f64>, sigmas: &mut Vec<f64>, is_flow: bool) -> Begin {
        let sigma = self.options.start_timestep.map_or(f64::NAN, |t| match is_flow {
            true => flow_sigma(t, self.common),
            false => sigma(t, self.noise_schedule),
        });
        self.begin_at(timesteps, Some((sigmas, sigma)))
    }

    fn begin_at(&self, timesteps: &mut Vec<f64>, mut sigmas: Option<(&mut Vec<f64>, f64)>) -> Begin {
        let Some(start) = self.options.start_timestep else {
            return Begin { index: self.options.begin_index, ..Begin::default() };
        };
        let start = start as f64;
        let is_visited = match &sigmas {
            Some((sigmas, sigma)) => sigmas.iter().take(timesteps.len()).rposition(|visited| visited == sigma),
            None => timesteps.iter().rposition(|&visited| visited == start),
        };
        if let Some(index) = is_visited {
            return Begin { index: index * self.order, ..Begin::default() };
        }
        let below = timesteps.iter().position(|&visited| visited < start).unwrap_or(timesteps.len());
        let added = usize::from(below == 0);
        let at = (below + added) - 1;
        let put = |values: &mut Vec<f64>, value: f64| match values.get_mut(at) {
            Some(above) if added == 0 => *above = value,
            _ => values.insert(at, value),
        };
        put(timesteps, start);
        if let Some((sigmas, sigma)) = &mut sigmas {
            put(sigmas, *sigma);
        }
        Begin { index: at * self.order, is_between: true, added }
    }

    /// Assembles the table from `begin` on. `step` makes the step with this index.
    pub(super) fn table(
        &self,
        begin: Begin,
        timesteps: Vec<f64>,
        sigmas: Vec<f64>,
        init_noise_sigma: f64,
        mut step: impl FnMut(usize, f64) -> Result<Step, Error>,
    ) -> Result<Table, Error> {
        self.assemble(begin, timesteps, sigmas, init_noise_sigma, &mut step)
    }

    /// [`table`](Self::table) compiled once, for any solver's `step`.
    fn assemble(
        &self,
        begin: Begin,
        timesteps: Vec<f64>,
        sigmas: Vec<f64>,
        init_noise_sigma: f64,
        step: &mut dyn FnMut(usize, f64) -> Result<Step, Error>,
    ) -> Result<Table, Error> {
        let begin = begin.index;
        if begin >= timesteps.len() {
            return Err(Error::Option {
                option: "begin_index",
                value: begin.to_string(),
                expected: format!("the schedule has {} steps", timesteps.len()),
            });
        }
        let steps = timesteps.iter().enumerate().skip(begin).map(|(i, &t)| step(i, t)).collect::<Result<_, _>>()?;
        Ok(Table { steps, order: self.order, init_noise_sigma, timesteps, sigmas })
    }
}

/// σ at a timestep of training as a run holds it.
pub(super) fn sigma(timestep: usize, schedule: &NoiseSchedule) -> f64 {
    f64::from(spacing::interpolate(timestep as f64, &schedule.sigmas()) as f32)
}

/// Likewise in rectified flow, where it is t/T.
pub(super) fn flow_sigma(timestep: usize, common: &Common) -> f64 {
    f64::from(timestep as f32 / common.num_train_timesteps as f32)
}
