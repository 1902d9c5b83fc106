//! `completions`: scripts for shells, generated from the command-line options.

use std::io::Write;

use anyhow::Context;
use clap::{Command, CommandFactory};

use crate::ExitCode;
use crate::args::{self, Cli};

pub fn completions(args: &args::Completions) -> anyhow::Result<ExitCode> {
    // The generator panics on write errors, so it writes to memory.
    let mut script = vec![];
    clap_complete::generate(args.shell, &mut visible(), "glowflow", &mut script);
    std::io::stdout().write_all(&script).context("writing the script")?;
    Ok(ExitCode::SUCCESS)
}

/// The command line without hidden commands, which the generator would otherwise complete.
fn visible() -> Command {
    let cli = Cli::command();
    let commands: Vec<Command> = cli.get_subcommands().filter(|c| !c.is_hide_set()).cloned().collect();
    Command::new("glowflow")
        .version(env!("CARGO_PKG_VERSION"))
        .propagate_version(true)
        .args(cli.get_arguments())
        .subcommands(commands)
}
