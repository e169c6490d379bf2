//! What a part of the benchmark found: lines that compare, points that show growth; as JSON, as a table on the terminal, in Markdown.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::tools;

/// Median, least and greatest of some measurements.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
    /// How many there were.
    pub count: usize,
}

impl Spread {
    /// Of at least one number.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (&min, &max) = (values.first()?, values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 };
        Some(Self { median, min, max, count: values.len() })
    }

    /// `49.0 (46.2–65.0)`, with three digits; a lone or unvarying number stands alone.
    pub fn text(&self) -> String {
        if self.min == self.max {
            return number(self.median);
        }
        format!("{} ({}–{})", number(self.median), number(self.min), number(self.max))
    }
}

/// Three digits, or all of a large number.
pub fn number(value: f64) -> String {
    match value.abs() {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        1.0.. => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// One comparison: the same quantity on two sides, measured in turns.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Line {
    /// What is compared, such as `emoji64, 1 thread: step`.
    pub what: String,
    /// Of both numbers.
    pub unit: String,
    pub ours: Spread,
    /// The other side, or the ceiling.
    pub theirs: Spread,
    /// How many times better we are, a ratio for each round: theirs / ours of a time or a size, ours / theirs of a rate.
    pub ratio: Spread,
}

/// A network of some size on some device.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Point {
    /// What grows: `side`, `batch` or `width`.
    pub axis: String,
    pub device: String,
    /// Along the axis.
    pub value: f64,
    /// Median of a step.
    pub step_ms: f64,
    /// The most memory that the process held, where the system tells.
    pub peak_mib: Option<f64>,
    /// The network's parameters.
    pub parameters: f64,
    /// Of one step.
    pub multiply_adds: f64,
}

/// Where the time of a network goes on a device, next to what the device can do.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Profile {
    #[serde(default)]
    pub network: String,
    pub device: String,
    /// How times were taken.
    pub clock: String,
    pub first_ms: f64,
    pub steps_ms: Vec<f64>,
    /// The nodes one after the other, as they usually run.
    pub whole_ms: f64,
    /// The ceilings: 10⁹ FLOP a second in f32 and f16, and 10⁹ bytes.
    pub gflops: f64,
    pub half_gflops: Option<f64>,
    pub copy_gb: f64,
    pub kinds: Vec<Kind>,
}

/// The nodes of one op.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Kind {
    pub op: String,
    pub nodes: usize,
    pub ms: f64,
    /// Its arithmetic, traffic and the least time that the ceilings allow as a share of the time, where they were counted.
    pub gflop: Option<f64>,
    pub gb: Option<f64>,
    pub roofline: Option<f64>,
}

impl Profile {
    /// The ceilings and the whole, in two sentences.
    fn title(&self) -> String {
        let half = self.half_gflops.map_or(String::new(), |rate| format!(" ({} in f16)", number(rate)));
        let step = Spread::of(self.steps_ms.iter().copied()).map_or(String::new(), |spread| spread.text());
        let (network, device, clock) = (&self.network, &self.device, &self.clock);
        let (gflops, copy_gb) = (number(self.gflops), number(self.copy_gb));
        let matrices = self.kinds.iter().filter(|kind| ["conv2d", "linear"].contains(&kind.op.as_str()));
        let counted = matrices.filter_map(|kind| Some((kind.ms, kind.gflop?)));
        let (ms, gflop) = counted.fold((0.0, 0.0), |(ms, gflop), kind| (ms + kind.0, gflop + kind.1));
        let reached = if ms > 0.0 {
            let share = number(gflop / ms * 1e3 / self.gflops * 100.0);
            format!(" Convolutions and linear layers together reach {share} % of the multiply-adds in f32.")
        } else {
            String::new()
        };
        format!(
            "{network} on {device}: {step} ms a step, the first {} ms (clock: {clock}). Ceilings: {gflops} GFLOP/s{half}, {copy_gb} \
             GB/s.{reached}",
            number(self.first_ms)
        )
    }

