//! The kernels of undiffuse on a CPU: pure functions over plain memory.
//!
//! A [`Job`] is one call of a kernel, plain data with its operands: addresses, sizes, options. [`run`] does one part of it.
//! Parts of one job are independent pieces of comparable size, which may run on as many threads as there are. Kernels
//! allocate nothing, keep nothing between calls and do not panic, so that in a browser they are a module of its own whose
//! instances share a memory (`--features module`), and natively functions in the process.
//!
//! Tensors are f32 and contiguous with channels last, their addresses multiples of [`ALIGNMENT`]. An address is a pointer natively
//! and an offset into the module's memory in a browser. "Rows" are all leading axes of a tensor taken together.
//!
//! Which instructions compute a kernel is decided by the machine, in what order sums are made by the shapes alone. With
//! [`Arithmetic::Separate`] the results are therefore the same bits on every machine.

#![warn(missing_docs)]
// Each function here reads and writes the memory that a job names: one contract, that of `run`.
#![allow(unsafe_op_in_unsafe_fn, clippy::missing_safety_doc)]
// An index counts registers, of several arrays at a time.
#![allow(clippy::needless_range_loop)]

use bytemuck::{Pod, Zeroable};

pub mod activation;
pub mod attention;
pub mod conv2d;
pub mod elementwise;
#[cfg(feature = "training")]
pub mod gradient;
mod grid;
pub mod guidance;
pub mod layout;
pub mod linear;
pub mod linear_update;
mod math;
mod memory;
pub mod norm;
mod operand;
#[cfg(feature = "training")]
pub mod optimiser;
pub mod resample;
pub mod roofline;
mod simd;
mod tile;
pub mod timestep_embedding;
pub mod unpack;
mod winograd;

pub use operand::{Activation, Float};
use simd::{Simd, Task};

/// Alignment of tensors' addresses, in bytes.
pub const ALIGNMENT: usize = 64;

/// The numbers of which weights for a matrix product are stored are padded to a multiple of this many columns.
pub const COLUMNS: usize = 32;

/// One call of a kernel.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Job {
    kernel: usize,
    parts: usize,
    words: [usize; 30],
}

impl Job {
    /// The call of the kernel with these operands.
    pub fn new<O: Operands>(operands: O) -> Self {
        let mut job = Self { kernel: O::KERNEL as usize, parts: operands.parts(), words: [0; 30] };
        let bytes = bytemuck::bytes_of(&operands);
        bytemuck::bytes_of_mut(&mut job.words)[..bytes.len()].copy_from_slice(bytes);
        job
    }

    /// Number of parts that it falls into.
    pub fn parts(&self) -> usize {
        self.parts
    }
}

/// The operands of a kernel: addresses, sizes and options, at most thirty words.
pub trait Operands: Pod {
    /// The kernel whose operands they are.
    const KERNEL: Kernel;

    /// Number of independent pieces of comparable size that the work falls into; depends on nothing but the operands.
    fn parts(&self) -> usize;
}

/// Operands with what is done with them.
trait Compute: Operands {
    /// Does part `part`. Must be `#[inline(always)]`, to be compiled for `S`.
    unsafe fn compute<S: Simd>(&self, part: usize);
}

/// One part of a job.
struct Part<O> {
    operands: O,
    part: usize,
}

impl<O: Compute> Task for Part<O> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        self.operands.compute::<S>(self.part);
    }
}

