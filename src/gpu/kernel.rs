//! A kernel, which is an entry point of a shader in one of its variants, and a dispatch, which is a launch of it.
//!
//! A kernel's WGSL is a few static fragments one after the other. Variants share its text and differ in the fragments in front and
//! in `override` constants, both of which are tables ([`Axis`]). Nothing is assembled from values at run time: sizes are parameters,
//! so that one compiled pipeline serves all layers.

use std::hash::{Hash, Hasher};

use bytemuck::Pod;

use super::shaders::Shaders;
use crate::graph::{NodeId, WeightId};

/// Buffers are bound at multiples of this many bytes: what every adapter allows.
pub const ALIGNMENT: u64 = 256;

/// Defines a struct that a shader reads from binding 0: the fields of the shader's `Parameters`, by the same names and in the same
/// order, which a test compares. A field that begins with `_` is padding, which WGSL has without a name.
macro_rules! parameters {
    ($(#[$doc:meta])* $name:ident { $($(#[$of_field:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[repr(C)]
        #[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
        pub struct $name {
            $($(#[$of_field])* pub $field: $type,)*
        }

        impl $name {
            /// The value of [`Entry::parameters`].
            pub const UNIFORM: $crate::gpu::kernel::Uniform = $crate::gpu::kernel::Uniform {
                words: std::mem::size_of::<$name>() / 4,
                #[cfg(test)]
                fields: &[$((stringify!($field), std::mem::offset_of!($name, $field), stringify!($type)),)*],
            };
        }
    };
}

pub(crate) use super::shaders::shader;
pub(crate) use parameters;

/// A compute entry point with what is needed to launch it.
pub struct Entry {
    /// Name in the WGSL module, and in errors.
    pub name: &'static str,
    /// WGSL fragments, concatenated after those that a variant adds.
    pub source: &'static [&'static str],
    /// The ways in which variants differ; a variant has a setting of each.
    pub axes: &'static [&'static Axis],
    /// Values of `override` constants that all variants share.
    pub constants: &'static [(&'static str, f64)],
    /// Invocations in a workgroup.
    pub workgroup: u32,
    /// The parameters, a uniform buffer at binding 0. The first is the number of invocations.
    pub parameters: Uniform,
    /// Bindings of the tensors read, in the order of a dispatch's operands.
    pub reads: &'static [u32],
    /// Binding of the tensor written.
    pub write: u32,
    /// Splits a dispatch whose tensors are larger than a binding may be, if that is possible: see [`super::bands`].
    pub split: Option<Split>,
    /// Counts the work of a dispatch, for kernels whose work is compared.
    #[cfg(test)]
    pub work: Option<fn(&Dispatch) -> Work>,
}

/// An entry point without variants, which reads binding 1 and writes binding 2: what entries leave unsaid.
pub const PLAIN: Entry = Entry {
    name: "",
    source: &[],
    axes: &[],
    constants: &[],
    workgroup: 64,
    parameters: Uniform {
        words: 1,
        #[cfg(test)]
        fields: &[],
    },
    reads: &[1],
    write: 2,
    split: None,
    #[cfg(test)]
    work: None,
};

/// The size of a parameter struct, and in tests its fields.
#[derive(Clone, Copy)]
pub struct Uniform {
    /// Number of 32-bit words.
    pub words: usize,
    /// Name, offset in bytes and Rust type of each field.
    #[cfg(test)]
    pub fields: &'static [(&'static str, usize, &'static str)],
}

/// A way in which variants of a kernel differ: the settings that there are to choose from.
pub struct Axis(pub &'static [Setting]);

/// One choice on an [`Axis`].
#[derive(Clone, Copy)]
pub struct Setting {
    /// Name in errors and profiles.
    pub name: &'static str,
    /// WGSL that has to come before everything else.
    pub front: &'static str,
    /// WGSL fragments, before the kernel's own.
    pub fragments: &'static [&'static str],
    /// Values of `override` constants.
    pub constants: &'static [(&'static str, f64)],
}

