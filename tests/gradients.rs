//! Gradients against those of torch: of single ops, and of whole networks.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use crate::common::{Tally, folders, name_of, read_json, read_text, reference};
use pollster::block_on;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use undiffuse::device::{Device, Program, WeightLoader, Weights};
use undiffuse::diffusion::{NoiseSchedule, SchedulerConfig};
use undiffuse::graph::gradient::{Wrt, differentiate};
use undiffuse::graph::{
    Activation, Builder, Conv2dOptions, Error, Graph, NodeId, Padding, Pool2dOptions, Scope, TimestepEmbeddingOptions,
    fuse, optimiser,
};
use undiffuse::models::{
    AutoencoderKlConfig, ClipTextConfig, Unet2dConditionConfig, Unet2dConditionInputs, Unet2dConfig,
};
use undiffuse::training::{
    AdamW, Lora, LossWeights, Noised, autoencoder_loss, learned_words, mean_squared_error, noised, posterior_sample,
    token_embeddings, with_positions,
};
use undiffuse::twin;
use undiffuse::weights::Encoding;

/// A tensor in the precision of its file.
struct Tensor {
    shape: Vec<usize>,
    data: Vec<f64>,
}

fn read_tensors(path: &Path) -> BTreeMap<String, Tensor> {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let file = SafeTensors::deserialize(&bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let numbers = |dtype: Dtype, data: &[u8]| -> Vec<f64> {
        let words = |size: usize| data.chunks_exact(size);
        match dtype {
            Dtype::F64 => words(8).map(|word| f64::from_le_bytes(word.try_into().unwrap())).collect(),
            Dtype::F32 => words(4).map(|word| f32::from_le_bytes(word.try_into().unwrap()).into()).collect(),
            Dtype::I64 => words(8).map(|word| i64::from_le_bytes(word.try_into().unwrap()) as f64).collect(),
            other => panic!("{}: a tensor of {other:?}", path.display()),
        }
    };
    let tensors = file.tensors().into_iter();
    tensors.map(|(name, t)| (name, Tensor { shape: t.shape().to_vec(), data: numbers(t.dtype(), t.data()) })).collect()
}

/// The largest difference, or what is beyond `tolerance`.
fn compare(name: &str, found: &[f64], expected: &[f64], tolerance: f64) -> Result<f64, String> {
    if found.len() != expected.len() {
        return Err(format!("{name}: {} elements, expected {}", found.len(), expected.len()));
    }
    let differences = found.iter().zip(expected).map(|(found, expected)| (found - expected).abs());
    let worst =
        differences.enumerate().fold((0, 0.0), |worst, (i, d)| if d > worst.1 || d.is_nan() { (i, d) } else { worst });
    if worst.1 <= tolerance {
        return Ok(worst.1);
    }
    Err(format!("{name}[{}]: {}, expected {}, allowed {tolerance:e}", worst.0, found[worst.0], expected[worst.0]))
}

fn largest(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |largest: f64, value| largest.max(value.abs()))
}

/// A graph that is differentiated: what it computes, and the outputs that are compared, by the names of the reference.
struct Case<'a> {
    graph: Graph,
    weights: BTreeMap<String, &'a Tensor>,
    inputs: BTreeMap<String, &'a Tensor>,
    outputs: BTreeMap<String, &'a Tensor>,
}

impl Case<'_> {
    /// The outputs in f64.
    fn on_twin(&self) -> Result<BTreeMap<String, Vec<f64>>, String> {
        let weights = self.graph.weights().iter().map(|spec| self.weights[&spec.name].data.clone()).collect();
        let mut program = twin::Program::new(&self.graph, weights).map_err(|e| e.to_string())?;
        for (name, tensor) in &self.inputs {
            program.write(name, &tensor.data).map_err(|e| e.to_string())?;
        }
        program.run();
        let read = |name: &String| Ok((name.clone(), program.read_f64(name).map_err(|e| e.to_string())?.to_vec()));
        self.outputs.keys().map(read).collect()
    }

    /// The outputs as a device computes them.
    fn on(&self, device: &Device) -> Result<BTreeMap<String, Vec<f64>>, String> {
        let narrow = |tensor: &Tensor| tensor.data.iter().map(|&value| value as f32).collect::<Vec<_>>();
        let run = || {
            let mut loader = WeightLoader::new(device, self.graph.weights())?;
            for (index, spec) in self.graph.weights().iter().enumerate() {
                let bytes: Vec<u8> =
                    narrow(self.weights[&spec.name]).iter().flat_map(|value| value.to_le_bytes()).collect();
                loader.put(index, Encoding::F32, &bytes)?;
            }
            let weights = block_on(loader.finish())?;
            let mut program = block_on(Program::compile(device, &self.graph, &[&weights]))?;
            for (name, tensor) in &self.inputs {
                program.write(name, &narrow(tensor))?;
            }
            block_on(program.run())?;
            let mut found = BTreeMap::new();
            for name in self.outputs.keys() {
                let values = block_on(program.read_f32(name))?;
                found.insert(name.clone(), values.into_iter().map(f64::from).collect());
            }
            Ok::<_, undiffuse::device::Error>(found)
        };
        run().map_err(|e| e.to_string())
    }

    fn check(&self, found: Result<BTreeMap<String, Vec<f64>>, String>, tolerance: f64) -> Result<f64, String> {
        let found = found?;
        let mut worst: f64 = 0.0;
        for (name, expected) in &self.outputs {
            worst = worst.max(compare(name, &found[name], &expected.data, tolerance * largest(&expected.data))?);
        }
        Ok(worst)
    }
}

