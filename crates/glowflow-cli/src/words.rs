//! The words of the command line, for messages that repeat them: those passed to [`run`](crate::run), which
//! differ from the process's own if it only calls that function.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::OnceLock;

static WORDS: OnceLock<Vec<OsString>> = OnceLock::new();

/// Sets the words, once per process.
pub fn set(words: Vec<OsString>) {
    let _ = WORDS.set(words);
}

/// The path of the program as invoked: the shell may not find it by name.
pub fn program() -> PathBuf {
    words().first().map_or_else(|| "glowflow".into(), PathBuf::from)
}

/// The words after the program.
pub fn arguments() -> impl Iterator<Item = PathBuf> {
    words().iter().skip(1).map(PathBuf::from)
}

fn words() -> &'static [OsString] {
    match WORDS.get() {
        Some(words) => words,
        None => &[],
    }
}
