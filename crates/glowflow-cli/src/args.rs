//! The command line: what can be said, with an example each.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use glowflow::Backprop;
use glowflow::latent::Walk;

/// Glow: generative models of images with exact likelihoods.
#[derive(Debug, Parser)]
#[command(name = "glowflow", version, about, propagate_version = true)]
pub struct Cli {
    /// Threads to compute with; all cores where nothing is said.
    #[arg(long, global = true, value_name = "T")]
    pub threads: Option<usize>,
    /// Print results as JSON.
    #[arg(long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Quickstart(Quickstart),
    Train(Train),
    Eval(Eval),
    Score(Score),
    Sample(Sample),
    Encode(Encode),
    Decode(Decode),
    Interpolate(Interpolate),
    Info(Info),
    Bench(Bench),
}

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
/// Ctrl-C stops after the step at hand and saves a checkpoint; --resume goes on from there as if nothing had happened.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  glowflow train --data photos/ --preset faces64 --minutes 60 --out run\n  glowflow train \
    --resume run --minutes 60\n  glowflow train --data cifar-10-batches-bin --preset tiny32 --set model.steps=8 --set \
    train.batch=16 --steps 1000 --out run\n\nWithout a limit, training goes on until it is stopped."
)]
pub struct Train {
    /// A folder of images, CIFAR-10 binaries, idx files, a NumPy array, or the word "portraits".
    #[arg(long, value_name = "DATA", required_unless_present_any = ["resume", "config"], conflicts_with = "resume")]
    pub data: Option<PathBuf>,
    /// Images to test on; otherwise the data's own test set, or a part that is held out.
    #[arg(long, value_name = "DATA", conflicts_with = "resume")]
    pub test_data: Option<PathBuf>,
    /// Part of the images to hold out for testing.
    #[arg(long, value_name = "F", conflicts_with_all = ["resume", "test_data"])]
    pub test_fraction: Option<f64>,
    /// A published or small configuration, by name; an unknown one lists them.
    #[arg(long, value_name = "NAME", conflicts_with = "resume")]
    pub preset: Option<String>,
    /// A TOML file with the sections [model], [train] and [data].
    #[arg(long, value_name = "FILE", conflicts_with = "resume")]
    pub config: Option<PathBuf>,
    /// One value of the configuration, such as model.steps=8.
    #[arg(long = "set", value_name = "K=V", conflicts_with = "resume")]
    pub overrides: Vec<String>,
    /// Whether hidden activations are computed again (little memory) or stored (faster).
    #[arg(long, conflicts_with = "resume")]
    pub backprop: Option<BackpropArg>,
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
    /// Folder of the run.
    #[arg(long, value_name = "RUN", required_unless_present = "resume", conflicts_with = "resume")]
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

impl From<BackpropArg> for Backprop {
    fn from(arg: BackpropArg) -> Self {
        match arg {
            BackpropArg::Reversible => Self::Reversible,
            BackpropArg::Stored => Self::Stored,
        }
    }
}

#[derive(Debug, Args)]
pub struct Scoring {
    /// How pixels become continuous: the middle of each bin, or noise as in training and in papers.
    #[arg(long, value_enum, default_value_t = DequantizationArg::Uniform)]
    pub dequantization: DequantizationArg,
    /// Draws of the noise that are averaged.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub draws: u64,
    /// Seed of the noise.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
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
    /// Only the first so many images.
    #[arg(long, value_name = "N")]
    pub images: Option<usize>,
    #[command(flatten)]
    pub scoring: Scoring,
}

/// Log-likelihood and bits/dim of each image, as CSV.
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
    /// Score every image as this class.
    #[arg(long, value_name = "N")]
    pub label: Option<usize>,
    #[command(flatten)]
    pub scoring: Scoring,
}

/// Draw images from the model.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  glowflow sample --model run --count 64 --temperature 0.7 --out grid.png")]
#[command(group = ArgGroup::new("to").required(true).args(["out", "out_dir"]))]
pub struct Sample {
    /// A run's folder or a model file.
    #[arg(long)]
    pub model: PathBuf,
    /// How many.
    #[arg(long, default_value_t = 64)]
    pub count: usize,
    /// Spread of the latents: 1 is the model's own, less gives smoother images.
    #[arg(long, default_value_t = 0.7, allow_negative_numbers = true)]
    pub temperature: f64,
    /// Seed: equal seeds give equal images.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Class to draw, where the model has classes.
    #[arg(long, value_name = "C")]
    pub class: Option<usize>,
    /// One picture of all samples.
    #[arg(long, value_name = "PNG")]
    pub out: Option<PathBuf>,
    /// A folder for one file each.
    #[arg(long, value_name = "DIR")]
    pub out_dir: Option<PathBuf>,
}

/// Latents of images, into a file that decodes to every pixel exactly.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  glowflow encode --model run --data photos/ --out latents.safetensors")]
pub struct Encode {
    /// A run's folder or a model file.
    #[arg(long)]
    pub model: PathBuf,
    /// The images.
    #[arg(long)]
    pub data: PathBuf,
    /// Encode every image as this class.
    #[arg(long, value_name = "N")]
    pub label: Option<usize>,
    /// The file to write.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}

/// Images from latents.
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
    /// A folder for one PNG each.
    #[arg(long, value_name = "DIR")]
    pub out_dir: PathBuf,
}

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
    /// Two or more pictures; each is cropped to the middle and resized.
    #[arg(required = true, num_args = 2.., value_name = "IMAGE")]
    pub images: Vec<PathBuf>,
    /// Images from one picture to the next, both included.
    #[arg(long, default_value_t = 9, value_name = "N")]
    pub frames: usize,
    /// Straight, or along the great circle.
    #[arg(long, value_enum, default_value_t = PathArg::Linear)]
    pub path: PathArg,
    /// Class of all pictures, where the model has classes.
    #[arg(long, value_name = "N")]
    pub label: Option<usize>,
    /// A .png with the frames side by side, or a .gif or .apng that moves.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
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

/// What a model is.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  glowflow info --model run --json")]
pub struct Info {
    /// A run's folder or a model file.
    #[arg(long)]
    pub model: PathBuf,
}

/// How fast a model trains and samples on this machine.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  glowflow bench --preset tiny32 --set train.batch=16 --backprop stored")]
pub struct Bench {
    /// A published or small configuration, by name.
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
