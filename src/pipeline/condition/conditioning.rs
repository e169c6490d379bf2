//! The inputs of the network beside x_t and the timestep: texts, sizes, guidance scale, noise level.

use super::prompts::{Prompts, Texts};
use crate::device::Program;
use crate::graph::{Graph, Split, fuse, split};
use crate::models::guidance_scale_embedding;
use crate::pipeline::error::Error;
use crate::pipeline::model::load::Parts;
use crate::pipeline::model::text_encoder::TextEncoder;
use crate::pipeline::options::SampleOptions;

/// Values that the network is to be told.
#[derive(Clone, Copy, Debug)]
pub(in crate::pipeline) struct Conditions<'a> {
    /// Guidance scale, layers of the text encoders, sizes.
    pub options: &'a SampleOptions,
    /// The texts, where the model has a text encoder: as many as there are pictures, or as many in a row of each as
    /// `num_images_per_prompt` says.
    pub prompts: Option<&'a Prompts>,
    /// `[batch, channels, height, width]` of x_t.
    pub latents: [usize; 4],
    /// Whether every picture has an unconditional half.
    pub guided: bool,
    /// Whether the sizes of the negative prompt are those of a run from noise alone.
    pub from_noise: bool,
    /// Upscaler: the level of noise in its small picture.
    pub noise_level: Option<usize>,
}

impl Conditions<'_> {
    /// Rows of the network's batch.
    fn rows(&self) -> usize {
        if self.guided { 2 * self.latents[0] } else { self.latents[0] }
    }
}

/// The network's inputs that stay the same over a run.
#[derive(Debug, Default)]
pub(in crate::pipeline) struct Conditioning(Vec<(&'static str, Vec<f32>)>);

impl Conditioning {
    /// Encodes the texts of `told`, and works out the rest.
    ///
    /// # Errors
    /// The device's refusal.
    pub async fn new(parts: &Parts, told: Conditions<'_>) -> Result<Self, Error> {
        let mut inputs = Vec::new();
        if let Some(prompts) = told.prompts {
            let (mut states, mut pooled) = (Vec::new(), Vec::new());
            for (encoder, texts) in parts.texts.iter().zip(&prompts.encoders) {
                let (encoded, text_embeds) = encode(parts, told, encoder, texts).await?;
                states.push((encoded, encoder.config().hidden_size));
                // Those of the last encoder, which is the one that projects.
                pooled = text_embeds;
            }
            inputs.push(("encoder_hidden_states", side_by_side(&states)));
            if parts.model.takes_sizes() {
                inputs.push(("added_cond_kwargs.text_embeds", pooled));
                inputs.push(("added_cond_kwargs.time_ids", time_ids(parts, told)));
            }
        }
        if let Some(dim) = parts.model.unet.time_cond_proj_dim() {
            let embedding = guidance_scale_embedding(told.options.guidance_scale as f32, dim);
            inputs.push(("timestep_cond", embedding.repeat(told.rows())));
        }
        if let Some(noise_level) = told.noise_level {
            inputs.push(("class_labels", parts.class_label(noise_level).repeat(told.rows())));
        }
        Ok(Self(inputs))
    }

    /// Compiles `graph`, a step, with these inputs filled. What depends on them alone is computed here, once for the run.
    ///
    /// # Errors
    /// The device's refusal, or a value that is not finite.
    pub async fn compile(&self, parts: &Parts, graph: &Graph) -> Result<Program, Error> {
        let names: Vec<&str> = self.0.iter().map(|&(name, _)| name).collect();
        // Fused before it is split: a residual of the step then belongs to the product that it is added to.
        let Split { once, each } = split(&fuse(graph), &names);
        let mut step = Program::compile(&parts.device, &each, &[&parts.unet]).await?;
        if !once.outputs().is_empty() {
            let mut prepare = Program::compile(&parts.device, &once, &[&parts.unet]).await?;
            self.write(&mut prepare, &once)?;
            prepare.run().await?;
            // Reading is what finds a value that is not finite on a GPU.
            prepare.read(&[]).await?;
            once.outputs().iter().try_for_each(|(name, _)| step.copy_from(name, &prepare, name))?;
        }
        self.write(&mut step, &each)?;
        Ok(step)
    }

    /// Fills those inputs that `program` has, whose graph is `graph`.
    fn write(&self, program: &mut Program, graph: &Graph) -> Result<(), Error> {
        let here = self.0.iter().filter(|(name, _)| graph.input(name).is_ok());
        Ok(here.into_iter().try_for_each(|(name, data)| program.write(name, data))?)
    }
}

/// The texts for one encoder as rows of the batch, negative ones first: hidden states `[rows, tokens, hidden_size]`, and
/// pooled `[rows, projection_dim]` where the encoder projects.
async fn encode(
    parts: &Parts,
    told: Conditions<'_>,
    encoder: &TextEncoder,
    texts: &Texts,
) -> Result<(Vec<f32>, Vec<f32>), Error> {
    let rows: Vec<&[u32]> = texts.negatives.iter().chain(&texts.prompts).flatten().map(Vec::as_slice).collect();
    let negatives = texts.negatives.iter().flatten().count();
    // The negative prompt is not shortened by `clip_skip`.
    let backs = [0, told.options.clip_skip.unwrap_or(0)].map(|skip| skip + usize::from(parts.model.takes_sizes()));
    let layers = encoder.config().num_hidden_layers;
    // In ascending order: the prompt's is the earlier one.
    let mut wanted: Vec<usize> =
        backs.iter().rev().filter(|&&back| back > 0).map(|back| layers.saturating_sub(*back)).collect();
    wanted.dedup();
    let encoded = encoder.encode(&parts.device, &rows, &wanted).await?;
    let mut halves = Vec::new();
    for (back, part) in backs.into_iter().zip([0..negatives, negatives..rows.len()]) {
        let state = wanted.iter().position(|&after| after + back == layers);
        let state = state.and_then(|index| encoded.hidden_states.get(index));
        let state = state.map_or(&[][..], |state| rows_of(state, rows.len(), &part));
        let state = match (parts.model.takes_sizes(), back) {
            // SDXL was trained on what comes out of the last layer but one, as it is.
            (true, _) => state.to_vec(),
            (false, 0) => rows_of(&encoded.last_hidden_state, rows.len(), &part).to_vec(),
            (false, _) => encoder.final_layer_norm(&parts.device, part.len(), state).await?,
        };
        halves.push((state, rows_of(&encoded.text_embeds, rows.len(), &part)));
    }
    let (mut states, mut pooled) = (Vec::new(), Vec::new());
    let (count, each) = (texts.prompts.len(), told.options.num_images_per_prompt);
    let chunks = rows.len() / (count + texts.negatives.len()).max(1);
    if told.guided && negatives == 0 {
        // An absent negative prompt of SDXL.
        let rows = count * each;
        let [_, (state, embeds)] = &halves[..] else { return Ok((states, pooled)) };
        states = vec![0.0; state.len() / count * rows];
        pooled = vec![0.0; embeds.len() / (count * chunks) * rows];
    }
    for (state, embeds) in &halves {
        repeat(&mut states, state, count, each);
        // The pooled text is that of the first chunk.
        let width = embeds.len() / (count * chunks);
        let firsts: Vec<f32> =
            embeds.chunks_exact((width * chunks).max(1)).flat_map(|text| &text[..width]).copied().collect();
        repeat(&mut pooled, &firsts, count, each);
    }
    Ok((states, pooled))
}

/// Rows `part` of `data`, which has `rows` of them.
fn rows_of<'a>(data: &'a [f32], rows: usize, part: &std::ops::Range<usize>) -> &'a [f32] {
    let width = data.len() / rows.max(1);
    &data[part.start * width..part.end * width]
}

