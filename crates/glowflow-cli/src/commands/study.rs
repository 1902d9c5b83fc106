//! `study`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, anyhow, bail};
use glowflow::Error;
use glowflow::study::{FILES, Options, Outcome, Overrides, Study, builtin_names, run};
use glowflow_report::progress::Display;
use serde_json::json;

use super::{check_folder_output, counted, print_json, quoted, say, tell};
use crate::{args, signals};

pub fn study(args: &args::Study, common: &args::Common) -> anyhow::Result<ExitCode> {
    let mut study = load(args)?;
    let out = args.out.clone().unwrap_or_else(|| Path::new("studies").join(&study.name));
    check_folder_output(&out)?;
    if study.data().is_none() && !args.dry_run {
        bail!("there is no data to train on: give --data, or set data.path in [base] of a study file");
    }
    let stop = signals::stop_flag()?;
    match study.adapt(stop) {
        Ok(notices) => notices.iter().for_each(|notice| tell(notice)),
        Err(Error::Stopped) => {
            tell("stopped before training began");
            return Ok(signals::status());
        }
        Err(error) => return Err(error.into()),
    }
    if args.dry_run {
        return print_plan(&study, &out, common.json).map(|()| ExitCode::SUCCESS);
    }
    let options = Options { display: Display::detect(), stop };
    let outcome =
        run(&study, &out, |config| common.open(config.train.precision), options).map_err(explained)?;
    let printed = print_outcome(&outcome, &out, common.json);
    if outcome.interrupted {
        // The terminal may be what went away.
        return Ok(signals::status());
    }
    printed.map(|()| ExitCode::SUCCESS)
}

/// The study that the arguments give.
fn load(args: &args::Study) -> anyhow::Result<Study> {
    let mut set = args.overrides.clone();
    set.extend(args.precision.map(|precision| format!("train.precision={}", precision.name())));
    let overrides = Overrides {
        data: args.data.as_deref(),
        seeds: args.seeds.as_deref(),
        budget: args.budget(),
        set: &set,
    };
    let names = builtin_names();
    if let Some(name) = names.iter().find(|name| args.study == Path::new(name)) {
        return Ok(Study::builtin(name, args.scale.map(Into::into).unwrap_or_default(), overrides)?);
    }
    anyhow::ensure!(
        args.scale.is_none(),
        "--scale is for built-in studies; a study file has one size: leave it out"
    );
    anyhow::ensure!(
        args.study.exists(),
        "unknown study {}: name a TOML file, or one of the built-in studies {}",
        args.study.display(),
        names.join(", ")
    );
    Ok(Study::read(&args.study, overrides)?)
}

/// An error, with the way to continue if it came from outside the study.
fn explained(error: Error) -> anyhow::Error {
    match error {
        Error::Io { .. } | Error::Report(_) | Error::Data(glowflow_data::Error::System { .. }) => {
            anyhow!("{error}; after that is solved, the same command continues the study")
        }
        error => error.into(),
    }
}

/// Prints what would be trained.
fn print_plan(study: &Study, out: &Path, json: bool) -> anyhow::Result<()> {
    let seeds = study.seeds.len() as u64;
    let plans = study.configurations.iter().enumerate().map(|(index, configuration)| {
        json!({
            "configuration": configuration.name,
            "parameters": study.parameters(index) as u64,
            "batch": configuration.run.train.batch,
            "steps": study.steps(index),
            "images": study.images(index),
        })
    });
    if json {
        return print_json(&json!({
            "name": study.name,
            "seeds": study.seeds,
            "evaluate_every": study.evaluate_every,
            "configurations": plans.collect::<Vec<_>>(),
            "out": out.display().to_string(),
        }));
    }
    let (configurations, runs) = (study.configurations.len(), study.configurations.len() * study.seeds.len());
    say!(
        "{}: {}, {}, {}, to {}",
        study.title,
        counted(configurations, "configuration"),
        counted(study.seeds.len(), "seed"),
        counted(runs, "run"),
        out.display()
    );
    let width = study.configurations.iter().map(|named| named.name.chars().count()).max().unwrap_or(0);
    for (index, configuration) in study.configurations.iter().enumerate() {
        let (name, parameters) = (&configuration.name, study.parameters(index));
        let length = match (study.images(index), study.steps(index)) {
            (Some(images), Some(steps)) => format!("{images} images ({})", counted(steps as usize, "step")),
            _ => "as many images as the time allows".to_owned(),
        };
        say!(
            "  {name:width$}  {parameters:>11} parameters, batch {}, {length}",
            configuration.run.train.batch
        );
    }
    let images: Option<u64> = (0..configurations).map(|index| study.images(index)).sum();
    let all =
        images.map_or(String::new(), |images| format!("; {} images in all", images.saturating_mul(seeds)));
    say!("evaluated every {} images{all}", study.evaluate_every);
    Ok(())
}

fn print_outcome(outcome: &Outcome, out: &Path, json: bool) -> anyhow::Result<()> {
    if json {
        return print_json(&serde_json::to_value(outcome)?);
    }
    for line in outcome.markdown.lines().filter(|line| line.starts_with('|')) {
        say!("{line}");
    }
    for row in outcome.configurations.iter().filter(|row| row.diverged > 0) {
        say!("{}: {} diverged", row.configuration, counted(row.diverged, "run"));
    }
    if outcome.interrupted {
        let words: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
        let words: Vec<_> = words.iter().map(|word| quoted(word)).collect();
        say!("stopped after {} of {}", outcome.finished, counted(outcome.runs, "run"));
        say!("continue with: glowflow {}", words.join(" "));
    } else {
        say!("written to {}: {}", out.display(), FILES.join(", "));
    }
    Ok(())
}
