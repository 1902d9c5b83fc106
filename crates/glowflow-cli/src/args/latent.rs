//! Commands that process images as latents.

use std::path::PathBuf;

use clap::{ArgGroup, Args};
use glowflow::latent::Interpolation;
use glowflow_data::Eyes;

use super::AlignArgs;
use super::choice::{Choice, parser};

/// Interpolate between images in latent space.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  glowflow interpolate --model run ann.jpg bob.jpg --frames 9 --out strip.png\n  glowflow \
    interpolate --model run ann.jpg bob.jpg eve.jpg --frames 16 --out loop.gif\n\nA .gif or .apng file plays the frames in a \
    loop that returns to the first image; any other file shows them side by side, one row per pair."
)]
pub struct Interpolate {
    /// Two or more pictures, aligned by their faces if the model's images are, otherwise centre-cropped.
    #[arg(required = true, num_args = 2.., value_name = "IMAGE")]
    pub images: Vec<PathBuf>,
    /// A run folder, a model file, or portraits, the model included in the program.
    #[arg(long)]
    pub model: PathBuf,
    /// Class of the pictures, by name or number; required for models with classes. [default: none]
    #[arg(long, alias = "label", value_name = "CLASS")]
    pub class: Option<String>,
    /// Number of frames from one picture to the next, including both.
    #[arg(long, default_value_t = 9, value_name = "N")]
    pub frames: usize,
    /// Path through latent space: a straight line, or a great circle (slerp).
    #[arg(long, default_value = "linear", value_parser = parser(PATHS))]
    pub path: Interpolation,
    #[command(flatten)]
    pub align: AlignArgs,
    /// A .png file with the frames side by side, or an animated .gif or .apng; - for standard output.
    /// [default: a new interpolation.png in the current folder]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// Values of `--path`.
const PATHS: &[Choice<Interpolation>] =
    &[("linear", "", Interpolation::Linear), ("spherical", "", Interpolation::Spherical)];

/// Compute attribute directions in latent space from labelled images.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  glowflow attributes --model run --data celeba/images --labels celeba/attributes.csv\n\nThe table \
    has a header line, one column with the names of the images, and others with yes (1, true, yes) and no (0, -1, \
    false, no); a field may be empty or NA. Fields are separated by commas, semicolons, tabs or spaces. A random fifth \
    of the labelled images is held out to evaluate the directions: AUC is the probability that, of two images, the one \
    with the attribute lies further along the direction."
)]
pub struct Attributes {
    /// A run folder, a model file, or portraits, the model included in the program.
    #[arg(long)]
    pub model: PathBuf,
    /// The images. If they have a test set, it is not used.
    #[arg(long)]
    pub data: PathBuf,
    /// A CSV table of attributes; the built-in portraits need none. [default: none]
    #[arg(long, value_name = "CSV")]
    pub labels: Option<PathBuf>,
    /// Use only N images, selected at random with --seed. [default: all]
    #[arg(long, value_name = "N")]
    pub images: Option<usize>,
    /// Class of all images, by name or number, for models with classes. [default: the labels of the data]
    #[arg(long, alias = "label", value_name = "CLASS")]
    pub class: Option<String>,
    /// Make all other directions orthogonal to those of these attributes, so that moving along them leaves
    /// these attributes unchanged. Can be repeated. [default: none]
    #[arg(long, value_name = "NAME,…")]
    pub orthogonalize: Vec<String>,
    /// Positions of the left and right eye in the images, as fractions of width and height. They are stored
    /// with the model, and photographs are aligned to them. [default: those stored with the model]
    #[arg(long, value_name = "X,Y,X,Y")]
    pub eyes: Option<Eyes>,
    /// Seed for --images: equal seeds select the same images.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// The file to write. [default: directions.safetensors in the run folder]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// Change attributes of pictures.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  glowflow manipulate --model run ann.jpg --set Smiling=0.7 --set Blond_Hair=-0.5 --out \
    out.png\n  glowflow manipulate --model run ann.jpg --sweep Smiling --frames 7 --out strip.png\n  glowflow manipulate \
    --model run photos/ --set Smiling=0.7 --out-dir smiling/"
)]
#[command(group = ArgGroup::new("how").required(true).multiple(true).args(["moves", "sweep"]))]
#[command(group = ArgGroup::new("to").args(["out", "out_dir"]))]
pub struct Manipulate {
    /// Pictures, or folders of pictures, aligned by their faces if the model's images are, otherwise
    /// centre-cropped.
    #[arg(required = true, value_name = "IMAGE|FOLDER")]
    pub images: Vec<PathBuf>,
    /// A run folder, a model file, or portraits, the model included in the program.
    #[arg(long)]
    pub model: PathBuf,
    /// A file written by attributes. [default: directions.safetensors in the run folder]
    #[arg(long, value_name = "FILE")]
    pub directions: Option<PathBuf>,
    /// Class of the pictures, by name or number; required for models with classes. [default: none]
    #[arg(long, alias = "label", value_name = "CLASS")]
    pub class: Option<String>,
    /// Move along the direction of an attribute by this amount, −3 to 3. ±1 is the usual range; beyond it,
    /// pictures become unlikely. Can be repeated.
    #[arg(long = "set", value_name = "NAME=A", value_parser = parse_move)]
    pub moves: Vec<(String, f64)>,
    /// Draw a strip of pictures that move along this attribute from −1 to 1.
    #[arg(long, value_name = "NAME")]
    pub sweep: Option<String>,
    /// Number of pictures in the strip.
    #[arg(long, default_value_t = 7, value_name = "N", requires = "sweep")]
    pub frames: usize,
    #[command(flatten)]
    pub align: AlignArgs,
    /// Exit with status 0 even if unreadable pictures were skipped.
    #[arg(long)]
    pub allow_broken: bool,
    /// The picture to write; - for standard output. [default: a new manipulated.png in the current folder]
    #[arg(long, value_name = "PNG")]
    pub out: Option<PathBuf>,
    /// Folder for one PNG file per picture, required for several pictures: photo.png for photo.jpg, or
    /// photo-2.png if that name is taken. [default: none]
    #[arg(long, value_name = "DIR")]
    pub out_dir: Option<PathBuf>,
}

