//! From the crate to what people use: `pkg/`, the npm package, and `dist/`, the static site.
//!
//! cargo → wasm-bindgen → wasm-opt → `pkg/` = `js/` + the generated modules and the CPU's kernels under `internal/` + `pkg.json`, and
//! its tarball beside it, as npm packs it; `dist/` = `www/` + what a page loads of `pkg/`, with its scripts bundled. Both have the
//! licences of what is in them. A file is written only where it differs, so a second run touches nothing.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::mem;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use wasm_bindgen_cli_support::Bindgen;

use crate::imports;
use crate::kernels;
use crate::licenses;
use crate::likeness;
use crate::sizes;
use crate::tools::{self, WASM};

/// A module that is built from the crate with one of its features.
struct Module {
    /// The feature of Cargo's.
    feature: &'static str,
    /// The module's name.
    name: &'static str,
    /// The most that it may weigh, in bytes of brotli.
    limit: usize,
}

/// The module of a first picture, and the one that a page fetches besides when features of pictures are asked for.
const MODULES: [Module; 2] = [
    Module { feature: "pipeline", name: "undiffuse", limit: PIPELINE_LIMIT },
    Module { feature: "features", name: "undiffuse_features", limit: FEATURES_LIMIT },
];

/// The module of a first picture, in `pkg/`.
const MAIN: &str = "internal/undiffuse_bg.wasm";

/// The build of the kernels that a page fetches if the CPU is its device, in `pkg/`. Of the two builds it is the larger one in brotli.
const KERNELS: &str = "internal/kernels_relaxed.wasm";

/// The text that a page fetches instead if the GPU is its device, in `pkg/`.
const SHADERS: &str = "internal/shaders.txt";

/// The most that a page may have to fetch for its first picture, in bytes of brotli: the first module, its scripts and one build of the
/// kernels, which is more than the shaders. It is less than these three may weigh by themselves. 390 kB, and some bytes more, because
/// messages of panics name where a machine keeps the sources of crates.
const LIMIT: usize = 390_400;

/// The most that the module of a first picture may weigh, in bytes of brotli.
const PIPELINE_LIMIT: usize = 341_900;

/// The most that the module of features may weigh, in bytes of brotli.
const FEATURES_LIMIT: usize = 171_000;

/// The most that one build of the kernels may weigh, in bytes of brotli.
const KERNELS_LIMIT: usize = 25_600;

/// The most that the shaders may weigh, in bytes of brotli.
const SHADERS_LIMIT: usize = 12_600;

/// The most that the scripts of a first picture may weigh, bundled and in bytes of brotli.
const SCRIPTS_LIMIT: usize = 23_800;

/// Tells LLVM that instructions are a hundred times as dear as it takes them for, and so to inline next to nothing but what gets
/// smaller by it: at its own prices it inlines whatever is called from one place.
const INLINING: &str = "-Cllvm-args=-inline-instr-cost=500 -inline-call-penalty=2500";

/// The least code on the wire, which is not the shortest: brotli finds what functions have in common, unless one is inlined where it is
/// called once or the code is rearranged until nothing repeats. Functions of similar names are alike: the order that `likeness` begins at.
/// The lowest kilobyte of memory is the end of the stack, which nothing points into from below.
const WASM_OPT: [&str; 7] = [
    "-O2",
    "--converge",
    "--low-memory-unused",
    "--one-caller-inline-max-function-size=0",
    "--skip-pass=simplify-locals",
    "--reorder-functions-by-name",
    "--strip-target-features",
];

