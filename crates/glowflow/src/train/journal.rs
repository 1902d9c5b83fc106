//! Records of a run: `metrics.jsonl`, TensorBoard's log, and lines for the user.

use std::path::Path;

use glowflow_report::events::EventLog;
use glowflow_report::metrics::{self, MetricsLog};
use glowflow_report::progress::{Display, Goal, Progress};
use serde_json::Value;

use super::folder::{EVENTS, METRICS};
use super::watch::Watch;
use crate::Error;

/// The open records of a run.
pub struct Journal<'a> {
    metrics: MetricsLog,
    /// `None` once it could not be written.
    events: Option<EventLog>,
    display: Progress,
    /// Gets the lines for the user instead of the display.
    watch: Option<&'a dyn Watch>,
}

impl<'a> Journal<'a> {
    /// Opens the records in the folder `out` of a run that continues from `step`. Later records are dropped.
    pub fn open(
        out: &Path,
        step: u64,
        goal: Goal,
        display: Display,
        watch: Option<&'a dyn Watch>,
    ) -> Result<Self, Error> {
        let path = out.join(METRICS);
        let metrics = MetricsLog::open(&path, Some(step))?;
        let display = Progress::new(goal, if watch.is_some() { Display::Quiet } else { display });
        let mut journal = Self { metrics, events: None, display, watch };
        if let Some(damaged) = journal.metrics.set_aside() {
            let line = format!(
                "{} was damaged: it is kept as {}, and training goes on with its sound records",
                path.display(),
                damaged.display()
            );
            journal.say(&line);
        }
        match EventLog::create(&out.join(EVENTS), Some(step)) {
            Ok(events) => journal.events = Some(events),
            Err(error) => journal.say(&without_events(&error)),
        }
        Ok(journal)
    }

    /// Displays a line.
    pub fn say(&mut self, line: &str) {
        match self.watch {
            Some(watch) => watch.say(line),
            None => self.display.println(line),
        }
    }

    /// Displays the progress of a step.
    pub fn update(&mut self, step: u64, message: &str) {
        self.display.update(step, message);
    }

    /// Appends a record to `metrics.jsonl`.
    pub fn append(&mut self, record: &Value) -> Result<(), Error> {
        Ok(self.metrics.append(record)?)
    }

    /// Waits until the records are on the disk.
    pub fn flush(&self) -> Result<(), Error> {
        Ok(self.metrics.flush()?)
    }

    /// Writes to TensorBoard's log. A failure ends the log and not the run.
    pub fn show(&mut self, write: impl FnOnce(&mut EventLog) -> Result<(), glowflow_report::Error>) {
        if let Some(events) = &mut self.events
            && let Err(error) = write(events)
        {
            self.say(&without_events(&error));
            self.events = None;
        }
    }

    /// Ends the display.
    pub fn finish(self) {
        self.display.finish();
    }
}

fn without_events(error: &glowflow_report::Error) -> String {
    format!("{error}; training goes on without a log for TensorBoard")
}

/// Step and bits/dim of the last evaluation in a run's log. The bits/dim are `None` if they were not finite.
pub fn last_recorded(out: &Path) -> Result<Option<(u64, Option<f64>)>, Error> {
    let records = metrics::read(&out.join(METRICS))?;
    let last = records.iter().rev().find_map(|record| Some((record, record.get("test_bits_per_dim")?)));
    Ok(last.and_then(|(record, bits)| Some((record.get("step")?.as_u64()?, bits.as_f64()))))
}

/// What a run's model scored when it was last evaluated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LastEvaluation {
    /// The step.
    pub step: u64,
    /// Mean bits per dimension of test images.
    pub bits_per_dim: f64,
    /// How exactly the model inverted them.
    pub inverse_error: f64,
}

/// The last evaluation in a run's log; `None` if there is no run, or none was made.
pub fn last_evaluation(run: &Path) -> Option<LastEvaluation> {
    let records = metrics::read(&run.join(METRICS)).ok()?;
    let (step, bits_per_dim) = metrics::points(&records, "test_bits_per_dim").pop()?;
    let (_, inverse_error) = metrics::points(&records, "inverse_error").pop()?;
    Some(LastEvaluation { step: step as u64, bits_per_dim, inverse_error })
}
