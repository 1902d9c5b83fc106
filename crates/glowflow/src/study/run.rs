//! Executes a study: trains unfinished runs, one after another.

use std::cell::{OnceCell, RefCell};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use glowflow_kernels::DeviceError;
use glowflow_report::progress::{Display, Goal, Progress};

use super::folder::{Claim, run_folder};
use super::record::{Record, State};
use super::runs::RunId;
use super::{Budget, Outcome, Study, scores, speed};
use crate::memory_use::PeakMemory;
use crate::train::observer::{Event, Observer, Outbox, StepDone};
use crate::train::{
    self, CONFIG, Changes, Images, Limits, RunConfig, check_portraits_stay_visible, checkpoint, lock,
    observers, resume,
};
use crate::{AnyDevice, Error, Precision};

/// Options of a study.
#[derive(Clone, Copy)]
pub struct Options<'a> {
    /// The form of the progress display.
    pub display: Display,
    /// A flag that ends the study after the current step, with a checkpoint.
    pub stop: &'a AtomicBool,
}

/// Trains all unfinished runs of a study in the folder `out`, and writes the results after each. Diverged
/// configurations are recorded and do not end the study. `device` opens the device for a run.
///
/// # Errors
/// [`Error::Input`] if the folder holds another study, or the data has no held-out images; otherwise errors of
/// data, models and system, as in [`train::train`].
pub fn run(
    study: &Study,
    out: &Path,
    device: impl Fn(&RunConfig) -> Result<AnyDevice, DeviceError>,
    options: Options<'_>,
) -> Result<Outcome, Error> {
    for configuration in &study.configurations {
        check_portraits_stay_visible(out, &configuration.run.data)?;
    }
    let (mut study, runs) = (study.clone(), study.runs());
    let records = |study: &Study| {
        runs.iter().map(|id| Record::read(&run_folder(out, study, *id))).collect::<Result<Vec<_>, _>>()
    };
    let due = |study: &Study, records: &[Record]| {
        let due = runs.iter().zip(records).find(|(_, record)| record.is_due(study));
        due.map(|(id, _)| *id)
    };
    // Before the folder is claimed: the remedy changes the study.
    if let Some(id) = due(&study, &records(&study)?) {
        scores::held_out(&study.config_of(id), None)?;
    }
    std::fs::create_dir_all(out).map_err(Error::io(out))?;
    let _lock = lock(out)?;
    let claim = Claim::new(out, &mut study)?;
    let records = records(&study)?;
    if let Some(id) = due(&study, &records) {
        check_images(&study, out, id)?;
    }
    let board = Board::new(&study, &runs, options.display);
    if let Some(added) = claim.write()? {
        board.say(&format!("added to the study in {}: {added}", out.display()));
    }
    let mut interrupted = false;
    if study.is_calibrated() {
        match speed::calibrate(&mut study, out, &device, options.stop, |line| board.say(line)) {
            Err(Error::Stopped) => interrupted = true,
            calibrated => calibrated?,
        }
    }
    for ((number, id), record) in runs.iter().enumerate().zip(records) {
        if interrupted {
            break;
        }
        let folder = run_folder(out, &study, *id);
        let name = &study.configurations[id.configuration].name;
        let label = format!("{} ({} of {})", id.label(name), number + 1, runs.len());
        let run = Run { study: &study, id: *id, folder: &folder, label: &label, board: &board };
        let due = record.is_due(&study);
        if due && run.finish(record, &device, options.stop)?.is_break() {
            interrupted = true;
            break;
        }
        if due {
            Outcome::write(&study, out, false)?;
        }
        board.finished(cost(&study, *id));
    }
    board.end();
    Outcome::write(&study, out, interrupted)
}

/// Checks that the images equal those of the study's other runs. Otherwise results are not comparable.
fn check_images(study: &Study, out: &Path, due: RunId) -> Result<(), Error> {
    let config = study.config_of(due);
    // Studies of older versions hold out other images for each seed.
    let shared = config.data.test_seed.is_some() || config.data.test.is_some();
    let seeds = study.seeds.iter().filter(|&&seed| shared || seed == due.seed);
    let all =
        seeds.flat_map(|&seed| (0..study.configurations.len()).map(move |index| RunId::new(index, seed)));
    let begun = all.filter_map(|run| {
        let before = checkpoint::last_progress(&run_folder(out, study, run))?;
        Some((run, before.images?, before.contents?))
    });
    let begun: Vec<_> = begun.collect();
    if begun.is_empty() {
        return Ok(());
    }
    let now = Images::open(&config)?.fingerprint;
    for (other, names, contents) in begun {
        let what = if names != now.names {
            "names or the order"
        } else if contents != now.contents {
            "contents"
        } else {
            continue;
        };
        return Err(Error::Input(format!(
            "the {what} of the images differ from those that {} was trained on, so results would not be \
             comparable: restore the images, or choose another folder for a new study",
            other.label(&study.configurations[other.configuration].name)
        )));
    }
    Ok(())
}

/// Work of a run: images, or seconds if the budget is a time.
fn cost(study: &Study, run: RunId) -> u64 {
    match study.budget {
        Budget::Minutes(minutes) => (60.0 * minutes * run.multiple) as u64,
        Budget::Images(_) | Budget::Steps(_) | Budget::Flops(_) => study.images_of(run).unwrap_or(0),
    }
}

/// A run of a study.
struct Run<'a> {
    study: &'a Study,
    id: RunId,
    folder: &'a Path,
    label: &'a str,
    board: &'a Board,
}