impl Setting {
    /// A setting that adds `fragments`.
    pub const fn text(name: &'static str, fragments: &'static [&'static str]) -> Self {
        Self { name, front: "", fragments, constants: &[] }
    }

    /// A setting that sets `constants`.
    pub const fn constant(name: &'static str, constants: &'static [(&'static str, f64)]) -> Self {
        Self { name, front: "", fragments: &[], constants }
    }
}

/// The most axes that an entry point has.
pub const AXES: usize = 3;

/// A variant of an entry point: the index of a setting for each of its axes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Variant([u8; AXES]);

/// An entry point in one of its variants: what is compiled to one pipeline.
#[derive(Clone, Copy)]
pub struct Kernel {
    /// The entry point.
    pub entry: &'static Entry,
    variant: Variant,
}

impl PartialEq for Kernel {
    fn eq(&self, other: &Self) -> bool {
        self.is(other.entry) && self.variant == other.variant
    }
}

impl Eq for Kernel {}

impl Hash for Kernel {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.entry.name.hash(state);
        self.variant.hash(state);
    }
}

impl std::fmt::Display for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.entry.name)?;
        for (index, setting) in self.settings().enumerate() {
            f.write_str(if index == 0 { " (" } else { ", " })?;
            f.write_str(setting.name)?;
        }
        f.write_str(if self.entry.axes.is_empty() { "" } else { ")" })
    }
}

impl std::fmt::Debug for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

impl Entry {
    /// The variant with the first setting of every axis.
    pub fn kernel(&'static self) -> Kernel {
        Kernel { entry: self, variant: Variant::default() }
    }

    /// All variants.
    #[cfg(test)]
    pub fn kernels(&'static self) -> Vec<Kernel> {
        let mut kernels = vec![self.kernel()];
        for &axis in self.axes {
            let settings = |kernel: Kernel| (0..axis.0.len()).map(move |setting| kernel.with(axis, setting));
            kernels = kernels.into_iter().flat_map(settings).collect();
        }
        kernels
    }
}

impl Kernel {
    /// The variant that has the setting with this index on `axis`, which is one of the entry point's.
    pub fn with(mut self, axis: &'static Axis, setting: usize) -> Self {
        if cfg!(test) {
            assert!(setting < axis.0.len() && self.entry.axes.iter().any(|own| std::ptr::eq(*own, axis)), "{self}");
        }
        for (own, place) in self.entry.axes.iter().zip(&mut self.variant.0) {
            if std::ptr::eq(*own, axis) {
                *place = setting as u8;
            }
        }
        self
    }

    /// Whether it is a variant of `entry`.
    pub fn is(&self, entry: &'static Entry) -> bool {
        std::ptr::eq(self.entry, entry)
    }

