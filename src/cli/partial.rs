//! Files and folders that grow beside their place under a hidden name, and take that place when they are whole.
//!
//! The name is random: where each run has the same process id, as in a container, a name with that in it would meet what a killed run
//! has left. Whoever writes holds a lock, so that the next run can tell what nobody is writing any more, and removes it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use tempfile::{Builder, TempDir, TempPath};

use super::interrupt;

/// How the hidden names begin and end.
const NAME: [&str; 2] = [".undiffuse-", ".part"];

/// A file that is not yet whole. It is removed unless it is finished, also where the command is interrupted.
pub struct PartialFile {
    path: TempPath,
    file: File,
    _removal: interrupt::Removal,
}

impl PartialFile {
    /// Begins a file in `folder`.
    ///
    /// # Errors
    /// If the folder cannot be written to.
    pub fn new(folder: &Path) -> io::Result<Self> {
        sweep(folder);
        loop {
            let (file, path) = builder(0o666).tempfile_in(folder)?.into_parts();
            let removal = interrupt::Removal::of(&path);
            if lock(&file, &path) {
                return Ok(Self { path, file, _removal: removal });
            }
        }
    }

    /// The file, to be written.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Puts it in the place of `target`.
    ///
    /// # Errors
    /// If that fails, and the file is removed.
    pub fn finish(self, target: &Path) -> io::Result<()> {
        let Self { path, file, _removal } = self;
        // Who could not read what is there shall not read what comes in its place.
        if let Ok(there) = fs::metadata(target) {
            file.set_permissions(there.permissions())?;
        }
        path.persist(target).map_err(|failed| failed.error)
    }
}

/// A folder of what is not yet whole. It is removed with what is still in it when it is dropped, or the command is interrupted.
pub struct PartialFolder {
    folder: TempDir,
    /// Held until it is dropped.
    _lock: Option<File>,
    _removal: interrupt::Removal,
}

impl PartialFolder {
    /// Begins a folder in `folder`.
    ///
    /// # Errors
    /// If that cannot be written to.
    pub fn new(folder: &Path) -> io::Result<Self> {
        sweep(folder);
        loop {
            let folder = builder(0o777).tempdir_in(folder)?;
            let removal = interrupt::Removal::of(folder.path());
            // Not every system opens folders.
            let opened = File::open(folder.path()).ok();
            if opened.as_ref().is_none_or(|opened| lock(opened, folder.path())) {
                return Ok(Self { folder, _lock: opened, _removal: removal });
            }
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

fn builder(mode: u32) -> Builder<'static, 'static> {
    let mut builder = Builder::new();
    builder.prefix(NAME[0]).suffix(NAME[1]);
    // What the umask leaves of this, as for any other file. Without it nobody else could read what was written.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(mode));
    builder
}

/// Locks what was begun at `path`; false if another run has removed it before.
fn lock(opened: &File, path: &Path) -> bool {
    // Some file systems know no locks; nothing is swept there.
    opened.lock().is_err() || path.exists()
}

/// Removes what killed runs have left in `folder`, once in the life of this process.
fn sweep(folder: &Path) {
    static SWEPT: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());
    let mut swept = SWEPT.lock().unwrap_or_else(PoisonError::into_inner);
    if swept.iter().any(|known| known == folder) {
        return;
    }
    swept.push(folder.to_owned());
    remove_left(folder);
}

/// Removes what lies in `folder` under a hidden name and nobody is writing.
fn remove_left(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let is_ours = name.to_str().is_some_and(|name| name.starts_with(NAME[0]) && name.ends_with(NAME[1]));
        // Of a link or a pipe nothing is known, and opening it may not end.
        let Some(kind) = entry.file_type().ok().filter(|kind| is_ours && (kind.is_file() || kind.is_dir())) else {
            continue;
        };
        if let Ok(opened) = File::open(entry.path())
            && opened.try_lock().is_ok()
        {
            // What cannot be removed is in nobody's way.
            let _ = if kind.is_dir() { fs::remove_dir_all(entry.path()) } else { fs::remove_file(entry.path()) };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn what_a_killed_run_has_left_is_removed_and_what_another_writes_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let other = PartialFile::new(folder.path()).unwrap();
        let others = PartialFolder::new(folder.path()).unwrap();
        let left = [".undiffuse-abcdef.part", ".undiffuse-ghijkl.part", ".another-abcdef.part"];
        fs::write(folder.path().join(left[0]), "half").unwrap();
        fs::create_dir_all(folder.path().join(left[1]).join("unet")).unwrap();
        fs::write(folder.path().join(left[2]), "not ours").unwrap();
        remove_left(folder.path());
        let found = names(folder.path());
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(other.path.exists() && others.path().exists() && folder.path().join(left[2]).exists());
    }

    #[cfg(unix)]
    #[test]
    fn what_takes_the_place_of_a_file_may_be_read_by_whom_that_could() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("private.png");
        fs::write(&target, "before").unwrap();
        fs::set_permissions(&target, fs::Permissions::from_mode(0o600)).unwrap();
        PartialFile::new(folder.path()).unwrap().finish(&target).unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"");
        assert_eq!(fs::metadata(&target).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_file_takes_its_place_or_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("x");
        drop(PartialFile::new(folder.path()).unwrap());
        assert!(names(folder.path()).is_empty());
        let partial = PartialFile::new(folder.path()).unwrap();
        partial.file().write_all(b"whole").unwrap();
        partial.finish(&target).unwrap();
        assert_eq!(names(folder.path()), ["x"]);
        assert_eq!(fs::read(&target).unwrap(), b"whole");
        let partial = PartialFolder::new(folder.path()).unwrap();
        fs::write(partial.path().join("y"), "").unwrap();
        drop(partial);
        assert_eq!(names(folder.path()), ["x"]);
    }
}
