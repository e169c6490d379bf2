//! `cargo xtask bench`: how fast, how large and how heavy, next to onnxruntime on the same networks with the same weights, and next
//! to what the machine can do.
//!
//! Both sides of a comparison run in turns, each time in a process (in the browser, a Chromium with a profile) of its own, and
//! only after their outputs were found to agree. Every part keeps a report in `target/bench/results`, from which
//! `docs/performance.md` is written, so that parts can be run by themselves.

mod document;
mod plot;
mod report;
mod side;

use std::path::PathBuf;
use std::process::Command;
use std::{fs, thread};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde_json::json;

use crate::build;
use crate::tools;
use report::{Compiled, Point, Profile, Report, Spread, exponent, number};
use side::{Measured, measure};

/// Where both sides find what they read, in the repository.
const FOLDER: &str = "target/bench";
/// The networks that are compared.
const NETWORKS: [&str; 2] = ["emoji64", "cifar"];
/// The share of a picture's values that may be off by more than a level of 255.
const MOST_OFF: f64 = 0.005;
/// The largest difference of a network's outputs, relative to the largest output.
const MOST_ERROR: f64 = 1e-4;
/// Architectures of AMD, with a chip of each by the names that versions of Mesa have for it.
const CHIPS: [(&str, &[&str]); 3] =
    [("RDNA 3", &["navi31", "gfx1100"]), ("RDNA 2", &["navi21"]), ("GCN 5", &["renoir"])];

/// A part of the benchmark.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// In Chromium on the CPU, next to onnxruntime-web's wasm provider
    Web,
    /// In Chromium on WebGPU, next to onnxruntime-web's WebGPU provider
    WebGpu,
    /// Natively, next to onnxruntime's CPU provider
    Native,
    /// Natively on CPU and GPU, next to what the machine can do
    Ceilings,
    /// By side, batch and parameters
    Scale,
    /// Stable Diffusion 1.5's UNet on a real GPU, next to PyTorch; only if asked for
    Gpu,
    /// What Mesa's compiler for AMD's GPUs makes of a network's kernels, which needs no GPU; only if asked for
    Isa,
}

/// How much is measured.
#[derive(Clone, Copy)]
struct Effort {
    /// How often both sides run.
    rounds: usize,
    /// Steps of each run that are timed.
    steps: usize,
    is_quick: bool,
}

impl Part {
    fn name(self) -> String {
        self.to_possible_value().map_or(String::new(), |value| value.get_name().to_owned())
    }

    fn is_web(self) -> bool {
        matches!(self, Self::Web | Self::WebGpu)
    }

    /// Whether it is run if nobody asks for it.
    fn is_usual(self) -> bool {
        !matches!(self, Self::Gpu | Self::Isa)
    }

    /// Runs it; `network` is the one whose kernels are compiled.
    fn run(self, effort: Effort, network: &str) -> Result<Report> {
        match self {
            Self::Web => web(effort),
            Self::WebGpu => web_gpu(effort),
            Self::Native => native(effort),
            Self::Ceilings => ceilings(effort),
            Self::Scale => scale(effort),
            Self::Gpu => gpu(effort),
            Self::Isa => isa(network),
        }
    }
}

/// Runs the parts asked for, or the usual ones if none is, and writes the document anew. A quick run shows that everything works; its
/// numbers are not written down. `network` is the one whose kernels are compiled.
pub fn bench(only: &[Part], is_quick: bool, network: &str) -> Result<()> {
    let effort = match is_quick {
        true => Effort { rounds: 1, steps: 3, is_quick },
        false => Effort { rounds: 3, steps: 15, is_quick },
    };
    let is_wanted = |part: Part| if only.is_empty() { part.is_usual() } else { only.contains(&part) };
    let parts: Vec<Part> = Part::value_variants().iter().copied().filter(|&part| is_wanted(part)).collect();
    tools::vulkan()?;
    if parts.iter().any(|&part| part != Part::Isa) {
        prepare(&parts)?;
    }
    let (mut done, mut failed) = (false, Vec::new());
    for part in parts {
        println!("\n── {} ──", part.name());
        match part.run(effort, network) {
            Ok(report) => {
                print!("{}", report.terminal());
                if !is_quick {
                    report.save(&part.name())?;
                }
                done = true;
            }
            // The others have nothing to do with it.
            Err(error) => {
                println!("{error:#}");
                failed.push(part.name());
            }
        }
    }
    if done && !is_quick {
        write_document()?;
    }
    if failed.is_empty() { Ok(()) } else { bail!("failed: {}", failed.join(", ")) }
}

