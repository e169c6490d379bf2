//! The schedulers against diffusers' own numbers: everything that `schedulers/` holds for the classes that are
//! implemented. Step by step from stored network outputs and noise, and as whole trajectories.
#![cfg(not(target_arch = "wasm32"))]

use std::{
    collections::{BTreeMap, HashMap},
    env, fs,
    path::{Path, PathBuf},
};

use half::f16;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};
use undiffuse::{
    diffusion::{Error, HISTORY, SchedulerConfig, Solver, Step, StepOptions, Table, velocity},
    noise::TorchCpu,
};

fn reference(path: &str) -> PathBuf {
    env::var_os("UNDIFFUSE_REFERENCE").map_or_else(|| "tests/reference".into(), PathBuf::from).join(path)
}

fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&read(path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every tensor of a file; f64 holds all their dtypes exactly.
fn read_tensors(path: &Path) -> HashMap<String, Vec<f64>> {
    let bytes = read(path);
    let tensors = SafeTensors::deserialize(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let values = |dtype, data: &[u8]| -> Vec<f64> {
        match dtype {
            Dtype::F16 => data.chunks_exact(2).map(|b| f16::from_le_bytes(b.try_into().unwrap()).into()).collect(),
            Dtype::F32 => data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()).into()).collect(),
            Dtype::F64 => data.chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect(),
            Dtype::I32 => data.chunks_exact(4).map(|b| i32::from_le_bytes(b.try_into().unwrap()).into()).collect(),
            Dtype::I64 => data.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as f64).collect(),
            other => panic!("{}: dtype {other:?}", path.display()),
        }
    };
    tensors.iter().map(|(name, view)| (name.to_owned(), values(view.dtype(), view.data()))).collect()
}

fn to_f32(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&value| value as f32).collect()
}

fn max_abs(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |max, value| value.abs().max(max))
}

/// Fails on the element that exceeds its tolerance by most.
fn assert_close<T: Copy + Into<f64>>(what: &str, got: &[T], expected: &[f64], tolerance: impl Fn(f64) -> f64) {
    assert_eq!(got.len(), expected.len(), "{what}: number of values");
    let excess = |i: usize| {
        let (got, expected): (f64, f64) = (got[i].into(), expected[i]);
        // NaN is as bad as infinity.
        let difference = (got - expected).abs();
        if difference.is_nan() { f64::INFINITY } else { difference - tolerance(expected) }
    };
    let Some(worst) = (0..got.len()).max_by(|&a, &b| excess(a).total_cmp(&excess(b))) else { return };
    let (got, expected): (f64, f64) = (got[worst].into(), expected[worst]);
    assert!(
        excess(worst) <= 0.0,
        "{what}: element {worst} is {got}, expected {expected} ± {:e}, off by {:e}",
        tolerance(expected),
        (got - expected).abs()
    );
}

/// Counts what ran and why the rest did not, and says so.
#[derive(Default)]
struct Tally {
    ran: usize,
    skipped: BTreeMap<String, usize>,
}

impl Tally {
    /// A config that this crate refuses is a skip; any other error is a failure.
    fn supported<T>(&mut self, name: &str, result: Result<T, Error>) -> Option<T> {
        let reason = match result {
            Ok(value) => {
                self.ran += 1;
                return Some(value);
            }
            Err(Error::UnsupportedClass { class, .. }) => class,
            Err(Error::UnsupportedValue { class, key, value, .. }) => format!("{class} with {key} {value}"),
            Err(error) => panic!("{name}: {error}"),
        };
        *self.skipped.entry(reason).or_default() += 1;
        None
    }

    fn report(&self, what: &str) {
        println!("{what}: {} ran, {} skipped", self.ran, self.skipped.values().sum::<usize>());
        for (reason, count) in &self.skipped {
            println!("  {count} skipped: {reason} is not supported");
        }
        assert!(self.ran > 0, "{what}: not a single case ran");
    }
}

/// The stand-in networks of the recorded trajectories.
fn stand_in(name: &str, input: &[f32], timestep: f64, channels: usize, height_width: usize) -> Vec<f32> {
    let t = timestep as f32;
    match name {
        "test" => input.iter().map(|x| x * t / (t + 1.0)).collect(),
        "bounded" => input
            .iter()
            .enumerate()
            .map(|(i, x)| {
                let channel = (i / height_width % channels) as f32;
                0.6 * x.tanh() + 0.3 * (0.5 * x + t / 250.0 + channel).sin()
            })
            .collect(),
        other => panic!("stand-in model {other:?} is not known"),
    }
}

