//! The licences of everything that is not this project's own and is part of what it makes: of the crates that are linked, as their
//! sources bring them, and of the data that is built in.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::tools;

/// Data that is part of a build, by its name and the file of its licence.
const MERGES: (&str, &str) = ("the merges of OpenAI's CLIP", "assets/clip/LICENSE");

/// Data that is part of the command alone, by its name and the file of its licence.
const FONT: (&str, &str) = ("the font Noto Sans Mono", "assets/noto-sans-mono/OFL.txt");

/// What goes with the package and the site: of all that the module for browsers is linked from.
pub fn of_package() -> Result<String> {
    notices(tools::WASM, &[MERGES])
}

/// What goes with the command for this machine.
pub fn of_command() -> Result<String> {
    let version = tools::output(tools::command("rustc").arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc names no host")?;
    notices(host, &[MERGES, FONT])
}

/// The licences of what is built for `target`, each with the names of all that it is the licence of.
fn notices(target: &str, data: &[(&str, &str)]) -> Result<String> {
    let mut names_of: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, file) in data {
        let path = tools::root().join(file);
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        names_of.entry(text.trim().to_owned()).or_default().push((*name).to_owned());
    }
    for package in linked(target)? {
        let name = format!("{} {}", text(&package, "name")?, text(&package, "version")?);
        for licence in licences(&package).with_context(|| format!("the licence of the crate {name}"))? {
            names_of.entry(licence).or_default().push(name.clone());
        }
    }
    let mut sections: Vec<_> = names_of.into_iter().collect();
    sections.sort_by(|(_, one), (_, other)| one.cmp(other));
    let mut notices = String::from(
        "undiffuse is licensed under MIT or Apache-2.0. Built into it is the work of others, under the licences below, and the\n\
         standard library of Rust (https://www.rust-lang.org), which is licensed under MIT or Apache-2.0, too.\n",
    );
    for (licence, names) in sections {
        let line = "-".repeat(80);
        notices.push_str(&format!("\n{line}\n{}\n{line}\n\n{licence}\n", names.join(", ")));
    }
    Ok(notices)
}

/// The packages whose code is linked into the crate for `target`, but for this workspace's own.
fn linked(target: &str) -> Result<Vec<Value>> {
    let arguments = ["metadata", "--format-version", "1", "--filter-platform", target];
    let metadata: Value =
        serde_json::from_str(&tools::output(tools::cargo().args(arguments))?).context("cargo metadata")?;
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let packages: HashMap<String, Value> = list(&metadata["packages"])
        .into_iter()
        .map(|package| Ok((text(&package, "id")?.to_owned(), package)))
        .collect::<Result<_>>()?;
    let dependencies: HashMap<String, Vec<Value>> = list(&metadata["resolve"]["nodes"])
        .into_iter()
        .map(|node| Ok((text(&node, "id")?.to_owned(), list(&node["deps"]))))
        .collect::<Result<_>>()?;
    let ours = packages.iter().find(|(_, package)| package["name"] == "undiffuse").context("no package `undiffuse`")?;
    let mut waiting = vec![ours.0.clone()];
    let (mut seen, mut linked) = (HashSet::new(), Vec::new());
    while let Some(id) = waiting.pop() {
        let package = packages.get(&id).with_context(|| format!("cargo metadata does not describe {id}"))?;
        // A macro runs in the compiler, and so does what it is made of.
        let is_macro =
            list(&package["targets"]).iter().any(|target| list(&target["kind"]).contains(&"proc-macro".into()));
        if is_macro || !seen.insert(id.clone()) {
            continue;
        }
        if !package["source"].is_null() {
            linked.push(package.clone());
        }
        // Those of tests and build scripts have a kind.
        let is_linked = |dependency: &&Value| list(&dependency["dep_kinds"]).iter().any(|kind| kind["kind"].is_null());
        for dependency in dependencies.get(&id).into_iter().flatten().filter(is_linked) {
            waiting.push(text(dependency, "pkg")?.to_owned());
        }
    }
    Ok(linked)
}

/// The texts of a package's licence: where there is a choice, that of MIT alone.
fn licences(package: &Value) -> Result<Vec<String>> {
    let expression = text(package, "license")?;
    let folder = Path::new(text(package, "manifest_path")?).parent().context("a manifest lies in a folder")?;
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let (path, name) = {
            let entry = entry?;
            (entry.path(), entry.file_name().to_string_lossy().to_uppercase())
        };
        let is_licence =
            ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE"].iter().any(|n| name.starts_with(n));
        if is_licence && path.is_file() {
            let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            files.push((name, text.replace("\r\n", "\n").trim().to_owned()));
        }
    }
    let is_choice = expression.contains(" OR ") || expression.contains('/');
    if is_choice && files.iter().any(|(name, _)| name.contains("MIT")) {
        files.retain(|(name, _)| name.contains("MIT") || name.starts_with("NOTICE") || name.starts_with("COPYRIGHT"));
    }
    files.sort();
    if files.is_empty() {
        // The one whose text names nobody.
        if !expression.contains("Apache-2.0") {
            bail!("its source has no text of {expression}");
        }
        files.push((String::new(), fs::read_to_string(tools::root().join("LICENSE-APACHE"))?.trim().to_owned()));
    }
    Ok(files.into_iter().map(|(_, text)| text).collect())
}

fn text<'a>(value: &'a Value, key: &str) -> Result<&'a str> {
    value[key].as_str().with_context(|| format!("cargo metadata has no `{key}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_crate_that_is_linked_has_the_text_of_a_licence_of_a_known_kind() {
        for (notices, target, names) in [
            (
                of_package().unwrap(),
                tools::WASM,
                ["wgpu ", "wasm-bindgen ", "nalgebra ", "the merges of OpenAI's CLIP"],
            ),
            (of_command().unwrap(), "x86_64-unknown-linux-gnu", ["wgpu ", "clap ", "png ", "the font Noto Sans Mono"]),
        ] {
            for name in names {
                assert!(notices.contains(name), "nothing is said of {name}");
            }
            for part in ["Permission is hereby granted", "Apache License", "OpenAI"] {
                assert!(notices.contains(part), "no {part:?}");
            }
            for package in linked(target).unwrap() {
                let name = text(&package, "name").unwrap();
                assert!(!["undiffuse", "undiffuse-kernels", "proptest", "serde_derive"].contains(&name), "{name}");
                // Beside its text there may be a short notice.
                assert!(licences(&package).unwrap().iter().any(|text| text.len() > 500), "{name}");
                let known = ["MIT", "Apache-2.0", "Zlib", "ISC", "Unlicense", "BSD-3-Clause"];
                let expression = text(&package, "license").unwrap();
                assert!(known.iter().any(|kind| expression.contains(kind)), "{name}: {expression}");
            }
        }
        assert!(of_command().unwrap().contains("SIL OPEN FONT LICENSE Version 1.1"));
        assert!(!of_package().unwrap().contains("Noto Sans Mono"), "no font is part of the package");
    }
}
