//! Where the bytes of what a page loads are: by file, by section of the main module, and by crate and room of its code.
//!
//! Sizes are those of the module as it ships. Its names are gone by then; wasm-opt writes them beside it, by the function's index.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use wasmparser::{Parser, Payload, TypeRef};

/// The crate whose code is told apart by room.
const OWN: &str = "undiffuse";

/// Where a function of no named crate belongs.
const STANDARD: &str = "core, alloc, std";

/// Prints a table of sizes, largest first; a share is of all rows together.
pub fn print(title: &str, unit: &str, sizes: &BTreeMap<String, usize>) {
    let total: usize = sizes.values().sum();
    let mut rows: Vec<_> = sizes.iter().collect();
    rows.sort_by_key(|(_, bytes)| Reverse(**bytes));
    println!("\n| {title} | {unit} | share |\n|---|---|---|");
    for (name, bytes) in rows {
        println!("| {name} | {bytes} | {:.1} % |", 100.0 * *bytes as f64 / total as f64);
    }
    println!("| all | {total} | |");
}

/// The bytes of a module.
pub struct Sizes {
    /// By section.
    pub sections: BTreeMap<String, usize>,
    /// Those of the functions, by crate and room.
    pub code: BTreeMap<String, usize>,
}

/// Measures a module, the names of whose functions are in the file `symbols`.
pub fn of_module(module: &Path, symbols: &Path) -> Result<Sizes> {
    let bytes = fs::read(module).with_context(|| module.display().to_string())?;
    let names = fs::read_to_string(symbols).with_context(|| symbols.display().to_string())?;
    measure(&bytes, &names_by_index(&names)?).with_context(|| module.display().to_string())
}

/// The lines `index:name` of wasm-opt.
fn names_by_index(text: &str) -> Result<HashMap<usize, &str>> {
    let line = |line| {
        let (index, name) = str::split_once(line, ':').with_context(|| format!("no `index:name`: {line}"))?;
        Ok((index.parse().with_context(|| format!("no `index:name`: {line}"))?, name))
    };
    text.lines().map(line).collect()
}

fn measure(module: &[u8], names: &HashMap<usize, &str>) -> Result<Sizes> {
    let (mut sections, mut code) = (BTreeMap::new(), BTreeMap::new());
    let mut index = 0;
    for payload in Parser::new(0).parse_all(module) {
        let payload = payload?;
        if let Some((id, range)) = payload.as_section() {
            let name = match id {
                10 => "code",
                11 => "data",
                9 => "table of functions",
                _ => "types, imports, exports",
            };
            *sections.entry(name.to_owned()).or_default() += range.len();
        }
        match payload {
            Payload::ImportSection(imports) => {
                for import in imports.into_imports() {
                    index += usize::from(matches!(import?.ty, TypeRef::Func(_)));
                }
            }
            Payload::CodeSectionEntry(body) => {
                let name = names.get(&index).with_context(|| format!("function {index} has no name"))?;
                *code.entry(owner(name)).or_default() += body.range().len();
                index += 1;
            }
            _ => {}
        }
    }
    ensure!(index == names.len(), "{} names for {index} functions", names.len());
    Ok(Sizes { sections, code })
}

/// Whose code a function is: that of the first crate that its name mentions, other than the standard library's, so that `<A as B>::f`
/// and `drop_in_place<A>` are A's, and `<Vec<T> as B>::f` is B's. A generic function counts where it is written: names do not say what
/// for. Our own code is told apart by room.
fn owner(name: &str) -> String {
    let name = without_hashes(&unescape(name));
    let mut paths = name.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).filter_map(|path| {
        let (first, rest) = path.split_once("::")?;
        (!first.is_empty()).then_some((first, rest))
    });
    let Some((crate_, rest)) = paths.find(|(crate_, _)| !["core", "alloc", "std"].contains(crate_)) else {
        return STANDARD.to_owned();
    };
    match rest.split_once("::") {
        Some((room, _)) if crate_ == OWN => format!("{OWN}: {room}"),
        _ => crate_.to_owned(),
    }
}

/// A name without the hash that rustc's newer mangling, which the standard library comes with, puts behind a crate: `core[0123456789abcdef]`.
fn without_hashes(name: &str) -> String {
    let mut parts = name.split('[');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.split_once(']') {
            Some((hash, rest)) if hash.len() == 16 && hash.bytes().all(|c| c.is_ascii_hexdigit()) => {
                plain.push_str(rest)
            }
            _ => {
                plain.push('[');
                plain.push_str(part);
            }
        }
    }
    plain
}

/// A name without wasm-opt's `\20` for a space and the like.
fn unescape(name: &str) -> String {
    let mut parts = name.split('\\');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.get(..2).and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(code) => {
                plain.push(char::from(code));
                plain.push_str(&part[2..]);
            }
            None => plain.push_str(part),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_belongs_to_the_first_crate_that_is_not_the_standard_library() {
        for (name, of) in [
            ("undiffuse::pipeline::run::sampler::Sampler::step::{{closure}}::h0011223344556677", "undiffuse: pipeline"),
            ("<undiffuse::gpu::device::Device as core::fmt::Debug>::fmt::h00", "undiffuse: gpu"),
            ("core::ptr::drop_in_place<wgpu::api::buffer::Buffer>::h00", "wgpu"),
            ("<alloc::vec::Vec<T> as serde::de::Deserialize>::deserialize::h00", "serde"),
            ("<alloc::string::String as core::fmt::Write>::write_str::h00", STANDARD),
            (r"<wgpu::Queue\20as\20undiffuse::gpu::Upload>::write", "wgpu"),
            ("<[T] as undiffuse::order::Sorted>::sorted::h00", "undiffuse: order"),
            ("core[0123456789abcdef]::num::flt2dec::strategy::dragon::format_exact", STANDARD),
            ("<dlmalloc[0123456789abcdef]::Dlmalloc<dlmalloc[0123456789abcdef]::sys::System>>::malloc", "dlmalloc"),
            ("memcpy", STANDARD),
        ] {
            assert_eq!(owner(name), of, "{name}");
        }
    }

    #[test]
    fn every_byte_of_a_section_and_of_a_function_is_counted() {
        // (import "e" "f" (func)) (func (export …)) of two bytes with its count of locals.
        let module =
            b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x02\x07\x01\x01e\x01f\0\0\x03\x02\x01\0\x0a\x04\x01\x02\0\x0b";
        let names = names_by_index("0:e\n1:undiffuse::gpu::f").unwrap();
        let Sizes { sections, code } = measure(module, &names).unwrap();
        assert_eq!(code, BTreeMap::from([("undiffuse: gpu".to_owned(), 2)]));
        assert_eq!(sections["code"], 4);
        assert_eq!(sections["types, imports, exports"], 13);
        assert!(measure(module, &names_by_index("0:e").unwrap()).is_err());
    }
}
