//! The walls between rooms: which folder of the source may import which, read off the paths that its files spell.
//!
//! A row of a table is a room, a folder or a file of its own, with all the rooms that it imports. Nothing else may be imported, what
//! is listed must be, and no row may lead back to itself. A folder's `mod.rs` is its face: it may import any of its rooms, and none
//! of them it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

/// A room, and the rooms that it imports.
type Wall = (&'static str, &'static [&'static str]);

/// The top-level rooms.
const ROOMS: &[Wall] = &[
    ("order", &[]),
    ("diffusion", &["order"]),
    ("noise", &[]),
    ("text", &["order"]),
    ("weights", &["order"]),
    ("graph", &["diffusion", "order"]),
    ("models", &["graph"]),
    ("profile", &["graph", "order"]),
    ("training", &["diffusion", "graph"]),
    ("cpu", &["graph", "order", "profile", "weights"]),
    ("gpu", &["graph", "profile", "weights"]),
    ("twin", &["diffusion", "graph"]),
    ("device", &["cpu", "gpu", "graph", "profile", "weights"]),
    ("pipeline", &["device", "diffusion", "graph", "models", "noise", "profile", "text", "weights"]),
    ("metrics", &["device", "graph", "models", "noise", "order", "pipeline", "weights"]),
    ("web", &["cpu", "device", "diffusion", "gpu", "graph", "metrics", "models", "pipeline", "text", "weights"]),
    ("cli", &["cpu", "device", "diffusion", "gpu", "graph", "metrics", "noise", "pipeline", "profile", "weights"]),
];

/// The rooms of the mathematics.
const DIFFUSION: &[Wall] = &[
    ("error", &[]),
    ("keys", &["error"]),
    ("schedule", &["error"]),
    ("bound", &["error", "schedule"]),
    ("table", &["error", "schedule"]),
    ("method", &["error", "keys", "schedule", "table"]),
    ("solvers", &["error", "keys", "method", "schedule", "table"]),
    ("names", &["error", "solvers"]),
    ("config", &["bound", "error", "keys", "method", "names", "schedule", "solvers", "table"]),
];

/// The rooms of the engine on WebGPU.
const GPU: &[Wall] = &[
    ("capabilities", &[]),
    ("error", &[]),
    ("faults", &["error"]),
    ("shaders", &[]),
    ("kernel", &["shaders"]),
    ("bands", &["kernel"]),
    ("storage", &["kernel"]),
    ("variants", &["capabilities", "storage"]),
    ("lowering", &["capabilities", "error", "kernel", "storage", "variants"]),
    ("kernels", &["bands", "error", "kernel", "lowering", "storage", "variants"]),
    ("lower", &["bands", "capabilities", "error", "kernels", "lowering", "storage", "variants"]),
    ("kernel_use", &["capabilities", "error", "kernel", "lower", "shaders", "storage", "variants"]),
    ("plan", &["capabilities", "error", "kernel", "lowering"]),
    ("buffer", &["plan"]),
    ("device", &["buffer", "capabilities", "error", "faults", "kernel", "shaders", "variants"]),
    ("read_back", &["buffer", "device", "error", "kernels"]),
    ("roofline", &["buffer", "device", "error", "kernel", "kernels", "read_back"]),
    ("upload", &["buffer", "device", "error", "kernel", "storage"]),
    ("weights", &["buffer", "device", "error", "kernel", "storage", "upload"]),
    (
        "program",
        &[
            "bands",
            "buffer",
            "device",
            "error",
            "kernel",
            "kernels",
            "lower",
            "plan",
            "read_back",
            "variants",
            "weights",
        ],
    ),
    ("measure", &["error", "kernels", "program", "read_back", "variants"]),
    ("profile", &["buffer", "device", "error", "kernels", "program", "read_back"]),
    ("store", &["error", "program", "storage", "weights"]),
];

/// The rooms of a checkpoint and its runs.
const PIPELINE: &[Wall] = &[
    ("error", &[]),
    ("rgba", &[]),
    ("options", &["error", "rgba"]),
    ("model", &["error", "options"]),
    ("condition", &["error", "model", "options"]),
    ("pictures", &["error", "model", "options", "rgba"]),
    ("run", &["condition", "error", "model", "options", "pictures", "rgba"]),
    ("study", &["condition", "error", "model", "options", "pictures", "rgba", "run"]),
    ("adapter", &["error", "model", "run", "study"]),
];

#[test]
fn rooms_import_what_the_architecture_says() {
    check("src", ROOMS);
}

#[test]
fn rooms_of_the_mathematics_import_lower_ones_only() {
    check("src/diffusion", DIFFUSION);
    no_circle_of_files("src/diffusion");
}

#[test]
fn rooms_of_the_gpu_import_lower_ones_only() {
    check("src/gpu", GPU);
    no_circle_of_files("src/gpu");
}

#[test]
fn rooms_of_the_pipeline_import_lower_ones_only() {
    check("src/pipeline", PIPELINE);
    no_circle_of_files("src/pipeline");
}

/// Who depends on the library is not to build what the command alone is made of.
#[test]
fn a_crate_that_the_library_does_not_use_is_left_out_with_the_command() {
    let metadata =
        Command::new(env!("CARGO")).args(["metadata", "--no-deps", "--format-version", "1"]).output().unwrap();
    let metadata: Value = serde_json::from_slice(&metadata.stdout).unwrap();
    let package =
        metadata["packages"].as_array().unwrap().iter().find(|package| package["name"] == "undiffuse").unwrap();
    // Those of tests have a kind.
    let needed = package["dependencies"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|dependency| dependency["kind"].is_null() && dependency["optional"] == false)
        .map(|dependency| dependency["name"].as_str().unwrap().replace('-', "_"));
    let source = root().join("src");
    let is_library = |file: &PathBuf| !file.starts_with(source.join("cli")) && *file != source.join("main.rs");
    let files = rust_files(&source).into_iter().filter(is_library);
    let used: BTreeSet<String> = files.flat_map(|file| tokens(&fs::read_to_string(file).unwrap())).collect();
    let idle: Vec<String> = needed.filter(|name| !used.contains(name)).collect();
    assert!(idle.is_empty(), "for the feature `command` of Cargo.toml: {}", idle.join(", "));
}

/// Fails unless the rooms of `folder` import what `walls` has, without a circle.
fn check(folder: &str, walls: &[Wall]) {
    let found = rooms(folder, &imports(folder));
    let mut wrong = Vec::new();
    let table: BTreeMap<&str, BTreeSet<&str>> =
        walls.iter().map(|&(room, imports)| (room, imports.iter().copied().collect())).collect();
    assert_eq!(table.len(), walls.len(), "a room of {folder} has two rows");
    for (room, imports) in &found {
        let Some(allowed) = table.get(room.as_str()) else {
            wrong.push(format!("{room} has no row: it imports {:?}", imports.keys()));
            continue;
        };
        for (import, place) in imports.iter().filter(|(import, _)| !allowed.contains(import.as_str())) {
            wrong.push(format!("{room} may not import {import}: {place}"));
        }
        for import in allowed.iter().filter(|import| !imports.contains_key(**import)) {
            wrong.push(format!("{room} does not import {import}: strike it out"));
        }
    }
    wrong.extend(table.keys().filter(|room| !found.contains_key(**room)).map(|room| format!("there is no {room}")));
    let edges = table.iter().map(|(room, imports)| (*room, imports.iter().copied().collect())).collect();
    wrong.extend(circle(&edges).map(|circle| format!("a circle of rooms: {}", circle.join(" → "))));
    assert!(wrong.is_empty(), "the walls of {folder}, in tests/walls.rs:\n  {}", wrong.join("\n  "));
}

/// Fails if a file under `folder` imports itself by way of others.
fn no_circle_of_files(folder: &str) {
    let imports = imports(folder);
    let name = |path: &'_ PathBuf| path.strip_prefix(root().join(folder)).unwrap().to_string_lossy().into_owned();
    let names: Vec<(String, Vec<String>)> =
        imports.iter().map(|(file, imports)| (name(file), imports.keys().map(name).collect())).collect();
    let edges: BTreeMap<&str, Vec<&str>> =
        names.iter().map(|(file, imports)| (file.as_str(), imports.iter().map(String::as_str).collect())).collect();
    let circle = circle(&edges);
    assert!(circle.is_none(), "a circle of files in {folder}: {}", circle.unwrap_or_default().join(" → "));
}

/// A way from a node back to itself, if there is one.
fn circle<'a>(edges: &BTreeMap<&'a str, Vec<&'a str>>) -> Option<Vec<&'a str>> {
    fn walk<'a>(
        node: &'a str,
        edges: &BTreeMap<&'a str, Vec<&'a str>>,
        way: &mut Vec<&'a str>,
        done: &mut BTreeSet<&'a str>,
    ) -> bool {
        if done.contains(node) {
            return false;
        }
        if let Some(start) = way.iter().position(|&before| before == node) {
            way.drain(..start);
            way.push(node);
            return true;
        }
        way.push(node);
        if edges.get(node).into_iter().flatten().any(|&next| walk(next, edges, way, done)) {
            return true;
        }
        way.pop();
        done.insert(node);
        false
    }
    let (mut way, mut done) = (Vec::new(), BTreeSet::new());
    edges.keys().any(|&node| walk(node, edges, &mut way, &mut done)).then_some(way)
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// For each file, the files that it imports from, each with a path that says so.
type Imports = BTreeMap<PathBuf, BTreeMap<PathBuf, String>>;

/// What the rooms of `folder` import from each other; its face is none of them.
fn rooms(folder: &str, imports: &Imports) -> BTreeMap<String, BTreeMap<String, String>> {
    let folder = root().join(folder);
    let room = |file: &Path| {
        let first = file.strip_prefix(&folder).ok()?.components().next()?;
        Some(Path::new(&first).file_stem()?.to_str()?.to_owned())
    };
    let is_face = |room: &str| ["mod", "lib", "main"].contains(&room);
    let mut rooms: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for (file, imported) in imports {
        let Some(from) = room(file).filter(|room| !is_face(room)) else { continue };
        let others = rooms.entry(from.clone()).or_default();
        for (to, path) in imported {
            if let Some(to) = room(to).filter(|to| *to != from) {
                let place = file.strip_prefix(root()).unwrap_or(file);
                others.entry(to).or_insert_with(|| format!("{path} in {}", place.display()));
            }
        }
    }
    rooms
}

/// What the files under `folder` import from each other, tests left out.
fn imports(folder: &str) -> Imports {
    let source = root().join("src");
    let files = rust_files(&source).into_iter().map(|file| {
        let text = tokens(&fs::read_to_string(&file).unwrap());
        (file, text)
    });
    let files: BTreeMap<PathBuf, Vec<String>> = files.collect();
    let modules: BTreeMap<Vec<String>, &PathBuf> = files.keys().map(|file| (module(&source, file), file)).collect();
    // A file that no other declares outside of its tests is a test itself.
    let mut declared = BTreeSet::from([Vec::new()]);
    for (file, tokens) in &files {
        let names =
            tokens.windows(3).filter(|three| three[0] == "mod" && three[2] == ";").map(|three| three[1].clone());
        declared.extend(names.map(|name| [module(&source, file), vec![name]].concat()));
    }
    let folder = root().join(folder);
    let mut imports = Imports::new();
    let is_meant = |file: &Path| file.starts_with(&folder) && declared.contains(&module(&source, file));
    for (file, tokens) in files.iter().filter(|(file, _)| is_meant(file)) {
        let of_file = imports.entry(file.clone()).or_default();
        for path in paths(&module(&source, file), tokens, &modules) {
            // The module of the longest beginning; what follows are its items.
            let target = (1..=path.len()).rev().find_map(|length| modules.get(&path[..length]));
            if let Some(&target) = target.filter(|target| **target != file && target.starts_with(&folder)) {
                of_file.entry(target.clone()).or_insert_with(|| path.join("::"));
            }
        }
    }
    imports
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files.extend(rust_files(&path)),
            false if path.extension().is_some_and(|extension| extension == "rs") => files.push(path),
            false => {}
        }
    }
    files.sort();
    files
}