/// Builds what `parts` time, and makes what they read.
fn prepare(parts: &[Part]) -> Result<()> {
    if parts.iter().any(|part| part.is_web()) {
        build::build(false)?;
        println!("browser: {}", tools::chromium()?.display());
    }
    tools::npm_modules("bench/web")?;
    println!("building the native half");
    tools::run(tools::cargo().args(["build", "--release", "--package", "undiffuse-bench"]))?;
    if parts.iter().any(|part| part.is_web() || matches!(part, Part::Native | Part::Ceilings)) {
        for network in NETWORKS {
            side::json(ours().args(["prepare", FOLDER, "--network", network]))?;
        }
    }
    Ok(())
}

/// Fills `docs/performance.md` and draws its plots from the reports that there are.
fn write_document() -> Result<()> {
    let path = tools::root().join("docs/performance.md");
    let mut text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let mut compared = Vec::new();
    for part in Part::value_variants() {
        let Some(report) = Report::load(&part.name())? else { continue };
        text = document::fill(&text, &part.name(), &report.markdown())?;
        if !report.points.is_empty() {
            write("docs/images/scale.svg", &plot::growth(&report.points))?;
        }
        if part.is_web() {
            compared.extend(report.lines);
        }
    }
    if !compared.is_empty() {
        write("docs/images/onnxruntime.svg", &plot::ratios(&compared))?;
    }
    write("docs/performance.md", &text)
}

fn write(path: &str, text: &str) -> Result<()> {
    fs::write(tools::root().join(path), text).with_context(|| path.to_owned())?;
    println!("wrote {path}");
    Ok(())
}

/// This crate's native half, built to be timed.
fn ours() -> Command {
    built("release")
}

/// This crate's native half, as it was built into a folder of `target`.
fn built(profile: &str) -> Command {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    tools::command(target.join(profile).join(format!("undiffuse-bench{}", std::env::consts::EXE_SUFFIX)))
}

/// Thread counts that are compared: one, and as many as there are cores, up to the number that runtimes take by themselves.
fn thread_counts() -> Vec<usize> {
    let cores = thread::available_parallelism().map_or(1, |cores| cores.get()).min(8);
    if cores > 1 { vec![1, cores] } else { vec![1] }
}

fn threads_text(threads: usize) -> String {
    if threads == 1 { "1 thread".into() } else { format!("{threads} threads") }
}

/// Runs both sides in turns, the one first that came second before.
fn in_turns(rounds: usize, mut run: impl FnMut(usize) -> Result<Measured>) -> Result<Vec<[Measured; 2]>> {
    let round = |index: usize| {
        if index.is_multiple_of(2) {
            let ours = run(0)?;
            Ok([ours, run(1)?])
        } else {
            let theirs = run(1)?;
            Ok([run(0)?, theirs])
        }
    };
    (0..rounds).map(round).collect()
}

/// Adds a line about a quantity of which less is better.
fn compare(
    report: &mut Report,
    what: String,
    unit: &str,
    rounds: &[[Measured; 2]],
    pick: impl Fn(&Measured) -> Vec<f64>,
) {
    let rounds: Vec<[Vec<f64>; 2]> = rounds.iter().map(|round| [pick(&round[0]), pick(&round[1])]).collect();
    report.compare(what, unit, &rounds, |ours, theirs| theirs / ours);
}

/// The command that runs a side in a browser of its own.
fn browser(runtime: &str, network: &str, device: &str, threads: Option<usize>, steps: usize) -> Result<Command> {
    let task = json!({
        "runtime": runtime, "folder": FOLDER, "name": network, "device": device, "threads": threads, "steps": steps,
    });
    let mut node = tools::command("node");
    node.arg("bench/web/browser.js").arg(task.to_string()).env("CHROMIUM", tools::chromium()?);
    Ok(node)
}

/// Both runtimes on a network in the browser: how long, how much memory, how much code.
fn in_browser(
    report: &mut Report,
    network: &str,
    device: &str,
    threads: Option<usize>,
    rounds: usize,
    steps: [usize; 2],
) -> Result<()> {
    let rounds = in_turns(rounds, |side| {
        let (runtime, most) = [("undiffuse", MOST_OFF), ("onnxruntime", MOST_ERROR)][side];
        measure(&mut browser(runtime, network, device, threads, steps[side])?, most)
    })?;
    let on = threads.map_or(String::new(), |threads| format!(", {}", threads_text(threads)));
    let what = |quantity: &str| format!("{network}{on}: {quantity}");
    compare(report, what("step"), "ms", &rounds, |side| side.steps_ms.clone());
    compare(report, what("navigation to first result"), "ms", &rounds, |side| vec![side.first_ms]);
    compare(report, what("peak memory"), "MiB", &rounds, |side| side.memory().into_iter().collect());
    if report.lines.iter().all(|line| line.unit != "kB") {
        compare(report, "code to download, brotli".into(), "kB", &rounds, |side| {
            side.code_bytes.iter().map(|bytes| bytes / 1e3).collect()
        });
    }
    Ok(())
}

