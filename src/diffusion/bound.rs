//! The variational bound: how many bits per dimension a model needs at most to say what x_0 is.
//!
//! Ho, Jain and Abbeel 2020, arXiv 2006.11239, equation 5, divided by the number of dimensions and by ln 2:
//!
//! ```text
//! L = L_T + Σ_{t=1}^{T−1} L_t + L_0
//!
//! L_T = KL( q(x_T|x_0) ‖ N(0, I) )                     nothing in it is learned
//! L_t = KL( q(x_{t−1}|x_t, x_0) ‖ p_θ(x_{t−1}|x_t) )   the paper's L_{t−1}
//! L_0 = −log p_θ(x_0|x_1)                              the decoder
//! ```
//!
//! Timesteps count from 0 as in diffusers: x_t of t = 0 … T−1 is the paper's x_{t+1}, and what lies before t = 0 is the data.
//! L_t is the term that calls the network at t, so that t = 0 is the decoder's. A term's x_t is drawn from q(x_t|x_0) =
//! N(√ᾱ_t·x_0, (1−ᾱ_t)·I) (equation 4). Both sides of L_t are Gaussians. The posterior of the forward process is (equations 6 and
//! 7, with ᾱ_{−1} = 1)
//!
//! ```text
//! q(x_{t−1}|x_t, x_0) = N( μ̃_t(x_t, x_0), β̃_t·I )
//! μ̃_t(x_t, x_0) = √ᾱ_{t−1}·β_t/(1−ᾱ_t) · x_0 + √α_t·(1−ᾱ_{t−1})/(1−ᾱ_t) · x_t
//! β̃_t = (1−ᾱ_{t−1})/(1−ᾱ_t)·β_t
//! ```
//!
//! and the model's step is N(μ̃_t(x_t, x̂_0), σ_t²): the same mean with the network's x̂_0 in place of x_0 (equation 11), and one of
//! the variances of [`Variance`]. At t = 0, β̃ would be 0; as in the code of the papers, β̃_1 stands in its place.

use std::f64::consts::{LN_2, PI, SQRT_2};

use super::error::Error;
use super::schedule::noising::{Noising, Posterior};
use super::schedule::prediction::PredictionType;
use super::schedule::variance::Variance;

/// Φ, the cumulative distribution function of N(0, 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Cdf {
    /// ½·erfc(−z/√2).
    #[default]
    Exact,
    /// ½·(1 + tanh(√(2/π)·(z + 0.044715·z³))), which the code of Ho et al. and of Nichol and Dhariwal has in its place; figures
    /// in papers are mostly by this one. L_0 comes out some hundredths of a bit larger where σ_0 is small.
    Tanh,
}

impl Cdf {
    fn at(self, z: f64) -> f64 {
        match self {
            Self::Exact => 0.5 * libm::erfc(-z / SQRT_2),
            Self::Tanh => 0.5 * (1.0 + libm::tanh((2.0 / PI).sqrt() * (z + 0.044715 * z * z * z))),
        }
    }

    /// The probability of `from`..`to`; in the upper tail by that of its reflection, where less cancels.
    fn between(self, from: f64, to: f64) -> f64 {
        if from > 0.0 { self.at(-from) - self.at(-to) } else { self.at(to) - self.at(from) }
    }
}

/// The distribution of the data in the last step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoder {
    /// The data are pixels of 8 bits, scaled to −1..1: p_θ(x_0|x_1) is the probability of the bin of half-width 1/255 around the
    /// pixel, of which the first and the last are open (Ho et al. 2020, equation 13).
    Discretised(Cdf),
    /// The data are real numbers, such as latents: p_θ(x_0|x_1) is a density, and L_0 and the bound may be negative.
    Density,
}

/// The least probability of a bin, as in the code of both papers.
const LEAST_PROBABILITY: f64 = 1e-12;

/// The bound of one model: its schedule, and how its network's output becomes a Gaussian. All in f64.
#[derive(Clone, Debug, PartialEq)]
pub struct VariationalBound {
    /// β_t.
    betas: Vec<f64>,
    /// ᾱ_t.
    alphas_cumprod: Vec<f64>,
    prediction: PredictionType,
    variance: Variance,
    clip: Option<f64>,
}

