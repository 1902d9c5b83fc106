//! Writes reports through [`glowflow_files`], with errors that name the file.

use std::path::{Path, PathBuf};

pub use glowflow_files::replace_for_good;

use crate::Error;

/// Replaces a file by an image or a table, as [`glowflow_files::replace`] does.
///
/// # Errors
/// [`Error::Write`]; the previous content of `path` is then intact.
pub fn replace(path: &Path, content: &[u8]) -> Result<(), Error> {
    glowflow_files::replace(path, content).map_err(Error::write(path))
}

/// Writes a new file in `folder` under the first free name of `stem.extension`, `stem-2.extension` and so on;
/// returns its path.
///
/// # Errors
/// [`Error::Write`].
pub fn write_new(folder: &Path, stem: &str, extension: &str, content: &[u8]) -> Result<PathBuf, Error> {
    let first = folder.join(format!("{stem}.{extension}"));
    glowflow_files::write_new(folder, stem, extension, content).map_err(Error::write(&first))
}

/// Checks that a file can be replaced, before there is work to lose.
///
/// # Errors
/// [`Error::Write`].
pub fn check_writable(path: &Path) -> Result<(), Error> {
    glowflow_files::check_writable(path).map_err(Error::write(path))
}
