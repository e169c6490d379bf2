//! Where a network's weights come from: a file, or a seed.

use std::borrow::Cow;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

use anyhow::{Context, Result, bail};
use half::f16;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype as StoredDtype, TensorView};
use undiffuse::graph::{WeightRole, WeightSpec};
use undiffuse::models::canonical_weight_name;
use undiffuse::weights::Encoding;

/// The weights of one network.
pub enum Weights {
    /// A safetensors file.
    File(Vec<u8>),
    /// Random f16 numbers of the deviation that torch gives a fresh layer; each depends on its name alone.
    Random,
}

/// A weight as a checkpoint stores it.
pub struct Tensor<'a> {
    pub dtype: Encoding,
    pub bytes: Cow<'a, [u8]>,
}

impl Weights {
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Self::File(std::fs::read(path).with_context(|| path.display().to_string())?))
    }

    /// The weight that `spec` asks for.
    ///
    /// # Errors
    /// If the file lacks it or holds another.
    pub fn tensor(&self, spec: &WeightSpec) -> Result<Tensor<'_>> {
        let Self::File(file) = self else {
            return Ok(Tensor { dtype: Encoding::F16, bytes: Cow::Owned(random(spec)) });
        };
        let tensors = SafeTensors::deserialize(file)?;
        let (_, tensor) = tensors
            .iter()
            .find(|(name, _)| canonical_weight_name(name) == spec.name)
            .with_context(|| format!("the file has no tensor {}", spec.name))?;
        if tensor.shape().iter().product::<usize>() != spec.shape.iter().product::<usize>() {
            bail!("{}: shape {:?}, expected {:?}", spec.name, tensor.shape(), spec.shape);
        }
        let dtype = Encoding::from_safetensors(&tensor.dtype().to_string()).context("an unknown dtype")?;
        Ok(Tensor { dtype, bytes: Cow::Borrowed(tensor.data()) })
    }
}

/// Writes random weights for all `specs` into a safetensors file.
pub fn write_random(path: &Path, specs: &[WeightSpec]) -> Result<()> {
    let values: Vec<Vec<u8>> = specs.iter().map(random).collect();
    let views = specs
        .iter()
        .zip(&values)
        .map(|(spec, bytes)| Ok((spec.name.as_str(), TensorView::new(StoredDtype::F16, spec.shape.clone(), bytes)?)));
    let views: Vec<_> = views.collect::<Result<_>>()?;
    let file = safetensors::serialize(views, None)?;
    std::fs::write(path, file).with_context(|| path.display().to_string())
}

/// Matrices and biases are uniform in ±1/√inputs, as torch begins them; norms scale by about 1.
fn random(spec: &WeightSpec) -> Vec<u8> {
    let mut hasher = DefaultHasher::new();
    spec.name.hash(&mut hasher);
    let mut random = fastrand::Rng::with_seed(hasher.finish());
    let inputs: usize = spec.shape[1..].iter().product();
    let (middle, most) = match spec.role {
        WeightRole::Vector if spec.name.contains("norm") && spec.name.ends_with("weight") => (1.0, 0.1),
        WeightRole::Vector => (0.0, 0.02),
        _ => (0.0, 1.0 / (inputs as f32).sqrt()),
    };
    let elements: usize = spec.shape.iter().product();
    (0..elements).flat_map(|_| f16::from_f32(middle + most * (2.0 * random.f32() - 1.0)).to_le_bytes()).collect()
}
