//! Gives what a module imports short names: those that wasm-bindgen makes up are longer than most of the functions that they stand for,
//! and nobody reads them but the module and its script.

use std::collections::HashMap;
use std::convert::Infallible;

use anyhow::{Context, Result, ensure};
use wasm_encoder::reencode::{Error, Reencode, utils};
use wasm_encoder::{ImportSection, Module};
use wasmparser::{Imports, Parser};

/// Renames all imports of `module`, and the functions in wasm-bindgen's `script` that they are.
pub fn shorten(module: &[u8], script: &str) -> Result<(Vec<u8>, String)> {
    let mut shortened = Shortened::default();
    let mut short = Module::new();
    shortened.parse_core_module(&mut short, Parser::new(0), module).context("its imports cannot be renamed")?;
    let mut renamed = 0;
    let lines = script.lines().map(|line| {
        // `        __wbg_name: function(arg0) {`
        let (name, function) = line.trim_start().split_once(": function(")?;
        let name = shortened.names.get(name)?;
        renamed += 1;
        Some(format!("        {name}: function({function}\n"))
    });
    let script = lines.zip(script.lines()).map(|(short, line)| short.unwrap_or_else(|| format!("{line}\n"))).collect();
    ensure!(renamed == shortened.names.len(), "of {} imports the script has {renamed}", shortened.names.len());
    Ok((short.finish(), script))
}

/// A module whose imports have short names.
#[derive(Default)]
struct Shortened {
    /// The new name of each import, by its old one.
    names: HashMap<String, String>,
}

impl Reencode for Shortened {
    type Error = Infallible;

    fn parse_imports(&mut self, section: &mut ImportSection, imports: Imports<'_>) -> Result<(), Error> {
        let Imports::Single(_, import) = imports else { return utils::parse_imports(self, section, imports) };
        let count = self.names.len();
        let name = self.names.entry(import.name.to_owned()).or_insert_with(|| short_name(count)).clone();
        let entity = self.entity_type(import.ty)?;
        section.import(import.module, &name, entity);
        Ok(())
    }
}

/// a to z, then aa to zz, and so on.
fn short_name(mut index: usize) -> String {
    let mut name = String::new();
    loop {
        name.insert(0, char::from(b'a' + (index % 26) as u8));
        match index / 26 {
            0 => return name,
            rest => index = rest - 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use wasm_encoder::{EntityType, TypeSection};

    use super::*;

    #[test]
    fn names_are_short_and_differ() {
        assert_eq!([0, 25, 26, 51, 52, 701, 702].map(short_name), ["a", "z", "aa", "az", "ba", "zz", "aaa"]);
    }

    #[test]
    fn a_script_has_the_names_of_its_module() {
        let (mut types, mut imports) = (TypeSection::new(), ImportSection::new());
        types.ty().function([], []);
        for name in ["__wbg_one", "__wbg_two"] {
            imports.import("./module_bg.js", name, EntityType::Function(0));
        }
        let module = Module::new().section(&types).section(&imports).clone().finish();
        let script = |one, two| {
            format!("{{\n        {two}: function(arg0) {{\n        }},\n        {one}: function() {{}},\n}}\n")
        };
        let (short, shortened) = shorten(&module, &script("__wbg_one", "__wbg_two")).unwrap();
        assert_eq!(shortened, script("a", "b"));
        assert!(short.len() < module.len());
        assert!(shorten(&module, &script("__wbg_one", "__wbg_other")).is_err());
    }
}
