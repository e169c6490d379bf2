//! Vectors of f32, one implementation for each instruction set, behind one trait.
//!
//! What differs between implementations is the number of lanes and whether `mul_add` rounds once or twice, and nothing else:
//! a kernel that works on each lane by itself gives the same bits with each of those that round alike.

/// An instruction set. All functions but [`Simd::vectorise`] need the machine to have it.
pub trait Simd: Copy + 'static {
    /// Some consecutive numbers in a register.
    type Vector: Copy;

    /// Number of lanes.
    const LANES: usize;

    /// Rows of a register tile that is two vectors wide: as many as leave room for its operands.
    const ROWS: usize;

    /// Runs `task` compiled for this instruction set.
    ///
    /// # Safety
    /// The machine has it, and `task` may be run.
    unsafe fn vectorise(task: impl Task);

    /// Reads consecutive numbers, of any alignment.
    unsafe fn load(from: *const f32) -> Self::Vector;
    /// Writes consecutive numbers, of any alignment.
    unsafe fn store(to: *mut f32, value: Self::Vector);
    /// A vector with `value` in all lanes.
    unsafe fn splat(value: f32) -> Self::Vector;
    /// a + b.
    unsafe fn add(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// a − b.
    unsafe fn sub(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// a · b.
    unsafe fn mul(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// a / b.
    unsafe fn div(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// a · b + c, rounded once or twice.
    unsafe fn mul_add(a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
    /// √a.
    unsafe fn sqrt(a: Self::Vector) -> Self::Vector;
    /// b if b < a, else a: a not-a-number in `a` stays.
    unsafe fn min(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// b if a < b, else a: a not-a-number in `a` stays.
    unsafe fn max(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `then` if a < b, else `otherwise`.
    unsafe fn if_less(a: Self::Vector, b: Self::Vector, then: Self::Vector, otherwise: Self::Vector) -> Self::Vector;
    /// |a|.
    unsafe fn abs(a: Self::Vector) -> Self::Vector;
    /// `magnitude`, which is not negative, with the sign of `sign`.
    unsafe fn copysign(magnitude: Self::Vector, sign: Self::Vector) -> Self::Vector;
    /// 2ⁿ for n = a − 1.5·2²³, a whole number of at least −126 and at most 127.
    unsafe fn power_of_two(a: Self::Vector) -> Self::Vector;

    /// The first `count` of consecutive numbers, zeros after them.
    #[inline(always)]
    unsafe fn load_first(from: *const f32, count: usize) -> Self::Vector {
        let mut lanes = [0.0; MAX_LANES];
        for lane in 0..count {
            lanes[lane % MAX_LANES] = *from.add(lane);
        }
        Self::load(lanes.as_ptr())
    }

    /// Writes the first `count` lanes.
    #[inline(always)]
    unsafe fn store_first(to: *mut f32, value: Self::Vector, count: usize) {
        let mut lanes = [0.0; MAX_LANES];
        Self::store(lanes.as_mut_ptr(), value);
        for lane in 0..count {
            *to.add(lane) = lanes[lane % MAX_LANES];
        }
    }
}

/// Lanes of the widest vector.
pub const MAX_LANES: usize = 16;

/// Something to be compiled for an instruction set.
pub trait Task {
    /// Does it; must be `#[inline(always)]` to take effect.
    ///
    /// # Safety
    /// The machine has the instruction set, and what the task says.
    unsafe fn run<S: Simd>(self);
}

/// The parts of an implementation that are one instruction each.
macro_rules! instructions {
    ($vector:ty, $lanes:literal, $load:path, $store:path, $splat:path, $add:path, $sub:path, $mul:path, $div:path, $sqrt:path) => {
        type Vector = $vector;
        const LANES: usize = $lanes;
        #[inline(always)]
        unsafe fn load(from: *const f32) -> $vector {
            $load(from.cast())
        }
        #[inline(always)]
        unsafe fn store(to: *mut f32, value: $vector) {
            $store(to.cast(), value);
        }
        #[inline(always)]
        unsafe fn splat(value: f32) -> $vector {
            $splat(value)
        }
        #[inline(always)]
        unsafe fn add(a: $vector, b: $vector) -> $vector {
            $add(a, b)
        }
        #[inline(always)]
        unsafe fn sub(a: $vector, b: $vector) -> $vector {
            $sub(a, b)
        }
        #[inline(always)]
        unsafe fn mul(a: $vector, b: $vector) -> $vector {
            $mul(a, b)
        }
        #[inline(always)]
        unsafe fn div(a: $vector, b: $vector) -> $vector {
            $div(a, b)
        }
        #[inline(always)]
        unsafe fn sqrt(a: $vector) -> $vector {
            $sqrt(a)
        }
    };
}

#[cfg(target_arch = "x86_64")]
pub use x86::{Avx2, Avx512, Sse2};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use core::arch::x86_64::*;

    use super::{Simd, Task};

    /// 512-bit vectors.
    #[derive(Clone, Copy)]
    pub struct Avx512<const FUSED: bool>;

    impl<const FUSED: bool> Simd for Avx512<FUSED> {
        const ROWS: usize = 8;

        instructions!(
            __m512,
            16,
            _mm512_loadu_ps,
            _mm512_storeu_ps,
            _mm512_set1_ps,
            _mm512_add_ps,
            _mm512_sub_ps,
            _mm512_mul_ps,
            _mm512_div_ps,
            _mm512_sqrt_ps
        );

        #[inline(always)]
        unsafe fn vectorise(task: impl Task) {
            #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx2,fma")]
            unsafe fn inner<const FUSED: bool>(task: impl Task) {
                task.run::<Avx512<FUSED>>();
            }
            inner::<FUSED>(task);
        }
        #[inline(always)]
        unsafe fn mul_add(a: __m512, b: __m512, c: __m512) -> __m512 {
            if FUSED { _mm512_fmadd_ps(a, b, c) } else { _mm512_add_ps(_mm512_mul_ps(a, b), c) }
        }
        #[inline(always)]
        unsafe fn min(a: __m512, b: __m512) -> __m512 {
            _mm512_min_ps(b, a)
        }
        #[inline(always)]
        unsafe fn max(a: __m512, b: __m512) -> __m512 {
            _mm512_max_ps(b, a)
        }
        #[inline(always)]
        unsafe fn if_less(a: __m512, b: __m512, then: __m512, otherwise: __m512) -> __m512 {
            _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b), otherwise, then)
        }
        #[inline(always)]
        unsafe fn abs(a: __m512) -> __m512 {
            _mm512_abs_ps(a)
        }
        #[inline(always)]
        unsafe fn copysign(magnitude: __m512, sign: __m512) -> __m512 {
            _mm512_or_ps(magnitude, _mm512_and_ps(sign, _mm512_set1_ps(-0.0)))
        }
        #[inline(always)]
        unsafe fn power_of_two(a: __m512) -> __m512 {
            let exponent = _mm512_add_epi32(_mm512_castps_si512(a), _mm512_set1_epi32(127));
            _mm512_castsi512_ps(_mm512_slli_epi32::<23>(exponent))
        }
        #[inline(always)]
        unsafe fn load_first(from: *const f32, count: usize) -> __m512 {
            _mm512_maskz_loadu_ps(((1u32 << count) - 1) as __mmask16, from)
        }
        #[inline(always)]
        unsafe fn store_first(to: *mut f32, value: __m512, count: usize) {
            _mm512_mask_storeu_ps(to, ((1u32 << count) - 1) as __mmask16, value);
        }
    }

    /// 256-bit vectors; used with fused multiply-add only where the machine has that too.
    #[derive(Clone, Copy)]
    pub struct Avx2<const FUSED: bool>;

    impl<const FUSED: bool> Simd for Avx2<FUSED> {
        const ROWS: usize = 6;

        instructions!(
            __m256,
            8,
            _mm256_loadu_ps,
            _mm256_storeu_ps,
            _mm256_set1_ps,
            _mm256_add_ps,
            _mm256_sub_ps,
            _mm256_mul_ps,
            _mm256_div_ps,
            _mm256_sqrt_ps
        );

        #[inline(always)]
        unsafe fn vectorise(task: impl Task) {
            #[target_feature(enable = "avx2,fma")]
            unsafe fn inner<const FUSED: bool>(task: impl Task) {
                task.run::<Avx2<FUSED>>();
            }
            inner::<FUSED>(task);
        }
        #[inline(always)]
        unsafe fn mul_add(a: __m256, b: __m256, c: __m256) -> __m256 {
            if FUSED { _mm256_fmadd_ps(a, b, c) } else { _mm256_add_ps(_mm256_mul_ps(a, b), c) }
        }
        #[inline(always)]
        unsafe fn min(a: __m256, b: __m256) -> __m256 {
            _mm256_min_ps(b, a)
        }
        #[inline(always)]
        unsafe fn max(a: __m256, b: __m256) -> __m256 {
            _mm256_max_ps(b, a)
        }
        #[inline(always)]
        unsafe fn if_less(a: __m256, b: __m256, then: __m256, otherwise: __m256) -> __m256 {
            _mm256_blendv_ps(otherwise, then, _mm256_cmp_ps::<_CMP_LT_OQ>(a, b))
        }
        #[inline(always)]
        unsafe fn abs(a: __m256) -> __m256 {
            _mm256_andnot_ps(_mm256_set1_ps(-0.0), a)
        }
        #[inline(always)]
        unsafe fn copysign(magnitude: __m256, sign: __m256) -> __m256 {
            _mm256_or_ps(magnitude, _mm256_and_ps(sign, _mm256_set1_ps(-0.0)))
        }
        #[inline(always)]
        unsafe fn power_of_two(a: __m256) -> __m256 {
            let exponent = _mm256_add_epi32(_mm256_castps_si256(a), _mm256_set1_epi32(127));
            _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent))
        }
    }

    /// 128-bit vectors, which every x86-64 has; it has no fused multiply-add.
    #[derive(Clone, Copy)]
    pub struct Sse2;

    impl Simd for Sse2 {
        const ROWS: usize = 4;

        instructions!(
            __m128,
            4,
            _mm_loadu_ps,
            _mm_storeu_ps,
            _mm_set1_ps,
            _mm_add_ps,
            _mm_sub_ps,
            _mm_mul_ps,
            _mm_div_ps,
            _mm_sqrt_ps
        );

        #[inline(always)]
        unsafe fn vectorise(task: impl Task) {
            task.run::<Self>();
        }
        #[inline(always)]
        unsafe fn mul_add(a: __m128, b: __m128, c: __m128) -> __m128 {
            _mm_add_ps(_mm_mul_ps(a, b), c)
        }
        #[inline(always)]
        unsafe fn min(a: __m128, b: __m128) -> __m128 {
            _mm_min_ps(b, a)
        }
        #[inline(always)]
        unsafe fn max(a: __m128, b: __m128) -> __m128 {
            _mm_max_ps(b, a)
        }
        #[inline(always)]
        unsafe fn if_less(a: __m128, b: __m128, then: __m128, otherwise: __m128) -> __m128 {
            let mask = _mm_cmplt_ps(a, b);
            _mm_or_ps(_mm_and_ps(mask, then), _mm_andnot_ps(mask, otherwise))
        }
        #[inline(always)]
        unsafe fn abs(a: __m128) -> __m128 {
            _mm_andnot_ps(_mm_set1_ps(-0.0), a)
        }
        #[inline(always)]
        unsafe fn copysign(magnitude: __m128, sign: __m128) -> __m128 {
            _mm_or_ps(magnitude, _mm_and_ps(sign, _mm_set1_ps(-0.0)))
        }
        #[inline(always)]
        unsafe fn power_of_two(a: __m128) -> __m128 {
            let exponent = _mm_add_epi32(_mm_castps_si128(a), _mm_set1_epi32(127));
            _mm_castsi128_ps(_mm_slli_epi32::<23>(exponent))
        }
    }
}

#[cfg(target_arch = "aarch64")]
pub use arm::Neon;

#[cfg(target_arch = "aarch64")]
mod arm {
    use core::arch::aarch64::*;

    use super::{Simd, Task};

    /// 128-bit vectors, which every 64-bit ARM has, with fused multiply-add.
    #[derive(Clone, Copy)]
    pub struct Neon<const FUSED: bool>;

    impl<const FUSED: bool> Simd for Neon<FUSED> {
        const ROWS: usize = 8;

        instructions!(
            float32x4_t,
            4,
            vld1q_f32,
            vst1q_f32,
            vdupq_n_f32,
            vaddq_f32,
            vsubq_f32,
            vmulq_f32,
            vdivq_f32,
            vsqrtq_f32
        );

        #[inline(always)]
        unsafe fn vectorise(task: impl Task) {
            task.run::<Self>();
        }
        #[inline(always)]
        unsafe fn mul_add(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
            if FUSED { vfmaq_f32(c, a, b) } else { vaddq_f32(vmulq_f32(a, b), c) }
        }
        #[inline(always)]
        unsafe fn min(a: float32x4_t, b: float32x4_t) -> float32x4_t {
            vbslq_f32(vcltq_f32(b, a), b, a)
        }
        #[inline(always)]
        unsafe fn max(a: float32x4_t, b: float32x4_t) -> float32x4_t {
            vbslq_f32(vcltq_f32(a, b), b, a)
        }
        #[inline(always)]
        unsafe fn if_less(a: float32x4_t, b: float32x4_t, then: float32x4_t, otherwise: float32x4_t) -> float32x4_t {
            vbslq_f32(vcltq_f32(a, b), then, otherwise)
        }
        #[inline(always)]
        unsafe fn abs(a: float32x4_t) -> float32x4_t {
            vabsq_f32(a)
        }
        #[inline(always)]
        unsafe fn copysign(magnitude: float32x4_t, sign: float32x4_t) -> float32x4_t {
            vbslq_f32(vdupq_n_u32(1 << 31), sign, magnitude)
        }
        #[inline(always)]
        unsafe fn power_of_two(a: float32x4_t) -> float32x4_t {
            let exponent = vaddq_u32(vreinterpretq_u32_f32(a), vdupq_n_u32(127));
            vreinterpretq_f32_u32(vshlq_n_u32::<23>(exponent))
        }
    }
}

#[cfg(target_arch = "wasm32")]
pub use wasm::Simd128;

#[cfg(target_arch = "wasm32")]
mod wasm {
    use core::arch::wasm32::*;

    use super::{Simd, Task};

    /// 128-bit vectors of WebAssembly; fused multiply-add where the module is built for relaxed SIMD.
    #[derive(Clone, Copy)]
    pub struct Simd128;

    impl Simd for Simd128 {
        const ROWS: usize = 4;

        instructions!(
            v128,
            4,
            v128_load,
            v128_store,
            f32x4_splat,
            f32x4_add,
            f32x4_sub,
            f32x4_mul,
            f32x4_div,
            f32x4_sqrt
        );

        #[inline(always)]
        unsafe fn vectorise(task: impl Task) {
            // A function for each kernel: browsers compile a module function by function, slowly and in the end worse where all
            // kernels are one.
            #[inline(never)]
            unsafe fn inner(task: impl Task) {
                task.run::<Simd128>();
            }
            inner(task);
        }
        #[inline(always)]
        unsafe fn mul_add(a: v128, b: v128, c: v128) -> v128 {
            #[cfg(target_feature = "relaxed-simd")]
            return f32x4_relaxed_madd(a, b, c);
            #[cfg(not(target_feature = "relaxed-simd"))]
            f32x4_add(f32x4_mul(a, b), c)
        }
        #[inline(always)]
        unsafe fn min(a: v128, b: v128) -> v128 {
            f32x4_pmin(a, b)
        }
        #[inline(always)]
        unsafe fn max(a: v128, b: v128) -> v128 {
            f32x4_pmax(a, b)
        }
        #[inline(always)]
        unsafe fn if_less(a: v128, b: v128, then: v128, otherwise: v128) -> v128 {
            v128_bitselect(then, otherwise, f32x4_lt(a, b))
        }
        #[inline(always)]
        unsafe fn abs(a: v128) -> v128 {
            f32x4_abs(a)
        }
        #[inline(always)]
        unsafe fn copysign(magnitude: v128, sign: v128) -> v128 {
            v128_or(magnitude, v128_and(sign, f32x4_splat(-0.0)))
        }
        #[inline(always)]
        unsafe fn power_of_two(a: v128) -> v128 {
            i32x4_shl(i32x4_add(a, i32x4_splat(127)), 23)
        }
    }
}
