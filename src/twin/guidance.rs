//! Guidance with rescaling, image by image. Twin of `shaders/guidance.wgsl`.

/// `model_output` holds the unconditional half before the conditional one, `out` is as long as one half; `image` is the
/// length of one image.
pub fn guidance(model_output: &[f64], scale: f64, rescale: f64, image: usize, out: &mut [f64]) {
    let (unconditional, conditional) = model_output.split_at(out.len());
    let halves = unconditional.chunks_exact(image).zip(conditional.chunks_exact(image));
    for (out, (u, c)) in out.chunks_exact_mut(image).zip(halves) {
        out.iter_mut().zip(u.iter().zip(c)).for_each(|(out, (u, c))| *out = u + scale * (c - u));
        if rescale > 0.0 {
            let factor = rescale * (spread(c) / spread(out)).sqrt() + (1.0 - rescale);
            out.iter_mut().for_each(|out| *out *= factor);
        }
    }
}

/// Sum of the squared distances to the mean. The standard deviation's divisor is left out: in a ratio it cancels.
fn spread(values: &[f64]) -> f64 {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    values.iter().map(|v| (v - mean) * (v - mean)).sum()
}
