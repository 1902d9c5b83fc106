//! The command line of `glowflow` as a function, for the program and for packages that include it.
//!
//! It parses arguments, calls the library and prints. It contains no other logic.

mod advice;
mod args;
mod commands;
mod environment;
mod signals;
mod status;
mod words;

use std::ffi::OsString;
use std::thread;

use anyhow::Context;
use clap::{Arg, CommandFactory, FromArgMatches};

use args::{Cli, Command};
pub use status::ExitCode;

/// Upper bound that no machine needs.
const MAX_THREADS: usize = 1024;

/// Runs the command given by `words`, of which the first is the program's name, and returns its exit status.
/// Only the first call in a process can set the number of threads.
pub fn run(words: impl IntoIterator<Item = OsString>) -> ExitCode {
    let words: Vec<OsString> = words.into_iter().collect();
    let cli = match parse(&words) {
        Ok(cli) => cli,
        Err(message) => {
            // A closed pipe is not reported.
            let _ = message.print();
            return u8::try_from(message.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from);
        }
    };
    words::set(words);
    let done = glowflow::catch_out_of_memory(|| execute(cli));
    match done.unwrap_or_else(|error| Err(error.into())) {
        Ok(code) => code,
        // A closed pipe, for example by `head`, is not a failure.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let advice = advice::on(&error).map_or(String::new(), |advice| format!("\nhelp: {advice}"));
            commands::tell(&format!("error: {}{advice}", advice::describe(&error)));
            ExitCode::FAILURE
        }
    }
}

/// Parses the command line. A negative number is the value of an option, so that the message about it names
/// the option.
fn parse(words: &[OsString]) -> Result<Cli, clap::Error> {
    let numbers = |arg: Arg| match arg.get_action().takes_values() && !arg.is_positional() {
        true => arg.allow_negative_numbers(true),
        false => arg,
    };
    let mut command = Cli::command().mut_args(numbers).mut_subcommands(|command| command.mut_args(numbers));
    let matches = command.try_get_matches_from_mut(words)?;
    Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

fn execute(mut cli: Cli) -> anyhow::Result<ExitCode> {
    let threads = match cli.threads {
        Some(threads) => Some(("--threads", threads)),
        // The variable that rayon reads by default.
        None => environment::threads()?.map(|threads| (environment::THREADS, threads)),
    };
    if let Some((source, threads)) = threads {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        anyhow::ensure!(
            threads <= MAX_THREADS,
            "{source} {threads} is too large: use at most {MAX_THREADS}; this machine has {cores} cores"
        );
    }
    if let Some(threads) = cli.threads {
        anyhow::ensure!(threads > 0, "--threads must be at least 1, got 0; omit it to use all cores");
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build_global()
            .context("starting the threads")?;
    }
    if cli.common.device.is_none() {
        cli.common.device = environment::device()?;
    }
    cli.common.tuning = environment::tuning()?;
    let common = &cli.common;
    match &cli.command {
        Command::Quickstart(args) => commands::quickstart(args, common),
        Command::Align(args) => commands::align(args, common),
        Command::Crop(args) => commands::crop(args, common),
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
        Command::Study(args) => commands::study(args, common),
        Command::Import(args) => commands::import(args, common),
        Command::Completions(args) => commands::completions(args),
        Command::ManPages(args) => commands::man_pages(args),
    }
}

/// Returns whether standard output was closed. A closed pipe in place of a file, which the libraries' errors
/// name, is a failure.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let is_of_file = |cause: &(dyn std::error::Error + 'static)| {
        let library = cause.downcast_ref::<glowflow::Error>();
        cause.is::<glowflow_report::Error>()
            || library.is_some_and(|error| !matches!(error, glowflow::Error::Observer(_)))
    };
    if error.chain().any(is_of_file) {
        return false;
    }
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use std::io::{Error, ErrorKind};

    use super::*;

    #[test]
    fn a_closed_pipe_in_place_of_a_file_is_a_failure() {
        let closed = || Error::from(ErrorKind::BrokenPipe);
        let output = glowflow::Error::Observer(anyhow::Error::from(closed()).context("writing").into());
        assert!(is_broken_pipe(&output.into()));
        assert!(is_broken_pipe(&anyhow::Error::from(closed()).context("writing")));
        let log = || glowflow_report::Error::Write { path: "metrics.jsonl".into(), reason: closed() };
        assert!(!is_broken_pipe(&log().into()));
        assert!(!is_broken_pipe(&glowflow::Error::from(log()).into()));
        let file = glowflow::Error::Io { path: "model.safetensors".into(), reason: closed() };
        assert!(!is_broken_pipe(&file.into()));
    }
}
