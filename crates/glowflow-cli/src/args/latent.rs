//! What can be done with images as latents.

use std::path::PathBuf;

use clap::{ArgGroup, Args, ValueEnum};
use glowflow::latent::Walk;
use glowflow_data::Eyes;

use super::AlignArgs;

/// Walk through latent space from image to image.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  glowflow interpolate --model run ann.jpg bob.jpg --frames 9 --out strip.png\n  glowflow \
    interpolate --model run ann.jpg bob.jpg eve.jpg --frames 16 --out loop.gif\n\nA .gif or .apng shows the frames one after \
    the other and returns to the first image; any other file shows them side by side, a row for each pair."
)]
pub struct Interpolate {
    /// A run's folder or a model file.
    #[arg(long)]
    pub model: PathBuf,
    /// Two or more pictures; faces are aligned if the model's are, other pictures cropped to the middle.
    #[arg(required = true, num_args = 2.., value_name = "IMAGE")]
    pub images: Vec<PathBuf>,
    /// Images from one picture to the next, both included.
    #[arg(long, default_value_t = 9, value_name = "N")]
    pub frames: usize,
    /// Straight, or along the great circle.
    #[arg(long, value_enum, default_value_t = PathArg::Linear)]
    pub path: PathArg,
    /// Class of all pictures, where the model has classes: a name or a number.
    #[arg(long, value_name = "CLASS")]
    pub label: Option<String>,
    /// A .png with the frames side by side, or a .gif or .apng that moves; - is the standard output. By default a new
    /// interpolation.png in the current folder.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    pub align: AlignArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum PathArg {
    Linear,
    Spherical,
}

impl From<PathArg> for Walk {
    fn from(arg: PathArg) -> Self {
        match arg {
            PathArg::Linear => Self::Linear,
            PathArg::Spherical => Self::Spherical,
        }
    }
}

/// Find the directions in latent space that lead to attributes, from labelled images.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  glowflow attributes --model run --data celeba/images --labels celeba/attributes.csv\n\nThe table \
    has a line of names, the images' names in one column, and in others yes (1, true, yes) and no (0, -1, false, no); \
    a field may be empty or NA. Its fields are separated by commas, semicolons, tabs or blanks. A fifth of the labelled \
    images is held out at random to measure the directions on: AUC is the probability that, of two images, the one with \
    the attribute lies further along."
)]
pub struct Attributes {
    /// A run's folder or a model file.
    #[arg(long)]
    pub model: PathBuf,
    /// The images.
    #[arg(long)]
    pub data: PathBuf,
    /// A CSV table of attributes; the built-in portraits need none.
    #[arg(long, value_name = "CSV")]
    pub labels: Option<PathBuf>,
    /// Only N images, drawn at random by --seed.
    #[arg(long, value_name = "N")]
    pub images: Option<usize>,
    /// Seed of the choice of --images: equal seeds choose equal images.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Remove these attributes' directions from all others, so that moving along one leaves these alone. May be given
    /// several times.
    #[arg(long, value_name = "NAME,…")]
    pub orthogonalize: Vec<String>,
    /// Encode every image as this class, where the model has classes: a name or a number.
    #[arg(long, value_name = "CLASS")]
    pub label: Option<String>,
    /// Positions of the left and right eye in the images, as fractions of width and height. They are stored with the
    /// model, and photographs are aligned to them. [default: those stored with the model]
    #[arg(long, value_name = "X,Y,X,Y")]
    pub eyes: Option<Eyes>,
    /// The file to write; directions.safetensors in the run's folder where nothing is said.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// Change attributes of a picture.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  glowflow manipulate --model run ann.jpg --set Smiling=0.7 --set Blond_Hair=-0.5 --out \
    out.png\n  glowflow manipulate --model run ann.jpg --sweep Smiling --frames 7 --out strip.png"
)]
#[command(group = ArgGroup::new("how").required(true).multiple(true).args(["moves", "sweep"]))]
pub struct Manipulate {
    /// A run's folder or a model file.
    #[arg(long)]
    pub model: PathBuf,
    /// A file that attributes wrote; directions.safetensors in the run's folder where nothing is said.
    #[arg(long, value_name = "FILE")]
    pub directions: Option<PathBuf>,
    /// The picture; a face is aligned if the model's are, any other picture cropped to the middle.
    pub image: PathBuf,
    /// How far to move along the direction of an attribute, −1 to 1.
    #[arg(long = "set", value_name = "NAME=A", value_parser = parse_move)]
    pub moves: Vec<(String, f64)>,
    /// A strip of pictures that move along this attribute from −1 to 1.
    #[arg(long, value_name = "NAME")]
    pub sweep: Option<String>,
    /// Pictures in the strip.
    #[arg(long, default_value_t = 7, value_name = "N", requires = "sweep")]
    pub frames: usize,
    /// Class of the picture, where the model has classes: a name or a number.
    #[arg(long, value_name = "CLASS")]
    pub label: Option<String>,
    /// The picture to write; - is the standard output. By default a new manipulated.png in the current folder.
    #[arg(long, value_name = "PNG")]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    pub align: AlignArgs,
}

fn parse_move(text: &str) -> Result<(String, f64), String> {
    // A name may hold equals signs; an amount does not.
    let (name, amount) = text.rsplit_once('=').ok_or("it should be like Smiling=0.7")?;
    let amount = amount.trim().parse().map_err(|_| format!("{amount:?} is not a number such as 0.7"))?;
    Ok((name.to_owned(), amount))
}

/// Keep a picture's outlines and draw its details anew.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  glowflow resample --model run ann.jpg --out details.png\n\nEach row begins with the picture and \
    draws one level more anew than the row above, the finest first; the last row has nothing of the picture left."
)]
pub struct Resample {
    /// A run's folder or a model file.
    #[arg(long)]
    pub model: PathBuf,
    /// The picture; a face is aligned if the model's are, any other picture cropped to the middle.
    pub image: PathBuf,
    /// Only the row in which so many levels are drawn anew.
    #[arg(long, value_name = "N")]
    pub levels: Option<usize>,
    /// Variants in a row.
    #[arg(long, default_value_t = 7, value_name = "N")]
    pub count: usize,
    /// Spread of what is drawn: 1 is the model's own.
    #[arg(long, default_value_t = 0.7, allow_negative_numbers = true)]
    pub temperature: f64,
    /// Seed: equal seeds give equal variants.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Class of the picture, where the model has classes: a name or a number.
    #[arg(long, value_name = "CLASS")]
    pub label: Option<String>,
    /// The picture to write; - is the standard output. By default a new resampled.png in the current folder.
    #[arg(long, value_name = "PNG")]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    pub align: AlignArgs,
}

/// Find the images most like a picture, by distance in latent space.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  glowflow nearest --model run ann.jpg --data photos/ --count 8 --out nearest.png"
)]
pub struct Nearest {
    /// A run's folder or a model file.
    #[arg(long)]
    pub model: PathBuf,
    /// The picture; a face is aligned if the model's are, any other picture cropped to the middle.
    pub image: PathBuf,
    /// The images to search; where they come with a test set, that.
    #[arg(long)]
    pub data: PathBuf,
    /// How many to find.
    #[arg(long, default_value_t = 8, value_name = "N")]
    pub count: usize,
    /// Levels that do not count, the finest first: outlines weigh more, then, than details.
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub skip_levels: usize,
    /// Class of all images, where the model has classes: a name or a number.
    #[arg(long, value_name = "CLASS")]
    pub label: Option<String>,
    /// A strip of the picture and those found; - is the standard output.
    #[arg(long, value_name = "PNG")]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    pub align: AlignArgs,
}
