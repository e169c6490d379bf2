//! A linear map from latents to colours that stands in for an autoencoder's decoder where only a preview is wanted.
//!
//! A latent pixel says mostly which colour its f×f pixels have. The map is the least-squares fit of the mean colours that
//! the decoder gives to random latents on those latents.

use crate::device::{Device, Program, WeightLoader, Weights};
use crate::graph::{Builder, Graph, NodeId, Pool2dOptions, Scope, WeightSpec};
use crate::models::{self, AutoencoderKlConfig};
use crate::noise::TorchCpu;
use crate::pipeline::error::Error;
use crate::weights::Encoding;

/// Number of random latents: their decoding costs about as much as a step, and twice as many are no better.
const LATENTS: usize = 6;
/// Height and width of the random latents.
const SIDE: usize = 8;
/// Rows and columns of the grid that the random numbers lie on; between these they are interpolated: latents of
/// real pictures are smooth, and of white noise decoders make textures of quite other colours.
const GRID: usize = 4;
/// Standard deviation of the random numbers: within it decoders are nearly linear.
const DEVIATION: f32 = 0.6;

/// The fitted map.
#[derive(Debug)]
pub(in crate::pipeline) struct LinearPreview {
    colours: usize,
    /// The weights of [`LinearPreview::add_to`].
    pub weights: Weights,
}

impl LinearPreview {
    /// Fits the map to the decoder of `vae`.
    ///
    /// # Errors
    /// The device's refusal.
    pub async fn fit(device: &Device, vae: &AutoencoderKlConfig, vae_weights: &Weights) -> Result<Self, Error> {
        let (channels, colours) = (vae.latent_channels, vae.out_channels);
        let latents = random_latents(channels);
        let graph = mean_colours(vae).map_err(|e| Error::model("vae/config.json", e))?;
        let mut program = Program::compile(device, &graph, &[vae_weights]).await?;
        program.write("latents", &latents)?;
        program.run().await?;
        let targets = program.read_f32("colours").await?;
        let (matrix, bias) = least_squares(&latents, &targets, channels, colours);

        let builder = Builder::new();
        let root = builder.root();
        let pixels = root.input("latents", &[1, channels, 1, 1])?;
        add_to(&root, pixels, colours)?;
        let graph = builder.finish();
        let mut loader = WeightLoader::new(device, graph.weights())?;
        for (index, WeightSpec { shape, .. }) in graph.weights().iter().enumerate() {
            let values = if shape.len() == 1 { &bias } else { &matrix };
            let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            loader.put(index, Encoding::F32, &bytes)?;
        }
        Ok(Self { colours, weights: loader.finish().await? })
    }

    /// Adds the map to a graph: latents `[batch, channels, height, width]` to colours `[batch, colours, height, width]`.
    ///
    /// # Errors
    /// If the latents have another number of channels.
    pub fn add_to(&self, root: &Scope, latents: NodeId) -> Result<NodeId, models::Error> {
        Ok(add_to(root, latents, self.colours)?)
    }
}

fn add_to(root: &Scope, latents: NodeId, colours: usize) -> Result<NodeId, crate::graph::Error> {
    let x = root.permute(latents, &[0, 2, 3, 1])?;
    let x = root.at("linear").linear(x, colours, true)?;
    root.permute(x, &[0, 3, 1, 2])
}

/// The decoder of the random latents, and the mean colour of what each of their pixels became, `[latents, side, side, colours]`.
fn mean_colours(vae: &AutoencoderKlConfig) -> Result<Graph, models::Error> {
    let builder = Builder::new();
    let root = builder.root();
    let latents = root.input("latents", &[LATENTS, vae.latent_channels, SIDE, SIDE])?;
    let mut x = root.permute(vae.add_to(&root, latents)?, &[0, 2, 3, 1])?;
    while root.shape(x)[1] > SIDE {
        x = root.pool2d(x, Pool2dOptions::average(2, 2))?;
    }
    root.output("colours", x);
    Ok(builder.finish())
}

