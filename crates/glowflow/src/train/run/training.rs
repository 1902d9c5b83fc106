//! The training loop of a run: batches, steps, and recurring work.

use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use glowflow_kernels::{Operations, catch_out_of_memory};

use super::job::{Control, Failure, Job, Request};
use super::steps::{batches, compare_weights};
use super::{Best, Options, Summary, card};
use crate::card::Card;
use crate::evaluate::Evaluation;
use crate::model::MODEL;
use crate::train::RunConfig;
use crate::train::config::CONFIG;
use crate::train::images::Images;
use crate::train::observer::{Began, Event, Opened, StepDone};
use crate::train::observers::List;
use crate::train::pace::Pace;
use crate::train::picture_clock::PictureClock;
use crate::train::recorded::last_recorded;
use crate::train::state::Progress;
use crate::train::trainer::Trainer;
use crate::{Error, data};

/// A checkpoint on disk.
#[derive(Clone, Copy)]
pub(super) struct Saved {
    pub(super) step: u64,
    pub(super) updates: u64,
}

impl Saved {
    pub(super) fn of(progress: &Progress) -> Self {
        Self { step: progress.step, updates: progress.updates }
    }
}

pub(super) struct Run<'a, D: Operations<Real = f32>> {
    pub(super) trainer: Trainer<D>,
    pub(super) images: Images,
    pub(super) out: &'a Path,
    pub(super) stop: &'a AtomicBool,
    pub(super) observers: List<'a>,
    pub(super) pictures: PictureClock,
    pub(super) last_step: Option<u64>,
    /// The time after which training ends.
    pub(super) time: Option<Duration>,
    /// Notices for the user: the way ranks sum, and the changes of a resumed run.
    pub(super) notices: Vec<String>,
    pub(super) evaluated_at: Option<u64>,
    /// The last checkpoint.
    pub(super) saved: Option<Saved>,
    /// True if a checkpoint became due while steps were being skipped.
    pub(super) save_due: bool,
    /// True if the configuration differs from `config.toml`.
    pub(super) changed: bool,
    /// The last step with an evaluation in `metrics.jsonl` when the run begins.
    pub(super) recorded_at: Option<u64>,
    pub(super) evaluation: Option<Evaluation>,
    /// The step of that evaluation.
    pub(super) evaluated_step: Option<u64>,
    /// True while a record of training is being written.
    pub(super) recording: bool,
    pub(super) broken: HashSet<String>,
    /// Begin of training.
    pub(super) started: Instant,
    /// Messages to the other ranks.
    pub(super) control: Control,
}

impl<'a, D: Operations<Real = f32>> Run<'a, D> {
    pub(super) fn new(
        mut trainer: Trainer<D>,
        images: Images,
        out: &'a Path,
        options: Options<'a>,
        job: &Job,
    ) -> Result<Self, Error> {
        let Options { limits, observers, stop, .. } = options;
        let time = limits.time()?;
        let last_step = limits.last_step(trainer.config());
        let unscheduled = unscheduled(trainer.config(), last_step);
        let step = trainer.progress().step;
        let mut observers = List::new(observers);
        observers.send(&Event::Opened(Opened { folder: out, step, last_step, time }))?;
        // If the log cannot be read, the evaluation of this step is repeated.
        let recorded = last_recorded(out, step).unwrap_or_default();
        let best = trainer.progress().best;
        if let Some((at, Some(bits))) = recorded
            && at == step
            && best.is_none_or(|(best, _)| bits < best)
        {
            // Killed between this evaluation, which wrote the best model, and the next checkpoint.
            trainer.progress_mut().best = Some((bits, step));
        }
        Ok(Self {
            observers,
            pictures: PictureClock::new(trainer.config().train.samples_minutes),
            notices: trainer.sums().map(str::to_owned).into_iter().chain(unscheduled).collect(),
            trainer,
            images,
            out,
            stop,
            last_step,
            time,
            evaluated_at: None,
            saved: None,
            save_due: false,
            changed: false,
            recorded_at: recorded.map(|(step, _)| step),
            evaluation: None,
            evaluated_step: None,
            recording: false,
            broken: HashSet::new(),
            started: Instant::now(),
            control: Control::new(job.clone()),
        })
    }

    /// Reports the changes, and writes them with the next checkpoint.
    pub(super) fn with_changes(mut self, notices: Vec<String>) -> Self {
        let written = RunConfig::read(&self.out.join(CONFIG));
        self.changed = written.map_or(true, |written| written != *self.trainer.config());
        self.notices.extend(notices);
        self.notices.extend(self.other_device());
        self
    }

