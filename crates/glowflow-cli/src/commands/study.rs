//! `study`.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, anyhow, bail};
use glowflow::Error;
use glowflow::study::{Budget, Options, Outcome, Overrides, Study, builtin_names, run};
use glowflow_report::progress::Display;
use serde_json::json;

use super::{check_folder_output, check_given_once, counted, print_json, quoted, say, tell};
use crate::{ExitCode, args, signals, words};

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
        // The terminal may have closed.
        return Ok(signals::status());
    }
    printed.map(|()| ExitCode::SUCCESS)
}

/// Loads the study given by the arguments.
fn load(args: &args::Study) -> anyhow::Result<Study> {
    let options = [
        (args.data.is_some(), "--data", "data.path"),
        (args.precision.is_some(), "--precision", "train.precision"),
    ];
    check_given_once(&args.overrides, &options)?;
    let mut set = args.overrides.clone();
    let name = |precision| args::name(args::PRECISIONS, precision);
    set.extend(args.precision.map(|precision| format!("train.precision={}", name(precision))));
    let overrides = Overrides {
        data: args.data.as_deref(),
        seeds: args.seeds.as_deref(),
        budget: args.budget(),
        set: &set,
        arms: args.arms.as_deref(),
        curve: args.curve.as_deref(),
    };
    let names = builtin_names();
    if let Some(name) = names.iter().find(|name| args.study == Path::new(name)) {
        return Ok(Study::builtin(name, args.scale.unwrap_or_default(), overrides)?);
    }
    anyhow::ensure!(args.scale.is_none(), "--scale is for built-in studies only: omit it for a study file");
    anyhow::ensure!(
        args.study.exists(),
        "unknown study {}: give a TOML file, or one of the built-in studies {}",
        args.study.display(),
        names.join(", ")
    );
    Ok(Study::read(&args.study, overrides)?)
}

/// Adds the command to continue if the error came from outside the study.
fn explained(error: Error) -> anyhow::Error {
    match error {
        Error::Io { .. } | Error::Report(_) | Error::Data(glowflow_data::Error::System { .. }) => {
            anyhow!("{error}; once this is fixed, the same command continues the study")
        }
        error => error.into(),
    }
}

/// Prints the planned training runs.
fn print_plan(study: &Study, out: &Path, json: bool) -> anyhow::Result<()> {
    let runs = study.runs();
    let trained: Vec<usize> = (0..study.configurations.len())
        .filter(|index| runs.iter().any(|run| run.configuration == *index))
        .collect();
    let images = runs
        .iter()
        .map(|run| study.images_of(*run))
        .try_fold(0, |sum: u64, images| Some(sum.saturating_add(images?)));
    let flops: Option<f64> = runs
        .iter()
        .map(|run| Some(study.images_of(*run)? as f64 * study.flops_per_image(run.configuration)))
        .sum();
    let minutes = match study.budget {
        Budget::Minutes(minutes) => Some(runs.iter().map(|run| run.multiple * minutes).sum::<f64>()),
        _ => None,
    };
    if json {
        let plans = trained.iter().map(|&index| {
            let images = study.images(index);
            json!({
                "configuration": study.configurations[index].name,
                "parameters": study.parameters(index) as u64,
                "batch": study.configurations[index].run.train.batch,
                "steps": study.steps(index),
                "images": images,
                "multiply_adds": study.multiply_adds(index) as u64,
                "training_flops": images.map(|images| images as f64 * study.flops_per_image(index)),
            })
        });
        return print_json(&json!({
            "name": study.name,
            "seeds": study.seeds,
            "evaluate_every": study.evaluate_every(),
            "configurations": plans.collect::<Vec<_>>(),
            "curve": study.baseline.as_ref().map(|baseline| &baseline.curve),
            "runs": runs.len(),
            "minutes": minutes,
            "training_flops": flops,
            "out": out.display().to_string(),
        }));
    }
    say!(
        "{}: {}, {}, {}, to {}",
        study.title,
        counted(trained.len(), "configuration"),
        counted(study.seeds.len(), "seed"),
        counted(runs.len(), "run"),
        out.display()
    );
    let width =
        trained.iter().map(|&index| study.configurations[index].name.chars().count()).max().unwrap_or(0);
    for index in trained {
        let configuration = &study.configurations[index];
        let (name, parameters) = (&configuration.name, study.parameters(index));
        let length = match (study.images(index), study.steps(index), study.budget) {
            (Some(images), Some(steps), _) => {
                format!("{images} images ({})", counted(steps as usize, "step"))
            }
            (_, _, Budget::Minutes(minutes)) if study.is_calibrated() => {
                format!("{minutes} minutes (steps from its measured speed)")
            }
            _ => "as many images as the time allows".to_owned(),
        };
        let work = study.flops_per_image(index);
        let work = match study.images(index) {
            Some(images) => format!("{:.2e} FLOPs", work * images as f64),
            None => format!("{work:.2e} FLOPs per image"),
        };
        say!(
            "  {name:width$}  {parameters:>11} parameters, batch {}, {length}, {work}",
            configuration.run.train.batch
        );
    }
    if let Some(baseline) = &study.baseline {
        let others = baseline.curve.iter().filter(|&&multiple| multiple != 1.0);
        let others: Vec<_> = others.map(f64::to_string).collect();
        if !others.is_empty() {
            let seeds = baseline.curve_seeds.min(study.seeds.len());
            let (name, others) = (&study.configurations[0].name, others.join(", "));
            say!("  {name} also with {others} times the budget, {}", counted(seeds, "seed"));
        }
    }
    let every = study.evaluate_every().map(|images| format!("evaluated every {images} images"));
    let all = [
        every,
        images.map(|images| format!("{images} images in total")),
        flops.map(|flops| format!("{flops:.2e} FLOPs of training in total")),
        minutes.map(|minutes| format!("{minutes:.0} minutes of training in total, without evaluations")),
    ];
    say!("{}", all.into_iter().flatten().collect::<Vec<_>>().join("; "));
    Ok(())
}

fn print_outcome(outcome: &Outcome, out: &Path, json: bool) -> anyhow::Result<()> {
    if json {
        return print_json(&serde_json::to_value(outcome)?);
    }
    // Prints only the tables, separated by blank lines.
    let is_row = |line: &&str| line.starts_with('|');
    let tables = outcome.markdown.split("\n\n").filter(|part| part.lines().any(|line| is_row(&line)));
    for (number, table) in tables.enumerate() {
        if number > 0 {
            say!("");
        }
        for line in table.lines().filter(is_row) {
            say!("{line}");
        }
    }
    for row in outcome.configurations.iter().filter(|row| row.diverged > 0) {
        say!("{}: {} diverged", row.configuration, counted(row.diverged, "run"));
    }
    if outcome.interrupted {
        let words: Vec<_> = words::arguments().map(|word| quoted(&word).into_owned()).collect();
        say!("stopped after {} of {}", outcome.finished, counted(outcome.runs, "run"));
        say!("continue with: glowflow {}", words.join(" "));
    } else {
        say!("written to {}: {}", out.display(), outcome.files.join(", "));
    }
    Ok(())
}
