//! LoRA files: low-rank updates of a checkpoint's weights, W' = W + weight · (alpha / rank) · up · down (Hu et al. 2021, eq. 3).
//!
//! Three families of names are about, and all are read: kohya's (`lora_unet_…_to_q.lora_down.weight`, dots replaced by
//! underscores), PEFT's (`unet.….to_q.lora_A.weight`) and those of diffusers' old attention processors
//! (`unet.….processor.to_q_lora.down.weight`). [`super::lora_modules`] finds the weights that they mean.

use serde_json::{Map, Value};

use super::lora_modules::ModuleTable;
use super::{Component, Error, Pipeline};
use crate::device::Weights;
use crate::graph::WeightSpec;
use crate::weights::{self, Gather, LowRank, Source, TensorFile, TensorInfo};

/// What a tensor of a LoRA is to its module.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Part {
    /// `[rank, in, …]`.
    Down,
    /// `[out, rank, …]`.
    Up,
    /// A number; without it, the rank.
    Alpha,
}

/// How the parts' names end. What is before it names the module.
const SUFFIXES: [(&str, Part); 11] = [
    (".lora_down.weight", Part::Down),
    (".lora_up.weight", Part::Up),
    (".lora_A.weight", Part::Down),
    (".lora_B.weight", Part::Up),
    (".lora.down.weight", Part::Down),
    (".lora.up.weight", Part::Up),
    (".lora_linear_layer.down.weight", Part::Down),
    (".lora_linear_layer.up.weight", Part::Up),
    ("_lora.down.weight", Part::Down),
    ("_lora.up.weight", Part::Up),
    (".alpha", Part::Alpha),
];

/// How modules' names begin, and which component of the checkpoint they are of; the last is for names without a prefix.
const PREFIXES: [(&str, &str); 8] = [
    ("lora_unet_", "unet"),
    ("lora_te_", "text_encoder"),
    ("lora_te1_", "text_encoder"),
    ("lora_te2_", "text_encoder_2"),
    ("unet.", "unet"),
    ("text_encoder.", "text_encoder"),
    ("text_encoder_2.", "text_encoder_2"),
    ("", "unet"),
];

/// Parts of names that tell a method other than LoRA.
const OTHER_METHODS: [(&str, &str); 6] = [
    ("dora_scale", "DoRA"),
    ("lora_magnitude_vector", "DoRA"),
    ("hada_", "LoHa"),
    ("lokr_", "LoKr"),
    ("lora_mid", "a Tucker decomposition (LoCon with `use_tucker`)"),
    ("oft_", "OFT"),
];

/// A LoRA file, read and checked as far as that goes without the model that it is for.
///
/// Its matrices stay as they are stored until they are merged.
#[derive(Clone, Debug)]
pub struct LoraFile {
    file: String,
    modules: Vec<LoraModule>,
}

/// The update of one weight.
#[derive(Clone, Debug)]
pub struct LoraModule {
    component: &'static str,
    path: String,
    /// `[rank, in, …]`.
    down: Matrix,
    /// `[out, rank, …]`.
    up: Matrix,
    /// alpha / rank.
    scale: f64,
}

/// A tensor as it is stored.
#[derive(Clone, Debug)]
struct Matrix {
    tensor: TensorInfo,
    bytes: Vec<u8>,
}

/// What has been read of a module.
#[derive(Default)]
struct Parts {
    down: Option<Matrix>,
    up: Option<Matrix>,
    alpha: Option<f64>,
}

impl Parts {
    /// Takes the tensor that is `part` of this module.
    fn put(&mut self, tensor: &TensorInfo, part: Part, bytes: &[u8]) -> Result<(), Error> {
        let values = tensor.to_f32(bytes)?;
        if let Some(value) = values.iter().find(|value| !value.is_finite()) {
            return Err(tensor.error(format!("it holds the value {value}")).into());
        }
        let matrix = || Matrix { tensor: tensor.clone(), bytes: bytes.to_vec() };
        let taken = match (part, &values[..]) {
            (Part::Down, _) => self.down.replace(matrix()).is_some(),
            (Part::Up, _) => self.up.replace(matrix()).is_some(),
            (Part::Alpha, &[alpha]) => self.alpha.replace(alpha.into()).is_some(),
            (Part::Alpha, _) => {
                return Err(tensor.error(format!("alpha is one number, not {:?}", tensor.shape)).into());
            }
        };
        if taken { Err(tensor.error("the module has another of the same kind").into()) } else { Ok(()) }
    }
}