    /// A notice if the device differs from that of the last model, according to its card.
    fn other_device(&self) -> Option<String> {
        let before = Card::read(self.out)?.training.device;
        let now = self.trainer.device().name();
        let differ = !before.is_empty() && without_threads(&before) != without_threads(&now);
        differ.then(|| {
            format!(
                "until now, this run was trained on {before}, and it continues on {now}: numbers may be rounded \
                 differently"
            )
        })
    }

    pub(super) fn run(mut self) -> Result<Summary, Error> {
        let began_at = self.trainer.progress().step;
        let trained = catch_out_of_memory(|| self.train()).map_err(Error::from).flatten();
        let trained = match trained {
            Ok(_) | Err(Error::Stopped) => self.control.dismiss().and(trained),
            Err(Error::Device(error)) => {
                // Other ranks may be in the middle of a step.
                self.control.end();
                Err(Error::Device(error))
            }
            trained => trained,
        };
        let done = match trained {
            Ok(interrupted) => self.summary(interrupted),
            Err(error) => Err(self.failed(error, began_at)),
        };
        let sent = self.observers.send(&Event::Ended(done.as_ref()));
        done.and_then(|summary| sent.map(|()| summary))
    }

    fn summary(&mut self, interrupted: bool) -> Result<Summary, Error> {
        self.report_broken()?;
        let progress = self.trainer.progress().clone();
        if self.saved.is_none_or(|saved| saved.step != progress.step) {
            let last = self.last_checkpoint();
            self.observers.notice(&format!(
                "the last {} steps were skipped, so step {} is not saved; {last}",
                progress.skipped_in_a_row, progress.step
            ))?;
        }
        Ok(Summary {
            steps: progress.step,
            saved_step: self.saved.map(|saved| saved.step),
            interrupted,
            evaluation: self.evaluation.clone(),
            best: progress.best.map(|(bits_per_dim, step)| Best { step, bits_per_dim }),
            skipped: progress.skipped,
            broken: self.broken.len(),
            trained_for: self.started.elapsed(),
        })
    }

    /// [`Error::Stopped`] if a stop was requested.
    pub(super) fn check_stop(&self) -> Result<(), Error> {
        if self.stop.load(Ordering::Relaxed) { Err(Error::Stopped) } else { Ok(()) }
    }

    /// Agrees with the other ranks on the next step; returns false if training ends here.
    ///
    /// # Errors
    /// [`Error::Stopped`] if a stop was requested on any rank, unless training `ends` here; [`Error::Ranks`]
    /// if a rank is missing, and the failure of another rank.
    fn agree(&mut self, ends: bool) -> Result<bool, Error> {
        let request = match self.check_stop() {
            _ if ends => Request::End,
            Ok(()) => Request::Step,
            Err(_) => Request::Stop,
        };
        match self.control.agree(request, self.trainer.progress().step)? {
            Request::Stop => Err(Error::Stopped),
            agreed => Ok(agreed == Request::Step),
        }
    }

    /// Ends the other ranks with this error, between two steps, and returns it.
    fn fail(&mut self, error: Error) -> Error {
        let step = self.trainer.progress().step;
        // The first error is reported.
        let _ = self.control.agree(Request::Fail(Failure::of(&error)), step);
        error
    }

    /// Trains to the end, with an evaluation and a checkpoint there; returns whether it was stopped earlier.
    pub(super) fn train(&mut self) -> Result<bool, Error> {
        self.begin()?;
        let interrupted = match self.train_until_stopped() {
            // Before the first checkpoint there is nothing to preserve.
            Err(Error::Stopped) if self.saved.is_some() => true,
            done => {
                done?;
                false
            }
        };
        self.save()?;
        card::write(self, MODEL)?;
        if interrupted && !self.pictures.are_of(self.trainer.progress().step) {
            self.draw_last()?;
        }
        Ok(interrupted)
    }

    /// Reports the run to its observers.
    fn begin(&mut self) -> Result<(), Error> {
        self.notices.iter().try_for_each(|notice| self.observers.notice(notice))?;
        let began = Began {
            config: self.trainer.config(),
            step: self.trainer.progress().step,
            parameters: self.trainer.layout().len(),
            images: self.images.train.len(),
            test_images: self.images.test.as_ref().map_or(0, |test| test.len()),
            device: &self.trainer.device().name(),
            notices: &self.images.notices,
        };
        self.observers.send(&Event::Began(began))?;
        self.compare_images()
    }

