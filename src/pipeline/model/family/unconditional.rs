//! DDPM and DDIM: no text, no autoencoder.

use super::{Family, Pictures, USUAL_STRENGTH};
use crate::diffusion::Solver;
use crate::pipeline::model::denoiser::Denoiser;

pub(super) const FAMILY: Family = Family {
    classes: &["DDPMPipeline", "DDIMPipeline"],
    encoders: &[],
    denoiser: Denoiser::unconditional,
    told: &[],
    autoencoder: None,
    pictures: Pictures::AtATimestep,
    scheduler: |class, _, scheduler| {
        Ok(match class {
            "DDIMPipeline" => scheduler.swap_to(Solver::Ddim)?,
            _ => scheduler,
        })
    },
    strength: USUAL_STRENGTH,
    is_guided: false,
    spreads_steps_of: None,
    unused_layers: 0,
    had_small_default: false,
};
