//! The other ranks of a run: they perform steps on their own images of each batch, without a folder or
//! reports.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use glowflow_data::TrainingBatches;
use glowflow_kernels::{DeviceError, Operations, catch_out_of_memory};

use super::job::{Control, Failure, Job, Request};
use super::start;
use super::steps::{batches, compare_weights};
use crate::device::on_device;
use crate::train::images::Images;
use crate::train::trainer::Trainer;
use crate::train::{RunConfig, TrainState};
use crate::{AnyDevice, Error, data};

/// Takes part in a run that rank 0 begins or resumes, until its end. `device` opens the device for the run's
/// configuration; `stop` requests an end, like [`Options::stop`](super::Options::stop).
///
/// # Errors
/// [`Error::Stopped`] if rank 0 ended before the first step, which it reports itself; [`Error::Ranks`] if the
/// ranks differ, or one is missing; errors of this rank's device and images.
pub fn follow<A: Into<AnyDevice>>(
    job: &Job,
    device: impl FnOnce(&RunConfig) -> Result<A, DeviceError>,
    stop: &AtomicBool,
) -> Result<(), Error> {
    job.wait_long();
    let done = start::receive(job).and_then(|(config, state)| {
        let device = device(&config).map_err(Error::from);
        let opened: Result<(AnyDevice, Images), Error> =
            device.and_then(|device| Ok((device.into(), Images::open(&config)?)));
        let (device, images) = job.all_done(opened)?;
        on_device!(device, device => {
            start::compare(job, &device, images.fingerprint)?;
            job.wait_as_usual();
            catch_out_of_memory(|| take_steps(job, device, config, state, images, stop))
                .map_err(Error::from)
                .flatten()
        })
    });
    if matches!(done, Ok(()) | Err(Error::Stopped)) {
        // Rank 0 evaluates and saves before it joins.
        job.wait_long();
        job.ranks().finish()?;
    }
    done
}

fn take_steps<D: Operations<Real = f32>>(
    job: &Job,
    device: D,
    config: RunConfig,
    state: TrainState,
    images: Images,
    stop: &AtomicBool,
) -> Result<(), Error> {
    let mut trainer = Trainer::resume(device, config, state).with_ranks(Arc::clone(job.ranks()))?;
    trainer.connect_devices(job.limit())?;
    let mut control = Control::new(job.clone());
    let request = || if stop.load(Ordering::Relaxed) { Request::Stop } else { Request::Step };
    let mut batches: TrainingBatches = batches(&trainer, &images)?;
    let mut reported = HashSet::new();
    loop {
        let step = trainer.progress().step;
        let Some(batch) = batches.next() else { return Ok(()) };
        let broken = images.broken().filter(|image| reported.insert(image.name.clone()));
        broken.for_each(|image| control.report(image));
        let batch = batch.map_err(Error::from);
        let wanted = batch.as_ref().err().map_or_else(request, |error| Request::Fail(Failure::of(error)));
        let agreed = control.agree(wanted, step);
        let batch = batch?;
        if agreed? != Request::Step {
            return Ok(());
        }
        let labels = data::labels(&trainer.config().model, &batch).to_vec();
        if step == 0 {
            job.wait_for_whole_batch();
            trainer.initialize(&batch.pixels, &labels)?;
            if control.agree(request(), step)? != Request::Step {
                return Ok(());
            }
        }
        trainer.step(&batch.pixels, &labels)?;
        compare_weights(&trainer)?;
    }
}
