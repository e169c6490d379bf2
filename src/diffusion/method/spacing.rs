//! The timesteps and the σ that a run visits.

use super::common::{Common, TimestepSpacing};
use crate::diffusion::{
    error::Error,
    keys::Keys,
    schedule::grid::{arange_down, linspace},
};

/// The timesteps and σ that a run visits.
pub struct Visited {
    /// The timesteps.
    pub timesteps: Vec<f64>,
    /// σ at each of them, and, if the solver says so, where the last step arrives.
    pub sigmas: Vec<f64>,
}

/// The timesteps of a run in classes of σ-space that divide T by the number of steps. They may be fractions, and one past the end
/// of the schedule has the last σ.
pub fn timesteps(common: &Common, n: usize) -> Vec<f64> {
    timesteps_from_offset(common, n, common.steps_offset)
}

/// The timesteps of a run in classes that visit whole timesteps: T divided by the number of steps, rounded half to even.
///
/// These classes have no ᾱ past the end of the schedule. If `steps_offset` does not fit, as much of it applies as does: with an
/// offset of 1 a run of T steps visits T−1 … 0. Timesteps before the `first` need not fit.
pub fn whole_timesteps(common: &Common, n: usize, first: usize) -> Vec<f64> {
    let highest = n.saturating_sub(first + 1) * (common.num_train_timesteps / n);
    let room = (common.num_train_timesteps - 1).saturating_sub(highest);
    let timesteps = timesteps_from_offset(common, n, common.steps_offset.min(room as i64));
    timesteps.into_iter().map(f64::round_ties_even).collect()
}

fn timesteps_from_offset(common: &Common, n: usize, offset: i64) -> Vec<f64> {
    let train = common.num_train_timesteps;
    match common.timestep_spacing {
        TimestepSpacing::Linspace => linspace(0.0, (train - 1) as f64, n).into_iter().rev().collect(),
        TimestepSpacing::Leading => {
            let ratio = train / n;
            (0..n).rev().map(|i| (i * ratio) as f64 + offset as f64).collect()
        }
        TimestepSpacing::Trailing => trailing(train, train as f64 / n as f64),
    }
}

/// The timesteps of a run in the multistep classes, which divide the first `last` timesteps into one interval more and
/// leave out the end.
pub fn multistep_timesteps(common: &Common, n: usize, last: usize) -> Vec<f64> {
    match common.timestep_spacing {
        TimestepSpacing::Linspace => {
            let grid = linspace(0.0, last as f64 - 1.0, n + 1);
            grid.into_iter().skip(1).rev().map(f64::round_ties_even).collect()
        }
        TimestepSpacing::Leading => {
            let ratio = last / (n + 1);
            (1..=n).rev().map(|i| (i * ratio) as f64 + common.steps_offset as f64).collect()
        }
        TimestepSpacing::Trailing => trailing(last, common.num_train_timesteps as f64 / n as f64),
    }
}

fn trailing(last: usize, ratio: f64) -> Vec<f64> {
    arange_down(last as f64, ratio).into_iter().map(|t| t.round_ties_even() - 1.0).collect()
}

/// The spacing of σ that a config asks for in place of that of the timesteps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SigmaSpacing {
    progression: Progression,
    /// `sigma_min` and `sigma_max`, in place of the ends of the schedule.
    min: Option<f64>,
    max: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progression {
    /// `use_karras_sigmas`: even in σ^(1/7). Karras et al. 2022, arXiv 2206.00364, equation 5.
    Karras,
    /// `use_exponential_sigmas`: even in log σ.
    Exponential,
    /// `use_beta_sigmas`: quantiles of the Beta(0.6, 0.6) distribution. Lee et al. 2024, arXiv 2407.12173.
    Beta,
}

impl SigmaSpacing {
    /// Reads `use_karras_sigmas` and its rivals, at most one of which may be set.
    pub fn read(keys: &Keys) -> Result<Option<Self>, Error> {
        let (min, max) = (keys.positive("sigma_min")?, keys.positive("sigma_max")?);
        let mut chosen = None;
        for (key, progression) in [
            ("use_karras_sigmas", Progression::Karras),
            ("use_exponential_sigmas", Progression::Exponential),
            ("use_beta_sigmas", Progression::Beta),
        ] {
            if keys.bool(key, false)? && chosen.replace(Self { progression, min, max }).is_some() {
                return Err(keys.unsupported(key, true, "only one use_*_sigmas at a time"));
            }
        }
        Ok(chosen)
    }

    /// True for `use_karras_sigmas`.
    pub fn is_karras(self) -> bool {
        self.progression == Progression::Karras
    }

    /// `n` values of σ, from the schedule's `max` down to its `min`.
    pub fn sigmas(self, max: f64, min: f64, n: usize) -> Vec<f64> {
        let (max, min) = (self.max.unwrap_or(max), self.min.unwrap_or(min));
        match self.progression {
            Progression::Karras => {
                const RHO: f64 = 7.0;
                let (max, min) = (libm::pow(max, 1.0 / RHO), libm::pow(min, 1.0 / RHO));
                linspace(0.0, 1.0, n).into_iter().map(|ramp| libm::pow(max + ramp * (min - max), RHO)).collect()
            }
            Progression::Exponential => {
                linspace(libm::log(max), libm::log(min), n).into_iter().map(libm::exp).collect()
            }
            Progression::Beta => {
                linspace(0.0, 1.0, n).into_iter().map(|ramp| min + beta_quantile(1.0 - ramp) * (max - min)).collect()
            }
        }
    }
}