/// The result of an op, whose operands are inputs and weights under the reference's names; `None` if there is no such op.
fn build(case: &Value, tensors: &BTreeMap<String, Tensor>, root: &Scope) -> Option<Result<NodeId, Error>> {
    let shape = |name: &str| &tensors[name].shape;
    let input = |name: &str| root.input(name, shape(&format!("in/{name}")));
    let number = |key: &str| case[key].as_u64().unwrap_or_default() as usize;
    let is_picture = case["layout"] == "NCHW";
    let x = || {
        let x = input("x")?;
        if is_picture { root.permute(x, &[0, 2, 3, 1]) } else { Ok(x) }
    };
    let activation = |name: &Value| match name.as_str() {
        Some("silu") => Some(Activation::Silu),
        Some("gelu") => Some(Activation::Gelu),
        Some("gelu_tanh") => Some(Activation::GeluTanh),
        Some("quick_gelu") => Some(Activation::QuickGelu),
        Some("mish") => Some(Activation::Mish),
        Some("relu") => Some(Activation::Relu),
        Some("tanh") => Some(Activation::Tanh),
        _ => None,
    };
    let made = || match case["op"].as_str().unwrap_or_default() {
        "conv2d" => {
            let weight = shape("in/weight");
            let padding = match &case["padding"] {
                Value::Array(_) => Padding::bottom_right(),
                padding => Padding::same(padding.as_u64().unwrap() as usize),
            };
            let (out_channels, kernel) = (weight[0], [weight[2], weight[3]]);
            let options = Conv2dOptions { out_channels, kernel, stride: number("stride"), padding, bias: true };
            root.conv2d(x()?, options).map(Some)
        }
        "linear" => root.linear(x()?, shape("in/weight")[0], tensors.contains_key("in/bias")).map(Some),
        "group_norm" => {
            let normed = root.group_norm(x()?, number("groups"), case["eps"].as_f64().unwrap() as f32)?;
            activation(&case["activation"]).map_or(Ok(normed), |activation| root.activate(normed, activation)).map(Some)
        }
        "layer_norm" => root.layer_norm(x()?, case["eps"].as_f64().unwrap() as f32).map(Some),
        "attention" => {
            let causal = case["causal"] == true;
            root.attention(input("q_")?, input("k_")?, input("v_")?, number("heads"), causal).map(Some)
        }
        "activate" => match activation(&case["activation"]) {
            Some(activation) => root.activate(x()?, activation).map(Some),
            None => Ok(None),
        },
        "geglu" => root.geglu(x()?).map(Some),
        "binary" if case["kind"] == "mul" => root.mul(input("a_")?, input("b_")?).map(Some),
        "binary" if case["kind"] == "add" => root.add(input("a_")?, input("b_")?).map(Some),
        "fan_out" => {
            let (a, b) = (input("a_")?, input("b_")?);
            root.add(root.mul(root.sub(a, b)?, a)?, a).map(Some)
        }
        "concat_slice" => {
            let both = root.concat(&[input("a_")?, input("b_")?], number("axis"))?;
            root.slice(both, number("axis"), number("start"), number("stop") - number("start")).map(Some)
        }
        "permute_reshape" => root.reshape(root.permute(x()?, &[0, 2, 3, 1])?, shape("out")).map(Some),
        "resize_nearest" => root.resize_nearest(x()?, shape("out")[2], shape("out")[3]).map(Some),
        "resize_bilinear" => root.resize_bilinear(x()?, shape("out")[2], shape("out")[3]).map(Some),
        "pool2d" => root.pool2d(x()?, Pool2dOptions::average(2, 2)).map(Some),
        "embedding" => {
            let table = shape("in/table");
            root.at("table").gather(input("ids")?, [table[0], table[1]]).map(Some)
        }
        "weighted_mse" => {
            let difference = root.sub(input("x")?, input("y")?)?;
            let weights = root.reshape(input("w_")?, &[shape("in/w_")[0], 1, 1, 1])?;
            let weighted = root.mul(root.mul(difference, difference)?, weights)?;
            let line = root.reshape(weighted, &[1, 1, tensors["in/x"].data.len(), 1])?;
            root.reshape(root.global_average(line)?, &[1]).map(Some)
        }
        _ => Ok(None),
    };
    match made() {
        Ok(Some(out)) if is_picture => Some(root.permute(out, &[0, 3, 1, 2])),
        Ok(out) => out.map(Ok),
        Err(error) => Some(Err(error)),
    }
}

