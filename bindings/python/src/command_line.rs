//! The command line that the package includes.

use std::ffi::OsString;
use std::io::{self, Write};

use pyo3::prelude::*;

/// Runs a command, given with the program's name first, and returns its exit status.
#[pyfunction]
pub fn command_line(py: Python<'_>, words: Vec<OsString>) -> u8 {
    py.detach(|| {
        let status = glowflow_cli::run(words).number();
        // A Rust program flushes at its end, but this process is Python's.
        let _ = io::stdout().flush();
        status
    })
}
