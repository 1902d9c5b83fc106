//! Prints bits per dimension of image files:
//! `cargo run --release -p glowflow-examples --example score -- MODEL IMAGE...`

use std::path::Path;

use anyhow::{bail, ensure};
use glowflow::{Draws, Model};
use glowflow_data::{ImageShape, load_image};
use ndarray::Array4;

const USAGE: &str = "usage: score MODEL IMAGE...

  MODEL   a model file, or the folder of a run
  IMAGE   PNG, JPEG, WebP or BMP files, cropped and resized to the model's images";

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [model, images @ ..] = &args[..] else { bail!(USAGE) };
    ensure!(!images.is_empty(), USAGE);

    // Runs on the CPU; `Model::load_on` uses another device.
    let model = Model::load(model)?;
    ensure!(model.config().classes() == 0, "the model has classes: an image is scored with its label");
    let [height, width, channels] = model.config().image();
    let shape = ImageShape { height, width, channels };

    // The score is an upper bound, estimated as the mean over several draws of the dequantisation noise.
    let draws = Draws::Uniform { draws: 8, seed: 0 };
    for image in images {
        let pixels = load_image(Path::new(image), shape)?;
        let batch = Array4::from_shape_vec((1, height, width, channels), pixels)?;
        let bits = model.bits_per_dim(batch.view(), &[], draws)?;
        println!("{:.3} bits/dim  {image}", bits[0]);
    }
    println!("{draws}");
    Ok(())
}
