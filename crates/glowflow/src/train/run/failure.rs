//! Ends a run that cannot continue.

use glowflow_kernels::Operations;

use super::training::{Run, Saved};
use crate::Error;
use crate::train::checkpoint::{self, PREVIOUS};

impl<D: Operations<Real = f32>> Run<'_, D> {
    /// Saves the training up to an error, such as an unreadable test image, and returns the error. A run can
    /// only be resumed from a complete step with its records, and from a sound state.
    pub(super) fn failed(&mut self, error: Error, began_at: u64) -> Error {
        match error {
            Error::Diverged(reason) => return self.diverged(reason),
            Error::Stopped => return error,
            _ => {}
        }
        let step = self.trainer.progress().step;
        let whole = !self.recording && step > began_at && self.saved.is_none_or(|saved| saved.step != step);
        // If this fails too, the first error is reported.
        let saved = if whole { self.save() } else { Ok(()) };
        if step > began_at {
            let failure =
                saved.err().map_or(String::new(), |error| format!("; step {step} is not saved: {error}"));
            let last = self.last_checkpoint();
            // The run fails with the first error.
            let _ = self.observers.notice(&format!("{last}{failure}"));
        }
        error
    }

    pub(super) fn last_checkpoint(&self) -> String {
        match self.saved {
            Some(Saved { step, .. }) => format!("the last checkpoint is of step {step}"),
            None => "there is no checkpoint".into(),
        }
    }

    /// Returns the error of a diverged run, with the checkpoint to resume from.
    pub(super) fn diverged(&self, reason: String) -> Error {
        let Some(saved) = self.saved else { return Error::Diverged(reason) };
        let progress = self.trainer.progress();
        // A checkpoint made after the update that corrupted the weights, but before they were used, fails in
        // the same way.
        let spoiled = progress.skipped_in_a_row > 0 && progress.updates == saved.updates && saved.updates > 0;
        if !spoiled {
            return Error::RunDiverged { reason, step: saved.step, resume: self.out.to_owned() };
        }
        let previous = self.out.join(PREVIOUS);
        match checkpoint::load(&previous) {
            Ok((_, state)) if state.progress.updates < saved.updates => {
                Error::RunDiverged { reason, step: state.progress.step, resume: previous }
            }
            _ => Error::Diverged(format!(
                "{reason}. The last checkpoint, of step {}, has the same weights",
                saved.step
            )),
        }
    }
}
