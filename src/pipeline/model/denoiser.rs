//! The noise predictor ε_θ(x_t, t), whichever class of network it is.

use super::weight_file::HostTable;
use crate::graph::{Graph, NodeId, Scope};
use crate::models::{self, CLASS_EMBEDDING, Unet2dConditionConfig, Unet2dConditionInputs, Unet2dConfig};

/// The noise predictor.
#[derive(Clone, Debug)]
pub(in crate::pipeline) enum Denoiser {
    Unconditional(Unet2dConfig),
    Conditional(Unet2dConditionConfig),
}

impl Denoiser {
    /// The `UNet2DModel` that `json` describes.
    ///
    /// # Errors
    /// If it describes none that is supported.
    pub fn unconditional(json: &str) -> Result<Self, models::Error> {
        Ok(Self::Unconditional(Unet2dConfig::from_json(json)?))
    }

    /// The `UNet2DConditionModel` that `json` describes.
    ///
    /// # Errors
    /// If it describes none that is supported.
    pub fn conditional(json: &str) -> Result<Self, models::Error> {
        Ok(Self::Conditional(Unet2dConditionConfig::from_json(json)?))
    }

    /// `[height, width]` of the samples that it was trained on, if its config says so.
    pub fn sample_size(&self) -> Option<[usize; 2]> {
        match self {
            Self::Unconditional(config) => config.sample_size,
            Self::Conditional(config) => config.sample_size,
        }
    }

    /// Length of the embedding of the guidance scale, for networks that are told of it.
    pub fn time_cond_proj_dim(&self) -> Option<usize> {
        match self {
            Self::Conditional(config) => config.time_cond_proj_dim,
            Self::Unconditional(_) => None,
        }
    }

    /// Channels of its input.
    pub fn in_channels(&self) -> usize {
        match self {
            Self::Unconditional(config) => config.in_channels,
            Self::Conditional(config) => config.in_channels,
        }
    }

    /// Channels of its output.
    pub fn out_channels(&self) -> usize {
        match self {
            Self::Unconditional(config) => config.out_channels,
            Self::Conditional(config) => config.out_channels,
        }
    }

    /// The network at a size that is large enough for every down block; its weights do not depend on it.
    ///
    /// # Errors
    /// If the config's numbers do not fit each other.
    pub fn graph(&self) -> Result<Graph, models::Error> {
        const SIDE: usize = 64;
        match self {
            Self::Unconditional(config) => config.graph(1, SIDE, SIDE),
            Self::Conditional(config) => {
                let timestep_cond = config.time_cond_proj_dim.is_some();
                config.graph(Unet2dConditionInputs { batch: 1, height: SIDE, width: SIDE, tokens: 1, timestep_cond })
            }
        }
    }

    /// Adds the network to a graph whose `sample` is made there, with as many text tokens as the prompts have; the other inputs
    /// are added under their names.
    ///
    /// # Errors
    /// If the network cannot be built at this size.
    pub fn add_to(&self, root: &Scope, sample: NodeId, tokens: usize) -> Result<NodeId, models::Error> {
        match self {
            Self::Unconditional(config) => config.add_to(root, sample),
            Self::Conditional(config) => {
                let rows = root.shape(sample)[0];
                config.add_to(root, sample, rows, tokens, config.time_cond_proj_dim.is_some())
            }
        }
    }

    /// The tables on the host: the embeddings of classes.
    pub fn tables(&self) -> Vec<HostTable> {
        let table = match self {
            Self::Unconditional(config) => config.class_embedding(),
            Self::Conditional(config) => config.class_embedding(),
        };
        table.map(|[rows, columns]| HostTable::new(CLASS_EMBEDDING, rows, columns)).into_iter().collect()
    }
}
