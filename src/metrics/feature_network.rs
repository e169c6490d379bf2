//! The networks whose features can be compared: which one a file holds, and how its tensors reach the device.

use std::collections::HashMap;

use super::{Error, Hash};
use crate::device::{Device, WeightLoader, Weights};
use crate::graph::{Graph, WeightSpec};
use crate::models::inception_v3::{self, BASIC_CONV2D};
use crate::models::{self, EmojiClassifierConfig};
use crate::weights::{self, Encoding, Gather, Source, TensorFile, TensorInfo, read_small};

/// The config of a network, much longer than one with ten thousand labels.
const MAX_CONFIG_BYTES: usize = 1 << 20;

/// Files that hold InceptionV3 in a folder without a config, in the order in which they are looked for.
const INCEPTION_FILES: [&str; 2] = ["inception.safetensors", "model.safetensors"];

/// A tensor by which InceptionV3 is recognised, and one by which the emoji classifier is.
const TELLING: [&str; 2] = ["Conv2d_1a_3x3.conv.weight", "blocks.0.conv1.weight"];

/// A network whose features can be compared.
#[derive(Debug)]
pub enum FeatureNetwork {
    /// This project's own network.
    Emoji(Box<EmojiClassifierConfig>),
    /// The standard network.
    Inception,
}

/// A network of which everything but the weights has been read.
pub struct OpenNetwork {
    network: FeatureNetwork,
    file: TensorFile,
    specs: Vec<WeightSpec>,
}

impl FeatureNetwork {
    /// A short name, for results and messages.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Emoji(_) => "emoji",
            Self::Inception => "inception-v3-fid",
        }
    }

    /// Length of the features.
    pub fn features(&self) -> usize {
        match self {
            Self::Emoji(config) => config.features(),
            Self::Inception => inception_v3::FEATURES,
        }
    }

    /// Height and width of the pictures that it takes.
    pub fn side(&self) -> usize {
        match self {
            Self::Emoji(config) => config.sample_size,
            Self::Inception => inception_v3::SIDE,
        }
    }

    /// Pictures that it takes at a time, a power of two: enough to keep a device busy.
    pub fn batch(&self) -> usize {
        match self {
            Self::Emoji(_) => 32,
            Self::Inception => 8,
        }
    }

    /// The network for `batch` pictures: from `sample` `[batch, 3, side, side]` to `features` and what else it makes.
    pub fn graph(&self, batch: usize) -> Result<Graph, Error> {
        let graph = match self {
            Self::Emoji(config) => config.graph(batch),
            Self::Inception => inception_v3::graph(batch),
        };
        graph.map_err(in_config)
    }
}

fn in_config(source: models::Error) -> Error {
    Error::Model { file: "config.json".to_owned(), source }
}

impl OpenNetwork {
    /// Opens the network in `source`: a folder, or a file that is recognised by its tensors. What is wrong with it, but for its
    /// numbers, is known afterwards.
    pub async fn open(source: &dyn Source) -> Result<Self, Error> {
        let (network, file) = match source.single_file() {
            Some(path) => (FeatureNetwork::Inception, open_tensors(source, path).await?),
            None => Self::open_folder(source).await?,
        };
        let is_there = |name: &str| file.tensors().iter().any(|tensor| tensor.name == name);
        if matches!(network, FeatureNetwork::Inception) && !is_there(TELLING[0]) {
            let found = match is_there(TELLING[1]) {
                true => {
                    "this is an EmojiClassifier without its config.json, which says what it has learned: give the folder"
                }
                false => "its tensors are those of another network",
            };
            return Err(Error::NoFeatureNetwork { name: source.name().to_owned(), found: found.to_owned() });
        }
        let specs = network.graph(1)?.weights().to_vec();
        let open = Self { network, file, specs };
        open.check()?;
        Ok(open)
    }

