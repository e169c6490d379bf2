//! `FlowMatchEulerDiscreteScheduler`.
//!
//! Rectified flow: Liu, Gong and Liu 2022, arXiv 2209.03003, as Esser et al. 2024, arXiv 2403.03206, use it. x = (1−σ)·x_0 + σ·ε,
//! the network predicts the velocity v = ε − x_0, and a step follows dx/dσ = v in a straight line:
//!
//! ```text
//! x_next = x + (σ_next − σ)·v
//! x_next = (1−σ_next)·x̂_0 + σ_next·z,      x̂_0 = x − σ·v                         ("stochastic_sampling")
//! ```

use std::sync::Arc;

use crate::diffusion::{
    error::Error,
    keys::Keys,
    method::{
        options::StepOption,
        run::Run,
        scale::Scale,
        spacing::{self, FlowShift, SigmaSpacing, Visited},
        spec::{Method, MostSteps, Setting, Spec},
    },
    schedule::{
        grid::{linspace, round_to_f32},
        noising::Noising,
        prediction::Reading,
    },
    table::{step::Step, terms::Terms, whole::Table},
};

struct Config {
    shift: FlowShift,
    /// The shift of the training schedule, by whose ends a run is spaced: none where shifting is dynamic.
    train_shift: f64,
    shift_terminal: Option<f64>,
    sigma_spacing: Option<SigmaSpacing>,
    invert_sigmas: bool,
    stochastic_sampling: bool,
}

impl Config {
    fn read(keys: &Keys) -> Result<Self, Error> {
        let is_dynamic = keys.bool("use_dynamic_shifting", false)?;
        Ok(Self {
            shift: FlowShift::read(keys, "shift")?,
            train_shift: if is_dynamic { 1.0 } else { keys.f64("shift", 1.0)? },
            shift_terminal: keys.optional_f64("shift_terminal")?,
            sigma_spacing: SigmaSpacing::read(keys)?,
            invert_sigmas: keys.bool("invert_sigmas", false)?,
            stochastic_sampling: keys.bool("stochastic_sampling", false)?,
        })
    }

    /// The timesteps, and σ for each of them with the final one; f32 in diffusers, and some of the way there.
    fn visited(&self, run: &Run) -> Result<Visited, Error> {
        let n = run.num_inference_steps;
        let train = run.common.num_train_timesteps as f64;
        let factor = self.shift.factor(run.options.mu)?;
        let given = match (&run.options.sigmas, &run.options.timesteps) {
            (Some(sigmas), _) => Some(sigmas.clone()),
            (None, Some(timesteps)) => Some(timesteps.iter().map(|&t| f64::from(t as f32 / train as f32)).collect()),
            (None, None) => None,
        };
        let mut sigmas: Vec<f64> = match given {
            Some(given) => given.into_iter().map(|sigma| f64::from(flow_shift_f32(sigma as f32, factor))).collect(),
            None => {
                // The shift counts twice: the ends are those of the shifted training schedule.
                let end = |t: f32| f64::from(flow_shift_f32(t / train as f32, self.train_shift)) * train;
                let timesteps = linspace(end(train as f32), end(1.0), n);
                timesteps.into_iter().map(|t| spacing::flow_shift(t / train, factor)).collect()
            }
        };
        spacing::stretch_to_terminal(&mut sigmas, self.shift_terminal);
        if let (Some(spacing), Some(&first), Some(&last)) = (self.sigma_spacing, sigmas.first(), sigmas.last()) {
            sigmas = spacing.sigmas(first, last, n);
        }
        let mut sigmas = round_to_f32(sigmas);
        let timesteps_of = |sigmas: &[f64]| sigmas.iter().map(|&s| f64::from(s as f32 * train as f32)).collect();
        let mut timesteps: Vec<f64> = match &run.options.timesteps {
            Some(given) => round_to_f32(given.clone()),
            None => timesteps_of(&sigmas),
        };
        if self.invert_sigmas {
            sigmas.iter_mut().for_each(|sigma| *sigma = f64::from(1.0 - *sigma as f32));
            timesteps = timesteps_of(&sigmas);
        }
        sigmas.push(if self.invert_sigmas { 1.0 } else { 0.0 });
        Ok(Visited { timesteps, sigmas })
    }
}

impl Method for Config {
    fn scale(&self) -> Scale {
        Scale::RectifiedFlow
    }

    fn table(&self, run: &Run) -> Result<Table, Error> {
        if let Some(start) = run.options.start_timestep.filter(|_| self.invert_sigmas) {
            return Err(Error::Option {
                option: "start_timestep",
                value: start.to_string(),
                expected:
                    "with invert_sigmas a run goes from the picture to noise; it cannot begin with a noisy picture"
                        .to_owned(),
            });
        }
        let Visited { mut timesteps, mut sigmas } = self.visited(run)?;
        let begin = run.begin_with_sigmas(&mut timesteps, &mut sigmas, true);
        let levels = sigmas.clone();
        run.table(begin, timesteps, sigmas, 1.0, |i, timestep| {
            let (sigma, sigma_next) = (levels[i], levels[i + 1]);
            let (x, v) = (Terms::SAMPLE, Terms::MODEL_OUTPUT);
            Ok(Step {
                x0: Reading::new(1.0, -sigma),
                prev_sample: match self.stochastic_sampling {
                    true => (x - v * sigma) * (1.0 - sigma_next) + Terms::NOISE * sigma_next,
                    false => x + v * (sigma_next - sigma),
                },
                draws_noise: self.stochastic_sampling,
                ..Step::at(timestep, Noising::of_flow_sigma(sigma))
            })
        })
    }
}

fn flow_shift_f32(sigma: f32, factor: f64) -> f32 {
    factor as f32 * sigma / (1.0 + (factor - 1.0) as f32 * sigma)
}

/// The solver of diffusers' `FlowMatchEulerDiscreteScheduler`.
pub const SPEC: Spec = Spec {
    name: "flow_euler",
    class: "FlowMatchEulerDiscreteScheduler",
    other_names: &[],
    calls_per_step: 1,
    most_steps: MostSteps::Guard,
    chain: None,
    cuts_offset: false,
    reads_learned_variance: false,
    options: &[StepOption::Timesteps, StepOption::Sigmas, StepOption::Mu],
    is_given_final_sigma: false,
    settings: &[Setting::SigmaSpacing],
    read: |keys, _| Ok(Arc::new(Config::read(keys)?)),
};