/// The case with its gradients as outputs, differentiated as it is or after it was fused.
fn differentiated<'a>(case: &Value, tensors: &'a BTreeMap<String, Tensor>, fused: bool) -> Result<Case<'a>, String> {
    let builder = Builder::new();
    let root = builder.root();
    let out = build(case, tensors, &root).ok_or("no op of this name")?.map_err(|e| e.to_string())?;
    let loss = || {
        let product = root.mul(out, root.input("upstream", &tensors["upstream"].shape)?)?;
        root.reshape(root.sum(product, &vec![1; root.shape(out).len()])?, &[1])
    };
    root.output("loss", loss().map_err(|e| e.to_string())?);
    root.output("out", out);
    let mut graph = builder.finish();
    if fused {
        graph = fuse(&graph);
    }
    let own = |name: &str| if name == "table" { "table.weight".to_owned() } else { name.to_owned() };
    let names: Vec<&str> = tensors.keys().filter_map(|key| key.strip_prefix("grad/")).collect();
    let wrt = names.iter().map(|name| match graph.weight_id(&own(name)) {
        Some(id) => Ok(Wrt::Weight(id)),
        None => graph.input(name).map(Wrt::Node),
    });
    let wrt: Vec<Wrt> = wrt.collect::<Result<_, _>>().map_err(|e| e.to_string())?;
    let loss = graph.output("loss").map_err(|e| e.to_string())?;
    let (graph, gradients) = differentiate(graph, loss, &wrt).map_err(|e| e.to_string())?;
    let builder = Builder::resume(graph);
    for (name, gradient) in names.iter().zip(gradients) {
        builder.root().output(&format!("grad/{name}"), gradient);
    }
    let graph = builder.finish();
    let weights = graph.weights().iter().map(|spec| {
        let name = if spec.name == "table.weight" { "table" } else { &spec.name };
        (spec.name.clone(), &tensors[&format!("in/{name}")])
    });
    let weights = weights.collect();
    let inputs = graph.inputs().iter().map(|(name, _)| {
        (name.clone(), if name == "upstream" { &tensors["upstream"] } else { &tensors[&format!("in/{name}")] })
    });
    let inputs = inputs.collect();
    let compared = names.iter().map(|name| format!("grad/{name}")).chain(["out".to_owned()]);
    let outputs = compared.map(|name| (name.clone(), &tensors[&name])).collect();
    Ok(Case { graph, weights, inputs, outputs })
}

/// Checks every op of the reference as `check` does.
fn walk(what: &str, check: impl Fn(&Value, &Case) -> Result<f64, String>) {
    let folder = reference("training");
    let mut tensors: BTreeMap<String, BTreeMap<String, Tensor>> = BTreeMap::new();
    for (key, tensor) in read_tensors(&folder.join("ops.safetensors")) {
        let (case, name) = key.split_once('/').expect("<op>/<tensor>");
        tensors.entry(case.to_owned()).or_default().insert(name.to_owned(), tensor);
    }
    let mut tally = Tally::default();
    for case in read_json(&folder.join("ops.json"))["ops"].as_array().expect("a list of ops") {
        let name = case["name"].as_str().expect("a name");
        for fused in [false, true] {
            let result = differentiated(case, &tensors[name], fused).and_then(|built| check(case, &built));
            tally.check(&format!("{name}{}", if fused { ", fused" } else { "" }), result);
        }
    }
    tally.finish(what);
}

#[test]
fn every_op_gradient_of_the_reference_agrees_in_f64() {
    walk("gradients of ops in f64", |case, built| {
        // Where pixels are taken from is computed in f32 whatever else is in f64: by definition of the op.
        let tolerance = if case["op"] == "resize_bilinear" { 1e-6 } else { 1e-9 };
        built.check(built.on_twin(), tolerance)
    });
}

#[test]
fn every_op_gradient_of_the_reference_agrees_on_the_cpu() {
    walk("gradients of ops on the CPU", |_, built| built.check(built.on(&Device::cpu()), 2e-5));
}

/// The tensors of a case's folder: of its steps, and the weights of its networks under `unet.`, `text_encoder.` and `vae.`.
fn read_case(folder: &Path) -> BTreeMap<String, Tensor> {
    let mut tensors = read_tensors(&folder.join("steps.safetensors"));
    let networks = networks(folder);
    let adapters = folder.join("initial_adapters.safetensors");
    if adapters.exists() {
        tensors.extend(read_tensors(&adapters));
    }
    // Peft names parameters after the adapter that they are of.
    tensors = tensors.into_iter().map(|(name, tensor)| (name.replace(".default.", "."), tensor)).collect();
    for component in folders(&networks) {
        for file in ["diffusion_pytorch_model.safetensors", "model.safetensors"] {
            let path = component.join(file);
            if path.exists() {
                let prefixed = |(name, tensor)| (format!("{}.{name}", name_of(&component)), tensor);
                tensors.extend(read_tensors(&path).into_iter().map(prefixed));
            }
        }
    }
    // The word is a row of a table of its own. What it was before training is in a file of its own, too.
    let initial = folder.join("initial_row.json");
    tensors = tensors.into_iter().map(|(name, tensor)| (name.replace("/row", "/learned.weight"), tensor)).collect();
    if initial.exists() {
        let row = read_json(&initial)["row"]
            .as_array()
            .expect("a row")
            .iter()
            .map(|v| v.as_f64().expect("a number"))
            .collect();
        let row = Tensor { data: row, shape: tensors["step0/grad/learned.weight"].shape.clone() };
        tensors.insert("learned.weight".to_owned(), row);
    }
    tensors
}

/// Where the networks of the case in `folder` are: a learned word is one for those that adapters are trained for.
fn networks(folder: &Path) -> PathBuf {
    if folder.join("unet").exists() || folder.join("vae").exists() {
        folder.into()
    } else {
        folder.with_file_name("lora")
    }
}

/// A training step of a reference's case: the graph of its loss, and what its inputs are.
struct Objective {
    builder: Builder,
    loss: NodeId,
    inputs: BTreeMap<String, Tensor>,
}

