//! Current speed of training.

use std::time::Instant;

/// Images per second over the last steps of a run.
#[derive(Default)]
pub struct Pace {
    last: Option<Instant>,
    seconds_per_image: f64,
}

impl Pace {
    /// Counts a step, and returns images per second over the last steps; 0 while unknown.
    pub fn count(&mut self, images: usize) -> f64 {
        let now = Instant::now();
        if let Some(last) = self.last.replace(now) {
            let seconds = (now - last).as_secs_f64() / images as f64;
            let old = self.seconds_per_image;
            self.seconds_per_image = if old == 0.0 { seconds } else { 0.9 * old + 0.1 * seconds };
        }
        if self.seconds_per_image == 0.0 { 0.0 } else { 1.0 / self.seconds_per_image }
    }
}
