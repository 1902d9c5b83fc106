//! `quickstart`, `train` and `bench`.

use std::path::PathBuf;

use clap::{Args, value_parser};
use glowflow::{Backprop, Precision};
use glowflow_data::Eyes;

use super::PRECISIONS;
use super::choice::{Choice, parser};

/// Train a small model in about two minutes on portraits that the program draws, and show what it learned.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  glowflow quickstart")]
pub struct Quickstart {
    /// Minutes to train.
    #[arg(long, default_value_t = 2.0, allow_negative_numbers = true)]
    pub minutes: f64,
    /// Seed of weights, noise and image order.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Folder to write to. [default: a new folder quickstart, quickstart-2 and so on]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// Train a model on images, or continue a run.
///
/// Ctrl-C (or SIGTERM, SIGHUP, SIGUSR1) stops after the current step, saves a checkpoint and refreshes
/// samples.png and curve.png; --resume continues from there as if uninterrupted.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  glowflow train --data photos/ --preset faces64 --minutes 60 --out run
  glowflow train --data fashion-mnist/ --preset tiny32 --classes --minutes 20 --out run
  glowflow train --from run --data other-photos/ --minutes 10 --out run2
  glowflow train --resume run --minutes 60
  glowflow train --resume run --set train.lr=5e-4
  mpirun -np 4 glowflow train --data photos/ --preset faces64 --out run
  glowflow train --data cifar-10-batches-bin --preset tiny32 --set model.steps=8 --set train.batch=16 --steps 1000 \
    --out run

Grey images train a grey model, unless --set model.image or --config sets the number of channels. The samples in \
    samples.png are refreshed after 1, 2 and 5 minutes and then every 10 (train.samples_minutes), at every evaluation, \
    and at the end.")]
pub struct Train {
    /// A folder of images, CIFAR-10 binaries, idx files, a NumPy array, or the word "portraits". With
    /// --resume: the images' new location, if they were moved. [default: those of --config or --resume]
    #[arg(long, value_name = "DATA", required_unless_present_any = ["resume", "config"])]
    pub data: Option<PathBuf>,
    /// Test images. With --resume: their new location. [default: the data's own test set, else a held-out
    /// fraction]
    #[arg(long, value_name = "DATA")]
    pub test_data: Option<PathBuf>,
    /// Fraction of the images to hold out for testing. [default: 0.05 if the data has at least 100 images
    /// and no test set]
    #[arg(long, value_name = "F", conflicts_with = "test_data")]
    pub test_fraction: Option<f64>,
    /// Train a class-conditional model, with the classes of the data's labels or sub-folders.
    #[arg(long)]
    pub classes: bool,
    /// Positions of the left and right eye in the images, as fractions of width and height. They are stored
    /// with the model, and photographs are aligned to them. With --resume: replaces them. [default: those
    /// stored with the data, or with the model of --from]
    #[arg(long, value_name = "X,Y,X,Y")]
    pub eyes: Option<Eyes>,
    /// Name of a published or small configuration; an unknown name lists all. [default: the
    /// architecture of preset cifar10, with batches of 64; takes days on a CPU]
    #[arg(long, value_name = "NAME")]
    pub preset: Option<String>,
    /// A TOML file with the sections [model], [train] and [data]. [default: none]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Override one value of the configuration, such as model.steps=8. Can be repeated. With --resume: a
    /// value that may change, such as train.lr, train.schedule or train.eval_every. [default: none]
    #[arg(long = "set", value_name = "K=V")]
    pub overrides: Vec<String>,
    /// Fine-tune: start from the weights of a model, given as a run folder, a model file, or portraits, the
    /// model included in the program. The architecture is the model's, and the settings are those of its run,
    /// with a constant schedule and an eighth of the learning rate (all of it if that run was itself
    /// fine-tuned). [default: new weights]
    #[arg(long, value_name = "MODEL")]
    pub from: Option<PathBuf>,
    /// Hidden activations in the backward pass: recomputed (less memory) or stored (faster). [default: as in
    /// the preset, else reversible]
    #[arg(long, value_parser = parser(BACKPROPS))]
    pub backprop: Option<Backprop>,
    /// Precision of the matrix products in coupling networks. [default: auto]
    #[arg(long, value_parser = parser(PRECISIONS))]
    pub precision: Option<Precision>,
    /// Seed of weights, noise, image order and augmentation. [default: 0]
    #[arg(long)]
    pub seed: Option<u64>,
    /// Stop at step N, counted from the start of the run, including steps before a resume. [default:
    /// train.steps, else no limit]
    #[arg(long, value_name = "N")]
    pub steps: Option<u64>,
    /// Stop after N images, counted in the same way. [default: train.steps, else no limit]
    #[arg(long, value_name = "N")]
    pub images: Option<u64>,
    /// Stop N minutes from now. With --resume, earlier training time does not count. [default: no limit]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub minutes: Option<f64>,
    /// Continue a run: its folder, or one of its checkpoints. [default: a new run]
    #[arg(long, value_name = "RUN")]
    pub resume: Option<PathBuf>,
    /// With mpirun or srun: seconds to wait for a process that does not answer.
    #[arg(long, default_value_t = 120, value_name = "N", value_parser = value_parser!(u64).range(1..=86_400))]
    pub ranks_limit: u64,
    /// Folder of the run. [default: a new folder run, run-2 and so on]
    #[arg(long, value_name = "RUN")]
    pub out: Option<PathBuf>,
}

/// Values of `--backprop`.
pub const BACKPROPS: &[Choice<Backprop>] =
    &[("reversible", "", Backprop::Reversible), ("stored", "", Backprop::Stored)];

/// Measure the speed of training and sampling on this machine.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  glowflow bench --preset tiny32 --set train.batch=16 --backprop stored")]
pub struct Bench {
    /// Name of a published or small configuration. [default: the architecture of preset cifar10, with batches
    /// of 64]
    #[arg(long, value_name = "NAME")]
    pub preset: Option<String>,
    /// A TOML file with the sections [model] and [train]. [default: none]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Override one value of the configuration, such as model.steps=8. Can be repeated. [default: none]
    #[arg(long = "set", value_name = "K=V")]
    pub overrides: Vec<String>,
    /// Hidden activations in the backward pass: recomputed or stored. [default: as in the preset, else
    /// reversible]
    #[arg(long, value_parser = parser(BACKPROPS))]
    pub backprop: Option<Backprop>,
    /// Precision of the matrix products in coupling networks. [default: auto]
    #[arg(long, value_parser = parser(PRECISIONS))]
    pub precision: Option<Precision>,
    /// Number of training steps, and of sampled batches, to time.
    #[arg(long, default_value_t = 10, value_name = "N")]
    pub repeat: usize,
    /// Print the peak memory of the process and the bytes of weights, gradient and optimiser instead, as JSON.
    #[arg(long, conflicts_with = "serve")]
    pub memory: bool,
    /// Read lines "train N" and "sample N" from standard input and answer each with a line of JSON, for
    /// interleaved timing with another program.
    #[arg(long)]
    pub serve: bool,
}
