//! The default observers of a run, one per file: `metrics.jsonl`, TensorBoard's log, images, and the console.

mod console;
mod estimate;
mod json_lines;
mod list;
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

/// The default observers of a run: they write to the run's folder and show progress.
pub fn standard<'a>(display: Display) -> Vec<Box<dyn Observer + 'a>> {
    let mut observers = files();
    // The console comes last: reports of the other observers precede the event's own lines.
    observers.push(Box::new(Console::new(display)));
    observers
}

/// Observers that write to the run's folder: metrics, TensorBoard's log, images.
pub fn files<'a>() -> Vec<Box<dyn Observer + 'a>> {
    vec![Box::new(JsonLines::default()), Box::new(TensorBoard::default()), Box::new(Pictures::default())]
}
