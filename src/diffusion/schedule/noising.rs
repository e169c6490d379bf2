//! The forward process, x_0 → x_T: what noise does to a picture. All of it is Gaussian, and so in closed form.
//!
//! Ho, Jain and Abbeel 2020, arXiv 2006.11239:
//!
//! ```text
//! q(x_t | x_{t−1}) = N(√α_t·x_{t−1}, β_t·I),     α_t = 1 − β_t                               (equation 2)
//! q(x_t | x_0) = N(√ᾱ_t·x_0, (1−ᾱ_t)·I),         ᾱ_t = ∏_{s≤t} α_s                           (equation 4)
//! q(x_{t−1} | x_t, x_0) = N(μ̃_t, β̃_t·I)                                                      (equation 6)
//! μ̃_t = √ᾱ_{t−1}·β_t/(1−ᾱ_t)·x_0 + √α_t·(1−ᾱ_{t−1})/(1−ᾱ_t)·x_t,   β̃_t = (1−ᾱ_{t−1})/(1−ᾱ_t)·β_t     (equation 7)
//! ```
//!
//! Timesteps are diffusers', t = 0 … T−1, one less than the paper's. What comes before t = 0 is x_0 itself, where ᾱ is 1.
//!
//! Solvers hold x_t in one of three scales. A signal-to-noise ratio is the same picture under the same noise in all of them:
//!
//! | scale | x_t | solvers |
//! |---|---|---|
//! | variance preserving | √ᾱ_t·x_0 + √(1−ᾱ_t)·ε | `ddpm`, `ddim`, `pndm`, `lcm`, `tcd`; those of λ-space, from σ |
//! | σ-space, that divided by √ᾱ_t | x_0 + σ_t·ε, σ_t = √((1−ᾱ_t)/ᾱ_t) | `euler`, `euler_ancestral`, `lms`, `heun`, `dpm2` |
//! | rectified flow | (1−σ_t)·x_0 + σ_t·ε, σ_t = t/T | `flow_euler`; those of λ-space with `use_flow_sigmas` |

use serde::{Serialize, Serializer};

use super::{noise_schedule::NoiseSchedule, prediction::Reading};

/// A stretch of the forward process: x_t = `signal`·x_s + `noise`·ε with ε ~ N(0, I), or q(x_t | x_s) =
/// N(signal·x_s, noise²·I). Where s is the beginning, x_s is x_0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Noising {
    /// The factor of x_s.
    pub signal: f64,
    /// The standard deviation of the noise.
    pub noise: f64,
}

impl Noising {
    /// The stretch that leaves x_s a share `alpha_bar` of its variance, from 0 to 1: √ᾱ_t·x_0 + √(1−ᾱ_t)·ε (Ho et al., equation
    /// 4), and with α_t in its place one timestep (equation 2).
    pub fn of_alpha_bar(alpha_bar: f64) -> Self {
        Self { signal: alpha_bar.sqrt(), noise: (1.0 - alpha_bar).sqrt() }
    }

    /// The stretch from x_0 in σ-space: x_0 + σ·ε. Karras et al. 2022, arXiv 2206.00364, equation 4 with s(t) = 1.
    pub fn of_sigma(sigma: f64) -> Self {
        Self { signal: 1.0, noise: sigma }
    }

    /// The stretch from x_0 in rectified flow, σ from 0 to 1: (1−σ)·x_0 + σ·ε. Liu, Gong and Liu 2022, arXiv 2209.03003, equation 1, from the picture to
    /// the noise.
    pub fn of_flow_sigma(sigma: f64) -> Self {
        Self { signal: 1.0 - sigma, noise: sigma }
    }

    /// The stretch `self` and then `next`, as one: signals multiply, variances add up.
    #[must_use]
    pub fn then(self, next: Self) -> Self {
        Self { signal: self.signal * next.signal, noise: libm::hypot(self.noise * next.signal, next.noise) }
    }

    /// The signal-to-noise ratio, signal²/noise²: ᾱ_t/(1−ᾱ_t), of x_0 with unit variance. Infinite without noise.
    /// Kingma, Salimans, Poole and Ho 2021, arXiv 2107.00630, equation 2.
    pub fn snr(self) -> f64 {
        let ratio = self.signal / self.noise;
        ratio * ratio
    }

