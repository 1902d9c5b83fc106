//! Optimisers and learning rate schedules.

use serde::{Deserialize, Serialize};

/// Update rule of the optimiser.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Optimizer {
    /// Adamax, as in the published runs.
    Adamax,
    /// Adam.
    Adam,
}

/// Learning rate schedule after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// Constant.
    Constant,
    /// Cosine decay to 0 at `steps`.
    Cosine,
    /// Linear decay to 0 at `steps`.
    Linear,
}

impl Schedule {
    /// Name of the schedule if it depends on the last step.
    pub(crate) fn with_end(self) -> Option<&'static str> {
        match self {
            Self::Constant => None,
            Self::Cosine => Some("cosine"),
            Self::Linear => Some("linear"),
        }
    }
}
