//! Transcendental functions of vectors, in plain arithmetic: the same bits on every machine.

use crate::simd::Simd;

/// Adding and subtracting 1.5·2²³ rounds to the nearest integer.
const ROUND: f32 = 12_582_912.0;

/// c₀ + x·(c₁ + x·(…)).
#[inline(always)]
unsafe fn polynomial<S: Simd, const N: usize>(x: S::Vector, coefficients: [f32; N]) -> S::Vector {
    let mut sum = S::splat(coefficients[N - 1]);
    for index in (0..N - 1).rev() {
        sum = S::mul_add(sum, x, S::splat(coefficients[index]));
    }
    sum
}

/// eˣ to within 2 units in the last place; 0 below −87.3, +∞ above 88.7, not a number for that.
#[inline(always)]
pub unsafe fn exp<S: Simd>(x: S::Vector) -> S::Vector {
    // x = n·ln 2 + r with |r| ≤ ln 2 / 2; ln 2 is split in two so that the reduction is exact.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let (lowest, highest) = (S::splat(-87.3), S::splat(88.7));
    let clamped = S::min(S::max(x, lowest), highest);
    let n = S::sub(S::mul_add(clamped, S::splat(core::f32::consts::LOG2_E), S::splat(ROUND)), S::splat(ROUND));
    let r = S::mul_add(n, S::splat(-LN2_LOW), S::mul_add(n, S::splat(-LN2_HIGH), clamped));
    let p = polynomial::<S, 6>(r, [0.5, 1.666_666_5e-1, 4.166_579_6e-2, 8.333_452e-3, 1.398_199_9e-3, 1.987_569_1e-4]);
    let mantissa = S::add(S::mul_add(S::mul(p, r), r, r), S::splat(1.0));
    // n is at most 128; two factors keep 2ⁿ representable.
    let half = S::mul_add(n, S::splat(0.5), S::splat(ROUND));
    let rest = S::add(S::sub(n, S::sub(half, S::splat(ROUND))), S::splat(ROUND));
    let value = S::mul(S::mul(mantissa, S::power_of_two(half)), S::power_of_two(rest));
    let value = S::if_less(x, lowest, S::splat(0.0), value);
    S::if_less(highest, x, S::splat(f32::INFINITY), value)
}

/// x · 1 / (1 + e⁻ᵗ).
#[inline(always)]
pub unsafe fn times_sigmoid<S: Simd>(x: S::Vector, t: S::Vector) -> S::Vector {
    let one = S::splat(1.0);
    S::div(x, S::add(one, exp::<S>(S::sub(S::splat(0.0), t))))
}

/// tanh through e²ˣ, exact at the ends; for |x| near 0 the relative error grows, which GELU multiplies away.
#[inline(always)]
pub unsafe fn tanh<S: Simd>(x: S::Vector) -> S::Vector {
    let one = S::splat(1.0);
    S::sub(one, S::div(S::splat(2.0), S::add(exp::<S>(S::add(x, x)), one)))
}

/// erf to within 3e-7: |x| up to 1 as x·P(x²), beyond as 1 − e^−Q(|x|); both polynomials interpolate at Chebyshev's nodes.
#[inline(always)]
pub unsafe fn erf<S: Simd>(x: S::Vector) -> S::Vector {
    let one = S::splat(1.0);
    let small = polynomial::<S, 7>(
        S::mul(x, x),
        [
            core::f32::consts::FRAC_2_SQRT_PI,
            -3.761_262_6e-1,
            1.128_359_4e-1,
            -2.685_421_1e-2,
            5.189_087e-3,
            -8.016_864e-4,
            7.875_875e-5,
        ],
    );
    let magnitude = S::abs(x);
    // erf(4) is 1 in f32.
    let large = polynomial::<S, 8>(
        S::min(magnitude, S::splat(4.0)),
        [
            7.658_978e-4,
            1.125_893_6,
            6.391_412_6e-1,
            1.032_811_2e-1,
            -2.260_477_3e-2,
            3.432_351_4e-3,
            -3.169_370_2e-4,
            1.327_236_2e-5,
        ],
    );
    let large = S::sub(one, exp::<S>(S::sub(S::splat(0.0), large)));
    S::if_less(one, magnitude, S::copysign(large, x), S::mul(x, small))
}
