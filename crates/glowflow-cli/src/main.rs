//! The program `glowflow`: parses, calls the library, prints. It holds no logic of its own.

mod args;
mod commands;

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;

use args::{Cli, Command};

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(code) => code,
        // A reader that went away, such as `head`, is no failure to report.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<ExitCode> {
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
    let json = cli.json;
    match &cli.command {
        Command::Quickstart(args) => commands::quickstart(args, json),
        Command::Train(args) => commands::train(args, json),
        Command::Eval(args) => commands::eval(args, json),
        Command::Score(args) => commands::score(args),
        Command::Sample(args) => commands::sample(args),
        Command::Encode(args) => commands::encode(args, json),
        Command::Decode(args) => commands::decode(args, json),
        Command::Interpolate(args) => commands::interpolate(args),
        Command::Attributes(args) => commands::attributes(args, json),
        Command::Manipulate(args) => commands::manipulate(args),
        Command::Resample(args) => commands::resample(args),
        Command::Nearest(args) => commands::nearest(args, json),
        Command::Serve(args) => commands::serve(args),
        Command::Info(args) => commands::info(args, json),
        Command::Bench(args) => commands::bench(args, json),
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}
