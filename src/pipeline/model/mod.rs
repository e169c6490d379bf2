//! Opening a checkpoint: which files there are, what they hold, which pipeline that is, and its weights on a device.

pub(super) mod checkpoint;
pub(super) mod denoiser;
pub(super) mod family;
pub(super) mod layout;
pub(super) mod load;
pub(super) mod naming;
pub(super) mod text_encoder;
pub(super) mod textual_inversion;
pub(super) mod weight_file;
