//! Images out of models, and images to latents and back.

use std::path::PathBuf;

use clap::{ArgGroup, Args};

use super::PrecisionArg;

/// Draw images from the model.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  glowflow sample --model run --count 64 --temperature 0.7 --out grid.png\n  glowflow sample \
    --model run --temperatures 0,0.25,0.5,0.75,1 --out temperatures.png"
)]
#[command(group = ArgGroup::new("to").args(["out", "out_dir"]))]
pub struct Sample {
    /// A run's folder or a model file.
    #[arg(long)]
    pub model: PathBuf,
    /// How many; 64 where nothing is said, 8 with --temperatures.
    #[arg(long)]
    pub count: Option<usize>,
    /// Spread of the latents: 1 is the model's own, less gives smoother images.
    #[arg(long, default_value_t = 0.7, allow_negative_numbers = true)]
    pub temperature: f64,
    /// A picture with a row for each sample and a column for each of these temperatures.
    #[arg(long, value_name = "T,…", value_delimiter = ',', conflicts_with_all = ["temperature", "out_dir"])]
    pub temperatures: Vec<f64>,
    /// Seed: equal seeds give equal images.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Class to draw, where the model has classes: its name or its number.
    #[arg(long, value_name = "CLASS")]
    pub class: Option<String>,
    /// Precision of the products in coupling networks.
    #[arg(long, default_value = "auto")]
    pub precision: PrecisionArg,
    /// One picture of all samples; - is the standard output. By default a new samples.png in the current folder.
    #[arg(long, value_name = "PNG")]
    pub out: Option<PathBuf>,
    /// A folder for one file each.
    #[arg(long, value_name = "DIR")]
    pub out_dir: Option<PathBuf>,
}

/// Latents of images, into a file that decodes to the same pixels: exactly, in as many bits as the model has.
///
/// Each batch is decoded at once and compared. Images that do not come back exactly keep their pixels in the file.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  glowflow encode --model run --data photos/ --out latents.safetensors")]
pub struct Encode {
    /// A run's folder or a model file.
    #[arg(long)]
    pub model: PathBuf,
    /// The images.
    #[arg(long)]
    pub data: PathBuf,
    /// Encode every image as this class: a name or a number.
    #[arg(long, value_name = "CLASS")]
    pub label: Option<String>,
    /// The file to write.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Succeed although images that could not be read were left out.
    #[arg(long)]
    pub allow_broken: bool,
}

/// Images from latents, compared with checksums of the pixels that were encoded.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  glowflow decode --model run --latents latents.safetensors --out-dir decoded"
)]
pub struct Decode {
    /// A run's folder or a model file.
    #[arg(long)]
    pub model: PathBuf,
    /// A file that encode wrote.
    #[arg(long, value_name = "FILE")]
    pub latents: PathBuf,
    /// Accept latents that were edited after encode wrote them, and so decode to other pixels.
    #[arg(long)]
    pub edited: bool,
    /// A folder for one PNG each.
    #[arg(long, value_name = "DIR")]
    pub out_dir: PathBuf,
}
