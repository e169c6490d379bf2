//! LoRA files: low-rank updates of a checkpoint's weights, W' = W + weight · (alpha / rank) · up · down (Hu et al. 2021, eq. 3).
//!
//! [`names`] knows how tensors are called, [`settings`] where alpha is said if the file does not, and
//! [`modules`] which weights are meant.

mod modules;
mod names;
mod settings;

use std::collections::HashMap;

use self::modules::ModuleTable;
use self::names::{Part, module_of, split};
use self::settings::LoraSettings;
use crate::device::Weights;
use crate::graph::WeightSpec;
use crate::pipeline::error::Error;
use crate::pipeline::model::checkpoint::Checkpoint;
use crate::pipeline::model::textual_inversion::{TEXTUAL_INVERSION, is_textual_inversion};
use crate::pipeline::run::pipeline::Pipeline;
use crate::pipeline::study::evaluate::Component;
use crate::weights::{self, Gather, LowRank, Source, TensorFile, TensorInfo};

/// File names inside a folder, by PEFT and by diffusers.
const FILES: [&str; 2] = ["adapter_model.safetensors", "pytorch_lora_weights.safetensors"];

/// A LoRA file, read and checked as far as that goes without the model that it is for.
///
/// Its matrices stay as they are stored until they are merged.
#[derive(Clone, Debug)]
pub struct LoraFile {
    file: String,
    modules: Vec<LoraModule>,
    notes: Vec<String>,
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
    /// Whether nobody says alpha of a module of PEFT's. Others without one have none: their factor is 1.
    alpha_is_guessed: bool,
}

/// A tensor as it is stored.
#[derive(Clone, Debug)]
struct Matrix {
    tensor: TensorInfo,
    bytes: Vec<u8>,
}

/// The parts of a module that have been read.
#[derive(Default)]
struct Parts {
    down: Option<Matrix>,
    up: Option<Matrix>,
    alpha: Option<f64>,
}

impl Parts {
    /// Takes the tensor that is `part` of this module.
    fn put(&mut self, tensor: &TensorInfo, part: Part, bytes: &[u8]) -> Result<(), Error> {
        if part == Part::Alpha {
            let alpha = tensor.dtype.number(bytes).filter(|alpha| alpha.is_finite());
            let invalid = || tensor.error(format!("alpha is one number, not {:?} of {}", tensor.shape, tensor.dtype));
            return not_twice(tensor, self.alpha.replace(alpha.ok_or_else(invalid)?).is_some());
        }
        // Piece by piece: blocks become many times as large.
        for piece in bytes.chunks(tensor.dtype.block().bytes << 12) {
            if let Some(value) = tensor.to_f32(piece)?.iter().find(|value| !value.is_finite()) {
                return Err(tensor.error(format!("it holds the value {value}")).into());
            }
        }
        let place = if part == Part::Down { &mut self.down } else { &mut self.up };
        let matrix = Matrix { tensor: tensor.clone(), bytes: bytes.to_vec() };
        not_twice(tensor, place.replace(matrix).is_some())
    }
}

fn not_twice(tensor: &TensorInfo, twice: bool) -> Result<(), Error> {
    match twice {
        true => Err(tensor.error("the module has another of the same kind; a file of one LoRA can be opened").into()),
        false => Ok(()),
    }
}

impl LoraFile {
    /// Reads the LoRA in the folder `source`, as PEFT or diffusers saves it.
    ///
    /// # Errors
    /// If there is none, and those of [`LoraFile::open`].
    pub async fn open_folder(source: &dyn Source) -> Result<Self, Error> {
        for path in FILES {
            match Self::open(source, path).await {
                Err(Error::Weights(weights::Error::NotFound { .. })) => {}
                opened => return opened,
            }
        }
        let message = format!("it holds neither {} nor {}; give the LoRA's file itself", FILES[0], FILES[1]);
        Err(Error::option("lora", source.name(), message))
    }

