//! `eval`, `score` and `info`.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use glowflow::evaluate::{Draws, Inversion, evaluate};
use glowflow::{Glow, data};
use glowflow_data::Dataset;
use glowflow_report::file;
use serde_json::json;

use super::{check_output, class_of, print_json, report_broken, sample_images, say, test_data, watched};
use crate::args;

fn draws(scoring: &args::Scoring) -> Draws {
    match scoring.dequantization {
        args::DequantizationArg::Midpoint => Draws::Midpoint,
        args::DequantizationArg::Uniform => Draws::Uniform { draws: scoring.draws, seed: scoring.seed },
    }
}

pub fn eval(args: &args::Eval, common: &args::Common) -> anyhow::Result<ExitCode> {
    let glow = common.load(args.scoring.precision.into(), &args.model)?;
    let dataset = test_data(&args.data, &args.model, &glow, None)?;
    let dataset = watched(Arc::new(sample_images(dataset, args.images, args.scoring.seed)?));
    let inversion = Inversion { images: args.invert, seed: args.scoring.seed };
    let evaluation = evaluate(&glow, &dataset, draws(&args.scoring), inversion, |_| Ok(()))?;
    report_broken(&dataset);
    if common.json {
        print_json(&serde_json::to_value(evaluation)?)?;
    } else {
        say!("bits/dim       {:.4} ± {:.4}", evaluation.bits_per_dim, evaluation.standard_error);
        say!("images         {}", evaluation.images);
        if evaluation.inverted > 0 {
            let drawn = if evaluation.inverted < evaluation.images { " drawn at random" } else { "" };
            say!("exact          {} of {} images{drawn}", evaluation.exact, evaluation.inverted);
        }
        say!("inverse error  {:.2e}", evaluation.inverse_error);
    }
    Ok(ExitCode::SUCCESS)
}

pub fn score(args: &args::Score, common: &args::Common) -> anyhow::Result<ExitCode> {
    if args.csv != Path::new("-") {
        check_output(&args.csv, &args.model)?;
    }
    let glow = common.load(args.scoring.precision.into(), &args.model)?;
    let label = class_of(args.label.as_deref(), &args.model, &glow)?;
    let mut dataset = test_data(&args.data, &args.model, &glow, label)?;
    // On a terminal the scores themselves are seen to come.
    if args.csv != Path::new("-") || !std::io::stdout().is_terminal() {
        dataset = watched(dataset);
    }
    let write =
        |to: &mut dyn Write| write_scores(&glow, &dataset, draws(&args.scoring), label, common.json, to);
    if args.csv == Path::new("-") {
        write(&mut std::io::stdout())?;
    } else {
        // Only once all is computed: until then the file stays as it is.
        let mut scores = vec![];
        write(&mut scores)?;
        file::replace(&args.csv, &scores)?;
    }
    report_broken(&dataset);
    Ok(ExitCode::SUCCESS)
}

/// Writes the scores as they come, as a table or as a JSON object a line.
fn write_scores(
    glow: &Glow,
    dataset: &Arc<dyn Dataset>,
    draws: Draws,
    label: Option<usize>,
    json: bool,
    to: &mut dyn Write,
) -> anyhow::Result<()> {
    let mut first = true;
    let mut failed = None;
    let scored = glowflow::evaluate::score(glow, dataset, draws, label, |score| {
        let written = if json {
            serde_json::to_string(&score).map_err(Into::into).and_then(|line| writeln!(to, "{line}"))
        } else {
            let mut row = csv::WriterBuilder::new().has_headers(first).from_writer(&mut *to);
            row.serialize(score).map_err(Into::into).and_then(|()| row.flush())
        };
        first = false;
        written.map_err(|error| {
            failed = Some(error);
            glowflow::Error::Input("the scores cannot be written".into())
        })
    });
    match failed {
        Some(error) => Err(error).context("writing the scores"),
        None => Ok(scored?),
    }
}

pub fn info(args: &args::Info, common: &args::Common) -> anyhow::Result<ExitCode> {
    let glow = Glow::load(&args.model)?;
    let config = glow.config();
    let names = data::class_names(&args.model, config);
    if common.json {
        print_json(&json!({
            "config": config,
            "class_names": names,
            "parameters": glow.parameters(),
            "latents": config.latent_shapes(),
        }))?;
    } else {
        let [height, width, channels] = config.image;
        say!("image        {height}×{width}×{channels}, {} bits", config.bits);
        say!("levels       {} of {} steps, hidden {}", config.levels, config.steps, config.hidden);
        say!("coupling     {:?}", config.coupling);
        say!("permutation  {:?}", config.permutation);
        let names = if names.is_empty() { String::new() } else { format!(": {}", names.join(", ")) };
        say!("classes      {}{names}", config.classes);
        say!("parameters   {}", glow.parameters());
        say!("latents      {:?}", config.latent_shapes());
    }
    Ok(ExitCode::SUCCESS)
}
