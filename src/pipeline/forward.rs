//! One network by itself, on tensors named as diffusers names its arguments.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::Error;
use super::layout::{Naming, network_weights, read_json, read_text};
use super::text_encoder::{TextEncoder, floats};
use super::weight_file::WeightFile;
use crate::device::{Device, Program, Weights};
use crate::graph::{Graph, fuse};
use crate::models::{
    self, AutoencoderKlConfig, ClipTextConfig, Unet2dConditionConfig, Unet2dConditionInputs, Unet2dConfig,
};
use crate::weights::{Source, TensorFile};

/// A tensor that goes into or comes out of a network.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedTensor {
    /// Row-major shape.
    pub shape: Vec<usize>,
    /// Its numbers.
    pub data: Vec<f32>,
}

/// A component of a checkpoint on a device.
#[derive(Debug)]
pub struct Component {
    device: Device,
    network: Network,
}

#[derive(Debug)]
enum Network {
    Unet(Box<Unet2dConfig>, Weights),
    UnetCondition(Box<Unet2dConditionConfig>, Weights),
    Autoencoder(Box<AutoencoderKlConfig>, Weights),
    Text(Box<TextEncoder>),
}

type Tensors = BTreeMap<String, NamedTensor>;

/// A component of which everything but the weights has been read: what is wrong with it is known by now.
#[derive(Debug)]
pub struct OpenComponent {
    config: Config,
    file: WeightFile,
}

#[derive(Debug)]
enum Config {
    Unet(Box<Unet2dConfig>),
    UnetCondition(Box<Unet2dConditionConfig>),
    Autoencoder(Box<AutoencoderKlConfig>),
    Text(Box<ClipTextConfig>),
}

impl OpenComponent {
    /// Opens the component in `source`, a folder with a `config.json`, and its `file` of weights, by default the one that its
    /// class writes.
    ///
    /// # Errors
    /// A missing, damaged or unsupported file, by name.
    pub async fn open(source: &dyn Source, file: Option<&str>) -> Result<Self, Error> {
        // Large enough for every down block; the weights do not depend on it.
        const SIDE: usize = 64;
        let json = read_text(source, "config.json").await?;
        let index = read_json(source, "config.json").await?;
        let named = |key: &str| index.get(key).and_then(|v| v.as_str().or_else(|| v.get(0)?.as_str()));
        let class = named("_class_name").or(named("architectures")).unwrap_or_default();
        let error = |e: models::Error| Error::model("config.json", e);
        let (config, graphs) = match class {
            "UNet2DModel" => {
                let config = Unet2dConfig::from_json(&json).map_err(error)?;
                let graph = config.graph(1, SIDE, SIDE).map_err(error)?;
                (Config::Unet(Box::new(config)), vec![graph])
            }
            "UNet2DConditionModel" => {
                let config = Unet2dConditionConfig::from_json(&json).map_err(error)?;
                let timestep_cond = config.time_cond_proj_dim.is_some();
                let inputs = Unet2dConditionInputs { batch: 1, height: SIDE, width: SIDE, tokens: 1, timestep_cond };
                let graph = config.graph(inputs).map_err(error)?;
                (Config::UnetCondition(Box::new(config)), vec![graph])
            }
            "AutoencoderKL" => {
                let config = AutoencoderKlConfig::from_json(&json).map_err(error)?;
                let graphs =
                    vec![config.encoder(1, SIDE, SIDE).map_err(error)?, config.decoder(1, 1, 1).map_err(error)?];
                (Config::Autoencoder(Box::new(config)), graphs)
            }
            "CLIPTextModel" => {
                let config = ClipTextConfig::from_json(&json).map_err(error)?;
                let (specs, tables) = TextEncoder::weights(&config)?;
                let file = WeightFile::new(files(source, file, true).await?, &Naming::diffusers(""), specs, tables)?;
                return Ok(Self { config: Config::Text(Box::new(config)), file });
            }
            _ => {
                let message = format!(
                    "class {class:?} is not supported; UNet2DModel, UNet2DConditionModel, AutoencoderKL and CLIPTextModel are"
                );
                return Err(Error::Json { file: "config.json".into(), message });
            }
        };
        let specs = graphs.iter().flat_map(|graph| graph.weights().to_vec()).collect();
        let file = WeightFile::new(files(source, file, false).await?, &Naming::diffusers(""), specs, vec![])?;
        Ok(Self { config, file })
    }

