//! The kernels: one table of everything in `shaders/`, which `build.rs` has rid of its comments.
//!
//! A kernel's WGSL is a few static fragments one after the other; variants share its text and differ in the fragments in front and
//! in `override` constants. Nothing is assembled from values at run time: sizes are parameters, so that one compiled pipeline serves
//! all layers.

use crate::graph::{Activation, update};

macro_rules! shader {
    ($name:literal) => {
        include_str!(concat!(env!("OUT_DIR"), "/", $name, ".wgsl"))
    };
}

/// A compute entry point with what is needed to launch it.
///
/// Every one has its parameters in a uniform buffer at binding 0, of which the first is the number of invocations.
#[derive(Debug)]
pub struct Entry {
    /// Name in the WGSL module, and in errors.
    pub name: &'static str,
    /// WGSL fragments, concatenated after those that a variant adds.
    source: &'static [&'static str],
    /// Which variants there are.
    options: Options,
    /// Invocations in a workgroup.
    pub workgroup: u32,
    /// 32-bit words of parameters.
    pub parameters: usize,
    /// Bindings of the tensors read, in the order of a dispatch's operands.
    pub reads: &'static [u32],
    /// Binding of the tensor written.
    pub write: u32,
}

/// In what the variants of an entry point differ.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Options {
    Single,
    /// One, told how long the history is.
    History,
    Channels,
    Weights,
    ChannelsAndWeights,
    Activation,
    ChannelsAndActivation,
    /// Channels and weights, and weights stored as f16 also in tiles of f16.
    Tiled,
    /// Channels, and how many columns of a head an invocation has.
    ChannelsAndColumns,
}

/// How a kernel reaches the channels of its tensors.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Channels {
    /// All channel counts are multiples of four.
    Aligned,
    /// Any channel count.
    Unaligned,
}

impl Channels {
    /// What tensors of these channel counts need.
    pub fn of(counts: &[usize]) -> Self {
        if counts.iter().all(|count| count.is_multiple_of(4)) { Self::Aligned } else { Self::Unaligned }
    }
}

/// How a weight matrix is stored.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[allow(non_camel_case_types)] // as ggml spells them
pub enum Storage {
    /// Single precision.
    F32,
    /// Half precision.
    F16,
    /// The upper half of single precision.
    BF16,
    /// ggml's blocks of 32 inputs, as [`Storage::quants`] describes them.
    Q8_0,
    /// Likewise.
    Q4_0,
    /// Likewise.
    Q4_1,
    /// Likewise.
    Q5_0,
    /// Likewise.
    Q5_1,
}

/// What a block of 32 quantised elements is made of, in its own order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Quants {
    /// How many f16 they share: the scale, or the scale and the minimum.
    pub shared_halves: u32,
    /// Whether each element's fifth bit lies apart.
    pub has_fifth: bool,
    /// Bits of an element, but for the fifth.
    pub bits: u32,
}

impl Storage {
    /// All of them.
    pub const ALL: [Self; 8] =
        [Self::F32, Self::F16, Self::BF16, Self::Q8_0, Self::Q4_0, Self::Q4_1, Self::Q5_0, Self::Q5_1];

