//! What can go wrong in the library.

use std::path::PathBuf;

/// An error, with the value that caused it and the way out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A configuration that describes no model or no run.
    #[error("{0}")]
    Config(String),

    /// A call whose arguments do not fit the model.
    #[error("{0}")]
    Input(String),

    /// A model, checkpoint or latents file that is damaged or something else.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },

    /// The operating system refused to read or write.
    #[error("{path}: {reason}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        reason: std::io::Error,
    },

    /// An observer of a run failed.
    #[error(transparent)]
    Observer(Box<dyn std::error::Error + Send + Sync>),

    /// Training met nothing but gradients that are not finite.
    #[error("{0}")]
    Diverged(String),

    /// A run diverged: it is worth trying again from a checkpoint with other rates.
    #[error("{reason}. The last sound checkpoint is of step {step}: {resume}")]
    RunDiverged {
        /// What was not finite, and what may help.
        reason: String,
        /// The step of the last checkpoint whose weights are not those that failed.
        step: u64,
        /// What to resume: the run's folder, or that checkpoint in it.
        resume: PathBuf,
    },

    /// Work was given up on request.
    #[error("stopped before its end")]
    Stopped,

    /// The device failed.
    #[error(transparent)]
    Device(#[from] glowflow_kernels::DeviceError),

    /// The ranks of a job are not alike, or one is missing.
    #[error(transparent)]
    Ranks(#[from] glowflow_ranks::RanksError),

    /// The data could not be read.
    #[error(transparent)]
    Data(#[from] glowflow_data::Error),

    /// A picture or log could not be written.
    #[error(transparent)]
    Report(#[from] glowflow_report::Error),
}

impl Error {
    /// An error about a file, from the system's reason.
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |reason| Self::Io { path, reason }
    }

    /// An error about the contents of a file.
    pub(crate) fn file(path: impl Into<PathBuf>, reason: impl Into<String>) -> Self {
        Self::File { path: path.into(), reason: reason.into() }
    }
}
