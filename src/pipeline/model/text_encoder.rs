//! Token ids to text embeddings: embedding tables, `CLIPTextModel`, `CLIPTextModelWithProjection`.

use super::weight_file::{HostTable, WeightFile};
use crate::device::{Device, Program, Weights, floats};
use crate::graph::WeightSpec;
use crate::models::{self, ClipTextConfig};
use crate::pipeline::error::Error;

/// A `CLIPTextModel` or `CLIPTextModelWithProjection` on a device.
#[derive(Debug)]
pub struct TextEncoder {
    config: ClipTextConfig,
    token_embedding: HostTable,
    position_embedding: HostTable,
    weights: Weights,
}

/// The text encoder's output for token ids.
#[derive(Clone, Debug, PartialEq)]
pub struct TextEmbeddings {
    /// Hidden states after each of the numbers of layers that were asked for (0: the embeddings themselves), `[rows, tokens,
    /// hidden_size]`.
    pub hidden_states: Vec<Vec<f32>>,
    /// Hidden states after the final norm.
    pub last_hidden_state: Vec<f32>,
    /// `last_hidden_state` at the end of each text, `[rows, hidden_size]`.
    pub pooler_output: Vec<f32>,
    /// The projection of `pooler_output`, `[rows, projection_dim]`; empty in a `CLIPTextModel`.
    pub text_embeds: Vec<f32>,
}

impl TextEncoder {
    /// The weights that the encoder needs: on the device, and on the host.
    ///
    /// # Errors
    /// If the config's numbers do not fit each other.
    pub fn weights(config: &ClipTextConfig) -> Result<(Vec<WeightSpec>, Vec<HostTable>), models::Error> {
        let graph = config.graph(1, 1)?;
        let (width, positions) = (config.hidden_size, config.max_position_embeddings);
        let tables = vec![
            HostTable::new("embeddings.token_embedding.weight", config.vocab_size, width),
            HostTable::new("embeddings.position_embedding.weight", positions, width),
        ];
        Ok((graph.weights().to_vec(), tables))
    }

    /// Loads the encoder from its open weights.
    ///
    /// # Errors
    /// As [`WeightFile::load`].
    pub async fn load(
        config: ClipTextConfig,
        file: WeightFile,
        device: &Device,
        on_bytes: &mut dyn FnMut(u64),
    ) -> Result<Self, Error> {
        let (weights, tables) = file.load(device, on_bytes).await?;
        Self::new(config, weights, tables)
    }

    /// The encoder of what was loaded for [`TextEncoder::weights`].
    ///
    /// # Errors
    /// If the tables are not those.
    pub fn new(config: ClipTextConfig, weights: Weights, tables: Vec<HostTable>) -> Result<Self, Error> {
        let mut tables = tables.into_iter();
        let (Some(token_embedding), Some(position_embedding)) = (tables.next(), tables.next()) else {
            return Err(Error::Input { name: "input_ids".into(), message: "the embeddings were not opened".into() });
        };
        Ok(Self { config, token_embedding, position_embedding, weights })
    }

    /// The config that it was loaded with.
    pub fn config(&self) -> &ClipTextConfig {
        &self.config
    }

    /// The weights that lie on the device: all but the embeddings.
    pub(in crate::pipeline) fn device_weights(&self) -> &Weights {
        &self.weights
    }

    /// Encodes `texts` of equally many token ids. `states`, ascending, are the numbers of layers after which a state is wanted.
    ///
    /// # Errors
    /// If an id or the length is beyond the model, or the device fails.
    pub async fn encode(&self, device: &Device, texts: &[&[u32]], states: &[usize]) -> Result<TextEmbeddings, Error> {
        let tokens = texts.first().map_or(0, |ids| ids.len());
        let width = self.config.hidden_size;
        let mut embeds = vec![0.0; texts.len() * tokens * width];
        let rows = texts.iter().flat_map(|ids| ids.iter().take(tokens).enumerate());
        for (row, (position, &id)) in embeds.chunks_exact_mut(width.max(1)).zip(rows) {
            if !self.token_embedding.add_row(id as usize, row) {
                let message = format!("token {id} is not in the vocabulary of {}", self.config.vocab_size);
                return Err(Error::Input { name: "input_ids".into(), message });
            }
            if !self.position_embedding.add_row(position, row) {
                let message = format!("{tokens} tokens, the model takes {}", self.config.max_position_embeddings);
                return Err(Error::Input { name: "input_ids".into(), message });
            }
        }
        let graph = self.config.graph_with_states(texts.len(), tokens, states);
        let graph = graph.map_err(|e| Error::model("text_encoder/config.json", e))?;
        let names: Vec<&str> = graph.outputs().iter().map(|(name, _)| name.as_str()).collect();
        let mut program = Program::compile(device, &graph, &[&self.weights]).await?;
        program.write("inputs_embeds", &embeds)?;
        program.run().await?;
        let outputs = program.read(&names).await?;
        let mut outputs: Vec<Vec<f32>> = outputs.into_iter().map(floats).collect();
        // What a network made of the tokens of each text, at the one that stands for the whole.
        let pooled = |state: &[f32], width: usize| -> Vec<f32> {
            let of_texts = texts.iter().zip(state.chunks_exact((tokens * width).max(1)));
            let rows = of_texts.map(|(ids, state)| &state[self.config.pooled_position(ids) * width..][..width]);
            rows.flatten().copied().collect()
        };
        let text_embeds = match self.config.projection_dim {
            Some(width) => pooled(&outputs.pop().unwrap_or_default(), width),
            None => Vec::new(),
        };
        let last_hidden_state = outputs.pop().unwrap_or_default();
        let pooler_output = pooled(&last_hidden_state, width);
        let embeds = states.first().filter(|&&layers| layers == 0).map(|_| embeds);
        let hidden_states = embeds.into_iter().chain(outputs).collect();
        Ok(TextEmbeddings { hidden_states, last_hidden_state, pooler_output, text_embeds })
    }

    /// The final norm of a hidden state of `rows` texts: what a prompt's embeddings are where the last layers are skipped.
    ///
    /// # Errors
    /// If the device fails.
    pub async fn final_layer_norm(&self, device: &Device, rows: usize, state: &[f32]) -> Result<Vec<f32>, Error> {
        let tokens = state.len() / (rows * self.config.hidden_size).max(1);
        let graph = self.config.final_layer_norm(rows, tokens);
        let graph = graph.map_err(|e| Error::model("text_encoder/config.json", e))?;
        let mut program = Program::compile(device, &graph, &[&self.weights]).await?;
        program.write("hidden_state", state)?;
        program.run().await?;
        Ok(program.read_f32("last_hidden_state").await?)
    }
}