/// The module that a file is, as the names from the crate down to it.
fn module(source: &Path, file: &Path) -> Vec<String> {
    let mut names: Vec<String> = file
        .strip_prefix(source)
        .unwrap()
        .with_extension("")
        .components()
        .map(|name| name.as_os_str().to_str().unwrap().to_owned())
        .collect();
    names.pop_if(|name| ["mod", "lib", "main"].contains(&name.as_str()));
    names
}

/// Names, punctuation, and `::` as one; no comments, strings, lifetimes, or items under `cfg(test)`.
fn tokens(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let mut tokens = Vec::new();
    let mut i = 0;
    while i < chars.len() {
        let c = chars[i];
        let name = c.is_alphanumeric() || c == '_';
        let hashes = chars[i + 1..].iter().take_while(|&&c| c == '#').count();
        if c == '/' && at(i + 1) == '/' {
            i += chars[i..].iter().take_while(|&&c| c != '\n').count();
        } else if c == 'r' && at(i + 1 + hashes) == '"' {
            let end = format!("\"{}", "#".repeat(hashes));
            i += 2 + hashes;
            while i < chars.len() && !chars[i..].iter().take(end.len()).eq(end.chars().collect::<Vec<_>>().iter()) {
                i += 1;
            }
            i += end.len();
        } else if c == '"' {
            i += 1;
            while i < chars.len() && chars[i] != '"' {
                i += if chars[i] == '\\' { 2 } else { 1 };
            }
            i += 1;
        } else if c == '\'' && at(i + 1) == '\\' {
            i += 3 + chars[i + 3..].iter().take_while(|&&c| c != '\'').count() + 1;
        } else if c == '\'' && at(i + 2) == '\'' {
            i += 3;
        } else if name {
            let length = chars[i..].iter().take_while(|c| c.is_alphanumeric() || **c == '_').count();
            tokens.push(chars[i..i + length].iter().collect());
            i += length;
        } else if c == ':' && at(i + 1) == ':' {
            tokens.push("::".to_owned());
            i += 2;
        } else {
            if !c.is_whitespace() {
                tokens.push(c.to_string());
            }
            i += 1;
        }
    }
    without_tests(&tokens)
}

