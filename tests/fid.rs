//! `undiffuse fid` as its users run it: pictures of any origin, interrupted runs, refusals.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::command::{Ran, command, emoji64, names, network};
use serde_json::Value;
use tempfile::TempDir;

type Argument<'a> = &'a dyn AsRef<OsStr>;

/// A folder of a test's own, with a cache folder in it.
struct Bench {
    folder: TempDir,
}

impl Bench {
    fn new() -> Self {
        Self { folder: TempDir::new().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, arguments: &[Argument]) -> Command {
        let all: Vec<Argument> = [&"fid" as Argument].into_iter().chain(arguments.iter().copied()).collect();
        let mut command = command(&all);
        command.env("XDG_CACHE_HOME", self.path("cache"));
        command
    }

    fn run(&self, arguments: &[Argument]) -> Ran {
        let output = self.command(arguments).output().expect("the command starts");
        let text = |bytes| String::from_utf8(bytes).expect("text");
        Ran { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// Runs what must succeed, with --json; the result and what was said beside it.
    fn json(&self, arguments: &[Argument]) -> (Value, String) {
        let all: Vec<Argument> = arguments.iter().copied().chain([&"--json" as Argument]).collect();
        let Ran { code, stdout, stderr } = self.run(&all);
        assert_eq!(code, Some(0), "{stderr}");
        assert_eq!(stdout.lines().count(), 1, "one line of JSON: {stdout}");
        (serde_json::from_str(&stdout).unwrap(), stderr)
    }

    /// Runs what must fail; its one line.
    fn error(&self, arguments: &[Argument]) -> String {
        let Ran { code, stdout, stderr } = self.run(arguments);
        assert_eq!(code, Some(1), "{stderr}");
        assert_eq!(stdout, "");
        let error = stderr.lines().last().unwrap_or_default();
        error.strip_prefix("error: ").unwrap_or_else(|| panic!("{stderr}")).to_owned()
    }

    fn journals(&self) -> Vec<PathBuf> {
        let folder = self.path("cache/undiffuse/features");
        fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path()).collect()
    }

    /// A folder of pictures that differ, in the manner of `kind`.
    fn pictures(&self, name: &str, count: usize, kind: u8) -> PathBuf {
        let folder = self.path(name);
        fs::create_dir_all(folder.join("inside")).unwrap();
        for index in 0..count {
            let inside = if index % 3 == 0 { "inside" } else { "" };
            let side = 16 + 8 * (index % 2);
            let pixel = |i: usize| {
                let (x, y) = (i % side, i / side);
                let disc = (x.abs_diff(side / 2 + index % 5)).pow(2) + y.abs_diff(side / 2).pow(2) < 20 + index % 40;
                let tint = (index * 37 % 200) as u8;
                if disc { [tint, kind, 255 - tint] } else { [250, 240u8.wrapping_sub(kind / 2), 230] }
            };
            let pixels: Vec<u8> = (0..side * side).flat_map(pixel).collect();
            write_png(&folder.join(inside).join(format!("{index:04}.png")), side, &pixels);
        }
        folder
    }
}

fn write_png(path: &Path, side: usize, rgb: &[u8]) {
    let mut encoder = png::Encoder::new(fs::File::create(path).unwrap(), side as u32, side as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header().unwrap().write_image_data(rgb).unwrap();
}

/// The two distances with their standard errors, to the last bit.
fn distances(json: &Value) -> [Value; 2] {
    ["fid", "kid"].map(|name| json[name].clone())
}

#[test]
fn pictures_statistics_and_both_give_the_same_distances() {
    let bench = Bench::new();
    let (real, generated) = (bench.pictures("real", 150, 10), bench.pictures("generated", 90, 200));
    let (a, b) = (bench.path("a.safetensors"), bench.path("b.safetensors"));
    let (whole, said) =
        bench.json(&[&"--real", &real, &"--generated", &generated, &"--save-real", &a, &"--save-generated", &b]);
    assert!(!said.contains("warning"), "{said}");
    let number = |json: &Value, path: &str| json.pointer(path).and_then(Value::as_f64).unwrap();
    assert!(number(&whole, "/fid/value") > 5.0 * number(&whole, "/fid/standard_error"), "{whole}");
    assert!(number(&whole, "/kid/value") > 5.0 * number(&whole, "/kid/standard_error"), "{whole}");
    assert!(number(&whole, "/fid/standard_error") > 0.0 && number(&whole, "/kid/standard_error") > 0.0, "{whole}");
    assert_eq!(whole["real"]["pictures"], 150);
    assert_eq!(whole["generated"]["pictures"], 90);
    assert_eq!(whole["features"]["extractor"], "emoji");
    assert_eq!(whole["kid"]["subset_size"], 90);
    assert_eq!(bench.journals(), Vec::<PathBuf>::new(), "what was kept for an interrupted run is gone");

    for (real, generated) in [(&a, &generated), (&real, &b), (&a, &b)] {
        let (again, _) = bench.json(&[&"--real", real, &"--generated", generated]);
        assert_eq!(distances(&again), distances(&whole), "{real:?} {generated:?}");
    }
    let (itself, _) = bench.json(&[&"--real", &real, &"--generated", &real]);
    assert!(number(&itself, "/fid/value") < 1e-9, "{itself}");
    assert_eq!(itself["generated"]["computed"], 0, "the same pictures are looked at once");
    let (of_file, _) = bench.json(&[&"--real", &a, &"--generated", &a]);
    for json in [&itself, &of_file] {
        assert!(json["warnings"].to_string().contains("these are the --real pictures themselves"), "{json}");
    }
    assert_eq!(whole["warnings"], Value::Array(vec![]));

    let text = bench.run(&[&"--real", &a, &"--generated", &b]).stdout;
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(lines[0].starts_with(&format!("FID  {:.4} ± ", number(&whole, "/fid/value"))), "{text}");
    assert!(lines[0].contains("64 features of `emoji`") && lines[0].contains("150 real and 90 generated"), "{text}");
    assert!(lines[1].starts_with("KID  ") && lines[1].contains("100 subsets of 90"), "{text}");
}

#[test]
fn what_a_model_draws_is_what_is_saved_and_what_sample_draws() {
    let bench = Bench::new();
    let (real, drawn) = (bench.pictures("real", 70, 10), bench.path("drawn"));
    let prompts = bench.path("prompts.txt");
    fs::write(&prompts, "a fox\n\n  a cat  \r\n").unwrap();
    let model: &[Argument] = &[
        &"--real",
        &real,
        &"--generated",
        &emoji64(),
        &"--prompt",
        &"a rocket",
        &"--prompts",
        &prompts,
        &"--seed",
        &"5",
        &"--steps",
        &"1",
        &"--count",
        &"19",
        &"--solver",
        &"euler_ancestral",
        &"--guidance-scale",
        &"3",
    ];
    let (of_model, said) = bench.json(&[model, &[&"--save-pictures", &drawn]].concat());
    assert!(said.contains("warning: 19 generated pictures are too few for 64 features"), "{said}");
    assert!(of_model["warnings"].as_array().is_some_and(|list| list.len() == 1), "{of_model}");
    let of = &of_model["generated"]["model"];
    assert_eq!((&of["prompts"], &of["seed"], &of["settings"]["steps"]), (&3.into(), &"5".into(), &1.into()));
    assert_eq!(of["settings"]["solver"], "euler_ancestral");
    assert_eq!(of["network_calls"], 1);
    assert_eq!(names(&drawn).len(), 19);
    let (of_folder, _) = bench.json(&[&"--real", &real, &"--generated", &drawn]);
    assert_eq!(distances(&of_folder), distances(&of_model));

    // The second batch begins with the seventeenth picture: the second prompt, and the seed 5 + 16.
    let alone = bench.path("alone.png");
    let arguments: &[Argument] = &[
        &"sample",
        &emoji64(),
        &"--prompt",
        &"a fox",
        &"--seed",
        &"21",
        &"--steps",
        &"1",
        &"--solver",
        &"euler_ancestral",
        &"--guidance-scale",
        &"3",
        &"--out",
        &alone,
    ];
    assert!(command(arguments).status().unwrap().success());
    let pixels = |path: &Path| {
        let mut reader = png::Decoder::new(std::io::BufReader::new(fs::File::open(path).unwrap())).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut pixels).unwrap();
        pixels
    };
    assert!(pixels(&alone) == pixels(&drawn.join("000016.png")), "`sample` draws another picture");

    let (again, _) = bench.json(&[model, &[&"--save-pictures", &drawn]].concat());
    assert_eq!(distances(&again), distances(&of_model), "the same pictures are drawn over");
    fs::rename(drawn.join("000018.png"), drawn.join("fox.png")).unwrap();
    let error = bench.error(&[model, &[&"--save-pictures", &drawn]].concat());
    assert!(error.contains("fox.png: this picture would lie among those"), "{error}");
}

#[test]
fn no_picture_that_was_there_is_written_over() {
    let bench = Bench::new();
    let real = bench.pictures("real", 70, 10);
    fs::rename(real.join("0001.png"), real.join("000000.png")).unwrap();
    let before = fs::read(real.join("000000.png")).unwrap();
    let model: &[Argument] =
        &[&"--real", &real, &"--generated", &emoji64(), &"--steps", &"1", &"--count", &"3", &"--prompt", &"a fox"];
    for folder in [real.clone(), real.join("inside"), real.join("new"), bench.folder.path().to_owned()] {
        let error = bench.error(&[model, &[&"--save-pictures", &folder]].concat());
        assert!(error.contains("--save-pictures: the --real pictures are in this folder"), "{folder:?}: {error}");
    }
    assert!(fs::read(real.join("000000.png")).unwrap() == before && !real.join("new").exists());

    let drawn = bench.path("drawn");
    let save: &[Argument] = &[&"--save-pictures", &drawn];
    bench.json(&[model, save].concat());
    let kept = fs::read(drawn.join("000000.png")).unwrap();
    for more in [["--seed", "1"], ["--prompt", "a cat"], ["--guidance-scale", "2"]] {
        let error = bench.error(&[model, save, &[&more[0], &more[1]]].concat());
        assert!(error.contains(".png: this picture was made otherwise"), "{more:?}: {error}");
    }
    fs::copy(real.join("000000.png"), drawn.join("000002.png")).unwrap();
    let error = bench.error(&[model, save].concat());
    assert!(error.contains("000002.png: this picture was made otherwise"), "{error}");
    fs::remove_file(drawn.join("000002.png")).unwrap();
    bench.json(&[model, save].concat());
    assert_eq!(names(&drawn).len(), 3);
    assert!(fs::read(drawn.join("000000.png")).unwrap() == kept);
}

#[test]
fn a_copy_of_a_folder_is_another_set_of_pictures() {
    let bench = Bench::new();
    let (real, copy) = (bench.pictures("real", 70, 10), bench.path("copy"));
    for inside in ["", "inside"] {
        fs::create_dir_all(copy.join(inside)).unwrap();
        for name in names(&real.join(inside)).into_iter().filter(|name| name.ends_with(".png")) {
            let [from, to] = [&real, &copy].map(|folder| folder.join(inside).join(&name));
            fs::copy(&from, &to).unwrap();
            let written = fs::metadata(&from).unwrap().modified().unwrap();
            fs::File::options().write(true).open(&to).unwrap().set_modified(written).unwrap();
        }
    }
    let (json, said) = bench.json(&[&"--real", &real, &"--generated", &copy]);
    assert!(json["fid"]["value"].as_f64() < Some(1e-9), "{json}");
    assert_eq!(json["generated"]["computed"], 70);
    assert!(!said.contains("another run"), "{said}");
}

#[test]
fn without_a_cache_folder_features_are_kept_for_the_run_alone() {
    let bench = Bench::new();
    let (real, other) = (bench.pictures("real", 70, 10), bench.pictures("other", 70, 90));
    let arguments: &[Argument] = &[&"--real", &real, &"--generated", &other, &"--json"];
    let mut command = bench.command(arguments);
    for name in ["XDG_CACHE_HOME", "LOCALAPPDATA", "HOME"] {
        command.env_remove(name);
    }
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && said.contains("a run that is interrupted will begin anew"), "{said}");
    // Nor where it cannot be made.
    fs::write(bench.path("file"), "").unwrap();
    let unwritable = bench.command(arguments).env("XDG_CACHE_HOME", bench.path("file")).output().unwrap();
    let said = String::from_utf8(unwritable.stderr).unwrap();
    assert!(unwritable.status.success() && said.contains("features are kept in a temporary file"), "{said}");
    let (with, _) = bench.json(&arguments[..4]);
    for output in [output.stdout, unwritable.stdout] {
        assert_eq!(distances(&serde_json::from_slice(&output).unwrap()), distances(&with));
    }
}

#[test]
fn the_mean_and_the_covariance_of_a_file_count_whatever_its_features_are() {
    let bench = Bench::new();
    let real = bench.pictures("real", 90, 10);
    let (kept, other, plain) = (bench.path("kept"), bench.path("other"), bench.path("plain"));
    let many = bench.pictures("many", 80, 90);
    bench.json(&[&"--real", &real, &"--generated", &many, &"--save-real", &plain, &"--save-generated", &kept]);
    let mut bytes = fs::read(&kept).unwrap();
    let at = bytes.len() - 40 * 64 * 4;
    bytes[at..].fill(0);
    fs::write(&other, &bytes).unwrap();
    let value = |real: &PathBuf, generated: &PathBuf| {
        bench.json(&[&"--real", real, &"--generated", generated]).0["fid"]["value"].as_f64().unwrap()
    };
    assert_eq!(value(&plain, &other), value(&plain, &kept));
    assert_eq!(value(&other, &plain), value(&kept, &plain));
    bytes[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&other, &bytes).unwrap();
    for (real, generated) in [(&plain, &other), (&other, &plain)] {
        let error = bench.error(&[&"--real", real, &"--generated", generated]);
        assert!(error.contains("feature 0 of picture") && error.contains("is not finite"), "{error}");
    }
}

#[test]
fn a_model_without_a_prompt_draws_too() {
    let bench = Bench::new();
    let real = bench.pictures("real", 70, 10);
    let ddpm = crate::common::reference("pipelines").join("models/ddpm_uncond");
    let model: &[Argument] = &[&"--real", &real, &"--generated", &ddpm, &"--steps", &"2"];
    let (json, _) = bench.json(&[model, &[&"--count", &"18"]].concat());
    assert_eq!(json["generated"]["pictures"], 18);
    let error = bench.error(&[model, &[&"--count", &"18", &"--prompt", &"a fox"]].concat());
    assert!(error.contains("takes no prompt"), "{error}");
}

/// Starts a run, waits until it has left a part of its work, and ends it as the system would.
fn interrupt(bench: &Bench, arguments: &[Argument], bytes: u64) -> PathBuf {
    let mut child = bench.command(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let journal = wait_for_journal(bench, &mut child, bytes);
    child.kill().unwrap();
    child.wait().unwrap();
    journal
}

fn wait_for_journal(bench: &Bench, child: &mut Child, bytes: u64) -> PathBuf {
    let start = Instant::now();
    loop {
        let length = |path: &PathBuf| fs::metadata(path).map_or(0, |metadata| metadata.len());
        if let Some(journal) = bench.journals().into_iter().find(|path| length(path) >= bytes) {
            return journal;
        }
        assert!(child.try_wait().unwrap().is_none(), "the run has ended before it could be interrupted");
        assert!(start.elapsed() < Duration::from_secs(120), "no journal");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A record of 64 features, and what stands before the first.
const RECORD: u64 = 64 * 4 + 8;
const BEGINNING: u64 = 24;

#[test]
fn a_run_that_was_killed_goes_on_and_ends_as_if_it_had_not_been() {
    let bench = Bench::new();
    let statistics = bench.path("real.safetensors");
    let real = bench.pictures("real", 70, 10);
    let many = bench.pictures("many", 800, 90);
    bench.json(&[&"--real", &real, &"--generated", &real, &"--save-real", &statistics]);
    let model = emoji64();
    let of_model: Vec<Argument> = vec![
        &"--real",
        &statistics,
        &"--generated",
        &model,
        &"--prompt",
        &"a fox",
        &"--prompt",
        &"a cat",
        &"--steps",
        &"1",
        &"--count",
        &"50",
    ];
    let of_folder: Vec<Argument> = vec![&"--real", &statistics, &"--generated", &many];
    for (arguments, total, batch) in [(of_model, 50, 16), (of_folder, 800, 32)] {
        let (whole, _) = bench.json(&arguments);
        assert_eq!(whole["generated"]["computed"], total);
        let left = interrupt(&bench, &arguments, BEGINNING + 33 * RECORD);
        let bytes = fs::read(&left).unwrap();
        let records = |length: usize| (length as u64).saturating_sub(BEGINNING) / RECORD;
        // As it was left, and as if the kill had come at other moments.
        let cuts = [0, 1, RECORD - 1, RECORD + 1, 20 * RECORD + 100, bytes.len() as u64 - 10, bytes.len() as u64];
        let mut cases: Vec<(Vec<u8>, u64)> = cuts
            .iter()
            .map(|&cut| bytes.len() - cut as usize)
            .map(|length| (bytes[..length].to_vec(), records(length)))
            .collect();
        // As if the last write had been torn, or the disk had lost a bit.
        cases.push(([bytes.clone(), vec![0; 500]].concat(), records(bytes.len())));
        let mut damaged = bytes.clone();
        damaged[(BEGINNING + 32 * RECORD + 5) as usize] ^= 1;
        cases.push((damaged, 32));
        for (case, (content, whole_records)) in cases.into_iter().enumerate() {
            fs::write(&left, &content).unwrap();
            let (json, said) = bench.json(&arguments);
            assert_eq!(distances(&json), distances(&whole), "case {case}");
            // Whole batches are gone on with.
            let kept = whole_records - whole_records % batch;
            assert_eq!(json["generated"]["computed"], total - kept, "case {case}: {said}");
            assert_eq!(said.contains(&format!("going on with the {kept} of {total}")), kept > 0, "case {case}: {said}");
            assert_eq!(bench.journals(), Vec::<PathBuf>::new());
        }
    }
}

#[test]
fn what_decides_about_the_features_decides_which_run_is_gone_on_with() {
    let bench = Bench::new();
    let real = bench.pictures("real", 70, 10);
    let (statistics, model) = (bench.path("real.safetensors"), emoji64());
    bench.json(&[&"--real", &real, &"--generated", &real, &"--save-real", &statistics]);
    let base: &[Argument] =
        &[&"--real", &statistics, &"--generated", &model, &"--steps", &"1", &"--prompt", &"a fox", &"--count"];
    let left = interrupt(&bench, &[base, &[&"60"]].concat(), BEGINNING + 17 * RECORD);
    let bytes = fs::read(&left).unwrap();
    for more in [["--seed", "1"], ["--guidance-scale", "2"], ["--solver", "euler"], ["--prompt", "a cat"]] {
        let (json, said) = bench.json(&[base, &[&"20", &more[0], &more[1]]].concat());
        assert_eq!(json["generated"]["computed"], 20, "{more:?}: {said}");
        assert!(fs::read(&left).unwrap() == bytes, "{more:?}");
    }
    // Of more pictures, or fewer, these are the first.
    let (few, said) = bench.json(&[base, &[&"10"]].concat());
    assert!(few["generated"]["computed"] == 0 && said.contains("going on with the 10 of 10"), "{said}");
    assert!(fs::read(&left).unwrap() == bytes, "a run of fewer leaves the work of the one of more as it was");
}

#[test]
fn of_two_runs_of_one_kind_the_second_keeps_its_features_to_itself() {
    let bench = Bench::new();
    let real = bench.pictures("real", 70, 10);
    let many = bench.pictures("many", 1500, 90);
    let arguments: &[Argument] = &[&"--real", &real, &"--generated", &many, &"--json"];
    let mut first = bench.command(arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    wait_for_journal(&bench, &mut first, BEGINNING + 40 * RECORD);
    let (second, said) = bench.json(&arguments[..4]);
    assert!(said.contains("another run is at work on the same features"), "{said}");
    assert_eq!(second["generated"]["computed"], 1500);
    let output = first.wait_with_output().unwrap();
    let first: Value = serde_json::from_slice(&output.stdout).expect("the first is not disturbed");
    assert_eq!(distances(&first), distances(&second));
    assert_eq!(bench.journals(), Vec::<PathBuf>::new());
}

#[test]
fn each_mistake_has_its_own_message() {
    let bench = Bench::new();
    let (real, empty) = (bench.pictures("real", 70, 10), bench.path("empty"));
    fs::create_dir(&empty).unwrap();
    fs::write(empty.join("notes.txt"), "no picture").unwrap();
    let error = bench.error(&[&"--real", &real, &"--generated", &empty]);
    assert!(error.contains("empty: there is no PNG in this folder"), "{error}");
    let error = bench.error(&[&"--real", &bench.path("nowhere"), &"--generated", &real]);
    assert!(error.contains("nowhere: there is no such folder or file"), "{error}");
    let error = bench.error(&[&"--real", &emoji64(), &"--generated", &real]);
    assert!(error.contains("emoji64: this is no folder of pictures and no file of statistics"), "{error}");

    let picture = real.join("0001.png");
    let error = bench.error(&[&"--real", &real, &"--generated", &picture]);
    assert!(error.contains("0001.png: pictures come in a folder"), "{error}");

    let damaged = bench.pictures("damaged", 40, 3);
    fs::write(damaged.join("0019.png"), &fs::read(damaged.join("0020.png")).unwrap()[..60]).unwrap();
    fs::write(damaged.join("notes.txt"), "no picture").unwrap();
    let ran = bench.run(&[&"--real", &real, &"--generated", &damaged]);
    assert!(ran.stderr.contains("damaged: 1 file is no PNG and left out"), "{}", ran.stderr);
    assert!(ran.stderr.contains("damaged/0019.png: this PNG cannot be read"), "{}", ran.stderr);
    fs::write(damaged.join("0019.png"), "GIF89a").unwrap();
    let error = bench.error(&[&"--real", &real, &"--generated", &damaged]);
    assert!(error.contains("damaged/0019.png: this is not a PNG"), "{error}");

    for (count, word) in [("0", "two pictures at least"), ("1", "two pictures at least"), ("many", "whole number")] {
        let Ran { code, stderr, .. } = bench.run(&[&"--real", &real, &"--generated", &emoji64(), &"--count", &count]);
        assert!(code == Some(2) && stderr.contains(word), "{stderr}");
    }
    for splits in ["1", "101", "-3", "many"] {
        let Ran { code, stderr, .. } = bench.run(&[&"--real", &real, &"--generated", &real, &"--splits", &splits]);
        assert!(code == Some(2) && stderr.contains("from 2 to 100"), "{stderr}");
    }
    let one = bench.pictures("one", 1, 3);
    let error = bench.error(&[&"--real", &one, &"--generated", &real]);
    assert!(error.contains("one: there is one picture"), "{error}");

    let error = bench.error(&[&"--real", &real, &"--generated", &real, &"--features", &"inception"]);
    assert!(error.ends_with(undiffuse::metrics::INCEPTION_CONVERSION), "{error}");
    let error = bench.error(&[&"--real", &real, &"--generated", &real, &"--features", &"vgg"]);
    assert!(error.contains("there is no \"vgg\": give `emoji`"), "{error}");
    let unet = network("unet_sd1_like");
    let error = bench.error(&[&"--real", &real, &"--generated", &real, &"--features", &unet]);
    assert!(error.contains("unet_sd1_like"), "{error}");

    let prompts = bench.path("prompts.txt");
    fs::write(&prompts, "\n  \n").unwrap();
    let model: &[Argument] = &[&"--real", &real, &"--generated", &emoji64()];
    let error = bench.error(&[model, &[&"--prompts", &prompts]].concat());
    assert!(error.contains("prompts.txt: there is no prompt in this file"), "{error}");
    let error = bench.error(model);
    assert!(error.contains("give some with --prompts or --prompt"), "{error}");
    let error = bench.error(&[model, &[&"--prompt", &"a fox", &"--steps", &"5000"]].concat());
    assert!(error.contains("5000"), "{error}");
    let error = bench.error(&[&"--real", &real, &"--generated", &real, &"--steps", &"5"]);
    assert!(error.contains("--steps: the --generated pictures are there already"), "{error}");
    assert_eq!(
        bench.journals().len(),
        3,
        "of the real pictures, and of the damaged ones before and after they changed"
    );
}

#[test]
fn statistics_of_other_features_are_refused_and_those_of_pytorch_fid_need_inception() {
    let bench = Bench::new();
    let real = bench.pictures("real", 70, 10);
    let (kept, bare) = (bench.path("kept.safetensors"), bench.path("bare.safetensors"));
    bench.json(&[&"--real", &real, &"--generated", &real, &"--save-real", &kept]);
    bench.json(&[&"--real", &real, &"--generated", &real, &"--save-real", &bare, &"--without-features"]);
    let length = |path: &PathBuf| fs::metadata(path).unwrap().len();
    assert!(
        (70 * 64 * 4..70 * 64 * 4 + 200).contains(&(length(&kept) - length(&bare))),
        "the features and their header"
    );
    let (json, said) = bench.json(&[&"--real", &bare, &"--generated", &real]);
    assert!(said.contains("the statistics of the real pictures hold no features: there is no KID\n"), "{said}");
    assert!(json["kid"].is_null() && json["fid"]["standard_error"].is_number(), "{json}");
    let (json, said) = bench.json(&[&"--real", &real, &"--generated", &bare]);
    assert!(said.contains("there is no KID, nor a standard error"), "{said}");
    assert!(json["fid"]["standard_error"].is_null() && json["fid"]["value"].as_f64() < Some(1e-9), "{json}");

    let other = bench.path("other.safetensors");
    let changed = |from: &str, to: &str| {
        let bytes = fs::read(&kept).unwrap();
        let at = bytes.windows(from.len()).position(|part| part == from.as_bytes()).unwrap();
        fs::write(&other, [&bytes[..at], to.as_bytes(), &bytes[at + from.len()..]].concat()).unwrap();
    };
    changed("\"extractor\":\"emoji\"", "\"extractor\":\"smile\"");
    for arguments in
        [[&"--real" as Argument, &other, &"--generated", &real], [&"--real", &real, &"--generated", &other]]
    {
        let error = bench.error(&arguments);
        assert!(error.contains("other.safetensors: these statistics are of 64 features of `smile`"), "{error}");
        assert!(error.contains("by 64 features of `emoji`"), "{error}");
    }
    let error = bench.error(&[&"--real", &kept, &"--generated", &other]);
    assert!(error.contains("other.safetensors: 64 features of `emoji`"), "{error}");
    assert!(error.contains("and 64 features of `smile`") && error.contains("different spaces"), "{error}");
    let error = bench.error(&[&"--real", &kept, &"--generated", &real, &"--save-real", &bare]);
    assert!(error.contains("--save-real: these are statistics already"), "{error}");
    let error = bench.error(&[&"--real", &kept, &"--generated", &kept, &"--count", &"9"]);
    assert!(error.contains("--count: the --generated pictures are there as statistics"), "{error}");
    fs::write(&other, &fs::read(&kept).unwrap()[..5000]).unwrap();
    let error = bench.error(&[&"--real", &other, &"--generated", &real]);
    assert!(error.contains("other.safetensors") && error.contains("ends after 5000"), "{error}");

    // Three features, as numpy.savez_compressed writes them.
    let npz = bench.path("a.npz");
    write_npz(&npz, &[0.0, 1.0, 2.0], &[2.0, 0.0, 0.0, 0.0, 2.0, 0.0, 0.0, 0.0, 2.0]);
    let shifted = bench.path("b.NPZ");
    write_npz(&shifted, &[1.0, 1.0, 2.0], &[2.0, 0.0, 0.0, 0.0, 8.0, 0.0, 0.0, 0.0, 2.0]);
    let (json, said) = bench.json(&[&"--real", &npz, &"--generated", &shifted]);
    assert!(said.contains("a.npz: an .npz does not say which features it holds"), "{said}");
    // 1 for the means, and (√8 − √2)² for the second feature's deviation.
    assert!((json["fid"]["value"].as_f64().unwrap() - 3.0).abs() < 1e-9, "{json}");
    assert!(json["real"]["pictures"].is_null(), "{json}");
    let error = bench.error(&[&"--real", &npz, &"--generated", &real]);
    assert!(error.contains("a.npz: these statistics are of 3 features of `inception-v3-fid`"), "{error}");
}

fn write_npz(path: &Path, mu: &[f64], sigma: &[f64]) {
    use std::io::Write;
    let mut archive = zip::ZipWriter::new(fs::File::create(path).unwrap());
    for (name, shape, numbers) in [("mu.npy", "(3,)", mu), ("sigma.npy", "(3, 3)", sigma)] {
        let header = format!("{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}");
        let header = format!("{header:<117}\n");
        archive.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
        archive.write_all(b"\x93NUMPY\x01\x00").unwrap();
        archive.write_all(&(header.len() as u16).to_le_bytes()).unwrap();
        archive.write_all(header.as_bytes()).unwrap();
        archive.write_all(&numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<_>>()).unwrap();
    }
    archive.finish().unwrap();
}

#[test]
fn some_of_a_folder_are_taken_evenly() {
    let bench = Bench::new();
    let real = bench.pictures("real", 90, 10);
    let some = bench.path("some");
    let (of_some, _) =
        bench.json(&[&"--real", &real, &"--generated", &real, &"--count", &"45", &"--save-generated", &some]);
    assert_eq!(of_some["generated"]["pictures"], 45);
    // Every second in the order of names: `0001.png` … before `inside/0000.png` ….
    let mut files: Vec<PathBuf> = Vec::new();
    for folder in ["", "inside"] {
        let inside = names(&real.join(folder)).into_iter().filter(|name| name.ends_with(".png"));
        files.extend(inside.map(|name| Path::new(folder).join(name)));
    }
    assert_eq!(files.len(), 90);
    let every_second = bench.path("every second");
    fs::create_dir(&every_second).unwrap();
    for (index, file) in files.iter().step_by(2).enumerate() {
        fs::copy(real.join(file), every_second.join(format!("{index:04}.png"))).unwrap();
    }
    let (copied, _) = bench.json(&[&"--real", &real, &"--generated", &every_second]);
    assert_eq!(distances(&copied), distances(&of_some));
    let (all, said) = bench.json(&[&"--real", &real, &"--generated", &every_second, &"--count", &"1000"]);
    assert!(said.contains("there are 45 pictures, not 1000"), "{said}");
    assert_eq!(distances(&all), distances(&of_some));
}
