//! The command line: what can be said, with an example each.

mod align;
mod eyes;
mod images;
mod latent;
mod precision;
mod prepare;
mod scoring;
mod serve;
mod training;

use std::str::FromStr;

use clap::{Parser, Subcommand};
use glowflow::DeviceChoice;

pub use align::AlignArgs;
pub use eyes::EyesArg;
pub use images::{Decode, Encode, Sample};
pub use latent::{Attributes, Interpolate, Manipulate, Nearest, Resample};
pub use precision::PrecisionArg;
pub use prepare::{Align, Crop, FacesArg};
pub use scoring::{DequantizationArg, Eval, Info, Score, Scoring};
pub use serve::Serve;
pub use training::{BackpropArg, Bench, Quickstart, Train};

/// Glow: generative models of images with exact likelihoods.
#[derive(Debug, Parser)]
#[command(name = "glowflow", version, about, propagate_version = true)]
pub struct Cli {
    /// Threads to compute with; all cores where nothing is said.
    #[arg(long, global = true, value_name = "T")]
    pub threads: Option<usize>,
    #[command(flatten)]
    pub common: Common,
    #[command(subcommand)]
    pub command: Command,
}

/// What every command can be told.
#[derive(Clone, Debug, clap::Args)]
pub struct Common {
    /// Device to compute on: auto (a GPU if there is one), cpu, or cuda:0, cuda:1 and so on. By default the
    /// environment variable GLOWFLOW_DEVICE, else auto.
    #[arg(long, global = true, value_name = "DEVICE", value_parser = DeviceChoice::from_str)]
    pub device: Option<DeviceChoice>,
    /// Print results as JSON.
    #[arg(long, global = true)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Quickstart(Quickstart),
    Align(Align),
    Crop(Crop),
    Train(Train),
    Eval(Eval),
    Score(Score),
    Sample(Sample),
    Encode(Encode),
    Decode(Decode),
    Interpolate(Interpolate),
    Attributes(Attributes),
    Manipulate(Manipulate),
    Resample(Resample),
    Nearest(Nearest),
    Serve(Serve),
    Info(Info),
    Bench(Bench),
}
