//! `eval`, `score` and `info`.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use glowflow::Glow;
use glowflow::evaluate::{Draws, evaluate};
use glowflow_data::Dataset;
use glowflow_report::file;
use serde_json::json;

use super::{check_output, first_images, print_json, report_broken, say, test_data};
use crate::args;

fn draws(scoring: &args::Scoring) -> Draws {
    match scoring.dequantization {
        args::DequantizationArg::Midpoint => Draws::Midpoint,
        args::DequantizationArg::Uniform => Draws::Uniform { draws: scoring.draws, seed: scoring.seed },
    }
}

pub fn eval(args: &args::Eval, common: &args::Common) -> anyhow::Result<ExitCode> {
    let glow = common.load(args.scoring.precision.into(), &args.model)?;
    let dataset = first_images(test_data(&args.data, &args.model, &glow, None)?, args.images)?;
    let evaluation = evaluate(&glow, &dataset, draws(&args.scoring))?;
    report_broken(&dataset);
    if common.json {
        print_json(&serde_json::to_value(evaluation)?)?;
    } else {
        say!("bits/dim       {:.4} ± {:.4}", evaluation.bits_per_dim, evaluation.standard_error);
        say!("images         {}", evaluation.images);
        say!("inverse error  {:.2e}", evaluation.inverse_error);
    }
    Ok(ExitCode::SUCCESS)
}

pub fn score(args: &args::Score, common: &args::Common) -> anyhow::Result<ExitCode> {
    if args.csv != Path::new("-") {
        check_output(&args.csv, &args.model)?;
    }
    let glow = common.load(args.scoring.precision.into(), &args.model)?;
    let dataset = test_data(&args.data, &args.model, &glow, args.label)?;
    if args.csv == Path::new("-") {
        write_scores(&glow, &dataset, args, std::io::stdout())?;
    } else {
        // Only once all is computed: until then the file stays as it is.
        file::replace(&args.csv, &write_scores(&glow, &dataset, args, vec![])?)?;
    }
    report_broken(&dataset);
    Ok(ExitCode::SUCCESS)
}

/// Writes the table of scores, and gives back where it went.
fn write_scores<W: Write>(
    glow: &Glow,
    dataset: &Arc<dyn Dataset>,
    args: &args::Score,
    to: W,
) -> anyhow::Result<W> {
    let mut csv = csv::Writer::from_writer(to);
    let mut failed = None;
    glowflow::evaluate::score(glow, dataset, draws(&args.scoring), args.label, |score| {
        if failed.is_none() {
            failed = csv.serialize(score).err();
        }
        Ok(())
    })?;
    if let Some(error) = failed {
        return Err(error).with_context(|| format!("writing {}", args.csv.display()));
    }
    csv.into_inner().map_err(|e| e.into_error()).with_context(|| format!("writing {}", args.csv.display()))
}

pub fn info(args: &args::Info, common: &args::Common) -> anyhow::Result<ExitCode> {
    let glow = Glow::load(&args.model)?;
    let config = glow.config();
    if common.json {
        print_json(&json!({
            "config": config,
            "parameters": glow.parameters(),
            "latents": config.latent_shapes(),
        }))?;
    } else {
        let [height, width, channels] = config.image;
        say!("image        {height}×{width}×{channels}, {} bits", config.bits);
        say!("levels       {} of {} steps, hidden {}", config.levels, config.steps, config.hidden);
        say!("coupling     {:?}", config.coupling);
        say!("permutation  {:?}", config.permutation);
        say!("classes      {}", config.classes);
        say!("parameters   {}", glow.parameters());
        say!("latents      {:?}", config.latent_shapes());
    }
    Ok(ExitCode::SUCCESS)
}
