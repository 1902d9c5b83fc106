//! What can go wrong while reporting.

use std::path::{Path, PathBuf};

/// Why a report could not be written or read back; each names the file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be written.
    #[error("cannot write {path}: {reason}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: std::io::Error,
    },
    /// A file could not be read.
    #[error("cannot read {path}: {reason}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: std::io::Error,
    },
    /// Something to be logged, or a line of a log, is no JSON object with a whole number `"step"`.
    #[error("{path}: {place} is not a record: {reason}")]
    Record {
        /// The log.
        path: PathBuf,
        /// Which record: a line of the file, or the one to be appended.
        place: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A picture could not be drawn or encoded.
    #[error("cannot draw {path}: {reason}")]
    Draw {
        /// The file it was meant for.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl Error {
    /// For `map_err` after an operation that writes to `path`.
    pub(crate) fn write(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
        move |reason| Error::Write { path: path.to_path_buf(), reason }
    }

    /// For `map_err` after an operation that reads from `path`.
    pub(crate) fn read(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
        move |reason| Error::Read { path: path.to_path_buf(), reason }
    }
}
