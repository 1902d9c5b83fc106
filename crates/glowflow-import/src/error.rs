//! Errors of this crate.

use std::path::PathBuf;

use crate::settings::Setting;

/// The reason why a checkpoint could not be imported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system failed to read the file.
    #[error("{path}: {reason}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        #[source]
        reason: std::io::Error,
    },

    /// The file is damaged, or its format is not supported.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// The problem with it.
        reason: String,
    },

    /// The file does not record settings of the model.
    #[error("the file does not record {}", Setting::list(.0))]
    Missing(Vec<Setting>),

    /// The tensors are not those of a model of the program, or glowflow has no equivalent model.
    #[error("{0}")]
    Model(String),

    /// The model cannot be built.
    #[error(transparent)]
    Glowflow(#[from] glowflow::Error),
}

impl Error {
    pub(crate) fn model(reason: impl Into<String>) -> Self {
        Self::Model(reason.into())
    }
}
