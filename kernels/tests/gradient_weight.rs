//! Gradients of weights, turned weights, and what passes over memory once, against plain loops in f64.
#![cfg(feature = "training")]
#![cfg(not(target_arch = "wasm32"))]

mod common;

use common::{Buffer, Random, agree, agree_in_any_order, each_machine};
use undiffuse_kernels::gradient::spread::{Gather, Pool2dGradient, ResizeGradient, Scatter, Sum};
use undiffuse_kernels::gradient::weight::{Turn, WeightGradient};
use undiffuse_kernels::{Job, optimiser};

/// A convolution: pictures, height, width, channels in and out, kernel, stride, and zeros above and to the left.
#[derive(Clone, Copy, Debug)]
struct Conv {
    batch: usize,
    sides: [usize; 2],
    channels: [usize; 2],
    kernel: [usize; 2],
    stride: usize,
    padding: usize,
    out: [usize; 2],
}

fn conv(batch: usize, side: usize, channels: [usize; 2], kernel: usize, stride: usize, padding: usize) -> Conv {
    let (sides, kernel) = ([side, side + 3], [kernel, kernel]);
    let out = [0, 1].map(|axis| (sides[axis] + 2 * padding - kernel[axis]) / stride + 1);
    Conv { batch, sides, channels, kernel, stride, padding, out }
}

impl Conv {
    fn check(self) {
        let Self { batch, sides: [height, width], channels: [inner, outer], kernel, stride, padding, out } = self;
        let mut random = Random::new(height * 31 + inner * 7 + outer);
        let x = random.buffer(batch * height * width * inner);
        let upstream = random.buffer(batch * out[0] * out[1] * outer);
        let taps = kernel[0] * kernel[1];
        let mut expected = vec![0.0; taps * outer * inner];
        for pixel in 0..batch * out[0] * out[1] {
            let (picture, row, column) = (pixel / out[1] / out[0], pixel / out[1] % out[0], pixel % out[1]);
            for tap in 0..taps {
                let y = (row * stride + tap / kernel[1]).wrapping_sub(padding);
                let from = (column * stride + tap % kernel[1]).wrapping_sub(padding);
                if y >= height || from >= width {
                    continue;
                }
                for n in 0..outer {
                    for c in 0..inner {
                        let x = x.at(((picture * height + y) * width + from) * inner + c);
                        expected[(tap * outer + n) * inner + c] += x * upstream.at(pixel * outer + n);
                    }
                }
            }
        }
        let job = |out: &Buffer| {
            Job::new(WeightGradient {
                x: x.address(),
                upstream: upstream.address(),
                out: out.address(),
                batch,
                height,
                width,
                in_channels: inner,
                kernel_height: kernel[0],
                kernel_width: kernel[1],
                stride,
                padding_top: padding,
                padding_left: padding,
                out_height: self.out[0],
                out_width: self.out[1],
                out_channels: outer,
            })
        };
        each_machine(|machine| {
            let out = Buffer::new(expected.len());
            machine.run(job(&out));
            agree(&out, &expected, 4e-6, &format!("{self:?}"));
            out
        });
        let out = Buffer::new(expected.len());
        agree_in_any_order(&[job(&out)], &out);
    }
}

#[test]
fn the_weight_of_a_convolution_gets_the_sum_over_all_pixels() {
    conv(2, 9, [3, 8], 3, 1, 1).check();
    conv(2, 8, [8, 12], 3, 2, 1).check();
    conv(1, 6, [5, 4], 1, 1, 0).check();
    conv(3, 17, [16, 33], 3, 1, 1).check();
    conv(2, 11, [4, 7], 5, 2, 2).check();
    conv(1, 20, [40, 24], 3, 1, 0).check();
    conv(2, 4, [15, 17], 3, 1, 3).check();
    conv(16, 16, [64, 48], 3, 1, 1).check();
    conv(1, 1, [1, 1], 1, 1, 0).check();
}

#[test]
fn the_weight_of_a_linear_layer_gets_the_sum_over_all_rows() {
    for (rows, inner, outer) in [(1, 1, 1), (7, 12, 9), (300, 32, 48), (513, 31, 65), (1000, 320, 8)] {
        Conv {
            batch: 1,
            sides: [1, rows],
            channels: [inner, outer],
            kernel: [1, 1],
            stride: 1,
            padding: 0,
            out: [1, rows],
        }
        .check();
    }
}

#[test]
fn a_turned_weight_has_its_channels_swapped_and_its_taps_reversed() {
    for (outer, inner, taps) in [(1, 1, 1), (5, 3, 9), (33, 17, 1), (20, 40, 25)] {
        let weight = Random::new(outer).buffer(outer * inner * taps);
        let turned = |i: usize| {
            let (c, n, tap) = (i / taps / outer, i / taps % outer, i % taps);
            weight.at((n * inner + c) * taps + taps - 1 - tap)
        };
        let expected: Vec<f64> = (0..outer * inner * taps).map(turned).collect();
        each_machine(|machine| {
            let out = Buffer::new(expected.len());
            let (weight, to) = (weight.address(), out.address());
            machine.run(Job::new(Turn { weight, out: to, out_channels: outer, in_channels: inner, taps }));
            agree(&out, &expected, 0.0, &format!("{outer}, {inner}, {taps}"));
            out
        });
    }
}