    /// Loads the weights onto `device`.
    ///
    /// # Errors
    /// A file that ends early, by name; or the device's refusal.
    pub async fn load(self, device: Device) -> Result<Component, Error> {
        let Self { config, file } = self;
        let network = match config {
            Config::Text(config) => {
                Network::Text(Box::new(TextEncoder::load(*config, file, &device, &mut |_| {}).await?))
            }
            Config::Unet(config) => Network::Unet(config, file.load(&device, &mut |_| {}).await?.0),
            Config::UnetCondition(config) => Network::UnetCondition(config, file.load(&device, &mut |_| {}).await?.0),
            Config::Autoencoder(config) => Network::Autoencoder(config, file.load(&device, &mut |_| {}).await?.0),
        };
        Ok(Component { device, network })
    }
}

impl Component {
    /// Loads the component in `source` onto `device`: [`OpenComponent::open`], then [`OpenComponent::load`].
    ///
    /// # Errors
    /// A missing, damaged or unsupported file, by name; or the device's refusal.
    pub async fn load(source: &dyn Source, device: Device, file: Option<&str>) -> Result<Self, Error> {
        OpenComponent::open(source, file).await?.load(device).await
    }

    /// Runs the network.
    ///
    /// A UNet takes `sample`, `timestep` (one for all or one a row), and where it is conditional `encoder_hidden_states` and
    /// what else its config calls for, and gives `out`. An autoencoder takes `decode/in` (or `z`) and gives `decode/out`, or
    /// takes `encode/in` (or `x`) and gives `encode/moments`, `encode/mean`, `encode/logvar`, `encode/std`. A text encoder
    /// takes `input_ids` and gives `hidden_states/i`, `last_hidden_state` and `pooler_output`.
    ///
    /// # Errors
    /// A missing, superfluous or misshapen input, by name; or the device's refusal.
    pub async fn run(&self, inputs: &Tensors) -> Result<Tensors, Error> {
        let graph_error = |e| Error::model("config.json", e);
        match &self.network {
            Network::Text(encoder) => self.encode_text(encoder, inputs).await,
            Network::Unet(config, weights) => {
                let [batch, _, height, width] = shape(inputs, "sample")?;
                let graph = config.graph(batch, height, width).map_err(graph_error)?;
                self.execute(&graph, weights, inputs.clone()).await
            }
            Network::UnetCondition(config, weights) => {
                let [batch, _, height, width] = shape(inputs, "sample")?;
                let [_, tokens, _] = shape(inputs, "encoder_hidden_states")?;
                let timestep_cond = inputs.contains_key("timestep_cond");
                let inputs_of = Unet2dConditionInputs { batch, height, width, tokens, timestep_cond };
                let graph = config.graph(inputs_of).map_err(graph_error)?;
                self.execute(&graph, weights, inputs.clone()).await
            }
            Network::Autoencoder(config, weights) => {
                let mut outputs = Tensors::new();
                let mut found = 0;
                for name in ["decode/in", "z"].into_iter().filter(|&name| inputs.contains_key(name)) {
                    let [batch, _, height, width] = shape(inputs, name)?;
                    let graph = config.decoder(batch, height, width).map_err(graph_error)?;
                    let renamed = Tensors::from([("latents".to_owned(), inputs[name].clone())]);
                    let out = self.execute(&graph, weights, renamed).await?;
                    outputs.extend(out.into_values().map(|tensor| ("decode/out".to_owned(), tensor)));
                    found += 1;
                }
                for name in ["encode/in", "x"].into_iter().filter(|&name| inputs.contains_key(name)) {
                    let [batch, _, height, width] = shape(inputs, name)?;
                    let graph = config.encoder(batch, height, width).map_err(graph_error)?;
                    let renamed = Tensors::from([("sample".to_owned(), inputs[name].clone())]);
                    let out = self.execute(&graph, weights, renamed).await?;
                    out.into_values().for_each(|moments| outputs.extend(distribution(moments)));
                    found += 1;
                }
                if found != inputs.len() || found == 0 {
                    let names = inputs.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
                    let message = format!("an AutoencoderKL takes `decode/in` or `encode/in`, not: {names}");
                    return Err(Error::Input { name: names, message });
                }
                Ok(outputs)
            }
        }
    }

