//! `undiffuse quantize`: what it writes, what it leaves out, how it refuses.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::common::command::{emoji64, names, network, refuse, succeed, undiffuse};
use pollster::block_on;
use safetensors::SafeTensors;
use safetensors::tensor::{TensorView, serialize};
use tempfile::TempDir;
use undiffuse::weights::{self, DirectorySource, Encoding, Gather, TensorFile, TensorInfo};

/// Name, shape and values of a tensor to be stored.
type Given<'a> = (&'a str, &'a [usize], &'a [f32]);

type Tensors = BTreeMap<String, (Encoding, Vec<usize>, Vec<f32>)>;

/// The tensors of a file, safetensors or GGUF.
fn tensors(file: &Path) -> Tensors {
    let source = DirectorySource::new(file.parent().unwrap());
    let file = block_on(TensorFile::open(&source, &crate::common::name_of(file))).unwrap();
    let mut tensors = Tensors::new();
    let mut gather = Gather::new(|tensor: &TensorInfo, bytes: &[u8]| -> Result<(), weights::Error> {
        tensors.insert(tensor.name.clone(), (tensor.dtype, tensor.shape.clone(), tensor.to_f32(bytes)?));
        Ok(())
    });
    block_on(file.stream(&mut |_| {}, &|tensor| tensor.dtype.is_weight(), &mut gather)).unwrap();
    tensors
}

/// Writes a safetensors file of f32 tensors.
fn write(file: &Path, tensors: &[Given]) {
    let bytes: Vec<Vec<u8>> =
        tensors.iter().map(|(.., data)| data.iter().flat_map(|v| v.to_le_bytes()).collect()).collect();
    let views = tensors.iter().zip(&bytes).map(|((name, shape, _), bytes)| {
        (*name, TensorView::new(safetensors::Dtype::F32, shape.to_vec(), bytes).unwrap())
    });
    fs::write(file, serialize(views, None).unwrap()).unwrap();
}

/// A folder of one network with the given files beside its config.
fn folder(files: &[(&str, &[Given])]) -> (TempDir, PathBuf) {
    let temporary = TempDir::new().unwrap();
    let unet = temporary.path().join("unet");
    fs::create_dir(&unet).unwrap();
    fs::write(unet.join("config.json"), "{}").unwrap();
    files.iter().for_each(|(name, tensors)| write(&unet.join(name), tensors));
    (temporary, unet)
}

#[test]
fn a_checkpoint_is_copied_with_its_linear_layers_in_blocks() {
    let temporary = TempDir::new().unwrap();
    let out = temporary.path().join("small");
    let printed = succeed(&[&"quantize", &emoji64(), &"--to", &"q8_0", &"--out", &out]);
    assert_eq!(printed, format!("{}\n", out.display()), "stdout holds the path and nothing else");
    assert_eq!(names(temporary.path()), ["small"], "nothing is left beside it");
    assert_eq!(
        names(&out),
        ["README.md", "model_index.json", "samples", "scheduler", "text_encoder", "tokenizer", "unet", "vae"]
    );
    assert_eq!(names(&out.join("unet")), ["config.json", "diffusion_pytorch_model.gguf"]);
    assert_eq!(names(&out.join("tokenizer")), names(&emoji64().join("tokenizer")));

    let inspected = succeed(&[&"inspect", &out]);
    for words in ["2,250,752 Q8_0", "supported     yes"] {
        assert!(inspected.contains(words), "no {words:?} in\n{inspected}");
    }
    for file in ["unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model", "text_encoder/model"] {
        let before = tensors(&emoji64().join(format!("{file}.safetensors")));
        let after = tensors(&out.join(format!("{file}.gguf")));
        assert!(before.keys().eq(after.keys()), "{file}: the tensors are the same");
        let mut in_blocks = 0;
        for (name, (dtype, shape, values)) in &after {
            let (_, shape_before, values_before) = &before[name];
            assert_eq!(shape, shape_before, "{file} {name}");
            let linear = shape.len() == 2 && shape[1] % 32 == 0 && !name.contains("embedding.weight");
            let expected = if linear {
                Encoding::Q8_0
            } else if shape.len() == 1 {
                Encoding::F32
            } else {
                Encoding::F16
            };
            assert_eq!(*dtype, expected, "{file} {name} of {shape:?}");
            if !linear {
                assert!(values == values_before, "{file} {name}: what is not in blocks is as it was");
                continue;
            }
            in_blocks += 1;
            for (block, before) in values.chunks(32).zip(values_before.chunks(32)) {
                let largest = before.iter().fold(0.0f32, |largest, v| largest.max(v.abs()));
                // Half of a 127th of the largest, and as much as the scale loses as f16.
                let allowed = largest / 254.0 + largest / 2048.0;
                for (value, before) in block.iter().zip(before) {
                    assert!((value - before).abs() <= allowed, "{file} {name}: {before} became {value}");
                }
            }
        }
        // The VAE of emoji64 has one attention layer.
        assert!(in_blocks >= 4, "{file}: {in_blocks} tensors in blocks");
    }
}