fn parse_move(text: &str) -> Result<(String, f64), String> {
    // A name may contain equals signs; an amount cannot.
    let (name, amount) = text.rsplit_once('=').ok_or("expected a name and an amount, such as Smiling=0.7")?;
    let amount = amount.trim().parse().map_err(|_| format!("{amount:?} is not a number such as 0.7"))?;
    Ok((name.to_owned(), amount))
}

/// Keep a picture's coarse structure and resample its details.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  glowflow resample --model run ann.jpg --out details.png\n\nEach row starts with the picture and \
    resamples one level more than the row above, the finest first; the last row retains nothing of the picture."
)]
pub struct Resample {
    /// The picture, aligned by its face if the model's images are, otherwise centre-cropped.
    pub image: PathBuf,
    /// A run folder, a model file, or portraits, the model included in the program.
    #[arg(long)]
    pub model: PathBuf,
    /// Number of variants per row.
    #[arg(long, default_value_t = 7, value_name = "N")]
    pub count: usize,
    /// Class of the picture, by name or number; required for models with classes. [default: none]
    #[arg(long, alias = "label", value_name = "CLASS")]
    pub class: Option<String>,
    /// Draw only the row in which N levels are resampled. [default: all rows]
    #[arg(long, value_name = "N")]
    pub levels: Option<usize>,
    /// Factor on the standard deviation of the resampled latents: 1 samples the model's distribution.
    #[arg(long, default_value_t = 0.7, allow_negative_numbers = true)]
    pub temperature: f64,
    /// Seed: equal seeds give equal variants.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    #[command(flatten)]
    pub align: AlignArgs,
    /// The picture to write; - for standard output. [default: a new resampled.png in the current folder]
    #[arg(long, value_name = "PNG")]
    pub out: Option<PathBuf>,
}

/// Find the images most similar to a picture, by their latents.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  glowflow nearest --model run ann.jpg --data photos/ --count 8 --out nearest.png\n\nThe \
    similarity is the cosine between latents, after subtracting their mean over the images, as a weighted mean over the levels: \
    1 for the same image, near 0 for unrelated ones."
)]
pub struct Nearest {
    /// The picture, aligned by its face if the model's images are, otherwise centre-cropped.
    pub image: PathBuf,
    /// A run folder, a model file, or portraits, the model included in the program.
    #[arg(long)]
    pub model: PathBuf,
    /// The images to search, aligned in the same way, which takes about a fifth of a second per photograph.
    /// If they have a test set, only that is used.
    #[arg(long)]
    pub data: PathBuf,
    /// Number of images to find.
    #[arg(long, default_value_t = 8, value_name = "N")]
    pub count: usize,
    /// Class of the picture and of all images, by name or number; required for models with classes. [default:
    /// none]
    #[arg(long, alias = "label", value_name = "CLASS")]
    pub class: Option<String>,
    /// Ignore the N finest levels, to compare coarse structure rather than details.
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub skip_levels: usize,
    /// Weights of the levels, the finest first. [default: 1 for the last level, 0.5 for the others]
    #[arg(long, value_name = "W,…", value_delimiter = ',', conflicts_with = "skip_levels")]
    pub level_weights: Vec<f64>,
    #[command(flatten)]
    pub align: AlignArgs,
    /// A strip of the picture and the images found; - for standard output. [default: no picture]
    #[arg(long, value_name = "PNG")]
    pub out: Option<PathBuf>,
}
