//! The command, run as its users run it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub fn emoji64() -> PathBuf {
    repository().join("www/models/emoji64")
}

pub fn network(name: &str) -> PathBuf {
    repository().join("tests/reference/models").join(name)
}

/// A command that has ended.
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

pub fn command(arguments: &[&dyn AsRef<std::ffi::OsStr>]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_undiffuse"));
    command.args(arguments.iter().map(|argument| argument.as_ref()));
    let given = |name: &str| arguments.iter().any(|argument| argument.as_ref() == name);
    if ["sample", "bound", "noise", "fid", "forward"].into_iter().any(given) && !given("--device") && !given("--help") {
        // What is tested here is the command. Devices are compared elsewhere.
        command.args(["--device", "cpu"]);
    }
    command
}

pub fn undiffuse(arguments: &[&dyn AsRef<std::ffi::OsStr>]) -> Ran {
    let output = command(arguments).output().expect("the command starts");
    Ran {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).expect("stdout is text"),
        stderr: String::from_utf8(output.stderr).expect("stderr is text"),
    }
}

/// Runs a command that must succeed; what it printed.
pub fn succeed(arguments: &[&dyn AsRef<std::ffi::OsStr>]) -> String {
    let ran = undiffuse(arguments);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    ran.stdout
}

/// Runs a command that must fail with `code`, print no result, and name each of `words` in its message.
pub fn refuse(code: i32, words: &[&str], arguments: &[&dyn AsRef<std::ffi::OsStr>]) {
    let Ran { code: found, stdout, stderr } = undiffuse(arguments);
    let call: Vec<_> = arguments.iter().map(|argument| argument.as_ref().to_string_lossy()).collect();
    let context = format!("undiffuse {}\n{stderr}", call.join(" "));
    assert_eq!(found, Some(code), "{context}");
    assert_eq!(stdout, "", "{context}");
    assert!(!stderr.contains("panicked"), "{context}");
    let errors: Vec<&str> = stderr.lines().filter(|line| line.starts_with("error: ")).collect();
    let [error] = errors[..] else { panic!("one line that begins with `error: `\n{context}") };
    // A command line that cannot be read is answered at more length: with the possible values, and where to find help.
    let message = if code == 2 { stderr.as_str() } else { error };
    assert!(code == 2 || stderr.ends_with(&format!("{error}\n")), "the error comes last\n{context}");
    for word in words {
        assert!(message.contains(word), "no {word:?}\n{context}");
    }
}

pub fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
