//! The whole bound from its terms, with its possible error.

use serde_json::{Value, json};

use crate::diffusion::Variance;

/// The kind of a term of the bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TermKind {
    /// L_T = KL(q(x_T|x_0) ‖ N(0, I)).
    Prior,
    /// L_t = KL(q(x_{t−1}|x_t, x_0) ‖ p_θ(x_{t−1}|x_t)).
    Transition,
    /// L_0 = −log p_θ(x_0|x_1), at t = 0.
    Decoder,
}

impl TermKind {
    /// The letter that it has in the equation.
    pub fn symbol(self) -> &'static str {
        match self {
            Self::Prior => "L_T",
            Self::Transition => "L_t",
            Self::Decoder => "L_0",
        }
    }
}

/// One term of the bound.
#[derive(Clone, Debug, PartialEq)]
pub struct Term {
    /// The kind of term.
    pub kind: TermKind,
    /// t of the call of the network; `None` for L_T.
    pub timestep: Option<usize>,
    /// Number of terms of the bound it stands for: 1, or more where not all were asked for.
    pub stands_for: f64,
    /// Bits per dimension of each picture.
    pub bits_per_dim: Vec<f64>,
}

impl Term {
    /// Mean over the pictures, and its standard error where there are several.
    pub fn mean(&self) -> (f64, Option<f64>) {
        mean(&self.bits_per_dim)
    }

    /// The term as JSON, under JavaScript's names.
    pub fn to_json(&self) -> Value {
        let (mean, error) = self.mean();
        json!({
            "term": self.kind.symbol(),
            "timestep": self.timestep,
            "standsFor": self.stands_for,
            "bitsPerDim": self.bits_per_dim,
            "mean": mean,
            "errorOfPictures": error,
        })
    }
}

/// The whole bound, from all terms or from those that were asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct BoundEstimate {
    /// Bits per dimension of each picture: L_T + L_0 + Σ L_t, where each L_t that was computed stands for those that were not.
    pub bits_per_dim: Vec<f64>,
    /// Mean over the pictures.
    pub mean: f64,
    /// Standard error of that mean because not every timestep was asked for, rather too large than too small: 0 if all were,
    /// `None` if one alone stands for all.
    pub error_of_timesteps: Option<f64>,
    /// Standard error of that mean as one of all pictures that these could be, where there are several.
    pub error_of_pictures: Option<f64>,
}

/// The terms computed so far, and the whole once they are all there.
#[derive(Clone, Debug, PartialEq)]
pub struct BoundSummary {
    /// Whether the data are latents: then L_0 is by a density rather than by the levels of pixels, and neither it nor the whole can
    /// be compared with those of pixels, or need be above 0.
    pub of_latents: bool,
    /// Dimensions of the data: channels · height · width.
    pub dimensions: usize,
    /// T, the number of training timesteps.
    pub num_train_timesteps: usize,
    /// σ_t², the variance of the model's step.
    pub variance: Variance,
    /// Whether x̂_0 was clamped.
    pub clip_denoised: bool,
    /// The terms, in the order that they came: L_T first, then descending t.
    pub terms: Vec<Term>,
    /// The whole bound, once all terms that were asked for are there, if L_0 and, in a chain of several steps, an L_t are among
    /// them: no other term says anything about these.
    pub total: Option<BoundEstimate>,
}

impl BoundSummary {
    /// The summary as JSON, under JavaScript's names.
    pub fn to_json(&self) -> Value {
        let total = self.total.as_ref().map(|total| {
            json!({
                "bitsPerDim": total.bits_per_dim,
                "mean": total.mean,
                "errorOfTimesteps": total.error_of_timesteps,
                "errorOfPictures": total.error_of_pictures,
            })
        });
        json!({
            "ofLatents": self.of_latents,
            "dimensions": self.dimensions,
            "numTrainTimesteps": self.num_train_timesteps,
            "variance": self.variance.name(),
            "clipDenoised": self.clip_denoised,
            "terms": self.terms.iter().map(Term::to_json).collect::<Value>(),
            "total": total,
        })
    }
}