#[test]
fn sums_are_those_of_the_middle_axis() {
    for (outer, length, inner) in
        [(1, 5000, 1), (3, 1, 1), (7, 33, 1), (1, 1000, 40), (4, 65, 17), (2, 3, 3), (1, 9, 1)]
    {
        let x = Random::new(length).buffer(outer * length * inner);
        let sum = |i: usize| (0..length).map(|l| x.at((i / inner * length + l) * inner + i % inner)).sum();
        let expected: Vec<f64> = (0..outer * inner).map(sum).collect();
        let job = |y: &Buffer| Job::new(Sum { x: x.address(), y: y.address(), outer, length, inner });
        each_machine(|machine| {
            let y = Buffer::new(outer * inner);
            machine.run(job(&y));
            agree(&y, &expected, 1e-6, &format!("{outer}, {length}, {inner}"));
            y
        });
        let y = Buffer::new(outer * inner);
        agree_in_any_order(&[job(&y)], &y);
    }
}

#[test]
fn rows_are_gathered_and_what_they_get_is_added_up() {
    for (rows, channels, count) in [(1, 1, 1), (11, 8, 12), (5, 33, 40), (300, 64, 7)] {
        let mut random = Random::new(rows);
        let (table, x) = (random.buffer(rows * channels), random.buffer(count * channels));
        let id = |index: usize| index * 7 % rows;
        let ids = Buffer::from_fn(count, |index| id(index) as f32);
        let gathered: Vec<f64> =
            (0..count * channels).map(|i| table.at(id(i / channels) * channels + i % channels)).collect();
        let mut added = vec![0.0; rows * channels];
        for i in 0..count * channels {
            added[id(i / channels) * channels + i % channels] += x.at(i);
        }
        each_machine(|machine| {
            let y = Buffer::new(count * channels);
            let (table, ids) = (table.address(), ids.address());
            machine.run(Job::new(Gather { table, ids, y: y.address(), rows, channels, count }));
            agree(&y, &gathered, 0.0, "gathered");
            y
        });
        let job = |table: &Buffer| {
            let (x, ids, table) = (x.address(), ids.address(), table.address());
            Job::new(Scatter { x, ids, table, rows, channels, count })
        };
        each_machine(|machine| {
            let table = Buffer::new(rows * channels);
            machine.run(job(&table));
            agree(&table, &added, 1e-6, "added up");
            table
        });
        let table = Buffer::new(rows * channels);
        agree_in_any_order(&[job(&table)], &table);
    }
}

#[test]
fn a_resized_picture_gives_back_to_the_pixels_that_it_was_made_of() {
    for (from, to, channels) in [([4, 5], [8, 10], 3), ([3, 3], [7, 5], 17), ([8, 6], [4, 3], 32), ([1, 1], [5, 4], 1)]
    {
        for bilinear in [0, 1] {
            let batch = 2;
            let upstream = Random::new(channels).buffer(batch * to[0] * to[1] * channels);
            let place = |index: usize, axis: usize| -> [(usize, f64); 2] {
                if bilinear == 0 {
                    return [(index * from[axis] / to[axis], 1.0), (0, 0.0)];
                }
                let scale = from[axis] as f32 / to[axis] as f32;
                let at = (scale * (index as f32 + 0.5) - 0.5).max(0.0).min((from[axis] - 1) as f32);
                let (low, share) = (at as usize, f64::from(at.fract()));
                [(low, 1.0 - share), ((low + 1).min(from[axis] - 1), share)]
            };
            let mut expected = vec![0.0; batch * from[0] * from[1] * channels];
            for i in 0..batch * to[0] * to[1] * channels {
                let (pixel, channel) = (i / channels, i % channels);
                let picture = pixel / to[1] / to[0];
                for (row, down) in place(pixel / to[1] % to[0], 0) {
                    for (column, across) in place(pixel % to[1], 1) {
                        let at = ((picture * from[0] + row) * from[1] + column) * channels + channel;
                        expected[at] += upstream.at(i) * down * across;
                    }
                }
            }
            each_machine(|machine| {
                let y = Buffer::new(expected.len());
                machine.run(Job::new(ResizeGradient {
                    upstream: upstream.address(),
                    y: y.address(),
                    batch,
                    in_height: from[0],
                    in_width: from[1],
                    height: to[0],
                    width: to[1],
                    channels,
                    bilinear,
                }));
                agree(&y, &expected, 2e-6, &format!("{from:?} to {to:?}, {bilinear}"));
                y
            });
        }
    }
}

