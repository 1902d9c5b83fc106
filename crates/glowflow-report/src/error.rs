//! Errors while reporting.

use std::path::{Path, PathBuf};

/// An error while writing a report or reading it back; each names the file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be written.
    #[error("cannot write {path}: {reason}")]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's error.
        #[source]
        reason: std::io::Error,
    },
    /// A file could not be read.
    #[error("cannot read {path}: {reason}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        #[source]
        reason: std::io::Error,
    },
    /// A record to be logged, or a line of a log, is not a JSON object with an integer `"step"`.
    #[error("{path}: {place} is not a record: {reason}")]
    Record {
        /// The log.
        path: PathBuf,
        /// The record: a line of the file, or the one to be appended.
        place: String,
        /// The problem with it.
        reason: String,
    },
    /// An image could not be drawn or encoded.
    #[error("cannot draw {path}: {reason}")]
    Draw {
        /// The destination file.
        path: PathBuf,
        /// The problem with it.
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