fn scaled(values: &[f32], factor: f64) -> Vec<f32> {
    values.iter().map(|&value| (f64::from(value) * factor) as f32).collect()
}

fn combine((a, b): (f64, f64), x: &[f64], y: &[f64]) -> Vec<f64> {
    x.iter().zip(y).map(|(x, y)| a * x + b * y).collect()
}

fn zero_history(len: usize) -> [Vec<f32>; HISTORY] {
    std::array::from_fn(|_| vec![0.0; len])
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

/// `set_timesteps_arguments` and `step_arguments` of a case.
fn arguments(case: &Value) -> (usize, StepOptions) {
    let mut options = StepOptions::default();
    let mut n = 0;
    for (name, value) in case["set_timesteps_arguments"].as_object().unwrap() {
        match name.as_str() {
            "num_inference_steps" => n = value.as_u64().unwrap() as usize,
            "timesteps" => {
                n = value.as_array().unwrap().len();
                options.timesteps = Some(numbers(value));
            }
            "sigmas" => {
                n = value.as_array().unwrap().len() - 1;
                options.sigmas = Some(numbers(value));
            }
            other => panic!("set_timesteps_arguments: {other} is not known"),
        }
    }
    for (name, value) in case["step_arguments"].as_object().unwrap() {
        match name.as_str() {
            "eta" => options.eta = value.as_f64().unwrap(),
            "use_clipped_model_output" => options.use_clipped_model_output = value.as_bool().unwrap(),
            "s_churn" => options.s_churn = value.as_f64().unwrap(),
            "s_tmin" => options.s_tmin = value.as_f64().unwrap(),
            "s_tmax" => options.s_tmax = value.as_f64().unwrap(),
            "s_noise" => options.s_noise = value.as_f64().unwrap(),
            other => panic!("step_arguments: {other} is not known"),
        }
    }
    options.begin_index = case["begin_index"].as_u64().unwrap_or(0) as usize;
    (n, options)
}

struct Case {
    name: String,
    json: Value,
    tensors: HashMap<String, Vec<f64>>,
    config: SchedulerConfig,
    table: Table,
    /// The same from the schedule's beginning, where the case starts late.
    whole_table: Table,
}

impl Case {
    fn tensor(&self, name: &str) -> &[f64] {
        self.tensors.get(name).unwrap_or_else(|| panic!("{}: no tensor {name}", self.name))
    }

    fn is_f16(&self) -> bool {
        self.json["dtype"] == "float16"
    }

    /// Step i's part of a tensor [S, ...].
    fn of_step(&self, name: &str, i: usize) -> &[f64] {
        let len = self.tensor("sample_init").len();
        &self.tensor(name)[i * len..(i + 1) * len]
    }

    fn image_len(&self) -> usize {
        self.json["shape"].as_array().unwrap()[1..].iter().map(|n| n.as_u64().unwrap() as usize).product()
    }

    fn check(&self) {
        self.check_schedule();
        self.check_forward_process();
        self.check_steps();
        if !self.is_f16() {
            self.check_noise();
            self.check_trajectory();
        }
    }

    fn check_schedule(&self) {
        let name = &self.name;
        assert_close(&format!("{name}: timesteps"), &self.table.timesteps, self.tensor("timesteps"), |_| 0.0);
        if let Some(sigmas) = self.tensors.get("sigmas") {
            assert_close(&format!("{name}: sigmas"), &self.table.sigmas, sigmas, |sigma| 2e-6 * sigma);
        }
        let alphas_cumprod = self.config.noise_schedule().unwrap().alphas_cumprod;
        let expected = self.tensor("alphas_cumprod");
        assert_close(&format!("{name}: alphas_cumprod"), &alphas_cumprod, expected, |alpha_bar| 3e-7 * alpha_bar);
        let init_noise_sigma = self.json["init_noise_sigma"].as_f64().unwrap();
        let tolerance = 2e-6 * init_noise_sigma;
        assert_close(&format!("{name}: init_noise_sigma"), &[self.table.init_noise_sigma], &[init_noise_sigma], |_| {
            tolerance
        });
        assert_eq!(self.table.steps.len() * self.tensor("sample_init").len(), self.tensor("prev_sample").len());
    }

    fn check_forward_process(&self) {
        let name = &self.name;
        let expected = self.tensor("sample_init");
        let start = match self.tensors.get("img2img_x0") {
            Some(x0) => combine(self.table.steps[0].forward, x0, self.tensor("img2img_noise")),
            None => combine((self.table.init_noise_sigma, 0.0), self.tensor("base_noise"), self.tensor("base_noise")),
        };
        let tolerance = if self.is_f16() { 4e-3 * max_abs(expected) } else { 1e-5 * max_abs(expected).max(1.0) };
        assert_close(&format!("{name}: sample_init"), &start, expected, |_| tolerance);

        let (x0, noise) = (self.tensor("add_noise_x0"), self.tensor("add_noise_noise"));
        let forward = self.whole_table.steps[self.json["add_noise_step"].as_u64().unwrap() as usize].forward;
        let expected = self.tensor("add_noise_out");
        let tolerance = 1e-5 * max_abs(expected).max(1.0);
        assert_close(&format!("{name}: add_noise"), &combine(forward, x0, noise), expected, |_| tolerance);
        if let Some(expected) = self.tensors.get("get_velocity_out") {
            let got = combine(velocity(forward), x0, noise);
            assert_close(&format!("{name}: get_velocity"), &got, expected, |_| 1e-5 * max_abs(expected).max(1.0));
        }
    }

    /// The tolerance of one step that starts from this sample.
    fn step_tolerance(&self, step: &Step, sample: &[f64], expected: &[f64]) -> f64 {
        if self.is_f16() {
            return 4e-3 * max_abs(expected).max(max_abs(sample));
        }
        // With zero terminal SNR, x̂_0 is a difference of numbers near σ = 4096.
        let at_the_end = step.forward.1 / step.forward.0 > 4095.0;
        (if at_the_end { 1e-4 } else { 1e-5 }) * max_abs(sample).max(1.0)
    }

    fn check_steps(&self) {
        let mut history = zero_history(self.tensor("sample_init").len());
        let churns = self.json["step_arguments"].get("s_churn").is_some();
        for (i, step) in self.table.steps.iter().enumerate() {
            let name = format!("{}: step {i}", self.name);
            let sample = if i == 0 { self.tensor("sample_init") } else { self.of_step("prev_sample", i - 1) };
            if self.tensors.contains_key("model_input") {
                let expected = self.of_step("model_input", i);
                let tolerance = if self.is_f16() { 4e-3 } else { 1e-5 } * max_abs(expected).max(1.0);
                let got = scaled(&to_f32(sample), step.input_scale);
                assert_close(&format!("{name}: model_input"), &got, expected, |_| tolerance);
            } else {
                assert_eq!(step.input_scale, 1.0, "{name}: input_scale");
            }
            let recorded = self.tensors.get("noise_used").map_or(0.0, |used| used[i]);
            assert_eq!(step.draws_noise, recorded == 1.0, "{name}: draws_noise");
            let noise = step.draws_noise.then(|| to_f32(self.of_step("noise", i)));
            let output = to_f32(self.of_step("model_output", i));
            let applied = step
                .apply(&to_f32(sample), &output, noise.as_deref(), &mut history, self.image_len())
                .unwrap_or_else(|error| panic!("{name}: {error}"));
            let expected = self.of_step("prev_sample", i);
            let tolerance = self.step_tolerance(step, sample, expected);
            assert_close(&format!("{name}: prev_sample"), &applied.prev_sample, expected, |_| tolerance);
            // The churned noise is left out of a step's x̂_0.
            if self.json["step_second_output_is"] == "pred_original_sample" && !(churns && step.draws_noise) {
                let expected = self.of_step("step_second_output", i);
                let tolerance = self.step_tolerance(step, sample, expected);
                assert_close(&format!("{name}: pred_original_sample"), &applied.x0, expected, |_| tolerance);
            }
        }
    }

    /// The recorded noise is what the stream gives when exactly the steps that say so draw from it.
    fn check_noise(&self) {
        let mut stream = TorchCpu::new(self.json["step_generator_seed"].as_u64().unwrap());
        for (i, _) in self.table.steps.iter().enumerate().filter(|(_, step)| step.draws_noise) {
            let expected = self.of_step("noise", i);
            assert_close(&format!("{}: noise of step {i}", self.name), &stream.randn(expected.len()), expected, |_| {
                5e-6
            });
        }
    }

    fn check_trajectory(&self) {
        let model = self.json["stand_in_model"].as_str().unwrap();
        let shape = self.json["shape"].as_array().unwrap();
        let channels = shape[1].as_u64().unwrap() as usize;
        let mut x = to_f32(self.tensor("sample_init"));
        let mut history = zero_history(x.len());
        let tolerance = 1e-4 * max_abs(self.tensor("prev_sample"));
        for (i, step) in self.table.steps.iter().enumerate() {
            let input = scaled(&x, step.input_scale);
            let output = stand_in(model, &input, step.timestep, channels, self.image_len() / channels);
            let noise = step.draws_noise.then(|| to_f32(self.of_step("noise", i)));
            x = step.apply(&x, &output, noise.as_deref(), &mut history, self.image_len()).unwrap().prev_sample;
            let what = format!("{}: trajectory after step {i}", self.name);
            assert_close(&what, &x, self.of_step("prev_sample", i), |_| tolerance);
        }
    }
}

#[test]
fn every_recorded_case_is_reproduced() {
    let mut folders: Vec<PathBuf> =
        fs::read_dir(reference("schedulers/cases")).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    let mut tally = Tally::default();
    let mut failures = Vec::new();
    for folder in folders {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let text = fs::read_to_string(folder.join("scheduler_config.json")).unwrap();
        let json = read_json(&folder.join("case.json"));
        let table = SchedulerConfig::from_json(&text).and_then(|config| {
            // Only once the class is known to be one of ours are its arguments ours to understand.
            config.noise_schedule()?;
            let (n, options) = arguments(&json);
            let whole_table = config.table(n, &StepOptions { begin_index: 0, ..options.clone() })?;
            Ok((config.table(n, &options)?, whole_table, config))
        });
        let Some((table, whole_table, config)) = tally.supported(&name, table) else { continue };
        let tensors = read_tensors(&folder.join("tensors.safetensors"));
        let case = Case { name, json, tensors, config, table, whole_table };
        if let Err(panic) = std::panic::catch_unwind(|| case.check()) {
            failures.push(panic.downcast_ref::<String>().cloned().unwrap_or_else(|| case.name.clone()));
        }
    }
    tally.report("scheduler cases");
    assert!(failures.is_empty(), "{} cases failed:\n{}", failures.len(), failures.join("\n"));
}

/// `dummy_sample_deter` of diffusers' tests, (4, 3, 8, 8), or of the reversed count for `dummy_noise_deter`.
fn deterministic_sample(reversed: bool) -> Vec<f32> {
    let value = |i: usize| (if reversed { 767 - i } else { i }) as f32 / 768.0;
    // arange(768).reshape(3, 8, 8, 4) permuted to (4, 3, 8, 8).
    (0..768).map(|i| value(i % 192 * 4 + i / 192)).collect()
}

#[test]
fn the_full_loops_of_diffusers_own_tests_give_its_sums() {
    let rows = read_json(&reference("schedulers/headline.json"));
    let finals = read_tensors(&reference("schedulers/headline.safetensors"));
    let mut tally = Tally::default();
    for row in rows["rows"].as_array().unwrap() {
        let name = row["name"].as_str().unwrap();
        let mut config = row["constructor_arguments"].clone();
        config["_class_name"] = row["class"].clone();
        let train = config["num_train_timesteps"].as_u64().unwrap() as usize;
        let n = row["num_inference_steps"].as_u64().map_or(train, |n| n as usize);
        let mut options =
            StepOptions { begin_index: row["t_start"].as_u64().unwrap_or(0) as usize, ..Default::default() };
        if let Some(eta) = row["kw"]["eta"].as_f64() {
            options.eta = eta;
        }
        let table = SchedulerConfig::from_json(&config.to_string()).and_then(|config| config.table(n, &options));
        let Some(table) = tally.supported(name, table) else { continue };

        // These tests hand step() the sample as it is scaled for the network.
        let scales = row["loop"] == "sigma";
        let mut x = scaled(&deterministic_sample(false), if scales { table.init_noise_sigma } else { 1.0 });
        if !row["t_start"].is_null() && row["no_add_noise"] != true {
            let (signal, noise) = table.steps[0].forward;
            x = std::iter::zip(&x, deterministic_sample(true))
                .map(|(&x, z)| (signal * f64::from(x) + noise * f64::from(z)) as f32)
                .collect();
        }
        let mut history = zero_history(x.len());
        let mut stream = TorchCpu::new(0);
        for step in &table.steps {
            x = scaled(&x, step.input_scale);
            let output = stand_in("test", &x, step.timestep, 3, 64);
            let noise = step.draws_noise.then(|| stream.randn(x.len()));
            x = step.apply(&x, &output, noise.as_deref(), &mut history, 192).unwrap().prev_sample;
        }
        let expected = &finals[&format!("final/{name}")];
        assert_close(name, &x, expected, |_| 1e-4 * max_abs(expected));
        let sum: f64 = x.iter().map(|&x| f64::from(x.abs())).sum();
        for published in ["diffusers_test_sum", "got_sum"] {
            // 1e-2 is what diffusers' tests allow.
            let Some(expected) = row[published].as_f64() else { continue };
            assert_close(&format!("{name}: {published}"), &[sum], &[expected], |_| 1e-2);
        }
    }
    tally.report("full loops of diffusers' tests");
}

#[test]
fn swapping_the_solver_follows_from_config() {
    let rows = read_json(&reference("schedulers/swaps.json"));
    let mut tally = Tally::default();
    for row in rows["rows"].as_array().unwrap() {
        let name = format!("{} to {}", row["from"], row["to"]);
        let source = SchedulerConfig::from_json(&row["source_config_file"].to_string()).unwrap();
        let resulting = SchedulerConfig::from_json(&row["resulting_config"].to_string());
        let n = row["num_inference_steps"].as_u64().unwrap() as usize;
        let expected = resulting.and_then(|config| Ok((config.table(n, &StepOptions::default())?, config)));
        let Some((expected, resulting)) = tally.supported(&name, expected) else { continue };
        let table = source.swap_to(resulting.solver().unwrap()).unwrap().table(n, &StepOptions::default()).unwrap();
        assert_eq!(table, expected, "{name}");
        assert_close(&format!("{name}: timesteps"), &table.timesteps, &numbers(&row["timesteps"]), |_| 0.0);
        let init_noise_sigma = row["init_noise_sigma"].as_f64().unwrap();
        assert_close(&name, &[table.init_noise_sigma], &[init_noise_sigma], |sigma| 2e-6 * sigma);
        if !row["sigmas"].is_null() {
            let sigmas = numbers(&row["sigmas"]);
            assert_close(&format!("{name}: sigmas"), &table.sigmas, &sigmas, |sigma| 2e-6 * sigma);
        }
    }
    tally.report("solver swaps");
}

#[test]
fn many_step_counts_visit_the_timesteps_that_diffusers_visits() {
    let rows = read_json(&reference("schedulers/timesteps_sweep.json"));
    let tensors = read_tensors(&reference("schedulers/timesteps_sweep.safetensors"));
    let mut tally = Tally::default();
    for row in rows["rows"].as_array().unwrap() {
        let key = row["key"].as_str().unwrap();
        let mut config = row["config"].clone();
        config["_class_name"] = json!(key.split('/').next().unwrap());
        let config = SchedulerConfig::from_json(&config.to_string());
        for n in row["n"].as_array().unwrap() {
            let name = format!("{key}/n{n}");
            let n = n.as_u64().unwrap() as usize;
            let table = config.clone().and_then(|config| config.table(n, &StepOptions::default()));
            let Some(table) = tally.supported(&name, table) else { continue };
            assert_close(&name, &table.timesteps, &tensors[&format!("{name}/timesteps")], |_| 0.0);
            if let Some(sigmas) = tensors.get(&format!("{name}/sigmas")) {
                assert_close(&name, &table.sigmas, sigmas, |sigma| 2e-6 * sigma);
            }
        }
    }
    tally.report("step counts");
}

#[test]
fn every_solver_is_found_by_its_name_and_no_other() {
    for solver in Solver::ALL {
        assert_eq!(solver.name().parse(), Ok(solver));
    }
    let error = "unipc".parse::<Solver>().unwrap_err();
    assert!(error.to_string().contains("dpmpp_2m"), "{error}");
}
