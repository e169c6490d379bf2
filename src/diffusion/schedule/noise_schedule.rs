//! The noise schedule: β_t and ᾱ_t = ∏ (1 − β_s).
//!
//! diffusers computes these in f32, and a model was trained on exactly those numbers: here they are the same, bit for
//! bit. Everything that follows from them is computed in f64.

use super::{betas::Betas, grid::interpolate};

/// β_t and ᾱ_t for t = 0 … T−1.
#[derive(Debug, Clone, PartialEq)]
pub struct NoiseSchedule {
    /// β_t, the variance that one training timestep adds.
    pub betas: Vec<f32>,
    /// ᾱ_t = ∏_{s≤t} (1 − β_s), the share of the image's variance that is left at timestep t.
    pub alphas_cumprod: Vec<f32>,
}

impl NoiseSchedule {
    /// The schedule of any β_t, each from 0 to 1 (`trained_betas`).
    pub fn of_betas(betas: Vec<f32>) -> Self {
        let alphas_cumprod = cumulative_product(&betas);
        Self { betas, alphas_cumprod }
    }

    /// β_t in even steps from `start` to `end`. Ho et al. 2020, arXiv 2006.11239, section 4, with 10⁻⁴ and 0.02.
    pub fn linear(start: f64, end: f64, num_train_timesteps: usize) -> Self {
        Self::of_betas(Betas::Linear { start, end }.values(num_train_timesteps))
    }

    /// √β_t in even steps from √`start` to √`end`: latent diffusion (Rombach et al. 2021, arXiv 2112.10752), Stable Diffusion with
    /// 0.00085 and 0.012.
    pub fn scaled_linear(start: f64, end: f64, num_train_timesteps: usize) -> Self {
        Self::of_betas(Betas::ScaledLinear { start, end }.values(num_train_timesteps))
    }

    /// ᾱ_t = f(t+1)/f(0), f(t) = cos²((t/T + 0.008)/1.008·π/2), and no β_t above 0.999 (`squaredcos_cap_v2`). Nichol and Dhariwal
    /// 2021, arXiv 2102.09672, equation 17.
    pub fn cosine(num_train_timesteps: usize) -> Self {
        Self::of_betas(Betas::SquaredCosCapV2.values(num_train_timesteps))
    }

    /// The schedule with √ᾱ_t shifted and scaled so that nothing is left of the picture at the last timestep and as much as before at
    /// the first (`rescale_betas_zero_snr`): √ᾱ'_t = √ᾱ_0·(√ᾱ_t − √ᾱ_{T−1})/(√ᾱ_0 − √ᾱ_{T−1}). Lin et al. 2023, arXiv 2305.08891,
    /// algorithm 1.
    #[must_use]
    pub fn with_zero_terminal_snr(mut self) -> Self {
        rescale_to_zero_terminal_snr(&mut self.betas);
        Self::of_betas(self.betas)
    }

    /// Gives the last timestep σ = 4096 where zero terminal SNR would make it infinite.
    pub(in crate::diffusion) fn keep_a_last_trace_of_signal(&mut self) {
        if let Some(last) = self.alphas_cumprod.last_mut() {
            *last = 2f32.powi(-24);
        }
    }

    /// ᾱ at a timestep of a table, or `None` past the last one.
    ///
    /// For some step counts "trailing" spacing ends on timestep −1. There diffusers indexes a tensor with −1, which
    /// is its last element, and so does this: a seed gives the picture that diffusers gives.
    pub(in crate::diffusion) fn alpha_bar_of_run(&self, timestep: i64) -> Option<f64> {
        let index = match timestep {
            -1 => self.alphas_cumprod.len() - 1,
            _ => usize::try_from(timestep).ok()?,
        };
        self.alphas_cumprod.get(index).copied().map(f64::from)
    }

    /// σ_t = √((1−ᾱ_t)/ᾱ_t) for t = 0 … T−1, in f32 as diffusers computes it.
    pub fn sigmas(&self) -> Vec<f32> {
        self.alphas_cumprod.iter().map(|&alpha_bar| libm::sqrtf((1.0 - alpha_bar) / alpha_bar)).collect()
    }

    /// σ at a timestep of training as a run holds it, in f32.
    pub(in crate::diffusion) fn sigma(&self, timestep: usize) -> f64 {
        f64::from(interpolate(timestep as f64, &self.sigmas()) as f32)
    }
}

/// ∏ (1 − β_s), accumulated in f64 and rounded to f32 at every entry, as torch does on the CPU.
fn cumulative_product(betas: &[f32]) -> Vec<f32> {
    let mut product = 1.0;
    betas
        .iter()
        .map(|&beta| {
            product *= f64::from(1.0 - beta);
            product as f32
        })
        .collect()
}