/// The table of kernels: a name, and the type of its operands. Attributes of an entry go wherever it is named.
macro_rules! kernels {
    ($($(#[$attribute:meta])* $kernel:ident: $operands:ty,)*) => {
        /// A kernel's name.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(usize)]
        pub enum Kernel {
            $(
                #[doc = concat!("Of [`", stringify!($operands), "`].")]
                $(#[$attribute])*
                $kernel,
            )*
        }

        $(
            $(#[$attribute])*
            const _: () = assert!(size_of::<$operands>() <= size_of::<[usize; 30]>());
            $(#[$attribute])*
            impl Operands for $operands {
                const KERNEL: Kernel = Kernel::$kernel;

                fn parts(&self) -> usize {
                    self.count_parts()
                }
            }
        )*

        impl Job {
            /// The kernel's name.
            pub fn name(&self) -> &'static str {
                const NAMES: &[&str] = &[$($(#[$attribute])* stringify!($kernel),)*];
                NAMES.get(self.kernel).copied().unwrap_or_default()
            }
        }

        /// Does part `part` of `job` with the instruction set `S`.
        #[inline(always)]
        unsafe fn run_with<S: Simd>(job: &Job, part: usize) {
            $(
                $(#[$attribute])*
                if job.kernel == Kernel::$kernel as usize {
                    let operands = *job.words.as_ptr().cast::<$operands>();
                    return S::vectorise(Part { operands, part });
                }
            )*
        }
    };
}

kernels! {
    Linear: linear::Linear,
    PackLinear: linear::Pack,
    Conv2d: conv2d::Conv2d,
    PackConv2d: conv2d::Pack,
    Unpack: unpack::Unpack,
    Attention: attention::Attention,
    GroupNorm: norm::GroupNorm,
    LayerNorm: norm::LayerNorm,
    Activate: activation::Activate,
    Geglu: activation::Geglu,
    Affine: elementwise::Affine,
    PackRgba8: elementwise::PackRgba8,
    NonFinite: elementwise::NonFinite,
    Copy: layout::Copy,
    Binary: layout::Binary,
    ResizeNearest: resample::ResizeNearest,
    ResizeBilinear: resample::ResizeBilinear,
    Pool2d: resample::Pool2d,
    TimestepEmbedding: timestep_embedding::TimestepEmbedding,
    Guidance: guidance::Guidance,
    Threshold: guidance::Threshold,
    LinearUpdate: linear_update::LinearUpdate,
    MultiplyAdds: roofline::MultiplyAdds,
    #[cfg(feature = "training")]
    AttentionGradient: gradient::attention::AttentionGradient,
    #[cfg(feature = "training")]
    NormGradient: gradient::norm::NormGradient,
    #[cfg(feature = "training")]
    NormSums: gradient::norm::NormSums,
    #[cfg(feature = "training")]
    ActivateGradient: gradient::elementwise::ActivateGradient,
    #[cfg(feature = "training")]
    GegluGradient: gradient::elementwise::GegluGradient,
    #[cfg(feature = "training")]
    WeightGradient: gradient::weight::WeightGradient,
    #[cfg(feature = "training")]
    Turn: gradient::weight::Turn,
    #[cfg(feature = "training")]
    Sum: gradient::spread::Sum,
    #[cfg(feature = "training")]
    Fill: gradient::spread::Fill,
    #[cfg(feature = "training")]
    Gather: gradient::spread::Gather,
    #[cfg(feature = "training")]
    Scatter: gradient::spread::Scatter,
    #[cfg(feature = "training")]
    ResizeGradient: gradient::spread::ResizeGradient,
    #[cfg(feature = "training")]
    Pool2dGradient: gradient::spread::Pool2dGradient,
    #[cfg(feature = "training")]
    SumOfSquares: optimiser::SumOfSquares,
    #[cfg(feature = "training")]
    AdamW: optimiser::AdamW,
    #[cfg(feature = "training")]
    Ema: optimiser::Ema,
}

/// The way in which a product is added to a sum.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Arithmetic {
    /// One operation, rounded once, where the machine has it.
    #[default]
    Fused,
    /// Two operations, each rounded: the same bits on every machine.
    Separate,
}

/// Does part `part` of `job`. In a module for browsers the build decides about `arithmetic`.
///
/// # Safety
/// `job` comes from [`Job::new`], `part` is less than its parts, and no other thread is doing it. All addresses are multiples of
/// [`ALIGNMENT`] and of live memory of the sizes that the operands state, and outputs overlap neither inputs nor each other,
/// but where a kernel says that it works in place.
pub unsafe fn run(job: &Job, part: usize, arithmetic: Arithmetic) {
    run_on(InstructionSet::widest(), job, part, arithmetic);
}

/// Instruction sets that kernels are compiled for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InstructionSet {
    /// 128-bit vectors, which every machine has that this is compiled for.
    Baseline,
    /// AVX2 with FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512 F, VL and DQ.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl InstructionSet {
    /// The instruction sets of this machine, from narrow to wide.
    pub fn available() -> impl Iterator<Item = Self> {
        #[cfg(target_arch = "x86_64")]
        let wide = {
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            let avx512 = avx2
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512dq");
            [(avx2, Self::Avx2), (avx512, Self::Avx512)].into_iter().filter_map(|(has, set)| has.then_some(set))
        };
        #[cfg(not(target_arch = "x86_64"))]
        let wide = std::iter::empty();
        std::iter::once(Self::Baseline).chain(wide)
    }

    /// The widest instruction set of this machine.
    pub fn widest() -> Self {
        Self::available().last().unwrap_or(Self::Baseline)
    }
}

/// Does part `part` of `job` with the instruction set `set`; see [`run`].
///
/// # Safety
/// As of [`run`], and `set` is one of [`InstructionSet::available`].
pub unsafe fn run_on(set: InstructionSet, job: &Job, part: usize, arithmetic: Arithmetic) {
    #[cfg(target_arch = "x86_64")]
    match (set, arithmetic) {
        (InstructionSet::Baseline, _) => run_with::<simd::Sse2>(job, part),
        (InstructionSet::Avx2, Arithmetic::Fused) => run_with::<simd::Avx2<true>>(job, part),
        (InstructionSet::Avx2, Arithmetic::Separate) => run_with::<simd::Avx2<false>>(job, part),
        (InstructionSet::Avx512, Arithmetic::Fused) => run_with::<simd::Avx512<true>>(job, part),
        (InstructionSet::Avx512, Arithmetic::Separate) => run_with::<simd::Avx512<false>>(job, part),
    }
    #[cfg(target_arch = "aarch64")]
    match (set, arithmetic) {
        (InstructionSet::Baseline, Arithmetic::Fused) => run_with::<simd::Neon<true>>(job, part),
        (InstructionSet::Baseline, Arithmetic::Separate) => run_with::<simd::Neon<false>>(job, part),
    }
    #[cfg(target_arch = "wasm32")]
    match (set, arithmetic) {
        (InstructionSet::Baseline, _) => run_with::<simd::Simd128>(job, part),
    }
}

#[cfg(all(target_arch = "wasm32", feature = "module"))]
mod module {
    /// Does part `part` of the job at `job`.
    ///
    /// # Safety
    /// As of [`super::run`].
    #[unsafe(no_mangle)]
    unsafe extern "C" fn run(job: *const super::Job, part: usize) {
        super::run_with::<super::simd::Simd128>(&*job, part);
    }
}
