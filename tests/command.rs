//! The command as its users run it: what it writes, what it prints, how it refuses.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::common::command::{Ran, command, emoji64, names, network, refuse, repository, succeed, undiffuse};
use crate::common::{Tensor, read_tensors, worst_beyond};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use tempfile::TempDir;

/// Draws with two steps and returns the bytes of the PNG.
fn draw(folder: &TempDir, seed: &str, more: &[&str]) -> Vec<u8> {
    let out = folder.path().join("out.png");
    let model = emoji64();
    let mut arguments: Vec<&dyn AsRef<std::ffi::OsStr>> =
        vec![&"sample", &model, &"--prompt", &"a happy cat", &"--steps", &"2"];
    arguments.extend([&"--seed" as &dyn AsRef<_>, &seed, &"--out", &out]);
    arguments.extend(more.iter().map(|argument| argument as &dyn AsRef<_>));
    assert_eq!(succeed(&arguments), format!("{}\n", out.display()), "stdout holds the path and nothing else");
    fs::read(&out).expect("the picture")
}

/// Width, height and RGB bytes of a PNG.
fn decode(png: &[u8]) -> (usize, usize, Vec<u8>) {
    let mut reader = png::Decoder::new(std::io::Cursor::new(png)).read_info().expect("a PNG");
    let mut pixels = vec![0; reader.output_buffer_size().expect("a size")];
    let info = reader.next_frame(&mut pixels).expect("pixels");
    assert_eq!((info.color_type, info.bit_depth), (png::ColorType::Rgb, png::BitDepth::Eight));
    (info.width as usize, info.height as usize, pixels)
}

#[test]
fn the_same_seed_gives_the_same_picture_and_another_seed_another() {
    let folder = TempDir::new().unwrap();
    let first = draw(&folder, "7", &[]);
    assert_eq!(decode(&first).0, 64);
    assert!(first == draw(&folder, "7", &[]), "the same seed gave another picture");
    assert!(first != draw(&folder, "8", &[]), "another seed gave the same picture");
    assert!(first != draw(&folder, "7", &["--negative-prompt", "a dog"]), "the negative prompt has no effect");
    assert!(first != draw(&folder, "7", &["--solver", "euler_ancestral"]), "the solver has no effect");
    assert_eq!(names(folder.path()), ["out.png"], "no temporary file stays behind");
}

#[test]
fn a_size_is_drawn_as_asked() {
    let folder = TempDir::new().unwrap();
    let (width, height, _) = decode(&draw(&folder, "1", &["--width", "32", "--height", "48", "--guidance-scale", "1"]));
    assert_eq!((width, height), (32, 48));
}

#[test]
fn a_profile_says_where_the_time_of_a_step_goes() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("profile.json");
    let picture = draw(&folder, "3", &[&format!("--profile={}", file.display()), "--device", "cpu"]);
    assert!(picture == draw(&folder, "3", &["--profile", "--device", "cpu"]), "the profile has changed the picture");

    let profile: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    assert_eq!(profile["clock"], "processor");
    assert!(profile["milliseconds"].as_f64() > Some(0.0), "{profile}");
    let nodes = profile["nodes"].as_array().expect("a list of nodes");
    let convolution = nodes.iter().find(|node| node["path"] == "conv_in").expect("the first convolution");
    assert_eq!(convolution["shape"], serde_json::json!([2, 16, 16, 64]));
    assert_eq!(convolution["multiplyAdds"], 2 * 16 * 16 * 64 * 4 * 9);
}

#[test]
fn the_profile_has_a_file_of_its_own() {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("out.png");
    let profile = format!("--profile={}", out.display());
    let words = ["--out and --profile name the same file"];
    refuse(1, &words, &[&"sample", &emoji64(), &"--prompt", &"a cat", &"--out", &out, &profile]);
}

#[test]
fn a_trace_holds_the_run() {
    let folder = TempDir::new().unwrap();
    let trace = folder.path().join("trace.safetensors");
    let png = draw(&folder, "3", &["--trace", trace.to_str().unwrap()]);

    let bytes = fs::read(&trace).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let described: BTreeMap<String, (Dtype, Vec<usize>)> =
        file.iter().map(|(name, view)| (name.to_owned(), (view.dtype(), view.shape().to_vec()))).collect();
    let expected = [
        ("timesteps", Dtype::F32, vec![2]),
        ("initial_latents", Dtype::F32, vec![1, 4, 16, 16]),
        ("latents_after_step", Dtype::F32, vec![2, 1, 4, 16, 16]),
        ("image", Dtype::F32, vec![1, 3, 64, 64]),
        ("token_ids", Dtype::I64, vec![1, 32]),
        ("negative_token_ids", Dtype::I64, vec![1, 32]),
    ];
    let expected = expected.map(|(name, dtype, shape)| (name.to_owned(), (dtype, shape)));
    assert_eq!(described, BTreeMap::from(expected));

    let tensors = read_tensors(&trace);
    assert_eq!(tensors["timesteps"].data, [501.0, 1.0], "2 of 1000 timesteps, leading, with an offset of 1");
    let latents = &tensors["latents_after_step"].data;
    let length = latents.len() / 2;
    assert!(latents[..length] != latents[length..], "both steps have the same latents");
    assert!(tensors["initial_latents"].data != latents[..length], "the first step changed nothing");
    let (width, height, pixels) = decode(&png);
    for (i, &v) in tensors["image"].data.iter().enumerate() {
        let (channel, pixel) = (i / (width * height), i % (width * height));
        let level = f32::from(pixels[pixel * 3 + channel]);
        assert!(
            (v * 255.0 - level).abs() <= 0.51,
            "channel {channel}, pixel {pixel}: {v} in the trace, {level} in the PNG"
        );
    }
}

/// Two pictures of emoji64 in a folder, under names of their own.
fn two_pictures(folder: &TempDir) -> PathBuf {
    let pictures = folder.path().join("pictures");
    fs::create_dir(&pictures).unwrap();
    for (seed, name) in [("7", "b.png"), ("8", "a.PNG")] {
        fs::write(pictures.join(name), draw(folder, seed, &[])).unwrap();
    }
    fs::write(pictures.join("notes.txt"), "no picture").unwrap();
    pictures
}

#[test]
fn the_bound_of_a_folder_of_pictures_is_a_table_or_json() {
    let folder = TempDir::new().unwrap();
    let (pictures, model) = (two_pictures(&folder), emoji64());
    let prompt = ["--prompt", "a happy cat", "--timesteps", "500,0,10"];
    let mut arguments: Vec<&dyn AsRef<std::ffi::OsStr>> = vec![&"bound", &model, &pictures];
    arguments.extend(prompt.iter().map(|argument| argument as &dyn AsRef<_>));
    let table = succeed(&arguments);
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["t", "term", "bits/dim", "±", "over", "pictures"]);
    assert_eq!(lines[1][0], "L_T");
    for (line, [timestep, term]) in lines[2..5].iter().zip([["500", "L_t"], ["10", "L_t"], ["0", "L_0"]]) {
        assert_eq!(line[..2], [timestep, term], "{table}");
        assert!(line[2].parse::<f64>().is_ok() && line[3] == "±", "{table}");
    }
    for part in ["1024 dimensions of latents", "3 of 1000 timesteps", "over 2 pictures", "this is the bound of latents"]
    {
        assert!(table.contains(part), "no {part:?} in\n{table}");
    }
    assert!(table.find("a.PNG") < table.find("b.png"), "in the order of their names\n{table}");

    arguments.push(&"--json");
    let json: Value = serde_json::from_str(&succeed(&arguments)).expect("JSON");
    assert_eq!((&json["ofLatents"], &json["dimensions"]), (&Value::Bool(true), &1024.into()));
    let terms = json["terms"].as_array().expect("a list");
    let timesteps: Vec<&Value> = terms.iter().map(|term| &term["timestep"]).collect();
    assert_eq!(timesteps, [&Value::Null, &500.into(), &10.into(), &0.into()]);
    let mean =
        |term: &Value| term["bitsPerDim"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).sum::<f64>() / 2.0;
    let between = (mean(&terms[1]) + mean(&terms[2])) / 2.0;
    let total = mean(&terms[0]) + 999.0 * between + mean(&terms[3]);
    assert!((json["total"]["mean"].as_f64().unwrap() - total).abs() < 1e-9 * total.abs(), "{json}");
    assert_eq!(json["images"].as_array().map(Vec::len), Some(2));
    assert_eq!(json["seed"], "0", "a number of 64 bits is a text, as in `fid`");

    // Pictures by themselves, in another order: their noise is another.
    let files = [pictures.join("b.png"), pictures.join("a.PNG")];
    let mut arguments: Vec<&dyn AsRef<std::ffi::OsStr>> = vec![&"bound", &model, &files[0], &files[1], &"--json"];
    arguments.extend(prompt.iter().map(|argument| argument as &dyn AsRef<_>));
    let other: Value = serde_json::from_str(&succeed(&arguments)).expect("JSON");
    let prior = |json: &Value, picture: usize| json["terms"][0]["bitsPerDim"][picture].as_f64().unwrap();
    assert_eq!((prior(&other, 0), prior(&other, 1)), (prior(&json, 1), prior(&json, 0)));
}

