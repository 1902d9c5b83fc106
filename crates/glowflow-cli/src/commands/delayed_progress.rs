//! Progress that is shown if work takes a while.

use std::time::{Duration, Instant};

use glowflow_report::progress::{Display, Goal, Progress};

use super::tell;

/// Progress of reading images. It ends when it is dropped.
pub struct DelayedProgress {
    total: u64,
    began: Instant,
    display: Display,
    progress: Option<Progress>,
}

impl DelayedProgress {
    /// Progress of `total` images, which begins now.
    pub fn new(total: usize) -> Self {
        Self { total: total as u64, began: Instant::now(), display: Display::detect(), progress: None }
    }

    /// Reports the number of images read so far.
    pub fn update(&mut self, read: usize) {
        let read = read as u64;
        if self.progress.is_none() && read < self.total && self.began.elapsed() >= display_delay(self.display)
        {
            self.progress = Some(Progress::new(Goal::Steps(self.total), self.display).counting("image"));
        }
        if let Some(progress) = &mut self.progress {
            progress.update(read, "");
        }
        if read >= self.total {
            self.finish();
        }
    }

    /// Prints a line above the progress.
    pub fn tell(&mut self, line: &str) {
        match &mut self.progress {
            Some(progress) => progress.println(line),
            None => tell(line),
        }
    }

    fn finish(&mut self) {
        if let Some(progress) = self.progress.take() {
            progress.finish();
        }
    }
}

impl Drop for DelayedProgress {
    fn drop(&mut self) {
        self.finish();
    }
}

/// Time before progress is shown. Logs get lines only for long work.
fn display_delay(display: Display) -> Duration {
    Duration::from_secs(if display == Display::Bar { 1 } else { 10 })
}
