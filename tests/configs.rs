//! `config.json` files are bytes from outside: whatever they hold, they end in a network or in a sentence.

use std::path::Path;

use crate::common::{name_of, read_json, read_text, reference};
use proptest::prelude::*;
use serde_json::{Value, json};
use undiffuse::graph::Graph;
use undiffuse::models::{
    AutoencoderKlConfig, AutoencoderTinyConfig, ClipTextConfig, Error, Unet2dConditionConfig, Unet2dConditionInputs,
    Unet2dConfig,
};

/// Builds whatever `json` describes, as each of the classes.
fn build(json: &str) {
    let side = 8;
    let _ = Unet2dConfig::from_json(json).map(|config| config.graph(2, side, side));
    let inputs = Unet2dConditionInputs { batch: 2, height: side, width: side, tokens: 3, timestep_cond: true };
    let _ = Unet2dConditionConfig::from_json(json).map(|config| config.graph(inputs));
    let _ = AutoencoderKlConfig::from_json(json).map(|config| {
        let _ = config.decoder(2, side, side);
        config.encoder(2, side, side)
    });
    let _ = AutoencoderTinyConfig::from_json(json).map(|config| {
        let _ = (config.decoder(2, side, side), config.scale_factor());
        config.encoder(2, side, side)
    });
    let _ = ClipTextConfig::from_json(json).map(|config| (config.graph(2, 3), config.final_layer_norm(2, 3)));
}

fn config_of(folder: &str) -> serde_json::Map<String, Value> {
    let text = read_text(&reference("models").join(folder).join("config.json"));
    serde_json::from_str(&text).expect("a reference config")
}

fn value() -> impl Strategy<Value = Value> {
    let number = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(|b| json!(b)),
        (-2i64..40).prop_map(|n| json!(n)),
        any::<i64>().prop_map(|n| json!(n)),
        any::<f64>().prop_map(|x| json!(x)),
        "[a-z_]{0,12}".prop_map(|s| json!(s)),
        prop_oneof![Just("CrossAttnDownBlock2D"), Just("UpBlock2D"), Just("silu"), Just("scale_shift")]
            .prop_map(|s| json!(s)),
    ];
    number.prop_recursive(2, 12, 6, |inner| prop::collection::vec(inner, 0..6).prop_map(Value::Array))
}

proptest! {
    #[test]
    fn no_text_makes_a_config_parser_panic(text in ".{0,200}") {
        build(&text);
    }

    #[test]
    fn no_value_of_any_key_makes_a_network_panic(
        folder in prop_oneof![
            Just("unet_sd1_like"), Just("unet_sdxl_like"), Just("unet2d_ddpm_cifar_like"), Just("vae_sd_like"),
            Just("clip_text_proj_sdxl2_like"), Just("vae_taesd_like"), Just("unet2d_scale_shift_class"),
        ],
        changes in prop::collection::vec((any::<prop::sample::Index>(), value()), 1..4),
    ) {
        let mut config = config_of(folder);
        for (key, value) in changes {
            let key = key.get(&config.keys().cloned().collect::<Vec<_>>()).clone();
            config.insert(key, value);
        }
        build(&Value::Object(config).to_string());
    }
}

#[test]
fn a_config_with_absurdly_many_layers_is_refused_at_once() {
    let mut config = config_of("unet_sd1_like");
    let blocks = 16;
    config.insert("block_out_channels".into(), json!(vec![64; blocks]));
    config.insert("down_block_types".into(), json!(vec!["CrossAttnDownBlock2D"; blocks]));
    config.insert("up_block_types".into(), json!(vec!["CrossAttnUpBlock2D"; blocks]));
    config.insert("layers_per_block".into(), json!(64));
    config.insert("transformer_layers_per_block".into(), json!(64));
    let config = Unet2dConditionConfig::from_json(&Value::Object(config).to_string()).expect("numbers in range");
    let inputs = Unet2dConditionInputs { batch: 1, height: 64, width: 64, tokens: 1, timestep_cond: false };
    let error = config.graph(inputs).expect_err("no real network is as deep").to_string();
    assert!(error.contains("no real network has so many layers"), "{error}");
}

/// Reads the config in a folder of the reference, changed, as the class that the config names.
fn read_changed(folder: &str, changes: &[(&str, Value)]) -> Result<(), Error> {
    let mut config = config_of(folder);
    let class = config.get("_class_name").and_then(Value::as_str).unwrap_or("CLIPTextModel").to_owned();
    changes.iter().for_each(|(key, value)| drop(config.insert((*key).into(), value.clone())));
    let json = Value::Object(config).to_string();
    match &class[..] {
        "UNet2DModel" => Unet2dConfig::from_json(&json).map(drop),
        "UNet2DConditionModel" => Unet2dConditionConfig::from_json(&json).map(drop),
        "AutoencoderKL" => AutoencoderKlConfig::from_json(&json).map(drop),
        "AutoencoderTiny" => AutoencoderTinyConfig::from_json(&json).map(drop),
        _ => ClipTextConfig::from_json(&json).map(drop),
    }
}

