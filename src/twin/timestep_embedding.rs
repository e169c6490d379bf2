//! The sinusoidal embedding of timesteps. Twin of `shaders/timestep_embedding.wgsl`.

/// Parameters, as in diffusers' `get_timestep_embedding`.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Length of the embedding; an odd one ends in a zero.
    pub dim: usize,
    /// cos before sin.
    pub flip_sin_to_cos: bool,
    /// Subtracted from dim/2 in the exponent's divisor.
    pub downscale_freq_shift: f32,
    /// Multiplies the angle.
    pub scale: f32,
    /// Largest period.
    pub max_period: f32,
}

/// `timesteps` is `[batch]`, `out` `[batch, dim]`.
pub fn timestep_embedding(timesteps: &[f64], options: Options, out: &mut [f64]) {
    let Options { dim, flip_sin_to_cos, downscale_freq_shift, scale, max_period } = options;
    let half = dim / 2;
    for (&timestep, out) in timesteps.iter().zip(out.chunks_exact_mut(dim)) {
        out.fill(0.0);
        for index in 0..half {
            // Rounded to f32 where the library rounds, because angles of a thousand radians magnify the difference.
            let exponent = -libm::logf(max_period) * index as f32 / (half as f32 - downscale_freq_shift);
            let angle = scale * (timestep as f32 * libm::expf(exponent));
            let (sin, cos) = (libm::sinf(angle), libm::cosf(angle));
            let (first, second) = if flip_sin_to_cos { (cos, sin) } else { (sin, cos) };
            out[index] = first.into();
            out[half + index] = second.into();
        }
    }
}