/// Adds each of the `rows` of `data` `each` times.
fn repeat(out: &mut Vec<f32>, data: &[f32], rows: usize, each: usize) {
    data.chunks_exact((data.len() / rows).max(1)).for_each(|row| (0..each).for_each(|_| out.extend(row)));
}

/// The states of several encoders `[rows, tokens, width]` as one, `[rows, tokens, sum of widths]`.
fn side_by_side(states: &[(Vec<f32>, usize)]) -> Vec<f32> {
    let rows = states.first().map_or(0, |(data, width)| data.len() / (*width).max(1));
    let row = |index: usize| states.iter().flat_map(move |(data, width)| &data[index * width..][..*width]);
    (0..rows).flat_map(row).copied().collect()
}

/// SDXL's `add_time_ids` for each row: original size, crop and target size, those of the negative prompt first.
fn time_ids(parts: &Parts, told: Conditions<'_>) -> Vec<f32> {
    let [batch, _, height, width] = told.latents;
    let size = [height, width].map(|side| side * parts.model.info.scale_factor);
    let [negative, positive] = sizes(told.options, size, told.from_noise);
    let rows =
        |ids: [[usize; 2]; 3]| ids.as_flattened().iter().map(|&side| side as f32).collect::<Vec<_>>().repeat(batch);
    if told.guided { [rows(negative), rows(positive)].concat() } else { rows(positive) }
}

/// Original size, crop and target size that the negative and the positive prompt go with, in a run of `size`.
fn sizes(options: &SampleOptions, size: [usize; 2], from_noise: bool) -> [[[usize; 2]; 3]; 2] {
    let (original, target) = (options.original_size.unwrap_or(size), options.target_size.unwrap_or(size));
    let crop = options.crops_coords_top_left;
    let positive = [original, crop, target];
    let negative = match (options.negative_original_size, options.negative_target_size) {
        (Some(original), Some(target)) if from_noise => [original, options.negative_crops_coords_top_left, target],
        // diffusers' text-to-image takes both sizes or neither.
        _ if from_noise => positive,
        // Its other pipelines fill in the one that is missing, and have one crop for both prompts.
        (negative_original, negative_target) => {
            [negative_original.unwrap_or(original), crop, negative_target.unwrap_or(target)]
        }
    };
    [negative, positive]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sizes_of_the_negative_prompt_are_those_that_diffusers_tells_the_network() {
        let run = [64, 32];
        let options = SampleOptions {
            original_size: Some([9, 8]),
            crops_coords_top_left: [1, 2],
            negative_original_size: Some([7, 6]),
            negative_crops_coords_top_left: [3, 4],
            ..SampleOptions::default()
        };
        let positive = [[9, 8], [1, 2], run];
        assert_eq!(sizes(&options, run, true), [positive, positive], "of two sizes, one is none");
        assert_eq!(sizes(&options, run, false), [[[7, 6], [1, 2], run], positive]);
        let both = SampleOptions { negative_target_size: Some([5, 5]), ..options };
        assert_eq!(sizes(&both, run, true), [[[7, 6], [3, 4], [5, 5]], positive]);
        assert_eq!(sizes(&both, run, false), [[[7, 6], [1, 2], [5, 5]], positive]);
    }
}