    /// The kinds as a table, the first row its head.
    fn table(&self) -> Vec<[String; 7]> {
        let mut rows = vec![["", "nodes", "ms", "share", "GFLOP/s", "GB/s", "of the roofline"].map(str::to_owned)];
        let total: f64 = self.kinds.iter().map(|kind| kind.ms).sum();
        rows.extend(self.kinds.iter().map(|Kind { op, nodes, ms, gflop, gb, roofline }| {
            let [gflops, gbs] = [gflop, gb]
                .map(|amount| amount.filter(|_| *ms > 0.0).map_or(String::new(), |amount| number(amount / ms * 1e3)));
            let [share, roofline] = [Some(ms / total), *roofline]
                .map(|share| share.map_or(String::new(), |share| format!("{} %", number(share * 100.0))));
            [op.clone(), nodes.to_string(), number(*ms), share, gflops, gbs, roofline]
        }));
        rows
    }
}

/// What the compiler of a GPU's driver makes of a network's kernels.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Compiled {
    /// The chip's architecture, such as `RDNA 2`.
    #[serde(default)]
    pub architecture: String,
    pub network: String,
    /// As the driver calls the chip, and itself.
    pub device: String,
    pub driver: String,
    pub kernels: Vec<CompiledKernel>,
}

/// A kernel as it was compiled; what the driver does not tell is absent.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct CompiledKernel {
    /// Name and variant.
    pub kernel: String,
    /// Launches in a step of the network, and the multiply-adds of the nodes that it computes.
    pub launches: usize,
    pub multiply_adds: f64,
    /// Invocations of a workgroup and of a subgroup.
    pub invocations: usize,
    pub subgroup: usize,
    /// Vector registers of an invocation, and how many more it would have needed.
    pub registers: Option<u64>,
    pub spilled: Option<u64>,
    pub workgroup_bytes: Option<u64>,
    /// Subgroups that have room in a SIMD at the same time.
    pub subgroups: Option<u64>,
    /// The cycles that a subgroup keeps a SIMD busy by the compiler's estimate, which knows no sizes.
    pub cycles: Option<u64>,
    pub hot: Option<Mix>,
}

/// Instructions of the loop that a kernel spends its time in.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Mix {
    pub multiply_adds: u64,
    /// Other arithmetic on vectors.
    pub vector: u64,
    /// Of workgroup memory.
    pub shared: u64,
    /// Of memory.
    pub memory: u64,
}

impl Compiled {
    /// The network and the chip, in a sentence.
    fn title(&self) -> String {
        let Self { architecture, network, device, driver, .. } = self;
        // Mesa says so of a chip that is not there.
        let device = device.trim_start_matches("Null hardware ").trim_matches(['(', ')']);
        format!("{architecture}: {network} on {device}, compiled by {driver}.")
    }

    /// The kernels as a table, those with most multiply-adds first; the first row is its head.
    fn table(&self) -> Vec<[String; 9]> {
        let head = [
            "",
            "launches",
            "of the multiply-adds",
            "registers",
            "spilled",
            "workgroup memory, bytes",
            "subgroups a SIMD",
            "cycles",
            "hot loop: multiply-adds / other vector / workgroup memory",
        ];
        let total: f64 = self.kernels.iter().map(|kernel| kernel.multiply_adds).sum();
        let mut kernels: Vec<&CompiledKernel> = self.kernels.iter().collect();
        kernels.sort_by(|one, other| other.multiply_adds.total_cmp(&one.multiply_adds));
        let row = |kernel: &&CompiledKernel| {
            let share = kernel.multiply_adds / total.max(1.0) * 100.0;
            let share = if share > 0.0 { format!("{} %", number(share)) } else { String::new() };
            let told = |number: Option<u64>| number.map_or(String::new(), |number| number.to_string());
            let hot = |Mix { multiply_adds, vector, shared, .. }| format!("{multiply_adds} / {vector} / {shared}");
            [
                kernel.kernel.clone(),
                kernel.launches.to_string(),
                share,
                told(kernel.registers),
                told(kernel.spilled),
                told(kernel.workgroup_bytes),
                kernel.subgroups.map_or(String::new(), |count| format!("{count} of {}", kernel.subgroup)),
                told(kernel.cycles),
                kernel.hot.map_or("–".to_owned(), hot),
            ]
        };
        [head.map(str::to_owned)].into_iter().chain(kernels.iter().map(row)).collect()
    }
}

