//! Estimates what a run can achieve, given its speed.

use std::time::{Duration, Instant};

use crate::ModelConfig;
use crate::train::observer::{Began, StepDone};

/// Minimum time and number of steps for a measurement of speed.
const MEASURED: Duration = Duration::from_secs(8);
const MEASURED_STEPS: u64 = 3;
/// Minimum width of networks like those of the published models.
const PUBLISHED_WIDTH: usize = 256;
/// Width and total steps of `faces32`, and a number of training images. Below any of them, the milestones of
/// [`SMALL`] promise too much.
const FACES32: (usize, usize, usize) = (128, 24, 1000);
/// Numbers of images after which the samples of a small model are recognisable and clear, by maximum image
/// side. Measured with `faces32` and 8,550 aligned faces; estimated for larger images.
const SMALL: [(usize, f64, f64); 3] = [(32, 1.5e4, 5e4), (64, 5e4, 2e5), (usize::MAX, 3e5, 1.5e6)];
/// Minimum number of images in published training runs.
const PUBLISHED: f64 = 3e7;
/// Maximum training time without a warning, in seconds.
const MAX_SECONDS_WITHOUT_WARNING: f64 = 3.0 * 86_400.0;

/// Measures the speed of a run, and reports an estimate once.
pub struct Estimate {
    model: ModelConfig,
    /// Number of training images of the run.
    epoch: usize,
    /// True if the run started from the weights of another model.
    fine_tuned: bool,
    /// Time at which the first step was complete.
    first: Option<Instant>,
    /// Images and steps since then.
    images: u64,
    steps: u64,
    reported: bool,
}

impl Estimate {
    /// Creates the estimate of a run that begins.
    pub fn new(began: &Began<'_>) -> Self {
        Self {
            model: began.config.model.clone(),
            epoch: began.images,
            fine_tuned: began.config.train.from.is_some(),
            first: None,
            images: 0,
            steps: 0,
            reported: false,
        }
    }

    /// Counts a step; returns the estimate once, as soon as the speed is measured.
    pub fn after(&mut self, step: &StepDone) -> Option<Vec<String>> {
        match self.first {
            None => self.first = Some(Instant::now()),
            Some(_) => {
                self.images += step.images as u64;
                self.steps += 1;
            }
        }
        let elapsed = self.first?.elapsed();
        if self.reported || elapsed < MEASURED || self.steps < MEASURED_STEPS {
            return None;
        }
        self.reported = true;
        let rate = self.images as f64 / elapsed.as_secs_f64();
        let mut lines = milestones(&self.model, rate, self.epoch, step.step * step.images as u64);
        if self.fine_tuned {
            // The milestones apply to new weights.
            lines.truncate(1);
        }
        Some(lines)
    }
}

/// Estimates the milestones of a model at a speed, after `seen` training images, with `epoch` images per
/// epoch.
fn milestones(model: &ModelConfig, rate: f64, epoch: usize, seen: u64) -> Vec<String> {
    let epochs = 3600.0 * rate / epoch.max(1) as f64;
    let mut lines =
        vec![format!("about {} images/s here, {} epochs per hour", rounded(rate), rounded(epochs))];
    let left = |images: f64| (images - seen as f64) / rate;
    // The numbers below apply to Glow.
    let ModelConfig::Glow(glow) = model else { return lines };
    if glow.hidden >= PUBLISHED_WIDTH {
        let seconds = left(PUBLISHED);
        let advice = if seconds > MAX_SECONDS_WITHOUT_WARNING {
            "; this needs a GPU, or a smaller model such as the presets tiny32, faces32 and faces64"
        } else {
            ""
        };
        if seconds > 0.0 {
            lines.push(format!(
                "published models of this size were trained on {} images or more, {} from now{advice}",
                rounded(PUBLISHED),
                spell(seconds)
            ));
        }
        return lines;
    }
    let (hidden, steps, images) = FACES32;
    if glow.hidden < hidden || glow.levels * glow.steps < steps || epoch < images {
        return lines;
    }
    let side = model.image()[0].max(model.image()[1]);
    let (_, recognisable, clear) = SMALL.into_iter().find(|&(most, ..)| side <= most).unwrap_or(SMALL[2]);
    let milestones: Vec<_> = [("recognisable", recognisable), ("clear", clear)]
        .into_iter()
        .filter(|&(_, images)| left(images) > 0.0)
        .map(|(what, images)| {
            format!("{what} after {} images ({} from now)", rounded(images), spell(left(images)))
        })
        .collect();
    if !milestones.is_empty() {
        lines.push(format!(
            "samples of aligned faces are {}; other images take longer",
            milestones.join(" and ")
        ));
    }
    lines
}

/// Rounds to two leading digits, with commas between thousands.
fn rounded(number: f64) -> String {
    if number < 9.95 {
        return format!("{number:.1}").trim_end_matches(".0").to_owned();
    }
    let digits = number.log10().floor() as i32;
    let unit = 10f64.powi((digits - 1).max(0));
    let text = format!("{:.0}", (number / unit).round() * unit);
    let groups: Vec<_> = text.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    groups.join(",")
}

/// Formats a duration in one unit.
fn spell(seconds: f64) -> String {
    let (number, unit) = match seconds {
        172_800.0.. => (seconds / 86_400.0, "days"),
        7_200.0.. => (seconds / 3600.0, "hours"),
        120.0.. => (seconds / 60.0, "minutes"),
        _ => (seconds.max(1.0), "seconds"),
    };
    format!("{} {unit}", rounded(number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::RunConfig;

    fn lines(preset: &str, rate: f64, seen: u64) -> String {
        let config = RunConfig::resolve(Some(preset), None, &[]).unwrap();
        milestones(&config.model, rate, 8550, seen).join("\n")
    }

    #[test]
    fn milestones_follow_from_the_speed() {
        let text = lines("faces32", 160.4, 0);
        assert!(text.contains("about 160 images/s here, 68 epochs per hour"), "{text}");
        assert!(text.contains("recognisable after 15,000 images (94 seconds from now)"), "{text}");
        assert!(text.contains("clear after 50,000 images (5.2 minutes from now)"), "{text}");
        // Milestones in the past are omitted.
        let text = lines("faces32", 160.4, 20_000);
        assert!(!text.contains("recognisable") && text.contains("clear after 50,000"), "{text}");
        assert_eq!(lines("faces32", 160.4, 500_000).lines().count(), 1);
        // Too small a model, and too few images.
        assert_eq!(lines("tiny32", 160.4, 0).lines().count(), 1);
        let faces = RunConfig::resolve(Some("faces32"), None, &[]).unwrap().model;
        assert_eq!(milestones(&faces, 160.4, 40, 0).len(), 1);
    }

    #[test]
    fn published_models_need_a_gpu() {
        let text = lines("cifar10", 3.2, 0);
        assert!(text.contains("about 3.2 images/s here, 1.3 epochs per hour"), "{text}");
        assert!(text.contains("30,000,000 images or more, 110 days from now"), "{text}");
        assert!(text.contains("needs a GPU") && text.contains("faces32"), "{text}");
        let text = lines("cifar10", 13_200.0, 0);
        assert!(text.contains("38 minutes from now") && !text.contains("GPU"), "{text}");
    }
}
