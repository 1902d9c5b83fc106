//! `import`.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use glowflow::PermutationType;
use glowflow_import::Source;

use super::choice::{Choice, parser};

/// Convert a checkpoint of another Glow program to a model file.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  glowflow import glow_model_250.pth --from y0ast --out model.safetensors
  glowflow import model_200001.pt --from rosinality --image 64 --bits 5 --out model.safetensors

Reads PyTorch checkpoints (.pt, .pth), safetensors, and .npz. No code in them is executed. See \
    docs/coming-from-pytorch.md.")]
pub struct Import {
    /// The checkpoint.
    pub file: PathBuf,
    /// The program that wrote it: y0ast, rosinality, chaiyujin, openai or normflows.
    #[arg(long, value_name = "PROGRAM", value_parser = Source::from_str)]
    pub from: Source,
    /// Size of the model's images in pixels: one number, or height and width as HxW. [default: as recorded in
    /// the file]
    #[arg(long, value_name = "N", value_parser = parse_size)]
    pub image: Option<Size>,
    /// Bits per channel, 1 to 8. [default: as fixed by the program]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=8))]
    pub bits: Option<u32>,
    /// Permutation of the channels, for models without 1×1 convolutions. [default: as recorded in the file]
    #[arg(long, value_parser = parser(PERMUTATIONS))]
    pub permutation: Option<PermutationType>,
    /// The model file to write.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}

/// Height and width.
pub type Size = [usize; 2];

fn parse_size(text: &str) -> Result<Size, String> {
    let (height, width) = text.split_once('x').unwrap_or((text, text));
    match (height.parse(), width.parse()) {
        (Ok(height), Ok(width)) if height > 0 && width > 0 => Ok([height, width]),
        _ => Err(format!(
            "{text:?} is not a valid size: give pixels, such as 64, or height and width, such as 32x64"
        )),
    }
}

/// Values of `--permutation`.
const PERMUTATIONS: &[Choice<PermutationType>] = &[
    ("conv1x1", "", PermutationType::Conv1x1),
    ("shuffle", "", PermutationType::Shuffle),
    ("reverse", "", PermutationType::Reverse),
];