/// The objective of the case in `folder`, on the data of its first step.
fn objective(folder: &Path, case: &Value, tensors: &BTreeMap<String, Tensor>) -> Result<Objective, String> {
    let folder = &networks(folder);
    // Adapters, where the networks themselves are frozen.
    let rank = case["rank"].as_u64().unwrap_or_default() as usize;
    let lora = Lora { rank, scale: case["alpha"].as_f64().unwrap_or_default() as f32 / rank as f32 };
    let insert = |scope: &Scope, graph: &Graph, bound: &[(&str, NodeId)]| {
        let is_adapted = |layer: &str| tensors.contains_key(&format!("{}.{layer}.lora_A.weight", scope.path()));
        lora.insert(scope, graph, bound, is_adapted)
    };
    let config = |component: &str| read_text(&folder.join(component).join("config.json"));
    let given = |name: &str| &tensors[&format!("step0/{name}")];
    let copy = |tensor: &Tensor| Tensor { shape: tensor.shape.clone(), data: tensor.data.clone() };
    let line = |data: Vec<f64>| Tensor { shape: vec![data.len()], data };
    let builder = Builder::new();
    let root = builder.root();
    let mut inputs = BTreeMap::new();
    let mut build = || -> Result<NodeId, Box<dyn std::error::Error>> {
        if folder.join("vae").exists() {
            let config = AutoencoderKlConfig::from_json(&config("vae"))?;
            let shape = &given("in/pixels").shape;
            inputs.insert("pixels".to_owned(), copy(given("in/pixels")));
            inputs.insert("posterior_noise".to_owned(), copy(given("in/posterior_noise")));
            let vae = root.at("vae");
            let pixels = root.input("pixels", shape)?;
            let encoder = config.encoder(shape[0], shape[2], shape[3])?;
            let moments = vae.insert(&encoder, &[(&encoder.inputs()[0].0, pixels)])?[0];
            let (latents, divergence) = posterior_sample(&root, moments)?;
            let sides = root.shape(latents);
            let decoder = config.decoder(sides[0], sides[2], sides[3])?;
            let reconstruction = vae.insert(&decoder, &[("latents", latents)])?[0];
            root.output("reconstruction", reconstruction);
            return Ok(autoencoder_loss(&root, reconstruction, pixels, divergence, [0.5, 1e-3])?);
        }
        let scheduler = |key: &str| {
            let mut keys = case[key].clone();
            keys["_class_name"] = "DDPMScheduler".into();
            SchedulerConfig::from_json(&keys.to_string())
        };
        let config_of = scheduler("scheduler")?;
        let (schedule, prediction) = (config_of.noise_schedule()?, config_of.prediction_type()?);
        let timesteps = &given("in/timesteps").data;
        let factors = |schedule: &NoiseSchedule, timesteps: &[f64]| -> [Tensor; 2] {
            let at = timesteps.iter().map(|&t| schedule.marginal(t as usize).expect("a timestep"));
            let (signal, noise) = at.map(|noising| (noising.signal, noising.noise)).unzip();
            [line(signal), line(noise)]
        };
        let [signal, noise] = factors(&schedule, timesteps);
        let weights = LossWeights { snr_gamma: case["snr_gamma"].as_f64() };
        let snr = |&t: &f64| schedule.snr(t as usize).expect("a timestep");
        let loss_weights: Vec<f64> = timesteps.iter().map(|t| weights.at(snr(t), prediction)).collect();
        if let Some(expected) = tensors.get("step0/out/loss_weights") {
            compare("loss_weights", &loss_weights, &expected.data, 1e-5 * largest(&expected.data))?;
        }
        inputs.insert("signal".to_owned(), signal);
        inputs.insert("noise".to_owned(), noise);
        inputs.insert("loss_weights".to_owned(), line(loss_weights));
        inputs.insert("timestep".to_owned(), line(timesteps.clone()));
        inputs.insert("epsilon".to_owned(), copy(given("in/noise")));
        inputs.insert("x0".to_owned(), copy(given("in/x0")));

        let shape = given("in/x0").shape.clone();
        let x0 = root.input("x0", &shape)?;
        let Noised { sample, target } = noised(&root, x0, prediction)?;
        root.output("noisy", sample);
        let unet = root.at("unet");
        let output = if folder.join("text_encoder").exists() {
            let text = root.at("text_encoder");
            let [batch, tokens] = given("in/input_ids").shape[..] else { return Err("ids of a batch".into()) };
            inputs.insert("input_ids".to_owned(), copy(given("in/input_ids")));
            inputs.insert("position_ids".to_owned(), line((0..tokens).map(|token| token as f64).collect()));
            let table = &tensors["text_encoder.embeddings.token_embedding.weight"].shape;
            let positions = tensors["text_encoder.embeddings.position_embedding.weight"].shape[0];
            let (of_tokens, of_positions) =
                (text.at("embeddings.token_embedding"), text.at("embeddings.position_embedding"));
            let mut embeddings = token_embeddings(&of_tokens, [batch, tokens], [table[0], table[1]])?;
            if let Some(token) = case["token"].as_f64() {
                let ids = &given("in/input_ids").data;
                let is_learned = ids.iter().map(|&id| f64::from(id == token)).collect();
                inputs.insert("is_learned".to_owned(), Tensor { shape: vec![batch, tokens], data: is_learned });
                let rows = vec![0.0; ids.len()];
                inputs.insert("learned_ids".to_owned(), Tensor { shape: vec![batch, tokens], data: rows });
                embeddings = learned_words(&root.at("learned"), embeddings, 1)?;
            }
            let embeddings = with_positions(&of_positions, embeddings, positions)?;
            let encoder = ClipTextConfig::from_json(&config("text_encoder"))?.graph_with_states(batch, tokens, &[])?;
            let states = insert(&text, &encoder, &[("inputs_embeds", embeddings)])?[0];
            root.output("hidden_states", states);
            let config = Unet2dConditionConfig::from_json(&config("unet"))?;
            let (height, width) = (shape[2], shape[3]);
            let network = config.graph(Unet2dConditionInputs { batch, height, width, tokens, timestep_cond: false })?;
            insert(&unet, &network, &[("sample", sample), ("encoder_hidden_states", states)])?[0]
        } else {
            let config = Unet2dConfig::from_json(&config("unet"))?;
            let network = config.graph(shape[0], shape[2], shape[3])?;
            match config.class_embedding() {
                None => unet.insert(&network, &[("sample", sample)])?[0],
                Some(table) => {
                    let levels = &given("in/noise_level").data;
                    let schedule = scheduler("low_res_scheduler")?.noise_schedule()?;
                    let [signal, noise] = factors(&schedule, levels);
                    inputs.insert("small.signal".to_owned(), signal);
                    inputs.insert("small.noise".to_owned(), noise);
                    inputs.insert("small.epsilon".to_owned(), copy(given("in/low_noise")));
                    inputs.insert("noise_level".to_owned(), line(levels.clone()));
                    // The picture scaled down, noised at a level of its own, and enlarged again.
                    let pixels = root.permute(x0, &[0, 2, 3, 1])?;
                    let small = root.pool2d(pixels, Pool2dOptions::average(2, 2))?;
                    let factor = |name| root.reshape(root.input(name, &[shape[0]])?, &[shape[0], 1, 1, 1]);
                    let epsilon = root.input("small.epsilon", &given("in/low_noise").shape)?;
                    let added = root.mul(root.permute(epsilon, &[0, 2, 3, 1])?, factor("small.noise")?)?;
                    let small = root.add(root.mul(small, factor("small.signal")?)?, added)?;
                    let large = root.resize_nearest(small, shape[2], shape[3])?;
                    root.output("small", root.permute(small, &[0, 3, 1, 2])?);
                    let both = root.concat(&[sample, root.permute(large, &[0, 3, 1, 2])?], 1)?;
                    let levels = root.input("noise_level", &[shape[0]])?;
                    let labels = unet.at("class_embedding").gather(levels, table)?;
                    unet.insert(&network, &[("sample", both), ("class_labels", labels)])?[0]
                }
            }
        };
        root.output("model_output", output);
        Ok(mean_squared_error(&root, output, target)?)
    };
    let loss = build().map_err(|e| e.to_string())?;
    Ok(Objective { builder, loss, inputs })
}