fn without_tests(tokens: &[String]) -> Vec<String> {
    let mut kept = Vec::new();
    let mut i = 0;
    let is_at = |i: usize, words: &[&str]| {
        words.iter().enumerate().all(|(k, word)| tokens.get(i + k).is_some_and(|t| t == word))
    };
    while i < tokens.len() {
        if !(is_at(i, &["#", "[", "cfg", "(", "test", ")"]) || is_at(i, &["#", "[", "cfg", "(", "all", "(", "test"])) {
            kept.push(tokens[i].clone());
            i += 1;
            continue;
        }
        // To the end of the item: its block, or what ends it without one.
        let mut depth = 0;
        while let Some(token) = tokens.get(i) {
            depth += match token.as_str() {
                "{" | "(" | "[" => 1,
                "}" | ")" | "]" => -1,
                _ => 0,
            };
            // A field or a variant ends at the latest with what it is in.
            if depth < 0 {
                break;
            }
            i += 1;
            if depth == 0 && (token == "}" || token == ";") {
                break;
            }
        }
    }
    kept
}

/// All paths that begin at the crate, at this module or at one around or in it, from the crate down.
fn paths(module: &[String], tokens: &[String], modules: &BTreeMap<Vec<String>, &PathBuf>) -> Vec<Vec<String>> {
    let mut paths = Vec::new();
    // Modules that a file holds between braces, each with the depth at which it began.
    let mut inner: Vec<(String, usize)> = Vec::new();
    let mut depth = 0;
    let mut i = 0;
    while i < tokens.len() {
        let here = || module.iter().chain(inner.iter().map(|(name, _)| name)).cloned().collect::<Vec<_>>();
        match tokens[i].as_str() {
            "{" => depth += 1,
            "}" => {
                depth -= 1;
                inner.pop_if(|(_, began)| *began == depth);
            }
            // A visibility imports nothing.
            "pub" if tokens.get(i + 1).is_some_and(|token| token == "(") => {
                i += tokens[i..].iter().take_while(|token| *token != ")").count();
            }
            "mod" if tokens.get(i + 2).is_some_and(|token| token == "{") => inner.push((tokens[i + 1].clone(), depth)),
            // But for `use<…>`, which says what a type captures.
            "use" if tokens.get(i + 1).is_some_and(|token| token != "<") => {
                let mut spelled = Vec::new();
                i = tree(tokens, i + 1, &[], &mut spelled);
                paths.extend(spelled.iter().filter_map(|path| absolute(&here(), path, modules)));
                continue;
            }
            "crate" | "super" | "undiffuse" if i == 0 || tokens[i - 1] != "::" => {
                let mut path = vec![tokens[i].clone()];
                while tokens.get(i + 1).is_some_and(|token| token == "::") {
                    path.extend(tokens.get(i + 2).cloned());
                    i += 2;
                }
                paths.extend(absolute(&here(), &path, modules));
            }
            _ => {}
        }
        i += 1;
    }
    paths
}