impl VariationalBound {
    /// The bound under the schedule `betas`, β_t for t = 0 … T−1, of a network with this `prediction`; x̂_0 is clamped to ± `clip`
    /// before the mean is formed.
    ///
    /// # Errors
    /// Without a β_t, if one is not above 0 and at most 1, if `clip` is below 0 or no number, or if the network predicts the velocity
    /// of rectified flow, which is no such chain.
    pub fn new(
        betas: Vec<f64>,
        prediction: PredictionType,
        variance: Variance,
        clip: Option<f64>,
    ) -> Result<Self, Error> {
        if prediction == PredictionType::FlowPrediction {
            return Err(Error::Bound(
                "a model of rectified flow has no β_t, and no variational bound of this kind".into(),
            ));
        }
        let wrong = betas.iter().position(|beta| !(*beta > 0.0 && *beta <= 1.0));
        if wrong.is_some() || betas.is_empty() {
            let found = wrong.map_or("there is none".into(), |t| format!("at timestep {t} it is {}", betas[t]));
            return Err(Error::Bound(format!("β_t must be above 0 and at most 1; {found}")));
        }
        if let Some(clip) = clip.filter(|clip| clip.is_nan() || *clip < 0.0) {
            return Err(Error::Bound(format!("x̂_0 cannot be clamped to ± {clip}; give a number of 0 or more")));
        }
        let mut product = 1.0;
        let product = |beta: &f64| {
            product *= 1.0 - beta;
            product
        };
        let alphas_cumprod = betas.iter().map(product).collect();
        Ok(Self { betas, alphas_cumprod, prediction, variance, clip })
    }

    /// T, the number of timesteps.
    pub fn timesteps(&self) -> usize {
        self.betas.len()
    }

    /// σ_t², the variance of the model's step.
    pub fn variance(&self) -> Variance {
        self.variance
    }

    /// x_t = √ᾱ_t·x_0 + √(1−ᾱ_t)·ε of `x0` and the `noise` ε.
    ///
    /// # Errors
    /// A timestep past the last, or lengths that differ.
    pub fn noised(&self, timestep: usize, x0: &[f64], noise: &[f32]) -> Result<Vec<f64>, Error> {
        let Noising { signal, noise: level } = Noising::of_alpha_bar(self.alpha_bar(timestep)?);
        length("noise", noise.len(), x0.len())?;
        Ok(x0.iter().zip(noise).map(|(&x, &z)| signal * x + level * f64::from(z)).collect())
    }

    /// L_T of `x0` in bits per dimension: KL(N(√ᾱ_T·x_0, (1−ᾱ_T)·I) ‖ N(0, I)).
    pub fn prior(&self, x0: &[f64]) -> f64 {
        let alpha_bar = self.alphas_cumprod.last().copied().unwrap_or(1.0);
        let (signal, variance) = (alpha_bar.sqrt(), 1.0 - alpha_bar);
        bits_per_dim(x0.iter().map(|x| kl(signal * x, variance, 0.0, 1.0)), x0.len())
    }

    /// The term of `timestep` in bits per dimension, for one sample: `x0`, `x_t` of it, and the network's `output` there, of twice
    /// as many values where the variance is learned. L_0 is by `decoder`.
    ///
    /// # Errors
    /// A timestep past the last, lengths that differ, or a timestep at which there is no such term: no signal is left of which ε
    /// could be told apart.
    pub fn term(
        &self,
        timestep: usize,
        x0: &[f64],
        x_t: &[f64],
        output: &[f64],
        decoder: Decoder,
    ) -> Result<f64, Error> {
        let posterior = self.posterior(timestep)?;
        let means = self.mean(timestep, x_t, output)?;
        length("x_t", x_t.len(), x0.len())?;
        let variances = output.get(x0.len()..).unwrap_or_default();
        let values = (0..x0.len()).map(|i| {
            let variance = self.model_variance(timestep, posterior, variances.get(i).copied().unwrap_or_default());
            match (timestep, decoder) {
                (0, Decoder::Discretised(cdf)) => -log_bin(cdf, x0[i], means[i], variance),
                (0, Decoder::Density) => -log_density(x0[i], means[i], variance),
                _ => kl(posterior.x0 * x0[i] + posterior.sample * x_t[i], posterior.variance, means[i], variance),
            }
        });
        Ok(bits_per_dim(values, x0.len()))
    }

