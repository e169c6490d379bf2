//! Which timesteps and which σ a run visits.
//!
//! The grids are those of numpy and torch to the last bit, because timesteps are rounded to whole numbers: an error in
//! the last place can move a step.

use super::{
    Error,
    config::{Common, TimestepSpacing},
    keys::Keys,
};

/// `numpy.linspace(start, stop, n)`.
pub(super) fn linspace(start: f64, stop: f64, n: usize) -> Vec<f64> {
    let intervals = n.saturating_sub(1);
    let step = (stop - start) / intervals as f64;
    let mut values: Vec<f64> = (0..n).map(|i| if i == 0 { start } else { i as f64 * step + start }).collect();
    if let (Some(last), true) = (values.last_mut(), intervals > 0) {
        *last = stop;
    }
    values
}

/// `torch.linspace(start, end, n, dtype=torch.float32)`: counted from both ends towards the middle, each
/// multiply-add rounded once.
pub(super) fn linspace_f32(start: f32, end: f32, n: usize) -> Vec<f32> {
    let step = (end - start) / n.saturating_sub(1) as f32;
    (0..n)
        .map(|i| match i {
            0 => start,
            _ if i < n / 2 => libm::fmaf(step, i as f32, start),
            _ => libm::fmaf(-step, (n - 1 - i) as f32, end),
        })
        .collect()
}

/// `numpy.arange(start, 0, -step)`: for some steps the last value is a rounding error away from zero.
fn arange_down(start: f64, step: f64) -> Vec<f64> {
    let n = (start / step).ceil() as usize;
    let difference = (start - step) - start;
    (0..n).map(|i| start + i as f64 * difference).collect()
}

/// The timesteps of a run in classes that divide T by the number of steps: in those of σ-space, where they may be fractions, and
/// one past the end of the schedule has the last σ.
pub(super) fn timesteps(common: &Common, n: usize) -> Vec<f64> {
    timesteps_from_offset(common, n, common.steps_offset)
}

