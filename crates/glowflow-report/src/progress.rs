//! Progress of a long task: a bar on a terminal, or periodic lines in a log.

use crate::printable;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::{
    io::{self, Write},
    time::{Duration, Instant},
};

/// The end of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// At this step.
    Steps(u64),
    /// This long after the display started.
    Until(Duration),
    /// Whichever of both comes first.
    Sooner(u64, Duration),
    /// Unknown.
    Open,
}

/// The form of the progress display, always on standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Display {
    /// A bar, redrawn in place.
    Bar,
    /// A line at most every ten seconds.
    Lines,
    /// Nothing, except for [`Progress::println`].
    Quiet,
}

impl Display {
    /// A bar if standard error is a terminal that can redraw a line, else lines. A terminal of type `dumb`,
    /// or without a type (`TERM`), cannot redraw.
    pub fn detect() -> Self {
        if ProgressDrawTarget::stderr().is_hidden() { Display::Lines } else { Display::Bar }
    }
}

const BETWEEN_LINES: Duration = Duration::from_secs(10);

/// A running progress display.
///
/// ```
/// use glowflow_report::progress::{Display, Goal, Progress};
///
/// let mut progress = Progress::new(Goal::Steps(3), Display::detect());
/// for step in 1..=3 {
///     progress.update(step, "3.41 bits/dim, 812 images/s");
/// }
/// progress.println("saved a checkpoint");
/// progress.finish();
/// ```
pub struct Progress {
    goal: Goal,
    unit: &'static str,
    output: Output,
    began: Instant,
    /// Time and step of the first update. The rate counts from there, because a resumed task does not begin
    /// at step 0, and a first step is often slower than the rest.
    first: Option<(Instant, u64)>,
    /// Message of the last update, if it was not displayed.
    unsaid: Option<String>,
}

enum Output {
    Bar(ProgressBar),
    Lines { writer: Box<dyn Write + Send>, every: Duration, last: Option<Instant> },
    Quiet,
}

impl Progress {
    /// Starts a display of progress towards `goal`.
    pub fn new(goal: Goal, display: Display) -> Self {
        let output = match display {
            Display::Bar => Output::Bar(bar(goal)),
            Display::Lines => return Self::lines(goal, Box::new(io::stderr()), BETWEEN_LINES),
            Display::Quiet => Output::Quiet,
        };
        Self::with_output(goal, output)
    }

    /// Like [`Display::Lines`], but to any writer and at most once per `every`.
    pub fn lines(goal: Goal, writer: Box<dyn Write + Send>, every: Duration) -> Self {
        let last = None;
        Self::with_output(goal, Output::Lines { writer, every, last })
    }

    fn with_output(goal: Goal, output: Output) -> Self {
        Progress { goal, unit: "step", output, began: Instant::now(), first: None, unsaid: None }
    }

    /// Sets the unit of progress instead of steps, such as `image`s.
    pub fn counting(self, unit: &'static str) -> Self {
        Progress { unit, ..self }
    }

    /// Reports that step `step` is done; `message` describes the current state.
    ///
    /// Cheap enough to be called after every step: the display decides what to show.
    pub fn update(&mut self, step: u64, message: &str) {
        let now = Instant::now();
        let (since, from) = *self.first.get_or_insert((now, step));
        let until_step = |total: u64| {
            let done = step.saturating_sub(from);
            let to_do = total.saturating_sub(step);
            (done > 0).then(|| {
                let seconds = (now - since).as_secs_f64() * to_do as f64 / done as f64;
                Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
            })
        };
        let until_limit = |limit: Duration| limit.saturating_sub(now - self.began);
        let left = match self.goal {
            Goal::Steps(total) => until_step(total),
            Goal::Until(limit) => Some(until_limit(limit)),
            Goal::Sooner(total, limit) => until_step(total).into_iter().chain([until_limit(limit)]).min(),
            Goal::Open => None,
        };
        let line = describe(self.goal, self.unit, step, message, left);
        match &mut self.output {
            Output::Bar(bar) => {
                bar.set_message(line);
                match self.goal {
                    Goal::Steps(_) => bar.set_position(step),
                    Goal::Sooner(total, limit) => {
                        let of_time = (now - self.began).as_secs_f64() / limit.as_secs_f64();
                        let to_do = total.saturating_sub(from) as f64;
                        bar.set_position(step.max(from + (of_time.min(1.0) * to_do) as u64));
                    }
                    Goal::Until(_) => bar.set_position((now - self.began).as_millis() as u64),
                    Goal::Open => bar.tick(),
                }
            }
            Output::Lines { writer, every, last } => {
                if last.is_none_or(|last| now - last >= *every) {
                    *last = Some(now);
                    self.unsaid = None;
                    write_line(writer, &line);
                } else {
                    self.unsaid = Some(line);
                }
            }
            Output::Quiet => {}
        }
    }

    /// Prints a line immediately, above the bar or among the lines.
    pub fn println(&mut self, line: &str) {
        match &mut self.output {
            Output::Bar(bar) => bar.suspend(|| write_line(&mut io::stderr(), line)),
            Output::Lines { writer, .. } => write_line(writer, line),
            Output::Quiet => write_line(&mut io::stderr(), line),
        }
    }

    /// Ends the display; the message of the last update stays visible.
    pub fn finish(mut self) {
        match &mut self.output {
            Output::Bar(bar) => {
                bar.abandon();
                // The bar leaves the cursor after its end.
                write_line(&mut io::stderr(), "");
            }
            Output::Lines { writer, .. } => {
                if let Some(line) = self.unsaid.take() {
                    write_line(writer, &line);
                }
            }
            Output::Quiet => {}
        }
    }
}

fn bar(goal: Goal) -> ProgressBar {
    let (bar, template) = match goal {
        Goal::Steps(total) | Goal::Sooner(total, _) => (ProgressBar::new(total), "{bar:24} {msg}"),
        Goal::Until(limit) => (ProgressBar::new(limit.as_millis() as u64), "{bar:24} {msg}"),
        Goal::Open => (ProgressBar::new_spinner(), "{spinner} {msg}"),
    };
    bar.with_style(ProgressStyle::with_template(template).expect("a sound template"))
}

/// Formats progress, for example `step 1200/10000 · 3.41 bits/dim · 4 min 10 s left`.
fn describe(goal: Goal, unit: &str, step: u64, message: &str, left: Option<Duration>) -> String {
    let mut line = match goal {
        Goal::Steps(total) | Goal::Sooner(total, _) => format!("{unit} {step}/{total}"),
        Goal::Until(_) | Goal::Open => format!("{unit} {step}"),
    };
    if !message.is_empty() {
        line += &format!(" · {message}");
    }
    if let Some(left) = left {
        line += &format!(" · {} left", spell(left));
    }
    line
}

/// Formats a duration in its two largest units.
fn spell(duration: Duration) -> String {
    let seconds = duration.as_secs_f64().round() as u64;
    match seconds {
        86_400.. => format!("{} d {} h", seconds / 86_400, seconds / 3_600 % 24),
        3_600.. => format!("{} h {} min", seconds / 3_600, seconds / 60 % 60),
        60.. => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{seconds} s"),
    }
}

/// A failure to report progress does not end the task.
fn write_line(writer: &mut impl Write, line: &str) {
    let _ = writeln!(writer, "{}", printable(line));
}