/// Builds `pkg/`, its tarball and `dist/` and checks what a page loads of them for its size, which it prints in detail if asked to.
pub fn build(with_sizes: bool) -> Result<()> {
    tools::wasm_target()?;
    tools::node_modules()?;
    let root = tools::root();
    let cargo = Workspace::read()?;

    let mut package = read(&root.join("js"))?;
    for module in &MODULES {
        println!("building the crate for {WASM}: {}", module.feature);
        let features = ["--no-default-features", "--features", module.feature];
        let library = ["rustc", "--profile", "web", "--lib", "--crate-type", "cdylib", "--target", WASM];
        tools::run(tools::cargo().args(library).args(features).args(["--", INLINING]))?;
        let internal = cargo.target.join("undiffuse-web").join(module.name);
        bind(&cargo.target.join(WASM).join("web/undiffuse.wasm"), module.name, &internal)?;
        for (path, content) in read(&internal)? {
            package.insert(Path::new("internal").join(path), content);
        }
    }
    for (path, content) in kernels::build(&cargo.target)? {
        package.insert(Path::new("internal").join(path), content);
    }
    let read_file = |name: &str| fs::read(root.join(name)).with_context(|| root.join(name).display().to_string());
    package.insert("internal/merges.txt".into(), read_file("assets/clip/merges.txt")?);
    package.insert(SHADERS.into(), shaders()?.into_bytes());
    package.insert("internal/merges.license.txt".into(), read_file("assets/clip/LICENSE")?);
    package.insert("package.json".into(), versioned("pkg.json", &cargo.version)?);
    package.insert("README.md".into(), read_file("README.md")?);
    let mut legal = BTreeMap::from([(PathBuf::from("LICENSES.txt"), licenses::of_package()?.into_bytes())]);
    for name in ["LICENSE-MIT", "LICENSE-APACHE"] {
        legal.insert(name.into(), read_file(name)?);
    }
    package.extend(legal.clone());

    let mut site = read(&root.join("www"))?;
    for (path, content) in &package {
        if path.extension().is_some_and(|extension| extension == "js" || extension == "wasm" || extension == "txt") {
            site.insert(Path::new("pkg").join(path), content.clone());
        }
    }
    site.remove(Path::new("pkg/LICENSES.txt"));
    for (path, content) in legal {
        // As text, which a host knows by its name and a browser shows.
        site.insert(path.with_extension("txt"), content);
    }
    site.insert("index.html".into(), versioned("www/index.html", &cargo.version)?);
    bundle(&mut site, &cargo.target.join("undiffuse-site"))?;

    let changed = (write(&root.join("pkg"), &package)?, write(&root.join("dist"), &site)?);
    let tarball = root.join(format!("undiffuse-{}.tgz", cargo.version));
    if changed.0 > 0 || !tarball.exists() {
        tools::output(tools::command("npm").args(["pack", "--silent", "./pkg"]))?;
    }
    println!(
        "pkg/: {} files, {} changed, packed as {}; dist/: {} files, {} changed",
        package.len(),
        changed.0,
        tarball.file_name().unwrap_or_default().display(),
        site.len(),
        changed.1
    );
    if with_sizes {
        print_sizes(&cargo.target)?;
    }
    check_sizes()
}

/// Prints where the bytes are that a page loads for its first picture.
fn print_sizes(target: &Path) -> Result<()> {
    let shipped = tools::root().join("dist/pkg");
    let weigh = |path: PathBuf| Ok((path.display().to_string(), weigh(&[path])?));
    let files = first_picture()?.into_iter().map(weigh).collect::<Result<_>>()?;
    let module = sizes::of_module(&shipped.join(MAIN), &symbols(&target.join("undiffuse-web").join(MODULES[0].name)))?;
    sizes::print("fetched for a first picture", "bytes in brotli", &files);
    sizes::print(&format!("section of {MAIN}"), "bytes", &module.sections);
    sizes::print("code in it, by crate and room", "bytes", &module.code);
    println!();
    Ok(())
}

/// Holds each module, the scripts, and all that a first picture needs to their limits.
fn check_sizes() -> Result<()> {
    for Module { feature, name, limit } in &MODULES {
        let file = format!("internal/{name}_bg.wasm");
        check_size(&format!("the module of `{feature}` is"), weigh(&[file.into()])?, *limit)?;
    }
    let (scripts, modules): (Vec<_>, Vec<_>) = first_picture()?.into_iter().partition(|path| is_script(path));
    check_size("the kernels are", weigh(&[KERNELS.into()])?, KERNELS_LIMIT)?;
    check_size("the shaders are", weigh(&[SHADERS.into()])?, SHADERS_LIMIT)?;
    check_size("the scripts are", weigh(&scripts)?, SCRIPTS_LIMIT)?;
    check_size("for its first picture a page loads", weigh(&[scripts, modules].concat())?, LIMIT)
}

/// The scripts of `pkg/` that a page starts: its own use of the package, and its workers.
const STARTED: [&str; 3] = ["site.js", "worker.js", "kernels_worker.js"];

/// The files of `pkg/` that a page may have to fetch for its first picture: the first module, one build of the kernels, and the scripts
/// that it starts with all that these import at once.
fn first_picture() -> Result<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> = STARTED.iter().map(PathBuf::from).collect();
    let mut next = 0;
    while let Some(file) = files.get(next) {
        let path = tools::root().join("dist/pkg").join(file);
        let script = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        for (at, _) in script.match_indices("\"./") {
            let (before, imported) = (&script[..at], script[at + 3..].split('"').next().unwrap_or_default());
            let is_static = before.ends_with("from") || before.ends_with("import");
            if is_static && !files.iter().any(|known| known == Path::new(imported)) {
                files.push(imported.into());
            }
        }
        next += 1;
    }
    files.extend([MAIN, KERNELS].map(PathBuf::from));
    Ok(files)
}