    async fn encode_text(&self, encoder: &TextEncoder, inputs: &Tensors) -> Result<Tensors, Error> {
        let [rows, tokens] = shape(inputs, "input_ids")?;
        if let Some(name) = inputs.keys().find(|name| *name != "input_ids") {
            return Err(Error::Input { name: name.clone(), message: "this network takes: input_ids".into() });
        }
        let id = |&id: &f32| {
            let whole = id >= 0.0 && id.fract() == 0.0 && id < u32::MAX as f32;
            let message = || format!("{id} is no token id");
            whole.then_some(id as u32).ok_or_else(|| Error::Input { name: "input_ids".into(), message: message() })
        };
        let ids: Vec<u32> = inputs["input_ids"].data.iter().map(id).collect::<Result<_, _>>()?;
        let texts: Vec<&[u32]> = ids.chunks_exact(tokens.max(1)).collect();
        let embeddings = encoder.encode(&self.device, &texts).await?;
        let width = encoder.config().hidden_size;
        let full = |data| NamedTensor { shape: vec![rows, tokens, width], data };
        let mut outputs = Tensors::new();
        for (index, state) in embeddings.hidden_states.into_iter().enumerate() {
            outputs.insert(format!("hidden_states/{index}"), full(state));
        }
        outputs.insert("last_hidden_state".into(), full(embeddings.last_hidden_state));
        let pooled = NamedTensor { shape: vec![rows, width], data: embeddings.pooler_output };
        outputs.insert("pooler_output".into(), pooled);
        Ok(outputs)
    }

    /// Runs `graph` on `inputs`, all of which it must take.
    async fn execute(&self, graph: &Graph, weights: &Weights, mut inputs: Tensors) -> Result<Tensors, Error> {
        let mut program = Program::compile(&self.device, &fuse(graph), weights).await?;
        for (name, id) in graph.inputs() {
            let missing = || Error::Input { name: name.clone(), message: "it is missing".into() };
            let mut tensor = inputs.remove(name).ok_or_else(missing)?;
            let expected = &graph.node(*id).shape;
            // diffusers broadcasts a single timestep or label over the batch.
            if expected.len() == 1 && tensor.data.len() == 1 {
                tensor = NamedTensor { shape: expected.clone(), data: vec![tensor.data[0]; expected[0]] };
            }
            if tensor.shape != *expected {
                let message = format!("its shape is {:?}, expected {expected:?}", tensor.shape);
                return Err(Error::Input { name: name.clone(), message });
            }
            program.write(name, &tensor.data)?;
        }
        if let Some(name) = inputs.into_keys().next() {
            let known = graph.inputs().iter().map(|(n, _)| n.as_str()).collect::<Vec<_>>().join(", ");
            return Err(Error::Input { name, message: format!("this network takes: {known}") });
        }
        program.run()?;
        let names: Vec<&str> = graph.outputs().iter().map(|(name, _)| name.as_str()).collect();
        let values = program.read(&names).await?;
        let tensor = |(name, id): &(String, _), words| {
            (name.clone(), NamedTensor { shape: graph.node(*id).shape.clone(), data: floats(words) })
        };
        Ok(graph.outputs().iter().zip(values).map(|(port, words)| tensor(port, words)).collect())
    }
}

/// The weight files of a network: the one that was asked for, or those that its class writes; `text` for transformers'.
async fn files(source: &dyn Source, file: Option<&str>, text: bool) -> Result<Vec<Rc<TensorFile>>, Error> {
    match file {
        Some(path) => Ok(vec![Rc::new(TensorFile::open(source, path).await?)]),
        None => network_weights(source, text).await,
    }
}

/// The shape of an input that must have `N` axes.
fn shape<const N: usize>(inputs: &Tensors, name: &str) -> Result<[usize; N], Error> {
    let error = |message: String| Error::Input { name: name.to_owned(), message };
    let tensor = inputs.get(name).ok_or_else(|| error("it is missing".into()))?;
    let shape = tensor.shape.clone();
    shape.try_into().map_err(|found| error(format!("its shape is {found:?}, expected {N} axes")))
}

/// `DiagonalGaussianDistribution`: mean and log-variance, the latter clamped to −30..20.
fn distribution(moments: NamedTensor) -> Vec<(String, NamedTensor)> {
    let mut shape = moments.shape.clone();
    let row = moments.data.len() / shape[0];
    shape[1] /= 2;
    let half = |second: usize| -> Vec<f32> {
        moments.data.chunks_exact(row).flat_map(|row_data| row_data[second * row / 2..][..row / 2].to_vec()).collect()
    };
    let logvar: Vec<f32> = half(1).into_iter().map(|v| v.clamp(-30.0, 20.0)).collect();
    let std = logvar.iter().map(|v| libm::expf(0.5 * v)).collect();
    let tensor = |data| NamedTensor { shape: shape.clone(), data };
    vec![
        ("encode/mean".into(), tensor(half(0))),
        ("encode/std".into(), tensor(std)),
        ("encode/logvar".into(), tensor(logvar)),
        ("encode/moments".into(), moments),
    ]
}
