//! `info`: a model's architecture and file, and the training in its run's folder.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use glowflow::card::Card;
use glowflow::evaluate::Draws;
use glowflow::faces::{self, Faces};
use glowflow::latent::{DIRECTIONS, Directions};
use glowflow::model::MODEL;
use glowflow::train::checkpoint::CHECKPOINT;
use glowflow::train::{
    BEST, CONFIG, Evaluated, RunConfig, class_names, evaluated, recorded_config, run_folder, trained,
};
use glowflow::{Architecture, Model, ModelConfig, ModelFile, data, pretrained};
use serde_json::{Value, json};

use super::{counted, print_json, say};
use crate::{ExitCode, args};

/// The training of a model, as recorded in the other files of its run's folder.
struct Run {
    config: RunConfig,
    /// Number of training steps of the model.
    steps: Option<u64>,
    /// Its evaluation on test images.
    test: Option<Evaluated>,
    /// Number of images of the data; `None` if they are currently not readable.
    images: Option<usize>,
}

impl Run {
    /// Returns the run of a model, from its files or else from the model card; `None` if there is none, or it
    /// has another architecture.
    fn of(model: &Path, glow: &Model) -> Option<Self> {
        let folder = run_folder(model);
        let config = recorded_config(model).filter(|run| run.model == *glow.config())?;
        // The card has only the name of the data.
        let images = if RunConfig::read(&folder.join(CONFIG)).is_ok() {
            config.data.path.as_deref().and_then(|path| {
                let splits = data::open(path, &config.model, &config.data.classes).ok()?;
                Some(splits.train.len() + splits.test.map_or(0, |test| test.len()))
            })
        } else {
            Card::read(folder).map(|card| card.data.images + card.data.test_images)
        };
        let steps = trained(model).map(|trained| trained.steps);
        Some(Self { steps, test: evaluated(model), images, config })
    }

    /// The likelihood estimate used by the run's evaluations.
    fn estimate(&self) -> Draws {
        Draws::mean(self.config.model.noise(), 1, 0)
    }

    fn json(&self) -> Value {
        let train = &self.config.train;
        json!({
            "steps": self.steps,
            "batch": train.batch,
            "test": self.test.map(|Evaluated { step, bits_per_dim, inverse_error }| json!({
                "step": step,
                "bits_per_dim": bits_per_dim,
                "dequantization": self.estimate().dequantization(),
                "draws": self.estimate().count(),
                "bound": self.estimate().bound(),
                "inverse_error": inverse_error,
            })),
            "data": self.config.data.path,
            "images": self.images,
            "precision": train.precision,
            "backprop": train.backprop,
        })
    }

    fn print(&self) -> anyhow::Result<()> {
        let train = &self.config.train;
        if let Some(steps) = self.steps {
            say!("trained      {} of {}", counted(steps as usize, "step"), counted(train.batch, "image"));
        }
        if let Some(Evaluated { step, bits_per_dim: bits, inverse_error }) = self.test {
            let error = inverse_error.map_or(String::new(), |error| format!(", inverse error {error:.1e}"));
            say!("test         {bits:.4} bits/dim, {}, at step {step}{error}", self.estimate());
        }
        if let Some(path) = &self.config.data.path {
            let images =
                self.images.map_or("currently not readable".to_owned(), |count| counted(count, "image"));
            say!("data         {}, {images}", path.display());
        }
        say!("precision    {}", name(&train.precision)?);
        say!("backprop     {}", name(&train.backprop)?);
        Ok(())
    }
}

/// Name of a value in a configuration.
fn name(value: &impl serde::Serialize) -> anyhow::Result<String> {
    Ok(serde_json::to_value(value)?.as_str().unwrap_or_default().to_owned())
}

