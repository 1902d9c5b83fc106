//! Converts a run to a folder for publication:
//! `cargo run --release -p glowflow-examples --example publish -- RUN OUT`
//!
//! Weights and directions are rounded to bf16, which halves their size, and the card describes the rounded
//! model. The bundled model was made with this program.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use glowflow::card::{Card, DataCard, EvaluationCard, TrainingCard};
use glowflow::evaluate::{Inversion, evaluate};
use glowflow::latent::{DIRECTIONS, find_directions};
use glowflow::model::MODEL;
use glowflow::train::{CONFIG, RunConfig, trained};
use glowflow::{Architecture, Draws, Model, ModelFile, data, faces};
use glowflow_data::{Dataset, Subset};

/// Number of images for computing and measuring directions.
const LABELLED: usize = 3000;

const USAGE: &str = "usage: publish RUN OUT

  RUN   the folder of a run on portraits
  OUT   the folder to write: config.json, README.md, model.safetensors and more";

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [run, out] = &args[..] else { bail!(USAGE) };
    let (run, out) = (Path::new(run), Path::new(out));
    std::fs::create_dir_all(out).with_context(|| format!("creating {}", out.display()))?;

    // The rounded weights are a different model, so directions and scores are computed with them.
    ModelFile::read(run)?.write_bf16(&out.join(MODEL))?;
    let file = ModelFile::read(out)?;
    let model = Model::load(out)?;
    let config = RunConfig::read(&run.join(CONFIG))?;
    let path = config.data.path.clone().context("the run has no data")?;

    let labelled = data::open_labelled(&path, None, model.config(), &[], None)?;
    let sample = Subset::sample(labelled.dataset, LABELLED, 0);
    let attributes = labelled.attributes.of_subset(sample.indices());
    let found = find_directions(&model, &(Arc::new(sample) as Arc<dyn Dataset>), &attributes, &[], None)?;
    for direction in &found.directions.list {
        println!("{:<20} {:?}", direction.about.name, direction.about.auc.map(|auc| auc.value));
    }
    found.directions.write_bf16(&out.join(DIRECTIONS))?;

    let splits = data::open(&path, model.config(), &[])?;
    let test = splits.test.context("the data has no test images")?;
    let draws = Draws::mean(model.config().noise(), 1, config.train.seed);
    let inversion = Inversion { images: test.len(), seed: config.train.seed };
    let evaluation = evaluate(&model, &test, draws, inversion, |_| Ok(()))?;
    let error = evaluation.standard_error;
    // A single image has none.
    let error = if error.is_finite() { format!(" ± {error:.4}") } else { String::new() };
    println!("{:.4}{error} bits/dim, {draws}", evaluation.bits_per_dim);

    let steps = trained(run).map_or(0, |trained| trained.steps);
    let mut card = Card::new(MODEL, model.config().clone(), file.fingerprint(), model.parameters());
    card.data = DataCard {
        name: path.file_name().map_or(String::new(), |name| name.to_string_lossy().into_owned()),
        images: splits.train.len(),
        test_images: test.len(),
        classes: vec![],
    };
    card.training = TrainingCard {
        steps,
        batch: config.train.batch,
        seed: config.train.seed,
        precision: "f32".to_owned(),
        device: "cpu".to_owned(),
        config: config.to_toml()?,
    };
    card.evaluation = Some(EvaluationCard::of(steps, &evaluation));
    card.write(out)?;
    std::fs::write(out.join(CONFIG), config.to_toml()?)?;
    if let Some(known) = faces::read(run)? {
        // `config.toml` exists, so the folder counts as a run's.
        faces::write(out, known)?;
    }
    Ok(())
}
