//! A dataset that reports reading progress, for commands that read all of it once.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use glowflow_data::{Broken, Dataset, Error, ImageShape};
use glowflow_report::progress::{Display, Goal, Progress};

/// Time before progress is shown. Logs get lines only for long work.
pub fn patience(display: Display) -> Duration {
    Duration::from_secs(if display == Display::Bar { 1 } else { 10 })
}

struct Watched {
    dataset: Arc<dyn Dataset>,
    began: Instant,
    display: Display,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    read: u64,
    progress: Option<Progress>,
}

/// Wraps a dataset. Images are read slightly ahead of their use, so progress ends early; repeated reads do
/// not count.
pub fn watched(dataset: Arc<dyn Dataset>) -> Arc<dyn Dataset> {
    let (began, display) = (Instant::now(), Display::detect());
    Arc::new(Watched { dataset, began, display, state: Mutex::default() })
}

impl Watched {
    fn step(&self) {
        let total = self.dataset.len() as u64;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { read, progress } = &mut *state;
        *read += 1;
        if progress.is_none() && *read < total && self.began.elapsed() >= patience(self.display) {
            *progress = Some(Progress::new(Goal::Steps(total), self.display).counting("image"));
        }
        if let Some(progress) = progress {
            progress.update(*read, "");
        }
        if *read >= total
            && let Some(progress) = progress.take()
        {
            progress.finish();
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(progress) = state.progress.take() {
            progress.finish();
        }
    }
}

impl Dataset for Watched {
    fn len(&self) -> usize {
        self.dataset.len()
    }

    fn shape(&self) -> ImageShape {
        self.dataset.shape()
    }

    fn name(&self, index: usize) -> String {
        self.dataset.name(index)
    }

    fn classes(&self) -> &[String] {
        self.dataset.classes()
    }

    fn label(&self, index: usize) -> Option<usize> {
        self.dataset.label(index)
    }

    fn content(&self, index: usize) -> u64 {
        self.dataset.content(index)
    }

    fn stored_shape(&self, index: usize) -> Option<ImageShape> {
        self.dataset.stored_shape(index)
    }

    fn read(&self, index: usize, pixels: &mut [u8]) -> Result<(), Error> {
        let result = self.dataset.read(index, pixels);
        self.step();
        result
    }

    fn broken(&self) -> Vec<Broken> {
        self.dataset.broken()
    }
}
