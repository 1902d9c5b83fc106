//! The words of the command line, for messages that repeat them. They are those given to [`run`](crate::run): in a process that
//! only calls it, those of the process are others.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::OnceLock;

static WORDS: OnceLock<Vec<OsString>> = OnceLock::new();

/// Sets the words, once a process.
pub fn set(words: Vec<OsString>) {
    let _ = WORDS.set(words);
}

/// The program as it was called: it may not be where the shell would find it.
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
