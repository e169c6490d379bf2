//! The ways between latents and pixels.

pub(super) mod encoder;
pub(super) mod image;
pub(super) mod linear_preview;
pub(super) mod painter;
pub(super) mod preview;
pub(super) mod tiled;
pub(super) mod tiny_vae;
