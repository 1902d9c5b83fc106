//! Preparation of photographs for training.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use glowflow_data::{CropBox, Eyes};

/// Find the faces in photographs and align them by their eyes.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  glowflow align --data photos/ --out aligned/
  glowflow train --data aligned/ --out run

Folders and names are kept, so that tables of attributes still fit; pictures are written as PNG. Beyond its \
    edges a photograph is reflected. The positions of the eyes are stored in eyes.toml.")]
pub struct Align {
    /// The photographs: a folder, searched at any depth.
    #[arg(long)]
    pub data: PathBuf,
    /// Width and height of the aligned pictures, in pixels.
    #[arg(long, default_value_t = 256, value_name = "PIXELS", value_parser = clap::value_parser!(u16).range(8..=4096))]
    pub size: u16,
    /// Positions of the left and right eye in the aligned pictures, as fractions of width and height: those of CelebA,
    /// unless others are given.
    #[arg(long, default_value_t = Eyes::CELEBA, value_name = "X,Y,X,Y")]
    pub eyes: Eyes,
    /// Faces to take from a photograph with several.
    #[arg(long, value_enum, default_value_t = FacesArg::Main)]
    pub faces: FacesArg,
    /// Crop photographs without a face to the middle, instead of leaving them out.
    #[arg(long)]
    pub keep_faceless: bool,
    /// Succeed although images that could not be read were left out.
    #[arg(long)]
    pub allow_broken: bool,
    /// The folder to write: a new or an empty one.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

/// Faces of a photograph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FacesArg {
    /// The most prominent face: large, and near the middle.
    Main,
    /// Every face, in a picture of its own.
    All,
}

/// Cut the same part out of every picture.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  glowflow crop --data photos/ --size 256 --out squares/
  glowflow crop --data photos/ --box 0.1,0,0.9,0.8 --out cropped/

Folders and names are kept, so that tables of attributes still fit; pictures are written as PNG.")]
pub struct Crop {
    /// The pictures: a folder, searched at any depth.
    #[arg(long)]
    pub data: PathBuf,
    /// Left, top, right and bottom edge of the part, as fractions of width and height. [default: the central square]
    #[arg(long = "box", value_name = "L,T,R,B")]
    pub part: Option<CropBox>,
    /// Shorter side of the cropped pictures, in pixels. [default: as they are cut]
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub size: Option<u16>,
    /// Succeed although images that could not be read were left out.
    #[arg(long)]
    pub allow_broken: bool,
    /// The folder to write: a new or an empty one.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}
