//! One call of the network and the update after it.

use serde::Serialize;

use super::{
    clip::{Clip, LearnedVariance},
    terms::{HISTORY, Terms},
};
use crate::diffusion::{
    error::Error,
    schedule::{noising::Noising, prediction::Reading},
};

/// One call of the network and the update that follows it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Step {
    /// The timestep that the network is told; a fraction in some solvers.
    pub timestep: f64,
    /// The network's input is `input_scale`·x_t (`scale_model_input`).
    pub input_scale: f64,
    /// x̂_0 from x_t and the network's output, then [`clip`](Self::clip): the network's idea of the final sample.
    ///
    /// If Euler churns, the noise that it adds belongs to x̂_0 too; this leaves it out. x_{t−1} does not.
    pub x0: Reading,
    /// The clipping of x̂_0.
    pub clip: Clip,
    /// x_{t−1}.
    pub prev_sample: Terms,
    /// The content of each slot of the history after this step.
    pub history: [Terms; HISTORY],
    /// True if the step consumes one `randn` of the sample's shape from the random stream. It may do so only to
    /// multiply it with zero.
    pub draws_noise: bool,
    /// The factor of the noise, element by element, before [`prev_sample`](Self::prev_sample) takes its share:
    /// from the second half of the network's channels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learned_variance: Option<LearnedVariance>,
    /// The forward process at this step (`add_noise`), in the scale that this solver holds x_t in (see [`Noising`]).
    /// Image-to-image starts from it, and inpainting returns to it.
    pub forward: Noising,
}

/// The results of [`Step::apply`].
#[derive(Debug, Clone, PartialEq)]
pub struct Applied {
    /// x_{t−1}.
    pub prev_sample: Vec<f32>,
    /// x̂_0 after clipping.
    pub x0: Vec<f32>,
}

impl Step {
    /// A step that changes nothing, to be completed: the network is told `timestep`, where the process is at `forward`.
    pub(in crate::diffusion) fn at(timestep: f64, forward: Noising) -> Self {
        Self {
            timestep,
            input_scale: 1.0,
            x0: Reading::new(1.0, 0.0),
            clip: Clip::None,
            prev_sample: Terms::SAMPLE,
            history: Terms::HISTORY,
            draws_noise: false,
            learned_variance: None,
            forward,
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
            .map(|(i, &x)| self.x0.sample * f64::from(x) + self.x0.output * f64::from(model_output[at(i, 0)]))
            .collect();
        x0.chunks_mut(image_len.max(1)).for_each(|image| self.clip.apply(image));

        let mut prev_sample = Vec::with_capacity(len);
        for (i, (&x, &x0)) in sample.iter().zip(&x0).enumerate() {
            let output = model_output[at(i, 0)];
            let std = learned_variance.map_or(1.0, |learned| learned.std(f64::from(model_output[at(i, 1)])));
            let z = std * noise.map_or(0.0, |noise| f64::from(noise[i]));
            let slots: [f64; HISTORY] = std::array::from_fn(|slot| f64::from(history[slot][i]));
            let now = Terms { sample: x.into(), model_output: output.into(), x0, noise: z, history: slots };
            prev_sample.push(self.prev_sample.dot(&now) as f32);
            for (slot, terms) in history.iter_mut().zip(&self.history) {
                slot[i] = terms.dot(&now) as f32;
            }
        }
        Ok(Applied { prev_sample, x0: x0.into_iter().map(|x| x as f32).collect() })
    }

    pub(in crate::diffusion) fn is_finite(&self) -> bool {
        [self.timestep, self.input_scale, self.forward.signal, self.forward.noise].iter().all(|value| value.is_finite())
            && self.x0.is_finite()
            && self.prev_sample.is_finite()
            && self.history.iter().all(Terms::is_finite)
            && match self.learned_variance {
                Some(LearnedVariance::LearnedRange { min_log, max_log }) => min_log.is_finite() && max_log.is_finite(),
                Some(LearnedVariance::Learned) | None => true,
            }
    }
}
