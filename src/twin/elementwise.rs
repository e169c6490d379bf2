//! Operations on corresponding elements, and the packing of pixels. Twin of `shaders/elementwise.wgsl` and `shaders/pack_rgba8.wgsl`.

use crate::graph::BinaryOp;

/// `b` is broadcast to `a`: each of its axes is that of `a` or 1.
pub fn binary(op: BinaryOp, a: &[f64], a_shape: &[usize], b: &[f64], b_shape: &[usize], out: &mut [f64]) {
    let apply = |a: f64, b: f64| match op {
        BinaryOp::Add => a + b,
        BinaryOp::Sub => a - b,
        BinaryOp::Mul => a * b,
    };
    if a_shape == b_shape {
        out.iter_mut().zip(a.iter().zip(b)).for_each(|(out, (&a, &b))| *out = apply(a, b));
        return;
    }
    for (index, (out, &a)) in out.iter_mut().zip(a).enumerate() {
        let (mut rest, mut at, mut stride) = (index, 0, 1);
        for (&da, &db) in a_shape.iter().zip(b_shape).rev() {
            at += (rest % da % db) * stride;
            rest /= da;
            stride *= db;
        }
        *out = apply(a, b[at]);
    }
}

/// scale · x + shift.
pub fn affine(x: &[f64], scale: f64, shift: f64, out: &mut [f64]) {
    out.iter_mut().zip(x).for_each(|(out, x)| *out = scale * x + shift);
}

/// `x` is `[batch, channels, pixels]` in −1..1 with 1 or 3 channels; halves round to even as in numpy and WGSL.
pub fn pack_rgba8(x: &[f64], channels: usize, pixels: usize) -> Vec<u32> {
    let byte = |v: f64| (255.0 * (v as f32 * 0.5 + 0.5).clamp(0.0, 1.0)).round_ties_even() as u32;
    let picture = |x: &[f64]| {
        let channel = |i: usize| x[i.min(channels - 1) * pixels..][..pixels].iter().map(move |&v| byte(v));
        let rgb = channel(0).zip(channel(1)).zip(channel(2));
        rgb.map(|((r, g), b)| r | g << 8 | b << 16 | 255 << 24).collect::<Vec<_>>()
    };
    x.chunks_exact(channels * pixels).flat_map(picture).collect()
}
