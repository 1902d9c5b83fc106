//! The program `glowflow`: parses, calls the library, prints. It holds no logic of its own.

mod args;
mod commands;

use std::process::ExitCode;
use std::{env, thread};

use anyhow::Context;
use clap::Parser;

use args::{Cli, Command};

/// More than any machine has use for.
const MOST_THREADS: usize = 1024;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(code) => code,
        // A reader that went away, such as `head`, is no failure to report.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            commands::tell(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<ExitCode> {
    // What rayon takes where nothing is said.
    let from_environment = || Some(("RAYON_NUM_THREADS", env::var("RAYON_NUM_THREADS").ok()?.parse().ok()?));
    if let Some((said, threads)) = cli.threads.map(|threads| ("--threads", threads)).or_else(from_environment)
    {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        anyhow::ensure!(
            threads <= MOST_THREADS,
            "{said} {threads} is too many: {MOST_THREADS} at most, and this machine has {cores} cores"
        );
    }
    if let Some(threads) = cli.threads {
        anyhow::ensure!(
            threads > 0,
            "--threads 0 leaves nothing to compute with; leave it out for all cores"
        );
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build_global()
            .context("starting the threads")?;
    }
    let common = &cli.common;
    match &cli.command {
        Command::Quickstart(args) => commands::quickstart(args, common),
        Command::Train(args) => commands::train(args, common),
        Command::Eval(args) => commands::eval(args, common),
        Command::Score(args) => commands::score(args, common),
        Command::Sample(args) => commands::sample(args, common),
        Command::Encode(args) => commands::encode(args, common),
        Command::Decode(args) => commands::decode(args, common),
        Command::Interpolate(args) => commands::interpolate(args, common),
        Command::Attributes(args) => commands::attributes(args, common),
        Command::Manipulate(args) => commands::manipulate(args, common),
        Command::Resample(args) => commands::resample(args, common),
        Command::Nearest(args) => commands::nearest(args, common),
        Command::Serve(args) => commands::serve(args, common),
        Command::Info(args) => commands::info(args, common),
        Command::Bench(args) => commands::bench(args, common),
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}
