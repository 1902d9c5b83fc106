//! The console: progress, notices, and an estimate of a run's results.

use std::mem;
use std::ops::ControlFlow;

use glowflow_report::progress::{Display, Goal, Progress};

use super::estimate::Estimate;
use crate::Error;
use crate::model::NoiseKind;
use crate::models::Architecture;
use crate::train::observer::{Event, Observer, Opened, Outbox, StepDone};

/// Explains the meaning of a run's bits/dim.
fn meaning(noise: NoiseKind) -> &'static str {
    match noise {
        NoiseKind::Uniform => {
            "bits/dim are upper bounds, from uniform dequantisation (noise added to each pixel)"
        }
        NoiseKind::Variational => {
            "bits/dim are variational bounds: upper bounds, from noise that the model learns for each pixel"
        }
    }
}

/// Shows a run on standard error.
pub struct Console {
    display: Display,
    progress: Progress,
    estimate: Option<Estimate>,
}

impl Console {
    /// Creates a console that shows progress according to `display`.
    pub fn new(display: Display) -> Self {
        Self { display, progress: lines_only(), estimate: None }
    }
}

/// Shows only lines: before a run is open, and after its end.
fn lines_only() -> Progress {
    Progress::new(Goal::Open, Display::Quiet)
}

fn goal(opened: &Opened<'_>) -> Goal {
    match (opened.last_step, opened.time) {
        (Some(step), Some(time)) => Goal::Sooner(step, time),
        (None, Some(time)) => Goal::Until(time),
        (Some(step), None) => Goal::Steps(step),
        (None, None) => Goal::Open,
    }
}

fn message(step: &StepDone) -> String {
    let skipped = if step.applied { "" } else { ", skipped: not finite" };
    let rate = step.images_per_second;
    let rate = if rate > 0.0 { format!(", {rate:.0} images/s") } else { String::new() };
    format!("{:.3} bits/dim{rate}{skipped}", step.bits_per_dim)
}

impl Observer for Console {
    fn on(&mut self, event: &Event<'_>, _: &mut Outbox) -> Result<ControlFlow<()>, Error> {
        event.lines().iter().for_each(|line| self.progress.println(line));
        match event {
            Event::Opened(opened) => self.progress = Progress::new(goal(opened), self.display),
            Event::Began(began) => {
                self.progress.println(meaning(began.config.model.noise()));
                self.estimate = Some(Estimate::new(began));
            }
            Event::Step(step) => {
                self.progress.update(step.step, &message(step));
                let lines = self.estimate.as_mut().and_then(|estimate| estimate.after(step));
                lines.iter().flatten().for_each(|line| self.progress.println(line));
            }
            Event::Ended(Ok(_)) => mem::replace(&mut self.progress, lines_only()).finish(),
            _ => {}
        }
        Ok(ControlFlow::Continue(()))
    }
}