#[test]
fn a_value_that_is_not_implemented_is_refused_by_name() {
    for (folder, key, value) in [
        ("unet_sd1_like", "downsample_padding", json!(2)),
        ("unet_sd1_like", "mid_block_type", json!("UNetMidBlock2DSimpleCrossAttn")),
        ("unet_sd1_like", "a_switch_from_the_future", json!(true)),
        ("unet_sd1_like", "conv_in_kernel", json!(65)),
        ("unet_sd1_like", "attention_type", json!("gated")),
        ("unet_sd1_like", "time_embedding_type", json!("fourier")),
        ("unet_sd1_like", "encoder_hid_dim_type", json!("text_proj")),
        ("unet_sd1_like", "addition_embed_type", json!("text_image")),
        ("unet_sd1_like", "class_embed_type", json!("fourier")),
        ("unet_sd1_like", "timestep_post_act", json!("snake")),
        ("unet_sd1_like", "cross_attention_norm", json!("layer_norm")),
        ("unet_sd1_like", "dual_cross_attention", json!(true)),
        ("unet_sd1_like", "resnet_time_scale_shift", json!("ada_group")),
        ("unet2d_scale_shift_class", "downsample_type", json!("kernel")),
        ("unet2d_scale_shift_class", "upsample_type", json!("kernel")),
        ("unet2d_scale_shift_class", "class_embed_type", json!("projection")),
        ("unet2d_scale_shift_class", "time_embedding_type", json!("fourier")),
        ("unet2d_scale_shift_class", "_class_name", json!("UNet1DModel")),
        ("vae_sd_like", "_class_name", json!("AutoencoderKLTemporalDecoder")),
        ("vae_sd_like", "layers_per_block", json!(65)),
        ("vae_sd_like", "latents_mean", json!([0.0, 0.0, 0.0, 0.0])),
        ("vae_taesd_like", "upsample_fn", json!("bilinear")),
        ("vae_taesd_like", "upsampling_scaling_factor", json!(17)),
        ("vae_taesd_like", "a_switch_from_the_future", json!(true)),
        ("clip_text_proj_sdxl2_like", "architectures", json!(["CLIPVisionModel"])),
        ("clip_text_proj_sdxl2_like", "hidden_act", json!("snake")),
    ] {
        let error = read_changed(folder, &[(key, value)]).expect_err(key);
        assert!(matches!(&error, Error::Unsupported { key: named, .. } if named == key), "{key}: {error}");
    }
}

#[test]
fn numbers_that_make_no_network_are_refused_by_name() {
    for (folder, key, value, message) in [
        ("unet_x4_upscaler_like", "num_class_embeds", json!(0), "`num_class_embeds` is 0"),
        ("unet_class_projection", "projection_class_embeddings_input_dim", json!(null), "input_dim` is missing"),
        ("unet_sdxl_like", "projection_class_embeddings_input_dim", json!(24), "no room for the pooled text"),
        ("unet_sdxl_like", "addition_time_embed_dim", json!(null), "`addition_time_embed_dim` is missing"),
        ("vae_taesd_like", "num_decoder_blocks", json!([1, 1]), "`num_decoder_blocks` has 2 entries for 4 blocks"),
        ("vae_taesd_like", "scaling_factor", json!(0), "`scaling_factor` is 0"),
        ("clip_text_proj_sdxl2_like", "projection_dim", json!(0), "`projection_dim` is 0"),
        ("clip_text_proj_sdxl2_like", "layer_norm_eps", json!(-1e39), "which is more than an f32 can be"),
        ("unet_sd1_like", "norm_eps", json!(1e308), "which is more than an f32 can be"),
    ] {
        let error = read_changed(folder, &[(key, value)]).expect_err(key).to_string();
        assert!(error.contains(message), "{key}: {error}");
    }
}

#[test]
fn the_length_of_the_pooled_text_tells_how_many_numbers_go_with_it() {
    let text = read_text(&published("stable-diffusion-xl-refiner-1.0.unet.json"));
    let mut config = Unet2dConditionConfig::from_json(&text).expect("a published config");
    assert_eq!(config.time_ids(), 6);
    config.set_text_embeds(1280).expect("the width of the refiner's text encoder");
    assert_eq!(config.time_ids(), 5);
    let error = config.set_text_embeds(1000).expect_err("1560 is no multiple of 256").to_string();
    assert!(error.contains("is 2560, which is not 1000 numbers of pooled text and some times 256"), "{error}");
    assert!(config.set_text_embeds(2560).is_err());
    let text = read_text(&published("stable-diffusion-v1-5.unet.json"));
    let mut config = Unet2dConditionConfig::from_json(&text).expect("a published config");
    assert_eq!(config.time_ids(), 0);
    let error = config.set_text_embeds(1280).expect_err("no pooled text").to_string();
    assert!(error.contains("takes no `text_embeds`"), "{error}");
}