#[test]
fn a_chart_of_the_bound_is_an_svg_or_a_png() {
    let folder = TempDir::new().unwrap();
    let (pictures, model) = (two_pictures(&folder), emoji64());
    for name in ["chart.svg", "chart.png"] {
        let chart = folder.path().join(name);
        succeed(&[&"bound", &model, &pictures, &"--terms", &"12", &"--chart", &chart]);
        let bytes = fs::read(&chart).unwrap();
        match name {
            "chart.svg" => {
                let svg = String::from_utf8(bytes).unwrap();
                assert!(svg.starts_with("<svg ") && svg.contains("Variational bound, emoji64"), "{svg}");
                // L_T and eleven L_t with the legend's two; L_0 of latents is below 0 and said in words.
                assert_eq!(svg.matches("<rect ").count(), 14, "{svg}");
                assert!(svg.contains("L_0 at t = 0 is -"), "{svg}");
            }
            _ => assert!(decode(&bytes).0 >= 1000),
        }
    }
    assert_eq!(names(folder.path()), ["chart.png", "chart.svg", "out.png", "pictures"]);
}

#[test]
fn a_bound_that_cannot_be_computed_is_refused_in_one_line() {
    let folder = TempDir::new().unwrap();
    let (pictures, model) = (two_pictures(&folder), emoji64());
    let empty = folder.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let (text, gone) = (pictures.join("notes.txt"), pictures.join("gone.png"));
    let chart = folder.path().join("chart.pdf");
    let broken = folder.path().join("broken.png");
    fs::write(&broken, b"\x89PNG\r\n\x1a\nnothing").unwrap();
    for (words, arguments) in [
        (&["empty", "no PNG in this folder"][..], vec![&"bound" as &dyn AsRef<std::ffi::OsStr>, &model, &empty]),
        (&["notes.txt", "not a PNG"], vec![&"bound", &model, &text]),
        (&["broken.png", "cannot be read"], vec![&"bound", &model, &broken]),
        (&["gone.png"], vec![&"bound", &model, &gone]),
        (&["chart.pdf", ".svg or .png"], vec![&"bound", &model, &pictures, &"--chart", &chart]),
        (&["timesteps", "0 to 999"], vec![&"bound", &model, &pictures, &"--timesteps", &"1000"]),
        (&["--terms is 0", "1 to 1000"], vec![&"bound", &model, &pictures, &"--terms", &"0"]),
        (&["learned no variance"], vec![&"bound", &model, &pictures, &"--variance", &"learned"]),
        (&["one for each of the 2 pictures"], {
            vec![&"bound", &model, &pictures, &"--prompt", &"a", &"--prompt", &"b", &"--prompt", &"c"]
        }),
        (&["there is no such folder"], vec![&"bound", &gone, &pictures]),
    ] {
        refuse(1, words, &arguments);
    }
    // What is wrong with an option is said before the weights are read, of which there are none.
    let bare = folder.path().join("bare");
    for part in ["", "unet", "vae", "text_encoder", "tokenizer", "scheduler"] {
        fs::create_dir_all(bare.join(part)).unwrap();
        for name in names(&model.join(part)) {
            let (from, to) = (model.join(part).join(&name), bare.join(part).join(&name));
            match (from.is_file(), from.extension().is_some_and(|extension| extension == "safetensors")) {
                (false, _) => {}
                (true, false) => drop(fs::copy(&from, &to).unwrap()),
                (true, true) => {
                    // The header, and no numbers.
                    let whole = fs::read(&from).unwrap();
                    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
                    fs::write(&to, &whole[..header]).unwrap();
                    fs::File::options().write(true).open(&to).unwrap().set_len(whole.len() as u64).unwrap();
                }
            }
        }
    }
    for (word, option, value) in [
        ("0 to 999", "--timesteps", "1000"),
        ("1 to 1000", "--terms", "0"),
        ("--height is 0", "--height", "0"),
        ("learned no variance", "--variance", "learned"),
        ("--guidance-scale is NaN", "--guidance-scale", "nan"),
    ] {
        let Ran { code, stderr, .. } = undiffuse(&[&"bound", &bare, &pictures, &option, &value]);
        assert!(code == Some(1) && stderr.contains(word), "{stderr}");
        assert!(!stderr.contains("loaded") && !stderr.contains("device:"), "{stderr}");
    }
    refuse(2, &["fixed_small", "learned_range"], &[&"bound", &model, &pictures, &"--variance", &"large"]);
    refuse(2, &["IMAGES"], &[&"bound", &model]);
}

/// The texts of a PNG by keyword.
fn texts(png: &[u8]) -> BTreeMap<String, String> {
    let reader = png::Decoder::new(std::io::Cursor::new(png)).read_info().expect("a PNG");
    let info = reader.info();
    let plain = info.uncompressed_latin1_text.iter().map(|chunk| (chunk.keyword.clone(), chunk.text.clone()));
    let international = info.utf8_text.iter().map(|chunk| (chunk.keyword.clone(), chunk.get_text().expect("UTF-8")));
    plain.chain(international).collect()
}

#[test]
fn a_picture_says_what_it_was_made_with() {
    let folder = TempDir::new().unwrap();
    let kept = fs::read(repository().join("tests/pictures/fox.png")).unwrap();
    let out = folder.path().join("fox.png");
    let mut arguments: Vec<&dyn AsRef<std::ffi::OsStr>> = vec![&"sample"];
    let model = emoji64();
    arguments.push(&model);
    let given = [
        ["--prompt", "fox, noto style"],
        ["--negative-prompt", "Straße, 夜"],
        ["--seed", "7"],
        ["--steps", "4"],
        ["--solver", "dpmpp_2m"],
        ["--guidance-scale", "4.5"],
        ["--height", "48"],
    ];
    arguments.extend(given.iter().flatten().map(|argument| argument as &dyn AsRef<_>));
    // The same bits on every machine.
    arguments.extend([&"--device" as &dyn AsRef<_>, &"cpu", &"--portable"]);
    arguments.extend([&"--out" as &dyn AsRef<_>, &out]);
    succeed(&arguments);
    let drawn = fs::read(&out).unwrap();
    // The browser's tests drop the kept picture on the page, which restores from it what is said here.
    assert_eq!(texts(&drawn), texts(&kept));
    assert!(decode(&drawn) == decode(&kept), "the kept picture is another; draw it again");
    assert_eq!(
        texts(&drawn)["parameters"],
        "fox, noto style\nNegative prompt: Straße, 夜\n\
         Steps: 4, Sampler: dpmpp_2m, CFG scale: 4.5, Seed: 7, Size: 64x48, Model: emoji64, Version: undiffuse"
    );
    // What Latin-1 can write is in the plain chunks that every tool reads.
    let plain = draw(&folder, "7", &["--negative-prompt", "Straße"]);
    let reader = png::Decoder::new(std::io::Cursor::new(&plain)).read_info().unwrap();
    assert_eq!(reader.info().uncompressed_latin1_text.len(), 2);
    assert_eq!(texts(&plain)["parameters"].lines().nth(1), Some("Negative prompt: Straße"));
    // What was chosen of the model's files, and how pictures were decoded.
    let tiled = draw(&folder, "7", &["--vae-tiling", "--unet", "unet/diffusion_pytorch_model.safetensors"]);
    let made: Value = serde_json::from_str(&texts(&tiled)["undiffuse"]).unwrap();
    assert_eq!(made["vaeTiling"], true);
    assert_eq!(made["unet"], "unet/diffusion_pytorch_model.safetensors");
    // Given timesteps are as many steps as they are.
    let model = emoji64();
    let call: [&dyn AsRef<std::ffi::OsStr>; 10] =
        [&"sample", &model, &"--prompt", &"a cat", &"--solver", &"euler", &"--timesteps", &"801,401,1", &"--out", &out];
    succeed(&call);
    let parameters = texts(&fs::read(&out).unwrap())["parameters"].clone();
    assert!(parameters.contains("Steps: 3, Sampler: euler"), "{parameters}");
}

