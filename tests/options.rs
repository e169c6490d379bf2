//! Options that a model does not take, refused before its weights are read, each with a sentence that says why.

use std::fmt::Debug;

use crate::common::reference;
use pollster::block_on;
use serde_json::{Map, Value, json};
use undiffuse::pipeline::spec::{Described, Field, Kind, described, with_names};
use undiffuse::pipeline::{
    self, BoundOptions, Checkpoint, ForwardOptions, LongPrompts, OpenOptions, Rgba, SampleOptions, Scheduler, Text,
    Timesteps, camel_case,
};
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

/// What a caller may write for an option of a kind, and what is of no kind that there is.
fn values(kind: Kind) -> Vec<Value> {
    match kind {
        Kind::Text => vec![json!("a")],
        Kind::Texts => vec![json!("a"), json!(["a", "b"])],
        Kind::Seed => vec![json!(7), json!("18446744073709551615")],
        Kind::Seeds => vec![json!([7, "18446744073709551615"])],
        Kind::Steps | Kind::Count | Kind::Whole => vec![json!(3)],
        Kind::Wholes => vec![json!([3, 1])],
        Kind::Number => vec![json!(0.5), json!(2), json!("inf")],
        Kind::Numbers => vec![json!([2, 0.5, "-Infinity"])],
        Kind::Pair(_) => vec![json!([2, 3])],
        Kind::Flag | Kind::Setting => vec![json!(true), json!(false)],
        Kind::Choice(names) => names.iter().map(|(name, _)| json!(name)).collect(),
        Kind::Name(such_as) => such_as.iter().map(|name| json!(name)).collect(),
        Kind::Solver => vec![json!("ddim"), json!("DPM++ 2M Karras")],
        Kind::Config => vec![json!({ "_class_name": "DDIMScheduler", "sample_max_value": 2.5 })],
        Kind::Picture | Kind::Pictures => vec![],
    }
}

/// Checks that a record reads every option that it describes, its default too, and no other type of value.
fn check_reader<T: Default + PartialEq + Debug>(
    fields: &[Field],
    read: impl Fn(Map<String, Value>) -> Result<T, pipeline::Error>,
) {
    let options = described(fields);
    let alone = |option: &Described, value: Value| {
        // One option means nothing without the other.
        let beside = (option.name == "random").then(|| ("terms".to_owned(), json!(4)));
        read(Map::from_iter([(camel_case(option.name), value)].into_iter().chain(beside)))
    };
    for option in &options {
        for value in values(option.spec.kind) {
            let read = alone(option, value.clone()).unwrap_or_else(|e| panic!("{} of {value}: {e}", option.name));
            let default = option.default.as_ref().map(|json| serde_json::from_str::<Value>(json).unwrap());
            if option.name != "random" {
                assert_eq!(
                    read == T::default(),
                    default == Some(value.clone()),
                    "{} of {value}: {read:?}",
                    option.name
                );
            }
        }
        if !matches!(option.spec.kind, Kind::Picture | Kind::Pictures) {
            let wrong = json!({ "no": ["such", "value"] });
            let error = alone(option, wrong).expect_err(option.name).to_string();
            assert!(error.contains(option.name) || option.spec.kind == Kind::Config, "{}: {error}", option.name);
            assert!(alone(option, Value::Null).is_ok(), "{} of null", option.name);
        }
    }
    let error = read(Map::from_iter([("guidance_scael".to_owned(), json!(1))])).unwrap_err().to_string();
    assert_eq!(error, "`options` is `guidance_scael`: there is no such option");
}

#[test]
fn every_option_that_is_described_is_read() {
    check_reader(SampleOptions::FIELDS, SampleOptions::from_json);
    check_reader(ForwardOptions::FIELDS, ForwardOptions::from_json);
    check_reader(BoundOptions::FIELDS, BoundOptions::from_json);
}

#[test]
fn options_that_are_made_of_several_are_read_together() {
    let read = |json: Value| SampleOptions::from_json(json.as_object().unwrap().clone()).map_err(|e| e.to_string());
    let named = read(json!({ "solver": "DPM++ 2M Karras", "solverOrder": 3 })).unwrap();
    assert_eq!(named.scheduler, Scheduler::Solver(undiffuse::diffusion::Solver::Dpmpp2m));
    assert_eq!((named.solver_keys.use_karras_sigmas, named.solver_keys.solver_order), (Some(true), Some(3)));
    // A spacing that is given takes the place of the name's.
    let given = read(json!({ "solver": "DPM++ 2M Karras", "useBetaSigmas": true })).unwrap().solver_keys;
    assert_eq!((given.use_karras_sigmas, given.use_beta_sigmas), (None, Some(true)));
    let both = read(json!({ "solver": "ddim", "scheduler": { "_class_name": "DDIMScheduler" } }));
    assert_eq!(both.unwrap_err(), "`solver` is ddim: leave it out, or else `scheduler`");
    let bound = |json: Value| BoundOptions::from_json(json.as_object().unwrap().clone()).map_err(|e| e.to_string());
    assert_eq!(bound(json!({ "terms": 4, "random": true })).unwrap().timesteps, Timesteps::Drawn(4));
    assert_eq!(bound(json!({ "terms": 4 })).unwrap().timesteps, Timesteps::Spread(4));
    assert_eq!(bound(json!({ "timesteps": [4, 2] })).unwrap().timesteps, Timesteps::List(vec![4, 2]));
    let both = bound(json!({ "timesteps": [4], "terms": 4 }));
    assert_eq!(both.unwrap_err(), "`terms` is 4: leave it out, or else `timesteps`");
}

#[test]
fn a_description_names_other_options_as_each_face_does() {
    let options = described(SampleOptions::FIELDS);
    let strength = options.iter().find(|option| option.name == "strength").unwrap();
    let words = with_names(&strength.words, &options, &|name| format!("--{name}"));
    assert!(
        words.contains("forgets --image.") && words.contains("if there is a --mask;") && !words.contains('`'),
        "{words}"
    );
    for option in &options {
        assert!(option.words.ends_with('.'), "{}: {}", option.name, option.words);
    }
}
