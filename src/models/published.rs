//! The networks of published checkpoints, from their configs: what tests that need no weights are held against.

use super::{AutoencoderKlConfig, Unet2dConditionConfig, Unet2dConditionInputs, Unet2dConfig};
use crate::graph::Graph;

/// The graphs, each with its name: UNets for two pictures of 512×512 pixels or of their own, smaller size, autoencoders for one
/// of 256×256.
pub(crate) fn graphs() -> Vec<(String, Graph)> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files: Vec<_> = std::fs::read_dir(root.join("tests/published"))
        .expect("a folder")
        .map(|e| e.expect("an entry").path())
        .collect();
    files.push(root.join("www/models/emoji64/unet/config.json"));
    files.sort();
    let mut graphs = Vec::new();
    for file in files {
        let json = std::fs::read_to_string(&file).expect("a config");
        let name = file.file_name().expect("a name").to_string_lossy().into_owned();
        if let Ok(config) = Unet2dConfig::from_json(&json) {
            graphs.push((name, config.graph(2, 32, 32).expect("a network")));
        } else if let Ok(mut config) = Unet2dConditionConfig::from_json(&json) {
            if config.time_ids() > 0 {
                config.set_text_embeds(1280).expect("SDXL");
            }
            let timestep_cond = config.time_cond_proj_dim.is_some();
            let side = if name.starts_with("config") { 16 } else { 64 };
            let inputs = Unet2dConditionInputs { batch: 2, height: side, width: side, tokens: 77, timestep_cond };
            graphs.push((name, config.graph(inputs).expect("a network")));
        } else if let Ok(config) = AutoencoderKlConfig::from_json(&json) {
            graphs.push((format!("{name} encoder"), config.encoder(1, 256, 256).expect("a network")));
            graphs.push((format!("{name} decoder"), config.decoder(1, 32, 32).expect("a network")));
        }
    }
    graphs
}
