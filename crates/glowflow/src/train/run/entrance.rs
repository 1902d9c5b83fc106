//! Rank 0 entering and leaving a job: the other ranks begin and end with it.

use std::sync::Arc;

use glowflow_kernels::Operations;

use super::job::Job;
use super::{Summary, start};
use crate::Error;
use crate::train::images::Images;
use crate::train::trainer::Trainer;

/// Access of rank 0 to a job.
pub(super) struct Entrance<'a> {
    job: &'a Job,
}

impl<'a> Entrance<'a> {
    /// Creates the entrance; the other ranks have not begun.
    pub fn new(job: &'a Job) -> Self {
        Self { job }
    }

    /// The job.
    pub fn job(&self) -> &'a Job {
        self.job
    }

    /// Starts the other ranks with the trainer's state.
    pub fn enter<D: Operations<Real = f32>>(
        &self,
        trainer: Trainer<D>,
        images: &Images,
    ) -> Result<Trainer<D>, Error> {
        if !self.job.is_shared() {
            return Ok(trainer);
        }
        let mut trainer = trainer.with_ranks(Arc::clone(self.job.ranks()))?;
        let state = trainer.state()?;
        // The other ranks open their images.
        self.job.wait_long();
        self.job.begin();
        start::send(self.job, trainer.config(), &state)?;
        self.job.all_done(Ok(()))?;
        start::compare(self.job, trainer.device(), images.fingerprint)?;
        self.job.wait_as_usual();
        trainer.connect_devices(self.job.limit())?;
        Ok(trainer)
    }

    /// Ends the job with the run, unless the run failed while the other ranks took part in it.
    pub fn leave(&self, done: Result<Summary, Error>) -> Result<Summary, Error> {
        let left = if !self.job.has_begun() {
            self.job.refuse()
        } else if matches!(done, Ok(_) | Err(Error::Stopped)) {
            self.job.ranks().finish().map_err(Error::from)
        } else {
            Ok(())
        };
        match (done, left) {
            (Ok(_) | Err(Error::Stopped), Err(error)) => Err(error),
            // The run's own error is the cause of the others.
            (done, _) => done,
        }
    }
}
