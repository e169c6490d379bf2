//! The keys of a scheduler's config that say what happens to x̂_0 before it is used.

use crate::diffusion::{error::Error, keys::Keys, table::clip::Clip};

/// The clip of `thresholding` and `clip_sample`, of which the former wins.
pub fn read_clip(keys: &Keys, clips_by_default: bool) -> Result<Clip, Error> {
    let range = keys.clip_sample_range()?;
    match read_threshold(keys)? {
        Clip::None if keys.bool("clip_sample", clips_by_default)? => Ok(Clip::Range(range)),
        threshold => Ok(threshold),
    }
}

/// The clip of `thresholding` alone, for classes without `clip_sample`.
pub fn read_threshold(keys: &Keys) -> Result<Clip, Error> {
    let ratio = keys.f64("dynamic_thresholding_ratio", 0.995)?;
    let max_value = keys.f64("sample_max_value", 1.0)?;
    if !(0.0..=1.0).contains(&ratio) {
        return Err(keys.unsupported("dynamic_thresholding_ratio", ratio, "numbers from 0 to 1"));
    }
    if max_value <= 0.0 || !max_value.is_finite() {
        return Err(keys.unsupported("sample_max_value", max_value, "finite numbers above 0"));
    }
    match keys.bool("thresholding", false)? {
        true => Ok(Clip::Threshold { ratio, max_value }),
        false => Ok(Clip::None),
    }
}
