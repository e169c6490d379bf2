//! Convolutions, by each algorithm, against sums in f64.
#![cfg(not(target_arch = "wasm32"))]

mod common;

use common::{Buffer, Random, agree, each_machine};
use undiffuse_kernels::Job;
use undiffuse_kernels::conv2d::{Algorithm, Conv2d, Pack};

/// A convolution but for addresses.
#[derive(Clone, Copy, Debug)]
struct Case {
    batch: usize,
    size: [usize; 2],
    channels: [usize; 2],
    out_channels: usize,
    kernel: [usize; 2],
    stride: usize,
    /// Top, bottom, left, right.
    padding: [usize; 4],
    upsample: usize,
}

/// 3×3 with padding 1, as nearly all are.
fn three(batch: usize, size: [usize; 2], channels: usize, out_channels: usize) -> Case {
    let (channels, kernel, stride, padding) = ([channels, 0], [3, 3], 1, [1; 4]);
    Case { batch, size, channels, out_channels, kernel, stride, padding, upsample: 0 }
}

/// What is added to the product.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Added {
    Nothing,
    BiasAndResidual,
    BiasAndPerPicture,
}

impl Case {
    fn check(self, algorithm: Algorithm, added: Added, tolerance: f64) {
        let Case { batch, size, channels, out_channels, kernel, stride, padding, upsample } = self;
        let seen = size.map(|side| side << upsample);
        let out_size = [0, 1].map(|i| (seen[i] + padding[2 * i] + padding[2 * i + 1] - kernel[i]) / stride + 1);
        let (pixels, all) = (size[0] * size[1], channels[0] + channels[1]);
        let mut random = Random::new(pixels * 31 + all * 7 + out_channels);
        let x = channels.map(|channels| random.buffer(batch * pixels * channels));
        let weight = random.buffer(out_channels * all * kernel[0] * kernel[1]);
        let bias = random.buffer(out_channels);
        let residual_rows = if added == Added::BiasAndPerPicture { out_size[0] * out_size[1] } else { 1 };
        let residual = random.buffer(batch * out_size[0] * out_size[1] / residual_rows * out_channels);
        let at = |picture: usize, row: Option<usize>, column: Option<usize>, channel: usize| {
            let (row, column) = (row? >> upsample, column? >> upsample);
            if row >= size[0] || column >= size[1] {
                return None;
            }
            let pixel = picture * pixels + row * size[1] + column;
            Some(match channel.checked_sub(channels[0]) {
                None => x[0].at(pixel * channels[0] + channel),
                Some(channel) => x[1].at(pixel * channels[1] + channel),
            })
        };
        let mut expected = Vec::new();
        for pixel in 0..batch * out_size[0] * out_size[1] {
            let (line, column) = (pixel / out_size[1], pixel % out_size[1]);
            let (picture, row) = (line / out_size[0], line % out_size[0]);
            for n in 0..out_channels {
                let mut sum = 0.0;
                for (down, right) in (0..kernel[0]).flat_map(|down| (0..kernel[1]).map(move |right| (down, right))) {
                    let row = (row * stride + down).checked_sub(padding[0]);
                    let column = (column * stride + right).checked_sub(padding[2]);
                    for channel in 0..all {
                        let w = weight.at(((n * all + channel) * kernel[0] + down) * kernel[1] + right);
                        sum += at(picture, row, column, channel).unwrap_or(0.0) * w;
                    }
                }
                if added != Added::Nothing {
                    sum += bias.at(n) + residual.at(pixel / residual_rows * out_channels + n);
                }
                expected.push(sum);
            }
        }
        each_machine(|machine| {
            let [kernel_height, kernel_width] = kernel;
            let packed = Buffer::new(algorithm.packed_len([out_channels, all, kernel_height, kernel_width]));
            let (address, out) = (weight.address(), packed.address());
            let in_channels = all;
            machine.run(Job::new(Pack {
                weight: address,
                out,
                out_channels,
                in_channels,
                kernel_height,
                kernel_width,
                algorithm,
            }));
            let out = Buffer::new(expected.len());
            let mut conv = Conv2d {
                x: x[0].address(),
                x2: if channels[1] > 0 { x[1].address() } else { 0 },
                weight: packed.address(),
                bias: if added == Added::Nothing { 0 } else { bias.address() },
                residual: if added == Added::Nothing { 0 } else { residual.address() },
                residual_rows,
                out: out.address(),
                scratch: 0,
                batch,
                height: size[0],
                width: size[1],
                in_channels: channels[0],
                in_channels2: channels[1],
                upsample,
                kernel_height,
                kernel_width,
                stride,
                padding_top: padding[0],
                padding_left: padding[2],
                out_height: out_size[0],
                out_width: out_size[1],
                out_channels,
                algorithm,
            };
            let scratch = Buffer::new(conv.scratch_len());
            conv.scratch = scratch.address();
            machine.run(Job::new(conv));
            assert!(
                scratch.margin_is_whole(),
                "{self:?}, {algorithm:?} on {machine:?}: written outside of the scratch memory"
            );
            agree(&out, &expected, tolerance, &format!("{self:?}, {algorithm:?}, {added:?} on {machine:?}"));
            out
        });
    }
}

const EVERY_ADDITION: [Added; 3] = [Added::Nothing, Added::BiasAndResidual, Added::BiasAndPerPicture];

#[test]
fn a_direct_convolution_agrees_with_its_sums_in_f64() {
    let base = three(2, [5, 7], 3, 4);
    let cases = [
        base,
        three(1, [1, 1], 1, 1),
        three(2, [4, 4], 96, 40),
        // More channels than are taken at once.
        three(1, [3, 2], 515, 17),
        // The step down in size: padding 1, and (0, 1, 0, 1) without it.
        Case { stride: 2, ..three(2, [8, 6], 20, 33) },
        Case { stride: 2, padding: [0, 1, 0, 1], ..three(1, [9, 7], 16, 16) },
        Case { kernel: [5, 5], padding: [2; 4], ..base },
        Case { kernel: [1, 3], padding: [0, 0, 1, 1], ..base },
        Case { kernel: [2, 2], padding: [0; 4], stride: 2, ..base },
        Case { upsample: 1, ..three(2, [3, 4], 20, 18) },
        Case { channels: [24, 13], ..three(1, [6, 5], 0, 31) },
    ];
    for case in cases {
        EVERY_ADDITION.into_iter().for_each(|added| case.check(Algorithm::DIRECT, added, 2e-6));
    }
}

#[test]
fn winograd_convolutions_agree_with_sums_in_f64() {
    let cases = [
        three(1, [1, 1], 16, 1),
        three(2, [5, 7], 16, 33),
        three(2, [8, 8], 96, 96),
        // Several parts along tiles and channels; more channels than are taken at once.
        three(1, [33, 30], 32, 128),
        three(1, [6, 9], 528, 40),
        Case { padding: [0, 1, 2, 0], ..three(2, [6, 5], 16, 20) },
        Case { upsample: 1, ..three(2, [5, 4], 32, 48) },
        Case { channels: [32, 16], ..three(1, [9, 8], 0, 64) },
    ];
    for case in cases {
        for added in EVERY_ADDITION {
            case.check(Algorithm::WINOGRAD_2, added, 2e-6);
            case.check(Algorithm::WINOGRAD_4, added, 6e-6);
        }
    }
}
