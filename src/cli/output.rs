//! The two streams, and files that appear whole or not at all.
//!
//! Nothing that comes from a checkpoint, a picture or the name of a file is obeyed by the terminal: what it shows goes through
//! [`plain`].

use std::borrow::Cow;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufWriter, ErrorKind, IsTerminal, Write};
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressStyle};

use super::Error;
use super::partial::PartialFile;

/// Writes a line of a result to stdout.
pub fn result(text: fmt::Arguments) -> Result<(), Error> {
    let text = text.to_string();
    print(format!("{}\n", plain(&text)).as_bytes())
}

/// Writes a result of several lines to stdout.
pub fn results(text: &str) -> Result<(), Error> {
    text.trim_end().lines().try_for_each(|line| result(format_args!("{line}")))
}

/// Writes a path to stdout. Whoever is to open it gets the very bytes of a name that is no text.
pub fn result_path(path: &Path) -> Result<(), Error> {
    let mut line = Vec::new();
    for part in path.as_os_str().as_encoded_bytes().utf8_chunks() {
        line.extend(plain(part.valid()).as_bytes());
        match io::stdout().is_terminal() && !part.invalid().is_empty() {
            true => line.extend("\u{fffd}".as_bytes()),
            false => line.extend(part.invalid()),
        }
    }
    line.push(b'\n');
    print(&line)
}

fn print(bytes: &[u8]) -> Result<(), Error> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(Error::Stdout)
}

/// Writes a line to stderr, for a person. If stderr is closed, there is nobody to tell.
pub fn note(text: fmt::Arguments) {
    let _ = writeln!(io::stderr(), "{}", plain(&text.to_string()));
}

/// Writes several lines to stderr.
pub fn notes(text: &str) {
    text.trim_end().lines().for_each(|line| note(format_args!("{line}")));
}

/// The text without what a terminal obeys: control characters, ends of lines among them, and those that change the direction of
/// writing stand as JSON writes them, so that JSON stays what it is.
pub fn plain(text: &str) -> Cow<'_, str> {
    let is_obeyed = |c: char| {
        c.is_control()
            || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{206f}')
    };
    if !text.contains(is_obeyed) {
        return Cow::Borrowed(text);
    }
    let mut plain = String::new();
    for c in text.chars() {
        match is_obeyed(c) {
            true => plain.push_str(&format!("\\u{:04x}", u32::from(c))),
            false => plain.push(c),
        }
    }
    Cow::Owned(plain)
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
        let existing = match fs::metadata(&target) {
            Ok(metadata) => Some(metadata),
            // A link that leads nowhere is replaced, and a folder that is not there is told below.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => None,
            // A name that is too long, a folder that may not be looked into.
            Err(error) => return Err(Error::path(path, format!("cannot be written: {error}"))),
        };
        if target.file_name().is_none() || existing.as_ref().is_some_and(fs::Metadata::is_dir) {
            return Err(Error::path(path, "this is a folder; give the name of a file in it"));
        }
        if !folder(&target).is_dir() {
            let message = format!("the folder {} does not exist; create it first", folder(&target).display());
            return Err(Error::path(path, message));
        }
        let in_place = existing.is_some_and(|metadata| !metadata.is_file());
        let output = Self { given: path.to_owned(), target, in_place };
        if !in_place {
            // The folder's permissions, a read-only file system: trying is the only reliable question.
            PartialFile::new(folder(&output.target)).map_err(|error| output.error(error))?;
        }
        Ok(output)
    }

    /// Writes the file: under a hidden name beside it, which then takes its place.
    pub fn write(&self, bytes: &[u8]) -> Result<(), Error> {
        self.write_with(&mut |file| file.write_all(bytes))
    }

    /// Writes the file by a function that writes it part by part: under a hidden name beside it, which then takes its place.
    pub fn write_with(&self, write: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>) -> Result<(), Error> {
        let mut write_to = |file: &File| {
            let mut file = BufWriter::new(file);
            write(&mut file).and_then(|()| file.flush())
        };
        let mut replace = || match self.in_place {
            true => write_to(&File::options().write(true).open(&self.target)?),
            false => {
                let partial = PartialFile::new(folder(&self.target))?;
                write_to(partial.file())?;
                partial.finish(&self.target)
            }
        };
        replace().map_err(|error| self.error(error))
    }

    /// Whether writing both would leave one.
    pub fn is_same_file(&self, other: &Self) -> bool {
        let place = |output: &Self| {
            (fs::canonicalize(folder(&output.target)).ok(), output.target.file_name().map(|n| n.to_owned()))
        };
        place(self) == place(other)
    }

    /// The path as it was given.
    pub fn path(&self) -> &Path {
        &self.given
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_is_left_of_a_text() {
        for (given, expected) in [
            ("ᾱ = 0.5, \"лиса\" 🦊👩\u{200d}🚀", "ᾱ = 0.5, \"лиса\" 🦊👩\u{200d}🚀"),
            ("\u{1b}]0;title\u{7}\u{1b}[2J", "\\u001b]0;title\\u0007\\u001b[2J"),
            ("a\nerror: b\r\tc\0", "a\\u000aerror: b\\u000d\\u0009c\\u0000"),
            ("\u{9b}31m\u{7f}\u{85}", "\\u009b31m\\u007f\\u0085"),
            ("\u{202e}gnp.x\u{2066}\u{2069}\u{200f}\u{61c}\u{2028}", "\\u202egnp.x\\u2066\\u2069\\u200f\\u061c\\u2028"),
        ] {
            assert_eq!(plain(given), expected);
        }
        let json = serde_json::json!({ "path": "a\u{9b}\u{202e}\u{7f}\u{1b}" });
        let shown = json.to_string();
        assert_eq!(serde_json::from_str::<serde_json::Value>(&plain(&shown)).unwrap(), json);
    }
}