/// The file with the names of a module's functions, for a module that is made in `output`.
fn symbols(output: &Path) -> PathBuf {
    output.with_extension("symbols")
}

/// Prints what something weighs, and fails if that is more than it may.
fn check_size(what: &str, bytes: usize, limit: usize) -> Result<()> {
    let size = format!("{what} {bytes} bytes of code in brotli, of {limit} allowed");
    println!("{size}");
    if bytes > limit {
        bail!("{size}: look for a new dependency, a `format!` in a hot path or a generic that multiplies");
    }
    Ok(())
}

fn is_script(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "js")
}

/// What cargo says of the workspace.
struct Workspace {
    /// The folder of its build products.
    target: PathBuf,
    /// The version of the crate, which is the package's.
    version: String,
}

impl Workspace {
    fn read() -> Result<Self> {
        let text = tools::output(tools::cargo().args(["metadata", "--no-deps", "--format-version", "1"]))?;
        let metadata: Value = serde_json::from_str(&text).context("cargo metadata")?;
        let packages = metadata["packages"].as_array().context("cargo metadata names no packages")?;
        let crate_ =
            packages.iter().find(|package| package["name"] == "undiffuse").context("no package `undiffuse`")?;
        Ok(Self {
            target: metadata["target_directory"].as_str().context("cargo metadata names no target directory")?.into(),
            version: crate_["version"].as_str().context("the crate has no version")?.to_owned(),
        })
    }
}

/// Makes JavaScript's side of the module with wasm-bindgen, then shrinks the module with wasm-opt and orders its functions; does nothing
/// if `output` was made from this very module by this very recipe.
fn bind(module: &Path, name: &str, output: &Path) -> Result<()> {
    let bytes = fs::read(module).with_context(|| module.display().to_string())?;
    let ingredients: [&[u8]; 5] = [
        &bytes,
        include_bytes!("build.rs"),
        include_bytes!("imports.rs"),
        include_bytes!("likeness.rs"),
        include_bytes!("../../Cargo.lock"),
    ];
    tools::made_from(output, &ingredients, || {
        if output.exists() {
            fs::remove_dir_all(output).with_context(|| output.display().to_string())?;
        }
        println!("binding it to JavaScript, {} bytes", bytes.len());
        Bindgen::new()
            .input_bytes(name, bytes.clone())
            .web(true)?
            .typescript(true)
            .omit_default_module_path(true)
            .remove_producers_section(true)
            .generate(output)
            .context("wasm-bindgen")?;
        number_hashes(output, name)?;
        let wasm = output.join(format!("{name}_bg.wasm"));
        println!("optimising it, {} bytes", fs::metadata(&wasm)?.len());
        // The names go beside the module, by the functions' indices: the sizes are to be those of the module as it ships.
        let names = symbols(output);
        let symbolmap = format!("--symbolmap={}", names.display());
        tools::wasm_opt(&wasm, &wasm, &[&WASM_OPT[..], &[&symbolmap, "--strip-debug"]].concat())?;
        let read_file = |path: &Path| fs::read(path).with_context(|| path.display().to_string());
        let read_text = |path: &Path| String::from_utf8(read_file(path)?).with_context(|| path.display().to_string());
        let script = output.join(format!("{name}.js"));
        let (module, shortened) = imports::shorten(&read_file(&wasm)?, &read_text(&script)?)?;
        let (module, reordered) = likeness::order(&module, &read_text(&names)?)?;
        for (path, content) in [(&wasm, module), (&script, shortened.into_bytes()), (&names, reordered.into_bytes())] {
            fs::write(path, content).with_context(|| path.display().to_string())?;
        }
        Ok(())
    })
}

