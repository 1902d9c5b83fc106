//! `samples.png` and `curve.png`: a grid of samples, and the learning curve.
//!
//! Samples are drawn from the averaged weights with a fixed seed. The curve is drawn from `metrics.jsonl`.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use glowflow_report::curve::Curve;
use glowflow_report::{metrics, picture};

use crate::train::folder::{CURVE, METRICS, SAMPLES};
use crate::train::observer::{Event, Observer, Outbox, PicturesDue};
use crate::{Error, ModelConfig, check_count};

/// Temperature of the samples.
const TEMPERATURE: f64 = 0.7;

/// Draws samples and the learning curve. An image that cannot be written does not end the run.
#[derive(Default)]
pub struct Pictures {
    folder: PathBuf,
}

impl Observer for Pictures {
    fn on(&mut self, event: &Event<'_>, outbox: &mut Outbox) -> Result<ControlFlow<()>, Error> {
        match event {
            Event::Opened(opened) => self.folder = opened.folder.to_owned(),
            Event::PicturesDue(due) => self.draw(due, outbox)?,
            _ => {}
        }
        Ok(ControlFlow::Continue(()))
    }
}

impl Pictures {
    fn draw(&self, due: &PicturesDue<'_>, outbox: &mut Outbox) -> Result<(), Error> {
        for drawn in [draw_samples(due, &self.folder, outbox), draw_curve(&self.folder)] {
            match drawn {
                Err(error @ Error::Report(_)) => outbox.notice(format!("{error}; training continues")),
                drawn => drawn?,
            }
        }
        Ok(())
    }
}

/// Number of columns and rows of the sample grid: 8, or 4 for images wider than 64 pixels, or fewer for very
/// large images.
fn columns(config: &ModelConfig) -> usize {
    let most = if config.image()[1] > 64 { 4 } else { 8 };
    (1..=most).rfind(|&columns| check_count(&[columns, columns], config.dimensions()).is_ok()).unwrap_or(1)
}

/// Number of samples in a grid.
pub fn samples(config: &ModelConfig) -> usize {
    columns(config).pow(2)
}

fn draw_samples(due: &PicturesDue<'_>, folder: &Path, outbox: &mut Outbox) -> Result<(), Error> {
    let model = due.model.get()?;
    let config = model.config();
    let [_, _, channels] = config.image();
    if channels != 1 && channels != 3 {
        return Ok(());
    }
    let count = samples(config);
    let labels: Vec<usize> =
        if config.classes() == 0 { vec![] } else { (0..count).map(|i| i % config.classes()).collect() };
    let latents = model.draw(count, TEMPERATURE, 0)?;
    let samples = model.decode_while(&latents, &labels, || due.check_stop())?;
    if !samples.all_finite() {
        outbox.notice(
            "some samples contain NaN or infinite values, drawn black; they become fewer as training continues",
        );
    }
    let picture = picture::grid(&samples.into_bytes(), config.image(), columns(config));
    picture::save(&folder.join(SAMPLES), &picture)?;
    outbox.picture("samples", due.step, picture);
    Ok(())
}

fn draw_curve(folder: &Path) -> Result<(), Error> {
    let records = metrics::read(&folder.join(METRICS))?;
    let train = metrics::points(&records, "train_bits_per_dim");
    let test = metrics::points(&records, "test_bits_per_dim");
    let name = folder.file_name().map_or("run".into(), |name| name.to_string_lossy());
    Ok(Curve { title: &name, train: &train, test: &test }.save(&folder.join(CURVE))?)
}
