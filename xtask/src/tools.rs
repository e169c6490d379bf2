//! The programs that the build and the tests stand on: each is found, or installed, or named with the way to get it.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// The target that browsers run.
pub const WASM: &str = "wasm32-unknown-unknown";

/// The oldest Node.js that the development tools in `package.json` accept.
const NODE: (u32, u32) = (20, 19);

/// The repository's root, which every command runs in.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask/ lies in the repository").to_owned()
}

/// A command that runs in the repository's root.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root());
    command
}

/// The cargo that runs this program.
pub fn cargo() -> Command {
    command(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Node.js, running the given script of an installed package: no shell wrapper, so that it is the same on every system.
pub fn node(script: &str) -> Command {
    let mut node = command("node");
    node.arg(Path::new("node_modules").join(script));
    node
}

/// Runs a command with its output on this terminal; a failure names the command.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {}", line(command)))?;
    if !status.success() {
        bail!("{} failed ({status})", line(command));
    }
    Ok(())
}

/// What a command prints on standard output, trimmed; an error if it cannot start or fails.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command.stderr(Stdio::null()).output().with_context(|| format!("cannot start {}", line(command)))?;
    if !output.status.success() {
        bail!("{} failed ({})", line(command), output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// A command as one would type it.
pub fn line(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    std::iter::once(program).chain(command.get_args()).map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

/// The path, in the folder, of every file below it, in order.
pub fn files_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let (path, name) = {
            let entry = entry?;
            (entry.path(), PathBuf::from(entry.file_name()))
        };
        if path.is_dir() {
            found.extend(files_below(&path)?.into_iter().map(|below| name.join(below)));
        } else {
            found.push(name);
        }
    }
    found.sort();
    Ok(found)
}

/// Removes a file, if it is there.
pub fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| path.display().to_string())
        }
        _ => Ok(()),
    }
}

/// Calls `make`, which makes `output`, unless it was made from these very ingredients with this very wasm-opt.
pub fn made_from(output: &Path, ingredients: &[&[u8]], make: impl FnOnce() -> Result<()>) -> Result<()> {
    let binaryen = fs::read(root().join("node_modules/binaryen/package.json")).context("npm module binaryen")?;
    let recipe = [ingredients.concat(), binaryen, include_bytes!("tools.rs").to_vec()].concat();
    let stamp = output.with_extension("stamp");
    if fs::read(&stamp).is_ok_and(|made_from| made_from == recipe) {
        return Ok(());
    }
    // The stamp goes first and comes back last: an interrupted build starts over.
    remove(&stamp)?;
    make()?;
    fs::write(&stamp, recipe).with_context(|| stamp.display().to_string())
}

/// Optimises a module with wasm-opt as `options` say, which may use the features that rustc enables for the target today and SIMD. Each
/// is named: `--all-features` would emit what browsers reject.
pub fn wasm_opt(module: &Path, output: &Path, options: &[&str]) -> Result<()> {
    const FEATURES: [&str; 7] = [
        "--enable-bulk-memory",
        "--enable-multivalue",
        "--enable-mutable-globals",
        "--enable-nontrapping-float-to-int",
        "--enable-reference-types",
        "--enable-sign-ext",
        "--enable-simd",
    ];
    run(node("binaryen/bin/wasm-opt").args(FEATURES).args(options).arg(module).arg("--output").arg(output))
}

/// The wasm target of the running toolchain.
pub fn wasm_target() -> Result<()> {
    let libraries = output(command("rustc").args(["--print", "target-libdir", "--target", WASM]))?;
    if Path::new(&libraries).is_dir() {
        return Ok(());
    }
    println!("installing the {WASM} target");
    run(command("rustup").args(["target", "add", WASM]))
        .with_context(|| format!("the Rust target {WASM} is missing; get it with: rustup target add {WASM}"))
}

/// rustfmt and clippy, which a minimal toolchain lacks.
pub fn rust_component(subcommand: &str, component: &str) -> Result<()> {
    if output(cargo().args([subcommand, "--version"])).is_ok() {
        return Ok(());
    }
    println!("installing {component}");
    run(command("rustup").args(["component", "add", component]))
        .with_context(|| format!("{component} is missing; get it with: rustup component add {component}"))
}

/// Whether `cargo nextest` is here: it runs tests in parallel processes and ends those that hang.
pub fn has_nextest() -> bool {
    output(cargo().args(["nextest", "--version"])).is_ok()
}

/// Whether cargo-deny is there.
pub fn has_deny() -> bool {
    output(cargo().args(["deny", "--version"])).is_ok()
}

/// Whether typos is there.
pub fn has_typos() -> bool {
    output(Command::new("typos").arg("--version")).is_ok()
}

/// Node.js and the development tools of `package-lock.json`.
pub fn node_modules() -> Result<()> {
    npm_modules(".")
}

