//! `--eyes`.

use clap::Args;
use glowflow_data::Eyes;

/// Positions of the eyes in a model's images.
#[derive(Clone, Debug, Args)]
pub struct EyesArg {
    /// Positions of the left and right eye in the model's images, as fractions of width and height:
    /// photographs are aligned to them. [default: those stored with the model]
    #[arg(long, value_name = "X,Y,X,Y")]
    pub eyes: Option<Eyes>,
}
