//! Observers of a run: the interface through which logs, images, displays and callers follow training.
//!
//! A run sends [events](Event) to its observers, in the order of their list. The results of a run do not
//! depend on them: the run itself writes model, best model and checkpoints, and the weights are the same
//! without any observer.
//!
//! | event | sent |
//! | --- | --- |
//! | [`Opened`](Event::Opened) | once, before all others: observers open their files |
//! | [`Began`](Event::Began) | once, before the first step |
//! | [`Step`](Event::Step) | after each step |
//! | [`Record`](Event::Record) | every `train.log_every` steps |
//! | [`Evaluated`](Event::Evaluated) | every `train.eval_every` steps and at the end, with test images |
//! | [`PicturesDue`](Event::PicturesDue) | after each evaluation, at timed intervals, and on interruption |
//! | [`Saved`](Event::Saved) | after each checkpoint |
//! | [`Picture`](Event::Picture), [`Broken`](Event::Broken), [`Notice`](Event::Notice) | at any time |
//! | [`Ended`](Event::Ended) | once, after all others |
//!
//! Within a step the events have the order of the table.

use std::cell::OnceCell;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use glowflow_data::Broken;
use glowflow_report::picture::RgbImage;

use super::config::RunConfig;
use super::run::Summary;
use crate::evaluate::{Draws, Evaluation};
use crate::{Error, Model};

/// Follows a run.
///
/// ```
/// use std::ops::ControlFlow;
///
/// use glowflow::Error;
/// use glowflow::train::observer::{Event, Observer, Outbox};
///
/// /// Ends training at the first batch below a number of bits/dim.
/// struct GoodEnough(f64);
///
/// impl Observer for GoodEnough {
///     fn on(&mut self, event: &Event<'_>, outbox: &mut Outbox) -> Result<ControlFlow<()>, Error> {
///         match event {
///             Event::Step(step) if step.bits_per_dim < self.0 => {
///                 outbox.notice(format!("step {} is good enough", step.step));
///                 Ok(ControlFlow::Break(()))
///             }
///             _ => Ok(ControlFlow::Continue(())),
///         }
///     }
/// }
/// ```
pub trait Observer {
    /// Handles an event. `Break` ends training after the current step, like a limit. Events in the outbox are
    /// delivered to all observers before the next observer receives this event.
    ///
    /// # Errors
    /// An error ends the run, and observers later in the list do not receive the event. The current step is
    /// saved first, except after an error on [`Event::Record`]: the resumed run creates that record again. An
    /// observer that failed receives no further events. [`Error::Stopped`] reports work cancelled by a
    /// request to stop, and is not a failure.
    fn on(&mut self, event: &Event<'_>, outbox: &mut Outbox) -> Result<ControlFlow<()>, Error>;

    /// Makes all records durable. Called before each checkpoint, also after an error of [`on`](Self::on): a
    /// checkpoint that survives a power loss requires the records preceding it.
    ///
    /// # Errors
    /// An error ends the run, and the checkpoint is not written.
    fn flush(&mut self) -> Result<(), Error> {
        Ok(())
    }
}

impl<T: Observer + ?Sized> Observer for &mut T {
    fn on(&mut self, event: &Event<'_>, outbox: &mut Outbox) -> Result<ControlFlow<()>, Error> {
        (**self).on(event, outbox)
    }

    fn flush(&mut self) -> Result<(), Error> {
        (**self).flush()
    }
}

/// An event of a run.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The run's folder and state are open.
    Opened(Opened<'a>),
    /// Training begins.
    Began(Began<'a>),
    /// A step is complete.
    Step(StepDone),
    /// The summary of the steps since the last record.
    Record(Record),
    /// The averaged weights were evaluated on the test images.
    Evaluated(Evaluated<'a>),
    /// Images of the current model are due.
    PicturesDue(PicturesDue<'a>),
    /// An observer drew an image.
    Picture(Picture<'a>),
    /// A checkpoint of this step and its model are on disk.
    Saved {
        /// The step.
        step: u64,
    },
    /// An image could not be read and is skipped.
    Broken(&'a Broken),
    /// A line for the user.
    Notice(&'a str),
    /// The run ended.
    Ended(Result<&'a Summary, &'a Error>),
}

/// A run whose folder is open.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Opened<'a> {
    /// The run's folder.
    pub folder: &'a Path,
    /// The step that training continues from; 0 for a new run.
    pub step: u64,
    /// The step at which training ends.
    pub last_step: Option<u64>,
    /// The time after which training ends.
    pub time: Option<Duration>,
}

/// A run that begins to train.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Began<'a> {
    /// The configuration.
    pub config: &'a RunConfig,
    /// The step that training continues from; 0 for a new run.
    pub step: u64,
    /// Number of trained parameters.
    pub parameters: usize,
    /// Number of training images.
    pub images: usize,
    /// Number of test images.
    pub test_images: usize,
    /// Name of the device.
    pub device: &'a str,
    /// Notices about the images, one line each.
    pub notices: &'a [String],
}

/// A completed training step.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct StepDone {
    /// Number of the step, from 1.
    pub step: u64,
    /// Mean bits/dim of its batch, before the update.
    pub bits_per_dim: f64,
    /// Norm of the gradient before clipping.
    pub gradient_norm: f64,
    /// Learning rate of the update.
    pub learning_rate: f64,
    /// False if a value was not finite and the update was skipped.
    pub applied: bool,
    /// Number of images in its batch.
    pub images: usize,
    /// Seconds since the previous step ended, excluding evaluations, drawing and checkpoints.
    pub seconds: f64,
    /// Images per second over the last steps; 0 while unknown.
    pub images_per_second: f64,
}

/// The summary of the steps since the last record.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Record {
    /// The current step.
    pub step: u64,
    /// Mean bits/dim of the batches; `None` if all steps were skipped.
    pub train_bits_per_dim: Option<f64>,
    /// Largest gradient norm before clipping.
    pub gradient_norm: f64,
    /// Learning rate of the current step.
    pub learning_rate: f64,
    /// Number of steps skipped since the run began.
    pub skipped: u64,
    /// Images per second over the last steps; 0 while unknown.
    pub images_per_second: f64,
}

/// An evaluation on the test images.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Evaluated<'a> {
    /// The current step.
    pub step: u64,
    /// The scores.
    pub evaluation: &'a Evaluation,
    /// True for the best evaluation of the run so far; its model was then written as the best.
    pub best: bool,
    /// The model with averaged weights.
    pub model: &'a Averaged<'a>,
}

/// The model with the averaged weights of the current step, built on first use.
pub struct Averaged<'a> {
    built: OnceCell<Model>,
    build: &'a dyn Fn() -> Result<Model, Error>,
}

impl<'a> Averaged<'a> {
    pub(super) fn new(built: Option<Model>, build: &'a dyn Fn() -> Result<Model, Error>) -> Self {
        Self { built: built.map_or_else(OnceCell::new, OnceCell::from), build }
    }

