//! The loop of a run: batches, steps, and when something is due.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use glowflow_data::{Augment, TrainingBatches, TrainingOptions};
use glowflow_kernels::{Primitives, catch_out_of_memory};
use glowflow_report::progress::Goal;

use super::{Best, Options, Summary};
use crate::evaluate::Evaluation;
use crate::train::RunConfig;
use crate::train::config::CONFIG;
use crate::train::images::Images;
use crate::train::journal::{Journal, last_recorded};
use crate::train::pace::{Pace, outlook};
use crate::train::pictures::Pictures;
use crate::train::state::Progress;
use crate::train::trainer::Trainer;
use crate::train::watch::StepDone;
use crate::{Error, data};

/// The meaning of a run's bits/dim.
const DEQUANTIZED: &str = "bits/dim are upper bounds, by uniform dequantisation (noise added to each pixel)";

/// A checkpoint on the disk.
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

pub(super) struct Run<'a, D: Primitives<Real = f32>> {
    pub(super) trainer: Trainer<D>,
    pub(super) images: Images,
    pub(super) out: &'a Path,
    pub(super) options: Options<'a>,
    pub(super) journal: Journal<'a>,
    pub(super) pictures: Pictures,
    pub(super) last_step: Option<u64>,
    pub(super) evaluated_at: Option<u64>,
    /// The last checkpoint.
    pub(super) saved: Option<Saved>,
    /// Whether a checkpoint was due while steps were being skipped.
    pub(super) save_due: bool,
    /// Whether the configuration is another one than `config.toml` says.
    pub(super) changed: bool,
    /// The last step of which `metrics.jsonl` has an evaluation already: one killed between an evaluation and the
    /// checkpoint after it makes the same evaluation again.
    pub(super) recorded_at: Option<u64>,
    pub(super) evaluation: Option<Evaluation>,
    /// Whether a record of training is being written.
    pub(super) recording: bool,
    pub(super) broken: HashSet<String>,
}

impl<'a, D: Primitives<Real = f32>> Run<'a, D> {
    pub(super) fn new(
        mut trainer: Trainer<D>,
        images: Images,
        out: &'a Path,
        options: Options<'a>,
    ) -> Result<Self, Error> {
        let batch = trainer.config().train.batch as u64;
        let limits = options.limits;
        if let Some(minutes) = limits.minutes.filter(|minutes| minutes.is_nan() || *minutes < 0.0) {
            return Err(Error::Input(format!("{minutes} minutes are no time to train; give 0 or more")));
        }
        let last_step = match (limits.steps, limits.images) {
            (None, None) => trainer.config().train.steps,
            (steps, images) => {
                [steps, images.map(|images| images.div_ceil(batch))].into_iter().flatten().min()
            }
        };
        let goal = match (last_step, limits.minutes) {
            (_, Some(minutes)) => Goal::Until(Duration::from_secs_f64(60.0 * minutes.clamp(0.0, 1e9))),
            (Some(steps), None) => Goal::Steps(steps),
            (None, None) => Goal::Open,
        };
        let step = trainer.progress().step;
        let journal = Journal::open(out, step, goal, options.display, options.watch)?;
        let recorded = last_recorded(out)?;
        let best = trainer.progress().best;
        if let Some((at, Some(bits))) = recorded
            && at == step
            && best.is_none_or(|(best, _)| bits < best)
        {
            // Killed between this evaluation, which wrote the best model, and the next checkpoint.
            trainer.progress_mut().best = Some((bits, step));
        }
        Ok(Self {
            journal,
            pictures: Pictures::new(trainer.config().train.samples_minutes),
            trainer,
            images,
            out,
            options,
            last_step,
            evaluated_at: None,
            saved: None,
            save_due: false,
            changed: false,
            recorded_at: recorded.map(|(step, _)| step),
            evaluation: None,
            recording: false,
            broken: HashSet::new(),
        })
    }

    /// Shows what is different from now on, and writes it down with the next checkpoint.
    pub(super) fn with_changes(mut self, notices: &[String]) -> Self {
        let written = RunConfig::read(&self.out.join(CONFIG));
        self.changed = written.map_or(true, |written| written != *self.trainer.config());
        notices.iter().for_each(|notice| self.journal.say(notice));
        self
    }

    pub(super) fn run(mut self) -> Result<Summary, Error> {
        let began_at = self.trainer.progress().step;
        let trained = catch_out_of_memory(|| self.train()).map_err(Error::from).flatten();
        let interrupted = match trained {
            Ok(interrupted) => interrupted,
            Err(error) => return Err(self.failed(error, began_at)),
        };
        self.report_broken();
        let progress = self.trainer.progress().clone();
        if self.saved.is_none_or(|saved| saved.step != progress.step) {
            let last = self.last_checkpoint();
            self.journal.say(&format!(
                "the last {} steps were skipped, so step {} is not saved; {last}",
                progress.skipped_in_a_row, progress.step
            ));
        }
        self.journal.finish();
        Ok(Summary {
            steps: progress.step,
            saved_step: self.saved.map(|saved| saved.step),
            interrupted,
            evaluation: self.evaluation.clone(),
            best: progress.best.map(|(bits_per_dim, step)| Best { step, bits_per_dim }),
            skipped: progress.skipped,
            broken: self.broken.len(),
        })
    }

    /// [`Error::Stopped`] if a stop was requested.
    pub(super) fn check_stop(&self) -> Result<(), Error> {
        if self.options.stop.load(Ordering::Relaxed) { Err(Error::Stopped) } else { Ok(()) }
    }

