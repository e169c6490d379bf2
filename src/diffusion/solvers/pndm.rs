//! `PNDMScheduler`.
//!
//! Liu, Ren, Lin and Zhao 2022, arXiv 2202.09778. Steps of a linear multistep or Runge-Kutta method in ε̂, each taken along
//! the curve of DDIM instead of a straight line (equations 9 and 11; s is where the step arrives):
//!
//! ```text
//! φ(x, ε) = √(ᾱ_s/ᾱ_t)·x − (ᾱ_s − ᾱ_t)/(ᾱ_t·√(1−ᾱ_s) + √(ᾱ_t·(1−ᾱ_t)·ᾱ_s))·ε
//! ε = (55·ε_0 − 59·ε_1 + 37·ε_2 − 9·ε_3)/24                                  (PLMS, four predictions back)
//! ε = (ε_a + 2·ε_b + 2·ε_c + ε_d)/6                                          (PRK, four calls of the network)
//! ```
//!
//! The first three steps have too few predictions for PLMS: they are PRK steps, or, with `skip_prk_steps`, shorter
//! formulas, of which the first is Heun's method and repeats the second timestep.

use std::sync::Arc;

use crate::diffusion::{
    error::Error,
    keys::Keys,
    method::{
        common::{
            BETA_SCHEDULES, BetaRange, BetaSchedule, ChainKeys, EPSILON, TerminalSnr, TimestepSpacing, V_PREDICTION,
        },
        run::{Begin, Run},
        scale::Scale,
        spacing::whole_timesteps,
        spec::{Method, MostSteps, OtherName, Spec},
    },
    schedule::{noising::Noising, prediction::PredictionType},
    table::{step::Step, terms::Terms, whole::Table},
};

/// The history's slots behind the three predictions: the sample that a step of several calls began from, and the
/// weighted sum of its predictions so far.
const BEGAN: usize = 3;
const SUM: usize = 4;

/// The number of timesteps that PRK visits.
const PRK_VISITS: usize = 4;

struct Config {
    skip_prk_steps: bool,
    set_alpha_to_one: bool,
}

impl Config {
    fn read(keys: &Keys) -> Result<Self, Error> {
        Ok(Self {
            skip_prk_steps: keys.bool("skip_prk_steps", false)?,
            set_alpha_to_one: keys.bool("set_alpha_to_one", false)?,
        })
    }

    /// The timesteps of the PRK steps, and those of all calls of the network, for a run over the timesteps `visited`. If these are
    /// too few for PRK, it is left out.
    fn calls(&self, visited: &[f64], stride: usize) -> (Vec<f64>, Vec<f64>) {
        let skips = self.skip_prk_steps || visited.len() < PRK_VISITS;
        let warm_up: Vec<f64> = match skips {
            true => Vec::new(),
            false => visited
                .windows(2)
                .take(3)
                .flat_map(|pair| {
                    let middle = pair[1] + (stride / 2) as f64;
                    [pair[0], middle, middle, pair[1]]
                })
                .collect(),
        };
        let calls = match skips {
            // The second timestep twice.
            true => visited.iter().take(2).chain(visited.iter().skip(1)).copied().collect(),
            false => warm_up.iter().chain(visited.iter().skip(3)).copied().collect(),
        };
        (warm_up, calls)
    }

    /// φ from one timestep to another.
    fn transfer(&self, run: &Run, x: Terms, prediction: Terms, from: f64, to: f64) -> Result<Terms, Error> {
        let alpha_bar = run.alpha_bar(from)?;
        let alpha_bar_prev = match to >= 0.0 {
            true => run.alpha_bar(to)?,
            false if self.set_alpha_to_one => 1.0,
            false => run.alpha_bar(0.0)?,
        };
        let (beta_bar, beta_bar_prev) = (1.0 - alpha_bar, 1.0 - alpha_bar_prev);
        let epsilon = match run.common.prediction_type {
            PredictionType::VPrediction => prediction * alpha_bar.sqrt() + x * beta_bar.sqrt(),
            _ => prediction,
        };
        let denominator = alpha_bar * beta_bar_prev.sqrt() + (alpha_bar * beta_bar * alpha_bar_prev).sqrt();
        Ok(x * (alpha_bar_prev / alpha_bar).sqrt() - epsilon * ((alpha_bar_prev - alpha_bar) / denominator))
    }
}

impl Method for Config {
    fn scale(&self) -> Scale {
        Scale::VariancePreserving
    }

