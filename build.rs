//! Takes the comments and the indentation out of `shaders/`, which would be a third of their weight. A line stays
//! a line, so that a compiler's message points into the file.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=shaders");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or(io::ErrorKind::NotFound)?);
    for entry in fs::read_dir(Path::new("shaders"))? {
        let entry = entry?;
        let text = fs::read_to_string(entry.path())?;
        // WGSL has no strings that could hold a slash.
        let lines = text.lines().map(|line| line.split("//").next().unwrap_or_default().trim());
        fs::write(out.join(entry.file_name()), lines.flat_map(|line| [line, "\n"]).collect::<String>())?;
    }
    Ok(())
}