#[test]
fn the_copy_draws_the_picture_of_the_original() {
    let temporary = TempDir::new().unwrap();
    let copy = |format: &str| {
        let out = temporary.path().join(format);
        succeed(&[&"quantize", &emoji64(), &"--to", &format, &"--out", &out]);
        out
    };
    let draw = |model: &Path| {
        let (out, trace) = (temporary.path().join("out.png"), temporary.path().join("run.safetensors"));
        let options = [
            "--prompt",
            "fox, noto style",
            "--seed",
            "7",
            "--steps",
            "6",
            "--solver",
            "dpmpp_2m",
            "--guidance-scale",
            "4.5",
        ];
        let mut arguments: Vec<&dyn AsRef<std::ffi::OsStr>> =
            vec![&"sample", &model, &"--out", &out, &"--trace", &trace];
        arguments.extend(options.iter().map(|option| option as &dyn AsRef<_>));
        succeed(&arguments);
        crate::common::read_tensors(&trace).remove("image").unwrap().data
    };
    let expected = draw(&emoji64());
    // emoji64 is stored as f16, so as f16 it is what it was.
    assert!(draw(&copy("f16")) == expected, "nothing was rounded");
    for (format, least) in [("q8_0", 50.0), ("q4_0", 30.0)] {
        let picture = draw(&copy(format));
        let squares = picture.iter().zip(&expected).map(|(a, b)| f64::from(a - b).powi(2));
        let psnr = -10.0 * (squares.sum::<f64>() / expected.len() as f64).log10();
        println!("{format}: {psnr:.1} dB");
        assert!(
            (least..80.0).contains(&psnr),
            "{format}: {psnr:.1} dB, expected at least {least} and a trace of rounding"
        );
    }
}

#[test]
fn every_format_is_written_and_its_size_is_what_help_says() {
    let temporary = TempDir::new().unwrap();
    let unet = temporary.path().join("unet");
    fs::create_dir(&unet).unwrap();
    fs::write(unet.join("config.json"), "{}").unwrap();
    let values: Vec<f32> = (0..64 * 256).map(|i| (i as f32 * 0.37).sin()).collect();
    write(&unet.join("diffusion_pytorch_model.safetensors"), &[("to_q.weight", &[64, 256], &values)]);
    for (format, bits) in [("f16", 16.0), ("q8_0", 8.5), ("q5_1", 6.0), ("q5_0", 5.5), ("q4_1", 5.0), ("q4_0", 4.5)] {
        let printed = succeed(&[&"quantize", &unet, &"--to", &format]);
        let out = temporary.path().join(format!("unet-{format}"));
        assert_eq!(printed, format!("{}\n", out.display()), "beside the original unless told otherwise");
        let file = out.join("diffusion_pytorch_model.gguf");
        let read = tensors(&file);
        assert_eq!(read["to_q.weight"].0.name(), format.to_uppercase());
        let length = fs::metadata(&file).unwrap().len() as f64;
        let expected = 64.0 * 256.0 * bits / 8.0;
        assert!((expected..expected + 400.0).contains(&length), "{format}: {length} bytes for {expected}");
    }
}