    /// μ_θ(x_t, t), the mean of the model's step: μ̃_t(x_t, x̂_0).
    ///
    /// # Errors
    /// As [`term`](Self::term).
    pub fn mean(&self, timestep: usize, x_t: &[f64], output: &[f64]) -> Result<Vec<f64>, Error> {
        let posterior = self.posterior(timestep)?;
        length("model_output", output.len(), if self.variance.is_learned() { 2 * x_t.len() } else { x_t.len() })?;
        let Noising { signal, noise } = Noising::of_alpha_bar(self.alpha_bar(timestep)?);
        let predicted = self.prediction.x0(signal, noise);
        if !predicted.sample.is_finite() {
            let message = "nothing of x_0 is left there, so that ε says nothing about it, and the term has no value";
            return Err(Error::Bound(format!("timestep {timestep}: {message}")));
        }
        let clip = self.clip.unwrap_or(f64::INFINITY);
        let mean = |(&x_t, &output): (&f64, &f64)| {
            let x0 = (predicted.sample * x_t + predicted.output * output).clamp(-clip, clip);
            posterior.x0 * x0 + posterior.sample * x_t
        };
        Ok(x_t.iter().zip(output).map(mean).collect())
    }

    /// μ̃_t(x_t, x_0), the mean of the forward process's posterior.
    ///
    /// # Errors
    /// A timestep past the last, or lengths that differ.
    pub fn posterior_mean(&self, timestep: usize, x0: &[f64], x_t: &[f64]) -> Result<Vec<f64>, Error> {
        let posterior = self.posterior(timestep)?;
        length("x_t", x_t.len(), x0.len())?;
        Ok(x0.iter().zip(x_t).map(|(x0, x_t)| posterior.x0 * x0 + posterior.sample * x_t).collect())
    }

    /// σ_t² for the number `v` in the network's second half of channels.
    fn model_variance(&self, timestep: usize, posterior: Posterior, v: f64) -> f64 {
        let beta = self.betas[timestep];
        match self.variance {
            Variance::FixedSmall => posterior.variance,
            Variance::FixedLarge if timestep == 0 => posterior.variance,
            Variance::FixedLarge => beta,
            Variance::Learned => v,
            Variance::LearnedRange => {
                let fraction = (v + 1.0) / 2.0;
                libm::exp(fraction * libm::log(beta) + (1.0 - fraction) * libm::log(posterior.variance))
            }
        }
    }

    fn alpha_bar(&self, timestep: usize) -> Result<f64, Error> {
        let last = self.timesteps() - 1;
        let past = || Error::Bound(format!("there is no timestep {timestep}; the last is {last}"));
        self.alphas_cumprod.get(timestep).copied().ok_or_else(past)
    }

    /// q(x_{t−1}|x_t, x_0), of which β̃_0 is that of t = 1.
    fn posterior(&self, timestep: usize) -> Result<Posterior, Error> {
        let (alpha_bar, beta) = (self.alpha_bar(timestep)?, self.betas[timestep]);
        let before = match timestep {
            0 => 1.0,
            _ => self.alphas_cumprod[timestep - 1],
        };
        let posterior = Posterior::new(1.0 - beta, before, alpha_bar);
        Ok(match timestep {
            // A chain of one step has no other variance than its own.
            0 if self.timesteps() == 1 => Posterior { variance: beta, ..posterior },
            0 => Posterior { variance: self.posterior(1)?.variance, ..posterior },
            _ => posterior,
        })
    }
}

/// KL(N(m1, v1) ‖ N(m2, v2)) in nats.
fn kl(m1: f64, v1: f64, m2: f64, v2: f64) -> f64 {
    0.5 * (libm::log(v2 / v1) + (v1 + (m1 - m2) * (m1 - m2)) / v2 - 1.0)
}

