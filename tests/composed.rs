//! Pipelines put together by hand from their networks, for what no recorded run covers: the same latents and pictures.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::common::{Tensor, max_abs, reference, worst_beyond};
use pollster::block_on;
use undiffuse::device::Device;
use undiffuse::diffusion::{Clip, HISTORY, Noising, SchedulerConfig, Solver, StepOptions, Table};
use undiffuse::noise::{Stream, TorchCpu, TorchCuda};
use undiffuse::pipeline::{
    Checkpoint, Component, ForwardOptions, LongPrompts, NamedTensor, OpenOptions, Pipeline, Preview, Rgba,
    SampleOptions, Sampler, Scheduler, Space,
};
use undiffuse::weights::DirectorySource;

type Tensors = BTreeMap<String, NamedTensor>;

fn tensor(shape: &[usize], data: Vec<f32>) -> NamedTensor {
    assert_eq!(shape.iter().product::<usize>(), data.len(), "{shape:?}");
    NamedTensor { shape: shape.to_vec(), data }
}

/// One network of a checkpoint, called once.
fn call(folder: &Path, inputs: &[(&str, NamedTensor)], output: &str) -> Vec<f32> {
    let network = block_on(Component::load(&DirectorySource::new(folder), Device::cpu(), None)).expect("a network");
    let inputs: Tensors = inputs.iter().map(|(name, tensor)| ((*name).to_owned(), tensor.clone())).collect();
    block_on(network.run(&inputs)).expect("a result").remove(output).expect(output).data
}

fn load(folder: &Path) -> Pipeline {
    let source = DirectorySource::new(folder);
    let load =
        async { Checkpoint::open(&source, &OpenOptions::default()).await?.load(Device::cpu(), &mut |_| {}).await };
    block_on(load).expect("the checkpoint loads")
}

fn models() -> PathBuf {
    reference("pipelines").join("models")
}

/// A picture with something in it.
fn picture(width: usize, height: usize) -> Rgba {
    let pixels = (0..4 * width * height).map(|i| ((i * i * 7 + i / 5) % 256) as u8).collect();
    Rgba { width, height, pixels }
}

/// `[3, height, width]` in −1..1.
fn planes(picture: &Rgba) -> Vec<f32> {
    let value = |c: usize| picture.pixels.chunks_exact(4).map(move |p| f32::from(p[c]) / 255.0 * 2.0 - 1.0);
    (0..3).flat_map(value).collect()
}

/// The reverse process by hand: `predict` is the guided output for x_t and a step's timestep.
fn walk(table: &Table, start: Vec<f32>, mut predict: impl FnMut(&[f32], f64) -> Vec<f32>) -> Vec<Vec<f32>> {
    let mut history: [Vec<f32>; HISTORY] = std::array::from_fn(|_| vec![0.0; start.len()]);
    let mut x = start;
    let mut all = Vec::new();
    for step in &table.steps {
        let scaled: Vec<f32> = x.iter().map(|v| v * step.input_scale as f32).collect();
        let output = predict(&scaled, step.timestep);
        x = step.apply(&x, &output, None, &mut history, x.len()).expect("a step without noise").prev_sample;
        all.push(x.clone());
    }
    all
}

/// The run's x_t after each step are `expected`.
fn assert_walks(sampler: &mut Sampler, expected: &[Vec<f32>]) {
    for (index, expected) in expected.iter().enumerate() {
        assert!(block_on(sampler.step()).expect("a step").is_some(), "there is no step {index}");
        let expected = Tensor { shape: sampler.latents_shape().to_vec(), data: expected.clone() };
        let actual = block_on(sampler.latents()).expect("latents");
        worst_beyond(&actual, &expected, 1e-4 * max_abs(&expected)).unwrap_or_else(|e| panic!("step {index}: {e}"));
    }
    assert!(block_on(sampler.step()).expect("the end").is_none(), "there are more steps");
}

