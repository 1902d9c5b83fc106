//! `metrics.jsonl`: records and evaluations of a run, one JSON object per line.
//!
//! Metrics do not contain wall-clock times, so a resumed run writes identical ones.

use std::ops::ControlFlow;

use glowflow_report::metrics::MetricsLog;
use serde_json::{Value, json};

use crate::Error;
use crate::evaluate::Draws;
use crate::train::folder::METRICS;
use crate::train::observer::{Evaluated, Event, Observer, Opened, Outbox, Record};
use crate::train::recorded::last_recorded;

/// Writes `metrics.jsonl`. A resumed run continues the log at its checkpoint, and drops later records.
#[derive(Default)]
pub struct JsonLines {
    log: Option<MetricsLog>,
    /// Step of the last evaluation in the log: a run killed between an evaluation and the next checkpoint
    /// repeats that evaluation.
    evaluated_at: Option<u64>,
}

impl JsonLines {
    fn open(&mut self, opened: &Opened<'_>, outbox: &mut Outbox) -> Result<(), Error> {
        let path = opened.folder.join(METRICS);
        let log = MetricsLog::open(&path, Some(opened.step))?;
        if let Some(damaged) = log.set_aside() {
            outbox.notice(format!(
                "{} was damaged: it is kept as {}, and training continues with its intact records",
                path.display(),
                damaged.display()
            ));
        }
        self.log = Some(log);
        self.evaluated_at = last_recorded(opened.folder, opened.step)?.map(|(step, _)| step);
        Ok(())
    }

    fn append(&mut self, record: &Value) -> Result<(), Error> {
        self.log.as_mut().map_or(Ok(()), |log| Ok(log.append(record)?))
    }

    fn record(&mut self, record: &Record) -> Result<(), Error> {
        self.append(&json!({
            "step": record.step,
            "train_bits_per_dim": record.train_bits_per_dim,
            "gradient_norm": record.gradient_norm,
            "learning_rate": record.learning_rate,
            "skipped": record.skipped,
        }))
    }

    fn evaluated(&mut self, evaluated: &Evaluated<'_>) -> Result<(), Error> {
        if self.evaluated_at == Some(evaluated.step) {
            return Ok(());
        }
        let mut record = json!({
            "step": evaluated.step,
            "test_bits_per_dim": evaluated.evaluation.bits_per_dim,
            "inverse_error": evaluated.evaluation.inverse_error,
        });
        if !matches!(evaluated.evaluation.estimate, Draws::Uniform { .. }) {
            record["bound"] = evaluated.evaluation.bound.into();
        }
        self.append(&record)?;
        self.evaluated_at = Some(evaluated.step);
        Ok(())
    }
}

impl Observer for JsonLines {
    fn on(&mut self, event: &Event<'_>, outbox: &mut Outbox) -> Result<ControlFlow<()>, Error> {
        match event {
            Event::Opened(opened) => self.open(opened, outbox)?,
            Event::Record(record) => self.record(record)?,
            Event::Evaluated(evaluated) => self.evaluated(evaluated)?,
            _ => {}
        }
        Ok(ControlFlow::Continue(()))
    }

    fn flush(&mut self) -> Result<(), Error> {
        self.log.as_ref().map_or(Ok(()), |log| Ok(log.flush()?))
    }
}