    /// The target of v-prediction, v = √ᾱ_t·ε − √(1−ᾱ_t)·x_0 (diffusers' `get_velocity`).
    /// In the variance-preserving scale, where x_t turns into v by a quarter of a circle. Salimans and Ho 2022, arXiv 2202.00512,
    /// section 4.
    pub fn velocity(self) -> Velocity {
        Velocity { x0: -self.noise, epsilon: self.signal }
    }

    /// x_t from x_0 and ε (diffusers' `add_noise`, for rectified flow `scale_noise`), element by element and in f32. As long as the
    /// shorter of the two.
    pub fn add_noise(self, x0: &[f32], noise: &[f32]) -> Vec<f32> {
        let (signal, level) = (self.signal as f32, self.noise as f32);
        x0.iter().zip(noise).map(|(&x, &z)| signal * x + level * z).collect()
    }
}

/// The target of v-prediction as a sum of x_0 and ε.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Velocity {
    /// The factor of x_0.
    pub x0: f64,
    /// The factor of ε.
    pub epsilon: f64,
}

/// The stretch is written as the pair of signal and noise.
impl Serialize for Noising {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.signal, self.noise).serialize(serializer)
    }
}

/// The distribution of x_s, if x_0 and the later x_t are known: q(x_s | x_t, x_0) = N(`x0`·x_0 + `sample`·x_t, `variance`·I), s < t. In the
/// variance-preserving scale.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Posterior {
    /// The mean's coefficient of x_0.
    pub x0: f64,
    /// The mean's coefficient of x_t.
    pub sample: f64,
    /// β̃, the variance.
    pub variance: f64,
}

impl Posterior {
    /// The posterior of Ho et al., equation 7, with ᾱ_s, ᾱ_t and the α between them, which is ᾱ_t/ᾱ_s and for neighbours α_t.
    /// Where no noise lies between x_0 and x_t, ᾱ_t = 1, there is no such distribution, and this is not a number.
    pub fn new(alpha: f64, alpha_bar_s: f64, alpha_bar_t: f64) -> Self {
        let (beta, beta_bar_s, beta_bar_t) = (1.0 - alpha, 1.0 - alpha_bar_s, 1.0 - alpha_bar_t);
        Self {
            x0: alpha_bar_s.sqrt() * beta / beta_bar_t,
            sample: alpha.sqrt() * beta_bar_s / beta_bar_t,
            variance: beta_bar_s / beta_bar_t * beta,
        }
    }

    /// The posterior from ᾱ_s and ᾱ_t alone.
    pub fn between(alpha_bar_s: f64, alpha_bar_t: f64) -> Self {
        Self::new(alpha_bar_t / alpha_bar_s, alpha_bar_s, alpha_bar_t)
    }
}

/// The forward process of training, timestep by timestep; each is `None` past the last one. Numbers are the schedule's f32, and what
/// follows from them is computed in f64.
impl NoiseSchedule {
    /// T, the number of timesteps.
    pub fn num_train_timesteps(&self) -> usize {
        self.alphas_cumprod.len()
    }

    /// β_t, the variance that timestep t adds.
    pub fn beta(&self, t: usize) -> Option<f64> {
        self.betas.get(t).copied().map(f64::from)
    }

    /// α_t = 1 − β_t, the share of variance that timestep t leaves; rounded to f32, as it is where ᾱ_t is multiplied up from it.
    pub fn alpha(&self, t: usize) -> Option<f64> {
        self.betas.get(t).map(|&beta| f64::from(1.0 - beta))
    }

    /// ᾱ_t = ∏_{s≤t} α_s, the share of the picture's variance that is left at timestep t.
    pub fn alpha_bar(&self, t: usize) -> Option<f64> {
        self.alphas_cumprod.get(t).copied().map(f64::from)
    }

    /// ᾱ_{t−1}, from which timestep t starts. Before the first that is the picture, of which everything is left.
    pub fn alpha_bar_before(&self, t: usize) -> Option<f64> {
        match t.checked_sub(1) {
            None => self.alpha_bar(0).map(|_| 1.0),
            Some(before) => self.alpha_bar(t).and(self.alpha_bar(before)),
        }
    }

