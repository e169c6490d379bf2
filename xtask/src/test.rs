//! Every check and test, stage after stage. A failure does not stop the later stages; the summary shows each with its time, and its last
//! line sums the tests of all runners, so that a run in which nothing was executed cannot look like a good one.

use std::fmt;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::build;
use crate::tools::{self, WASM};

/// One part of `cargo xtask test`, in the order in which they run: what fails fastest comes first.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Stage {
    /// The sources are formatted, and spelled as `typos` has it where that is installed
    Format,
    /// Clippy has nothing to say, natively, for the browser, and of the library without the command, nor `cargo deny` where that is
    /// installed
    Lint,
    /// The tests of these commands
    Xtask,
    /// The crates' tests on this machine, its GPU or a software Vulkan included
    Native,
    /// The documentation builds without a warning and its examples run
    Docs,
    /// The package and the site build, and the module is within its size limit
    Build,
    /// TypeScript accepts the scripts of the package, the site and the tests, and the package's types as a consumer sees them
    Types,
    /// The site and the package in headless Chromium, with WebGPU and without
    Browser,
    /// The packed npm package in a project built with Vite, and on a page without a bundler
    Npm,
    /// A checkpoint of 1.7 GB, natively and in the browser: minutes and as much disk, so only if asked for
    Size,
}

impl fmt::Display for Stage {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.pad(self.to_possible_value().as_ref().map_or("", |value| value.get_name()))
    }
}

impl Stage {
    /// Whether the stage looks at what the build makes.
    fn needs_build(self) -> bool {
        matches!(self, Self::Types | Self::Browser | Self::Npm | Self::Size)
    }

    /// Runs the stage; what its test runner counted, if it has one.
    fn run(self) -> Result<Counts> {
        match self {
            Self::Format => {
                tools::rust_component("fmt", "rustfmt")?;
                tools::run(tools::cargo().args(["fmt", "--all", "--check"])).context("`cargo fmt --all` mends it")?;
                tools::node_modules()?;
                tools::run(tools::node("prettier/bin/prettier.cjs").args(["--check", "."]))
                    .context("`npm run format` mends it")?;
                if tools::has_typos() {
                    tools::run(Command::new("typos").current_dir(tools::root()))?;
                } else {
                    println!("typos is not installed: spelling was not checked");
                }
            }
            Self::Lint => {
                tools::rust_component("clippy", "clippy")?;
                tools::wasm_target()?;
                let everything = ["--all-targets", "--workspace"];
                let for_browsers = ["--all-targets", "--target", WASM];
                let library_alone = ["--lib", "--no-default-features"];
                for part in [&everything[..], &for_browsers, &library_alone] {
                    tools::run(tools::cargo().arg("clippy").args(part).args(["--", "--deny", "warnings"]))?;
                }
                if tools::has_deny() {
                    tools::run(tools::cargo().args(["deny", "check", "licenses", "bans", "sources"]))?;
                } else {
                    println!("cargo-deny is not installed: licences and sources of crates were not checked");
                }
            }
            Self::Xtask => {
                return count(tools::cargo().args(["test", "--package", "xtask", "--profile", "xtask"]), libtest);
            }
            Self::Native => {
                tools::vulkan()?;
                if tools::has_nextest() {
                    return count(
                        tools::cargo().args(["nextest", "run", "--workspace", "--exclude", "xtask", "--no-fail-fast"]),
                        nextest,
                    );
                }
                println!(
                    "cargo-nextest is not here: running `cargo test`, which is slower and does not end a test that hangs"
                );
                return count(
                    tools::cargo().args([
                        "test",
                        "--workspace",
                        "--exclude",
                        "xtask",
                        "--no-fail-fast",
                        "--lib",
                        "--bins",
                        "--tests",
                    ]),
                    libtest,
                );
            }
            Self::Docs => {
                tools::run(tools::cargo().args(["doc", "--no-deps", "--lib"]).env("RUSTDOCFLAGS", "--deny warnings"))?;
                return count(tools::cargo().args(["test", "--no-fail-fast", "--doc"]), libtest);
            }
            Self::Build => build::build(false)?,
            Self::Types => {
                tools::run(tools::node("typescript/bin/tsc").args(["--project", "tsconfig.json"]))?;
            }
            Self::Browser => return count(&mut node_tests("tests/browser")?, node),
            Self::Npm => return count(&mut node_tests("tests/npm")?, node),
            Self::Size => {
                tools::vulkan()?;
                // The native half first: it leaves the files that the browser then loads. One test at a time, each for its peak.
                let ignored = ["--", "--ignored", "--nocapture", "--test-threads", "1"];
                let native = count(tools::cargo().args(["test", "--test", "suite", "size::"]).args(ignored), libtest)?;
                return Ok(native.plus(count(&mut node_tests("tests/size")?, node)?));
            }
        }
        Ok(Counts::default())
    }
}