/// The whole bound from the terms `asked` for, L_T first, of a chain of `all` timesteps.
///
/// L_T and L_0 are themselves. The sum of the N = T−1 terms L_t between them is estimated from the n that were computed, each times
/// how many it stands for. Where these are a list, that is N times their mean, and its standard error as if they had been drawn at
/// random is N·√((1−n/N)·s²/n) with s² their sample variance. Where each was taken from a part of its own of length N_h, it is
/// √(Σ N_h·(N_h−1)·s_h²), and what varies within a part is not known from one of it. L_t falls about as c/t: s_h² is the variance
/// of c/t over the part, with c = t·L_t of the one term; plus what c itself varies by, half the mean square of its differences
/// from the neighbours (Wolter 2007, Introduction to Variance Estimation, chapter 8), over t². Differences of L_t would count the
/// fall from part to part as if it were all within each. As if each term had been drawn: of the middles of the parts it is too much.
/// That each term has one draw of noise is not part of the error.
pub(super) fn estimate(asked: &[Term], all: usize, in_parts: bool) -> Option<BoundEstimate> {
    let prior = asked.iter().find(|term| term.kind == TermKind::Prior)?;
    asked.iter().find(|term| term.kind == TermKind::Decoder)?;
    let between = asked.iter().filter(|term| term.kind == TermKind::Transition);
    let between: Vec<&Term> = between.collect();
    let means: Vec<f64> = between.iter().map(|term| term.mean().0).collect();
    let (n, population) = (means.len() as f64, (all - 1) as f64);
    if means.is_empty() && all > 1 {
        return None;
    }
    let whole = |picture: usize| asked.iter().map(|term| term.stands_for * term.bits_per_dim[picture]).sum();
    let bits_per_dim: Vec<f64> = (0..prior.bits_per_dim.len()).map(whole).collect();
    let error_of_timesteps = match (n == population, means.len()) {
        (true, _) => Some(0.0),
        (false, 0 | 1) => None,
        (false, _) if in_parts => {
            // In the order of t, from 1 on.
            let mut parts: Vec<(f64, f64, f64)> = between
                .iter()
                .map(|term| (term.timestep.unwrap_or_default() as f64, term.stands_for, term.mean().0))
                .collect();
            if parts.first().zip(parts.last()).is_some_and(|(first, last)| first.0 > last.0) {
                parts.reverse();
            }
            let levels: Vec<f64> = parts.iter().map(|(t, _, mean)| t * mean).collect();
            let squares: Vec<f64> = levels.windows(2).map(|pair| (pair[1] - pair[0]) * (pair[1] - pair[0])).collect();
            let (mut from, mut variance) = (1.0, 0.0);
            for (index, (t, length, _)) in parts.into_iter().enumerate() {
                let neighbours = &squares[index.saturating_sub(1)..(index + 1).min(squares.len())];
                let of_level = neighbours.iter().sum::<f64>() / (2.0 * neighbours.len() as f64);
                let inverses = (0..length as usize).map(|step| 1.0 / (from + step as f64));
                let mean = inverses.clone().sum::<f64>() / length;
                let of_inverse = inverses.map(|inverse| (inverse - mean) * (inverse - mean)).sum::<f64>();
                // That of a population, N_h²·σ², is N_h·(N_h−1)·s² of a sample.
                variance +=
                    length * (length - 1.0) * of_level / (t * t) + length * of_inverse * levels[index] * levels[index];
                from += length;
            }
            Some(variance.sqrt())
        }
        (false, _) => Some(population * ((1.0 - n / population) * sample_variance(&means) / n).sqrt()),
    };
    let (mean, error_of_pictures) = mean(&bits_per_dim);
    Some(BoundEstimate { bits_per_dim, mean, error_of_timesteps, error_of_pictures })
}

/// The mean of `values`, and its standard error where there are several.
fn mean(values: &[f64]) -> (f64, Option<f64>) {
    let count = values.len() as f64;
    let error = (values.len() > 1).then(|| (sample_variance(values) / count).sqrt());
    (values.iter().sum::<f64>() / count, error)
}

fn sample_variance(values: &[f64]) -> f64 {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    values.iter().map(|value| (value - mean) * (value - mean)).sum::<f64>() / (count - 1.0)
}

#[cfg(test)]
mod tests {
    use super::super::timesteps::timesteps as choose;
    use super::*;
    use crate::pipeline::options::{BoundOptions, Timesteps};

    /// The terms of a chain of `all` timesteps whose L_t are `of`, as far as they are asked for.
    fn terms(timesteps: Timesteps, seed: u64, all: usize, of: impl Fn(usize) -> f64) -> Option<BoundEstimate> {
        let options = BoundOptions { timesteps, seed, ..BoundOptions::default() };
        let (asked, in_parts) = choose(&options, all).unwrap();
        let kind = |t| if t == 0 { TermKind::Decoder } else { TermKind::Transition };
        let term = |(t, stands_for)| Term {
            kind: kind(t),
            timestep: Some(t),
            stands_for,
            bits_per_dim: vec![of(t), 3.0 * of(t)],
        };
        let prior = Term { kind: TermKind::Prior, timestep: None, stands_for: 1.0, bits_per_dim: vec![0.25, 0.75] };
        let terms: Vec<Term> = std::iter::once(prior).chain(asked.into_iter().map(term)).collect();
        estimate(&terms, all, in_parts)
    }

