//! The command line that the package brings along.

use std::ffi::OsString;

use pyo3::prelude::*;

/// Runs a command, the program's name first, and returns its exit status.
#[pyfunction]
pub fn command_line(py: Python<'_>, words: Vec<OsString>) -> u8 {
    py.detach(|| glowflow_cli::run(words).number())
}
