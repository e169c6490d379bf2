//! What the tests of kernels share: aligned buffers, seeded numbers, every machine that can be had here, comparison.

// Not each test needs all of it.
#![allow(dead_code)]

use undiffuse_kernels::{Arithmetic, InstructionSet, Job, run, run_on};

/// Numbers as kernels take them, with a margin that nothing may write to.
pub struct Buffer {
    lines: Vec<[f32; 16]>,
    len: usize,
    first: usize,
}

/// What the margin holds.
const MARGIN: f32 = 12_345.0;

impl Buffer {
    /// Not-a-numbers, so that what is not written shows.
    pub fn new(len: usize) -> Self {
        Self::from_fn(len, |_| f32::NAN)
    }

    /// The numbers `at(0), at(1), …`.
    pub fn from_fn(len: usize, mut at: impl FnMut(usize) -> f32) -> Self {
        let mut lines = vec![[MARGIN; 16]; len.div_ceil(16) + 5];
        // The allocator aligns as an f32 wants it; kernels want the first number at a multiple of 64 bytes.
        let first = lines.as_flattened().as_ptr().align_offset(64);
        lines.as_flattened_mut()[first..first + len].iter_mut().enumerate().for_each(|(i, v)| *v = at(i));
        Self { lines, len, first }
    }

    /// For a job's operands.
    pub fn address(&self) -> usize {
        self.values().as_ptr() as usize
    }

    /// The numbers.
    pub fn values(&self) -> &[f32] {
        &self.lines.as_flattened()[self.first..self.first + self.len]
    }

    /// A number as f64.
    pub fn at(&self, index: usize) -> f64 {
        f64::from(self.values()[index])
    }

    /// Whether nothing was written next to the numbers.
    pub fn margin_is_whole(&self) -> bool {
        let all = self.lines.as_flattened();
        all[..self.first].iter().chain(&all[self.first + self.len..]).all(|&v| v == MARGIN)
    }
}

/// Seeded numbers, normal enough: sums of four uniform ones.
pub struct Random(u64);

impl Random {
    pub fn new(seed: usize) -> Self {
        Self(seed as u64 ^ 0x9e37_79b9_7f4a_7c15)
    }

    /// Of mean 0 and variance 1.
    pub fn next(&mut self) -> f32 {
        let mut uniform = || {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 40) as f32 / (1 << 24) as f32 - 0.5
        };
        (0..4).map(|_| uniform()).sum::<f32>() * 3f32.sqrt()
    }

    pub fn buffer(&mut self, len: usize) -> Buffer {
        Buffer::from_fn(len, |_| self.next())
    }
}

/// One way to run a job.
#[derive(Clone, Copy, Debug)]
pub struct Machine(InstructionSet, Arithmetic);

impl Machine {
    /// Does all parts of `job`, last one first: their order must not matter.
    pub fn run(&self, job: Job) {
        for part in (0..job.parts()).rev() {
            // SAFETY: the tests give addresses of buffers that live and have the sizes that the operands state.
            unsafe { run_on(self.0, &job, part, self.1) };
        }
    }
}

/// Runs `test` on every machine that can be had here. What it returns must be the same bits wherever products and sums are
/// rounded apart.
pub fn each_machine(test: impl Fn(Machine) -> Buffer) {
    let mut separate: Option<Vec<u32>> = None;
    for set in InstructionSet::available() {
        for arithmetic in [Arithmetic::Fused, Arithmetic::Separate] {
            let out = test(Machine(set, arithmetic));
            assert!(out.margin_is_whole(), "{set:?}, {arithmetic:?}: written outside of the result");
            if arithmetic == Arithmetic::Separate {
                let bits: Vec<u32> = out.values().iter().map(|v| v.to_bits()).collect();
                assert_eq!(*separate.get_or_insert_with(|| bits.clone()), bits, "{set:?} has other bits");
            }
        }
    }
}

/// Fails unless `jobs`, one after the other, leave the same bits in `out` in whatever order the parts of each are done, and whatever
/// was in its memory before.
pub fn agree_in_any_order(jobs: &[Job], out: &Buffer) {
    let bits = |order: fn(usize, usize) -> usize| -> Vec<u32> {
        for job in jobs {
            for index in 0..job.parts() {
                // SAFETY: the tests give addresses of buffers that live and have the sizes that the operands state.
                unsafe { run(job, order(index, job.parts()), Arithmetic::Fused) };
            }
        }
        out.values().iter().map(|v| v.to_bits()).collect()
    };
    let forward = bits(|index, _| index);
    assert_eq!(forward, bits(|index, parts| parts - 1 - index), "from the last part to the first");
    let rotated = |index: usize, parts: usize| (index + parts / 2) % parts;
    assert_eq!(forward, bits(rotated), "from the middle on");
}

/// Fails on the worst element if it is off by more than `tolerance` times the largest magnitude expected.
pub fn agree(actual: &Buffer, expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(actual.values().len(), expected.len(), "{what}");
    let largest = expected.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    let error = |index: usize| {
        let error = (actual.at(index) - expected[index]).abs();
        if error.is_nan() { f64::INFINITY } else { error }
    };
    let worst = (0..expected.len()).max_by(|&a, &b| error(a).total_cmp(&error(b))).expect("something to compare");
    assert!(
        error(worst) <= tolerance * largest,
        "{what}: element {worst} is {}, expected {}; the largest is {largest}",
        actual.at(worst),
        expected[worst]
    );
}
