//! One step as one graph: a call of the network, and the update after it.

use crate::diffusion::{Clip, LearnedVariance, Step, Terms};
use crate::graph::{Activation, Builder, Graph, NodeId, Scope, update};
use crate::models::Error;
use crate::pipeline::model::denoiser::Denoiser;

/// The properties of a step.
#[derive(Clone, Copy, Debug)]
pub(in crate::pipeline) struct StepGraph {
    /// `[batch, channels, height, width]` of x_t.
    pub latents: [usize; 4],
    /// Whether the network sees the batch twice, without the prompt first.
    pub guided: bool,
    /// φ of the guidance, where it is above 0.
    pub guidance_rescale: f32,
    /// Text tokens that the network sees.
    pub tokens: usize,
    /// Channels that the network sees beside x_t.
    pub extra_channels: usize,
    /// Whether a part of the picture is kept: overwritten with the given picture after each step.
    pub keeps: bool,
    /// Ratio and largest value of dynamic thresholding.
    pub threshold: Option<(f32, f32)>,
    /// The way in which the network's second half of channels becomes the deviation of the noise.
    pub learned: Option<LearnedVariance>,
}

impl StepGraph {
    /// The graph around `unet`.
    ///
    /// Inputs: `sample` x_t, `input_scale`, `noise`, `history`, `coefficients`, the network's own; where there are extra
    /// channels `extra` `[batch, channels, height, width]`; where a part is kept `kept` and `kept_noise` like the sample,
    /// `forward` `[2]`, how much to take of each, and `mask` `[1, 1, height, width]`, 1 where it is drawn; where the variance is
    /// learned `variance_line` `[2]`. Outputs: `frames` the
    /// new sample and x̂_0 one after the other, `prev_sample` the new sample, `history`, `model_output` before guidance.
    ///
    /// # Errors
    /// If the network cannot be built at this size.
    pub fn build(&self, unet: &Denoiser) -> Result<Graph, Error> {
        let builder = Builder::new();
        let root = builder.root();
        let [batch, channels, height, width] = self.latents;
        let sample = root.input("sample", &self.latents)?;
        let input_scale = root.input("input_scale", &[1, 1, 1, 1])?;
        let noise = root.input("noise", &self.latents)?;
        let history = root.input("history", &[update::HISTORY * batch, channels, height, width])?;
        let coefficients = root.input("coefficients", &[update::COEFFICIENTS])?;

        let mut input = root.mul(sample, input_scale)?;
        if self.extra_channels > 0 {
            let extra = root.input("extra", &[batch, self.extra_channels, height, width])?;
            input = root.concat(&[input, extra], 1)?;
        }
        if self.guided {
            input = root.concat(&[input, input], 0)?;
        }
        let output = unet.add_to(&root, input, self.tokens)?;

        let scope = root.at("update");
        let (mut noise, model_output) = (noise, output);
        let mut output = output;
        if root.shape(output)[1] == 2 * channels {
            output = scope.slice(output, 1, 0, channels)?;
            if let Some(learned) = self.learned {
                let deviation = match learned {
                    LearnedVariance::Learned => Activation::Sqrt,
                    LearnedVariance::LearnedRange { .. } => Activation::Exp,
                };
                let variance = scope.slice(model_output, 1, channels, channels)?;
                noise = scope.learned_noise(noise, variance, root.input("variance_line", &[2])?, deviation)?;
            }
        }
        // Guidance is part of the update, unless something comes in between.
        let alone = self.guidance_rescale > 0.0 || self.threshold.is_some();
        let guided = match self.guided && alone {
            true => scope.guidance(output, coefficients, self.guidance_rescale)?,
            false => output,
        };
        let x0 = match self.threshold {
            Some((ratio, max_value)) => {
                let x0 = scope.predict_x0(sample, guided, coefficients)?;
                Some(scope.threshold(x0, ratio, max_value)?)
            }
            None => None,
        };
        let updated = scope.linear_update(sample, guided, noise, history, coefficients, x0)?;
        let part = |first: usize, count: usize| scope.slice(updated, 0, first * batch, count * batch);
        let (mut prev_sample, mut frames) = (part(0, 1)?, part(0, 2)?);
        if self.keeps {
            prev_sample = self.keep(&root, prev_sample)?;
            frames = root.concat(&[prev_sample, part(1, 1)?], 0)?;
        }
        root.output("frames", frames);
        root.output("prev_sample", prev_sample);
        root.output("history", part(2, update::HISTORY)?);
        root.output("model_output", model_output);
        Ok(builder.finish())
    }

    /// (1 − mask)·(a·kept + b·kept_noise) + mask·`sample`.
    fn keep(&self, root: &Scope, sample: NodeId) -> Result<NodeId, crate::graph::Error> {
        let scope = root.at("keep");
        let [_, _, height, width] = self.latents;
        let (kept, noise) = (root.input("kept", &self.latents)?, root.input("kept_noise", &self.latents)?);
        let mask = root.input("mask", &[1, 1, height, width])?;
        let forward = root.input("forward", &[2])?;
        let level = |index: usize| scope.reshape(scope.slice(forward, 0, index, 1)?, &[1, 1, 1, 1]);
        let noised = scope.add(scope.mul(kept, level(0)?)?, scope.mul(noise, level(1)?)?)?;
        let outside = scope.mul(noised, scope.affine(mask, -1.0, 1.0)?)?;
        scope.add(outside, scope.mul(sample, mask)?)
    }
}

/// The coefficients of one step, rounded once from f64.
pub(in crate::pipeline) fn coefficients(step: &Step, guidance_scale: f64) -> [f32; update::COEFFICIENTS] {
    let mut all = [0.0; update::COEFFICIENTS];
    all[update::GUIDANCE] = guidance_scale as f32;
    all[update::X0_SAMPLE] = step.x0.sample as f32;
    all[update::X0_OUTPUT] = step.x0.output as f32;
    all[update::CLIP] = match step.clip {
        Clip::Range(range) => range as f32,
        Clip::None | Clip::Threshold { .. } => f32::MAX,
    };
    let rows = std::iter::once(&step.prev_sample).chain(&step.history);
    for (row, terms) in all[update::ROWS..].chunks_exact_mut(update::TERMS).zip(rows) {
        let Terms { sample, model_output, x0, noise, history } = *terms;
        row.iter_mut()
            .zip([sample, model_output, x0, noise].into_iter().chain(history))
            .for_each(|(out, value)| *out = value as f32);
    }
    all
}

/// `variance_line` of one step, for a graph that has learned the variance in this way; where no noise is drawn, a deviation of
/// 1 whatever the network says.
pub(in crate::pipeline) fn variance_line(kind: LearnedVariance, step: &Step) -> [f32; 2] {
    match (kind, step.learned_variance.filter(|_| step.draws_noise)) {
        (_, Some(LearnedVariance::Learned)) => [1.0, 0.0],
        (_, Some(LearnedVariance::LearnedRange { min_log, max_log })) => {
            [((max_log - min_log) / 4.0) as f32, ((max_log + min_log) / 4.0) as f32]
        }
        (LearnedVariance::Learned, None) => [0.0, 1.0],
        (LearnedVariance::LearnedRange { .. }, None) => [0.0, 0.0],
    }
}