fn guided(output: &[f32], scale: f32) -> Vec<f32> {
    let (negative, positive) = output.split_at(output.len() / 2);
    negative.iter().zip(positive).map(|(u, c)| u + scale * (c - u)).collect()
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        std::fs::copy(&path, to.join(path.file_name().expect("a name"))).expect("a copy");
    }
}

/// The checkpoint `model` of the reference with keys of one config changed.
fn changed(model: &str, config: &str, keys: &[(&str, serde_json::Value)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let from = models().join(model);
    for entry in std::fs::read_dir(&from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let to = folder.path().join(path.file_name().expect("a name"));
        match path.is_dir() {
            true => copy_folder(&path, &to),
            false => std::fs::write(&to, std::fs::read(&path).expect("a file")).expect("a copy"),
        }
    }
    let path = folder.path().join(config);
    let mut json: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).expect("a config")).expect("JSON");
    keys.iter().for_each(|(key, value)| json[*key] = value.clone());
    std::fs::write(&path, json.to_string()).expect("a config");
    folder
}

/// An upscaler out of parts of the reference that fit.
fn upscaler(folder: &Path) {
    copy_folder(&reference("models").join("unet_x4_upscaler_like"), &folder.join("unet"));
    for part in ["vae", "text_encoder", "tokenizer"] {
        copy_folder(&models().join("sdxl").join(part), &folder.join(part));
    }
    copy_folder(&models().join("sd2_v/scheduler"), &folder.join("scheduler"));
    copy_folder(&models().join("ddpm_uncond/scheduler"), &folder.join("low_res_scheduler"));
    let index = r#"{"_class_name": "StableDiffusionUpscalePipeline", "max_noise_level": 350,
        "text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"],
        "scheduler": ["diffusers", "DDIMScheduler"], "low_res_scheduler": ["diffusers", "DDPMScheduler"]}"#;
    std::fs::write(folder.join("model_index.json"), index).expect("an index");
}

#[test]
fn an_upscaler_sees_the_noised_picture_and_its_level_beside_x_t() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    upscaler(folder);
    let pipeline = load(folder);
    let given = picture(12, 8);
    let (level, seed, scale) = (7, 11, 4.0);
    let options = SampleOptions {
        prompt: "a cat".into(),
        negative_prompt: Some("a dog".into()),
        num_images_per_prompt: 2,
        seed,
        steps: 3,
        guidance_scale: scale,
        image: Some(given.clone()),
        noise_level: Some(level),
        preview: Preview::None,
        ..SampleOptions::default()
    };
    let mut sampler = block_on(pipeline.sampler(options)).expect("a run");
    assert_eq!(sampler.latents_shape(), [2, 4, 8, 12]);

    let (small, latents) = (3 * 8 * 12, 4 * 8 * 12);
    let mut random = TorchCpu::new(seed);
    let schedule = std::fs::read_to_string(folder.join("low_res_scheduler/scheduler_config.json")).expect("a config");
    let schedule =
        SchedulerConfig::from_json(&schedule).and_then(|config| config.noise_schedule()).expect("a schedule");
    let signal = schedule.alphas_cumprod[level];
    let noise = random.randn(small);
    let noised = planes(&given).into_iter().zip(noise).map(|(x, z)| signal.sqrt() * x + (1.0 - signal).sqrt() * z);
    let noised: Vec<f32> = noised.collect();
    let start = random.randn(2 * latents);

    let ids = ["a dog", "a dog", "a cat", "a cat"].map(|text| pipeline.tokenize(text).expect("ids")).concat();
    let ids = tensor(&[4, 77], ids.into_iter().map(|id| id as f32).collect());
    let states = call(&folder.join("text_encoder"), &[("input_ids", ids)], "last_hidden_state");
    let table = pipeline.scheduler().table(3, &StepOptions::default()).expect("a table");
    let expected = walk(&table, start, |x, timestep| {
        let rows = x.chunks_exact(latents).cycle().take(4).flat_map(|row| [row, &noised].concat()).collect();
        let inputs = [
            ("sample", tensor(&[4, 7, 8, 12], rows)),
            ("timestep", tensor(&[1], vec![timestep as f32])),
            ("encoder_hidden_states", tensor(&[4, 77, 16], states.clone())),
            ("class_labels", tensor(&[4], vec![level as f32; 4])),
        ];
        guided(&call(&folder.join("unet"), &inputs, "out"), scale as f32)
    });
    assert_walks(&mut sampler, &expected);

    let last = expected.last().expect("a step").iter().map(|x| x / 0.08333).collect();
    let decoded = call(&folder.join("vae"), &[("decode/in", tensor(&[2, 4, 8, 12], last))], "decode/out");
    let decoded = decoded.iter().map(|v| (v / 2.0 + 0.5).clamp(0.0, 1.0)).collect();
    let image = block_on(sampler.image()).expect("a picture");
    worst_beyond(&image, &Tensor { shape: vec![2, 3, 32, 48], data: decoded }, 1e-3).expect("the picture");
}