/// What a part of the benchmark found.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// The processor and its cores, the system, and the commit.
    pub machine: String,
    /// The two sides' names.
    pub sides: [String; 2],
    pub lines: Vec<Line>,
    pub profiles: Vec<Profile>,
    pub points: Vec<Point>,
    #[serde(default)]
    pub compiled: Vec<Compiled>,
    /// Sentences that belong under the table.
    pub notes: Vec<String>,
}

impl Report {
    /// A report that names this machine.
    pub fn new(ours: &str, theirs: &str) -> Self {
        Self { machine: machine(), sides: [ours.into(), theirs.into()], ..Self::default() }
    }

    /// Compares what the two sides measured, round by round: `better` is by how much a pair of numbers favours us.
    pub fn compare(&mut self, what: String, unit: &str, rounds: &[[Vec<f64>; 2]], better: fn(f64, f64) -> f64) {
        let side = |side: usize| Spread::of(rounds.iter().flat_map(|round| round[side].iter().copied()));
        let ratios = rounds.iter().filter_map(|[ours, theirs]| {
            let (ours, theirs) = (Spread::of(ours.iter().copied())?, Spread::of(theirs.iter().copied())?);
            Some(better(ours.median, theirs.median))
        });
        // A quantity that this system does not tell is no line.
        if let (Some(ours), Some(theirs), Some(ratio)) = (side(0), side(1), Spread::of(ratios)) {
            self.lines.push(Line { what, unit: unit.into(), ours, theirs, ratio });
        }
    }

    /// The file that keeps the report of a part.
    pub fn path(part: &str) -> PathBuf {
        tools::root().join("target/bench/results").join(part).with_extension("json")
    }

    pub fn save(&self, part: &str) -> Result<()> {
        let path = Self::path(part);
        let folder = path.parent().context("a file without a folder")?;
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        fs::write(&path, serde_json::to_string_pretty(self)?).with_context(|| path.display().to_string())
    }

