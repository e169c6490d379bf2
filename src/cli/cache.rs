//! The user's cache folder, where what can be found out again is kept.

use std::env;
use std::path::PathBuf;

/// This command's folder in it, which need not exist.
pub fn folder() -> Option<PathBuf> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = set("XDG_CACHE_HOME").or_else(|| set("LOCALAPPDATA")).or_else(|| Some(set("HOME")?.join(".cache")))?;
    Some(cache.join("undiffuse"))
}
