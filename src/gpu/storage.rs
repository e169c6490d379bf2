//! The encodings that weight matrices have in GPU memory: one table, from which follow the enum, the shader fragments that unpack
//! blocks of weights, and what a checkpoint's data type is stored as.

use super::kernel::{Axis, Entry, Kernel, PLAIN, Setting, parameters, shader, words};
use crate::weights::Encoding;

/// The parts of a block of 32 quantised elements, in its own order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Quants {
    /// Number of f16 that they share: the scale, or the scale and the minimum.
    pub shared_halves: u32,
    /// Whether each element's fifth bit lies apart.
    pub has_fifth: bool,
    /// Bits of an element, but for the fifth.
    pub bits: u32,
}

const fn quants(shared_halves: u32, has_fifth: bool, bits: u32) -> Option<Quants> {
    Some(Quants { shared_halves, has_fifth, bits })
}

/// Defines [`Storage`] from rows of: the name, which is also that of the data type in a checkpoint; what a block is made of, if it is
/// quantised; and the fragments that define `weight_block`.
macro_rules! storages {
    ($($(#[$doc:meta])* $name:ident: $quants:expr, $fragments:expr;)*) => {
        /// The encoding of a weight matrix in GPU memory.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[allow(non_camel_case_types)] // as ggml spells them
        pub enum Storage {
            $($(#[$doc])* $name,)*
        }

        impl Storage {
            const COUNT: usize = [$(stringify!($name)),*].len();

            /// Every storage.
            pub const ALL: [Self; Self::COUNT] = [$(Self::$name),*];

            /// Every storage as a setting of [`STORAGE`], in the order of the enum.
            pub(super) const SETTINGS: [Setting; Self::COUNT] = [$(Setting::text(stringify!($name), $fragments)),*];

            const DTYPES: [Encoding; Self::COUNT] = [$(Encoding::$name),*];

            const QUANTS: [Option<Quants>; Self::COUNT] = [$($quants),*];
        }
    };
}

storages! {
    /// Single precision.
    F32: None, &[shader!("weights_f32")];
    /// Half precision.
    F16: None, &[shader!("weights_f16")];
    /// The upper half of single precision.
    BF16: None, &[shader!("weights_bf16")];
    /// ggml's blocks of a scale and 8 bits for each of 32 inputs.
    Q8_0: quants(1, false, 8), &[shader!("weights_quantised"), shader!("weights_q8_0")];
    /// ggml's blocks of a scale and 4 bits for each of 32 inputs.
    Q4_0: quants(1, false, 4), &[shader!("weights_quantised"), shader!("weights_q4_0")];
    /// ggml's blocks of a scale, a minimum and 4 bits for each of 32 inputs.
    Q4_1: quants(2, false, 4), &[shader!("weights_quantised"), shader!("weights_q4_1")];
    /// ggml's blocks of a scale and 5 bits for each of 32 inputs.
    Q5_0: quants(1, true, 4), &[shader!("weights_quantised"), shader!("weights_q5_0")];
    /// ggml's blocks of a scale, a minimum and 5 bits for each of 32 inputs.
    Q5_1: quants(2, true, 4), &[shader!("weights_quantised"), shader!("weights_q5_1")];
}

/// The axis of kernels that read a weight matrix: a setting for each [`Storage`].
pub static STORAGE: Axis = Axis(&Storage::SETTINGS);

impl Kernel {
    /// The variant for a weight matrix that is stored so.
    pub fn stored_as(self, storage: Storage) -> Self {
        self.with(&STORAGE, storage as usize)
    }
}

impl Storage {
    /// The name, as checkpoints spell it.
    pub fn name(self) -> &'static str {
        Self::SETTINGS[self as usize].name
    }

    /// The data type that checkpoints have it as.
    fn dtype(self) -> Encoding {
        Self::DTYPES[self as usize]
    }

    /// The parts of a block, if the encoding is quantised.
    pub(super) fn quants(self) -> Option<Quants> {
        Self::QUANTS[self as usize]
    }

    /// The data type that a matrix `[out, in, taps]` of `dtype` has to be converted to first, and its storage.
    ///
    /// A matrix that the kernels have no blocks for becomes f16, which holds every value of 8-bit floats and nearly every one of
    /// quantised weights; other types become f32.
    pub(super) fn of_matrix([_, input, taps]: [usize; 3], dtype: Encoding) -> (Encoding, Self) {
        let has_blocks = taps == 1 && input.is_multiple_of(32);
        let kept = |storage: &Self| storage.dtype() == dtype && (storage.quants().is_none() || has_blocks);
        let storage = Self::ALL.into_iter().find(kept).unwrap_or(match dtype.is_quantised() || dtype.is_float8() {
            true => Self::F16,
            false => Self::F32,
        });
        (storage.dtype(), storage)
    }

    /// The storage for the sum of a matrix that is stored so and low-rank additions.
    pub(super) fn merged(self) -> Self {
        match self {
            Self::F32 | Self::BF16 => Self::F32,
            _ => Self::F16,
        }
    }

    /// Bytes of a matrix `[out, in, taps]`: whole blocks of 4 outputs and 4 inputs, of 32 if it is quantised.
    pub(super) fn matrix_bytes(self, [out, input, taps]: [usize; 3]) -> u64 {
        let [out, input, taps] = [out.div_ceil(4), input.div_ceil(4), taps].map(|n| n as u64);
        match self.quants() {
            Some(Quants { shared_halves, has_fifth, bits }) => {
                let record = 4 * (2 * shared_halves + 4 * (u32::from(has_fifth) + bits));
                u64::from(record) * out * input.div_ceil(8) * taps
            }
            None => 16 * self.dtype().block().bytes as u64 * out * input * taps,
        }
    }

    /// The kernel that lays out `rows` rows of a matrix `[out, in, taps]`, those after the first `done`, and its parameters. It reads
    /// the rows as they are in a checkpoint and writes the matrix.
    pub(super) fn lay_out(self, [out, input, taps]: [usize; 3], rows: usize, done: usize) -> (Kernel, Vec<u32>) {
        let quads = rows.div_ceil(4);
        let (first_quad, out_quads) = ((done / 4) as u32, out.div_ceil(4) as u32);
        let block_bytes = self.dtype().block().bytes as u32;
        match self.quants() {
            None => {
                let parameters = LayOut {
                    invocations: (taps * input.div_ceil(4) * quads) as u32,
                    rows: rows as u32,
                    inputs: input as u32,
                    taps: taps as u32,
                    first_quad,
                    out_quads,
                    is_half: u32::from(block_bytes == 2),
                };
                (LAY_OUT.kernel(), words(&parameters).to_vec())
            }
            Some(Quants { shared_halves, has_fifth, bits }) => {
                let blocks = input / 32;
                let parameters = Repack {
                    invocations: (blocks * quads) as u32,
                    rows: rows as u32,
                    blocks: blocks as u32,
                    block_bytes,
                    first_quad,
                    out_quads,
                    shared_halves,
                    has_fifth: u32::from(has_fifth),
                    bits,
                };
                (REPACK.kernel(), words(&parameters).to_vec())
            }
        }
    }
}

parameters! {
    /// Parameters of `shaders/lay_out.wgsl`.
    LayOut {
        invocations: u32,
        rows: u32,
        inputs: u32,
        taps: u32,
        first_quad: u32,
        out_quads: u32,
        is_half: u32,
    }
}

/// Rows of a matrix to blocks of elements of 16 or 32 bits.
pub static LAY_OUT: Entry =
    Entry { name: "lay_out", source: &[shader!("lay_out")], parameters: LayOut::UNIFORM, ..PLAIN };

parameters! {
    /// Parameters of `shaders/repack.wgsl`.
    Repack {
        invocations: u32,
        rows: u32,
        blocks: u32,
        block_bytes: u32,
        first_quad: u32,
        out_quads: u32,
        shared_halves: u32,
        has_fifth: u32,
        bits: u32,
    }
}

/// Rows of a matrix to records of quantised elements.
pub static REPACK: Entry = Entry { name: "repack", source: &[shader!("repack")], parameters: Repack::UNIFORM, ..PLAIN };

parameters! {
    /// Parameters of `shaders/merge.wgsl`.
    Merge {
        invocations: u32,
        rank: u32,
        rows: u32,
        out_quads: u32,
        is_half: u32,
    }
}

impl Merge {
    /// Additions of rank `rank` to a matrix `[out, in, taps]`, the result stored as `storage`.
    pub fn new([out, input, taps]: [usize; 3], rank: usize, storage: Storage) -> Self {
        let (rows, out_quads) = (taps * input.div_ceil(4), out.div_ceil(4));
        Self {
            invocations: (rows * out_quads) as u32,
            rank: rank as u32,
            rows: rows as u32,
            out_quads: out_quads as u32,
            is_half: u32::from(storage == Storage::F16),
        }
    }
}

/// A matrix with low-rank additions.
pub static MERGE: Entry = Entry {
    name: "merge",
    source: &[shader!("merge")],
    axes: &[&STORAGE],
    parameters: Merge::UNIFORM,
    reads: &[1, 2, 3],
    write: 5,
    ..PLAIN
};

#[cfg(test)]
pub static ENTRIES: [&Entry; 3] = [&LAY_OUT, &REPACK, &MERGE];
