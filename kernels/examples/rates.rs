//! How fast the kernels are, next to a product that stays in the first-level cache:
//! `cargo run --release -p undiffuse-kernels --example rates`, with `--features training` gradients too.
//!
//! One thread, the best of some repetitions, which must be short for a busy machine to leave them alone. Winograd's rates
//! count the products of the direct convolution, so that rates compare times.

use std::time::Instant;

use undiffuse_kernels::attention::Attention;
use undiffuse_kernels::conv2d::{Algorithm, Conv2d};
use undiffuse_kernels::linear::{self, Linear};
use undiffuse_kernels::norm::GroupNorm;
use undiffuse_kernels::{Activation, Arithmetic, InstructionSet, Job, run_on};

/// Numbers at an address that kernels take.
fn numbers(len: usize) -> (Vec<f32>, usize) {
    let numbers: Vec<f32> = (0..len + 16).map(|i| (i % 61) as f32 / 61.0 - 0.5).collect();
    let address = (numbers.as_ptr() as usize).next_multiple_of(64);
    (numbers, address)
}

/// Seconds of the fastest of some runs of `body`.
fn fastest(mut body: impl FnMut()) -> f64 {
    let start = Instant::now();
    let mut best = f64::INFINITY;
    while start.elapsed().as_secs_f64() < 0.2 {
        let start = Instant::now();
        body();
        best = best.min(start.elapsed().as_secs_f64());
    }
    best
}

/// Does all parts of a job.
fn all(set: InstructionSet, arithmetic: Arithmetic, job: Job) {
    for part in 0..job.parts() {
        // SAFETY: the callers' operands name memory of the sizes they state.
        unsafe { run_on(set, &job, part, arithmetic) };
    }
}

fn rate(set: InstructionSet, arithmetic: Arithmetic, job: Job, multiply_adds: usize) -> f64 {
    2e-9 * multiply_adds as f64 / fastest(|| all(set, arithmetic, job))
}

fn linear(set: InstructionSet, arithmetic: Arithmetic, [rows, in_features, out_features]: [usize; 3]) -> f64 {
    let (_x, x) = numbers(rows * in_features);
    let (_weight, weight) = numbers(linear::packed_len(out_features, in_features));
    let (_out, out) = numbers(rows * out_features);
    let (bias, residual, residual_rows, x2, in_features2) = (0, 0, 1, 0, 0);
    let operands =
        Linear { x, x2, weight, bias, residual, residual_rows, out, rows, in_features, in_features2, out_features };
    rate(set, arithmetic, Job::new(operands), rows * in_features * out_features)
}

/// Padding 1, nothing added, no addresses.
fn three_by_three(side: usize, in_channels: usize) -> Conv2d {
    let (height, width, out_height, out_width) = (side, side, side, side);
    let (kernel_height, kernel_width, padding_top, padding_left, stride, residual_rows) = (3, 3, 1, 1, 1, 1);
    Conv2d {
        x: 0,
        x2: 0,
        weight: 0,
        bias: 0,
        residual: 0,
        residual_rows,
        out: 0,
        scratch: 0,
        batch: 1,
        height,
        width,
        in_channels,
        in_channels2: 0,
        upsample: 0,
        kernel_height,
        kernel_width,
        stride,
        padding_top,
        padding_left,
        out_height,
        out_width,
        out_channels: 0,
        algorithm: Algorithm::DIRECT,
    }
}

fn conv2d(set: InstructionSet, arithmetic: Arithmetic, [batch, side, channels, out_channels]: [usize; 4]) -> Vec<f64> {
    let algorithms = [Algorithm::DIRECT, Algorithm::WINOGRAD_2, Algorithm::WINOGRAD_4];
    let each = algorithms.map(|algorithm| {
        let (_x, x) = numbers(batch * side * side * channels);
        let (_weight, weight) = numbers(algorithm.packed_len([out_channels, channels, 3, 3]));
        let (_out, out) = numbers(batch * side * side * out_channels);
        let mut operands = Conv2d { x, weight, out, batch, out_channels, algorithm, ..three_by_three(side, channels) };
        let (_scratch, scratch) = numbers(operands.scratch_len());
        operands.scratch = scratch;
        rate(set, arithmetic, Job::new(operands), batch * side * side * channels * out_channels * 9)
    });
    each.into()
}

