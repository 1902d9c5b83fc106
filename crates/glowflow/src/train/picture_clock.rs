//! When pictures of a run are due by the clock.
//!
//! Drawing changes neither weights nor log nor any random stream: equal runs have equal records whenever their
//! pictures were drawn.

use std::time::{Duration, Instant};

use super::observer::{Event, PicturesDue};
use super::observers::{List, samples};
use crate::{Error, ModelConfig};

/// Minutes after which the first pictures are due.
const EARLY_MINUTES: [f64; 3] = [1.0, 2.0, 5.0];
/// Part of the time that pictures by the clock may take.
const MAX_SHARE: f64 = 0.05;
/// Images that are sampled in the time that one is trained on, at least.
const SAMPLED_PER_TRAINED: f64 = 3.0;

/// Decides when pictures are due.
pub struct PictureClock {
    began: Instant,
    /// Minutes between two pictures; 0 for none by the clock.
    minutes: f64,
    /// Time since the beginning at which the last pictures were complete.
    drawn: Duration,
    /// Step of the last pictures.
    drawn_at: Option<u64>,
    /// Seconds that the last pictures took.
    seconds: Option<f64>,
}

impl PictureClock {
    /// Starts the clock.
    pub fn new(minutes: f64) -> Self {
        Self { began: Instant::now(), minutes, drawn: Duration::ZERO, drawn_at: None, seconds: None }
    }

    /// Whether pictures are due, given the number of images that are trained on in a second.
    pub fn are_due(&self, config: &ModelConfig, images_per_second: f64) -> bool {
        self.minutes > 0.0 && self.are_due_at(self.began.elapsed(), config, images_per_second)
    }

    fn are_due_at(&self, now: Duration, config: &ModelConfig, images_per_second: f64) -> bool {
        let waited = now.saturating_sub(self.drawn).as_secs_f64();
        // Until pictures have been drawn, their cost is estimated.
        let cost = self
            .seconds
            .unwrap_or_else(|| samples(config) as f64 / (SAMPLED_PER_TRAINED * images_per_second));
        now.as_secs_f64() >= 60.0 * due_after(self.minutes, self.drawn.as_secs_f64() / 60.0)
            && cost <= MAX_SHARE * waited
    }

    /// Whether the last pictures are those of `step`.
    pub fn are_of(&self, step: u64) -> bool {
        self.drawn_at == Some(step)
    }

    /// Sends the event that pictures are due, and measures the time that observers take for it.
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

/// The first time, in minutes, after `drawn` at which pictures are due every `minutes`.
fn due_after(minutes: f64, drawn: f64) -> f64 {
    let early = EARLY_MINUTES.into_iter().filter(|&early| early < minutes).find(|&early| early > drawn);
    early.unwrap_or_else(|| ((drawn / minutes).floor() + 1.0) * minutes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds at which pictures are drawn in the first hour, each taking `cost` seconds.
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
        // 64 samples at 3 training images a second: some 7 seconds.
        let times = drawn(10.0, 7.0, 3.0);
        assert!(times[0] > 120 && times[0] < 180, "{times:?}");
        let times = drawn(0.1, 20.0, 3.0);
        assert!(times.len() >= 6 && times.len() as f64 * 20.0 <= 0.05 * 3600.0, "{times:?}");
        // A rate that is not known yet.
        assert!(drawn(10.0, 0.1, 0.0).is_empty());
    }
}
