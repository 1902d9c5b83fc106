//! Training without a run's folder, in a custom loop:
//! `cargo run --release -p glowflow-examples --example training_loop -- DATA MODEL.safetensors`

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use glowflow::evaluate::{Draws, Inversion, evaluate};
use glowflow::train::{RunConfig, Trainer};
use glowflow::{Cpu, Model, data};
use glowflow_data::{Augment, Dataset, Subset, TrainingBatches, TrainingOptions};

const USAGE: &str = "usage: training_loop DATA MODEL.safetensors [STEPS]

  DATA                a folder of images, other data that `glowflow train` reads, or `portraits`
  MODEL.safetensors   the trained model, for every command of `glowflow`
  STEPS               optimiser steps, default 500";

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [path, out, rest @ ..] = &args[..] else { bail!(USAGE) };
    ensure!(rest.len() <= 1, USAGE);
    let steps = rest.first().map_or(Ok(500), |steps| steps.parse()).context(USAGE)?;

    // A preset, with one setting overridden. Models of any built-in architecture are configured this way.
    let config = RunConfig::resolve(Some("tiny32"), None, &["model.hidden=32".into()])?;
    let images = data::open(Path::new(path), &config.model, &[])?;
    let (train, test) = glowflow_data::split(images.train, 0.05, config.train.seed)?;

    // Background threads read and augment the images ahead.
    let augment = Augment { flip: true, ..Augment::default() };
    let t = &config.train;
    let options = TrainingOptions { batch_size: t.batch, seed: t.seed, augment, start_at: 0, threads: 2 };
    let batches = TrainingBatches::new(Arc::new(train), options)?;

    let mut trainer = Trainer::new(Cpu::<f32>::new(), config)?;
    for (step, batch) in batches.take(steps).enumerate() {
        let batch = batch?;
        if step == 0 {
            trainer.initialize(&batch.pixels, &[])?; // actnorms, from data
        }
        let report = trainer.step(&batch.pixels, &[])?;
        if step % 20 == 0 || step + 1 == steps {
            println!("step {step}: {:.3} bits/dim", report.bits_per_dim);
        }
    }

    // The exported model has the moving average of the weights.
    let file = trainer.model()?;
    let model = Model::on(Cpu::<f32>::new(), &file);
    let test: Arc<dyn Dataset> = Arc::new(Subset::sample(Arc::new(test), 64, 0));
    let inversion = Inversion { images: 16, seed: 0 };
    let e = evaluate(&model, &test, Draws::default(), inversion, |_| Ok(()))?;
    println!("test: {:.3} bits/dim, {} of {} images invert exactly", e.bits_per_dim, e.exact, e.inverted);
    file.write(Path::new(out))?;
    Ok(())
}
