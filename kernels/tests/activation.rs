//! Activations against their formulas in f64.
#![cfg(not(target_arch = "wasm32"))]

mod common;

use common::{Buffer, Random, agree, each_machine};
use undiffuse_kernels::activation::{Activate, Geglu};
use undiffuse_kernels::{Activation, Job};

fn gelu(x: f64) -> f64 {
    0.5 * x * libm::erfc(-x / 2f64.sqrt())
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// An activation with its formula.
type Pair = (Activation, fn(f64) -> f64);

const ALL: [Pair; 9] = [
    (Activation::SILU, |x| x * sigmoid(x)),
    (Activation::GELU, gelu),
    (Activation::GELU_TANH, |x| {
        0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x)).tanh())
    }),
    (Activation::QUICK_GELU, |x| x * sigmoid(1.702 * x)),
    (Activation::MISH, |x| x * x.exp().ln_1p().tanh()),
    (Activation::RELU, |x| x.max(0.0)),
    (Activation::TANH, f64::tanh),
    (Activation::EXP, f64::exp),
    (Activation::SQRT, f64::sqrt),
];

fn activate(x: &Buffer, activation: Activation, expected: &[f64], tolerance: f64) {
    each_machine(|machine| {
        let out = Buffer::new(x.values().len());
        let count = x.values().len();
        machine.run(Job::new(Activate { x: x.address(), out: out.address(), count, activation }));
        agree(&out, expected, tolerance, &format!("{activation:?} of {count} on {machine:?}"));
        out
    });
}

#[test]
fn activations_agree_with_their_formulas_in_f64() {
    for (activation, formula) in ALL {
        for (len, reach) in [(1, 1.0), (37, 3.0), (70_001, 12.0)] {
            let lowest = if activation == Activation::SQRT { 0.0 } else { -reach };
            let x = Buffer::from_fn(len, |i| lowest + (reach - lowest) * (i as f32 + 0.5) / len as f32);
            let expected: Vec<f64> = x.values().iter().map(|&v| formula(f64::from(v))).collect();
            activate(&x, activation, &expected, 5e-7);
        }
    }
}

#[test]
fn exp_has_two_units_in_the_last_place_over_its_whole_range() {
    let x = Buffer::from_fn(17_500, |i| (i as f32 - 8725.0) * 0.01 + 0.0037);
    each_machine(|machine| {
        let out = Buffer::new(x.values().len());
        let (count, activation) = (x.values().len(), Activation::EXP);
        machine.run(Job::new(Activate { x: x.address(), out: out.address(), count, activation }));
        for (x, y) in x.values().iter().zip(out.values()) {
            let expected = f64::from(*x).exp();
            assert!((f64::from(*y) - expected).abs() < 2.5e-7 * expected, "exp({x}) = {y}, expected {expected}");
        }
        out
    });
}

#[test]
fn activations_have_the_limits_of_the_real_functions() {
    let x = Buffer::from_fn(5, |i| [-1e30, -200.0, 0.0, 200.0, 1e30][i]);
    let limits: [(Activation, [f32; 5]); 6] = [
        (Activation::SILU, [0.0, 0.0, 0.0, 200.0, 1e30]),
        (Activation::GELU, [0.0, 0.0, 0.0, 200.0, 1e30]),
        (Activation::QUICK_GELU, [0.0, 0.0, 0.0, 200.0, 1e30]),
        (Activation::MISH, [0.0, 0.0, 0.0, 200.0, 1e30]),
        (Activation::TANH, [-1.0, -1.0, 0.0, 1.0, 1.0]),
        (Activation::EXP, [0.0, 0.0, 1.0, f32::INFINITY, f32::INFINITY]),
    ];
    for (activation, expected) in limits {
        each_machine(|machine| {
            let out = Buffer::new(5);
            machine.run(Job::new(Activate { x: x.address(), out: out.address(), count: 5, activation }));
            assert_eq!(out.values(), expected, "{activation:?} on {machine:?}");
            out
        });
    }
}

#[test]
fn what_is_not_a_number_stays_so() {
    let x = Buffer::from_fn(3, |_| f32::NAN);
    for (activation, _) in ALL {
        each_machine(|machine| {
            let out = Buffer::from_fn(3, |_| 0.0);
            machine.run(Job::new(Activate { x: x.address(), out: out.address(), count: 3, activation }));
            assert!(out.values().iter().all(|v| v.is_nan()), "{activation:?} on {machine:?}: {:?}", out.values());
            Buffer::from_fn(0, |_| 0.0)
        });
    }
}

#[test]
fn geglu_agrees_with_its_formula_in_f64() {
    for (rows, channels) in [(1, 1), (3, 7), (9, 384), (500, 70)] {
        let mut random = Random::new(rows * 31 + channels);
        let x = random.buffer(rows * channels * 2);
        let at = |i: usize| i / channels * channels * 2 + i % channels;
        let expected: Vec<f64> = (0..rows * channels).map(|i| x.at(at(i)) * gelu(x.at(at(i) + channels))).collect();
        each_machine(|machine| {
            let out = Buffer::new(expected.len());
            machine.run(Job::new(Geglu { x: x.address(), out: out.address(), rows, channels }));
            agree(&out, &expected, 5e-7, &format!("{rows} × {channels} on {machine:?}"));
            out
        });
    }
}