    fn settings(&self) -> impl Iterator<Item = &'static Setting> {
        self.entry.axes.iter().zip(self.variant.0).filter_map(|(axis, setting)| axis.0.get(usize::from(setting)))
    }

    /// The complete WGSL module.
    pub fn module(&self, shaders: &Shaders) -> String {
        let front = self.settings().map(|setting| setting.front);
        let fragments = self.settings().flat_map(|setting| setting.fragments);
        front.chain(fragments.chain(self.entry.source).copied()).map(|fragment| shaders.text(fragment)).collect()
    }

    /// The complete WGSL module, of the shaders that are built in.
    #[cfg(test)]
    pub fn wgsl(&self) -> String {
        self.module(&Shaders::default())
    }

    /// Values of the module's `override` constants.
    pub fn constants(&self) -> Vec<(&'static str, f64)> {
        let of_variant = self.settings().flat_map(|setting| setting.constants);
        self.entry.constants.iter().chain(of_variant).copied().collect()
    }

    /// The kernel's module and the constants that it is compiled with.
    pub fn source(&self, shaders: &Shaders) -> KernelSource {
        let (entry, workgroup) = (self.entry.name, self.entry.workgroup);
        KernelSource {
            name: self.to_string(),
            entry,
            workgroup,
            wgsl: self.module(shaders),
            constants: self.constants(),
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

/// A kernel as it is given to the device to be compiled.
#[derive(Clone, PartialEq, Debug)]
pub struct KernelSource {
    /// Name and variant.
    pub name: String,
    /// The entry point of the module that is compiled.
    pub entry: &'static str,
    /// Invocations in a workgroup.
    pub workgroup: u32,
    /// The WGSL module, without comments.
    pub wgsl: String,
    /// Values of the module's `override` constants.
    pub constants: Vec<(&'static str, f64)>,
}

/// A tensor that a dispatch reads or writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operand {
    /// The value of a node.
    Node(NodeId),
    /// Some bytes of the value of a node.
    Part(NodeId, Span),
    /// A weight, laid out by [`super::Weights`].
    Weight(WeightId),
    /// Memory for the duration of one node: an index into [`super::lowering::Lowered::scratch`].
    Scratch(usize),
    /// Numbers known beforehand: an index into [`super::lowering::Lowered::constants`].
    Constant(usize),
    /// The word that says whether a value is not finite.
    Status,
}

/// A part of a tensor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    /// First byte.
    pub offset: u64,
    /// Number of bytes.
    pub bytes: u64,
}

/// One launch of a kernel.
#[derive(Clone, Debug)]
pub struct Dispatch {
    /// The node that it computes or helps to compute.
    pub node: NodeId,
    /// The kernel.
    pub kernel: Kernel,
    /// Tensors read, in the order of the kernel's `reads`.
    pub reads: Vec<Operand>,
    /// Tensor written.
    pub write: Operand,
    /// The kernel's parameters as 32-bit words; the first is the number of invocations.
    pub words: Vec<u32>,
}

impl Dispatch {
    /// The parameters, which are of the kernel's struct.
    pub fn parameters<P: Pod>(&self) -> P {
        let mut parameters = P::zeroed();
        copy(&self.words, bytemuck::cast_slice_mut(std::slice::from_mut(&mut parameters)));
        parameters
    }

    /// A launch of the same kernel for the same node, with other operands and parameters.
    pub fn with<P: Pod>(&self, reads: &[Operand], write: Operand, parameters: &P) -> Self {
        Self { node: self.node, kernel: self.kernel, reads: reads.to_vec(), write, words: words(parameters).to_vec() }
    }

    /// Workgroups along x and y.
    pub fn workgroups(&self) -> [u32; 2] {
        self.kernel.workgroups(self.words.first().copied().unwrap_or(0))
    }
}

fn copy(from: &[u32], to: &mut [u32]) {
    for (to, &from) in to.iter_mut().zip(from) {
        *to = from;
    }
}

/// The words of a parameter struct.
pub fn words<P: Pod>(parameters: &P) -> &[u32] {
    bytemuck::cast_slice(std::slice::from_ref(parameters))
}

/// Splits a dispatch into parts that keep to `bands`; `None` if it cannot.
pub type Split = fn(dispatch: &Dispatch, bands: Bands) -> Option<Vec<Dispatch>>;

/// The limits that the parts of a split dispatch keep to: see [`super::bands`].
#[derive(Clone, Copy, Debug)]
pub struct Bands {
    /// Most bytes of a binding.
    pub limit: u64,
    /// True if the node's value has a batch of one.
    pub one_picture: bool,
}

/// The work of a dispatch.
#[cfg(test)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Work {
    /// Multiply-adds of whole tiles, what lies past the result's borders included.
    pub multiply_adds: f64,
    /// Bytes loaded from memory and caches to be multiplied, and sums of splits written and read.
    pub bytes: f64,
}