/// [`NoiseSchedule::with_zero_terminal_snr`], in f32 throughout, as diffusers' `rescale_zero_terminal_snr`.
fn rescale_to_zero_terminal_snr(betas: &mut [f32]) {
    let mut root: Vec<f32> = cumulative_product(betas).into_iter().map(libm::sqrtf).collect();
    let (Some(&first), Some(&last)) = (root.first(), root.last()) else { return };
    let scale = first / (first - last);
    for root in &mut root {
        *root = (*root - last) * scale;
    }
    let mut previous = 1.0;
    for (beta, root) in betas.iter_mut().zip(root) {
        let alpha_bar = root * root;
        *beta = 1.0 - alpha_bar / previous;
        previous = alpha_bar;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: usize = 1000;

    /// Fails unless every ᾱ_t is the closed form's, but for the rounding of the f32 from which they are multiplied up.
    fn assert_alpha_bar(schedule: &NoiseSchedule, tolerance: f64, closed_form: impl Fn(usize) -> f64) {
        assert_eq!((schedule.betas.len(), schedule.alphas_cumprod.len()), (T, T));
        for (t, &alpha_bar) in schedule.alphas_cumprod.iter().enumerate() {
            let (alpha_bar, expected) = (f64::from(alpha_bar), closed_form(t));
            assert!((alpha_bar - expected).abs() <= tolerance * expected, "t = {t}: {alpha_bar}, expected {expected}");
        }
    }

    /// ∏ (1 − β_s), in f64 throughout.
    fn product(beta: impl Fn(f64) -> f64) -> impl Fn(usize) -> f64 {
        move |t| (0..=t).map(|s| 1.0 - beta(s as f64 / (T - 1) as f64)).product()
    }

    #[test]
    fn linear_schedules_are_even_in_beta_and_in_its_root() {
        let (start, end) = (1e-4, 0.02);
        assert_alpha_bar(&NoiseSchedule::linear(start, end, T), 1e-6, product(|x| start + x * (end - start)));
        let (start, end) = (0.00085f64, 0.012f64);
        let root = |x: f64| start.sqrt() + x * (end.sqrt() - start.sqrt());
        let schedule = NoiseSchedule::scaled_linear(start, end, T);
        assert_alpha_bar(&schedule, 1e-6, product(|x| root(x).powi(2)));
        // What Stable Diffusion leaves at the last timestep: σ is 14.6.
        assert!((schedule.sigmas()[T - 1] - 14.6146).abs() < 1e-3);
    }

    #[test]
    fn the_cosine_schedule_is_the_square_of_a_cosine() {
        let f = |t: usize| ((t as f64 / T as f64 + 0.008) / 1.008 * std::f64::consts::FRAC_PI_2).cos().powi(2);
        let schedule = NoiseSchedule::cosine(T);
        assert_eq!(schedule.betas[T - 1], 0.999, "the last would be 1");
        // Each β_t is rounded to f32, which near 1 is a part in 30,000 of 1 − β_t.
        let capped = |t: usize| if t + 1 == T { f(t) / f(0) * 0.001 } else { f(t + 1) / f(0) };
        assert_alpha_bar(&schedule, 3e-5, capped);
    }

    #[test]
    fn zero_terminal_snr_shifts_and_scales_the_root_of_alpha_bar() {
        let plain = NoiseSchedule::scaled_linear(0.00085, 0.012, T);
        let rescaled = plain.clone().with_zero_terminal_snr();
        let root = |t: usize| f64::from(plain.alphas_cumprod[t]).sqrt();
        assert_eq!((rescaled.alphas_cumprod[T - 1], rescaled.betas[T - 1]), (0.0, 1.0));
        assert_eq!(rescaled.snr(T - 1), Some(0.0));
        for t in 0..T {
            let expected = root(0) * (root(t) - root(T - 1)) / (root(0) - root(T - 1));
            // In f32 the difference of two roots is known to its last place.
            let found = f64::from(rescaled.alphas_cumprod[t]).sqrt();
            assert!((found - expected).abs() < 1e-6, "t = {t}: {found}, expected {expected}");
        }
    }

    #[test]
    fn the_chain_of_all_timesteps_is_the_marginal() {
        for schedule in [
            NoiseSchedule::linear(1e-4, 0.02, T),
            NoiseSchedule::scaled_linear(0.00085, 0.012, T),
            NoiseSchedule::cosine(T),
            NoiseSchedule::scaled_linear(0.00085, 0.012, T).with_zero_terminal_snr(),
        ] {
            let mut chain = crate::diffusion::schedule::noising::Noising { signal: 1.0, noise: 0.0 };
            for t in 0..T {
                let (transition, marginal) = (schedule.transition(t).unwrap(), schedule.marginal(t).unwrap());
                chain = chain.then(transition);
                // ᾱ_t is rounded to f32, half a unit in the last place of numbers below 1.
                let rounding = f64::from(f32::EPSILON) / 4.0 + 1e-12;
                for (chain, marginal) in [(chain.signal, marginal.signal), (chain.noise, marginal.noise)] {
                    assert!((chain.powi(2) - marginal.powi(2)).abs() < rounding, "t = {t}: {chain} {marginal}");
                }
                let (alpha, beta) = (transition.signal.powi(2), transition.noise.powi(2));
                assert!((alpha + beta - 1.0).abs() < 1e-12 && (schedule.beta(t).unwrap() - beta).abs() < rounding);
            }
        }
    }
}
