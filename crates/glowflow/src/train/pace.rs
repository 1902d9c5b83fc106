//! Current speed of training.

/// Images per second over the last steps of a run.
#[derive(Default)]
pub struct Pace {
    begun: bool,
    seconds_per_image: f64,
}

impl Pace {
    /// Counts a step, and returns images per second over the last steps; 0 while unknown. The first step,
    /// which prepares the device, does not count.
    pub fn count(&mut self, images: usize, seconds: f64) -> f64 {
        if std::mem::replace(&mut self.begun, true) {
            let seconds = seconds / images as f64;
            let old = self.seconds_per_image;
            self.seconds_per_image = if old == 0.0 { seconds } else { 0.9 * old + 0.1 * seconds };
        }
        if self.seconds_per_image == 0.0 { 0.0 } else { 1.0 / self.seconds_per_image }
    }
}