    /// Trains up to the end, with an evaluation and a checkpoint there; returns whether it was stopped
    /// before.
    pub(super) fn train(&mut self) -> Result<bool, Error> {
        let test = self.images.test.as_ref().map_or(0, |test| test.len());
        self.journal.say(&format!(
            "{} parameters, {} training and {test} test images, {}",
            self.trainer.layout().len(),
            self.images.train.len(),
            self.trainer.device().name()
        ));
        if let (Some(from), 0) = (&self.trainer.config().train.from, self.trainer.progress().step) {
            self.journal.say(&format!(
                "training begins with the weights of {}, at a learning rate of {}",
                from.display(),
                self.trainer.config().train.lr
            ));
        }
        self.images.notices.iter().for_each(|notice| self.journal.say(notice));
        if self.options.watch.is_none() {
            self.journal.say(DEQUANTIZED);
        }
        self.compare_images();
        let interrupted = match self.train_until_stopped() {
            // Before the first checkpoint there is nothing to keep.
            Err(Error::Stopped) if self.saved.is_some() => true,
            done => {
                done?;
                false
            }
        };
        self.save()?;
        if interrupted && !self.pictures.are_of(self.trainer.progress().step) {
            self.draw_last();
        }
        Ok(interrupted)
    }

    /// Says so if the images are others than those that the run knew.
    pub(super) fn compare_images(&mut self) {
        let now = self.images.fingerprint;
        let progress = self.trainer.progress_mut();
        let names = progress.images.replace(now.names);
        // A run begun by an older program knew the names alone.
        let contents = progress.contents.replace(now.contents);
        let what = match (names, contents) {
            (Some(names), _) if names != now.names => "other names or order",
            (_, Some(contents)) if contents != now.contents => "same names, other contents",
            _ => return,
        };
        self.journal.say(&format!(
            "The images have changed since the last checkpoint ({what}). Training goes on, but its results will \
             differ, and test images may have been trained on."
        ));
    }

    /// Trains up to the end, with an evaluation there.
    pub(super) fn train_until_stopped(&mut self) -> Result<(), Error> {
        let config = self.trainer.config().clone();
        let started = Instant::now();
        let allowed = self
            .options
            .limits
            .minutes
            .map(|minutes| Duration::from_secs_f64(60.0 * minutes.clamp(0.0, 1e9)));
        let mut saved = Instant::now();
        let mut pace = Pace::default();
        let watch = self.options.watch;
        let step = self.trainer.progress().step;
        if step > 0
            && step.is_multiple_of(config.train.eval_every)
            && self.images.test.is_some()
            && self.recorded_at != Some(step)
        {
            // It failed or was stopped, and the step was saved without it.
            self.evaluate()?;
        }
        let batches = TrainingBatches::new(
            Arc::clone(&self.images.train),
            TrainingOptions {
                batch_size: config.train.batch,
                seed: config.train.seed,
                augment: Augment { shift: config.data.shift, flip: config.data.flip, ..Default::default() },
                start_at: self.trainer.progress().step,
                threads: data::loader_threads(),
            },
        )?;
        let mut resumed = Instant::now();
        for batch in batches {
            let step = self.trainer.progress().step;
            if self.last_step.is_some_and(|last| step >= last)
                || allowed.is_some_and(|t| started.elapsed() >= t)
            {
                break;
            }
            self.check_stop()?;
            let batch = batch?;
            let labels = data::labels(&config.model, &batch);
            if step == 0 {
                self.trainer.initialize(&batch.pixels, labels)?;
                self.save()?;
                self.check_stop()?;
                resumed = Instant::now();
            }
            let learning_rate = self.trainer.learning_rate();
            let report = self.trainer.step(&batch.pixels, labels)?;
            let step = self.trainer.progress().step;
            let rate = pace.count(config.train.batch);
            let skipped = if report.applied { "" } else { ", skipped: not finite" };
            let rate_known = if rate > 0.0 { format!(", {rate:.0} images/s") } else { String::new() };
            self.journal.update(step, &format!("{:.3} bits/dim{rate_known}{skipped}", report.bits_per_dim));

            let done = StepDone {
                step,
                bits_per_dim: report.bits_per_dim,
                seconds: resumed.elapsed().as_secs_f64(),
            };
            let ends = watch.is_some_and(|watch| watch.step(&done).is_break());

            if let Some(rate) = pace.measured().filter(|_| watch.is_none()) {
                let seen = step * config.train.batch as u64;
                let mut lines = outlook(&config.model, rate, self.images.train.len(), seen);
                if config.train.from.is_some() {
                    // The milestones are those of new weights.
                    lines.truncate(1);
                }
                lines.iter().for_each(|line| self.journal.say(line));
            }

            if step.is_multiple_of(config.train.log_every) {
                self.log(learning_rate, rate)?;
            }
            if step.is_multiple_of(config.train.eval_every) {
                self.evaluate()?;
            } else if self.pictures.are_due(&config.model, rate) {
                self.draw(&self.averaged()?, true)?;
            }
            let due = saved.elapsed().as_secs_f64() >= 60.0 * config.train.checkpoint_minutes;
            if due || self.save_due || step.is_multiple_of(config.train.checkpoint_every) {
                self.save()?;
                saved = Instant::now();
            }
            if ends {
                break;
            }
            resumed = Instant::now();
        }
        if self.evaluated_at != Some(self.trainer.progress().step) {
            self.evaluate()?;
        }
        Ok(())
    }
}
