//! Gradients of norms against their formulas in f64.
#![cfg(feature = "training")]
#![cfg(not(target_arch = "wasm32"))]

mod common;

use common::{Buffer, Random, agree, agree_in_any_order, each_machine};
use undiffuse_kernels::gradient::norm::NormGradient;
use undiffuse_kernels::{Activation, Job};

const EPS: f32 = 1e-5;

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// d/dx x · sigmoid(x).
fn silu(x: f64) -> f64 {
    sigmoid(x) * (1.0 + x * sigmoid(-x))
}

/// An activation with the formula of its slope.
type Pair = (Activation, fn(f64) -> f64);

const ALL: [Pair; 10] = [
    (Activation::NONE, |_| 1.0),
    (Activation::SILU, silu),
    (Activation::GELU, |x| {
        0.5 * libm::erfc(-x / 2f64.sqrt()) + x * (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt()
    }),
    (Activation::GELU_TANH, |x| {
        let scale = (2.0 / std::f64::consts::PI).sqrt();
        let tanh = (scale * (x + 0.044715 * x.powi(3))).tanh();
        0.5 * (1.0 + tanh) + 0.5 * x * (1.0 - tanh * tanh) * scale * (1.0 + 3.0 * 0.044715 * x * x)
    }),
    (Activation::QUICK_GELU, |x| silu(1.702 * x)),
    (Activation::MISH, |x| {
        let tanh = x.exp().ln_1p().tanh();
        tanh + x * (1.0 - tanh * tanh) * sigmoid(x)
    }),
    (Activation::RELU, |x| if x > 0.0 { 1.0 } else { 0.0 }),
    (Activation::TANH, |x| x.cosh().powi(-2)),
    (Activation::EXP, f64::exp),
    (Activation::SQRT, |x| 0.5 / x.sqrt()),
];

/// A norm but for its numbers.
#[derive(Clone, Copy, Debug)]
struct Case {
    batch: usize,
    pixels: usize,
    channels: usize,
    groups: usize,
    mean: f32,
    tolerance: f64,
}

impl Case {
    fn new(batch: usize, pixels: usize, channels: usize, groups: usize) -> Self {
        Self { batch, pixels, channels, groups, mean: 0.0, tolerance: 4e-6 }
    }

    /// Numbers around the mean, with one outlier in front.
    fn check(self, activation: Activation, slope: fn(f64) -> f64) {
        let Self { batch, pixels, channels, groups, mean, tolerance } = self;
        let rows = batch * pixels;
        let mut random = Random::new(pixels * 31 + channels * 7 + groups);
        let x = Buffer::from_fn(rows * channels, |i| mean + random.next() * if i == 0 { 20.0 } else { 1.0 });
        let upstream = random.buffer(rows * channels);
        let weight = random.buffer(channels);
        // The slope of a square root is that of one of a positive number.
        let above = if activation == Activation::SQRT { 100.0 } else { 0.0 };
        let bias = Buffer::from_fn(channels, |_| above + random.next());

        let mut expected = vec![0.0; rows * channels];
        let mut of_weight = vec![0.0; channels];
        let mut of_bias = vec![0.0; channels];
        let mut largest = 0.0f64;
        let size = channels / groups;
        for (picture, group) in (0..batch).flat_map(|picture| (0..groups).map(move |group| (picture, group))) {
            let own: Vec<(usize, usize)> =
                (0..pixels * size).map(|i| (picture * pixels + i / size, group * size + i % size)).collect();
            let count = own.len() as f64;
            let mean = own.iter().map(|(row, channel)| x.at(row * channels + channel)).sum::<f64>() / count;
            let squares = own.iter().map(|(row, channel)| (x.at(row * channels + channel) - mean).powi(2));
            let scale = 1.0 / (squares.sum::<f64>() / count + f64::from(EPS)).sqrt();
            let normal = |(row, channel): (usize, usize)| (x.at(row * channels + channel) - mean) * scale;
            let gradient = |(row, channel): (usize, usize)| {
                let y = normal((row, channel)) * weight.at(channel) + bias.at(channel);
                upstream.at(row * channels + channel) * slope(y)
            };
            let weighted = |at: (usize, usize)| weight.at(at.1) * gradient(at);
            let gradient_mean = own.iter().map(|&at| weighted(at)).sum::<f64>() / count;
            let product_mean = own.iter().map(|&at| weighted(at) * normal(at)).sum::<f64>() / count;
            for at in own {
                of_weight[at.1] += gradient(at) * normal(at);
                of_bias[at.1] += gradient(at);
                largest = largest.max((scale * weighted(at)).abs());
                expected[at.0 * channels + at.1] = scale * (weighted(at) - gradient_mean - normal(at) * product_mean);
            }
        }

        each_machine(|machine| {
            let out = Buffer::new((rows + 2) * channels);
            let mut gradient = NormGradient {
                x: x.address(),
                upstream: upstream.address(),
                weight: weight.address(),
                bias: if activation == Activation::NONE { 0 } else { bias.address() },
                out: out.address(),
                scratch: 0,
                batch,
                pixels,
                channels,
                groups,
                eps: EPS.into(),
                activation,
            };
            let scratch = Buffer::new(gradient.scratch_len());
            gradient.scratch = scratch.address();
            machine.run(Job::new(gradient));
            machine.run(Job::new(gradient.sums()));
            let what = format!("{self:?}, {activation:?} on {machine:?}");
            assert!(scratch.margin_is_whole(), "{what}: written outside of the scratch memory");
            let row = |first: usize, count: usize| Buffer::from_fn(count, |i| out.values()[first + i]);
            // Groups of one number or two have no gradient but what rounding leaves of its terms: these count, too.
            let terms: Vec<f64> = expected.iter().copied().chain([largest]).collect();
            let of_x =
                Buffer::from_fn(terms.len(), |i| if i < expected.len() { out.values()[i] } else { largest as f32 });
            agree(&of_x, &terms, tolerance, &format!("x of {what}"));
            agree(&row(rows * channels, channels), &of_weight, tolerance, &format!("weight of {what}"));
            agree(&row((rows + 1) * channels, channels), &of_bias, tolerance, &format!("bias of {what}"));
            out
        });
    }
}

#[test]
fn gradients_of_group_norms_agree_with_their_formula_in_f64() {
    // One number to a group; groups of less and of more than a line of channels, and of no whole ones; many groups to a part; more
    // than one run of pixels.
    for (batch, pixels, channels, groups) in [
        (1, 3, 1, 1),
        (2, 5, 6, 3),
        (1, 130, 96, 32),
        (2, 64, 320, 32),
        (1, 9, 1000, 2),
        (1, 256, 128, 128),
        (3, 1, 48, 4),
        (3, 1024, 64, 32),
    ] {
        for (activation, slope) in [ALL[0], ALL[1], ALL[2]] {
            Case::new(batch, pixels, channels, groups).check(activation, slope);
        }
    }
}

#[test]
fn gradients_of_layer_norms_agree_with_their_formula_in_f64() {
    // One number to a row; rows of no whole lines; more than one partial sum, and the last of few rows; several parts.
    for (rows, channels) in [(1, 5), (3, 5), (7, 16), (32, 33), (77, 100), (300, 320), (1000, 64), (20, 1280)] {
        for (activation, slope) in [ALL[0], ALL[1]] {
            Case::new(rows, 1, channels, 1).check(activation, slope);
        }
    }
}

#[test]
fn gradients_go_through_each_activation() {
    for (activation, slope) in ALL {
        Case::new(2, 70, 24, 3).check(activation, slope);
        Case::new(50, 1, 24, 1).check(activation, slope);
    }
}

#[test]
fn groups_of_one_number_have_no_gradient() {
    for (activation, slope) in [ALL[0], ALL[1]] {
        Case::new(1, 1, 1, 1).check(activation, slope);
        Case::new(2, 1, 20, 20).check(activation, slope);
    }
}

#[test]
fn a_mean_of_thousands_costs_no_more_than_the_input_has_lost() {
    // An f32 of 4096 is rounded to 2.4e-4 of the spread, and so is the mean; what is compared are norms of the rounded numbers.
    Case { mean: 4096.0, tolerance: 2e-4, ..Case::new(1, 1000, 32, 4) }.check(ALL[1].0, ALL[1].1);
}

#[test]
fn the_order_of_parts_does_not_matter() {
    for [batch, pixels, channels, groups] in [[3, 256, 128, 32], [1000, 1, 64, 1]] {
        let mut random = Random::new(channels);
        let (x, upstream) = (random.buffer(batch * pixels * channels), random.buffer(batch * pixels * channels));
        let (weight, bias) = (random.buffer(channels), random.buffer(channels));
        let out = Buffer::new((batch * pixels + 2) * channels);
        let mut gradient = NormGradient {
            x: x.address(),
            upstream: upstream.address(),
            weight: weight.address(),
            bias: bias.address(),
            out: out.address(),
            scratch: 0,
            batch,
            pixels,
            channels,
            groups,
            eps: EPS.into(),
            activation: Activation::SILU,
        };
        let scratch = Buffer::new(gradient.scratch_len());
        gradient.scratch = scratch.address();
        let jobs = [Job::new(gradient), Job::new(gradient.sums())];
        assert!(jobs[0].parts() > 2, "{jobs:?}");
        agree_in_any_order(&jobs, &out);
    }
}

/// The slopes at the numbers `x`: those of a norm whose weight is 0 at its bias.
fn each_slope(x: &Buffer, activation: Activation, test: impl Fn(&[f32], &str)) {
    let channels = x.values().len();
    let zeros = Buffer::from_fn(channels, |_| 0.0);
    let ones = Buffer::from_fn(channels, |_| 1.0);
    each_machine(|machine| {
        let out = Buffer::new(3 * channels);
        let mut gradient = NormGradient {
            x: zeros.address(),
            upstream: ones.address(),
            weight: zeros.address(),
            bias: x.address(),
            out: out.address(),
            scratch: 0,
            batch: 1,
            pixels: 1,
            channels,
            groups: 1,
            eps: EPS.into(),
            activation,
        };
        let scratch = Buffer::new(gradient.scratch_len());
        gradient.scratch = scratch.address();
        machine.run(Job::new(gradient));
        machine.run(Job::new(gradient.sums()));
        test(&out.values()[2 * channels..], &format!("{activation:?} on {machine:?}"));
        out
    });
}

#[test]
fn slopes_agree_with_their_formulas_in_f64() {
    for (activation, formula) in ALL {
        for (len, reach) in [(1, 1.0), (37, 3.0), (7001, 12.0), (20_000, 60.0)] {
            let lowest = if activation == Activation::SQRT { 0.0 } else { -reach };
            let x = Buffer::from_fn(len, |i| lowest + (reach - lowest) * (i as f32 + 0.5) / len as f32);
            each_slope(&x, activation, |slopes, what| {
                for (&x, &slope) in x.values().iter().zip(slopes) {
                    let expected = formula(f64::from(x));
                    let error = (f64::from(slope) - expected).abs();
                    assert!(error <= 1e-6 * expected.abs().max(0.5), "{what} at {x}: {slope}, expected {expected}");
                }
            });
        }
    }
}

#[test]
fn slopes_have_the_limits_of_the_real_functions() {
    let x = Buffer::from_fn(7, |i| [f32::NEG_INFINITY, -1e30, -200.0, 0.0, 200.0, 1e30, f32::INFINITY][i]);
    let limits: [(Activation, [f32; 3]); 8] = [
        (Activation::SILU, [0.0, 0.5, 1.0]),
        (Activation::GELU, [0.0, 0.5, 1.0]),
        (Activation::GELU_TANH, [0.0, 0.5, 1.0]),
        (Activation::QUICK_GELU, [0.0, 0.5, 1.0]),
        (Activation::MISH, [0.0, 0.6, 1.0]),
        (Activation::RELU, [0.0, 0.0, 1.0]),
        (Activation::TANH, [0.0, 1.0, 0.0]),
        (Activation::EXP, [0.0, 1.0, f32::INFINITY]),
    ];
    for (activation, [low, middle, high]) in limits {
        each_slope(&x, activation, |slopes, what| {
            for (slope, expected) in slopes.iter().zip([low, low, low, middle, high, high, high]) {
                assert!(*slope == expected || (slope - expected).abs() < 1e-6, "{what}: {slopes:?}");
            }
        });
    }
}
