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
    /// A run's folder, a model file, or portraits, the model that comes with the program.
    #[arg(long)]
    pub model: PathBuf,
    /// Number of images. [default: 64, or 8 with --temperatures]
    #[arg(long, value_name = "N")]
    pub count: Option<usize>,
    /// Class of the images, by name or number: required by models with classes. [default: none]
    #[arg(long, alias = "label", value_name = "CLASS")]
    pub class: Option<String>,
    /// Spread of the latents: 1 is the model's own, less gives smoother images.
    #[arg(long, default_value_t = 0.7, allow_negative_numbers = true)]
    pub temperature: f64,
    /// Several temperatures: the picture has a row for each sample and a column for each temperature. [default: none]
    #[arg(long, value_name = "T,…", value_delimiter = ',', conflicts_with_all = ["temperature", "out_dir"])]
    pub temperatures: Vec<f64>,
    /// Seed: equal seeds give equal images.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Precision of the products in coupling networks.
    #[arg(long, default_value = "auto", value_parser = parser(PRECISIONS))]
    pub precision: Precision,
    /// One picture of all samples; - is the standard output. [default: a new samples.png in the current folder]
    #[arg(long, value_name = "PNG")]
    pub out: Option<PathBuf>,
    /// A folder for one PNG file per sample. [default: none]
    #[arg(long, value_name = "DIR")]
    pub out_dir: Option<PathBuf>,
}

/// Encode images to latents, in a file that decodes to the same pixels: exactly, in as many bits as the model has.
///
/// Each batch is decoded at once and compared. Images that do not come back exactly keep their pixels in the file.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  glowflow encode --model run --data photos/ --out latents.safetensors")]
pub struct Encode {
    /// A run's folder, a model file, or portraits, the model that comes with the program.
    #[arg(long)]
    pub model: PathBuf,
    /// The images.
    #[arg(long)]
    pub data: PathBuf,
    /// Class of all images, by name or number, for models with classes. [default: the labels of the data]
    #[arg(long, alias = "label", value_name = "CLASS")]
    pub class: Option<String>,
    /// Succeed although images that could not be read were left out.
    #[arg(long)]
    pub allow_broken: bool,
    /// The file to write.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}

/// Decode latents to images, compared with checksums of the pixels that were encoded.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  glowflow decode --model run --latents latents.safetensors --out-dir decoded"
)]
pub struct Decode {
    /// A run's folder, a model file, or portraits, the model that comes with the program.
    #[arg(long)]
    pub model: PathBuf,
    /// A file that encode wrote.
    #[arg(long, value_name = "FILE")]
    pub latents: PathBuf,
    /// Accept latents that were edited after encode wrote them, and so decode to other pixels.
    #[arg(long)]
    pub edited: bool,
    /// A folder for one PNG file per image: photo.png for photo.jpg, and photo-2.png if that is taken.
    #[arg(long, value_name = "DIR")]
    pub out_dir: PathBuf,
}
