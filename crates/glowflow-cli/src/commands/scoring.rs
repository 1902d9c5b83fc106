//! `eval`, `score` and `info`.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use glowflow::Glow;
use glowflow::evaluate::{Draws, evaluate};
use serde_json::json;

use super::{first_images, print_json, report_broken, say, test_data};
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
    let glow = common.load(args.scoring.precision.into(), &args.model)?;
    let dataset = test_data(&args.data, &args.model, &glow, args.label)?;
    let to: Box<dyn Write> = if args.csv == Path::new("-") {
        Box::new(std::io::stdout())
    } else {
        Box::new(
            std::fs::File::create(&args.csv).with_context(|| format!("creating {}", args.csv.display()))?,
        )
    };
    let mut csv = csv::Writer::from_writer(to);
    let mut failed = None;
    glowflow::evaluate::score(&glow, &dataset, draws(&args.scoring), args.label, |score| {
        if failed.is_none() {
            failed = csv.serialize(score).err();
        }
        Ok(())
    })?;
    if let Some(error) = failed {
        return Err(error).with_context(|| format!("writing {}", args.csv.display()));
    }
    csv.flush().with_context(|| format!("writing {}", args.csv.display()))?;
    report_broken(&dataset);
    Ok(ExitCode::SUCCESS)
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