    /// The report that an earlier run kept, if there is one.
    pub fn load(part: &str) -> Result<Option<Self>> {
        let path = Self::path(part);
        match fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| path.display().to_string()),
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes).with_context(|| path.display().to_string())?)),
        }
    }

    /// The lines as a table, the first row its head.
    fn table(&self) -> Vec<[String; 4]> {
        let [ours, theirs] = &self.sides;
        let mut rows = vec![["".to_owned(), ours.clone(), theirs.clone(), "ratio".to_owned()]];
        rows.extend(self.lines.iter().map(|line| {
            let side = |spread: &Spread| format!("{} {}", spread.text(), line.unit);
            [line.what.clone(), side(&line.ours), side(&line.theirs), format!("{}×", line.ratio.text())]
        }));
        rows
    }

    /// The points as a table, the first row its head.
    fn growth(&self) -> Vec<[String; 6]> {
        let head = ["", "", "step, ms", "peak memory, MiB", "parameters, M", "multiply-adds, G"];
        let row = |point: &Point| {
            let Point { axis, device, value, step_ms, peak_mib, parameters, multiply_adds } = point;
            let [step, parameters, work] = [*step_ms, parameters / 1e6, multiply_adds / 1e9].map(number);
            let peak = peak_mib.map_or(String::new(), number);
            [device.clone(), format!("{axis} {value}"), step, peak, parameters, work]
        };
        [head.map(str::to_owned)].into_iter().chain(self.points.iter().map(row)).collect()
    }

    /// Everything, with tables drawn by `draw` and paragraphs apart.
    fn text(&self, draw: impl Fn(&[&[String]]) -> String) -> String {
        fn slices<const N: usize>(rows: &[[String; N]]) -> Vec<&[String]> {
            rows.iter().map(|row| &row[..]).collect()
        }
        let mut parts = vec![self.machine.clone()];
        if !self.lines.is_empty() {
            parts.push(draw(&slices(&self.table())));
        }
        for profile in &self.profiles {
            parts.push(profile.title());
            parts.push(draw(&slices(&profile.table())));
        }
        for compiled in &self.compiled {
            parts.push(compiled.title());
            parts.push(draw(&slices(&compiled.table())));
        }
        if !self.points.is_empty() {
            parts.push(draw(&slices(&self.growth())));
        }
        parts.extend(self.notes.iter().cloned());
        parts.iter().map(|part| format!("{}\n", part.trim_end())).collect::<Vec<_>>().join("\n")
    }

    /// For the terminal.
    pub fn terminal(&self) -> String {
        self.text(|rows| {
            let columns = rows.first().map_or(0, |row| row.len());
            let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
            let widths: Vec<usize> = (0..columns).map(width).collect();
            let line = |row: &&[String]| {
                let cells = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}"));
                format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
            };
            rows.iter().map(line).collect()
        })
    }

    /// As Markdown.
    pub fn markdown(&self) -> String {
        self.text(|rows| {
            let mut lines: Vec<String> = rows.iter().map(|row| format!("| {} |\n", row.join(" | "))).collect();
            let columns = rows.first().map_or(0, |row| row.len());
            lines.insert(lines.len().min(1), format!("|{}\n", "---|".repeat(columns)));
            lines.concat()
        })
    }
}

/// The slope of log y over log x by least squares: y grows as x to this power.
pub fn exponent(points: &[(f64, f64)]) -> Option<f64> {
    let count = points.len() as f64;
    let logs: Vec<(f64, f64)> = points.iter().map(|(x, y)| (x.ln(), y.ln())).collect();
    let mean = |pick: fn(&(f64, f64)) -> f64| logs.iter().map(pick).sum::<f64>() / count;
    let (x_mean, y_mean) = (mean(|point| point.0), mean(|point| point.1));
    let spread: f64 = logs.iter().map(|(x, _)| (x - x_mean).powi(2)).sum();
    let together: f64 = logs.iter().map(|(x, y)| (x - x_mean) * (y - y_mean)).sum();
    (spread > 0.0).then(|| together / spread)
}