/// Runs the stages asked for, all but the size test if none is; fails if any of them does.
pub fn test(only: &[Stage]) -> Result<()> {
    let is_wanted = |stage: Stage| {
        (only.is_empty() && stage != Stage::Size)
            || only.contains(&stage)
            || (stage == Stage::Build && only.iter().any(|stage| stage.needs_build()))
    };
    let mut reports = Vec::<Report>::new();
    for &stage in Stage::value_variants().iter().filter(|&&stage| is_wanted(stage)) {
        println!("\n── {stage} ──");
        let start = Instant::now();
        let is_built = !reports.iter().any(|report| report.stage == Stage::Build && report.outcome.is_err());
        let outcome = if stage.needs_build() && !is_built {
            Err(anyhow::anyhow!("not run: the build failed"))
        } else {
            stage.run()
        };
        if let Err(error) = &outcome {
            println!("{error:#}");
        }
        reports.push(Report { stage, time: start.elapsed(), outcome });
    }

    println!("\n── summary ──");
    for report in &reports {
        println!("{report}");
    }
    let total = reports.iter().map(Report::counts).fold(Counts::default(), Counts::plus);
    println!("\n{total}");
    if total.failed > 0 {
        let failed: Vec<_> =
            reports.iter().filter(|report| report.counts().failed > 0).map(|report| report.stage.to_string()).collect();
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

/// What became of a stage.
struct Report {
    stage: Stage,
    time: Duration,
    outcome: Result<Counts>,
}

impl Report {
    /// The stage's part of the sum: a stage that failed outside any test is one failure.
    fn counts(&self) -> Counts {
        self.outcome.as_ref().copied().unwrap_or(Counts { failed: 1, ..Counts::default() })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        let counts = self.counts();
        let verdict = if counts.failed > 0 { "FAILED" } else { "ok" };
        write!(formatter, "{verdict:6}  {:7} {:6.1} s", self.stage, self.time.as_secs_f64())?;
        match &self.outcome {
            Ok(counts) if *counts == Counts::default() => Ok(()),
            Ok(counts) => write!(formatter, "  {counts}"),
            Err(error) => write!(formatter, "  {error}"),
        }
    }
}

/// How many tests passed, failed and were skipped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    passed: usize,
    failed: usize,
    skipped: usize,
}

impl Counts {
    fn plus(self, other: Self) -> Self {
        Self {
            passed: self.passed + other.passed,
            failed: self.failed + other.failed,
            skipped: self.skipped + other.skipped,
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        write!(formatter, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

/// Node's own test runner over the test files of a folder, with the browser that they drive.
fn node_tests(folder: &str) -> Result<Command> {
    let chromium = tools::chromium()?;
    println!("browser: {}", chromium.display());
    let mut node = tools::command("node");
    // One file at a time: each drives a browser that computes on every core.
    node.args(["--test", "--test-reporter=spec", "--test-concurrency=1"]).env("CHROMIUM", chromium);
    let is_test = |path: &PathBuf| path.to_string_lossy().ends_with(".test.js");
    let tests = tools::files_below(&tools::root().join(folder))?.into_iter().filter(is_test);
    node.args(tests.map(|path| Path::new(folder).join(path)));
    Ok(node)
}

/// Runs a test runner, showing what it prints, and sums what `read` makes of its lines. It is an error if it fails without having
/// counted a failure, or ends well without having counted anything.
fn count(runner: &mut Command, read: fn(&str) -> Option<Counts>) -> Result<Counts> {
    let line = tools::line(runner);
    let mut child =
        runner.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().with_context(|| format!("cannot start {line}"))?;
    let (sender, lines) = mpsc::channel();
    let pipes: [Option<Box<dyn Read + Send>>; 2] =
        [child.stdout.take().map(|pipe| Box::new(pipe) as _), child.stderr.take().map(|pipe| Box::new(pipe) as _)];
    for pipe in pipes.into_iter().flatten() {
        let sender = sender.clone();
        thread::spawn(move || {
            for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                // Nobody listens only if this program is ending.
                sender.send(String::from_utf8_lossy(&line).into_owned()).ok();
            }
        });
    }
    drop(sender);
    let mut total = None;
    for line in lines {
        println!("{line}");
        if let Some(counts) = read(&line) {
            total = Some(total.unwrap_or(Counts::default()).plus(counts));
        }
    }
    let status = child.wait()?;
    match total {
        Some(counts) if counts.failed > 0 || status.success() => Ok(counts),
        None if status.success() => bail!("{line} did not say how many tests it ran"),
        _ => bail!("{line} failed ({status})"),
    }
}

/// `     Summary [   0.1s] 9 tests run: 8 passed (1 slow), 1 timed out, 2 skipped`
fn nextest(line: &str) -> Option<Counts> {
    let (_, counted) = line.trim_start().strip_prefix("Summary [")?.split_once("run: ")?;
    let mut counts = Counts::default();
    for part in counted.split(", ") {
        let (number, what) = part.split_once(' ')?;
        let number: usize = number.parse().ok()?;
        match what.split(' ').next() {
            Some("passed") => counts.passed += number,
            Some("skipped") => counts.skipped += number,
            _ => counts.failed += number,
        }
    }
    Some(counts)
}

/// `test result: ok. 8 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.1s`
fn libtest(line: &str) -> Option<Counts> {
    let (_, counted) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let mut counts = Counts::default();
    for part in counted.split("; ") {
        match part.split_once(' ')? {
            (number, "passed") => counts.passed = number.parse().ok()?,
            (number, "failed") => counts.failed = number.parse().ok()?,
            (number, "ignored") => counts.skipped = number.parse().ok()?,
            _ => {}
        }
    }
    Some(counts)
}

/// `ℹ pass 8`, one line for each count
fn node(line: &str) -> Option<Counts> {
    let (what, number) = line.strip_prefix("ℹ ")?.split_once(' ')?;
    let number = number.parse().ok()?;
    match what {
        "pass" => Some(Counts { passed: number, ..Counts::default() }),
        "fail" | "cancelled" => Some(Counts { failed: number, ..Counts::default() }),
        "skipped" | "todo" => Some(Counts { skipped: number, ..Counts::default() }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(passed: usize, failed: usize, skipped: usize) -> Option<Counts> {
        Some(Counts { passed, failed, skipped })
    }

    #[test]
    fn nextest_summaries_are_read_and_a_test_that_hung_is_a_failure() {
        assert_eq!(nextest("     Summary [   0.016s] 3 tests run: 3 passed, 0 skipped"), counts(3, 0, 0));
        assert_eq!(
            nextest("     Summary [  61.2s] 9/9 tests run: 6 passed (1 slow), 2 failed, 1 timed out, 4 skipped"),
            counts(6, 3, 4)
        );
        assert_eq!(nextest("        PASS [   0.005s] undiffuse noise::tests::summary"), None);
    }

    #[test]
    fn libtest_results_are_read() {
        assert_eq!(
            libtest(
                "test result: FAILED. 8 passed; 1 failed; 2 ignored; 0 measured; 5 filtered out; finished in 0.13s"
            ),
            counts(8, 1, 2)
        );
        assert_eq!(libtest("test tests::result ... ok"), None);
    }

    #[test]
    fn node_counts_are_read_line_by_line() {
        let report = [
            "ℹ tests 12",
            "ℹ suites 0",
            "ℹ pass 8",
            "ℹ fail 1",
            "ℹ cancelled 1",
            "ℹ skipped 2",
            "ℹ todo 0",
            "ℹ duration_ms 1.5",
        ];
        assert_eq!(Some(report.into_iter().filter_map(node).fold(Counts::default(), Counts::plus)), counts(8, 2, 2));
    }

    #[test]
    fn a_runner_that_fails_or_counts_nothing_is_not_a_success() {
        let rustc = |argument: &str| count(tools::command("rustc").arg(argument), libtest);
        assert!(rustc("--version").unwrap_err().to_string().contains("did not say"));
        assert!(rustc("--no-such-option").unwrap_err().to_string().contains("failed"));
    }

    #[test]
    fn a_stage_that_fails_outside_its_tests_counts_as_a_failure() {
        let report =
            Report { stage: Stage::Format, time: Duration::ZERO, outcome: Err(anyhow::anyhow!("unformatted")) };
        assert_eq!(report.counts().failed, 1);
        assert_eq!(report.to_string(), "FAILED  format     0.0 s  unformatted");
    }
}
