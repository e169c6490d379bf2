//! Nearest-neighbour resizing and 2×2 means. Twin of `shaders/resample.wgsl`.

/// `x` is `[batch, height, width, channels]`; source index = floor(i · in / out).
pub fn resize_nearest(x: &[f32], from: [usize; 2], to: [usize; 2], channels: usize, out: &mut [f32]) {
    let pictures = x.chunks_exact(from[0] * from[1] * channels).zip(out.chunks_exact_mut(to[0] * to[1] * channels));
    for (x, out) in pictures {
        for (pixel, out) in out.chunks_exact_mut(channels).enumerate() {
            let (row, column) = (pixel / to[1] * from[0] / to[0], pixel % to[1] * from[1] / to[1]);
            out.copy_from_slice(&x[(row * from[1] + column) * channels..][..channels]);
        }
    }
}

/// Mean of each 2×2 pixels; an odd last row or column is dropped.
pub fn avg_pool2(x: &[f32], from: [usize; 2], channels: usize, out: &mut [f32]) {
    let to = [from[0] / 2, from[1] / 2];
    let pictures = x.chunks_exact(from[0] * from[1] * channels).zip(out.chunks_exact_mut(to[0] * to[1] * channels));
    for (x, out) in pictures {
        for (pixel, out) in out.chunks_exact_mut(channels).enumerate() {
            let at = (pixel / to[1] * 2 * from[1] + pixel % to[1] * 2) * channels;
            let below = at + from[1] * channels;
            for (channel, out) in out.iter_mut().enumerate() {
                let sum = x[at + channel] + x[at + channels + channel];
                *out = (sum + x[below + channel] + x[below + channels + channel]) * 0.25;
            }
        }
    }
}
