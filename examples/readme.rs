//! The Rust code of README.md as a program; `tests/readme.rs` checks that they are equal:
//! `cargo run --release -p glowflow-examples --example readme -- IMAGE`, in the folder that holds `run`.

use std::path::Path;

use anyhow::bail;
use glowflow::{Dequantization, Draws, Model};
use glowflow_data::load_picture;
use ndarray::Array4;

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [image] = &args[..] else {
        bail!("usage: readme IMAGE\n\n  IMAGE   a file in the size of the model's images")
    };
    let (pixels, shape) = load_picture(Path::new(image))?;
    let pixels = Array4::from_shape_vec((1, shape.height, shape.width, shape.channels), pixels)?;

    let model = Model::load("run/model.safetensors")?;
    let draws = Draws::Uniform { draws: 8, seed: 0 };
    println!("{:.2} bits/dim, {draws}", model.bits_per_dim(pixels.view(), &[], draws)?[0]); // u8 [batch, H, W, C]
    let encoded = model.encode(pixels.view(), &[], Dequantization::Typical)?;
    let unknown = 8 - model.config().bits(); // low bits that a model of fewer than 8 bits drops
    assert_eq!(model.decode(&encoded.latents, &[])?.pixels, pixels.mapv(|pixel| pixel >> unknown << unknown));
    let faces = model.sample(16, 0.7, &[], 42)?.pixels; // u8 [16, H, W, C]

    println!("samples: {:?}", faces.shape());
    Ok(())
}
