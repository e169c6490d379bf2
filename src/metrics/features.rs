//! Features of pictures: a network's view of them, of which a Fréchet distance compares the distributions.

use super::Error;
use super::feature_network::{FeatureNetwork, OpenNetwork};
use crate::device::{Device, Program, Weights};
use crate::models::feature_input;
use crate::order::sort_by_key;
use crate::pipeline::Rgba;
use crate::weights::Source;

/// Longest side of a picture.
const MAX_SIDE: usize = 1 << 13;

/// Pixels of the pictures that are resized at a time, unless one alone has more.
const BATCH_PIXELS: usize = 1 << 21;

/// Sizes of pictures whose programs are kept, those used last.
const MAX_SIZES: usize = 8;

/// A network on a device that turns pictures into features.
#[derive(Debug)]
pub struct FeatureExtractor {
    device: Device,
    network: FeatureNetwork,
    weights: Weights,
    fingerprint: String,
    /// Programs of the network by the number of pictures.
    networks: Vec<(usize, Program)>,
    /// Programs of what stands before the network, by the number of pictures, their height and their width; those used last
    /// come last.
    inputs: Vec<([usize; 3], Program)>,
}

/// The answers of a classifier about a picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Classification {
    /// The glyphs that may be shown, the most probable first.
    pub glyphs: Vec<Label>,
    /// The styles that it may be drawn in, the most probable first.
    pub styles: Vec<Label>,
}

/// One of a classifier's answers.
#[derive(Clone, Debug, PartialEq)]
pub struct Label {
    /// Name of the answer in the network's config.
    pub name: String,
    /// Probability in 0..1; those of all answers add up to 1.
    pub probability: f32,
}

impl FeatureExtractor {
    /// Loads the network in `source` onto `device`: a folder with the `config.json` and `model.safetensors` of an
    /// `EmojiClassifier`; or InceptionV3 as the Python package `pytorch-fid` has it, a folder with `inception.safetensors` or that
    /// file alone. Weights are f32, f16 or bf16.
    ///
    /// # Errors
    /// A missing, damaged or unsupported file or tensor, by name; or the device's refusal.
    pub async fn load(source: &dyn Source, device: Device) -> Result<Self, Error> {
        let (network, weights, fingerprint) = OpenNetwork::open(source).await?.load(&device).await?;
        let fingerprint = format!("{fingerprint:016x}");
        Ok(Self { device, network, weights, fingerprint, networks: Vec::new(), inputs: Vec::new() })
    }

    /// The classifier of emoji pictures that this crate brings, on `device`.
    ///
    /// # Errors
    /// The device's refusal.
    #[cfg(not(target_arch = "wasm32"))]
    pub async fn emoji(device: Device) -> Result<Self, Error> {
        let mut source = crate::weights::MemorySource::new();
        source.insert("config.json", *include_bytes!("../../www/models/emoji-features/config.json"));
        source.insert("model.safetensors", *include_bytes!("../../www/models/emoji-features/model.safetensors"));
        Self::load(&source, device).await
    }