impl Run<'_> {
    /// Trains to the end and scores; `Break` if it was stopped first.
    fn finish(
        &self,
        mut record: Record,
        device: impl Fn(&RunConfig) -> Result<AnyDevice, DeviceError>,
        stop: &AtomicBool,
    ) -> Result<ControlFlow<()>, Error> {
        if stop.load(Ordering::Relaxed) {
            return Ok(ControlFlow::Break(()));
        }
        if record.state == State::Unfinished {
            match self.train(record, &device, stop)? {
                Some(trained) => record = trained,
                None => return Ok(ControlFlow::Break(())),
            }
            // A run that diverges before its first checkpoint leaves no folder.
            std::fs::create_dir_all(self.folder).map_err(Error::io(self.folder))?;
            record.write(self.folder)?;
        }
        if !record.is_due(self.study) {
            return Ok(ControlFlow::Continue(()));
        }
        match self.score(device, stop) {
            Err(Error::Stopped) => return Ok(ControlFlow::Break(())),
            Err(error) => return Err(error),
            Ok(score @ Some(_)) => record.score = score,
            Ok(None) => {
                self.board.say(&format!(
                    "{}: scores are not finite; the study continues without this run",
                    self.label
                ));
                record.state = State::Diverged;
            }
        }
        record.write(self.folder)?;
        Ok(ControlFlow::Continue(()))
    }

    /// Trains to the end; `None` if it was stopped first.
    fn train(
        &self,
        record: Record,
        device: impl Fn(&RunConfig) -> Result<AnyDevice, DeviceError>,
        stop: &AtomicBool,
    ) -> Result<Option<Record>, Error> {
        let seconds = match self.study.budget {
            Budget::Minutes(minutes) if !self.study.is_calibrated() => Some(60.0 * minutes),
            _ => None,
        };
        // The run was killed between its last checkpoint and its last record.
        let exhausted = seconds.is_some_and(|seconds| record.seconds >= seconds);
        let memory = PeakMemory::begin();
        let opened = OnceCell::new();
        let open = |config: &RunConfig| {
            let device = device(config)?;
            // Another handle to the same device.
            let _ = opened.set(device.clone());
            Ok::<_, DeviceError>(device)
        };
        let config = self.study.config_of(self.id);
        // The run may have begun before the study, with fewer configurations, had to fix the number of steps.
        let begun = RunConfig::read(&self.folder.join(CONFIG)).ok();
        let steps = config.train.steps.filter(|_| begun.is_some_and(|begun| begun.train.steps.is_none()));
        let limits = Limits { steps, minutes: exhausted.then_some(0.0), images: None };
        let work = (cost(self.study, self.id), config.train.steps);
        let mut meter = Meter { run: self, seconds, work, record };
        let mut observers = observers::files();
        observers.push(Box::new(&mut meter));
        let options = train::Options { limits, observers, faces: None, stop };
        let done = if self.folder.join(CONFIG).exists() {
            resume(open, self.folder, Changes::default(), options)
        } else {
            train::train(open(&config)?, config, self.folder, options)
        };
        let state = match done {
            Ok(summary) if summary.interrupted => return Ok(None),
            Err(Error::Stopped) => return Ok(None),
            // Its last steps were skipped, so its weights are those of an earlier step.
            Ok(summary) if summary.saved_step != Some(summary.steps) => {
                self.board.say(&format!(
                    "{}: the last steps were not finite; the study continues without this run",
                    self.label
                ));
                State::Diverged
            }
            Ok(_) => State::Finished,
            Err(error @ (Error::Diverged(_) | Error::RunDiverged { .. })) => {
                self.board.say(&format!("{}: {error}; the study continues without this run", self.label));
                State::Diverged
            }
            Err(error) => return Err(error),
        };
        let peak = opened.get().and_then(AnyDevice::peak_memory).or(memory.peak());
        let peak_memory = peak.max(meter.record.peak_memory);
        Ok(Some(Record { state, peak_memory, ..meter.record }))
    }

    /// Scores the model in single precision; `None` if scores are not finite.
    fn score(
        &self,
        device: impl Fn(&RunConfig) -> Result<AnyDevice, DeviceError>,
        stop: &AtomicBool,
    ) -> Result<Option<scores::Summary>, Error> {
        let Some(baseline) = &self.study.baseline else { return Ok(None) };
        let mut config = RunConfig::read(&self.folder.join(CONFIG))?;
        let test = scores::held_out(&config, baseline.images)?;
        config.train.precision = Precision::F32;
        scores::score(self.folder, device(&config)?, &test, stop)
    }
}

/// Measures a run, and shows its progress within the study's.
struct Meter<'a> {
    run: &'a Run<'a>,
    /// Seconds of training after which the run ends.
    seconds: Option<f64>,
    /// Total work of the run, and its steps.
    work: (u64, Option<u64>),
    record: Record,
}

impl Meter<'_> {
    fn step(&mut self, step: &StepDone) -> ControlFlow<()> {
        let record = &mut self.record;
        record.images += step.images as u64;
        record.seconds += step.seconds;
        let done = match (self.seconds, self.work) {
            (Some(seconds), _) => record.seconds.min(seconds) as u64,
            (None, (work, Some(steps))) => (work as f64 * step.step as f64 / steps.max(1) as f64) as u64,
            (None, (_, None)) => step.step * step.images as u64,
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

/// Progress of the whole study.
struct Board {
    progress: RefCell<Progress>,
    /// Work of the finished runs.
    finished: RefCell<u64>,
}

impl Board {
    fn new(study: &Study, runs: &[RunId], display: Display) -> Self {
        let total = runs.iter().map(|run| cost(study, *run)).fold(0, u64::saturating_add);
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
