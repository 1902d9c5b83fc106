//! `events/`: records, evaluations and images of a run for TensorBoard.

use std::ops::ControlFlow;

use glowflow_report::events::EventLog;

use crate::Error;
use crate::train::folder::EVENTS;
use crate::train::observer::{Evaluated, Event, Observer, Opened, Outbox, Picture, Record};

/// Writes TensorBoard's log. A write error ends the log but not the run.
#[derive(Default)]
pub struct TensorBoard {
    /// `None` before the run is open, and after a failure.
    log: Option<EventLog>,
}

impl Observer for TensorBoard {
    fn on(&mut self, event: &Event<'_>, outbox: &mut Outbox) -> Result<ControlFlow<()>, Error> {
        let written = match (event, &mut self.log) {
            (Event::Opened(opened), log) => open(opened).map(|opened| *log = Some(opened)),
            (Event::Record(record), Some(log)) => write_record(log, record),
            (Event::Evaluated(evaluated), Some(log)) => write_evaluation(log, evaluated),
            (Event::Picture(Picture { name, step, pixels }), Some(log)) => log.picture(name, pixels, *step),
            _ => Ok(()),
        };
        if let Err(error) = written {
            self.log = None;
            outbox.notice(format!("{error}; training continues without a log for TensorBoard"));
        }
        Ok(ControlFlow::Continue(()))
    }
}

type Written<T> = Result<T, glowflow_report::Error>;

fn open(opened: &Opened<'_>) -> Written<EventLog> {
    EventLog::create(&opened.folder.join(EVENTS), Some(opened.step))
}

fn write_record(log: &mut EventLog, record: &Record) -> Written<()> {
    let step = record.step;
    if let Some(mean) = record.train_bits_per_dim {
        log.scalar("train/bits_per_dim", mean as f32, step)?;
    }
    log.scalar("train/gradient_norm", record.gradient_norm as f32, step)?;
    log.scalar("train/learning_rate", record.learning_rate as f32, step)?;
    log.scalar("train/images_per_second", record.images_per_second as f32, step)
}

fn write_evaluation(log: &mut EventLog, evaluated: &Evaluated<'_>) -> Written<()> {
    let Evaluated { step, evaluation, .. } = *evaluated;
    log.scalar("test/bits_per_dim", evaluation.bits_per_dim as f32, step)?;
    log.scalar("test/inverse_error", evaluation.inverse_error as f32, step)
}
