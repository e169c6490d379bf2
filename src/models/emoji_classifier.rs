//! `EmojiClassifier`, this project's own: a small residual network that says which glyph a picture of an emoji shows, and in
//! which style. What its last block makes is what a Fréchet distance can compare.

use super::config::ConfigReader;
use super::{Error, channels_last};
use crate::graph::{Activation, Builder, Conv2dOptions, Error as GraphError, Graph, NodeId, Scope};

/// The class's name in a `config.json`.
pub const CLASS: &str = "EmojiClassifier";

/// Side of the largest picture that a config may ask for.
const MAX_SIDE: usize = 1 << 10;

/// Labels of a head, at most.
const MAX_LABELS: usize = 1 << 16;

/// The config of an `EmojiClassifier`.
#[derive(Clone, Debug, PartialEq)]
pub struct EmojiClassifierConfig {
    /// Height and width of the pictures that it takes.
    pub sample_size: usize,
    /// Channels behind each block; all but the first block halve the picture.
    pub block_out_channels: Vec<usize>,
    /// The glyphs that can be seen on a picture, in the order of the head `glyph`.
    pub glyphs: Vec<String>,
    /// The styles that it can be drawn in, in the order of the head `style`.
    pub styles: Vec<String>,
}

impl EmojiClassifierConfig {
    /// Reads a `config.json`.
    ///
    /// # Errors
    /// If it is no `EmojiClassifier` config, or its numbers are none of a network.
    pub fn from_json(json: &str) -> Result<Self, Error> {
        let c = ConfigReader::new(CLASS, json)?;
        c.only("in_channels", 3usize)?;
        let labels = |key: &str| match c.get(key, Vec::<String>::new())? {
            labels if labels.is_empty() || labels.len() > MAX_LABELS => {
                Err(c.error(format!("`{key}` has {} entries, expected 1 to {MAX_LABELS}", labels.len())))
            }
            labels => Ok(labels),
        };
        let config = Self {
            sample_size: c.size_up_to("sample_size", 64, MAX_SIDE)?,
            block_out_channels: c.sizes("block_out_channels", &[])?,
            glyphs: labels("glyphs")?,
            styles: labels("styles")?,
        };
        c.finish()?;
        Ok(config)
    }

    /// Length of the features: channels behind the last block.
    pub fn features(&self) -> usize {
        self.block_out_channels.last().copied().unwrap_or_default()
    }

    /// The network for `batch` pictures: input `sample` `[batch, 3, sample_size, sample_size]` in −1..1, outputs `features`
    /// `[batch, features]` and the logits `glyph` `[batch, glyphs]` and `style` `[batch, styles]`.
    ///
    /// # Errors
    /// If the config's numbers do not fit each other.
    pub fn graph(&self, batch: usize) -> Result<Graph, Error> {
        let builder = Builder::new();
        let root = builder.root();
        let sample = root.input("sample", &[batch, 3, self.sample_size, self.sample_size])?;
        let x = channels_last(&root, sample)?;
        let first = self.block_out_channels.first().copied().unwrap_or_default();
        let mut x = root.activate(root.at("conv_in").conv2d(x, Conv2dOptions::same(first, 3))?, Activation::Relu)?;
        for (index, &channels) in self.block_out_channels.iter().enumerate() {
            x = block(&root.at("blocks").at(index), x, channels, if index == 0 { 1 } else { 2 })?;
        }
        let features = root.global_average(x)?;
        root.output("features", features);
        root.output("glyph", root.at("glyph").linear(features, self.glyphs.len(), true)?);
        root.output("style", root.at("style").linear(features, self.styles.len(), true)?);
        Ok(builder.finish())
    }
}

/// Two convolutions beside a shortcut, which is a convolution of one pixel where the shape changes.
fn block(scope: &Scope, x: NodeId, channels: usize, stride: usize) -> Result<NodeId, GraphError> {
    let h = scope.at("conv1").conv2d(x, Conv2dOptions { stride, ..Conv2dOptions::same(channels, 3) })?;
    let h = scope.activate(h, Activation::Relu)?;
    let h = scope.at("conv2").conv2d(h, Conv2dOptions::same(channels, 3))?;
    let shortcut = match stride != 1 || scope.shape(x)[3] != channels {
        true => scope.at("shortcut").conv2d(x, Conv2dOptions { stride, ..Conv2dOptions::same(channels, 1) })?,
        false => x,
    };
    scope.activate(scope.add(h, shortcut)?, Activation::Relu)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"{"_class_name": "EmojiClassifier", "in_channels": 3, "sample_size": 16,
        "block_out_channels": [8, 8, 12], "glyphs": ["fox", "cat"], "styles": ["noto", "twemoji", "openmoji"]}"#;

    #[test]
    fn the_network_has_the_documented_tensors_and_outputs() {
        let config = EmojiClassifierConfig::from_json(CONFIG).expect("a config");
        let graph = config.graph(2).expect("a network");
        let names: Vec<_> = graph.weights().iter().map(|w| w.name.as_str()).filter(|n| n.ends_with("weight")).collect();
        let blocks = [
            "conv_in.weight",
            "blocks.0.conv1.weight",
            "blocks.0.conv2.weight",
            "blocks.1.conv1.weight",
            "blocks.1.conv2.weight",
            "blocks.1.shortcut.weight",
            "blocks.2.conv1.weight",
            "blocks.2.conv2.weight",
            "blocks.2.shortcut.weight",
            "glyph.weight",
            "style.weight",
        ];
        assert_eq!(names, blocks);
        let shape = |name: &str| graph.node(graph.output(name).expect("an output")).shape.clone();
        assert_eq!([shape("features"), shape("glyph"), shape("style")], [[2, 12], [2, 2], [2, 3]]);
    }

    #[test]
    fn a_config_that_makes_no_sense_is_refused_by_its_key() {
        let refused = [
            (r#""sample_size": 16"#, r#""sample_size": 1000000"#, "sample_size"),
            (r#""in_channels": 3"#, r#""in_channels": 4"#, "in_channels"),
            (r#""block_out_channels": [8, 8, 12]"#, r#""block_out_channels": []"#, "block_out_channels"),
            ("[8, 8, 12]", "[8, 99999999999]", "block_out_channels"),
            ("[8, 8, 12]", r#"["8"]"#, "block_out_channels"),
            (r#"["fox", "cat"]"#, "[]", "glyphs"),
            (r#""styles""#, r#""stiles""#, "styles"),
            (r#""sample_size": 16"#, r#""depth": 3"#, "depth"),
            ("EmojiClassifier", "ViTModel", "ViTModel"),
        ];
        for (from, to, key) in refused {
            let message = EmojiClassifierConfig::from_json(&CONFIG.replace(from, to)).expect_err(to).to_string();
            assert!(message.contains(key), "{to}: {message}");
        }
    }
}
