//! Optimisers and schedules of the learning rate.

use serde::{Deserialize, Serialize};

/// The optimiser's rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Optimizer {
    /// Adamax, as the published runs.
    Adamax,
    /// Adam.
    Adam,
}

/// What becomes of the learning rate after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// It stays.
    Constant,
    /// It falls to 0 along half a cosine until `steps`.
    Cosine,
    /// It falls to 0 along a line until `steps`.
    Linear,
}

impl Schedule {
    /// The name of a schedule that needs to know the last step.
    pub(super) fn with_end(self) -> Option<&'static str> {
        match self {
            Self::Constant => None,
            Self::Cosine => Some("cosine"),
            Self::Linear => Some("linear"),
        }
    }
}
