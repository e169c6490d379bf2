//! The CPU's kernels as WebAssembly modules of their own, with their memory outside: one build for each set of instructions, and of each
//! a twin whose memory threads can share.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::likeness;
use crate::tools::{self, WASM};

/// The builds: a name, and what rustc may use.
const BUILDS: [(&str, &str); 2] = [("simd", "+simd128"), ("relaxed", "+simd128,+relaxed-simd")];

/// How the linker lays the modules out: js/kernels_module.js starts them, on a memory of js/machine.js. The least memory is one that
/// holds constants and a stack; the most is what 32 bits can address.
const LINK: [&str; 7] = [
    "--import-memory",
    "--initial-memory=1048576",
    "--max-memory=4294967296",
    "--export=__stack_pointer",
    "--export=__heap_base",
    "-zstack-size=65536",
    "--strip-all",
];

/// Builds every module; their names in the package with their content.
///
/// wasm-opt has no part in it: it would make one function of all kernels, each of which is called from one place, and browsers compile
/// function by function.
pub fn build(target: &Path) -> Result<Vec<(PathBuf, Vec<u8>)>> {
    let mut modules = Vec::new();
    for (name, features) in BUILDS {
        let folder = target.join("undiffuse-kernels").join(name);
        println!("building the kernels for {WASM} with {features}");
        let features = format!("-Ctarget-feature={features}");
        // What LLVM unrolls it reorders, until a browser's compiler runs out of registers and spills.
        let unroll = "-Cllvm-args=-unroll-runtime=false".to_owned();
        let flags = [features, unroll].into_iter().chain(LINK.map(|argument| format!("-Clink-arg={argument}")));
        tools::run(
            tools::cargo()
                .args(["rustc", "--release", "--package", "undiffuse-kernels", "--lib", "--crate-type", "cdylib"])
                .args(["--features", "module", "--target", WASM, "--target-dir"])
                .arg(&folder)
                // In place of the flags in .cargo/config.toml: the one thing that counts here is speed.
                .env("CARGO_ENCODED_RUSTFLAGS", flags.collect::<Vec<_>>().join("\x1f")),
        )?;
        let path = folder.join(WASM).join("release/undiffuse_kernels.wasm");
        let module = fs::read(&path).with_context(|| path.display().to_string())?;
        let (module, _) = likeness::order(&module, "").with_context(|| path.display().to_string())?;
        let shared = with_shared_memory(&module).with_context(|| path.display().to_string())?;
        modules.push((format!("kernels_{name}.wasm").into(), module));
        modules.push((format!("kernels_{name}_shared.wasm").into(), shared));
    }
    Ok(modules)
}

/// The module with its imported memory declared as shared. Loads and stores are the same for either kind of memory; what differs is one
/// bit of the import, which the linker sets only for modules whose standard library was built for threads. The kernels need none of it.
fn with_shared_memory(module: &[u8]) -> Result<Vec<u8>> {
    const IMPORTS: u8 = 2;
    const HAS_MAXIMUM: u8 = 1;
    const SHARED: u8 = 2;
    let mut reader = Reader { bytes: module, at: 8 };
    ensure!(module.starts_with(b"\0asm\x01\0\0\0"), "this is no WebAssembly module of version 1");
    while reader.at < module.len() {
        let (section, length) = (reader.byte()?, reader.number()?);
        if section != IMPORTS {
            reader.skip(length)?;
            continue;
        }
        for _ in 0..reader.number()? {
            for _ in 0..2 {
                let name = reader.number()?;
                reader.skip(name)?;
            }
            match reader.byte()? {
                0 => drop(reader.number()?),
                1 => {
                    reader.skip(1)?;
                    reader.limits()?;
                }
                2 => {
                    let at = reader.at;
                    ensure!(
                        reader.byte()? == HAS_MAXIMUM,
                        "the imported memory has no maximum, which a shared one must have"
                    );
                    let mut shared = module.to_vec();
                    shared[at] |= SHARED;
                    return Ok(shared);
                }
                3 => reader.skip(2)?,
                kind => bail!("an import is of the unknown kind {kind}"),
            }
        }
    }
    bail!("the module imports no memory")
}

/// Reads a module's bytes in order.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn byte(&mut self) -> Result<u8> {
        let byte = *self.bytes.get(self.at).context("the module ends too early")?;
        self.at += 1;
        Ok(byte)
    }

    /// An unsigned number of up to 32 bits, seven to a byte.
    fn number(&mut self) -> Result<usize> {
        let mut number = 0;
        for shift in (0..35).step_by(7) {
            let byte = self.byte()?;
            number |= usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        bail!("a number in the module is too long")
    }

    fn skip(&mut self, bytes: usize) -> Result<()> {
        ensure!(bytes <= self.bytes.len() - self.at, "the module ends too early");
        self.at += bytes;
        Ok(())
    }

    fn limits(&mut self) -> Result<()> {
        let has_maximum = self.byte()? & 1 == 1;
        for _ in 0..=usize::from(has_maximum) {
            self.number()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A module that imports a function, a table with a maximum, a global, and a memory whose limits are these bytes.
    fn importing(memory: &[u8]) -> Vec<u8> {
        let mut imports = vec![4];
        for (name, kind) in [("f", &[0, 0][..]), ("t", &[1, 0x70, 1, 0, 0x80, 1]), ("g", &[3, 0x7f, 0])] {
            imports.extend([&[1, b'e', 1], name.as_bytes(), kind].concat());
        }
        imports.extend([&[3][..], b"env", &[6], b"memory", &[2], memory].concat());
        let types = [1, 4, 1, 0x60, 0, 0];
        let length = [2, imports.len() as u8];
        [b"\0asm\x01\0\0\0", &types[..], &length, &imports].concat()
    }

    #[test]
    fn one_bit_of_the_imported_memory_says_that_it_is_shared() {
        let module = importing(&[1, 16, 0x80, 0x80, 4]);
        assert_eq!(with_shared_memory(&module).unwrap(), importing(&[3, 16, 0x80, 0x80, 4]));
    }

    #[test]
    fn a_module_that_cannot_share_its_memory_is_refused() {
        let refused = |module: &[u8]| with_shared_memory(module).unwrap_err().to_string();
        assert!(refused(&importing(&[0, 16])).contains("no maximum"));
        assert!(refused(b"\0asm\x01\0\0\0").contains("imports no memory"));
        assert!(refused(b"<!doctype html>").contains("no WebAssembly module"));
        let module = importing(&[1, 16, 0x80, 0x80, 4]);
        for length in 8..module.len() - 5 {
            assert!(with_shared_memory(&module[..length]).is_err(), "{length}");
        }
    }
}
