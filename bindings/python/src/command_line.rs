//! The command line that the package brings along.

use std::ffi::OsString;
use std::io::{self, Write};

use pyo3::prelude::*;

/// Runs a command, the program's name first, and returns its exit status.
#[pyfunction]
pub fn command_line(py: Python<'_>, words: Vec<OsString>) -> u8 {
    py.detach(|| {
        let status = glowflow_cli::run(words).number();
        // A program of Rust does so at its end, and this one is of Python.
        let _ = io::stdout().flush();
        status
    })
}
