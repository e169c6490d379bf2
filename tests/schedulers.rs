//! The schedulers against diffusers' own numbers: everything that `schedulers/` holds for the classes that are
//! implemented. Step by step from stored network outputs and noise, and as whole trajectories.

use std::{
    collections::{BTreeMap, HashMap},
    env, fs,
    path::{Path, PathBuf},
};

use half::f16;
use proptest::prelude::*;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};
use undiffuse::{
    diffusion::{
        Error, HISTORY, Noising, Reading, SchedulerConfig, Solver, SolverKeys, SolverName, Step, StepOptions, Table,
        Velocity,
    },
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

/// How far a timestep may be off. Exact, but for fractions that are looked up from σ or are its logarithm: they inherit the
/// square roots of the machine that recorded them, whose f32 `torch.sqrt` is one unit in the last place off in a sixth of
/// all values, and its logarithms.
fn timestep_tolerance(config: &SchedulerConfig, keys: &Value, has_custom_sigmas: bool) -> impl Fn(f64) -> f64 + use<> {
    let solver = config.solver().unwrap();
    let spaced = ["use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"].iter().any(|key| keys[key] == true);
    let looked_up = spaced || has_custom_sigmas || keys["timestep_type"] == "continuous";
    let from_sigmas = looked_up && solver != Solver::FlowEuler;
    // KDPM2 looks up σ between those of the schedule, all of it in f32, where log σ has this resolution.
    let midpoints =
        matches!(solver, Solver::Dpm2 | Solver::Dpm2Ancestral).then(|| config.noise_schedule().unwrap().sigmas());
    move |timestep| match &midpoints {
        _ if timestep.fract() == 0.0 => 0.0,
        Some(sigmas) => {
            let low = (timestep as usize).min(sigmas.len() - 2);
            1e-6 * timestep + 4.8e-7 / f64::from(sigmas[low + 1] / sigmas[low]).ln()
        }
        None if from_sigmas => 1e-6 * timestep.abs(),
        None => 0.0,
    }
}

/// Runs one check after another, nothing skipped, and fails with the messages of all that failed.
#[derive(Default)]
struct Tally {
    ran: BTreeMap<String, usize>,
    failures: Vec<String>,
}

impl Tally {
    fn run(&mut self, class: &str, name: &str, check: impl FnOnce() + std::panic::UnwindSafe) {
        *self.ran.entry(class.to_owned()).or_default() += 1;
        if let Err(panic) = std::panic::catch_unwind(check) {
            let message = panic.downcast_ref::<String>().map(String::as_str);
            let message = message.or(panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
            self.failures.push(format!("{name}: {message}"));
        }
    }

    fn report(&self, what: &str) {
        println!("{what}: {} ran, none skipped: {:?}", self.ran.values().sum::<usize>(), self.ran);
        assert!(!self.ran.is_empty(), "{what}: not a single case ran");
        assert!(self.failures.is_empty(), "{} failed:\n{}", self.failures.len(), self.failures.join("\n"));
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

fn combine(velocity: Velocity, x0: &[f64], noise: &[f64]) -> Vec<f64> {
    x0.iter().zip(noise).map(|(x0, epsilon)| velocity.x0 * x0 + velocity.epsilon * epsilon).collect()
}

/// x_t in f32, as a run makes it.
fn add_noise(forward: Noising, x0: &[f64], noise: &[f64]) -> Vec<f32> {
    forward.add_noise(&to_f32(x0), &to_f32(noise))
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
    let class = case["class"].as_str().unwrap();
    // The default of `step` there.
    if class == "TCDScheduler" {
        options.eta = 0.3;
    }
    let mut n = 0;
    for (name, value) in case["set_timesteps_arguments"].as_object().unwrap() {
        match name.as_str() {
            "num_inference_steps" => n = value.as_u64().unwrap() as usize,
            "timesteps" => {
                n = value.as_array().unwrap().len();
                options.timesteps = Some(numbers(value));
            }
            "sigmas" => {
                // Euler takes the final one with the others.
                n = value.as_array().unwrap().len() - usize::from(class == "EulerDiscreteScheduler");
                options.sigmas = Some(numbers(value));
            }
            "mu" => options.mu = value.as_f64(),
            "strength" => options.strength = value.as_f64().unwrap(),
            "original_inference_steps" => options.original_inference_steps = value.as_u64().map(|n| n as usize),
            other => panic!("set_timesteps_arguments: {other} is not known"),
        }
    }
    for (name, value) in case["step_arguments"].as_object().unwrap() {
        match name.as_str() {
            "order" => options.lms_order = value.as_u64().unwrap() as usize,
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

    /// The last ᾱ of the schedule that is rescaled to zero terminal SNR; zero where none is.
    fn alpha_bar_before_rescaling(&self) -> f64 {
        let mut config = self.json["constructor_arguments"].clone();
        if config["rescale_betas_zero_snr"] != true {
            return 0.0;
        }
        config["rescale_betas_zero_snr"] = false.into();
        config["_class_name"] = self.config.class_name().into();
        let config = SchedulerConfig::from_json(&config.to_string()).unwrap();
        f64::from(*config.noise_schedule().unwrap().alphas_cumprod.last().unwrap())
    }

    /// The step that diffusers finds when it is only told a timestep: where it repeats, the second that has it.
    fn index_for_timestep(&self, step: usize) -> usize {
        let timesteps = &self.whole_table.timesteps;
        let mut matches = (0..timesteps.len()).filter(|&i| timesteps[i] == timesteps[step]);
        let first = matches.next().unwrap();
        matches.next().unwrap_or(first)
    }

    /// Step i's output of the network, with its learned variance where there is one.
    fn model_output(&self, i: usize) -> Vec<f32> {
        let all = self.tensor("model_output");
        let len = all.len() / self.table.steps.len();
        to_f32(&all[i * len..(i + 1) * len])
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
        let has_custom_sigmas = self.json["set_timesteps_arguments"].get("sigmas").is_some();
        let tolerance = timestep_tolerance(&self.config, &self.json["constructor_arguments"], has_custom_sigmas);
        assert_close(&format!("{name}: timesteps"), &self.table.timesteps, self.tensor("timesteps"), tolerance);
        if let Some(sigmas) = self.tensors.get("sigmas") {
            assert_close(&format!("{name}: sigmas"), &self.table.sigmas, sigmas, |sigma| 2e-6 * sigma);
        }
        if let Some(expected) = self.tensors.get("alphas_cumprod") {
            let alphas_cumprod = self.config.noise_schedule().unwrap().alphas_cumprod;
            // Rescaling to zero terminal SNR takes the last √ᾱ from all others: what the recording machine's square roots
            // are off, up to one unit in the last place each, grows where little is left.
            let last = self.alpha_bar_before_rescaling().sqrt();
            let tolerance = |alpha_bar: f64| match last {
                0.0 => 3e-7 * alpha_bar,
                _ => 1e-6 * alpha_bar + 4.0 * f64::from(f32::EPSILON) * (alpha_bar + last * alpha_bar.sqrt()),
            };
            assert_close(&format!("{name}: alphas_cumprod"), &alphas_cumprod, expected, tolerance);
        }
        // Classes of rectified flow have none, and start from the noise itself.
        let expected = self.json["init_noise_sigma"].as_f64().unwrap_or(1.0);
        let got = self.table.init_noise_sigma;
        assert_close(&format!("{name}: init_noise_sigma"), &[got], &[expected], |expected| 2e-6 * expected);
        assert_eq!(self.table.order as u64, self.json["order"].as_u64().unwrap_or(1), "{name}: order");
        assert_eq!(self.table.steps.len() * self.tensor("sample_init").len(), self.tensor("prev_sample").len());
    }

    fn check_forward_process(&self) {
        let name = &self.name;
        let expected = self.tensor("sample_init");
        let start = match self.tensors.get("img2img_x0") {
            Some(x0) => add_noise(self.table.steps[0].forward, x0, self.tensor("img2img_noise")),
            None => scaled(&to_f32(self.tensor("base_noise")), self.table.init_noise_sigma),
        };
        let tolerance = if self.is_f16() { 4e-3 * max_abs(expected) } else { 1e-5 * max_abs(expected).max(1.0) };
        assert_close(&format!("{name}: sample_init"), &start, expected, |_| tolerance);

        let (x0, noise) = (self.tensor("add_noise_x0"), self.tensor("add_noise_noise"));
        let add_noise_step = self.json["add_noise_step"].as_u64().unwrap() as usize;
        let step = &self.whole_table.steps[self.index_for_timestep(add_noise_step)];
        let forward = step.forward;
        let expected = self.tensor("add_noise_out");
        let tolerance = 1e-5 * max_abs(expected).max(1.0);
        assert_close(&format!("{name}: add_noise"), &add_noise(forward, x0, noise), expected, |_| tolerance);
        // At a timestep of training that the run visits, the forward process needs no run.
        let is_of_training = step.timestep.fract() == 0.0 && !self.spaces_sigmas();
        if is_of_training && let Ok(timestep) = usize::try_from(step.timestep as i64) {
            let at = self.config.noising_at(timestep).unwrap();
            assert_close(&format!("{name}: noising_at"), &add_noise(at.forward, x0, noise), expected, |_| tolerance);
            assert_eq!(at.input_scale, step.input_scale, "{name}: input_scale");
        }
        if let Some(expected) = self.tensors.get("get_velocity_out") {
            let schedule = self.config.noise_schedule().unwrap();
            let marginal = schedule.marginal(step.timestep as usize).unwrap();
            let got = combine(marginal.velocity(), x0, noise);
            assert_close(&format!("{name}: get_velocity"), &got, expected, |_| 1e-5 * max_abs(expected).max(1.0));
        }
    }

    /// Whether σ follow a rule of their own, by which timesteps are told that were trained at other σ.
    fn spaces_sigmas(&self) -> bool {
        let keys = &self.json["constructor_arguments"];
        let rules = ["karras_sigmas", "exponential_sigmas", "beta_sigmas", "lu_lambdas", "flow_sigmas"];
        rules.iter().any(|rule| keys[format!("use_{rule}")] == true)
            || keys["interpolation_type"] == "log_linear"
            || self.json["set_timesteps_arguments"].get("sigmas").is_some()
    }

    /// The stand-in network, with the second half of its channels where the case has one.
    fn stand_in(&self, input: &[f32], timestep: f64) -> Vec<f32> {
        let channels = self.json["shape"][1].as_u64().unwrap() as usize;
        let image_len = self.image_len();
        let output =
            stand_in(self.json["stand_in_model"].as_str().unwrap(), input, timestep, channels, image_len / channels);
        let variance: fn(f32) -> f32 = match &self.json["learned_variance_channels"] {
            Value::Bool(false) => return output,
            Value::String(_) => |x| 0.02 / (1.0 + (-x).exp()) + 0.001,
            _ => |x| (0.8 * x - 0.3).tanh(),
        };
        let images = output.chunks(image_len).zip(input.chunks(image_len));
        images.flat_map(|(output, input)| output.iter().copied().chain(input.iter().map(|&x| variance(x)))).collect()
    }

    /// The tolerance of one step that leads from this sample to that one.
    fn step_tolerance(&self, step: &Step, sample: &[f64], expected: &[f64]) -> f64 {
        if self.is_f16() {
            return 4e-3 * max_abs(expected).max(max_abs(sample));
        }
        // With zero terminal SNR, x̂_0 is a difference of numbers near σ = 4096.
        let at_the_end = step.forward.noise / step.forward.signal > 4095.0;
        (if at_the_end { 1e-4 } else { 1e-5 }) * max_abs(sample).max(max_abs(expected)).max(1.0)
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
            let output = self.model_output(i);
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
        // Classes whose step takes no generator have no seed.
        let Some(seed) = self.json["step_generator_seed"].as_u64() else {
            return assert!(self.table.steps.iter().all(|step| !step.draws_noise), "{}: draws noise", self.name);
        };
        let mut stream = TorchCpu::new(seed);
        for (i, _) in self.table.steps.iter().enumerate().filter(|(_, step)| step.draws_noise) {
            let expected = self.of_step("noise", i);
            assert_close(&format!("{}: noise of step {i}", self.name), &stream.randn(expected.len()), expected, |_| {
                5e-6
            });
        }
    }

    fn check_trajectory(&self) {
        let mut x = to_f32(self.tensor("sample_init"));
        let mut history = zero_history(x.len());
        // The library updates in f32. Where it starts from σ in the thousands, one unit in the last place of x_T stays
        // behind in what the first step leaves.
        let rounding = f64::from(f32::EPSILON) * max_abs(self.tensor("sample_init"));
        let tolerance = 1e-4 * max_abs(self.tensor("prev_sample")) + rounding;
        for (i, step) in self.table.steps.iter().enumerate() {
            let input = scaled(&x, step.input_scale);
            let output = self.stand_in(&input, step.timestep);
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
    for folder in folders {
        let json = read_json(&folder.join("case.json"));
        let class = json["class"].as_str().unwrap().to_owned();
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        tally.run(&class, &name.clone(), || {
            let text = fs::read_to_string(folder.join("scheduler_config.json")).unwrap();
            let config = SchedulerConfig::from_json(&text).unwrap();
            let (n, options) = arguments(&json);
            let table = config.table(n, &options);
            if json["all_finite"] == false {
                // Where the library yields NaN there is nothing to match.
                assert!(matches!(table, Err(Error::NotFinite { .. })), "{table:?}");
                return;
            }
            let table = table.unwrap_or_else(|error| panic!("{error}"));
            let whole_table = config.table(n, &StepOptions { begin_index: 0, ..options }).unwrap();
            let tensors = read_tensors(&folder.join("tensors.safetensors"));
            Case { name, json, tensors, config, table, whole_table }.check();
        });
    }
    tally.report("scheduler cases");
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
        let class = row["class"].as_str().unwrap();
        tally.run(class, name, || {
            let mut config = row["constructor_arguments"].clone();
            config["_class_name"] = class.into();
            let config = SchedulerConfig::from_json(&config.to_string()).unwrap();
            let n = match row["num_inference_steps"].as_u64() {
                Some(n) => n as usize,
                None => config.noise_schedule().unwrap().betas.len(),
            };
            let begin_index = row["t_start"].as_u64().unwrap_or(0) as usize * config.solver().unwrap().order();
            let mut options = StepOptions { begin_index, ..Default::default() };
            if let Some(eta) = row["kw"]["eta"].as_f64() {
                options.eta = eta;
            }
            let table = config.table(n, &options).unwrap_or_else(|error| panic!("{error}"));

            // These tests hand step() the sample as it is scaled for the network.
            let scales = row["loop"] == "sigma";
            let mut x = scaled(&deterministic_sample(false), if scales { table.init_noise_sigma } else { 1.0 });
            if !row["t_start"].is_null() && row["no_add_noise"] != true {
                let Noising { signal, noise } = table.steps[0].forward;
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
        });
    }
    tally.report("full loops of diffusers' tests");
}

#[test]
fn swapping_the_solver_follows_from_config() {
    let rows = read_json(&reference("schedulers/swaps.json"));
    let mut tally = Tally::default();
    for row in rows["rows"].as_array().unwrap() {
        let name = format!("{} to {}", row["from"], row["to"]);
        let class = row["to"].as_str().unwrap();
        tally.run(class, &name, || {
            let source = SchedulerConfig::from_json(&row["source_config_file"].to_string()).unwrap();
            let resulting = SchedulerConfig::from_json(&row["resulting_config"].to_string()).unwrap();
            let n = row["num_inference_steps"].as_u64().unwrap() as usize;
            let expected = resulting.table(n, &StepOptions::default()).unwrap();
            let swapped = source.swap_to(resulting.solver().unwrap()).unwrap();
            let table = swapped.table(n, &StepOptions::default()).unwrap();
            assert_eq!(table, expected);
            let tolerance = timestep_tolerance(&swapped, &row["resulting_config"], false);
            assert_close("timesteps", &table.timesteps, &numbers(&row["timesteps"]), tolerance);
            let init_noise_sigma = row["init_noise_sigma"].as_f64().unwrap();
            let got = table.init_noise_sigma;
            assert_close("init_noise_sigma", &[got], &[init_noise_sigma], |sigma| 2e-6 * sigma);
            if !row["sigmas"].is_null() {
                assert_close("sigmas", &table.sigmas, &numbers(&row["sigmas"]), |sigma| 2e-6 * sigma);
            }
        });
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
        let class = key.split('/').next().unwrap();
        let mut config = row["config"].clone();
        config["_class_name"] = json!(class);
        let config = SchedulerConfig::from_json(&config.to_string()).unwrap();
        for n in row["n"].as_array().unwrap() {
            let name = format!("{key}/n{n}");
            tally.run(class, &name, || {
                let table = config.table(n.as_u64().unwrap() as usize, &StepOptions::default());
                let table = table.unwrap_or_else(|error| panic!("{error}"));
                let tolerance = timestep_tolerance(&config, &row["config"], false);
                assert_close("timesteps", &table.timesteps, &tensors[&format!("{name}/timesteps")], tolerance);
                if let Some(sigmas) = tensors.get(&format!("{name}/sigmas")) {
                    assert_close("sigmas", &table.sigmas, sigmas, |sigma| 2e-6 * sigma);
                }
            });
        }
    }
    tally.report("step counts");
}

fn ddpm(config: Value) -> Result<SchedulerConfig, Error> {
    let mut config = config;
    config["_class_name"] = json!("DDPMScheduler");
    SchedulerConfig::from_json(&config.to_string())
}

#[test]
fn a_class_without_a_solver_is_refused_by_name_but_can_be_swapped() {
    let config = SchedulerConfig::from_json(r#"{"_class_name": "DPMSolverSDEScheduler", "beta_end": 0.012}"#).unwrap();
    let error = config.table(10, &StepOptions::default()).unwrap_err().to_string();
    assert!(error.contains("DPMSolverSDEScheduler") && error.contains("dpmpp_2m"), "{error}");
    config.swap_to(Solver::Euler).unwrap().table(10, &StepOptions::default()).unwrap();
}

#[test]
fn a_value_that_is_not_supported_is_refused_with_its_key_and_the_alternatives() {
    let error = ddpm(json!({"variance_type": "guessed"})).unwrap_err().to_string();
    for part in ["DDPMScheduler", "variance_type", "guessed", "fixed_small"] {
        assert!(error.contains(part), "{error}");
    }
    let error = ddpm(json!({"beta_start": "low"})).unwrap_err().to_string();
    assert!(error.contains("beta_start"), "{error}");
}

/// A class of diffusers with some keys.
fn scheduler(class: &str, keys: Value) -> Result<SchedulerConfig, Error> {
    let mut config = keys;
    config["_class_name"] = format!("{class}Scheduler").into();
    SchedulerConfig::from_json(&config.to_string())
}

#[test]
fn keys_that_diffusers_does_not_combine_are_refused_by_name() {
    for (class, keys, parts) in [
        ("DPMSolverMultistep", json!({"algorithm_type": "dpmsolver"}), ["final_sigmas_type", "sigma_min"]),
        (
            "DPMSolverMultistep",
            json!({"algorithm_type": "sde-dpmsolver", "final_sigmas_type": "sigma_min", "solver_order": 3}),
            ["solver_order", "1 and 2"],
        ),
        (
            "DPMSolverSinglestep",
            json!({"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min", "prediction_type": "flow_prediction"}),
            ["prediction_type", "v_prediction"],
        ),
        ("DPMSolverSinglestep", json!({"solver_order": 4}), ["solver_order", "1 to 3"]),
        (
            "DPMSolverMultistep",
            json!({"use_karras_sigmas": true, "use_lu_lambdas": true}),
            ["use_lu_lambdas", "only one"],
        ),
        ("DPMSolverMultistep", json!({"variance_type": "guessed"}), ["variance_type", "learned_range"]),
        ("LMSDiscrete", json!({"use_karras_sigmas": true, "use_beta_sigmas": true}), ["use_beta_sigmas", "only one"]),
        ("EulerDiscrete", json!({"use_karras_sigmas": true, "sigma_min": 0.0}), ["sigma_min", "above 0"]),
        ("UniPCMultistep", json!({"solver_p": {"_class_name": "DDIMScheduler"}}), ["solver_p", "null"]),
        ("UniPCMultistep", json!({"solver_order": 5}), ["solver_order", "1 to 4"]),
        (
            "UniPCMultistep",
            json!({"predict_x0": false, "prediction_type": "flow_prediction"}),
            ["prediction_type", "predict_x0"],
        ),
        ("DEISMultistep", json!({"algorithm_type": "sde-dpmsolver++"}), ["algorithm_type", "deis"]),
        ("PNDM", json!({"prediction_type": "sample"}), ["prediction_type", "v_prediction"]),
        ("KDPM2Discrete", json!({"prediction_type": "sample"}), ["prediction_type", "epsilon"]),
        ("EulerDiscrete", json!({"beta_schedule": "exp"}), ["beta_schedule", "squaredcos_cap_v2"]),
        ("HeunDiscrete", json!({"clip_sample_range": -1}), ["clip_sample_range", "not negative"]),
        ("LCM", json!({"original_inference_steps": null}), ["original_inference_steps", "50"]),
        ("FlowMatchEulerDiscrete", json!({"time_shift_type": "cubic"}), ["time_shift_type", "exponential"]),
        ("FlowMatchEulerDiscrete", json!({"shift": 0}), ["shift", "above 0"]),
    ] {
        let Err(error) = scheduler(class, keys.clone()) else { panic!("{class} takes {keys}") };
        let error = error.to_string();
        assert!(parts.into_iter().all(|part| error.contains(part)) && error.contains(class), "{keys}: {error}");
    }
}

#[test]
fn options_that_a_class_does_not_take_are_refused_by_name() {
    let default = StepOptions::default();
    let some = |timesteps: &[f64]| Some(timesteps.to_vec());
    for (class, keys, n, options, parts) in [
        (
            "DDIM",
            json!({}),
            4,
            StepOptions { timesteps: some(&[900.0, 1.0]), ..default.clone() },
            ["timesteps", "DDIM"],
        ),
        ("Heun", json!({}), 4, StepOptions { sigmas: some(&[9.0, 1.0]), ..default.clone() }, ["sigmas", "Heun"]),
        ("UniPC", json!({}), 4, StepOptions { sigmas: some(&[0.9, 0.1]), ..default.clone() }, ["sigmas", "UniPC"]),
        ("LMS", json!({}), 4, StepOptions { mu: Some(1.0), ..default.clone() }, ["mu", "LMS"]),
        ("LMS", json!({}), 4, StepOptions { lms_order: 6, ..default.clone() }, ["lms_order", "1 to 5"]),
        (
            "DEIS",
            json!({"use_flow_sigmas": true}),
            4,
            StepOptions { mu: Some(1.0), ..default.clone() },
            ["mu", "use_dynamic_shifting"],
        ),
        ("FlowMatchEuler", json!({"use_dynamic_shifting": true}), 4, default.clone(), ["mu", "use_dynamic_shifting"]),
        ("DDPM", json!({}), 4, StepOptions { strength: 0.5, ..default.clone() }, ["strength", "DDPM"]),
        ("DDPM", json!({}), 4, StepOptions { begin_index: 4, ..default.clone() }, ["begin_index", "4 steps"]),
        (
            "DDPM",
            json!({}),
            4,
            StepOptions { timesteps: some(&[1.0, 900.0]), ..default.clone() },
            ["timesteps", "descend"],
        ),
        ("DDPM", json!({}), 4, StepOptions { timesteps: some(&[1000.0]), ..default.clone() }, ["timesteps", "below"]),
        (
            "Heun",
            json!({"use_karras_sigmas": true}),
            4,
            StepOptions { timesteps: some(&[900.0]), ..default.clone() },
            ["timesteps", "Heun"],
        ),
        ("LCM", json!({}), 51, default.clone(), ["num_inference_steps", "at most 50"]),
        ("LCM", json!({}), 4, StepOptions { strength: 0.05, ..default.clone() }, ["num_inference_steps", "at most 2"]),
        (
            "LCM",
            json!({}),
            4,
            StepOptions { strength: 0.1, timesteps: some(&[9.0]), ..default.clone() },
            ["strength", "raise it"],
        ),
        (
            "TCD",
            json!({}),
            4,
            StepOptions { original_inference_steps: Some(2000), ..default.clone() },
            ["original_inference_steps", "1000"],
        ),
        ("PNDM", json!({}), 3, default.clone(), ["num_inference_steps", "4 to 1000"]),
        (
            "Euler",
            json!({}),
            4,
            StepOptions { sigmas: some(&[9.0]), ..default.clone() },
            ["`num_inference_steps` is 0", "Euler"],
        ),
    ] {
        let full = match class {
            "UniPC" | "DEIS" => format!("{class}Multistep"),
            "Heun" | "LMS" | "Euler" | "FlowMatchEuler" => format!("{class}Discrete"),
            _ => class.to_owned(),
        };
        let Err(error) = scheduler(&full, keys).unwrap().table(n, &options) else {
            panic!("{class} takes {options:?}")
        };
        let error = error.to_string();
        assert!(parts.into_iter().all(|part| error.contains(part)), "{class}: {error}");
    }
}

#[test]
fn a_solver_for_rectified_flow_is_not_given_to_another_model_nor_taken_from_it() {
    let error = ddpm(json!({})).unwrap().swap_to(Solver::FlowEuler).unwrap_err().to_string();
    assert!(error.contains("flow_euler") && error.contains("not trained with rectified flow"), "{error}");
    let flow = scheduler("FlowMatchEulerDiscrete", json!({})).unwrap();
    let error = flow.swap_to(Solver::Ddim).unwrap_err().to_string();
    assert!(error.contains("ddim") && error.contains("flow_euler"), "{error}");
    // Other classes can be configured for it.
    let keys = json!({"prediction_type": "flow_prediction", "use_flow_sigmas": true});
    scheduler("UniPCMultistep", keys).unwrap().swap_to(Solver::FlowEuler).unwrap();
}

#[test]
fn a_stable_diffusion_pipeline_rewrites_what_early_checkpoints_had_wrong() {
    let table = |config: &SchedulerConfig| config.table(10, &StepOptions::default()).unwrap();
    // The file says so: the change survives a change of solver.
    let stored = scheduler("DDIM", json!({"steps_offset": 0, "clip_sample": true})).unwrap();
    let rewritten = stored.for_stable_diffusion_pipeline().unwrap();
    assert_eq!(table(&rewritten), table(&scheduler("DDIM", json!({"steps_offset": 1, "clip_sample": false})).unwrap()));
    assert_eq!(table(&rewritten.swap_to(Solver::Ddpm).unwrap()).timesteps[9], 1.0);
    // The class's defaults: those of another class take their place.
    let rewritten = scheduler("DDIM", json!({})).unwrap().for_stable_diffusion_pipeline().unwrap();
    assert_eq!(table(&rewritten).timesteps[9], 1.0);
    assert_eq!(
        rewritten.swap_to(Solver::Ddpm).unwrap(),
        scheduler("DDIM", json!({})).unwrap().swap_to(Solver::Ddpm).unwrap()
    );
    // Inpainting has a rewrite of its own.
    let inpainting = scheduler("PNDM", json!({})).unwrap().for_stable_diffusion_inpaint_pipeline().unwrap();
    assert_eq!(
        table(&inpainting),
        table(&scheduler("PNDM", json!({"steps_offset": 1, "skip_prk_steps": true})).unwrap())
    );
}

#[test]
fn a_learned_variance_needs_twice_the_channels_and_others_pass_it_over() {
    let learned = ddpm(json!({"variance_type": "learned"})).unwrap().table(2, &StepOptions::default()).unwrap();
    let fixed = ddpm(json!({})).unwrap().table(2, &StepOptions::default()).unwrap();
    let (x, noise) = ([0.25; 8], [1.0; 8]);
    // Two images of one channel: the output of each, then its variance.
    let doubled = [[0.5; 4], [0.04; 4], [0.5; 4], [0.09; 4]].concat();
    let apply = |table: &Table, output: &[f32]| table.steps[0].apply(&x, output, Some(&noise), &mut zero_history(8), 4);
    let error = apply(&learned, &[0.5; 8]).unwrap_err();
    assert!(matches!(error, Error::Length { name: "model_output", found: 8, expected: 16 }), "{error}");
    let got = apply(&learned, &doubled).unwrap().prev_sample;
    assert!((got[4] - got[0] - (0.3 - 0.2)).abs() < 1e-6, "{got:?}: their deviations are 0.2 and 0.3");
    assert_eq!(apply(&fixed, &doubled).unwrap(), apply(&fixed, &[0.5; 8]).unwrap());
}

#[test]
fn sizes_that_no_model_has_are_refused() {
    for absurd in
        [json!(1e18), json!(1_000_000_000_000_000_000u64), json!(0), json!(-5), json!(10.5), json!("Infinity")]
    {
        assert!(ddpm(json!({ "num_train_timesteps": absurd })).is_err(), "{absurd}");
    }
}

#[test]
fn step_counts_that_do_not_divide_the_schedule_are_refused() {
    let config = ddpm(json!({})).unwrap();
    for n in [0, 1001, usize::MAX] {
        assert!(matches!(config.table(n, &StepOptions::default()), Err(Error::NumInferenceSteps { .. })), "{n}");
    }
    for solver in Solver::ALL {
        let config = json!({"_class_name": solver.class_name()}).to_string();
        let config = SchedulerConfig::from_json(&config).unwrap();
        for n in [0, usize::MAX] {
            assert!(config.table(n, &StepOptions::default()).is_err(), "{solver}: {n}");
        }
    }
}

#[test]
fn all_timesteps_of_training_are_visited_where_an_offset_has_no_room() {
    let all: Vec<f64> = (0..1000).rev().map(f64::from).collect();
    let default = StepOptions::default();
    for (class, keys) in [("DDPM", json!({})), ("DDIM", json!({})), ("PNDM", json!({"skip_prk_steps": true}))] {
        let config = |offset: i64| {
            let mut keys = keys.clone();
            keys["steps_offset"] = offset.into();
            scheduler(class, keys).unwrap()
        };
        let mut table = config(1).table(1000, &default).unwrap();
        let mut visited = table.timesteps.clone();
        visited.dedup();
        assert_eq!(visited, all, "{class}");
        let warning = table.warning.take().unwrap();
        assert!(warning.contains("1000 steps") && warning.contains("999 to 0"), "{class}: {warning}");
        assert_eq!(table, config(0).table(1000, &default).unwrap(), "{class}");
        // Where there is room, the offset is whole and nothing is said.
        let table = config(1).table(999, &default).unwrap();
        assert_eq!((table.timesteps[0], table.timesteps.last(), table.warning), (999.0, Some(&1.0), None), "{class}");
        // What a run from a picture leaves out need not fit.
        let late = StepOptions { begin_index: 980, ..default.clone() };
        let late = config(1).table(1000, &late).unwrap();
        assert_eq!((late.timesteps.last(), late.warning), (Some(&1.0), None), "{class}");
        // As much as fits.
        assert_eq!(config(600).table(2, &default).unwrap().timesteps[0], 999.0, "{class}");
    }
}

#[test]
fn an_error_says_why_a_coefficient_is_not_finite() {
    let error = |class: &str, keys: Value, n: usize| {
        let error = scheduler(class, keys).unwrap().table(n, &StepOptions::default()).unwrap_err();
        assert!(matches!(error, Error::NotFinite { .. }), "{error}");
        error.to_string()
    };
    // Zero terminal SNR leaves no signal at the last timestep; ε alone does not tell x_0 there.
    let zero = json!({"rescale_betas_zero_snr": true, "timestep_spacing": "trailing", "clip_sample": false});
    let message = error("DDPM", zero, 10);
    assert!(message.contains("step 0") && message.contains("signal or noise level of zero"), "{message}");
    let message = error("DPMSolverMultistep", json!({}), 1000);
    assert!(message.contains("timestep 500 is visited twice") && message.contains("fewer steps"), "{message}");
    let leading = json!({"timestep_spacing": "leading", "steps_offset": 1});
    let message = error("DPMSolverMultistep", leading, 999);
    assert!(message.contains("timesteps 1000 and 999 are one noise level"), "{message}");
}

#[test]
fn only_the_steps_that_a_run_makes_are_judged() {
    let zero = json!({"rescale_betas_zero_snr": true, "timestep_spacing": "trailing", "clip_sample": false});
    let config = scheduler("DDIM", zero).unwrap();
    let table = |begin_index| config.table(10, &StepOptions { begin_index, ..StepOptions::default() });
    assert!(table(0).is_err());
    assert_eq!(table(1).unwrap().steps.len(), 9);
    let below = StepOptions { start_timestep: Some(998), ..StepOptions::default() };
    assert_eq!(config.table(10, &below).unwrap().steps.len(), 10);
}

/// Configs that differ in how many steps their solvers take.
fn configs_of_all_kinds(num_train_timesteps: usize) -> Vec<SchedulerConfig> {
    let sd = json!({"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"});
    let zero_snr = json!({"rescale_betas_zero_snr": true, "timestep_spacing": "trailing"});
    [
        ("PNDM", json!({"skip_prk_steps": true, "steps_offset": 1})),
        ("PNDM", json!({"skip_prk_steps": false})),
        ("DDPM", json!({"beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction"})),
        ("DDIM", zero_snr.clone()),
        ("DDIM", json!({"prediction_type": "v_prediction", "clip_sample": false, "rescale_betas_zero_snr": true})),
        ("EulerDiscrete", json!({"timestep_spacing": "leading", "steps_offset": 1})),
        ("EulerDiscrete", json!({"timestep_spacing": "trailing", "use_karras_sigmas": true})),
        ("DPMSolverMultistep", json!({"use_exponential_sigmas": true, "algorithm_type": "sde-dpmsolver++"})),
        ("DPMSolverMultistep", json!({"solver_order": 3, "final_sigmas_type": "sigma_min"})),
        ("LCM", json!({"original_inference_steps": 10})),
        ("FlowMatchEulerDiscrete", json!({"shift": 3.0})),
        ("FlowMatchEulerDiscrete", json!({"use_dynamic_shifting": true})),
    ]
    .into_iter()
    .map(|(class, keys)| {
        let mut all = sd.clone();
        all.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
        all["num_train_timesteps"] = num_train_timesteps.into();
        scheduler(class, all).unwrap()
    })
    .collect()
}

#[test]
fn the_steps_that_a_solver_is_said_to_take_are_those_that_its_tables_take() {
    const T: usize = 60;
    for config in configs_of_all_kinds(T) {
        let said = config.solver_steps();
        for solver in Solver::ALL {
            let name = format!("{}: {solver}", config.class_name());
            let steps = said.iter().find(|(said, _)| *said == solver).map(|(_, steps)| steps.clone());
            let (least, most) = steps.map_or((1, 0), |steps| (*steps.start(), *steps.end()));
            let (mut refused_within, mut taken_without) = (Vec::new(), Vec::new());
            for n in 1..=T {
                let is_within = (least..=most).contains(&n);
                match config.swap_to(solver).and_then(|config| config.table(n, &StepOptions::default())) {
                    Ok(_) if !is_within => taken_without.push(n),
                    Err(error) if is_within => {
                        // Rounding puts two timesteps at one level for single numbers of steps, and the error says so.
                        assert!(error.to_string().contains("one noise level"), "{name}, {n} steps: {error}");
                        refused_within.push(n);
                    }
                    _ => {}
                }
            }
            assert!(taken_without.is_empty(), "{name} takes {least} to {most}, and {taken_without:?}");
            assert!(refused_within.iter().all(|&n| n != least && n != most), "{name}: {refused_within:?}");
            assert!(refused_within.len() <= 4, "{name} takes {least} to {most}, not {refused_within:?}");
        }
    }
}

#[test]
fn a_model_of_a_thousand_timesteps_is_walked_in_as_many_steps_and_not_by_solvers_of_another_kind() {
    let emoji = fs::read_to_string("www/models/emoji64/scheduler/scheduler_config.json").unwrap();
    let emoji = SchedulerConfig::from_json(&emoji).unwrap().for_stable_diffusion_pipeline().unwrap();
    let steps = emoji.solver_steps();
    let of = |solver| steps.iter().find(|(of, _)| *of == solver).map(|(_, steps)| steps.clone());
    for solver in [Solver::Ddpm, Solver::Ddim, Solver::Pndm, Solver::Euler, Solver::EulerAncestral, Solver::Heun] {
        assert_eq!(of(solver).map(|steps| *steps.end()), Some(1000), "{solver}");
    }
    // With an offset of 1, the 999th step of "leading" spacing would begin past the end.
    assert_eq!((of(Solver::Lcm), of(Solver::Dpmpp2m)), (Some(1..=50), Some(1..=998)));
    assert_eq!(of(Solver::FlowEuler), None);
    let flow = scheduler("FlowMatchEulerDiscrete", json!({})).unwrap().solver_steps();
    assert_eq!(flow, [(Solver::FlowEuler, 1..=1000)]);
}

#[test]
fn solvers_are_known_by_the_names_that_people_have_for_them() {
    let karras = SolverKeys { use_karras_sigmas: Some(true), ..SolverKeys::default() };
    let sde = SolverKeys { algorithm_type: Some("sde-dpmsolver++".into()), ..SolverKeys::default() };
    for (name, solver, keys) in [
        ("dpmpp_2m", Solver::Dpmpp2m, SolverKeys::default()),
        ("DPM++ 2M", Solver::Dpmpp2m, SolverKeys::default()),
        ("DPM++ 2M Karras", Solver::Dpmpp2m, karras.clone()),
        ("dpmpp_2m_karras", Solver::Dpmpp2m, karras.clone()),
        ("dpmpp_2m_k", Solver::Dpmpp2m, karras.clone()),
        ("DPM++ 2M SDE", Solver::Dpmpp2m, sde.clone()),
        ("dpmpp_2m_sde", Solver::Dpmpp2m, sde.clone()),
        ("DPM++ 2M SDE Karras", Solver::Dpmpp2m, sde.clone().or(karras.clone())),
        (
            "DPM++ 3M SDE Exponential",
            Solver::Dpmpp2m,
            SolverKeys { use_exponential_sigmas: Some(true), solver_order: Some(3), ..sde.clone() },
        ),
        ("DPM++ 2S Beta", Solver::Dpmpp2s, SolverKeys { use_beta_sigmas: Some(true), ..SolverKeys::default() }),
        ("Euler a", Solver::EulerAncestral, SolverKeys::default()),
        ("euler_a", Solver::EulerAncestral, SolverKeys::default()),
        ("LMS Karras", Solver::Lms, karras.clone()),
        ("DPM2 a Karras", Solver::Dpm2Ancestral, karras),
        ("dpm2_a", Solver::Dpm2Ancestral, SolverKeys::default()),
        ("dpm_2_ancestral", Solver::Dpm2Ancestral, SolverKeys::default()),
        ("PLMS", Solver::Pndm, SolverKeys::default()),
        ("UniPC", Solver::UniPc, SolverKeys::default()),
        ("DPMSolverMultistepScheduler", Solver::Dpmpp2m, SolverKeys::default()),
    ] {
        assert_eq!(name.parse(), Ok(SolverName { solver, keys }), "{name}");
    }
    for solver in Solver::ALL {
        assert_eq!(solver.name().parse(), Ok(SolverName { solver, keys: SolverKeys::default() }));
    }
    for (name, parts) in [
        ("DPM++ SDE Karras", ["Brownian", "DPM++ 2M SDE"]),
        ("DPM++ 2S a", ["fresh noise", "dpmpp_2s"]),
        ("DPM adaptive", ["number of steps", "dpmpp_2m"]),
        ("dpmpp_4m", ["euler_ancestral", "DPM++ 2M SDE Karras"]),
    ] {
        let error = name.parse::<SolverName>().unwrap_err().to_string();
        assert!(error.contains(name) && parts.into_iter().all(|part| error.contains(part)), "{error}");
    }
}

/// Types, page and README name the solvers themselves. Each list lies between two texts, and each name in it between two others.
#[test]
fn every_list_of_solvers_has_all_of_them() {
    for (file, list, name) in [
        ("js/index.d.ts", ["export type Solver =", ";"], ["\"", "\""]),
        ("www/index.html", ["<select id=\"solver\" data-option=\"solver\">", "</select>"], ["<option value=\"", "\""]),
        ("www/solvers.js", ["const SOLVERS = {", "\n};"], ["\n  ", ":"]),
        ("README.md", ["| solvers | all ", ", with the keys"], ["`", "`"]),
    ] {
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
        let whole = text.split_once(list[0]).and_then(|(_, rest)| rest.split_once(list[1]));
        let (whole, _) = whole.unwrap_or_else(|| panic!("{file} has no list of solvers"));
        let names = whole.split(name[0]).map(|rest| rest.split_once(name[1]).map_or(rest, |(name, _)| name));
        let is_name = |name: &&str| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        let mut names: Vec<&str> = names.filter(is_name).collect();
        names.sort();
        let mut all = Solver::ALL.map(Solver::name);
        all.sort();
        assert_eq!(names, all, "{file}");
        if file == "www/solvers.js" {
            let unnamed =
                Solver::ALL.into_iter().find(|solver| !text.contains(&format!("\"{}\"", solver.class_name())));
            assert_eq!(unnamed, None, "{file} does not name its class");
        }
    }
}

#[test]
fn settings_of_a_solver_take_the_place_of_the_config_s_own() {
    let stored = scheduler("DPMSolverMultistep", json!({"use_exponential_sigmas": true, "solver_order": 1})).unwrap();
    let with = |keys: SolverKeys| stored.with_keys(&keys);
    let default = SolverKeys::default();
    assert_eq!(with(default.clone()), Ok(stored.clone()));
    // One spacing of σ takes the place of another.
    assert_eq!(
        with(SolverKeys { use_karras_sigmas: Some(true), solver_order: Some(3), ..default.clone() }),
        scheduler("DPMSolverMultistep", json!({"use_karras_sigmas": true, "solver_order": 3})),
    );
    assert_eq!(
        with(SolverKeys { use_exponential_sigmas: Some(false), ..default.clone() }),
        scheduler("DPMSolverMultistep", json!({"use_exponential_sigmas": false, "solver_order": 1})),
    );
    let sde = SolverKeys { algorithm_type: Some("sde-dpmsolver++".into()), ..default.clone() };
    let noisy = with(sde.clone()).unwrap().table(4, &StepOptions::default()).unwrap();
    assert!(noisy.steps.iter().all(|step| step.draws_noise));
    // What was asked for is at fault, and not the file.
    let error = with(SolverKeys { algorithm_type: Some("sde".into()), ..default.clone() }).unwrap_err();
    assert!(matches!(&error, Error::Option { option: "algorithm_type", .. }), "{error}");
    assert!(error.to_string().contains("sde-dpmsolver++"), "{error}");
    // A spacing that is asked for takes the place of the one that a name brings.
    let named = "DPM++ 2M Karras".parse::<SolverName>().unwrap().keys;
    let beta = SolverKeys { use_beta_sigmas: Some(true), ..default };
    assert_eq!(beta.clone().or(named.clone()), beta);
    assert_eq!(named.clone().or(SolverKeys { solver_order: Some(3), ..beta }).use_beta_sigmas, None);
    let error = stored.swap_to(Solver::Euler).unwrap().with_keys(&sde).unwrap_err().to_string();
    assert!(error.contains("algorithm_type") && error.contains("dpmpp_2m, dpmpp_2s"), "{error}");
}

/// A draw from the stream of the recorded walks: as of `recipes/schedulers/walks.py`.
fn wave(index: usize, len: usize) -> Vec<f32> {
    (index * len..(index + 1) * len).map(|place| (1.5 * (12.9898 * place as f64 + 1.0).sin()) as f32).collect()
}

#[test]
fn walks_are_those_of_diffusers_step_by_step() {
    let walks: Vec<Value> = serde_json::from_slice(&read(Path::new("tests/schedulers/walks.json"))).unwrap();
    assert_eq!(walks.len(), 17);
    for walk in walks {
        let name = walk["name"].as_str().unwrap();
        let mut keys = walk["keys"].clone();
        keys["_class_name"] = walk["class"].clone();
        let config = SchedulerConfig::from_json(&keys.to_string()).unwrap();
        let begin_index = walk["begin_index"].as_u64().unwrap() as usize;
        let timesteps = walk["custom_timesteps"].as_array().map(|_| numbers(&walk["custom_timesteps"]));
        let strength = walk["strength"].as_f64().unwrap_or(1.0);
        let eta = walk["eta"].as_f64().unwrap_or_default();
        let options = StepOptions { begin_index, timesteps, strength, eta, ..StepOptions::default() };
        let table = config.table(walk["steps"].as_u64().unwrap() as usize, &options).unwrap();
        let looked_up = timestep_tolerance(&config, &walk["keys"], false);
        // Where little is left of σ_down in f32, its last place is a part in ten thousand, and that of the midpoint's timestep likewise.
        let rounding = if config.solver() == Some(Solver::Dpm2Ancestral) { 1e-3 } else { 0.0 };
        let tolerance = |timestep: f64| looked_up(timestep).max(rounding);
        assert_close(&format!("{name}: timesteps"), &table.timesteps, &numbers(&walk["timesteps"]), tolerance);
        if !table.sigmas.is_empty() {
            assert_close(&format!("{name}: sigmas"), &table.sigmas, &numbers(&walk["sigmas"]), |sigma| 2e-6 * sigma);
        }
        let mut x = to_f32(&numbers(&walk["initial"]));
        let (len, mut draws, mut history) = (x.len(), 1.., zero_history(x.len()));
        let after = walk["after_step"].as_array().unwrap();
        assert_eq!(table.steps.len(), after.len(), "{name}");
        for (i, (step, expected)) in table.steps.iter().zip(after).enumerate() {
            let output = stand_in("bounded", &scaled(&x, step.input_scale), step.timestep, 2, 4);
            let noise = step.draws_noise.then(|| wave(draws.next().unwrap(), len));
            x = step.apply(&x, &output, noise.as_deref(), &mut history, len).unwrap().prev_sample;
            let expected = numbers(expected);
            let tolerance = 2e-5 * max_abs(&expected);
            assert_close(&format!("{name}: after step {i}"), &x, &expected, |_| tolerance);
        }
    }
}

#[test]
fn a_step_refuses_tensors_that_do_not_fit() {
    let table = ddpm(json!({})).unwrap().table(2, &StepOptions::default()).unwrap();
    let mut history = zero_history(4);
    let step = &table.steps[0];
    assert!(step.apply(&[0.0; 4], &[0.0; 3], Some(&[0.0; 4]), &mut history, 4).is_err());
    assert!(step.apply(&[0.0; 4], &[0.0; 4], None, &mut history, 4).is_err());
    assert!(step.apply(&[0.0; 4], &[0.0; 4], Some(&[0.0; 4]), &mut history, 3).is_err());
    assert!(step.apply(&[0.0; 4], &[0.0; 4], Some(&[0.0; 4]), &mut history, 4).is_ok());
}

#[test]
fn a_table_reads_as_one_line_for_each_step() {
    let table = ddpm(json!({})).unwrap().table(3, &StepOptions::default()).unwrap();
    let text = table.to_string();
    assert_eq!(text.lines().count(), 2 + 3, "{text}");
    assert!(text.lines().nth(2).unwrap().contains("666.000"), "{text}");
}

/// Every solver as a Stable Diffusion checkpoint or one of rectified flow would have it, with keys that change which timesteps it
/// visits.
fn every_solver() -> Vec<(String, SchedulerConfig)> {
    let mut configs = Vec::new();
    for solver in Solver::ALL {
        for keys in [
            json!({}),
            json!({"timestep_spacing": "leading", "steps_offset": 1, "skip_prk_steps": true}),
            json!({"timestep_spacing": "trailing", "prediction_type": "v_prediction", "solver_order": 3}),
            json!({"timestep_spacing": "linspace", "final_sigmas_type": "sigma_min", "shift": 3.0}),
            json!({"use_karras_sigmas": true, "timestep_spacing": "leading"}),
        ] {
            let mut config = keys.clone();
            config["_class_name"] = solver.class_name().into();
            let config = SchedulerConfig::from_json(&config.to_string()).unwrap();
            configs.push((format!("{solver} {keys}"), config));
        }
    }
    configs
}

/// The timesteps that a run of `n` steps visits, each once.
fn visited(config: &SchedulerConfig, n: usize) -> Vec<f64> {
    let calls = |config: &SchedulerConfig| config.table(n, &StepOptions::default()).unwrap().timesteps;
    match config.solver().unwrap() {
        // What is in between is not visited.
        Solver::Dpm2 | Solver::Dpm2Ancestral => calls(config).into_iter().step_by(2).collect(),
        Solver::Pndm => calls(&config.swap_to(Solver::Ddim).unwrap()),
        _ => {
            let mut calls = calls(config);
            calls.dedup();
            calls
        }
    }
}

/// The call of the network at which a step begins at the timestep that is the `position`th of those visited.
fn begin_index(name: &str, solver: Solver, position: usize) -> usize {
    match solver {
        Solver::Heun | Solver::Dpm2 | Solver::Dpm2Ancestral => 2 * position,
        // The second timestep twice: the first of these calls belongs to the step before.
        Solver::Pndm if name.contains("skip_prk") => position + usize::from(position > 0),
        // Four calls for each of the first three steps.
        Solver::Pndm => position + 3 * position.min(3),
        _ => position,
    }
}

fn from(timestep: usize) -> StepOptions {
    StepOptions { start_timestep: Some(timestep), ..Default::default() }
}

#[test]
fn every_solver_begins_at_a_timestep_that_it_visits_as_at_the_index_of_that_timestep() {
    let mut tally = Tally::default();
    for (name, config) in every_solver() {
        let solver = config.solver().unwrap();
        for (n, (position, t)) in
            [4, 7, 25, 48].into_iter().flat_map(|n| visited(&config, n).into_iter().enumerate().map(move |at| (n, at)))
        {
            // Where σ are spaced by a rule, the timestep that is told is not the one that has this σ.
            if t.fract() != 0.0 || name.contains("karras") {
                continue;
            }
            tally.run(config.class_name(), &format!("{name}, {n} steps, from {t}"), || {
                let begin_index = begin_index(&name, solver, position);
                let by_index = config.table(n, &StepOptions { begin_index, ..Default::default() }).unwrap();
                let by_timestep = config.table(n, &from(t as usize)).unwrap();
                assert_eq!(by_timestep, by_index);
                assert_eq!(by_timestep.steps[0].timestep, t);
            });
        }
    }
    tally.report("runs from a timestep that is visited");
}

#[test]
fn every_solver_begins_at_any_timestep_and_goes_on_with_those_that_it_visits_below() {
    let mut tally = Tally::default();
    for (name, config) in every_solver() {
        let solver = config.solver().unwrap();
        for (n, t) in [4, 7, 25].into_iter().flat_map(|n| [0, 1, 2, 37, 333, 500, 733, 998, 999].map(|t| (n, t))) {
            let usual = visited(&config, n);
            if usual.contains(&(t as f64)) {
                continue;
            }
            tally.run(config.class_name(), &format!("{name}, {n} steps, from {t}"), || {
                let table = config.table(n, &from(t)).unwrap();
                let at = config.noising_at(t).unwrap();
                let (first, last) = (&table.steps[0], &table.steps[table.steps.len() - 1]);
                assert_eq!((first.timestep, first.forward), (t as f64, at.forward));
                assert_eq!(first.input_scale, at.input_scale);
                assert_close(
                    "x0",
                    &[first.x0.sample / first.input_scale, first.x0.output],
                    &[at.x0.sample, at.x0.output],
                    |x0| 1e-6 * x0.abs().max(1.0),
                );
                let below: Vec<f64> = usual.into_iter().filter(|&usual| usual < t as f64).collect();
                let calls: Vec<f64> = table.steps.iter().map(|step| step.timestep).collect();
                let mut begun = calls.clone();
                if matches!(solver, Solver::Dpm2 | Solver::Dpm2Ancestral) {
                    begun = begun.into_iter().step_by(2).collect();
                }
                begun.dedup();
                match solver {
                    // With calls in between.
                    Solver::Pndm if below.len() >= 4 => {
                        assert!(below.iter().all(|below| begun.contains(below)), "{begun:?}, expected {below:?}");
                    }
                    _ => assert_eq!(begun[1..], below),
                }
                assert_eq!(last.timestep, below.last().copied().unwrap_or(t as f64));

                // A network that knows x_0: whatever the steps are, they lead there but for the noise of the smallest level.
                let (x0, epsilon) = (0.4f32, 1.2f32);
                let mut x = at.forward.add_noise(&[x0], &[epsilon]);
                let mut history = zero_history(1);
                for step in &table.steps {
                    let output = match step.x0.output {
                        0.0 => 0.0,
                        of_output => ((f64::from(x0) - step.x0.sample * f64::from(x[0])) / of_output) as f32,
                    };
                    x = step.apply(&x, &[output], Some(&[-0.7]), &mut history, 1).unwrap().prev_sample;
                }
                // PNDM counts on "leading" spacing.
                let is_off = solver == Solver::Pndm && (name.contains("trailing") || name.contains("linspace"));
                let smallest =
                    if solver == Solver::FlowEuler { 0.0 } else { config.noising_at(0).unwrap().forward.noise };
                let off = f64::from((x[0] - x0).abs());
                assert!(off < 1e-3 + 2.0 * smallest || is_off, "{off} from x_0");
            });
        }
    }
    tally.report("runs from a timestep that is not visited");
}

#[test]
fn a_timestep_where_no_run_can_begin_is_refused_by_name() {
    let refusal = |class: &str, keys: Value, options: StepOptions| {
        scheduler(class, keys).unwrap().table(10, &options).unwrap_err().to_string()
    };
    assert_eq!(
        refusal("DDIM", json!({}), from(1000)),
        "`start_timestep` is 1000: the timesteps of this schedule are 0 to 999"
    );
    let flow = scheduler("FlowMatchEulerDiscrete", json!({})).unwrap();
    assert_eq!(flow.table(10, &from(1000)).unwrap().steps[0].forward, Noising { signal: 0.0, noise: 1.0 });
    assert!(flow.table(10, &from(1001)).unwrap_err().to_string().contains("are 0 to 1000"));
    let error = refusal("FlowMatchEulerDiscrete", json!({"invert_sigmas": true}), from(500));
    assert!(error.contains("start_timestep") && error.contains("invert_sigmas"), "{error}");
    let error = refusal("EulerDiscrete", json!({"interpolation_type": "log_linear"}), from(500));
    assert!(error.contains("start_timestep") && error.contains("log_linear"), "{error}");
    let error = refusal("DDIM", json!({}), StepOptions { begin_index: 2, ..from(500) });
    assert!(error.contains("start_timestep") && error.contains("begin_index"), "{error}");
    let error = refusal("DDIM", json!({"rescale_betas_zero_snr": true, "clip_sample": false}), from(999));
    assert!(error.contains("not finite") && error.contains("timestep 999"), "{error}");
}

#[test]
fn a_distilled_run_from_a_timestep_is_that_of_the_strength_that_ends_there() {
    let lcm = scheduler("LCM", json!({})).unwrap();
    for (start, strength) in [(999, 1.0), (799, 0.8), (499, 0.5), (139, 0.15)] {
        let timesteps = Some(lcm.distilled_timesteps(start, 4, None).unwrap());
        let from = lcm.table(4, &StepOptions { timesteps, ..Default::default() }).unwrap();
        assert_eq!(from, lcm.table(4, &StepOptions { strength, ..Default::default() }).unwrap(), "from {start}");
    }
    // Between the distilled ones it takes the place of the highest below it, and there are never more than there are.
    assert_eq!(lcm.distilled_timesteps(505, 4, None).unwrap(), [505.0, 379.0, 259.0, 139.0]);
    assert_eq!(lcm.distilled_timesteps(45, 4, None).unwrap(), [45.0, 19.0]);
    assert_eq!(lcm.distilled_timesteps(3, 4, None).unwrap(), [3.0]);
    assert!(lcm.distilled_timesteps(1000, 4, None).unwrap_err().to_string().contains("0 to 999"));
}

#[test]
fn noise_and_picture_are_read_off_the_output_whatever_it_predicts() {
    let (x0, epsilon) = (0.3, -1.1);
    for (class, keys) in [
        ("DDPM", json!({"prediction_type": "epsilon"})),
        ("DDIM", json!({"prediction_type": "v_prediction", "rescale_betas_zero_snr": true})),
        ("DDPM", json!({"prediction_type": "sample"})),
        ("EulerDiscrete", json!({"prediction_type": "epsilon"})),
        ("EulerDiscrete", json!({"prediction_type": "v_prediction"})),
        ("HeunDiscrete", json!({"prediction_type": "sample"})),
        ("DPMSolverMultistep", json!({"prediction_type": "v_prediction"})),
        ("UniPCMultistep", json!({"prediction_type": "flow_prediction", "use_flow_sigmas": true})),
        ("FlowMatchEulerDiscrete", json!({"prediction_type": "flow_prediction"})),
    ] {
        let config = scheduler(class, keys.clone()).unwrap();
        for timestep in [1, 400, 998, 999] {
            let at = config.noising_at(timestep).unwrap();
            let (signal, noise) = (at.forward.signal * at.input_scale, at.forward.noise * at.input_scale);
            let output = match keys["prediction_type"].as_str().unwrap() {
                "epsilon" => epsilon,
                "sample" => x0,
                "v_prediction" => signal * epsilon - noise * x0,
                _ => epsilon - x0,
            };
            let seen = signal * x0 + noise * epsilon;
            let read = |reading: Reading| reading.sample * seen + reading.output * output;
            assert!((read(at.x0) - x0).abs() < 1e-6, "{class} {keys}, t = {timestep}: x̂_0 is {}", read(at.x0));
            assert!(
                (read(at.epsilon) - epsilon).abs() < 1e-6,
                "{class} {keys}, t = {timestep}: ε̂ is {}",
                read(at.epsilon)
            );
        }
    }
}

/// Keys of any class with values of any kind, more often plausible than not.
fn any_config() -> impl Strategy<Value = Value> {
    let class = prop::sample::select(Solver::ALL.map(Solver::class_name).to_vec());
    let key = prop::sample::select(vec![
        "num_train_timesteps",
        "beta_start",
        "beta_end",
        "beta_schedule",
        "trained_betas",
        "prediction_type",
        "timestep_spacing",
        "steps_offset",
        "rescale_betas_zero_snr",
        "clip_sample",
        "clip_sample_range",
        "thresholding",
        "dynamic_thresholding_ratio",
        "sample_max_value",
        "variance_type",
        "set_alpha_to_one",
        "use_karras_sigmas",
        "use_exponential_sigmas",
        "use_beta_sigmas",
        "use_lu_lambdas",
        "use_flow_sigmas",
        "interpolation_type",
        "timestep_type",
        "sigma_min",
        "sigma_max",
        "final_sigmas_type",
        "solver_order",
        "algorithm_type",
        "solver_type",
        "lower_order_final",
        "euler_at_final",
        "lambda_min_clipped",
        "flow_shift",
        "skip_prk_steps",
        "original_inference_steps",
        "timestep_scaling",
        "predict_x0",
        "disable_corrector",
        "use_dynamic_shifting",
        "time_shift_type",
        "shift",
        "shift_terminal",
        "invert_sigmas",
        "stochastic_sampling",
    ]);
    let name = prop::sample::select(vec![
        "linear",
        "scaled_linear",
        "squaredcos_cap_v2",
        "sigmoid",
        "epsilon",
        "sample",
        "v_prediction",
        "flow_prediction",
        "linspace",
        "leading",
        "trailing",
        "fixed_large",
        "fixed_large_log",
        "learned_range",
        "exp",
        "bh1",
        "log_linear",
        "continuous",
        "sigma_min",
        "dpmsolver",
        "sde-dpmsolver++",
        "heun",
        "-Infinity",
        "NaN",
    ]);
    let value = prop_oneof![
        4 => name.prop_map(Value::from),
        4 => any::<bool>().prop_map(Value::from),
        4 => (0i64..50).prop_map(Value::from),
        2 => any::<i64>().prop_map(Value::from),
        4 => (0.0..1.0).prop_map(Value::from),
        2 => any::<f64>().prop_map(Value::from),
        1 => prop::collection::vec(any::<f64>(), 0..4).prop_map(Value::from),
        1 => Just(Value::Null),
    ];
    (class, prop::collection::hash_map(key, value, 0..8)).prop_map(|(class, keys)| {
        let mut config: serde_json::Map<_, _> = keys.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        config.insert("_class_name".to_owned(), class.into());
        config.into()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_the_parser_panic(text in ".*") {
        let _ = SchedulerConfig::from_json(&text);
    }

    #[test]
    fn no_config_gives_a_table_that_is_not_finite(
        config in any_config(),
        n in 1usize..40,
        begin_index in 0usize..4,
        eta in 0.0..1.0,
        s_churn in 0.0..20.0,
        mu in prop::option::of(-3.0..3.0),
        start_timestep in prop::option::of(0usize..1100),
    ) {
        let begin_index = if start_timestep.is_some() { 0 } else { begin_index };
        let options = StepOptions { begin_index, start_timestep, eta, s_churn, mu, ..Default::default() };
        let Ok(config) = SchedulerConfig::from_json(&config.to_string()) else { return Ok(()) };
        let Ok(table) = config.table(n, &options) else { return Ok(()) };
        prop_assert!(!table.steps.is_empty());
        // What comes before a run begins is not part of it.
        let json = serde_json::to_string(&table.steps).unwrap();
        // serde_json writes what is not finite as null.
        prop_assert!(!json.contains("null"), "{json}");
    }
}

#[test]
fn every_solver_is_found_by_its_name_and_no_other() {
    for solver in Solver::ALL {
        assert_eq!(solver.name().parse(), Ok(solver));
    }
    let error = "dpmpp_2m_sde".parse::<Solver>().unwrap_err();
    assert!(error.to_string().contains("dpmpp_2m"), "{error}");
}