#[test]
fn an_upscaler_refuses_what_it_cannot_enlarge() {
    let folder = tempfile::tempdir().expect("a folder");
    upscaler(folder.path());
    let source = DirectorySource::new(folder.path());
    let checkpoint = block_on(Checkpoint::open(&source, &OpenOptions::default())).expect("the checkpoint opens");
    let usual = SampleOptions { image: Some(picture(8, 8)), noise_level: Some(19), ..SampleOptions::default() };
    checkpoint.check(&usual).expect("a picture is enlarged");
    for (options, expected) in [
        (SampleOptions::default(), "`image` is absent: this model enlarges a picture: give one"),
        (
            SampleOptions { mask: Some(picture(8, 8)), ..usual.clone() },
            "`mask` is given: a StableDiffusionUpscalePipeline takes no mask",
        ),
        (
            SampleOptions { width: Some(64), ..usual.clone() },
            "`width` is given: a StableDiffusionUpscalePipeline takes no size: it enlarges `image`",
        ),
        (
            SampleOptions { image: Some(picture(3, 8)), ..usual.clone() },
            "`image` is 3×8: expected sides from 4 to 2048",
        ),
        // The network knows 20 levels.
        (SampleOptions { noise_level: Some(20), ..usual.clone() }, "`noise_level` is 20: expected at most 19"),
        (
            SampleOptions { strength: Some(0.5), ..usual.clone() },
            "`strength` is given: a StableDiffusionUpscalePipeline takes no strength",
        ),
        (
            SampleOptions { start_timestep: Some(500), ..usual.clone() },
            "`start_timestep` is given: a StableDiffusionUpscalePipeline takes no timestep to begin at",
        ),
    ] {
        assert_eq!(checkpoint.check(&options).unwrap_err().to_string(), expected);
    }
    assert!(!checkpoint.info().takes_start_timestep);
    let pipeline = load(folder.path());
    let process =
        |space| block_on(pipeline.forward_process(ForwardOptions { space, ..ForwardOptions::new(picture(8, 9)) }));
    let error = process(Space::Latents).map(drop).unwrap_err().to_string();
    let expected =
        "`space` is latents: a StableDiffusionUpscalePipeline begins with noise and not with a picture; choose pixels";
    assert_eq!(error, expected);
    assert_eq!(process(Space::Pixels).expect("pixels").shape(), [1, 3, 9, 8]);
}

