//! A dataset that reports reading progress, for commands that read all of it once.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use glowflow_data::{Broken, Dataset, Error, ImageShape};

use super::delayed_progress::DelayedProgress;

struct Watched {
    dataset: Arc<dyn Dataset>,
    state: Mutex<State>,
}

struct State {
    read: usize,
    progress: DelayedProgress,
}

/// Wraps a dataset. Images are read slightly ahead of their use, so progress ends early; repeated reads do
/// not count.
pub fn watched(dataset: Arc<dyn Dataset>) -> Arc<dyn Dataset> {
    let state = Mutex::new(State { read: 0, progress: DelayedProgress::new(dataset.len()) });
    Arc::new(Watched { dataset, state })
}

impl Watched {
    fn step(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.read += 1;
        if state.read <= self.dataset.len() {
            let State { read, progress } = &mut *state;
            progress.update(*read);
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

    fn path(&self, index: usize) -> Option<PathBuf> {
        self.dataset.path(index)
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
