//! Group and layer normalisation. Twin of `shaders/group_norm.wgsl` and `shaders/layer_norm.wgsl`.

/// `x` is `[batch, pixels, channels]`; biased variance over the pixels and channels of a group, in two passes.
pub fn group_norm(
    x: &[f64],
    out: &mut [f64],
    [pixels, channels, groups]: [usize; 3],
    eps: f64,
    weight: &[f64],
    bias: &[f64],
) {
    let size = channels / groups;
    let count = (pixels * size) as f64;
    let of_groups = |per_channel: &[f64]| -> Vec<f64> {
        per_channel.chunks_exact(size).map(|c| c.iter().sum::<f64>() / count).collect()
    };
    for (x, out) in x.chunks_exact(pixels * channels).zip(out.chunks_exact_mut(pixels * channels)) {
        let mut sums = vec![0.0f64; channels];
        for pixel in x.chunks_exact(channels) {
            sums.iter_mut().zip(pixel).for_each(|(sum, &v)| *sum += v);
        }
        let means: Vec<f64> = of_groups(&sums).iter().flat_map(|&m| std::iter::repeat_n(m, size)).collect();
        sums.fill(0.0);
        for pixel in x.chunks_exact(channels) {
            for ((sum, &v), &mean) in sums.iter_mut().zip(pixel).zip(&means) {
                *sum += (v - mean) * (v - mean);
            }
        }
        let scales: Vec<f64> = of_groups(&sums)
            .iter()
            .flat_map(|&variance| std::iter::repeat_n(1.0 / (variance + eps).sqrt(), size))
            .zip(weight)
            .map(|(scale, weight)| scale * weight)
            .collect();
        for (out, pixel) in out.chunks_exact_mut(channels).zip(x.chunks_exact(channels)) {
            for (channel, (out, &v)) in out.iter_mut().zip(pixel).enumerate() {
                *out = (v - means[channel]) * scales[channel] + bias[channel];
            }
        }
    }
}

/// `x` is `[rows, channels]`; each row is normalised.
pub fn layer_norm(x: &[f64], out: &mut [f64], eps: f64, weight: &[f64], bias: &[f64]) {
    let channels = weight.len();
    for (row, out) in x.chunks_exact(channels).zip(out.chunks_exact_mut(channels)) {
        let mean = row.iter().sum::<f64>() / channels as f64;
        let variance = row.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / channels as f64;
        let scale = 1.0 / (variance + eps).sqrt();
        for (channel, (out, v)) in out.iter_mut().zip(row).enumerate() {
            *out = (v - mean) * scale * weight[channel] + bias[channel];
        }
    }
}
