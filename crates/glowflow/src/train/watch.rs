//! Following a run from outside: its steps, its checkpoints, and its lines for the user.

use std::ops::ControlFlow;

use crate::Error;

/// A completed training step.
#[derive(Clone, Copy, Debug)]
pub struct StepDone {
    /// Number of the step, from 1.
    pub step: u64,
    /// Bits/dim of its batch.
    pub bits_per_dim: f64,
    /// Seconds since the previous step ended, without evaluations, pictures and checkpoints.
    pub seconds: f64,
}

/// An observer of a run. The run displays nothing itself.
pub trait Watch {
    /// Called after each step. `Break` ends training after it, as a limit would.
    fn step(&self, step: &StepDone) -> ControlFlow<()>;

    /// Called when a checkpoint of `step` is on the disk.
    ///
    /// # Errors
    /// An error ends the run.
    fn saved(&self, step: u64) -> Result<(), Error>;

    /// Called with each line for the user.
    fn say(&self, line: &str);
}