#[test]
fn a_long_prompt_in_chunks_is_seen_whole() {
    let folder = models().join("sd");
    let pipeline = load(&folder);
    let long = "a quick brown fox by the lighthouse, stormy sea, clouds ".repeat(6);
    let options = SampleOptions {
        prompt: long.as_str().into(),
        negative_prompt: Some("blurry".into()),
        steps: 2,
        guidance_scale: 3.0,
        long_prompts: LongPrompts::Chunks,
        preview: Preview::None,
        ..SampleOptions::default()
    };
    let mut sampler = block_on(pipeline.sampler(options.clone())).expect("a run");
    assert_eq!(sampler.warning(), None);

    // The words of each chunk, told from the first 75 tokens that fit and from what is then lost.
    let ids = |text: &str| pipeline.tokenize(text).expect("ids");
    let [bos, .., eos] = ids(&long)[..] else { panic!("77 tokens") };
    let (mut words, mut rest) = (Vec::new(), long.clone());
    while !rest.is_empty() {
        let end = rest.find(' ').map_or(rest.len(), |space| space + 1);
        let word = ids(&rest[..end]);
        words.extend(word[1..].iter().take_while(|&&id| id != eos));
        rest = rest.split_off(end);
    }
    let chunk = |words: &[u32]| {
        let mut ids = [&[bos], words, &[eos]].concat();
        ids.resize(77, eos);
        ids
    };
    let mut chunks: Vec<Vec<u32>> = words.chunks(75).map(chunk).collect();
    let count = chunks.len();
    assert!(count > 1, "the prompt is not long");
    let mut rows = vec![ids("blurry")];
    rows.resize(count, ids(""));
    rows.append(&mut chunks);
    let ids = tensor(&[2 * count, 77], rows.concat().into_iter().map(|id| id as f32).collect());
    let states = call(&folder.join("text_encoder"), &[("input_ids", ids)], "last_hidden_state");

    let table = pipeline.scheduler().table(2, &StepOptions::default()).expect("a table");
    let start = TorchCpu::new(0).randn(4 * 64);
    let expected = walk(&table, start, |x, timestep| {
        let inputs = [
            ("sample", tensor(&[2, 4, 8, 8], x.repeat(2))),
            ("timestep", tensor(&[1], vec![timestep as f32])),
            ("encoder_hidden_states", tensor(&[2, 77 * count, 24], states.clone())),
        ];
        guided(&call(&folder.join("unet"), &inputs, "out"), 3.0)
    });
    assert_walks(&mut sampler, &expected);

    let cut = SampleOptions { long_prompts: LongPrompts::Cut, ..options };
    let warning = block_on(pipeline.sampler(cut.clone())).expect("a run").warning().expect("a warning").to_owned();
    assert!(warning.starts_with("the prompt is too long for this model; it does not see: "), "{warning}");
    assert!(warning.ends_with("stormy sea , clouds"), "{warning}");
    // However long it is, the first and the last are said, and how many are between them.
    let longer = SampleOptions { prompt: long.repeat(2).into(), ..cut };
    let longer = block_on(pipeline.sampler(longer)).expect("a run").warning().expect("a warning").to_owned();
    let more = |warning: &str| -> usize {
        let (_, rest) = warning.split_once(" … and ").expect("an ellipsis");
        rest.split_once(" more, to … ").expect("a number").0.parse().expect("a number")
    };
    let words = "a quick brown fox by the lighthouse , stormy sea , clouds".split(' ').count();
    assert_eq!(more(&longer) - more(&warning), 6 * words);
    assert_eq!(longer.replace(&more(&longer).to_string(), &more(&warning).to_string()), warning);
}

#[test]
fn every_text_that_is_cut_is_named_with_the_words_it_loses() {
    let texts = |texts: [&str; 2]| texts.map(|word| format!("{}{word}", "a ".repeat(75))).to_vec();
    let options = SampleOptions {
        prompt: texts(["sea", "fox"]).into(),
        negative_prompt: Some(texts(["sea", "cat"]).into()),
        steps: 1,
        preview: Preview::None,
        ..SampleOptions::default()
    };
    // Both text encoders lose the same, which is said once.
    for model in ["sd", "sdxl"] {
        let sampler = block_on(load(&models().join(model)).sampler(options.clone())).expect("a run");
        let lost = |what: &str, word: &str| format!("the {what} is too long for this model; it does not see: {word}");
        let expected = [lost("prompt", "sea"), lost("prompt", "fox"), lost("negative prompt", "cat")].join("; ");
        assert_eq!(sampler.warning(), Some(&expected[..]), "{model}");
    }
}