/// log of the probability that N(mean, variance) gives the pixel `x`.
fn log_bin(cdf: Cdf, x: f64, mean: f64, variance: f64) -> f64 {
    let std = variance.sqrt();
    let (from, to) = ((x - mean - 1.0 / 255.0) / std, (x - mean + 1.0 / 255.0) / std);
    let probability = match x {
        _ if x < -0.999 => cdf.at(to),
        _ if x > 0.999 => cdf.at(-from),
        _ => cdf.between(from, to),
    };
    libm::log(probability.max(LEAST_PROBABILITY))
}

/// log of the density of N(mean, variance) at `x`.
fn log_density(x: f64, mean: f64, variance: f64) -> f64 {
    -0.5 * (libm::log(2.0 * PI * variance) + (x - mean) * (x - mean) / variance)
}

/// The mean of `values` over as many `dimensions`, nats as bits.
fn bits_per_dim(values: impl Iterator<Item = f64>, dimensions: usize) -> f64 {
    values.sum::<f64>() / (dimensions.max(1) as f64 * LN_2)
}

fn length(name: &'static str, found: usize, expected: usize) -> Result<(), Error> {
    if found == expected { Ok(()) } else { Err(Error::Length { name, found, expected }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: usize = 30;
    const PIXELS: Decoder = Decoder::Discretised(Cdf::Exact);

    fn betas() -> Vec<f64> {
        (0..T).map(|t| 0.001 + 0.01 * t as f64).collect()
    }

    fn bound(prediction: PredictionType, variance: Variance) -> VariationalBound {
        VariationalBound::new(betas(), prediction, variance, None).unwrap()
    }

    /// A picture of 8-bit pixels, noise, and a network's idea of the picture.
    fn sample() -> (Vec<f64>, Vec<f32>, Vec<f64>) {
        let x0: Vec<f64> = (0..24).map(|i| f64::from(i * 73 % 256) / 127.5 - 1.0).collect();
        let noise = (0..24).map(|i| libm::sinf(3.7 * i as f32) * 1.4).collect();
        let guess = x0.iter().enumerate().map(|(i, x)| x + 0.1 * libm::sin(i as f64)).collect();
        (x0, noise, guess)
    }

    /// The output that the network would have given, had it this idea of x_0.
    fn output(prediction: PredictionType, alpha_bar: f64, x_t: &[f64], guess: &[f64]) -> Vec<f64> {
        let (signal, level) = (alpha_bar.sqrt(), (1.0 - alpha_bar).sqrt());
        let of = |(x_t, x0): (&f64, &f64)| {
            let epsilon = (x_t - signal * x0) / level;
            match prediction {
                PredictionType::Epsilon => epsilon,
                PredictionType::VPrediction => signal * epsilon - level * x0,
                _ => *x0,
            }
        };
        x_t.iter().zip(guess).map(of).collect()
    }

    #[track_caller]
    fn close(found: f64, expected: f64) {
        assert!((found - expected).abs() <= 1e-9 * expected.abs().max(1e-3), "{found}, expected {expected}");
    }

    #[test]
    fn it_makes_no_difference_which_of_epsilon_v_and_x0_a_network_predicts() {
        let (x0, noise, guess) = sample();
        for t in [0, 1, 7, T - 1] {
            let [epsilon, v, x] =
                [PredictionType::Epsilon, PredictionType::VPrediction, PredictionType::Sample].map(|p| {
                    let bound = bound(p, Variance::FixedSmall);
                    let x_t = bound.noised(t, &x0, &noise).unwrap();
                    bound.term(t, &x0, &x_t, &output(p, bound.alphas_cumprod[t], &x_t, &guess), PIXELS).unwrap()
                });
            close(v, epsilon);
            close(x, epsilon);
        }
    }

    #[test]
    fn a_network_that_knows_x0_needs_no_bits_between_the_first_step_and_the_last() {
        let (x0, noise, guess) = sample();
        let bound = bound(PredictionType::Sample, Variance::FixedSmall);
        for t in 1..T {
            let x_t = bound.noised(t, &x0, &noise).unwrap();
            assert!(bound.term(t, &x0, &x_t, &x0, PIXELS).unwrap().abs() < 1e-12);
            assert!(bound.term(t, &x0, &x_t, &guess, PIXELS).unwrap() > 1e-6);
        }
    }

    #[test]
    fn a_learned_variance_has_the_fixed_ones_as_its_limits() {
        let (x0, noise, guess) = sample();
        let [small, large, learned, range] = Variance::ALL.map(|variance| bound(PredictionType::Sample, variance));
        for t in [0, 1, 2, 15, T - 1] {
            let x_t = small.noised(t, &x0, &noise).unwrap();
            let term = |bound: &VariationalBound, v: f64| {
                let output: Vec<f64> = guess.iter().copied().chain(vec![v; guess.len()]).collect();
                let output = if bound.variance.is_learned() { &output[..] } else { &output[..guess.len()] };
                bound.term(t, &x0, &x_t, output, PIXELS).unwrap()
            };
            let (least, most) = (term(&small, 0.0), term(&large, 0.0));
            close(term(&range, -1.0), least);
            close(term(&learned, small.posterior(t).unwrap().variance), least);
            // At t = 0 the largest of the range is β_0 itself.
            if t > 0 {
                close(term(&range, 1.0), most);
            }
            close(term(&range, 1.0), term(&learned, betas()[t]));
        }
    }

    /// By the formula that the code of the papers has: in logarithms of variances, each value with one of its own.
    #[test]
    fn a_variance_that_differs_from_pixel_to_pixel_is_each_pixels_own() {
        let (x0, noise, guess) = sample();
        let range = bound(PredictionType::Sample, Variance::LearnedRange);
        let v: Vec<f64> = (0..24).map(|i| libm::cos(1.3 * f64::from(i))).collect();
        let output = [guess.clone(), v.clone()].concat();
        let betas = betas();
        for t in [1, 9, T - 1] {
            let x_t = range.noised(t, &x0, &noise).unwrap();
            let (mut before, mut after) = (1.0, 1.0);
            for beta in &betas[..=t] {
                (before, after) = (after, after * (1.0 - beta));
            }
            let min_log = (betas[t] * (1.0 - before) / (1.0 - after)).ln();
            let max_log = betas[t].ln();
            let mut nats = 0.0;
            for i in 0..24 {
                let mean = |x: f64| {
                    (before.sqrt() * betas[t] * x + (1.0 - betas[t]).sqrt() * (1.0 - before) * x_t[i]) / (1.0 - after)
                };
                let log = (v[i] + 1.0) / 2.0 * max_log + (1.0 - v[i]) / 2.0 * min_log;
                let off = mean(x0[i]) - mean(guess[i]);
                nats += 0.5 * (-1.0 + log - min_log + (min_log - log).exp() + off * off * (-log).exp());
            }
            close(range.term(t, &x0, &x_t, &output, PIXELS).unwrap(), nats / 24.0 / 2f64.ln());
        }
    }

    #[test]
    fn the_divergence_of_two_gaussians_is_what_integrating_gives() {
        for (m1, v1, m2, v2) in [(0.0f64, 1.0, 0.5f64, 2.0), (0.3, 0.01, 0.31, 0.02), (-1.0, 0.5, 1.0, 0.4)] {
            let density = |x: f64, m: f64, v: f64| (-(x - m) * (x - m) / (2.0 * v)).exp() / (2.0 * PI * v).sqrt();
            let (steps, width) = (200_000, 20.0 * f64::sqrt(v1));
            let integral: f64 = (0..steps)
                .map(|i| m1 - width / 2.0 + width * (f64::from(i) + 0.5) / f64::from(steps))
                .map(|x| (x, density(x, m1, v1)))
                .filter(|(_, p)| *p > 1e-30)
                .map(|(x, p)| p * (log_density(x, m1, v1) - log_density(x, m2, v2)) * width / f64::from(steps))
                .sum();
            assert!((kl(m1, v1, m2, v2) - integral).abs() < 1e-8, "{} {integral}", kl(m1, v1, m2, v2));
        }
    }

    #[test]
    fn the_decoder_is_a_distribution_over_the_levels_of_a_pixel() {
        for cdf in [Cdf::Exact, Cdf::Tanh] {
            for (mean, variance) in [(0.1, 0.02), (-1.3, 0.5), (0.98, 1e-4), (0.0, 4.0)] {
                let levels = (0..256).map(|level| f64::from(level) / 127.5 - 1.0);
                let sum: f64 = levels.map(|x| log_bin(cdf, x, mean, variance).exp()).sum();
                // A level that is next to impossible still has the least probability.
                assert!((sum - 1.0).abs() < 256.0 * LEAST_PROBABILITY, "{cdf:?}, {mean}, {variance}: {sum}");
            }
        }
    }

    #[test]
    fn latents_have_a_density_which_may_need_less_than_no_bits() {
        let (x0, noise, _) = sample();
        let bound = bound(PredictionType::Sample, Variance::FixedSmall);
        let x_t = bound.noised(0, &x0, &noise).unwrap();
        let bits = bound.term(0, &x0, &x_t, &x0, Decoder::Density).unwrap();
        let variance = bound.posterior(1).unwrap().variance;
        close(bits, 0.5 * (2.0 * PI * variance).log2());
        assert!(bits < 0.0);
    }

    #[test]
    fn x0_is_clamped_before_the_mean_is_formed() {
        let clamped = VariationalBound::new(betas(), PredictionType::Sample, Variance::FixedSmall, Some(1.0)).unwrap();
        let free = bound(PredictionType::Sample, Variance::FixedSmall);
        let means = |bound: &VariationalBound, output: f64| bound.mean(5, &[0.2], &[output]).unwrap();
        assert_eq!(means(&clamped, 3.0), means(&free, 1.0));
        assert_eq!(means(&clamped, -0.5), means(&free, -0.5));
    }

    #[test]
    fn without_a_signal_at_the_end_epsilon_has_no_last_term_and_v_has_one() {
        let betas = vec![0.1, 0.5, 1.0];
        let of = |prediction| VariationalBound::new(betas.clone(), prediction, Variance::FixedSmall, None).unwrap();
        let (epsilon, v) = (of(PredictionType::Epsilon), of(PredictionType::VPrediction));
        assert_eq!(epsilon.prior(&[0.3, -0.3]), 0.0);
        let error = epsilon.term(2, &[0.3], &[1.0], &[0.5], PIXELS).unwrap_err().to_string();
        assert!(error.starts_with("variational bound: timestep 2: nothing of x_0 is left there"), "{error}");
        assert!(epsilon.term(1, &[0.3], &[1.0], &[0.5], PIXELS).unwrap().is_finite());
        assert!(v.term(2, &[0.3], &[1.0], &[0.5], PIXELS).unwrap().is_finite());
    }

    #[test]
    fn what_is_no_chain_or_does_not_fit_it_is_refused() {
        let new = |betas: &[f64], prediction| {
            VariationalBound::new(betas.to_vec(), prediction, Variance::Learned, None).map_err(|e| e.to_string())
        };
        let epsilon = PredictionType::Epsilon;
        assert!(new(&[], epsilon).unwrap_err().contains("there is none"));
        assert!(new(&[0.1, 0.0], epsilon).unwrap_err().contains("at timestep 1 it is 0"));
        assert!(new(&[f64::NAN], epsilon).unwrap_err().contains("at timestep 0 it is NaN"));
        assert!(new(&[0.1], PredictionType::FlowPrediction).unwrap_err().contains("rectified flow"));
        for clip in [-1.0, f64::NAN] {
            let error =
                VariationalBound::new(betas(), epsilon, Variance::FixedSmall, Some(clip)).unwrap_err().to_string();
            assert!(error.contains(&format!("clamped to ± {clip}")), "{error}");
        }
        VariationalBound::new(betas(), epsilon, Variance::FixedSmall, Some(0.0)).unwrap();
        let bound = new(&[0.1], epsilon).unwrap();
        let term = |t, output: &[f64]| bound.term(t, &[0.0], &[0.0], output, PIXELS).unwrap_err().to_string();
        assert_eq!(term(1, &[0.0, 1.0]), "variational bound: there is no timestep 1; the last is 0");
        assert_eq!(term(0, &[0.0]), "step: model_output has 1 values, expected 2");
    }
}
