//! The networks that are timed.
//!
//! | name | what it is |
//! |---|---|
//! | `emoji64` | the UNet of the model that the site ships, batch 2 as with guidance |
//! | `cifar` | a UNet of the shape of google/ddpm-cifar10-32, 35.7 M parameters, batch 1 |
//! | `small` | a conditional UNet whose width, side and batch are varied |
//! | `sd15` | a UNet of the shape of Stable Diffusion 1.5, batch 2 |

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde_json::Value;
use undiffuse::graph::Graph;
use undiffuse::models::{Unet2dConditionConfig, Unet2dConditionInputs, Unet2dConfig};

use crate::weights::Weights;

/// Which network.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Name {
    Emoji64,
    Cifar,
    Small,
    Sd15,
}

/// What is varied of a network.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct Size {
    /// Rows of the batch; by default 2 for networks that read a text, else 1
    #[arg(long)]
    pub batch: Option<usize>,
    /// Height and width of the sample; by default the network's own
    #[arg(long)]
    pub side: Option<usize>,
    /// Channels of the first block; the others keep their proportion
    #[arg(long)]
    pub width: Option<usize>,
}

/// A network with its sizes, as a graph that no rewrite has touched.
pub struct Network {
    pub name: String,
    pub graph: Graph,
    /// The folder of its UNet, if its weights are in a file.
    folder: Option<PathBuf>,
}

impl Network {
    /// Builds the graph. `checkpoints` is the folder of the generated ones.
    pub fn new(name: Name, size: Size, checkpoints: &Path) -> Result<Self> {
        let folder = checkpoint(name, checkpoints).map(|folder| folder.join("unet"));
        let json = match name {
            Name::Emoji64 => {
                let path = repository().join("www/models/emoji64/unet/config.json");
                std::fs::read_to_string(&path).with_context(|| path.display().to_string())?
            }
            Name::Cifar => include_str!("../networks/cifar.json").into(),
            Name::Small => include_str!("../networks/small.json").into(),
            Name::Sd15 => include_str!("../networks/sd15.json").into(),
        };
        let mut config: Value = serde_json::from_str(&json)?;
        if let Some(width) = size.width {
            let channels = config["block_out_channels"].as_array_mut().context("no `block_out_channels`")?;
            let first = channels.first().and_then(Value::as_u64).context("no first block")?;
            for channels in channels {
                let own = channels.as_u64().context("channels are no number")?;
                *channels = (own * width as u64 / first).into();
            }
        }
        let own_side = config["sample_size"].as_u64().context("no `sample_size`")? as usize;
        let side = size.side.unwrap_or(own_side);
        let json = config.to_string();
        let graph = if config["_class_name"] == "UNet2DModel" {
            Unet2dConfig::from_json(&json)?.graph(size.batch.unwrap_or(1), side, side)?
        } else {
            let tokens = if name == Name::Sd15 { 77 } else { 32 };
            let batch = size.batch.unwrap_or(2);
            let inputs = Unet2dConditionInputs { batch, height: side, width: side, tokens, timestep_cond: false };
            Unet2dConditionConfig::from_json(&json)?.graph(inputs)?
        };
        let name = name.to_possible_value().map_or(String::new(), |value| value.get_name().to_owned());
        Ok(Self { name, graph, folder })
    }

    /// Its weights: the checkpoint's, or random ones.
    pub fn weights(&self) -> Result<Weights> {
        match &self.folder {
            Some(folder) => Weights::open(&folder.join("diffusion_pytorch_model.safetensors")),
            None => Ok(Weights::Random),
        }
    }

    /// Every input with numbers of about unit deviation, the same ones each time.
    pub fn inputs(&self) -> Vec<(String, Vec<f32>)> {
        let mut random = fastrand::Rng::with_seed(99);
        let fill = |(name, id): &(String, _)| {
            let elements = self.graph.node(*id).elements();
            let values = match name.as_str() {
                "timestep" => vec![417.0; elements],
                _ => (0..elements).map(|_| (random.f32() - 0.5) * 12f32.sqrt()).collect(),
            };
            (name.clone(), values)
        };
        self.graph.inputs().iter().map(fill).collect()
    }

    /// The number of its parameters.
    pub fn parameters(&self) -> usize {
        self.graph.weights().iter().map(|spec| spec.shape.iter().product::<usize>()).sum()
    }

    /// The multiply-adds of one run.
    pub fn multiply_adds(&self) -> u64 {
        self.graph.total_cost(|id| self.graph.full_bytes(id)).multiply_adds
    }
}

/// The folder of a whole checkpoint, for networks that have one.
pub fn checkpoint(name: Name, checkpoints: &Path) -> Option<PathBuf> {
    match name {
        Name::Emoji64 => Some(repository().join("www/models/emoji64")),
        Name::Cifar => Some(checkpoints.join("cifar/checkpoint")),
        Name::Small | Name::Sd15 => None,
    }
}

/// The repository's root.
fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}