    /// Reads the LoRA at `path`, and the `adapter_config.json` beside it if that is needed.
    ///
    /// # Errors
    /// A damaged file, a tensor that is no part of a LoRA, or a module that is incomplete, by name.
    pub async fn open(source: &dyn Source, path: &str) -> Result<Self, Error> {
        let file = TensorFile::open(source, path).await?;
        if is_textual_inversion(&file) {
            return Err(weights::Error::Foreign { file: path.to_owned(), found: TEXTUAL_INVERSION.to_owned() }.into());
        }
        // Before anything is fetched.
        let parts = file.tensors().iter().map(split).collect::<Result<Vec<_>, _>>()?;
        let mut notes = Vec::new();
        let mut words: Vec<&str> = Vec::new();
        for (word, _) in parts.iter().filter(|(_, part)| *part == Part::Embedding) {
            if words.len() < 9 && !words.contains(word) {
                words.push(if words.len() < 8 { *word } else { "…" });
            }
        }
        if !words.is_empty() {
            notes.push(format!("{path}: it brings embeddings, which are not used: {}", words.join(", ")));
        }
        let is_silent = !parts.iter().any(|(_, part)| *part == Part::Alpha) && file.tensors().iter().any(is_of_peft);
        let settings = match LoraSettings::of(&file)? {
            None if is_silent => LoraSettings::beside(source, path).await?,
            settings => settings,
        };

        let mut modules: Vec<(String, Parts)> = Vec::new();
        let mut places: HashMap<String, usize> = HashMap::new();
        let mut gather = Gather::new(|tensor: &TensorInfo, bytes: &[u8]| {
            let (stem, part) = split(tensor)?;
            let at = *places.entry(stem.to_owned()).or_insert_with(|| {
                modules.push((stem.to_owned(), Parts::default()));
                modules.len() - 1
            });
            modules[at].1.put(tensor, part, bytes)
        });
        let is_part = |tensor: &TensorInfo| split(tensor).is_ok_and(|(_, part)| part != Part::Embedding);
        file.stream(&mut |_| {}, &is_part, &mut gather).await?;
        let invalid = |reason: String| weights::Error::Header { file: path.to_owned(), format: "LoRA", reason };
        let mut guessed = false;
        let mut module = |(stem, parts): (String, Parts)| match parts {
            Parts { down: Some(down), up: Some(up), alpha } => {
                let module = LoraModule::new(&stem, down, up, alpha, settings.as_ref())?;
                guessed |= module.alpha_is_guessed;
                Ok(module)
            }
            _ => Err(invalid(format!("module {stem:?} lacks a down or an up matrix")).into()),
        };
        let modules = modules.into_iter().map(&mut module).collect::<Result<Vec<_>, Error>>()?;
        if guessed {
            notes.push(format!(
                "{path}: it does not say its alpha, and no adapter_config.json beside it does; alpha is taken to be the rank"
            ));
        }
        match modules.is_empty() {
            true => Err(invalid("it holds no tensors".into()).into()),
            false => Ok(Self { file: path.to_owned(), modules, notes }),
        }
    }

