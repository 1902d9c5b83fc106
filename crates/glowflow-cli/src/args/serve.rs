//! The demo.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;

/// Open the latent space in the browser: change attributes of photographs, mix them, draw new ones.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  glowflow serve --model run\n\nOnly this computer can reach the page unless --host says otherwise. \
    Pictures stay in memory and are forgotten after a while."
)]
pub struct Serve {
    /// A run's folder or a model file.
    #[arg(long)]
    pub model: PathBuf,
    /// A file that attributes wrote; directions.safetensors in the run's folder where there is one.
    #[arg(long, value_name = "FILE")]
    pub directions: Option<PathBuf>,
    /// Port; 0 takes any that is free.
    #[arg(long, default_value_t = 8080)]
    pub port: u16,
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1", value_name = "ADDRESS")]
    pub host: IpAddr,
    /// Where the left and right eye lie in the model's training images, as parts of width and height, for aligning
    /// photographs.
    #[arg(long, value_name = "X,Y,X,Y", value_delimiter = ',', num_args = 1..=4, default_values_t = [0.39, 0.51, 0.61, 0.51])]
    pub eyes: Vec<f64>,
}