/// Checks every case of the reference, a folder with its `case.json` and its tensors, as `check` does.
fn walk_cases(what: &str, check: impl Fn(&Path, &Value, &BTreeMap<String, Tensor>) -> Result<f64, String>) {
    let mut tally = Tally::default();
    for folder in folders(&reference("training")) {
        let (name, case) = (name_of(&folder), read_json(&folder.join("case.json")));
        let tensors = read_case(&folder);
        if case.get("token").is_some() && !tensors.contains_key("learned.weight") {
            tally.skip(name, "the row before training is not recorded");
            continue;
        }
        tally.check(&name, check(&folder, &case, &tensors));
    }
    tally.finish(what);
}

/// Checks the first step of each case, as `run` computes it: what it computes on its way, its loss, its gradients and their norm.
fn walk_training(what: &str, run: impl Fn(&Case) -> Result<BTreeMap<String, Vec<f64>>, String>) {
    walk_cases(what, |folder, case, tensors| check_training(folder, case, tensors, &run));
}

fn check_training(
    folder: &Path,
    case: &Value,
    tensors: &BTreeMap<String, Tensor>,
    run: impl Fn(&Case) -> Result<BTreeMap<String, Vec<f64>>, String>,
) -> Result<f64, String> {
    let Objective { builder, loss, inputs } = objective(folder, case, tensors)?;
    builder.root().output("loss", loss);
    let graph = fuse(&builder.finish());
    let loss = graph.output("loss").map_err(|e| e.to_string())?;
    let names: Vec<&str> = tensors.keys().filter_map(|key| key.strip_prefix("step0/grad/")).collect();
    let unknown = |name: &&&str| graph.weight_id(name).is_none();
    if let Some(name) = names.iter().find(unknown) {
        return Err(format!("no weight is called `{name}`"));
    }
    let wrt: Vec<Wrt> = names.iter().filter_map(|name| graph.weight_id(name)).map(Wrt::Weight).collect();
    let (graph, gradients) = differentiate(graph, loss, &wrt).map_err(|e| e.to_string())?;
    let builder = Builder::resume(graph);
    for (name, gradient) in names.iter().zip(gradients) {
        builder.root().output(&format!("grad/{name}"), gradient);
    }
    let graph = builder.finish();
    let stored = |name: &str| tensors.get(name).ok_or_else(|| format!("no file has the weight `{name}`"));
    let weights = graph.weights().iter().map(|spec| Ok((spec.name.clone(), stored(&spec.name)?)));
    let weights = weights.collect::<Result<_, String>>()?;
    let first_loss = Tensor { shape: vec![1], data: vec![case["losses"][0].as_f64().ok_or("no losses")?] };
    let mut outputs: BTreeMap<String, &Tensor> = BTreeMap::from([("loss".to_owned(), &first_loss)]);
    for (key, tensor) in tensors {
        let name = key.strip_prefix("step0/").unwrap_or_default();
        let name = name.strip_prefix("out/").unwrap_or(name);
        if graph.output(name).is_ok() {
            outputs.insert(name.to_owned(), tensor);
        }
    }
    let inputs = inputs.iter().map(|(name, tensor)| (name.clone(), tensor)).collect();
    let built = Case { graph, weights, inputs, outputs };
    let found = run(&built)?;
    let is_gradient = |name: &str| name.starts_with("grad/");
    let recorded = || built.outputs.iter().filter(|(name, _)| is_gradient(name)).map(|(_, tensor)| &tensor.data);
    let norm =
        |values: &mut dyn Iterator<Item = &Vec<f64>>| values.flatten().map(|value| value * value).sum::<f64>().sqrt();
    let expected = case["grad_norms_before_clipping"][0].as_f64().ok_or("no norms")?;
    let mut all = found.iter().filter(|(name, _)| is_gradient(name)).map(|(_, values)| values);
    let of_all = norm(&mut all);
    compare("the norm of all gradients", &[of_all], &[expected], 1e-4 * expected)?;
    // torch clips in place, and so what was recorded is what it has left.
    let limit = case["max_grad_norm"].as_f64().ok_or("no limit")?;
    let left = (limit / (of_all + 1e-6)).min(1.0);
    compare("the norm of the recorded gradients", &[norm(&mut recorded())], &[left * expected], 1e-4 * expected)?;
    let largest_of_all = recorded().map(|values| largest(values)).fold(0.0, f64::max);
    let mut worst: f64 = 0.0;
    for (name, expected) in &built.outputs {
        let (found, of_tensor) = (&found[name], largest(&expected.data));
        let (found, tolerance) = match name.as_str() {
            "loss" => (found.clone(), 1e-5 * of_tensor),
            name if is_gradient(name) => {
                let clipped = found.iter().map(|value| left * value).collect();
                (clipped, (1e-4 * of_tensor).max(1e-6 * largest_of_all))
            }
            _ => (found.clone(), 1e-4),
        };
        worst = worst.max(compare(name, &found, &expected.data, tolerance)?);
    }
    Ok(worst)
}