fn web(effort: Effort) -> Result<Report> {
    let mut report = Report::new("undiffuse", "onnxruntime-web wasm");
    for network in NETWORKS {
        for threads in thread_counts() {
            in_browser(&mut report, network, "cpu", Some(threads), effort.rounds, [effort.steps; 2])?;
        }
    }
    Ok(report)
}

fn web_gpu(effort: Effort) -> Result<Report> {
    let mut report = Report::new("undiffuse", "onnxruntime-web WebGPU");
    // On a software adapter the rival takes a minute for a step of the larger network and as long to begin: it is asked for few.
    in_browser(
        &mut report,
        "emoji64",
        "webgpu",
        None,
        if effort.is_quick { 1 } else { 2 },
        [effort.steps, effort.steps.min(10)],
    )?;
    if !effort.is_quick {
        in_browser(&mut report, "cifar", "webgpu", None, 1, [effort.steps.min(10), 2])?;
    }
    Ok(report)
}

fn native(effort: Effort) -> Result<Report> {
    let mut report = Report::new("undiffuse", "onnxruntime CPU");
    for network in NETWORKS {
        for threads in thread_counts() {
            let threads_argument = threads.to_string();
            let steps = (2 * effort.steps).to_string();
            let rounds = in_turns(effort.rounds, |side| {
                if side == 0 {
                    return measure(
                        &mut step(network, "cpu", &["--threads", &threads_argument, "--steps", &steps]),
                        0.0,
                    );
                }
                let folder = format!("{FOLDER}/{network}");
                let mut node = tools::command("node");
                measure(node.args(["bench/web/native.js", &folder, &threads_argument, &steps]), MOST_ERROR)
            })?;
            let what = |quantity: &str| format!("{network}, {}: {quantity}", threads_text(threads));
            compare(&mut report, what("step"), "ms", &rounds, |side| side.steps_ms.clone());
            compare(&mut report, what("peak memory"), "MiB", &rounds, |side| side.memory().into_iter().collect());
        }
    }
    Ok(report)
}

/// The command that times steps of a network natively.
fn step(network: &str, device: &str, arguments: &[&str]) -> Command {
    let mut command = ours();
    command.args(["step", FOLDER, "--network", network, "--device", device]).args(arguments);
    command
}

/// How a small network's cost grows along three axes.
fn scale(effort: Effort) -> Result<Report> {
    const AXES: [(&str, &[usize]); 3] =
        [("side", &[16, 24, 32, 48, 64]), ("batch", &[1, 2, 4, 8]), ("width", &[32, 64, 96, 128, 192])];
    let mut report = Report::new("undiffuse", "");
    for device in ["cpu", "gpu"] {
        // A software adapter takes seconds for a step of the larger ones.
        let steps = if device == "gpu" { effort.steps.min(3) } else { effort.steps };
        for (axis, values) in AXES {
            let mut growth = Vec::new();
            for &value in if effort.is_quick { &values[..2] } else { values } {
                let arguments = [&format!("--{axis}"), &value.to_string(), "--steps", &steps.to_string()];
                let measured = measure(&mut step("small", device, &arguments.map(|argument| argument as &str)), 0.0)?;
                let times = Spread::of(measured.steps_ms.iter().copied()).context("no step was timed")?;
                let point = Point {
                    axis: axis.into(),
                    device: measured.device.clone(),
                    value: value as f64,
                    step_ms: times.median,
                    peak_mib: measured.memory(),
                    parameters: measured.parameters.context("the parameters are not known")?,
                    multiply_adds: measured.multiply_adds.context("the multiply-adds are not known")?,
                };
                growth.push((point.multiply_adds, point.step_ms));
                report.points.push(point);
            }
            if let (Some(power), Some(point)) = (exponent(&growth), report.points.last()) {
                let note =
                    format!("{}, by {axis}: time grows as multiply-adds to the power {}.", point.device, number(power));
                report.notes.push(note);
            }
        }
    }
    Ok(report)
}