    /// The file's path in the source.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Notes for whoever uses it: its unused parts, and guesses that had to be made.
    pub fn notes(&self) -> &[String] {
        &self.notes
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
    /// Names the modules that the component does not have, or one whose shape is another.
    pub fn updates(&self, component: &str, specs: &[WeightSpec]) -> Result<Vec<(usize, &LoraModule)>, Error> {
        let table = ModuleTable::new(specs);
        let mut updates: Vec<Option<&LoraModule>> = vec![None; specs.len()];
        let (mut found, mut lost) = (0, Vec::new());
        for module in self.modules.iter().filter(|module| module.component == component) {
            let tensor = &module.down.tensor;
            let Some((index, spec)) = table.find(&module.path).and_then(|index| Some((index, specs.get(index)?)))
            else {
                if !(component == "text_encoder" && table.is_past_its_end(&module.path)) {
                    lost.push(tensor);
                }
                continue;
            };
            found += 1;
            module.check_shape(spec)?;
            if let Some(other) = updates[index].replace(module) {
                let reason = format!("it is of the same module as {:?}", other.down.tensor.name);
                return Err(tensor.error(reason).into());
            }
        }
        match &lost[..] {
            [] => Ok(updates.into_iter().enumerate().filter_map(|(index, module)| Some((index, module?))).collect()),
            [first, ..] if found == 0 => {
                let reason = format!("this model's {component} has no such module; the LoRA is for another model");
                Err(first.error(reason).into())
            }
            [first, others @ ..] => {
                let all = found + lost.len();
                let mut reason = format!(
                    "this model's {component} has no such module, though it has {found} of the {all} that the LoRA changes"
                );
                for (index, other) in others.iter().take(2).enumerate() {
                    reason += &format!("{} {:?}", if index == 0 { "; it lacks" } else { "," }, other.name);
                }
                if let Some(more @ 1..) = others.len().checked_sub(2) {
                    reason += &format!(" and {more} more");
                }
                Err(first.error(reason).into())
            }
        }
    }

    /// Whether all of it has a place in the networks of a checkpoint of `class`.
    fn check(&self, networks: &[(&str, &[WeightSpec])], class: &str) -> Result<(), Error> {
        for component in self.components() {
            let Some((_, specs)) = networks.iter().find(|(name, _)| *name == component) else {
                return Err(Error::option(
                    "lora",
                    &self.file,
                    format!("it changes a {component}, and this {class} has none"),
                ));
            };
            self.updates(component, specs)?;
        }
        Ok(())
    }
}

/// Whether PEFT names tensors so, which keeps alpha apart from them.
fn is_of_peft(tensor: &TensorInfo) -> bool {
    tensor.name.contains(".lora_A")
}

impl LoraModule {
    fn new(
        stem: &str,
        down: Matrix,
        up: Matrix,
        alpha: Option<f64>,
        settings: Option<&LoraSettings>,
    ) -> Result<Self, Error> {
        let rank = match down.tensor.shape.first() {
            Some(&rank) if rank > 0 => rank,
            _ => return Err(down.tensor.error(format!("its shape {:?} has no rank", down.tensor.shape)).into()),
        };
        let (component, path) = module_of(stem);
        let scale = match (alpha, settings) {
            (Some(alpha), _) => Some(alpha / rank as f64),
            (None, Some(settings)) => settings.scale(component, &path, rank)?,
            (None, None) => None,
        };
        let alpha_is_guessed = scale.is_none() && is_of_peft(&down.tensor);
        let path = ModuleTable::flatten(&path);
        Ok(Self { component, path, down, up, scale: scale.unwrap_or(1.0), alpha_is_guessed })
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

    /// The module's matrices, for `weight` times the LoRA.
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

/// The additions to each weight of a network, for all LoRAs.
type Additions<'a> = Vec<Vec<(&'a LoraModule, f64)>>;

impl Checkpoint {
    /// Whether `lora` can be merged into this checkpoint, which [`Pipeline::set_loras`] would say when its weights are there.
    ///
    /// # Errors
    /// A LoRA for another model, by the tensor that does not fit.
    pub fn check_lora(&self, lora: &LoraFile) -> Result<(), Error> {
        let texts = ["text_encoder", "text_encoder_2"].into_iter().zip(&self.texts);
        let networks: Vec<_> = [("unet", &self.unet)].into_iter().chain(texts).collect();
        let specs: Vec<_> = networks.into_iter().map(|(name, weights)| (name, weights.specs())).collect();
        lora.check(&specs, &self.model.info.class)
    }
}

impl Pipeline {
    /// Merges LoRAs into the networks, each times a weight, in place of those that were merged before; none restores the
    /// checkpoint's own weights, bit by bit, without reading it again. Runs that start from now on see the change.
    ///
    /// # Errors
    /// A LoRA for another model, by the tensor that does not fit, or a weight that is no number, before anything is changed;
    /// or the device's refusal, after which the checkpoint's own weights are restored.
    pub async fn set_loras(&self, loras: &[(&LoraFile, f64)]) -> Result<(), Error> {
        let networks = self.parts.networks();
        let specs: Vec<_> = networks.iter().map(|(name, weights)| (*name, weights.specs())).collect();
        loras.iter().try_for_each(|(lora, _)| lora.check(&specs, &self.parts.model.info.class))?;
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
