//! `completions`, and the hidden `man-pages` for building packages.

use std::path::PathBuf;

use clap::Args;
use clap_complete::Shell;

/// Print a shell completion script.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  glowflow completions bash > ~/.local/share/bash-completion/completions/glowflow
  glowflow completions zsh > ~/.zfunc/_glowflow
  glowflow completions fish > ~/.config/fish/completions/glowflow.fish
  glowflow completions powershell >> $PROFILE

For zsh, the folder of the file must be in fpath: add fpath+=~/.zfunc to .zshrc, before compinit.")]
pub struct Completions {
    /// The shell.
    pub shell: Shell,
}

/// Write a manual page for the program and one for each command.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  glowflow man-pages ~/.local/share/man/man1")]
pub struct ManPages {
    /// The output folder.
    #[arg(value_name = "DIR")]
    pub out: PathBuf,
}