/// The timesteps of a run of DDPM, DDIM or PNDM, which divide T in the same way, round (half to even), and have no ᾱ past the end of
/// the schedule: of `steps_offset` they leave out what does not fit. With an offset of 1 these are all T steps, which then visit
/// T−1 … 0. What comes before the `first` of the timesteps need not fit.
pub(super) fn whole_timesteps(common: &Common, n: usize, first: usize) -> Vec<f64> {
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
pub(super) fn multistep_timesteps(common: &Common, n: usize, last: usize) -> Vec<f64> {
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

/// `numpy.interp(x, range(len(values)), values)`: linear between the whole numbers, constant outside.
pub(super) fn interpolate(x: f64, values: &[f32]) -> f64 {
    let at = |i: usize| values.get(i).copied().map_or(f64::NAN, f64::from);
    let last = values.len().saturating_sub(1);
    if x <= 0.0 {
        return at(0);
    }
    let low = x.floor();
    if low >= last as f64 {
        return at(last);
    }
    let low_index = low as usize;
    (at(low_index + 1) - at(low_index)) * (x - low) + at(low_index)
}

/// σ replaced by an even progression of something else.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct SigmaSpacing {
    progression: Progression,
    /// `sigma_min` and `sigma_max`, in place of the ends of the schedule.
    min: Option<f64>,
    max: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progression {
    /// `use_karras_sigmas`: even in σ^(1/7). Karras et al. 2022, arXiv 2206.00364, equation 5.
    Karras,
    /// `use_exponential_sigmas`: even in log σ.
    Exponential,
    /// `use_beta_sigmas`: quantiles of the Beta(0.6, 0.6) distribution. Lee et al. 2024, arXiv 2407.12173.
    Beta,
}

impl SigmaSpacing {
    /// `use_karras_sigmas` and its rivals, at most one of them.
    pub(super) fn read(keys: &Keys) -> Result<Option<Self>, Error> {
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

    pub(super) fn is_karras(self) -> bool {
        self.progression == Progression::Karras
    }

    /// `n` values of σ, from the schedule's `max` down to its `min`.
    pub(super) fn sigmas(self, max: f64, min: f64, n: usize) -> Vec<f64> {
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
            Progression::Beta => linspace(0.0, 1.0, n)
                .into_iter()
                .map(|ramp| min + beta_quantile(1.0 - ramp, 0.6) * (max - min))
                .collect(),
        }
    }
}

/// The inverse of [`interpolate`] over log σ: the fractional timestep at which training had this σ. All `sigmas` at
/// once, because the logarithms of the training schedule are shared.
pub(super) fn timesteps_of_sigmas(sigmas: &[f64], train_sigmas: &[f32]) -> Vec<f64> {
    let logs: Vec<f32> = train_sigmas.iter().map(|&sigma| log_f32(sigma)).collect();
    let timestep = |sigma: f64| {
        let log = libm::log(sigma.max(1e-10));
        // The last training timestep at or below this σ, as long as there is one above to interpolate to.
        let low = logs.iter().rposition(|&below| f64::from(below) <= log).unwrap_or(0);
        let low = low.min(logs.len().saturating_sub(2));
        let (Some(&below), Some(&above)) = (logs.get(low), logs.get(low + 1)) else { return 0.0 };
        let weight = ((f64::from(below) - log) / f64::from(below - above)).clamp(0.0, 1.0);
        (1.0 - weight) * low as f64 + weight * (low + 1) as f64
    };
    sigmas.iter().map(|&sigma| timestep(sigma)).collect()
}

/// As [`timesteps_of_sigmas`], from σ in f32 and in its arithmetic.
pub(super) fn timesteps_of_sigmas_f32(sigmas: &[f32], train_sigmas: &[f32]) -> Vec<f64> {
    let logs: Vec<f32> = train_sigmas.iter().map(|&sigma| log_f32(sigma)).collect();
    let timestep = |sigma: f32| {
        let log = log_f32(sigma.max(1e-10));
        let low = logs.iter().rposition(|&below| below <= log).unwrap_or(0).min(logs.len().saturating_sub(2));
        let (Some(&below), Some(&above)) = (logs.get(low), logs.get(low + 1)) else { return 0.0 };
        let weight = ((below - log) / (below - above)).clamp(0.0, 1.0);
        f64::from(1.0 - weight) * low as f64 + f64::from(weight) * (low + 1) as f64
    };
    sigmas.iter().map(|&sigma| timestep(sigma)).collect()
}

/// How rectified flow bends its even σ towards the noisy end: Esser et al. 2024, arXiv 2403.03206, section 5.3.2.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct FlowShift {
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
    /// `key` is what a class calls its static factor.
    pub(super) fn read(keys: &Keys, key: &'static str) -> Result<Self, Error> {
        let factor = keys.f64(key, 1.0)?;
        if !(factor > 0.0 && factor.is_finite()) {
            return Err(keys.unsupported(key, factor, "finite numbers above 0"));
        }
        let types = [("exponential", Dynamic::Exponential), ("linear", Dynamic::Linear)];
        let dynamic = keys.choice("time_shift_type", Dynamic::Exponential, &types)?;
        Ok(Self { factor, dynamic: keys.bool("use_dynamic_shifting", false)?.then_some(dynamic) })
    }

    /// The factor of a run, in classes that need μ for dynamic shifting and pass it over otherwise.
    pub(super) fn factor(self, mu: Option<f64>) -> Result<f64, Error> {
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

    /// Likewise in classes that shift dynamically only if μ is given, and then only exponentially.
    pub(super) fn exponential_factor(self, mu: Option<f64>) -> Result<f64, Error> {
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

/// σ bent by a factor.
pub(super) fn flow_shift(sigma: f64, factor: f64) -> f64 {
    factor * sigma / (1.0 + (factor - 1.0) * sigma)
}

/// σ stretched so that the last is `terminal` (`shift_terminal`; zero is none, in diffusers too).
pub(super) fn stretch_to_terminal(sigmas: &mut [f64], terminal: Option<f64>) {
    if let (Some(terminal), Some(&last)) = (terminal.filter(|&terminal| terminal != 0.0), sigmas.last()) {
        let scale = (1.0 - last) / (1.0 - terminal);
        sigmas.iter_mut().for_each(|sigma| *sigma = 1.0 - (1.0 - *sigma) / scale);
    }
}

/// `numpy.log` of an f32 array on x86: not the nearest number, but a rational approximation up to four units in the
/// last place off. It decides which fraction of a timestep belongs to a σ. Positive finite numbers only.
fn log_f32(x: f32) -> f32 {
    // log(1 + y) ≈ P(y)/Q(y), fitted on √½ ≤ 1 + y < √2; highest power first.
    const P: [f32; 6] = [2.589_979_2e-2, 3.808_837_8e-1, 1.480_000_6, 2.112_677_6, 1.0, 0.0];
    const Q: [f32; 6] = [5.875_095_4e-3, 1.546_476_4e-1, 9.864_943e-1, 2.453_006, 2.612_677_6, 1.0];
    let (mut mantissa, mut exponent) = libm::frexpf(x);
    if mantissa <= std::f32::consts::FRAC_1_SQRT_2 {
        mantissa *= 2.0;
        exponent -= 1;
    }
    let polynomial =
        |coefficients: [f32; 6]| coefficients.into_iter().fold(0.0, |sum, c| libm::fmaf(sum, mantissa - 1.0, c));
    libm::fmaf(exponent as f32, std::f32::consts::LN_2, polynomial(P) / polynomial(Q))
}

/// The x at which the regularised incomplete beta function I_x(a, a) reaches `p`.
fn beta_quantile(p: f64, a: f64) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    if p <= low || p >= high {
        return p.clamp(low, high);
    }
    // I is monotonic: halving the interval sixty times leaves nothing of it in f64.
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if regularised_incomplete_beta(middle, a) < p {
            low = middle;
        } else {
            high = middle;
        }
    }
    0.5 * (low + high)
}

/// I_x(a, a) by its continued fraction (Abramowitz and Stegun 26.5.8), evaluated from the front with Lentz's method.
fn regularised_incomplete_beta(x: f64, a: f64) -> f64 {
    if x > 0.5 {
        // The fraction converges quickly only on this side of the mean.
        return 1.0 - regularised_incomplete_beta(1.0 - x, a);
    }
    let log_beta = 2.0 * libm::lgamma(a) - libm::lgamma(2.0 * a);
    let front = libm::exp(a * (libm::log(x) + libm::log1p(-x)) - log_beta) / a;
    let (mut c, mut d) = (1.0, 1.0 / (1.0 - 2.0 * a * x / (a + 1.0)));
    let mut fraction = d;
    for m in 1..200 {
        let m = f64::from(m);
        for coefficient in [
            m * (a - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m)),
            -(a + m) * (2.0 * a + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0)),
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
