//! One side of a comparison, run once in a process of its own, which prints a line of JSON.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::Value;

use crate::tools;

/// What a side measured; what its system does not tell is absent.
#[derive(Clone, Debug, Deserialize)]
pub struct Measured {
    /// What it ran on, as it says itself.
    pub device: String,
    /// The first step; in a browser since the navigation began.
    pub first_ms: f64,
    pub steps_ms: Vec<f64>,
    /// How far its output is from what it should be.
    #[serde(default)]
    pub error: f64,
    /// Of the process.
    pub peak_mib: Option<f64>,
    pub renderer_mib: Option<f64>,
    pub gpu_process_mib: Option<f64>,
    /// Scripts and WebAssembly that were fetched, in brotli.
    pub code_bytes: Option<f64>,
    pub parameters: Option<f64>,
    pub multiply_adds: Option<f64>,
}

impl Measured {
    /// All memory that it held at most, in MiB.
    pub fn memory(&self) -> Option<f64> {
        let browser = self.renderer_mib.map(|renderer| renderer + self.gpu_process_mib.unwrap_or(0.0));
        self.peak_mib.or(browser)
    }
}

/// Runs a command and reads its last line as JSON.
pub fn json(command: &mut Command) -> Result<Value> {
    let line = tools::line(command);
    let output = command.stderr(Stdio::inherit()).output().with_context(|| format!("cannot start {line}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        bail!("{line} failed ({})", output.status);
    }
    let last = text.lines().last().with_context(|| format!("{line} printed nothing"))?;
    serde_json::from_str(last).with_context(|| format!("{line} printed {last:?}"))
}

/// Runs one side; its output must be as close to the expected one as `most_error`.
pub fn measure(command: &mut Command, most_error: f64) -> Result<Measured> {
    let measured: Measured = serde_json::from_value(json(command)?)?;
    if measured.error > most_error {
        bail!("{} is off by {}, more than {most_error}", tools::line(command), measured.error);
    }
    if measured.steps_ms.is_empty() {
        bail!("{} timed no step", tools::line(command));
    }
    Ok(measured)
}