    /// Its name, as checkpoints spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::Q8_0 => "Q8_0",
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q5_0 => "Q5_0",
            Self::Q5_1 => "Q5_1",
        }
    }

    /// What its blocks are made of, if it is quantised.
    pub fn quants(self) -> Option<Quants> {
        let (shared_halves, has_fifth, bits) = match self {
            Self::F32 | Self::F16 | Self::BF16 => return None,
            Self::Q8_0 => (1, false, 8),
            Self::Q4_0 => (1, false, 4),
            Self::Q4_1 => (2, false, 4),
            Self::Q5_0 => (1, true, 4),
            Self::Q5_1 => (2, true, 4),
        };
        Some(Quants { shared_halves, has_fifth, bits })
    }

    /// Bytes of a matrix `[out, in, taps]`: whole blocks of 4 outputs and 4 inputs, of 32 if it is quantised.
    pub fn matrix_bytes(self, [out, input, taps]: [usize; 3]) -> u64 {
        let [out, input, taps] = [out.div_ceil(4), input.div_ceil(4), taps].map(|n| n as u64);
        match self.quants() {
            Some(Quants { shared_halves, has_fifth, bits }) => {
                let record = 4 * (2 * shared_halves + 4 * (u32::from(has_fifth) + bits));
                u64::from(record) * out * input.div_ceil(8) * taps
            }
            None => (if self == Self::F32 { 64 } else { 32 }) * out * input * taps,
        }
    }

    fn fragments(self) -> [&'static str; 2] {
        match self {
            Self::F32 => ["", shader!("weights_f32")],
            Self::F16 => ["", shader!("weights_f16")],
            Self::BF16 => ["", shader!("weights_bf16")],
            Self::Q8_0 => [shader!("weights_quantised"), shader!("weights_q8_0")],
            Self::Q4_0 => [shader!("weights_quantised"), shader!("weights_q4_0")],
            Self::Q4_1 => [shader!("weights_quantised"), shader!("weights_q4_1")],
            Self::Q5_0 => [shader!("weights_quantised"), shader!("weights_q5_0")],
            Self::Q5_1 => [shader!("weights_quantised"), shader!("weights_q5_1")],
        }
    }
}

/// A variant of an entry point: what is compiled to one pipeline.
#[derive(Clone, Copy, Debug)]
pub struct Kernel {
    /// The entry point.
    pub entry: &'static Entry,
    channels: Channels,
    storage: Storage,
    /// Whether weights are f16 in workgroup memory.
    half_tiles: bool,
    activation: Option<Activation>,
    columns: usize,
}

/// What tells kernels apart.
pub type KernelKey = (&'static str, Channels, Storage, bool, Option<Activation>, usize);

impl Entry {
    /// The variant for these channels, with f32 weights and no activation where it has a choice.
    pub fn with(&'static self, channels: Channels) -> Kernel {
        let channels = match self.options {
            Options::Single | Options::History | Options::Weights | Options::Activation => Channels::Aligned,
            _ => channels,
        };
        Kernel { entry: self, channels, storage: Storage::F32, half_tiles: false, activation: None, columns: 0 }
    }

    /// The kernel of an entry point without a choice of channels.
    pub fn kernel(&'static self) -> Kernel {
        self.with(Channels::Aligned)
    }
}

impl std::fmt::Display for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { entry, channels, storage, half_tiles, activation, columns } = self;
        let activation = activation.map_or("no activation".to_owned(), |activation| format!("{activation:?}"));
        match entry.options {
            Options::Single | Options::History => f.write_str(entry.name),
            Options::Channels => write!(f, "{} ({channels:?})", entry.name),
            Options::Weights => write!(f, "{} ({storage:?})", entry.name),
            Options::Tiled if *half_tiles => write!(f, "{} ({channels:?}, {storage:?} tiles)", entry.name),
            Options::ChannelsAndWeights | Options::Tiled => {
                write!(f, "{} ({channels:?}, {storage:?})", entry.name)
            }
            Options::ChannelsAndColumns => write!(f, "{} ({channels:?}, {columns} columns)", entry.name),
            Options::Activation => write!(f, "{} ({activation})", entry.name),
            Options::ChannelsAndActivation => write!(f, "{} ({channels:?}, {activation})", entry.name),
        }
    }
}

impl Kernel {
    /// The variant for a weight matrix that is stored so.
    pub fn weights(self, storage: Storage) -> Self {
        Self { storage, ..self }
    }

    /// The variant with f16 weights in workgroup memory, for weights stored as f16 and a device whose shaders know f16.
    pub fn half_tiles(self, half_tiles: bool) -> Self {
        Self { half_tiles, ..self }
    }

    /// Whether its WGSL needs the feature `shader-f16`.
    pub fn needs_f16(&self) -> bool {
        self.half_tiles || self.entry.name == HALF_MULTIPLY_ADDS.name
    }

    /// The variant that ends with `activation`.
    pub fn activation(self, activation: Option<Activation>) -> Self {
        Self { activation, ..self }
    }

