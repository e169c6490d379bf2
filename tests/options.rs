//! Options that a model does not take, refused before its weights are read, each with a sentence that says why.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::common::reference;
use pollster::block_on;
use undiffuse::pipeline::{Checkpoint, LongPrompts, OpenOptions, Rgba, SampleOptions, Scheduler, Text};
use undiffuse::weights::DirectorySource;

fn open(model: &str) -> Checkpoint {
    let source = DirectorySource::new(reference("pipelines").join("models").join(model));
    block_on(Checkpoint::open(&source, &OpenOptions::default())).expect("the model opens")
}

fn picture(width: usize, height: usize) -> Option<Rgba> {
    Some(Rgba { width, height, pixels: vec![128; 4 * width * height] })
}

fn texts(texts: &[&str]) -> Text {
    texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>().into()
}

/// Changes the options of a run that would be fine.
type Change = fn(&mut SampleOptions);

fn check(model: &str, change: Change) -> Result<(), String> {
    let mut options = SampleOptions { steps: 10, ..SampleOptions::default() };
    change(&mut options);
    open(model).check(&options).map_err(|error| error.to_string())
}

fn refuse(model: &str, cases: &[(Change, &str)]) {
    for (index, (change, expected)) in cases.iter().enumerate() {
        match check(model, *change) {
            Ok(()) => panic!("{model}, case {index} is not refused, expected: {expected}"),
            Err(message) => assert_eq!(message, *expected, "{model}, case {index}"),
        }
    }
}

#[test]
fn what_each_kind_of_model_takes_is_accepted() {
    let cases: [(&str, Change); 8] = [
        ("sd", |_| {}),
        ("sd", |o| (o.image, o.strength) = (picture(64, 64), Some(0.5))),
        ("sd", |o| (o.image, o.mask) = (picture(100, 30), picture(7, 7))),
        ("sd", |o| (o.prompt, o.num_images_per_prompt, o.seeds) = (texts(&["a", "b"]), 2, vec![1, 2, 3, 4])),
        ("sd_inpaint9", |o| (o.image, o.mask) = (picture(64, 64), picture(64, 64))),
        ("sdxl", |o| (o.prompt_2, o.original_size, o.clip_skip) = (Some("b".into()), Some([9, 9]), Some(1))),
        ("lcm", |o| (o.steps, o.original_inference_steps) = (4, Some(30))),
        ("ddpm_uncond", |o| o.num_images_per_prompt = 3),
    ];
    for (index, (model, change)) in cases.into_iter().enumerate() {
        check(model, change).unwrap_or_else(|message| panic!("{model}, case {index}: {message}"));
    }
}

#[test]
fn a_number_out_of_range_is_refused() {
    let guidance = "expected a number from -10000 to 10000, such as 7.5";
    refuse(
        "sd",
        &[
            (|o| o.guidance_scale = f64::NAN, &format!("`guidance_scale` is NaN: {guidance}")),
            (|o| o.guidance_scale = -2e4, &format!("`guidance_scale` is -20000: {guidance}")),
            (|o| o.guidance_rescale = 1.5, "`guidance_rescale` is 1.5: expected a number from 0 to 1, such as 0.7"),
            (
                |o| (o.image, o.strength) = (picture(64, 64), Some(-0.1)),
                "`strength` is -0.1: expected a number from 0 to 1, such as 0.8",
            ),
            (
                |o| (o.image, o.strength) = (picture(64, 64), Some(0.05)),
                "`strength` is 0.05: that leaves none of 10 steps; give more of either",
            ),
            (
                |o| (o.image, o.steps) = (picture(64, 64), 0),
                "`num_inference_steps` is 0: PNDMScheduler takes 1 to 1000 here",
            ),
            (|o| o.width = Some(60), "`width` is 60: expected a multiple of 8 up to 8192"),
            (|o| o.height = Some(0), "`height` is 0: expected a multiple of 8 up to 8192"),
            (|o| o.clip_skip = Some(9), "`clip_skip` is 9: this model's text encoder has 2 layers to skip"),
        ],
    );
}