impl LoraFile {
    /// Reads the LoRA at `path`.
    ///
    /// # Errors
    /// A damaged file, a tensor that is no part of a LoRA, or a module that is incomplete, by name.
    pub async fn open(source: &dyn Source, path: &str) -> Result<Self, Error> {
        let file = TensorFile::open(source, path).await?;
        // Before anything is fetched.
        for tensor in file.tensors() {
            split(tensor)?;
        }
        let settings = AdapterSettings::of(&file)?;
        let mut modules: Vec<(String, Parts)> = Vec::new();
        let mut gather = Gather::new(|tensor: &TensorInfo, bytes: &[u8]| {
            let (stem, part) = split(tensor)?;
            let at = modules.binary_search_by(|(other, _)| other.as_str().cmp(stem)).unwrap_or_else(|at| {
                modules.insert(at, (stem.to_owned(), Parts::default()));
                at
            });
            modules[at].1.put(tensor, part, bytes)
        });
        file.stream(&mut |_| {}, &|_| true, &mut gather).await?;
        let invalid = |reason: String| weights::Error::Header { file: path.to_owned(), format: "LoRA", reason };
        let module = |(stem, parts): (String, Parts)| match parts {
            Parts { down: Some(down), up: Some(up), alpha } => LoraModule::new(&stem, down, up, alpha, &settings),
            _ => Err(invalid(format!("module {stem:?} lacks a down or an up matrix")).into()),
        };
        let modules = modules.into_iter().map(module).collect::<Result<Vec<_>, _>>()?;
        match modules.is_empty() {
            true => Err(invalid("it holds no tensors".into()).into()),
            false => Ok(Self { file: path.to_owned(), modules }),
        }
    }

    /// Its path in the source.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The components of a checkpoint that it changes: `text_encoder`, `text_encoder_2`, `unet`.
    pub fn components(&self) -> Vec<&'static str> {
        let mut components = Vec::new();
        for module in &self.modules {
            if let Err(at) = components.binary_search(&module.component) {
                components.insert(at, module.component);
            }
        }
        components
    }

    /// The updates of `component`, whose weights are `specs`: each with the index of its weight.
    ///
    /// # Errors
    /// Names a module that the component does not have, or whose shape is another: the LoRA is for another model.
    pub fn updates(&self, component: &str, specs: &[WeightSpec]) -> Result<Vec<(usize, &LoraModule)>, Error> {
        let table = ModuleTable::new(specs);
        let mut updates: Vec<Option<&LoraModule>> = vec![None; specs.len()];
        for module in self.modules.iter().filter(|module| module.component == component) {
            let tensor = &module.down.tensor;
            let Some((index, spec)) = table.find(&module.path).and_then(|index| Some((index, specs.get(index)?)))
            else {
                let reason = format!("this model's {component} has no such module; the LoRA is for another model");
                return Err(tensor.error(reason).into());
            };
            module.check_shape(spec)?;
            if let Some(other) = updates[index].replace(module) {
                let reason = format!("it is of the same module as {:?}", other.down.tensor.name);
                return Err(tensor.error(reason).into());
            }
        }
        Ok(updates.into_iter().enumerate().filter_map(|(index, module)| Some((index, module?))).collect())
    }
}

impl LoraModule {
    fn new(
        stem: &str,
        down: Matrix,
        up: Matrix,
        alpha: Option<f64>,
        settings: &AdapterSettings,
    ) -> Result<Self, Error> {
        let rank = match down.tensor.shape.first() {
            Some(&rank) if rank > 0 => rank,
            _ => return Err(down.tensor.error(format!("its shape {:?} has no rank", down.tensor.shape)).into()),
        };
        let (prefix, component) = PREFIXES.into_iter().find(|(prefix, _)| stem.starts_with(prefix)).unwrap_or_default();
        let path = &stem[prefix.len()..];
        let scale = alpha.map_or_else(|| settings.scale(component, path, rank), |alpha| alpha / rank as f64);
        Ok(Self { component, path: ModuleTable::flatten(path), down, up, scale })
    }

    /// Whether the matrices' product has the shape of the weight `spec`.
    fn check_shape(&self, spec: &WeightSpec) -> Result<(), Error> {
        let Some((&out, inputs)) = spec.shape.split_first() else { return Ok(()) };
        let rank = self.down.tensor.shape[0];
        for (tensor, expected) in [(&self.down.tensor, [&[rank], inputs].concat()), (&self.up.tensor, vec![out, rank])]
        {
            if squeezed(&tensor.shape) != squeezed(&expected) {
                let reason = format!(
                    "it is {:?} and would have to be {expected:?} for this model's `{}`, which is {:?}; the LoRA is for another model",
                    tensor.shape, spec.name, spec.shape
                );
                return Err(tensor.error(reason).into());
            }
        }
        Ok(())
    }

    /// Its matrices, for `weight` times the LoRA.
    pub fn low_rank(&self, weight: f64) -> LowRank {
        // Both were found to be numbers when they were read.
        let values = |matrix: &Matrix| matrix.tensor.dtype.to_f32(&matrix.bytes).unwrap_or_default();
        LowRank { up: values(&self.up), down: values(&self.down), scale: (weight * self.scale) as f32 }
    }
}

/// A matrix's shape, without the sides of a 1×1 kernel.
fn squeezed(shape: &[usize]) -> &[usize] {
    shape.strip_suffix(&[1, 1]).unwrap_or(shape)
}