#[test]
fn several_pictures_are_numbered_and_seeds_make_each_as_it_would_be_alone() {
    let folder = TempDir::new().unwrap();
    let (model, out) = (emoji64(), folder.path().join("fox.png"));
    let drawn = |more: &[&str]| {
        let mut arguments: Vec<&dyn AsRef<std::ffi::OsStr>> = vec![&"sample", &model, &"--steps", &"2", &"--out", &out];
        arguments.extend(more.iter().map(|argument| argument as &dyn AsRef<_>));
        succeed(&arguments).lines().map(|path| fs::read(path).expect("a picture")).collect::<Vec<_>>()
    };
    let together = drawn(&["--prompt", "fox", "--prompt", "panda", "--seeds", "5,6"]);
    assert_eq!(names(folder.path()), ["fox-0.png", "fox-1.png"]);
    for (picture, (prompt, seed)) in together.iter().zip([("fox", "5"), ("panda", "6")]) {
        let [alone] = &drawn(&["--prompt", prompt, "--seed", seed])[..] else { panic!("one picture") };
        assert!(decode(picture) == decode(alone), "{prompt}, seed {seed}");
        assert_eq!(texts(picture), texts(alone));
    }
    // One seed for all: a picture of these is not to be had alone, and says so.
    let shared = drawn(&["--prompt", "fox", "--num-images-per-prompt", "2", "--seed", "5"]);
    assert!(decode(&shared[0]) != decode(&shared[1]));
    assert!(texts(&shared[1])["undiffuse"].contains(r#""picture":"2 of 2""#), "{:?}", texts(&shared[1]));
}

/// The recorded runs of `pipeline_class`, with the folder of each.
fn recorded(pipeline_class: &str) -> Vec<(PathBuf, Value)> {
    let folders = crate::common::folders(&crate::common::reference("pipelines").join("runs")).into_iter();
    let runs = folders.map(|folder| (folder.clone(), crate::common::read_json(&folder.join("run.json"))));
    let runs: Vec<_> = runs.filter(|(_, run)| run["pipeline_class"] == pipeline_class).collect();
    assert!(!runs.is_empty(), "no run of {pipeline_class}");
    runs
}

#[test]
fn every_pipeline_is_run_by_its_command_line() {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("out.png");
    for class in [
        "DDPMPipeline",
        "DDIMPipeline",
        "StableDiffusionPipeline",
        "StableDiffusionImg2ImgPipeline",
        "StableDiffusionInpaintPipeline",
        "StableDiffusionXLPipeline",
        "LatentConsistencyModelPipeline",
    ] {
        let mut ran = 0;
        for (run_folder, run) in recorded(class) {
            let name = crate::common::name_of(&run_folder);
            let described = run["model"].as_str().expect("a model");
            let model = described.split(' ').next().expect("its name");
            let mut line: Vec<String> = vec!["sample".into()];
            let path = |path: PathBuf| path.to_str().expect("a path of text").to_owned();
            line.push(path(crate::common::reference("pipelines").join("models").join(model)));
            line.extend(["--scheduler".into(), path(run_folder.join("scheduler_config.json"))]);
            line.extend(["--out".into(), path(out.clone())]);
            if described.contains("variant fp16") {
                line.extend(["--variant".into(), "fp16".into()]);
            }
            if let Some((_, lora)) = described.split_once(" + ") {
                let weight = name.rsplit_once("scale").expect("its weight").1;
                line.extend([
                    "--lora".into(),
                    format!("{}:{weight}", path(crate::common::reference("pipelines").join(lora))),
                ]);
            }
            match run["generator"].as_array() {
                Some(generators) => {
                    let seeds = (run["seed"].as_u64().expect("a seed")..).take(generators.len());
                    line.extend(["--seeds".into(), seeds.map(|seed| seed.to_string()).collect::<Vec<_>>().join(",")]);
                }
                None => line.extend(["--seed".into(), run["seed"].to_string()]),
            }
            for (option, file) in [("--image", "init_image.png"), ("--mask", "mask.png")] {
                if run_folder.join(file).exists() {
                    line.extend([option.into(), path(run_folder.join(file))]);
                }
            }
            for (argument, value) in run["call_arguments"].as_object().expect("arguments") {
                let option = match argument.as_str() {
                    "num_inference_steps" => "--steps".to_owned(),
                    "batch_size" => "--num-images-per-prompt".to_owned(),
                    argument => format!("--{}", argument.replace('_', "-")),
                };
                let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                match value {
                    Value::Null => {}
                    Value::Bool(given) => line.extend(given.then_some(option)),
                    Value::Array(values) if values.iter().all(Value::is_number) => {
                        line.extend([option, values.iter().map(text).collect::<Vec<_>>().join(",")]);
                    }
                    Value::Array(values) => line.extend(values.iter().flat_map(|v| [option.clone(), text(v)])),
                    value => line.extend([option, text(value)]),
                }
            }
            let arguments: Vec<&dyn AsRef<std::ffi::OsStr>> = line.iter().map(|argument| argument as _).collect();
            for (index, drawn) in succeed(&arguments).lines().enumerate() {
                let (actual, kept) =
                    (fs::read(drawn).unwrap(), fs::read(run_folder.join(format!("image_{index}.png"))));
                let ((width, height, actual), (_, _, expected)) = (decode(&actual), decode(&kept.unwrap()));
                let off = actual.iter().zip(&expected).filter(|(a, b)| a.abs_diff(**b) > 1).count();
                // The tolerance of the reference: at most one level on 99.5 % of the values.
                assert!(off <= width * height * 3 / 200, "{name}: {off} values of picture {index} are off\n{line:?}");
                assert_eq!(actual.len(), expected.len(), "{name}");
            }
            ran += 1;
        }
        println!("{class}: {ran} ran, 0 skipped");
    }
}

/// A PNG of one pixel whose palette has a colour and a third.
const PALETTE_OF_FOUR_BYTES: &[u8] = b"\x89PNG\x0d\x0a\x1a\x0a\
    \x00\x00\x00\x0dIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x03\x00\x00\x00(\xcb4\xbb\
    \x00\x00\x00\x04PLTE\x01\x02\x03\x04#\xdb\x8a\xab\
    \x00\x00\x00\x0aIDATx\x9cc`\x00\x00\x00\x02\x00\x01H\xaf\xa4q\
    \x00\x00\x00\x00IEND\xaeB`\x82";

#[test]
fn pictures_that_cannot_be_read_and_options_without_their_picture_are_refused() {
    let folder = TempDir::new().unwrap();
    let (model, out) = (emoji64(), folder.path().join("out.png"));
    let jpeg = folder.path().join("photo.jpg");
    fs::write(&jpeg, b"\xff\xd8\xff\xe0 JFIF").unwrap();
    let half = folder.path().join("half.png");
    fs::write(&half, &fs::read(repository().join("tests/pictures/fox.png")).unwrap()[..600]).unwrap();
    let call = |code: i32, words: &[&str], more: &[&dyn AsRef<std::ffi::OsStr>]| {
        let mut arguments: Vec<&dyn AsRef<std::ffi::OsStr>> = vec![&"sample", &model, &"--prompt", &"a cat"];
        arguments.extend([&"--out" as &dyn AsRef<_>, &out]);
        arguments.extend(more);
        refuse(code, words, &arguments);
    };
    call(1, &["photo.jpg", "not a PNG", "convert"], &[&"--image", &jpeg]);
    call(1, &["half.png", "cannot be read"], &[&"--image", &half]);
    call(1, &["none.png"], &[&"--image", &"none.png"]);
    // A palette of four bytes, and a picture that says that it has 30000×30000 pixels.
    let palette = folder.path().join("palette.png");
    fs::write(&palette, PALETTE_OF_FOUR_BYTES).unwrap();
    let large = folder.path().join("large.png");
    png::Encoder::new(fs::File::create(&large).unwrap(), 30_000, 30_000).write_header().map(|_| ()).unwrap();
    for (file, words) in [(&palette, "its palette ends in the middle of a colour"), (&large, "sides of at most 8192")] {
        call(1, &[words], &[&"--image", file]);
        call(1, &[words], &[&"--image", &repository().join("tests/pictures/fox.png"), &"--mask", file]);
        refuse(1, &[words], &[&"noise", file, &"--out", &out]);
        refuse(1, &[words], &[&"bound", &model, file]);
    }
    call(2, &["--image"], &[&"--mask", &half]);
    call(2, &["--image"], &[&"--strength", &"0.5"]);
    call(2, &["--original-size", "two whole numbers"], &[&"--original-size", &"512x512"]);
    call(2, &["--seeds", "--seed"], &[&"--seeds", &"1,2", &"--seed", &"1"]);
    call(1, &["--seeds is a list of 3"], &[&"--seeds", &"1,2,3"]);
    call(1, &["--original-size is given"], &[&"--original-size", &"512,512"]);
    call(1, &["--noise-level is given"], &[&"--noise-level", &"20"]);
    call(1, &["none.safetensors"], &[&"--lora", &"none.safetensors:0.5"]);
    assert!(!out.exists());
}

#[test]
fn a_model_without_a_prompt_needs_none() {
    let folder = TempDir::new().unwrap();
    let model = folder.path().join("model");
    let network = network("unet2d_ddpm_cifar_like");
    for part in ["unet", "scheduler"] {
        fs::create_dir_all(model.join(part)).unwrap();
    }
    for file in ["config.json", "diffusion_pytorch_model.safetensors"] {
        fs::copy(network.join(file), model.join("unet").join(file)).unwrap();
    }
    fs::write(model.join("model_index.json"), r#"{"_class_name": "DDPMPipeline"}"#).unwrap();
    fs::write(model.join("scheduler/scheduler_config.json"), r#"{"_class_name": "DDPMScheduler"}"#).unwrap();
    let out = folder.path().join("out.png");
    succeed(&[&"sample", &model, &"--steps", &"2", &"--out", &out]);
    let (width, height, _) = decode(&fs::read(&out).unwrap());
    assert_eq!((width, height), (16, 16));
    refuse(1, &["DDPMPipeline takes no prompt"], &[&"sample", &model, &"--prompt", &"a cat", &"--out", &out]);
}

/// Writes the inputs of one call recorded in `io`, with the dtypes that they have there.
fn write_inputs(io: &SafeTensors, case: &str, path: &Path) {
    let prefix = format!("{case}/in/");
    let inputs = io.iter().filter_map(|(name, view)| Some((name.strip_prefix(&prefix)?, view)));
    fs::write(path, safetensors::serialize(inputs.collect::<Vec<_>>(), None).unwrap()).unwrap();
}

#[test]
fn forward_computes_what_was_recorded() {
    let folder = TempDir::new().unwrap();
    let (inputs, outputs) = (folder.path().join("in.safetensors"), folder.path().join("out.safetensors"));
    let component = network("unet_sd1_like");
    let recorded = read_tensors(&component.join("io.safetensors"));
    let bytes = fs::read(component.join("io.safetensors")).unwrap();
    let io = SafeTensors::deserialize(&bytes).unwrap();
    let cases: Vec<&str> = recorded.keys().filter_map(|name| name.strip_suffix("/in/sample")).collect();
    assert!(!cases.is_empty());
    let check = |case: &str, weights: &[&str], suffix: &str| {
        let mut arguments: Vec<&dyn AsRef<std::ffi::OsStr>> = vec![&"forward", &component];
        arguments.extend([&"--inputs" as &dyn AsRef<_>, &inputs, &"--outputs", &outputs]);
        arguments.extend(weights.iter().map(|argument| argument as &dyn AsRef<_>));
        assert_eq!(succeed(&arguments), format!("{}\n", outputs.display()));
        let (actual, expected) = (read_tensors(&outputs), &recorded[&format!("{case}/out{suffix}")]);
        assert_eq!(actual.keys().collect::<Vec<_>>(), ["out"]);
        assert_eq!(actual["out"].shape, expected.shape);
        // The tolerance of the reference for one call.
        worst_beyond(&actual["out"].data, expected, 1e-4).unwrap_or_else(|e| panic!("{case}: {e}"));
    };
    for case in &cases {
        write_inputs(&io, case, &inputs);
        check(case, &[], "");
        check(case, &["--weights", "diffusion_pytorch_model.fp16.safetensors"], "_f16weights");
    }
}

#[test]
fn forward_writes_the_shaders_that_it_ran() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (inputs, outputs, shaders) = (path("in.safetensors"), path("out.safetensors"), path("a/shaders"));
    let component = network("unet_sd1_like");
    let bytes = fs::read(component.join("io.safetensors")).unwrap();
    write_inputs(&SafeTensors::deserialize(&bytes).unwrap(), "a", &inputs);
    let call = |device: &str| {
        let files: [&dyn AsRef<std::ffi::OsStr>; 6] =
            [&"forward", &component, &"--inputs", &inputs, &"--outputs", &outputs];
        let ran = undiffuse(&[&files[..], &[&"--device", &device, &"--write-wgsl", &shaders]].concat());
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        ran.stderr
    };
    let said = call("cpu");
    assert!(said.contains("--write-wgsl") && !shaders.exists(), "{said}");
    let said = call("gpu");
    let written = names(&shaders);
    assert!(said.contains(&format!("{} kernels", written.len())), "{said}");
    for name in ["combine.wgsl", "lay_out.wgsl", "normalize_pixels-aligned-silu.wgsl"] {
        assert!(written.iter().any(|found| found == name), "{name} is not in {written:?}");
    }
    let text = fs::read_to_string(shaders.join("normalize_pixels-aligned-silu.wgsl")).unwrap();
    assert!(text.starts_with("// normalize_pixels (Aligned, Silu)\n// override ACTIVATION = 1\n"), "{text}");
    assert!(text.contains("fn normalize_pixels("), "{text}");
}

#[test]
fn forward_takes_weights_from_elsewhere() {
    let folder = TempDir::new().unwrap();
    let (inputs, outputs) = (folder.path().join("in.safetensors"), folder.path().join("out.safetensors"));
    let bytes = fs::read(network("unet_sd1_like").join("io.safetensors")).unwrap();
    write_inputs(&SafeTensors::deserialize(&bytes).unwrap(), "a", &inputs);
    let weights = network("unet_sd1_like").join("diffusion_pytorch_model.safetensors");
    let component = network("unet_sd1_like_short_config");
    succeed(&[&"forward", &component, &"--weights", &weights, &"--inputs", &inputs, &"--outputs", &outputs]);
    let expected = &read_tensors(&network("unet_sd1_like").join("io.safetensors"))["a/out"];
    worst_beyond(&read_tensors(&outputs)["out"].data, expected, 1e-4).unwrap_or_else(|e| panic!("{e}"));
    refuse(
        1,
        &["none.safetensors", "no such file"],
        &[&"forward", &component, &"--weights", &"none.safetensors", &"--inputs", &inputs, &"--outputs", &outputs],
    );
}

#[test]
fn forward_names_the_input_that_is_wrong() {
    let folder = TempDir::new().unwrap();
    let (inputs, outputs) = (folder.path().join("in.safetensors"), folder.path().join("out.safetensors"));
    let component = network("unet_sd1_like");
    let call: [&dyn AsRef<_>; 6] = [&"forward", &component, &"--inputs", &inputs, &"--outputs", &outputs];
    let tensor = |shape: &[usize]| Tensor { shape: shape.to_vec(), data: vec![0.5; shape.iter().product()] };
    let write = |tensors: &[(&str, Tensor)]| {
        let bytes: Vec<Vec<u8>> =
            tensors.iter().map(|(_, t)| t.data.iter().flat_map(|v| v.to_le_bytes()).collect()).collect();
        let views = tensors.iter().zip(&bytes).map(|((name, t), bytes)| {
            (*name, safetensors::tensor::TensorView::new(Dtype::F32, t.shape.clone(), bytes).unwrap())
        });
        fs::write(&inputs, safetensors::serialize(views.collect::<Vec<_>>(), None).unwrap()).unwrap();
    };
    let bytes = fs::read(component.join("io.safetensors")).unwrap();
    let recorded = SafeTensors::deserialize(&bytes).unwrap();
    let width = recorded.tensor("a/in/encoder_hidden_states").unwrap().shape()[2];
    let (sample, timestep, text) = (tensor(&[1, 4, 8, 8]), tensor(&[]), tensor(&[1, 3, width]));

    write(&[("timestep", timestep.clone()), ("a/in/sample", sample.clone()), ("encoder_hidden_states", text.clone())]);
    refuse(1, &["in.safetensors", "`sample`", "it is missing; the file holds: a/in/sample, "], &call);
    write(&[("sample", tensor(&[4, 8, 8])), ("timestep", timestep.clone()), ("encoder_hidden_states", text.clone())]);
    refuse(1, &["`sample`", "[4, 8, 8]", "4 axes"], &call);
    write(&[
        ("sample", tensor(&[1, 3, 8, 8])),
        ("timestep", timestep.clone()),
        ("encoder_hidden_states", text.clone()),
    ]);
    refuse(1, &["`sample`", "[1, 3, 8, 8]", "[1, 4, 8, 8]"], &call);
    let superfluous = tensor(&[1]);
    write(&[("sample", sample), ("timestep", timestep), ("encoder_hidden_states", text), ("sigma", superfluous)]);
    refuse(1, &["`sigma`", "sample", "timestep", "encoder_hidden_states"], &call);
    fs::write(&inputs, "{}").unwrap();
    refuse(1, &["in.safetensors", "not a valid safetensors file"], &call);
    fs::remove_file(&inputs).unwrap();
    refuse(1, &["in.safetensors"], &call);
    assert!(!outputs.exists());
}

/// A PNG of two slopes and some detail, and its RGB bytes.
fn slope(folder: &TempDir, width: u32, height: u32) -> (PathBuf, Vec<u8>) {
    let path = folder.path().join("slope.png");
    let pixel = |i: u32| [(i % width * 255 / width) as u8, (i / width * 255 / height) as u8, (i * 97 % 251) as u8];
    let pixels: Vec<u8> = (0..width * height).flat_map(pixel).collect();
    let mut encoder = png::Encoder::new(fs::File::create(&path).unwrap(), width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header().unwrap().write_image_data(&pixels).unwrap();
    (path, pixels)
}

#[test]
fn noise_shows_a_picture_at_the_timesteps_that_are_asked_for() {
    let folder = TempDir::new().unwrap();
    let (image, pixels) = slope(&folder, 200, 150);
    let out = folder.path().join("sheet.png");
    let table = succeed(&[&"noise", &image, &"--timesteps", &"999,0,0", &"--seed", &"5", &"--out", &out]);
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0][..4], ["t", "beta_t", "alpha_t", "alpha_bar_t"]);
    assert_eq!(rows[1], ["999", "0.020000", "0.980000", "4.0358e-5", "-43.94"], "DDPM's schedule");
    assert_eq!(rows[2], ["0", "0.000100", "0.999900", "9.9990e-1", "40.00"]);
    assert_eq!(rows.len(), 4);

    let (width, height, sheet) = decode(&fs::read(&out).unwrap());
    assert!(width > 3 * 200 && height > 150 + 2 * 16, "{width}×{height}: three pictures, and two lines below them");
    // The picture of t = 0 is the given one but for a hundredth of noise; that of t = 999 is noise. Both are there, in this order.
    let at = |left: usize, top: usize, i: usize| sheet[3 * ((top + i / 600) * width + left) + i % 600];
    let off = |left: usize, top: usize| {
        let values = pixels.iter().enumerate();
        values.map(|(i, &value)| f64::from(at(left, top, i).abs_diff(value))).sum::<f64>() / pixels.len() as f64
    };
    let found: Vec<usize> = (0..=width - 200).filter(|&left| off(left, 12) < 3.0).collect();
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0] > 200 && found[1] >= found[0] + 200, "{found:?}: after that of t = 999, side by side");
    for row in 0..150 {
        let line = |left: usize| &sheet[3 * ((12 + row) * width + left)..][..600];
        assert!(line(found[0]) == line(found[1]), "one ε for all");
    }
    let again = succeed(&[&"noise", &image, &"--timesteps", &"999,0,0", &"--seed", &"5", &"--out", &out]);
    assert!(again == table && decode(&fs::read(&out).unwrap()).2 == sheet, "the same seed, another sheet");
    succeed(&[&"noise", &image, &"--timesteps", &"999,0,0", &"--seed", &"6", &"--out", &out]);
    assert!(decode(&fs::read(&out).unwrap()).2 != sheet, "another seed, the same sheet");
    assert_eq!(names(folder.path()), ["sheet.png", "slope.png"]);
}