/// The factor by which rectified flow bends its even σ towards the noisy end: Esser et al. 2024, arXiv 2403.03206, section 5.3.2.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FlowShift {
    factor: f64,
    dynamic: Option<Dynamic>,
}

/// `use_dynamic_shifting`: by a μ that the caller derives from the picture's size (`time_shift_type`).
#[derive(Debug, Clone, Copy, PartialEq)]
enum Dynamic {
    /// The factor is e^μ.
    Exponential,
    /// The factor is μ.
    Linear,
}

impl FlowShift {
    /// Reads the keys of a shift, of which `key` is what a class calls its static factor.
    pub fn read(keys: &Keys, key: &'static str) -> Result<Self, Error> {
        let factor = keys.f64(key, 1.0)?;
        if !(factor > 0.0 && factor.is_finite()) {
            return Err(keys.unsupported(key, factor, "finite numbers above 0"));
        }
        let types = [("exponential", Dynamic::Exponential), ("linear", Dynamic::Linear)];
        let dynamic = keys.choice("time_shift_type", Dynamic::Exponential, &types)?;
        Ok(Self { factor, dynamic: keys.bool("use_dynamic_shifting", false)?.then_some(dynamic) })
    }

    /// The factor of a run, in classes that need μ for dynamic shifting and pass it over otherwise.
    pub fn factor(self, mu: Option<f64>) -> Result<f64, Error> {
        match (self.dynamic, mu) {
            (None, _) => Ok(self.factor),
            (Some(Dynamic::Exponential), Some(mu)) => Ok(libm::exp(mu)),
            (Some(Dynamic::Linear), Some(mu)) => Ok(mu),
            (Some(_), None) => Err(Error::Option {
                option: "mu",
                value: "not given".to_owned(),
                expected: "use_dynamic_shifting needs it".to_owned(),
            }),
        }
    }

    /// The factor of a run, in classes that shift dynamically only if μ is given, and then only exponentially.
    pub fn exponential_factor(self, mu: Option<f64>) -> Result<f64, Error> {
        match (self.dynamic, mu) {
            (_, None) => Ok(self.factor),
            (Some(Dynamic::Exponential), Some(mu)) => Ok(libm::exp(mu)),
            (_, Some(mu)) => Err(Error::Option {
                option: "mu",
                value: mu.to_string(),
                expected: "it needs use_dynamic_shifting and a time_shift_type of \"exponential\"".to_owned(),
            }),
        }
    }
}

/// σ of rectified flow, bent towards the noisy end by a factor.
pub fn flow_shift(sigma: f64, factor: f64) -> f64 {
    factor * sigma / (1.0 + (factor - 1.0) * sigma)
}

/// Stretches σ so that the last is `terminal` (`shift_terminal`). If that is zero, nothing happens, in diffusers too.
pub fn stretch_to_terminal(sigmas: &mut [f64], terminal: Option<f64>) {
    if let (Some(terminal), Some(&last)) = (terminal.filter(|&terminal| terminal != 0.0), sigmas.last()) {
        let scale = (1.0 - last) / (1.0 - terminal);
        sigmas.iter_mut().for_each(|sigma| *sigma = 1.0 - (1.0 - *sigma) / scale);
    }
}

/// The parameter of the Beta distribution, both of them.
const A: f64 = 0.6;

/// ln B(A, A) = 2 ln Γ(A) − ln Γ(2A).
const LOG_BETA: f64 = 0.881_841_806_141_785_8;

/// The x at which the regularised incomplete beta function I_x(A, A) reaches `p`.
fn beta_quantile(p: f64) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    if p <= low || p >= high {
        return p.clamp(low, high);
    }
    // I is monotonic: halving the interval sixty times leaves nothing of it in f64.
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if regularised_incomplete_beta(middle) < p {
            low = middle;
        } else {
            high = middle;
        }
    }
    0.5 * (low + high)
}

/// I_x(A, A) by its continued fraction (Abramowitz and Stegun 26.5.8), evaluated from the front with Lentz's method.
fn regularised_incomplete_beta(x: f64) -> f64 {
    if x > 0.5 {
        // The fraction converges quickly only on this side of the mean.
        return 1.0 - regularised_incomplete_beta(1.0 - x);
    }
    let front = libm::exp(A * (libm::log(x) + libm::log1p(-x)) - LOG_BETA) / A;
    let (mut c, mut d) = (1.0, 1.0 / (1.0 - 2.0 * A * x / (A + 1.0)));
    let mut fraction = d;
    for m in 1..200 {
        let m = f64::from(m);
        for coefficient in [
            m * (A - m) * x / ((A + 2.0 * m - 1.0) * (A + 2.0 * m)),
            -(A + m) * (2.0 * A + m) * x / ((A + 2.0 * m) * (A + 2.0 * m + 1.0)),
        ] {
            d = 1.0 / (1.0 + coefficient * d);
            c = 1.0 + coefficient / c;
            fraction *= c * d;
        }
        if (c * d - 1.0).abs() < 1e-15 {
            break;
        }
    }
    front * fraction
}