/// Puts a number in place of each hash that wasm-bindgen ends a name with, in the module and in what goes with it: hashes are noise, of
/// which brotli can spare nothing. A number is written as long as the hash, for lengths stand before names in a module.
fn number_hashes(folder: &Path, name: &str) -> Result<()> {
    let mut files = read(folder)?;
    let script = format!("{name}.js");
    let script = files.get(Path::new(&script)).with_context(|| format!("wasm-bindgen wrote no {script}"))?.clone();
    let is_hash = |word: &&[u8]| word.len() == 16 && word.iter().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
    let words = script.split(|c| !c.is_ascii_alphanumeric()).map(|word| word.strip_prefix(b"h").unwrap_or(word));
    let numbers: HashMap<&[u8], String> =
        words.filter(is_hash).zip(0..).map(|(hash, i)| (hash, format!("{i:016x}"))).collect();
    for content in files.values_mut() {
        for at in 0..content.len().saturating_sub(15) {
            if let Some(number) = numbers.get(&content[at..at + 16]) {
                content[at..at + 16].copy_from_slice(number.as_bytes());
            }
        }
    }
    write(folder, &files).map(drop)
}

/// A file with the crate's version where it says 0.0.0. As text: the order of a manifest's keys has a meaning.
fn versioned(path: &str, version: &str) -> Result<Vec<u8>> {
    const PLACE: &str = "0.0.0";
    let template = fs::read_to_string(tools::root().join(path)).with_context(|| path.to_owned())?;
    if !template.contains(PLACE) {
        bail!("{path} has no {PLACE} to put the crate's version in");
    }
    Ok(template.replacen(PLACE, version, 1).into_bytes())
}

/// The content of every file below a folder, by its path in it.
fn read(folder: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    let read = |path: PathBuf| {
        let content = fs::read(folder.join(&path)).with_context(|| folder.join(&path).display().to_string())?;
        Ok((path, content))
    };
    tools::files_below(folder)?.into_iter().map(read).collect()
}

/// Makes a folder hold exactly these files, touching only what differs; returns how many it wrote or removed.
fn write(folder: &Path, wanted: &BTreeMap<PathBuf, Vec<u8>>) -> Result<usize> {
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let present = read(folder)?;
    let mut changed = 0;
    for path in present.keys().filter(|path| !wanted.contains_key(*path)) {
        tools::remove(&folder.join(path))?;
        changed += 1;
    }
    for (path, content) in wanted.iter().filter(|(path, content)| present.get(*path) != Some(content)) {
        let path = folder.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).with_context(|| parent.display().to_string())?;
        }
        fs::write(&path, content).with_context(|| path.display().to_string())?;
        changed += 1;
    }
    Ok(changed)
}

/// What the shaders say, in one text: each without its comments behind a line with its name, as `src/gpu/shaders.rs` reads it.
fn shaders() -> Result<String> {
    let mut text = String::new();
    for (path, content) in read(&tools::root().join("shaders"))? {
        let content = String::from_utf8(content).with_context(|| path.display().to_string())?;
        text.push_str(&format!("// {}\n", path.file_stem().unwrap_or_default().display()));
        // A line stays a line, so that a compiler's message points into the file.
        for line in content.lines() {
            text.push_str(line.split("//").next().unwrap_or_default().trim());
            text.push('\n');
        }
    }
    Ok(text)
}

/// Bundles the package's scripts among `files` and minifies all, by way of `folder`.
fn bundle(files: &mut BTreeMap<PathBuf, Vec<u8>>, folder: &Path) -> Result<()> {
    let (scripts, others) = mem::take(files).into_iter().partition(|(path, _)| is_script(path));
    *files = others;
    let read_tool = |name: &str| {
        let manifest = tools::root().join("node_modules").join(name).join("package.json");
        fs::read(&manifest).with_context(|| format!("npm module {name}"))
    };
    let (esbuild, vite) = (read_tool("esbuild")?, read_tool("vite")?);
    let names = format!("{:?}", scripts.keys());
    let ingredients = [include_bytes!("bundle.mjs"), &esbuild[..], &vite, names.as_bytes()];
    let ingredients: Vec<&[u8]> = ingredients.into_iter().chain(scripts.values().map(Vec::as_slice)).collect();
    tools::made_from(folder, &ingredients, || {
        write(folder, &scripts)?;
        tools::run(tools::command("node").arg("xtask/src/bundle.mjs").arg(folder))
    })?;
    files.extend(read(folder)?);
    Ok(())
}

/// The size of all `files` of the site's `pkg/` together as a static host would send them.
fn weigh(files: &[PathBuf]) -> Result<usize> {
    let shipped = tools::root().join("dist/pkg");
    let paths = files.iter().map(|path| shipped.join(path));
    let size = tools::output(tools::command("node").arg("xtask/src/brotli.mjs").args(paths))?;
    size.parse().with_context(|| format!("brotli.mjs printed {size:?}"))
}
