//! Diagnosis of failed training steps.

use glowflow_kernels::Operations;

use super::trainer::{MAX_CONSECUTIVE_SKIPS, Trainer};
use crate::Error;
use crate::models::Architecture;

impl<D: Operations, A: Architecture> Trainer<D, A> {
    /// Returns the error that ends training: it names the place in the flow at which values become
    /// non-finite.
    pub(super) fn diagnose(&self, pixels: &[u8], labels: &[usize]) -> Error {
        // Those of one part, as in training.
        let dimensions = self.config.model.dimensions();
        let part = self.config.train.batch.div_ceil(self.config.train.accumulate);
        let part = part.min(pixels.len() / dimensions);
        let state = self.enter(&pixels[..part * dimensions], labels.get(..part).unwrap_or_default());
        let seen = match self.flow.trace(&self.context(), state) {
            Ok(trace) => {
                match trace.iter().find(|range| !(range.low.is_finite() && range.high.is_finite())) {
                    Some(range) => format!("values become non-finite in {range}"),
                    None => match trace.iter().max_by(|a, b| a.magnitude().total_cmp(&b.magnitude())) {
                        Some(range) => format!("the largest values are in {range}; the gradient overflows"),
                        None => String::new(),
                    },
                }
            }
            Err(error) => error.to_string(),
        };
        Error::Diverged(format!(
            "loss or gradient was not finite in {MAX_CONSECUTIVE_SKIPS} steps in a row, up to step {}: {seen}. A lower \
             train.lr, a longer train.warmup or train.clip=100 may help",
            self.progress.step + 1
        ))
    }

    /// Returns the error of an update that produced non-finite values.
    pub(super) fn overflow(&self) -> Error {
        Error::Diverged(format!(
            "step {} would have made weights or the optimiser's moments infinite, at a learning rate of {:e}. A lower train.lr \
             or a larger train.epsilon, which is {:e}, may help",
            self.progress.step + 1,
            self.learning_rate(),
            self.config.train.epsilon
        ))
    }
}
