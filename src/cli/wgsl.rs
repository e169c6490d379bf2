//! `--write-wgsl`: the shaders of a run as files.

use std::fmt::Write;
use std::fs;
use std::path::PathBuf;

use undiffuse::device::Device;
use undiffuse::gpu::KernelSource;

use super::Error;
use super::output::{Output, note};

/// Where shaders are written to.
#[derive(clap::Args, Clone, Debug)]
pub struct ShaderFolder {
    /// On a GPU: write the WGSL of every kernel that was compiled to this folder, a file for each kernel
    #[arg(long, value_name = "FOLDER")]
    write_wgsl: Option<PathBuf>,
}

impl ShaderFolder {
    /// Writes the kernels that `device` has compiled, if that was asked for.
    pub fn write(&self, device: &Device) -> Result<(), Error> {
        let Some(folder) = &self.write_wgsl else { return Ok(()) };
        let Device::Gpu(device) = device else {
            note(format_args!("--write-wgsl: the CPU runs no shaders"));
            return Ok(());
        };
        fs::create_dir_all(folder).map_err(|error| Error::path(folder, error))?;
        let sources = device.sources();
        for source in &sources {
            Output::new(&folder.join(file_name(&source.name)))?.write(text(source).as_bytes())?;
        }
        note(format_args!("wrote the WGSL of {} kernels to {}", sources.len(), folder.display()));
        Ok(())
    }
}

/// The file of the kernel `name`: `conv2d (Aligned, F16)` is in `conv2d-aligned-f16.wgsl`.
fn file_name(name: &str) -> String {
    let words = name.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("-").to_ascii_lowercase() + ".wgsl"
}

/// The module, with its name and the values of its `override` constants in comments.
fn text(KernelSource { name, wgsl, constants, .. }: &KernelSource) -> String {
    let mut text = format!("// {name}\n");
    for (constant, value) in constants {
        let _ = writeln!(text, "// override {constant} = {value}");
    }
    text + wgsl
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_the_name_of_the_kernel_and_says_what_its_constants_are() {
        assert_eq!(file_name("tile_64x64 (Aligned, F16 tiles)"), "tile_64x64-aligned-f16-tiles.wgsl");
        assert_eq!(file_name("softmax"), "softmax.wgsl");
        let source = KernelSource {
            name: "flash_attention (Aligned, 5 columns)".to_owned(),
            entry: "flash_attention",
            workgroup: 128,
            wgsl: "override COLUMNS: u32;\n".to_owned(),
            constants: vec![("COLUMNS", 5.0)],
        };
        let expected = "// flash_attention (Aligned, 5 columns)\n// override COLUMNS = 5\noverride COLUMNS: u32;\n";
        assert_eq!(text(&source), expected);
    }
}
