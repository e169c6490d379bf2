//! Dynamic thresholding, image by image. Twin of `shaders/threshold.wgsl`.

/// Clamps each image of `image` numbers to ±s and divides it by s, where s is the `ratio` quantile of its magnitudes, at
/// least 1 and then at most `max_value`.
pub fn threshold(x: &[f64], ratio: f32, max_value: f32, image: usize, out: &mut [f64]) {
    for (x, out) in x.chunks_exact(image).zip(out.chunks_exact_mut(image)) {
        let s = f64::from(quantile(x, ratio).max(1.0).min(max_value));
        out.iter_mut().zip(x).for_each(|(out, x)| *out = x.clamp(-s, s) / s);
    }
}

/// The `ratio` quantile of |x|, between two values linear.
fn quantile(x: &[f64], ratio: f32) -> f32 {
    // Without the sign, numbers have the order of their bits.
    let magnitudes: Vec<u32> = x.iter().map(|&v| (v as f32).abs().to_bits()).collect();
    // In f32, as torch computes it.
    let rank = ratio * (x.len() - 1) as f32;
    let index = (rank as usize).min(x.len() - 1);
    let (low, high) = (smallest(&magnitudes, index), smallest(&magnitudes, (index + 1).min(x.len() - 1)));
    low + (high - low) * (rank - index as f32)
}

/// The number at `index` in ascending order: the largest that at most `index` others are smaller than, found bit by bit from the
/// highest. Counting vectorises, and unlike the standard library's selection weighs nothing.
fn smallest(magnitudes: &[u32], index: usize) -> f32 {
    let mut found = 0;
    for bit in (0..31).rev() {
        let trial = found | 1 << bit;
        let below: u32 = magnitudes.iter().map(|&bits| u32::from(bits < trial)).sum();
        if below as usize <= index {
            found = trial;
        }
    }
    f32::from_bits(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_between_two_values_is_linear_and_the_last_one_has_nothing_above() {
        let x = [-4.0, 1.0, 3.0, -2.0];
        assert_eq!(quantile(&x, 0.0), 1.0);
        assert_eq!(quantile(&x, 0.5), 2.5);
        assert_eq!(quantile(&x, 1.0), 4.0);
        assert_eq!(quantile(&[-7.0], 0.9), 7.0);
    }

    #[test]
    fn the_largest_threshold_wins_over_the_smallest_one() {
        let mut out = [0.0; 2];
        threshold(&[0.125, -0.25], 1.0, 2.0, 2, &mut out);
        assert_eq!(out, [0.125, -0.25]);
        threshold(&[3.0, -0.5], 1.0, 2.0, 2, &mut out);
        assert_eq!(out, [1.0, -0.25]);
        threshold(&[3.0, -0.25], 1.0, 0.5, 2, &mut out);
        assert_eq!(out, [1.0, -0.5]);
    }
}
