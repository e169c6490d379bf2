//! What the integration tests share: where reference data lies, how it is read, how results are compared.

pub mod command;
pub mod hostile;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pollster::block_on;
use safetensors::{Dtype, SafeTensors};
use undiffuse::device::Device;
use undiffuse::gpu::{self, variants::MatrixKernels};

/// The reference data: `UNDIFFUSE_REFERENCE`, or the copy beside the tests.
pub fn reference(room: &str) -> PathBuf {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference");
    std::env::var_os("UNDIFFUSE_REFERENCE").map_or(default, PathBuf::from).join(room)
}

/// The folders inside `directory`, sorted.
pub fn folders(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
    let mut folders: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).filter(|p| p.is_dir()).collect();
    folders.sort();
    folders
}

/// The machine's WebGPU adapter, or a software one; a machine without either fails the test rather than skip it.
pub fn gpu() -> Device {
    gpu_with(None)
}

/// Likewise, with the matrix kernels `kernels`.
pub fn gpu_with(kernels: Option<MatrixKernels>) -> Device {
    match block_on(gpu::Device::request(gpu::DeviceOptions { kernels, ..Default::default() })) {
        Ok(device) => Device::Gpu(device),
        Err(error) => panic!("{error}: install a Vulkan driver, or the software one of Debian's mesa-vulkan-drivers"),
    }
}

/// The last part of a path.
pub fn name_of(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

pub fn read_text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

pub fn read_json(path: &Path) -> serde_json::Value {
    serde_json::from_str(&read_text(path)).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// A stored tensor, its numbers as f32.
#[derive(Clone, Debug)]
pub struct Tensor {
    pub shape: Vec<usize>,
    pub data: Vec<f32>,
}

/// All tensors of a file.
pub fn read_tensors(path: &Path) -> BTreeMap<String, Tensor> {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let file = SafeTensors::deserialize(&bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    file.tensors()
        .into_iter()
        .map(|(name, view)| {
            let bytes = view.data();
            let data = match view.dtype() {
                Dtype::F32 => bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect(),
                Dtype::F64 => bytes.chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap()) as f32).collect(),
                Dtype::I64 => bytes.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as f32).collect(),
                Dtype::I32 => bytes.chunks_exact(4).map(|b| i32::from_le_bytes(b.try_into().unwrap()) as f32).collect(),
                Dtype::U8 => bytes.iter().map(|&b| f32::from(b)).collect(),
                Dtype::F16 => {
                    bytes.chunks_exact(2).map(|b| half::f16::from_le_bytes(b.try_into().unwrap()).to_f32()).collect()
                }
                other => panic!("{}: tensor {name} is {other:?}", path.display()),
            };
            (name, Tensor { shape: view.shape().to_vec(), data })
        })
        .collect()
}

/// The worst element of `actual` against `expected`, if it is off by more than `tolerance`.
pub fn worst_beyond(actual: &[f32], expected: &Tensor, tolerance: f64) -> Result<f64, String> {
    if actual.len() != expected.data.len() {
        return Err(format!("{} elements, expected {:?}", actual.len(), expected.shape));
    }
    let error = |i: usize| {
        let e = (f64::from(actual[i]) - f64::from(expected.data[i])).abs();
        if e.is_nan() { f64::INFINITY } else { e }
    };
    let Some(worst) = (0..actual.len()).max_by(|&a, &b| error(a).total_cmp(&error(b))) else { return Ok(0.0) };
    if error(worst) <= tolerance {
        return Ok(error(worst));
    }
    let mut index = vec![0; expected.shape.len()];
    let mut rest = worst;
    for (i, &side) in index.iter_mut().zip(&expected.shape).rev() {
        *i = rest % side;
        rest /= side;
    }
    let (got, wanted) = (actual[worst], expected.data[worst]);
    Err(format!("worst at {index:?}: {got}, expected {wanted}: off by {:.3e}, allowed {tolerance:.3e}", error(worst)))
}

/// Largest magnitude of a tensor.
pub fn max_abs(tensor: &Tensor) -> f64 {
    tensor.data.iter().fold(0.0, |m, v| f64::from(v.abs()).max(m))
}

/// What happened to each case of a walk over reference data.
#[derive(Default)]
pub struct Tally {
    ran: usize,
    skipped: BTreeMap<String, Vec<String>>,
    failures: Vec<String>,
}

impl Tally {
    pub fn passed(&mut self) {
        self.ran += 1;
    }

    pub fn skip(&mut self, case: impl Into<String>, reason: impl Into<String>) {
        self.skipped.entry(reason.into()).or_default().push(case.into());
    }

    pub fn fail(&mut self, failure: impl Into<String>) {
        self.ran += 1;
        self.failures.push(failure.into());
    }

    pub fn check(&mut self, case: &str, result: Result<f64, String>) {
        match result {
            Ok(_) => self.passed(),
            Err(message) => self.fail(format!("{case}: {message}")),
        }
    }

    /// Prints the counts; fails if anything failed or nothing ran.
    pub fn finish(self, what: &str) {
        let skipped: usize = self.skipped.values().map(Vec::len).sum();
        println!("{what}: {} ran, {} failed, {skipped} skipped", self.ran, self.failures.len());
        for (reason, cases) in &self.skipped {
            println!("  skipped {}: {reason}: {}", cases.len(), cases.join(", "));
        }
        assert!(self.failures.is_empty(), "{} failures:\n{}", self.failures.len(), self.failures.join("\n"));
        assert!(self.ran > 0, "{what}: no case ran");
    }
}
