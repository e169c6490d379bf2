//! Norms against their formulas in f64.
#![cfg(not(target_arch = "wasm32"))]

mod common;

use common::{Buffer, Random, agree, each_machine};
use undiffuse_kernels::norm::{GroupNorm, LayerNorm};
use undiffuse_kernels::{Activation, Job};

const EPS: f32 = 1e-5;

/// Mean and 1 / √(variance + eps).
fn statistics(values: &[f64]) -> (f64, f64) {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / values.len() as f64;
    (mean, 1.0 / (variance + f64::from(EPS)).sqrt())
}

/// Numbers around `mean`, with one outlier in front.
fn check_group_norm(batch: usize, pixels: usize, channels: [usize; 2], groups: usize, mean: f32, tolerance: f64) {
    let all = channels[0] + channels[1];
    let mut random = Random::new(pixels * 31 + all * 7 + groups);
    let x = channels.map(|channels| {
        let len = batch * pixels * channels;
        Buffer::from_fn(len, |i| mean + random.next() * if i == 0 { 20.0 } else { 1.0 })
    });
    let (weight, bias) = (random.buffer(all), random.buffer(all));
    let at = |row: usize, channel: usize| match channel.checked_sub(channels[0]) {
        None => x[0].at(row * channels[0] + channel),
        Some(channel) => x[1].at(row * channels[1] + channel),
    };
    let size = all / groups;
    for activation in [Activation::NONE, Activation::SILU, Activation::GELU] {
        let mut expected = vec![0.0; batch * pixels * all];
        for (picture, group) in (0..batch).flat_map(|picture| (0..groups).map(move |group| (picture, group))) {
            let own = || (0..pixels * size).map(|i| (picture * pixels + i / size, group * size + i % size));
            let values: Vec<f64> = own().map(|(row, channel)| at(row, channel)).collect();
            let (mean, scale) = statistics(&values);
            for ((row, channel), value) in own().zip(values) {
                let y = (value - mean) * scale * weight.at(channel) + bias.at(channel);
                expected[row * all + channel] = match activation {
                    Activation::SILU => y / (1.0 + (-y).exp()),
                    Activation::GELU => 0.5 * y * (1.0 + libm::erf(y / 2f64.sqrt())),
                    _ => y,
                };
            }
        }
        each_machine(|machine| {
            let out = Buffer::new(expected.len());
            machine.run(Job::new(GroupNorm {
                x: x[0].address(),
                x2: if channels[1] > 0 { x[1].address() } else { 0 },
                weight: weight.address(),
                bias: bias.address(),
                out: out.address(),
                batch,
                pixels,
                channels: channels[0],
                channels2: channels[1],
                groups,
                eps: EPS.into(),
                activation,
            }));
            let what = format!("{batch} × {pixels} × {channels:?}, {groups} groups, {activation:?} on {machine:?}");
            agree(&out, &expected, tolerance, &what);
            out
        });
    }
}

#[test]
fn a_group_norm_agrees_with_its_formula_in_f64() {
    // One number to a group; groups of less and of more than a line of channels; many groups to a part; more than one run of pixels.
    for (batch, pixels, channels, groups) in [
        (1, 1, 1, 1),
        (2, 5, 6, 3),
        (1, 130, 96, 32),
        (2, 64, 320, 32),
        (1, 9, 1000, 2),
        (1, 256, 128, 128),
        (3, 1024, 64, 32),
    ] {
        check_group_norm(batch, pixels, [channels, 0], groups, 0.0, 2e-6);
    }
}

#[test]
fn a_group_norm_takes_its_channels_from_two_tensors() {
    // The border between the two lies in the middle of a group, and of a line.
    check_group_norm(2, 20, [40, 24], 4, 0.0, 2e-6);
    check_group_norm(1, 70, [7, 2], 3, 0.0, 2e-6);
}

#[test]
fn a_mean_of_thousands_costs_no_more_than_the_input_has_lost() {
    // An f32 of 4096 is rounded to 2.4e-4 of the spread; what is compared are norms of the rounded numbers.
    check_group_norm(1, 1000, [32, 0], 4, 4096.0, 2e-4);
}

#[test]
fn a_layer_norm_agrees_with_its_formula_in_f64() {
    for (rows, channels) in [(1, 1), (3, 5), (7, 16), (20, 100), (300, 320)] {
        let mut random = Random::new(rows * 31 + channels);
        let (x, weight, bias) = (random.buffer(rows * channels), random.buffer(channels), random.buffer(channels));
        let mut expected = Vec::new();
        for row in 0..rows {
            let values: Vec<f64> = (0..channels).map(|channel| x.at(row * channels + channel)).collect();
            let (mean, scale) = statistics(&values);
            let each = values.iter().enumerate();
            expected.extend(each.map(|(channel, v)| (v - mean) * scale * weight.at(channel) + bias.at(channel)));
        }
        each_machine(|machine| {
            let out = Buffer::new(expected.len());
            machine.run(Job::new(LayerNorm {
                x: x.address(),
                weight: weight.address(),
                bias: bias.address(),
                out: out.address(),
                rows,
                channels,
                eps: EPS.into(),
            }));
            agree(&out, &expected, 2e-6, &format!("{rows} × {channels} on {machine:?}"));
            out
        });
    }
}