    #[test]
    fn all_terms_are_the_bound_and_leave_no_error() {
        let found = terms(Timesteps::All, 0, 5, |t| t as f64).unwrap();
        assert_eq!(found.bits_per_dim, [10.25, 30.75]);
        assert_eq!((found.mean, found.error_of_timesteps), (20.5, Some(0.0)));
        // The deviation of two values is their difference over √2, and the error of their mean half the difference.
        assert!((found.error_of_pictures.unwrap() - 10.25).abs() < 1e-12);
    }

    #[test]
    fn without_the_decoder_or_any_other_term_there_is_no_estimate() {
        assert_eq!(terms(Timesteps::List(vec![1, 2]), 0, 5, |_| 1.0), None);
        assert_eq!(terms(Timesteps::Spread(1), 0, 5, |_| 1.0), None);
        assert_eq!(terms(Timesteps::List(vec![0, 2]), 0, 5, |_| 1.0).unwrap().error_of_timesteps, None);
        assert!(terms(Timesteps::All, 0, 1, |_| 1.0).is_some(), "a chain of one step has no others");
    }

    /// Over many draws, estimates lie around the bound, as far from it as they say.
    #[test]
    fn the_error_of_drawn_terms_is_what_they_are_off_by() {
        const ALL: usize = 1000;
        let rough = |t: usize| 0.3 / (t as f64 + 0.5) * (1.0 + 0.2 * libm::sin(t as f64));
        // It falls more slowly at first and faster at the end, as that of a trained network does.
        let smooth = |t: usize| 0.3 / (t as f64 + 8.0) * libm::exp(-(t as f64) / 400.0);
        for (count, of) in [(10, &rough as &dyn Fn(usize) -> f64), (40, &rough), (10, &smooth), (40, &smooth)] {
            let whole = terms(Timesteps::All, 0, ALL, of).unwrap().mean;
            let draws: Vec<BoundEstimate> =
                (0..400).map(|seed| terms(Timesteps::Drawn(count), seed, ALL, of).unwrap()).collect();
            let off = draws.iter().map(|draw| draw.mean - whole);
            let (bias, spread) = (off.clone().sum::<f64>() / 400.0, (off.map(|o| o * o).sum::<f64>() / 400.0).sqrt());
            let stated = draws.iter().filter_map(|draw| draw.error_of_timesteps).sum::<f64>() / 400.0;
            println!("{count}: {whole}, bias {bias}, spread {spread}, stated {stated}, ratio {}", stated / spread);
            assert!(bias.abs() < 4.0 * spread / 20.0, "off by {bias} on average, of a spread of {spread}");
            // Measured: 1.05 and 1.04, and where terms do not fall as 1/t 1.37 and 1.24.
            assert!((0.95..1.5).contains(&(stated / spread)), "it says {stated} and is {spread}");
        }
        // As many that are evenly spaced miss what lies between the first two.
        let whole = terms(Timesteps::All, 0, ALL, rough).unwrap().mean;
        let spread = terms(Timesteps::Spread(40), 0, ALL, rough).unwrap();
        let list = Timesteps::List((0..40).map(|i| i * 25).collect());
        let even = terms(list, 0, ALL, rough).unwrap().mean;
        let error = spread.error_of_timesteps.unwrap();
        println!("spread {} ± {error}, even {even} of {whole}", spread.mean);
        assert!((spread.mean - whole).abs() < error && error < 0.02 * whole, "{} ± {error} of {whole}", spread.mean);
        assert!((even - whole).abs() > 5.0 * error, "{even} of {whole}");
    }

    /// Of two parts and more: the fall from one to the next is none of the error.
    #[test]
    fn few_terms_state_an_error_above_what_they_are_off_by_and_below_the_bound() {
        for count in [3, 20, 50] {
            let of = |t: usize| 0.3 / (t as f64).max(0.5);
            let found = terms(Timesteps::Spread(count), 0, 1000, of).unwrap();
            let whole = terms(Timesteps::All, 0, 1000, of).unwrap().mean;
            let error = found.error_of_timesteps.unwrap();
            println!("{count}: {} ± {error} of {whole}", found.mean);
            assert!((found.mean - whole).abs() < error && error < whole, "{} ± {error} of {whole}", found.mean);
        }
    }
}