    fn table(&self, run: &Run) -> Result<Table, Error> {
        let stride = run.common.num_train_timesteps / run.num_inference_steps;
        // PRK looks at the first timestep wherever it begins, and the second call of a run at the timestep before.
        let first = if self.skip_prk_steps { run.first_looked_at().saturating_sub(1) } else { 0 };
        let visited = whole_timesteps(run.common, run.num_inference_steps, first);
        let start = run.options.start_timestep.map(|start| start as f64);
        let between = start.filter(|start| !visited.contains(start));
        let (warm_up, timesteps, begin) = match between {
            // A step of DDIM to the next timestep, from which the rest is a run like any other.
            Some(start) => {
                let visited: Vec<f64> = visited.into_iter().filter(|&t| t < start).collect();
                let (warm_up, mut calls) = self.calls(&visited, stride);
                calls.insert(0, start);
                (warm_up, calls, Begin::default())
            }
            None => {
                let (warm_up, calls) = self.calls(&visited, stride);
                let index = match start.and_then(|start| visited.iter().position(|&t| t == start)) {
                    // PRK calls the network four times for each of the first three timesteps.
                    Some(position) if !self.skip_prk_steps => position + 3 * position.min(3),
                    Some(position) => position + usize::from(position > 0),
                    None => run.options.begin_index,
                };
                (warm_up, calls, Begin { index, ..Begin::default() })
            }
        };
        // Counted from where the run begins: image-to-image warms up too.
        let first_call = begin.index + usize::from(between.is_some());
        let second = timesteps.get(1).copied();
        let stride = stride as f64;
        let half_stride = (stride / 2.0).floor();

        let [e1, e2, e3, began, sum] = Terms::HISTORY;
        let output = Terms::MODEL_OUTPUT;
        let mut predictions = 0;
        run.table(begin, timesteps, Vec::new(), 1.0, |i, t| {
            let forward = run.forward(t)?;
            let Noising { signal, noise } = forward;
            let mut step = Step { x0: run.common.prediction_type.x0(signal, noise), ..Step::at(t, forward) };
            let Some(call) = i.checked_sub(first_call) else {
                step.prev_sample = self.transfer(run, Terms::SAMPLE, output, t, second.unwrap_or(-1.0))?;
                return Ok(step);
            };
            if let Some(&from) = warm_up.get(call / 4 * 4).filter(|_| call < warm_up.len()) {
                let to = if call.is_multiple_of(2) { t - half_stride } else { t };
                let (x, epsilon) = match call % 4 {
                    0 => {
                        step.history = Terms::pushed(output, BEGAN);
                        step.history[BEGAN] = Terms::SAMPLE;
                        step.history[SUM] = output * (1.0 / 6.0);
                        predictions += 1;
                        (Terms::SAMPLE, output)
                    }
                    1 | 2 => {
                        step.history[SUM] = sum + output * (1.0 / 3.0);
                        (began, output)
                    }
                    _ => (began, sum + output * (1.0 / 6.0)),
                };
                step.prev_sample = self.transfer(run, x, epsilon, from, to)?;
                return Ok(step);
            }
            if call == 1 {
                // Once more from where the first step began, with the mean of the predictions at its ends.
                step.prev_sample = self.transfer(run, began, (e1 + output) * 0.5, t + stride, t)?;
                return Ok(step);
            }
            let epsilon = match predictions {
                0 => output,
                1 => (output * 3.0 - e1) * (1.0 / 2.0),
                2 => (output * 23.0 - e1 * 16.0 + e2 * 5.0) * (1.0 / 12.0),
                _ => (output * 55.0 - e1 * 59.0 + e2 * 37.0 - e3 * 9.0) * (1.0 / 24.0),
            };
            predictions += 1;
            step.prev_sample = self.transfer(run, Terms::SAMPLE, epsilon, t, t - stride)?;
            step.history = Terms::pushed(output, BEGAN);
            step.history[BEGAN] = Terms::SAMPLE;
            Ok(step)
        })
    }

    fn least_steps(&self) -> usize {
        if self.skip_prk_steps { 1 } else { PRK_VISITS }
    }
}

/// The solver of diffusers' `PNDMScheduler`.
pub const SPEC: Spec = Spec {
    name: "pndm",
    class: "PNDMScheduler",
    other_names: &[OtherName::of("plms")],
    calls_per_step: 1,
    most_steps: MostSteps::TrainTimesteps,
    chain: Some(ChainKeys {
        beta_schedules: BETA_SCHEDULES,
        default_beta_schedule: BetaSchedule::Linear,
        default_beta_range: BetaRange::OF_DDPM,
        prediction_types: &[EPSILON, V_PREDICTION],
        default_timestep_spacing: Some(TimestepSpacing::Leading),
        rescales_to: TerminalSnr::AsTrained,
    }),
    cuts_offset: true,
    reads_learned_variance: false,
    options: &[],
    is_given_final_sigma: false,
    settings: &[],
    read: |keys, _| Ok(Arc::new(Config::read(keys)?)),
};
