//! Ancestral sampling: `DDPMScheduler`.
//!
//! Ho, Jain and Abbeel 2020, arXiv 2006.11239. The posterior of the forward process, with x̂_0 in place of x_0
//! (equations 6 and 7; s is the timestep of the run that follows t, and α = ᾱ_t/ᾱ_s, β = 1 − α between them):
//!
//! ```text
//! x_s = √ᾱ_s·β/(1−ᾱ_t) · x̂_0  +  √α·(1−ᾱ_s)/(1−ᾱ_t) · x_t  +  σ_t·z
//! ```
//!
//! with σ_t² = β̃ = (1−ᾱ_s)/(1−ᾱ_t)·β ("fixed_small"), σ_t² = β ("fixed_large"), or a variance that the network has learned
//! (Nichol and Dhariwal 2021, arXiv 2102.09672).

use super::{
    Clip, Error, Forward, LearnedVariance, Posterior, Step, Table, Terms, Variance, keys::Keys, spacing, table::Run,
};

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Config {
    variance_type: VarianceType,
    clip: Clip,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum VarianceType {
    FixedSmall,
    FixedLarge,
    FixedLargeLog,
    Learned,
    LearnedRange,
}

impl VarianceType {
    pub(super) fn read(keys: &Keys) -> Result<Self, Error> {
        let all = &[
            ("fixed_small", Self::FixedSmall),
            ("fixed_small_log", Self::FixedSmall),
            ("fixed_large", Self::FixedLarge),
            ("fixed_large_log", Self::FixedLargeLog),
            ("learned", Self::Learned),
            ("learned_range", Self::LearnedRange),
        ];
        keys.choice("variance_type", Self::FixedSmall, all)
    }

    /// The variance that is meant: the names that end on `_log` say how a sampler computes with it.
    pub(super) fn variance(self) -> Variance {
        match self {
            Self::FixedSmall => Variance::FixedSmall,
            Self::FixedLarge | Self::FixedLargeLog => Variance::FixedLarge,
            Self::Learned => Variance::Learned,
            Self::LearnedRange => Variance::LearnedRange,
        }
    }
}

impl Config {
    pub(super) fn read(keys: &Keys) -> Result<Self, Error> {
        Ok(Self { variance_type: VarianceType::read(keys)?, clip: read_clip(keys, true)? })
    }

    pub(super) fn table(&self, run: &Run) -> Result<Table, Error> {
        let mut timesteps = match run.custom_timesteps()? {
            Some(custom) => custom,
            None => spacing::whole_timesteps(run.common, run.num_inference_steps, run.first_looked_at()),
        };
        let begin = run.begin(&mut timesteps);
        let following = timesteps.clone();
        run.table(begin, timesteps, Vec::new(), 1.0, |i, t| {
            let alpha_bar = run.alpha_bar(t)?;
            let alpha_bar_prev = match following.get(i + 1) {
                Some(&s) if s >= 0.0 => run.alpha_bar(s)?,
                _ => 1.0,
            };
            // In f32 as the library has it: near t = 0 what is left of 1 − α is the rounding of α.
            let alpha = f64::from(alpha_bar as f32 / alpha_bar_prev as f32);
            let beta = 1.0 - alpha;
            let posterior = Posterior::new(alpha, alpha_bar_prev, alpha_bar);
            let posterior_variance = posterior.variance.max(1e-20);
            let forward = Forward::of_alpha_bar(alpha_bar);
            let (sigma, learned_variance) = match self.variance_type {
                VarianceType::FixedSmall => (posterior_variance.sqrt(), None),
                VarianceType::FixedLarge => (beta.max(1e-20).sqrt(), None),
                // The root of a negative number, in diffusers too.
                VarianceType::FixedLargeLog => (libm::log(beta).sqrt(), None),
                VarianceType::Learned => (1.0, Some(LearnedVariance::Learned)),
                VarianceType::LearnedRange => {
                    let (min_log, max_log) = (libm::log(posterior_variance), libm::log(beta));
                    (1.0, Some(LearnedVariance::LearnedRange { min_log, max_log }))
                }
            };
            let mean = Terms::X0 * posterior.x0 + Terms::SAMPLE * posterior.sample;
            let step =
                Step { x0: run.x0(forward, self.clip), clip: self.clip, prev_sample: mean, ..Step::at(t, forward) };
            Ok(match t > 0.0 {
                true => Step { prev_sample: mean + Terms::NOISE * sigma, draws_noise: true, learned_variance, ..step },
                false => step,
            })
        })
    }
}

/// `thresholding` and `clip_sample`, of which the former wins.
pub(super) fn read_clip(keys: &Keys, clips_by_default: bool) -> Result<Clip, Error> {
    let range = keys.clip_sample_range()?;
    match read_threshold(keys)? {
        Clip::None if keys.bool("clip_sample", clips_by_default)? => Ok(Clip::Range(range)),
        threshold => Ok(threshold),
    }
}

/// `thresholding` alone, for classes without `clip_sample`.
pub(super) fn read_threshold(keys: &Keys) -> Result<Clip, Error> {
    let ratio = keys.f64("dynamic_thresholding_ratio", 0.995)?;
    let max_value = keys.f64("sample_max_value", 1.0)?;
    if !(0.0..=1.0).contains(&ratio) {
        return Err(keys.unsupported("dynamic_thresholding_ratio", ratio, "numbers from 0 to 1"));
    }
    if max_value <= 0.0 || !max_value.is_finite() {
        return Err(keys.unsupported("sample_max_value", max_value, "finite numbers above 0"));
    }
    match keys.bool("thresholding", false)? {
        true => Ok(Clip::Threshold { ratio, max_value }),
        false => Ok(Clip::None),
    }
}