    /// Reports images that differ from those of the last checkpoint.
    fn compare_images(&mut self) -> Result<(), Error> {
        let now = self.images.fingerprint;
        let progress = self.trainer.progress_mut();
        let names = progress.images.replace(now.names);
        // Older versions only recorded the names.
        let contents = progress.contents.replace(now.contents);
        let what = match (names, contents) {
            (Some(names), _) if names != now.names => "different names or order",
            (_, Some(contents)) if contents != now.contents => "same names, different contents",
            _ => return Ok(()),
        };
        self.observers.notice(&format!(
            "The images have changed since the last checkpoint ({what}). Training continues, but its results will \
             differ, and test images may have been trained on."
        ))
    }

    /// Trains to the end, with an evaluation there.
    pub(super) fn train_until_stopped(&mut self) -> Result<(), Error> {
        let config = self.trainer.config().clone();
        self.started = Instant::now();
        let mut saved = Instant::now();
        let mut pace = Pace::default();
        let step = self.trainer.progress().step;
        if step > 0 && self.last_step.is_some_and(|last| step >= last) {
            let limit = match config.train.steps {
                Some(steps) if self.last_step == Some(steps) => format!(", and train.steps is {steps}"),
                _ => String::new(),
            };
            self.observers
                .notice(&format!("the run is at step {step} already{limit}: no step is left to train"))?;
        }
        if step > 0
            && step.is_multiple_of(config.train.eval_every)
            && self.images.test.is_some()
            && self.recorded_at != Some(step)
        {
            // It failed or was stopped, and the step was saved without it.
            self.evaluate()?;
        }
        let batches = batches(&self.trainer, &self.images)?;
        let mut resumed = Instant::now();
        for batch in batches {
            let step = self.trainer.progress().step;
            let ends = self.last_step.is_some_and(|last| step >= last)
                || self.time.is_some_and(|time| self.started.elapsed() >= time)
                || self.observers.end_training();
            let batch = match batch {
                Err(error) if !ends && self.check_stop().is_ok() => return Err(self.fail(error.into())),
                batch => batch,
            };
            if !self.agree(ends)? {
                break;
            }
            let batch = batch?;
            let labels = data::labels(&config.model, &batch);
            if step == 0 {
                self.trainer.initialize(&batch.pixels, labels)?;
                self.save()?;
                self.agree(false)?;
                resumed = Instant::now();
            }
            let learning_rate = self.trainer.learning_rate();
            let report = self.trainer.step(&batch.pixels, labels).inspect_err(|_| self.control.end())?;
            let step = self.trainer.progress().step;
            let seconds = resumed.elapsed().as_secs_f64();
            let rate = pace.count(config.train.batch, seconds);
            let done = StepDone {
                step,
                bits_per_dim: report.bits_per_dim,
                gradient_norm: report.gradient_norm,
                learning_rate,
                applied: report.applied,
                images: config.train.batch,
                seconds,
                images_per_second: rate,
            };
            let sent = self.observers.send(&Event::Step(done));
            // An error ends the run with a checkpoint of this step, which requires its record.
            if step.is_multiple_of(config.train.log_every) {
                self.record(learning_rate, rate)?;
            }
            sent?;
            compare_weights(&self.trainer).inspect_err(|_| self.control.end())?;
            if step.is_multiple_of(config.train.eval_every) {
                self.evaluate()?;
            } else if self.pictures.are_due(&config.model, rate) {
                self.draw(true)?;
            }
            let due = saved.elapsed().as_secs_f64() >= 60.0 * config.train.checkpoint_minutes;
            if due || self.save_due || step.is_multiple_of(config.train.checkpoint_every) {
                self.save()?;
                saved = Instant::now();
            }
            resumed = Instant::now();
        }
        self.report_waiting(self.trainer.progress().step - step)?;
        if self.evaluated_at != Some(self.trainer.progress().step) {
            self.evaluate()?;
        }
        Ok(())
    }

    /// Reports the mean time that steps waited for other ranks.
    fn report_waiting(&mut self, steps: u64) -> Result<(), Error> {
        let waited = 1e3 * self.trainer.waited().as_secs_f64();
        if steps == 0 || waited == 0.0 {
            return Ok(());
        }
        self.observers.notice(&format!("each step waited {:.0} ms for other ranks", waited / steps as f64))
    }
}

/// The name of a device without the number of its threads, which does not affect results.
fn without_threads(name: &str) -> &str {
    name.rsplit_once(", ").filter(|(_, end)| end.ends_with("threads)")).map_or(name, |(device, _)| device)
}

/// A notice if steps follow the end of the schedule.
fn unscheduled(config: &RunConfig, last_step: Option<u64>) -> Option<String> {
    let (schedule, end) = (config.train.schedule.with_end()?, config.train.steps?);
    (last_step? > end).then(|| {
        format!(
            "the {schedule} schedule ends at step {end} (train.steps): the learning rate is 0 afterwards, and the \
             weights stay the same. A larger train.steps extends the schedule"
        )
    })
}
