//! The observers that follow a run by default, one a file: `metrics.jsonl`, TensorBoard's log, pictures, and the
//! console.

mod console;
mod json_lines;
mod list;
mod outlook;
mod pictures;
mod tensorboard;

pub use console::Console;
use glowflow_report::progress::Display;
pub use json_lines::JsonLines;
pub(super) use list::List;
pub use pictures::Pictures;
pub(super) use pictures::samples;
pub use tensorboard::TensorBoard;

use super::observer::Observer;

/// Observers that write into the run's folder and show progress: those of a run by default.
pub fn standard<'a>(display: Display) -> Vec<Box<dyn Observer + 'a>> {
    let mut observers = files();
    // After the others: what they have to report precedes the event's own lines.
    observers.push(Box::new(Console::new(display)));
    observers
}

/// Observers that write into the run's folder: metrics, TensorBoard's log, pictures.
pub fn files<'a>() -> Vec<Box<dyn Observer + 'a>> {
    vec![Box::new(JsonLines::default()), Box::new(TensorBoard::default()), Box::new(Pictures::default())]
}
