//! Writes samples of a model to a PNG file:
//! `cargo run --release -p glowflow-examples --example sample -- MODEL OUT.png`

use std::path::Path;
use std::str::FromStr;

use anyhow::{anyhow, bail, ensure};
use glowflow::{Architecture, Model};
use glowflow_report::picture;

const USAGE: &str = "usage: sample MODEL OUT.png [COUNT [TEMPERATURE [SEED]]]

  MODEL         a model file, or the folder of a run
  OUT.png       the picture, in rows of 8 images
  COUNT         number of images, default 16
  TEMPERATURE   standard deviation of the latents, default 0.7; 1 is the model's own distribution
  SEED          default 0; image i of a seed is the same for any COUNT";

/// A numeric command-line argument.
fn number<T: FromStr>(text: Option<&String>, default: T) -> anyhow::Result<T> {
    let parse = |text: &String| text.parse().map_err(|_| anyhow!("{text:?} is not a number here\n\n{USAGE}"));
    text.map_or(Ok(default), parse)
}

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [model, out, options @ ..] = &args[..] else { bail!(USAGE) };
    ensure!(options.len() <= 3, USAGE);
    let count: usize = number(options.first(), 16)?;
    let (temperature, seed) = (number(options.get(1), 0.7)?, number(options.get(2), 0)?);
    ensure!(count > 0, "COUNT is 0; it must be at least 1");

    let model = Model::load(model)?;
    let config = model.config();
    // A model with classes requires one label per image; other models take none.
    let labels: Vec<usize> = (0..config.labels_of(count)).map(|i| i % config.classes()).collect();
    let samples = model.sample(count, temperature, &labels, seed)?;
    if !samples.all_finite() {
        eprintln!("warning: a sample has NaN or infinite values; try a lower temperature");
    }
    picture::save(Path::new(out), &picture::grid(&samples.into_bytes(), config.image(), count.min(8)))?;
    Ok(())
}