/// Node.js and the modules of the `package-lock.json` in a folder of the repository, installed again whenever that file changes.
pub fn npm_modules(folder: &str) -> Result<()> {
    let wanted = format!("Node.js {}.{} or newer is needed, with npm", NODE.0, NODE.1);
    let version = output(command("node").arg("--version")).with_context(|| format!("{wanted}; node is not here"))?;
    if node_version(&version).is_none_or(|found| found < NODE) {
        bail!("{wanted}; this one is {version}");
    }
    let folder = root().join(folder);
    let lock = fs::read(folder.join("package-lock.json")).context("package-lock.json")?;
    let installed = folder.join("node_modules/.installed-lock.json");
    if fs::read(&installed).is_ok_and(|installed| installed == lock) {
        return Ok(());
    }
    println!("installing the npm modules of {}", folder.join("package-lock.json").display());
    run(npm(&["ci", "--no-audit", "--no-fund", "--loglevel=error"]).current_dir(&folder)).context(wanted)?;
    fs::write(&installed, lock).with_context(|| installed.display().to_string())
}

fn npm(arguments: &[&str]) -> Command {
    let mut npm = command(if cfg!(windows) { "npm.cmd" } else { "npm" });
    npm.args(arguments);
    npm
}

/// `v20.19.5` as `(20, 19)`.
fn node_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.strip_prefix('v')?.split('.').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// A full Chromium: the small "headless shell" has no WebGPU.
pub fn chromium() -> Result<PathBuf> {
    if let Some(path) = env::var_os("CHROMIUM").map(PathBuf::from) {
        if path.is_file() {
            return Ok(path);
        }
        bail!("the environment variable CHROMIUM names {}, which is not a file", path.display());
    }
    if let Some(path) = find_chromium() {
        return Ok(path);
    }
    let how = "install Chromium (Debian: apt-get install chromium; macOS: brew install --cask chromium), \
               or set CHROMIUM to the path of a Chromium or Chrome";
    install(&["chromium"]).with_context(|| format!("the browser tests need Chromium; {how}"))?;
    find_chromium().with_context(|| format!("chromium was installed and still is not on PATH; {how}"))
}

fn find_chromium() -> Option<PathBuf> {
    const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
    const APPLICATIONS: [&str; 2] = [
        "/Applications/Chromium.app/Contents/MacOS/Chromium",
        "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    ];
    NAMES
        .iter()
        .find_map(|name| find(name))
        .or_else(|| APPLICATIONS.iter().map(PathBuf::from).find(|path| path.is_file()))
}

/// A Vulkan driver for native wgpu. Elsewhere than on Linux the system brings its own graphics interface.
pub fn vulkan() -> Result<()> {
    if !cfg!(target_os = "linux")
        || env::var_os("VK_DRIVER_FILES").is_some()
        || env::var_os("VK_ICD_FILENAMES").is_some()
    {
        return Ok(());
    }
    // The loader's own search path for the manifests that drivers install.
    let has_driver = || {
        ["/usr/share/vulkan/icd.d", "/usr/local/share/vulkan/icd.d", "/etc/vulkan/icd.d"]
            .iter()
            .filter_map(|folder| fs::read_dir(folder).ok())
            .any(|mut entries| entries.next().is_some())
    };
    if has_driver() {
        return Ok(());
    }
    install(&["mesa-vulkan-drivers"]).context(
        "the GPU tests need a Vulkan driver; a software one is enough (Debian: apt-get install mesa-vulkan-drivers)",
    )
}

/// Installs Debian packages where that needs no password.
fn install(packages: &[&str]) -> Result<()> {
    if find("apt-get").is_none() {
        bail!("this system has no apt-get to install {} with", packages.join(" "));
    }
    let as_root = output(command("id").arg("-u")).is_ok_and(|id| id == "0");
    if !as_root && output(command("sudo").args(["-n", "true"])).is_err() {
        bail!("only root may install packages; run: sudo apt-get install {}", packages.join(" "));
    }
    let apt_get = |arguments: &[&str]| {
        let mut apt_get = if as_root { command("env") } else { command("sudo") };
        if !as_root {
            apt_get.args(["-n", "env"]);
        }
        apt_get.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "-o", "Dpkg::Use-Pty=0"]);
        apt_get.args(arguments);
        apt_get
    };
    println!("installing {}", packages.join(" "));
    run(&mut apt_get(&["update"]))?;
    run(apt_get(&["install", "--yes", "--no-install-recommends"]).args(packages))
}

/// A program on `PATH`.
fn find(name: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|folder| folder.join(name)).find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_versions_compare_by_number() {
        assert_eq!(node_version("v20.19.5"), Some((20, 19)));
        assert!(node_version("v9.11.2") < Some(NODE));
        assert!(node_version("v22.1.0") > Some(NODE));
        assert_eq!(node_version("not a version"), None);
    }
}
