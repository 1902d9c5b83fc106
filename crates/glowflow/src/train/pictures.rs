//! Pictures of a run: a grid of samples and the learning curve, drawn at every evaluation, by the clock, and when
//! the run ends.
//!
//! Drawing reads the averaged weights and the log, and changes neither them nor any random stream: equal runs have
//! equal records whenever their pictures were drawn.

use std::path::Path;
use std::time::{Duration, Instant};

use glowflow_report::curve::Curve;
use glowflow_report::{metrics, picture};

use super::folder::{CURVE, METRICS, SAMPLES};
use super::journal::Journal;
use crate::{Error, Model, ModelConfig};

/// Temperature of the samples.
const TEMPERATURE: f64 = 0.7;
/// Minutes after which the first pictures are due.
const EARLY_MINUTES: [f64; 3] = [1.0, 2.0, 5.0];
/// Part of the time that pictures by the clock may take.
const MAX_SHARE: f64 = 0.05;
/// Images that are sampled in the time that one is trained on, at least.
const SAMPLED_PER_TRAINED: f64 = 3.0;

/// When pictures are due by the clock, and the pictures themselves.
pub struct Pictures {
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

impl Pictures {
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
            .unwrap_or_else(|| columns(config).pow(2) as f64 / (SAMPLED_PER_TRAINED * images_per_second));
        now.as_secs_f64() >= 60.0 * due_after(self.minutes, self.drawn.as_secs_f64() / 60.0)
            && cost <= MAX_SHARE * waited
    }

    /// Whether the last pictures are those of `step`.
    pub fn are_of(&self, step: u64) -> bool {
        self.drawn_at == Some(step)
    }

    /// Draws samples and curve into the folder `out`. A picture that cannot be written ends no run.
    ///
    /// # Errors
    /// Errors of the model, and of `check`, which is called between parts of the work.
    pub fn draw(
        &mut self,
        model: &Model,
        out: &Path,
        step: u64,
        journal: &mut Journal,
        check: impl Fn() -> Result<(), Error>,
    ) -> Result<(), Error> {
        let began = Instant::now();
        for drawn in [draw_samples(model, out, step, journal, check), draw_curve(out)] {
            match drawn {
                Err(error @ Error::Report(_)) => journal.say(&format!("{error}; training goes on")),
                drawn => drawn?,
            }
        }
        self.drawn_at = Some(step);
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

/// Columns and rows of the grid of samples.
fn columns(config: &ModelConfig) -> usize {
    if config.image()[1] > 64 { 4 } else { 8 }
}

fn draw_samples(
    model: &Model,
    out: &Path,
    step: u64,
    journal: &mut Journal,
    check: impl Fn() -> Result<(), Error>,
) -> Result<(), Error> {
    let config = model.config();
    let [_, _, channels] = config.image();
    if channels != 1 && channels != 3 {
        return Ok(());
    }
    let columns = columns(config);
    let count = columns * columns;
    let labels: Vec<usize> =
        if config.classes() == 0 { vec![] } else { (0..count).map(|i| i % config.classes()).collect() };
    let latents = model.draw(count, TEMPERATURE, 0)?;
    let samples = model.decode_while(&latents, &labels, check)?;
    if !samples.all_finite() {
        journal.say(
            "some samples contain NaN or infinite values, drawn black; they become fewer as training goes on",
        );
    }
    let picture = picture::grid(&samples.into_bytes(), config.image(), columns);
    picture::save_png(&out.join(SAMPLES), &picture)?;
    journal.show(|events| events.picture("samples", &picture, step));
    Ok(())
}

fn draw_curve(out: &Path) -> Result<(), Error> {
    let records = metrics::read(&out.join(METRICS))?;
    let train = metrics::points(&records, "train_bits_per_dim");
    let test = metrics::points(&records, "test_bits_per_dim");
    let name = out.file_name().map_or("run".into(), |name| name.to_string_lossy());
    Ok(Curve { title: &name, train: &train, test: &test }.save(&out.join(CURVE))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds at which pictures are drawn in the first hour, each taking `cost` seconds.
    fn drawn(minutes: f64, cost: f64, images_per_second: f64) -> Vec<u64> {
        let mut pictures = Pictures::new(minutes);
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
        assert!(!Pictures::new(0.0).are_due(&ModelConfig::default(), 200.0));
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