    /// q(x_t | x_{t−1}): √α_t·x_{t−1} + √(1−α_t)·ε. Ho et al., equation 2.
    pub fn transition(&self, t: usize) -> Option<Noising> {
        self.alpha(t).map(Noising::of_alpha_bar)
    }

    /// q(x_t | x_0): √ᾱ_t·x_0 + √(1−ᾱ_t)·ε. Ho et al., equation 4.
    pub fn marginal(&self, t: usize) -> Option<Noising> {
        self.alpha_bar(t).map(Noising::of_alpha_bar)
    }

    /// q(x_{t−1} | x_t, x_0). Ho et al., equations 6 and 7.
    pub fn posterior(&self, t: usize) -> Option<Posterior> {
        Some(Posterior::new(self.alpha(t)?, self.alpha_bar_before(t)?, self.alpha_bar(t)?))
    }

    /// The signal-to-noise ratio at timestep t, ᾱ_t/(1−ᾱ_t).
    pub fn snr(&self, t: usize) -> Option<f64> {
        self.marginal(t).map(Noising::snr)
    }
}

/// The forward process of a checkpoint at one timestep, in the scale of one solver, and how the network's output is read there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NoisingAt {
    /// The timestep that the network is told.
    pub timestep: f64,
    /// x_t from x_0.
    pub forward: Noising,
    /// The network sees `input_scale`·x_t (`scale_model_input`), which is also what has about unit variance.
    pub input_scale: f64,
    /// x̂_0 as the coefficients of what the network sees and of its output. Not finite where nothing is left of x_0 and the network
    /// predicts ε.
    pub x0: Reading,
    /// ε̂ as the coefficients of what the network sees and of its output.
    pub epsilon: Reading,
}

impl NoisingAt {
    /// The process from x_0 to the input of the network: in the variance-preserving scale, or in rectified flow.
    pub fn seen(self) -> Noising {
        let Noising { signal, noise } = self.forward;
        Noising { signal: signal * self.input_scale, noise: noise * self.input_scale }
    }
}

