//! Errors of the library.

use std::path::PathBuf;

use glowflow_kernels::DeviceError;
use glowflow_ranks::RanksError;

/// An error, with the value that caused it and advice.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A configuration that describes no valid model or run.
    #[error("{0}")]
    Config(String),

    /// A call with arguments that do not match the model.
    #[error("{0}")]
    Input(String),

    /// A model, checkpoint or latents file that is damaged or of another kind.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// Description of the problem.
        reason: String,
    },

    /// The operating system could not read or write.
    #[error("{path}: {reason}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        #[source]
        reason: std::io::Error,
    },

    /// The folder of a new run already contains a run.
    #[error("{folder} already contains a run ({found}): choose another folder")]
    RunExists {
        /// The folder.
        folder: PathBuf,
        /// Name of a file of that run.
        found: &'static str,
        /// Path to resume that run from, if it has a checkpoint or a configuration.
        resume: Option<PathBuf>,
    },

    /// The last checkpoint of a run is missing or damaged, and the run can be resumed from the previous one.
    #[error("{path}: {reason}. The preceding checkpoint is {previous}")]
    LastCheckpoint {
        /// The last checkpoint.
        path: PathBuf,
        /// Description of the problem.
        reason: String,
        /// The previous checkpoint.
        previous: PathBuf,
    },

    /// The configuration of a run names no data.
    #[error("there is no data to train on: data.path is not set")]
    NoData,

    /// Data without a table of attributes.
    #[error("{path} has no table of attributes")]
    NoAttributes {
        /// The data.
        path: PathBuf,
    },

    /// A file of attribute directions does not exist, or belongs to another model.
    #[error("{path}: {reason}")]
    NoDirections {
        /// The file.
        path: PathBuf,
        /// Description of the problem.
        reason: &'static str,
    },

    /// An observer of a run, or another function that the caller passed, failed.
    #[error(transparent)]
    Observer(Box<dyn std::error::Error + Send + Sync>),

    /// Training encountered only non-finite gradients.
    #[error("{0}")]
    Diverged(String),

    /// A run diverged: retry from a checkpoint with other learning rates.
    #[error("{reason}. The last sound checkpoint is of step {step}: {resume}")]
    RunDiverged {
        /// Description of the non-finite value, and advice.
        reason: String,
        /// The step of the last checkpoint with weights other than those that failed.
        step: u64,
        /// Path to resume from: the run's folder, or that checkpoint in it.
        resume: PathBuf,
    },

    /// Work was cancelled on request.
    #[error("stopped on request")]
    Stopped,

    /// The device failed.
    #[error(transparent)]
    Device(#[from] DeviceError),

    /// The ranks of a job differ, or one is missing.
    #[error(transparent)]
    Ranks(#[from] RanksError),

    /// The data could not be read.
    #[error(transparent)]
    Data(#[from] glowflow_data::Error),

    /// An image or log could not be written.
    #[error(transparent)]
    Report(#[from] glowflow_report::Error),
}

impl Error {
    /// Creates an error about a file from the system's reason.
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |reason| Self::Io { path, reason }
    }

    /// Returns whether the same work may succeed later: a rank was missing, a device failed, or the system could
    /// not read images that may be intact.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Ranks(RanksError::Missing { .. } | RanksError::Engine(_))
                | Self::Data(glowflow_data::Error::System { .. })
                | Self::Device(DeviceError::Failed { .. })
        )
    }

    /// Creates an error about the contents of a file.
    pub(crate) fn file(path: impl Into<PathBuf>, reason: impl Into<String>) -> Self {
        Self::File { path: path.into(), reason: reason.into() }
    }
}
