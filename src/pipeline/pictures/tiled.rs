//! An autoencoder's network over a picture in tiles, where the whole is too large for the device.

use crate::device::{Device, Program, Weights, floats};
use crate::graph::Graph;
use crate::models::Tiling;
use crate::pipeline::error::Error;
use crate::pipeline::options::SampleOptions;

/// Sides of the latents' tiles are multiples of this, as kernels like them.
const GRAIN: usize = 4;
/// The smallest side that is tried: what a decoder makes of less has little to do with the picture.
const SMALLEST: usize = 16;

/// The longest side of a tile where tiles are asked for.
const ASKED_FOR: usize = 32;

/// The longest side of the latents that may pass through an autoencoder at once, as long as the device takes it.
pub(in crate::pipeline) fn longest_tile(options: &SampleOptions) -> usize {
    if options.vae_tiling { ASKED_FOR } else { usize::MAX }
}

/// The direction of a network between pictures and latents, with the pixels of the picture per latent on each side.
#[derive(Clone, Copy, Debug)]
pub(in crate::pipeline) enum Direction {
    /// The way from pictures to latents.
    Encode(usize),
    /// The way from latents to pictures.
    Decode(usize),
}

/// A network that takes a picture in as few tiles as the device allows, one if it can, and blends the results.
#[derive(Debug)]
pub(in crate::pipeline) struct Tiled {
    program: Program,
    input: String,
    output: String,
    rows: Tiling,
    columns: Tiling,
    /// Pixels of input and output for each of the latents, on each side.
    scales: [usize; 2],
}

impl Tiled {
    /// Prepares a network for latents of `[height, width]`; no side of a tile is longer than `longest`. `graph` builds it for
    /// one picture of a given size of latents, with one input and one output, both `[1, channels, …]`.
    ///
    /// # Errors
    /// If it cannot be built, or the device refuses even the smallest tile.
    pub async fn compile(
        device: &Device,
        weights: &Weights,
        size: [usize; 2],
        longest: usize,
        direction: Direction,
        graph: &dyn Fn([usize; 2]) -> Result<Graph, Error>,
    ) -> Result<Self, Error> {
        let mut side = size[0].max(size[1]).min(longest);
        loop {
            let [rows, columns] = size.map(|length| Tiling::new(length, side, side / 4));
            let graph = graph([rows.tile(), columns.tile()])?;
            match Program::compile(device, &graph, &[weights]).await {
                Ok(program) => {
                    let name = |ports: &[(String, _)]| ports.first().map(|(name, _)| name.clone()).unwrap_or_default();
                    let (input, output) = (name(graph.inputs()), name(graph.outputs()));
                    let scales = match direction {
                        Direction::Encode(scale) => [scale, 1],
                        Direction::Decode(scale) => [1, scale],
                    };
                    return Ok(Self { program, input, output, rows, columns, scales });
                }
                Err(error) if error.is_too_large() && side > SMALLEST => {
                    side = (side * 7 / 8 / GRAIN * GRAIN).max(SMALLEST);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The output of the network for one picture or its latents, `[channels, height, width]`.
    ///
    /// # Errors
    /// If the input has another size, a value is not finite, or the device is lost.
    pub async fn run(&mut self, input: &[f32]) -> Result<Vec<f32>, Error> {
        let [from, to] = self.scales;
        let source = Area::of(&self.rows, &self.columns, from);
        let target = Area::of(&self.rows, &self.columns, to);
        if !input.len().is_multiple_of(source.pixels()) {
            let message = format!("{} numbers are no picture of {:?} pixels", input.len(), source.size);
            return Err(Error::Input { name: self.input.clone(), message });
        }
        let mut blended = Vec::new();
        for (row, &top) in self.rows.starts().iter().enumerate() {
            for (column, &left) in self.columns.starts().iter().enumerate() {
                self.program.write(&self.input, &source.cut(input, [top * from, left * from]))?;
                self.program.run().await?;
                let tile = floats(self.program.read(&[&self.output]).await?.remove(0));
                let weights = [self.rows.weights(row, to), self.columns.weights(column, to)];
                blended.resize(tile.len() / target.tile_pixels() * target.pixels(), 0.0);
                target.add(&mut blended, &tile, [top * to, left * to], &weights);
            }
        }
        Ok(blended)
    }
}

/// Rows and columns of a picture and of its tiles.
struct Area {
    size: [usize; 2],
    tile: [usize; 2],
}

impl Area {
    fn of(rows: &Tiling, columns: &Tiling, scale: usize) -> Self {
        Self {
            size: [rows, columns].map(|t| scale * (t.tile() + t.starts().last().copied().unwrap_or_default())),
            tile: [rows, columns].map(|tiling| tiling.tile() * scale),
        }
    }

    fn pixels(&self) -> usize {
        self.size[0] * self.size[1]
    }

    fn tile_pixels(&self) -> usize {
        self.tile[0] * self.tile[1]
    }

    /// The tile of `picture` at `[top, left]`.
    fn cut(&self, picture: &[f32], [top, left]: [usize; 2]) -> Vec<f32> {
        let rows = |plane: &[f32]| -> Vec<f32> {
            let rows = plane.chunks_exact(self.size[1]).skip(top).take(self.tile[0]);
            rows.flat_map(|row| &row[left..][..self.tile[1]]).copied().collect()
        };
        picture.chunks_exact(self.pixels()).flat_map(rows).collect()
    }

    /// Adds `tile`, weighted by rows and columns, to `picture` at `[top, left]`.
    fn add(&self, picture: &mut [f32], tile: &[f32], [top, left]: [usize; 2], [rows, columns]: &[Vec<f32>; 2]) {
        for (plane, tile) in picture.chunks_exact_mut(self.pixels()).zip(tile.chunks_exact(self.tile_pixels())) {
            let lines = plane.chunks_exact_mut(self.size[1]).skip(top).zip(tile.chunks_exact(self.tile[1]));
            for ((line, tile), row) in lines.zip(rows) {
                let pixels = line[left..].iter_mut().zip(tile).zip(columns);
                pixels.for_each(|((sum, value), column)| *sum += row * column * value);
            }
        }
    }
}

#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests {
    use pollster::block_on;

    use super::*;
    use crate::device::WeightLoader;
    use crate::gpu;
    use crate::models::AutoencoderKlConfig;
    use crate::weights::Encoding;

    /// Stable Diffusion's autoencoder with all weights zero.
    fn autoencoder(device: &Device) -> (AutoencoderKlConfig, Weights) {
        let json = r#"{"_class_name": "AutoencoderKL", "block_out_channels": [128, 256, 512, 512], "layers_per_block": 2,
            "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D"],
            "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"]}"#;
        let config = AutoencoderKlConfig::from_json(json).unwrap();
        let graph = config.decoder(1, 8, 8).unwrap();
        let mut loader = WeightLoader::new(device, graph.weights()).unwrap();
        for (index, spec) in graph.weights().iter().enumerate() {
            loader.put(index, Encoding::F16, &vec![0; 2 * spec.shape.iter().product::<usize>()]).unwrap();
        }
        (config, block_on(loader.finish()).unwrap())
    }

