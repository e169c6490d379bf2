//! Files that are named on the command line, or lie in a folder that is: read without waiting for what may never come, and up to a
//! limit.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::path::Path;

use super::Error;

/// Most bytes of a text: a list of prompts, a config.
const MAX_TEXT: u64 = 1 << 26;

/// Opens the file at `path`. A named pipe is refused rather than opened: opening waits until somebody writes to it, which may be never.
///
/// # Errors
/// If there is no such file, it is a folder, a pipe or a device, or it cannot be opened.
pub fn open(path: &Path) -> io::Result<File> {
    let metadata = fs::metadata(path)?;
    if metadata.is_dir() {
        return Err(ErrorKind::IsADirectory.into());
    }
    // What the shell has opened for this process, such as the end of a pipe that somebody writes to.
    let is_given = path == Path::new("/dev/stdin") || path.starts_with("/dev/fd");
    if !metadata.is_file() && !is_given {
        return Err(io::Error::other("this is a pipe or a device, which may have no end; give a file"));
    }
    File::open(path)
}

/// The bytes of the file at `path`, of which there are at most `limit`.
///
/// # Errors
/// If the file is larger, [`open`] refuses it, or it cannot be read.
pub fn read(path: &Path, limit: u64) -> Result<Vec<u8>, Error> {
    let read = || {
        let mut bytes = Vec::new();
        // Lengths are claims: a file may grow while it is read.
        open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().map_err(|error: io::Error| Error::path(path, error))?;
    if bytes.len() as u64 > limit {
        let message = format!("it has more than {} MiB, the most that is read of such a file", limit >> 20);
        return Err(Error::path(path, message));
    }
    Ok(bytes)
}

/// The text in the file at `path`.
///
/// # Errors
/// If it has more than 64 MiB, is no UTF-8, or cannot be read.
pub fn text(path: &Path) -> Result<String, Error> {
    String::from_utf8(read(path, MAX_TEXT)?).map_err(|_| Error::path(path, "this is no text in UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_read_than_the_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, [b'x'; 100]).unwrap();
        assert_eq!(read(&path, 100).unwrap().len(), 100);
        assert!(read(&path, 99).unwrap_err().to_string().contains("more than 0 MiB"));
        assert!(read(folder.path(), 100).is_err());
        assert!(read(&folder.path().join("none"), 100).is_err());
        fs::write(&path, b"\xff").unwrap();
        assert!(text(&path).unwrap_err().to_string().contains("UTF-8"));
    }

    #[cfg(unix)]
    #[test]
    fn a_device_is_refused_unless_the_shell_has_opened_it() {
        let error = read(Path::new("/dev/zero"), 10).unwrap_err().to_string();
        assert_eq!(error, "/dev/zero: this is a pipe or a device, which may have no end; give a file");
        let zero = File::open("/dev/zero").unwrap();
        let descriptor = format!("/dev/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&zero));
        assert!(read(Path::new(&descriptor), 10).unwrap_err().to_string().contains("more than"));
    }
}
