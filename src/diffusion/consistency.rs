//! What LCM and TCD share: the timesteps of a model that was distilled on a coarse grid of them.

use super::{Error, config::MAX_TRAIN_TIMESTEPS, keys::Keys, table::Run};

/// `original_inference_steps`; `None` is every training timestep, which only TCD knows.
pub(super) fn read_original_inference_steps(keys: &Keys) -> Result<Option<usize>, Error> {
    let steps = keys.optional_integer("original_inference_steps", Some(50), 1..=MAX_TRAIN_TIMESTEPS)?;
    Ok(steps.and_then(|steps| usize::try_from(steps).ok()))
}

/// The timesteps of a run: evenly chosen out of the grid that the model was distilled on, of which `strength` leaves the
/// clean end.
pub(super) fn timesteps(run: &Run, original_inference_steps: Option<usize>) -> Result<Vec<f64>, Error> {
    let train = run.common.num_train_timesteps;
    let (n, strength) = (run.num_inference_steps, run.options.strength);
    let original = run.options.original_inference_steps.or(original_inference_steps);
    let refuse = |option, value: String, expected: String| Err(Error::Option { option, value, expected });
    if let Some(original) = original.filter(|original| !(1..=train).contains(original)) {
        let expected = format!("give a number from 1 to num_train_timesteps = {train}");
        return refuse("original_inference_steps", original.to_string(), expected);
    }
    if let Some(custom) = run.custom_timesteps()? {
        let kept = (n as f64 * strength) as usize;
        return match custom.get(n - kept.min(n)..) {
            Some(kept) if !kept.is_empty() => Ok(kept.to_vec()),
            _ => refuse("strength", strength.to_string(), "it leaves none of the timesteps; raise it".to_owned()),
        };
    }
    let grid: Vec<usize> = match original {
        Some(original) => {
            let k = train / original;
            (1..=(original as f64 * strength) as usize).map(|i| i * k - 1).collect()
        }
        None => (0..(train as f64 * strength) as usize).collect(),
    };
    if grid.len() < n {
        let expected = format!(
            "at most {} steps: {} distilled ones, of which a strength of {strength} leaves so many",
            grid.len(),
            original.unwrap_or(train)
        );
        return refuse("num_inference_steps", n.to_string(), expected);
    }
    let stride = grid.len() as f64 / n as f64;
    Ok((0..n).filter_map(|i| grid.iter().rev().nth((i as f64 * stride) as usize)).map(|&t| t as f64).collect())
}