#[test]
fn a_list_that_fits_no_other_is_refused() {
    refuse(
        "sd",
        &[
            (|o| o.prompt = texts(&[]), "`prompt` is a list of none: give at least one prompt"),
            (
                |o| (o.prompt, o.negative_prompt) = (texts(&["a", "b", "c"]), Some(texts(&["d", "e"]))),
                "`negative_prompt` is a list of 2: expected one text, or one for each of the 3 prompts",
            ),
            (
                |o| (o.prompt, o.long_prompts) = ("a ".repeat(2500).into(), LongPrompts::Chunks),
                "`prompt` is a text of 34 chunks: expected at most 32",
            ),
            (|o| o.seeds = vec![1, 2], "`seeds` is a list of 2: 1 pictures need 1 seeds"),
            (
                |o| o.num_images_per_prompt = 0,
                "`num_images_per_prompt` is 0: that makes 0 pictures; a run draws 1 to 64",
            ),
            (
                |o| (o.prompt, o.num_images_per_prompt) = (texts(&["a", "b"]), 33),
                "`num_images_per_prompt` is 33: that makes 66 pictures; a run draws 1 to 64",
            ),
        ],
    );
}

#[test]
fn an_option_of_other_models_is_refused() {
    refuse(
        "sd",
        &[
            (
                |o| o.prompt_2 = Some("b".into()),
                "`prompt_2` is given: a StableDiffusionPipeline takes no second prompt",
            ),
            (
                |o| o.negative_prompt_2 = Some("b".into()),
                "`negative_prompt_2` is given: a StableDiffusionPipeline takes no second prompt",
            ),
            (
                |o| o.original_size = Some([1, 2]),
                "`original_size` is given: a StableDiffusionPipeline takes no original size",
            ),
            (
                |o| o.target_size = Some([1, 2]),
                "`target_size` is given: a StableDiffusionPipeline takes no target size",
            ),
            (
                |o| o.crops_coords_top_left = [1, 2],
                "`crops_coords_top_left` is given: a StableDiffusionPipeline takes no crop",
            ),
            (|o| o.noise_level = Some(3), "`noise_level` is given: a StableDiffusionPipeline takes no noise level"),
            (
                |o| o.strength = Some(0.5),
                "`strength` is given: it is for image-to-image and inpainting: give `image` too",
            ),
            (|o| o.mask = picture(8, 8), "`mask` is given: it belongs to a picture: give `image` too"),
        ],
    );
    refuse(
        "ddpm_uncond",
        &[
            (|o| o.prompt = "a".into(), "`prompt` is given: a DDPMPipeline takes no prompt"),
            (|o| o.negative_prompt = Some("a".into()), "`negative_prompt` is given: a DDPMPipeline takes no prompt"),
            (|o| o.clip_skip = Some(1), "`clip_skip` is given: a DDPMPipeline takes no prompt"),
            (|o| o.image = picture(16, 16), "`image` is given: a DDPMPipeline takes no picture"),
            (|o| o.mask = picture(16, 16), "`mask` is given: a DDPMPipeline takes no mask"),
        ],
    );
}

#[test]
fn an_inpainting_model_without_a_picture_or_a_mask_says_what_it_needs() {
    let message = "absent: this model fills a part of a picture: give a picture and a mask";
    refuse(
        "sd_inpaint9",
        &[(|_| {}, &format!("`image` is {message}")), (|o| o.image = picture(64, 64), &format!("`mask` is {message}"))],
    );
}

#[test]
fn a_damaged_picture_is_refused() {
    refuse(
        "sd",
        &[
            (
                |o| o.image = Some(Rgba { width: 8, height: 8, pixels: vec![0; 255] }),
                "`image` is 8×8: expected 256 bytes of RGBA, got 255",
            ),
            (|o| o.image = picture(7, 64), "`image` is 7×64: expected sides from 8 to 8192"),
            (
                |o| {
                    o.image = picture(64, 64);
                    o.mask = Some(Rgba { width: 9000, height: 1, pixels: vec![] });
                },
                "`mask` is 9000×1: expected a picture with sides from 1 to 8192",
            ),
        ],
    );
}