#[test]
fn every_training_gradient_of_the_reference_agrees_in_f64() {
    walk_training("gradients of networks in f64", |case| case.on_twin());
}

#[test]
fn every_training_gradient_of_the_reference_agrees_on_the_cpu() {
    walk_training("gradients of networks on the CPU", |case| case.on(&Device::cpu()));
}

/// Checks what all steps of each case make of weights and averages: AdamW, clipping and EMA, on the device.
fn walk_steps(what: &str, run: impl Fn(&Training) -> Result<BTreeMap<String, Vec<f64>>, String>) {
    walk_cases(what, |folder, case, tensors| check_steps(folder, case, tensors, &run));
}

/// A training program: a step of it, the inputs of each step, and the outputs to read after all of them.
struct Training<'a> {
    graph: Graph,
    /// Weights and state, by the names of the graph.
    weights: BTreeMap<String, Vec<f64>>,
    steps: Vec<BTreeMap<String, Vec<f64>>>,
    losses: &'a [f64],
    read: Vec<String>,
}

impl Training<'_> {
    fn on_twin(&self) -> Result<BTreeMap<String, Vec<f64>>, String> {
        let weights = self.graph.weights().iter().map(|spec| self.weights[&spec.name].clone()).collect();
        let mut program = twin::Program::new(&self.graph, weights).map_err(|e| e.to_string())?;
        for (inputs, expected) in self.steps.iter().zip(self.losses) {
            for (name, values) in inputs {
                program.write(name, values).map_err(|e| e.to_string())?;
            }
            program.run();
            compare("loss", program.read_f64("loss").map_err(|e| e.to_string())?, &[*expected], 1e-5 * expected)?;
        }
        let read = |name: &String| Ok((name.clone(), program.read_f64(name).map_err(|e| e.to_string())?.to_vec()));
        self.read.iter().map(read).collect()
    }

    fn on(&self, device: &Device) -> Result<BTreeMap<String, Vec<f64>>, String> {
        let narrow = |values: &[f64]| values.iter().map(|&value| value as f32).collect::<Vec<_>>();
        let run = || -> Result<_, Box<dyn std::error::Error>> {
            let specs: Vec<_> = self.graph.weights().iter().map(|spec| spec.trained()).collect();
            let mut loader = WeightLoader::new(device, &specs)?;
            for (index, spec) in specs.iter().enumerate() {
                let bytes: Vec<u8> =
                    narrow(&self.weights[&spec.name]).iter().flat_map(|value| value.to_le_bytes()).collect();
                loader.put(index, Encoding::F32, &bytes)?;
            }
            let weights = block_on(loader.finish())?;
            let mut program = block_on(Program::compile(device, &self.graph, &[&weights]))?;
            for (inputs, expected) in self.steps.iter().zip(self.losses) {
                for (name, values) in inputs {
                    program.write(name, &narrow(values))?;
                }
                block_on(program.run())?;
                compare("loss", &[block_on(program.read_f32("loss"))?[0].into()], &[*expected], 1e-5 * expected)?;
            }
            let mut found = BTreeMap::new();
            for name in &self.read {
                let values = block_on(program.read_f32(name))?;
                found.insert(name.clone(), values.into_iter().map(f64::from).collect());
            }
            Ok(found)
        };
        run().map_err(|e| e.to_string())
    }
}

