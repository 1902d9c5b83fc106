//! The demo.

use std::path::PathBuf;

use clap::Args;

/// Serve a page for the browser that changes attributes of photographs, mixes them, and draws new images.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  glowflow serve
  glowflow serve --model run
  glowflow serve --model run --host 0.0.0.0
  glowflow serve --model run --allow-host demo.example.com

Only this computer can reach the page unless --host names another address. Other computers then need the \
    token in the printed address. Behind a reverse proxy or tunnel on this computer (nginx, Caddy, ngrok, \
    Codespaces), give the name that browsers see with --allow-host; docs/serving.md has examples. Pictures are \
    kept only in memory, for at most 30 minutes after their last use.")]
pub struct Serve {
    /// A run folder, a model file, or portraits, the model included in the program.
    #[arg(long, default_value = glowflow::pretrained::PORTRAITS)]
    pub model: PathBuf,
    /// A file written by attributes. [default: directions.safetensors in the run folder, if it exists]
    #[arg(long, value_name = "FILE")]
    pub directions: Option<PathBuf>,
    /// Positions of the left and right eye in the model's images, as fractions of width and height:
    /// photographs are aligned to them. [default: those stored with the model]
    #[arg(long, value_name = "X,Y,X,Y", num_args = 1..=4)]
    pub eyes: Vec<String>,
    /// Port to listen on; 0 selects a free one.
    #[arg(long, default_value_t = 8080)]
    pub port: u16,
    /// Address or name of this computer to listen on: 0.0.0.0 for all IPv4 addresses, :: for all addresses.
    #[arg(long, default_value = "127.0.0.1", value_name = "ADDRESS")]
    pub host: String,
    /// An additional host name to accept, such as that of a reverse proxy or tunnel in front of the server.
    /// Can be repeated. [default: none]
    #[arg(long, value_name = "NAME")]
    pub allow_host: Vec<String>,
    /// Path of the page, for a proxy that passes paths on unchanged. Not needed if the proxy strips the path.
    #[arg(long, default_value = "/", value_name = "PATH")]
    pub base_path: String,
    /// Token that every request must carry. The environment variable GLOWFLOW_TOKEN sets it without showing
    /// it in process lists. [default: a random one if other computers can connect, else none]
    #[arg(long, value_name = "TOKEN")]
    pub token: Option<String>,
    /// Do not require a token, even if other computers can connect.
    #[arg(long, conflicts_with = "token")]
    pub no_token: bool,
    /// Maximum number of simultaneous connections from one client address. A proxy on another computer may
    /// need more.
    #[arg(long, default_value_t = 16, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub client_connections: u32,
}