/// GFLOP/s of a product that stays in the first-level cache.
fn ceiling(set: InstructionSet, arithmetic: Arithmetic) -> f64 {
    linear(set, arithmetic, [64, 256, 32])
}

/// Tokens that attend to each other.
fn attention(
    set: InstructionSet,
    arithmetic: Arithmetic,
    [batch, heads, head_size, query_tokens, key_tokens]: [usize; 5],
) -> f64 {
    let stride = heads * head_size;
    let (_q, q) = numbers(batch * query_tokens * stride);
    let (_k, k) = numbers(batch * key_tokens * stride);
    let (_out, out) = numbers(batch * query_tokens * stride);
    let (q_stride, k_stride, v_stride, v, causal, scratch) = (stride, stride, stride, k, 0, 0);
    let mut operands = Attention {
        q,
        k,
        v,
        out,
        scratch,
        q_stride,
        k_stride,
        v_stride,
        batch,
        heads,
        head_size,
        query_tokens,
        key_tokens,
        causal,
    };
    let (_scratch, scratch) = numbers(operands.scratch_len());
    operands.scratch = scratch;
    rate(set, arithmetic, Job::new(operands), 2 * batch * query_tokens * key_tokens * stride)
}

/// Millions of numbers a second.
fn group_norm(set: InstructionSet, arithmetic: Arithmetic, [batch, pixels, channels]: [usize; 3]) -> f64 {
    let (_x, x) = numbers(batch * pixels * channels);
    let (_out, out) = numbers(batch * pixels * channels);
    let (_weight, weight) = numbers(channels);
    let (x2, channels2, bias, groups, eps, activation) = (0, 0, weight, 32, 1e-5.into(), Activation::SILU);
    let operands = GroupNorm { x, x2, weight, bias, out, batch, pixels, channels, channels2, groups, eps, activation };
    rate(set, arithmetic, Job::new(operands), batch * pixels * channels) * 500.0
}

#[cfg(feature = "training")]
mod gradients {
    use undiffuse_kernels::gradient::attention::AttentionGradient;
    use undiffuse_kernels::gradient::norm::NormGradient;
    use undiffuse_kernels::norm::LayerNorm;

    use super::*;

    /// The five products of tokens that attend to each other.
    fn attention(
        set: InstructionSet,
        arithmetic: Arithmetic,
        [batch, heads, head_size, query_tokens, key_tokens]: [usize; 5],
    ) -> f64 {
        let stride = heads * head_size;
        let (_q, q) = numbers(batch * query_tokens * stride);
        let (_k, k) = numbers(batch * key_tokens * stride);
        let (_out, out) = numbers(batch * (query_tokens + 2 * key_tokens) * stride);
        let (q_stride, k_stride, v_stride, v, upstream, causal, scratch) = (stride, stride, stride, k, q, 0, 0);
        let mut operands = AttentionGradient {
            q,
            k,
            v,
            upstream,
            out,
            scratch,
            q_stride,
            k_stride,
            v_stride,
            batch,
            heads,
            head_size,
            query_tokens,
            key_tokens,
            causal,
        };
        let (_scratch, scratch) = numbers(operands.scratch_len());
        operands.scratch = scratch;
        rate(set, arithmetic, Job::new(operands), 5 * batch * query_tokens * key_tokens * stride)
    }

    /// Millions of numbers a second, of a norm's gradient.
    fn norm(
        set: InstructionSet,
        arithmetic: Arithmetic,
        [batch, pixels, channels, groups]: [usize; 4],
        activation: Activation,
    ) -> f64 {
        let (_x, x) = numbers(batch * pixels * channels);
        let (_upstream, upstream) = numbers(batch * pixels * channels);
        let (_out, out) = numbers((batch * pixels + 2) * channels);
        let (_weight, weight) = numbers(channels);
        let (bias, scratch, eps) = (weight, 0, 1e-5.into());
        let mut operands =
            NormGradient { x, upstream, weight, bias, out, scratch, batch, pixels, channels, groups, eps, activation };
        let (_scratch, scratch) = numbers(operands.scratch_len());
        operands.scratch = scratch;
        let seconds = fastest(|| {
            all(set, arithmetic, Job::new(operands));
            all(set, arithmetic, Job::new(operands.sums()));
        });
        1e-6 * (batch * pixels * channels) as f64 / seconds
    }