/// Architecture-specific keys and values of a configuration, and the architecture's name.
fn settings(config: &ModelConfig) -> anyhow::Result<Vec<(String, String)>> {
    let mut settings = vec![("architecture".to_owned(), config.architecture().to_owned())];
    if let Value::Object(keys) = serde_json::to_value(config)? {
        for (key, value) in keys {
            if !["architecture", "image", "bits", "classes"].contains(&key.as_str()) {
                settings.push((key, value.as_str().map_or_else(|| value.to_string(), str::to_owned)));
            }
        }
    }
    Ok(settings)
}

/// The model's file and, if `in_run`, the other files of the run's folder that hold weights or directions,
/// with their sizes in bytes.
fn files(model: &Path, in_run: bool) -> Vec<(PathBuf, u64)> {
    let mut paths = vec![ModelFile::path(model)];
    if in_run {
        let others = [MODEL, BEST, CHECKPOINT, DIRECTIONS].map(|name| run_folder(model).join(name));
        paths.extend(others.into_iter().filter(|path| *path != ModelFile::path(model)));
    }
    let size = |path: PathBuf| {
        let bytes = match pretrained::bytes(&path) {
            Some(bytes) => bytes.len() as u64,
            None => std::fs::metadata(&path).ok()?.len(),
        };
        Some((path, bytes))
    };
    paths.into_iter().filter_map(size).collect()
}

pub fn info(args: &args::Info, common: &args::Common) -> anyhow::Result<ExitCode> {
    let glow = Model::load(&args.model)?;
    let config = glow.config();
    let names = class_names(&args.model, config);
    let run = Run::of(&args.model, &glow);
    let faces = faces::read(&args.model)?;
    // Directions of another model are rejected, and not listed.
    let directions = Directions::read(&run_folder(&args.model).join(DIRECTIONS), &glow).ok();
    let fingerprint = format!("{:08x}", glow.fingerprint());
    let files = files(&args.model, run.is_some());
    if common.json {
        let eyes = match faces {
            Some(Faces::Aligned(eyes)) => Some([eyes.left(), eyes.right()]),
            _ => None,
        };
        let sizes =
            files.iter().map(|(path, bytes)| json!({ "path": path.to_string_lossy(), "bytes": bytes }));
        let directions = directions.map(|directions| {
            directions.list.into_iter().map(|direction| direction.about).collect::<Vec<_>>()
        });
        return print_json(&json!({
            "config": config,
            "class_names": names,
            "parameters": glow.parameters(),
            "latents": config.latent_shapes(),
            "fingerprint": fingerprint,
            "faces": faces.map(|faces| matches!(faces, Faces::Aligned(_))),
            "eyes": eyes,
            "directions": directions,
            "files": sizes.collect::<Vec<_>>(),
            "run": run.map(|run| run.json()),
        }))
        .map(|()| ExitCode::SUCCESS);
    }
    let [height, width, channels] = config.image();
    say!("image        {height}×{width}×{channels}, {} bits", config.bits());
    for (key, value) in settings(config)? {
        say!("{key:<12} {value}");
    }
    let names = if names.is_empty() { String::new() } else { format!(": {}", names.join(", ")) };
    say!("classes      {}{names}", config.classes());
    say!("parameters   {}", glow.parameters());
    say!("latents      {:?}", config.latent_shapes());
    say!("fingerprint  {fingerprint}");
    if let Some(run) = run {
        run.print()?;
    }
    match faces {
        Some(Faces::Aligned(eyes)) => say!("eyes         {eyes}"),
        Some(Faces::None) => say!("eyes         none: the images are not faces"),
        None => say!("eyes         unknown"),
    }
    let attributes = directions.map(|directions| directions.list).unwrap_or_default();
    let attributes: Vec<_> = attributes.into_iter().map(|direction| direction.about.name).collect();
    say!("directions   {}", if attributes.is_empty() { "none".to_owned() } else { attributes.join(", ") });
    for (path, bytes) in files {
        say!("file         {}, {:.1} MB", path.display(), bytes as f64 / 1e6);
    }
    Ok(ExitCode::SUCCESS)
}