/// The CPU executor next to a loop of multiply-adds, and each kind of node next to the ceilings that its device measures of itself, on
/// the CPU and on the adapter that wgpu finds.
fn ceilings(effort: Effort) -> Result<Report> {
    let mut report = Report::new("undiffuse", "multiply-adds in registers");
    for threads in thread_counts() {
        let threads_argument = threads.to_string();
        let measured = || side::json(ours().args(["ceilings", "--threads", &threads_argument]));
        let mut copies = Vec::new();
        for network in NETWORKS {
            let mut rounds = Vec::new();
            for _ in 0..effort.rounds {
                let arguments = ["--threads", &threads_argument, "--steps", &effort.steps.to_string()];
                let own = measure(&mut step(network, "cpu", &arguments), 0.0)?;
                let work = 2.0 * own.multiply_adds.context("the multiply-adds are not known")? / 1e6;
                let ceiling = measured()?;
                let rate = |name: &str| ceiling[name].as_f64().with_context(|| format!("no {name}"));
                copies.push(rate("copy_gb")?);
                rounds.push([own.steps_ms.iter().map(|ms| work / ms).collect(), vec![rate("gflops")?]]);
            }
            let what = format!("{network} on the CPU, {}", threads_text(threads));
            report.compare(what, "GFLOP/s", &rounds, |ours, theirs| ours / theirs);
        }
        if let Some(copy) = Spread::of(copies) {
            report.notes.push(format!("A copy through memory with {}: {} GB/s.", threads_text(threads), copy.text()));
        }
    }
    for network in if effort.is_quick { &NETWORKS[..1] } else { &NETWORKS[..] } {
        for device in ["cpu", "gpu"] {
            report.profiles.push(profile(network, device, &["--steps", &effort.steps.min(10).to_string()])?);
        }
    }
    Ok(report)
}

/// Where the time of a network goes on the CPU, or on the adapter that wgpu finds.
fn profile(network: &str, device: &str, arguments: &[&str]) -> Result<Profile> {
    let fixed = ["profile", FOLDER, "--network", network, "--device", device];
    let mut profile: Profile = serde_json::from_value(side::json(ours().args(fixed).args(arguments))?)?;
    profile.network = network.into();
    Ok(profile)
}

/// The UNet of Stable Diffusion 1.5 with random f16 weights on the GPU that wgpu finds; and in PyTorch on the same GPU, if it is
/// there. A quick run takes a picture so small that a software adapter will do.
fn gpu(effort: Effort) -> Result<Report> {
    let [batch, side] = if effort.is_quick { ["1", "8"] } else { ["2", "64"] };
    let steps = effort.steps.to_string();
    let sizes = ["--batch", batch, "--side", side, "--steps", &steps];
    let mut report = Report::new("undiffuse", "PyTorch eager, f16");
    let own = profile("sd15", "gpu", &[&sizes[..], if effort.is_quick { &[] } else { &["--hardware"] }].concat())?;
    let mut python = tools::command(if cfg!(windows) { "python" } else { "python3" });
    match side::json(python.arg("bench/torch/eager.py").args(sizes)) {
        Ok(theirs) => {
            let theirs: Profile = serde_json::from_value(theirs)?;
            let rounds = [[own.steps_ms.clone(), theirs.steps_ms.clone()]];
            report.compare("sd15: step".into(), "ms", &rounds, |ours, theirs| theirs / ours);
            report.profiles.extend([own, theirs]);
        }
        Err(error) => {
            report.profiles.push(own);
            report.notes.push(format!("Not compared with PyTorch: {error:#}."));
        }
    }
    Ok(report)
}

/// What Mesa's compiler makes of the kernels of `network`, for each architecture that this Mesa knows.
fn isa(network: &str) -> Result<Report> {
    const HOW: &str = "Mesa's Vulkan driver for AMD is needed, which compiles for GPUs that are not there (Debian: apt-get install \
                       libvulkan1 mesa-vulkan-drivers)";
    // Nothing is timed, so that the quicker build will do.
    tools::run(tools::cargo().args(["build", "--package", "undiffuse-bench"]))?;
    let mut report = Report::new("undiffuse", "");
    for (architecture, names) in CHIPS {
        // The driver ends the process that asks for a chip whose name it does not know.
        let found = names.iter().find_map(|name| {
            side::json(built("debug").args(["isa", "--network", network]).env("RADV_FORCE_FAMILY", name)).ok()
        });
        let Some(found) = found else {
            let name = names.first().copied().unwrap_or_default();
            report
                .notes
                .push(format!("{architecture} is missing: this Mesa does not compile for {name}; a newer one may."));
            continue;
        };
        if let Some(missing) = found["missing"].as_str() {
            bail!("{missing}: {HOW}");
        }
        let compiled: Compiled = serde_json::from_value(found)?;
        report.compiled.push(Compiled { architecture: architecture.into(), ..compiled });
    }
    if report.compiled.is_empty() {
        bail!("no kernel was compiled: {HOW}");
    }
    Ok(report)
}