    async fn open_folder(source: &dyn Source) -> Result<(FeatureNetwork, TensorFile), Error> {
        match read_small(source, "config.json", MAX_CONFIG_BYTES).await {
            Ok(json) => {
                let json = String::from_utf8_lossy(&json);
                let config = EmojiClassifierConfig::from_json(&json).map_err(in_config)?;
                let file = open_tensors(source, "model.safetensors").await?;
                return Ok((FeatureNetwork::Emoji(Box::new(config)), file));
            }
            Err(weights::Error::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        for path in INCEPTION_FILES {
            match open_tensors(source, path).await {
                Err(Error::Weights(weights::Error::NotFound { .. })) => {}
                file => return Ok((FeatureNetwork::Inception, file?)),
            }
        }
        let found = format!("it has neither config.json nor {}", INCEPTION_FILES[0]);
        Err(Error::NoFeatureNetwork { name: source.name().to_owned(), found })
    }

    /// Every tensor that the network needs: its name and shape in the file.
    fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let of_spec = |spec: &WeightSpec| match (&self.network, spec.name.strip_suffix(BASIC_CONV2D[0])) {
            (FeatureNetwork::Emoji(_), _) => vec![(spec.name.clone(), spec.shape.clone())],
            (FeatureNetwork::Inception, Some(module)) => {
                let shape = |part: &str| if part == BASIC_CONV2D[0] { spec.shape.clone() } else { vec![spec.shape[0]] };
                BASIC_CONV2D.map(|part| (format!("{module}{part}"), shape(part))).to_vec()
            }
            // A bias, which is made of these.
            (FeatureNetwork::Inception, None) => vec![],
        };
        self.specs.iter().flat_map(of_spec).collect()
    }

    fn check(&self) -> Result<(), Error> {
        let (file, network) = (self.file.file(), self.network.name());
        let found: HashMap<&str, &TensorInfo> =
            self.file.tensors().iter().map(|tensor| (tensor.name.as_str(), tensor)).collect();
        for (name, expected) in self.tensors() {
            match found.get(name.as_str()) {
                None => return Err(Error::MissingTensor { file: file.to_owned(), tensor: name, network }),
                Some(tensor) if tensor.shape != expected => {
                    let found = tensor.shape.clone();
                    return Err(Error::Shape { file: file.to_owned(), tensor: name, found, expected, network });
                }
                Some(tensor) if !matches!(tensor.dtype, Encoding::F32 | Encoding::F16 | Encoding::BF16) => {
                    return Err(tensor.error(format!("it is {}; store it as F32, F16 or BF16", tensor.dtype)).into());
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// Loads the weights onto `device`, a tensor at a time. Gives also a fingerprint: equal for the same tensors stored alike,
    /// in whatever order.
    pub async fn load(self, device: &Device) -> Result<(FeatureNetwork, Weights, u64), Error> {
        let names: Vec<String> = self.tensors().into_iter().map(|(name, _)| name).collect();
        let Self { network, file, specs } = self;
        let mut loader = WeightLoader::new(device, &specs)?;
        let index: HashMap<&str, usize> = specs.iter().enumerate().map(|(i, spec)| (spec.name.as_str(), i)).collect();
        let mut waiting = Waiting::default();
        let mut fingerprint = 0u64;
        let visit = |tensor: &TensorInfo, bytes: &[u8]| {
            fingerprint = fingerprint.wrapping_add(hash(tensor, bytes));
            let values = tensor.to_f32(bytes)?;
            if !values.iter().all(|value| value.is_finite()) {
                return Err(tensor.error("it holds a value that is not finite: the file is damaged").into());
            }
            if let Some(&weight) = index.get(tensor.name.as_str())
                && matches!(network, FeatureNetwork::Emoji(_))
            {
                return Ok::<_, Error>(loader.put(weight, tensor.dtype, bytes)?);
            }
            let Some((module, [mut conv, weight, bias, mean, variance])) = waiting.complete(&tensor.name, values)
            else {
                return Ok(());
            };
            let folded = inception_v3::fold(&mut conv, [&weight, &bias, &mean, &variance]);
            if !conv.iter().chain(&folded).all(|value| value.is_finite()) {
                let reason = "with its variance the batch normalisation overflows: the file is damaged";
                return Err(tensor.error(reason).into());
            }
            for (part, values) in [("conv.weight", conv), ("conv.bias", folded)] {
                if let Some(&weight) = index.get(format!("{module}{part}").as_str()) {
                    loader.put(weight, Encoding::F32, bytemuck::cast_slice(&values))?;
                }
            }
            Ok(())
        };
        let wanted = |tensor: &TensorInfo| names.contains(&tensor.name);
        file.stream(&mut |_| {}, &wanted, &mut Gather::new(visit)).await?;
        let weights = loader.finish().await?;
        Ok((network, weights, fingerprint))
    }
}

async fn open_tensors(source: &dyn Source, path: &str) -> Result<TensorFile, Error> {
    match TensorFile::open(source, path).await {
        Err(weights::Error::Pickle { file }) => Err(Error::Pickle { file }),
        file => Ok(file?),
    }
}

/// Tensors of `BasicConv2d` modules of which others are still to come.
#[derive(Default)]
struct Waiting {
    modules: HashMap<String, [Option<Vec<f32>>; BASIC_CONV2D.len()]>,
}

impl Waiting {
    /// Takes the tensor `name`. With the last one of a module gives its path, dot included, and all of them in the order of
    /// [`BASIC_CONV2D`].
    fn complete(&mut self, name: &str, values: Vec<f32>) -> Option<(String, [Vec<f32>; BASIC_CONV2D.len()])> {
        let find = |(place, part): (usize, &&str)| Some((name.strip_suffix(part)?, place));
        let (module, place) = BASIC_CONV2D.iter().enumerate().find_map(find)?;
        let parts = self.modules.entry(module.to_owned()).or_default();
        parts[place] = Some(values);
        if parts.iter().any(Option::is_none) {
            return None;
        }
        let (module, parts) = self.modules.remove_entry(module)?;
        Some((module, parts.map(Option::unwrap_or_default)))
    }
}

/// Hash of a tensor: its name, dtype, shape and bytes.
fn hash(tensor: &TensorInfo, bytes: &[u8]) -> u64 {
    let mut hash = Hash::new();
    hash.update(format!("{} {} {:?} ", tensor.name, tensor.dtype, tensor.shape).as_bytes());
    hash.update(bytes);
    hash.value()
}
