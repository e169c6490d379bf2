//! `CLIPTextModel` and `CLIPTextModelWithProjection`: token ids to text embeddings.

use super::Error;
use super::config::ConfigReader;
use crate::graph::{Activation, Builder, Graph, NodeId, Scope};

/// The config of a `CLIPTextModel` or `CLIPTextModelWithProjection`, under transformers' names.
#[derive(Clone, Debug, PartialEq)]
pub struct ClipTextConfig {
    /// Number of tokens of the vocabulary.
    pub vocab_size: usize,
    /// Width of the embeddings.
    pub hidden_size: usize,
    /// Longest sequence of tokens.
    pub max_position_embeddings: usize,
    /// Token that ends a text; its embedding is the pooled one.
    pub eos_token_id: u32,
    /// Width of `text_embeds`; `None` in a `CLIPTextModel`, which has none.
    pub projection_dim: Option<usize>,
    intermediate_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    num_attention_heads: usize,
    hidden_act: Activation,
    layer_norm_eps: f32,
}

impl ClipTextConfig {
    /// Reads a `config.json`.
    ///
    /// # Errors
    /// If it is the config of neither class, or asks for something that is not implemented.
    pub fn from_json(json: &str) -> Result<Self, Error> {
        Self::of_class(json, None)
    }

    /// Reads the `config.json` of a `class`, whatever class the config itself names; without one, that is it. Of a whole CLIP's config the
    /// text model's is read.
    ///
    /// # Errors
    /// As [`Self::from_json`].
    pub fn of_class(json: &str, class: Option<&str>) -> Result<Self, Error> {
        let c = ConfigReader::new("CLIPTextModel", json)?;
        let architectures: Vec<String> = c.get("architectures", vec![])?;
        let projects = match class.or(architectures.first().map(String::as_str)) {
            None | Some("CLIPTextModel") => false,
            Some("CLIPTextModelWithProjection") => true,
            Some(other) if class.is_some() => {
                return Err(c.error(format!("the pipeline asks for a {other}, which is not supported")));
            }
            Some(_) => {
                return Err(c.unsupported("architectures", "`CLIPTextModel` or `CLIPTextModelWithProjection` is"));
            }
        };
        let c = c.section("text_config");
        // Keys of a transformers config are many and mostly about generation; those below define the network.
        let config = Self {
            vocab_size: c.size("vocab_size", 49408)?,
            hidden_size: c.size("hidden_size", 512)?,
            max_position_embeddings: c.size("max_position_embeddings", 77)?,
            eos_token_id: c.get("eos_token_id", 49407)?,
            projection_dim: if projects { Some(c.size("projection_dim", 512)?) } else { None },
            intermediate_size: c.size("intermediate_size", 2048)?,
            num_hidden_layers: c.size_up_to("num_hidden_layers", 12, 256)?,
            num_attention_heads: c.size("num_attention_heads", 8)?,
            hidden_act: c.activation("hidden_act", Activation::QuickGelu)?,
            layer_norm_eps: c.get("layer_norm_eps", 1e-5)?,
        };
        Ok(config)
    }

    /// The network for `batch` texts of `tokens` tokens.
    ///
    /// Input: `inputs_embeds` `[batch, tokens, hidden_size]`, the sum of token and position embeddings, which are looked up
    /// outside. Outputs: `hidden_states/i` after i layers and `last_hidden_state` after the final norm, all
    /// `[batch, tokens, hidden_size]`; with a projection also `text_embeds` `[batch, tokens, projection_dim]`, of every token,
    /// of which the pooled one's is the text's.
    ///
    /// # Errors
    /// If the config's numbers do not fit each other.
    pub fn graph(&self, batch: usize, tokens: usize) -> Result<Graph, Error> {
        self.graph_with_states(batch, tokens, &(1..=self.num_hidden_layers).collect::<Vec<_>>())
    }

    /// The graph of [`Self::graph`], with the outputs `hidden_states/i` of the layers i in `states` and of no others.
    ///
    /// # Errors
    /// As [`Self::graph`].
    pub fn graph_with_states(&self, batch: usize, tokens: usize, states: &[usize]) -> Result<Graph, Error> {
        let builder = Builder::new();
        let root = builder.root();
        let mut x = root.input("inputs_embeds", &[batch, tokens, self.hidden_size])?;
        for index in 0..self.num_hidden_layers {
            x = self.layer(&root.at(format_args!("encoder.layers.{index}")), x)?;
            if states.contains(&(index + 1)) {
                root.output(&format!("hidden_states/{}", index + 1), x);
            }
        }
        let last = root.at("final_layer_norm").layer_norm(x, self.layer_norm_eps)?;
        root.output("last_hidden_state", last);
        if let Some(projection_dim) = self.projection_dim {
            root.output("text_embeds", root.at("text_projection").linear(last, projection_dim, false)?);
        }
        Ok(builder.finish())
    }

    /// The final norm by itself, for a hidden state that is not the last (diffusers' `clip_skip`): input `hidden_state`,
    /// output `last_hidden_state`, both `[batch, tokens, hidden_size]`. Its weights are among those of [`Self::graph`].
    ///
    /// # Errors
    /// As [`Self::graph`].
    pub fn final_layer_norm(&self, batch: usize, tokens: usize) -> Result<Graph, Error> {
        let builder = Builder::new();
        let root = builder.root();
        let x = root.input("hidden_state", &[batch, tokens, self.hidden_size])?;
        let normed = root.at("final_layer_norm").layer_norm(x, self.layer_norm_eps)?;
        root.output("last_hidden_state", normed);
        Ok(builder.finish())
    }

    /// `CLIPEncoderLayer`.
    fn layer(&self, scope: &Scope, x: NodeId) -> Result<NodeId, Error> {
        let norm = |name, x| scope.at(name).layer_norm(x, self.layer_norm_eps);
        let h = norm("layer_norm1", x)?;
        let attention = scope.at("self_attn");
        let project = |name: &str, h| attention.at(name).linear(h, self.hidden_size, true);
        let (q, k, v) = (project("q_proj", h)?, project("k_proj", h)?, project("v_proj", h)?);
        let h = attention.attention(q, k, v, self.num_attention_heads, true)?;
        let x = scope.add(project("out_proj", h)?, x)?;
        let h = scope.at("mlp.fc1").linear(norm("layer_norm2", x)?, self.intermediate_size, true)?;
        let h = scope.activate(h, self.hidden_act)?;
        let h = scope.at("mlp.fc2").linear(h, self.hidden_size, true)?;
        Ok(scope.add(h, x)?)
    }

    /// Position of the token whose embedding is the pooled one. Configs from before transformers 4.31 say 2 and mean the
    /// largest id; otherwise it is the first `eos_token_id`, or the first token where there is none.
    pub fn pooled_position(&self, ids: &[u32]) -> usize {
        if self.eos_token_id == 2 {
            let largest = ids.iter().max();
            return ids.iter().position(|id| Some(id) == largest).unwrap_or(0);
        }
        ids.iter().position(|&id| id == self.eos_token_id).unwrap_or(0)
    }
}
