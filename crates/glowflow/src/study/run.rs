//! Executes a study: trains what is not finished yet, one run after the other.

use std::cell::RefCell;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use glowflow_kernels::DeviceError;
use glowflow_report::progress::{Display, Goal, Progress};

use super::folder::{claim, run_folder};
use super::record::{Record, State};
use super::{Budget, Outcome, Study};
use crate::train::observer::{Event, Observer, Outbox, StepDone};
use crate::train::{self, CONFIG, Changes, Limits, RunConfig, lock, observers, resume};
use crate::{AnyDevice, Error};

/// Options of a study.
#[derive(Clone, Copy)]
pub struct Options<'a> {
    /// How to show progress.
    pub display: Display,
    /// Set from elsewhere to end after the current step, with a checkpoint.
    pub stop: &'a AtomicBool,
}

/// Trains all runs of a study in the folder `out` that are not finished there, and writes the results after each.
/// Configurations that diverge are recorded and do not end the study. `device` opens the device for a run.
///
/// # Errors
/// [`Error::Input`] if the folder holds another study; otherwise errors of data, models and system, as
/// [`train::train`].
pub fn run(
    study: &Study,
    out: &Path,
    device: impl Fn(&RunConfig) -> Result<AnyDevice, DeviceError>,
    options: Options<'_>,
) -> Result<Outcome, Error> {
    std::fs::create_dir_all(out).map_err(Error::io(out))?;
    let _lock = lock(out)?;
    claim(out, study)?;
    let total = study.seeds.len() * study.configurations.len();
    let board = Board::new(study, options.display);
    let mut number = 0;
    let mut interrupted = false;
    'seeds: for &seed in &study.seeds {
        for (index, configuration) in study.configurations.iter().enumerate() {
            number += 1;
            let folder = run_folder(out, &configuration.name, seed);
            let record = Record::read(&folder)?;
            let label = format!("{}, seed {seed} ({number} of {total})", configuration.name);
            if record.state == State::Unfinished {
                let config = study.run_config(index, seed);
                let run = Run { study, folder: &folder, config, label: &label, board: &board };
                if run.train(record, &device, options.stop)?.is_break() {
                    interrupted = true;
                    break 'seeds;
                }
                Outcome::write(study, out, false)?;
            }
            board.finished(cost(study, index));
        }
    }
    board.end();
    Outcome::write(study, out, interrupted)
}

/// Work of one run: images, or seconds if the budget is a time.
fn cost(study: &Study, index: usize) -> u64 {
    match (study.images(index), study.budget) {
        (Some(images), _) => images,
        (None, Budget::Minutes(minutes)) => (60.0 * minutes) as u64,
        (None, _) => 0,
    }
}

/// One run of a study.
struct Run<'a> {
    study: &'a Study,
    folder: &'a Path,
    config: RunConfig,
    label: &'a str,
    board: &'a Board,
}

impl Run<'_> {
    /// Trains up to the end; `Break` if it was stopped before.
    fn train(
        self,
        record: Record,
        device: impl Fn(&RunConfig) -> Result<AnyDevice, DeviceError>,
        stop: &AtomicBool,
    ) -> Result<ControlFlow<()>, Error> {
        if stop.load(Ordering::Relaxed) {
            return Ok(ControlFlow::Break(()));
        }
        let seconds = match self.study.budget {
            Budget::Minutes(minutes) => Some(60.0 * minutes),
            Budget::Images(_) | Budget::Steps(_) => None,
        };
        // Killed between its last checkpoint and its last record.
        let exhausted = seconds.is_some_and(|seconds| record.seconds >= seconds);
        let limits = Limits { minutes: exhausted.then_some(0.0), ..Limits::default() };
        let mut meter = Meter { run: &self, seconds, record };
        let mut observers = observers::files();
        observers.push(Box::new(&mut meter));
        let options = train::Options { limits, observers, faces: None, stop };
        let done = if self.folder.join(CONFIG).exists() {
            resume(device, self.folder, Changes::default(), options)
        } else {
            train::train(device(&self.config)?, self.config.clone(), self.folder, options)
        };
        let state = match done {
            Ok(summary) if summary.interrupted => return Ok(ControlFlow::Break(())),
            Err(Error::Stopped) => return Ok(ControlFlow::Break(())),
            Ok(_) => State::Finished,
            Err(error @ (Error::Diverged(_) | Error::RunDiverged { .. })) => {
                self.board.say(&format!("{}: {error}; the study goes on without this run", self.label));
                State::Diverged
            }
            Err(error) => return Err(error),
        };
        Record { state, ..meter.record }.write(self.folder)?;
        Ok(ControlFlow::Continue(()))
    }
}

/// Measures a run, and shows its progress as a part of the study's.
struct Meter<'a> {
    run: &'a Run<'a>,
    /// Seconds of training after which the run ends.
    seconds: Option<f64>,
    record: Record,
}

impl Meter<'_> {
    fn step(&mut self, step: &StepDone) -> ControlFlow<()> {
        let record = &mut self.record;
        record.images += step.images as u64;
        record.seconds += step.seconds;
        let done = match self.seconds {
            Some(seconds) => record.seconds.min(seconds) as u64,
            None => step.step * step.images as u64,
        };
        let rate = record.rate().map_or(String::new(), |rate| format!(", {rate:.0} images/s"));
        let message =
            format!("{}, step {}: {:.3} bits/dim{rate}", self.run.label, step.step, step.bits_per_dim);
        self.run.board.update(done, &message);
        match self.seconds {
            Some(seconds) if record.seconds >= seconds => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    }
}

impl Observer for Meter<'_> {
    fn on(&mut self, event: &Event<'_>, _: &mut Outbox) -> Result<ControlFlow<()>, Error> {
        for line in event.lines() {
            self.run.board.say(&format!("{}: {line}", self.run.label));
        }
        match event {
            Event::Step(step) => return Ok(self.step(step)),
            Event::Saved { .. } => self.record.write(self.run.folder)?,
            _ => {}
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// Progress over the whole study.
struct Board {
    progress: RefCell<Progress>,
    /// Work of the runs that are finished.
    finished: RefCell<u64>,
}

impl Board {
    fn new(study: &Study, display: Display) -> Self {
        let runs = study.seeds.len() as u64;
        let total = (0..study.configurations.len()).map(|index| cost(study, index) * runs).sum();
        let unit = if matches!(study.budget, Budget::Minutes(_)) { "second" } else { "image" };
        let progress = Progress::new(Goal::Steps(total), display).counting(unit);
        Self { progress: RefCell::new(progress), finished: RefCell::new(0) }
    }

    fn update(&self, of_run: u64, message: &str) {
        self.progress.borrow_mut().update(*self.finished.borrow() + of_run, message);
    }

    fn finished(&self, work: u64) {
        *self.finished.borrow_mut() += work;
    }

    fn say(&self, line: &str) {
        self.progress.borrow_mut().println(line);
    }

    fn end(self) {
        self.progress.into_inner().finish();
    }
}