/// Reads a tree of `use` from `tokens[i]` on, and returns where it ends.
fn tree(tokens: &[String], mut i: usize, before: &[String], paths: &mut Vec<Vec<String>>) -> usize {
    let mut path = before.to_vec();
    while let Some(token) = tokens.get(i) {
        match token.as_str() {
            "{" => {
                loop {
                    i = tree(tokens, i + 1, &path, paths);
                    if tokens.get(i).is_none_or(|token| token != ",") {
                        break;
                    }
                }
                // Past the brace; the path has been written with each of its ends.
                return i + 1;
            }
            "," | "}" | ";" => break,
            "::" => {}
            "as" => i += 1,
            name => path.push(name.to_owned()),
        }
        i += 1;
    }
    if path.len() > before.len() {
        paths.push(path);
    }
    i
}

/// The names from the crate down, of a path as a file spells it; `None` for those of other crates.
fn absolute(module: &[String], path: &[String], modules: &BTreeMap<Vec<String>, &PathBuf>) -> Option<Vec<String>> {
    let (first, rest) = path.split_first()?;
    let ups = path.iter().take_while(|name| *name == "super").count();
    Some(match first.as_str() {
        "crate" | "undiffuse" => rest.to_vec(),
        "super" => [&module[..module.len().checked_sub(ups)?], &path[ups..]].concat(),
        "self" => [module, rest].concat(),
        // A child is named without the way to it.
        child => {
            let path: Vec<String> = [module, path].concat();
            modules.contains_key(&[module, &[child.to_owned()]].concat()).then_some(path)?
        }
    })
}