    /// Returns the model, on the device of the run.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn get(&self) -> Result<&Model, Error> {
        if let Some(model) = self.built.get() {
            return Ok(model);
        }
        let model = (self.build)()?;
        Ok(self.built.get_or_init(|| model))
    }
}

/// A request to draw images of the current model.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct PicturesDue<'a> {
    /// The current step.
    pub step: u64,
    /// The model with averaged weights.
    pub model: &'a Averaged<'a>,
    /// Cancels the drawing when set; `None` if the run has already ended.
    pub(super) stop: Option<&'a AtomicBool>,
}

impl PicturesDue<'_> {
    /// Checks for a request to stop the run. Observers call it between parts of their work.
    ///
    /// # Errors
    /// [`Error::Stopped`] if requested.
    pub fn check_stop(&self) -> Result<(), Error> {
        match self.stop {
            Some(stop) if stop.load(Ordering::Relaxed) => Err(Error::Stopped),
            _ => Ok(()),
        }
    }
}

/// An image drawn by an observer.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Picture<'a> {
    /// Its name, such as `samples`.
    pub name: &'a str,
    /// The step of its model.
    pub step: u64,
    /// Its pixels.
    pub pixels: &'a RgbImage,
}

impl Event<'_> {
    /// Lines that report the event to a user; empty for most events.
    pub fn lines(&self) -> Vec<String> {
        match self {
            Self::Began(began) => began.lines(),
            Self::Evaluated(Evaluated { step, evaluation, .. }) => {
                let (bits, error) = (evaluation.bits_per_dim, evaluation.inverse_error);
                // The uniform bound is the usual one.
                let bound = match evaluation.estimate {
                    Draws::Uniform { .. } => String::new(),
                    _ => format!(" ({} bound)", evaluation.bound),
                };
                vec![if bits.is_finite() && error.is_finite() {
                    format!("step {step}: test {bits:.3} bits/dim{bound}, inverse error {error:.1e}")
                } else {
                    format!("step {step}: the evaluation is not finite")
                }]
            }
            Self::Broken(image) => vec![format!("skipped {}: {}", image.name, image.reason)],
            Self::Notice(line) => vec![(*line).to_owned()],
            _ => vec![],
        }
    }
}

impl Began<'_> {
    fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "{} parameters, {} training and {} test images, {}",
            self.parameters, self.images, self.test_images, self.device
        )];
        if let (Some(from), 0) = (&self.config.train.from, self.step) {
            lines.push(format!(
                "training starts from the weights of {}, at a learning rate of {}",
                from.display(),
                self.config.train.lr
            ));
        }
        lines.extend_from_slice(self.notices);
        lines
    }
}

/// Events from an observer to all observers of its run, including itself. An observer must not answer each
/// notice with a notice, or each image with an image.
#[derive(Default)]
pub struct Outbox(Vec<Message>);

impl Outbox {
    /// Sends a line for the user: [`Event::Notice`].
    pub fn notice(&mut self, line: impl Into<String>) {
        self.0.push(Message::Notice(line.into()));
    }

    /// Sends an image of the model of a step: [`Event::Picture`].
    pub fn picture(&mut self, name: impl Into<String>, step: u64, pixels: RgbImage) {
        self.0.push(Message::Picture { name: name.into(), step, pixels });
    }

    pub(super) fn into_messages(self) -> Vec<Message> {
        self.0
    }
}

/// An owned event.
pub(super) enum Message {
    Notice(String),
    Picture { name: String, step: u64, pixels: RgbImage },
}

impl Message {
    pub(super) fn event(&self) -> Event<'_> {
        match self {
            Self::Notice(line) => Event::Notice(line),
            Self::Picture { name, step, pixels } => Event::Picture(Picture { name, step: *step, pixels }),
        }
    }
}