#[test]
fn a_tokenizer_without_room_for_a_word_takes_no_prompt_in_chunks() {
    let folder = changed("sd", "tokenizer/tokenizer_config.json", &[("model_max_length", 2.into())]);
    let source = DirectorySource::new(folder.path());
    let checkpoint = block_on(Checkpoint::open(&source, &OpenOptions::default())).expect("the checkpoint opens");
    let options =
        SampleOptions { prompt: "a cat".into(), long_prompts: LongPrompts::Chunks, ..SampleOptions::default() };
    let error = checkpoint.check(&options).expect_err("no room").to_string();
    assert_eq!(error, "`long_prompts` is chunks: a chunk of 2 tokens has no room for a word; cut the prompt");
}

#[test]
fn an_autoencoder_of_no_pictures_is_refused_when_it_is_opened() {
    let folder = changed("sd", "vae/config.json", &[("out_channels", 4.into())]);
    let source = DirectorySource::new(folder.path());
    let error = block_on(Checkpoint::open(&source, &OpenOptions::default())).expect_err("four channels").to_string();
    assert_eq!(error, "vae/config.json: `out_channels` is 4: a picture has 1 or 3 channels");
}

#[test]
fn a_short_prompt_is_the_same_in_chunks() {
    let pipeline = load(&models().join("sdxl"));
    let run = |long_prompts| {
        let options = SampleOptions {
            prompt: "a cat".into(),
            steps: 2,
            long_prompts,
            preview: Preview::None,
            ..SampleOptions::default()
        };
        let mut sampler = block_on(pipeline.sampler(options)).expect("a run");
        while block_on(sampler.step()).expect("a step").is_some() {}
        block_on(sampler.latents()).expect("latents")
    };
    assert_eq!(run(LongPrompts::Cut), run(LongPrompts::Chunks));
}

#[test]
fn sdxl_begins_with_a_picture_where_its_strength_says() {
    let folder = models().join("sdxl");
    let pipeline = load(&folder);
    let given = picture(40, 32);
    let options = SampleOptions {
        prompt: "a cat".into(),
        seeds: vec![3, 4],
        num_images_per_prompt: 2,
        steps: 10,
        image: Some(given.clone()),
        preview: Preview::None,
        ..SampleOptions::default()
    };
    let sampler = block_on(pipeline.sampler(options.clone())).expect("a run");
    // 0.3 of 10 steps.
    assert_eq!(sampler.total(), 3);
    let moments =
        call(&folder.join("vae"), &[("encode/in", tensor(&[1, 3, 32, 40], planes(&given)))], "encode/moments");
    let (mean, logvar) = moments.split_at(moments.len() / 2);
    let Noising { signal, noise: level } = sampler.table().steps[0].forward;
    let mut expected = Vec::new();
    for seed in [3, 4] {
        let mut random = TorchCpu::new(seed);
        let (posterior, noise) = (random.randn(mean.len()), random.randn(mean.len()));
        for i in 0..mean.len() {
            let latent = 0.13025 * (mean[i] + (0.5 * logvar[i]).exp() * posterior[i]);
            expected.push(signal as f32 * latent + level as f32 * noise[i]);
        }
    }
    let expected = Tensor { shape: vec![2, 4, 8, 10], data: expected };
    worst_beyond(sampler.initial_latents(), &expected, 1e-4 * max_abs(&expected)).expect("the first latents");

    // With a mask 0.9999 of 10 steps, which keeps nothing but does begin with the picture.
    let masked = SampleOptions { mask: Some(picture(40, 32)), width: Some(40), height: Some(32), ..options };
    assert_eq!(block_on(pipeline.sampler(masked)).expect("a run").total(), 9);
}

