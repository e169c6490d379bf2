//! The way into a feature network: pictures of any size become those that it was trained on.

use super::{Error, channels_first, channels_last};
use crate::graph::{Builder, Graph};

/// The graph for `batch` pictures of `height`×`width`: input `pixels` `[batch, 3, height, width]` in 0..1, output `sample`
/// `[batch, 3, side, side]` in −1..1, resized bilinearly as `pytorch-fid` does it, so without antialiasing.
///
/// # Errors
/// If the pictures are larger than a tensor may be.
pub fn feature_input(batch: usize, height: usize, width: usize, side: usize) -> Result<Graph, Error> {
    let builder = Builder::new();
    let root = builder.root();
    let pixels = channels_last(&root, root.input("pixels", &[batch, 3, height, width])?)?;
    let x = root.resize_bilinear(pixels, side, side)?;
    root.output("sample", channels_first(&root, root.affine(x, 2.0, -1.0)?)?);
    Ok(builder.finish())
}
