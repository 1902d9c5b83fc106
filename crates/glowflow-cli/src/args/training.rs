//! Making models.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use glowflow::Backprop;

use super::PrecisionArg;

/// Train a small model on portraits that the program draws, in about two minutes, and see what it learned.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  glowflow quickstart")]
pub struct Quickstart {
    /// Folder to write to; a new one where nothing is said.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Minutes to train.
    #[arg(long, default_value_t = 2.0, allow_negative_numbers = true)]
    pub minutes: f64,
    /// Seed of weights, noise and order.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
}

/// Train a model on images.
///
/// Ctrl-C (or SIGTERM, or SIGHUP) stops after the current step and saves a checkpoint; --resume goes on from
/// there as if nothing had happened.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  glowflow train --data photos/ --preset faces64 --minutes 60 --out run\n  glowflow train \
    --resume run --minutes 60\n  glowflow train --resume run --set train.lr=5e-4\n  glowflow train --data cifar-10-batches-bin --preset tiny32 --set model.steps=8 --set \
    train.batch=16 --steps 1000 --out run\n\nWithout a limit, training goes on until it is stopped."
)]
pub struct Train {
    /// A folder of images, CIFAR-10 binaries, idx files, a NumPy array, or the word "portraits". With --resume: where the
    /// images are now, if they were moved.
    #[arg(long, value_name = "DATA", required_unless_present_any = ["resume", "config"])]
    pub data: Option<PathBuf>,
    /// Images to test on; otherwise the data's own test set, or a part that is held out. With --resume: where they are now.
    #[arg(long, value_name = "DATA")]
    pub test_data: Option<PathBuf>,
    /// Part of the images to hold out for testing.
    #[arg(long, value_name = "F", conflicts_with_all = ["resume", "test_data"])]
    pub test_fraction: Option<f64>,
    /// A published or small configuration, by name; an unknown one lists them. Without one, the model is the published one for
    /// CIFAR-10: large, and slow without a GPU.
    #[arg(long, value_name = "NAME")]
    pub preset: Option<String>,
    /// A TOML file with the sections [model], [train] and [data].
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// One value of the configuration, such as model.steps=8. With --resume: a value that may change, such as
    /// train.lr, train.schedule or train.eval_every.
    #[arg(long = "set", value_name = "K=V")]
    pub overrides: Vec<String>,
    /// Whether hidden activations are computed again (little memory) or stored (faster).
    #[arg(long)]
    pub backprop: Option<BackpropArg>,
    /// Precision of the products in coupling networks.
    #[arg(long, conflicts_with = "resume")]
    pub precision: Option<PrecisionArg>,
    /// Seed of weights, noise, order and augmentation.
    #[arg(long, conflicts_with = "resume")]
    pub seed: Option<u64>,
    /// End after so many steps, those before a resume included.
    #[arg(long)]
    pub steps: Option<u64>,
    /// End after so many images.
    #[arg(long)]
    pub images: Option<u64>,
    /// End after so many minutes.
    #[arg(long, allow_negative_numbers = true)]
    pub minutes: Option<f64>,
    /// Folder of the run; by default a new one, run or run-2 and so on.
    #[arg(long, value_name = "RUN", conflicts_with = "resume")]
    pub out: Option<PathBuf>,
    /// Continue a run: its folder, or one of its checkpoints.
    #[arg(long, value_name = "RUN")]
    pub resume: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum BackpropArg {
    Reversible,
    Stored,
}

impl BackpropArg {
    /// The override of the configuration that says the same.
    pub fn as_override(self) -> String {
        let name = match self {
            Self::Reversible => "reversible",
            Self::Stored => "stored",
        };
        format!("train.backprop={name}")
    }
}

impl From<BackpropArg> for Backprop {
    fn from(arg: BackpropArg) -> Self {
        match arg {
            BackpropArg::Reversible => Self::Reversible,
            BackpropArg::Stored => Self::Stored,
        }
    }
}

/// How fast a model trains and samples on this machine.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  glowflow bench --preset tiny32 --set train.batch=16 --backprop stored")]
pub struct Bench {
    /// A published or small configuration, by name; the published one for CIFAR-10 where none is named.
    #[arg(long, value_name = "NAME")]
    pub preset: Option<String>,
    /// A TOML file with the sections [model] and [train].
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// One value of the configuration, such as model.steps=8.
    #[arg(long = "set", value_name = "K=V")]
    pub overrides: Vec<String>,
    /// Whether hidden activations are computed again or stored.
    #[arg(long)]
    pub backprop: Option<BackpropArg>,
    /// Precision of the products in coupling networks.
    #[arg(long)]
    pub precision: Option<PrecisionArg>,
    /// Training steps, and sampled batches, to time.
    #[arg(long, default_value_t = 10, value_name = "N")]
    pub repeat: usize,
    /// Print the memory that training steps take instead.
    #[arg(long, conflicts_with = "serve")]
    pub memory: bool,
    /// Read lines "train N" and "sample N" and answer each with a line of JSON, to be timed in turn with another program.
    #[arg(long)]
    pub serve: bool,
}