#[test]
fn a_latent_consistency_model_spreads_its_steps_over_what_a_picture_leaves() {
    let pipeline = load(&models().join("lcm"));
    let options = SampleOptions {
        prompt: "a cat".into(),
        steps: 4,
        guidance_scale: 8.5,
        image: Some(picture(32, 32)),
        strength: Some(0.5),
        preview: Preview::None,
        ..SampleOptions::default()
    };
    let mut sampler = block_on(pipeline.sampler(options)).expect("a run");
    let mut timesteps = Vec::new();
    while let Some(step) = block_on(sampler.step()).expect("a step") {
        timesteps.push(step.timestep);
    }
    // Each sixth of the 25 lowest of the 50 timesteps 999, 979, … 19 that the model was distilled on.
    assert_eq!(timesteps, [499.0, 379.0, 259.0, 139.0]);
}

#[test]
fn the_cuda_stream_gives_other_noise_from_the_same_seed() {
    let pipeline = load(&models().join("ddpm_uncond"));
    let options = SampleOptions { seed: 5, generator: Stream::TorchCuda, steps: 2, ..SampleOptions::default() };
    let sampler = block_on(pipeline.sampler(options)).expect("a run");
    assert_eq!(sampler.initial_latents(), TorchCuda::new(5).randn(3 * 16 * 16));
}

#[test]
fn a_list_of_timesteps_or_of_sigmas_takes_the_place_of_the_number_of_steps() {
    let pipeline = load(&models().join("sd"));
    let usual = SampleOptions { prompt: "a cat".into(), steps: 25, preview: Preview::None, ..SampleOptions::default() };
    let timesteps = vec![900.0, 500.0, 100.0];
    let solver = Scheduler::Solver(Solver::Euler);
    let options = SampleOptions { timesteps: Some(timesteps.clone()), scheduler: solver.clone(), ..usual.clone() };
    let sampler = block_on(pipeline.sampler(options)).expect("a run");
    assert_eq!(sampler.table().timesteps, timesteps);
    let options = SampleOptions { sigmas: Some(vec![14.0, 3.0, 0.0]), scheduler: solver, ..usual };
    assert_eq!(block_on(pipeline.sampler(options)).expect("a run").total(), 2);
}

#[test]
fn a_second_text_encoder_without_a_projection_is_refused_when_it_is_opened() {
    let refusal = |folder: &Path| {
        let source = DirectorySource::new(folder);
        block_on(Checkpoint::open(&source, &OpenOptions::default())).map(drop).expect_err("no pooled text").to_string()
    };
    let index = |class: &str| {
        let class = serde_json::json!(["transformers", class]);
        changed("sdxl", "model_index.json", &[("text_encoder_2", class)])
    };
    assert_eq!(
        refusal(index("CLIPTextModel").path()),
        "model_index.json: `text_encoder_2` is a CLIPTextModel, expected a CLIPTextModelWithProjection, whose pooled text the \
         network sees"
    );
    assert_eq!(
        refusal(index("T5EncoderModel").path()),
        "text_encoder_2/config.json: CLIPTextModel: the pipeline asks for a T5EncoderModel, which is not supported"
    );
    // The weights of a CLIPTextModel, whatever the pipeline says.
    let folder = changed("sdxl", "text_encoder_2/config.json", &[("projection_dim", 20.into())]);
    let (weights, name) = (folder.path().join("text_encoder_2/model.safetensors"), b"\"text_projection.weight\"");
    let mut bytes = std::fs::read(&weights).expect("weights");
    let at = bytes.windows(name.len()).position(|window| window == name).expect("a projection");
    bytes[at + 1..][..4].copy_from_slice(b"logs");
    std::fs::write(&weights, bytes).expect("weights");
    let error = refusal(folder.path());
    assert!(
        error.starts_with("text_encoder_2/model.safetensors: ") && error.contains("text_projection.weight"),
        "{error}"
    );
}