fn check_steps(
    folder: &Path,
    case: &Value,
    tensors: &BTreeMap<String, Tensor>,
    run: impl Fn(&Training) -> Result<BTreeMap<String, Vec<f64>>, String>,
) -> Result<f64, String> {
    let Objective { builder, loss, .. } = objective(folder, case, tensors)?;
    let text = |error: Error| error.to_string();
    builder.root().output("loss", loss);
    let graph = fuse(&builder.finish());
    let loss = graph.output("loss").map_err(text)?;
    let names: Vec<&str> = tensors.keys().filter_map(|key| key.strip_prefix("after/weight/")).collect();
    let ids: Vec<_> = names.iter().map(|name| graph.weight_id(name).ok_or(format!("no weight `{name}`"))).collect();
    let ids = ids.into_iter().collect::<Result<Vec<_>, _>>()?;
    let wrt: Vec<Wrt> = ids.iter().copied().map(Wrt::Weight).collect();
    let (graph, gradients) = differentiate(graph, loss, &wrt).map_err(text)?;
    let builder = Builder::resume(graph);
    let root = builder.root();
    let squares = root.sum_of_squares(&gradients).map_err(text)?;
    let coefficients = root.input("coefficients", &[optimiser::COEFFICIENTS]).map_err(text)?;
    let share = root.input("ema_share", &[1]).map_err(text)?;
    let mut read = Vec::new();
    for ((name, id), gradient) in names.iter().zip(ids).zip(gradients) {
        let stepped = root.adam_w(id, gradient, squares, coefficients).map_err(text)?;
        let averaged = root.ema(&format!("ema.{name}"), stepped, share).map_err(text)?;
        for (kind, node) in [("weight", stepped), ("ema", averaged)] {
            read.push(format!("after/{kind}/{name}"));
            root.output(&format!("after/{kind}/{name}"), node);
        }
    }
    let graph = builder.finish();
    let mut weights = BTreeMap::new();
    for spec in graph.weights() {
        let name = spec.name.strip_prefix("ema.").unwrap_or(&spec.name);
        let zeros = || vec![0.0; spec.shape.iter().product()];
        let is_moment = name.ends_with(".exp_avg") || name.ends_with(".exp_avg_sq");
        let values = if is_moment { zeros() } else { tensors[name].data.clone() };
        weights.insert(spec.name.clone(), values);
    }
    let number = |value: &Value| value.as_f64().ok_or(format!("{value} is no number"));
    let of = &case["optimizer"];
    let settings = AdamW {
        betas: [number(&of["betas"][0])?, number(&of["betas"][1])?],
        eps: number(&of["eps"])?,
        weight_decay: number(&of["weight_decay"])?,
        max_grad_norm: number(&case["max_grad_norm"])?,
    };
    let (rate, decay) = (number(&of["lr"])?, number(&case["ema_decay"])?);
    let losses: Vec<f64> =
        case["losses"].as_array().ok_or("no losses")?.iter().map(number).collect::<Result<_, _>>()?;
    let mut steps = Vec::new();
    for step in 0..losses.len() {
        // What `objective` knows as the first step.
        let prefix = format!("step{step}/in/");
        let mut given: BTreeMap<String, Tensor> = BTreeMap::new();
        for (key, tensor) in tensors {
            let name = match (key.strip_prefix(&prefix), key.starts_with("step")) {
                (Some(name), _) => format!("step0/in/{name}"),
                (None, true) => continue,
                (None, false) => key.clone(),
            };
            given.insert(name, Tensor { shape: tensor.shape.clone(), data: tensor.data.clone() });
        }
        let Objective { inputs, .. } = objective(folder, case, &given)?;
        let mut inputs: BTreeMap<String, Vec<f64>> = inputs.into_iter().map(|(name, t)| (name, t.data)).collect();
        let coefficients = settings.coefficients(NonZeroU32::MIN.saturating_add(step as u32), rate);
        inputs.insert("coefficients".to_owned(), coefficients.iter().copied().map(f64::from).collect());
        inputs.insert("ema_share".to_owned(), vec![1.0 - decay]);
        steps.push(inputs);
    }
    let found = run(&Training { graph, weights, steps, losses: &losses, read })?;
    // AdamW divides by the root of the second moment: where the gradient is rounding noise, the weight goes anywhere within its reach.
    let reach = 3.0 * rate * losses.len() as f64;
    let gradient_of = |name: &str| &tensors[&format!("step0/grad/{name}")].data;
    let largest_of_all = names.iter().map(|name| largest(gradient_of(name))).fold(0.0, f64::max);
    for name in names {
        let gradient = gradient_of(name);
        // All of a tensor may be noise: a bias of keys shifts all scores of a query alike.
        let least = (1e-4 * largest(gradient)).max(1e-6 * largest_of_all);
        for kind in ["weight", "ema"] {
            let key = format!("after/{kind}/{name}");
            for (i, (found, expected)) in found[&key].iter().zip(&tensors[&key].data).enumerate() {
                let allowed = if gradient[i].abs() > least { 2e-2 * rate } else { reach };
                if (found - expected).abs() > allowed || found.is_nan() {
                    return Err(format!("{key}[{i}]: {found}, expected {expected}, allowed {allowed:e}"));
                }
            }
        }
    }
    Ok(0.0)
}

#[test]
fn every_training_step_of_the_reference_ends_on_its_weights_in_f64() {
    walk_steps("training steps in f64", |training| training.on_twin());
}

#[test]
fn every_training_step_of_the_reference_ends_on_its_weights_on_the_cpu() {
    walk_steps("training steps on the CPU", |training| training.on(&Device::cpu()));
}

