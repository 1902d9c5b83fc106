//! Schedule for drawing images during a run, based on elapsed time.
//!
//! Drawing does not change weights, log or random streams: equal runs have equal records regardless of the
//! times of drawing.

use std::time::{Duration, Instant};

use super::observer::{Event, PicturesDue};
use super::observers::{List, samples};
use crate::{Error, ModelConfig};

/// Minutes after which the first images are due.
const EARLY_MINUTES: [f64; 3] = [1.0, 2.0, 5.0];
/// Maximum share of the time for timed images.
const MAX_SHARE: f64 = 0.05;
/// Minimum number of images sampled in the time for training on one.
const SAMPLED_PER_TRAINED: f64 = 3.0;

/// Decides when images are due.
pub struct PictureClock {
    began: Instant,
    /// Minutes between two drawings; 0 disables the clock.
    minutes: f64,
    /// Time since the beginning at which the last images were complete.
    drawn: Duration,
    /// Step of the last images.
    drawn_at: Option<u64>,
    /// Seconds taken by the last images.
    seconds: Option<f64>,
}

impl PictureClock {
    /// Starts the clock.
    pub fn new(minutes: f64) -> Self {
        Self { began: Instant::now(), minutes, drawn: Duration::ZERO, drawn_at: None, seconds: None }
    }

    /// Returns whether images are due, given the number of training images per second.
    pub fn are_due(&self, config: &ModelConfig, images_per_second: f64) -> bool {
        self.minutes > 0.0 && self.are_due_at(self.began.elapsed(), config, images_per_second)
    }

    fn are_due_at(&self, now: Duration, config: &ModelConfig, images_per_second: f64) -> bool {
        let waited = now.saturating_sub(self.drawn).as_secs_f64();
        // The cost of images is estimated until some have been drawn.
        let cost = self
            .seconds
            .unwrap_or_else(|| samples(config) as f64 / (SAMPLED_PER_TRAINED * images_per_second));
        now.as_secs_f64() >= 60.0 * due_after(self.minutes, self.drawn.as_secs_f64() / 60.0)
            && cost <= MAX_SHARE * waited
    }

    /// Returns whether the last images are of `step`.
    pub fn are_of(&self, step: u64) -> bool {
        self.drawn_at == Some(step)
    }

    /// Sends the event that images are due, and measures the time that observers take for it.
    ///
    /// # Errors
    /// Errors of observers.
    pub fn send(&mut self, due: PicturesDue<'_>, observers: &mut List<'_>) -> Result<(), Error> {
        let began = Instant::now();
        observers.send(&Event::PicturesDue(due))?;
        self.drawn_at = Some(due.step);
        self.drawn = self.began.elapsed();
        self.seconds = Some(began.elapsed().as_secs_f64());
        Ok(())
    }
}

/// The first time after `drawn` at which images are due every `minutes`, in minutes.
fn due_after(minutes: f64, drawn: f64) -> f64 {
    let early = EARLY_MINUTES.into_iter().filter(|&early| early < minutes).find(|&early| early > drawn);
    early.unwrap_or_else(|| ((drawn / minutes).floor() + 1.0) * minutes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Times of drawing in the first hour, in seconds, if each takes `cost` seconds.
    fn drawn(minutes: f64, cost: f64, images_per_second: f64) -> Vec<u64> {
        let mut pictures = PictureClock::new(minutes);
        let mut times = vec![];
        for second in 0..3600 {
            let now = Duration::from_secs(second);
            if pictures.are_due_at(now, &ModelConfig::default(), images_per_second) {
                pictures.drawn = now + Duration::from_secs_f64(cost);
                pictures.seconds = Some(cost);
                times.push(second);
            }
        }
        times
    }

    #[test]
    fn pictures_come_from_the_first_minute() {
        assert_eq!(drawn(10.0, 0.1, 200.0), [60, 120, 300, 600, 1200, 1800, 2400, 3000]);
        assert_eq!(drawn(2.0, 0.1, 200.0)[..4], [60, 120, 240, 360]);
        assert_eq!(drawn(0.5, 0.1, 200.0)[..3], [30, 60, 90]);
        assert_eq!(drawn(1e6, 0.1, 200.0), [60, 120, 300]);
        assert!(!PictureClock::new(0.0).are_due(&ModelConfig::default(), 200.0));
    }

    #[test]
    fn pictures_take_a_small_part_of_the_time() {
        // 64 samples at 3 training images per second take about 7 seconds.
        let times = drawn(10.0, 7.0, 3.0);
        assert!(times[0] > 120 && times[0] < 180, "{times:?}");
        let times = drawn(0.1, 20.0, 3.0);
        assert!(times.len() >= 6 && times.len() as f64 * 20.0 <= 0.05 * 3600.0, "{times:?}");
        // An unknown rate.
        assert!(drawn(10.0, 0.1, 0.0).is_empty());
    }
}