/// The processor, its cores, the system and the commit, in a sentence.
fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    let processor = fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("model name"))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    });
    let processor = processor.unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    let commit = tools::output(tools::command("git").args(["describe", "--always", "--dirty"]));
    let commit = commit.map_or(String::new(), |commit| format!(" Commit {commit}."));
    format!("{cores} cores of {processor}, {}.{commit}", std::env::consts::OS)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_spread_is_the_middle_and_the_ends() {
        assert_eq!(Spread::of([3.0, 1.0, 2.0]), Some(Spread { median: 2.0, min: 1.0, max: 3.0, count: 3 }));
        assert_eq!(Spread::of([4.0, 1.0]).map(|spread| spread.median), Some(2.5));
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::of([49.0, 46.2, 65.0]).unwrap().text(), "49.0 (46.2–65.0)");
        assert_eq!(Spread::of([1234.5]).unwrap().text(), "1234");
    }

    #[test]
    fn a_ratio_is_taken_within_a_round() {
        let mut report = Report::new("a", "b");
        let rounds = [[vec![1.0, 3.0, 1.0], vec![4.0]], [vec![2.0], vec![6.0]]];
        report.compare("step".into(), "ms", &rounds, |ours, theirs| theirs / ours);
        let line = &report.lines[0];
        assert_eq!((line.ratio.min, line.ratio.max, line.ours.count), (3.0, 4.0, 4));
        report.compare("unknown".into(), "MiB", &[[vec![], vec![1.0]]], |ours, theirs| theirs / ours);
        assert_eq!(report.lines.len(), 1);
    }

    #[test]
    fn a_report_survives_its_file_and_fills_a_table() {
        let mut report = Report::new("undiffuse", "onnxruntime");
        report.compare("step".into(), "ms", &[[vec![10.0], vec![25.0]]], |ours, theirs| theirs / ours);
        let text = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
        assert!(report.markdown().contains("| step | 10.0 ms | 25.0 ms | 2.50× |"), "{}", report.markdown());
        assert!(report.terminal().contains("step  10.0 ms    25.0 ms      2.50×"), "{}", report.terminal());
    }

    #[test]
    fn a_profile_says_what_matrices_reach_and_what_each_kind_takes() {
        let kind = |op: &str, ms: f64| {
            let (gflop, gb, roofline) = (Some(1.0), Some(0.1), Some(0.25));
            Kind { op: op.into(), nodes: 2, ms, gflop, gb, roofline }
        };
        let profile = Profile {
            network: "cifar".into(),
            device: "a GPU".into(),
            clock: "timestamps".into(),
            first_ms: 30.0,
            steps_ms: vec![20.0],
            whole_ms: 20.0,
            gflops: 1000.0,
            half_gflops: None,
            copy_gb: 100.0,
            kinds: vec![kind("conv2d", 6.0), kind("linear", 2.0), kind("attention", 12.0)],
        };
        let report = Report { profiles: vec![profile], ..Report::default() };
        let text = report.markdown();
        assert!(text.contains("cifar on a GPU: 20.0 ms a step, the first 30.0 ms (clock"), "{text}");
        assert!(text.contains("reach 25.0 % of the multiply-adds"), "{text}");
        assert!(text.contains("| conv2d | 2 | 6.00 | 30.0 % | 167 | 16.7 | 25.0 % |"), "{text}");
    }

    #[test]
    fn compiled_kernels_are_listed_by_their_multiply_adds_and_what_is_not_told_is_left_out() {
        let kernel = json!({
            "kernel": "activation", "launches": 2, "multiply_adds": 0, "invocations": 64, "subgroup": 64, "registers": 12,
            "spilled": 0, "workgroup_bytes": 0, "subgroups": 10, "cycles": 100, "hot": null,
        });
        let mut tile = kernel.clone();
        for (name, value) in [("kernel", json!("tile")), ("multiply_adds", json!(1e9)), ("subgroups", json!(3))] {
            tile[name] = value;
        }
        tile["spilled"] = json!(null);
        tile["hot"] = json!({ "multiply_adds": 512, "vector": 161, "shared": 56, "memory": 6 });
        let compiled = json!({
            "network": "sd15", "device": "Null hardware (RADV RENOIR)", "driver": "Mesa 25", "kernels": [kernel, tile],
        });
        let compiled = serde_json::from_value(compiled).unwrap();
        let report =
            Report { compiled: vec![Compiled { architecture: "GCN 5".into(), ..compiled }], ..Report::default() };
        let text = report.markdown();
        assert!(text.contains("GCN 5: sd15 on RADV RENOIR, compiled by Mesa 25."), "{text}");
        let rows = [
            "| tile | 2 | 100 % | 12 |  | 0 | 3 of 64 | 100 | 512 / 161 / 56 |",
            "| activation | 2 |  | 12 | 0 | 0 | 10 of 64 | 100 | – |",
        ];
        assert!(text.contains(&rows.join("\n")), "{text}");
    }

    #[test]
    fn a_power_law_gives_its_exponent() {
        let points: Vec<(f64, f64)> = [1.0, 2.0, 4.0, 8.0].map(|x: f64| (x, 3.0 * x.powf(1.5))).to_vec();
        assert!((exponent(&points).unwrap() - 1.5).abs() < 1e-12);
        assert_eq!(exponent(&points[..1]), None);
    }
}