/// y = W x, learned to be `target` by one step a run: the program that trains, its weights, and one that only computes y.
fn regression(device: &Device, trained: bool) -> Result<(Weights, Program, Program), undiffuse::device::Error> {
    let network = |root: &Scope| root.at("layer").linear(root.input("x", &[3, 40])?, 33, false);
    let builder = Builder::new();
    let root = builder.root();
    let y = network(&root)?;
    let difference = root.sub(y, root.input("target", &[3, 33])?)?;
    let loss = root.reshape(root.sum(root.mul(difference, difference)?, &[1, 1])?, &[1])?;
    root.output("loss", loss);
    let graph = builder.finish();
    let weight = graph.weight_id("layer.weight").expect("a weight");
    let (graph, gradients) = differentiate(graph, loss, &[Wrt::Weight(weight)])?;
    let builder = Builder::resume(graph);
    let root = builder.root();
    let squares = root.sum_of_squares(&gradients)?;
    let coefficients = root.input("coefficients", &[optimiser::COEFFICIENTS])?;
    let stepped = root.adam_w(weight, gradients[0], squares, coefficients)?;
    root.output("stepped", root.reshape(stepped, &[33 * 40])?);
    let graph = builder.finish();
    let specs: Vec<_> =
        graph.weights().iter().map(|spec| if trained { spec.trained() } else { spec.clone() }).collect();
    let mut loader = WeightLoader::new(device, &specs)?;
    for (index, spec) in specs.iter().enumerate() {
        let at = |i: usize| if index == 0 { (i as f32 * 0.7).sin() } else { 0.0 };
        let bytes: Vec<u8> = (0..spec.shape.iter().product()).flat_map(|i| at(i).to_le_bytes()).collect();
        loader.put(index, Encoding::F32, &bytes)?;
    }
    let weights = block_on(loader.finish())?;
    let mut training = block_on(Program::compile(device, &graph, &[&weights]))?;
    training.write("x", &(0..120).map(|i| (i as f32 * 0.3).cos()).collect::<Vec<_>>())?;
    training.write("target", &[0.5; 99])?;
    training.write("coefficients", &AdamW::default().coefficients(NonZeroU32::MIN, 0.1))?;
    let builder = Builder::new();
    let y = network(&builder.root())?;
    builder.root().output("y", y);
    let mut computing = block_on(Program::compile(device, &builder.finish(), &[&weights]))?;
    computing.write("x", &(0..120).map(|i| (i as f32 * 0.3).cos()).collect::<Vec<_>>())?;
    Ok((weights, training, computing))
}

#[test]
fn what_is_learned_is_seen_by_other_programs_and_where_it_is_reshaped() {
    let (weights, mut training, mut computing) = regression(&Device::cpu(), true).unwrap();
    let loss = |training: &mut Program| {
        block_on(training.run()).unwrap();
        block_on(training.read_f32("loss")).unwrap()[0]
    };
    let y = |computing: &mut Program| {
        block_on(computing.run()).unwrap();
        block_on(computing.read_f32("y")).unwrap()
    };
    let of = |y: &[f32]| y.iter().map(|y| (y - 0.5) * (y - 0.5)).sum::<f32>();
    let first = loss(&mut training);
    assert!((of(&y(&mut computing)) - first).abs() < 1e-4 * first, "nobody has asked for the new weights yet");
    for _ in 0..20 {
        loss(&mut training);
    }
    weights.refresh().unwrap();
    let now = of(&y(&mut computing));
    let next = loss(&mut training);
    assert!((now - next).abs() < 1e-4 * next && next < first, "{now}, {next} after {first}");
    let stepped = block_on(training.read_f32("stepped")).unwrap();
    assert!(stepped.iter().all(|weight| weight.abs() < 10.0) && stepped.iter().any(|weight| *weight != 0.0));
}

#[test]
fn a_step_from_what_is_not_finite_is_refused_and_changes_no_weight() {
    let (weights, mut training, mut computing) = regression(&Device::cpu(), true).unwrap();
    let y = |computing: &mut Program| {
        weights.refresh().unwrap();
        block_on(computing.run()).unwrap();
        block_on(computing.read_f32("y")).unwrap()
    };
    let before = y(&mut computing);
    training.write("target", &[f32::NAN; 99]).unwrap();
    let error = block_on(training.run()).unwrap_err().to_string();
    assert!(error.contains("target"), "{error}");
    assert_eq!(y(&mut computing), before);
    training.write("target", &[0.5; 99]).unwrap();
    block_on(training.run()).unwrap();
    assert_ne!(y(&mut computing), before);
}

#[test]
fn what_was_not_loaded_to_be_trained_is_not_and_a_gpu_says_that_it_cannot() {
    let refused = |device: &Device, trained: bool| regression(device, trained).expect_err("a refusal").to_string();
    let error = refused(&Device::cpu(), false);
    assert!(error.contains("layer.weight") && error.contains("WeightSpec::trained"), "{error}");
    let error = refused(&crate::common::gpu(), false);
    assert!(error.contains("no kernel") || error.contains("to be trained"), "{error}");
}

#[test]
fn a_loss_without_a_gradient_is_refused_in_words() {
    let refused = |build: &dyn Fn(&Scope) -> Result<NodeId, Error>, wrt: &str| {
        let builder = Builder::new();
        let loss = build(&builder.root()).unwrap();
        let graph = builder.finish();
        let wrt = Wrt::Node(graph.input(wrt).unwrap());
        differentiate(graph, loss, &[wrt]).unwrap_err().to_string()
    };
    let several = refused(&|root| root.affine(root.input("x", &[2])?, 2.0, 0.0), "x");
    assert!(several.contains("one number") && several.contains("[2]"), "{several}");
    let elsewhere = refused(
        &|root| {
            root.input("x", &[1])?;
            root.affine(root.input("y", &[1])?, 2.0, 0.0)
        },
        "x",
    );
    assert!(elsewhere.contains("does not depend on `x`"), "{elsewhere}");
    let options = TimestepEmbeddingOptions { dim: 8, flip_sin_to_cos: true, downscale_freq_shift: 0.0, scale: 1.0 };
    let embedded = |root: &Scope| {
        let embedding = root.timestep_embedding(root.input("t", &[1])?, options)?;
        root.reshape(root.sum(embedding, &[1, 1])?, &[1])
    };
    let embedding = refused(&embedded, "t");
    assert!(embedding.contains("timestep_embedding") && embedding.contains("no gradient"), "{embedding}");
}
