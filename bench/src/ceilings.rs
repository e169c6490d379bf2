//! What this machine's cores can do at most: products and sums in registers, and copies through memory.

use std::hint::black_box;
use std::thread;
use std::time::Instant;

/// Independent sums, enough to hide the latency of a multiply-add in every vector width.
const SUMS: usize = 12;
/// Elements of the widest vectors there are.
const LANES: usize = 16;
/// Rounds over the sums in one measurement.
const ROUNDS: usize = 4_000_000;
/// Bytes of a copy, larger than caches.
const COPIED: usize = 128 << 20;
/// The best of so many measurements counts: a ceiling is what can be reached.
const REPEATS: usize = 5;

/// The same number of operations whatever the width of a vector. A macro, since a closure does not inherit the target features of
/// the function around it.
macro_rules! rounds {
    ($width:expr, |$value:ident: f32| $splat:expr, |$sum:ident, $factor:ident, $summand:ident| $multiply_add:expr) => {{
        let splat = |$value: f32| $splat;
        let ($factor, $summand) = (splat(black_box(0.999)), splat(black_box(0.001)));
        let mut sums = [splat(1.0); SUMS];
        for _ in 0..ROUNDS * LANES / $width {
            for sum in &mut sums {
                let $sum = *sum;
                *sum = $multiply_add;
            }
        }
        black_box(sums);
    }};
}
/// The ceilings of `threads` threads together.
pub struct Ceilings {
    /// 10⁹ floating point operations a second, two to a multiply-add.
    pub gflops: f64,
    /// 10⁹ bytes a second, read and written together.
    pub copy_gb: f64,
}

/// Measures both.
pub fn measure(threads: usize) -> Ceilings {
    let best = |work: &(dyn Fn() + Sync)| {
        let seconds = (0..REPEATS).map(|_| {
            let start = Instant::now();
            thread::scope(|scope| {
                for _ in 0..threads {
                    scope.spawn(work);
                }
            });
            start.elapsed().as_secs_f64()
        });
        seconds.fold(f64::INFINITY, f64::min)
    };
    let operations = (2 * SUMS * LANES * ROUNDS * threads) as f64;
    let gflops = operations / best(&multiply_adds) / 1e9;

    let elements = COPIED / threads / size_of::<u64>();
    let seconds = thread::scope(|scope| {
        let copy = || {
            let (source, mut target) = (vec![1u64; elements], vec![0u64; elements]);
            let time = || {
                let start = Instant::now();
                target.copy_from_slice(black_box(&source));
                black_box(&mut target);
                start.elapsed().as_secs_f64()
            };
            std::iter::repeat_with(time).take(4 * REPEATS).fold(f64::INFINITY, f64::min)
        };
        let copies: Vec<_> = (0..threads).map(|_| scope.spawn(copy)).collect();
        copies.into_iter().filter_map(|copy| copy.join().ok()).fold(0.0, f64::max)
    });
    Ceilings { gflops, copy_gb: (2 * elements * size_of::<u64>() * threads) as f64 / seconds / 1e9 }
}

/// One thread's multiply-adds, with the widest vectors that the machine has.
fn multiply_adds() {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the feature was detected.
            return unsafe { x86::avx512() };
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: both features were detected.
            return unsafe { x86::avx2() };
        }
    }
    rounds!(1, |value: f32| value, |sum, factor, summand| sum * factor + summand);
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{_mm256_fmadd_ps, _mm256_set1_ps, _mm512_fmadd_ps, _mm512_set1_ps};
    use std::hint::black_box;

    use super::{LANES, ROUNDS, SUMS};

    #[target_feature(enable = "avx512f")]
    pub fn avx512() {
        rounds!(16, |value: f32| _mm512_set1_ps(value), |sum, factor, summand| _mm512_fmadd_ps(sum, factor, summand));
    }

    #[target_feature(enable = "avx2,fma")]
    pub fn avx2() {
        rounds!(8, |value: f32| _mm256_set1_ps(value), |sum, factor, summand| _mm256_fmadd_ps(sum, factor, summand));
    }
}
