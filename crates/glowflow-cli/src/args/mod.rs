//! The command line: the options of each command, with an example.
//!
//! All commands list their options in the same order, which is that of the help:
//!
//! 1. inputs: pictures by position, `--model`, `--data`, and files written by other commands;
//! 2. selection: the images that are used, drawn or changed, including `--class`;
//! 3. method: methods and their parameters, `--seed`, `--precision`, alignment, `--allow-broken`;
//! 4. outputs: `--out`, `--out-dir`, `--csv`;
//! 5. global options.
//!
//! The help of each optional option with a default value ends in `[default: …]`.

mod align;
mod choice;
mod eyes;
mod images;
mod import;
mod latent;
mod precision;
mod prepare;
mod scoring;
mod serve;
mod shells;
mod study;
mod training;

use std::str::FromStr;

use clap::{Parser, Subcommand};
use glowflow::{CudaTuning, DeviceChoice};

pub use align::AlignArgs;
pub use choice::name;
pub use eyes::EyesArg;
pub use images::{Decode, Encode, Sample};
pub use import::Import;
pub use latent::{Attributes, Interpolate, Manipulate, Nearest, Resample};
pub use precision::PRECISIONS;
pub use prepare::{Align, Crop, FacesArg};
pub use scoring::{DequantizationArg, Eval, Info, Score, Scoring};
pub use serve::Serve;
pub use shells::{Completions, ManPages};
pub use study::Study;
pub use training::{BACKPROPS, Bench, Quickstart, Train};

/// Heading of the options of every command.
const GLOBAL: &str = "Global options";

/// Normalizing flows: generative models of images with exact likelihoods.
#[derive(Debug, Parser)]
#[command(name = "glowflow", version, about, propagate_version = true)]
pub struct Cli {
    /// Number of CPU threads. [default: all cores]
    #[arg(long, global = true, value_name = "N", help_heading = GLOBAL, display_order = 1000)]
    pub threads: Option<usize>,
    #[command(flatten)]
    pub common: Common,
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Clone, Debug, clap::Args)]
pub struct Common {
    /// Device to compute on: auto (a GPU if there is one), cpu, cpu:amx (with AMX for bf16), or cuda:0,
    /// cuda:1 and so on. [default: the environment variable GLOWFLOW_DEVICE, else auto]
    #[arg(
        long, global = true, value_name = "DEVICE", value_parser = DeviceChoice::from_str, help_heading = GLOBAL,
        display_order = 1001
    )]
    pub device: Option<DeviceChoice>,
    /// Print results as JSON.
    #[arg(long, global = true, help_heading = GLOBAL, display_order = 1002)]
    pub json: bool,
    /// Settings of GPUs, from the environment.
    #[arg(skip)]
    pub tuning: CudaTuning,
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
    Study(Study),
    Import(Import),
    Completions(Completions),
    #[command(hide = true)]
    ManPages(ManPages),
}