    /// The variant in which an invocation has `columns` columns of a head, 1 to [`FLASH_COLUMNS`].
    pub fn columns(self, columns: usize) -> Self {
        Self { columns, ..self }
    }

    /// What tells it apart.
    pub fn key(&self) -> KernelKey {
        (self.entry.name, self.channels, self.storage, self.half_tiles, self.activation, self.columns)
    }

    /// The complete WGSL module.
    pub fn wgsl(&self) -> String {
        let channels = match self.channels {
            Channels::Aligned => shader!("aligned"),
            Channels::Unaligned => shader!("unaligned"),
        };
        let [shared, weights] = self.storage.fragments();
        let tiles = if self.half_tiles { shader!("half_tiles") } else { shader!("full_tiles") };
        let fragments: &[&str] = match self.entry.options {
            Options::Single | Options::History | Options::Activation => &[],
            Options::Channels | Options::ChannelsAndActivation | Options::ChannelsAndColumns => &[channels],
            Options::Weights => &[shared, weights],
            Options::ChannelsAndWeights => &[channels, shared, weights],
            Options::Tiled => &[tiles, channels, shared, weights],
        };
        fragments.iter().chain(self.entry.source).copied().collect()
    }

    /// Values of the module's `override` constants.
    pub fn constants(&self) -> Vec<(&'static str, f64)> {
        let code = match self.activation {
            None => 0,
            Some(Activation::Silu) => 1,
            Some(Activation::Gelu) => 2,
            Some(Activation::GeluTanh) => 3,
            Some(Activation::QuickGelu) => 4,
            Some(Activation::Mish) => 5,
            Some(Activation::Relu) => 6,
            Some(Activation::Tanh) => 7,
            Some(Activation::Exp) => 8,
            Some(Activation::Sqrt) => 9,
        };
        match self.entry.options {
            Options::Activation | Options::ChannelsAndActivation => vec![("ACTIVATION", f64::from(code))],
            Options::History => vec![("HISTORY", update::HISTORY as f64)],
            Options::ChannelsAndColumns => vec![("COLUMNS", self.columns as f64)],
            Options::Single | Options::Channels | Options::Weights | Options::ChannelsAndWeights | Options::Tiled => {
                Vec::new()
            }
        }
    }

    /// Workgroups along x and y for so many invocations: a second axis from where one may hold no more.
    pub fn workgroups(&self, invocations: u32) -> [u32; 2] {
        const LIMIT: u32 = 65_535;
        let groups = invocations.div_ceil(self.entry.workgroup).max(1);
        let rows = groups.div_ceil(LIMIT);
        [groups.div_ceil(rows), rows]
    }
}

/// Every kernel with every variant.
pub fn all() -> Vec<Kernel> {
    use Activation::*;
    let mut kernels = Vec::new();
    for entry in ENTRIES {
        let (aligned, unaligned) = (entry.with(Channels::Aligned), entry.with(Channels::Unaligned));
        let activations = [Silu, Gelu, GeluTanh, QuickGelu, Mish, Relu, Tanh, Exp, Sqrt].map(Some);
        match entry.options {
            Options::Single | Options::History => kernels.push(aligned),
            Options::Channels => kernels.extend([aligned, unaligned]),
            Options::Weights => kernels.extend(Storage::ALL.map(|s| aligned.weights(s))),
            Options::ChannelsAndWeights | Options::Tiled => {
                kernels.extend(Storage::ALL.iter().flat_map(|&s| [aligned.weights(s), unaligned.weights(s)]));
                if entry.options == Options::Tiled {
                    kernels.extend([aligned, unaligned].map(|kernel| kernel.weights(Storage::F16).half_tiles(true)));
                }
            }
            Options::ChannelsAndColumns => {
                kernels.extend((1..=FLASH_COLUMNS).flat_map(|n| [aligned.columns(n), unaligned.columns(n)]));
            }
            Options::Activation => kernels.extend(activations.map(|a| aligned.activation(a))),
            Options::ChannelsAndActivation => {
                let activations = std::iter::once(None).chain(activations);
                kernels.extend(activations.flat_map(|a| [aligned.activation(a), unaligned.activation(a)]));
            }
        }
    }
    kernels
}