#[test]
fn shards_and_variants_are_found() {
    let (a, b): (&[f32], &[f32]) = (&[1.0; 64], &[2.0; 64]);
    let (shard_a, shard_b) = (("a.weight", &[2, 32][..], a), ("b.weight", &[2, 32][..], b));
    let shards = [
        ("diffusion_pytorch_model.fp16-00002-of-00002.safetensors", &[shard_b][..]),
        ("diffusion_pytorch_model.fp16-00001-of-00002.safetensors", &[shard_a]),
    ];
    let (temporary, unet) = folder(&shards);
    fs::write(unet.join("diffusion_pytorch_model.safetensors.index.fp16.json"), "{}").unwrap();
    succeed(&[&"quantize", &unet, &"--to", &"q4_0"]);
    let out = temporary.path().join("unet-q4_0");
    assert_eq!(
        names(&out),
        ["config.json", "diffusion_pytorch_model.gguf"],
        "an index of shards is of no use any more"
    );
    let both = tensors(&out.join("diffusion_pytorch_model.gguf"));
    assert_eq!((&both["a.weight"].2[..], &both["b.weight"].2[..]), (a, b));

    // The file without a variant is preferred.
    write(&unet.join("diffusion_pytorch_model.safetensors"), &[("whole.weight", &[1, 32], &[3.0; 32])]);
    write(&unet.join("sd-pruned.safetensors"), &[("other.weight", &[1, 32], &[3.0; 32])]);
    succeed(&[&"quantize", &unet, &"--to", &"q4_1"]);
    let whole = tensors(&temporary.path().join("unet-q4_1/diffusion_pytorch_model.gguf"));
    assert_eq!(whole.keys().collect::<Vec<_>>(), ["whole.weight"]);

    fs::remove_file(unet.join("diffusion_pytorch_model.safetensors")).unwrap();
    fs::remove_file(unet.join(shards[1].0)).unwrap();
    refuse(1, &["shard 1 of 2 of diffusion_pytorch_model.fp16 is missing"], &[&"quantize", &unet, &"--to", &"f16"]);
}

#[test]
fn one_file_becomes_one_file() {
    let (temporary, unet) = folder(&[("v1.5.safetensors", &[("a.weight", &[1, 32], &[0.5; 32])])]);
    let printed = succeed(&[&"quantize", &unet.join("v1.5.safetensors"), &"--to", &"q5_1"]);
    let out = unet.join("v1.5-q5_1.gguf");
    assert_eq!(printed, format!("{}\n", out.display()));
    assert_eq!(tensors(&out)["a.weight"], (Encoding::Q5_1, vec![1, 32], vec![0.5; 32]));

    // What the file says of its model goes along.
    let bytes = [0; 128];
    let tensor = || [("a.weight", TensorView::new(safetensors::Dtype::F32, vec![1, 32], &bytes).unwrap())];
    let said = [("modelspec.prediction_type", "epsilon"), ("format", "pt")].map(|(k, v)| (k.to_owned(), v.to_owned()));
    fs::write(unet.join("v2.safetensors"), serialize(tensor(), Some(said.into())).unwrap()).unwrap();
    succeed(&[&"quantize", &unet.join("v2.safetensors"), &"--to", &"q8_0"]);
    let file = block_on(TensorFile::open(&DirectorySource::new(&unet), "v2-q8_0.gguf")).unwrap();
    assert_eq!(file.metadata().get("modelspec.prediction_type").map(String::as_str), Some("epsilon"));
    assert_eq!(file.metadata().get("format"), None);
    drop(temporary);
}

#[test]
fn what_f16_cannot_hold_stays_f32_and_what_is_no_weight_is_left_out() {
    let large = [&[1e6][..], &[0.0; 31]].concat();
    let weights = "diffusion_pytorch_model.safetensors";
    let (temporary, unet) =
        folder(&[(weights, &[("a.weight", &[1, 32], &large), ("conv.weight", &[32, 1, 1, 1], &large)])]);
    let bytes = fs::read(unet.join(weights)).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let ids = TensorView::new(safetensors::Dtype::I64, vec![1], &[0; 8]).unwrap();
    let with_ids = file.tensors().into_iter().chain([("position_ids".to_owned(), ids)]);
    fs::write(unet.join(weights), serialize(with_ids, None).unwrap()).unwrap();

    succeed(&[&"quantize", &unet, &"--to", &"q8_0"]);
    let read = tensors(&temporary.path().join("unet-q8_0/diffusion_pytorch_model.gguf"));
    assert_eq!(read.len(), 2);
    assert_eq!(read["a.weight"], (Encoding::F32, vec![1, 32], large.clone()));
    assert_eq!(read["conv.weight"], (Encoding::F32, vec![32, 1, 1, 1], large));
}

