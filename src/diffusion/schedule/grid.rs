//! Even grids, interpolation between their points, and the inverse of it.
//!
//! They are those of numpy and torch to the last bit, because timesteps are rounded to whole numbers: an error in the last
//! place can move a step.

/// `numpy.linspace(start, stop, n)`.
pub fn linspace(start: f64, stop: f64, n: usize) -> Vec<f64> {
    let intervals = n.saturating_sub(1);
    let step = (stop - start) / intervals as f64;
    let mut values: Vec<f64> = (0..n).map(|i| if i == 0 { start } else { i as f64 * step + start }).collect();
    if let (Some(last), true) = (values.last_mut(), intervals > 0) {
        *last = stop;
    }
    values
}

/// `torch.linspace(start, end, n, dtype=torch.float32)`: counted from both ends towards the middle, each
/// multiply-add rounded once.
pub fn linspace_f32(start: f32, end: f32, n: usize) -> Vec<f32> {
    let step = (end - start) / n.saturating_sub(1) as f32;
    (0..n)
        .map(|i| match i {
            0 => start,
            _ if i < n / 2 => libm::fmaf(step, i as f32, start),
            _ => libm::fmaf(-step, (n - 1 - i) as f32, end),
        })
        .collect()
}

/// `numpy.arange(start, 0, -step)`: for some steps the last value is a rounding error away from zero.
pub fn arange_down(start: f64, step: f64) -> Vec<f64> {
    let n = (start / step).ceil() as usize;
    let difference = (start - step) - start;
    (0..n).map(|i| start + i as f64 * difference).collect()
}

/// `numpy.interp(x, range(len(values)), values)`: linear between the whole numbers, constant outside.
pub fn interpolate(x: f64, values: &[f32]) -> f64 {
    let at = |i: usize| values.get(i).copied().map_or(f64::NAN, f64::from);
    let last = values.len().saturating_sub(1);
    if x <= 0.0 {
        return at(0);
    }
    let low = x.floor();
    if low >= last as f64 {
        return at(last);
    }
    let low_index = low as usize;
    (at(low_index + 1) - at(low_index)) * (x - low) + at(low_index)
}

/// The inverse of [`interpolate`] over log σ: the fractional timestep at which training had this σ. All `sigmas` at
/// once, because the logarithms of the training schedule are shared.
pub fn timesteps_of_sigmas(sigmas: &[f64], train_sigmas: &[f32]) -> Vec<f64> {
    let logs: Vec<f32> = train_sigmas.iter().map(|&sigma| log_f32(sigma)).collect();
    let timestep = |sigma: f64| {
        let log = libm::log(sigma.max(1e-10));
        // The last training timestep at or below this σ, as long as there is one above to interpolate to.
        let low = logs.iter().rposition(|&below| f64::from(below) <= log).unwrap_or(0);
        let low = low.min(logs.len().saturating_sub(2));
        let (Some(&below), Some(&above)) = (logs.get(low), logs.get(low + 1)) else { return 0.0 };
        let weight = ((f64::from(below) - log) / f64::from(below - above)).clamp(0.0, 1.0);
        (1.0 - weight) * low as f64 + weight * (low + 1) as f64
    };
    sigmas.iter().map(|&sigma| timestep(sigma)).collect()
}

/// The timesteps of [`timesteps_of_sigmas`], from σ in f32 and in its arithmetic.
pub fn timesteps_of_sigmas_f32(sigmas: &[f32], train_sigmas: &[f32]) -> Vec<f64> {
    let logs: Vec<f32> = train_sigmas.iter().map(|&sigma| log_f32(sigma)).collect();
    let timestep = |sigma: f32| {
        let log = log_f32(sigma.max(1e-10));
        let low = logs.iter().rposition(|&below| below <= log).unwrap_or(0).min(logs.len().saturating_sub(2));
        let (Some(&below), Some(&above)) = (logs.get(low), logs.get(low + 1)) else { return 0.0 };
        let weight = ((below - log) / (below - above)).clamp(0.0, 1.0);
        f64::from(1.0 - weight) * low as f64 + f64::from(weight) * (low + 1) as f64
    };
    sigmas.iter().map(|&sigma| timestep(sigma)).collect()
}

/// `numpy.log` of an f32 array on x86: not the nearest number, but a rational approximation up to four units in the
/// last place off. It decides which fraction of a timestep belongs to a σ. Positive finite numbers only.
fn log_f32(x: f32) -> f32 {
    // log(1 + y) ≈ P(y)/Q(y), fitted on √½ ≤ 1 + y < √2; highest power first.
    const P: [f32; 6] = [2.589_979_2e-2, 3.808_837_8e-1, 1.480_000_6, 2.112_677_6, 1.0, 0.0];
    const Q: [f32; 6] = [5.875_095_4e-3, 1.546_476_4e-1, 9.864_943e-1, 2.453_006, 2.612_677_6, 1.0];
    let (mut mantissa, mut exponent) = libm::frexpf(x);
    if mantissa <= std::f32::consts::FRAC_1_SQRT_2 {
        mantissa *= 2.0;
        exponent -= 1;
    }
    let polynomial =
        |coefficients: [f32; 6]| coefficients.into_iter().fold(0.0, |sum, c| libm::fmaf(sum, mantissa - 1.0, c));
    libm::fmaf(exponent as f32, std::f32::consts::LN_2, polynomial(P) / polynomial(Q))
}

/// `values` rounded to f32, as diffusers holds timesteps and σ.
pub fn round_to_f32(values: Vec<f64>) -> Vec<f64> {
    values.into_iter().map(|value| f64::from(value as f32)).collect()
}