    /// The network's name: `inception-v3-fid` or `emoji`.
    pub fn name(&self) -> &'static str {
        self.network.name()
    }

    /// Length of a picture's features.
    pub fn features(&self) -> usize {
        self.network.features()
    }

    /// Height and width to which pictures are resized.
    pub fn side(&self) -> usize {
        self.network.side()
    }

    /// Sixteen hexadecimal digits that tell weights apart: features of others cannot be compared.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Pictures that the network takes at a time. Who wants to count pictures or to stop in between passes no more than
    /// so many to a call.
    pub fn batch(&self) -> usize {
        self.network.batch()
    }

    /// The features of `images`, `[images, features]`. Pictures may be of different sizes; alpha is dropped, as Pillow's
    /// `convert("RGB")` does. On the CPU a picture's features do not depend on those beside it.
    ///
    /// A call that is dropped before its end leaves an extractor that can be used.
    ///
    /// # Errors
    /// [`Error::Picture`] before anything is computed; features that are not finite, and the device's refusal, from the device.
    pub async fn extract(&mut self, images: &[Rgba]) -> Result<Vec<f32>, Error> {
        Ok(self.run(images, &["features"]).await?.remove(0))
    }

    /// The content of each of `images`, and its style: the `most` most probable answers.
    ///
    /// # Errors
    /// [`Error::NoLabels`] for a network that only gives features, and those of [`FeatureExtractor::extract`].
    pub async fn classify(&mut self, images: &[Rgba], most: usize) -> Result<Vec<Classification>, Error> {
        let names = match &self.network {
            FeatureNetwork::Emoji(config) => [config.glyphs.clone(), config.styles.clone()],
            FeatureNetwork::Inception => return Err(Error::NoLabels { extractor: self.name() }),
        };
        let logits = self.run(images, &["glyph", "style"]).await?;
        let [glyphs, styles] = [0, 1].map(|head| logits[head].chunks_exact(names[head].len()));
        let answers = glyphs.zip(styles).map(|(glyphs, styles)| Classification {
            glyphs: most_probable(&names[0], glyphs, most),
            styles: most_probable(&names[1], styles, most),
        });
        Ok(answers.collect())
    }

    /// The outputs `names` of the network, each `[images, ...]`.
    async fn run(&mut self, images: &[Rgba], names: &[&str]) -> Result<Vec<Vec<f32>>, Error> {
        images.iter().enumerate().try_for_each(|(index, image)| check(index, image))?;
        let mut rows: Vec<Vec<Vec<f32>>> = vec![vec![Vec::new(); images.len()]; names.len()];
        let mut left: Vec<usize> = (0..images.len()).collect();
        while let Some(&first) = left.first() {
            // Those of one size go together, wherever they are.
            let size = |index: usize| [images[index].height, images[index].width];
            let pixels = images[first].height * images[first].width;
            let most = self.batch().min((BATCH_PIXELS / pixels).max(1));
            let mut batch: Vec<usize> =
                left.iter().copied().filter(|&other| size(other) == size(first)).take(most).collect();
            // Powers of two, so that few programs serve all numbers of pictures.
            batch.truncate(1 << batch.len().ilog2());
            left.retain(|index| !batch.contains(index));
            let pictures: Vec<&Rgba> = batch.iter().map(|&index| &images[index]).collect();
            for (of_output, values) in rows.iter_mut().zip(self.run_batch(&pictures, names).await?) {
                let length = values.len() / batch.len();
                for (&index, row) in batch.iter().zip(values.chunks_exact(length)) {
                    of_output[index] = row.to_vec();
                }
            }
        }
        Ok(rows.into_iter().map(|rows| rows.concat()).collect())
    }

    /// The values of the outputs `names`, of pictures of one size.
    async fn run_batch(&mut self, images: &[&Rgba], names: &[&str]) -> Result<Vec<Vec<f32>>, Error> {
        let Some(&&Rgba { width, height, .. }) = images.first() else { return Ok(vec![Vec::new(); names.len()]) };
        let (batch, side) = (images.len(), self.side());
        let input = match self.inputs.iter().position(|(key, _)| *key == [batch, height, width]) {
            Some(index) => self.inputs.remove(index).1,
            None => {
                let graph = feature_input(batch, height, width, side);
                let graph = graph.map_err(|source| Error::Model { file: "pictures".to_owned(), source })?;
                Program::compile(&self.device, &graph, &[&self.weights]).await?
            }
        };
        if self.inputs.len() >= MAX_SIZES {
            self.inputs.remove(0);
        }
        self.inputs.push(([batch, height, width], input));
        if !self.networks.iter().any(|(of, _)| *of == batch) {
            let graph = self.network.graph(batch)?;
            self.networks.push((batch, Program::compile(&self.device, &graph, &[&self.weights]).await?));
        }
        let (Some((_, input)), Some((_, network))) =
            (self.inputs.last_mut(), self.networks.iter_mut().find(|(of, _)| *of == batch))
        else {
            return Ok(vec![Vec::new(); names.len()]);
        };
        input.write("pixels", &planes(images))?;
        input.run().await?;
        network.copy_from("sample", input, "sample")?;
        network.run().await?;
        let values = network.read(names).await?;
        Ok(values.into_iter().map(|words| words.into_iter().map(f32::from_bits).collect()).collect())
    }
}

fn check(index: usize, image: &Rgba) -> Result<(), Error> {
    let Rgba { width, height, ref pixels } = *image;
    let refuse = |message: String| Err(Error::Picture { index, message });
    if ![width, height].iter().all(|side| (1..=MAX_SIDE).contains(side)) {
        return refuse(format!("it has {width}×{height} pixels, expected sides from 1 to {MAX_SIDE}"));
    }
    if pixels.len() != 4 * width * height {
        return refuse(format!("expected {} bytes of RGBA, got {}", 4 * width * height, pixels.len()));
    }
    Ok(())
}

/// Red, green and blue of each picture, `[images, 3, height, width]` in 0..1.
fn planes(images: &[&Rgba]) -> Vec<f32> {
    let mut planes = Vec::new();
    for image in images {
        for channel in 0..3 {
            planes.extend(image.pixels.as_chunks::<4>().0.iter().map(|pixel| f32::from(pixel[channel]) / 255.0));
        }
    }
    planes
}

/// The `most` largest of the softmax of `logits`, with their names.
fn most_probable(names: &[String], logits: &[f32], most: usize) -> Vec<Label> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f32> = logits.iter().map(|logit| libm::expf(logit - largest)).collect();
    let sum: f32 = powers.iter().sum();
    let label = |(name, power): (&String, &f32)| Label { name: name.clone(), probability: power / sum };
    let mut labels: Vec<Label> = names.iter().zip(&powers).map(label).collect();
    // Numbers that are not negative are in the order of their bits.
    sort_by_key(&mut labels, |label| (u64::from(u32::MAX - label.probability.to_bits()), 0));
    labels.truncate(most);
    labels
}
