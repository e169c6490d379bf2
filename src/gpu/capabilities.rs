//! The limits and capabilities of a device that decide how a graph is translated to kernels.

/// The sizes that a device allows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Largest buffer, in bytes.
    pub buffer_bytes: u64,
    /// Largest part of a buffer that a kernel can be given, in bytes.
    pub binding_bytes: u64,
    /// Memory for the attention scores that exist at a time, in bytes.
    pub score_bytes: u64,
}

/// The make of a device and the optional features that it was opened with: variants of kernels are chosen by these alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capabilities {
    /// The make of its adapter.
    pub class: Class,
    /// Whether its shaders know f16.
    pub f16: bool,
    /// Whether its passes can be given timestamps, which profiles are made of.
    pub timestamps: bool,
}

impl Capabilities {
    /// The optional features that are asked for where an adapter has them.
    pub const OPTIONAL: wgpu::Features = wgpu::Features::TIMESTAMP_QUERY.union(wgpu::Features::SHADER_F16);

    /// The capabilities of an adapter of `class` that is opened with `features`.
    pub fn new(class: Class, features: wgpu::Features) -> Self {
        Self {
            class,
            f16: features.contains(wgpu::Features::SHADER_F16),
            timestamps: features.contains(wgpu::Features::TIMESTAMP_QUERY),
        }
    }

    /// The capabilities of an adapter of `class` without timestamps, whose shaders know f16 or do not.
    #[cfg(test)]
    pub fn of_class(class: Class, f16: bool) -> Self {
        Self { class, f16, timestamps: false }
    }
}

/// The make of an adapter, as far as kernels are concerned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// It computes on the CPU.
    Software,
    /// NVIDIA.
    Nvidia,
    /// AMD since RDNA.
    Amd,
    /// AMD before: GCN, which runs subgroups of 64 alone, each in a quarter of a compute unit's registers.
    Gcn,
    /// Apple.
    Apple,
    /// Intel.
    Intel,
    /// A GPU of another make, or one that does not say.
    Other,
}

impl Class {
    /// The class of an adapter with this name, description or vendor.
    pub fn of_name(name: &str) -> Self {
        let name = name.to_ascii_lowercase();
        let is = |words: &[&str]| words.iter().any(|word| name.contains(word));
        match () {
            () if is(&["swiftshader", "llvmpipe", "lavapipe", "microsoft basic render"]) => Self::Software,
            () if is(&["nvidia", "geforce", "quadro"]) => Self::Nvidia,
            // As browsers call the architecture.
            () if is(&["gcn"]) => Self::Gcn,
            () if is(&["amd", "radeon"]) => Self::Amd,
            () if is(&["apple"]) => Self::Apple,
            () if is(&["intel"]) => Self::Intel,
            () => Self::Other,
        }
    }

    /// The class of an adapter from what wgpu knows of it.
    pub fn of(info: &wgpu::AdapterInfo) -> Self {
        match info.device_type {
            wgpu::DeviceType::Cpu => Self::Software,
            _ => Self::of_hardware(info.vendor, &info.name, info.subgroup_min_size),
        }
    }

    /// The class of a GPU from PCI's number of its vendor, its name, and the invocations of its smallest subgroups.
    pub fn of_hardware(vendor: u32, name: &str, subgroup: u32) -> Self {
        match vendor {
            0x10de => Self::Nvidia,
            // Names of GPUs that are part of a processor do not say what they are. RDNA has subgroups of 32 as well.
            0x1002 if subgroup == 64 => Self::Gcn,
            0x1002 => Self::Amd,
            0x106b => Self::Apple,
            0x8086 => Self::Intel,
            _ => Self::of_name(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adapters_are_told_apart_by_what_browsers_and_drivers_call_them() {
        let named = [
            ("llvmpipe (LLVM 15.0.6, 256 bits)", Class::Software),
            ("Google SwiftShader", Class::Software),
            ("nvidia lovelace", Class::Nvidia),
            ("NVIDIA GeForce RTX 4070", Class::Nvidia),
            ("AMD Radeon RX 7900 XT (RADV NAVI31)", Class::Amd),
            ("amd rdna-2", Class::Amd),
            ("amd gcn-5", Class::Gcn),
            ("apple metal-3", Class::Apple),
            ("Apple M2", Class::Apple),
            ("intel xe-2lpg", Class::Intel),
            ("qualcomm adreno-7xx", Class::Other),
            ("", Class::Other),
        ];
        for (name, class) in named {
            assert_eq!(Class::of_name(name), class, "{name}");
        }
    }

    #[test]
    fn chips_of_amd_that_have_no_subgroups_of_32_are_older_ones() {
        let name = "AMD Radeon(TM) Graphics";
        for (subgroup, class) in [(64, Class::Gcn), (32, Class::Amd), (4, Class::Amd)] {
            assert_eq!(Class::of_hardware(0x1002, name, subgroup), class, "{subgroup}");
        }
    }
}