static ENTRIES: [&Entry; 36] = [
    &LINEAR,
    &CONV2D,
    &CONV3X3,
    &TILE_128X64,
    &TILE_64X64,
    &TILE_64X32,
    &SPLIT_SUM,
    &MOMENTS,
    &COMBINE,
    &NORMALIZE_PIXELS,
    &LAYER_NORM,
    &FLASH_ATTENTION,
    &SCORES,
    &SOFTMAX,
    &MIX_VALUES,
    &ACTIVATE,
    &AFFINE,
    &GEGLU,
    &COPY,
    &BINARY,
    &NEAREST,
    &BILINEAR,
    &POOL,
    &TIMESTEP_EMBEDDING,
    &GUIDANCE,
    &THRESHOLD,
    &LINEAR_UPDATE,
    &PACK_RGBA8,
    &NON_FINITE,
    &LAY_OUT,
    &REPACK,
    &MERGE,
    &MATRICES,
    &MULTIPLY_ADDS,
    &HALF_MULTIPLY_ADDS,
    &COPY_VECTORS,
];

/// `shaders/linear.wgsl`.
pub static LINEAR: Entry = Entry {
    name: "linear",
    source: &[shader!("linear")],
    options: Options::ChannelsAndWeights,
    workgroup: 16,
    parameters: 6,
    reads: &[1, 2, 3, 4],
    write: 5,
};

/// `shaders/conv2d.wgsl`.
pub static CONV2D: Entry = Entry {
    name: "conv2d",
    source: &[shader!("convolution"), shader!("conv2d")],
    options: Options::ChannelsAndWeights,
    workgroup: 16,
    parameters: 15,
    reads: &[1, 2, 3, 4],
    write: 5,
};

/// `shaders/conv3x3.wgsl`.
pub static CONV3X3: Entry = Entry {
    name: "conv3x3",
    source: &[shader!("convolution"), shader!("conv3x3")],
    options: Options::ChannelsAndWeights,
    workgroup: 16,
    parameters: 15,
    reads: &[1, 2, 3, 4],
    write: 5,
};

/// `shaders/tiled.wgsl`, tiles of 128 rows × 64 channels.
pub static TILE_128X64: Entry = Entry {
    name: "tile_128x64",
    source: &[shader!("sums_8x8"), shader!("tiled"), shader!("tile_128x64")],
    options: Options::Tiled,
    workgroup: 128,
    parameters: 17,
    reads: &[1, 2, 3, 4],
    write: 5,
};

/// `shaders/tiled.wgsl`, tiles of 64 rows × 64 channels.
pub static TILE_64X64: Entry = Entry {
    name: "tile_64x64",
    source: &[shader!("sums_8x8"), shader!("tiled"), shader!("tile_64x64")],
    options: Options::Tiled,
    workgroup: 64,
    parameters: 17,
    reads: &[1, 2, 3, 4],
    write: 5,
};

/// `shaders/tiled.wgsl`, tiles of 64 rows × 32 channels.
pub static TILE_64X32: Entry = Entry {
    name: "tile_64x32",
    source: &[shader!("sums_8x4"), shader!("tiled"), shader!("tile_64x32")],
    options: Options::Tiled,
    workgroup: 64,
    parameters: 17,
    reads: &[1, 2, 3, 4],
    write: 5,
};

/// `shaders/split_sum.wgsl`.
pub static SPLIT_SUM: Entry = Entry {
    name: "split_sum",
    source: &[shader!("split_sum")],
    options: Options::Channels,
    workgroup: 64,
    parameters: 6,
    reads: &[1, 3, 4],
    write: 5,
};

/// `shaders/group_norm.wgsl`.
pub static MOMENTS: Entry = Entry {
    name: "moments",
    source: &[shader!("activation_functions"), shader!("group_norm")],
    options: Options::Channels,
    workgroup: 32,
    parameters: 9,
    reads: &[1],
    write: 7,
};

