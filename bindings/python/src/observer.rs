//! The observer of a run, which passes its records to the calling Python thread.

use std::ops::ControlFlow;
use std::sync::mpsc::{self, Sender};

use glowflow::Error;
use glowflow::train::Observer;
use glowflow::train::observer::{Event, Outbox, Record};

/// A request to the calling thread.
pub enum Request {
    /// Logs a line.
    Notice(String),
    /// Calls the callback with the training state, and sends whether to end training.
    State(State, Sender<bool>),
}

/// The fields of `glowflow.TrainState`.
#[derive(Clone, Copy, Debug)]
pub struct State {
    pub step: u64,
    pub images: u64,
    pub bits_per_dim: f64,
    pub gradient_norm: f64,
    pub learning_rate: f64,
    pub images_per_second: f64,
    pub test_bits_per_dim: Option<f64>,
}

/// Sends every record to the calling thread, and waits for the callback's result.
pub struct Caller {
    requests: Sender<Request>,
    batch: u64,
    test_bits_per_dim: Option<f64>,
}

impl Caller {
    pub fn new(requests: Sender<Request>) -> Self {
        Self { requests, batch: 0, test_bits_per_dim: None }
    }

    fn record(&self, record: &Record) -> ControlFlow<()> {
        let state = State {
            step: record.step,
            images: record.step * self.batch,
            bits_per_dim: record.train_bits_per_dim.unwrap_or(f64::NAN),
            gradient_norm: record.gradient_norm,
            learning_rate: record.learning_rate,
            images_per_second: record.images_per_second,
            test_bits_per_dim: self.test_bits_per_dim,
        };
        let (answer, answered) = mpsc::channel();
        let _ = self.requests.send(Request::State(state, answer));
        // Requests are dropped only after a stop request, which ends the run.
        match answered.recv() {
            Ok(true) => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    }
}

impl Observer for Caller {
    fn on(&mut self, event: &Event<'_>, _: &mut Outbox) -> Result<ControlFlow<()>, Error> {
        for line in event.lines() {
            let _ = self.requests.send(Request::Notice(line));
        }
        match event {
            Event::Began(began) => self.batch = began.config.train.batch as u64,
            Event::Evaluated(evaluated) => {
                self.test_bits_per_dim = Some(evaluated.evaluation.bits_per_dim);
            }
            Event::Record(record) => return Ok(self.record(record)),
            _ => {}
        }
        Ok(ControlFlow::Continue(()))
    }
}