#[test]
fn noise_knows_the_schedules_by_name() {
    let folder = TempDir::new().unwrap();
    let (image, _) = slope(&folder, 8, 8);
    let out = folder.path().join("sheet.png");
    let last = |more: &[&str]| -> f64 {
        let mut arguments: Vec<&dyn AsRef<std::ffi::OsStr>> = vec![&"noise", &image, &"--out", &out, &"--json"];
        arguments.extend(more.iter().map(|argument| argument as &dyn AsRef<_>));
        let rows: Value = serde_json::from_str(&succeed(&arguments)).expect("JSON");
        assert_eq!(rows.as_array().map(Vec::len), Some(5), "as many as there are by default");
        assert_eq!(rows[4]["timestep"], 999);
        assert!((rows[2]["alpha"].as_f64().unwrap() + rows[2]["beta"].as_f64().unwrap() - 1.0).abs() < 1e-6);
        rows[4]["alphaBar"].as_f64().expect("a number")
    };
    // σ is 157 and 14.6 there.
    assert!((last(&[]) - 4.0358e-5).abs() < 1e-8);
    assert!((last(&["--schedule", "scaled_linear"]) - 4.6601e-3).abs() < 1e-6);
    assert!((last(&["--schedule", "cosine"]) - 2.43e-9).abs() < 1e-10);
    assert_eq!(last(&["--schedule", "scaled_linear", "--zero-terminal-snr"]), 0.0);
}

