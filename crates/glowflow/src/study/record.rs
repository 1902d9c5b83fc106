//! Training time and state of a run of a study, stored in the run's folder.
//!
//! The record is written after each checkpoint, so after a kill it covers exactly the training that was
//! saved.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Study, scores};
use crate::tensor_file::write_atomically;
use crate::{Error, text_file};

/// File name of the record in a run's folder.
const RECORD: &str = "study.json";

/// State of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Not finished.
    #[default]
    Unfinished,
    /// Trained for its whole budget.
    Finished,
    /// Ended early because loss or gradient were not finite, or ended with such steps or scores.
    Diverged,
}

/// The record of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    pub state: State,
    /// Number of images trained on in `seconds`.
    pub images: u64,
    /// Seconds spent in training steps.
    pub seconds: f64,
    /// Peak memory of training, in bytes, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory: Option<u64>,
    /// Scores for a comparison.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<scores::Summary>,
}

impl Record {
    /// Reads the record in a run's folder; a new one if there is none.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::File`].
    pub fn read(run: &Path) -> Result<Self, Error> {
        let path = run.join(RECORD);
        if !path.exists() {
            return Ok(Self::default());
        }
        let damaged = |error| {
            let reason = format!(
                "{error}; without this file, the run continues and its time is measured from then on"
            );
            Error::file(&path, reason)
        };
        serde_json::from_str(&text_file::read(&path)?).map_err(damaged)
    }

    /// Writes the record into a run's folder.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write(&self, run: &Path) -> Result<(), Error> {
        let text = serde_json::to_string(self).map_err(|e| Error::file(run.join(RECORD), e.to_string()))?;
        write_atomically(&run.join(RECORD), format!("{text}\n").as_bytes())
    }

    /// Returns whether the run is not completely trained, or not scored for a comparison.
    pub fn is_due(&self, study: &Study) -> bool {
        match self.state {
            State::Unfinished => true,
            State::Finished => study.baseline.is_some() && self.score.is_none(),
            State::Diverged => false,
        }
    }

    /// Images per second; `None` if nothing was measured.
    pub fn rate(&self) -> Option<f64> {
        (self.images > 0 && self.seconds > 0.0).then(|| self.images as f64 / self.seconds)
    }
}
