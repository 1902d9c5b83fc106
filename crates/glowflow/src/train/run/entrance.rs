//! The way of rank 0 into a job and out of it: when the other ranks begin and end.

use std::sync::Arc;

use glowflow_kernels::Operations;

use super::job::Job;
use super::{Summary, start};
use crate::Error;
use crate::train::images::Images;
use crate::train::trainer::Trainer;

/// The way of rank 0 into a job.
pub(super) struct Entrance<'a> {
    job: &'a Job,
}

impl<'a> Entrance<'a> {
    /// Before the other ranks begin.
    pub fn new(job: &'a Job) -> Self {
        Self { job }
    }

    /// The job.
    pub fn job(&self) -> &'a Job {
        self.job
    }

    /// Lets the other ranks begin with the trainer's state.
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
        // The others open their images.
        self.job.wait_long();
        self.job.begin();
        start::send(self.job, trainer.config(), &state)?;
        self.job.all_done(Ok(()))?;
        start::compare(self.job, trainer.device(), images.fingerprint)?;
        self.job.wait_as_usual();
        trainer.connect_devices(self.job.limit())?;
        Ok(trainer)
    }

    /// Ends the job with the run, unless it failed while the others were in it.
    pub fn leave(&self, done: Result<Summary, Error>) -> Result<Summary, Error> {
        if !self.job.has_begun() {
            self.job.refuse()?;
        } else if matches!(done, Ok(_) | Err(Error::Stopped)) {
            self.job.ranks().finish()?;
        }
        done
    }
}