fn published(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/published").join(name)
}

/// Parameters of all weights of `graphs`, and of tables with these sides.
fn parameters(graphs: &[Graph], tables: &[[usize; 2]]) -> usize {
    let weights = graphs.iter().flat_map(|graph| graph.weights()).map(|spec| spec.shape.iter().product::<usize>());
    weights.chain(tables.iter().map(|[rows, columns]| rows * columns)).sum()
}

#[test]
fn published_configs_make_networks_of_the_published_sizes() {
    // Of SSD-1B, the upscaler and the refiner only rounded numbers are published: 1.3 G, 473 M and 55.3 M, 2.3 G.
    let expected = [
        ("bk-sdm-base.unet", 579_384_964_usize),
        ("bk-sdm-small.unet", 482_346_884),
        ("bk-sdm-tiny.unet", 323_384_964),
        ("ddpm-celebahq-256.unet", 113_673_219),
        ("ddpm-cifar10-32.unet", 35_746_307),
        ("lcm-dreamshaper-v7.unet", 859_602_884),
        ("sd-vae-ft-mse.vae", 83_653_863),
        ("sdxl-turbo.unet", 2_567_463_684_usize),
        ("sdxl-vae.vae", 83_653_863),
        ("ssd-1b.unet", 1_331_334_404),
        ("stable-diffusion-2-1.text_encoder", 340_387_840),
        ("stable-diffusion-2-1.unet", 865_910_724),
        ("stable-diffusion-inpainting.unet", 859_535_364),
        ("stable-diffusion-v1-5-resaved.vae", 83_653_863),
        ("stable-diffusion-v1-5.text_encoder", 123_060_480),
        ("stable-diffusion-v1-5.unet", 859_520_964),
        ("stable-diffusion-x4-upscaler.unet", 473_398_020),
        ("stable-diffusion-x4-upscaler.vae", 55_325_927),
        ("stable-diffusion-xl-base-1.0.text_encoder_2", 694_659_840),
        ("stable-diffusion-xl-base-1.0.unet", 2_567_463_684_usize),
        ("stable-diffusion-xl-refiner-1.0.unet", 2_259_526_660_usize),
        ("taesd.vae", 2_445_063),
    ];
    let mut names: Vec<_> =
        std::fs::read_dir(published("")).expect("a folder").map(|e| name_of(&e.unwrap().path())).collect();
    names.sort();
    assert_eq!(names, expected.map(|(name, _)| format!("{name}.json")));
    for (name, expected) in expected {
        let path = published(&format!("{name}.json"));
        let (json, config) = (read_text(&path), read_json(&path));
        let class = config["_class_name"].as_str().or_else(|| config["architectures"][0].as_str());
        let found = match class.expect("a class") {
            "UNet2DModel" => {
                let config = Unet2dConfig::from_json(&json).expect(name);
                parameters(&[config.graph(1, 64, 64).expect(name)], &[])
            }
            "UNet2DConditionModel" => {
                let mut config = Unet2dConditionConfig::from_json(&json).expect(name);
                if config.time_ids() > 0 {
                    config.set_text_embeds(1280).expect(name);
                }
                let timestep_cond = config.time_cond_proj_dim.is_some();
                let inputs = Unet2dConditionInputs { batch: 1, height: 64, width: 64, tokens: 1, timestep_cond };
                parameters(&[config.graph(inputs).expect(name)], config.class_embedding().as_slice())
            }
            "AutoencoderKL" => {
                let config = AutoencoderKlConfig::from_json(&json).expect(name);
                parameters(&[config.encoder(1, 64, 64).expect(name), config.decoder(1, 8, 8).expect(name)], &[])
            }
            "AutoencoderTiny" => {
                let config = AutoencoderTinyConfig::from_json(&json).expect(name);
                assert_eq!(config.scale_factor(), 8);
                parameters(&[config.encoder(1, 64, 64).expect(name), config.decoder(1, 8, 8).expect(name)], &[])
            }
            _ => {
                let config = ClipTextConfig::from_json(&json).expect(name);
                let tables = [config.vocab_size, config.max_position_embeddings].map(|rows| [rows, config.hidden_size]);
                parameters(&[config.graph(1, 1).expect(name)], &tables)
            }
        };
        assert_eq!(found, expected, "parameters of {name}");
    }
}
