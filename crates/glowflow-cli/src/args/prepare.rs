//! Preparation of photographs for training.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use glowflow_data::{CropBox, Eyes};

/// Find the faces in photographs and align them by their eyes.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  glowflow align --data photos/ --out aligned/
  glowflow train --data aligned/ --out run

Folders and names are kept, so that tables of attributes remain valid; pictures are written as PNG. Photographs \
    are extended by reflection at their edges. The positions of the eyes are stored in eyes.toml.")]
pub struct Align {
    /// The photographs: a folder, searched at any depth.
    #[arg(long)]
    pub data: PathBuf,
    /// Width and height of the aligned pictures, in pixels.
    #[arg(long, default_value_t = 256, value_name = "PIXELS", value_parser = clap::value_parser!(u16).range(8..=4096))]
    pub size: u16,
    /// Positions of the left and right eye in the aligned pictures, as fractions of width and height. The
    /// default is CelebA's.
    #[arg(long, default_value_t = Eyes::CELEBA, value_name = "X,Y,X,Y")]
    pub eyes: Eyes,
    /// Faces to use from a photograph with several.
    #[arg(long, value_enum, default_value_t = FacesArg::Main)]
    pub faces: FacesArg,
    /// Centre-crop photographs without a face instead of skipping them.
    #[arg(long)]
    pub keep_faceless: bool,
    /// Exit with status 0 even if unreadable images were skipped.
    #[arg(long)]
    pub allow_broken: bool,
    /// The output folder, new or empty.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

/// Faces of a photograph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FacesArg {
    /// The most prominent face: large and near the centre.
    Main,
    /// Every face, each in a separate picture.
    All,
}

/// Crop every picture to the same part.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  glowflow crop --data photos/ --size 256 --out squares/
  glowflow crop --data photos/ --box 0.1,0,0.9,0.8 --out cropped/

Folders and names are kept, so that tables of attributes remain valid; pictures are written as PNG.")]
pub struct Crop {
    /// The pictures: a folder, searched at any depth.
    #[arg(long)]
    pub data: PathBuf,
    /// Left, top, right and bottom edge of the part, as fractions of width and height. [default: the central
    /// square]
    #[arg(long = "box", value_name = "L,T,R,B")]
    pub part: Option<CropBox>,
    /// Shorter side of the cropped pictures, in pixels. [default: not resized]
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub size: Option<u16>,
    /// Exit with status 0 even if images were skipped.
    #[arg(long)]
    pub allow_broken: bool,
    /// The output folder, new or empty.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}