    /// Millions of numbers a second.
    fn layer_norm(set: InstructionSet, arithmetic: Arithmetic, [rows, channels]: [usize; 2]) -> f64 {
        let (_x, x) = numbers(rows * channels);
        let (_out, out) = numbers(rows * channels);
        let (_weight, weight) = numbers(channels);
        let (bias, eps) = (weight, 1e-5.into());
        let operands = LayerNorm { x, weight, bias, out, rows, channels, eps };
        rate(set, arithmetic, Job::new(operands), rows * channels) * 500.0
    }

    pub fn print(set: InstructionSet, arithmetic: Arithmetic) {
        for shape in [
            [16, 4, 32, 256, 256],
            [16, 4, 32, 256, 77],
            [2, 8, 40, 1024, 1024],
            [2, 8, 80, 256, 256],
            [2, 8, 160, 64, 64],
            [2, 8, 8, 256, 256],
            [1, 1, 256, 256, 256],
        ] {
            println!(
                "  gradient of attention {shape:?}: {:.0}; forward {:.0}",
                attention(set, arithmetic, shape),
                super::attention(set, arithmetic, shape)
            );
        }
        for [batch, pixels, channels] in [[16, 256, 128], [2, 256, 64], [1, 1024, 128]] {
            println!(
                "  gradient of group norm and SiLU {:?}: {:.0} million numbers a second, of the norm alone {:.0}; forward {:.0}",
                [batch, pixels, channels],
                norm(set, arithmetic, [batch, pixels, channels, 32], Activation::SILU),
                norm(set, arithmetic, [batch, pixels, channels, 32], Activation::NONE),
                group_norm(set, arithmetic, [batch, pixels, channels]),
            );
        }
        for [rows, channels] in [[4096, 64], [4096, 320], [1024, 1280]] {
            println!(
                "  gradient of layer norm {:?}: {:.0} million numbers a second; forward {:.0}",
                [rows, channels],
                norm(set, arithmetic, [rows, 1, channels, 1], Activation::NONE),
                layer_norm(set, arithmetic, [rows, channels]),
            );
        }
    }
}

fn main() {
    for set in InstructionSet::available() {
        for arithmetic in [Arithmetic::Fused, Arithmetic::Separate] {
            println!("{set:?}, {arithmetic:?}: GFLOP/s; in the first-level cache {:.0}", ceiling(set, arithmetic));
            for shape in
                [[1, 512, 512], [32, 128, 128], [128, 128, 128], [512, 96, 768], [256, 256, 256], [1024, 512, 128]]
            {
                println!("  linear {shape:?}: {:.0}", linear(set, arithmetic, shape));
            }
            for shape in [
                [2, 16, 64, 64],
                [2, 8, 96, 96],
                [2, 4, 128, 128],
                [1, 32, 128, 128],
                [1, 16, 256, 256],
                [1, 8, 256, 256],
                [1, 4, 256, 256],
                [1, 16, 512, 256],
            ] {
                let rates: Vec<String> = conv2d(set, arithmetic, shape).iter().map(|r| format!("{r:.0}")).collect();
                println!("  conv2d {shape:?}: direct, F2, F4 {}", rates.join(", "));
            }
            for shape in [
                [2, 4, 24, 64, 64],
                [2, 4, 32, 16, 16],
                [2, 4, 24, 64, 32],
                [1, 1, 256, 256, 256],
                [1, 8, 40, 32, 1024],
            ] {
                println!("  attention {shape:?}: {:.0}", attention(set, arithmetic, shape));
            }
            for shape in [[2, 256, 64], [2, 64, 96], [2, 16, 128], [1, 1024, 128], [1, 256, 256]] {
                println!(
                    "  group norm and SiLU {shape:?}: {:.0} million numbers a second",
                    group_norm(set, arithmetic, shape)
                );
            }
            #[cfg(feature = "training")]
            gradients::print(set, arithmetic);
        }
    }
}