/// The module that a tensor belongs to, and what it is there.
fn split(tensor: &TensorInfo) -> Result<(&str, Part), weights::Error> {
    let name = tensor.name.as_str();
    if let Some((_, method)) = OTHER_METHODS.into_iter().find(|(part, _)| name.contains(part)) {
        return Err(tensor.error(format!("{method} is not supported; a LoRA with down and up matrices is")));
    }
    let found = SUFFIXES.into_iter().find_map(|(suffix, part)| Some((name.strip_suffix(suffix)?, part)));
    found.ok_or_else(|| {
        tensor.error("no LoRA has a tensor of this name; they end in `.lora_down.weight`, `.lora_A.weight`, `.alpha` and the like")
    })
}

/// PEFT's settings, which diffusers writes into the file's metadata since 0.34.
struct AdapterSettings(Map<String, Value>);

impl AdapterSettings {
    fn of(file: &TensorFile) -> Result<Self, Error> {
        let Some(json) = file.metadata().get("lora_adapter_metadata") else { return Ok(Self(Map::new())) };
        let invalid = |reason: String| weights::Error::Header { file: file.file().to_owned(), format: "LoRA", reason };
        let settings: Map<String, Value> = serde_json::from_slice(json.as_bytes())
            .map_err(|error| invalid(format!("its metadata `lora_adapter_metadata` cannot be read: {error}")))?;
        match settings.iter().find(|(key, value)| key.ends_with("use_dora") && **value == Value::Bool(true)) {
            Some((key, _)) => Err(invalid(format!("`{key}`: DoRA is not supported")).into()),
            None => Ok(Self(settings)),
        }
    }

    /// alpha / rank of a module that brings no alpha of its own.
    fn scale(&self, component: &str, path: &str, rank: usize) -> f64 {
        let get = |key: &str| self.0.get(&format!("{component}.{key}")).or_else(|| self.0.get(key));
        let is_of = |name: &str| path.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        let patterns = get("alpha_pattern").and_then(Value::as_object);
        let pattern = patterns.and_then(|patterns| patterns.iter().find(|(name, _)| is_of(name)));
        let alpha = pattern.map(|(_, alpha)| alpha).or_else(|| get("lora_alpha")).and_then(Value::as_f64);
        let rank = rank as f64;
        let stabilised = get("use_rslora").and_then(Value::as_bool) == Some(true);
        alpha.map_or(1.0, |alpha| alpha / if stabilised { rank.sqrt() } else { rank })
    }
}

/// What is added to each weight of a network, for all LoRAs.
type Additions<'a> = Vec<Vec<(&'a LoraModule, f64)>>;

impl Pipeline {
    /// Merges LoRAs into the networks, each times a weight, in place of those that were merged before; none restores the
    /// checkpoint's own weights, bit by bit, without reading it again. Runs that start from now on see the change.
    ///
    /// # Errors
    /// A LoRA for another model, by the tensor that does not fit, or a weight that is no number, before anything is changed;
    /// or the device's refusal, after which the checkpoint's own weights are restored.
    pub async fn set_loras(&self, loras: &[(&LoraFile, f64)]) -> Result<(), Error> {
        let networks = self.parts.networks();
        for (lora, _) in loras {
            if let Some(component) = lora.components().into_iter().find(|name| !networks.iter().any(|(n, _)| n == name))
            {
                let message = format!("it changes a {component}, and this {} has none", self.parts.model.info.class);
                return Err(Error::option("lora", &lora.file, message));
            }
        }
        set(&networks, loras).await
    }
}

impl Component {
    /// Merges what LoRAs have for this network into its weights, as [`Pipeline::set_loras`] does.
    ///
    /// # Errors
    /// As there, and if a LoRA has nothing for this network.
    pub async fn set_loras(&self, loras: &[(&LoraFile, f64)]) -> Result<(), Error> {
        let (name, weights) = self.network_weights();
        if let Some((lora, _)) = loras.iter().find(|(lora, _)| !lora.components().contains(&name)) {
            return Err(Error::option("lora", &lora.file, format!("it changes no {name}")));
        }
        set(&[(name, weights)], loras).await
    }
}

async fn set(networks: &[(&str, &Weights)], loras: &[(&LoraFile, f64)]) -> Result<(), Error> {
    if let Some((_, weight)) = loras.iter().find(|(_, weight)| !weight.is_finite()) {
        return Err(Error::option("weight", weight, "expected a number, such as 0.8"));
    }
    let mut changes = Vec::new();
    for &(name, weights) in networks {
        let mut additions: Additions = vec![Vec::new(); weights.specs().len()];
        for &(lora, weight) in loras {
            for (index, module) in lora.updates(name, weights.specs())? {
                additions[index].push((module, weight));
            }
        }
        changes.push((weights, additions));
    }
    let result = merge(&changes).await;
    if result.is_err() {
        changes.iter().for_each(|(weights, _)| (0..weights.specs().len()).for_each(|index| weights.restore(index)));
    }
    result
}

async fn merge(changes: &[(&Weights, Additions<'_>)]) -> Result<(), Error> {
    for (weights, additions) in changes {
        for (index, modules) in additions.iter().enumerate() {
            if modules.is_empty() {
                weights.restore(index);
                continue;
            }
            let factors: Vec<_> = modules.iter().map(|(module, weight)| module.low_rank(*weight)).collect();
            weights.merge(index, &factors).await?;
        }
    }
    Ok(())
}