#[test]
fn the_class_of_a_text_encoder_is_the_one_that_the_pipeline_names() {
    let named = |model: &str, encoder: &str, class: &str| {
        let config = format!("{encoder}/config.json");
        let folder = changed(model, &config, &[("architectures", vec![class].into())]);
        let options = SampleOptions { steps: 1, ..SampleOptions::default() };
        let mut sampler = block_on(load(folder.path()).sampler(options)).expect("a run");
        block_on(sampler.step()).expect("a step");
        block_on(sampler.latents()).expect("latents")
    };
    let second = |class| named("sdxl", "text_encoder_2", class);
    assert_eq!(second("CLIPTextModel"), second("CLIPTextModelWithProjection"));
    assert_eq!(second("CLIPModel"), second("CLIPTextModelWithProjection"));
    let first = |class| named("sd", "text_encoder", class);
    assert_eq!(first("CLIPTextModelWithProjection"), first("CLIPTextModel"));
}

#[test]
fn a_config_that_makes_no_network_is_named() {
    for (config, key) in [
        ("unet/config.json", "norm_num_groups"),
        ("vae/config.json", "norm_num_groups"),
        ("text_encoder/config.json", "num_attention_heads"),
        ("text_encoder_2/config.json", "num_attention_heads"),
    ] {
        let folder = changed("sdxl", config, &[(key, 7.into())]);
        let source = DirectorySource::new(folder.path());
        let error = block_on(Checkpoint::open(&source, &OpenOptions::default())).expect_err("sevenths").to_string();
        assert!(error.starts_with(&format!("{config}: ")), "{error}");
    }
}

#[test]
fn a_latent_consistency_model_is_not_guided_be_it_told_the_scale_or_not() {
    let folder = changed("sd", "model_index.json", &[("_class_name", "LatentConsistencyModelPipeline".into())]);
    let pipeline = load(folder.path());
    let latents = |guidance_scale| {
        let options = SampleOptions { prompt: "a cat".into(), steps: 1, guidance_scale, ..SampleOptions::default() };
        let mut sampler = block_on(pipeline.sampler(options)).expect("a run");
        block_on(sampler.step()).expect("a step");
        block_on(sampler.latents()).expect("latents")
    };
    assert_eq!(latents(8.5), latents(1.0));
}

#[test]
fn each_picture_of_a_list_of_seeds_is_what_its_seed_draws_alone() {
    let enlarging = tempfile::tempdir().expect("a folder");
    upscaler(enlarging.path());
    let (image, mask) = (Some(picture(64, 64)), Some(picture(64, 64)));
    let usual = || SampleOptions { prompt: "a cat".into(), steps: 4, guidance_scale: 3.0, ..SampleOptions::default() };
    let small = || Some(picture(24, 16));
    for (model, options) in [
        ("sd", usual()),
        ("sd", SampleOptions { image: image.clone(), ..usual() }),
        ("sd", SampleOptions { image: image.clone(), mask: mask.clone(), ..usual() }),
        ("sd", SampleOptions { image: image.clone(), mask: mask.clone(), strength: Some(0.5), ..usual() }),
        ("sd_inpaint9", SampleOptions { image: image.clone(), mask: mask.clone(), ..usual() }),
        ("sd_inpaint9", SampleOptions { image: image.clone(), mask: mask.clone(), strength: Some(0.5), ..usual() }),
        ("sdxl", SampleOptions { image: image.clone(), mask: mask.clone(), ..usual() }),
        ("upscaler", SampleOptions { image: small(), noise_level: Some(7), ..usual() }),
    ] {
        let folder = if model == "upscaler" { enlarging.path().to_owned() } else { models().join(model) };
        let pipeline = load(&folder);
        let together = SampleOptions { seeds: vec![5, 9], num_images_per_prompt: 2, ..options.clone() };
        let mut together = block_on(pipeline.sampler(together)).expect("a run");
        let mut alone = block_on(pipeline.sampler(SampleOptions { seed: 9, ..options })).expect("a run");
        let second = |values: &[f32]| values[values.len() / 2..].to_vec();
        assert_eq!(second(together.initial_latents()), alone.initial_latents(), "{model}");
        while block_on(alone.step()).expect("a step").is_some() {
            block_on(together.step()).expect("a step");
        }
        let expected = block_on(alone.latents()).expect("latents");
        let expected = Tensor { shape: alone.latents_shape().to_vec(), data: expected };
        let found = second(&block_on(together.latents()).expect("latents"));
        worst_beyond(&found, &expected, 1e-4 * max_abs(&expected)).unwrap_or_else(|e| panic!("{model}: {e}"));
    }
}

