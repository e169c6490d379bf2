//! One network by itself, on tensors named as diffusers names its arguments.

use std::collections::BTreeMap;

use crate::device::{Device, Program, Weights, floats};
use crate::graph::Graph;
use crate::models::{self, AutoencoderKlConfig, AutoencoderTinyConfig, ClipTextConfig, Unet2dConditionInputs};
use crate::pipeline::error::Error;
use crate::pipeline::model::denoiser::Denoiser;
use crate::pipeline::model::layout::{network_weights, read_json, read_text};
use crate::pipeline::model::text_encoder::{TextEmbeddings, TextEncoder};
use crate::pipeline::model::weight_file::{HostTable, WeightFile};
use crate::weights::Source;

/// A tensor that goes into or comes out of a network.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedTensor {
    /// Row-major shape.
    pub shape: Vec<usize>,
    /// Numbers of the tensor.
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
    Unet(Box<Denoiser>, Weights, Option<HostTable>),
    Autoencoder(Autoencoder, Weights),
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
    Unet(Box<Denoiser>),
    Autoencoder(Autoencoder),
    Text(Box<ClipTextConfig>),
}

#[derive(Debug)]
enum Autoencoder {
    Kl(Box<AutoencoderKlConfig>),
    Tiny(Box<AutoencoderTinyConfig>),
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
        let (config, specs, tables) = match class {
            "UNet2DModel" | "UNet2DConditionModel" => {
                let unet = match class {
                    "UNet2DModel" => Denoiser::unconditional(&json).map_err(error)?,
                    _ => Denoiser::conditional(&json).map_err(error)?,
                };
                let (specs, tables) = (unet.graph().map_err(error)?.weights().to_vec(), unet.tables());
                (Config::Unet(Box::new(unet)), specs, tables)
            }
            "AutoencoderKL" | "AutoencoderTiny" => {
                let config = match class {
                    "AutoencoderKL" => Autoencoder::Kl(Box::new(AutoencoderKlConfig::from_json(&json).map_err(error)?)),
                    _ => Autoencoder::Tiny(Box::new(AutoencoderTinyConfig::from_json(&json).map_err(error)?)),
                };
                let mut specs = config.encoder(1, SIDE, SIDE).map_err(error)?.weights().to_vec();
                specs.extend_from_slice(config.decoder(1, 1, 1).map_err(error)?.weights());
                (Config::Autoencoder(config), specs, vec![])
            }
            "CLIPTextModel" | "CLIPTextModelWithProjection" => {
                let config = ClipTextConfig::from_json(&json).map_err(error)?;
                let (specs, tables) = TextEncoder::weights(&config).map_err(error)?;
                (Config::Text(Box::new(config)), specs, tables)
            }
            _ => {
                let supported = "UNet2DModel, UNet2DConditionModel, AutoencoderKL, AutoencoderTiny, CLIPTextModel and \
                    CLIPTextModelWithProjection";
                let message = format!("class {class:?} is not supported; {supported} are");
                return Err(Error::Json { file: "config.json".into(), message });
            }
        };
        let file = match file {
            Some(path) => WeightFile::open(source, path, specs, tables).await?,
            None => network_weights(source, matches!(config, Config::Text(_)), None, specs, tables).await?,
        };
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
            Config::Unet(config) => {
                let (weights, mut tables) = file.load(&device, &mut |_| {}).await?;
                Network::Unet(config, weights, tables.pop())
            }
            Config::Autoencoder(config) => Network::Autoencoder(config, file.load(&device, &mut |_| {}).await?.0),
        };
        Ok(Component { device, network })
    }
}

impl Autoencoder {
    fn encoder(&self, batch: usize, height: usize, width: usize) -> Result<Graph, models::Error> {
        match self {
            Self::Kl(config) => config.encoder(batch, height, width),
            Self::Tiny(config) => config.encoder(batch, height, width),
        }
    }