/// `[LATENTS, channels, SIDE, SIDE]`.
fn random_latents(channels: usize) -> Vec<f32> {
    let grids = TorchCpu::new(0).randn(LATENTS * channels * GRID * GRID);
    // The grid's points around a row or column, and how far it is from the first to the second.
    let place = |i: usize| {
        let at = ((i as f32 + 0.5) * GRID as f32 / SIDE as f32 - 0.5).clamp(0.0, (GRID - 1) as f32);
        (at as usize, (at as usize + 1).min(GRID - 1), at.fract())
    };
    let mut latents = Vec::with_capacity(LATENTS * channels * SIDE * SIDE);
    for grid in grids.chunks_exact(GRID * GRID) {
        for (top, bottom, down) in (0..SIDE).map(place) {
            for (left, right, across) in (0..SIDE).map(place) {
                let row = |y: usize| grid[y * GRID + left] * (1.0 - across) + grid[y * GRID + right] * across;
                latents.push(DEVIATION * (row(top) * (1.0 - down) + row(bottom) * down));
            }
        }
    }
    latents
}

/// The matrix `[colours, channels]` and bias `[colours]` that take latents `[n, channels, SIDE, SIDE]` nearest to targets
/// `[n, SIDE, SIDE, colours]`: the solution of the normal equations, by Gaussian elimination.
fn least_squares(latents: &[f32], targets: &[f32], channels: usize, colours: usize) -> (Vec<f32>, Vec<f32>) {
    const PIXELS: usize = SIDE * SIDE;
    // The last unknown is the bias: a channel that is always 1.
    let (unknowns, columns) = (channels + 1, channels + 1 + colours);
    let mut rows = vec![0.0f64; unknowns * columns];
    let mut sample = vec![1.0f64; columns];
    for (latent, target) in latents.chunks_exact(channels * PIXELS).zip(targets.chunks_exact(PIXELS * colours)) {
        for (pixel, colour) in target.chunks_exact(colours).enumerate() {
            (0..channels).for_each(|channel| sample[channel] = f64::from(latent[channel * PIXELS + pixel]));
            (0..colours).for_each(|k| sample[unknowns + k] = f64::from(colour[k]));
            for (row, &factor) in rows.chunks_exact_mut(columns).zip(&sample) {
                row.iter_mut().zip(&sample).for_each(|(sum, value)| *sum += factor * value);
            }
        }
    }
    // The matrix is that of a covariance, positive definite: its pivots need no search.
    for pivot in 0..unknowns {
        let own: Vec<f64> = rows[pivot * columns..][..columns].to_vec();
        for (index, row) in rows.chunks_exact_mut(columns).enumerate() {
            let factor = if index == pivot { 1.0 - 1.0 / own[pivot] } else { row[pivot] / own[pivot] };
            row.iter_mut().zip(&own).for_each(|(value, own)| *value -= factor * own);
        }
    }
    let solution = |unknown: usize, colour: usize| rows[unknown * columns + unknowns + colour] as f32;
    let matrix = (0..colours * channels).map(|i| solution(i % channels, i / channels)).collect();
    (matrix, (0..colours).map(|colour| solution(channels, colour)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_linear_decoder_is_found_again() {
        let (channels, colours) = (4, 3);
        let weight = |colour: usize, channel: usize| (colour * 5 + channel * 3) as f32 % 7.0 - 3.0;
        let latents = random_latents(channels);
        let pixel = |i: usize, colour: usize| {
            let (latent, at) = (i / (SIDE * SIDE), i % (SIDE * SIDE));
            let value = |channel: usize| latents[(latent * channels + channel) * SIDE * SIDE + at];
            (0..channels).map(|channel| weight(colour, channel) * value(channel)).sum::<f32>() + 0.5 * colour as f32
        };
        let targets: Vec<f32> = (0..LATENTS * SIDE * SIDE * colours).map(|i| pixel(i / colours, i % colours)).collect();
        let (matrix, bias) = least_squares(&latents, &targets, channels, colours);
        for (i, value) in matrix.iter().enumerate() {
            assert!((value - weight(i / channels, i % channels)).abs() < 1e-4, "{matrix:?}");
        }
        bias.iter().enumerate().for_each(|(i, value)| assert!((value - 0.5 * i as f32).abs() < 1e-4, "{bias:?}"));
    }
}