/// The checkpoint `model` of the reference with another scheduler.
fn with_scheduler(model: &str, config: &str) -> tempfile::TempDir {
    let class = serde_json::from_str::<serde_json::Value>(config).expect("JSON")["_class_name"].take();
    let folder = changed(model, "model_index.json", &[("scheduler", serde_json::json!(["diffusers", class]))]);
    std::fs::write(folder.path().join("scheduler/scheduler_config.json"), config).expect("a config");
    folder
}

#[test]
fn a_scheduler_is_the_one_of_the_pipeline_that_the_task_calls_for() {
    let (image, mask) = (Some(picture(64, 64)), Some(picture(64, 64)));
    let usual = || SampleOptions { steps: 6, ..SampleOptions::default() };
    let tables = |model: &str, config: &str| {
        let folder = with_scheduler(model, config);
        let pipeline = load(folder.path());
        [
            usual(),
            SampleOptions { image: image.clone(), strength: Some(1.0), ..usual() },
            SampleOptions { image: image.clone(), mask: mask.clone(), strength: Some(1.0), ..usual() },
        ]
        .map(|options| block_on(pipeline.sampler(options)).expect("a run").table().clone())
    };
    // What a class of Stable Diffusion leaves out and sets: only where a part is filled, clipping stays and PRK goes.
    let clips = r#"{"_class_name": "DDIMScheduler", "clip_sample": true, "steps_offset": 0}"#;
    let prk = r#"{"_class_name": "PNDMScheduler", "skip_prk_steps": false}"#;
    let clip = |table: Table| table.steps[0].clip;
    assert_eq!(tables("sd", clips).map(clip), [Clip::None, Clip::None, Clip::Range(1.0)]);
    assert_eq!(tables("sd", prk).map(|table| table.steps.len()), [15, 15, 7]);
    assert!(tables("sd", clips).iter().all(|table| table.timesteps.last() == Some(&1.0)));
    // SDXL's classes and those of latent consistency models leave a scheduler as it is; a part of a picture is filled by Stable
    // Diffusion's own class for the latter.
    assert_eq!(tables("sdxl", clips).map(clip), [Clip::Range(1.0); 3]);
    assert_eq!(tables("sdxl", prk).map(|table| table.steps.len()), [15, 15, 15]);
    assert_eq!(tables("lcm", prk).map(|table| table.steps.len()), [15, 15, 7]);
}

#[test]
fn a_latent_consistency_model_leaves_no_noise_at_the_end_of_a_part_of_custom_timesteps() {
    let pipeline = load(&models().join("lcm"));
    let options = SampleOptions {
        image: Some(picture(64, 64)),
        timesteps: Some(vec![999.0, 759.0, 499.0, 259.0]),
        strength: Some(0.5),
        ..SampleOptions::default()
    };
    let sampler = block_on(pipeline.sampler(options)).expect("a run");
    let draws: Vec<bool> = sampler.table().steps.iter().map(|step| step.draws_noise).collect();
    assert_eq!(draws, [true, false]);
}
