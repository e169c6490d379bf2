//! Linear layers against sums in f64.
#![cfg(not(target_arch = "wasm32"))]

mod common;

use common::{Buffer, Random, agree, each_machine};
use undiffuse_kernels::Job;
use undiffuse_kernels::linear::{Linear, Pack, packed_len};

/// A layer with everything that may be added, or nothing.
fn check(rows: usize, in_features: usize, out_features: usize, residual_rows: usize) {
    let mut random = Random::new(rows * 31 + in_features * 7 + out_features);
    let x = random.buffer(rows * in_features);
    let weight = random.buffer(out_features * in_features);
    let bias = random.buffer(out_features);
    let residual = random.buffer(rows.div_ceil(residual_rows.max(1)) * out_features);
    let expected: Vec<f64> = (0..rows * out_features)
        .map(|index| {
            let (row, column) = (index / out_features, index % out_features);
            let product = |k: usize| x.at(row * in_features + k) * weight.at(column * in_features + k);
            let sum: f64 = (0..in_features).map(product).sum();
            let added = |rows: usize| bias.at(column) + residual.at(row / rows * out_features + column);
            if residual_rows > 0 { sum + added(residual_rows) } else { sum }
        })
        .collect();
    each_machine(|machine| {
        let packed = Buffer::new(packed_len(out_features, in_features));
        machine.run(Job::new(Pack { weight: weight.address(), out: packed.address(), out_features, in_features }));
        let out = Buffer::new(rows * out_features);
        machine.run(Job::new(Linear {
            x: x.address(),
            x2: 0,
            weight: packed.address(),
            bias: if residual_rows > 0 { bias.address() } else { 0 },
            residual: if residual_rows > 0 { residual.address() } else { 0 },
            residual_rows,
            out: out.address(),
            rows,
            in_features,
            in_features2: 0,
            out_features,
        }));
        agree(&out, &expected, 1e-6, &format!("{rows} × {in_features} × {out_features} on {machine:?}"));
        out
    });
}

#[test]
fn a_linear_layer_agrees_with_its_sums_in_f64() {
    // Single numbers; one below, at and above rows of tiles, lanes, panels; several parts along rows and columns.
    for (rows, in_features, out_features) in [
        (1, 1, 1),
        (1, 320, 1280),
        (2, 5, 3),
        (7, 33, 15),
        (8, 64, 16),
        (9, 31, 17),
        (13, 100, 31),
        (65, 128, 33),
        (512, 192, 65),
        (1030, 70, 130),
    ] {
        check(rows, in_features, out_features, 0);
        check(rows, in_features, out_features, 1);
    }
}

#[test]
fn a_residual_may_be_shared_by_the_rows_of_a_picture() {
    check(18, 20, 40, 9);
    check(128, 64, 64, 64);
}
