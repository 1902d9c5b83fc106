//! Alignment of input photographs.

use clap::Args;

use super::EyesArg;

/// Alignment of photographs of faces.
#[derive(Clone, Debug, Args)]
pub struct AlignArgs {
    #[command(flatten)]
    pub eyes: EyesArg,
    /// Centre-crop photographs instead of aligning faces.
    #[arg(long, conflicts_with = "eyes")]
    pub no_align: bool,
}
