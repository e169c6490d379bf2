//! Pictures as callers give and get them.

/// An RGBA picture, 8 bits a channel, rows from the top.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rgba {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// `4 * width * height` bytes.
    pub pixels: Vec<u8>,
}