    #[test]
    fn a_picture_is_decoded_within_the_default_limits_as_a_whole_up_to_512_pixels_and_then_in_tiles() {
        let options = gpu::DeviceOptions { default_limits: true, ..Default::default() };
        let device = block_on(gpu::Device::request(options)).expect("a WebGPU adapter");
        assert_eq!(device.limits().binding_bytes, 128 << 20);
        let device = Device::Gpu(device);
        let (config, weights) = autoencoder(&device);
        let graph = |[height, width]: [usize; 2]| config.decoder(1, height, width).map_err(|e| Error::model("vae", e));
        let whole = block_on(Program::compile(&device, &graph([64, 64]).unwrap(), &[&weights]));
        whole.map(drop).unwrap();
        let whole = block_on(Program::compile(&device, &graph([72, 64]).unwrap(), &[&weights]));
        assert!(whole.map(drop).is_err_and(|error| error.is_too_large()));
        let compile = Tiled::compile(&device, &weights, [72, 64], usize::MAX, Direction::Decode(8), &graph);
        let tiled = block_on(compile).unwrap();
        assert!(tiled.rows.starts().len() > 1 && tiled.rows.tile() > 40, "{:?}", tiled.rows);
    }

    #[test]
    fn a_network_that_leaves_pixels_as_they_are_gives_the_picture_back_from_its_tiles() {
        use crate::graph::Builder;
        let graph = |[height, width]: [usize; 2]| {
            let builder = Builder::new();
            let root = builder.root();
            let latents = root.input("latents", &[1, 2, height, width])?;
            let large = root.resize_nearest(root.permute(latents, &[0, 2, 3, 1])?, 3 * height, 3 * width)?;
            root.output("image", root.permute(large, &[0, 3, 1, 2])?);
            Ok(builder.finish())
        };
        let device = Device::cpu();
        let weights = block_on(WeightLoader::new(&device, &[]).unwrap().finish()).unwrap();
        let (height, width) = (21, 50);
        let compile = Tiled::compile(&device, &weights, [height, width], 20, Direction::Decode(3), &graph);
        let mut tiled = block_on(compile).unwrap();
        assert!(tiled.rows.starts().len() > 1 && tiled.columns.starts().len() > 2);
        let latents: Vec<f32> = (0..2 * height * width).map(|i| (i * 37 % 101) as f32).collect();
        let image = block_on(tiled.run(&latents)).unwrap();
        assert_eq!(image.len(), 9 * latents.len());
        for (i, value) in image.iter().enumerate() {
            let (plane, y, x) = (i / (9 * height * width), i / (3 * width) % (3 * height), i % (3 * width));
            let expected = latents[(plane * height + y / 3) * width + x / 3];
            assert!((value - expected).abs() <= 1e-4 * expected.abs(), "{plane} {y} {x}: {value}, expected {expected}");
        }
        let message = block_on(tiled.run(&latents[1..])).unwrap_err().to_string();
        assert_eq!(message, "input `latents`: 2099 numbers are no picture of [21, 50] pixels");
    }
}
