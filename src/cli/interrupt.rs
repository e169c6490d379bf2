//! What an interrupted command leaves behind: nothing.
//!
//! As the first process of a container, a command that listens to no signal is not even ended by one.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// What is to be removed if the command ends here.
static UNFINISHED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// As long as this lives, an interruption removes a file or folder.
pub struct Removal(PathBuf);

impl Removal {
    /// Of what lies at `path`.
    pub fn of(path: &Path) -> Self {
        UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner).push(path.to_owned());
        Self(path.to_owned())
    }
}

impl Drop for Removal {
    fn drop(&mut self) {
        UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner).retain(|path| *path != self.0);
    }
}

/// Removes what is unfinished, for good: whoever would begin or finish something from now on waits for the end of the process, and so
/// does not report that its files are gone.
#[cfg(unix)]
fn remove_all() {
    let unfinished = std::mem::ManuallyDrop::new(UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner));
    for path in unfinished.iter() {
        // A file may come into the folder while it is emptied; once it is gone, none can.
        for _ in 0..10 {
            let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
            if removed.is_ok() || !path.exists() {
                break;
            }
        }
    }
}

/// Sees to it that SIGINT, SIGTERM and SIGHUP end this process, and leave nothing unfinished, unless whoever started it has them ignored.
#[cfg(unix)]
pub fn listen() {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    use signal_hook::low_level::emulate_default_handler;

    let heard = [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|&signal| !is_ignored(signal));
    // Without it an interruption leaves what the next run removes.
    let Ok(mut signals) = signal_hook::iterator::Signals::new(heard) else { return };
    std::thread::spawn(move || {
        let Some(signal) = signals.forever().next() else { return };
        remove_all();
        // To end by the signal itself tells a shell to end its loop, too. The first process of a container cannot.
        if std::process::id() != 1 {
            let _ = emulate_default_handler(signal);
        }
        std::process::exit(128 + signal);
    });
}

/// Whether the signal was ignored when this process began, as `nohup` has SIGHUP.
#[cfg(unix)]
fn is_ignored(signal: i32) -> bool {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: a null pointer in place of a new action changes nothing, and the old one is written to memory of its type, in which all
    // zeros is a value too.
    unsafe {
        libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) == 0
            && action.assume_init().sa_sigaction == libc::SIG_IGN
    }
}

/// Elsewhere an interruption leaves what the next run removes.
#[cfg(not(unix))]
pub fn listen() {}
