//! `config.json` files are bytes from outside: whatever they hold, they end in a network or in a sentence.
#![cfg(not(target_arch = "wasm32"))]

mod common;

use common::{read_text, reference};
use proptest::prelude::*;
use serde_json::{Value, json};
use undiffuse::models::{
    AutoencoderKlConfig, ClipTextConfig, Error, Unet2dConditionConfig, Unet2dConditionInputs, Unet2dConfig,
};

/// Builds whatever `json` describes, as each of the classes.
fn build(json: &str) {
    let side = 8;
    let _ = Unet2dConfig::from_json(json).map(|config| config.graph(2, side, side));
    let inputs = Unet2dConditionInputs { batch: 2, height: side, width: side, tokens: 3, timestep_cond: true };
    let _ = Unet2dConditionConfig::from_json(json).map(|config| config.graph(inputs));
    let _ = AutoencoderKlConfig::from_json(json).map(|config| {
        let _ = config.preview(2, side, side);
        config.encoder(2, side, side)
    });
    let _ = ClipTextConfig::from_json(json).map(|config| config.graph(2, 3));
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
            Just("clip_text_sd1_like"),
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

#[test]
fn a_value_that_is_not_implemented_is_refused_by_name() {
    for (folder, key, value) in [
        ("unet_sd1_like", "downsample_padding", json!(2)),
        ("unet_sd1_like", "mid_block_type", json!("UNetMidBlock2DSimpleCrossAttn")),
        ("unet_sd1_like", "a_switch_from_the_future", json!(true)),
        ("unet_sd1_like", "conv_in_kernel", json!(65)),
        ("vae_sd_like", "layers_per_block", json!(65)),
    ] {
        let mut config = config_of(folder);
        config.insert(key.into(), value);
        let json = Value::Object(config).to_string();
        let error = if folder.starts_with("vae") {
            AutoencoderKlConfig::from_json(&json).expect_err(key)
        } else {
            Unet2dConditionConfig::from_json(&json).expect_err(key)
        };
        assert!(matches!(&error, Error::Unsupported { key: named, .. } if named == key), "{key}: {error}");
    }
}
