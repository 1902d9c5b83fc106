//! `eval`, `score` and `info`.

use std::path::PathBuf;

use clap::{Args, ValueEnum, value_parser};
use glowflow::Precision;

use super::PRECISIONS;
use super::choice::parser;

/// Maximum number of noise draws, more than any evaluation needs.
const MAX_DRAWS: u64 = 1_000_000;

#[derive(Debug, Args)]
pub struct Scoring {
    /// Dequantisation of pixels: uniform noise, as in papers, and the learned noise of a variational model
    /// give upper bounds on bits/dim; the midpoint gives the density at the bin centres, which is not a
    /// bound. [default: as in training]
    #[arg(long, value_enum)]
    pub dequantization: Option<DequantizationArg>,
    /// Number of noise draws to average the bound over.
    #[arg(long, default_value_t = 1, value_name = "N", conflicts_with = "importance",
        value_parser = value_parser!(u64).range(1..=MAX_DRAWS))]
    pub draws: u64,
    /// Importance-weighted bound with K draws: lower than the mean over K draws, and closer to the model's
    /// bits/dim. Takes K forward passes. [default: none]
    #[arg(long, value_name = "K", value_parser = parse_importance)]
    pub importance: Option<u64>,
    /// Seed: equal seeds give equal results.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Precision of the matrix products in coupling networks.
    #[arg(long, default_value = "auto", value_parser = parser(PRECISIONS))]
    pub precision: Precision,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DequantizationArg {
    Midpoint,
    Uniform,
    Variational,
}

/// Measure the mean bits/dim on a dataset, and the exactness of inversion.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  glowflow eval --model run --data cifar-10-batches-bin --draws 4\n  \
    glowflow eval --model run --data cifar-10-batches-bin --importance 100\n\nEvery value of bits/dim is labelled: \
    uniform or variational bound (the mean over the draws), importance-weighted bound, or density at bin centre, which is not a bound. \
    Values with different labels are not comparable, nor are importance-weighted bounds with different k. ± is the standard \
    error over images.")]
pub struct Eval {
    /// A run folder, a model file, or portraits, the model included in the program.
    #[arg(long)]
    pub model: PathBuf,
    /// The images. If they have a test set, only that is used.
    #[arg(long)]
    pub data: PathBuf,
    /// Use only N images, selected at random with --seed. [default: all]
    #[arg(long, value_name = "N")]
    pub images: Option<usize>,
    /// Number of images to encode and decode, or all, to measure the exactness of inversion; selected at
    /// random with --seed.
    #[arg(long, default_value = "1000", value_name = "N", value_parser = parse_invert)]
    pub invert: usize,
    #[command(flatten)]
    pub scoring: Scoring,
    /// Exit with status 0 even if unreadable images were skipped.
    #[arg(long)]
    pub allow_broken: bool,
}

fn parse_importance(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(draws) if (1..=MAX_DRAWS).contains(&draws) => Ok(draws),
        _ => Err(format!("{text:?} is not a number of draws: give 1 to {MAX_DRAWS}, such as 100")),
    }
}

fn parse_invert(text: &str) -> Result<usize, String> {
    if text == "all" {
        return Ok(usize::MAX);
    }
    text.parse().map_err(|_| format!("{text:?} is neither a number of images nor all"))
}

/// Compute the log-likelihood and bits/dim of each image, as CSV, or with --json as one JSON object per line.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  glowflow score --model run --data photos/ --draws 8 --csv scores.csv\n\nWith noise, \
    bits_per_dim is an upper bound and log_likelihood a lower bound, in expectation over the draws. The column bound \
    names its kind: uniform, variational, importance-weighted, or none for the density at the bin centres."
)]
pub struct Score {
    /// A run folder, a model file, or portraits, the model included in the program.
    #[arg(long)]
    pub model: PathBuf,
    /// The images. If they have a test set, only that is used.
    #[arg(long)]
    pub data: PathBuf,
    /// Class of all images, by name or number, for models with classes. [default: the labels of the data]
    #[arg(long, alias = "label", value_name = "CLASS")]
    pub class: Option<String>,
    #[command(flatten)]
    pub scoring: Scoring,
    /// Exit with status 0 even if unreadable images were skipped.
    #[arg(long)]
    pub allow_broken: bool,
    /// The file to write; - for standard output.
    #[arg(long, default_value = "-", value_name = "FILE")]
    pub csv: PathBuf,
}

/// Describe a model: its architecture and, for a run folder, its training.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  glowflow info --model run --json")]
pub struct Info {
    /// A run folder, a model file, or portraits, the model included in the program.
    #[arg(long)]
    pub model: PathBuf,
}
