//! Files that appear whole or not at all, and the two streams.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressStyle};

use super::Error;

/// Writes a result to stdout.
pub fn result(text: fmt::Arguments) -> Result<(), Error> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{text}").and_then(|()| stdout.flush()).map_err(Error::Stdout)
}

/// Writes a line to stderr, for a person. If stderr is closed, there is nobody to tell.
pub fn note(text: fmt::Arguments) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// A progress bar on stderr, drawn only where that is a terminal.
pub fn bar(template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(0).with_style(style)
}

/// A file to be written when the work is done, checked before the work is begun.
pub struct Output {
    given: PathBuf,
    /// Where the bytes go: the file itself, not a symbolic link to it, so that replacing it leaves the link alone.
    target: PathBuf,
    /// A terminal, a pipe or a device cannot be replaced by another file, only written to.
    in_place: bool,
}

impl Output {
    /// Makes sure that `path` can be written: a long run should not end with an error that its start could have given.
    pub fn new(path: &Path) -> Result<Self, Error> {
        let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let existing = fs::metadata(&target).ok();
        if target.file_name().is_none() || existing.as_ref().is_some_and(fs::Metadata::is_dir) {
            return Err(Error::path(path, "this is a folder; give the name of a file in it"));
        }
        let folder = folder(&target);
        if !folder.is_dir() {
            let message = format!("the folder {} does not exist; create it first", folder.display());
            return Err(Error::path(path, message));
        }
        let in_place = existing.is_some_and(|metadata| !metadata.is_file());
        let output = Self { given: path.to_owned(), target, in_place };
        if !in_place {
            // The folder's permissions, a read-only file system: trying is the only reliable question.
            let temporary = output.temporary();
            File::create_new(&temporary).and_then(|_| fs::remove_file(&temporary)).map_err(|e| output.error(e))?;
        }
        Ok(output)
    }

    /// Writes the file: under a temporary name beside it, which then takes its place.
    pub fn write(&self, bytes: &[u8]) -> Result<(), Error> {
        self.write_with(&mut |file| file.write_all(bytes))
    }

    /// Likewise, by a function that writes it part by part.
    pub fn write_with(&self, write: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>) -> Result<(), Error> {
        let write_to = |file: File| {
            let mut file = io::BufWriter::new(file);
            write(&mut file).and_then(|()| file.flush())
        };
        if self.in_place {
            return File::options().write(true).open(&self.target).and_then(write_to).map_err(|e| self.error(e));
        }
        let temporary = self.temporary();
        let written =
            File::create_new(&temporary).and_then(write_to).and_then(|()| fs::rename(&temporary, &self.target));
        written.map_err(|error| {
            // What has failed above is what the user needs to know.
            let _ = fs::remove_file(&temporary);
            self.error(error)
        })
    }

    /// Whether writing both would leave one.
    pub fn is_same_file(&self, other: &Self) -> bool {
        let place = |output: &Self| {
            (fs::canonicalize(folder(&output.target)).ok(), output.target.file_name().map(|n| n.to_owned()))
        };
        place(self) == place(other)
    }

    /// The path as it was given.
    pub fn path(&self) -> std::path::Display<'_> {
        self.given.display()
    }

    fn temporary(&self) -> PathBuf {
        let mut name = std::ffi::OsString::from(".");
        name.push(self.target.file_name().unwrap_or_default());
        name.push(format!(".{}.part", std::process::id()));
        folder(&self.target).join(name)
    }

    fn error(&self, error: io::Error) -> Error {
        Error::path(&self.given, format!("cannot be written: {error}"))
    }
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