#[test]
fn a_pooling_gives_back_to_the_pixels_under_its_kernel() {
    for (side, kernel, stride, padding) in [(6, 2, 2, 0), (7, 3, 2, 1), (5, 5, 1, 0), (8, 3, 1, 1)] {
        let (batch, channels) = (2, 5);
        let out = (side + 2 * padding - kernel) / stride + 1;
        let mut random = Random::new(side);
        let (x, upstream) =
            (random.buffer(batch * side * side * channels), random.buffer(batch * out * out * channels));
        for average in [0, 1] {
            let mut expected = vec![0.0; batch * side * side * channels];
            for i in 0..batch * out * out * channels {
                let (pixel, channel) = (i / channels, i % channels);
                let (picture, row, column) = (pixel / out / out, pixel / out % out, pixel % out);
                let under: Vec<usize> = (0..kernel * kernel)
                    .map(|tap| {
                        [row * stride + tap / kernel, column * stride + tap % kernel].map(|at| at.wrapping_sub(padding))
                    })
                    .filter(|at| at.iter().all(|&at| at < side))
                    .map(|[y, x]| ((picture * side + y) * side + x) * channels + channel)
                    .collect();
                if average == 1 {
                    under.iter().for_each(|&at| expected[at] += upstream.at(i) / under.len() as f64);
                } else {
                    let largest = under.iter().copied().reduce(|a, b| if x.at(b) > x.at(a) { b } else { a });
                    expected[largest.unwrap()] += upstream.at(i);
                }
            }
            each_machine(|machine| {
                let y = Buffer::new(expected.len());
                machine.run(Job::new(Pool2dGradient {
                    x: x.address(),
                    upstream: upstream.address(),
                    y: y.address(),
                    batch,
                    in_height: side,
                    in_width: side,
                    height: out,
                    width: out,
                    channels,
                    kernel_height: kernel,
                    kernel_width: kernel,
                    stride,
                    padding_top: padding,
                    padding_left: padding,
                    average,
                }));
                agree(&y, &expected, 2e-6, &format!("{side}, {kernel}, {stride}, {padding}, {average}"));
                y
            });
        }
    }
}

#[test]
fn a_step_of_adam_w_moves_the_moments_and_the_weight() {
    let coefficients = [0.999_99, 0.1, 0.999, 0.001, 1e-8, 0.044, 0.01, 1.0];
    for count in [1, 15, 16, 33, 70_000] {
        for norm in [0.5f64, 20.0] {
            let mut random = Random::new(count);
            let [weight, first, gradient] = [0; 3].map(|_| random.buffer(count));
            let second = Buffer::from_fn(count, |_| random.next().abs());
            let squares = Buffer::from_fn(1, |_| (norm * norm) as f32);
            let of = Buffer::from_fn(8, |i| coefficients[i]);
            let clip = (1.0 / (norm + 1e-6)).min(1.0);
            let [d, a, b, c, epsilon, r, s, _] = coefficients.map(f64::from);
            let expected: Vec<f64> = (0..count)
                .map(|i| {
                    let g = gradient.at(i) * clip;
                    let m = first.at(i) + a * (g - first.at(i));
                    let v = b * second.at(i) + c * g * g;
                    d * weight.at(i) - s * m / (v.sqrt() / r + epsilon)
                })
                .collect();
            each_machine(|machine| {
                let copy = |of: &Buffer| Buffer::from_fn(count, |i| of.values()[i]);
                let (weight, first, second) = (copy(&weight), copy(&first), copy(&second));
                machine.run(Job::new(optimiser::AdamW {
                    weight: weight.address(),
                    first_moment: first.address(),
                    second_moment: second.address(),
                    gradient: gradient.address(),
                    squares: squares.address(),
                    coefficients: of.address(),
                    count,
                }));
                assert!(first.margin_is_whole() && second.margin_is_whole());
                agree(&weight, &expected, 2e-6, &format!("{count}, {norm}"));
                weight
            });
        }
    }
}

#[test]
fn an_average_moves_by_its_share() {
    for count in [1, 17, 40_000] {
        let mut random = Random::new(count);
        let (average, x) = (random.buffer(count), random.buffer(count));
        let share = Buffer::from_fn(1, |_| 0.25);
        let expected: Vec<f64> = (0..count).map(|i| 0.75 * average.at(i) + 0.25 * x.at(i)).collect();
        let squares = (0..count).map(|i| x.at(i) * x.at(i)).sum();
        each_machine(|machine| {
            let average = Buffer::from_fn(count, |i| average.values()[i]);
            let (x, share) = (x.address(), share.address());
            machine.run(Job::new(optimiser::Ema { average: average.address(), x, share, count }));
            agree(&average, &expected, 1e-6, &format!("{count}"));
            average
        });
        each_machine(|machine| {
            let y = Buffer::new(1);
            machine.run(Job::new(optimiser::SumOfSquares { x: x.address(), y: y.address(), count }));
            agree(&y, &[squares], 1e-6, &format!("squares of {count}"));
            y
        });
    }
}