/// `shaders/group_norm.wgsl`.
pub static COMBINE: Entry = Entry {
    name: "combine",
    source: &[shader!("activation_functions"), shader!("aligned"), shader!("group_norm")],
    options: Options::Single,
    workgroup: 32,
    parameters: 9,
    reads: &[2, 6],
    write: 7,
};

/// `shaders/group_norm.wgsl`.
pub static NORMALIZE_PIXELS: Entry = Entry {
    name: "normalize_pixels",
    source: &[shader!("activation_functions"), shader!("group_norm")],
    options: Options::ChannelsAndActivation,
    workgroup: 32,
    parameters: 9,
    reads: &[1, 3, 6],
    write: 5,
};

/// `shaders/layer_norm.wgsl`.
pub static LAYER_NORM: Entry = Entry {
    name: "layer_norm",
    source: &[shader!("layer_norm")],
    options: Options::Channels,
    workgroup: 16,
    parameters: 3,
    reads: &[1, 2, 3],
    write: 5,
};

/// Most columns that an invocation of [`FLASH_ATTENTION`] has.
pub const FLASH_COLUMNS: usize = 5;

/// `shaders/flash_attention.wgsl`.
pub static FLASH_ATTENTION: Entry = Entry {
    name: "flash_attention",
    source: &[shader!("flash_attention")],
    options: Options::ChannelsAndColumns,
    workgroup: 128,
    parameters: 13,
    reads: &[1, 4, 8],
    write: 5,
};

/// `shaders/attention.wgsl`.
pub static SCORES: Entry = Entry {
    name: "scores",
    source: &[shader!("attention")],
    options: Options::Channels,
    workgroup: 16,
    parameters: 10,
    reads: &[1, 4],
    write: 7,
};

/// `shaders/attention.wgsl`.
pub static SOFTMAX: Entry = Entry {
    name: "softmax",
    source: &[shader!("aligned"), shader!("attention")],
    options: Options::Single,
    workgroup: 16,
    parameters: 10,
    reads: &[],
    write: 7,
};

/// `shaders/attention.wgsl`.
pub static MIX_VALUES: Entry = Entry {
    name: "mix_values",
    source: &[shader!("attention")],
    options: Options::Channels,
    workgroup: 16,
    parameters: 10,
    reads: &[1, 6],
    write: 5,
};

/// `shaders/activation.wgsl`.
pub static ACTIVATE: Entry = Entry {
    name: "activation",
    source: &[shader!("activation_functions"), shader!("activation")],
    options: Options::Activation,
    workgroup: 64,
    parameters: 4,
    reads: &[1],
    write: 2,
};

/// `shaders/activation.wgsl`.
pub static AFFINE: Entry = Entry {
    name: "affine",
    source: &[shader!("activation_functions"), shader!("activation")],
    options: Options::Single,
    workgroup: 64,
    parameters: 4,
    reads: &[1],
    write: 2,
};

/// `shaders/activation.wgsl`.
pub static GEGLU: Entry = Entry {
    name: "geglu",
    source: &[shader!("activation_functions"), shader!("activation")],
    options: Options::Single,
    workgroup: 64,
    parameters: 4,
    reads: &[1],
    write: 2,
};

/// `shaders/layout.wgsl`.
pub static COPY: Entry = Entry {
    name: "copy",
    source: &[shader!("strides"), shader!("layout")],
    options: Options::Single,
    workgroup: 64,
    parameters: 24,
    reads: &[1],
    write: 3,
};

/// `shaders/elementwise.wgsl`.
pub static BINARY: Entry = Entry {
    name: "binary",
    source: &[shader!("strides"), shader!("elementwise")],
    options: Options::Single,
    workgroup: 64,
    parameters: 24,
    reads: &[1, 2],
    write: 3,
};

/// `shaders/resample.wgsl`.
pub static NEAREST: Entry = Entry {
    name: "nearest",
    source: &[shader!("resample")],
    options: Options::Channels,
    workgroup: 64,
    parameters: 14,
    reads: &[1],
    write: 5,
};