#[test]
fn paths_are_read_as_they_are_spelled() {
    let file = PathBuf::new();
    let names = |path: &str| path.split("::").map(str::to_owned).collect::<Vec<String>>();
    let modules: BTreeMap<Vec<String>, &PathBuf> = ["a", "a::b", "a::c"].map(|path| (names(path), &file)).into();
    let text = r##"
        //! Of [`crate::comment`].
        use crate::{d::{self, e as f}, g}; use super::c::*; pub use std::fmt;
        fn h<'a>(x: &'a str) -> char { crate::i::j("crate::string"); let _ = r#"crate::"raw"#; if x == "\"" { '{' } else { '\'' } }
        mod inner { use super::super::c::k; }
        #[cfg(test)]
        use crate::tested;
        #[cfg(all(test, not(x)))]
        mod tests { use crate::tests; fn f() {} }
        impl super::l::M {}
        pub(super) fn m() {}
        pub(in crate::n) struct O(pub crate::p::Q);
    "##;
    let found: Vec<String> =
        paths(&names("a::b"), &tokens(text), &modules).into_iter().map(|path| path.join("::")).collect();
    assert_eq!(found, ["d::self", "d::e", "g", "a::c::*", "i::j", "a::c::k", "a::l::M", "p::Q"]);
    assert_eq!(
        circle(&BTreeMap::from([("a", vec!["b"]), ("b", vec!["c"]), ("c", vec!["b"])])),
        Some(vec!["b", "c", "b"])
    );
    assert_eq!(circle(&BTreeMap::from([("a", vec!["b", "c"]), ("b", vec!["c"])])), None);
}