#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn close(found: f64, expected: f64, relative: f64) -> Result<(), TestCaseError> {
        let off = (found - expected).abs();
        prop_assert!(off <= relative * expected.abs().max(1e-300), "{found}, expected {expected}: off by {off:e}");
        Ok(())
    }

    /// Two shares of variance that are left, the second less than the first.
    fn shares() -> impl Strategy<Value = (f64, f64)> {
        (1e-6..1.0 - 1e-6, 1e-6..1.0 - 1e-6).prop_map(|(first, then)| (first, first * then))
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn two_stretches_one_after_the_other_are_the_whole(
            (alpha_bar_s, alpha_bar_t) in shares(),
        ) {
            let (to_s, to_t) = (Noising::of_alpha_bar(alpha_bar_s), Noising::of_alpha_bar(alpha_bar_t));
            let chained = to_s.then(Noising::of_alpha_bar(alpha_bar_t / alpha_bar_s));
            close(chained.signal, to_t.signal, 1e-13)?;
            close(chained.noise, to_t.noise, 1e-9)?;
            // Variance is preserved.
            close(chained.signal.powi(2) + chained.noise.powi(2), 1.0, 1e-13)?;
        }

        /// q(x_s | x_0)·q(x_t | x_s) = q(x_t | x_0)·q(x_s | x_t, x_0): both are the density of (x_s, x_t), at any values.
        #[test]
        fn posterior_and_marginal_are_the_joint_distribution(
            (alpha_bar_s, alpha_bar_t) in shares(),
            x0 in -1.0f64..1.0,
            x_s in -3.0f64..3.0,
            x_t in -3.0f64..3.0,
        ) {
            let log_density = |x: f64, mean: f64, variance: f64| -0.5 * ((x - mean).powi(2) / variance + variance.ln());
            let along = |kernel: Noising, from: f64, to: f64| log_density(to, kernel.signal * from, kernel.noise.powi(2));
            let forwards = along(Noising::of_alpha_bar(alpha_bar_s), x0, x_s)
                + along(Noising::of_alpha_bar(alpha_bar_t / alpha_bar_s), x_s, x_t);
            let posterior = Posterior::between(alpha_bar_s, alpha_bar_t);
            let backwards = along(Noising::of_alpha_bar(alpha_bar_t), x0, x_t)
                + log_density(x_s, posterior.x0 * x0 + posterior.sample * x_t, posterior.variance);
            let size = forwards.abs().max(1.0);
            prop_assert!((forwards - backwards).abs() < 1e-7 * size, "{forwards} and {backwards}");
        }

        /// The mean of the means is the mean, and the variance is explained and unexplained variance together.
        #[test]
        fn the_posterior_averaged_over_x_t_is_the_marginal_of_x_s(
            (alpha_bar_s, alpha_bar_t) in shares(),
        ) {
            let (to_s, to_t) = (Noising::of_alpha_bar(alpha_bar_s), Noising::of_alpha_bar(alpha_bar_t));
            let posterior = Posterior::between(alpha_bar_s, alpha_bar_t);
            close(posterior.x0 + posterior.sample * to_t.signal, to_s.signal, 1e-9)?;
            close(posterior.variance + (posterior.sample * to_t.noise).powi(2), to_s.noise.powi(2), 1e-9)?;
        }

        #[test]
        fn x0_and_epsilon_come_back_from_x_t_and_v(
            alpha_bar in 0.0f64..1.0,
            x0 in -1.0f64..1.0,
            epsilon in -4.0f64..4.0,
        ) {
            let forward = Noising::of_alpha_bar(alpha_bar);
            let x_t = forward.signal * x0 + forward.noise * epsilon;
            let velocity = forward.velocity();
            let v = velocity.x0 * x0 + velocity.epsilon * epsilon;
            prop_assert!((forward.signal * x_t - forward.noise * v - x0).abs() < 1e-14);
            prop_assert!((forward.noise * x_t + forward.signal * v - epsilon).abs() < 1e-14);
        }

        #[test]
        fn sigma_space_is_the_same_process_in_another_scale(alpha_bar in 1e-6..1.0f64 - 1e-6) {
            let forward = Noising::of_alpha_bar(alpha_bar);
            let sigma = Noising::of_sigma(((1.0 - alpha_bar) / alpha_bar).sqrt());
            close(forward.noise / forward.signal, sigma.noise, 1e-13)?;
            close(sigma.snr(), forward.snr(), 1e-13)?;
            close(forward.snr(), alpha_bar / (1.0 - alpha_bar), 1e-13)?;
        }
    }

    /// The posterior at t = 0, before which there is nothing but the picture, is the picture itself.
    #[test]
    fn the_posterior_before_the_first_timestep_is_the_picture() {
        let posterior = NoiseSchedule::linear(1e-4, 0.02, 10).posterior(0).unwrap();
        assert!((posterior.x0 - 1.0).abs() < 1e-3, "{posterior:?}: β_0 and 1 − ᾱ_0 are 1e-4, in f32");
        assert_eq!((posterior.sample, posterior.variance), (0.0, 0.0));
        assert_eq!(Posterior::between(1.0, 0.5), Posterior { x0: 1.0, sample: 0.0, variance: 0.0 });
    }

    #[test]
    fn noise_is_added_as_much_as_the_levels_say() {
        let forward = Noising { signal: 0.5, noise: 2.0 };
        assert_eq!(forward.add_noise(&[1.0, -3.0, 0.0], &[1.0, 0.25, -1.0]), [2.5, -1.0, -2.0]);
        assert_eq!(Noising::of_flow_sigma(0.25), Noising { signal: 0.75, noise: 0.25 });
        assert_eq!(Noising::of_flow_sigma(0.0).snr(), f64::INFINITY);
    }

    #[test]
    fn past_the_last_timestep_there_is_nothing() {
        let schedule = NoiseSchedule::linear(1e-4, 0.02, 10);
        assert_eq!(schedule.num_train_timesteps(), 10);
        assert!(schedule.posterior(9).is_some() && schedule.posterior(10).is_none());
        assert!(schedule.alpha_bar_before(10).is_none() && schedule.transition(10).is_none());
        assert_eq!(NoiseSchedule::linear(1e-4, 0.02, 0).alpha_bar_before(0), None);
    }
}
