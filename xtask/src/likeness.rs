//! Puts a module's functions side by side with those that they look like. What a module weighs on the wire does not depend on the order
//! of its functions but for this: brotli says what it has seen before in fewer bits the nearer it lies.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::convert::Infallible;

use anyhow::{Context, Result, bail};
use wasm_encoder::reencode::{Error, Reencode};
use wasm_encoder::{CodeSection, FunctionSection, Module};
use wasmparser::{CodeSectionReader, FunctionSectionReader, Parser, Payload, TypeRef};

/// The length of the pieces that functions are compared by, in bytes.
const PIECE: usize = 5;

/// The most functions that a piece may be in: what is in more says nothing.
const COMMON: usize = 800;

/// Orders the functions of `module`, and the lines `index:name` of `symbols` with them.
pub fn order(module: &[u8], symbols: &str) -> Result<(Vec<u8>, String)> {
    let (mut imports, mut bodies) = (0, Vec::new());
    for payload in Parser::new(0).parse_all(module) {
        match payload? {
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    imports += u32::from(matches!(import?.ty, TypeRef::Func(_)));
                }
            }
            Payload::CodeSectionEntry(body) => bodies.push(body.as_bytes()),
            _ => {}
        }
    }
    let order = chain(&bodies);
    let mut places = vec![0; order.len()];
    for (&function, place) in order.iter().zip(imports..) {
        places[function] = place;
    }
    let mut moved = Moved { imports, order, places };
    let mut ordered = Module::new();
    moved.parse_core_module(&mut ordered, Parser::new(0), module).context("its functions cannot be moved")?;
    let mut names = BTreeMap::new();
    for line in symbols.lines() {
        let Some((index, name)) = line.split_once(':') else { bail!("no `index:name`: {line}") };
        names.insert(moved.place(index.parse().with_context(|| format!("no `index:name`: {line}"))?), name);
    }
    let symbols = names.iter().map(|(index, name)| format!("{index}:{name}\n")).collect();
    Ok((ordered.finish(), symbols))
}

/// An order in which the one that is most like the last comes next, of those that are left; where none is like it, the first of them.
fn chain(bodies: &[&[u8]]) -> Vec<usize> {
    let mut holders: HashMap<&[u8], Vec<usize>> = HashMap::new();
    for (function, body) in bodies.iter().enumerate() {
        for piece in body.windows(PIECE) {
            let holders = holders.entry(piece).or_default();
            if holders.last() != Some(&function) {
                holders.push(function);
            }
        }
    }
    let mut pieces = vec![Vec::new(); bodies.len()];
    for holders in holders.values().filter(|holders| (2..=COMMON).contains(&holders.len())) {
        for &function in holders {
            pieces[function].push(holders);
        }
    }
    let mut left: BTreeSet<usize> = (0..bodies.len()).collect();
    let mut order = Vec::new();
    let mut next = left.first().copied();
    while let Some(function) = next {
        left.remove(&function);
        order.push(function);
        let mut shared: BTreeMap<usize, usize> = BTreeMap::new();
        for &other in pieces[function].iter().copied().flatten().filter(|other| left.contains(other)) {
            *shared.entry(other).or_default() += 1;
        }
        // The share of both that they have in common; a few pieces are no likeness.
        let likeness = |&(other, shared): &(usize, usize)| {
            shared as f64 / (pieces[function].len() + pieces[other].len() + 50) as f64
        };
        let most = shared.into_iter().max_by(|one, other| likeness(one).total_cmp(&likeness(other)));
        next = most.map(|(other, _)| other).or_else(|| left.first().copied());
    }
    order
}

/// A module whose functions move.
struct Moved {
    /// How many functions are imported: these stay.
    imports: u32,
    /// The module's own, in their new order.
    order: Vec<usize>,
    /// The new index of each of them.
    places: Vec<u32>,
}

impl Moved {
    /// The new index of a function.
    fn place(&self, index: u32) -> u32 {
        index.checked_sub(self.imports).map_or(index, |own| self.places[own as usize])
    }
}

impl Reencode for Moved {
    type Error = Infallible;

    fn function_index(&mut self, index: u32) -> Result<u32, Error> {
        Ok(self.place(index))
    }

    fn parse_function_section(
        &mut self,
        functions: &mut FunctionSection,
        section: FunctionSectionReader<'_>,
    ) -> Result<(), Error> {
        let types = section.into_iter().collect::<Result<Vec<_>, _>>()?;
        for &function in &self.order {
            functions.function(types[function]);
        }
        Ok(())
    }

    fn parse_code_section(&mut self, code: &mut CodeSection, section: CodeSectionReader<'_>) -> Result<(), Error> {
        let bodies = section.into_iter().collect::<Result<Vec<_>, _>>()?;
        for function in self.order.clone() {
            self.parse_function_body(code, bodies[function].clone())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use wasm_encoder::{
        EntityType, ExportKind, ExportSection, Function, ImportSection, Instruction, TypeSection, ValType,
    };

    use super::*;

    /// A module whose functions `alike_0`, `other` and `alike_1` follow an import; the middle one calls them all, and all are exported.
    fn module() -> Vec<u8> {
        let (mut types, mut imports, mut functions) =
            (TypeSection::new(), ImportSection::new(), FunctionSection::new());
        types.ty().function([], []);
        types.ty().function([], [ValType::I64]);
        imports.import("env", "imported", EntityType::Function(0));
        let (mut exports, mut code) = (ExportSection::new(), CodeSection::new());
        for (index, name) in (1..).zip(["alike_0", "other", "alike_1"]) {
            functions.function(u32::from(name != "other"));
            exports.export(name, ExportKind::Func, index);
            let mut body = Function::new([]);
            if name == "other" {
                body.instruction(&Instruction::Call(0));
                for callee in [1, 3] {
                    body.instruction(&Instruction::Call(callee));
                    body.instruction(&Instruction::Drop);
                }
            } else {
                body.instruction(&Instruction::I64Const(0x0123_4567_89ab_cdef));
            }
            body.instruction(&Instruction::End);
            code.function(&body);
        }
        let mut module = Module::new();
        module.section(&types).section(&imports).section(&functions).section(&exports).section(&code);
        module.finish()
    }

    #[test]
    fn functions_that_are_alike_come_together_and_all_that_names_them_follows() {
        let (ordered, symbols) = order(&module(), "0:imported\n1:alike_0\n2:other\n3:alike_1\n").unwrap();
        assert_eq!(symbols, "0:imported\n1:alike_0\n2:alike_1\n3:other\n");
        let (mut exported, mut called) = (Vec::new(), Vec::new());
        for payload in Parser::new(0).parse_all(&ordered) {
            match payload.unwrap() {
                Payload::ExportSection(section) => {
                    exported.extend(
                        section.into_iter().map(|export| (export.as_ref().unwrap().name, export.unwrap().index)),
                    );
                }
                Payload::CodeSectionEntry(body) => called.push(
                    body.get_operators_reader()
                        .unwrap()
                        .into_iter()
                        .filter_map(|operator| match operator.unwrap() {
                            wasmparser::Operator::Call { function_index } => Some(function_index),
                            _ => None,
                        })
                        .collect::<Vec<_>>(),
                ),
                _ => {}
            }
        }
        assert_eq!(exported, [("alike_0", 1), ("other", 3), ("alike_1", 2)]);
        assert_eq!(called, [vec![], vec![], vec![0, 1, 2]]);
    }
}