#[test]
fn a_refusal_says_why_and_leaves_nothing_behind() {
    let weights = "diffusion_pytorch_model.safetensors";
    let (temporary, unet) = folder(&[(weights, &[("a.weight", &[1, 32], &[0.5; 32]), ("b", &[1], &[f32::NAN])])]);
    let quantize = |words: &[&str], more: &[&dyn AsRef<std::ffi::OsStr>]| {
        let arguments: Vec<&dyn AsRef<std::ffi::OsStr>> = [&[&"quantize", &unet as &dyn AsRef<_>], more].concat();
        refuse(1, words, &arguments);
        assert_eq!(names(temporary.path()), ["unet"], "nothing is left behind");
    };
    quantize(&["unet", weights, "tensor \"b\"", "not finite"], &[&"--to", &"q8_0"]);
    quantize(&["it exists already", "--out"], &[&"--to", &"q8_0", &"--out", &unet]);
    let nowhere = temporary.path().join("no/where");
    quantize(&["no/where", "does not exist; create it first"], &[&"--to", &"q8_0", &"--out", &nowhere]);
    quantize(&["this is no name"], &[&"--to", &"q8_0", &"--out", &"/"]);

    let whole = fs::read(unet.join(weights)).unwrap();
    fs::write(unet.join(weights), &whole[..whole.len() - 5]).unwrap();
    quantize(&[weights, "ends after"], &[&"--to", &"q8_0"]);
    fs::remove_file(unet.join(weights)).unwrap();
    fs::write(unet.join("diffusion_pytorch_model.bin"), "").unwrap();
    quantize(&["unet", "no weights in safetensors files", "save_pretrained"], &[&"--to", &"q8_0"]);
    fs::remove_file(unet.join("config.json")).unwrap();
    quantize(&["no model_index.json", "no config.json"], &[&"--to", &"q8_0"]);
    fs::write(unet.join("model_index.json"), "{}").unwrap();
    quantize(&["it holds no weights in safetensors files"], &[&"--to", &"q8_0"]);

    refuse(1, &["no such folder or file"], &[&"quantize", &unet.join("nothing"), &"--to", &"q8_0"]);
    refuse(2, &["q2_k", "q8_0", "q4_0", "f16"], &[&"quantize", &unet, &"--to", &"q2_k"]);
    refuse(2, &["--to"], &[&"quantize", &unet]);
}

/// A safetensors file of many matrices of zeros, of which the disk has to hold none, and which takes seconds to go through.
#[cfg(unix)]
fn large(path: &Path) {
    const SIDE: usize = 4096;
    const COUNT: usize = 64;
    let bytes = 4 * SIDE * SIDE;
    let entry = |i: usize| {
        let (start, end) = (i * bytes, (i + 1) * bytes);
        format!(r#""{i}.weight":{{"dtype":"F32","shape":[{SIDE},{SIDE}],"data_offsets":[{start},{end}]}}"#)
    };
    let header = format!("{{{}}}", (0..COUNT).map(entry).collect::<Vec<_>>().join(","));
    fs::write(path, [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat()).unwrap();
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len((8 + header.len() + COUNT * bytes) as u64).unwrap();
}

#[cfg(unix)]
#[test]
fn a_signal_ends_it_and_nothing_is_left() {
    use std::os::unix::process::ExitStatusExt;
    use std::time::{Duration, Instant};

    let temporary = TempDir::new().unwrap();
    let model = temporary.path().join("large.safetensors");
    large(&model);
    for (name, number) in [("INT", 2), ("TERM", 15), ("HUP", 1)] {
        let mut child = crate::common::command::command(&[&"quantize", &model, &"--to", &"q4_0"]).spawn().unwrap();
        let start = Instant::now();
        while names(temporary.path()).len() < 2 {
            assert!(start.elapsed() < Duration::from_secs(60), "it never began");
            assert!(child.try_wait().unwrap().is_none(), "it ended before it was to be ended");
        }
        let sent = std::process::Command::new("kill").args(["-s", name, &child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        let status = child.wait().unwrap();
        assert_eq!(status.signal(), Some(number), "SIG{name}: {status}");
        assert_eq!(names(temporary.path()), ["large.safetensors"], "SIG{name}");
    }
}

#[test]
fn it_says_how_much_each_file_shrank() {
    let temporary = TempDir::new().unwrap();
    let out = temporary.path().join("unet");
    let ran = undiffuse(&[&"quantize", &network("unet_sd2_like"), &"--to", &"q8_0", &"--out", &out]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let line = ran.stderr.lines().find(|line| line.starts_with("diffusion_pytorch_model.gguf: ")).expect("a summary");
    for word in [" → ", " Q8_0", " F16", " F32"] {
        assert!(line.contains(word), "no {word:?} in {line:?}");
    }
}