#[test]
fn noise_in_latents_is_where_a_run_from_that_timestep_begins() {
    let folder = TempDir::new().unwrap();
    let (image, _) = slope(&folder, 64, 64);
    let (out, model) = (folder.path().join("sheet.png"), emoji64());
    let call: [&dyn AsRef<_>; 6] = [&"noise", &image, &"--model", &model, &"--timesteps", &"250,750"];
    let more: [&dyn AsRef<_>; 6] = [&"--predict", &"--prompt", &"a cat", &"--json", &"--out", &out];
    let rows: Value = serde_json::from_str(&succeed(&[&call[..], &more[..]].concat())).expect("JSON");
    assert!((rows[1]["alphaBar"].as_f64().unwrap() - 0.05617).abs() < 1e-5, "the model's own schedule: {rows}");
    assert!(rows[0]["meanSquaredError"].as_f64() > rows[1]["meanSquaredError"].as_f64(), "{rows}");
    let (width, height, _) = decode(&fs::read(&out).unwrap());
    assert!(width > 2 * 192 && height > 3 * 192, "{width}×{height}: three rows, three times as large");
    let pixels = succeed(&[&call[..], &[&"--space", &"pixels", &"--out", &out]].concat());
    assert_eq!(pixels.lines().count(), 3, "{pixels}");

    // Denoised from there, with a prompt and without; where the timestep is the first of a strength, it is the run of that strength.
    let draw = |more: &[&str]| {
        let out = folder.path().join("out.png");
        let mut arguments: Vec<&dyn AsRef<std::ffi::OsStr>> = vec![&"sample", &model, &"--image", &image];
        arguments.extend([&"--steps" as &dyn AsRef<_>, &"10", &"--seed", &"3", &"--out", &out]);
        arguments.extend(more.iter().map(|argument| argument as &dyn AsRef<_>));
        succeed(&arguments);
        fs::read(&out).expect("a picture")
    };
    let from = draw(&["--prompt", "a cat", "--start-timestep", "401"]);
    assert!(decode(&from) == decode(&draw(&["--prompt", "a cat", "--strength", "0.5"])));
    assert!(decode(&from) != decode(&draw(&["--start-timestep", "401"])), "the prompt makes no difference");
    assert!(decode(&from) != decode(&draw(&["--prompt", "a cat", "--start-timestep", "451"])));
    assert!(texts(&from)["undiffuse"].contains(r#""startTimestep":401"#), "{:?}", texts(&from));
}

#[test]
fn noise_says_what_is_wrong() {
    let folder = TempDir::new().unwrap();
    let (image, _) = slope(&folder, 8, 8);
    let (out, model) = (folder.path().join("sheet.png"), emoji64());
    let text = folder.path().join("text.png");
    fs::write(&text, "no picture").unwrap();
    let range = "the timesteps of this schedule are 0 to 999";
    let call = |code: i32, words: &[&str], more: &[&dyn AsRef<std::ffi::OsStr>]| {
        let call: [&dyn AsRef<_>; 3] = [&"noise", &"--out", &out];
        refuse(code, words, &[&call[..], more].concat());
    };
    call(1, &["--timesteps is 1000: ", range], &[&image, &"--timesteps", &"0,1000"]);
    call(1, &["is 1000", range], &[&image, &"--timesteps", &"0,1000", &"--model", &model]);
    call(1, &["text.png", "not a PNG"], &[&text]);
    call(1, &["none.png"], &[&"none.png"]);
    call(1, &["--space is latents", "--model"], &[&image, &"--space", &"latents"]);
    call(1, &["none", "no such folder"], &[&image, &"--model", &"none"]);
    call(2, &["--model"], &[&image, &"--predict"]);
    call(2, &["--schedule", "--model"], &[&image, &"--schedule", &"cosine", &"--model", &model]);
    call(2, &["--timesteps"], &[&image, &"--timesteps", &"-3"]);
    let pixels: [&dyn AsRef<_>; 6] = [&image, &"--model", &model, &"--predict", &"--space", &"pixels"];
    call(1, &["--space is pixels", "latents"], &pixels);
    let both: [&dyn AsRef<_>; 10] =
        [&"sample", &model, &"--image", &image, &"--start-timestep", &"9", &"--strength", &"1", &"--out", &out];
    refuse(2, &["--start-timestep", "--strength"], &both);
    refuse(2, &["--image"], &[&"sample", &model, &"--start-timestep", &"9", &"--out", &out]);
    assert!(!out.exists());
}

#[test]
fn a_schedule_is_readable_and_parses() {
    let config = emoji64().join("scheduler/scheduler_config.json");
    let once =
        "ddpm ddim lms euler euler_ancestral dpmpp_2m dpmpp_2s unipc deis lcm tcd".split(' ').map(|name| (name, 7));
    // Heun and DPM-Solver-2 call the network twice for all steps but the last, PNDM four times for each of its first three.
    for (solver, calls) in once.chain([("heun", 13), ("dpm2", 13), ("pndm", 16)]) {
        let json = succeed(&[&"schedule", &config, &"--steps", &"7", &"--solver", &solver, &"--json"]);
        let table: Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!(table["steps"].as_array().map(Vec::len), Some(calls), "{solver}");
        assert!(table["steps"][0]["prev_sample"]["sample"].is_f64(), "{solver}");
    }
    let from_file = succeed(&[&"schedule", &config, &"--steps", &"7"]);
    assert_eq!(from_file.lines().count(), 10, "{from_file}");
    assert!(from_file.starts_with("DDIMScheduler, 7 calls of the network\n"), "{from_file}");
    for folder in [emoji64(), emoji64().join("scheduler")] {
        assert_eq!(succeed(&[&"schedule", &folder, &"--steps", &"7"]), from_file);
    }
}

#[test]
fn a_reader_that_leaves_early_is_no_failure() {
    let mut child = command(&[&"schedule", &emoji64(), &"--steps", &"900"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
}

#[test]
fn inspect_names_the_parts() {
    let report = succeed(&[&"inspect", &emoji64()]);
    for part in [
        "StableDiffusionPipeline",
        "UNet2DConditionModel",
        "AutoencoderKL",
        "CLIPTextModel",
        "CLIPTokenizer",
        "DDIMScheduler, solver ddim",
        "prediction_type epsilon",
        "5,599,652 parameters, 11.24 MB, F16",
        "4 channels of 16×16",
        "64×64 pixels",
        "supported     yes\n",
    ] {
        assert!(report.contains(part), "no {part:?}\n{report}");
    }
    let report = succeed(&[&"inspect", &network("vae_sd_like")]);
    assert!(report.contains("AutoencoderKL") && report.contains("supported  yes"), "{report}");
}

#[test]
fn inspect_says_why_a_checkpoint_cannot_be_run() {
    let folder = copy_of_emoji64();
    let index = folder.path().join("model_index.json");
    let text = fs::read_to_string(&index).unwrap();
    fs::write(&index, text.replace("StableDiffusionPipeline", "FluxPipeline")).unwrap();
    truncate(&folder.path().join("vae/diffusion_pytorch_model.safetensors"));
    let report = succeed(&[&"inspect", &folder.path()]);
    for word in ["no: model_index.json: `_class_name` is \"FluxPipeline\"", "the file ends after"] {
        assert!(report.contains(word), "no {word:?}\n{report}");
    }
    fs::write(&index, &text).unwrap();
    let report = succeed(&[&"inspect", &folder.path()]);
    assert!(report.contains("no: vae/diffusion_pytorch_model.safetensors: the file ends after"), "{report}");
}

fn copy_of_emoji64() -> TempDir {
    let folder = TempDir::new().unwrap();
    fs::copy(emoji64().join("model_index.json"), folder.path().join("model_index.json")).unwrap();
    for part in ["scheduler", "text_encoder", "tokenizer", "unet", "vae"] {
        fs::create_dir(folder.path().join(part)).unwrap();
        for name in names(&emoji64().join(part)) {
            fs::copy(emoji64().join(part).join(&name), folder.path().join(part).join(&name)).unwrap();
        }
    }
    folder
}

fn truncate(path: &Path) {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(file.metadata().unwrap().len() - 1000).unwrap();
}

#[test]
fn a_damaged_checkpoint_is_refused_with_the_name_of_its_file() {
    let folder = copy_of_emoji64();
    let out = folder.path().join("out.png");
    let call: [&dyn AsRef<_>; 6] = [&"sample", &folder.path(), &"--prompt", &"a cat", &"--out", &out];
    let weights = folder.path().join("unet/diffusion_pytorch_model.safetensors");
    truncate(&weights);
    refuse(1, &["unet/diffusion_pytorch_model.safetensors", "the file ends after", "download it again"], &call);
    // A header of two bytes, which is no object.
    fs::write(&weights, b"\x02\0\0\0\0\0\0\0[]").unwrap();
    refuse(1, &["unet/diffusion_pytorch_model.safetensors", "not a valid safetensors file"], &call);
    fs::write(&weights, "<!DOCTYPE html>").unwrap();
    refuse(1, &["unet/diffusion_pytorch_model.safetensors", "this is a web page in place of the file"], &call);
    fs::remove_file(&weights).unwrap();
    refuse(1, &["unet/diffusion_pytorch_model.safetensors", "no such file"], &call);
    fs::write(folder.path().join("unet/config.json"), "{").unwrap();
    refuse(1, &["unet", "config.json"], &call);
    fs::remove_file(folder.path().join("model_index.json")).unwrap();
    refuse(1, &["model_index.json", "no such file"], &call);
    assert!(!out.exists());
}

#[test]
fn a_path_that_cannot_be_used_is_refused_before_anything_is_loaded() {
    let folder = TempDir::new().unwrap();
    let (model, out) = (emoji64(), folder.path().join("out.png"));
    let file = folder.path().join("file");
    fs::write(&file, "kept").unwrap();
    let sample = |out: &Path, words: &[&str]| {
        refuse(1, words, &[&"sample", &model, &"--prompt", &"a cat", &"--out", &out]);
        let ran = undiffuse(&[&"sample", &model, &"--prompt", &"a cat", &"--out", &out]);
        assert!(!ran.stderr.contains("loaded"), "{}", ran.stderr);
    };
    sample(&folder.path().join("none/out.png"), &["none/out.png", "does not exist"]);
    sample(&file.join("out.png"), &["file/out.png", "does not exist"]);
    sample(folder.path(), &["this is a folder"]);
    let trace = folder.path().join("none/trace.safetensors");
    let call: [&dyn AsRef<_>; 8] = [&"sample", &model, &"--prompt", &"a cat", &"--out", &out, &"--trace", &trace];
    refuse(1, &["none/trace.safetensors", "does not exist"], &call);
    let call: [&dyn AsRef<_>; 8] = [&"sample", &model, &"--prompt", &"a cat", &"--out", &out, &"--trace", &out];
    refuse(1, &["out.png", "the same file"], &call);
    let missing = folder.path().join("missing");
    refuse(1, &["missing", "no such folder or file"], &[&"sample", &missing, &"--prompt", &"a cat", &"--out", &out]);
    refuse(1, &["missing"], &[&"schedule", &missing]);
    refuse(1, &["missing", "no such folder"], &[&"inspect", &missing]);
    refuse(1, &["model_index.json", "config.json"], &[&"inspect", &folder.path()]);
    refuse(1, &["scheduler_config.json"], &[&"schedule", &folder.path()]);
    assert_eq!(names(folder.path()), ["file"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), "kept");
}

#[test]
fn an_option_out_of_range_is_refused_by_name() {
    let folder = TempDir::new().unwrap();
    let (model, out) = (emoji64(), folder.path().join("out.png"));
    let sample = |code: i32, words: &[&str], option: &str, value: &str| {
        let call: [&dyn AsRef<_>; 8] = [&"sample", &model, &"--prompt", &"a cat", &"--out", &out, &option, &value];
        refuse(code, words, &call);
    };
    sample(2, &["--solver", "eulr", "euler_ancestral"], "--solver", "eulr");
    sample(2, &["--steps", "at least one step"], "--steps", "0");
    sample(2, &["--seed", "-2", "from 0 to 18446744073709551615, or `random`"], "--seed", "-2");
    // Not one of these is taken for an option.
    sample(2, &["--noise-level", "-5"], "--noise-level", "-5");
    sample(2, &["--original-size", "two whole numbers"], "--original-size", "-5,3");
    sample(2, &["--seeds", "-7", "from 0 to"], "--seeds", "1,-7");
    sample(2, &["a value is required for '--negative-prompt <TEXT>'"], "--negative-prompt", "--eta=1");
    sample(2, &["--device", "tpu", "auto, gpu, cpu"], "--device", "tpu");
    sample(1, &["error: --steps is 1001: ", "1 to 1000"], "--steps", "1001");
    sample(1, &["--eta is 2: ", "from 0 to 1"], "--eta", "2");
    sample(1, &["--guidance-scale is NaN"], "--guidance-scale", "NaN");
    sample(1, &["--height is 63", "multiple of 4"], "--height", "63");
    sample(1, &["scheduler/none.json"], "--scheduler", "scheduler/none.json");
    sample(1, &["unet/none.gguf", "there is no such file"], "--unet", "unet/none.gguf");
    sample(1, &["--prediction-type is epsilon", "checkpoints in one file"], "--prediction-type", "epsilon");
    refuse(1, &["emoji64", "--prompt"], &[&"sample", &model, &"--out", &out]);
    refuse(2, &["--out"], &[&"sample", &model]);
    refuse(2, &["--steps", "ten"], &[&"schedule", &model, &"--steps", &"ten"]);
    assert!(!out.exists());
}

#[test]
fn a_text_may_begin_with_a_hyphen_and_any_seed_is_said_and_recorded() {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("out.png");
    let ran = undiffuse(&[
        &"sample",
        &emoji64(),
        &"--prompt",
        &"-5 degrees",
        &"--negative-prompt",
        &"--hot --",
        &"--steps",
        &"1",
        &"--seed",
        &"random",
        &"--out",
        &out,
    ]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let made: Value = serde_json::from_str(&texts(&fs::read(&out).unwrap())["undiffuse"]).unwrap();
    assert_eq!((&made["prompt"], &made["negativePrompt"]), (&"-5 degrees".into(), &"--hot --".into()));
    let seed = ran.stderr.lines().find_map(|line| line.strip_prefix("seed: ")).expect("the seed is said");
    assert_eq!(made["seed"], seed);
    let ran =
        undiffuse(&[&"sample", &emoji64(), &"--prompt", &"a cat", &"--steps", &"1", &"--seed", &"-1", &"--out", &out]);
    assert!(ran.code == Some(0) && ran.stderr.contains("seed: "), "{}", ran.stderr);
    assert!(!ran.stderr.contains(&format!("seed: {seed}\n")), "the same seed twice");
    let ran = undiffuse(&[&"sample", &emoji64(), &"--prompt", &"a cat", &"--steps", &"1", &"--out", &out]);
    assert!(!ran.stderr.contains("seed: "), "one that was given need not be said\n{}", ran.stderr);
}

#[test]
fn the_help_names_every_pipeline_and_every_subcommand() {
    let help = succeed(&[&"--help"]);
    let words: Vec<&str> = help.split(|c: char| !c.is_ascii_alphanumeric()).collect();
    for class in undiffuse::pipeline::pipeline_classes() {
        assert!(words.contains(&class), "no {class}\n{help}");
    }
    for subcommand in ["sample", "bound", "noise", "fid", "forward", "schedule", "inspect", "quantize"] {
        assert!(help.contains(&format!("\n  {subcommand} ")), "no {subcommand}\n{help}");
    }
}

/// Puts `value` at `key` of a JSON file.
fn edit(file: &Path, key: &str, value: Value) {
    let mut json: Value = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    json[key] = value;
    fs::write(file, json.to_string()).unwrap();
}

#[test]
fn nothing_in_a_checkpoint_is_obeyed_by_the_terminal() {
    const HOSTILE: &str = "\u{1b}]0;title\u{7}\u{1b}[2J\u{9b}31m\nsupported  yes\r\u{202e}\u{2066}";
    let folder = copy_of_emoji64();
    let model = folder.path();
    let scheduler = model.join("scheduler/scheduler_config.json");
    let mut reached = 0;
    let mut check = |what: &str| {
        let out = model.join("out.png");
        let calls: [&[&dyn AsRef<std::ffi::OsStr>]; 4] = [
            &[&"inspect", &model],
            &[&"schedule", &model, &"--steps", &"2"],
            &[&"sample", &model, &"--prompt", &"fox", &"--steps", &"1", &"--out", &out],
            &[&"noise", &"tests/pictures/fox.png", &"--model", &model, &"--out", &out],
        ];
        for call in calls {
            let ran = undiffuse(call);
            let said = ran.stdout + &ran.stderr;
            let is_obeyed = |c: char| {
                (c.is_control() && c != '\n') || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
            };
            assert!(!said.contains(is_obeyed), "{what}\n{said:?}");
            assert!(!said.contains("\nsupported  yes\\u000d"), "{what}: a line of its own\n{said}");
            reached += usize::from(said.contains("]0;title"));
        }
    };
    for (file, key, value) in [
        ("scheduler/scheduler_config.json", "_class_name", HOSTILE.into()),
        ("scheduler/scheduler_config.json", "prediction_type", HOSTILE.into()),
        ("scheduler/scheduler_config.json", "beta_schedule", HOSTILE.into()),
        ("model_index.json", "_class_name", HOSTILE.into()),
        ("model_index.json", "_diffusers_version", HOSTILE.into()),
        ("model_index.json", HOSTILE, serde_json::json!([HOSTILE, HOSTILE])),
        ("unet/config.json", "_class_name", HOSTILE.into()),
        ("unet/config.json", "cross_attention_dim", HOSTILE.into()),
        ("unet/config.json", "down_block_types", serde_json::json!([HOSTILE])),
        ("vae/config.json", "act_fn", HOSTILE.into()),
        ("text_encoder/config.json", "hidden_act", HOSTILE.into()),
    ] {
        let file = model.join(file);
        let kept = fs::read(&file).unwrap();
        edit(&file, key, value);
        check(&format!("{}: {key:?}", file.display()));
        fs::write(&file, kept).unwrap();
    }
    let weights = model.join("unet/diffusion_pytorch_model.safetensors");
    if cfg!(unix) {
        let named = model.join("unet").join(HOSTILE.to_owned() + ".safetensors");
        fs::copy(&weights, &named).unwrap();
        check("a file's name");
        fs::remove_file(named).unwrap();
    }
    fs::remove_file(&weights).unwrap();
    let shards = serde_json::json!({ "weight_map": { "conv_in.weight": HOSTILE } });
    fs::write(model.join("unet/diffusion_pytorch_model.safetensors.index.json"), shards.to_string()).unwrap();
    check("a shard's name");
    assert!(scheduler.exists() && reached >= 12, "only {reached} of what was hostile was shown");
    // What is given on the command line comes from elsewhere often enough.
    for arguments in [["schedule", HOSTILE], ["inspect", HOSTILE], ["sample", HOSTILE], [HOSTILE, "x"]] {
        let ran = undiffuse(&[&arguments[0], &arguments[1]]);
        assert!(!(ran.stdout + &ran.stderr).contains(['\u{1b}', '\u{7}', '\u{9b}', '\u{202e}']), "{}", ran.stderr);
    }
}

#[cfg(unix)]
#[test]
fn pipes_and_devices_are_refused_and_not_waited_for() {
    let folder = copy_of_emoji64();
    let model = folder.path();
    let (out, fox) = (model.join("out.png"), repository().join("tests/pictures/fox.png"));
    let pipe = |path: &Path| {
        let _ = fs::remove_file(path);
        assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
    };
    let whole = emoji64();
    for name in ["pipe", "/dev/zero"] {
        let path = match name {
            "pipe" => model.join("pipe.png"),
            device => PathBuf::from(device),
        };
        if name == "pipe" {
            pipe(&path);
        }
        let refused = |arguments: &[&dyn AsRef<std::ffi::OsStr>]| refuse(1, &["pipe or a device"], arguments);
        refused(&[&"sample", &whole, &"--prompt", &"a cat", &"--image", &path, &"--out", &out]);
        refused(&[&"sample", &whole, &"--prompt", &"a cat", &"--image", &fox, &"--mask", &path, &"--out", &out]);
        refused(&[&"sample", &whole, &"--prompt", &"a cat", &"--scheduler", &path, &"--out", &out]);
        refused(&[&"noise", &path, &"--out", &out]);
        refused(&[&"bound", &whole, &path]);
        refused(&[&"schedule", &path]);
        refused(&[&"forward", &whole.join("unet"), &"--inputs", &path, &"--outputs", &out]);
        refused(&[
            &"fid",
            &"--real",
            &repository().join("tests/pictures"),
            &"--generated",
            &whole,
            &"--prompts",
            &path,
        ]);
        refuse(1, &["no such folder or file"], &[&"sample", &path, &"--prompt", &"a cat", &"--out", &out]);
        refuse(1, &["no such folder or file"], &[&"fid", &"--real", &path, &"--generated", &path]);
    }
    // A folder of pictures with a pipe among them.
    refuse(1, &["pipe.png", "pipe or a device"], &[&"bound", &whole, &model]);
    for file in ["unet/diffusion_pytorch_model.safetensors", "unet/config.json", "tokenizer/vocab.json"] {
        let kept = fs::read(model.join(file)).unwrap();
        pipe(&model.join(file));
        let call: [&dyn AsRef<_>; 6] = [&"sample", &model, &"--prompt", &"a cat", &"--out", &out];
        refuse(1, &[file, "not a regular file"], &call);
        fs::remove_file(model.join(file)).unwrap();
        fs::write(model.join(file), kept).unwrap();
    }
    // What the shell has opened is no name of a pipe.
    let mut reads = command(&[&"noise", &"/dev/stdin", &"--out", &out]);
    let ran = reads.stdin(fs::File::open(&fox).unwrap()).output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
}

#[cfg(unix)]
#[test]
fn names_may_be_long_and_need_not_be_text() {
    use std::os::unix::ffi::OsStrExt;

    let folder = TempDir::new().unwrap();
    let long = folder.path().join("x".repeat(251) + ".png");
    succeed(&[&"noise", &repository().join("tests/pictures/fox.png"), &"--out", &long]);
    assert!(long.exists());
    let too_long = folder.path().join("x".repeat(252) + ".png");
    refuse(1, &["cannot be written"], &[&"noise", &repository().join("tests/pictures/fox.png"), &"--out", &too_long]);
    let model = emoji64();
    let out = folder.path().join(std::ffi::OsStr::from_bytes(b"p\xff.png"));
    let several: [&dyn AsRef<_>; 10] =
        [&"sample", &model, &"--prompt", &"a cat", &"--steps", &"1", &"--num-images-per-prompt", &"2", &"--out", &out];
    let ran = command(&several).output().unwrap();
    let paths: Vec<&[u8]> = ran.stdout.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).collect();
    assert_eq!(paths.len(), 2, "{}", String::from_utf8_lossy(&ran.stderr));
    for (index, path) in paths.into_iter().enumerate() {
        assert!(path.ends_with(&[&b"p\xff-"[..], index.to_string().as_bytes(), b".png"].concat()), "{path:?}");
        assert!(Path::new(std::ffi::OsStr::from_bytes(path)).exists(), "{path:?}");
    }
}

#[test]
fn what_a_killed_run_has_left_is_in_nobodys_way() {
    let folder = TempDir::new().unwrap();
    for left in [".undiffuse-abcdef.part", ".out.png.1.part"] {
        fs::write(folder.path().join(left), "half a picture").unwrap();
    }
    draw(&folder, "1", &[]);
    assert_eq!(names(folder.path()), [".out.png.1.part", "out.png"]);
}

#[test]
fn every_subcommand_explains_itself() {
    for (subcommand, words) in [
        (
            "sample",
            &["--negative-prompt", "--guidance-scale", "dpmpp_2m", "latents_after_step", "[default: 7.5]", "x-0.png"][..],
        ),
        ("forward", &["encoder_hidden_states", "decode/in", "pooler_output", "--weights"]),
        ("noise", &["--timesteps", "scaled_linear", "--start-timestep", "--predict"]),
        ("schedule", &["--json", "x_{t-1}", "--eta"]),
        ("inspect", &["model_index.json"]),
    ] {
        let help = succeed(&[&subcommand, &"--help"]);
        for word in words {
            assert!(help.contains(word), "no {word:?} in the help of {subcommand}\n{help}");
        }
    }
    assert_eq!(succeed(&[&"--version"]), format!("undiffuse {}\n", env!("CARGO_PKG_VERSION")));
    assert_eq!(undiffuse(&[]).code, Some(2), "no subcommand is no command");
}
