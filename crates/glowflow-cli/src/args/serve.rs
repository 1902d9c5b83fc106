//! The demo.

use std::path::PathBuf;

use clap::Args;

/// Open the latent space in the browser: change attributes of photographs, mix them, draw new ones.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  glowflow serve
  glowflow serve --model run
  glowflow serve --model run --host 0.0.0.0
  glowflow serve --model run --allow-host demo.example.com

Only this computer can reach the page unless --host names another address. Other computers then need the \
    token in the printed address. Behind a reverse proxy or tunnel on this computer (nginx, Caddy, ngrok, \
    Codespaces), give the name that browsers see with --allow-host; docs/serving.md has examples. Pictures stay in \
    memory and are forgotten after a while.")]
pub struct Serve {
    /// A run's folder, a model file, or portraits, the model that comes with the program.
    #[arg(long, default_value = glowflow::pretrained::PORTRAITS)]
    pub model: PathBuf,
    /// A file that attributes wrote. [default: directions.safetensors in the run's folder, if it exists]
    #[arg(long, value_name = "FILE")]
    pub directions: Option<PathBuf>,
    /// Positions of the left and right eye in the model's images, as fractions of width and height: photographs
    /// are aligned to them. [default: those stored with the model]
    #[arg(long, value_name = "X,Y,X,Y", num_args = 1..=4)]
    pub eyes: Vec<String>,
    /// Port to listen on; 0 takes a free one.
    #[arg(long, default_value_t = 8080)]
    pub port: u16,
    /// Address or name of this computer to listen on: 0.0.0.0 for all IPv4 addresses, :: for all addresses.
    #[arg(long, default_value = "127.0.0.1", value_name = "ADDRESS")]
    pub host: String,
    /// A further name that the server answers to, such as that of a reverse proxy or tunnel in front of it. Can be
    /// given several times. [default: none]
    #[arg(long, value_name = "NAME")]
    pub allow_host: Vec<String>,
    /// Path of the page, for a proxy that passes paths on unchanged. Not needed if the proxy strips the path.
    #[arg(long, default_value = "/", value_name = "PATH")]
    pub base_path: String,
    /// Token that every request has to show. The environment variable GLOWFLOW_TOKEN does the same, and hides it from
    /// lists of processes. [default: a random one if other computers can connect, else none]
    #[arg(long, value_name = "TOKEN")]
    pub token: Option<String>,
    /// Answer all requests, without a token.
    #[arg(long, conflicts_with = "token")]
    pub no_token: bool,
    /// Maximum number of simultaneous connections from one client address. A proxy on another computer may need more.
    #[arg(long, default_value_t = 16, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub client_connections: u32,
}
