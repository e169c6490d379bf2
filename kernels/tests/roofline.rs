//! The loop that measures a machine does what it counts.

use undiffuse_kernels::roofline::MultiplyAdds;
use undiffuse_kernels::{Arithmetic, InstructionSet, Job, run_on};

/// What a part writes, aligned as kernels want it.
#[repr(C, align(64))]
#[derive(Clone, Copy, PartialEq, Debug)]
struct Sums([f32; MultiplyAdds::LENGTH]);

#[test]
fn every_part_of_the_multiply_adds_comes_to_its_sum_with_every_instruction_set() {
    let untouched = Sums([-1.0; MultiplyAdds::LENGTH]);
    for set in InstructionSet::available() {
        for arithmetic in [Arithmetic::Fused, Arithmetic::Separate] {
            let mut sums = [untouched; 3];
            let job =
                Job::new(MultiplyAdds { y: sums.as_mut_ptr() as usize, count: 40 * MultiplyAdds::STEP, parts: 2 });
            assert_eq!((job.parts(), job.name()), (2, "MultiplyAdds"));
            for part in 0..job.parts() {
                // SAFETY: `sums` has room for both parts, and the machine has the instruction set.
                unsafe { run_on(set, &job, part, arithmetic) };
            }
            for (part, Sums(lanes)) in sums[..2].iter().enumerate() {
                // Twelve sums that are 1/2 each after 40 rounds; the widest vector has all the lanes.
                assert!(lanes[..4].iter().all(|sum| (sum - 6.0).abs() < 1e-5), "{set:?}, {part}: {lanes:?}");
            }
            assert_eq!(sums[2], untouched, "{set:?}");
        }
    }
}
