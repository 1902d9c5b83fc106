//! Comparing configurations.

use std::path::PathBuf;

use clap::Args;
use glowflow::Precision;
use glowflow::study::{Budget, Scale};

use super::PRECISIONS;
use super::choice::{Choice, parser};

/// Train a set of configurations with equal budgets and several seeds, and compare them.
///
/// Each run has its own folder, OUT/CONFIGURATION/seed-N, and can be used like any other run. OUT/study.csv
/// contains the bits/dim of held-out images at every evaluation, OUT/study.png one curve per configuration
/// with a band over seeds, OUT/study.md a table with mean ± standard error, parameters and images/s.
///
/// A study with a curve compares all configurations with the first one, the baseline: by differences of
/// bits/dim paired by image, and by compute multipliers, the training that the baseline needs for the same
/// bits/dim, at equal time and at equal counted floating-point operations. OUT/study.comparison.csv contains
/// them, too.
///
/// Ctrl-C (or SIGTERM, SIGHUP, SIGUSR1) stops after the current step and saves a checkpoint. The same command
/// continues from there, or from the last checkpoints after a kill, with the same results.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  glowflow study permutations --data cifar-10-batches-bin
  glowflow study permutations --data portraits --images 6400 --seeds 0 --out small
  glowflow study realnvp-vs-glow --data cifar-10-batches-bin --scale gpu
  glowflow study width.toml --dry-run
  glowflow study speedrun --data cifar-10-batches-bin --arms batch-16

A study file:
  name = \"width\"
  seeds = [0, 1, 2]
  images = 50_000        # of each run; or steps, or minutes (of training), or flops
  evaluations = 10       # or evaluate_every, in images
  curve = [0.5, 1, 2]    # optional: a comparison with the first configuration

  [base]                 # common to all: preset, model, train, data
  preset = \"tiny32\"
  data = { path = \"portraits\" }

  [[configurations]]     # a name, and its own preset, model, train, data (augmentation only)
  name = \"narrow\"
  model = { hidden = 32 }

  [[configurations]]
  name = \"wide\"
  model = { hidden = 64 }")]
pub struct Study {
    /// A built-in study (permutations: reverse, shuffle and 1×1 convolutions, each additive and affine;
    /// realnvp-vs-glow: equal parameters; speedrun: parts of the recipe against a baseline), or a TOML file.
    #[arg(value_name = "NAME|FILE")]
    pub study: PathBuf,
    /// The images to train and test on, as for train. [default: data.path of the study file]
    #[arg(long, value_name = "DATA")]
    pub data: Option<PathBuf>,
    /// Size of a built-in study. [default: cpu]
    #[arg(long, value_parser = parser(SCALES))]
    pub scale: Option<Scale>,
    /// Seeds; each configuration is trained once with each. [default: those of the study]
    #[arg(long, value_name = "N,N,…", value_delimiter = ',')]
    pub seeds: Option<Vec<u64>>,
    /// Training steps per run. [default: the study's budget]
    #[arg(long, value_name = "N", group = "budget")]
    pub steps: Option<u64>,
    /// Training images per run. [default: the study's budget]
    #[arg(long, value_name = "N", group = "budget")]
    pub images: Option<u64>,
    /// Counted floating-point operations of training per run, such as 1e15. [default: the study's budget]
    #[arg(long, value_name = "N", group = "budget", allow_negative_numbers = true)]
    pub flops: Option<f64>,
    /// Minutes of training per run, without evaluations. In a comparison, and for schedules with an end, the
    /// number of steps follows from a measured speed. [default: the study's budget]
    #[arg(long, value_name = "N", group = "budget", allow_negative_numbers = true)]
    pub minutes: Option<f64>,
    /// Override one value in all configurations, such as train.batch=32. Can be repeated. [default: none]
    #[arg(long = "set", value_name = "K=V")]
    pub overrides: Vec<String>,
    /// Precision of the matrix products in coupling networks. [default: as in the study, else auto]
    #[arg(long, value_parser = parser(PRECISIONS))]
    pub precision: Option<Precision>,
    /// Configurations to train; the baseline of a comparison is always trained. Finished runs are kept.
    /// [default: all]
    #[arg(long, value_name = "NAME,NAME,…", value_delimiter = ',')]
    pub arms: Option<Vec<String>>,
    /// Multiples of the budget to train the first configuration with as well, to compare all others with it.
    /// [default: those of the study]
    #[arg(long, value_name = "N,N,…", value_delimiter = ',', allow_negative_numbers = true)]
    pub curve: Option<Vec<f64>>,
    /// Print the configurations with their parameters, images and floating-point operations, without
    /// training.
    #[arg(long)]
    pub dry_run: bool,
    /// Study folder. If it contains the same study, that study continues. [default: studies/NAME]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

impl Study {
    /// The budget that replaces that of the study.
    pub fn budget(&self) -> Option<Budget> {
        let (steps, images) = (self.steps.map(Budget::Steps), self.images.map(Budget::Images));
        let (minutes, flops) = (self.minutes.map(Budget::Minutes), self.flops.map(Budget::Flops));
        steps.or(images).or(minutes).or(flops)
    }
}

/// Values of `--scale`.
const SCALES: &[Choice<Scale>] = &[
    ("cpu", "Small models, for two cores", Scale::Cpu),
    ("gpu", "Models of the published size", Scale::Gpu),
];
