//! The timesteps of a model that was distilled on a coarse grid of them, as LCM and TCD visit them.

use super::{common::MAX_TRAIN_TIMESTEPS, run::Run};
use crate::diffusion::{error::Error, keys::Keys};

/// Reads `original_inference_steps`. `None` is every training timestep.
pub fn read_original_inference_steps(keys: &Keys) -> Result<Option<usize>, Error> {
    let steps = keys.optional_integer("original_inference_steps", Some(50), 1..=MAX_TRAIN_TIMESTEPS)?;
    Ok(steps.and_then(|steps| usize::try_from(steps).ok()))
}

/// The timesteps of a run: evenly chosen out of the grid of `original` steps that the model was distilled on, of which `strength`
/// leaves the clean end.
pub fn timesteps(run: &Run, original: Option<usize>) -> Result<Vec<f64>, Error> {
    let train = run.common.num_train_timesteps;
    let (n, strength) = (run.num_inference_steps, run.options.strength);
    check_original_inference_steps(original, train)?;
    let refuse = |option, value: String, expected: String| Err(Error::Option { option, value, expected });
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
    Ok(spread(&grid, n))
}

/// The timesteps of a run from `start`: the distilled grid below it, with `start` as the highest of it, spread over `n` steps or as
/// many as there are.
pub fn timesteps_from(start: usize, n: usize, train: usize, original: Option<usize>) -> Result<Vec<f64>, Error> {
    check_original_inference_steps(original, train)?;
    let k = original.map_or(1, |original| train / original);
    let distilled = (1..=original.unwrap_or(train)).map(|i| i * k - 1);
    let mut grid: Vec<usize> = distilled.filter(|&t| t <= start).collect();
    match grid.last_mut() {
        Some(highest) => *highest = start,
        None => grid.push(start),
    }
    Ok(spread(&grid, n.min(grid.len())))
}

/// `n` of the ascending `grid`, in even strides from its end.
fn spread(grid: &[usize], n: usize) -> Vec<f64> {
    let stride = grid.len() as f64 / n as f64;
    (0..n).filter_map(|i| grid.iter().rev().nth((i as f64 * stride) as usize)).map(|&t| t as f64).collect()
}

/// Refuses more distilled steps than there are timesteps of training, and none.
pub fn check_original_inference_steps(original: Option<usize>, train: usize) -> Result<(), Error> {
    match original.filter(|original| !(1..=train).contains(original)) {
        None => Ok(()),
        Some(original) => Err(Error::Option {
            option: "original_inference_steps",
            value: original.to_string(),
            expected: format!("give a number from 1 to num_train_timesteps = {train}"),
        }),
    }
}
