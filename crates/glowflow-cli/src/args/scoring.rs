//! What models say of images, and what they are.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::PrecisionArg;

#[derive(Debug, Args)]
pub struct Scoring {
    /// How pixels become continuous: the middle of each bin, or noise as in training and in papers.
    #[arg(long, value_enum, default_value_t = DequantizationArg::Uniform)]
    pub dequantization: DequantizationArg,
    /// Draws of the noise that are averaged.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub draws: u64,
    /// Seed of the noise, and of the choice of images if only some are evaluated.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Precision of the products in coupling networks.
    #[arg(long, default_value = "auto")]
    pub precision: PrecisionArg,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DequantizationArg {
    Midpoint,
    Uniform,
}

/// Mean bits/dim on a dataset, and how exactly the model inverts.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  glowflow eval --model run --data cifar-10-batches-bin --dequantization uniform --draws 4"
)]
pub struct Eval {
    /// A run's folder or a model file.
    #[arg(long)]
    pub model: PathBuf,
    /// The images; where they come with a test set, that.
    #[arg(long)]
    pub data: PathBuf,
    /// Only N images, drawn at random by --seed.
    #[arg(long, value_name = "N")]
    pub images: Option<usize>,
    /// Encode and decode this many images, drawn at random by the seed, to measure how exactly the model inverts: a
    /// number, or all.
    #[arg(long, default_value = "1000", value_name = "N", value_parser = parse_invert)]
    pub invert: usize,
    /// Succeed although images that could not be read were left out.
    #[arg(long)]
    pub allow_broken: bool,
    #[command(flatten)]
    pub scoring: Scoring,
}

fn parse_invert(text: &str) -> Result<usize, String> {
    if text == "all" {
        return Ok(usize::MAX);
    }
    text.parse().map_err(|_| format!("{text:?} is not a number of images, or all"))
}

/// Log-likelihood and bits/dim of each image, as CSV, or with --json as a JSON object a line.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  glowflow score --model run --data photos/ --dequantization midpoint --csv scores.csv"
)]
pub struct Score {
    /// A run's folder or a model file.
    #[arg(long)]
    pub model: PathBuf,
    /// The images; where they come with a test set, that.
    #[arg(long)]
    pub data: PathBuf,
    /// Where to write; - is the standard output.
    #[arg(long, default_value = "-", value_name = "FILE")]
    pub csv: PathBuf,
    /// Score every image as this class: a name or a number.
    #[arg(long, value_name = "CLASS")]
    pub label: Option<String>,
    /// Succeed although images that could not be read were left out.
    #[arg(long)]
    pub allow_broken: bool,
    #[command(flatten)]
    pub scoring: Scoring,
}

/// What a model is.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  glowflow info --model run --json")]
pub struct Info {
    /// A run's folder or a model file.
    #[arg(long)]
    pub model: PathBuf,
}