/// `shaders/resample.wgsl`.
pub static BILINEAR: Entry = Entry { name: "bilinear", ..NEAREST };

/// `shaders/resample.wgsl`.
pub static POOL: Entry = Entry { name: "pool", ..NEAREST };

/// `shaders/timestep_embedding.wgsl`.
pub static TIMESTEP_EMBEDDING: Entry = Entry {
    name: "timestep_embedding",
    source: &[shader!("timestep_embedding")],
    options: Options::Single,
    workgroup: 64,
    parameters: 4,
    reads: &[1, 2],
    write: 3,
};

/// `shaders/guidance.wgsl`.
pub static GUIDANCE: Entry = Entry {
    name: "guidance",
    source: &[shader!("guidance")],
    options: Options::Single,
    workgroup: 64,
    parameters: 3,
    reads: &[1, 2],
    write: 3,
};

/// `shaders/threshold.wgsl`.
pub static THRESHOLD: Entry = Entry {
    name: "threshold",
    source: &[shader!("threshold")],
    options: Options::Single,
    workgroup: 64,
    parameters: 4,
    reads: &[1],
    write: 3,
};

/// `shaders/linear_update.wgsl`.
pub static LINEAR_UPDATE: Entry = Entry {
    name: "linear_update",
    source: &[shader!("linear_update")],
    options: Options::History,
    workgroup: 64,
    parameters: 3,
    reads: &[1, 2, 3, 4, 5, 7],
    write: 6,
};

/// `shaders/pack_rgba8.wgsl`.
pub static PACK_RGBA8: Entry = Entry {
    name: "pack_rgba8",
    source: &[shader!("pack_rgba8")],
    options: Options::Single,
    workgroup: 64,
    parameters: 3,
    reads: &[1],
    write: 2,
};

/// `shaders/non_finite.wgsl`.
pub static NON_FINITE: Entry = Entry {
    name: "non_finite",
    source: &[shader!("non_finite")],
    options: Options::Single,
    workgroup: 64,
    parameters: 3,
    reads: &[1],
    write: 2,
};

/// `shaders/lay_out.wgsl`.
pub static LAY_OUT: Entry = Entry {
    name: "lay_out",
    source: &[shader!("lay_out")],
    options: Options::Single,
    workgroup: 64,
    parameters: 7,
    reads: &[1],
    write: 2,
};

/// `shaders/repack.wgsl`.
pub static REPACK: Entry = Entry {
    name: "repack",
    source: &[shader!("repack")],
    options: Options::Single,
    workgroup: 64,
    parameters: 9,
    reads: &[1],
    write: 2,
};

/// `shaders/merge.wgsl`.
pub static MERGE: Entry = Entry {
    name: "merge",
    source: &[shader!("merge")],
    options: Options::Weights,
    workgroup: 64,
    parameters: 5,
    reads: &[1, 2, 3],
    write: 5,
};

/// `shaders/roofline.wgsl`.
pub static MATRICES: Entry = Entry {
    name: "matrices",
    source: &[shader!("roofline_f32"), shader!("roofline")],
    options: Options::Single,
    workgroup: 64,
    parameters: 2,
    reads: &[1],
    write: 2,
};

/// `shaders/roofline.wgsl`.
pub static MULTIPLY_ADDS: Entry = Entry { name: "multiply_adds", ..MATRICES };

/// `shaders/roofline.wgsl`; for devices that compute in half precision.
pub static HALF_MULTIPLY_ADDS: Entry =
    Entry { name: "half_multiply_adds", source: &[shader!("roofline_f16"), shader!("roofline")], ..MATRICES };

/// `shaders/roofline.wgsl`.
pub static COPY_VECTORS: Entry = Entry { name: "copy_vectors", ..MATRICES };

/// For tests: what a mistake in a shader leads to.
#[cfg(test)]
pub static BROKEN: Entry = Entry {
    name: "broken",
    source: &["@compute @workgroup_size(1) fn broken() { undefined(); }"],
    options: Options::Single,
    workgroup: 1,
    parameters: 1,
    reads: &[],
    write: 1,
};
