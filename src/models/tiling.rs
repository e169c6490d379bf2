//! Large pictures in tiles: where they lie, and how they are blended where they overlap.
//!
//! An autoencoder sees about twenty pixels of latents around each of its own, and normalises over the whole picture. A
//! tile that is decoded by itself is therefore wrong near its edges and a little different everywhere else. What is
//! wrong is not used: towards an edge that another tile overlaps, a quarter of the overlap weighs nothing. What is
//! different passes over gradually in the rest of it.

/// One axis of a picture, covered by overlapping tiles of equal length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tiling {
    length: usize,
    tile: usize,
    starts: Vec<usize>,
}

impl Tiling {
    /// Covers `length` with as few tiles of `tile` (at least 1) as leave neighbours `overlap` in common or more, evenly
    /// spread; one tile of `length` where that is enough. An overlap of more than half a tile is taken as half.
    pub fn new(length: usize, tile: usize, overlap: usize) -> Self {
        let tile = tile.clamp(1, length.max(1));
        let step = tile - overlap.min(tile / 2);
        let gaps = length.saturating_sub(tile).div_ceil(step);
        let starts = (0..=gaps).map(|index| index * length.saturating_sub(tile) / gaps.max(1)).collect();
        Self { length, tile, starts }
    }

    /// Starts of the tiles.
    pub fn starts(&self) -> &[usize] {
        &self.starts
    }

    /// Length of each tile.
    pub fn tile(&self) -> usize {
        self.tile
    }

    /// The share that each pixel of tile `index` has in the blended picture, where every pixel of the tiles has become
    /// `scale` ones. At each pixel of the picture the shares of all tiles add up to 1.
    pub fn weights(&self, index: usize, scale: usize) -> Vec<f32> {
        let start = self.starts.get(index).map_or(0, |start| start * scale);
        let pixels = start..start + self.tile * scale;
        let weight = |pixel| {
            let sum: f64 = (0..self.starts.len()).map(|other| self.height(other, pixel, scale)).sum();
            (self.height(index, pixel, scale) / sum) as f32
        };
        pixels.map(weight).collect()
    }

    /// The weight of tile `index` at `pixel` of the picture: nothing outside of it and next to its inner edges, from where it
    /// rises linearly to 1. It stays above nothing in the tile, so that there is no pixel of which nobody speaks.
    fn height(&self, index: usize, pixel: usize, scale: usize) -> f64 {
        let Some(&start) = self.starts.get(index) else { return 0.0 };
        let end = start + self.tile;
        let middle = (pixel as f64 + 0.5) / scale as f64;
        if middle < start as f64 || middle > end as f64 {
            return 0.0;
        }
        let before = index.checked_sub(1).and_then(|before| self.starts.get(before)).map(|&s| s + self.tile - start);
        let after = self.starts.get(index + 1).map(|&s| end - s);
        let rise = |distance: f64, overlap: Option<usize>| match overlap.map(|overlap| overlap as f64) {
            Some(overlap) if overlap > 0.0 => ((distance / overlap - 0.25) * 2.0).clamp(1e-9, 1.0),
            _ => 1.0,
        };
        rise(middle - start as f64, before).min(rise(end as f64 - middle, after))
    }
}