    fn decoder(&self, batch: usize, height: usize, width: usize) -> Result<Graph, models::Error> {
        match self {
            Self::Kl(config) => config.decoder(batch, height, width),
            Self::Tiny(config) => config.decoder(batch, height, width),
        }
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

    /// The name of the component that this network is in a checkpoint, and its weights on the device.
    pub(in crate::pipeline) fn network_weights(&self) -> (&'static str, &Weights) {
        match &self.network {
            Network::Unet(_, weights, _) => ("unet", weights),
            Network::Autoencoder(_, weights) => ("vae", weights),
            Network::Text(encoder) => match encoder.config().projection_dim {
                None => ("text_encoder", encoder.device_weights()),
                Some(_) => ("text_encoder_2", encoder.device_weights()),
            },
        }
    }

    /// Runs the network.
    ///
    /// A UNet takes `sample`, `timestep` (one for all or one a row), and where it is conditional `encoder_hidden_states` and
    /// what else its config calls for, and gives `out`. An autoencoder takes `decode/in` (or `z`) and gives `decode/out`, or
    /// takes `encode/in` (or `x`) and gives `encode/moments`, `encode/mean` (also as `encode/mode`), `encode/logvar` and
    /// `encode/std`, and with the noise `encode/eps` also `encode/sample`; an `AutoencoderTiny` gives `encode/latents` alone. A
    /// text encoder takes `input_ids` and gives `hidden_states/i`, `last_hidden_state`, `pooler_output`, and with a projection
    /// `text_embeds`; and for each layer that may be skipped `clip_skip<k>_then_final_layer_norm`.
    ///
    /// # Errors
    /// A missing, superfluous or misshapen input, by name; or the device's refusal.
    pub async fn run(&self, inputs: &Tensors) -> Result<Tensors, Error> {
        match &self.network {
            Network::Text(encoder) => self.encode_text(encoder, inputs).await,
            Network::Unet(config, weights, table) => {
                self.predict(config, weights, table.as_ref(), inputs.clone()).await
            }
            Network::Autoencoder(config, weights) => self.autoencode(config, weights, inputs.clone()).await,
        }
    }

    async fn predict(
        &self,
        config: &Denoiser,
        weights: &Weights,
        class_embedding: Option<&HostTable>,
        mut inputs: Tensors,
    ) -> Result<Tensors, Error> {
        let error = |e| Error::model("config.json", e);
        let [batch, _, height, width] = shape(&inputs, "sample")?;
        if let (Some(table), Some(labels)) = (class_embedding, inputs.get_mut("class_labels")) {
            *labels = rows_of(table, labels, batch)?;
        }
        let graph = match config {
            Denoiser::Unconditional(config) => config.graph(batch, height, width),
            Denoiser::Conditional(config) => {
                let [_, tokens, _] = shape(&inputs, "encoder_hidden_states")?;
                let timestep_cond = inputs.contains_key("timestep_cond");
                let mut config = config.clone();
                if config.time_ids() > 0 {
                    let [_, length] = shape(&inputs, "added_cond_kwargs.text_embeds")?;
                    config.set_text_embeds(length).map_err(error)?;
                }
                config.graph(Unet2dConditionInputs { batch, height, width, tokens, timestep_cond })
            }
        };
        self.execute(&graph.map_err(error)?, weights, inputs).await
    }

    async fn autoencode(&self, config: &Autoencoder, weights: &Weights, mut inputs: Tensors) -> Result<Tensors, Error> {
        let error = |e| Error::model("config.json", e);
        let mut outputs = Tensors::new();
        for name in ["decode/in", "z"] {
            let Some(latents) = inputs.remove(name) else { continue };
            let [batch, _, height, width] = axes(name, &latents)?;
            let graph = config.decoder(batch, height, width).map_err(error)?;
            let out = self.execute(&graph, weights, Tensors::from([("latents".to_owned(), latents)])).await?;
            outputs.extend(out.into_values().map(|tensor| ("decode/out".to_owned(), tensor)));
        }
        for name in ["encode/in", "x"] {
            let Some(sample) = inputs.remove(name) else { continue };
            let [batch, _, height, width] = axes(name, &sample)?;
            let graph = config.encoder(batch, height, width).map_err(error)?;
            for (name, tensor) in self.execute(&graph, weights, Tensors::from([("sample".to_owned(), sample)])).await? {
                match config {
                    Autoencoder::Kl(_) => outputs.extend(distribution(tensor, inputs.remove("encode/eps"))?),
                    Autoencoder::Tiny(_) => outputs.extend([(format!("encode/{name}"), tensor)]),
                }
            }
        }
        if !inputs.is_empty() || outputs.is_empty() {
            let name = inputs.into_keys().next().unwrap_or("decode/in".into());
            let message =
                "an autoencoder takes `decode/in` or `encode/in`, the latter of an AutoencoderKL with `encode/eps`";
            return Err(Error::Input { name, message: message.into() });
        }
        Ok(outputs)
    }

    async fn encode_text(&self, encoder: &TextEncoder, inputs: &Tensors) -> Result<Tensors, Error> {
        let [rows, tokens] = shape(inputs, "input_ids")?;
        if let Some(name) = inputs.keys().find(|name| *name != "input_ids") {
            return Err(Error::Input { name: name.clone(), message: "this network takes: input_ids".into() });
        }
        let ids = inputs["input_ids"].data.iter().map(|&id| {
            let message = || format!("{id} is no token id");
            whole(id).map(|id| id as u32).ok_or_else(|| Error::Input { name: "input_ids".into(), message: message() })
        });
        let ids: Vec<u32> = ids.collect::<Result<_, _>>()?;
        let texts: Vec<&[u32]> = ids.chunks_exact(tokens.max(1)).collect();
        let layers = encoder.config().num_hidden_layers;
        let TextEmbeddings { hidden_states, last_hidden_state, pooler_output, text_embeds } =
            encoder.encode(&self.device, &texts, &(0..=layers).collect::<Vec<_>>()).await?;
        let width = encoder.config().hidden_size;
        let full = |data| NamedTensor { shape: vec![rows, tokens, width], data };
        let mut outputs = Tensors::new();
        for (index, state) in hidden_states.into_iter().enumerate() {
            if index < layers {
                let normed = encoder.final_layer_norm(&self.device, rows, &state).await?;
                outputs.insert(format!("clip_skip{}_then_final_layer_norm", layers - index), full(normed));
            }
            outputs.insert(format!("hidden_states/{index}"), full(state));
        }
        outputs.insert("last_hidden_state".into(), full(last_hidden_state));
        outputs.insert("pooler_output".into(), NamedTensor { shape: vec![rows, width], data: pooler_output });
        if let Some(width) = encoder.config().projection_dim {
            outputs.insert("text_embeds".into(), NamedTensor { shape: vec![rows, width], data: text_embeds });
        }
        Ok(outputs)
    }

    /// Runs `graph` on `inputs`, all of which it must take.
    async fn execute(&self, graph: &Graph, weights: &Weights, mut inputs: Tensors) -> Result<Tensors, Error> {
        let mut program = Program::compile(&self.device, graph, &[weights]).await?;
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
        program.run().await?;
        let names: Vec<&str> = graph.outputs().iter().map(|(name, _)| name.as_str()).collect();
        let values = program.read(&names).await?;
        let tensor = |(name, id): &(String, _), words| {
            (name.clone(), NamedTensor { shape: graph.node(*id).shape.clone(), data: floats(words) })
        };
        Ok(graph.outputs().iter().zip(values).map(|(port, words)| tensor(port, words)).collect())
    }
}

/// The shape of an input that must have `N` axes.
fn shape<const N: usize>(inputs: &Tensors, name: &str) -> Result<[usize; N], Error> {
    let missing = || Error::Input { name: name.to_owned(), message: "it is missing".into() };
    axes(name, inputs.get(name).ok_or_else(missing)?)
}

/// The shape of a tensor that must have `N` axes.
fn axes<const N: usize>(name: &str, tensor: &NamedTensor) -> Result<[usize; N], Error> {
    let message = |found| format!("its shape is {found:?}, expected {N} axes");
    tensor.shape.clone().try_into().map_err(|found| Error::Input { name: name.to_owned(), message: message(found) })
}

/// A number that is an index.
fn whole(number: f32) -> Option<usize> {
    (number >= 0.0 && number.fract() == 0.0 && number < u32::MAX as f32).then_some(number as usize)
}

/// The rows of `table` that `labels` name, one for all `batch` rows or one for each.
fn rows_of(table: &HostTable, labels: &NamedTensor, batch: usize) -> Result<NamedTensor, Error> {
    let error = |message: String| Error::Input { name: "class_labels".into(), message };
    let count = labels.data.len();
    if labels.shape.len() != 1 || (count != 1 && count != batch) {
        return Err(error(format!("its shape is {:?}, expected one class for each of {batch} rows", labels.shape)));
    }
    let width = table.columns();
    let mut data = vec![0.0; batch * width];
    for (row, &label) in data.chunks_exact_mut(width).zip(labels.data.iter().cycle()) {
        if !whole(label).is_some_and(|index| table.add_row(index, row)) {
            return Err(error(format!("{label} is none of the {} classes", table.rows())));
        }
    }
    Ok(NamedTensor { shape: vec![batch, width], data })
}

/// `DiagonalGaussianDistribution`: mean and log-variance, the latter clamped to −30..20, and with `eps` a sample.
fn distribution(moments: NamedTensor, eps: Option<NamedTensor>) -> Result<Vec<(String, NamedTensor)>, Error> {
    let mut shape = moments.shape.clone();
    let row = moments.data.len() / shape[0];
    shape[1] /= 2;
    let half = |second: usize| -> Vec<f32> {
        moments.data.chunks_exact(row).flat_map(|row_data| row_data[second * row / 2..][..row / 2].to_vec()).collect()
    };
    let mean = half(0);
    let logvar: Vec<f32> = half(1).into_iter().map(|v| v.clamp(-30.0, 20.0)).collect();
    let std: Vec<f32> = logvar.iter().map(|v| libm::expf(0.5 * v)).collect();
    let tensor = |name: &str, data| (format!("encode/{name}"), NamedTensor { shape: shape.clone(), data });
    let mut outputs = Vec::new();
    if let Some(eps) = eps {
        if eps.shape != shape {
            let message = format!("its shape is {:?}, expected {shape:?}", eps.shape);
            return Err(Error::Input { name: "encode/eps".into(), message });
        }
        let sample = mean.iter().zip(&std).zip(&eps.data).map(|((mean, std), eps)| mean + std * eps);
        outputs.push(tensor("sample", sample.collect()));
    }
    outputs.extend([tensor("mode", mean.clone()), tensor("mean", mean), tensor("std", std), tensor("logvar", logvar)]);
    outputs.push(("encode/moments".into(), moments));
    Ok(outputs)
}
