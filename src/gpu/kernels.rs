//! The kernels: one table of everything in `shaders/`.
//!
//! A kernel's WGSL is a few static fragments one after the other; variants share their text and differ in the fragments in
//! front. Nothing is assembled from values at run time: sizes are parameters, so that one compiled pipeline serves all layers.

/// One compute entry point with what is needed to launch it.
///
/// Every kernel has its parameters in a uniform buffer at binding 0, of which the first is the number of invocations.
#[derive(Debug)]
pub struct Kernel {
    /// Name in errors and profiles; no two kernels share it together with the variant.
    pub name: &'static str,
    /// Which of the kernel's variants this is; empty if there is one only.
    pub variant: &'static str,
    /// WGSL fragments, concatenated.
    pub source: &'static [&'static str],
    /// Entry point.
    pub entry: &'static str,
    /// Invocations in a workgroup.
    pub workgroup: u32,
    /// 32-bit words of parameters.
    pub parameters: usize,
    /// Bindings of the tensors read, in the order of a dispatch's operands.
    pub reads: &'static [u32],
    /// Binding of the tensor written.
    pub write: u32,
}

impl std::fmt::Display for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.variant {
            "" => f.write_str(self.name),
            variant => write!(f, "{} ({variant})", self.name),
        }
    }
}

impl Kernel {
    /// The complete WGSL module.
    pub fn wgsl(&self) -> String {
        self.source.concat()
    }

    /// Workgroups along x and y for so many invocations: a second axis from where one may hold no more.
    pub fn workgroups(&self, invocations: u32) -> [u32; 2] {
        const LIMIT: u32 = 65_535;
        let groups = invocations.div_ceil(self.workgroup).max(1);
        let rows = groups.div_ceil(LIMIT);
        [groups.div_ceil(rows), rows]
    }
}

macro_rules! shader {
    ($name:literal) => {
        include_str!(concat!("../../shaders/", $name, ".wgsl"))
    };
}

const ALIGNED: &str = shader!("aligned");
const UNALIGNED: &str = shader!("unaligned");
const F16: &str = shader!("weights_f16");
const F32: &str = shader!("weights_f32");
const ACTIVATION_FUNCTIONS: &str = shader!("activation_functions");
const LINEAR_SOURCE: &str = shader!("linear");
const CONV2D_SOURCE: &str = shader!("conv2d");
const CONV3X3_SOURCE: &str = shader!("conv3x3");
const GROUP_NORM_SOURCE: &str = shader!("group_norm");
const LAYER_NORM_SOURCE: &str = shader!("layer_norm");
const ATTENTION_SOURCE: &str = shader!("attention");
const ACTIVATION_SOURCE: &str = shader!("activation");
const STRIDES: &str = shader!("strides");
const LAYOUT_SOURCE: &str = shader!("layout");
const ELEMENTWISE_SOURCE: &str = shader!("elementwise");
const RESAMPLE_SOURCE: &str = shader!("resample");
const TIMESTEP_EMBEDDING_SOURCE: &str = shader!("timestep_embedding");
const LINEAR_UPDATE_SOURCE: &str = shader!("linear_update");
const PACK_RGBA8_SOURCE: &str = shader!("pack_rgba8");
const NON_FINITE_SOURCE: &str = shader!("non_finite");

/// Variants of a kernel for channel counts that are multiples of four, and for any.
#[derive(Debug)]
pub struct ByAlignment {
    aligned: Kernel,
    unaligned: Kernel,
}

impl ByAlignment {
    /// The variant for tensors of these channel counts.
    pub fn for_channels(&self, channels: &[usize]) -> &Kernel {
        if channels.iter().all(|c| c.is_multiple_of(4)) { &self.aligned } else { &self.unaligned }
    }
}

/// Variants of a kernel for the storage of its weight matrix.
#[derive(Debug)]
pub struct ByWeights {
    f16: ByAlignment,
    f32: ByAlignment,
}

impl ByWeights {
    /// The variants for weights stored as f16 (`half`) or f32.
    pub fn for_weights(&self, half: bool) -> &ByAlignment {
        if half { &self.f16 } else { &self.f32 }
    }
}

macro_rules! by_alignment {
    ($kernel:expr, [$($fragment:expr),*]) => {
        ByAlignment {
            aligned: Kernel { variant: "aligned", source: &[ALIGNED, $($fragment),*], ..$kernel },
            unaligned: Kernel { variant: "unaligned", source: &[UNALIGNED, $($fragment),*], ..$kernel },
        }
    };
}

macro_rules! by_weights {
    ($kernel:expr, $source:expr) => {
        ByWeights {
            f16: ByAlignment {
                aligned: Kernel { variant: "f16 aligned", source: &[ALIGNED, F16, $source], ..$kernel },
                unaligned: Kernel { variant: "f16 unaligned", source: &[UNALIGNED, F16, $source], ..$kernel },
            },
            f32: ByAlignment {
                aligned: Kernel { variant: "f32 aligned", source: &[ALIGNED, F32, $source], ..$kernel },
                unaligned: Kernel { variant: "f32 unaligned", source: &[UNALIGNED, F32, $source], ..$kernel },
            },
        }
    };
}

/// A kernel without variants.
const fn kernel(
    entry: &'static str,
    source: &'static [&'static str],
    workgroup: u32,
    parameters: usize,
    reads: &'static [u32],
    write: u32,
) -> Kernel {
    Kernel { name: entry, variant: "", source, entry, workgroup, parameters, reads, write }
}