#[test]
fn a_scheduler_that_wants_a_learned_variance_of_a_network_without_one_is_refused() {
    let config = r#"{"_class_name": "DDPMScheduler", "variance_type": "learned_range"}"#;
    let config = undiffuse::diffusion::SchedulerConfig::from_json(config).expect("a scheduler");
    let options = SampleOptions { scheduler: Scheduler::Config(Box::new(config)), ..SampleOptions::default() };
    let error = open("ddpm_uncond").check(&options).unwrap_err().to_string();
    let expected = "DDPMScheduler: \"variance_type\" is learned; supported: fixed_small and fixed_large: this network has \
        learned no variance";
    assert_eq!(error, expected);
}

/// What stands in `source` between `start` and the next line that is `}` or ends in it.
fn block<'a>(source: &'a str, start: &str) -> &'a str {
    let (_, rest) = source.split_once(start).unwrap_or_else(|| panic!("no {start}"));
    rest.split("\n}").next().unwrap()
}

/// The names at the beginnings of lines of `block`, in front of `ending`.
fn names_before(block: &str, beginning: &str, ending: &str) -> BTreeSet<String> {
    let names = block.lines().filter_map(|line| line.trim_start().strip_prefix(beginning)?.split_once(ending));
    let names = names.map(|(name, _)| name.trim_end_matches('?').to_owned());
    names.filter(|name| !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_')).collect()
}

/// `guidance_scale` as JavaScript spells it.
fn camel_case(name: &str) -> String {
    let mut words = name.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |name, word| name + &word[..1].to_uppercase() + &word[1..])
}

#[test]
fn every_option_of_a_run_is_known_to_every_face() {
    let read = |path: &str| fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
    let fields = |path: &str, start: &str| names_before(block(&read(path), start), "pub ", ":");
    let mut library = fields("src/pipeline/options.rs", "pub struct SampleOptions {");
    // A solver by its name, and the settings that such a name may say.
    assert!(library.remove("solver_keys") && library.insert("solver".into()));
    library.extend(fields("src/diffusion/names.rs", "pub struct SolverKeys {"));
    assert!(library.len() > 35, "{library:?}");
    let package: BTreeSet<String> = library.iter().map(|name| camel_case(name)).collect();

    let options = read("js/options.js");
    let mut rules = names_before(block(&options, "const SCHEDULE = {"), "", ":");
    rules.extend(names_before(block(&options, "const SAMPLE = {"), "", ":"));
    // JavaScript's own: what ends a run, and whether x_T is the first of its pictures.
    for own in ["signal", "includeInitial"] {
        assert!(rules.remove(own), "{own}");
    }
    assert_eq!(rules, package, "js/options.js");
    let types = read("js/index.d.ts");
    let mut typed = names_before(block(&types, "export interface SampleOptions {"), "", ":");
    typed.retain(|name| !["signal", "includeInitial"].contains(&name.as_str()));
    assert_eq!(typed, package, "js/index.d.ts");

    let web = read("src/web/pipeline.rs");
    let taken = |name: &String| web.contains(&format!("(\"{name}\")")) || web.contains(&format!(" {name}: "));
    let missing: Vec<_> = package.iter().filter(|name| !taken(name)).collect();
    assert!(missing.is_empty(), "src/web/pipeline.rs does not read {missing:?}");
    // A command has no use for pictures on the way.
    library.remove("preview");
    let command = [read("src/cli/sample.rs"), read("src/cli/scheduler.rs")].concat();
    let missing: Vec<_> = library.iter().filter(|name| !command.contains(&format!(" {name}: "))).collect();
    assert!(missing.is_empty(), "the command has no {missing:?}");
}
