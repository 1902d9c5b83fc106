//! `sample`, `encode` and `decode`.

use std::path::PathBuf;

use clap::{ArgGroup, Args};
use glowflow::Precision;

use super::PRECISIONS;
use super::choice::parser;

/// Draw images from the model.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  glowflow sample --model portraits\n  glowflow sample --model run --count 64 --temperature 0.7 --out grid.png\n  glowflow sample \
    --model run --temperatures 0,0.25,0.5,0.75,1 --out temperatures.png"
)]
#[command(group = ArgGroup::new("to").args(["out", "out_dir"]))]
pub struct Sample {
    /// A run folder, a model file, or portraits, the model included in the program.
    #[arg(long)]
    pub model: PathBuf,
    /// Number of images. [default: 64, or 8 with --temperatures]
    #[arg(long, value_name = "N")]
    pub count: Option<usize>,
    /// Class of the images, by name or number; required for models with classes. [default: none]
    #[arg(long, alias = "label", value_name = "CLASS")]
    pub class: Option<String>,
    /// Factor on the standard deviation of the latents: 1 samples the model's distribution, lower values give
    /// smoother images.
    #[arg(long, default_value_t = 0.7, allow_negative_numbers = true)]
    pub temperature: f64,
    /// Several temperatures: one row per sample, one column per temperature. [default: none]
    #[arg(long, value_name = "T,…", value_delimiter = ',', conflicts_with_all = ["temperature", "out_dir"])]
    pub temperatures: Vec<f64>,
    /// Seed: equal seeds give equal images.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Precision of the matrix products in coupling networks.
    #[arg(long, default_value = "auto", value_parser = parser(PRECISIONS))]
    pub precision: Precision,
    /// One picture of all samples; - for standard output. [default: a new samples.png in the current folder]
    #[arg(long, value_name = "PNG")]
    pub out: Option<PathBuf>,
    /// Folder for one PNG file per sample. [default: none]
    #[arg(long, value_name = "DIR")]
    pub out_dir: Option<PathBuf>,
}

/// Encode images to latents, in a file that decodes to exactly the same pixels at the model's bit depth.
///
/// Each batch is decoded immediately and compared. For images that do not invert exactly, the file also
/// stores the pixels.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  glowflow encode --model run --data photos/ --out photos.latents")]
pub struct Encode {
    /// A run folder, a model file, or portraits, the model included in the program.
    #[arg(long)]
    pub model: PathBuf,
    /// The images. If they have a test set, only that is used.
    #[arg(long)]
    pub data: PathBuf,
    /// Class of all images, by name or number, for models with classes. [default: the labels of the data]
    #[arg(long, alias = "label", value_name = "CLASS")]
    pub class: Option<String>,
    /// Exit with status 0 even if unreadable images were skipped.
    #[arg(long)]
    pub allow_broken: bool,
    /// The file to write.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}

/// Decode latents to images, and verify them by checksums of the encoded pixels.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  glowflow decode --model run --latents photos.latents --out-dir decoded")]
pub struct Decode {
    /// A run folder, a model file, or portraits, the model included in the program.
    #[arg(long)]
    pub model: PathBuf,
    /// A file written by encode.
    #[arg(long, value_name = "FILE")]
    pub latents: PathBuf,
    /// Accept latents that were edited after encoding and therefore decode to different pixels.
    #[arg(long)]
    pub edited: bool,
    /// Folder for one PNG file per image: photo.png for photo.jpg, or photo-2.png if that name is taken.
    #[arg(long, value_name = "DIR")]
    pub out_dir: PathBuf,
}