/// See `shaders/linear.wgsl`.
pub static LINEAR: ByWeights = by_weights!(kernel("linear", &[], 16, 6, &[1, 2, 3, 4], 5), LINEAR_SOURCE);
/// See `shaders/conv2d.wgsl`.
pub static CONV2D: ByWeights = by_weights!(kernel("conv2d", &[], 16, 14, &[1, 2, 3, 4], 5), CONV2D_SOURCE);
/// See `shaders/conv3x3.wgsl`.
pub static CONV3X3: ByWeights = by_weights!(kernel("conv3x3", &[], 16, 14, &[1, 2, 3, 4], 5), CONV3X3_SOURCE);
/// See `shaders/group_norm.wgsl`.
pub static MOMENTS: ByAlignment =
    by_alignment!(kernel("moments", &[], 32, 9, &[1], 7), [ACTIVATION_FUNCTIONS, GROUP_NORM_SOURCE]);
/// See `shaders/group_norm.wgsl`.
pub static COMBINE: ByAlignment =
    by_alignment!(kernel("combine", &[], 32, 9, &[1, 2, 6], 7), [ACTIVATION_FUNCTIONS, GROUP_NORM_SOURCE]);
/// See `shaders/group_norm.wgsl`.
pub static NORMALIZE_PIXELS: ByAlignment =
    by_alignment!(kernel("normalize_pixels", &[], 32, 9, &[1, 3, 6], 5), [ACTIVATION_FUNCTIONS, GROUP_NORM_SOURCE]);
/// See `shaders/layer_norm.wgsl`.
pub static LAYER_NORM: ByAlignment =
    by_alignment!(kernel("layer_norm", &[], 16, 3, &[1, 2, 3], 5), [LAYER_NORM_SOURCE]);
/// See `shaders/attention.wgsl`.
pub static SCORES: ByAlignment = by_alignment!(kernel("scores", &[], 16, 10, &[1, 4], 7), [ATTENTION_SOURCE]);
/// See `shaders/attention.wgsl`.
pub static SOFTMAX: Kernel = kernel("softmax", &[ALIGNED, ATTENTION_SOURCE], 16, 10, &[], 7);
/// See `shaders/attention.wgsl`.
pub static MIX_VALUES: ByAlignment = by_alignment!(kernel("mix_values", &[], 16, 10, &[1, 6], 5), [ATTENTION_SOURCE]);
/// See `shaders/activation.wgsl`.
pub static ACTIVATE: Kernel = kernel("activation", &[ACTIVATION_FUNCTIONS, ACTIVATION_SOURCE], 64, 5, &[1], 2);
/// See `shaders/activation.wgsl`.
pub static AFFINE: Kernel = kernel("affine", &[ACTIVATION_FUNCTIONS, ACTIVATION_SOURCE], 64, 5, &[1], 2);
/// See `shaders/activation.wgsl`.
pub static GEGLU: Kernel = kernel("geglu", &[ACTIVATION_FUNCTIONS, ACTIVATION_SOURCE], 64, 5, &[1], 2);
/// See `shaders/layout.wgsl`.
pub static COPY: Kernel = kernel("copy", &[STRIDES, LAYOUT_SOURCE], 64, 24, &[1], 3);
/// See `shaders/elementwise.wgsl`.
pub static BINARY: Kernel = kernel("binary", &[STRIDES, ELEMENTWISE_SOURCE], 64, 24, &[1, 2], 3);
/// See `shaders/resample.wgsl`.
pub static NEAREST: ByAlignment = by_alignment!(kernel("nearest", &[], 64, 6, &[1], 5), [RESAMPLE_SOURCE]);
/// See `shaders/resample.wgsl`.
pub static AVG_POOL2: ByAlignment = by_alignment!(kernel("avg_pool2", &[], 64, 6, &[1], 5), [RESAMPLE_SOURCE]);
/// See `shaders/timestep_embedding.wgsl`.
pub static TIMESTEP_EMBEDDING: Kernel = kernel("timestep_embedding", &[TIMESTEP_EMBEDDING_SOURCE], 64, 4, &[1, 2], 3);
/// See `shaders/linear_update.wgsl`.
pub static LINEAR_UPDATE: Kernel = kernel("linear_update", &[LINEAR_UPDATE_SOURCE], 64, 2, &[1, 2, 3, 4, 5], 6);
/// See `shaders/pack_rgba8.wgsl`.
pub static PACK_RGBA8: Kernel = kernel("pack_rgba8", &[PACK_RGBA8_SOURCE], 64, 3, &[1], 2);
/// See `shaders/non_finite.wgsl`.
pub static NON_FINITE: Kernel = kernel("non_finite", &[NON_FINITE_SOURCE], 64, 3, &[1], 2);

/// Every kernel with every variant.
pub fn all() -> Vec<&'static Kernel> {
    let by_weights = [&LINEAR, &CONV2D, &CONV3X3].into_iter().flat_map(|k| [&k.f16, &k.f32]);
    let by_alignment = [&MOMENTS, &COMBINE, &NORMALIZE_PIXELS, &LAYER_NORM, &SCORES, &MIX_VALUES, &NEAREST, &AVG_POOL2];
    let mut kernels: Vec<_> = by_weights.chain(by_alignment).flat_map(|k| [&k.aligned, &k.unaligned]).collect();
    kernels.extend([&SOFTMAX, &ACTIVATE, &AFFINE, &GEGLU, &COPY, &BINARY]);
    kernels.extend([&TIMESTEP_EMBEDDING, &LINEAR_UPDATE, &PACK_RGBA8, &NON_FINITE]);
    kernels
}
